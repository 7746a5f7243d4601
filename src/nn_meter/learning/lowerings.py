"""What each runtime makes of a graph, where predictors are fitted through whole models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from nn_meter.kernels.terms import CARD, DELEGATE, FLOATS, PROCESSOR, TRAFFIC
from nn_meter.learning.sums import NOISE
from nn_meter.measuring.records import Circumstances
from nn_meter.runtimes import pytorch, tflite


@dataclass(frozen=True, slots=True)
class Lowering:
    """What a runtime makes of a graph by its rules; ``staged`` as in ``kernels.terms``, the others as in ``Design``."""

    rules: Mapping[str, Any]
    staged: str = ""
    noise: float = NOISE
    bounded: bool = False


_COMMON = 0.05
"""Some 70 models of 19 families err by families: what models of one have in common and no term says counts as noise.
Families left out were further off with 0.02, of which those looked at in ``scripts/devices.py`` decided."""

LOWERINGS: Mapping[tuple[str, ...], Lowering] = MappingProxyType(
    {
        ("tflite", "cpu"): Lowering(tflite.CPU_RULES, FLOATS, _COMMON),
        ("tflite", "cpu", "int8"): Lowering(tflite.CPU_RULES, PROCESSOR, _COMMON),
        ("tflite", "gpu"): Lowering(tflite.GPU_RULES, DELEGATE, _COMMON),
        ("pytorch", "cpu"): Lowering(pytorch.RULES),
        ("pytorch", "gpu"): Lowering(pytorch.ATTENDING, TRAFFIC, bounded=True),
        ("pytorch", "gpu", "eager"): Lowering(pytorch.AUTOCAST_RULES, CARD, bounded=True),
    }
)
"""Runtime and kind of device to its lowering; what has no row is lowered node by node."""


def lowering_of(around: Circumstances) -> tuple[str, ...]:
    """The row of ``LOWERINGS`` for what was measured so: the one of its precision, if there is one. Models in half
    precision on a card whose runtime's version does not say ``dynamo`` count as called operator by operator under
    automatic mixed precision."""
    key = (around.runtime, around.device.kind)
    eager = around.precision == "float16" and "dynamo" not in around.runtime_version
    own = (*key, "eager" if eager else around.precision)
    return own if own in LOWERINGS else key
