"""What a shape rule sees of a node: its inputs and attributes, each asked for with a clear error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nn_meter.errors import GraphError
from nn_meter.ir.graph import Attr, Node, Tensor

Shape = tuple[int, ...]
Out = tuple[Shape, str]
"""Shape and dtype of one output."""

Value = tuple[int | float, ...]


class ShapeError(GraphError):
    """The shapes of a node's outputs do not follow from its inputs and attributes."""


class ValueNeeded(ShapeError):
    """They follow from the values of ``tensor``, which are not known."""

    def __init__(self, message: str, tensor: str) -> None:
        super().__init__(message)
        self.tensor = tensor


class Site:
    """A node together with the tensors that it reads."""

    __slots__ = ("attrs", "inputs", "node")

    def __init__(self, node: Node, inputs: Sequence[Tensor | None]) -> None:
        self.node = node
        self.attrs: Mapping[str, Attr] = node.attrs
        self.inputs = inputs

    def tensor(self, index: int) -> Tensor:
        """Input ``index``, which must be there."""
        tensor = self.inputs[index] if index < len(self.inputs) else None
        if tensor is None:
            raise ShapeError(f"input {index} is missing")
        return tensor

    def optional(self, index: int) -> Tensor | None:
        """Input ``index``, or ``None``."""
        return self.inputs[index] if index < len(self.inputs) else None

    def shape(self, index: int) -> Shape:
        """Shape of input ``index``."""
        return self.tensor(index).shape

    def dtype(self, index: int) -> str:
        """Dtype of input ``index``."""
        return self.tensor(index).dtype

    def values(self, index: int) -> Value:
        """The elements of input ``index``, which must be a constant."""
        tensor = self.tensor(index)
        if tensor.value is None:
            raise ValueNeeded(
                f"the values of input {index} ({tensor.name!r}) decide the shape, but are not constant", tensor.name
            )
        return tensor.value

    def dims(self, index: int) -> Shape:
        """The elements of input ``index`` as integers."""
        return tuple(map(int, self.values(index)))

    def whole(self, name: str, default: int | None = None) -> int:
        """An integer attribute; without a default it must be there."""
        value = self.attrs.get(name, default)
        if isinstance(value, int):
            return value
        raise ShapeError(f"attribute {name!r} is {'missing' if value is None else 'no integer'}")

    def ints(self, name: str) -> Shape | None:
        """An attribute of integers, or ``None`` where it is absent."""
        value: Any = self.attrs.get(name)
        if value is None or isinstance(value, tuple):
            return value  # of integers: ``_forms.ATTRIBUTES`` lists each of these, and they are checked before
        raise ShapeError(f"attribute {name!r} is no tuple of integers")

    def text(self, name: str, default: str) -> str:
        """A text attribute."""
        return str(self.attrs.get(name, default))

    def listed(self, name: str, index: int) -> Shape | None:
        """Integers that older opsets give as the attribute ``name``, newer ones as input ``index``."""
        if name in self.attrs:
            return self.ints(name)
        return self.dims(index) if self.optional(index) is not None else None


Rule = Callable[[Site], Sequence[Out]]
Rules = Mapping[str, Rule]


def axis_in(axis: int, rank: int) -> int:
    """``axis`` counted from the front."""
    if not -rank <= axis < rank:
        raise ShapeError(f"axis {axis} is outside a tensor of {rank} dimensions")
    return axis + rank if axis < 0 else axis


def axes_in(axes: Sequence[int], rank: int) -> Shape:
    """``axes`` counted from the front; none may repeat."""
    found = tuple(axis_in(axis, rank) for axis in axes)
    if len(set(found)) < len(found):
        raise ShapeError(f"axes {tuple(axes)} repeat")
    return found


def product(dims: Sequence[int]) -> int:
    """Product of ``dims``; 1 for none."""
    size = 1
    for dim in dims:
        size *= dim
    return size


def broadcast(a: Shape, b: Shape) -> Shape:
    """Shape of two operands together, by numpy's rule."""
    if a == b:
        return a
    if len(a) < len(b):
        a, b = b, a
    lead = len(a) - len(b)
    out = list(a)
    for i, dim in enumerate(b, lead):
        if out[i] == 1:
            out[i] = dim
        elif dim not in (1, out[i]):
            raise ShapeError(f"shapes {a} and {b} do not broadcast")
    return tuple(out)
