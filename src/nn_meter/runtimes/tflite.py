"""What TensorFlow Lite fuses, by rules: its CPU kernels and its GPU delegate.

The CPU's kernels take a clamp (ReLU, ReLU6) and a folded batch normalisation. The delegate links whatever is
elementwise to the kernel before it, one after another: the names of the kernels that it ran on six phones say so
(``convolution_2d_20_linked_:_add_21_linked_:_mul_22_linked_:_add_23_linked_:_relu_24``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from nn_meter.runtimes.base import Runtime
from nn_meter.runtimes.pairs import PASSES

CPU = Runtime("tflite_cpu", PASSES, precisions=("float32", "int8"))
GPU = Runtime("tflite_gpu", PASSES)

_COMPUTED = ("conv", "dwconv", "convtrans", "fc")
_LINKED = ("relu", "bn", "add", "mul", "hswish", "hardsigmoid", "HardSwish", "Sigmoid", "Tanh")


def _obeyed(first: Iterable[str], second: Iterable[str]) -> dict[str, Any]:
    return {f"BF_{a}_{b}": {"obey": True} for a in first for b in second}


CPU_RULES: Mapping[str, Any] = MappingProxyType(
    {
        "runtime": "tflite_cpu",
        **_obeyed(_COMPUTED, ("relu", "bn")),
        **_obeyed(("add", "mul", "bn"), ("relu",)),
        **_obeyed(("hswish",), ("squeeze",)),
    }
)
"""``BF_hswish_squeeze`` lets hard swish count as the one operator that it is."""

GPU_RULES: Mapping[str, Any] = MappingProxyType(
    {
        "runtime": "tflite_gpu",
        **_obeyed((*_COMPUTED, "maxpool", "avgpool", "concat", "add"), _LINKED),
        **_obeyed(("bn",), ("relu", "add")),
        **_obeyed(("relu", "hswish"), ("add", "mul")),
    }
)
