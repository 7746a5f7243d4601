"""Convolutions, pools, resizing: operators that slide over or rearrange the spatial dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

import numpy as np

from nn_meter.ir.graph import Node
from nn_meter.ir.shapes._site import Out, Rule, Shape, ShapeError, Site, axes_in, product


def _spatial(s: Site, name: str, rank: int, default: int) -> Shape:
    value = s.ints(name)
    if not value:
        return (default,) * rank
    if len(value) != rank:
        raise ShapeError(f"attribute {name!r} is {value}, but there are {rank} spatial dimensions")
    return value


def _steps(s: Site, name: str, rank: int) -> Shape:
    steps = _spatial(s, name, rank, 1)
    if min(steps, default=1) < 1:
        raise ShapeError(f"attribute {name!r} is {steps}; each is at least 1")
    return steps


def _pads(s: Site, rank: int) -> Shape:
    pads = s.ints("pads")
    if not pads:
        return (0,) * (2 * rank)
    if len(pads) != 2 * rank:
        raise ShapeError(f"attribute 'pads' is {pads}, but there are {rank} spatial dimensions")
    return pads


def windows(s: Site, space: Shape, kernel: Shape, pooled: bool = False) -> Shape:
    """Number of windows along each spatial dimension (ONNX, Conv and MaxPool).

    ``pooled`` allows kernels that are larger than the input, as ONNX Runtime does, which divides towards zero.
    """
    rank = len(space)
    strides, dilations = _steps(s, "strides", rank), _steps(s, "dilations", rank)
    auto_pad = s.text("auto_pad", "NOTSET")
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        sizes = [-(-dim // stride) for dim, stride in zip(space, strides, strict=True)]
        if pooled:  # ONNX Runtime pads for the kernel without its dilations
            short = [(n - 1) * t + k - dim for n, t, k, dim in zip(sizes, strides, kernel, space, strict=True)]
            wide = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
            sizes = [(space[i] + max(short[i], 0) - wide[i]) // strides[i] + 1 for i in range(rank)]
        return tuple(sizes)
    pads = _pads(s, rank) if auto_pad == "NOTSET" else (0,) * (2 * rank)
    ceil_mode = s.whole("ceil_mode", 0) == 1
    out = []
    for i in range(rank):
        room = space[i] + pads[i] + pads[i + rank] - dilations[i] * (kernel[i] - 1) - 1
        if room < 0 and not pooled:
            raise ShapeError(f"the kernel {kernel} is larger than the padded input {space}")
        count = (room if room >= 0 else room + strides[i] - 1) // strides[i] + 1
        if count < 0:
            raise ShapeError(f"the kernel {kernel} is larger than the padded input {space}")
        if ceil_mode:
            count = -(-room // strides[i]) + 1
            # The last window must start inside the input or its leading padding.
            if (count - 1) * strides[i] >= space[i] + pads[i]:
                count -= 1
        out.append(count)
    return tuple(out)


def _convolution(s: Site, x: Shape, w: Shape) -> Shape:
    rank = len(x) - 2
    if rank < 1 or len(w) != len(x):
        raise ShapeError(f"input {x} and weight {w} do not fit")
    group = s.whole("group", 1)
    if x[1] != w[1] * group or group < 1 or w[0] % group:
        raise ShapeError(f"input {x} and weight {w} do not fit in {group} groups")
    return (x[0], w[0], *windows(s, x[2:], s.ints("kernel_shape") or w[2:]))


def conv(s: Site) -> Sequence[Out]:
    """Convolution over any number of spatial dimensions."""
    x = s.tensor(0)
    return ((_convolution(s, x.shape, s.shape(1)), x.dtype),)


def _conv_integer(s: Site) -> Sequence[Out]:
    return ((_convolution(s, s.shape(0), s.shape(1)), "int32"),)


def _qlinear_conv(s: Site) -> Sequence[Out]:
    return ((_convolution(s, s.shape(0), s.shape(3)), s.dtype(7)),)


def _conv_transpose(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    w = s.shape(1)
    rank, group = len(x.shape) - 2, s.whole("group", 1)
    if rank < 1 or len(w) != len(x.shape) or x.shape[1] != w[0] or group < 1 or w[0] % group:
        raise ShapeError(f"input {x.shape} and weight {w} do not fit in {group} groups")
    strides, dilations = _steps(s, "strides", rank), _steps(s, "dilations", rank)
    space = s.ints("output_shape")
    if space:
        return (((x.shape[0], w[1] * group, *space[-rank:]), x.dtype),)
    extra = _spatial(s, "output_padding", rank, 0)
    kernel = s.ints("kernel_shape") or w[2:]
    auto_pad = s.text("auto_pad", "NOTSET")
    pads = _pads(s, rank) if auto_pad == "NOTSET" else (0,) * (2 * rank)
    whole = [
        strides[i] * (x.shape[i + 2] - 1) + extra[i] + dilations[i] * (kernel[i] - 1) + 1 for i in range(rank)
    ]
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        space = tuple(min(size, strides[i] * x.shape[i + 2]) for i, size in enumerate(whole))
    else:
        space = tuple(size - pads[i] - pads[i + rank] for i, size in enumerate(whole))
    return (((x.shape[0], w[1] * group, *space), x.dtype),)


def _pool(s: Site) -> Sequence[Out]:
    """Windows over all axes of space; com.microsoft's may have the channels behind those."""
    x = s.tensor(0)
    kernel, last = s.ints("kernel_shape"), bool(s.whole("channels_last", 0))
    space = _space(x.shape, last)
    if kernel is None or len(kernel) != len(space):
        raise ShapeError(f"attribute 'kernel_shape' is {kernel}, the input {x.shape}")
    shape = _around(x.shape, windows(s, space, kernel, pooled=True), last)
    return ((shape, x.dtype), (shape, "int64"))


