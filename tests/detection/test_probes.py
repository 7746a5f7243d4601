"""Probes of fusion cases: what each holds, and that only what it is for differs."""

from __future__ import annotations

from collections import Counter

import pytest

from nn_meter.detection.cases import CASES, Case
from nn_meter.detection.decision import SAVINGS
from nn_meter.detection.drawings import Sizes
from nn_meter.detection.probes import UNITS, copies, inserted, probes, tapped, unit_probes
from nn_meter.ir.graph import Graph, verify

SIZES = Sizes(hw=16, cin=16, cout=16, length=64, tokens=32, rows=4, pool_strides=1)


def operators(graph: Graph) -> Counter[str]:
    return Counter(node.op_type for node in graph.nodes)


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_probes_that_are_held_against_each_other_hold_the_same_operators(case: Case) -> None:
    found = probes(case, SIZES)
    for graph in found.values():
        verify(graph)
        assert {graph.consumers[name][0].op_type for name in graph.inputs} <= {"AveragePool", "Softmax", "Max"}
        assert {graph.producer[name].op_type for name in graph.outputs} <= {"GlobalMaxPool", "ReduceMax"}
    kept = {"GlobalMaxPool": "ReduceMax", "AveragePool": "Softmax", "Max": "Softmax"}
    """A barrier or a reader on a value of another rank is another operator."""
    for more, less, control_more, control_less in SAVINGS.values():
        if more not in found:
            continue
        for one, other in ((more, less), (control_more, control_less)):
            held, against = (
                Counter(kept.get(node.op_type, node.op_type) for node in found[name].nodes) for name in (one, other)
            )
            assert held == against
            assert len(found[one].outputs) == len(found[other].outputs)
        assert len(found[more].inputs) == len(found[control_more].inputs)


def test_a_value_with_several_readers_gets_no_other() -> None:
    assert set(probes(CASES["MON"], SIZES)) == {"apb", "pab", "apq", "paq", "ap", "p"}


def test_a_barrier_stands_before_every_reader_and_a_tap_beside_them() -> None:
    block = CASES["MON"].block(SIZES)
    between = CASES["MON"].between(SIZES)
    assert [node.op_type for node in inserted(block, between, "p").consumers[between]] == ["AveragePool"]
    read_by = [node.op_type for node in tapped(block, between).consumers[between]]
    assert sorted(read_by) == ["GlobalMaxPool", "LeakyRelu", "Relu"]


def test_units_are_activations_between_barriers() -> None:
    found = unit_probes(SIZES)
    assert operators(found["units"]) - operators(found["frame"]) == {"Relu": UNITS}
    for node in found["units"].nodes:
        if node.op_type == "Relu":
            assert found["units"].producer[node.inputs[0]].op_type == "AveragePool"


def test_copies_share_nothing() -> None:
    graph = probes(CASES["BF_conv_add"], SIZES)["pab"]
    three = verify(copies(graph, 3))
    assert operators(three) == {name: 3 * count for name, count in operators(graph).items()}
    assert len(three.inputs) == 3 * len(graph.inputs)
    assert len(three.outputs) == 3
    readers = {index: {node.name for node in three.nodes if node.name.endswith(f":{index}")} for index in range(3)}
    for index, names in readers.items():
        ends = {name.rsplit(":", 1)[1] for node in three.nodes if node.name in names for name in node.inputs}
        assert ends == {str(index)}
