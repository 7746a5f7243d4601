"""Operators without a kind of their own: what they compute and move by ``kernels.work``, what goes in and out."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from nn_meter.kernels.kinds._shared import OP, times
from nn_meter.kernels.partition import Shape
from nn_meter.kernels.schema import Category, Column, KernelKind, Operator, Work, item_bytes
from nn_meter.kernels.work import detail_of, variant_of, work_of


@dataclass(frozen=True, slots=True)
class OtherConfig:
    """What goes into an operator and out of it, what it computes and moves; ``detail`` is the setting that decides how
    it computes: a mode, an equation, a type of element; ``variant`` is another that does."""

    op: str
    detail: str
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    flops: float
    read_bytes: float
    written_bytes: float
    dtype: str
    variant: str = ""

    def describe(self) -> str:
        """Sizes in words."""
        name = f"{self.op} {self.detail}" if self.detail else self.op
        return f"{name} {' , '.join(map(times, self.inputs))} -> {' , '.join(map(times, self.outputs))}"


def read_other(op: Operator) -> OtherConfig:
    """Config of an operator that has no kind."""
    work = work_of(op)
    return OtherConfig(
        op.op_type,
        detail_of(op),
        tuple(t.shape for t in op.data),
        tuple(t.shape for t in op.outputs),
        work.flops,
        work.read_bytes,
        work.written_bytes,
        op.dtype,
        variant_of(op),
    )


def _sizes(shapes: tuple[Shape, ...], place: int) -> int:
    return prod(shapes[place]) if place < len(shapes) else 0


def _last(shapes: tuple[Shape, ...]) -> int:
    return shapes[0][-1] if shapes and shapes[0] else 1


KINDS = (
    KernelKind(
        "other",
        (),
        OtherConfig,
        read_other,
        (
            OP,
            Category("detail", lambda c: c.detail),
            Category("variant", lambda c: c.variant),
            Column("in_size", lambda c: _sizes(c.inputs, 0)),
            Column("second_size", lambda c: _sizes(c.inputs, 1)),
            Column("out_size", lambda c: _sizes(c.outputs, 0)),
            Column("in_last", lambda c: _last(c.inputs)),
            Column("out_last", lambda c: _last(c.outputs)),
            Column("rank", lambda c: len(c.inputs[0]) if c.inputs else 0),
            Column("inputs", lambda c: len(c.inputs)),
            Column("outputs", lambda c: len(c.outputs)),
            Column("item_bytes", lambda c: item_bytes(c.dtype)),
        ),
        lambda c: Work(c.flops, c.read_bytes, c.written_bytes),
    ),
)
