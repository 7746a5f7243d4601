"""Frozen graph, node and tensor, and the check that they belong together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from nn_meter.errors import GraphError
from nn_meter.ir.frozen import quickly_made

Attr = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]
"""An attribute's value; what is neither number, text nor a tuple of them stays out of the graph."""

NO_ATTRS: Mapping[str, Attr] = MappingProxyType({})


def _no_attrs() -> Mapping[str, Attr]:
    return NO_ATTRS


@quickly_made
@dataclass(frozen=True, slots=True)
class Tensor:
    """A value that flows between nodes.

    ``shape`` is logical (NCHW) and complete: every dimension is known. ``dtype`` is numpy's name of the
    element type, or ``int4``, ``uint4``, ``bfloat16``, ``float8e4m3fn`` ... as ONNX names them. ``const`` says
    that the value does not depend on the model's inputs (a weight, or computed from constants only).
    ``value`` holds the elements, row-major, of a constant small enough to matter for shapes.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    const: bool = False
    value: tuple[int | float, ...] | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for dim in self.shape:
            size *= dim
        return size


@quickly_made
@dataclass(frozen=True, slots=True)
class Node:
    """One operator. ``inputs`` and ``outputs`` name tensors; ``""`` stands for an optional one left out.

    ``domain`` is empty for ONNX's own operators. ``origin`` is the operator as the source names it, where
    that differs (``BiasAdd`` for an ``Add``).
    """

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Attr] = field(default_factory=_no_attrs)
    domain: str = ""
    origin: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        return Node, (self.name, self.op_type, self.inputs, self.outputs, dict(self.attrs), self.domain, self.origin)


@dataclass(frozen=True)
class Graph:
    """A model: nodes in the order of their source, tensors by name, what flows in and out.

    ``inputs`` are the tensors that the caller provides at inference; weights are not among them. ``notes``
    say in words what reading the model had to assume; ``assumed`` what it
    assumed of the data, and how to state it otherwise. Where the file leaves sizes of inputs to each inference,
    ``stated`` are the dimensions that it states of these and of what else, each a size, a name or ``""``:
    ``Tensor.shape`` knows them all, a runtime that opens the file as it is does not.
    """

    name: str
    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    notes: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    stated: Mapping[str, tuple[int | str, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def __reduce__(self) -> tuple[Any, ...]:
        # rows of plain values: a third of the time that an object for each takes
        nodes = [(n.name, n.op_type, n.inputs, n.outputs, dict(n.attrs), n.domain, n.origin) for n in self.nodes]
        tensors = [(name, t.name, t.shape, t.dtype, t.const, t.value) for name, t in self.tensors.items()]
        plain = self.inputs, self.outputs, self.notes, self.assumed, dict(self.stated)
        return _restored, (self.name, nodes, tensors, *plain)

    @property
    def free(self) -> tuple[str, ...]:
        """Names of the dimensions of inputs that the file leaves free, each once; ``""`` for those without one."""
        dims = (dim for name in self.inputs for dim in self.stated.get(name, ()))
        return tuple(dict.fromkeys([dim for dim in dims if isinstance(dim, str)]))

    @cached_property
    def producer(self) -> Mapping[str, Node]:
        """Tensor name to the node that computes it."""
        return MappingProxyType({out: node for node in self.nodes for out in node.outputs if out})

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """Tensor name to the nodes that read it, in graph order, each once."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                if name:
                    found.setdefault(name, []).append(node)
        return MappingProxyType({name: tuple(nodes) for name, nodes in found.items()})

    @cached_property
    def node_by_name(self) -> Mapping[str, Node]:
        """Node name to node."""
        return MappingProxyType({node.name: node for node in self.nodes})

    def input_tensors(self, node: Node) -> tuple[Tensor | None, ...]:
        """The tensors that ``node`` reads, ``None`` for an optional one left out."""
        return tuple(self.tensors[name] if name else None for name in node.inputs)

    def output_tensors(self, node: Node) -> tuple[Tensor, ...]:
        """The tensors that ``node`` computes."""
        return tuple(self.tensors[name] for name in node.outputs if name)


