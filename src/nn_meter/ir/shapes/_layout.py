"""Operators that move, cut, join, pick or make elements, and those that reduce along axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil

import numpy as np

from nn_meter.ir.graph import Attr
from nn_meter.ir.shapes._dtypes import dtype_of
from nn_meter.ir.shapes._site import Out, Rule, Shape, ShapeError, Site, axes_in, axis_in, broadcast, product


def _transpose(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    shape = x.shape
    perm = s.ints("perm")
    if perm is None:
        return ((shape[::-1], x.dtype),)
    if len(perm) != len(shape) or len(axes_in(perm, len(shape))) != len(shape):
        raise ShapeError(f"the permutation {perm} does not fit the input {shape}")
    return ((tuple([shape[axis] for axis in perm]), x.dtype),)


def _reshape(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    target = list(s.listed("shape", 1) or ())
    keep_zero = s.whole("allowzero", 0) == 1
    free = -1
    size = 1
    for i, dim in enumerate(target):
        if dim == -1:
            if free >= 0:
                raise ShapeError(f"the shape {tuple(target)} leaves two dimensions open")
            free = i
            continue
        if dim == 0 and not keep_zero:
            dim = target[i] = x.shape[i]
        elif dim < 0:
            raise ShapeError(f"the shape {tuple(target)} has a negative dimension")
        size *= dim
    if free >= 0:
        target[free] = x.size // size if size else 0
        size *= target[free]
    if size != x.size:
        raise ShapeError(f"{x.size} elements of shape {x.shape} do not fit the shape {tuple(target)}")
    return ((tuple(target), x.dtype),)


def _flatten(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    axis = s.whole("axis", 1)
    if not -len(x.shape) <= axis <= len(x.shape):
        raise ShapeError(f"axis {axis} is outside the input {x.shape}")
    if axis < 0:
        axis += len(x.shape)
    return (((product(x.shape[:axis]), product(x.shape[axis:])), x.dtype),)


def _squeeze(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    axes = s.listed("axes", 1)
    if not axes:  # an empty list is none at all for ONNX Runtime
        return ((tuple(dim for dim in x.shape if dim != 1), x.dtype),)
    gone = {axis_in(axis, len(x.shape)) for axis in axes}
    if any(x.shape[axis] != 1 for axis in gone):
        raise ShapeError(f"axes {axes} of the input {x.shape} are not all 1")
    return ((tuple(dim for i, dim in enumerate(x.shape) if i not in gone), x.dtype),)


def _unsqueeze(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    axes = s.listed("axes", 1)
    if axes is None:
        raise ShapeError("no axes are given")
    shape = list(x.shape)
    for axis in sorted(axes_in(axes, len(shape) + len(axes))):
        shape.insert(axis, 1)
    return ((tuple(shape), x.dtype),)


def _expand(s: Site) -> Sequence[Out]:
    return ((broadcast(s.shape(0), s.dims(1)), s.dtype(0)),)


def _tile(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    repeats = s.dims(1)
    if len(repeats) != len(x.shape):
        raise ShapeError(f"{len(repeats)} repeats for the input {x.shape}")
    return ((tuple(dim * times for dim, times in zip(x.shape, repeats, strict=True)), x.dtype),)


def _concat(s: Site) -> Sequence[Out]:
    first = s.tensor(0)
    shape = first.shape
    axis = axis_in(s.whole("axis", 1), len(shape))
    total = shape[axis]
    head, tail = shape[:axis], shape[axis + 1 :]
    for index in range(1, len(s.inputs)):
        other = s.shape(index)
        if other[:axis] != head or other[axis + 1 :] != tail:
            raise ShapeError(f"input {index} of shape {other} cannot join {shape} along axis {axis}")
        total += other[axis]
    return (((*head, total, *tail), first.dtype),)


def _split(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    axis = axis_in(s.whole("axis", 0), len(x.shape))
    parts = s.listed("split", 1)
    dim = x.shape[axis]
    if parts is None:
        count = s.whole("num_outputs", len(s.node.outputs))
        if count != len(s.node.outputs):
            raise ShapeError(f"a split into {count} parts with {len(s.node.outputs)} outputs")
        size = -(-dim // count)
        parts = tuple(max(0, min(size, dim - i * size)) for i in range(count))
    if sum(parts) != dim:
        raise ShapeError(f"the parts {parts} do not add up to the dimension {dim} of {x.shape}")
    return tuple([((*x.shape[:axis], part, *x.shape[axis + 1 :]), x.dtype) for part in parts])


def _each(s: Site) -> Sequence[Out]:
    """Tensors that become elements of a sequence, or leave one."""
    return tuple((s.shape(index), s.dtype(index)) for index in range(len(s.inputs)))


def _split_to_sequence(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    axis = axis_in(s.whole("axis", 0), len(x.shape))
    parts = s.ints("split") or ()
    if sum(parts) != x.shape[axis]:
        raise ShapeError(f"the parts {parts} do not add up to the dimension {x.shape[axis]} of {x.shape}")
    head, tail = x.shape[:axis], x.shape[axis + 1 :]
    if s.whole("keepdims", 1):
        return tuple(((*head, part, *tail), x.dtype) for part in parts)
    return tuple(((*head, *tail), x.dtype) for _ in parts)


def _concat_from_sequence(s: Site) -> Sequence[Out]:
    if not s.whole("new_axis", 0):
        return _concat(s)
    first = s.tensor(0)
    if any(s.shape(index) != first.shape for index in range(len(s.inputs))):
        raise ShapeError("elements of different shapes cannot be stacked")
    axis = axis_in(s.whole("axis"), len(first.shape) + 1)
    return (((*first.shape[:axis], len(s.inputs), *first.shape[axis:]), first.dtype),)


def slices(s: Site) -> dict[int, slice]:
    """What a Slice takes of each axis, as Python slices within bounds."""
    shape = s.shape(0)
    starts, ends = s.listed("starts", 1), s.listed("ends", 2)
    if starts is None or ends is None:
        raise ShapeError("starts or ends are missing")
    axes = s.listed("axes", 3)
    axes = axes_in(range(len(starts)) if axes is None else axes, len(shape))
    steps = (s.dims(4) if s.optional(4) is not None else None) or (1,) * len(starts)
    found = {}
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        dim = shape[axis]
        start += dim if start < 0 else 0
        end += dim if end < 0 else 0
        if step > 0:
            found[axis] = slice(min(max(start, 0), dim), min(max(end, 0), dim), step)
        elif step < 0:
            last = min(max(end, -1), dim - 1)
            found[axis] = slice(min(max(start, 0), dim - 1), last if last >= 0 else None, step)
        else:
            raise ShapeError("a step is 0")
    return found


def _slice(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    shape = list(x.shape)
    for axis, part in slices(s).items():
        shape[axis] = len(range(*part.indices(shape[axis])))
    return ((tuple(shape), x.dtype),)


def _pad(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    pads = s.listed("pads", 1) or s.ints("paddings") or ()
    rank = len(x.shape)
    axes = axes_in(s.dims(3), rank) if s.optional(3) is not None else tuple(range(rank))
    if len(pads) != 2 * len(axes):
        raise ShapeError(f"{len(pads)} pads for {len(axes)} axes of the input {x.shape}")
    shape = list(x.shape)
    for i, axis in enumerate(axes):
        shape[axis] += pads[i] + pads[i + len(axes)]
    return ((tuple(shape), x.dtype),)


def _center_crop_pad(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    shape = list(x.shape)
    axes = axes_in(s.ints("axes") or range(len(shape)), len(shape))
    for axis, dim in zip(axes, s.dims(1), strict=True):
        shape[axis] = dim
    return ((tuple(shape), x.dtype),)


def _gather(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    axis = axis_in(s.whole("axis", 0), len(x.shape))
    return ((x.shape[:axis] + s.shape(1) + x.shape[axis + 1 :], x.dtype),)


def _gather_elements(s: Site) -> Sequence[Out]:
    return ((s.shape(1), s.dtype(0)),)


def _gather_nd(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    index = s.shape(1)
    skipped = s.whole("batch_dims", 0) + index[-1]
    if skipped > len(x.shape):
        raise ShapeError(f"indices {index} reach deeper than the input {x.shape}")
    return ((index[:-1] + x.shape[skipped:], x.dtype),)


def _compress(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    whole = "axis" not in s.attrs
    axis = 0 if whole else axis_in(s.whole("axis"), len(x.shape))
    most = min(s.tensor(1).size, x.size if whole else x.shape[axis])
    chosen = s.tensor(1).value
    taken = most if chosen is None else sum(1 for value in chosen[:most] if value)
    if whole:
        return (((taken,), x.dtype),)
    return (((*x.shape[:axis], taken, *x.shape[axis + 1 :]), x.dtype),)


def _one_hot(s: Site) -> Sequence[Out]:
    shape = list(s.shape(0))
    shape.insert(axis_in(s.whole("axis", -1), len(shape) + 1), s.dims(1)[0])
    return ((tuple(shape), s.dtype(2)),)


def _range(s: Site) -> Sequence[Out]:
    (start,), (limit,), (delta,) = s.values(0), s.values(1), s.values(2)
    if not delta:
        raise ShapeError("the step of the range is 0")
    return (((max(0, ceil((limit - start) / delta)),), s.dtype(0)),)


def _constant(s: Site) -> Sequence[Out]:
    rows = (
        ("value_int", "int64"),
        ("value_ints", "int64"),
        ("value_float", "float32"),
        ("value_floats", "float32"),
    )
    for name, dtype in (*rows, ("value_string", "str"), ("value_strings", "str")):
        value = s.attrs.get(name)
        if value is not None:
            return (((len(value),) if isinstance(value, tuple) else (), dtype),)
    raise ShapeError("the constant has no value that a graph can hold")


def _constant_of_shape(s: Site) -> Sequence[Out]:
    # Without the attribute ``dtype``, which the front ends set, the value's own type decides.
    value = s.attrs.get("value", 0.0)
    number = value[0] if isinstance(value, tuple) else value
    return ((s.dims(0), s.text("dtype", "int64" if isinstance(number, int) else "float32")),)


def _shape(s: Site) -> Sequence[Out]:
    rank = len(s.shape(0))
    return (((len(range(rank)[s.whole("start", 0) : s.whole("end", rank)]),), "int64"),)


def _size(s: Site) -> Sequence[Out]:
    s.tensor(0)
    return (((), "int64"),)


def _eye_like(s: Site) -> Sequence[Out]:
    code = s.whole("dtype", 0)
    return ((s.shape(0), dtype_of(code) if code else s.dtype(0)),)


def _random(s: Site) -> Sequence[Out]:
    return ((s.ints("shape") or (), dtype_of(s.whole("dtype", 1))),)


def _multinomial(s: Site) -> Sequence[Out]:
    return (((s.shape(0)[0], s.whole("sample_size", 1)), dtype_of(s.whole("dtype", 6))),)


def _tf_idf(s: Site) -> Sequence[Out]:
    return (((*s.shape(0)[:-1], max(s.ints("ngram_indexes") or (-1,)) + 1), "float32"),)


def _present(s: Site) -> Sequence[Out]:
    return (((), "bool"),)


def _non_zero(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    count = x.size if x.value is None else sum(1 for value in x.value if value)
    return (((max(1, len(x.shape)), count), "int64"),)


def _unique(s: Site) -> Sequence[Out]:
    """Those that differ, along an axis or of all elements; the third result has a place for each that there was."""
    x = s.tensor(0)
    axis = axis_in(s.whole("axis"), len(x.shape)) if "axis" in s.attrs else None
    most = all_ = x.size if axis is None else x.shape[axis]
    if x.value is not None:
        parts = np.moveaxis(np.reshape(x.value, x.shape), axis, 0).reshape(all_, -1) if axis is not None else None
        most = len(set(x.value) if parts is None else {tuple(part) for part in parts})
    shape = (most,) if axis is None else (*x.shape[:axis], most, *x.shape[axis + 1 :])
    places = ((most,), "int64")
    return ((shape, x.dtype), places, ((all_,), "int64"), places)


def _suppression(s: Site) -> Sequence[Out]:
    """Of each class of each sample as many boxes as may be kept; none where that is not said."""
    batch, boxes = s.shape(0)[:2]
    kept = 0
    if s.optional(2) is not None:
        most = s.tensor(2).value
        kept = boxes if not most else max(0, min(boxes, int(most[0])))
    return (((batch * s.shape(1)[1] * kept, 3), "int64"),)


def _flat_or_axis(attrs: Mapping[str, Attr]) -> int:
    axis = attrs.get("axis", 0)
    return axis if isinstance(axis, int) else 0


FOUND: Mapping[str, tuple[int, Callable[[Mapping[str, Attr]], Mapping[int, int]]]] = {
    "NonZero": (0, lambda attrs: {0: 1}),
    "Compress": (1, lambda attrs: {0: _flat_or_axis(attrs)}),
    "Unique": (0, lambda attrs: {0: _flat_or_axis(attrs), 1: 0, 3: 0}),
    "NonMaxSuppression": (0, lambda attrs: {0: 0}),
    "DynamicTimeWarping": (0, lambda attrs: {0: 1}),
}
"""Operators that find as many elements as the data has: the input whose values decide, and by the attributes each
output with its dimension that counts them. Where those values are not known their rules give the most that there can
be."""


def reduced(shape: Shape, axes: Sequence[int], keepdims: int) -> Shape:
    """``shape`` with ``axes`` reduced to 1 or taken out; an axis may repeat."""
    gone = {axis_in(axis, len(shape)) for axis in axes}
    if keepdims == 1:
        return tuple([1 if i in gone else dim for i, dim in enumerate(shape)])
    return tuple([dim for i, dim in enumerate(shape) if i not in gone])


def _reduce(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    axes = s.listed("axes", 1)
    if not axes:
        if s.whole("noop_with_empty_axes", 0) == 1:
            return ((x.shape, x.dtype),)
        axes = tuple(range(len(x.shape)))
    return ((reduced(x.shape, axes, s.whole("keepdims", 1)), x.dtype),)


def _arg(s: Site) -> Sequence[Out]:
    return ((reduced(s.shape(0), (s.whole("axis", 0),), s.whole("keepdims", 1)), "int64"),)


def _top_k(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    axis = axis_in(s.whole("axis", -1), len(x.shape))
    k = s.whole("k") if "k" in s.attrs else s.dims(1)[0]
    if not 0 <= k <= x.shape[axis]:
        raise ShapeError(f"the {k} largest of a dimension of {x.shape[axis]}")
    shape = (*x.shape[:axis], k, *x.shape[axis + 1 :])
    return ((shape, x.dtype), (shape, "int64"))


RULES: dict[str, Rule] = {
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Expand": _expand,
    "Tile": _tile,
    "Concat": _concat,
    "Split": _split,
    **dict.fromkeys(("SequenceConstruct", "SequenceInsert", "SequenceAt", "Optional", "OptionalGetElement"), _each),
    "SplitToSequence": _split_to_sequence,
    "ConcatFromSequence": _concat_from_sequence,
    "Slice": _slice,
    "Pad": _pad,
    "CenterCropPad": _center_crop_pad,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Compress": _compress,
    "OneHot": _one_hot,
    "Range": _range,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Shape": _shape,
    "Size": _size,
    "EyeLike": _eye_like,
    "RandomNormal": _random,
    "RandomUniform": _random,
    "Multinomial": _multinomial,
    "TfIdfVectorizer": _tf_idf,
    "OptionalHasElement": _present,
    "NonZero": _non_zero,
    "Unique": _unique,
    "NonMaxSuppression": _suppression,
    "ArgMax": _arg,
    "ArgMin": _arg,
    "TopK": _top_k,
    **dict.fromkeys(
        (
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceProd",
            "ReduceSum",
            "ReduceSumSquare",
        ),
        _reduce,
    ),
}
