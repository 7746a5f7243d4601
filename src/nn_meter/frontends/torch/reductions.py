"""Along axes to one value, or to the few largest."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nn_meter.errors import UnsupportedOperatorError
from nn_meter.frontends.torch.call import (
    Call,
    Row,
    Writer,
    Written,
    axes_of,
    axis_of,
    cast,
    dtype_of,
    each,
    operand,
    reduced,
    reshaped,
    slice_of,
)


def reduce(op_type: str) -> Row:
    """Reduction along ``dim``, or along all axes."""

    def row(w: Writer, c: Call) -> str:
        x = c.first
        name = w.value(x) if c.dtype == "bool" else operand(w, x, c.dtype)
        axes = axes_of(c["dim"], x.dim())
        if not axes:
            return name
        if c.dtype == "bool":
            return cast(w, reduced(w, op_type, cast(w, name, "int32"), axes, bool(c["keepdim"])), "bool")
        return reduced(w, op_type, name, axes, bool(c["keepdim"]))

    return row


def extreme(op_type: str, arg_type: str) -> Row:
    """Largest or smallest along an axis with its index, or over everything."""

    def row(w: Writer, c: Call) -> Written:
        x = w.value(c.first)
        rank = len(w.shape(x))
        if c["dim"] is None:
            return reduced(w, op_type, x, range(rank), False)
        axis, keepdims = axis_of(c["dim"], rank), bool(c["keepdim"])
        return reduced(w, op_type, x, (axis,), keepdims), w.op(arg_type, x, axis=axis, keepdims=int(keepdims))

    return row


def arg_extreme(op_type: str) -> Row:
    """Index of the largest or smallest."""

    def row(w: Writer, c: Call) -> str:
        x = w.value(c.first)
        if c["dim"] is None:
            x = reshaped(w, x, (math.prod(w.shape(x)),))
        keepdims = bool(c["keepdim"]) and c["dim"] is not None
        return w.op(op_type, x, axis=axis_of(c["dim"] or 0, len(w.shape(x))), keepdims=int(keepdims))

    return row


def _histogram(w: Writer, c: Call) -> str:
    """Each element's bin compared with every bin, and counted."""
    x, bins = w.value(c.first), c["bins"]
    if c["max"] <= c["min"]:
        raise UnsupportedOperatorError(
            "histc whose range is that of the data has no counterpart; give min and max"
        )
    flat = reshaped(w, x, (math.prod(w.shape(x)), 1))
    above = w.op("Sub", flat, w.const(c["min"], c.dtype))
    scaled = w.op("Mul", above, w.const(bins / (c["max"] - c["min"]), c.dtype))
    hits = w.op("Equal", w.op("Floor", scaled), w.weight((1, bins), c.dtype))
    return reduced(w, "ReduceSum", cast(w, hits, c.dtype), (0,), False)


def _norm(w: Writer, c: Call) -> str:
    x = c.first
    order = next((c[key] for key in ("ord", "p") if c[key] is not None), 2)
    axes, keepdims = axes_of(c["dim"], x.dim()), bool(c["keepdim"])
    op_type = {2: "ReduceL2", "fro": "ReduceL2", 1: "ReduceL1"}.get(order)
    if op_type is not None:
        return reduced(w, op_type, w.value(x), axes, keepdims)
    size = w.op("Abs", w.value(x))
    if isinstance(order, str) or order == 0:
        raise UnsupportedOperatorError(f"{c.name} of order {order!r} has no counterpart; other orders have")
    if math.isinf(order):
        return reduced(w, "ReduceMax" if order > 0 else "ReduceMin", size, axes, keepdims)
    total = reduced(w, "ReduceSum", w.op("Pow", size, w.const(float(order), c.dtype)), axes, keepdims)
    return w.op("Pow", total, w.const(1 / order, c.dtype))


