"""A network of many parts whose memory is that of one model.

A real model reads one input, answers with something small, and its activations take turns in the same memory, so that
what it touches is its weights and little else. Parts beside each other, each with an input and an output of its own,
touch far more than their kernels tell (``kernels.schema.surroundings``), and what is touched decides how far away the
weights are: 13 GB/s instead of 28 from some 50 MB on, on a Xeon of 2023.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from types import MappingProxyType

from nn_meter.ir import Graph, Node, Tensor, verify

_SMALL = 4096
"""Elements of an input or output that is left as it is: no more than a page or four."""

_FLAT = "shared:flat"


def one_memory(graph: Graph) -> Graph:
    """``graph`` with its inputs of floats as views of the largest, and with outputs of one element each; verified."""
    sizes = {name: prod(graph.tensors[name].shape) for name in graph.inputs if _taken(graph, name)}
    if not sizes:
        return graph
    largest = max(sizes, key=lambda name: sizes[name])
    shared = [name for name in sizes if name != largest and name not in graph.outputs]
    tensors, nodes, read = dict(graph.tensors), [], set()
    ends = {name: f"{name}:first" for name in graph.outputs if _taken(graph, name) and name not in graph.inputs}
    if shared:
        nodes.append(_node(tensors, "Reshape", largest, Tensor(_FLAT, (sizes[largest],), "float32"), shape=(-1,)))
    for node in graph.nodes:
        for name in shared:
            if name in node.inputs and name not in read:
                read.add(name)
                nodes += _view(tensors, graph.tensors[name], sizes[largest])
        nodes.append(node)
        for name in node.outputs:
            if name in ends:
                end = Tensor(ends[name], (1,) * len(graph.tensors[name].shape), "float32")
                nodes.append(_slice(tensors, name, end, len(end.shape)))
    return verify(
        replace(
            graph,
            nodes=tuple(nodes),
            tensors=MappingProxyType(tensors),
            inputs=tuple(name for name in graph.inputs if name not in read),
            outputs=tuple(ends.get(name, name) for name in graph.outputs),
        )
    )


def _taken(graph: Graph, name: str) -> bool:
    tensor = graph.tensors[name]
    return tensor.dtype == "float32" and prod(tensor.shape) > _SMALL


def _view(tensors: dict[str, Tensor], wanted: Tensor, there: int) -> Iterator[Node]:
    """What makes ``wanted`` of the beginning of the flat input of ``there`` elements."""
    count, source = prod(wanted.shape), _FLAT
    if count < there:
        source = f"{wanted.name}:flat"
        yield _slice(tensors, _FLAT, Tensor(source, (count,), "float32"), 1)
    yield _node(tensors, "Reshape", source, wanted, shape=wanted.shape)


def _slice(tensors: dict[str, Tensor], source: str, out: Tensor, rank: int) -> Node:
    return _node(tensors, "Slice", source, out, starts=(0,) * rank, ends=out.shape, axes=tuple(range(rank)))


def _node(tensors: dict[str, Tensor], op_type: str, source: str, out: Tensor, **settings: tuple[int, ...]) -> Node:
    """An operator whose further inputs are constants."""
    inputs = [source]
    for setting, values in settings.items():
        inputs.append(f"{out.name}:{setting}")
        tensors[inputs[-1]] = Tensor(inputs[-1], (len(values),), "int64", const=True, value=values)
    tensors[out.name] = out
    return Node(f"{op_type}:{out.name}", op_type, tuple(inputs), (out.name,))
