"""ONNX: a path, bytes, a file-like object or a ``ModelProto``."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nn_meter.errors import ModelFormatError
from nn_meter.frontends._protobuf import WireError
from nn_meter.frontends._source import Shapes, head, opened, path_of, title
from nn_meter.frontends.onnx import wire
from nn_meter.frontends.onnx.external import External
from nn_meter.frontends.onnx.inputs import Asked, Values
from nn_meter.frontends.onnx.reading import Reading
from nn_meter.ir import Graph

name = "onnx"
suffixes = (".onnx",)

_WHOLE_FILE_BYTES = 1 << 20
"""Files up to this size are read at once, which takes some 70 microseconds; of larger ones weights are the most, which
nobody looks at: they are mapped."""

_SMALL_TENSOR_BYTES = 1 << 16
"""Smaller ones may hold what decides shapes."""

_MODEL_KEYS = frozenset((0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72))


def sniff(source: Any) -> bool:
    """Whether ``source`` is a ``ModelProto`` or starts like one: with its IR version."""
    if type(source).__name__ == "ModelProto":
        return True
    start = head(source)
    return len(start) > 2 and start[0] == 0x08 and 0 < start[1] < 0x40 and start[2] in _MODEL_KEYS


def read(
    source: Any,
    *,
    input_shapes: Shapes | None = None,
    name: str | None = None,
    seq_len: int | None = None,
    past: int | None = None,
    input_values: Values | None = None,
    counts: Mapping[str, int] | None = None,
) -> Graph:
    """Read an ONNX model of opset 7 or newer. Weights are not read; their files may be absent.

    Args:
        source: A path, the bytes of a file, a binary file-like object, or an ``onnx.ModelProto``.
        input_shapes: Shapes of inputs by name, or one shape for the only input; they take the place of the
            file's. An unset first dimension becomes 1, and ``Graph.notes`` says so.
        name: The graph's name; the file's stem if left out.
        seq_len: Tokens of a language model in this inference; with a past 1, else 128 where left out.
        past: Tokens before them whose keys and values are in its cache; the attention mask covers both.
        input_values: Values of inputs, or of other tensors, that decide shapes or branches, by name.
        counts: By the names of nodes: how often a loop runs, how many elements an operator finds, where the data
            decides that. What is assumed without it ``Graph.assumed`` says.

    Raises:
        ModelFormatError: not an ONNX file, or a damaged one.
        GraphError: a cycle, a tensor that nothing computes, an unset dimension, shapes that do not fit.
        UnsupportedOperatorError: an operator without a shape rule, or a loop that runs until the data ends it.
        InputError: tokens that the model does not take, values or counts of what it does not have.
        ModelError: no such file.
    """
    where = title(source)
    asked = Asked(input_shapes, seq_len, past, input_values or {}, counts or {})
    path = path_of(source)
    if path is not None:
        with opened(path) as file:
            size = path.stat().st_size
            if size <= _WHOLE_FILE_BYTES:
                return _read(file.read(), where, path.parent, asked, name or path.stem)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
                return _read(buffer, where, path.parent, asked, name or path.stem)
    folder = None
    if hasattr(source, "SerializeToString"):
        data = _serialised(source)
    elif hasattr(source, "read"):
        data = source.read()
        folder = Path(where).parent if os.path.isfile(where) else None
    else:
        data = source
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ModelFormatError(f"{where}: no ONNX model; give a path, bytes, a binary file or a ModelProto")
    return _read(bytes(data), where, folder, asked, name)


def _serialised(proto: Any) -> bytes:
    """The bytes of a ``ModelProto``; one above protobuf's 2 GB without the values of its weights."""
    try:
        return bytes(proto.SerializeToString())
    except Exception:  # protobuf's errors differ by its implementation
        light = type(proto)()
        for part, value in proto.ListFields():
            if part.name == "functions":
                light.functions.extend(value)
            elif part.name == "opset_import":
                light.opset_import.extend(value)
            elif part.name == "ir_version":
                light.ir_version = value
        graph = proto.graph
        light.graph.name = graph.name
        for name in ("node", "input", "output", "value_info"):
            getattr(light.graph, name).extend(getattr(graph, name))
        for tensor in graph.initializer:
            shell = light.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            if tensor.ByteSize() <= _SMALL_TENSOR_BYTES:
                shell.CopyFrom(tensor)
        return bytes(light.SerializeToString())


def _read(buffer: wire.Buffer, where: str, folder: Path | None, asked: Asked, name: str | None) -> Graph:
    try:
        model = wire.read_model(buffer)
        if model.graph is None:
            raise WireError("there is no graph in it")
        external = External(folder)
        reader = wire.GraphReader(buffer, external)
        raw = reader.graph(model.graph)
        functions = {(each.domain, each.name): each for each in map(reader.function, model.functions)}
    except (ValueError, LookupError, ArithmeticError, struct.error, RecursionError, MemoryError) as error:
        raise ModelFormatError(f"{where}: not an ONNX model, or a damaged one: {error}") from error
    if not raw.nodes and not raw.outputs:
        raise ModelFormatError(f"{where}: not an ONNX model: its graph has neither nodes nor outputs")
    try:
        return Reading(reader, where, raw, functions, external, asked, len(buffer)).graph(model, name)
    except (WireError, struct.error, UnicodeDecodeError, RecursionError) as error:
        raise ModelFormatError(f"{where}: damaged: {error}") from error
