"""Attributes of an operator, each asked for with its type."""

from __future__ import annotations

from nn_meter.frontends.tensorflow.flow import Op


def integer(op: Op, name: str, default: int = 0) -> int:
    """A whole number."""
    value = op.attrs.get(name)
    return value if isinstance(value, int) else default


def integers(op: Op, name: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
    """A list of whole numbers; the default stands for an empty list too."""
    value = op.attrs.get(name)
    return tuple(int(item) for item in value) if isinstance(value, tuple) and value else default


def dimensions(op: Op, name: str) -> tuple[int, ...] | None:
    """A shape, or ``None`` where it is not stated."""
    value = op.attrs.get(name)
    if isinstance(value, tuple) and all(isinstance(item, int) for item in value):
        return tuple(item for item in value if isinstance(item, int))
    return None


def flag(op: Op, name: str, default: bool = False) -> bool:
    """Yes or no."""
    value = op.attrs.get(name)
    return value if isinstance(value, bool) else default


def floating(op: Op, name: str, default: float) -> float:
    """A number."""
    value = op.attrs.get(name)
    return float(value) if isinstance(value, int | float) else default


def text(op: Op, name: str, default: str = "") -> str:
    """A text, also the name of an element type."""
    value = op.attrs.get(name)
    return value if isinstance(value, str) and value else default
