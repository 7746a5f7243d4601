"""A net of ncnn while it is written: layers, blobs, weights (``Net::load_param``, ``ModelBin`` of its sources).

A blob has up to four axes and none of batch: of a tensor whose first axis is of size 1, that one is left out, and
others of size 1 where there are more than four; what has more then is kept with its last axes as one. A layer takes and
gives blobs by name; one that several layers read goes through a Split, which copies nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from nn_meter.backends import site
from nn_meter.ir.graph import Tensor
from nn_meter.runtimes.trace import ExecutedKernel, Operand

Dims = tuple[int, ...]
"""Of a blob, the outermost first: (c, h, w) of an image, (h, w) of tokens."""

_MAGIC = 7767517
"""What a text of layers begins with."""
MOST_AXES = 4
_SIZES: tuple[tuple[int, ...], ...] = ((0,), (1, 0), (2, 1, 0), (2, 11, 1, 0))
"""Numbers of the parameters that are a blob's sizes, by the number of its axes."""

Values = int | float | Sequence[int] | Sequence[float]


def kept(shape: Sequence[int]) -> tuple[int, ...]:
    """The axes of a tensor that a blob of it has: not the first one of size 1, nor others of size 1 that are too
    many."""
    axes = list(range(len(shape)))
    if len(axes) > 1 and shape[0] == 1:
        del axes[0]
    while len(axes) > MOST_AXES and any(shape[axis] == 1 for axis in axes):
        axes.remove(next(axis for axis in axes if shape[axis] == 1))
    return tuple(axes)


def without_batch(shape: Sequence[int]) -> Dims:
    """How a tensor of this shape lies in a blob."""
    dims = tuple(shape[axis] for axis in kept(shape)) or (1,)
    return (*dims[: MOST_AXES - 1], prod(dims[MOST_AXES - 1 :])) if len(dims) > MOST_AXES else dims


@dataclass(frozen=True, slots=True)
class Blob:
    """What a layer gives: its name in the net and its sizes."""

    name: str
    dims: Dims


@dataclass(frozen=True, slots=True)
class _Layer:
    kind: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    parameters: str


@dataclass(frozen=True, slots=True)
class Step:
    """The layers that were written for one operator: extracting ``top`` runs them."""

    top: str
    executed: ExecutedKernel


@dataclass(frozen=True, slots=True)
class Net:
    """The text of the layers, the bytes of the weights, names of what goes in and comes out, and the steps."""

    text: str
    weights: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: tuple[Step, ...]


