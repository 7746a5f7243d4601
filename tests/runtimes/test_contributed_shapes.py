"""Shapes of ONNX Runtime's own operators on integers and packed weights: those that it computes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nn_meter.backends.onnxruntime_cpu import OnnxRuntimeCpu
from nn_meter.ir import Graph, GraphBuilder

pytest.importorskip("onnxruntime")

MS = "com.microsoft"


def _scales(b: GraphBuilder, dtype: str = "uint8") -> tuple[str, str]:
    return b.const(0.02, "float32"), b.const(0, dtype)


def _unary(op_type: str, **attrs: int) -> Callable[[GraphBuilder], str]:
    def make(b: GraphBuilder) -> str:
        return b.op(op_type, b.input((2, 3, 4, 5), "uint8"), *_scales(b), *_scales(b), domain=MS, **attrs)

    return make


def _binary(op_type: str) -> Callable[[GraphBuilder], str]:
    def make(b: GraphBuilder) -> str:
        x, y = b.input((2, 3, 4, 5), "uint8"), b.input((3, 1, 5), "uint8")
        return b.op(op_type, x, *_scales(b), y, *_scales(b), *_scales(b), domain=MS)

    return make


def _concat(b: GraphBuilder) -> str:
    x, y = b.input((2, 3, 4), "uint8"), b.input((2, 5, 4), "uint8")
    return b.op("QLinearConcat", *_scales(b), x, *_scales(b), y, *_scales(b), domain=MS, axis=1)


def _where(b: GraphBuilder) -> str:
    x, y = b.input((2, 3, 4), "uint8"), b.input((1, 4), "uint8")
    return b.op("QLinearWhere", b.input((2, 1, 1), "bool"), x, *_scales(b), y, *_scales(b), *_scales(b), domain=MS)


def _gemm(b: GraphBuilder) -> str:
    x, w = b.input((4, 16), "uint8"), b.weight((8, 16), "int8")
    bias = b.weight((8,), "int32")
    return b.op("QGemm", x, *_scales(b), w, *_scales(b, "int8"), bias, *_scales(b), domain=MS, transB=1)


def _gemm_of_floats(b: GraphBuilder) -> str:
    x, w = b.input((4, 16), "uint8"), b.weight((16, 8), "int8")
    return b.op("QGemm", x, *_scales(b), w, *_scales(b, "int8"), domain=MS)


def _to_float(b: GraphBuilder) -> str:
    x, w = b.input((2, 4, 16), "uint8"), b.weight((16, 8), "uint8")
    return b.op("MatMulIntegerToFloat", x, w, b.const(0.02, "float32"), b.const(0.02, "float32"), domain=MS)


def _dynamic(b: GraphBuilder) -> str:
    x, w = b.input((2, 4, 16)), b.weight((16, 8), "int8")
    return b.op("DynamicQuantizeMatMul", x, w, b.const(0.02, "float32"), domain=MS)


def _lstm(b: GraphBuilder) -> str:
    x = b.input((5, 2, 8))
    w, r = b.weight((1, 8, 24), "int8"), b.weight((1, 6, 24), "int8")
    packed = [b.weight((1,)), b.weight((1,), "int8"), b.weight((1,)), b.weight((1,), "int8")]
    return b.op("DynamicQuantizeLSTM", x, w, r, "", "", "", "", "", *packed, domain=MS, hidden_size=6)


def _gather(b: GraphBuilder) -> str:
    table, scales = b.weight((32, 32), "uint8"), b.weight((32, 2))
    indices = b.const((1, 2, 3, 4, 5, 6), "int64", (2, 3))
    return b.op("GatherBlockQuantized", table, indices, scales, domain=MS, bits=4, block_size=32, quantize_axis=1)


def _pool(op_type: str, **attrs: int | tuple[int, ...]) -> Callable[[GraphBuilder], str]:
    def make(b: GraphBuilder) -> str:
        x = b.input((2, 6, 7, 5), "uint8")
        return b.op(op_type, x, *_scales(b), *_scales(b), domain=MS, channels_last=1, **attrs)

    return make


def _batch_between(b: GraphBuilder) -> str:
    x, y = b.input((6, 4, 8)), b.input((4, 8, 3))
    return b.op("FusedMatMul", x, y, domain=MS, transBatchA=1)


CASES: dict[str, Callable[[GraphBuilder], str]] = {
    "QLinearSigmoid": _unary("QLinearSigmoid"),
    "QLinearLeakyRelu": _unary("QLinearLeakyRelu"),
    "QLinearSoftmax": _unary("QLinearSoftmax", axis=1, opset=13),
    "QLinearGlobalAveragePool": _unary("QLinearGlobalAveragePool"),
    "QLinearGlobalAveragePool, channels last": _pool("QLinearGlobalAveragePool"),
    "QLinearAveragePool, channels last": _pool("QLinearAveragePool", kernel_shape=(2, 3), strides=(2, 1)),
    "FusedMatMul, batch between": _batch_between,
    "QLinearAdd": _binary("QLinearAdd"),
    "QLinearMul": _binary("QLinearMul"),
    "QLinearConcat": _concat,
    "QLinearWhere": _where,
    "QGemm": _gemm,
    "QGemm of floats": _gemm_of_floats,
    "MatMulIntegerToFloat": _to_float,
    "DynamicQuantizeMatMul": _dynamic,
    "DynamicQuantizeLSTM": _lstm,
    "GatherBlockQuantized": _gather,
}


def executed(graph: Graph) -> tuple[tuple[int, ...], str]:
    last = next(k for k in OnnxRuntimeCpu().fused(graph) if graph.outputs[0] in k.output_names)
    operand = last.outputs[last.output_names.index(graph.outputs[0])]
    assert operand is not None
    return operand.shape, operand.dtype


@pytest.mark.parametrize("name", CASES)
def test_the_shape_is_the_one_that_the_runtime_computes(name: str) -> None:
    b = GraphBuilder()
    graph = b.graph(CASES[name](b))
    tensor = graph.tensors[graph.outputs[0]]
    assert (tensor.shape, tensor.dtype) == executed(graph)
