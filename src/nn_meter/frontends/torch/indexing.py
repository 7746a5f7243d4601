"""Elements picked and placed by indices: gathers, scatters, embeddings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from nn_meter.errors import UnsupportedOperatorError
from nn_meter.frontends.torch.call import (
    Call,
    Row,
    Writer,
    Written,
    axis_of,
    dtype_of,
    each,
    expanded,
    operand,
    reduced,
    reshaped,
    transposed,
)


def _index(w: Writer, c: Call) -> str:
    x = w.value(c.first)
    rank = len(w.shape(x))
    given = [(axis, w.value(index)) for axis, index in enumerate(c["indices"]) if index is not None]
    if len(given) == 1:
        return w.op("Gather", x, given[0][1], axis=given[0][0])
    axes = [axis for axis, _ in given]
    front = transposed(w, x, (*axes, *(axis for axis in range(rank) if axis not in axes)))
    found = w.op("GatherND", front, _joined_indices(w, [name for _, name in given]))
    count, tail = len(w.shape(found)) - (rank - len(axes)), rank - len(axes)
    lead = axes[0] if axes == list(range(axes[0], axes[-1] + 1)) else 0
    perm = (*range(count, count + lead), *range(count), *range(count + lead, count + tail))
    return transposed(w, found, perm)


def _joined_indices(w: Writer, names: Sequence[str]) -> str:
    shape: tuple[int, ...] = ()
    for name in names:
        other = w.shape(name)
        width = max(len(shape), len(other))
        a, b = ((1,) * (width - len(s)) + s for s in (shape, other))
        shape = tuple(max(p, q) for p, q in zip(a, b, strict=True))
    wide = [expanded(w, name, shape) for name in names]
    apart = [w.op("Unsqueeze", name, w.const((len(shape),))) for name in wide]
    return apart[0] if len(apart) == 1 else w.op("Concat", *apart, axis=len(shape))


def _index_put(w: Writer, c: Call) -> str:
    x, values, rank = w.value(c["self"]), c["values"], c.first.dim()
    given = [(axis, index) for axis, index in enumerate(c["indices"]) if index is not None]
    masks = [index for _, index in given if dtype_of(index) in ("bool", "uint8")]
    if len(given) == 1 and masks and values.numel() == 1:
        mask = w.value(masks[0])
        mask = reshaped(w, mask, (*w.shape(mask), *(1,) * (rank - len(w.shape(mask)))))
        return w.op("Where", mask, operand(w, values, c.dtype), x)
    update = operand(w, values, c.dtype)
    if masks:
        w.note(f"{c.name}: a mask was taken to select as many elements as there are values")
        return w.op("ScatterND", x, w.weight((*w.shape(update), rank), "int64"), update)
    axes = [axis for axis, _ in given]
    rest = [axis for axis in range(rank) if axis not in axes]
    places = _joined_indices(w, [operand(w, index, "int64") for _, index in given])
    found = w.shape(places)[:-1]
    lead = axes[0] if axes == list(range(axes[0], axes[-1] + 1)) else 0
    tail = [w.shape(x)[axis] for axis in rest]
    update = expanded(w, update, (*tail[:lead], *found, *tail[lead:]))
    count = lead + len(found)
    update = transposed(
        w, update, (*range(lead, count), *range(lead), *range(count, count + len(tail) - lead))
    )
    front = (*axes, *rest)
    placed = w.op(
        "ScatterND", transposed(w, x, front), places, update, reduction="add" if c["accumulate"] else "none"
    )
    return transposed(w, placed, tuple(front.index(axis) for axis in range(rank)))


def _gather(w: Writer, c: Call) -> str:
    return w.op(
        "GatherElements", w.value(c["self"]), w.value(c["index"]), axis=axis_of(c["dim"], c.first.dim())
    )


def _index_select(w: Writer, c: Call) -> str:
    return w.op("Gather", w.value(c["self"]), w.value(c["index"]), axis=axis_of(c["dim"], c.first.dim()))


def _scatter(reduction: str) -> Row:
    def row(w: Writer, c: Call) -> str:
        index = w.value(c["index"])
        if c["src"] is None:
            update = w.op("Expand", w.const(c["value"], c.dtype), w.const(w.shape(index)))
        else:
            update = operand(w, c["src"], c.dtype)
        axis = axis_of(c["dim"], c.first.dim())
        return w.op("ScatterElements", w.value(c["self"]), index, update, axis=axis, reduction=reduction)

    return row


_REDUCTIONS = {"sum": "add", "mean": "add", "prod": "mul", "amax": "max", "amin": "min"}
_NEUTRAL = {"sum": 0.0, "mean": 0.0, "prod": 1.0, "amax": float("-inf"), "amin": float("inf")}


def _scatter_reduce(w: Writer, c: Call) -> str:
    """A mean is a sum over a count; where what was there before does not count, what changes nothing is put first."""
    x, index, update, how = w.value(c["self"]), w.value(c["index"]), operand(w, c["src"], c.dtype), c["reduce"]
    axis, shape = axis_of(c["dim"], c.first.dim()), w.const(w.shape(index))
    if c["include_self"] is False:
        nothing = w.const(_NEUTRAL[how], c.dtype) if "float" in c.dtype else w.weight((), c.dtype)
        x = w.op("ScatterElements", x, index, w.op("Expand", nothing, shape), axis=axis, reduction="none")
    found = w.op("ScatterElements", x, index, update, axis=axis, reduction=_REDUCTIONS[how])
    if how != "mean":
        return found
    one = w.op("Expand", w.const(1, c.dtype), shape)
    before = w.op("Expand", w.const(int(c["include_self"] is not False), c.dtype), w.const(w.shape(x)))
    counts = w.op("ScatterElements", before, index, one, axis=axis, reduction="add")
    return w.op("Div", found, w.op("Max", counts, w.const(1, c.dtype)))  # some are met by none


def _indexed(reduction: str) -> Row:
    """Whole slices along an axis, each put to a place of it."""

    def row(w: Writer, c: Call) -> str:
        update, axis = operand(w, c["source"], c.dtype), axis_of(c["dim"], c.first.dim())
        if c["alpha"] not in (None, 1):
            update = w.op("Mul", update, w.const(c["alpha"], c.dtype))
        shape = w.shape(update)
        index = reshaped(w, w.value(c["index"]), [-1 if each == axis else 1 for each in range(len(shape))])
        return w.op(
            "ScatterElements", w.value(c["self"]), expanded(w, index, shape), update, axis=axis, reduction=reduction
        )

    return row


def _masked_scatter(w: Writer, c: Call) -> str:
    """As images are put between the words of a text."""
    x, update = w.value(c["self"]), operand(w, c["source"], c.dtype)
    flat = reshaped(w, update, (math.prod(w.shape(update)),))
    w.note(f"{c.name}: a mask was taken to select as many elements as there are values")
    return w.op("ScatterND", x, w.weight((*w.shape(flat), len(w.shape(x))), "int64"), flat)


def _embedding(w: Writer, c: Call) -> str:
    return w.op("Gather", w.value(c["weight"]), w.value(c["indices"]), axis=0)


def _renormalised(w: Writer, c: Call) -> str:
    w.note("an embedding with max_norm was read without the renormalisation of its rows")
    return w.value(c["self"])


def _embedding_bag(w: Writer, c: Call) -> Written:
    """Rows are looked up and reduced bag by bag; bags have one size."""
    indices, bags = w.value(c["indices"]), c.shape[0]
    count = math.prod(w.shape(indices))
    if count % bags:
        raise UnsupportedOperatorError(
            f"an embedding bag of {count} indices in {bags} bags has bags of several sizes, which are read as "
            "one size only; give a number of indices that the number of bags divides"
        )
    if bags > 1:
        w.note(f"{count} indices were taken to be spread evenly over {bags} bags")
    rows = w.op("Gather", w.value(c["weight"]), reshaped(w, indices, (bags, count // bags)), axis=0)
    if c["per_sample_weights"] is not None:
        scale = reshaped(w, w.value(c["per_sample_weights"]), (bags, count // bags, 1))
        rows = w.op("Mul", rows, scale)
    return (reduced(w, ("ReduceSum", "ReduceMean", "ReduceMax")[c["mode"]], rows, (1,), False), "", "", "")


def _unfold(w: Writer, c: Call) -> str:
    """Windows along one axis: picked by a constant index, the axis within a window moved to the end."""
    x = w.value(c.first)
    rank = len(w.shape(x))
    axis = axis_of(c["dimension"], rank)
    count, size = (w.shape(x)[axis] - c["size"]) // c["step"] + 1, c["size"]
    picked = w.op("Gather", x, w.weight((count, size), "int64"), axis=axis)
    return transposed(w, picked, (*range(axis + 1), *range(axis + 2, rank + 1), axis + 1))


def _as_strided(w: Writer, c: Call) -> str:
    """Elements by their place in memory: picked by a constant index."""
    x = w.value(c.first)
    flat = reshaped(w, x, (math.prod(w.shape(x)),))
    return w.op("Gather", flat, w.weight(c.shape, "int64"), axis=0)


ROWS: Mapping[str, Row] = {
    "unfold": _unfold,
    "as_strided": _as_strided,
    **each("index _unsafe_index", _index),
    "index_put": _index_put,
    "index_select": _index_select,
    "gather": _gather,
    "scatter": _scatter("none"),
    "scatter_add": _scatter("add"),
    "scatter_reduce": _scatter_reduce,
    "index_add": _indexed("add"),
    "index_copy": _indexed("none"),
    "masked_scatter": _masked_scatter,
    "embedding": _embedding,
    "embedding_renorm": _renormalised,
    **each("_embedding_bag _embedding_bag_forward_only", _embedding_bag),
}  # fmt: skip
"""ATen operator to what writes it."""
