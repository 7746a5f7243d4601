"""TensorFlow's protobuf messages, as far as a graph needs them, without TensorFlow or protobuf.

Numbers of fields are those of TensorFlow's public ``.proto`` files (``graph``, ``node_def``, ``attr_value``,
``tensor``, ``function``, ``saved_model``). Elements of large constants are skipped, not copied.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from nn_meter.errors import ModelFormatError
from nn_meter.frontends import _protobuf as protobuf

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
Read = Callable[[int | Bytes], Any]
"""What a field's value says."""


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
    """A graph and the functions that it may call; ``size`` in bytes."""

    nodes: tuple[NodeDef, ...]
    functions: Mapping[str, FunctionDef] = field(default_factory=dict)
    size: int = 0


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


def fields(data: Bytes) -> Iterator[tuple[int, int | Bytes]]:
    """Number and value of each field: an ``int`` for a varint, else the bytes.

    Raises:
        WireError: the data end inside a field or hold an unknown wire type.
    """
    for key, at, stop in protobuf.fields(data, 0, len(data)):
        yield key >> 3, data[at:stop] if key & 7 else at


def _read(value: int | Bytes, readers: Mapping[int, Read]) -> dict[int, list[Any]]:
    """Of each field that ``readers`` name, all its values."""
    found: dict[int, list[Any]] = {number: [] for number in readers}
    for number, item in fields(_bytes(value)):
        if number in readers:
            found[number].append(readers[number](item))
    return found


def _bytes(value: int | Bytes) -> Bytes:
    if isinstance(value, int):
        raise ModelFormatError("a protobuf field holds a number where a message belongs; the file is damaged")
    return value


def _int(value: int | Bytes) -> int:
    if not isinstance(value, int):
        raise ModelFormatError("a protobuf field holds a message where a number belongs; the file is damaged")
    return protobuf.signed(value)


def _text(value: int | Bytes) -> str:
    return str(_bytes(value), "utf-8", "replace")


def _name(value: int | Bytes) -> str:
    """A message's first field, which is what it is called."""
    return next((_text(item) for number, item in fields(_bytes(value)) if number == 1), "")


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
    return [protobuf.signed(value)] if isinstance(value, int) else protobuf.packed(value, 0, len(value))


def _floats(value: int | Bytes) -> list[float]:
    data = _bytes(value)
    return [_float(data[at : at + 4]) for at in range(0, len(data), 4)]


def _shape(value: int | Bytes) -> tuple[int, ...] | None:
    sizes, unknown = _read(value, {2: _size, 3: _int}).values()
    return None if any(unknown) else tuple(sizes)


def _size(value: int | Bytes) -> int:
    return next((_int(size) for part, size in fields(_bytes(value)) if part == 1), 0)


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


_UNHELD = ("string", "resource", "variant", "bfloat16", "int4", "uint4", "complex64", "complex128")
"""Types whose elements are no numbers that a graph holds."""


def _elements(
    dtype: str, shape: tuple[int, ...], content: Bytes | None, listed: list[tuple[str, Bytes | int]]
) -> np.ndarray[Any, Any] | None:
    size = prod(shape)
    if size > KEPT_ELEMENTS or dtype in _UNHELD:
        return None
    kind = np.dtype(dtype)
    if content:
        if len(content) != size * kind.itemsize:
            raise ModelFormatError(
                f"a constant of shape {shape} and type {dtype} holds {len(content)} bytes; the file is damaged"
            )
        return np.frombuffer(content, kind).reshape(shape)
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
        raise ModelFormatError(f"a constant of shape {shape} lists {len(values)} elements; the file is damaged")
    # protobuf lists the last element once where all that follow are equal to it, and none where all are zero
    values += [values[-1] if values else 0] * (size - len(values))
    if dtype == "float16":
        return np.array(values, np.uint64).astype(np.uint16).view(np.float16).reshape(shape)
    wide = np.array(values, np.float64 if kind.kind == "f" else np.int64)
    with np.errstate(over="ignore"):
        return wide.astype(kind).reshape(shape)


