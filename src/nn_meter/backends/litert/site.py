"""Where an operator stands, as a row of ``ROWS`` is told it: a row writes TFLite's operators for one of the graph's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from nn_meter.backends import site
from nn_meter.backends.litert.model import File, Stored
from nn_meter.backends.site import clamp
from nn_meter.kernels.rewriting import Op, Work
from nn_meter.runtimes.litert import Order, plain

_CLAMPS: Mapping[tuple[float | None, float | None], str] = MappingProxyType(
    {(0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1", (0.0, None): "RELU"}
)
"""Least and most of a clamp that TFLite has to its name there."""


class Site(site.Site):
    """An operator with what is written already, and what its file holds."""

    file: File

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

    def activation(self) -> int:
        """The number of the activation that follows and is fused, of none where there is none."""
        reader = self.follower("Relu", "Clip")
        name = named_clamp(reader, self.work) if reader is not None else ""
        if reader is not None and name:
            self.take(reader)
        return self.file.enum("ActivationFunctionType", name or "NONE")


def named_clamp(op: Op, work: Work) -> str:
    """What TFLite calls a Relu or a Clip, empty where it has no name for it."""
    return "RELU" if op.op_type == "Relu" else _CLAMPS.get(clamp(op, work), "")


Row = Callable[[Site], None]
