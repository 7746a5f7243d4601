"""Operators that move, choose, join and reduce along axes, and those that compute shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from nn_meter.errors import ModelFormatError, UnsupportedOperatorError
from nn_meter.frontends.tensorflow.attrs import flag, integer, integers, text
from nn_meter.frontends.tensorflow.flow import Op
from nn_meter.frontends.tensorflow.lowering import Layout, Lowering, Shape, image, plain
from nn_meter.ir.shapes import MAX_ELEMENTS


def _shown(lo: Lowering, key: str) -> tuple[str, Layout]:
    """The tensor of a value as it is, and its layout."""
    value = lo.value(key)
    return value.tensor.name, value.layout


def _follow(lo: Lowering, op: Op, key: str) -> tuple[str, Layout]:
    """The tensor of a value in the layout of the operator's result, and that layout."""
    axes = lo.shared(op, key)
    return lo.tensor(key, axes), axes


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} of {rank} dimensions")
    return axis % rank


def keeps_dims(op: Op) -> bool:
    """Whether a reduction leaves dimensions of 1."""
    return flag(op, "keep_dims") or flag(op, "keepdims")


def keeps_axes(op: Op) -> bool:
    """Whether a strided slice neither adds nor takes away a dimension."""
    return not (integer(op, "shrink_axis_mask") or integer(op, "new_axis_mask"))


def _as_shape(lo: Lowering, op: Op, name: str, shape: Shape) -> None:
    """Bind the result as ``shape``, reached by a ``Reshape``, which needs no other axes than the source's."""
    tensor = lo.tensors[name]
    wanted = plain(len(shape)) if tensor.const else lo.wanted(op.output(), len(shape))
    target = lo.const(op, "shape", tuple(shape[axis] for axis in wanted))
    lo.give(op, "Reshape", [name, target], wanted)


def _squeeze(
    lo: Lowering, op: Op, name: str, axes: Layout, gone: Sequence[int], suffix: str = "", index: int = 0
) -> None:
    """Take the source's axes ``gone``, of size 1, from a tensor of layout ``axes`` and bind the result."""
    rest = [axis for axis in axes if axis not in gone]
    key = op.output(index)
    wanted = plain(len(rest)) if lo.tensors[name].const else lo.wanted(key, len(rest))
    order = [sorted(rest)[axis] for axis in wanted]
    if rest == order:
        where = lo.const(op, f"axes{suffix}", tuple(axes.index(axis) for axis in sorted(gone)))
        (name,) = lo.emit(op, "Squeeze", [name, where], suffix)
    else:
        dims = dict(zip(axes, lo.tensors[name].shape, strict=True))
        target = lo.const(op, f"shape{suffix}", tuple(dims[axis] for axis in order))
        (name,) = lo.emit(op, "Reshape", [name, target], suffix)
    lo.bind(key, name, wanted)


def reduction(op_type: str) -> Callable[[Lowering, Op], None]:
    """Mean, Sum ...: a tensor and the axes to reduce; a mean over all of an image's space is pooling."""

    def lower(lo: Lowering, op: Op) -> None:
        rank = lo.rank(op.inputs[0])
        gone = sorted({_axis(axis, rank) for axis in lo.ints(op, op.inputs[1])})
        keep = keeps_dims(op)
        x, axes = _follow(lo, op, op.inputs[0]) if keep else _shown(lo, op.inputs[0])
        shown = tuple(sorted(axes.index(axis) for axis in gone))
        if op_type == "ReduceMean" and keep and axes == image(rank) and shown == tuple(range(2, rank)):
            lo.give(op, "GlobalAveragePool", [x], axes)
            return
        if not gone:
            lo.alias(op.output(), op.inputs[0])
            return
        where = lo.const(op, "axes", shown)
        (name,) = lo.emit(op, op_type, [x, where], keepdims=int(keep))
        if keep:
            lo.bind(op.output(), name, axes)
            return
        rest = [axis for axis in axes if axis not in gone]
        lo.bind(op.output(), name, tuple(sorted(rest).index(axis) for axis in rest))

    return lower


def arg(op_type: str) -> Callable[[Lowering, Op], None]:
    """ArgMax and ArgMin."""

    def lower(lo: Lowering, op: Op) -> None:
        axis = _axis(lo.ints(op, op.inputs[1])[0], lo.rank(op.inputs[0]))
        lo.give(op, op_type, [lo.tensor(op.inputs[0])], axis=axis, keepdims=0)

    return lower


def top_k(lo: Lowering, op: Op) -> None:
    """TopKV2: values and indices of the largest along the last axis."""
    k = lo.const(op, "k", lo.ints(op, op.inputs[1])[:1])
    names = lo.emit(op, "TopK", [lo.tensor(op.inputs[0]), k], "", 2, axis=-1)
    for index, name in enumerate(names):
        lo.bind(op.output(index), name)


