"""LiteRT with XNNPACK on the CPU: what a TFLite file of a graph holds, and what XNNPACK makes of it (LiteRT 2.3).

Batch normalisations, and constants that are added or multiplied for each channel, are folded into convolutions and
linear layers, which also take the clamp that follows; what stands for GELU and hard swish is one operator. XNNPACK
joins a Pad with the convolution behind it, a clamp with the pooling before it, a square with its mean, views that
follow one another, and an exchange of the last two axes with the product whose second operand it is. A clamp behind
arithmetic is a kernel of its own.

Layers of images have the channels last. What follows them keeps that order; where the model itself turns it into what
lies there already, nothing moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from nn_meter.ir import Graph
from nn_meter.kernels.kinds import KIND_OF, VIEWS
from nn_meter.kernels.rewriting import Op, Work
from nn_meter.kernels.rules import read_rules
from nn_meter.kernels.spellings import BIAS, GELU, HARD_SWISH, TANH_GELU
from nn_meter.runtimes.base import LAYOUT_CHANGE, Options, Pass, Runtime, rewriting
from nn_meter.runtimes.pairs import eliminate, join

Order = tuple[int, ...]
"""Of a tensor in memory: each time the graph's axis that comes next."""

CHANNELS_LAST = frozenset(
    {
        "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "DepthToSpace", "GlobalAveragePool",
        "GlobalMaxPool", "GroupNormalization", "InstanceNormalization", "LRN", "MaxPool", "Resize", "SpaceToDepth",
    }
)  # fmt: skip
"""Operators that have the channels last."""

_KEEPING = frozenset({"binary", "concat", "slice", "split", "unary"})
"""Kinds of operators that keep the order that is there; so does a Pad."""

_LAYERS = ("conv", "convtrans", "fc")

_FACTS: Mapping[tuple[str, ...], bool] = MappingProxyType(
    {
        **{(taker, taken): True for taker in _LAYERS for taken in ("bn", "Relu", "Clip")},
        ("Pad", "conv"): True,
        **{(pool, taken): True for pool in ("AveragePool", "MaxPool") for taken in ("Relu", "Clip")},
        ("Pow", "ReduceMean"): True,
        **{(first, then): True for first in VIEWS for then in VIEWS},
    }
)


def plain(rank: int) -> Order:
    """The order of the graph."""
    return tuple(range(rank))


def channels_last(rank: int) -> Order:
    """The graph's second axis, that of channels, behind all others."""
    return (0, *range(2, rank), 1) if rank > 2 else plain(rank)


def wanted_order(name: str, work: Work) -> Order:
    """In which a tensor is wanted: channels last where a layer reads it, or what keeps its order and is read so."""
    rank = len(work.shape(name))
    open_names, seen = [name], {name}
    while open_names:
        for op in work.readers(open_names.pop()):
            if op.op_type in CHANNELS_LAST:
                return channels_last(rank)
            out = op.outputs[0]
            if _keeps(op) and len(work.shape(out)) == rank and out not in seen:
                seen.add(out)
                open_names.append(out)
    return plain(rank)


def unmoved(op: Op, order: Order, work: Work) -> Order | None:
    """The order of a Transpose's result where nothing moves, since what lies in ``order`` lies there as the graph wants
    it, or as a layer that reads it does; ``None`` where it is to be moved."""
    rank, out = len(order), op.outputs[0]
    perm = perm_of(op, rank)
    made = tuple(perm.index(axis) for axis in order)
    fits = made == plain(rank) or (made == channels_last(rank) == wanted_order(out, work))
    return made if fits and out not in work.outputs and order != made else None


def perm_of(op: Op, rank: int) -> tuple[int, ...]:
    """The order of axes that a Transpose asks for."""
    perm = op.attrs.get("perm")
    return tuple(map(int, perm)) if isinstance(perm, tuple) else tuple(reversed(range(rank)))


def _keeps(op: Op) -> bool:
    return KIND_OF.get(op.op_type) in _KEEPING or op.op_type == "Pad"


