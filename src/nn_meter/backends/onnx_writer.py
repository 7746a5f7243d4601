"""From a graph to an ONNX model that a runtime can execute: structure from the graph, weights from a seed.

A latency does not depend on the weights' values as long as they keep the activations in the normal range of
floats (denormal numbers are many times slower) and indices inside their tables. So weights are random, and
scaled by what reads them: the table ``_FILLS`` says how.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, defs, external_data_helper, helper

from nn_meter.backends.onnx_opsets import BASE_OPSET, as_of, is_onnx, opset_for
from nn_meter.errors import BackendError, ModelFormatError
from nn_meter.ir.graph import Attr, Graph, Node, Tensor
from nn_meter.ir.shapes import DTYPES

MAX_MODEL_BYTES = 2**31 - 1
"""Largest model that one protobuf message can hold."""

_Shapes = Mapping[str, Sequence[int]]

_SHAPES = "nn-meter.input_shapes"
"""Of a model's own entries, the one that says how large inputs with free sizes are."""

_POOL_SIZE = 1 << 18
_PAGE_BYTES = 4096
_GRAPH_TYPES = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
_FLOAT_TYPES = frozenset((TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16))
_INDEX_TYPES = frozenset((TensorProto.INT32, TensorProto.INT64))
_CODE_SIZES = {TensorProto.INT8: 1.0, TensorProto.UINT8: 1.0, TensorProto.INT4: 0.5, TensorProto.UINT4: 0.5}
"""Element types of quantised weights, and the bytes that one takes."""


class _Fill(NamedTuple):
    """Random numbers around ``centre``, most of them within ``spread``, none beyond three times it."""

    centre: float
    spread: float


_ONES = _Fill(1.0, 0.1)
_ZEROS = _Fill(0.0, 0.0)
_SMALL = _Fill(0.0, 0.1)

_FILLS: Mapping[tuple[str, int], _Fill] = {
    ("BatchNormalization", 1): _ONES,
    ("BatchNormalization", 4): _ONES,
    ("InstanceNormalization", 1): _ONES,
    ("GroupNormalization", 1): _ONES,
    ("LayerNormalization", 1): _ONES,
    ("SimplifiedLayerNormalization", 1): _ONES,
    ("SkipLayerNormalization", 2): _ONES,
    ("RMSNormalization", 1): _ONES,
    ("Mul", 0): _ONES,
    ("Mul", 1): _ONES,
    ("Div", 0): _ONES,
    ("Div", 1): _ONES,
    ("Mod", 1): _ONES,
    ("Pow", 0): _ONES,
    ("Pow", 1): _Fill(2.0, 0.0),
    ("Sqrt", 0): _ONES,
    ("Log", 0): _ONES,
    ("Reciprocal", 0): _ONES,
    ("PRelu", 1): _Fill(0.25, 0.05),
    ("Clip", 1): _ZEROS,
    ("Clip", 2): _Fill(6.0, 0.0),
    ("Gather", 0): _Fill(0.0, 1.0),
    ("QuantizeLinear", 1): _Fill(0.02, 0.002),
    ("QuantizeLinear", 2): _ZEROS,
    ("DequantizeLinear", 1): _Fill(0.02, 0.002),
    ("DequantizeLinear", 2): _ZEROS,
    ("DynamicQuantizeLinear", 2): _ZEROS,
}
"""(operator, input position) to the values that keep activations near one."""

_FAN_IN_AXES: Mapping[tuple[str, int], tuple[int, ...] | None] = {
    ("MatMul", 0): (-1,),
    ("MatMul", 1): (-2,),
    ("Gemm", 0): (-1,),
    ("Gemm", 1): (-2,),
    ("LSTM", 1): (-1,),
    ("LSTM", 2): (-1,),
    ("GRU", 1): (-1,),
    ("GRU", 2): (-1,),
    ("RNN", 1): (-1,),
    ("RNN", 2): (-1,),
    ("Conv", 1): None,
    ("ConvTranspose", 1): None,
}
"""(operator, input position) to the weight's axes that are summed over; ``None``: all but the first."""