def cumsum(lo: Lowering, op: Op) -> None:
    """Cumsum along an axis."""
    attrs = {name: int(flag(op, name)) for name in ("exclusive", "reverse")}
    lo.give(op, "CumSum", [lo.tensor(op.inputs[0]), lo.tensor(op.inputs[1])], **attrs)


def concat(lo: Lowering, op: Op) -> None:
    """ConcatV2 (values, then the axis) and Concat (the axis first)."""
    keys, where = (op.inputs[1:], op.inputs[0]) if op.kind == "Concat" else (op.inputs[:-1], op.inputs[-1])
    rank = lo.rank(keys[0])
    axes = lo.shared(op, *keys)
    axis = axes.index(_axis(lo.ints(op, where)[0], rank))
    lo.give(op, "Concat", [lo.tensor(key, axes) for key in keys], axes, axis=axis)


def split(lo: Lowering, op: Op) -> None:
    """Split (axis, value) into equal parts, SplitV (value, sizes, axis) into given ones."""
    key, where = (op.inputs[0], op.inputs[2]) if op.kind == "SplitV" else (op.inputs[1], op.inputs[0])
    x, axes = _follow(lo, op, key)
    rank = len(axes)
    axis = _axis(lo.ints(op, where)[0], rank)
    whole = lo.shape(key)[axis]
    if op.kind == "SplitV":
        sizes = lo.ints(op, op.inputs[1])
        rest = whole - sum(size for size in sizes if size >= 0)
        sizes = tuple(rest if size < 0 else size for size in sizes)
    else:
        count = integer(op, "num_split", 1)
        if count < 1 or count > max(whole, 1):
            raise ValueError(f"{count} parts of {whole}")
        sizes = (whole // count,) * count
    parts = lo.const(op, "sizes", sizes)
    for index, name in enumerate(lo.emit(op, "Split", [x, parts], "", len(sizes), axis=axes.index(axis))):
        lo.bind(op.output(index), name, axes)


def pad(lo: Lowering, op: Op) -> None:
    """Pad, PadV2 and MirrorPad: (begin, end) for each dimension."""
    x, axes = _follow(lo, op, op.inputs[0])
    listed = lo.ints(op, op.inputs[1])
    pads = lo.const(op, "pads", (*(listed[2 * axis] for axis in axes), *(listed[2 * axis + 1] for axis in axes)))
    value = [lo.tensor(op.inputs[2])] if op.kind == "PadV2" else []
    # ONNX knows no mirror that repeats the edge (SYMMETRIC); it writes as much as one that does not
    mode = "reflect" if op.kind == "MirrorPad" else "constant"
    lo.give(op, "Pad", [x, pads, *value], axes, mode=mode)


def _sliced(
    lo: Lowering, op: Op, x: str, axes: Layout, parts: dict[int, tuple[int, int, int]], suffix: str = ""
) -> str:
    """Slice the source's axes to start, end and step; axes taken whole are left out."""
    if not parts:
        return x
    order = sorted(parts)
    bounds = [lo.const(op, label, [parts[axis][i] for axis in order]) for i, label in enumerate(("starts", "ends"))]
    where = lo.const(op, "axes", [axes.index(axis) for axis in order])
    steps = lo.const(op, "steps", [parts[axis][2] for axis in order])
    return lo.emit(op, "Slice", [x, *bounds, where, steps], suffix)[0]


def slice_from(lo: Lowering, op: Op) -> None:
    """Slice: begin and size of each dimension, -1 for all that is left."""
    x, axes = _follow(lo, op, op.inputs[0])
    shape = lo.shape(op.inputs[0])
    size = lo.ints(op, op.inputs[2])
    begin = lo.value(op.inputs[1]).tensor.value
    if begin is None:
        # where the window starts is known only at run time, but not needed: its size is what takes time
        begin = (0,) * len(size)
    parts = {}
    for axis, (start, count) in enumerate(zip(map(int, begin), size, strict=True)):
        end = shape[axis] if count < 0 else start + count
        if (start, end) != (0, shape[axis]):
            parts[axis] = (start, end, 1)
    name = _sliced(lo, op, x, axes, parts)
    lo.bind(op.output(), name, axes)


def strided_slice(lo: Lowering, op: Op) -> None:
    """StridedSlice with its masks (https://www.tensorflow.org/api_docs/python/tf/strided_slice)."""
    key = op.inputs[0]
    begin, end, strides = (lo.ints(op, i) for i in op.inputs[1:4])
    masks = {name: integer(op, f"{name}_mask") for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    shape = lo.shape(key)
    consumed = sum(not (masks["new_axis"] >> i & 1 or masks["ellipsis"] >> i & 1) for i in range(len(begin)))
    parts: dict[int, tuple[int, int, int]] = {}
    result: list[int] = []
    gone: list[int] = []
    axis = 0
    for i in range(len(begin)):
        if masks["ellipsis"] >> i & 1:
            count = len(shape) - consumed
            result += shape[axis : axis + count]
            axis += count
            continue
        if masks["new_axis"] >> i & 1:
            result.append(1)
            continue
        dim, step = shape[axis], strides[i]
        if masks["shrink_axis"] >> i & 1:
            start = begin[i] % dim if dim else 0
            parts[axis] = (start, start + 1, 1)
            gone.append(axis)
        else:
            window = slice(
                None if masks["begin"] >> i & 1 else begin[i], None if masks["end"] >> i & 1 else end[i], step
            ).indices(dim)
            length = len(range(*window))
            result.append(length)
            if window != (0, dim, 1):
                # a negative end here means before the first element, which ONNX writes as far below
                parts[axis] = (window[0], window[1] if window[1] >= 0 else -dim - 1, step)
        axis += 1
    result += shape[axis:]
    if keeps_axes(op):
        x, axes = _follow(lo, op, key)
        lo.bind(op.output(), _sliced(lo, op, x, axes, parts), axes)
        return
    x, axes = _shown(lo, key)
    name = _sliced(lo, op, x, axes, parts, "/slice")
    if masks["new_axis"]:
        _as_shape(lo, op, name, tuple(result))
    else:
        _squeeze(lo, op, name, axes, gone)


def reverse(lo: Lowering, op: Op) -> None:
    """ReverseV2: a slice with steps of -1."""
    x, axes = _follow(lo, op, op.inputs[0])
    shape = lo.shape(op.inputs[0])
    where = [_axis(axis, len(shape)) for axis in lo.ints(op, op.inputs[1])]
    parts = {axis: (shape[axis] - 1, -shape[axis] - 1, -1) for axis in where}
    lo.bind(op.output(), _sliced(lo, op, x, axes, parts), axes)


def tile(lo: Lowering, op: Op) -> None:
    """Tile: how often to repeat each dimension."""
    x, axes = _follow(lo, op, op.inputs[0])
    repeats = lo.ints(op, op.inputs[1])
    times = lo.const(op, "repeats", [repeats[axis] for axis in axes])
    lo.give(op, "Tile", [x, times], axes)


def broadcast_to(lo: Lowering, op: Op) -> None:
    """BroadcastTo a shape."""
    shape = lo.const(op, "shape", lo.ints(op, op.inputs[1]))
    lo.give(op, "Expand", [lo.tensor(op.inputs[0]), shape])


def gather(lo: Lowering, op: Op) -> None:
    """Gather and GatherV2 (table, indices, axis)."""
    axis = 0
    if len(op.inputs) > 2:
        axis = _axis(lo.ints(op, op.inputs[2])[0], lo.rank(op.inputs[0]))
    elif "axis" in op.attrs:
        axis = _axis(integer(op, "axis"), lo.rank(op.inputs[0]))
    if integer(op, "batch_dims"):
        raise UnsupportedOperatorError(
            f"{lo.source}: node {op.name!r} ({op.kind}) gathers per batch, which no ONNX node does"
        )
    lo.give(op, "Gather", [lo.tensor(op.inputs[0]), lo.tensor(op.inputs[1])], axis=axis)


def gather_nd(lo: Lowering, op: Op) -> None:
    """GatherNd."""
    lo.give(op, "GatherND", [lo.tensor(key) for key in op.inputs[:2]], batch_dims=integer(op, "batch_dims"))


def one_hot(lo: Lowering, op: Op) -> None:
    """OneHot (indices, depth, on, off)."""
    on, off = (lo.numbers(op, key)[0] for key in op.inputs[2:4])
    dtype = lo.value(op.inputs[2]).tensor.dtype
    values = lo.const(op, "values", (off, on), dtype)
    lo.give(op, "OneHot", [lo.tensor(op.inputs[0]), lo.tensor(op.inputs[1]), values], axis=integer(op, "axis", -1))


def shape_of(lo: Lowering, op: Op) -> None:
    """Shape and ShapeN: all shapes are known here."""
    for index, key in enumerate(op.inputs):
        shape = lo.shape(key)
        lo.add_constant(op.output(index), f"{op.name}/shape", (len(shape),), text(op, "out_type", "int32"), shape)


def size_of(lo: Lowering, op: Op) -> None:
    """Size."""
    lo.add_constant(op.output(), f"{op.name}/size", (), text(op, "out_type", "int32"), (prod(lo.shape(op.inputs[0])),))


def rank_of(lo: Lowering, op: Op) -> None:
    """Rank."""
    lo.add_constant(op.output(), f"{op.name}/rank", (), "int32", (lo.rank(op.inputs[0]),))


def number_range(lo: Lowering, op: Op) -> None:
    """Range (start, limit, step)."""
    start, limit, step = (lo.numbers(op, key)[0] for key in op.inputs[:3])
    count = max(0, int(-(-(limit - start) // step)))
    values = tuple(start + i * step for i in range(count)) if count <= MAX_ELEMENTS else None
    lo.add_constant(op.output(), f"{op.name}/range", (count,), lo.value(op.inputs[0]).tensor.dtype, values)


def fill(lo: Lowering, op: Op) -> None:
    """Fill (dims, value)."""
    shape = lo.ints(op, op.inputs[0])
    tensor = lo.value(op.inputs[1]).tensor
    if not tensor.const:
        target = lo.const(op, "shape", shape)
        lo.give(op, "Expand", [tensor.name, target])
        return
    size = prod(shape)
    values = tensor.value * size if tensor.value is not None and size <= MAX_ELEMENTS else None
    lo.add_constant(op.output(), f"{op.name}/fill", shape, tensor.dtype, values)


def reshape(lo: Lowering, op: Op) -> None:
    """Reshape; one dimension may be -1."""
    shape = lo.ints(op, op.inputs[1]) if len(op.inputs) > 1 else integers(op, "new_shape")
    name, _ = _shown(lo, op.inputs[0])
    size = lo.tensors[name].size
    known = prod(dim for dim in shape if dim >= 0)
    shape = tuple(dim if dim >= 0 else size // known if known else 0 for dim in shape)
    if prod(shape) != size:
        raise ModelFormatError(
            f"{lo.source}: node {op.name!r} (Reshape) gives {lo.shape(op.inputs[0])} the shape {shape}, of "
            "another size; a stored shape fits only the input shapes that the model was exported with"
        )
    _as_shape(lo, op, name, shape)


def squeeze(lo: Lowering, op: Op) -> None:
    """Squeeze given axes, or all of size 1."""
    x, axes = _shown(lo, op.inputs[0])
    shape = lo.shape(op.inputs[0])
    listed = [_axis(axis, len(shape)) for axis in integers(op, "squeeze_dims")]
    gone = listed or [axis for axis, dim in enumerate(shape) if dim == 1]
    _squeeze(lo, op, x, axes, gone)


def expand_dims(lo: Lowering, op: Op) -> None:
    """ExpandDims (value, axis)."""
    x, axes = _shown(lo, op.inputs[0])
    shape = lo.shape(op.inputs[0])
    axis = _axis(lo.ints(op, op.inputs[1])[0], len(shape) + 1)
    result = (*shape[:axis], 1, *shape[axis:])
    wanted = plain(len(result)) if lo.tensors[x].const else lo.wanted(op.output(), len(result))
    if axes == plain(len(axes)) and wanted == plain(len(wanted)):
        where = lo.const(op, "axes", (axis,))
        lo.give(op, "Unsqueeze", [x, where])
        return
    _as_shape(lo, op, x, result)


def transpose(lo: Lowering, op: Op) -> None:
    """Transpose: it moves data in the source, so it stays, its axes counted as the graph shows them."""
    x, axes = _shown(lo, op.inputs[0])
    rank = len(axes)
    perm = [_axis(axis, rank) for axis in lo.ints(op, op.inputs[1])]
    wanted = plain(rank) if lo.tensors[x].const else lo.wanted(op.output(), rank)
    shown = tuple(axes.index(perm[axis]) for axis in wanted)
    lo.give(op, "Transpose", [x], wanted, perm=shown)


def pack(lo: Lowering, op: Op) -> None:
    """Pack: values of one shape along a new axis."""
    axis = _axis(integer(op, "axis"), lo.rank(op.inputs[0]) + 1)
    where = lo.const(op, "axes", (axis,))
    parts = [lo.emit(op, "Unsqueeze", [lo.tensor(key), where], f"/unsqueeze_{i}")[0] for i, key in enumerate(op.inputs)]
    lo.give(op, "Concat", parts, axis=axis)


def unpack(lo: Lowering, op: Op) -> None:
    """Unpack: the slices along an axis, each without it."""
    x, axes = _shown(lo, op.inputs[0])
    axis = _axis(integer(op, "axis"), len(axes))
    count = lo.shape(op.inputs[0])[axis]
    sizes = lo.const(op, "sizes", (1,) * min(count, 65_537))
    parts = lo.emit(op, "Split", [x, sizes], "/split", count, axis=axes.index(axis))
    for index, name in enumerate(parts):
        _squeeze(lo, op, name, axes, [axis], f"/squeeze_{index}", index)
