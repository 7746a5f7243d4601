"""Networks in other precisions: a float graph as quantisers write it, so that such networks can be measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from nn_meter.ir import Attr, Graph, Node, Tensor
from nn_meter.networks._writer import Writer

_SCALE = 0.02
"""Of every tensor; a bias has that of its operand times that of the weights, else the runtime fuses nothing."""

_WEIGHTED: Mapping[str, tuple[int, int] | None] = MappingProxyType(
    {
        "Conv": (0, 0), "ConvTranspose": (1, 0), "Gemm": (-1, 0), "MatMul": (-1, 0),
        **dict.fromkeys(("BatchNormalization", "InstanceNormalization", "LayerNormalization")),
    }
)
"""Operators whose inputs 1 and 2 are weights and biases, and the axes along which each may have several scales."""

_OPERANDS: Mapping[str, int] = MappingProxyType(
    {"BatchNormalization": 3, "Gather": 1, "Pad": 1, "Resize": 1, "Slice": 1}
)
"""Inputs that are quantised of operators that read settings of floats behind them."""

_INTEGERS = frozenset(
    (
        *_WEIGHTED,
        *("Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "MaxPool", "Softmax", "Where"),
        *("Sigmoid", "LeakyRelu", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Split", "Resize"),
        *("Gather", "Pad", "Slice"),
    )
)
"""Operators that a quantiser puts between DequantizeLinear and QuantizeLinear (``quantization/registry.py`` of ONNX
Runtime 1.32)."""

_CLIPPING = ("Relu", "Clip")


class _Quantiser(Writer):
    """A graph on its way to what ``qdq_int8`` gives; ``floats`` are its tensors behind a DequantizeLinear."""

    def __init__(self, graph: Graph, per_channel: bool, activations: str) -> None:
        super().__init__(graph)
        self.floats: dict[str, str] = {}
        self._per_channel = per_channel
        self._dtype = activations

    def clipped(self, name: str) -> bool:
        """Whether a tensor is quantised behind the Relu or Clip that reads it."""
        maker, readers = self.graph.producer.get(name), self.graph.consumers.get(name, ())
        return (
            maker is not None
            and len(readers) == 1
            and readers[0].op_type in _CLIPPING
            and maker.op_type in _INTEGERS
        )

    def activation(self, name: str) -> str:
        """A tensor of floats between QuantizeLinear and DequantizeLinear."""
        tensor = self.graph.tensors[name]
        if name in self.floats or tensor.dtype != "float32" or self.clipped(name):
            return self.floats.get(name, name)
        maker = self.graph.producer.get(name)
        least = 0 if self._dtype == "uint8" else -128
        zero = least + (0 if maker is not None and maker.op_type in _CLIPPING else 128)
        scales = [
            self.const(f"{name}_scale", (), "float32", _SCALE),
            self.const(f"{name}_zero_point", (), self._dtype, zero),
        ]
        quantised = Tensor(f"{name}_quantized", tensor.shape, self._dtype)
        if tensor.const:
            source = self.const(quantised.name, tensor.shape, self._dtype)
        else:
            source = self.op("QuantizeLinear", [name, *scales], quantised)
        out = replace(tensor, name=f"{name}_dequantized", value=None)
        self.floats[name] = self.op("DequantizeLinear", [source, *scales], out)
        return self.floats[name]

    def weight(self, name: str, dtype: str, axis: int | None) -> str:
        """Weights or biases behind a DequantizeLinear; without ``axis`` with one scale."""
        if name not in self.floats:
            tensor = self.graph.tensors[name]
            along = axis if self._per_channel else None
            shape = () if along is None else tensor.shape[along : along + 1]
            scale = _SCALE if dtype == "int8" else _SCALE * _SCALE
            inputs = [
                self.const(f"{name}_quantized", tensor.shape, dtype),
                self.const(f"{name}_scale", shape, "float32", scale),
                self.const(f"{name}_zero_point", shape, dtype, 0),
            ]
            out = replace(tensor, name=f"{name}_dequantized", value=None)
            self.floats[name] = self.op("DequantizeLinear", inputs, out, axis=1 if along is None else along)
        return self.floats[name]

    def operands(self, node: Node) -> tuple[str, ...]:
        """What an operator on integers reads."""
        inputs = list(node.inputs)
        for place, name in enumerate(inputs):
            tensor = self.graph.tensors.get(name)
            if tensor is None or tensor.dtype != "float32":
                continue
            if tensor.const and node.op_type in _WEIGHTED and place in (1, 2):
                axes = _WEIGHTED[node.op_type]
                axis = None if axes is None else 0 if node.attrs.get("transB") else axes[place - 1] % len(tensor.shape)
                inputs[place] = self.weight(name, "int8" if place == 1 else "int32", axis)
            elif place < _OPERANDS.get(node.op_type, place + 1):
                inputs[place] = self.activation(name)
        return tuple(inputs)


def qdq_int8(graph: Graph, *, per_channel: bool = True, activations: str = "uint8") -> Graph:
    """``graph`` as a static quantiser writes it: ``activations`` of uint8 or int8, int8 weights with a scale for each
    channel or one for all, int32 biases, each between QuantizeLinear and DequantizeLinear."""
    writer = _Quantiser(graph, per_channel, activations)
    for node in graph.nodes:
        if node.op_type in _INTEGERS:
            inputs = writer.operands(node)
            writer.nodes.append(replace(node, inputs=inputs))
            for out in filter(None, node.outputs):
                writer.activation(out)
        elif node.op_type in _CLIPPING and node.inputs[0] in graph.producer and writer.clipped(node.inputs[0]):
            writer.nodes.append(node)
            writer.activation(node.outputs[0])
        else:
            writer.nodes.append(replace(node, inputs=tuple(writer.floats.get(i, i) for i in node.inputs)))
    outputs = tuple(writer.floats.get(name, name) for name in graph.outputs)
    return replace(writer.done(), outputs=outputs)


def _scaled(writer: Writer, whole: str, out: Tensor, scale: str, weight: str, bias: str) -> None:
    """A product of integers as floats: the scales multiplied, and the bias added."""
    floats = writer.op("Cast", [whole], replace(out, name=f"{out.name}_cast"), to=1)
    shape = writer.tensors[weight].shape
    factor = writer.op("Mul", [scale, weight], Tensor(f"{out.name}_scales", shape))
    result = out if not bias else replace(out, name=f"{out.name}_scaled")
    writer.op("Mul", [floats, factor], result)
    if bias:
        writer.op("Add", [result.name, bias], out)


def dynamic_int8(graph: Graph, *, dtype: str = "int8") -> Graph:
    """``graph`` as a dynamic quantiser writes it: DynamicQuantizeLinear before ConvInteger and MatMulInteger with
    weights of type ``dtype``, their results scaled, and biases added, behind. Convolutions of int8 weights, which ONNX
    Runtime refuses, stay in floats."""
    taken = ("Conv", "MatMul") if dtype == "uint8" else ("MatMul",)
    writer = Writer(graph)
    done: set[str] = set()
    for node in graph.nodes:
        weight = graph.tensors.get(node.inputs[1]) if len(node.inputs) > 1 else None
        plain = node.op_type in taken and weight is not None and weight.const
        if not plain or weight is None or weight.dtype != "float32" or graph.tensors[node.inputs[0]].const:
            writer.nodes.append(node)
            continue
        x, out = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]
        parts = [f"{x.name}_quantized", f"{x.name}_scale", f"{x.name}_zero_point"]
        if x.name not in done:
            done.add(x.name)
            for name, shape, kind in zip(parts, (x.shape, (), ()), ("uint8", "float32", "uint8"), strict=True):
                writer.tensors[name] = Tensor(name, shape, kind)
            writer.nodes.append(Node(f"quantize:{x.name}", "DynamicQuantizeLinear", (x.name,), tuple(parts)))
        w = [
            writer.const(f"{weight.name}_quantized", weight.shape, dtype),
            writer.const(f"{weight.name}_zero_point", (), dtype, 128 if dtype == "uint8" else 0),
        ]
        scale = writer.const(f"{weight.name}_scale", (), "float32", _SCALE)
        whole = Tensor(f"{out.name}_whole", out.shape, "int32")
        writer.tensors[whole.name] = whole
        inputs = (parts[0], w[0], parts[2], w[1])
        writer.nodes.append(replace(node, op_type=f"{node.op_type}Integer", inputs=inputs, outputs=(whole.name,)))
        bias = node.inputs[2] if node.op_type == "Conv" and len(node.inputs) > 2 else ""
        if bias:
            shape = (1, graph.tensors[bias].size, *(1,) * (len(out.shape) - 2))
            bias = writer.const(f"{bias}_reshaped", shape, "float32")
        _scaled(writer, whole.name, out, parts[1], scale, bias)
    return writer.done()


def packed_weights(graph: Graph, *, bits: int = 4, block: int = 32, level: int = 0, zeros: bool = False) -> Graph:
    """``graph`` with the constant matrices of its products in ``bits`` each, a scale, and with ``zeros`` a zero point,
    for each block along a column; ``level`` is the accuracy that is asked for."""
    writer = Writer(graph)
    for node in graph.nodes:
        weight = graph.tensors.get(node.inputs[1]) if node.op_type == "MatMul" else None
        if weight is None or not weight.const or weight.dtype != "float32" or len(weight.shape) != 2:
            writer.nodes.append(node)
            continue
        rows, columns = weight.shape
        blocks = -(-rows // block)
        inputs = [
            node.inputs[0],
            writer.const(f"{weight.name}_q4", (columns, blocks, block * bits // 8), "uint8"),
            writer.const(f"{weight.name}_scales", (columns, blocks), "float32"),
        ]
        if zeros:
            inputs.append(writer.const(f"{weight.name}_zeros", (columns, -(-blocks * bits // 8)), "uint8"))
        out = graph.tensors[node.outputs[0]]
        attrs: dict[str, Attr] = {"K": rows, "N": columns, "bits": bits, "block_size": block, "accuracy_level": level}
        writer.op("MatMulNBits", inputs, out, "com.microsoft", **attrs)
    return writer.done()


PRECISIONS: Mapping[str, Callable[[Graph], Graph]] = MappingProxyType(
    {
        "qdq_int8": qdq_int8,
        "qdq_int8_tensor": partial(qdq_int8, per_channel=False),
        "qdq_int8_signed": partial(qdq_int8, activations="int8"),
        "qdq_int8_signed_tensor": partial(qdq_int8, per_channel=False, activations="int8"),
        "dynamic_int8": dynamic_int8,
        "dynamic_uint8": partial(dynamic_int8, dtype="uint8"),
        "int4_weights": packed_weights,
        "int4_weights_zeros": partial(packed_weights, zeros=True),
        "int4_weights_int8": partial(packed_weights, level=4),
        "int4_weights_int8_zeros": partial(packed_weights, level=4, zeros=True),
        "int4_weights_wide": partial(packed_weights, block=128, level=4, zeros=True),
        "int8_weights": partial(packed_weights, bits=8, level=4),
    }
)
"""What a float graph can be written in, by name: as quantisers write it by default, and with what users ask of them."""
