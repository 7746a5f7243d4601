"""Where an operator stands, as a row of ``ROWS`` is told it: a row writes TFLite's operators for one of the graph's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from nn_meter.backends.litert.model import File, Stored
from nn_meter.kernels.rewriting import Op, Work
from nn_meter.runtimes.litert import Order, plain

_CLAMPS: Mapping[tuple[float | None, float | None], str] = MappingProxyType(
    {(0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1", (0.0, None): "RELU"}
)
"""Least and most of a clamp that TFLite has to its name there."""


class Site:
    """An operator with what is written already. What follows it and becomes one with it is ``taken``; ``out`` is then
    the result of the last."""

    def __init__(self, op: Op, work: Work, file: File) -> None:
        self.op = op
        self.work = work
        self.file = file
        self.inputs: Sequence[str] = op.inputs
        self.outputs = list(op.outputs)
        self.taken: list[Op] = []

    @property
    def out(self) -> str:
        """Name of the first output."""
        return self.outputs[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first output."""
        return self.file.shape(self.out)

    def shape_of(self, position: int) -> tuple[int, ...]:
        """Of an input that is there."""
        return self.file.shape(self.inputs[position])

    def has(self, position: int) -> bool:
        """Whether an input is there."""
        return len(self.inputs) > position and bool(self.inputs[position])

    def constant(self, position: int) -> np.ndarray | None:
        """The values of an input that is known; ``None`` of one that is computed, or left out."""
        return self.file.known(self.inputs[position]) if self.has(position) else None

    def weights(self, position: int) -> np.ndarray:
        """The values of an input that has to be known, of float32."""
        found = self.constant(position)
        if found is None:
            raise NotImplementedError("with weights that are computed")
        return found.astype(np.float32)

    def values(self, position: int, name: str = "") -> tuple[Any, ...] | None:
        """Elements of a constant input, or of the attribute that older operators have in its place."""
        known = self.constant(position)
        if known is not None:
            return tuple(known.reshape(-1).tolist())
        if self.has(position):
            raise NotImplementedError(f"with {name or 'an operand'} that is computed")
        found = self.op.attrs.get(name)
        return found if found is None or isinstance(found, tuple) else (found,)

    def numbers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """An attribute that is several whole numbers."""
        found = self.op.attrs.get(name)
        return tuple(map(int, found)) if isinstance(found, tuple) and found else default

    def flag(self, name: str, default: int = 0) -> bool:
        """An attribute that is a truth value."""
        return bool(self.op.attrs.get(name, default))

    def number(self, name: str, default: float) -> float:
        """An attribute that is one number."""
        found = self.op.attrs.get(name, default)
        assert isinstance(found, int | float)
        return found

    def text(self, name: str, default: str) -> str:
        """An attribute that is a word."""
        return str(self.op.attrs.get(name, default))

    def axis(self, default: int, position: int = 0) -> int:
        """The attribute ``axis``, counted from the front."""
        return int(self.number("axis", default)) % max(len(self.shape_of(position)), 1)

    def get(self, position: int, order: Order | None = None) -> Stored:
        """An input in ``order``, by default the one that it is in."""
        return self.file.get(self.inputs[position], order)

    def plainly(self, position: int) -> Stored:
        """An input in the order of the graph."""
        return self.get(position, plain(len(self.shape_of(position))))

    def order(self, position: int = 0) -> Order:
        """Of an input."""
        return self.file.order(self.inputs[position])

    def give(self, stored: Stored, order: Order | None = None) -> None:
        """The first output is this one of the file."""
        self.file.keep(self.out, stored, order)

    def follower(self, *op_types: str) -> Op | None:
        """The operator of one of these types that alone reads the result."""
        reader = self.work.only_reader(self.out)
        return reader if reader is not None and reader.op_type in op_types else None

    def take(self, reader: Op) -> None:
        """Let what is written stand for ``reader``, too."""
        self.taken.append(reader)
        self.outputs = list(reader.outputs)
        self.file.nodes += reader.members

    def activation(self) -> int:
        """The number of the activation that follows and is fused, of none where there is none."""
        reader = self.follower("Relu", "Clip")
        name = named_clamp(reader, self.work) if reader is not None else ""
        if reader is not None and name:
            self.take(reader)
        return self.file.enum("ActivationFunctionType", name or "NONE")


def clamp(op: Op, work: Work) -> tuple[float | None, float | None]:
    """Least and most of a Clip, ``None`` where it has none."""

    def bound(position: int, name: str) -> float | None:
        if len(op.inputs) > position and op.inputs[position]:
            return work.scalar(op.inputs[position])
        found = op.attrs.get(name)
        return float(found) if isinstance(found, int | float) else None

    return bound(1, "min"), bound(2, "max")


def named_clamp(op: Op, work: Work) -> str:
    """What TFLite calls a Relu or a Clip, empty where it has no name for it."""
    return "RELU" if op.op_type == "Relu" else _CLAMPS.get(clamp(op, work), "")


Row = Callable[[Site], None]