def _variance(root: bool, mean_too: bool) -> Row:
    def row(w: Writer, c: Call) -> Written:
        x = w.value(c.first)
        axes, keepdims = axes_of(c["dim"], len(w.shape(x))), bool(c["keepdim"])
        off = w.op("Sub", x, reduced(w, "ReduceMean", x, axes, True))
        out = reduced(w, "ReduceMean", w.op("Mul", off, off), axes, keepdims)
        count = math.prod(w.shape(x)[axis] for axis in axes)
        correction = c["correction"] if c["correction"] is not None else int(c["unbiased"] is not False)
        if correction and count > correction:
            out = w.op("Mul", out, w.const(count / (count - correction), c.dtype))
        if root:
            out = w.op("Sqrt", out)
        return (out, reduced(w, "ReduceMean", x, axes, keepdims)) if mean_too else out

    return row


def _cumsum(w: Writer, c: Call) -> str:
    return w.op("CumSum", operand(w, c.first, c.dtype), w.const(axis_of(c["dim"], c.first.dim())))


def _cumprod(w: Writer, c: Call) -> str:
    return w.op("CumProd", operand(w, c.first, c.dtype), w.const(axis_of(c["dim"], c.first.dim())))


def _nth_smallest(w: Writer, c: Call) -> Written:
    """The median, the lower one of two, or the ``k``-th: the last of so many smallest."""
    x, axis = w.value(c.first), axis_of(c["dim"] or 0, c.first.dim())
    if c["dim"] is None and c.name == "median":
        x = reshaped(w, x, (math.prod(w.shape(x)),))
    count = c["k"] if c["k"] is not None else (w.shape(x)[axis] - 1) // 2 + 1
    found = w.multi("TopK", (x, w.const((count,))), 2, axis=axis, largest=0)
    last = [slice_of(w, each, axis, count - 1, count) for each in found]
    return tuple(last if c["keepdim"] else [reshaped(w, each, c.shape) for each in last])


def _bucket(w: Writer, c: Call) -> str:
    """How many bounds lie before each value: all are compared with it, and counted."""
    bounds = c["boundaries"] if c["boundaries"] is not None else c["sorted_sequence"]
    value, ends = operand(w, c["self"], dtype_of(bounds)), w.value(bounds)
    rank, ranks = len(w.shape(value)), len(w.shape(ends))
    if ranks > 1:
        ends = w.op("Unsqueeze", ends, w.const((ranks - 1,)))
    right = bool(c["right"]) or c["side"] == "right"
    before = w.op("LessOrEqual" if right else "Less", ends, w.op("Unsqueeze", value, w.const((rank,))))
    return reduced(w, "ReduceSum", cast(w, before, c.dtype), (rank,), False)


def _topk(w: Writer, c: Call) -> Written:
    axis = axis_of(c["dim"], c.first.dim())
    return w.multi("TopK", (w.value(c.first), w.const((c["k"],))), 2, axis=axis, largest=int(c["largest"]))


def _sort(w: Writer, c: Call) -> Written:
    axis = axis_of(c["dim"], c.first.dim())
    count = w.const((c.first.shape[axis],))
    return w.multi("TopK", (w.value(c.first), count), 2, axis=axis, largest=int(bool(c["descending"])))


ROWS: Mapping[str, Row] = {
    "histc": _histogram,
    "mean": reduce("ReduceMean"),
    "sum": reduce("ReduceSum"),
    "prod": reduce("ReduceProd"),
    "amax": reduce("ReduceMax"),
    "amin": reduce("ReduceMin"),
    "any": reduce("ReduceMax"),
    "all": reduce("ReduceMin"),
    "logsumexp": reduce("ReduceLogSumExp"),
    "max": extreme("ReduceMax", "ArgMax"),
    "min": extreme("ReduceMin", "ArgMin"),
    "argmax": arg_extreme("ArgMax"),
    "argmin": arg_extreme("ArgMin"),
    "var": _variance(root=False, mean_too=False),
    "std": _variance(root=True, mean_too=False),
    "var_mean": _variance(root=False, mean_too=True),
    "std_mean": _variance(root=True, mean_too=True),
    **each("linalg_vector_norm norm", _norm),
    "cumsum": _cumsum,
    "cumprod": _cumprod,
    **each("median kthvalue", _nth_smallest),
    **each("bucketize searchsorted", _bucket),
    "topk": _topk,
    "sort": _sort,
}  # fmt: skip
"""ATen operator to what writes it."""
