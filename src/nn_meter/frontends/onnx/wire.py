"""Reads the messages of an ONNX file that decide shapes, straight from the protobuf wire format.

Weights are skipped over, never touched: a file is walked by its length prefixes, so that its cost follows
the number of nodes, not of bytes, and files above protobuf's 2 GB limit read like any other. Field numbers
are those of onnx.proto; a key below is ``number << 3 | wire type``.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nn_meter.errors import ModelFormatError
from nn_meter.frontends._protobuf import WireError, fields, packed, signed
from nn_meter.ir import Attr, Tensor
from nn_meter.ir.shapes import DTYPES, MAX_ELEMENTS
from nn_meter.limits import RANK

Buffer = bytes | mmap.mmap
Span = tuple[int, int]

MAX_FLOATS = 16
"""Floating-point constants of more elements are weights: Resize's scales and Clip's bounds are fewer."""

EXTERNAL = 1


@dataclass(frozen=True, slots=True)
class Subgraph:
    """Where the graph of an attribute lies."""

    span: Span


@dataclass(frozen=True, slots=True)
class Reference:
    """Within a function, an attribute that has the value of the call's attribute of this name."""

    name: str


@dataclass(frozen=True, slots=True)
class Opaque:
    """An attribute of a kind that a graph cannot hold."""

    what: str


AttrValue = Attr | Tensor | Subgraph | Reference | Opaque

PLAIN = (int, float, str, tuple)
"""Types of attributes that a graph holds as they are."""


@dataclass(slots=True)
class RawNode:
    """A node as the file has it."""

    name: str
    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, AttrValue]


@dataclass(slots=True)
class RawValue:
    """Name, dtype and dimensions; a dimension is a number, a symbol, or ``""`` where nothing is said."""

    name: str
    dtype: str = ""
    dims: tuple[int | str, ...] | None = None
    is_sequence: bool = False


@dataclass(slots=True)
class RawGraph:
    """A graph as the file has it; what rarely matters is left as spans."""

    name: str = ""
    nodes: list[RawNode] = field(default_factory=list)
    initializers: list[Tensor] = field(default_factory=list)
    inputs: list[RawValue] = field(default_factory=list)
    outputs: list[RawValue] = field(default_factory=list)
    stated: list[Span] = field(default_factory=list)


@dataclass(slots=True)
class RawFunction:
    """A function of the model: nodes that stand for a call of it."""

    name: str = ""
    domain: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    defaults: dict[str, AttrValue] = field(default_factory=dict)
    nodes: list[RawNode] = field(default_factory=list)
    opsets: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class RawModel:
    """A model as the file has it."""

    graph: Span | None = None
    functions: list[Span] = field(default_factory=list)
    opsets: dict[str, int] = field(default_factory=dict)


ReadExternal = Callable[[dict[str, str], int], bytes | None]
"""Entries of ``external_data`` and a size in bytes to the bytes, or ``None`` where the file is absent."""

_FORMATS = {
    "float32": "f", "uint8": "B", "int8": "b", "uint16": "H", "int16": "h", "int32": "i", "int64": "q", "bool": "?",
    "float16": "e", "float64": "d", "uint32": "I", "uint64": "Q",
}  # fmt: skip
_NO_ATTRS: dict[str, AttrValue] = {}
_NODE_TAGS = frozenset((0x0A, 0x12, 0x1A, 0x22, 0x2A, 0x3A))

_SMALL_NODE_BYTES = 1 << 12
"""Larger nodes hold weights."""

_FLOATS = frozenset(("float16", "float32", "float64"))


def _floats(buffer: Buffer, at: int, stop: int, code: str = "f") -> tuple[float, ...]:
    data = buffer[at:stop]
    return struct.unpack(f"<{len(data) // struct.calcsize(code)}{code}", data)


def _entry(buffer: Buffer, at: int, stop: int) -> tuple[str, str]:
    key = value = ""
    for tag, a, b in fields(buffer, at, stop):
        if tag == 0x0A:
            key = buffer[a:b].decode()
        elif tag == 0x12:
            value = buffer[a:b].decode()
    return key, value


