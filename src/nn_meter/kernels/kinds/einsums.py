"""Einsum, by what it is executed as, so that an equation that nobody measured is one like others."""

from __future__ import annotations

from dataclasses import dataclass

from nn_meter.kernels.einsum import Contraction, Moved, contractions, parsed
from nn_meter.kernels.kinds._shared import ITEM_BYTES
from nn_meter.kernels.schema import Category, Column, KernelKind, Operator, Work
from nn_meter.kernels.work import work_of


@dataclass(frozen=True, slots=True)
class EinsumConfig:
    """The sizes of its largest product, and the elements that are transposed, ``single`` of them one by one and others
    in so many ``runs``, and summed around all of them."""

    equation: str
    operands: int
    batch: int
    rows: int
    summed: int
    columns: int
    moved: int
    alone: int
    flops: float
    read_bytes: float
    written_bytes: float
    dtype: str
    single: int = 0
    runs: int = 0

    @property
    def shape(self) -> str:
        """Which of the product's sizes are more than 1: a product of vectors, or one number for each pair of elements,
        is other code than one of matrices."""
        sizes = {"batch": self.batch, "rows": self.rows, "summed": self.summed, "columns": self.columns}
        return " ".join([name for name, size in sizes.items() if size > 1] + ["moved singly"] * (self.single > 0))

    def describe(self) -> str:
        """Sizes in words."""
        return f"Einsum {self.equation}: {self.batch} x ({self.rows} x {self.summed} by {self.summed} x {self.columns})"


_NOTHING = (Contraction(1, 1, 1, 1, Moved(), 0),)


def read(op: Operator) -> EinsumConfig:
    """Config of Einsum."""
    equation = str(op.attrs.get("equation", ""))
    given = parsed(equation, [tensor.shape for tensor in op.data])
    steps = _NOTHING if given is None else contractions(given)
    largest = max(steps, key=lambda each: each.batch * each.rows * each.summed * each.columns)
    moved = sum((each.moved for each in steps), Moved())
    work = work_of(op)
    return EinsumConfig(
        equation.replace(" ", ""),
        len(op.data),
        largest.batch,
        largest.rows,
        largest.summed,
        largest.columns,
        moved.size,
        sum(each.alone for each in steps),
        work.flops,
        work.read_bytes,
        work.written_bytes,
        op.dtype,
        moved.single,
        moved.runs,
    )


KINDS = (
    KernelKind(
        "einsum",
        ("Einsum",),
        EinsumConfig,
        read,
        (
            Column("operands", lambda c: c.operands),
            Column("batch", lambda c: c.batch),
            Column("rows", lambda c: c.rows),
            Column("summed", lambda c: c.summed),
            Column("columns", lambda c: c.columns),
            Category("shape", lambda c: c.shape),
            Column("moved", lambda c: c.moved),
            Column("single", lambda c: c.single),
            Column("runs", lambda c: c.runs),
            Column("alone", lambda c: c.alone),
            Column("written_bytes", lambda c: c.written_bytes),
            ITEM_BYTES,
        ),
        lambda c: Work(c.flops, c.read_bytes, c.written_bytes),
        late=True,
    ),
)
