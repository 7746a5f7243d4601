"""What a row of the operator table gets, and the small things that rows write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from nn_meter.ir import Attr
from nn_meter.ir.shapes import DTYPES

T = TypeVar("T")


class Writer(Protocol):
    """What a row may ask and write."""

    def op(self, op_type: str, *inputs: str, **attrs: Attr) -> str: ...
    def multi(self, op_type: str, inputs: Sequence[str], outputs: int, **attrs: Attr) -> tuple[str, ...]: ...
    def const(self, value: Sequence[int | float] | int | float, dtype: str = "int64") -> str: ...
    def weight(self, shape: Sequence[int], dtype: str) -> str: ...
    def value(self, tensor: Any) -> str: ...
    def shape(self, name: str) -> tuple[int, ...]: ...
    def dtype(self, name: str) -> str: ...
    def note(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Call:
    """One ATen call: arguments by the names of its schema, results on the device ``meta``."""

    name: str
    args: Mapping[str, Any]
    outs: tuple[Any, ...]

    def __getitem__(self, key: str) -> Any:
        return self.args.get(key)

    @property
    def first(self) -> Any:
        """The first argument, ``self`` or ``input``."""
        return next(iter(self.args[key] for key in ("self", "input", "query") if key in self.args))

    @property
    def dtype(self) -> str:
        """Element type of the first result."""
        return dtype_of(self.outs[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first result."""
        return tuple(self.outs[0].shape)


Written = str | tuple[str, ...]
Row = Callable[[Writer, Call], Written]


def dtype_of(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def is_tensor(value: Any) -> bool:
    return hasattr(value, "untyped_storage")


def spread(value: Any, count: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * count if len(values) == 1 else values


def axis_of(axis: int, rank: int) -> int:
    return axis + rank if axis < 0 else axis


def axes_of(dims: Any, rank: int) -> tuple[int, ...]:
    if dims is None:
        return tuple(range(rank))
    found = tuple(axis_of(dim, rank) for dim in ((dims,) if isinstance(dims, int) else dims))
    return found or tuple(range(rank))


def cast(w: Writer, name: str, dtype: str) -> str:
    return name if w.dtype(name) == dtype else w.op("Cast", name, to=DTYPES.index(dtype))


def operand(w: Writer, value: Any, dtype: str) -> str:
    """A tensor or number as an input of element type ``dtype``."""
    if is_tensor(value):
        return cast(w, w.value(value), dtype)
    return w.const(value, dtype)


def reshaped(w: Writer, name: str, shape: Sequence[int]) -> str:
    return name if w.shape(name) == tuple(shape) else w.op("Reshape", name, w.const(tuple(shape)))


def transposed(w: Writer, name: str, perm: Sequence[int]) -> str:
    return name if tuple(perm) == tuple(range(len(perm))) else w.op("Transpose", name, perm=tuple(perm))


def last_swapped(w: Writer, name: str) -> str:
    rank = len(w.shape(name))
    return transposed(w, name, (*range(rank - 2), rank - 1, rank - 2))


def slice_of(w: Writer, name: str, axis: int, start: int, end: int, step: int = 1) -> str:
    return w.op("Slice", name, w.const((start,)), w.const((end,)), w.const((axis,)), w.const((step,)))


def reduced(w: Writer, op_type: str, name: str, axes: Sequence[int], keepdims: bool) -> str:
    return w.op(op_type, name, w.const(tuple(axes)), keepdims=int(keepdims))


def expanded(w: Writer, name: str, shape: Sequence[int]) -> str:
    return name if w.shape(name) == tuple(shape) else w.op("Expand", name, w.const(tuple(shape)))


def parts_of(w: Writer, name: str, axis: int, sizes: tuple[int, ...]) -> tuple[str, ...]:
    if len(sizes) == 1:
        return (name,)
    return w.multi("Split", (name, w.const(sizes)), len(sizes), axis=axis)


def each(names: str, row: T) -> dict[str, T]:
    return dict.fromkeys(names.split(), row)