def _opset(buffer: Buffer, at: int, stop: int) -> tuple[str, int]:
    domain, version = "", 1
    for tag, a, b in fields(buffer, at, stop):
        if tag == 0x0A:
            domain = buffer[a:b].decode()
        elif tag == 0x10:
            version = a
    return "" if domain == "ai.onnx" else domain, version


def read_model(buffer: Buffer) -> RawModel:
    """The model's parts that are not its graph, and where the graph lies."""
    model = RawModel()
    for tag, a, b in fields(buffer, 0, len(buffer)):
        if tag == 0x3A:
            model.graph = (a, b)
        elif tag == 0x42:
            domain, version = _opset(buffer, a, b)
            model.opsets[domain] = version
        elif tag == 0xCA:
            model.functions.append((a, b))
    return model


class GraphReader:
    """Reads graphs of one file; equal attributes, of which models are full, are read once."""

    def __init__(self, buffer: Buffer, external: ReadExternal) -> None:
        self._buffer = buffer
        self._external = external
        self._attributes: dict[bytes, tuple[str, AttrValue]] = {}
        self._texts: dict[str, str] = {}  # each once: what looks for a name finds the very object
        self._types: dict[bytes, tuple[str, tuple[int | str, ...] | None, bool]] = {}  # layers come again and again

    def graph(self, span: Span) -> RawGraph:
        """The graph at ``span``."""
        buffer = self._buffer
        graph = RawGraph()
        for tag, a, b in fields(buffer, *span):
            if tag == 0x0A:
                graph.nodes.append(self._node(a, b))
            elif tag == 0x2A:
                graph.initializers.append(self._tensor(a, b))
            elif tag == 0x6A:
                graph.stated.append((a, b))
            elif tag == 0x5A:
                graph.inputs.append(self.value((a, b)))
            elif tag == 0x62:
                graph.outputs.append(self.value((a, b)))
            elif tag == 0x7A:
                graph.initializers.append(self._sparse(a, b))
            elif tag == 0x12:
                graph.name = buffer[a:b].decode()
        return graph

    def function(self, span: Span) -> RawFunction:
        """The function at ``span``."""
        buffer = self._buffer
        function = RawFunction()
        for tag, a, b in fields(buffer, *span):
            if tag == 0x0A:
                function.name = buffer[a:b].decode()
            elif tag == 0x22:
                function.inputs.append(buffer[a:b].decode())
            elif tag == 0x2A:
                function.outputs.append(buffer[a:b].decode())
            elif tag == 0x3A:
                function.nodes.append(self._node(a, b))
            elif tag == 0x4A:
                domain, version = _opset(buffer, a, b)
                function.opsets[domain] = version
            elif tag == 0x52:
                function.domain = buffer[a:b].decode()
            elif tag == 0x5A:
                key, value = self._attribute(a, b)
                function.defaults[key] = value
        return function

    def value(self, span: Span) -> RawValue:
        """The ``ValueInfoProto`` at ``span``."""
        buffer = self._buffer
        value = RawValue("")
        for tag, a, b in fields(buffer, *span):
            if tag == 0x0A:
                value.name = buffer[a:b].decode()
            elif tag == 0x12:
                text = bytes(buffer[a:b])
                known = self._types.get(text)
                if known is None:
                    for kind, start, stop in fields(buffer, a, b):
                        if kind == 0x0A:
                            self._tensor_type(value, start, stop)
                        elif kind == 0x22:
                            value.is_sequence = True
                    self._types[text] = value.dtype, value.dims, value.is_sequence
                else:
                    value.dtype, value.dims, value.is_sequence = known
        return value

    def _tensor_type(self, value: RawValue, at: int, stop: int) -> None:
        for tag, a, b in fields(self._buffer, at, stop):
            if tag == 0x08:
                value.dtype = _dtype(a)
            elif tag == 0x12:
                value.dims = tuple([self._dim(*span) for key, *span in fields(self._buffer, a, b) if key == 0x0A])

    def _dim(self, at: int, stop: int) -> int | str:
        dim: int | str = ""
        for tag, a, b in fields(self._buffer, at, stop):
            if tag == 0x08:
                dim = signed(a)
            elif tag == 0x12:
                dim = self._buffer[a:b].decode()
        return dim

    def _node(self, at: int, stop: int) -> RawNode:
        known = self._texts.setdefault
        data, base, text = self._buffer, 0, ""
        if stop - at <= _SMALL_NODE_BYTES:
            data, base, at, stop = data[at:stop], at, 0, stop - at
            if data.isascii():
                text = data.decode("ascii")  # a part of it costs less than one to be decoded
        name = op_type = domain = ""
        inputs: list[str] = []
        outputs: list[str] = []
        attrs = _NO_ATTRS
        while at < stop:
            tag, first = data[at], at + 2
            size = data[at + 1] if first <= stop else 128
            at = first + size
            if size > 127 or at > stop or tag not in _NODE_TAGS:  # long, unknown or damaged
                tag, first, at = next(fields(data, first - 2, stop))
                if tag not in _NODE_TAGS:
                    continue
            if tag == 0x2A:
                attrs = attrs or {}
                key, value = self._attribute(base + first, base + at)
                attrs[key] = value
                continue
            part = text[first:at] if text else data[first:at].decode()
            part = known(part, part)
            if tag == 0x0A:
                inputs.append(part)
            elif tag == 0x12:
                outputs.append(part)
            elif tag == 0x22:
                op_type = part
            elif tag == 0x1A:
                name = part
            else:
                domain = part
        domain = "" if domain == "ai.onnx" else domain
        return RawNode(name, op_type, domain, tuple(inputs), tuple(outputs), attrs)

    def _attribute(self, at: int, stop: int) -> tuple[str, AttrValue]:
        if stop - at > 128:
            return self._read_attribute(at, stop)
        data = self._buffer[at:stop]
        found = self._attributes.get(data)
        if found is None:
            found = self._read_attribute(at, stop)
            if not isinstance(found[1], Subgraph):  # a span belongs to its place
                self._attributes[data] = found
        return found

    def _read_attribute(self, at: int, stop: int) -> tuple[str, AttrValue]:
        buffer = self._buffer
        name = ""
        kind = 0
        single: AttrValue | None = None
        ints: list[int] = []
        floats: list[float] = []
        texts: list[str] = []
        for tag, a, b in fields(buffer, at, stop):
            if tag == 0x0A:
                name = buffer[a:b].decode()
            elif tag == 0xA0:
                kind = a
            elif tag == 0x18:
                single = signed(a)
            elif tag == 0x15:
                single = _floats(buffer, a, b)[0]
            elif tag == 0x22:
                single = buffer[a:b].decode(errors="replace")
            elif tag == 0x2A:
                single = self._tensor(a, b)
            elif tag == 0x32:
                single = Subgraph((a, b))
            elif tag == 0x40:
                ints.append(signed(a))
            elif tag == 0x42:
                ints += packed(buffer, a, b)
            elif tag in (0x3A, 0x3D):
                floats += _floats(buffer, a, b)
            elif tag == 0x4A:
                texts.append(buffer[a:b].decode(errors="replace"))
            elif tag == 0x5A:
                single = Subgraph((a, b))
            elif tag == 0xB2:
                single = self._sparse(a, b)
            elif tag == 0xAA:
                single = Reference(buffer[a:b].decode())
            elif tag in _OPAQUE:
                single = Opaque(_OPAQUE[tag])
        if single is not None:
            return name, single
        if ints or kind == 7:
            return name, tuple(ints)
        if floats or kind == 6:
            return name, tuple(floats)
        if texts or kind == 8:
            return name, tuple(texts)
        return name, _ABSENT.get(kind, Opaque("empty"))

    def _sparse(self, at: int, stop: int) -> Tensor:
        """A sparse constant counts as a dense one of its shape."""
        dims: list[int] = []
        values = Tensor("", ())
        for tag, a, b in fields(self._buffer, at, stop):
            if tag == 0x0A:
                values = self._tensor(a, b)
            elif tag == 0x18:
                dims.append(signed(a))
            elif tag == 0x1A:
                dims += packed(self._buffer, a, b)
        return Tensor(values.name, tuple(dims), values.dtype, True)

    def _tensor(self, at: int, stop: int) -> Tensor:
        buffer = self._buffer
        name, code, location = "", 0, 0
        dims: list[int] = []
        raw: Span | None = None
        typed: list[tuple[int, int, int]] = []
        entries: list[Span] = []
        for tag, a, b in fields(buffer, at, stop):
            if tag == 0x08:
                dims.append(signed(a))
            elif tag == 0x10:
                code = a
            elif tag == 0x42:
                name = buffer[a:b].decode()
            elif tag == 0x4A:
                raw = (a, b)
            elif tag == 0x0A:
                dims += packed(buffer, a, b)
            elif tag == 0x70:
                location = a
            elif tag == 0x6A:
                entries.append((a, b))
            elif tag in _TYPED:
                typed.append((tag, a, b))
        dtype = _dtype(code)
        RANK.check(len(dims), f"the tensor {name!r}", ModelFormatError)
        size = 1
        for dim in dims:
            if dim < 0:
                raise WireError(f"the tensor {name!r} has the dimension {dim}")
            size *= dim
        value: tuple[int | float, ...] | None = None
        letter = _FORMATS.get(dtype)
        if letter is not None and size <= (MAX_FLOATS if dtype in _FLOATS else MAX_ELEMENTS):
            layout = f"<{size}{letter}"
            if location == EXTERNAL:
                data = self._external(dict(_entry(buffer, *entry) for entry in entries), struct.calcsize(layout))
                value = None if data is None else struct.unpack(layout, data)
            elif raw is not None:
                if raw[1] - raw[0] != struct.calcsize(layout):
                    raise WireError(f"the tensor {name!r} of {size} elements has {raw[1] - raw[0]} bytes")
                value = struct.unpack(layout, buffer[raw[0] : raw[1]])
            elif typed or not size:
                value = self._typed(typed, dtype)
                if len(value) != size:
                    raise WireError(f"the tensor {name!r} of {size} elements has {len(value)} values")
        return Tensor(name, tuple(dims), dtype, True, value)

    def _typed(self, parts: list[tuple[int, int, int]], dtype: str) -> tuple[int | float, ...]:
        buffer = self._buffer
        values: list[int | float] = []
        for tag, a, b in parts:
            code = _TYPED[tag]
            if code:
                values += _floats(buffer, a, b, code)
            elif tag & 7 == 0:
                values.append(signed(a))
            else:
                values += packed(buffer, a, b)
        if dtype == "float16":  # kept as bits
            return struct.unpack(f"<{len(values)}e", struct.pack(f"<{len(values)}H", *values))
        if dtype == "bool":
            return tuple(bool(value) for value in values)
        return tuple(int(value) % (1 << 64) for value in values) if dtype == "uint64" else tuple(values)


_OPAQUE = {0x52: "tensors", 0x72: "a type", 0x7A: "types", 0xBA: "sparse tensors"}
_ABSENT: dict[int, AttrValue] = {1: 0.0, 2: 0, 3: ""}
# float_data, int32_data, int64_data, double_data, uint64_data; packed and not; "" marks varints.
_TYPED = {0x22: "f", 0x25: "f", 0x2A: "", 0x28: "", 0x3A: "", 0x38: "", 0x52: "d", 0x51: "d", 0x5A: "", 0x58: ""}


def _dtype(code: int) -> str:
    if code < len(DTYPES):
        return DTYPES[code]
    raise WireError(f"element type {code}")
