"""What fusing a graph gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from nn_meter.ir.frozen import quickly_made

Shape = tuple[int, ...]


class KernelConfig(Protocol):
    """What decides a kernel's latency, typed per kind: a frozen dataclass with hashable fields."""

    def describe(self) -> str:
        """A few words for people: sizes and what is special."""


@quickly_made
@dataclass(frozen=True, slots=True)
class Kernel:
    """A group of nodes that the runtime executes as one.

    ``kind`` is a registry key, ``label`` is for people and is never parsed. ``free`` says why the kernel costs
    nothing, and is empty where it costs something.
    """

    kind: str
    config: KernelConfig
    nodes: tuple[str, ...]
    label: str
    free: str = ""


@quickly_made
@dataclass(frozen=True, slots=True)
class Unfused:
    """Two neighbouring nodes in different kernels, and why.

    ``kernels`` are the places of their kernels in the order of execution. ``moved_bytes`` is what passes through memory
    because they are two: the value as it is read, and as it is written where nobody else needs it; 0 where unknown.
    """

    producer: str
    consumer: str
    reason: str
    kernels: tuple[int, int] | None = None
    moved_bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class Partition:
    """Kernels in execution order; every node of the model is in exactly one."""

    model: str
    kernels: tuple[Kernel, ...]
    unfused: tuple[Unfused, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NnMeterConfig:
    """A kernel in nn-Meter's terms: shapes (NHWC) of the operator that it starts with.

    ``row`` are the columns of its predictor, empty where nn-Meter has none or the shapes do not fit them.
    """

    input_tensors: tuple[Shape, ...]
    output_tensors: tuple[Shape, ...]
    ks: Shape | None = None
    strides: Shape | None = None
    row: tuple[float, ...] = ()
    problem: str = ""

    def describe(self) -> str:
        """``1x56x56x64 -> 1x56x56x128, kernel 3x3, stride 1x1``."""
        text = f"{_shapes(self.input_tensors)} -> {_shapes(self.output_tensors)}"
        if self.ks:
            text += f", kernel {_times(self.ks)}"
        if self.strides:
            text += f", stride {_times(self.strides)}"
        return text


@dataclass(frozen=True, slots=True)
class FreeConfig:
    """Of a kernel that costs nothing."""

    operator: str

    def describe(self) -> str:
        """The operator's name."""
        return self.operator


def _times(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _shapes(shapes: tuple[Shape, ...]) -> str:
    return " + ".join(map(_times, shapes)) or "?"


def as_shape(value: Any) -> Shape | None:
    """A tuple of a list of integers, ``None`` for anything else."""
    return tuple(value) if isinstance(value, list | tuple) and all(type(v) is int for v in value) else None


def config_json(config: KernelConfig) -> Mapping[str, Any]:
    """The fields of a config for a JSON document."""
    fields = getattr(type(config), "__dataclass_fields__", {})
    return {name: getattr(config, name) for name in fields}