_LISTED: Final[Mapping[int, Read]] = MappingProxyType(
    {
        2: lambda v: [_text(v)], 3: _ints, 4: _floats, 5: lambda v: list(map(bool, _ints(v))),
        6: lambda v: [DTYPES.get(i, "variant") for i in _ints(v)], 7: lambda v: [_shape(v)],
        9: lambda v: [_function_name(v)],
    }
)  # fmt: skip


def _list(value: int | Bytes) -> tuple[Any, ...]:
    listed = (_LISTED[number](item) for number, item in fields(_bytes(value)) if number in _LISTED)
    return tuple(item for items in listed for item in items)


def _function_name(value: int | Bytes) -> FunctionName:
    return FunctionName(_name(value))


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
    """Of a map: key and value."""
    keys, contents = _read(value, {1: _text, 2: _bytes}).values()
    return (keys or [""])[-1], (contents or [Bytes(b"")])[-1]


def _node(value: int | Bytes) -> NodeDef:
    names, ops, inputs, entries = _read(value, _NODE).values()
    name, op = (names or [""])[-1], (ops or [""])[-1]
    if not name or not op:
        raise ModelFormatError(f"a node without name or operator ({name!r}, {op!r}): this is no TensorFlow graph")
    attrs = {key: _attr(content) for key, content in entries if not key.startswith("_")}
    return NodeDef(name, op, tuple(inputs), MappingProxyType(attrs))


_NODE: Final[Mapping[int, Read]] = MappingProxyType({1: _text, 2: _text, 3: _text, 5: _entry})


def _function(value: int | Bytes) -> FunctionDef:
    signatures, nodes, returned = _read(value, {1: _op_def, 3: _node, 4: _entry}).values()
    names, arguments, outputs = signatures[-1] if signatures else ((), (), ())
    results = {key: _text(content) for key, content in returned}
    return FunctionDef((names or [""])[-1], tuple(arguments), tuple(outputs), tuple(nodes), MappingProxyType(results))


def _op_def(value: int | Bytes) -> tuple[list[Any], ...]:
    """Its names, arguments and results."""
    return tuple(_read(value, {1: _text, 2: _name, 3: _name}).values())


def graph_def(data: bytes | Bytes) -> GraphDef:
    """Read a serialised ``GraphDef``.

    Raises:
        ModelFormatError, WireError: the bytes are no protobuf message of that kind, or are damaged.
    """
    nodes, libraries = _read(Bytes(data), {1: _node, 2: lambda v: _read(v, {1: _function})[1]}).values()
    functions = {function.name: function for library in libraries for function in library}
    return GraphDef(tuple(nodes), MappingProxyType(functions), len(data))


def _signature(data: Bytes) -> Signature:
    inputs, outputs = (dict(each) for each in _read(data, {1: _tensor_name, 2: _tensor_name}).values())
    return Signature(MappingProxyType(inputs), MappingProxyType(outputs))


def _tensor_name(value: int | Bytes) -> tuple[str, str]:
    key, content = _entry(value)
    return key, _name(content)


def saved_model(data: bytes | Bytes) -> tuple[MetaGraph, ...]:
    """Read a serialised ``SavedModel``, all its graphs. Errors as of ``graph_def``."""
    return tuple(_read(Bytes(data), {2: _meta_graph})[2])


def _meta_graph(value: int | Bytes) -> MetaGraph:
    parts = {1: lambda v: _read(v, {4: _text})[4], 2: lambda v: graph_def(_bytes(v)), 5: _entry}
    infos, graphs, entries = _read(value, parts).values()
    tags = tuple(tag for info in infos for tag in info)
    signatures = {key: _signature(content) for key, content in entries}
    return MetaGraph(tags, (graphs or [GraphDef(())])[-1], MappingProxyType(signatures))