_INDEX_TAKERS = frozenset(("GatherElements", "GatherND", "ScatterElements", "ScatterND"))
"""Operators whose indices point along an axis of their first input, or along several."""

_VALUE_KEEPERS = frozenset(("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"))
"""Operators through which an index stays the same index."""


def to_onnx(graph: Graph, *, seed: int = 0, opset: int | None = None) -> onnx.ModelProto:
    """Write ``graph`` as an ONNX model with random weights; nodes and tensors keep their names.

    Args:
        graph: Any verified graph in the vocabulary of ONNX or of onnxruntime's own domains.
        seed: Seed of the weights.
        opset: Opset of ONNX's own domain; by default ``BASE_OPSET``, newer where an operator asks for it, older where
            a node that was read from an older file does and the others allow it.

    Raises:
        BackendError: an element type that ONNX does not have; names the tensor.
    """
    model = _structure(graph, opset or opset_for(graph))
    _fill(model, None, seed)
    return model


def with_random_weights(
    source: Path | bytes | onnx.ModelProto,
    *,
    seed: int = 0,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    input_values: Mapping[str, Sequence[float]] | None = None,
    fixed: bool = True,
) -> onnx.ModelProto:
    """A model that can run: weights whose external file is absent become random, those that exist are loaded.

    Absent ones that stand for several, since they were equal before training, become several: runtimes fuse a bias that
    two convolutions share otherwise, and no trained network's do.

    Args:
        source: A file (external weights are looked for beside it), serialised bytes, or a model, which is
            left as it is.
        seed: Seed of the weights.
        input_shapes: Input name to shape, for inputs with free dimensions.
        input_values: Input name to its elements: what it has where the caller gives it nothing.
        fixed: Whether sizes that the model leaves free become those of ``input_shapes``; else these are noted in it,
            for ``random_inputs``.

    Raises:
        ModelFormatError: the source is no ONNX model.
        BackendError: ``input_shapes`` names an input that the model does not have, or another rank.
    """
    model = onnx.ModelProto()
    folder: Path | None = None
    if isinstance(source, Path):
        folder = source.parent
        model = _parse(source.read_bytes(), str(source))
    elif isinstance(source, bytes):
        model = _parse(source, "the bytes given")
    else:
        model.CopyFrom(source)
    shapes = input_shapes or {}
    _set_inputs(model, shapes, fixed)
    _default_inputs(model, input_values or {}, shapes)
    _fill(model, folder, seed)
    return model


def as_bytes(model: Graph | onnx.ModelProto | bytes, *, seed: int = 0) -> bytes:
    """The serialised ONNX model of ``model``; a graph gets random weights, bytes come back as they are.

    Raises:
        BackendError: the model is larger than the 2 GiB that one protobuf message holds.
    """
    if isinstance(model, bytes):
        return model
    proto = to_onnx(model, seed=seed) if isinstance(model, Graph) else model
    if proto.ByteSize() > MAX_MODEL_BYTES:
        raise BackendError(
            f"{proto.graph.name}: the model takes {proto.ByteSize() / 2**30:.1f} GiB with its weights; "
            "ONNX models above 2 GiB cannot be handed to a runtime in memory, measure a smaller variant"
        )
    data: bytes = proto.SerializeToString()
    return data


