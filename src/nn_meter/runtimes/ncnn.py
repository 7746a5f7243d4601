"""ncnn on the CPU: what its converter pnnx makes one layer (``tools/pnnx/src/pass_ncnn`` of its sources).

A net has no axis of batch: the first one goes where it is of size 1. Convolutions and linear layers take a batch
normalisation, which is folded, and one activation (``fuse_convolution_activation``, ``fuse_innerproduct_activation``
and their like); a convolution takes the zeros before it as its own padding (``fuse_padding_convolution``). What a layer
packs by 4, 8 or 16 channels it packs itself, inside its own time. Each other operator is a layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from nn_meter.ir import Graph
from nn_meter.kernels.patterns import Pattern
from nn_meter.kernels.rewriting import Work
from nn_meter.kernels.rules import read_rules
from nn_meter.kernels.spellings import BIAS, GELU, HARD_SWISH, LAYER_NORM, RMS_NORM, TANH_GELU
from nn_meter.runtimes.base import Options, Pass, Runtime, rewriting
from nn_meter.runtimes.pairs import eliminate, join

ACTIVATIONS = ("Relu", "LeakyRelu", "Clip", "Sigmoid", "Mish")
"""What a convolution or a linear layer computes itself behind what it computes."""

_CONVOLUTIONS = ("conv", "convtrans")

_FACTS: Mapping[tuple[str, ...], bool] = MappingProxyType(
    {
        **{(taker, taken): False for taker in _CONVOLUTIONS for taken in ("Add", "Sub", "Mul", "Div")},
        **{
            (taker, taken): True
            for taker in (*_CONVOLUTIONS, "fc")
            for taken in ("BatchNormalization", *ACTIVATIONS)
        },
        **{
            (taker, taken, then): False
            for taker in (*_CONVOLUTIONS, "fc")
            for taken in ACTIVATIONS
            for then in ("BatchNormalization", *ACTIVATIONS)
        },
        ("Pad", "conv"): True,
    }
)

_SWISH = Pattern("QuickGelu", ("x",), "y = Mul(x, Sigmoid(x))", {"alpha": 1.0})


def lowered(graph: Graph) -> Work:
    """The operators that a net is written of, before they take what follows them."""
    work = Work(graph)
    for each in _WRITTEN:
        each.run(work, Options(read_rules({})))
    return work


_WRITTEN = (
    Pass("eliminate", eliminate),
    Pass("spell", rewriting(HARD_SWISH, GELU, TANH_GELU, LAYER_NORM, RMS_NORM, _SWISH)),
)

RUNTIME = Runtime(
    "ncnn",
    (*_WRITTEN, Pass("bias", rewriting(BIAS)), Pass("join", join)),
    facts=_FACTS,
    settled=True,
)
