"""Elements that move, repeat or only get another shape."""

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
    each,
    expanded,
    is_tensor,
    last_swapped,
    operand,
    parts_of,
    reshaped,
    slice_of,
    spread,
    transposed,
)


def nothing(w: Writer, c: Call) -> str:
    """No result and no work at inference."""
    return ""


def keep(w: Writer, c: Call) -> str:
    """Nothing to do at inference: the value passes."""
    return w.value(c.first)


def _to(w: Writer, c: Call) -> str:
    return cast(w, w.value(c.first), c.dtype)


def _view(w: Writer, c: Call) -> str:
    return reshaped(w, w.value(c.first), c.shape)


def _flatten(w: Writer, c: Call) -> str:
    x = w.value(c.first)
    if len(c.shape) == 2 and c["start_dim"] == 1 and w.shape(x) != c.shape:
        return w.op("Flatten", x, axis=1)
    return reshaped(w, x, c.shape)


def _permute(w: Writer, c: Call) -> str:
    return transposed(w, w.value(c.first), axes_of(c["dims"], c.first.dim()))


def _transpose_pair(first: str, second: str) -> Row:
    def row(w: Writer, c: Call) -> str:
        rank = c.first.dim()
        perm = list(range(rank))
        if rank:
            a, b = axis_of(c[first], rank), axis_of(c[second], rank)
            perm[a], perm[b] = perm[b], perm[a]
        return transposed(w, w.value(c.first), perm)

    return row


def _transposed(w: Writer, c: Call) -> str:
    x = w.value(c.first)
    return last_swapped(w, x) if len(w.shape(x)) > 1 else x


def _movedim(w: Writer, c: Call) -> str:
    rank = c.first.dim()
    source, target = axes_of(c["source"], rank), axes_of(c["destination"], rank)
    rest = iter(axis for axis in range(rank) if axis not in source)
    place = dict(zip(target, source, strict=True))
    return transposed(
        w, w.value(c.first), [place[axis] if axis in place else next(rest) for axis in range(rank)]
    )


def _unsqueeze(w: Writer, c: Call) -> str:
    return w.op("Unsqueeze", w.value(c.first), w.const((axis_of(c["dim"], c.first.dim() + 1),)))


def _squeeze(w: Writer, c: Call) -> str:
    x = w.value(c.first)
    shape = w.shape(x)
    axes = tuple(axis for axis in axes_of(c["dim"], len(shape)) if shape[axis] == 1)
    return w.op("Squeeze", x, w.const(axes)) if axes else x


def _expand(w: Writer, c: Call) -> str:
    return expanded(w, w.value(c.first), c.shape)


def _repeat(w: Writer, c: Call) -> str:
    times = tuple(c["repeats"] if c["repeats"] is not None else c["dims"])
    x = w.value(c.first)
    rank = max(len(times), len(w.shape(x)))
    x = reshaped(w, x, (*(1,) * (rank - len(w.shape(x))), *w.shape(x)))
    times = (1,) * (rank - len(times)) + times
    return w.op("Tile", x, w.const(times)) if any(t != 1 for t in times) else x


def _repeat_interleave(w: Writer, c: Call) -> str:
    x, times = w.value(c.first), c["repeats"]
    if not isinstance(times, int):
        raise UnsupportedOperatorError(
            "repeat_interleave with a tensor of repeats has a result of unknown shape"
        )
    if c["dim"] is None:
        x = reshaped(w, x, (math.prod(w.shape(x)),))
    shape = w.shape(x)
    axis = axis_of(c["dim"] or 0, len(shape))
    apart = w.op("Unsqueeze", x, w.const((axis + 1,)))
    wide = w.op("Expand", apart, w.const((*shape[: axis + 1], times, *shape[axis + 1 :])))
    return w.op("Reshape", wide, w.const(c.shape))


def _slice_row(w: Writer, c: Call) -> str:
    x = w.value(c.first)
    shape = w.shape(x)
    axis = axis_of(c["dim"], len(shape))
    if c.shape == shape and c["step"] == 1:
        return x
    start, end = c["start"] or 0, c["end"]
    size = shape[axis]
    start = max(0, min(size, start + size if start < 0 else start))
    end = size if end is None else max(start, min(size, end + size if end < 0 else end))
    return slice_of(w, x, axis, start, end, c["step"])


def _narrow(w: Writer, c: Call) -> str:
    start = c["start"]
    axis = axis_of(c["dim"], c.first.dim())
    start = start + c.first.shape[axis] if start < 0 else start
    return slice_of(w, w.value(c.first), axis, start, start + c["length"])


