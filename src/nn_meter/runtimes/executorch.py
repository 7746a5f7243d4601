"""ExecuTorch with XNNPACK on the CPU: what its passes and XNNPACK make of the calls of a module (ExecuTorch 1.5).

Operators that models spell as several are the call that they were exported from, as in ``runtimes.pytorch``. Batch
normalisations are folded into convolutions (``FuseBatchNormPass``), which also take the clamp that follows, as linear
layers do (``FuseActivationPass``, and XNNPACK itself); a clamp behind arithmetic is a kernel of its own. XNNPACK joins
a Pad with the convolution behind it, where it lies as that one reads it; the model's own input does not. Views outside
XNNPACK are not executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from nn_meter.runtimes.base import LAYOUT_CHANGE, Runtime
from nn_meter.runtimes.pairs import CALLED

JOINED = frozenset({"BatchNormalization", "Clip", "Relu"})
"""What is computed with what it reads."""

_CONVOLUTIONS = ("conv", "convtrans")

_FACTS: Mapping[tuple[str, ...], bool] = MappingProxyType(
    {
        **{(taker, taken): True for taker in _CONVOLUTIONS for taken in ("bn", "Relu", "Clip")},
        **{(taker, taken): False for taker in _CONVOLUTIONS for taken in ("Add", "Sub", "Mul", "Div")},
        ("Pad", "conv"): True,
        **{
            (taker, taken): True
            for taker in ("AveragePool", "MaxPool", "bn", "fc")
            for taken in ("Relu", "Clip")
        },
    }
)

RUNTIME = Runtime(
    "executorch",
    CALLED,
    facts=_FACTS,
    layout_kernels=frozenset({LAYOUT_CHANGE}),
    settled=True,
)
