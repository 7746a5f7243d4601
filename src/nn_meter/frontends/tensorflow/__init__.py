"""TensorFlow: frozen graphs and SavedModels without TensorFlow; Keras files and models with it."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nn_meter.errors import GraphError, ModelFormatError
from nn_meter.frontends._protobuf import WireError
from nn_meter.frontends._source import Shapes, existing_file, head, opened, path_of, title
from nn_meter.frontends.tensorflow import keras, wire
from nn_meter.frontends.tensorflow.flow import flatten, value_key
from nn_meter.frontends.tensorflow.graph import build
from nn_meter.ir import Graph

name = "tensorflow"
suffixes = (".pb", ".keras", ".h5", ".hdf5")

_SAVED_MODEL = "saved_model.pb"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"
_SIGNATURE = "serving_default"


def sniff(source: Any) -> bool:
    """Whether ``source`` is a SavedModel's folder, a Keras file or model, or starts like a ``GraphDef``."""
    path = path_of(source)
    if path is not None and os.path.isfile(path / _SAVED_MODEL):
        return True
    if keras.is_model(source) or type(source).__name__ == "GraphDef":
        return True
    start = head(source)
    if start.startswith(_HDF5):
        return True
    if start.startswith(_ZIP):
        first = start[30 : 30 + int.from_bytes(start[26:28], "little")]  # its name in the zip
        return first in (b"metadata.json", b"config.json", b"model.weights.h5")
    return _starts_like_graph(start) or _starts_like_saved_model(start)


def _starts_like_graph(start: bytes) -> bool:
    """A ``GraphDef`` starts with a node, and a node with its name and its operator."""
    at = _after_tag(start, 0, 0x0A)
    at = _after_tag(start, at, 0x0A) if at else 0
    if not at:
        return False
    length = start[at - 1]
    operator = _after_tag(start, at + length, 0x12) if length < 0x80 else 0
    return bool(operator) and start[operator : operator + 1].isalpha()


def _starts_like_saved_model(start: bytes) -> bool:
    """A ``SavedModel`` starts with its version, 1, and a graph whose own first field is its description."""
    at = _after_tag(start, 2, 0x12) if start.startswith(b"\x08\x01") else 0
    return bool(at) and start[at : at + 1] == b"\x0a"


def _after_tag(data: bytes, at: int, tag: int) -> int:
    """Where the content of the field with this tag begins, 0 where ``data`` hold another."""
    if data[at : at + 1] != bytes((tag,)):
        return 0
    at += 1
    while at < len(data) and data[at] >= 0x80:
        at += 1
    return at + 1 if at < len(data) else 0


def read(source: Any, *, input_shapes: Shapes | None = None, name: str | None = None) -> Graph:
    """Read a TensorFlow model. Weights are neither copied nor kept.

    Args:
        source: A frozen graph (``.pb``, its bytes or a ``GraphDef``), the folder of a SavedModel or its
            ``saved_model.pb``, a ``.keras`` or ``.h5`` file, or a ``tf.keras.Model``. Only the last three
            need TensorFlow.
        input_shapes: Shapes of inputs by name, or one for the only input, in the model's own order of axes;
            an image's may also be given channels first. An unset batch becomes 1; ``Graph.notes`` says so.
        name: The graph's name; the file's stem if left out.

    Raises:
        ModelFormatError: not a TensorFlow model, or a damaged one.
        UnsupportedOperatorError: an operator without a row, or control flow; names the node.
        GraphError: an unset dimension, shapes that do not fit, a cycle.
        MissingDependencyError: TensorFlow is needed and not installed.
        ModelError: no such file.
    """
    where = title(source)
    if keras.is_model(source):
        return _keras(source, where, name or str(getattr(source, "name", "model")), input_shapes)
    path = path_of(source)
    if path is None:
        data = source.SerializeToString() if hasattr(source, "SerializeToString") else source
        data = data.read() if hasattr(data, "read") else data
        if not isinstance(data, bytes | bytearray | memoryview):
            raise ModelFormatError(f"{where}: no TensorFlow model; give a path, bytes, a GraphDef or a Keras model")
        return _protobuf(memoryview(data), where, name or "model", input_shapes)
    stem = path.stem
    if path.is_dir():
        path = path / _SAVED_MODEL
    existing_file(path)
    start = head(path)
    if start.startswith((_HDF5, _ZIP)):
        return _keras(keras.load(path), where, name or stem, input_shapes)
    return _protobuf(_mapped(path), where, name or stem, input_shapes)


def _mapped(path: Path) -> memoryview:
    """The file's bytes; the system reads only the pages that are looked at, so weights stay on the disk."""
    with opened(path) as file:
        if not path.stat().st_size:
            raise ModelFormatError(f"{path}: the file is empty")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _keras(model: Any, where: str, name: str, shapes: Shapes | None) -> Graph:
    traced = keras.trace(model, where, shapes)
    graph = _parsed(wire.graph_def, memoryview(traced.graph), where)
    nodes = tuple(_captured(node, traced) for node in graph.nodes)
    return build(flatten(replace(graph, nodes=nodes), traced.outputs, where), where, name, None, traced.notes)


def _captured(node: wire.NodeDef, traced: keras.Traced) -> wire.NodeDef:
    """A placeholder that stands for a weight, as a weight of that shape."""
    if node.name not in traced.weights:
        return node
    shape, dtype = traced.weights[node.name]
    return replace(node, op="VarHandleOp", attrs=MappingProxyType({"shape": shape, "dtype": dtype}))


def _protobuf(data: memoryview, where: str, name: str, shapes: Shapes | None) -> Graph:
    if _starts_like_saved_model(bytes(data[:64])):
        return _saved(_parsed(wire.saved_model, data, where), where, name, shapes)
    graph = _parsed(wire.graph_def, data, where)
    if not graph.nodes:
        raise ModelFormatError(f"{where}: not a TensorFlow graph: it holds no node")
    return build(flatten(graph, None, where), where, name, shapes)


def _parsed(parse: Any, data: memoryview, where: str) -> Any:
    try:
        return parse(data)
    except (ModelFormatError, WireError) as error:
        raise ModelFormatError(f"{where}: not a TensorFlow graph, or a damaged one: {error}") from error


def _saved(metas: Sequence[wire.MetaGraph], where: str, name: str, shapes: Shapes | None) -> Graph:
    """The graph tagged for serving, from the inputs of its signature to its outputs."""
    meta = next((meta for meta in metas if "serve" in meta.tags), metas[0] if metas else None)
    if meta is None:
        raise ModelFormatError(f"{where}: the SavedModel holds no graph; the file is damaged")
    chosen = {key: signature for key, signature in meta.signatures.items() if signature.outputs}
    signature = chosen.get(_SIGNATURE) or next((each for key, each in chosen.items() if not key.startswith("__")), None)
    if signature is None:
        raise GraphError(f"{where}: the SavedModel has no signature to call; export it with a signature {_SIGNATURE!r}")
    # the caller knows arguments by the signature's names, the graph by its own
    names = {value_key(tensor).rpartition(":")[0]: key for key, tensor in signature.inputs.items()}
    flow = flatten(meta.graph, tuple(signature.outputs.values()), where)
    return build(flow, where, name, shapes, input_names=names)