def _absorb(work: Work, options: Options) -> None:
    """Let transposes that are not executed be part of what is beside them."""
    for op in reversed(_still(work)):
        other = _beside_view(work, op) or work.only_reader(op.outputs[0]) or work.producer.get(op.inputs[0])
        if other is not None:
            _join(work, op, other)
    for op in work.ops(*VIEWS):  # those that only a transpose stood between
        maker = work.made_by(op.inputs[0], *VIEWS)
        if maker is not None and work.only_reader(op.inputs[0]) is op:
            _join(work, op, maker)


def _still(work: Work) -> list[Op]:
    """Transposes that are not executed: nothing moves, or a view or product beside them does it."""
    orders = {name: wanted_order(name, work) for name in work.inputs}
    still = []
    for op in work.ops():
        rank = len(work.shape(op.outputs[0]))
        source = next((orders[name] for name in op.inputs if name in orders and len(orders[name]) == rank), plain(rank))
        made = plain(rank)
        if op.op_type == "Transpose" and len(op.members) == 1:
            seen = unmoved(op, source, work)
            made = seen or made
            if seen is not None or _beside_view(work, op) or _taken_by_product(work, op):
                still.append(op)
        elif op.op_type in CHANNELS_LAST:
            made = channels_last(rank)
        elif _keeps(op):
            made = source
        orders.update((name, made) for name in op.outputs if name)
    return still


def _beside_view(work: Work, op: Op) -> Op | None:
    """The view that a Transpose is one with which moves axes of size 1 alone."""
    (source, *_), (out, *_) = op.inputs, op.outputs
    moving = [axis for axis in perm_of(op, len(work.shape(source))) if work.shape(source)[axis] > 1]
    maker = work.made_by(source, *VIEWS)
    if moving != sorted(moving):
        return None
    if maker is not None and work.only_reader(source) is op:
        return maker
    reader = work.only_reader(out)
    return reader if reader is not None and reader.op_type in VIEWS else None


def _taken_by_product(work: Work, op: Op) -> bool:
    """Whether a Transpose exchanges the last two axes of a product's second operand."""
    out, rank = op.outputs[0], len(work.shape(op.outputs[0]))
    reader = work.only_reader(out)
    exchanged = perm_of(op, rank) == (*range(rank - 2), rank - 1, rank - 2)
    return exchanged and reader is not None and reader.op_type == "MatMul" and reader.inputs[1] == out


def _join(work: Work, op: Op, other: Op) -> None:
    """Make ``op`` part of ``other``, which reads it or computes what it reads, and whose config stays."""
    (source, *_), (out, *_) = op.inputs, op.outputs
    if out in other.inputs:
        inputs, outputs = tuple([source if name == out else name for name in other.inputs]), other.outputs
        members = (*op.members, *other.members)
    else:
        needed = source in work.outputs or len(work.readers(source)) > 1
        inputs, outputs = tuple(other.inputs), (*(name for name in other.outputs if needed or name != source), out)
        members = (*other.members, *op.members)
    joined = Op(other.op_type, inputs, outputs, other.attrs, members)
    joined.core, joined.fused, joined.layout = work.executed(other), other.fused, other.layout
    work.remove(op)
    work.remove(other)
    work.add(joined, at=other)


def _idle(graph: Graph) -> frozenset[str]:
    return frozenset(name for op in _still(lowered(graph)) for name in op.members)


def lowered(graph: Graph) -> Work:
    """The operators that a TFLite file is written of, before they take what follows them."""
    work = Work(graph)
    for each in _WRITTEN:
        each.run(work, Options(read_rules({})))
    return work


_WRITTEN = (Pass("eliminate", eliminate), Pass("spell", rewriting(HARD_SWISH, GELU, TANH_GELU)))

RUNTIME = Runtime(
    "litert",
    (*_WRITTEN, Pass("bias", rewriting(BIAS)), Pass("join", join), Pass("absorb", _absorb)),
    facts=_FACTS,
    layout_kernels=frozenset({LAYOUT_CHANGE}),
    idle=_idle,
    settled=True,
)
