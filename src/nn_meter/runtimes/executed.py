"""Kind and config of a kernel that a runtime says it executed: the truth that rules are held against, and what
a traced measurement is filed under.

Where a runtime's graph is in ONNX's terms, each of its kernels is read by itself: one row in ``READERS`` for the
runtime's spellings. Of any other runtime it is enough to know which of the model's nodes a kernel covers
(``runtimes.cover``): they give kind and config as they do in ``runtimes.pairs``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from nn_meter.errors import BackendError
from nn_meter.ir import Attr, Graph, Tensor
from nn_meter.kernels.kinds import ACTIVATIONS, KINDS, Operator, read_kernel
from nn_meter.kernels.partition import KernelConfig
from nn_meter.runtimes.cover import cover
from nn_meter.runtimes.pairs import read_groups
from nn_meter.runtimes.trace import ExecutedKernel, Operand

_BLOCKED_DOMAIN = "com.microsoft.nchwc"


def read_executed(kernel: ExecutedKernel, runtime: str) -> tuple[str, KernelConfig]:
    """Kind and config of a kernel of ``runtime``.

    Raises:
        KeyError: a runtime without a row.
    """
    return read_kernel(READERS[runtime](kernel))


@dataclass(frozen=True, slots=True)
class Executed:
    """A kernel as it ran: ``positions`` among those that the runtime tells, whose times add up to its own, and the
    model's ``nodes`` that it covers, empty where the runtime does not tell."""

    kind: str
    config: KernelConfig
    positions: tuple[int, ...]
    nodes: tuple[str, ...] = ()


def read_all(kernels: Sequence[ExecutedKernel], runtime: str, graph: Graph) -> list[Executed]:
    """Every kernel that ``runtime`` executed for ``graph``; what costs nothing by a table is left out.

    Raises:
        BackendError: a runtime without a row in ``READERS`` that does not tell which nodes its kernels cover.
    """
    if runtime in READERS:
        return [Executed(*read_executed(kernel, runtime), (i,)) for i, kernel in enumerate(kernels)]
    groups = cover(kernels, graph)
    if kernels and not groups:
        raise BackendError(
            f"{graph.name}: {runtime} does not say which of the model's nodes its kernels cover; its backend has to "
            "fill `nodes` of the kernels that it traces"
        )
    configs = read_groups(graph, [group.nodes for group in groups])
    return [
        Executed(*config, group.positions, group.nodes)
        for group, config in zip(groups, configs, strict=True)
        if config is not None
    ]


def _onnxruntime(kernel: ExecutedKernel) -> Operator:
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
    return Tensor(name, operand.shape, operand.dtype, const=name in kernel.constant_inputs)


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


READERS: Mapping[str, Callable[[ExecutedKernel], Operator]] = MappingProxyType(
    {"onnxruntime_cpu": _onnxruntime}
)
"""Backend to how its executed kernels are read."""


def to_json(config: KernelConfig) -> dict[str, Any]:
    """A config as JSON-able values."""
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}  # type: ignore[arg-type]


def from_json(kind: str, values: Mapping[str, Any]) -> KernelConfig:
    """The config that ``to_json`` wrote.

    Raises:
        KeyError: no such kind.
        TypeError: other fields than the config has.
    """
    config: KernelConfig = KINDS[kind].config(**{k: _tuples(v) for k, v in values.items()})
    return config


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value
