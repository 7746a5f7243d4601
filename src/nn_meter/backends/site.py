"""Where an operator stands, as what writes a runtime's own model is told it: its operands and attributes, the window
that it goes over, and what becomes one with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from nn_meter.errors import BackendError
from nn_meter.ir.graph import Attr, Graph, Tensor
from nn_meter.kernels.rewriting import Op, Work


class File:
    """A model while it is written, of a graph whose constants are ``arrays``; ``nodes`` are those that the next
    operators stand for."""

    def __init__(self, tensors: Mapping[str, Tensor], arrays: Mapping[str, np.ndarray]) -> None:
        self.nodes: tuple[str, ...] = ()
        self.tensors = {name: replace(tensor, const=name in arrays) for name, tensor in tensors.items()}
        self._arrays = arrays

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor of the graph."""
        return self.tensors[name].shape

    def known(self, name: str) -> np.ndarray | None:
        """The values of a constant of the graph; ``None`` of what is computed or left out."""
        return self._arrays.get(name) if name else None

    def begin(self, nodes: tuple[str, ...]) -> None:
        """The next operators stand for these nodes."""
        self.nodes = nodes

    def end(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """They are written."""


class Attributes(ABC):
    """An operator by what it says of itself and of its tensors."""

    attrs: Mapping[str, Attr]

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of the first output."""

    @abstractmethod
    def shape_of(self, position: int) -> tuple[int, ...]:
        """Of an input that is there."""

    @abstractmethod
    def values(self, position: int, name: str = "") -> tuple[Any, ...] | None:
        """Elements of a constant input, or of the attribute that older operators have in its place."""

    def numbers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """An attribute that is several whole numbers."""
        found = self.attrs.get(name)
        return tuple(map(int, found)) if isinstance(found, tuple) and found else default

    def flag(self, name: str, default: int = 0) -> bool:
        """An attribute that is a truth value."""
        return bool(self.attrs.get(name, default))

    def number(self, name: str, default: float) -> float:
        """An attribute that is one number."""
        found = self.attrs.get(name, default)
        assert isinstance(found, int | float)
        return found

    def text(self, name: str, default: str) -> str:
        """An attribute that is a word."""
        return str(self.attrs.get(name, default))

    def axis(self, default: int, position: int = 0) -> int:
        """The attribute ``axis``, counted from the front."""
        return int(self.number("axis", default)) % max(len(self.shape_of(position)), 1)

    def slices(self) -> list[tuple[int, int, int, int]]:
        """Of a Slice: axis, start, end and step of each."""
        starts, ends = self.values(1, "starts") or (), self.values(2, "ends") or ()
        axes = self.values(3, "axes") or tuple(range(len(starts)))
        steps = self.values(4) or (1,) * len(starts)
        rank = len(self.shape_of(0))
        return [
            (int(axis) % rank, int(start), int(end), int(step))
            for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
        ]

    def pads(self) -> dict[int, tuple[int, int]]:
        """Of a Pad: axis to what is added before and behind."""
        rank = len(self.shape_of(0))
        pads, axes = self.values(1, "pads") or (), self.values(3) or tuple(range(rank))
        half = len(pads) // 2
        sides = zip(axes, pads[:half], pads[half:], strict=True)
        return {int(axis) % rank: (int(less), int(more)) for axis, less, more in sides}


class Site(Attributes):
    """An operator with what is written already. What follows it and becomes one with it is ``taken``; ``out`` is then
    the result of the last."""

    def __init__(self, op: Op, work: Work, file: File) -> None:
        self.op = op
        self.attrs = op.attrs
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
        found = self.attrs.get(name)
        return found if found is None or isinstance(found, tuple) else (found,)

    def follower(self, *op_types: str) -> Op | None:
        """The operator of one of these types that alone reads the result."""
        reader = self.work.only_reader(self.out)
        return reader if reader is not None and reader.op_type in op_types else None

    def take(self, reader: Op) -> None:
        """Let what is written stand for ``reader``, too."""
        self.taken.append(reader)
        self.outputs = list(reader.outputs)
        self.file.nodes += reader.members


class Window:
    """A window over the spatial axes of ``site``'s first input: its strides, dilations, and padding on both sides."""

    def __init__(self, site: Attributes, kernel: Sequence[int]) -> None:
        rank = len(kernel)
        self.kernel = tuple(kernel)
        self.strides = site.numbers("strides", (1,) * rank)
        self.dilations = site.numbers("dilations", (1,) * rank)
        pads = site.numbers("pads", (0,) * (2 * rank))
        self.size, self.made = site.shape_of(0)[2:], site.shape[2:]
        self.before, self.behind = pads[:rank], pads[rank:]
        auto = site.text("auto_pad", "NOTSET")
        if auto.startswith("SAME"):
            total = [each + more for each, more in zip(*self._same(), strict=True)]
            less = [each // 2 for each in total]
            more = [each - half for each, half in zip(total, less, strict=True)]
            self.before, self.behind = map(tuple, (less, more) if auto == "SAME_UPPER" else (more, less))

    def _same(self) -> tuple[list[int], list[int]]:
        """What ``SAME`` pads before and behind: the odd one behind."""
        axes = zip(self.size, self.strides, self.kernel, self.dilations, strict=True)
        total = [max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size) for size, s, k, d in axes]
        return [each // 2 for each in total], [each - each // 2 for each in total]

    @property
    def same(self) -> bool:
        """Whether the padding is the one that TFLite calls ``SAME``."""
        ceiling = all(-(-size // s) == made for size, s, made in zip(self.size, self.strides, self.made, strict=True))
        return ceiling and self._same() == (list(self.before), list(self.behind))

    @property
    def missing(self) -> tuple[int, ...]:
        """What ``VALID`` needs behind each axis so that the result has its size: more than is padded where sizes are
        rounded up, less than nothing where the last elements are in no window."""
        axes = zip(self.made, self.strides, self.kernel, self.dilations, self.size, self.before, strict=True)
        return tuple(max(0, (made - 1) * s + (k - 1) * d + 1 - size - less) for made, s, k, d, size, less in axes)


def scaled(site: Site, weight: np.ndarray, bias: np.ndarray, *op_types: str) -> tuple[np.ndarray, np.ndarray]:
    """Weights (outputs first) and bias with what follows and does the same to each channel: batch normalisations,
    constants that are added or multiplied, as far as they are of ``op_types``."""
    while (reader := site.follower(*op_types)) is not None:
        found = _for_each_channel(site, reader, len(bias))
        if found is None:
            break
        factor, offset = found
        weight = weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))
        bias = bias * factor + offset
        site.take(reader)
    return weight.astype(np.float32), bias.astype(np.float32)


def _for_each_channel(site: Site, reader: Op, channels: int) -> tuple[np.ndarray, np.ndarray] | None:
    """What ``reader`` multiplies each channel of the result by, then adds; ``None`` where it does something else."""
    others = [name for name in reader.inputs if name != site.out]
    arrays = [known.astype(np.float32) for name in others if (known := site.file.known(name)) is not None]
    turned = reader.inputs[0] != site.out and reader.op_type in ("Sub", "Div")
    if len(arrays) < len(others) or turned or site.file.shape(reader.outputs[0]) != site.shape:
        return None
    if reader.op_type == "BatchNormalization":
        epsilon = reader.attrs.get("epsilon", 1e-5)
        assert isinstance(epsilon, float | int)
        gamma, beta, mean, variance = arrays
        factor = gamma / np.sqrt(variance + epsilon)
        return factor, beta - mean * factor
    (array,) = arrays
    rank = len(site.shape)
    axis = rank - 1 if site.op.op_type in ("MatMul", "Gemm") else 1
    if any(n > 1 for i, n in enumerate(array.shape, rank - array.ndim) if i != axis):
        return None
    each = np.broadcast_to(array.reshape(-1), (channels,))
    if reader.op_type in ("Mul", "Div"):
        return each if reader.op_type == "Mul" else 1 / each, np.zeros(channels, np.float32)
    return np.ones(channels, np.float32), each if reader.op_type == "Add" else -each


def clamp(op: Op, work: Work) -> tuple[float | None, float | None]:
    """Least and most of a Clip, ``None`` where it has none."""

    def bound(position: int, name: str) -> float | None:
        if len(op.inputs) > position and op.inputs[position]:
            return work.scalar(op.inputs[position])
        found = op.attrs.get(name)
        return float(found) if isinstance(found, int | float) else None

    return bound(1, "min"), bound(2, "max")


S = TypeVar("S", bound=Site)


def write(
    graph: Graph, work: Work, file: File, rows: Mapping[str, Callable[[S], None]], site: type[S], format: str, part: str
) -> None:
    """Write each operator of ``work`` by its row; ``format`` is what errors call the runtime's own, which is made of
    parts.

    Raises:
        BackendError: an operator that has no row, or is of a form that its row does not write; names it.
    """
    taken: set[int] = set()
    for op in work.ops():
        if id(op) in taken:
            continue
        row = rows.get(op.op_type)
        if row is None:
            raise BackendError(f"{graph.name}: {format} has no {part} for {op.op_type} ({op.members[0]})")
        file.begin(op.members)
        here = site(op, work, file)
        try:
            row(here)
        except NotImplementedError as error:
            raise BackendError(f"{graph.name}: {format} has no {op.op_type} ({op.members[0]}) {error}") from error
        file.end(op.inputs, here.outputs)
        taken.update(map(id, here.taken))
