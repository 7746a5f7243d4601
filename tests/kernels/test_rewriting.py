"""A graph that passes change: who reads what, and where, stays right."""

from __future__ import annotations

import random

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


def test_all_inputs_of_an_operator_are_swapped_each_in_its_turn() -> None:
    work = Work(gathered(5))
    (reader,) = work.ops("Sum")
    for op in work.ops("Identity"):
        assert work.bypass(op, "a copy")
    assert reader.inputs == ["a0", "a1", "a2", "a3", "a4"]
    work.swap_input(reader, "a1", "a0")
    assert reader.inputs == ["a0", "a0", "a2", "a3", "a4"]
    assert not work.readers("a1")
    work.swap_input(reader, "a0", "x")
    assert reader.inputs == ["x", "x", "a2", "a3", "a4"]
    work.turn(reader, 1, 2)
    assert reader.inputs == ["x", "a2", "x", "a3", "a4"]
    work.swap_place(reader, 0, "a4")
    assert reader.inputs == ["a4", "a2", "x", "a3", "a4"]
    assert work.only_reader("a3") is reader
    assert work.only_reader("a4") is None, "it is read twice"
    work.swap_input(reader, "a4", "x")
    assert reader.inputs == ["x", "a2", "x", "a3", "x"]


@pytest.mark.parametrize("seed", range(20))
def test_readers_and_their_places_are_those_of_the_inputs_whatever_was_swapped(seed: int) -> None:
    """Beside a count made anew of all inputs, after each of a thousand changes."""
    draw = random.Random(seed)
    names = [f"a{i}" for i in range(4)]
    lines = ["input x: float32[1,4]", *(f"{name} = Sigmoid(x)" for name in names)]
    lines += [f"s{i} = Sum({', '.join(draw.choices(names, k=1 + 3 * i))})" for i in range(4)]
    work = Work(parse("\n".join([*lines, "output s0", "output s1", "output s2", "output s3"])))
    sums = list(work.ops("Sum"))
    for _ in range(1000):
        op, name, place = draw.choice(sums), draw.choice(names), draw.randrange(100)
        place %= len(op.inputs)
        wanted = list(op.inputs)
        match draw.choice(("input", "place", "turn")):
            case "input":
                wanted = [name if each == op.inputs[place] else each for each in wanted]
                work.swap_input(op, op.inputs[place], name)
            case "place":
                wanted[place] = name
                work.swap_place(op, place, name)
            case "turn":
                wanted[0], wanted[place] = wanted[place], wanted[0]
                work.turn(op, 0, place)
        assert [*op.inputs] == wanted
        for name in names:
            counts = {each: each.inputs.count(name) for each in sums if name in each.inputs}
            assert {each: len(work.places(each, name)) for each in work.readers(name)} == counts
            assert all(each.inputs[at] == name for each in counts for at in work.places(each, name))
            assert work.only_reader(name) is (next(iter(counts)) if sum(counts.values()) == 1 else None)


def test_of_operators_that_compute_the_same_the_first_is_left() -> None:
    work = Work(gathered(5))
    merge_equals(work, Options(read_rules({}, "none")))
    assert [(op.op_type, *op.inputs) for op in work.ops()] == [
        ("Sigmoid", "x"),
        ("Identity", "a0"),
        ("Sum", *["b0"] * 5),
    ]
    assert len(work.free) == 8
    assert [op.op_type for op in work.readers("a0")] == ["Identity"]
