"""TFLite: float and quantised ``.tflite`` files, read from the flatbuffer without TensorFlow."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from math import prod
from typing import Any, Final

import numpy as np

from nn_meter.errors import ModelFormatError, UnsupportedOperatorError
from nn_meter.frontends._names import Names
from nn_meter.frontends._source import Shapes, head, opened, path_of, title
from nn_meter.frontends.tensorflow.flow import Flow, Op
from nn_meter.frontends.tensorflow.graph import build
from nn_meter.frontends.tensorflow.wire import KEPT_ELEMENTS, Constant
from nn_meter.frontends.tflite.flatbuffer import Table, root
from nn_meter.frontends.tflite.operators import ACTIVATIONS, CODES, CONTROL_FLOW, OPERATORS, Row, attributes
from nn_meter.ir import Graph

name = "tflite"
suffixes = (".tflite", ".lite")

_IDENTIFIER: Final = b"TFL3"

DTYPES: Final = (
    "float32", "float16", "int32", "uint8", "int64", "str", "bool", "int16", "complex64", "int8", "float64",
    "complex128", "uint64", "resource", "variant", "uint32", "uint16", "int4", "bfloat16", "int2", "uint4",
)  # fmt: skip
"""``TensorType`` to the element type of the graph."""


def sniff(source: Any) -> bool:
    """Whether ``source`` carries the identifier of TFLite's flatbuffers."""
    return head(source)[4:8] == _IDENTIFIER


def read(source: Any, *, input_shapes: Shapes | None = None, name: str | None = None) -> Graph:
    """Read a TFLite model, float or quantised; tensors keep the element types of the file.

    Args:
        source: A path, the bytes of a file, or a binary file-like object.
        input_shapes: Shapes of inputs by name, or one for the only input, in the file's order of axes; an
            image's may also be given channels first. An unset batch becomes 1, and ``Graph.notes`` says so.
        name: The graph's name; the file's stem if left out.

    Raises:
        ModelFormatError: not a TFLite file, or a damaged one.
        UnsupportedOperatorError: a custom operator, control flow, or an operator without a row; names
            operator and index.
        GraphError: an unset dimension, shapes that do not fit.
        ModelError: no such file.
    """
    where = title(source)
    path = path_of(source)
    if path is None:
        data = source.read() if hasattr(source, "read") else source
        if not isinstance(data, bytes | bytearray | memoryview):
            raise ModelFormatError(f"{where}: no TFLite model; give a path, bytes or a binary file")
        view = memoryview(data)
    else:
        with opened(path) as file:
            size = path.stat().st_size
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b"")
    if bytes(view[4:8]) != _IDENTIFIER:
        raise ModelFormatError(f"{where}: not a TFLite file: it lacks the identifier {_IDENTIFIER.decode()}")
    try:
        flow = _Reader(view, where).flow()
    except (ModelFormatError, struct.error, IndexError, ValueError, OverflowError) as error:
        raise ModelFormatError(f"{where}: damaged TFLite file: {error}") from error
    return build(flow, where, name or (path.stem if path is not None else "model"), input_shapes)


