"""Operators on other elements than floats of single precision: what counts, masks and positions are computed with.

A runtime has other code for them: of products of whole numbers a plain loop, thirty times as slow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from nn_meter.networks._blocks import Pen
from nn_meter.networks._blocks_operators_shared import (
    Row,
    answers,
    any_shape,
    node,
    scale,
    size,
    some_of,
    zero_point,
)

DOUBLE, INT, LONG = "float64", "int32", "int64"


def _product(pen: Pen, dtype: str) -> Sequence[str]:
    rows, inner, columns = (round(size(pen, 8, 200)) for _ in range(3))
    pen.macs += float(rows * inner * columns)
    return node(pen, "MatMul", pen.b.input((rows, inner), dtype), pen.b.weight((inner, columns), dtype))


def _reduction(op_type: str) -> Row:
    def row(pen: Pen) -> Sequence[str]:
        x = pen.b.input(any_shape(pen, elements=size(pen, 500, 2e5)), pen.pick(*REDUCED[op_type]))
        rank = len(pen.shape(x))
        if op_type.startswith("Arg"):
            return node(pen, op_type, x, axis=pen.integer(0, rank - 1), keepdims=1)
        axes = tuple(a for a in range(rank) if pen.chance(0.45)) or (rank - 1,)
        return node(pen, op_type, x, pen.b.const(axes), keepdims=1)

    return row


def _sums(pen: Pen) -> Sequence[str]:
    x = pen.b.input(any_shape(pen, elements=size(pen, 500, 1e5)), pen.pick(INT, LONG, DOUBLE))
    return node(pen, "CumSum", x, pen.b.const(pen.integer(0, len(pen.shape(x)) - 1)))


def _over_an_axis(op_type: str) -> Row:
    def row(pen: Pen) -> Sequence[str]:
        x = pen.b.input(any_shape(pen, elements=size(pen, 500, 1e5)), DOUBLE)
        return node(pen, op_type, x, axis=pen.integer(1, len(pen.shape(x)) - 1))

    return row


def _resized(pen: Pen) -> Sequence[str]:
    width, side = pen.pick(1, 3, 3, 16), round(size(pen, 16, 160))
    x = pen.b.input((pen.batch, width, side, side), pen.pick(INT, "uint8", "uint8"))
    target = max(1, round(side * pen.uniform(0.4, 2.2)))
    sizes, mode = pen.b.const((pen.batch, width, target, target)), pen.pick("nearest", "linear")
    return node(pen, "Resize", x, "", "", sizes, mode=mode, coordinate_transformation_mode="asymmetric")


def _function(pen: Pen) -> Sequence[str]:
    """Of one number or of two, of doubles and of whole numbers."""
    shape, dtype = any_shape(pen), pen.pick(DOUBLE, DOUBLE, INT, LONG, "uint8")
    if pen.chance(0.5):
        names = ("Abs", "Neg", "Sign") if dtype in (INT, LONG) else ("Sign",) if dtype == "uint8" else FUNCTIONS
        return node(pen, pen.pick(*names), pen.b.input(shape, dtype))
    ends = [pen.b.input(shape, dtype), pen.b.weight(shape if pen.chance(0.5) else shape[-1:], dtype)]
    return node(pen, pen.pick("Add", "Mul", "Sub", "Max", "Min", "Equal", "Less"), *ends)


def _pool(pen: Pen) -> Sequence[str]:
    """The largest of images and of what is quantised, every window of it."""
    kernel, stride = pen.pick(2, 3, 3, 5), pen.pick(1, 1, 2)
    width, side = pen.integer(1, 64), round(size(pen, 8, 64))
    x = pen.b.input((pen.batch, width, side, side), pen.pick("uint8", "int8"))
    return node(pen, "MaxPool", x, kernel_shape=(kernel, kernel), strides=(stride, stride))


def _movement(pen: Pen) -> Sequence[str]:
    """Of masks, places and images."""
    shape, dtype = any_shape(pen, 3), pen.pick(LONG, LONG, "bool", "uint8", "float16", DOUBLE)
    sort = pen.pick("Transpose", "Transpose", "Slice", "Concat", "Tile", "Expand", "Gather")
    if sort in ("Tile", "Expand"):
        times = pen.pick((1, 1, 4), (1, 3, 1), (4, 1, 1))
        small = pen.b.input([1 if n > 1 else d for d, n in zip(shape, times, strict=True)], dtype)
        return node(pen, sort, small, pen.b.const(times if sort == "Tile" else shape))
    x = pen.b.input(shape, dtype)
    if sort == "Transpose":
        return node(pen, sort, x, perm=tuple(int(axis) for axis in pen.rng.permutation(3)))
    if sort == "Concat":
        return node(pen, sort, x, pen.b.input(shape, dtype), axis=pen.integer(0, 2))
    if sort == "Gather":
        return node(pen, sort, x, pen.b.input((round(size(pen, 1, 100)),), LONG), axis=pen.integer(0, 2))
    axis = pen.integer(0, 2)
    ends = [pen.b.const((each,)) for each in (shape[axis] // 4, shape[axis], axis, pen.pick(1, 1, 2))]
    return node(pen, sort, x, *ends)


def _transposed(pen: Pen) -> Sequence[str]:
    """Of elements of one, two and eight bytes: matrices, heads, channels, axes that all change places."""
    dtype = pen.pick(LONG, DOUBLE, "float16", "float16", "bool", "uint8")
    shape = tuple(max(2, side) for side in any_shape(pen, pen.pick(3, 4, 5), size(pen, 500, 2e5))[1:])
    rank = len(shape)
    orders = [tuple(reversed(range(rank))), tuple(int(axis) for axis in pen.rng.permutation(rank))]
    if rank > 2:
        orders.append((0, *range(2, rank), 1))
    return node(pen, "Transpose", pen.b.input(shape, dtype), perm=pen.pick(*orders))


def _linear(pen: Pen, sort: str) -> Sequence[str]:
    """As quantisers write it without QuantizeLinear: a product or a convolution of operands of either type."""
    dtype = pen.pick("int8", "int8", "uint8")
    to = "int8" if dtype == "int8" else pen.pick("int8", "uint8")
    x, w = (scale(pen), zero_point(pen, dtype)), (scale(pen), zero_point(pen, to))
    if sort == "QLinearMatMul":
        rows, inner, columns = pen.pick(1, round(size(pen, 2, 400))), pen.width(16, 512), pen.width(16, 512)
        pen.macs += float(rows * inner * columns)
        pair = pen.b.input((rows, inner), dtype), pen.b.weight((inner, columns), to)
        return node(pen, sort, pair[0], *x, pair[1], *w, *x)
    cin, cout, kernel = pen.width(4, 256), pen.width(4, 256), pen.pick(1, 3, 3, 5)
    groups = cin if pen.chance(0.3) else 1
    cout = cin if groups > 1 else cout
    cost = cin // groups * cout * kernel**2
    side = max(4, round(min(pen.log_uniform(1e5, 2e7) / cost, 2e5 / max(cin, cout)) ** 0.5))
    pen.macs += float(cost * side**2)
    pair = pen.b.input((1, cin, side, side), dtype), pen.b.weight((cout, cin // groups, kernel, kernel), to)
    window = {"kernel_shape": (kernel,) * 2, "pads": (kernel // 2,) * 4}
    return node(pen, sort, pair[0], *x, pair[1], *w, *x, outputs=1, domain="", group=groups, **window)


FUNCTIONS = ("Exp", "Log", "Sqrt", "Tanh", "Sigmoid", "Abs", "Neg", "Sin", "Cos", "Floor", "Relu")
"""Functions of doubles."""

REDUCED: Mapping[str, tuple[str, ...]] = {
    "ReduceSum": (INT, LONG, DOUBLE), "ReduceMean": (INT, DOUBLE), "ReduceProd": (INT, LONG),
    "ReduceMax": (INT, LONG, DOUBLE), "ReduceMin": (INT, LONG, DOUBLE), "ReduceSumSquare": (INT, DOUBLE),
    "ReduceL1": (INT,), "ReduceL2": (INT,), "ArgMax": (INT, DOUBLE), "ArgMin": (INT, DOUBLE),
}  # fmt: skip
"""Reduction to the elements that ONNX Runtime has code for, floats apart."""

ROWS: Mapping[str, Row] = {
    **{name: _reduction(name) for name in REDUCED},
    **{f"MatMul {dtype}": partial(_product, dtype=dtype) for dtype in (INT, LONG, DOUBLE)},
    "CumSum": _sums,
    "CumSum again": _sums,
    **{name: _over_an_axis(name) for name in ("Softmax", "LogSoftmax")},
    **{f"function {number}": _function for number in range(4)},
    **{f"movement {number}": _movement for number in range(4)},
    **{f"Transpose {number}": _transposed for number in range(4)},
    "Softmax again": _over_an_axis("Softmax"),
    **{name: partial(_linear, sort=name.split()[0]) for name in ("QLinearMatMul", "QLinearConv", "QLinearConv again")},
    **{f"MaxPool {number}": _pool for number in range(2)},
    "Resize": _resized,
    "Resize again": _resized,
}


def types(pen: Pen) -> str:
    """Products, reductions, running sums and images of whole numbers and of doubles, quantised ones."""
    return answers(pen, [part for name in some_of(pen, tuple(ROWS), 16) for part in ROWS[name](pen)])
