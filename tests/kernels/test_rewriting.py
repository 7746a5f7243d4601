"""A graph that passes change: who reads what stays right, however many inputs an operator has."""

from __future__ import annotations

import pytest

from nn_meter.ir import Graph, parse
from nn_meter.kernels.rewriting import Work
from nn_meter.kernels.rules import read_rules
from nn_meter.runtimes.base import Options
from nn_meter.runtimes.equals import merge_equals


def gathered(count: int) -> Graph:
    """``count`` equal operators, of each a copy, and one that reads all copies."""
    lines = ["input x: float32[1,4]"]
    lines += [f"a{i} = Sigmoid(x)" for i in range(count)]
    lines += [f"b{i} = Identity(a{i})" for i in range(count)]
    return parse("\n".join([*lines, f"y = Sum({', '.join(f'b{i}' for i in range(count))})", "output y"]))


@pytest.mark.parametrize("count", [3, 300])
def test_all_inputs_of_an_operator_are_swapped_each_in_its_turn(count: int) -> None:
    work = Work(gathered(count))
    (reader,) = work.ops("Sum")
    for op in work.ops("Identity"):
        assert work.bypass(op, "a copy")
    assert reader.inputs == tuple(f"a{i}" for i in range(count))
    work.swap_input(reader, "a1", "a0")
    assert reader.inputs == ("a0", "a0", *(f"a{i}" for i in range(2, count)))
    work.swap_input(reader, "a0", "x")
    assert reader.inputs == ("x", "x", *(f"a{i}" for i in range(2, count)))
    assert not work.readers("a1")
    reader.inputs = (*reader.inputs[:-1], "x")  # as passes do
    work.swap_input(reader, "x", "a1")
    assert reader.inputs == ("a1", "a1", *(f"a{i}" for i in range(2, count - 1)), "a1")


@pytest.mark.parametrize("count", [3, 300])
def test_of_operators_that_compute_the_same_the_first_is_left(count: int) -> None:
    work = Work(gathered(count))
    merge_equals(work, Options(read_rules({}, "none")))
    assert [(op.op_type, op.inputs) for op in work.ops()] == [
        ("Sigmoid", ("x",)),
        ("Identity", ("a0",)),
        ("Sum", ("b0",) * count),
    ]
    assert len(work.free) == 2 * (count - 1)
    assert [op.op_type for op in work.readers("a0")] == ["Identity"]