class _Reader:
    """One file on its way to operators by TensorFlow's names."""

    def __init__(self, data: memoryview, where: str) -> None:
        self._data = data
        self._where = where
        model = root(data)
        self._codes = [(_code(code), code.text(1)) for code in model.tables(1)]
        self._buffers = model.tables(4)
        graphs = model.tables(2)
        if not graphs:
            raise ModelFormatError("it holds no graph")
        self._graph = graphs[0]
        self._tensors = self._graph.tables(0)
        self._keys: dict[int, str] = {}
        self._unique = Names().unique
        self._ops: list[Op] = []

    def flow(self) -> Flow:
        """The main graph's operators, weights and inputs among them."""
        for index in self._graph.vector(1, "i") or ():
            self._add_input(index)
        for position, operator in enumerate(self._graph.tables(3)):
            self._add(position, operator)
        outputs = [self._key(index) for index in self._graph.vector(2, "i") or ()]
        return Flow(tuple(self._ops), tuple(outputs))

    def _tensor(self, index: int) -> Table:
        if not 0 <= index < len(self._tensors):
            raise ModelFormatError(f"there is no tensor {index}; the file has {len(self._tensors)}")
        return self._tensors[index]

    def _dtype(self, index: int) -> str:
        number = self._tensor(index).integer(1, "b")
        if not 0 <= number < len(DTYPES):
            raise ModelFormatError(f"tensor {index} has the unknown element type {number}")
        return DTYPES[number]

    def _add_input(self, index: int) -> None:
        tensor = self._tensor(index)
        name = self._unique(tensor.text(3) or f"input_{index}")
        shape = tuple(tensor.vector(7, "i") or tensor.vector(0, "i") or ())
        self._ops.append(Op(name, "Placeholder", (), {"shape": shape, "dtype": self._dtype(index)}))
        self._keys[index] = self._ops[-1].output()

    def _key(self, index: int) -> str:
        """The value in a tensor; a stored one is added when it is first read."""
        if index < 0:
            return ""
        if index not in self._keys:
            tensor = self._tensor(index)
            name = self._unique(tensor.text(3) or f"tensor_{index}")
            shape = tuple(tensor.vector(0, "i") or ())
            if any(dim < 0 for dim in shape):
                raise ModelFormatError(f"the stored tensor {index} ({name!r}) has the shape {shape}")
            dtype = self._dtype(index)
            self._ops.append(
                Op(name, "Const", (), {"value": Constant(dtype, shape, self._elements(tensor, shape, dtype))})
            )
            self._keys[index] = self._ops[-1].output()
        return self._keys[index]

    def _elements(self, tensor: Table, shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any] | None:
        size = prod(shape)
        if size > KEPT_ELEMENTS or dtype not in np.sctypeDict or dtype.startswith(("str", "complex")):
            return None
        buffer = tensor.integer(2, "I")
        if not 0 <= buffer < len(self._buffers):
            raise ModelFormatError(f"there is no buffer {buffer}; the file has {len(self._buffers)}")
        content = self._buffers[buffer].content(0)
        start, length = (self._buffers[buffer].integer(slot, "Q") for slot in (1, 2))
        if start > 1:  # files over 2 GB keep buffers behind the flatbuffer
            content = self._data[start : start + length]
        kind = np.dtype(dtype)
        if len(content) != size * kind.itemsize:
            return None
        return np.frombuffer(content, kind).reshape(shape)

    def _add(self, position: int, operator: Table) -> None:
        code = operator.integer(0, "I")
        if code >= len(self._codes):
            raise ModelFormatError(f"operator {position} has the code {code}; the file has {len(self._codes)}")
        title = self._codes[code][0]
        row = OPERATORS.get(title)
        if row is None:
            raise self._refusal(position, *self._codes[code])
        outputs = [index for index in operator.vector(2, "i") or () if index >= 0]
        inputs = [self._key(index) for index in operator.vector(1, "i") or ()]
        while inputs and not inputs[-1]:
            inputs.pop()
        if not outputs:
            raise ModelFormatError(f"operator {position} ({title}) has no output")
        if any(index in self._keys for index in outputs):
            raise ModelFormatError(f"operator {position} ({title}) computes a tensor that is already there")
        self._place(title, row, operator.table(4), inputs, outputs)

    def _place(self, title: str, row: Row, options: Table | None, inputs: list[str], outputs: Sequence[int]) -> None:
        name = self._unique(self._tensor(outputs[0]).text(3) or f"{title}_{outputs[0]}")
        attrs = attributes(row, options)
        for each in row.appended:
            array = np.array(attrs[each])
            constant = Op(self._unique(f"{name}/{each}"), "Const", (), {"value": Constant("int64", array.shape, array)})
            self._ops.append(constant)
            inputs.append(constant.output())
        dtypes = tuple(self._dtype(index) for index in outputs)
        shape = tuple(self._tensor(outputs[0]).vector(0, "i") or ())
        attrs |= {"result_dtypes": dtypes, "shape": shape}
        attrs |= dict.fromkeys(("DstT", "dtype", "out_type"), dtypes[0])
        number = 0 if row.activation is None or options is None else options.integer(row.activation, "b")
        activation = ACTIVATIONS.get(number)
        inner = self._unique(f"{name}/{title.lower()}") if activation else name
        self._ops.append(Op(inner, row.kind, tuple(inputs), attrs, title))
        if activation:
            kind, origin = activation
            self._ops.append(Op(name, kind, (self._ops[-1].output(),), {"result_dtypes": dtypes[:1]}, origin))
        for i, index in enumerate(outputs):
            self._keys[index] = self._ops[-1].output(i)

    def _refusal(self, position: int, title: str, custom: str) -> UnsupportedOperatorError:
        if title == "CUSTOM":
            return UnsupportedOperatorError(
                f"{self._where}: operator {position} is the custom operator {custom!r}, which only its "
                "own library knows; convert the model with built-in operators only"
            )
        if title in CONTROL_FLOW:
            return UnsupportedOperatorError(
                f"{self._where}: operator {position} is control flow ({title}), and how long that takes "
                "depends on values; convert the model with fixed conditions and unrolled loops"
            )
        return UnsupportedOperatorError(
            f"{self._where}: operator {position} ({title}) has no row in the table of operators; "
            "remove it from the model, or ask for the row"
        )


def _code(code: Table) -> str:
    """Name of an operator; files before schema 3a keep its number in a field of one byte."""
    number = max(code.integer(0, "b"), code.integer(3, "i"))
    return CODES[number] if 0 <= number < len(CODES) else f"number {number}"
