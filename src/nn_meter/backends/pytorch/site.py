"""Where an operator stands, as a row of ``ROWS`` is told it: a row gives a function of torch's tensors, those of the
operator's inputs with ``None`` where one is left out, and looks up once what is known before inference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nn_meter.backends.site import Attributes
from nn_meter.ir.graph import Attr, Tensor

Function = Callable[..., Any]


@dataclass(frozen=True)
class Site(Attributes):
    """An operator with its tensors; ``constants`` are torch's tensors of its constant inputs."""

    torch: Any
    attrs: Mapping[str, Attr]
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    constants: tuple[Any, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.outputs[0].shape

    def shape_of(self, position: int) -> tuple[int, ...]:
        found = self.inputs[position]
        assert found is not None
        return found.shape

    def values(self, position: int, name: str = "") -> tuple[Any, ...] | None:
        if len(self.inputs) > position and self.constants[position] is not None:
            return tuple(self.constants[position].reshape(-1).tolist())
        found = self.attrs.get(name)
        return found if found is None or isinstance(found, tuple) else (found,)


Row = Callable[[Site], Function]


def edges(before: Sequence[int], behind: Sequence[int]) -> list[int]:
    """Padding as torch's ``pad`` wants it: both sides of each axis, from the last on."""
    return [each for pair in zip(reversed(before), reversed(behind), strict=True) for each in pair]
