"""The networks of NAS-Bench-201 by the names of their cells."""

from __future__ import annotations

import pytest

from nn_meter.errors import ModelError
from nn_meter.ir.size import model_size
from nn_meter.networks.nasbench201 import network

FULL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def test_the_largest_has_the_multiply_adds_that_the_benchmark_says() -> None:
    # 220.12 M for CIFAR-10, says the benchmark
    assert model_size(network(FULL)).multiply_adds == pytest.approx(220.12e6, rel=0.01)


def test_edges_without_an_operator_cost_nothing() -> None:
    one = network("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|")
    assert sum(node.op_type == "Conv" for node in one.nodes) == 1 + 3 * 5 + 2 * 3
    nothing = network("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    assert sum(node.op_type == "Conv" for node in nothing.nodes) == 1 + 2 * 3


@pytest.mark.parametrize("name", ["resnet18", "|sep_conv_3x3~0|", "|nor_conv_3x3~1|"])
def test_what_is_no_cell_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="no cell"):
        network(name)
