"""ONNX: a path, bytes, a file-like object or a ``ModelProto``."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

from nn_meter.errors import ModelFormatError
from nn_meter.frontends._source import existing_file, head, path_of, title
from nn_meter.frontends.onnx import wire
from nn_meter.frontends.onnx.reading import External, Reading, Shapes
from nn_meter.ir import Graph

name = "onnx"
suffixes = (".onnx",)

_WHOLE_FILE_BYTES = 1 << 24
"""Files up to this size are read at once, larger ones mapped."""

_MODEL_KEYS = frozenset((0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72))


def sniff(source: Any) -> bool:
    """Whether ``source`` is a ``ModelProto`` or starts like one: with its IR version."""
    if type(source).__name__ == "ModelProto":
        return True
    start = head(source)
    return len(start) > 2 and start[0] == 0x08 and 0 < start[1] < 0x40 and start[2] in _MODEL_KEYS


def read(source: Any, *, input_shapes: Shapes | None = None, name: str | None = None) -> Graph:
    """Read an ONNX model of opset 7 or newer. Weights are not read; their files may be absent.

    Args:
        source: A path, the bytes of a file, a binary file-like object, or an ``onnx.ModelProto``.
        input_shapes: Shapes of inputs by name, or one shape for the only input; they take the place of the
            file's. An unset first dimension becomes 1, and ``Graph.notes`` says so.
        name: The graph's name; the file's stem if left out.

    Raises:
        ModelFormatError: not an ONNX file, or a damaged one.
        GraphError: a cycle, a tensor that nothing computes, an unset dimension, shapes that do not fit.
        UnsupportedOperatorError: an operator without a shape rule, or control flow that depends on data.
        ModelError: no such file.
    """
    where = title(source)
    path = path_of(source)
    if path is not None:
        with existing_file(path).open("rb") as file:
            size = path.stat().st_size
            if size <= _WHOLE_FILE_BYTES:
                return _read(file.read(), where, path.parent, input_shapes, name or path.stem)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
                return _read(buffer, where, path.parent, input_shapes, name or path.stem)
    if hasattr(source, "SerializeToString"):
        buffer_bytes = source.SerializeToString()
    elif hasattr(source, "read"):
        buffer_bytes = source.read()
    else:
        buffer_bytes = source
    if not isinstance(buffer_bytes, bytes | bytearray | memoryview):
        raise ModelFormatError(f"{where}: no ONNX model; give a path, bytes, a binary file or a ModelProto")
    return _read(bytes(buffer_bytes), where, None, input_shapes, name)


def _read(
    buffer: wire.Buffer, where: str, folder: Path | None, shapes: Shapes | None, name: str | None
) -> Graph:
    try:
        model = wire.read_model(buffer)
        if model.functions:
            buffer = _inlined(buffer)
            model = wire.read_model(buffer)
        if model.graph is None:
            raise wire.WireError("there is no graph in it")
        reader = wire.GraphReader(buffer, External(folder))
        raw = reader.graph(model.graph)
    except (ValueError, LookupError, ArithmeticError, struct.error, RecursionError, MemoryError) as error:
        raise ModelFormatError(f"{where}: not an ONNX model, or a damaged one: {error}") from error
    if not raw.nodes and not raw.outputs:
        raise ModelFormatError(f"{where}: not an ONNX model: its graph has neither nodes nor outputs")
    try:
        return Reading(reader, buffer, where, raw).graph(model, shapes, name)
    except (wire.WireError, struct.error, UnicodeDecodeError, RecursionError) as error:
        raise ModelFormatError(f"{where}: damaged: {error}") from error


def _inlined(buffer: wire.Buffer) -> bytes:
    """The model with its own functions put in the place of their calls."""
    import onnx
    import onnx.inliner

    try:
        model = onnx.ModelProto.FromString(bytes(buffer))
        return bytes(onnx.inliner.inline_local_functions(model).SerializeToString())
    except Exception as error:  # protobuf's and the inliner's errors have no common root
        raise wire.WireError(f"its functions cannot be inlined: {error}") from error
