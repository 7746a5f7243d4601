"""Quantised networks: kernels that ``fuse`` finds against what ONNX Runtime executes."""

from __future__ import annotations

import pytest
from agreement import Agreement, agreement

from nn_meter.backends.onnxruntime_cpu import OnnxRuntimeCpu
from nn_meter.ir import Graph
from nn_meter.kernels.rules import read_rules
from nn_meter.networks import FAMILIES
from nn_meter.networks.quantised import PRECISIONS
from nn_meter.runtimes.fusion import fuse

pytest.importorskip("onnxruntime")

RULES = read_rules({"runtime": "onnxruntime_cpu"})


def compare(graph: Graph) -> Agreement:
    return agreement(fuse(graph, RULES).kernels, OnnxRuntimeCpu().fused(graph), "onnxruntime_cpu", graph)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", ["residual_bottleneck", "inverted", "dense", "vision_transformer", "encoder"])
def test_quantised_networks_fuse_as_the_runtime_does(family: str, precision: str) -> None:
    found = sum((compare(PRECISIONS[precision](FAMILIES[family](seed))) for seed in range(2)), Agreement(0, 0, 0))
    assert found.precision >= 0.95
    assert found.recall >= 0.95
