"""Values of small constants, so that the shape arithmetic of exporters resolves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nn_meter.ir.shapes._layout import slices
from nn_meter.ir.shapes._site import Out, Site, Value, axes_in

MAX_ELEMENTS = 256
"""Constants of more elements keep no value; no exporter computes shapes with as many."""

_FOLDABLE = frozenset(
    (
        "bool",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "float16",
        "float32",
        "float64",
    )
)

Array = np.ndarray[Any, np.dtype[Any]]
Fold = Callable[[Site, Sequence[Array], Sequence[Out]], Sequence[Array] | None]


def _ufunc(function: Callable[..., Array]) -> Fold:
    def fold(s: Site, arrays: Sequence[Array], outs: Sequence[Out]) -> Sequence[Array]:
        return (function(*arrays),)

    return fold


def _chain(function: Callable[[Array, Array], Array]) -> Fold:
    def fold(s: Site, arrays: Sequence[Array], outs: Sequence[Out]) -> Sequence[Array]:
        result = arrays[0]
        for array in arrays[1:]:
            result = function(result, array)
        return (result,)

    return fold


def _reduction(function: Callable[..., Array]) -> Fold:
    def fold(s: Site, arrays: Sequence[Array], outs: Sequence[Out]) -> Sequence[Array] | None:
        axes = s.listed("axes", 1)
        if not axes and s.whole("noop_with_empty_axes", 0) == 1:
            return (arrays[0],)
        if not arrays[0].size and function not in (np.sum, np.prod):
            return None  # the largest of nothing
        return (function(arrays[0], axis=axes_in(axes, arrays[0].ndim) if axes else None),)

    return fold


def _reshaped(s: Site, arrays: Sequence[Array], outs: Sequence[Out]) -> Sequence[Array]:
    return (arrays[0],)


def _divide(a: Array, b: Array) -> Array:
    """Division as ONNX defines it: integers are truncated towards zero."""
    if a.dtype.kind not in "iu":
        return np.asarray(np.true_divide(a, b))
    quotient = np.floor_divide(a, b)
    return np.asarray(quotient + ((quotient < 0) & (quotient * b != a)))


def _concat(s: Site, arrays: Sequence[Array], outs: Sequence[Out]) -> Sequence[Array]:
    return (np.concatenate(arrays, axis=s.whole("axis", 1)),)


def _gather(s: Site, arrays: Sequence[Array], outs: Sequence[Out]) -> Sequence[Array]:
    return (np.take(arrays[0], arrays[1], axis=s.whole("axis", 0)),)


def _slice(s: Site, arrays: Sequence[Array], outs: Sequence[Out]) -> Sequence[Array]:
    parts = slices(s)
    return (arrays[0][tuple(parts.get(axis, slice(None)) for axis in range(arrays[0].ndim))],)


def _split(s: Site, arrays: Sequence[Array], outs: Sequence[Out]) -> Sequence[Array]:
    axis = s.whole("axis", 0)
    ends = np.cumsum([shape[axis] for shape, _ in outs])
    return np.split(arrays[0], ends[:-1], axis=axis)


def _transpose(s: Site, arrays: Sequence[Array], outs: Sequence[Out]) -> Sequence[Array]:
    return (np.transpose(arrays[0], s.ints("perm")),)


def _broadcast(s: Site, arrays: Sequence[Array], outs: Sequence[Out]) -> Sequence[Array]:
    return (np.broadcast_to(arrays[0], outs[0][0]),)


def _tile(s: Site, arrays: Sequence[Array], outs: Sequence[Out]) -> Sequence[Array]:
    return (np.tile(arrays[0], s.dims(1)),)


def _one_hot(s: Site, arrays: Sequence[Array], outs: Sequence[Out]) -> Sequence[Array]:
    indices, depth, (off, on) = arrays[0], int(arrays[1].item()), arrays[2]
    axis = s.whole("axis", -1) % (indices.ndim + 1)
    places = np.expand_dims(indices, axis)
    places = np.where(places < 0, places + depth, places)
    steps = np.arange(depth).reshape([-1 if each == axis else 1 for each in range(places.ndim)])
    return (np.where(places == steps, on, off),)


def _range(s: Site, arrays: Sequence[Array], outs: Sequence[Out]) -> Sequence[Array]:
    start, _, delta = (array.item() for array in arrays)
    return (np.asarray([start + i * delta for i in range(outs[0][0][0])]),)


def _filled(s: Site, arrays: Sequence[Array], outs: Sequence[Out]) -> Sequence[Array]:
    value = s.attrs.get("value", 0)
    return (np.full(outs[0][0], value[0] if isinstance(value, tuple) else value),)


def _cumsum(s: Site, arrays: Sequence[Array], outs: Sequence[Out]) -> Sequence[Array]:
    axis = int(arrays[1].item())
    x = np.flip(arrays[0], axis) if s.whole("reverse", 0) else arrays[0]
    total = np.cumsum(x, axis=axis) - (x if s.whole("exclusive", 0) else 0)
    return (np.flip(total, axis) if s.whole("reverse", 0) else total,)


def _mod(s: Site, arrays: Sequence[Array], outs: Sequence[Out]) -> Sequence[Array]:
    return (np.fmod(*arrays) if s.whole("fmod", 0) else np.mod(*arrays),)


def _non_zero(s: Site, arrays: Sequence[Array], outs: Sequence[Out]) -> Sequence[Array]:
    return (np.stack(np.nonzero(np.atleast_1d(arrays[0]))),)


def _relu(s: Site, arrays: Sequence[Array], outs: Sequence[Out]) -> Sequence[Array]:
    return (np.maximum(arrays[0], 0),)


def _clip(s: Site, arrays: Sequence[Array], outs: Sequence[Out]) -> Sequence[Array]:
    rest = iter(arrays[1:])
    result = arrays[0]
    if s.optional(1) is not None:
        result = np.maximum(result, next(rest))
    elif "min" in s.attrs:
        result = np.maximum(result, s.attrs["min"])
    if s.optional(2) is not None:
        result = np.minimum(result, next(rest))
    elif "max" in s.attrs:
        result = np.minimum(result, s.attrs["max"])
    return (result,)


FOLDS: dict[str, Fold] = {
    **dict.fromkeys(
        ("Identity", "Cast", "CastLike", "Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshaped
    ),
    "Abs": _ufunc(np.abs),
    "Neg": _ufunc(np.negative),
    "Floor": _ufunc(np.floor),
    "Ceil": _ufunc(np.ceil),
    "Round": _ufunc(np.round),
    "Sqrt": _ufunc(np.sqrt),
    "Reciprocal": _ufunc(np.reciprocal),
    "Exp": _ufunc(np.exp),
    "Log": _ufunc(np.log),
    "Sign": _ufunc(np.sign),
    "Not": _ufunc(np.logical_not),
    "Add": _ufunc(np.add),
    "Sub": _ufunc(np.subtract),
    "Mul": _ufunc(np.multiply),
    "Div": _ufunc(_divide),
    "Pow": _ufunc(np.power),
    "Mod": _mod,
    "And": _ufunc(np.logical_and),
    "Or": _ufunc(np.logical_or),
    "Xor": _ufunc(np.logical_xor),
    "Equal": _ufunc(np.equal),
    "Less": _ufunc(np.less),
    "LessOrEqual": _ufunc(np.less_equal),
    "Greater": _ufunc(np.greater),
    "GreaterOrEqual": _ufunc(np.greater_equal),
    "Where": _ufunc(np.where),
    "Sum": _chain(np.add),
    "Min": _chain(np.minimum),
    "Max": _chain(np.maximum),
    "ReduceProd": _reduction(np.prod),
    "ReduceSum": _reduction(np.sum),
    "ReduceMax": _reduction(np.max),
    "ReduceMin": _reduction(np.min),
    "ReduceMean": _reduction(np.mean),
    "Concat": _concat,
    "Gather": _gather,
    "Slice": _slice,
    "Split": _split,
    "Transpose": _transpose,
    "Expand": _broadcast,
    "Tile": _tile,
    "OneHot": _one_hot,
    "Range": _range,
    "ConstantOfShape": _filled,
    "CumSum": _cumsum,
    "NonZero": _non_zero,
    "Clip": _clip,
    "Relu": _relu,
}


_OF_SOMETHING = frozenset(("ReduceMax", "ReduceMin", "ReduceMean"))
"""Reductions of nothing that have no value; of the others it is 0 or 1."""


def fold(s: Site, outs: Sequence[Out]) -> Sequence[Value | None]:
    """The values of a constant node's outputs, ``None`` where unknown, too many, or of no plain type."""
    op_type = s.node.op_type
    unknown = (None,) * len(outs)
    if op_type == "Shape":
        rank = len(s.shape(0))
        return (s.shape(0)[s.whole("start", 0) : s.whole("end", rank)],)
    if op_type == "Size":
        return ((s.tensor(0).size,),)
    if op_type == "Constant":
        value = next((s.attrs[key] for key in s.attrs if key.startswith("value_")), None)
        numbers = value if isinstance(value, tuple) else (value,)
        return (tuple(number for number in numbers if isinstance(number, int | float)),)
    function = FOLDS.get(op_type)
    if function is None:
        return unknown
    arrays = []
    for tensor in s.inputs:
        if tensor is None:
            continue
        if tensor.value is None or tensor.dtype not in _FOLDABLE:
            return unknown
        arrays.append(np.array(tensor.value, tensor.dtype).reshape(tensor.shape))
    size = 0
    for shape, dtype in outs:
        count = 1
        for dim in shape:
            count *= dim
        size += count
        if size > MAX_ELEMENTS or dtype not in _FOLDABLE:
            return unknown
    if op_type in _OF_SOMETHING and not arrays[0].size:
        return unknown
    with np.errstate(all="ignore"):
        results = function(s, arrays, outs)
        if results is None:
            return unknown
        return tuple(
            tuple(result.astype(dtype).reshape(-1).tolist())
            for result, (_, dtype) in zip(results, outs, strict=True)
        )
