"""What fusing does grows with a graph and not with its square: on every runtime, whatever the graph looks like.

Counted are the lines of Python that run, so that nothing depends on the machine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from math import log
from types import FrameType
from typing import Any

import pytest

from nn_meter.ir import Graph, GraphBuilder
from nn_meter.kernels.rules import read_rules
from nn_meter.runtimes import available, find
from nn_meter.runtimes.fusion import fuse
from nn_meter.runtimes.tflite import GPU_RULES

SIZES = (24, 96)
MOST = 1.1
"""Of exponents; a square has 2."""

Make = Callable[[GraphBuilder, str, int], str]
IMAGE = (1, 8, 4, 4)


def scaled(b: GraphBuilder, x: str) -> str:
    return b.op("Add", x, b.weight((8, 1, 1)))


def convolved(b: GraphBuilder, x: str) -> str:
    return b.op("Conv", x, b.weight((8, 8, 1, 1)))


def each_follows(step: Callable[[GraphBuilder, str], str]) -> Make:
    def make(b: GraphBuilder, x: str, count: int) -> str:
        for _ in range(count):
            x = step(b, x)
        return x

    return make


def all_read_one(step: Callable[[GraphBuilder, str], str], join: Callable[[GraphBuilder, list[str]], str]) -> Make:
    def make(b: GraphBuilder, x: str, count: int) -> str:
        x = b.op("Relu", x)
        return join(b, [step(b, x) for _ in range(count)])

    return make


def one_by_one(b: GraphBuilder, names: list[str]) -> str:
    total, *more = names
    for name in more:
        total = b.op("Add", total, name)
    return total


def turned_and_back(b: GraphBuilder, x: str) -> str:
    return b.op("Transpose", b.op("Relu", b.op("Transpose", x, perm=(0, 2, 3, 1))), perm=(0, 3, 1, 2))


def read_aside(b: GraphBuilder, x: str, count: int) -> str:
    beside = []
    for _ in range(count):
        x = scaled(b, x)
        beside.append(b.op("Softmax", x))
    return b.op("Concat", *beside, axis=1)


def parts(b: GraphBuilder, x: str, count: int) -> str:
    wide = b.op("Concat", *[x] * count, axis=1)
    return b.op("Concat", *(b.op("Relu", part) for part in b.multi("Split", [wide], 8 * count, axis=1)), axis=1)


def gathered(b: GraphBuilder, x: str, count: int) -> str:
    wide = b.op("Concat", *[x] * count, axis=1)
    return b.op("Concat", *(b.op("Gather", wide, b.const((i,)), axis=1) for i in range(8 * count)), axis=1)


def residuals_of_one(b: GraphBuilder, x: str, count: int) -> str:
    first = x = convolved(b, x)
    for _ in range(count):
        x = b.op("Add", convolved(b, x), first)
    return x


GRAPHS: Mapping[str, Make] = {
    "a chain that is one kernel": each_follows(scaled),
    "a chain of convolutions": each_follows(lambda b, x: b.op("Relu", convolved(b, x))),
    "steps between transposes": each_follows(turned_and_back),
    "views of views": each_follows(lambda b, x: b.op("Reshape", b.op("Reshape", x, b.const((1, 128))), b.const(IMAGE))),
    "sums with one": residuals_of_one,
    "readers of one, summed by pairs": all_read_one(scaled, one_by_one),
    "readers of one, summed at once": all_read_one(scaled, lambda b, names: b.op("Sum", *names)),
    "convolutions of one, concatenated": all_read_one(convolved, lambda b, names: b.op("Concat", *names, axis=1)),
    "results that others read, too": read_aside,
    "parts": parts,
    "gathered parts": gathered,
}
RULES: Mapping[str, Mapping[str, Any]] = {
    **{name: {"runtime": name} for name in available() if name != "nn-meter"},
    "tflite_gpu": GPU_RULES,
    "all that may be shared": {**GPU_RULES, "runtime": "rules", "MON": {"obey": True}},
}


def graph(make: Make, count: int) -> Graph:
    b = GraphBuilder("g")
    return b.graph(make(b, b.input(IMAGE), count))


def lines_of(call: Callable[[], object]) -> int:
    count = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("runtime", RULES)
@pytest.mark.parametrize("name", GRAPHS)
def test_what_fusing_does_grows_with_the_graph(name: str, runtime: str) -> None:
    rules = read_rules(RULES[runtime])
    models = [graph(GRAPHS[name], count) for count in SIZES]
    few, many = (lines_of(lambda model=model: fuse(model, rules, find(rules.runtime))) for model in models)  # type: ignore[misc]
    nodes = len(models[1].nodes) / len(models[0].nodes)
    assert log(many / few) / log(nodes) <= MOST