def _select(w: Writer, c: Call) -> str:
    x = w.value(c.first)
    axis = axis_of(c["dim"], len(w.shape(x)))
    return w.op("Gather", x, w.const(axis_of(c["index"], w.shape(x)[axis])), axis=axis)


def _unbind(w: Writer, c: Call) -> Written:
    axis = axis_of(c["dim"], c.first.dim())
    parts = parts_of(w, w.value(c.first), axis, (1,) * len(c.outs))
    return tuple(w.op("Squeeze", part, w.const((axis,))) for part in parts)


def _split(w: Writer, c: Call) -> Written:
    axis = axis_of(c["dim"] or 0, c.first.dim())
    return parts_of(w, w.value(c.first), axis, tuple(out.shape[axis] for out in c.outs))


def _concat(w: Writer, c: Call) -> str:
    names = [operand(w, t, c.dtype) for t in c["tensors"] if tuple(t.shape) != (0,)]
    return names[0] if len(names) == 1 else w.op("Concat", *names, axis=axis_of(c["dim"], len(c.shape)))


def _stack(w: Writer, c: Call) -> str:
    axis = axis_of(c["dim"], len(c.shape))
    names = [w.op("Unsqueeze", operand(w, t, c.dtype), w.const((axis,))) for t in c["tensors"]]
    return names[0] if len(names) == 1 else w.op("Concat", *names, axis=axis)


def _flip(w: Writer, c: Call) -> str:
    x = w.value(c.first)
    axes = axes_of(c["dims"], len(w.shape(x)))
    ends = w.const((-(2**63),) * len(axes))
    return w.op("Slice", x, w.const((-1,) * len(axes)), ends, w.const(axes), w.const((-1,) * len(axes)))


def _roll(w: Writer, c: Call) -> str:
    x = w.value(c.first)
    shape = w.shape(x)
    dims = c["dims"]
    if not dims:
        x = reshaped(w, x, (math.prod(shape),))
        dims = (0,)
    for dim, shift in zip(axes_of(dims, len(w.shape(x))), spread(c["shifts"], 1), strict=True):
        size = w.shape(x)[dim]
        cut = -shift % size
        if cut:
            x = w.op("Concat", slice_of(w, x, dim, cut, size), slice_of(w, x, dim, 0, cut), axis=dim)
    return reshaped(w, x, shape)


def _triangle(upper: int) -> Row:
    def row(w: Writer, c: Call) -> str:
        return w.op("Trilu", w.value(c.first), w.const(c["diagonal"]), upper=upper)

    return row


def _copy(w: Writer, c: Call) -> str:
    source = operand(w, c["src"], c.dtype)
    return expanded(w, source, c.shape)


def _fill(w: Writer, c: Call) -> str:
    if is_tensor(c["value"]):
        return w.op("Expand", operand(w, c["value"], c.dtype), w.const(c.shape))
    return w.weight(c.shape, c.dtype)


ROWS: Mapping[str, Row] = {
    **each(
        "alias contiguous clone detach dropout alpha_dropout feature_dropout feature_alpha_dropout "
        "identity lift "
        "lift_fresh requires_grad resolve_conj resolve_neg positive view_as_real_copy",
        keep,
    ),
    **each("_assert_async _assert_scalar _functional_assert_async", nothing),
    **each("to _to_copy type_as float half", _to),
    **each("view reshape _unsafe_view view_as reshape_as unflatten _reshape_alias", _view),
    "tril": _triangle(0),
    "triu": _triangle(1),
    "flatten": _flatten,
    "permute": _permute,
    "movedim": _movedim,
    "transpose": _transpose_pair("dim0", "dim1"),
    "swapaxes": _transpose_pair("axis0", "axis1"),
    "swapdims": _transpose_pair("dim0", "dim1"),
    **each("t numpy_T mT", _transposed),
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    **each("expand expand_as broadcast_to", _expand),
    **each("repeat tile", _repeat),
    "repeat_interleave": _repeat_interleave,
    "slice": _slice_row,
    "narrow": _narrow,
    "select": _select,
    "unbind": _unbind,
    **each("split split_with_sizes chunk tensor_split unsafe_split unsafe_chunk", _split),
    **each("cat concat concatenate", _concat),
    "stack": _stack,
    "flip": _flip,
    "roll": _roll,
    "copy": _copy,
    **each("fill zero", _fill),
}  # fmt: skip
"""ATen operator to what writes it."""
