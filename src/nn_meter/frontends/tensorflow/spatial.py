"""Operators that slide over the spatial dimensions of an image, or rearrange them."""

from __future__ import annotations

from collections.abc import Callable

from nn_meter.frontends.tensorflow.attrs import flag, integer, integers, text
from nn_meter.frontends.tensorflow.flow import Op
from nn_meter.frontends.tensorflow.lowering import Layout, Lowering, Shape, image, plain
from nn_meter.ir.graph import Attr


def channels_last(op: Op) -> bool:
    """Whether the operator's images lie channels last, as TensorFlow's do by default."""
    return text(op, "data_format", "NHWC").endswith("C")


def layout(lo: Lowering, op: Op, data: int = 0) -> Layout:
    """How the graph shows the images of an operator."""
    rank = lo.rank(op.inputs[data])
    return image(rank) if channels_last(op) and rank > 2 else plain(rank)


def _spatial(op: Op, name: str, rank: int) -> Shape:
    """The spatial part of an attribute that has an entry for every dimension."""
    full = integers(op, name, (1,) * rank)
    if len(full) != rank:
        full = (1,) * rank if len(full) != rank - 2 else (1, *full, 1)
    return full[1:-1] if channels_last(op) else full[2:]


def same_pads(space: Shape, kernel: Shape, strides: Shape, dilations: Shape) -> Shape:
    """Pads that ``SAME`` stands for: begins, then ends (https://www.tensorflow.org/api_docs/python/tf/nn,
    "Notes on padding"); an odd one goes to the end."""
    totals = [
        max((-(-dim // stride) - 1) * stride + (size - 1) * dilation + 1 - dim, 0)
        for dim, size, stride, dilation in zip(space, kernel, strides, dilations, strict=True)
    ]
    return (*(total // 2 for total in totals), *(total - total // 2 for total in totals))


def _pads(op: Op, space: Shape, kernel: Shape, strides: Shape, dilations: Shape) -> Shape:
    padding = text(op, "padding", "VALID")
    if padding == "SAME":
        return same_pads(space, kernel, strides, dilations)
    if padding == "EXPLICIT":
        listed = integers(op, "explicit_paddings")
        pairs = list(zip(listed[::2], listed[1::2], strict=True))
        pairs = pairs[1:-1] if channels_last(op) else pairs[2:]
        return (*(begin for begin, _ in pairs), *(end for _, end in pairs))
    return (0,) * (2 * len(space))


def _window(op: Op, space: Shape, kernel: Shape) -> dict[str, Attr]:
    strides = _spatial(op, "strides", len(space) + 2)
    dilations = _spatial(op, "dilations", len(space) + 2)
    return {
        "kernel_shape": kernel,
        "strides": strides,
        "pads": _pads(op, space, kernel, strides, dilations),
        "dilations": dilations,
    }


def _filter_layout(op: Op, rank: int) -> Layout:
    """Filters are (H, W, in, out) in TensorFlow, (out, H, W, in) in TFLite; ONNX wants (out, in, H, W)."""
    if text(op, "filter_format", "HWIO") == "OHWI":
        return image(rank)
    return (rank - 1, rank - 2, *range(rank - 2))


def _convolve(lo: Lowering, op: Op, weight: str, group: int) -> None:
    axes = layout(lo, op)
    x = lo.tensor(op.inputs[0], axes)
    kernel = lo.tensors[weight].shape[2:]
    bias = [lo.tensor(op.inputs[2])] if len(op.inputs) > 2 and op.inputs[2] else []
    window = _window(op, lo.tensors[x].shape[2:], kernel)
    lo.give(op, "Conv", [x, weight, *bias], axes, group=group, **window)


def convolution(lo: Lowering, op: Op) -> None:
    """Conv2D and Conv3D; fewer input channels in the filter than in the image mean groups."""
    weight = lo.tensor(op.inputs[1], _filter_layout(op, lo.rank(op.inputs[1])))
    channels = lo.tensors[lo.tensor(op.inputs[0], layout(lo, op))].shape[1]
    _convolve(lo, op, weight, channels // lo.tensors[weight].shape[1])


def depthwise(lo: Lowering, op: Op) -> None:
    """DepthwiseConv2dNative: a filter (H, W, in, multiplier), in TFLite (1, H, W, in * multiplier)."""
    shape = lo.shape(op.inputs[1])
    if text(op, "filter_format", "HWIO") == "OHWI":
        out, height, width = shape[3], shape[1], shape[2]
    else:
        out, height, width = shape[2] * shape[3], shape[0], shape[1]
    weight = lo.reshaped(op.inputs[1], (out, 1, height, width))
    channels = lo.tensors[lo.tensor(op.inputs[0], layout(lo, op))].shape[1]
    _convolve(lo, op, weight, channels)


def transposed(lo: Lowering, op: Op) -> None:
    """Conv2DBackpropInput: the shape of its result, the filter (H, W, out, in), the image."""
    axes = layout(lo, op, 2)
    x = lo.tensor(op.inputs[2], axes)
    rank = len(axes)
    # ONNX's transposed filter is (in, out, H, W); TFLite stores (out, H, W, in)
    filter_axes = (
        (rank - 1, 0, *range(1, rank - 1)) if text(op, "filter_format") == "OHWI" else _filter_layout(op, rank)
    )
    weight = lo.tensor(op.inputs[1], filter_axes)
    bias = [lo.tensor(op.inputs[3])] if len(op.inputs) > 3 and op.inputs[3] else []
    wanted = lo.ints(op, op.inputs[0])
    if len(wanted) == rank:
        wanted = tuple(wanted[axis] for axis in axes)[2:]
    kernel = lo.tensors[weight].shape[2:]
    space = lo.tensors[x].shape[2:]
    strides = _spatial(op, "strides", rank)
    dilations = _spatial(op, "dilations", rank)
    surplus = [
        (dim - 1) * stride + (size - 1) * dilation + 1 - out
        for dim, stride, size, dilation, out in zip(space, strides, kernel, dilations, wanted, strict=True)
    ]
    pads = tuple(max(s, 0) // 2 for s in surplus) + tuple(max(s, 0) - max(s, 0) // 2 for s in surplus)
    attrs: dict[str, Attr] = {
        "kernel_shape": kernel,
        "strides": strides,
        "pads": pads,
        "dilations": dilations,
        "output_padding": tuple(max(-s, 0) for s in surplus),
        "group": lo.tensors[x].shape[1] // lo.tensors[weight].shape[0],
    }
    lo.give(op, "ConvTranspose", [x, weight, *bias], axes, **attrs)


def pool(op_type: str) -> Callable[[Lowering, Op], None]:
    """MaxPool and AvgPool in two or three dimensions; padding does not count in an average."""

    def lower(lo: Lowering, op: Op) -> None:
        axes = layout(lo, op)
        x = lo.tensor(op.inputs[0], axes)
        space = lo.tensors[x].shape[2:]
        attrs = _window(op, space, _spatial(op, "ksize", len(axes)))
        if op_type == "AveragePool":
            attrs = {**attrs, "count_include_pad": 0}
        lo.give(op, op_type, [x], axes, **attrs)

    return lower


def _transformation(op: Op) -> str:
    if flag(op, "align_corners"):
        return "align_corners"
    return "half_pixel" if flag(op, "half_pixel_centers") else "asymmetric"


def resize(mode: str) -> Callable[[Lowering, Op], None]:
    """ResizeBilinear and its like: an image, always channels last, and its new height and width."""

    def lower(lo: Lowering, op: Op) -> None:
        axes = image(lo.rank(op.inputs[0]))
        x = lo.tensor(op.inputs[0], axes)
        sizes = lo.const(op, "sizes", (*lo.tensors[x].shape[:2], *lo.ints(op, op.inputs[1])))
        lo.give(op, "Resize", [x, "", "", sizes], axes, mode=mode, coordinate_transformation_mode=_transformation(op))

    return lower


def blocks(op_type: str) -> Callable[[Lowering, Op], None]:
    """DepthToSpace and SpaceToDepth."""

    def lower(lo: Lowering, op: Op) -> None:
        axes = layout(lo, op)
        size = integer(op, "block_size", 1)
        lo.give(op, op_type, [lo.tensor(op.inputs[0], axes)], axes, blocksize=size)

    return lower
