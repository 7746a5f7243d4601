"""Sequences of tensors, and what may be one or nothing, element by element: what is in one is known, so that a graph of
tensors says the same.

Nodes keep their operators, since the runtime executes them: a SplitToSequence has its parts as outputs, a
ConcatFromSequence as inputs, a SequenceAt reads the one tensor that it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from nn_meter.errors import GraphError, UnsupportedOperatorError
from nn_meter.ir import Attr, Tensor
from nn_meter.limits import Limit

Elements = tuple[str, ...]


class Writer(Protocol):
    """What a row asks, and writes with."""

    where: str
    most: Limit
    tensors: dict[str, Tensor]
    sequences: dict[str, Elements]

    def write(self, op_type: str, label: str, inputs: Sequence[str], outputs: Sequence[str], **attrs: Attr) -> None:
        """Add a node."""

    def keep(self, name: str, parts: Elements) -> None:
        """Say that ``name`` is a sequence of ``parts``."""


Row = Callable[[Writer, str, Sequence[str], Sequence[str], Mapping[str, Attr]], None]


def _elements(w: Writer, label: str, name: str) -> Elements:
    if name not in w.sequences:
        raise GraphError(f"{w.where}: node {label!r} reads {name!r} as a sequence, which it is not")
    return w.sequences[name]


def _place(w: Writer, label: str, inputs: Sequence[str], index: int, length: int, default: int, most: int) -> int:
    """Which element an optional input says, counted from the front, ``most`` being the last that there may be."""
    place = default
    if index < len(inputs) and inputs[index]:
        tensor = w.tensors.get(inputs[index])
        if tensor is None or not tensor.value:
            raise UnsupportedOperatorError(
                f"{w.where}: node {label!r} takes an element whose place ({inputs[index]}) depends on the data; state "
                f"it: --input-value {inputs[index]}=0 (in Python input_values={{{inputs[index]!r}: 0}})"
            )
        place = int(tensor.value[0])
    if not -length <= place <= most:
        raise GraphError(f"{w.where}: node {label!r} takes element {place} of {length}")
    return place + length if place < 0 else place


def _empty(w: Writer, label: str, inputs: Sequence[str], outputs: Sequence[str], attrs: Mapping[str, Attr]) -> None:
    w.keep(outputs[0], ())


def _construct(w: Writer, label: str, inputs: Sequence[str], outputs: Sequence[str], attrs: Mapping[str, Attr]) -> None:
    parts = tuple(f"{outputs[0]}:{index}" for index in range(len(inputs)))
    w.write("SequenceConstruct", label, inputs, parts)
    w.keep(outputs[0], parts)


def _insert(w: Writer, label: str, inputs: Sequence[str], outputs: Sequence[str], attrs: Mapping[str, Attr]) -> None:
    parts = _elements(w, label, inputs[0])
    place = _place(w, label, inputs, 2, len(parts), len(parts), len(parts))
    copy = f"{outputs[0]}:{place}"
    w.write("SequenceInsert", label, inputs[1:2], (copy,))
    w.keep(outputs[0], (*parts[:place], copy, *parts[place:]))


def _erase(w: Writer, label: str, inputs: Sequence[str], outputs: Sequence[str], attrs: Mapping[str, Attr]) -> None:
    parts = _elements(w, label, inputs[0])
    place = _place(w, label, inputs, 1, len(parts), len(parts) - 1, len(parts) - 1)
    w.keep(outputs[0], (*parts[:place], *parts[place + 1 :]))


def _at(w: Writer, label: str, inputs: Sequence[str], outputs: Sequence[str], attrs: Mapping[str, Attr]) -> None:
    parts = _elements(w, label, inputs[0])
    place = _place(w, label, inputs, 1, len(parts), 0, len(parts) - 1)
    w.write("SequenceAt", label, (parts[place],), outputs)


def _length(w: Writer, label: str, inputs: Sequence[str], outputs: Sequence[str], attrs: Mapping[str, Attr]) -> None:
    count = len(_elements(w, label, inputs[0]))
    w.tensors[outputs[0]] = Tensor(outputs[0], (), "int64", True, (count,))


def _split(w: Writer, label: str, inputs: Sequence[str], outputs: Sequence[str], attrs: Mapping[str, Attr]) -> None:
    shape = w.tensors[inputs[0]].shape
    axis = attrs.get("axis", 0)
    if not isinstance(axis, int) or not -len(shape) <= axis < len(shape):
        raise GraphError(f"{w.where}: node {label!r} splits {shape} along axis {axis}")
    size = shape[axis]
    given = w.tensors.get(inputs[1]) if len(inputs) > 1 and inputs[1] else None
    keep = int(attrs.get("keepdims", 1) == 1) if given is None else 1
    values = (1,) if given is None else given.value
    if values is None:
        raise UnsupportedOperatorError(
            f"{w.where}: node {label!r} splits into parts whose sizes ({inputs[1]}) depend on the data; state "
            f"them: --input-value {inputs[1]}={size} (in Python input_values={{{inputs[1]!r}: {size}}})"
        )
    if given is not None and given.shape:
        sizes = [int(v) for v in values]
    else:
        step = max(1, int(values[0]))
        w.most.check(-(-size // step), f"{w.where}: node {label!r} (SplitToSequence)", GraphError)
        sizes = [min(step, size - start) for start in range(0, size, step)]
    parts = tuple(f"{outputs[0]}:{index}" for index in range(len(sizes)))
    if parts:
        w.write("SplitToSequence", label, inputs[:1], parts, axis=axis, keepdims=keep, split=tuple(sizes))
    w.keep(outputs[0], parts)


def _concat(w: Writer, label: str, inputs: Sequence[str], outputs: Sequence[str], attrs: Mapping[str, Attr]) -> None:
    parts = _elements(w, label, inputs[0])
    if not parts:
        raise GraphError(f"{w.where}: node {label!r} (ConcatFromSequence) joins the tensors of an empty sequence")
    w.write("ConcatFromSequence", label, parts, outputs, **attrs)


def _optional(w: Writer, label: str, inputs: Sequence[str], outputs: Sequence[str], attrs: Mapping[str, Attr]) -> None:
    if inputs and inputs[0] in w.sequences:
        raise UnsupportedOperatorError(
            f"{w.where}: node {label!r} makes a sequence optional; export the model with the sequence in its place"
        )
    parts = (f"{outputs[0]}:0",) if inputs else ()
    if parts:
        w.write("Optional", label, inputs, parts)
    w.keep(outputs[0], parts)


def _get(w: Writer, label: str, inputs: Sequence[str], outputs: Sequence[str], attrs: Mapping[str, Attr]) -> None:
    parts = w.sequences.get(inputs[0], tuple(inputs))
    if not parts:
        raise GraphError(f"{w.where}: node {label!r} (OptionalGetElement) takes what {inputs[0]!r} does not have")
    w.write("OptionalGetElement", label, parts[:1], outputs)


def _has(w: Writer, label: str, inputs: Sequence[str], outputs: Sequence[str], attrs: Mapping[str, Attr]) -> None:
    held = bool(inputs and inputs[0]) and w.sequences.get(inputs[0], ("",)) != ()
    w.tensors[outputs[0]] = Tensor(outputs[0], (), "bool", True, (held,))


ROWS: Mapping[str, Row] = MappingProxyType(
    {
        "SequenceEmpty": _empty,
        "SequenceConstruct": _construct,
        "SequenceInsert": _insert,
        "SequenceErase": _erase,
        "SequenceAt": _at,
        "SequenceLength": _length,
        "SplitToSequence": _split,
        "ConcatFromSequence": _concat,
        "Optional": _optional,
        "OptionalGetElement": _get,
        "OptionalHasElement": _has,
    }
)
"""Operator to what it does to sequences: (writer, label of the node, inputs, outputs, attributes)."""
