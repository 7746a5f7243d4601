"""How large a model is: its parameters, the multiply-adds of one inference, and the memory that it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, prod
from types import MappingProxyType

from nn_meter.ir.graph import Graph, Node, Tensor

_BITS: Mapping[str, int] = MappingProxyType(
    {
        "complex128": 128, "complex64": 64, "float64": 64, "int64": 64, "uint64": 64, "float32": 32, "int32": 32,
        "uint32": 32, "float16": 16, "bfloat16": 16, "int16": 16, "uint16": 16, "int4": 4, "uint4": 4,
        "float4e2m1": 4, "int2": 2, "uint2": 2,
    }
)  # fmt: skip
"""Bits of an element, where they are not eight."""

_SHAPE_DTYPES = frozenset({"int64", "bool"})
"""Constants of these are shapes, axes and masks, no parameters."""

_VIEWS = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators whose result lies where their first input does."""


@dataclass(frozen=True, slots=True)
class ModelSize:
    """``multiply_adds`` of convolutions, matrix products and recurrent layers; each counts once.

    ``peak_bytes`` is the most that inputs, outputs and values between nodes take at one time when nodes run in the
    graph's order, one at a time, and a value is given up after its last reader. Weights come on top, and so does what
    a runtime needs for itself.
    """

    parameters: int
    multiply_adds: int
    weight_bytes: int
    peak_bytes: int


def model_size(graph: Graph) -> ModelSize:
    """The size of ``graph``."""
    constants = {name for name, tensor in graph.tensors.items() if tensor.const and tensor.dtype not in _SHAPE_DTYPES}
    read = {name for node in graph.nodes for name in node.inputs if name in constants} if constants else set()
    read.difference_update(name for node in graph.nodes if read for name in node.outputs)
    weights = [graph.tensors[name] for name in read]
    return ModelSize(
        sum(tensor.size for tensor in weights),
        sum(multiply_adds(graph, node) for node in graph.nodes if node.op_type in _MULTIPLY_ADDS),
        sum(map(tensor_bytes, weights)),
        _peak_bytes(graph),
    )


def tensor_bytes(tensor: Tensor) -> int:
    """Bytes of all elements, the last byte filled up; a text counts one byte."""
    return ceil(tensor.size * _BITS.get(tensor.dtype, 8) / 8)


def multiply_adds(graph: Graph, node: Node) -> int:
    """Of one node; 0 for an operator that has no row, for what does not depend on the model's inputs, and for what has
    not the dimensions of its operator: nn-Meter's files state shapes that nothing checked."""
    count = _MULTIPLY_ADDS.get(node.op_type)
    if count is None or graph.output_tensors(node)[0].const:
        return 0
    try:
        return count(graph, node)
    except (LookupError, ValueError):
        return 0


def _shape(graph: Graph, node: Node, index: int) -> tuple[int, ...]:
    return graph.tensors[node.inputs[index]].shape


def _out(graph: Graph, node: Node) -> int:
    return graph.output_tensors(node)[0].size


def _conv(weight: int) -> Callable[[Graph, Node], int]:
    """Each output is a sum over one filter: shape (output channels, input channels of a group, kernel)."""
    return lambda graph, node: _out(graph, node) * prod(_shape(graph, node, weight)[1:])


def _conv_transpose(graph: Graph, node: Node) -> int:
    """Each input goes into one filter: shape (input channels, output channels of a group, kernel)."""
    return prod(_shape(graph, node, 0)) * prod(_shape(graph, node, 1)[1:])


def _product(graph: Graph, node: Node) -> int:
    """Each output is a sum over the first operand's last axis."""
    left = _shape(graph, node, 0)
    return _out(graph, node) * (left[-1] if left else 1)


def _gemm(graph: Graph, node: Node) -> int:
    left = _shape(graph, node, 0)
    return _out(graph, node) * left[0 if node.attrs.get("transA") else 1]


def _recurrent(graph: Graph, node: Node) -> int:
    """Each of the sequence's vectors, and each hidden state, meets the weights (directions, gates, features)."""
    length, batch, *_ = _shape(graph, node, 0)
    return length * batch * (prod(_shape(graph, node, 1)) + prod(_shape(graph, node, 2)))


_MULTIPLY_ADDS: Mapping[str, Callable[[Graph, Node], int]] = MappingProxyType(
    {
        "Conv": _conv(1), "ConvInteger": _conv(1), "QLinearConv": _conv(3), "ConvTranspose": _conv_transpose,
        "MatMul": _product, "MatMulInteger": _product, "QLinearMatMul": _product, "Gemm": _gemm,
        "LSTM": _recurrent, "GRU": _recurrent, "RNN": _recurrent,
    }
)  # fmt: skip


def _peak_bytes(graph: Graph) -> int:
    """In one walk over the nodes: what lies far apart costs more to come back to than to look at."""
    end = len(graph.nodes)
    places: dict[str, int] = {}  # one for each value, but for views that of what they look at
    sizes: list[int] = []  # of places; 0 of what takes none beside the weights
    last: list[int] = []  # of places, the node that reads them last
    made, freed = [0] * (end + 1), [0] * (end + 1)  # bytes by nodes

    def placed(name: str, size: int, until: int) -> int:
        sizes.append(size)
        last.append(until)
        return places.setdefault(name, len(sizes) - 1)

    for name in dict.fromkeys(graph.inputs):
        placed(name, tensor_bytes(graph.tensors[name]), end)
    now = peak = sum(sizes)
    for index, node in enumerate(graph.nodes):
        for name in node.inputs:
            place = places.get(name)
            if place is None:
                placed(name, 0, index)
            else:
                last[place] = index
        viewed = node.inputs[0] if node.inputs and node.op_type in _VIEWS else ""
        for name in filter(None, node.outputs):
            if viewed:
                places[name] = places[viewed]
            elif not (tensor := graph.tensors[name]).const:
                size = tensor_bytes(tensor)
                made[index] += size
                place = places.get(name)
                if place is None:
                    placed(name, size, index)
                else:  # read before, in a graph whose nodes stand in another order than they run in
                    sizes[place], last[place] = size, index
    for name in graph.outputs:
        if name in places:
            last[places[name]] = end
    for size, until in zip(sizes, last, strict=True):
        freed[until] += size
    for index in range(end):
        now += made[index]
        peak = max(peak, now)
        now -= freed[index]
    return peak