def _global_pool(s: Site) -> Sequence[Out]:
    x, last = s.tensor(0), bool(s.whole("channels_last", 0))
    return ((_around(x.shape, (1,) * len(_space(x.shape, last)), last), x.dtype),)


def _space(shape: Shape, last: bool) -> Shape:
    return shape[1:-1] if last else shape[2:]


def _around(shape: Shape, space: Shape, last: bool) -> Shape:
    """``shape`` with another ``space``."""
    return (shape[0], *space, shape[-1]) if last else (*shape[:2], *space)


def _max_unpool(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    if s.optional(2) is not None:
        return ((s.dims(2), x.dtype),)
    rank = len(x.shape) - 2
    kernel = _spatial(s, "kernel_shape", rank, 1)
    strides = _steps(s, "strides", rank)
    pads = _pads(s, rank)
    space = tuple(
        strides[i] * (x.shape[i + 2] - 1) + kernel[i] - pads[i] - pads[i + rank] for i in range(rank)
    )
    return ((x.shape[:2] + space, x.dtype),)


def _scaled(shape: Shape, scales: Sequence[float]) -> Shape:
    """Dimensions times scales, in single precision and cut off, as ONNX Runtime does."""
    if len(scales) != len(shape):
        raise ShapeError(f"{len(scales)} scales for the input {shape}")
    with np.errstate(over="ignore"):  # infinite then, which is no whole number
        return tuple(int(np.float32(dim) * np.float32(scale)) for dim, scale in zip(shape, scales, strict=True))


def _resize(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    # Opset 10 has no region of interest: its scales are input 1.
    scales = s.optional(2) if len(s.inputs) > 2 else s.optional(1)
    sizes = s.optional(3)
    axes = axes_in(s.ints("axes") or range(len(x.shape)), len(x.shape))
    old = tuple(x.shape[axis] for axis in axes)
    if sizes is not None and sizes.size:
        new = s.dims(3)
        policy = s.text("keep_aspect_ratio_policy", "stretch")
        if len(new) != len(old):
            raise ShapeError(f"{len(new)} sizes for the dimensions {old}")
        if policy != "stretch":
            ratios = [size / dim for size, dim in zip(new, old, strict=True)]
            ratio = min(ratios) if policy == "not_larger" else max(ratios)
            new = tuple(floor(ratio * dim + 0.5) for dim in old)
    elif scales is not None:
        new = _scaled(old, s.values(2 if len(s.inputs) > 2 else 1))
    else:
        raise ShapeError("neither scales nor sizes are given")
    shape = list(x.shape)
    for axis, dim in zip(axes, new, strict=True):
        shape[axis] = dim
    return ((tuple(shape), x.dtype),)


def _upsample(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    scales = s.attrs.get("scales")
    factors = tuple(float(scale) for scale in scales) if isinstance(scales, tuple) else s.values(1)
    return ((_scaled(x.shape, factors), x.dtype),)


def _depth_to_space(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    n, c, h, w = x.shape
    b = s.whole("blocksize")
    if c % (b * b):
        raise ShapeError(f"{c} channels do not divide into blocks of {b}x{b}")
    return (((n, c // (b * b), h * b, w * b), x.dtype),)


def _space_to_depth(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    n, c, h, w = x.shape
    b = s.whole("blocksize")
    if h % b or w % b:
        raise ShapeError(f"{h}x{w} does not divide into blocks of {b}x{b}")
    return (((n, c * b * b, h // b, w // b), x.dtype),)


def _grid_sample(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    return ((x.shape[:2] + s.shape(1)[1:-1], x.dtype),)


def _affine_grid(s: Site) -> Sequence[Out]:
    n, _, *space = s.dims(1)
    return (((n, *space, len(space)), s.dtype(0)),)


def _roi_align(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    return (((s.shape(1)[0], x.shape[1], s.whole("output_height", 1), s.whole("output_width", 1)), x.dtype),)


def _max_roi_pool(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    return (((s.shape(1)[0], x.shape[1], *(s.ints("pooled_shape") or ())), x.dtype),)


def _col2im(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    block = product(s.dims(2))
    if x.shape[1] % block:
        raise ShapeError(f"{x.shape[1]} channels do not divide into blocks of {block}")
    return (((x.shape[0], x.shape[1] // block, *s.dims(1)), x.dtype),)


def _causal_conv(s: Site) -> Sequence[Out]:
    """Depthwise convolution over the past of the last axis, and what the next call needs of it."""
    x, w = s.tensor(0), s.shape(1)
    kept = (w[-1] - 1) * s.whole("dilation", 1)
    if kept < 0:
        raise ShapeError(f"a kernel of {w[-1]}")
    past = s.optional(3)
    state = past.shape if past is not None else (*x.shape[:-1], kept)
    if past is None and s.whole("channels_last", 0):
        state = (x.shape[0], kept, *x.shape[2:])
    return ((x.shape, x.dtype), (state, x.dtype))


RULES: dict[str, Rule] = {
    "Conv": conv,
    "ConvInteger": _conv_integer,
    "ConvTranspose": _conv_transpose,
    "CausalConvWithState": _causal_conv,
    "DeformConv": conv,
    "QLinearConv": _qlinear_conv,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "LpPool": _pool,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "GlobalLpPool": _global_pool,
    "MaxUnpool": _max_unpool,
    "MaxRoiPool": _max_roi_pool,
    "Resize": _resize,
    "Upsample": _upsample,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "GridSample": _grid_sample,
    "AffineGrid": _affine_grid,
    "RoiAlign": _roi_align,
    "Col2Im": _col2im,
}

def _conv_transpose_dynamic(s: Site) -> Sequence[Out]:
    """As ConvTranspose, its padding an input."""
    pads = s.dims(2) if s.optional(2) is not None else None
    padded = Node("", "", (), (), {**s.attrs, **({"pads": pads} if pads else {})})
    return _conv_transpose(Site(padded, s.inputs[:2]))


MICROSOFT: dict[str, Rule] = {
    "FusedConv": conv,
    "ConvTransposeWithDynamicPads": _conv_transpose_dynamic,
    "MaxpoolWithMask": _pool,
    "QLinearAveragePool": _pool,
    "QLinearGlobalAveragePool": _global_pool,
}
