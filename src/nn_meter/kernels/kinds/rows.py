"""Operators over independent rows: softmax and normalisations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import gcd, prod

import numpy as np

from nn_meter.ir import Graph, GraphBuilder
from nn_meter.kernels.kinds._shared import DTYPE, ITEM_BYTES, OP, WAY, aligned, cached, some
from nn_meter.kernels.schema import Category, Column, KernelKind, OnDevice, Operator, Work, item_bytes


@dataclass(frozen=True, slots=True)
class RowsConfig:
    """``rows`` independent rows of ``length`` elements, neighbours of a row ``stride`` elements apart; between the
    rows' axis and the last one lie axes of ``between`` elements in all. ``way`` is ``masked`` where some elements are
    so far below others that their exponentials are no normal numbers, which processors compute with in microcode."""

    op: str
    rows: int
    length: int
    inputs: int
    stride: int
    dtype: str
    between: int = 1
    way: str = ""

    def describe(self) -> str:
        """Sizes in words."""
        apart = f", {self.stride} apart" if self.stride > 1 else ""
        return f"{self.rows} rows of {self.length}{apart}{f', {self.way}' if self.way else ''}"

    @property
    def size(self) -> int:
        """Elements."""
        return self.rows * self.length


def read_softmax(op: Operator) -> RowsConfig:
    """Config of Softmax and its kin along one axis; before opset 13 all axes from that on are one row."""
    shape = op.shape(0) or (1,)
    older = op.int("opset", 13) < 13
    axis = op.axis(len(shape), 1 if older else -1)
    if older:
        shape, axis = (prod(shape[:axis]), prod(shape[axis:])), 1
    stride = prod(shape[axis + 1 :])
    between = prod(shape[axis + 1 : -1])
    way = "masked" if op.int("masked", 0) else ""
    return RowsConfig(op.op_type, prod(shape[:axis]) * stride, shape[axis], 1, stride, op.dtype, between, way)


def read_last_axes(op: Operator) -> RowsConfig:
    """Config of LayerNormalization and its kin, over all axes from ``axis`` on."""
    if op.op_type == "LpNormalization":  # over one axis
        return read_softmax(op)
    shape = op.shape(0)
    axis = op.axis(len(shape), -1)
    return RowsConfig(op.op_type, prod(shape[:axis]), prod(shape[axis:]), len(op.data), 1, op.dtype)


def read_channel_norm(op: Operator) -> RowsConfig:
    """Config of InstanceNormalization and GroupNormalization: a row per image and channel or group."""
    shape = op.shape(0)
    rows = shape[0] * (op.int("num_groups", op.int("groups", shape[1])))
    return RowsConfig(op.op_type, rows, prod(shape) // max(rows, 1), len(op.data), 1, op.dtype)


def read_batch_norm(op: Operator) -> RowsConfig:
    """Config of BatchNormalization at inference: scale and shift per channel."""
    shape = op.shape(0)
    rows = prod(shape[:2])
    return RowsConfig(op.op_type, rows, prod(shape) // max(rows, 1), 3, 1, op.dtype)


def work(c: RowsConfig) -> Work:
    """Some eight operations an element: statistics, and what is made of them."""
    size_bytes = c.size * item_bytes(c.dtype)
    return Work(8.0 * c.size, size_bytes, size_bytes)


_SETS, _LINE_BYTES = 64, 64
"""Of a first-level cache as most processors have it: a line goes to one of 64 sets, by its address."""


def _crowded(c: RowsConfig) -> float:
    """How many elements of a strided row lie in lines of one set of the nearest cache. A power of two between
    neighbours sends all to a few sets: on an Intel Xeon a column of 64 among 512 takes 2.7 nanoseconds an element,
    among 511 one."""
    around, apart = _SETS * _LINE_BYTES, int(c.stride * item_bytes(c.dtype))
    return c.length / max(1, min(around // gcd(around, apart), c.length, _SETS)) if c.stride > 1 else 0.0


COLUMNS: tuple[Column | Category | OnDevice, ...] = (
    OP,
    Column("strided", lambda c: c.stride > 1),
    Column("stride", lambda c: c.stride),
    Column("between", lambda c: c.between),
    Column("crowded", _crowded),
    Column("rows", lambda c: c.rows),
    Column("length", lambda c: c.length),
    Column("inputs", lambda c: c.inputs),
    Column("size", lambda c: c.size),
    ITEM_BYTES,
    DTYPE,
    WAY,
    OnDevice("rounds", lambda c, speeds: c.rows / max(speeds.processors, 1)),
    cached(work),
    aligned("length", lambda c: c.length),
)


def build_softmax(c: RowsConfig) -> Graph:
    """One operator along an axis: the last or, strided, one before it."""
    b = GraphBuilder(c.op.lower())
    dims: tuple[int, ...] = (c.rows, c.length)
    if c.stride > 1:
        dims = (c.rows // c.stride, c.length, *((c.between, c.stride // c.between) if c.between > 1 else (c.stride,)))
    x = b.input(dims, c.dtype)
    if c.way:
        x = b.op("Where", b.weight(dims, "bool"), b.const(-1e4, c.dtype), x)
    return b.graph(b.op(c.op, x, axis=1 if c.stride > 1 else -1))


def build_norm(c: RowsConfig) -> Graph:
    """One normalisation over the last axis."""
    if c.op == "LpNormalization":
        return build_softmax(c)
    b = GraphBuilder(c.op.lower())
    if c.op == "SkipLayerNormalization":
        x = b.op("Add", *(b.input((1, c.rows, c.length), c.dtype) for _ in range(2)))
        scale_and_bias = (b.weight((c.length,), c.dtype) for _ in range(2))
        return b.graph(b.op("LayerNormalization", x, *scale_and_bias, axis=-1))
    x = b.input((c.rows, c.length), c.dtype)
    return b.graph(b.op(c.op, x, *(b.weight((c.length,), c.dtype) for _ in range(c.inputs - 1)), axis=-1))


def build_channel_norm(c: RowsConfig) -> Graph:
    """One normalisation with a row to each channel of one image."""
    b = GraphBuilder(c.op.lower())
    x = b.input((1, c.rows, c.length), c.dtype)
    weights = [b.weight((c.rows,), c.dtype) for _ in range(4 if c.op == "BatchNormalization" else 2)]
    if c.op == "GroupNormalization":
        return b.graph(b.op(c.op, x, *weights, num_groups=c.rows))
    return b.graph(b.op(c.op, x, *weights))


_SOFTMAX = ("Softmax", "LogSoftmax", "Hardmax")
_NORM = (
    "LayerNormalization",
    "SimplifiedLayerNormalization",
    "RMSNormalization",
    "SkipLayerNormalization",
    "LpNormalization",
)
_CHANNEL_NORM = ("InstanceNormalization", "GroupNormalization")
_BATCH_NORM = ("BatchNormalization",)
_INPUTS = {"SimplifiedLayerNormalization": 2, "RMSNormalization": 2, "SkipLayerNormalization": 4, "LpNormalization": 1}
"""Where they are not three: values, scale, bias."""


def _space(operators: tuple[str, ...]) -> Callable[[np.random.Generator], RowsConfig]:
    def draw(rng: np.random.Generator) -> RowsConfig:
        op = str(rng.choice(operators))
        inputs = 1 if operators == _SOFTMAX else _INPUTS.get(op, 3)
        stride = some(rng, 2, 200) if operators == _SOFTMAX and rng.random() < 0.2 else 1
        rows = stride * some(rng, 2, 20_000 // stride)
        return RowsConfig(op, rows, some(rng, 2, 4096), inputs, stride, "float32")

    return draw


def _kind(
    name: str,
    operators: tuple[str, ...],
    read: Callable[[Operator], RowsConfig],
    build: Callable[[RowsConfig], Graph],
) -> KernelKind:
    return KernelKind(name, operators, RowsConfig, read, COLUMNS, work, build, _space(operators))


KINDS = (
    _kind("softmax", _SOFTMAX, read_softmax, build_softmax),
    _kind("norm", _NORM, read_last_axes, build_norm),
    _kind("channelnorm", _CHANNEL_NORM, read_channel_norm, build_channel_norm),
    _kind("bn", _BATCH_NORM, read_batch_norm, build_channel_norm),
)
