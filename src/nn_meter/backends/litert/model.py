"""A TFLite file while it is written: tensors, operators and the order that each tensor is laid out in.

The schema is the one that LiteRT ships (``ai_edge_litert.schema_py_generated``). A tensor of the graph may be stored
with its axes in another order: ``order[i]`` is the graph's axis that is the i-th in memory. Layers of images want
channels last, products want what the graph says; a change between the two is an operator of its own, written where a
reader asks for an order that is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from nn_meter.backends import site
from nn_meter.errors import BackendError
from nn_meter.ir.graph import Tensor
from nn_meter.runtimes.litert import Order, plain
from nn_meter.runtimes.trace import Operand

_VERSION = 3
"""Of the schema."""
_MOST_BYTES = 2**31 - 1
"""Offsets of a flatbuffer have 32 bits, one of them a sign."""

_OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "ADD": "Add", "ARG_MAX": "ArgMax", "ARG_MIN": "ArgMin", "AVERAGE_POOL_2D": "Pool2D",
        "BATCH_MATMUL": "BatchMatMul", "CAST": "Cast", "CONCATENATION": "Concatenation", "CONV_2D": "Conv2D",
        "CONV_3D": "Conv3D", "CUMSUM": "Cumsum", "DEPTHWISE_CONV_2D": "DepthwiseConv2D",
        "DEPTH_TO_SPACE": "DepthToSpace", "DIV": "Div", "FULLY_CONNECTED": "FullyConnected", "GATHER": "Gather",
        "GELU": "Gelu", "LEAKY_RELU": "LeakyRelu", "LOCAL_RESPONSE_NORMALIZATION": "LocalResponseNormalization",
        "MAX_POOL_2D": "Pool2D", "MEAN": "Reducer", "MIRROR_PAD": "MirrorPad", "MUL": "Mul", "ONE_HOT": "OneHot",
        "REDUCE_MAX": "Reducer", "REDUCE_MIN": "Reducer", "REDUCE_PROD": "Reducer", "RESHAPE": "Reshape",
        "RESIZE_BILINEAR": "ResizeBilinear", "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighbor",
        "SOFTMAX": "Softmax", "SPACE_TO_DEPTH": "SpaceToDepth", "SPLIT": "Split", "SPLIT_V": "SplitV",
        "STRIDED_SLICE": "StridedSlice", "SUB": "Sub", "SUM": "Reducer", "TRANSPOSE_CONV": "TransposeConv",
    }
)  # fmt: skip
"""Operator to what its options are called; the others have none that say anything."""

_VERSIONS: Mapping[str, int] = MappingProxyType({"BROADCAST_TO": 2})
"""Of operators whose first version LiteRT has no kernel for."""

_SCALED = frozenset(
    ("ADD", "SUB", "MUL", "DIV", "EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL")
)
"""Operators to which bytes are numbers with a scale; without one LiteRT ends the process, or computes nothing."""

_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "float32": "FLOAT32", "float16": "FLOAT16", "float64": "FLOAT64", "int8": "INT8", "uint8": "UINT8",
        "int16": "INT16", "int32": "INT32", "int64": "INT64", "bool": "BOOL",
    }
)  # fmt: skip
"""numpy's names of element types to those of the schema."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in the file: its number, its shape there, numpy's name of its element type."""

    number: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def operand(self) -> Operand:
        """As a kernel tells it."""
        return Operand(self.shape, self.dtype)


@dataclass(frozen=True, slots=True)
class Written:
    """An operator in the file; ``nodes`` are those of the graph that it stands for, none of a change of order."""

    code: str
    inputs: tuple[Stored, ...]
    outputs: tuple[Stored, ...]
    nodes: tuple[str, ...]
    constants: frozenset[int]


class File(site.File):
    """What is written so far."""

    def __init__(self, schema: Any, tensors: Mapping[str, Tensor], arrays: Mapping[str, np.ndarray]) -> None:
        super().__init__(tensors, arrays)
        self.operators: list[Written] = []
        self._schema = schema
        self._model = schema.ModelT()
        self._model.version, self._model.description = _VERSION, b"nn-meter"
        self._model.buffers, self._model.operatorCodes = [schema.BufferT()], []
        self._part = schema.SubGraphT()
        self._part.name, self._part.tensors, self._part.operators = b"main", [], []
        self._codes: dict[str, int] = {}
        self._stored: dict[str, dict[Order, Stored]] = {}
        self._moved: dict[str, tuple[str, ...]] = {}
        self._constants: set[int] = set()

    def dtype(self, name: str) -> str:
        """Of a tensor of the graph."""
        return self.tensors[name].dtype

    def order(self, name: str) -> Order:
        """In which a tensor is stored first; the graph's own of a constant."""
        return next(iter(self._stored.get(name, {})), plain(len(self.shape(name))))

    def tensor(self, shape: Iterable[int], dtype: str, name: str = "") -> Stored:
        """A new tensor."""
        made = self._schema.TensorT()
        made.name = (name or f"t{len(self._part.tensors)}").encode()
        made.shape, made.type, made.buffer = list(shape), self.type(dtype), 0
        self._part.tensors.append(made)
        return Stored(len(self._part.tensors) - 1, tuple(made.shape), dtype)

    def constant(self, values: Any, dtype: str = "") -> Stored:
        """A new tensor of known values, float32 or int32 where they are no arrays."""
        array = np.asarray(values)
        if not isinstance(values, np.ndarray):
            array = array.astype(dtype or ("int32" if array.dtype.kind == "i" else "float32"))
        made = self.tensor(array.shape, str(array.dtype))
        buffer = self._schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        self._part.tensors[made.number].buffer = len(self._model.buffers) - 1
        self._constants.add(made.number)
        return made

    def given(self, name: str, order: Order) -> None:
        """An input of the model, stored in ``order``."""
        made = self.keep(name, self.tensor((self.shape(name)[axis] for axis in order), self.dtype(name), name), order)
        self._part.inputs = [*(self._part.inputs or ()), made.number]

    def keep(self, name: str, stored: Stored, order: Order | None = None) -> Stored:
        """A tensor of the graph is this one of the file."""
        self._stored.setdefault(name, {})[order or plain(len(stored.shape))] = stored
        return stored

    def alias(self, name: str, source: str, order: Order) -> None:
        """A tensor of the graph is what another is, in other words; a change of its order stands for these nodes."""
        self.keep(name, self._stored[source][self.order(source)], order)
        self._moved[name] = (*self._moved.get(source, ()), *self.nodes)

    def get(self, name: str, order: Order | None = None) -> Stored:
        """A tensor of the graph in ``order``, by default the one that it is in."""
        wanted = order or self.order(name)
        there = self._stored.setdefault(name, {})
        if wanted in there:
            return there[wanted]
        if (array := self.known(name)) is not None:
            return self.keep(name, self.constant(array.transpose(wanted)), wanted)
        source = self.order(name)
        turn = [source.index(axis) for axis in wanted]
        nodes, self.nodes = self.nodes, self._moved.pop(name, ())
        made = self.keep(name, self.turned(there[source], turn), wanted)
        self.nodes = nodes
        return made

    def turned(self, stored: Stored, turn: Sequence[int]) -> Stored:
        """With its axes in another order; where only axes of size 1 move, no data does."""
        if list(turn) == sorted(turn):
            return stored
        shape = [stored.shape[axis] for axis in turn]
        moving = [axis for axis in turn if stored.shape[axis] > 1]
        if moving == sorted(moving):
            return self.shaped(stored, shape)
        return self.op("TRANSPOSE", [stored, self.constant(list(turn))], shape)

    def shaped(self, stored: Stored, shape: Sequence[int]) -> Stored:
        """With the same elements in another shape."""
        if tuple(shape) == stored.shape:
            return stored
        return self.op("RESHAPE", [stored, self.constant(list(shape), "int32")], shape, newShape=list(shape))

    def op(
        self, code: str, inputs: Sequence[Stored], shape: Iterable[int], dtype: str = "", /, **options: Any
    ) -> Stored:
        """The result of a new operator, by default of the element type of its first input."""
        return self.ops(code, inputs, [shape], dtype or inputs[0].dtype, **options)[0]

    def ops(
        self, code: str, inputs: Sequence[Stored], shapes: Sequence[Iterable[int]], *dtypes: str, **options: Any
    ) -> list[Stored]:
        """The results of a new operator, of the element type of its first input where none is said.

        Raises:
            NotImplementedError: LiteRT wants a scale of them.
        """
        if code in _SCALED and inputs[0].dtype in ("int8", "uint8"):
            raise NotImplementedError(f"with elements of the type {inputs[0].dtype} that have no scale")
        schema = self._schema
        types = dtypes or (inputs[0].dtype,) * len(shapes)
        outputs = [self.tensor(shape, dtype) for shape, dtype in zip(shapes, types, strict=True)]
        made = schema.OperatorT()
        made.opcodeIndex = self._code(code)
        made.inputs, made.outputs = [each.number for each in inputs], [each.number for each in outputs]
        if code in _OPTIONS:
            kind = f"{_OPTIONS[code]}Options"
            made.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            made.builtinOptions = getattr(schema, f"{kind}T")()
            for name, value in options.items():
                setattr(made.builtinOptions, name, value)
        self._part.operators.append(made)
        known = frozenset(self._constants.intersection(made.inputs))
        self.operators.append(Written(code, tuple(inputs), tuple(outputs), self.nodes, known))
        return outputs

    def enum(self, kind: str, name: str) -> int:
        """A number of the schema."""
        found: int = getattr(getattr(self._schema, kind), name)
        return found

    def type(self, dtype: str) -> int:
        """The schema's number of an element type.

        Raises:
            NotImplementedError: it has none.
        """
        if dtype not in _TYPES:
            raise NotImplementedError(f"with elements of the type {dtype}")
        return self.enum("TensorType", _TYPES[dtype])

    def finished(self, outputs: Iterable[str]) -> bytes:
        """The file, with these tensors of the graph as outputs."""
        import flatbuffers

        self._part.outputs = [self.get(name).number for name in outputs]
        self._model.subgraphs = [self._part]
        if sum(len(each.data) for each in self._model.buffers if each.data is not None) > _MOST_BYTES:
            raise BackendError("litert: the weights are over 2 GB, which no TFLite file holds; measure a smaller model")
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self._model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _code(self, name: str) -> int:
        if name not in self._codes:
            number = self.enum("BuiltinOperator", name)
            code = self._schema.OperatorCodeT()
            code.builtinCode, code.deprecatedBuiltinCode = number, min(number, 127)
            code.version = _VERSIONS.get(name, 1)
            self._codes[name] = len(self._model.operatorCodes)
            self._model.operatorCodes.append(code)
        return self._codes[name]