def random_inputs(model: Graph | onnx.ModelProto | bytes, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Input name to random array: floats around zero, indices inside the tables that they select from.

    What the model leaves free is as large as ``with_random_weights`` noted; else a first dimension becomes 1.

    Raises:
        BackendError: another dimension is free; names the input.
    """
    if isinstance(model, Graph):
        proto = _structure(model, BASE_OPSET)
    else:
        proto = _parse(model, "the bytes given") if isinstance(model, bytes) else model
    dice = _Dice(proto.graph, seed)
    shapes = json.loads(next((each.value for each in proto.metadata_props if each.key == _SHAPES), "{}"))
    return {
        info.name: dice.input(info.name, _static_shape(info, shapes), info.type.tensor_type.elem_type)
        for info in _free_inputs(proto.graph)
    }


def _structure(graph: Graph, opset: int) -> onnx.ModelProto:
    """The model of ``graph``; weights without a value are declared, and absent."""
    nodes = [node for node in graph.nodes if node.op_type != "Constant" or node.domain]
    computed = {name for node in nodes for name in node.outputs}
    read = dict.fromkeys(name for node in nodes for name in node.inputs if name)
    read.update(dict.fromkeys(graph.outputs))
    weights = [graph.tensors[name] for name in read if name not in computed and name not in graph.inputs]
    current = [as_of(node, opset, graph) for node in nodes]
    weights += [tensor for _, settings in current for tensor in settings]
    proto = helper.make_graph(
        [_node(node, opset) for node, _ in current],
        graph.name or "graph",
        [_value_info(graph.tensors[name]) for name in graph.inputs],
        [_value_info(graph.tensors[name]) for name in graph.outputs],
        [_initializer(tensor) for tensor in weights],
    )
    versions = {"": opset, **{node.domain: 1 for node in nodes if not is_onnx(node.domain)}}
    imports = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    return helper.make_model(
        proto,
        opset_imports=imports,
        ir_version=helper.find_min_ir_version_for(imports, ignore_unknown=True),
        producer_name="nn-meter",
    )


def _node(node: Node, opset: int) -> onnx.NodeProto:
    domain = "" if is_onnx(node.domain) else node.domain
    proto = helper.make_node(node.op_type, node.inputs, node.outputs, name=node.name, domain=domain)
    known = (
        defs.get_schema(node.op_type, opset).attributes
        if not domain and defs.has(node.op_type, opset)
        else {}
    )
    attrs = dict(node.attrs)
    if not domain:
        attrs.pop("opset", None)
    if node.op_type == "ConstantOfShape":
        kind = _element_type(str(attrs.pop("dtype", "float32")), node.name)
        proto.attribute.append(
            helper.make_attribute("value", helper.make_tensor("value", kind, (1,), [attrs.pop("value", 0)]))
        )
    for name, value in attrs.items():
        declared = known[name].type.value if name in known else None
        proto.attribute.append(_attribute(name, value, declared))
    return proto


def _attribute(name: str, value: Attr, declared: int | None) -> onnx.AttributeProto:
    """``value`` as the type that the operator declares: ``alpha=1`` becomes a float where one is due."""
    if declared == AttributeProto.FLOAT and isinstance(value, int | float):
        value = float(value)
    elif declared == AttributeProto.FLOATS and isinstance(value, tuple):
        value = tuple(float(item) for item in value)
    return helper.make_attribute(name, value, attr_type=declared)


def _element_type(dtype: str, owner: str) -> int:
    if dtype not in DTYPES:
        raise BackendError(
            f"tensor {owner!r}: ONNX has no element type {dtype!r}; use one of {', '.join(DTYPES[1:])}"
        )
    return DTYPES.index(dtype)


def _value_info(tensor: Tensor) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, _element_type(tensor.dtype, tensor.name), tensor.shape)


def _initializer(tensor: Tensor) -> onnx.TensorProto:
    kind = _element_type(tensor.dtype, tensor.name)
    if tensor.value is not None:
        return helper.make_tensor(tensor.name, kind, tensor.shape, tensor.value)
    return TensorProto(
        name=tensor.name, dims=tensor.shape, data_type=kind, data_location=TensorProto.EXTERNAL
    )


def _parse(data: bytes, where: str) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:
        raise ModelFormatError(
            f"{where}: no ONNX model, or a damaged one ({error}); export it again"
        ) from error
    if not model.HasField("graph"):
        raise ModelFormatError(f"{where}: not an ONNX model, it holds no graph; export it again")
    return model


def _free_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that a caller has to provide."""
    weights = {tensor.name for tensor in graph.initializer}
    return [info for info in graph.input if info.name not in weights]


def _static_shape(info: onnx.ValueInfoProto, shapes: _Shapes) -> tuple[int, ...]:
    if info.name in shapes:
        return tuple(shapes[info.name])
    shape = []
    for axis, dim in enumerate(info.type.tensor_type.shape.dim):
        if not dim.HasField("dim_value") and axis > 0:
            what = f"dimension {axis} ({dim.dim_param or 'unnamed'})"
            raise BackendError(f"input {info.name!r}: {what} is free; give the input's shape")
        shape.append(dim.dim_value if dim.HasField("dim_value") else 1)
    return tuple(shape)


def _set_inputs(model: onnx.ModelProto, shapes: _Shapes, fixed: bool) -> None:
    infos = {info.name: info for info in _free_inputs(model.graph)}
    for name, shape in shapes.items():
        if name not in infos:
            raise BackendError(f"{model.graph.name}: no input {name!r}; the model's inputs are {', '.join(infos)}")
        dims = infos[name].type.tensor_type.shape.dim
        if len(dims) != len(shape):
            raise BackendError(f"{model.graph.name}: input {name!r} has {len(dims)} dimensions, not {len(shape)}")
        for dim, size in zip(dims, shape, strict=True):
            if fixed or dim.HasField("dim_value"):
                dim.dim_value = size
    if shapes and not fixed:
        stated = json.dumps({name: [*shape] for name, shape in shapes.items()})
        model.metadata_props.append(onnx.StringStringEntryProto(key=_SHAPES, value=stated))


def _default_inputs(model: onnx.ModelProto, values: Mapping[str, Sequence[float]], shapes: _Shapes) -> None:
    """Initialisers of inputs, which a runtime takes for their defaults and does not fold."""
    infos = {info.name: info for info in _free_inputs(model.graph)}
    for name, value in values.items():
        info = infos[name]
        kind = info.type.tensor_type.elem_type
        model.graph.initializer.append(helper.make_tensor(name, kind, _static_shape(info, shapes), value))


def _fill(model: onnx.ModelProto, folder: Path | None, seed: int) -> None:
    """Give data to every tensor of ``model`` whose data lies in another file, or nowhere."""
    for graph in _graphs(model.graph):
        _part(graph, folder)
        dice = _Dice(graph, seed)
        for tensor in _tensors(graph):
            if tensor.data_location != TensorProto.EXTERNAL:
                continue
            if _is_absent(tensor, folder):
                tensor.raw_data = dice.weight(tensor)
            else:
                external_data_helper.load_external_data_for_tensor(tensor, str(folder))
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]


