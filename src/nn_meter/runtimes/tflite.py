"""What TensorFlow Lite fuses, by rules: its CPU kernels and its GPU delegate.

The CPU's kernels take a clamp (ReLU, ReLU6) and a folded batch normalisation. The delegate links whatever is
elementwise to the kernel before it, one after another: the names of the kernels that it ran on six phones say so
(``convolution_2d_20_linked_:_add_21_linked_:_mul_22_linked_:_add_23_linked_:_relu_24``).

On a CPU a kernel of its own writes what a convolution reads beyond its input, where the model's file has it so (the
delegate takes that into the convolution). The sizes of the inputs in the files of 70 networks say where, whatever they
took: of depthwise convolutions, and of others where no batch normalisation is folded into them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from nn_meter.kernels.rewriting import Op, Work
from nn_meter.runtimes.base import Options, Pass, Runtime
from nn_meter.runtimes.pairs import PASSES


def write_pads(work: Work, options: Options) -> None:
    """Let a kernel of its own write what convolutions read beyond their inputs, where no normalisation is in them."""
    producers = {norm: work.made_by(norm.inputs[0], "Conv") for norm in work.ops("BatchNormalization")}
    followed = {conv for conv in producers.values() if conv and work.only_reader(conv.outputs[0])}
    normalises_before = any(conv not in followed for conv in producers.values())
    for conv in list(work.ops("Conv")):
        source, shape = conv.inputs[0], work.shape(conv.inputs[0])
        pads = work.as_it_stands(conv).ints("pads", ()) if conv.attrs.get("auto_pad", "NOTSET") == "NOTSET" else ()
        bare = normalises_before or work.rule_name(conv) == "dwconv" or (conv not in followed and _unfolded(conv))
        half = len(shape) - 2
        if bare and len(pads) == 2 * half and any(pads) and min(pads) >= 0:
            wide = [s + a + b for s, a, b in zip(shape[2:], pads[:half], pads[half:], strict=True)]
            written = work.fresh("padded", (*shape[:2], *wide), source)
            work.add(Op("Pad", (source,), (written,), {"mode": "constant"}), before=conv)
            work.swap_place(conv, 0, written)
            conv.attrs = {**conv.attrs, "pads": (0,) * len(pads)}


def _unfolded(conv: Op) -> bool:
    """Whether no normalisation was folded into a convolution: it has no bias, or its weight bears the name of its
    module, which PyTorch's exporter gives to none that it computed."""
    module = conv.members[0].strip("/").rpartition("/")[0].replace("/", ".")
    return len(conv.inputs) < 3 or conv.inputs[1] == f"{module}.weight"


CPU = Runtime(
    "tflite_cpu", (PASSES[0], Pass("write_pads", write_pads), *PASSES[1:]), precisions=("float32", "int8")
)
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