class File(site.File):
    """What is written so far."""

    def __init__(self, tensors: Mapping[str, Tensor], arrays: Mapping[str, np.ndarray]) -> None:
        super().__init__(tensors, arrays)
        self.pads: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[str, ...]]] = {}
        self._stored: dict[str, Blob] = {}
        self._layers: list[_Layer] = []
        self._weights: list[bytes] = []
        self._steps: list[Step] = []
        self._inputs: list[str] = []
        self._blobs = 0
        self._begun = 0

    def given(self, name: str) -> None:
        """An input of the net."""
        blob = self.layer("Input", (), without_batch(self.shape(name)))
        self._inputs.append(blob.name)
        self.keep(name, blob)

    def keep(self, name: str, blob: Blob) -> None:
        """A tensor of the graph is this blob."""
        self._stored[name] = blob

    def get(self, name: str, dims: Dims | None = None) -> Blob:
        """A tensor of the graph as a blob of these sizes, by default those that its shape has."""
        wanted = without_batch(self.shape(name)) if dims is None else dims
        known = self.known(name)
        if known is not None:
            return self.constant(known.reshape(wanted))
        return self.shaped(self._stored[name], wanted)

    def raw(self, name: str) -> Blob:
        """A computed tensor of the graph as it lies there."""
        return self._stored[name]

    def constant(self, array: np.ndarray) -> Blob:
        """A blob of known values."""
        sizes: dict[int, Values] = dict(zip(_SIZES[array.ndim - 1], array.shape, strict=True))
        return self.layer("MemoryData", (), array.shape, sizes, (array,))

    def shaped(self, blob: Blob, dims: Dims) -> Blob:
        """With the same elements in other sizes."""
        return blob if blob.dims == dims else self.view(blob, dims)

    def view(self, blob: Blob, dims: Dims) -> Blob:
        """A Reshape, even to the sizes that are there."""
        return self.layer("Reshape", (blob,), dims, dict(zip(_SIZES[len(dims) - 1], dims, strict=True)))

    def layer(
        self,
        kind: str,
        bottoms: Iterable[Blob],
        dims: Dims,
        parameters: Mapping[int, Values] = {},
        weights: Sequence[np.ndarray] = (),
        tagged: bool = False,
    ) -> Blob:
        """What a new layer gives."""
        return self.layers(kind, bottoms, [dims], parameters, weights, tagged)[0]

    def layers(
        self,
        kind: str,
        bottoms: Iterable[Blob],
        tops: Sequence[Dims],
        parameters: Mapping[int, Values] = {},
        weights: Sequence[np.ndarray] = (),
        tagged: bool = False,
    ) -> list[Blob]:
        """What a new layer gives, where that are several blobs. Of ``tagged`` weights the first say that they are
        floats."""
        made = [Blob(f"b{self._blobs + i}", tuple(dims)) for i, dims in enumerate(tops)]
        self._blobs += len(made)
        text = " ".join(_parameter(number, value) for number, value in parameters.items())
        names = tuple(each.name for each in bottoms)
        self._layers.append(_Layer(kind, names, tuple(each.name for each in made), text))
        for i, array in enumerate(weights):
            tag = b"\0\0\0\0" if tagged and i == 0 else b""
            self._weights.append(tag + np.ascontiguousarray(array, np.float32).tobytes())
        return made

    def begin(self, nodes: tuple[str, ...]) -> None:
        super().begin(nodes)
        self._begun = len(self._layers)

    def end(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """They are written: what is extracted of them is the last one's; nothing where none was."""
        new = self._layers[self._begun :]
        if not new:
            return
        main = next((each for each in new if each.kind not in ("MemoryData", "Reshape")), new[-1])
        read = [name for name in inputs if name]
        self._steps.append(
            Step(
                new[-1].tops[-1],
                ExecutedKernel(
                    name=self.nodes[-1],
                    op_type=main.kind,
                    domain="ncnn",
                    inputs=tuple(self._operand(name) for name in read),
                    outputs=tuple(self._operand(name) for name in outputs if name),
                    input_names=tuple(read),
                    output_names=tuple(name for name in outputs if name),
                    constant_inputs=frozenset(name for name in read if self.tensors[name].const),
                    nodes=self.nodes,
                ),
            )
        )

    def finished(self, outputs: Iterable[str]) -> Net:
        """The net, with these tensors of the graph as outputs."""
        self.begin(())
        results = [self.get(name).name for name in outputs]
        reads = Counter(name for layer in self._layers for name in layer.bottoms) + Counter(results)
        shares = {name: iter(range(count)) for name, count in reads.items() if count > 1}

        def read(name: str) -> str:
            return f"{name}s{next(shares[name])}" if name in shares else name

        lines: list[str] = []
        blobs = 0
        for layer in self._layers:
            bottoms = [read(name) for name in layer.bottoms]
            lines.append(_line(layer.kind, len(lines), bottoms, layer.tops, layer.parameters))
            blobs += len(layer.tops)
            for top in layer.tops:
                if top in shares:
                    parts = [f"{top}s{i}" for i in range(reads[top])]
                    lines.append(_line("Split", len(lines), [top], parts))
                    blobs += len(parts)
        given = tuple(read(name) for name in results)
        text = "\n".join((str(_MAGIC), f"{len(lines)} {blobs}", *lines, ""))
        return Net(text, b"".join(self._weights), tuple(self._inputs), given, tuple(self._steps))

    def _operand(self, name: str) -> Operand:
        return Operand(self.shape(name), self.tensors[name].dtype)


def _line(kind: str, number: int, bottoms: Sequence[str], tops: Sequence[str], parameters: str = "") -> str:
    counts = f"{len(bottoms)} {len(tops)}"
    return " ".join(filter(None, (kind, f"l{number}", counts, *bottoms, *tops, parameters)))


def _parameter(number: int, value: Values) -> str:
    """A float has a point or an exponent, by which it is known; a list stands under another number."""
    if isinstance(value, int | float):
        return f"{number}={_number(value)}"
    return ",".join((f"{-23300 - number}={len(value)}", *map(_number, value)))


def _number(value: int | float) -> str:
    return str(int(value)) if isinstance(value, int) else repr(float(value))
