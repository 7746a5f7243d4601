"""The fusion test cases: complete, drawable, and what they name is what the fusion rules read."""

from __future__ import annotations

import pytest

from nn_meter.detection.testcases import BASIC, CASES, CHAINS, MON, TODAY, FusionCase, Sizes, draw, pair
from nn_meter.errors import RuleError
from nn_meter.ir.graph import verify
from nn_meter.kernels.rules import read_rules

SMALL = Sizes(hw=8, cin=4, cout=6, length=12, tokens=5)


def test_nn_meters_pairs_are_all_there() -> None:
    names = [case.name for case in BASIC]
    assert len(names) == len(set(names)) == 79
    assert names[0] == "BF_add_add"
    assert names[-1] == "BF_se_relu"
    assert len(CASES) == len(BASIC) + 1 + len(CHAINS) + len(TODAY)


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_every_case_is_drawn(case: FusionCase) -> None:
    for graph in case.graphs(SMALL).values():
        verify(graph)


@pytest.mark.parametrize("case", [*BASIC, *CHAINS, *TODAY], ids=lambda case: case.name)
def test_the_block_holds_what_the_parts_hold(case: FusionCase) -> None:
    def operators(*graphs: object) -> list[str]:
        return sorted(node.op_type for graph in graphs for node in graph.nodes)  # type: ignore[attr-defined]

    first, second, block = case.first(SMALL), case.second(SMALL), case.block(SMALL)
    assert operators(first, second) == operators(block)
    assert [block.tensors[name].shape for name in block.outputs] == [
        second.tensors[name].shape for name in second.outputs
    ]


def test_a_chain_waits_for_the_rule_of_its_beginning() -> None:
    assert CASES["BF_conv_bn_relu"].requires == {"BF_conv_bn": True}
    assert CASES["BF_conv_relu"].requires == {}
    assert all(name in CASES for case in CASES.values() for name in case.requires)


def test_two_of_a_kind_are_told_apart() -> None:
    assert list(CASES["BF_relu_relu"].graphs(SMALL)) == ["relu_1", "relu_2", "block"]


def test_a_pair_with_a_dense_layer_is_tried_on_a_vector() -> None:
    assert pair("fc", "relu").block(SMALL).tensors["input_0"].shape == (1, 12)
    assert pair("conv", "relu").block(SMALL).tensors["input_0"].shape == (1, 4, 8, 8)


def test_a_shared_producer_has_every_outcome() -> None:
    assert set(MON.graphs(SMALL)) == {
        "block", "relu_relu", "relu_dwconv", "dwconv", "dwconv_relu_relu", "dwconv_relu",
    }  # fmt: skip
    assert len(MON.block(SMALL).outputs) == 2
    assert set(MON.outcomes) == set(MON.obeys)


def test_the_rules_that_cases_decide_can_be_read() -> None:
    rules = read_rules({name: {"obey": True} for name in CASES})
    assert rules.warnings == ()
    assert rules.fuses("conv", "Gelu")


def test_an_operator_nobody_knows_is_refused() -> None:
    with pytest.raises(RuleError, match="no operator 'warp'; there are conv, "):
        draw(("conv", "warp"), (1, 4, 8, 8), SMALL)
