"""Operators that compute the same."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from nn_meter.kernels.rewriting import Op, Work
from nn_meter.runtimes.base import Options
from nn_meter.runtimes.structures import FILLED

_MOST_SHARED = 8
"""Elements of constants that are one where their values are equal."""

_MOST_WAYS = 64
"""In so many ways one window is moved over one tensor; more are told apart no further, as they would cost a square."""

_RANDOM = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
)


def merge_equals(work: Work, options: Options) -> None:
    """Of operators with the same inputs and attributes the first is left."""
    known: dict[Hashable, list[Op]] = {}
    plain: dict[Hashable, Op] = {}  # those without attributes, of which each is the only one
    renamed: dict[str, str] = {}  # to what is read in its place, when the reader has its turn: it may read all of them
    quantised = work.has("DequantizeLinear")
    value_of = values(work)
    outputs = work.outputs.keys()
    for op in work.ops():
        if renamed:
            for name in {name for name in op.inputs if name in renamed}:
                work.swap_input(op, name, renamed[name])
        if op.op_type in _RANDOM or not op.inputs or not outputs.isdisjoint(op.outputs):
            continue
        if quantised and any(work.made_by(i, "DequantizeLinear") for i in op.inputs if i):
            continue  # each reader of a DequantizeLinear has one of its own by then
        read = tuple([value_of(i) for i in op.inputs])
        first: Op | None
        if not op.attrs:
            first = plain.setdefault((op.op_type, read), op)
        else:  # sizes are compared, not hashed
            said = sorted([item for item in op.attrs.items() if item[0] not in FILLED])
            alike = known.setdefault((op.op_type, read, *said), [])
            first = next((each for each in alike if each.attrs == op.attrs), None)
            if first is None:
                alike += [op][: _MOST_WAYS - len(alike)]
        if first is None or first is op:
            continue
        if len(first.outputs) != len(op.outputs):
            continue
        renamed |= {old: new for old, new in zip(op.outputs, first.outputs, strict=True) if old}
        work.remove(op)
        work.free += [(m, op.op_type, "another operator computes the same") for m in op.members]


def values(work: Work) -> Callable[[str], Hashable]:
    """What tells an input from others: of a small constant its elements, of what else its name; a weight that two
    layers have is written as an Identity."""
    small: dict[str, Hashable] = {  # found in a row: most inputs are none of them, and are not looked at
        name: (tensor.dtype, tensor.shape, tensor.value)
        for name, tensor in work.tensors.items()
        if tensor.const and tensor.value is not None and tensor.size <= _MOST_SHARED
    }
    weights = {name: made.inputs[0] for name, made in work.folded.items() if made.op_type == "Identity"}

    def value_of(name: str) -> Hashable:
        while name in weights:
            name = weights[name]
        return small.get(name, name)

    return value_of