def _restored(name: str, nodes: Sequence[Any], tensors: Sequence[Any], *rest: Any) -> Graph:
    return Graph(name, tuple([Node(*row) for row in nodes]), {key: Tensor(*row) for key, *row in tensors}, *rest)


def verify(graph: Graph) -> Graph:
    """Return ``graph`` if it is one, else raise.

    Raises:
        GraphError: two nodes of one name, a tensor that two nodes compute, a tensor without an entry, a
            negative dimension, a value that does not fit its shape, or a cycle; names the node or tensor.
    """
    nodes, tensors = graph.nodes, graph.tensors
    if len({node.name: None for node in nodes}) < len(nodes):
        name = _several(node.name for node in nodes)
        raise GraphError(f"{graph.name}: two nodes are named {name!r}; names must be unique")
    computed: dict[str, Node] = {}  # what was put in lately lies close together, unlike in a set
    early: dict[str, Node] = {}  # what is read before a node of the list computes it, if one does
    count = 0
    for node in nodes:
        for name in node.inputs:
            if name not in computed and name:
                early.setdefault(name, node)
        for out in node.outputs:
            if out:
                computed[out] = node
                count += 1
    if len(computed) < count:
        out = _several(out for node in nodes for out in node.outputs if out)
        first, other, *_ = (node.name for node in nodes for each in node.outputs if each == out)
        raise GraphError(f"{graph.name}: tensor {out!r} is computed by {first!r} and by {other!r}")
    for names, does in ((early, "reads"), (computed, "computes")):
        if not names.keys() <= tensors.keys():
            name, node = next((name, node) for name, node in names.items() if name not in tensors)
            raise GraphError(f"{graph.name}: node {node.name!r} ({node.op_type}) {does} {name!r}, which has no shape")
    shapes = {tensor.shape for tensor in tensors.values()}
    if any(min(shape) < 0 for shape in shapes if shape):
        tensor = next(each for each in tensors.values() if each.shape and min(each.shape) < 0)
        raise GraphError(f"{graph.name}: tensor {tensor.name!r} has the shape {tensor.shape}; give the input shapes")
    for tensor in tensors.values():
        if tensor.value is not None and len(tensor.value) != tensor.size:
            raise GraphError(
                f"{graph.name}: tensor {tensor.name!r} holds {len(tensor.value)} values, its shape {tensor.size}"
            )
    for name in (*graph.inputs, *graph.outputs):
        if name not in tensors:
            raise GraphError(f"{graph.name}: the graph's input or output {name!r} is not among its tensors")
    given = frozenset(graph.inputs)
    for name, node in early.items():
        if name not in computed and not tensors[name].const and name not in given:
            raise GraphError(f"{graph.name}: node {node.name!r} reads {name!r}, which nothing computes")
    if not computed.keys().isdisjoint(early):
        producer = {out: index for index, node in enumerate(graph.nodes) for out in node.outputs if out}
        _, stuck = execution_order([{producer[n] for n in node.inputs if n in producer} for node in graph.nodes])
        if stuck is not None:
            raise GraphError(f"{graph.name}: the graph has a cycle through or before node {graph.nodes[stuck].name!r}")
    return graph


def _several(names: Iterable[str]) -> str:
    """The first of those that are there more than once."""
    return next(name for name, count in Counter(names).items() if count > 1)


def execution_order(sources: Sequence[Collection[int]]) -> tuple[list[int], int | None]:
    """Places of nodes so that each comes after its ``sources``, and, where there is a cycle, the first left out."""
    waiting = [*map(len, sources)]
    readers: dict[int, list[int]] = {}
    for index, each in enumerate(sources):
        for source in each:
            readers.setdefault(source, []).append(index)
    ready = [index for index, count in enumerate(waiting) if count == 0]
    for index in ready:
        for reader in readers.get(index, ()):
            waiting[reader] -= 1
            if waiting[reader] == 0:
                ready.append(reader)
    return ready, next((index for index, count in enumerate(waiting) if count), None)
