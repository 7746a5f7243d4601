"""Casts behind each other become one where nothing is lost between them that the last would keep."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from nn_meter.kernels.rewriting import Op, Work
from nn_meter.kernels.schema import item_bytes
from nn_meter.runtimes.base import Options

_FLOATS = ("float16", "float32", "float64")
_HOLDING: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "float16": frozenset(("float32", "float64")),
        "float32": frozenset(("float64",)),
        "int32": frozenset(("float64", "int64")),
        **dict.fromkeys(("int8", "uint8"), frozenset((*_FLOATS, "int32", "int64"))),
        "bool": frozenset((*_FLOATS, "int8", "uint8", "int32", "int64")),
    }
)
"""Element type to those that hold all its values, as the runtime sees it (1.32, tried for each three of them)."""


def merge_casts(work: Work, options: Options) -> None:
    """One for two, where only casts read the first, and all of them can do without it."""
    for first in work.ops("Cast"):
        name = first.outputs[0]
        readers = list(work.readers(name))
        if name in work.outputs or not readers or not all(_needless(work, first, each) for each in readers):
            continue
        for each in readers:
            same = work.tensors[first.inputs[0]].dtype == work.tensors[each.outputs[0]].dtype
            work.swap_input(each, name, first.inputs[0])
            if same and each.outputs[0] not in work.outputs:
                work.bypass(each, "it is of that type already")
        work.remove(first)
        work.free += [(member, "Cast", "the Cast behind it does it, too") for member in first.members]


def _needless(work: Work, first: Op, last: Op) -> bool:
    """Whether the last, if it is a Cast, may read what the first does."""
    if last.op_type != "Cast":
        return False
    before, between, after = (work.tensors[n].dtype for n in (first.inputs[0], first.outputs[0], last.outputs[0]))
    if between in _HOLDING.get(before, ()):
        return True
    to_float = between not in _FLOATS and after in _FLOATS
    return after != "bool" and item_bytes(after) < item_bytes(between) and not to_float
