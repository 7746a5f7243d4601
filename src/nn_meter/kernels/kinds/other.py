"""What has no kind of its own."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from nn_meter.kernels.kinds._shared import ITEM_BYTES, times
from nn_meter.kernels.partition import Shape
from nn_meter.kernels.schema import Column, KernelKind, Operator, Work, item_bytes


@dataclass(frozen=True, slots=True)
class OtherConfig:
    """An operator without a kind of its own: what goes in and out."""

    op: str
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    dtype: str

    def describe(self) -> str:
        """Sizes in words."""
        return f"{self.op} {' , '.join(map(times, self.inputs))} -> {' , '.join(map(times, self.outputs))}"


def read_other(op: Operator) -> OtherConfig:
    """Config of an operator that has no kind."""
    return OtherConfig(
        op.op_type, tuple(t.shape for t in op.data), tuple(t.shape for t in op.outputs), op.dtype
    )


def work(c: OtherConfig) -> Work:
    """One operation to each element of the largest result."""
    unit = item_bytes(c.dtype)
    return Work(
        float(max(map(prod, c.outputs), default=0)),
        sum(map(prod, c.inputs)) * unit,
        sum(map(prod, c.outputs)) * unit,
    )


KINDS = (
    KernelKind(
        "other",
        (),
        OtherConfig,
        read_other,
        (
            Column("size", lambda c: sum(map(prod, c.inputs)) + sum(map(prod, c.outputs))),
            Column("inputs", lambda c: len(c.inputs)),
            Column("outputs", lambda c: len(c.outputs)),
            ITEM_BYTES,
        ),
        work,
    ),
)
