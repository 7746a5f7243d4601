"""MNN on the CPU: what its converter makes one operator (MNN 3.6; ``tools/converter/source/optimizer`` of its sources),
and what its sessions run (3.6.1).

Its layout of convolutions is blocks of four channels. A convolution takes a batch normalisation, a constant for each
channel that is added, ReLU and ReLU6, and a Pad before it; a sum or product of two operands takes ReLU; a product with
constant weights is a convolution of single elements. Operators that only move data are one kernel, however many follow
one another: the reader of the last has the data put in place for it. Views before a reader are nothing, or a change of
layout that counts to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from nn_meter.kernels.kinds import KIND_OF, VIEWS
from nn_meter.kernels.spellings import BIAS, GELU, HARD_SWISH, LAYER_NORM, RMS_NORM, SWISH
from nn_meter.runtimes.base import Pass, Runtime, rewriting
from nn_meter.runtimes.pairs import eliminate, join

_CONVOLUTIONS = ("conv", "convtrans")
"""As rules call them; one of a group for each channel is like the first."""
_MOVERS = ("Concat", "DepthToSpace", "Expand", "Gather", "Slice", "SpaceToDepth", "Tile", "Transpose")
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

RUNTIME = Runtime(
    "mnn",
    (
        Pass("eliminate", eliminate),
        Pass(
            "spell",
            rewriting(HARD_SWISH, GELU, LAYER_NORM, RMS_NORM, BIAS, SWISH),
            "FuseHardSwish, FuseGeLu, FuseLayerNorm, FuseLayerNormRMS, FuseMatMulBias, FuseSilu",
        ),
        Pass("join", join, "MergeBNToConvolution, MergeReluToConvolution, MergeReluToBinaryOp, ConvBiasAdd, ConvPad"),
    ),
    facts=_FACTS,
    layout_kernels=frozenset({"ConvertTensor"}),
    views="a view: MNN moves no data for it, and a change of layout counts to what reads it",
)
