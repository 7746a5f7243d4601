"""Graphs that are written anew from others, under the names that these give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from types import MappingProxyType
from typing import Any

from nn_meter.ir import Attr, Graph, Node, Tensor, verify


class Writer:
    """Nodes and tensors of a graph that is written anew, operator by operator."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = dict(graph.tensors)

    def const(
        self, name: str, shape: Sequence[int], dtype: str, value: float | tuple[int, ...] | None = None
    ) -> str:
        """A constant; ``value`` is that of each element, or all of them."""
        values = (value,) * prod(shape) if isinstance(value, int | float) else value
        self.tensors.setdefault(name, Tensor(name, tuple(shape), dtype, const=True, value=values))
        return name

    def op(self, op_type: str, inputs: Sequence[str], out: Tensor, domain: str = "", **attrs: Attr) -> str:
        """An operator of one result, named after it."""
        self.tensors[out.name] = out
        self.nodes.append(
            Node(f"{op_type}:{out.name}", op_type, tuple(inputs), (out.name,), MappingProxyType(attrs), domain)
        )
        return out.name

    def done(self, **ends: Any) -> Graph:
        """The graph, verified; ``ends`` are its ``inputs`` and ``outputs`` where these are others."""
        return verify(replace(self.graph, nodes=tuple(self.nodes), tensors=MappingProxyType(self.tensors), **ends))
