"""A network of many parts whose memory is that of one model.

A real model reads one input, answers with something small, and its activations take turns in the same memory, so that
what it touches is its weights and little else. Parts beside each other, each with an input and an output of its own,
touch far more than their kernels tell (``kernels.schema.surroundings``), and what is touched decides how far away the
weights are: 13 GB/s instead of 28 from some 50 MB on, on a Xeon of 2023.
"""

from __future__ import annotations

from nn_meter.ir import Graph, Tensor
from nn_meter.networks._writer import Writer

_SMALL = 4096
"""Elements of an input or output that is left as it is: no more than a page or four."""

_FLAT = "shared:flat"


def one_memory(graph: Graph) -> Graph:
    """``graph`` with its inputs of floats as views of the largest, and with outputs of one element each; verified."""
    sizes = {name: graph.tensors[name].size for name in graph.inputs if _taken(graph, name)}
    if not sizes:
        return graph
    largest = max(sizes, key=lambda name: sizes[name])
    shared = [name for name in sizes if name != largest and name not in graph.outputs]
    ends = {name: f"{name}:first" for name in graph.outputs if _taken(graph, name) and name not in graph.inputs}
    writer, read = Writer(graph), set()
    if shared:
        _write(writer, "Reshape", largest, Tensor(_FLAT, (sizes[largest],), "float32"), shape=(-1,))
    for node in graph.nodes:
        for name in shared:
            if name in node.inputs and name not in read:
                read.add(name)
                _view(writer, graph.tensors[name], sizes[largest])
        writer.nodes.append(node)
        for name in node.outputs:
            if name in ends:
                _slice(writer, name, Tensor(ends[name], (1,) * len(graph.tensors[name].shape), "float32"))
    return writer.done(
        inputs=tuple(name for name in graph.inputs if name not in read),
        outputs=tuple(ends.get(name, name) for name in graph.outputs),
    )


def _taken(graph: Graph, name: str) -> bool:
    tensor = graph.tensors[name]
    return tensor.dtype == "float32" and tensor.size > _SMALL


def _view(writer: Writer, wanted: Tensor, there: int) -> None:
    """``wanted`` is the beginning of the flat input of ``there`` elements."""
    source = _FLAT
    if wanted.size < there:
        source = _slice(writer, _FLAT, Tensor(f"{wanted.name}:flat", (wanted.size,), "float32"))
    _write(writer, "Reshape", source, wanted, shape=wanted.shape)


def _slice(writer: Writer, source: str, out: Tensor) -> str:
    rank = len(out.shape)
    return _write(writer, "Slice", source, out, starts=(0,) * rank, ends=out.shape, axes=tuple(range(rank)))


def _write(writer: Writer, op_type: str, source: str, out: Tensor, **settings: tuple[int, ...]) -> str:
    """An operator whose further inputs are constants."""
    consts = [writer.const(f"{out.name}:{name}", (len(each),), "int64", each) for name, each in settings.items()]
    return writer.op(op_type, [source, *consts], out)