def _is_absent(tensor: onnx.TensorProto, folder: Path | None) -> bool:
    """Whether the data of ``tensor`` lies in another file that is not there, or nowhere."""
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    there = folder is not None and location and (folder / location).is_file()
    return tensor.data_location == TensorProto.EXTERNAL and not there


def _part(graph: onnx.GraphProto, folder: Path | None) -> None:
    """Make a tensor of its own of each Identity of an absent one, as exports of PyTorch write equal parameters."""
    absent = {tensor.name: tensor for tensor in graph.initializer if _is_absent(tensor, folder)}
    results = {info.name for info in graph.output}
    kept = []
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in absent and node.output[0] not in results:
            own = graph.initializer.add()
            own.CopyFrom(absent[node.input[0]])
            own.name = node.output[0]
            absent[own.name] = own
        else:
            kept.append(node)
    if len(kept) < len(graph.node):
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
        del graph.node[:]
        graph.node.extend(kept)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.type in _GRAPH_TYPES else ():
                yield from _graphs(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t


@cache
def _pools(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Normal floats, no further than 3 from 0, and integers below 2^31, to take values from; not to be written to."""
    rng = np.random.default_rng(seed)
    floats = np.clip(rng.standard_normal(_POOL_SIZE, dtype=np.float32), -3.0, 3.0)
    return floats, rng.integers(0, 1 << 31, _POOL_SIZE)


class _Dice:
    """Draws the values of one graph's weights and inputs, each from the seed and its own name."""

    def __init__(self, graph: onnx.GraphProto, seed: int) -> None:
        self._readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        for node in graph.node:
            for position, name in enumerate(node.input):
                self._readers.setdefault(name, []).append((node, position))
        self._dims = {i.name: tuple(d.dim_value or 1 for d in i.type.tensor_type.shape.dim) for i in graph.input}
        self._dims |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        self._floats, self._integers = _pools(seed)

    def weight(self, tensor: onnx.TensorProto) -> bytes:
        """Raw data of the constant that ``tensor`` declares."""
        shape = tuple(tensor.dims)
        fill = self._fill_of(tensor.name, shape)
        return self._array(tensor.name, shape, tensor.data_type, fill)

    def input(self, name: str, shape: tuple[int, ...], kind: int) -> np.ndarray:
        """Array of an input of the model, at the start of a page: where an input lies changes what reading it costs."""
        raw = self._array(name, shape, kind, _Fill(0.0, 1.0))
        room = np.empty(len(raw) + _PAGE_BYTES, np.uint8)
        start = -room.ctypes.data % _PAGE_BYTES
        page = room[start : start + len(raw)]
        page[:] = np.frombuffer(raw, np.uint8)
        found: np.ndarray = page.view(helper.tensor_dtype_to_np_dtype(kind)).reshape(shape)
        return found

    def _array(self, name: str, shape: tuple[int, ...], kind: int, fill: _Fill) -> bytes:
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        size = math.prod(shape)
        if kind in _FLOAT_TYPES:
            values = self._slice(self._floats, name, size)
            if fill.spread == 0:
                values = np.full(size, fill.centre, np.float32)
            elif fill != (0.0, 1.0):
                values = values * np.float32(fill.spread) + np.float32(fill.centre)
            return bytes(values.astype(dtype).tobytes())
        if kind in _CODE_SIZES and fill.spread:
            codes = self._slice(self._integers, name, math.ceil(size * _CODE_SIZES[kind]))
            return bytes(codes.astype(np.uint8))
        if kind == TensorProto.BOOL:
            return bytes(self._slice(self._integers, name, size) % 2 == 1)
        if kind in _INDEX_TYPES:
            bound = self._index_bound(name)
            indices = np.ones(size) if bound is None else self._slice(self._integers, name, size) % bound
            return bytes(indices.astype(dtype).tobytes())
        return bytes(math.ceil(size * _CODE_SIZES.get(kind, dtype.itemsize)))

    def _slice(self, pool: np.ndarray, name: str, size: int) -> np.ndarray:
        start = crc32(name.encode()) % len(pool)
        if start + size <= len(pool):
            return pool[start : start + size]
        return np.resize(np.concatenate((pool[start:], pool[:start])), size)

    def _fill_of(self, name: str, shape: tuple[int, ...]) -> _Fill:
        for node, position in self._readers.get(name, ()):
            reader = (node.op_type, position)
            if reader in _FILLS:
                return _FILLS[reader]
            if reader in _FAN_IN_AXES and len(shape) > 1:
                return _Fill(0.0, 1.0 / math.sqrt(max(1, self._fan_in(node, reader, shape))))
        return _SMALL

    @staticmethod
    def _fan_in(node: onnx.NodeProto, reader: tuple[str, int], shape: tuple[int, ...]) -> int:
        axes = _FAN_IN_AXES[reader]
        if axes is None:
            return math.prod(shape[1:])
        turned = any(attr.name == ("transB" if reader[1] else "transA") and attr.i for attr in node.attribute)
        return math.prod(shape[-3 - axis if turned else axis] for axis in axes)

    def _smallest_axis(self, node: onnx.NodeProto, places: str) -> int:
        """The length of the axis that ``places`` point along, the least of several; 1 where it is not known."""
        table, at = self._dims.get(node.input[0]), self._dims.get(places)
        if not table:
            return 1
        if node.op_type.endswith("ND"):
            return min(table[: at[-1]]) if at else 1
        return table[next((attr.i for attr in node.attribute if attr.name == "axis"), 0)]

    def _index_bound(self, name: str) -> int | None:
        """One more than the largest index that every reader of ``name`` takes; ``None`` without one."""
        bounds: list[int] = []
        for node, position in self._readers.get(name, ()):
            if node.op_type == "Gather" and position == 1:
                table = self._dims.get(node.input[0])
                axis = next((attr.i for attr in node.attribute if attr.name == "axis"), 0)
                bounds.append(table[axis] if table else 1)
            elif node.op_type in _INDEX_TAKERS and position == 1:
                bounds.append(self._smallest_axis(node, name))
            elif node.op_type in _VALUE_KEEPERS and position == 0:
                inner = self._index_bound(node.output[0])
                bounds.extend(() if inner is None else (inner,))
        return min(bounds, default=None)
