"""Where the channels lie last, what moves data or looks at it another way is read as the data lies: a Split of channels
takes apart what stands side by side, and a Reshape has to bring them in front first (a Reorder in executed graphs)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from math import prod
from types import MappingProxyType

from nn_meter.ir import Attr, Tensor
from nn_meter.kernels.kinds import VIEWS, Operator
from nn_meter.kernels.rewriting import Work
from nn_meter.runtimes.base import Options
from nn_meter.runtimes.openvino.operators import channels_last

_KEEPING = ("pool", "resize", "slice", "split")
_IMAGE = 4


def lay_out(work: Work, options: Options) -> None:
    """Say so of each operator."""
    laid(work)


def laid(work: Work, idle: Collection[str] = ()) -> None:
    """Say so of each operator but those of ``idle`` nodes."""
    last = channels_last(work, _KEEPING)
    for op in work.ops("Concat", "Slice", "Split", *VIEWS):
        source = next((i for i in op.inputs if i and not work.const(i)), "")
        shape = work.shape(source) if source else ()
        apart = len(shape) == _IMAGE and shape[1] > 1 and prod(shape[2:]) > 1
        operator = work.executed(op)
        if source not in last or not apart or any(member in idle for member in op.members):
            continue
        if operator.shape(0) == shape:  # else what it reads was turned for it
            op.core = (_brought_first if op.op_type in VIEWS else _as_it_lies)(operator)


def _brought_first(operator: Operator) -> Operator:
    return Operator("ReorderOutput", operator.inputs[:1], tuple(each for each in operator.inputs[:1] if each))


def _as_it_lies(operator: Operator) -> Operator:
    inputs = tuple(_turned(each) for each in operator.inputs if each is not None and len(each.shape) == _IMAGE)
    return replace(
        operator,
        inputs=inputs,
        outputs=tuple(map(_turned, operator.outputs)),
        attrs=_turned_axis(operator.attrs),
    )


def _turned(tensor: Tensor) -> Tensor:
    n, channels, *places = tensor.shape
    return replace(tensor, shape=(n, *places, channels), value=None)


def _turned_axis(attrs: Mapping[str, Attr]) -> Mapping[str, Attr]:
    axis = attrs.get("axis", 0)
    assert isinstance(axis, int)
    return MappingProxyType({**attrs, "axis": (0, _IMAGE - 1, 1, 2)[axis]})
