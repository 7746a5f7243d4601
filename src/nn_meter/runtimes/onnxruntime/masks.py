"""Scores of attention that are masked: a softmax computes with what is left out in numbers below the normal ones of
single precision, which processors do in microcode, 5 ns for each element (where half is left out 8 times a softmax's
own time; ONNX Runtime 1.32 on a Xeon).

Which scores are left out has to follow from the model: from a constant, or from places that are compared. What only an
input of the model says (which tokens fill up a batch) is taken for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from nn_meter.kernels.rewriting import Op, Work
from nn_meter.runtimes.base import Options

MASKED = "masked"
"""The attribute of a softmax that says so."""

_LEAST = -80.0
"""The exponential of what lies farther below the largest is no normal number."""

_MOVING = frozenset(("Cast", "Expand", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze"))
_LEAVING = frozenset(("Mul", "Trilu"))  # a product: with which of the others there are
_COMPARING = frozenset(("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Trilu"))
_FARTHEST, _MOST = 12, 60
"""Operators between what is put in a mask and the scores, and that say where, in files of transformers."""


class Known(Protocol):
    """What is known of a graph's tensors."""

    def made(self, name: str) -> tuple[str, Sequence[str]] | None:
        """The operator that computes it, and what that reads."""

    def differs(self, name: str) -> bool | None:
        """Whether a constant has several values, as one of unknown values is taken to; ``None`` where it is none."""

    def ends(self, name: str) -> tuple[float, float] | None:
        """The least and the greatest value of a constant, where they are known."""

    def shape(self, name: str) -> Sequence[int]:
        """Of a constant."""


@dataclass(frozen=True)
class _InWork:
    work: Work

    def made(self, name: str) -> tuple[str, Sequence[str]] | None:
        op: Op | None = self.work.producer.get(name) or self.work.folded.get(name)
        return (op.op_type, op.inputs) if op is not None else None

    def differs(self, name: str) -> bool | None:
        tensor = self.work.tensors[name]
        if not tensor.const or (tensor.value is None and name in self.work.folded):
            return None
        return tensor.value is None or len(set(tensor.value)) > 1

    def ends(self, name: str) -> tuple[float, float] | None:
        tensor, made = self.work.tensors[name], self.work.folded.get(name)
        if tensor.const and tensor.value:
            return min(tensor.value), max(tensor.value)
        filled = made.attrs.get("value", 0) if made is not None and made.op_type == "ConstantOfShape" else None
        return (filled, filled) if isinstance(filled, int | float) else None

    def shape(self, name: str) -> Sequence[int]:
        return self.work.shape(name)


def tell_masks(work: Work, options: Options) -> None:
    """Softmaxes of masked scores."""
    known = _InWork(work)
    for op in work.ops("Softmax"):
        if masked(op.inputs[0], work.shape(op.inputs[0]), known):
            op.attrs = {**op.attrs, MASKED: 1}


def masked(name: str, shape: tuple[int, ...], known: Known) -> bool:
    """Whether some of the scores ``name`` are replaced by what is far below others, or have as much added. One that
    stands alone sees all that came before it."""
    made = known.made(name)
    while made is not None and made[0] == "Cast":
        made = known.made(made[1][0])
    if made is None or len(shape) < 2 or shape[-2] == 1:
        return False
    return _fills(made, known) or (made[0] == "Add" and any(_is_mask(each, known) for each in made[1]))


def _is_mask(name: str, known: Known) -> bool:
    """Whether it is far below other numbers in some places: a fill of which a triangle is left, or other places."""
    part = False
    for _ in range(_FARTHEST):
        made = known.made(name)
        if _far_below(name, known):
            return part or known.differs(name) is True
        if made is None or _fills(made, known):
            return made is not None
        if made[0] not in _MOVING and made[0] not in _LEAVING:
            return False
        part |= made[0] == "Trilu"
        name = made[1][0]
    return False


def _fills(made: tuple[str, Sequence[str]], known: Known) -> bool:
    op_type, inputs = made
    return op_type == "Where" and any(_far_below(each, known) for each in inputs[1:]) and _told(inputs[0], known)


def _far_below(name: str, known: Known) -> bool:
    ends = known.ends(name)
    return ends is not None and ends[0] <= _LEAST


def _one_answer(op_type: str, inputs: Sequence[str], known: Known) -> bool:
    """Whether a comparison of constants is the same everywhere: places are all 0 or more."""
    a, b = (known.ends(each) for each in (inputs if op_type.startswith("Greater") else inputs[::-1]))
    if a is None or b is None:
        return False
    return a[0] >= b[1] or a[1] < b[0] if op_type.endswith("OrEqual") else a[0] > b[1] or a[1] <= b[0]


def _told(name: str, known: Known) -> bool:
    """Whether the model itself says where: a constant, or where it is joined to others a table of queries and keys."""
    left, seen = [(name, True)], 0
    while left and seen < _MOST:
        (name, alone), seen = left.pop(), seen + 1
        made, differs = known.made(name), known.differs(name)
        if differs is not None:
            if differs and (alone or sum(size > 1 for size in known.shape(name)[-2:]) > 1):
                return True
        elif made is not None and made[0] in _COMPARING:
            if made[0] == "Trilu" or not _one_answer(*made, known):
                return True
        elif made is not None and made[0] != "Gather":
            alone = alone and (made[0] in _MOVING or made[0] == "Not")
            data = made[1][:1] if made[0] in _MOVING else made[1]  # what a shape is says nothing
            left += [(each, alone) for each in data if each]
    return False
