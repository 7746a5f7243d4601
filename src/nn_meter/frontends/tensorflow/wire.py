"""TensorFlow's protobuf messages, as far as a graph needs them, without TensorFlow or protobuf.

Numbers of fields are those of TensorFlow's public ``.proto`` files (``graph``, ``node_def``, ``attr_value``,
``tensor``, ``function``, ``saved_model``). Elements of large constants are skipped, not copied.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from nn_meter.errors import ModelFormatError

KEPT_ELEMENTS: Final = 256
"""Constants of up to so many elements keep their values: they may be shapes, axes, paddings or indices."""

DTYPES: Final[Mapping[int, str]] = MappingProxyType(
    {
        1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 7: "string",
        8: "complex64", 9: "int64", 10: "bool", 11: "int8", 12: "uint8", 13: "int32", 14: "bfloat16",
        15: "int16", 16: "uint16", 17: "uint16", 18: "complex128", 19: "float16", 20: "resource",
        21: "variant", 22: "uint32", 23: "uint64", 29: "int4", 30: "uint4",
    }
)  # fmt: skip
"""``DataType`` to numpy's name; quantised types by their storage."""

_VALUE_FIELDS: Final[Mapping[int, str]] = MappingProxyType(
    {5: "<f4", 6: "<f8", 7: "varint", 10: "varint", 11: "varint", 13: "varint", 16: "varint", 17: "varint"}
)
"""Field of a ``TensorProto`` that lists elements, to their encoding."""

Bytes = memoryview


@dataclass(frozen=True, slots=True)
class Constant:
    """A tensor that the file stores: ``array`` is ``None`` where it is large or not numeric."""

    dtype: str
    shape: tuple[int, ...]
    array: np.ndarray[Any, Any] | None = None


@dataclass(frozen=True, slots=True)
class FunctionName:
    """An attribute that names a function of the library."""

    name: str


AttrValue = bool | int | float | str | Constant | FunctionName | tuple[Any, ...] | None
"""An attribute's value: ``None`` is a shape of unknown rank, -1 an unknown dimension, types are names."""


