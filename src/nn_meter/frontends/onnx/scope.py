"""Names and attributes within the bodies of functions and branches."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from nn_meter.errors import GraphError
from nn_meter.frontends.onnx import wire

OLDEST_OPSET, NEWEST_OPSET = 7, 28
"""Of ONNX; the newest is that of onnx 1.23."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Where nodes stand: names of the body to those of the graph, attributes of the call, opset, depth."""

    names: ChainMap[str, str] | dict[str, str] = field(default_factory=dict)
    values: Mapping[str, wire.AttrValue] = field(default_factory=dict)
    opset: int = OLDEST_OPSET
    depth: int = 0
    prefix: str = ""

    def __getitem__(self, name: str) -> str:
        return self.names.get(name, name)

    def all(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Of each of ``names`` what it is called in the graph."""
        return tuple([self.names.get(name, name) for name in names]) if self.names else names


@contextmanager
def fitting(where: str, label: str, op_type: str) -> Iterator[None]:
    """What a row looks for in a node that was not checked, and does not find, is that node's error."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise GraphError(
            f"{where}: node {label!r} ({op_type}): its inputs, outputs or attributes are not those of the operator "
            f"({type(error).__name__}: {error})"
        ) from error
