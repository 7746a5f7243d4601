"""Operators without a kernel in ONNX Runtime run as those that ONNX defines them by: ours are the executed ones."""

from __future__ import annotations

from collections import Counter

import pytest

from nn_meter.backends.onnxruntime_cpu import OnnxRuntimeCpu
from nn_meter.ir import Graph, GraphBuilder
from nn_meter.kernels.rules import read_rules
from nn_meter.runtimes.fusion import fuse
from nn_meter.runtimes.onnxruntime.functions import FUNCTIONS

pytest.importorskip("onnxruntime")

RULES = read_rules({"runtime": "onnxruntime_cpu"})
MAP = (2, 8, 6, 6)


def _graph(op_type: str) -> Graph:
    b = GraphBuilder(op_type)
    x = b.input(MAP)
    if op_type == "GroupNormalization":
        return b.graph(b.op(op_type, x, b.weight((8,)), b.weight((8,)), num_groups=4))
    if op_type == "CastLike":
        return b.graph(b.op(op_type, x, b.weight((1,), "float16")))
    if op_type == "CenterCropPad":
        return b.graph(b.op(op_type, x, b.const((5, 7)), axes=(2, 3)))
    if op_type.endswith("Loss"):
        return b.graph(b.op(op_type, b.input((4, 10, 3)), b.input((4, 3), "int64")))
    return b.graph(b.op(op_type, x))


@pytest.mark.parametrize("op_type", FUNCTIONS)
def test_the_kernels_of_a_function_are_those_that_are_executed(op_type: str) -> None:
    graph = _graph(op_type)
    executed = Counter(kernel.op_type for kernel in OnnxRuntimeCpu().fused(graph))
    ours = [kernel for kernel in fuse(graph, RULES).kernels if kernel.kind != "free"]
    if op_type == "SoftmaxCrossEntropyLoss":  # the runtime has two that cancel, around a LogSoftmax
        executed["Transpose"] = 2
    assert Counter(kernel.label for kernel in ours) == executed
    assert [node for kernel in ours for node in kernel.nodes] == [graph.nodes[0].name]
