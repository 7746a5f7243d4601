"""Which opset a graph is written in, and how it spells nodes that were read from models of older ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from onnx import defs

from nn_meter.ir.graph import Graph, Node, Tensor

_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")

_BECAME_INPUTS: Mapping[str, Mapping[str, int]] = {
    **{name: {"axes": 1} for name in (*(f"Reduce{how}" for how in _REDUCTIONS), "Squeeze", "Unsqueeze")},
    "Clip": {"min": 1, "max": 2},
    "Dropout": {"ratio": 1},
    "Pad": {"pads": 1, "value": 2},
    "Slice": {"starts": 1, "ends": 2, "axes": 3},
    "Split": {"split": 1},
    "TopK": {"k": 1},
}
"""Attributes that models of older opsets have where inputs are today, and which inputs."""

_OF_THE_DATA = frozenset(("max", "min", "ratio", "value"))
"""Those that have the data's element type; the others are whole numbers."""

BASE_OPSET = 21
"""Opset that models are written in, unless one of their operators is younger."""


def is_onnx(domain: str) -> bool:
    """Whether a domain is ONNX's own."""
    return domain in ("", "ai.onnx")


def as_of(node: Node, opset: int, graph: Graph) -> tuple[Node, list[Tensor]]:
    """``node`` as ``opset`` spells it, and the constants that its attributes of older opsets become."""
    older = _BECAME_INPUTS.get(node.op_type, {}) if is_onnx(node.domain) else {}
    known = defs.get_schema(node.op_type, opset).attributes if older else {}
    found = {name: place for name, place in older.items() if name in node.attrs and name not in known}
    if not found:
        return node, []
    inputs = list(node.inputs) + [""] * (max(found.values()) + 1 - len(node.inputs))
    settings = []
    for name, place in found.items():
        value = node.attrs[name]
        dtype = graph.tensors[node.inputs[0]].dtype if name in _OF_THE_DATA else "int64"
        many = tuple(each for each in (value if isinstance(value, tuple) else (value,)) if not isinstance(each, str))
        shape = (len(many),) if isinstance(value, tuple) or name == "k" else ()
        settings.append(Tensor(f"{node.name}/{name}", shape, dtype, True, many))
        inputs[place] = settings[-1].name
    attrs = {name: value for name, value in node.attrs.items() if name not in found}
    return replace(node, inputs=tuple(inputs), attrs=MappingProxyType(attrs)), settings


def opset_for(graph: Graph) -> int:
    """The lowest opset from ``BASE_OPSET`` on that has every operator of ``graph``; the older one that a node asks for,
    where it has each of them with the same attributes and inputs."""
    asked = [each for node in graph.nodes if is_onnx(node.domain) and isinstance(each := node.attrs.get("opset"), int)]
    if asked and all(_known(node, min(asked), graph) for node in graph.nodes if is_onnx(node.domain)):
        return min(asked)
    opset = BASE_OPSET
    for op_type in {node.op_type for node in graph.nodes if is_onnx(node.domain)}:
        if defs.has(op_type) and not defs.has(op_type, opset):
            opset = next(each for each in range(opset + 1, defs.onnx_opset_version() + 1) if defs.has(op_type, each))
    return opset


def _known(node: Node, opset: int, graph: Graph) -> bool:
    if not defs.has(node.op_type, opset):
        return False
    schema, (as_there, _) = defs.get_schema(node.op_type, opset), as_of(node, opset, graph)
    attrs = as_there.attrs.keys() - {"opset"}
    return bool(len(as_there.inputs) <= schema.max_input and attrs <= schema.attributes.keys())
