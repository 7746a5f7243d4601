"""MNN on the CPU: what its converter makes one operator (MNN 3.6; ``tools/converter/source/optimizer`` of its sources),
and what its sessions run (3.6.1).

Its layout of convolutions is blocks of four channels. A convolution takes a batch normalisation, a constant for each
channel that is added, ReLU and ReLU6, and a Pad before it; a sum or product of two operands takes ReLU; a product with
constant weights is a convolution of single elements. Operators that only move data are one kernel, however many follow
one another: the reader of the last has the data put in place for it; where several move the result on, each does all
that is before. A Gather of several places is no such one. Views before a reader are nothing, or a change of layout that
counts to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from nn_meter.kernels.kinds import KIND_OF, VIEWS
from nn_meter.kernels.rewriting import Op, Work
from nn_meter.kernels.spellings import BIAS, GELU, HARD_SWISH, LAYER_NORM, RMS_NORM, SCALED_SWISH, SWISH
from nn_meter.runtimes.base import Options, Pass, Runtime, rewriting
from nn_meter.runtimes.pairs import eliminate, join

_CONVOLUTIONS = ("conv", "convtrans")
"""As rules call them; one of a group for each channel is like the first."""
_MOVERS = ("Concat", "DepthToSpace", "Expand", "Gather", "Pad", "Slice", "SpaceToDepth", "Tile", "Transpose")
"""What moves data and computes nothing; a Split hands out parts that are read one by one."""

_FACTS: Mapping[tuple[str, ...], bool] = MappingProxyType(
    {
        **{(taker, taken): True for taker in _CONVOLUTIONS for taken in ("bn", "Relu", "Clip")},
        **{(taker, taken): False for taker in _CONVOLUTIONS for taken in ("Mul", "Div", "Sub")},
        ("Pad", "conv"): True,
        **{("fc", taken): True for taken in ("Relu", "Clip")},
        **{(taker, "Relu"): True for taker in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow")},
        **{(first, then): True for first in _MOVERS for then in (*_MOVERS, *VIEWS, "Split")},
        **{(first, "Split", then): False for first in (*_MOVERS, *VIEWS) for then in (*_MOVERS, *VIEWS)},
        **{(view, reader): True for view in VIEWS for reader in KIND_OF},
    }
)


def without_pads(work: Work, options: Options) -> None:
    """Take out what changes nothing, a Pad by nothing among it."""
    eliminate(work)
    for op in work.ops("Pad"):
        if not any(work.value(op, 1) or (1,)):
            work.bypass(op, "the Pad changes nothing")


def several_places(work: Work, op: Op) -> bool:
    """Whether it is a Gather of more than one part of its operand."""
    places = work.executed(op).inputs[1] if op.op_type == "Gather" else None
    return places is not None and not (places.const and places.size == 1)


def hand_on(work: Work, options: Options) -> None:
    """What moves data, and is moved on by each of its readers, runs as a part of these."""

    def moves(op: Op) -> bool:
        return op.op_type in _MOVERS and not several_places(work, op)

    for op in [each for each in work.ops() if each.op_type == "Split" or moves(each)]:
        names = [name for name in op.outputs if name]
        readers = [(reader, name) for name in names for reader in work.readers(name)]
        if readers and all(moves(reader) for reader, _ in readers) and work.outputs.keys().isdisjoint(names):
            for reader, name in readers:
                work.swap_input(reader, name, op.inputs[0])
            work.remove(op)
            work.free += [(member, op.op_type, "its readers move the data on at once") for member in op.members]


RUNTIME = Runtime(
    "mnn",
    (
        Pass("eliminate", without_pads),
        Pass(
            "spell",
            rewriting(HARD_SWISH, GELU, LAYER_NORM, RMS_NORM, BIAS, SWISH, SCALED_SWISH),
            "FuseHardSwish, FuseGeLu, FuseLayerNorm, FuseLayerNormRMS, FuseMatMulBias, FuseSilu",
        ),
        Pass(
            "join",
            partial(join, alone=several_places),
            "MergeBNToConvolution, MergeReluToConvolution, MergeReluToBinaryOp, ConvBiasAdd, ConvPad",
        ),
        Pass("hand_on", hand_on),
    ),
    facts=_FACTS,
    settled=True,
    layout_kernels=frozenset({"ConvertTensor"}),
    views="a view: MNN moves no data for it, and a change of layout counts to what reads it",
)
