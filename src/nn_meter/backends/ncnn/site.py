"""Where an operator stands, as a row of ``ROWS`` is told it: a row writes ncnn's layers for one of the graph's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from nn_meter.backends import site
from nn_meter.backends.ncnn.model import MOST_AXES, Blob, Dims, File, Values, kept, without_batch
from nn_meter.backends.site import clamp
from nn_meter.kernels.rewriting import Op
from nn_meter.runtimes.ncnn import ACTIVATIONS

LEAST, MOST = (float(bound) for bound in (np.finfo(np.float32).min, np.finfo(np.float32).max))
"""What a clamp has where it has no bound."""


class Site(site.Site):
    """An operator with what is written already, and what its net holds."""

    file: File

    @property
    def dims(self) -> Dims:
        """Of the first output."""
        return without_batch(self.shape)

    def place(self, axis: int, shape: Sequence[int] | None = None) -> int:
        """Where an axis of the first input, or of a tensor of this shape, is in its blob.

        Raises:
            NotImplementedError: it is one that is left out, or one of too many.
        """
        whole = self.shape_of(0) if shape is None else shape
        axes = kept(whole)
        if axis % len(whole) not in axes:
            raise NotImplementedError("along the axis of batch")
        place = axes.index(axis % len(whole))
        if len(axes) > MOST_AXES and place >= MOST_AXES - 1:
            raise NotImplementedError(f"of {len(axes)} axes")
        return place

    def wide(self, position: int) -> Dims:
        """The sizes of an operand with those axes that the result has.

        Raises:
            NotImplementedError: these are too many.
        """
        shape = self.shape_of(position)
        axes = kept(self.shape)
        if len(axes) > MOST_AXES:
            if shape == self.shape:
                return self.dims
            raise NotImplementedError(f"of {len(axes)} axes")
        whole = (1,) * (len(self.shape) - len(shape)) + shape
        return tuple(whole[axis] for axis in axes) or (1,)

    def get(self, position: int) -> Blob:
        """An input."""
        return self.file.get(self.inputs[position])

    def raw(self, position: int) -> Blob:
        """An input as it lies there."""
        known = self.file.known(self.inputs[position]) is not None
        return self.get(position) if known else self.file.raw(self.inputs[position])

    def image(self, position: int = 0) -> Blob:
        """An input that is one image: (channels, *spatial)."""
        if self.shape_of(position)[0] != 1:
            raise NotImplementedError("of more than one image")
        return self.get(position)

    def give(self, blob: Blob) -> None:
        """The first output is this blob."""
        self.file.keep(self.out, blob)

    def activation(self) -> dict[int, Values]:
        """The parameters of the activation that follows and is fused."""
        reader = self.follower(*ACTIVATIONS)
        if reader is None:
            return {}
        made = _activation(self, reader)
        self.take(reader)
        return made


def _activation(site: Site, op: Op) -> dict[int, Values]:
    slope = op.attrs.get("alpha", 0.01)
    assert isinstance(slope, int | float)
    number, values = {
        "Relu": (1, ()),
        "LeakyRelu": (2, (float(slope),)),
        "Clip": (3, bounds(site, op)),
        "Sigmoid": (4, ()),
        "Mish": (5, ()),
    }[op.op_type]
    return {9: number, **({10: values} if values else {})}


def bounds(site: Site, op: Op) -> tuple[float, ...]:
    """Least and most of a clamp."""
    least, most = clamp(op, site.work) if op.op_type == "Clip" else (None, None)
    return (LEAST if least is None else least, MOST if most is None else most)


Row: TypeAlias = Callable[[Site], None]