@dataclass(frozen=True, slots=True)
class NodeDef:
    """One operator as stored: ``inputs`` are ``"node"``, ``"node:1"`` or, for control only, ``"^node"``."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attrs: Mapping[str, AttrValue]


@dataclass(frozen=True, slots=True)
class FunctionDef:
    """A function of the library; inside it a value is ``"argument"`` or ``"node:output name:index"``."""

    name: str
    arguments: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[NodeDef, ...]
    returned: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class GraphDef:
    """A graph and the functions that it may call."""

    nodes: tuple[NodeDef, ...]
    functions: Mapping[str, FunctionDef] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a SavedModel offers to call: name of the argument or result to the tensor in the graph."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MetaGraph:
    """One graph of a SavedModel with its tags and signatures."""

    tags: tuple[str, ...]
    graph: GraphDef
    signatures: Mapping[str, Signature]


def _varint(data: Bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ModelFormatError(
                f"the protobuf data break off inside a number at byte {at}; the file is damaged"
            )
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def fields(data: Bytes) -> Iterator[tuple[int, int | Bytes]]:
    """Number and value of each field: an ``int`` for a varint, else the bytes.

    Raises:
        ModelFormatError: the data end inside a field or hold an unknown wire type.
    """
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            length, at = _varint(data, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ModelFormatError(f"protobuf wire type {wire} at byte {at} is unknown; the file is damaged")
        if number == 0 or at + length > len(data):
            raise ModelFormatError(
                f"a protobuf field at byte {at} reaches beyond the data; the file is damaged"
            )
        yield number, data[at : at + length]
        at += length


def _bytes(value: int | Bytes) -> Bytes:
    if isinstance(value, int):
        raise ModelFormatError("a protobuf field holds a number where a message belongs; the file is damaged")
    return value


def _int(value: int | Bytes) -> int:
    if not isinstance(value, int):
        raise ModelFormatError("a protobuf field holds a message where a number belongs; the file is damaged")
    return value - (1 << 64) if value >= 1 << 63 else value


def _text(value: int | Bytes) -> str:
    return str(_bytes(value), "utf-8", "replace")


def _float(value: int | Bytes) -> float:
    data = _bytes(value)
    if len(data) != 4:
        raise ModelFormatError("a protobuf number has the wrong length; the file is damaged")
    return float(struct.unpack("<f", data)[0])


def _dtype(value: int | Bytes) -> str:
    # a type above 100 is TensorFlow's reference to a variable of that type
    number = _int(value)
    return DTYPES.get(number - 100 if number > 100 else number, "variant")


def _ints(value: int | Bytes) -> list[int]:
    if isinstance(value, int):
        return [_int(value)]
    numbers = []
    at = 0
    while at < len(value):
        number, at = _varint(value, at)
        numbers.append(_int(number))
    return numbers


def _floats(value: int | Bytes) -> list[float]:
    data = _bytes(value)
    return [_float(data[at : at + 4]) for at in range(0, len(data), 4)]


def _shape(value: int | Bytes) -> tuple[int, ...] | None:
    dims = []
    for number, content in fields(_bytes(value)):
        if number == 3 and content:
            return None
        if number == 2:
            dims.append(next((_int(size) for part, size in fields(_bytes(content)) if part == 1), 0))
    return tuple(dims)


def _constant(value: int | Bytes) -> Constant:
    dtype = "float32"
    shape: tuple[int, ...] | None = ()
    content: Bytes | None = None
    listed: list[tuple[str, Bytes | int]] = []
    for number, item in fields(_bytes(value)):
        if number == 1:
            dtype = _dtype(item)
        elif number == 2:
            shape = _shape(item)
        elif number == 4:
            content = _bytes(item)
        elif number in _VALUE_FIELDS:
            listed.append((_VALUE_FIELDS[number], item))
    if shape is None or any(dim < 0 for dim in shape):
        raise ModelFormatError("a stored constant has an unknown shape; the file is damaged")
    return Constant(dtype, shape, _elements(dtype, shape, content, listed))


def _elements(
    dtype: str, shape: tuple[int, ...], content: Bytes | None, listed: list[tuple[str, Bytes | int]]
) -> np.ndarray[Any, Any] | None:
    size = 1
    for dim in shape:
        size *= dim
    if size > KEPT_ELEMENTS or dtype in ("string", "resource", "variant", "bfloat16", "int4", "uint4"):
        return None
    kind = np.dtype(dtype)
    if content:
        if len(content) != size * kind.itemsize:
            raise ModelFormatError(
                f"a constant of shape {shape} and type {dtype} holds {len(content)} bytes; "
                "the file is damaged"
            )
        return np.frombuffer(content, kind).reshape(shape)
    if kind.kind == "c":
        return None
    values: list[Any] = []
    for encoding, item in listed:
        if encoding == "varint":
            values += _ints(item)
        else:
            data = _bytes(item)
            width = np.dtype(encoding).itemsize
            if len(data) % width:
                raise ModelFormatError("the elements of a constant break off; the file is damaged")
            values += np.frombuffer(data, encoding).tolist()
            if dtype == "float16" or kind.kind != "f":
                raise ModelFormatError(f"a constant of type {dtype} lists {encoding}; the file is damaged")
    if len(values) > size:
        raise ModelFormatError(
            f"a constant of shape {shape} lists {len(values)} elements; the file is damaged"
        )
    # protobuf lists the last element once where all that follow are equal to it, and none where all are zero
    values += [values[-1] if values else 0] * (size - len(values))
    if dtype == "float16":
        return np.array(values, np.uint64).astype(np.uint16).view(np.float16).reshape(shape)
    wide = np.array(values, np.float64 if kind.kind == "f" else np.int64)
    with np.errstate(over="ignore"):
        return wide.astype(kind).reshape(shape)


def _list(value: int | Bytes) -> tuple[Any, ...]:
    items: list[Any] = []
    for number, item in fields(_bytes(value)):
        if number == 2:
            items.append(_text(item))
        elif number == 3:
            items += _ints(item)
        elif number == 4:
            items += _floats(item)
        elif number == 5:
            items += [bool(i) for i in _ints(item)]
        elif number == 6:
            items += [DTYPES.get(i, "variant") for i in _ints(item)]
        elif number == 7:
            items.append(_shape(item))
        elif number == 9:
            items.append(_function_name(item))
    return tuple(items)


def _function_name(value: int | Bytes) -> FunctionName:
    return FunctionName(next((_text(item) for number, item in fields(_bytes(value)) if number == 1), ""))


_ATTR_FIELDS: Final[Mapping[int, Callable[[int | Bytes], AttrValue]]] = MappingProxyType(
    {
        1: _list, 2: _text, 3: _int, 4: _float, 5: lambda v: bool(_int(v)), 6: _dtype, 7: _shape,
        8: _constant, 10: _function_name,
    }
)  # fmt: skip


def _attr(value: int | Bytes) -> AttrValue:
    found: AttrValue = None
    for number, item in fields(_bytes(value)):
        if number in _ATTR_FIELDS:
            found = _ATTR_FIELDS[number](item)
    return found


def _entry(value: int | Bytes) -> tuple[str, Bytes]:
    key, content = "", Bytes(b"")
    for number, item in fields(_bytes(value)):
        if number == 1:
            key = _text(item)
        elif number == 2:
            content = _bytes(item)
    return key, content


def _node(value: int | Bytes) -> NodeDef:
    name = op = ""
    inputs: list[str] = []
    attrs: dict[str, AttrValue] = {}
    for number, item in fields(_bytes(value)):
        if number == 1:
            name = _text(item)
        elif number == 2:
            op = _text(item)
        elif number == 3:
            inputs.append(_text(item))
        elif number == 5:
            key, content = _entry(item)
            if not key.startswith("_"):
                attrs[key] = _attr(content)
    if not name or not op:
        raise ModelFormatError(
            f"a node without name or operator ({name!r}, {op!r}): this is no TensorFlow graph"
        )
    return NodeDef(name, op, tuple(inputs), MappingProxyType(attrs))


def _function(value: int | Bytes) -> FunctionDef:
    name = ""
    arguments: list[str] = []
    outputs: list[str] = []
    nodes: list[NodeDef] = []
    returned: dict[str, str] = {}
    for number, item in fields(_bytes(value)):
        if number == 1:
            for part, content in fields(_bytes(item)):
                if part == 1:
                    name = _text(content)
                elif part in (2, 3):
                    argument = next((_text(text) for n, text in fields(_bytes(content)) if n == 1), "")
                    (arguments if part == 2 else outputs).append(argument)
        elif number == 3:
            nodes.append(_node(item))
        elif number == 4:
            key, content_of_entry = _entry(item)
            returned[key] = str(content_of_entry, "utf-8", "replace")
    return FunctionDef(name, tuple(arguments), tuple(outputs), tuple(nodes), MappingProxyType(returned))


def graph_def(data: bytes | Bytes) -> GraphDef:
    """Read a serialised ``GraphDef``.

    Raises:
        ModelFormatError: the bytes are no protobuf message of that kind, or are damaged.
    """
    nodes: list[NodeDef] = []
    functions: dict[str, FunctionDef] = {}
    for number, item in fields(Bytes(data)):
        if number == 1:
            nodes.append(_node(item))
        elif number == 2:
            for part, content in fields(_bytes(item)):
                if part == 1:
                    function = _function(content)
                    functions[function.name] = function
    return GraphDef(tuple(nodes), MappingProxyType(functions))


def _tensor_names(value: int | Bytes) -> tuple[str, str]:
    key, content = _entry(value)
    return key, next((_text(item) for number, item in fields(content) if number == 1), "")


def _signature(data: Bytes) -> Signature:
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    for number, item in fields(data):
        if number in (1, 2):
            key, tensor = _tensor_names(item)
            (inputs if number == 1 else outputs)[key] = tensor
    return Signature(MappingProxyType(inputs), MappingProxyType(outputs))


def saved_model(data: bytes | Bytes) -> tuple[MetaGraph, ...]:
    """Read a serialised ``SavedModel``, all its graphs.

    Raises:
        ModelFormatError: the bytes are no protobuf message of that kind, or are damaged.
    """
    metas: list[MetaGraph] = []
    for number, item in fields(Bytes(data)):
        if number != 2:
            continue
        tags: list[str] = []
        graph = GraphDef(())
        signatures: dict[str, Signature] = {}
        for part, content in fields(_bytes(item)):
            if part == 1:
                tags += [_text(tag) for n, tag in fields(_bytes(content)) if n == 4]
            elif part == 2:
                graph = graph_def(_bytes(content))
            elif part == 5:
                key, signature = _entry(content)
                signatures[key] = _signature(signature)
        metas.append(MetaGraph(tuple(tags), graph, MappingProxyType(signatures)))
    return tuple(metas)
