"""What fusing does grows with a graph and not with its square: on every runtime, whatever the graph looks like; and so
do an answer and its page.

Counted are the lines of Python that run, and the bytes that are held, so that nothing depends on the machine.
"""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable, Mapping
from math import log, log10
from types import FrameType
from typing import Any

import pytest
from onnx import NodeProto, TensorProto, helper

from nn_meter import load_latency_predictor
from nn_meter.ir import Graph, GraphBuilder
from nn_meter.kernels.rules import read_rules
from nn_meter.report.html import page
from nn_meter.runtimes import available, find
from nn_meter.runtimes.fusion import fuse
from nn_meter.runtimes.structures import Structures
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


def onnx_chain(count: int) -> bytes:
    kinds = ("Relu", "Sigmoid", "Neg", "Abs")
    return onnx([helper.make_node(kinds[i % 4], [f"t{i}"], [f"t{i + 1}"], name=f"n{i}") for i in range(count)])


def onnx_wide(count: int) -> bytes:
    half = count // 2
    nodes = [helper.make_node("Sigmoid", ["t0"], [f"b{i}"]) for i in range(half)]
    sums = [helper.make_node("Add", [f"s{i - 1}" if i else "t0", f"b{i}"], [f"s{i}"], name="same") for i in range(half)]
    return onnx([*nodes, *sums])


def onnx(nodes: list[NodeProto]) -> bytes:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, IMAGE) for name in ("t0", nodes[-1].output[0])]
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:]), opset_imports=opset)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("make", [onnx_chain, onnx_wide])
def test_what_an_answer_and_its_page_do_grows_with_the_graph(
    make: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even by a logarithm: what more it takes than that is the memory's."""
    monkeypatch.setattr(Structures, "_NODES", 0)  # those of one structure are remembered
    predictor = load_latency_predictor()
    models = [make(count) for count in (200, 2000)]
    calls = (lambda model: predictor.predict(model, "onnx"), lambda model: page([predictor.explain(model, "onnx")]))
    for call in calls:
        for model in models:
            call(model)  # what is learned once is learned
        few, many = (lines_of(lambda call=call, model=model: call(model)) for model in models)  # type: ignore[misc]
        assert log10(many / few) <= 1


BYTES = 1000
"""That a node of a chain takes at most while it is predicted; it took 1,200."""


def test_a_node_takes_few_bytes() -> None:
    """What does not fit into a processor's caches is slower the more there is, so that time would grow faster than a
    graph."""
    count = 10_000
    data = onnx_chain(count)
    predictor = load_latency_predictor()
    predictor.predict(data, "onnx")
    tracemalloc.start()
    try:
        predictor.predict(data, "onnx")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak / count < BYTES
