"""Operators on quantised numbers that compute each by itself, pool, join or normalise them, and what makes floats of
them and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from types import MappingProxyType

import numpy as np

from nn_meter.ir import Graph, GraphBuilder
from nn_meter.kernels.kinds import elementwise, movement, rows, windows
from nn_meter.kernels.kinds._shared import channels_first, scale_and_zero, some
from nn_meter.kernels.kinds.elementwise import BroadcastConfig, collapse
from nn_meter.kernels.kinds.movement import PiecesConfig
from nn_meter.kernels.kinds.rows import RowsConfig
from nn_meter.kernels.kinds.windows import PoolConfig
from nn_meter.kernels.schema import Category, Column, KernelKind, Operator, Work, item_bytes

_MICROSOFT = "com.microsoft"

# --- element by element ------------------------------------------------------------------------------------

_OPERANDS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "QLinearAdd": (0, 3),
        "QLinearMul": (0, 3),
        "QLinearSigmoid": (0,),
        "QLinearLeakyRelu": (0,),
        "QLinearWhere": (0, 1, 4),
    }
)
"""Where their operands stand; a scale and a zero point stand behind each that is quantised."""


def read_elementwise(op: Operator) -> BroadcastConfig:
    """Config of elementwise operators of integers."""
    shapes = [op.shape(place) for place in _OPERANDS[op.op_type]]
    dims, present = collapse(shapes, op.outputs[0].shape)
    return BroadcastConfig(op.op_type, dims, present, op.dtype, op.outputs[0].dtype)


def work_elementwise(c: BroadcastConfig) -> Work:
    """To floats, one operation, and back."""
    return Work(6.0 * c.size, sum(map(prod, c.operands)) * item_bytes(c.dtype), c.size * item_bytes(c.to))


def build_elementwise(c: BroadcastConfig) -> Graph:
    """One elementwise operator."""
    b = GraphBuilder(c.op.lower())
    inputs: list[str] = []
    for number, present in enumerate(c.present):
        shape = [d if has else 1 for d, has in zip(c.dims, present, strict=True)]
        choice = c.op == "QLinearWhere" and number == 0
        inputs += [b.input(shape, c.dtype if not number else c.to), *(() if choice else scale_and_zero(b, c.to))]
    return b.graph(b.op(c.op, *inputs, *scale_and_zero(b, c.to), domain=_MICROSOFT))


def _space_elementwise(rng: np.random.Generator) -> BroadcastConfig:
    op = str(rng.choice(list(_OPERANDS)))
    out = tuple(some(rng, 2, 100) for _ in range(rng.integers(1, 4)))
    others = [tuple(d if rng.random() < 0.7 else 1 for d in out) for _ in _OPERANDS[op][1:]]
    dims, present = collapse([out, *others], out)
    return BroadcastConfig(op, dims, present, "bool" if op == "QLinearWhere" else "uint8", "uint8")


_CONVERSIONS: Mapping[str, float] = MappingProxyType(
    {"QuantizeLinear": 4.0, "DequantizeLinear": 2.0, "DynamicQuantizeLinear": 7.0}
)
"""Operations an element: scaled, shifted, rounded, bounded; a dynamic one looks for the bounds first."""


def read_conversion(op: Operator) -> BroadcastConfig:
    """Config of what changes between floats and integers; the second operand are scales along an axis."""
    shape, scale = op.shape(0), op.shape(1) if op.op_type != "DynamicQuantizeLinear" else ()
    operands = [shape]
    if len(scale) == 1 and scale[0] > 1 and shape:
        axis = op.axis(len(shape), 1) % len(shape)  # nn-Meter's files may say any
        operands.append((1,) * axis + scale + (1,) * (len(shape) - axis - 1))
    dims, present = collapse(operands, op.outputs[0].shape)
    scales = "in blocks" if op.int("block_size", 0) else ""  # other code, a fifth as fast where it makes integers
    return BroadcastConfig(op.op_type, dims, present, op.dtype, op.outputs[0].dtype, scales)


def work_conversion(c: BroadcastConfig) -> Work:
    """A dynamic one reads its operand twice."""
    times = 2 if c.op == "DynamicQuantizeLinear" else 1
    return Work(_CONVERSIONS[c.op] * c.size, times * c.size * item_bytes(c.dtype), c.size * item_bytes(c.to))


def build_conversion(c: BroadcastConfig) -> Graph:
    """One conversion."""
    b = GraphBuilder(c.op.lower())
    x = b.input(c.dims, c.dtype)
    if c.op == "DynamicQuantizeLinear":
        return b.graph(b.multi(c.op, [x], 3)[0])
    axis = c.present[1].index(True) if len(c.present) > 1 else 0
    whole = c.to if c.op == "QuantizeLinear" else c.dtype
    return b.graph(b.op(c.op, x, *scale_and_zero(b, whole, c.dims[axis] if len(c.present) > 1 else 1), axis=axis))


def _space_conversion(rng: np.random.Generator) -> BroadcastConfig:
    op, whole = str(rng.choice(list(_CONVERSIONS))), str(rng.choice(["uint8", "int8"]))
    out = tuple(some(rng, 2, 200) for _ in range(rng.integers(1, 4)))
    operands = [out]
    if op != "DynamicQuantizeLinear" and rng.random() < 0.3:
        axis = int(rng.integers(len(out)))
        operands.append(tuple(d if i == axis else 1 for i, d in enumerate(out)))
    dims, present = collapse(operands, out)
    if op == "DequantizeLinear":
        return BroadcastConfig(op, dims, present, whole, "float32")
    return BroadcastConfig(op, dims, present, "float32", "uint8" if op == "DynamicQuantizeLinear" else whole)


# --- pooling, pieces, rows ---------------------------------------------------------------------------------


def read_pool(op: Operator) -> PoolConfig:
    """Config of pooling of integers, with channels first or last."""
    last = op.op_type == "NhwcMaxPool" or op.int("channels_last", 0)
    found = channels_first(op) if last else op
    if op.op_type == "QLinearGlobalAveragePool":
        spatial = found.shape(0)[2:]
        found = replace(found, attrs={"kernel_shape": spatial, "strides": (1,) * len(spatial)})
    return windows.read_pool(found)


def read_concat(op: Operator) -> PiecesConfig:
    """Config of QLinearConcat, whose operands come with scale and zero point each: those of the result are copied."""
    found = movement.read_concat(replace(op, inputs=op.inputs[2::3]))
    result = op.value(0), op.value(1)
    scales = [(op.value(place + 1), op.value(place + 2)) for place in range(2, len(op.inputs), 3)]
    rescaled = (p for p, own in zip(found.pieces, scales, strict=True) if own != result or not all(own))
    return replace(found, rescaled=found.outer * sum(rescaled))


def build_concat(c: PiecesConfig) -> Graph:
    """One concat; the pieces that it rescales have a scale of their own."""
    b = GraphBuilder("quantised_concat")
    chosen: dict[int, frozenset[int]] = {0: frozenset()}  # sum of sizes to places of pieces that have it
    for place, piece in enumerate(c.pieces):
        chosen = {size + piece: places | {place} for size, places in chosen.items()} | chosen
    rescaled = chosen.get(c.rescaled // c.outer, frozenset())
    zero = b.const(1, c.dtype)
    scales = [b.const(scale, "float32") for scale in (0.02, 0.04)]
    pieces = [
        name
        for place, piece in enumerate(c.pieces)
        for name in (b.input((c.outer, piece), c.dtype), scales[place in rescaled], zero)
    ]
    return b.graph(b.op(c.op, scales[0], zero, *pieces, domain=_MICROSOFT, axis=1))


def _space_concat(rng: np.random.Generator) -> PiecesConfig:
    pieces = tuple(some(rng, 1, 5000) for _ in range(rng.integers(2, 7)))
    outer = some(rng, 1, 2000)
    return PiecesConfig("QLinearConcat", outer, pieces, "uint8", outer * sum(pieces))


def build_softmax(c: RowsConfig) -> Graph:
    """One softmax along an axis: the last or, strided, one before it."""
    b = GraphBuilder("quantised_softmax")
    shape = (c.rows // c.stride, c.length, c.stride) if c.stride > 1 else (c.rows, c.length)
    inputs = [b.input(shape, c.dtype), *scale_and_zero(b, c.dtype), *scale_and_zero(b, c.dtype)]
    return b.graph(b.op(c.op, *inputs, domain=_MICROSOFT, axis=1, opset=13))


def _space_softmax(rng: np.random.Generator) -> RowsConfig:
    stride = some(rng, 2, 200) if rng.random() < 0.2 else 1
    return RowsConfig("QLinearSoftmax", stride * some(rng, 2, 20_000 // stride), some(rng, 2, 1000), 1, stride, "uint8")


KINDS = (
    KernelKind(
        "elementwise_int8",
        tuple(_OPERANDS),
        BroadcastConfig,
        read_elementwise,
        elementwise.COLUMNS,
        work_elementwise,
        build_elementwise,
        _space_elementwise,
        quantised=True,
    ),
    KernelKind(
        "conversion",
        tuple(_CONVERSIONS),
        BroadcastConfig,
        read_conversion,
        (*elementwise.COLUMNS, Category("from", lambda c: c.dtype)),
        work_conversion,
        build_conversion,
        _space_conversion,
        quantised=True,
    ),
    KernelKind(
        "pool_int8",
        ("QLinearAveragePool", "QLinearGlobalAveragePool", "NhwcMaxPool"),
        PoolConfig,
        read_pool,
        windows.POOL,
        windows.work_pool,
        quantised=True,
    ),
    KernelKind(
        "concat_int8",
        ("QLinearConcat",),
        PiecesConfig,
        read_concat,
        (*movement.PIECES, Column("rescaled", lambda c: c.rescaled)),
        movement.work_pieces,
        build_concat,
        _space_concat,
        quantised=True,
    ),
    KernelKind(
        "softmax_int8",
        ("QLinearSoftmax",),
        RowsConfig,
        rows.read_softmax,
        rows.COLUMNS,
        rows.work,
        build_softmax,
        _space_softmax,
        quantised=True,
    ),
)
