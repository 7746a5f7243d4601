"""ONNX Runtime's executed kernels in our terms: its optimised graph is in ONNX's, with spellings of its own."""

from __future__ import annotations

from collections.abc import Mapping

from nn_meter.ir import Attr, Tensor
from nn_meter.kernels.kinds import ACTIVATIONS, Operator
from nn_meter.runtimes.trace import ExecutedKernel, Operand

_BLOCKED_DOMAIN = "com.microsoft.nchwc"


def read(kernel: ExecutedKernel) -> Operator:
    """The operator of an executed kernel, with what was fused into it."""
    inputs = tuple(_tensor(o, n, kernel) for o, n in zip(kernel.inputs, kernel.input_names, strict=True))
    outputs = tuple(
        t
        for o, n in zip(kernel.outputs, kernel.output_names, strict=True)
        if (t := _tensor(o, n, kernel)) is not None
    )
    op_type, layout = kernel.op_type, ""
    fused: tuple[str, ...] = ()
    attrs = dict(kernel.attrs)
    if op_type in ("Conv", "FusedConv"):
        op_type = "Conv"
        if len(inputs) > 3 and inputs[3] is not None:
            fused += ("sum",)
        fused += _activation(attrs)
        if kernel.domain == _BLOCKED_DOMAIN:
            blocked_out = outputs[0].shape[1]
            x = inputs[0]
            plain_in = x is not None and x.shape[1] < _block_of(blocked_out)
            layout = "nchw>nchwc" if plain_in else "nchwc"
    elif op_type == "FusedGemm":
        op_type, fused = "Gemm", _activation(attrs)
    elif kernel.domain == _BLOCKED_DOMAIN:
        layout = "nchwc"
    elif op_type.startswith("Reduce") and "axes" not in attrs and inputs[0] is not None:
        attrs["axes"] = reduced_axes(inputs[0].shape, outputs[0].shape)
    return Operator(op_type, inputs, outputs, attrs, fused, layout)


def _block_of(channels: int) -> int:
    return 16 if channels % 16 == 0 else 8


def _activation(attrs: Mapping[str, Attr]) -> tuple[str, ...]:
    name = attrs.get("activation")
    return (ACTIVATIONS.get(name, name.lower()),) if isinstance(name, str) and name else ()


def _tensor(operand: Operand | None, name: str, kernel: ExecutedKernel) -> Tensor | None:
    if operand is None:
        return None
    const, value = name in kernel.constant_inputs, kernel.constant_values.get(name)
    return Tensor(name, operand.shape, operand.dtype, const, value)


def reduced_axes(before: tuple[int, ...], after: tuple[int, ...]) -> tuple[int, ...]:
    """Axes that a reduction took, from the shapes before and after it, with or without ``keepdims``."""
    if len(before) == len(after):
        return tuple(i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b)
    kept = list(after)
    axes: list[int] = []
    for axis in reversed(range(len(before))):
        if kept and kept[-1] == before[axis] and axis + 1 - len(kept) <= len(before) - len(after) - len(axes):
            kept.pop()
        else:
            axes.append(axis)
    return tuple(reversed(axes))
