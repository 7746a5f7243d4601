"""Operators that only move data, or say where it lies: a row each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from nn_meter.backends.litert.site import Row, Site
from nn_meter.runtimes.litert import channels_last, perm_of, plain, unmoved


def _to_shape(site: Site) -> None:
    """What lies in memory as the graph says is shaped as it lies, whatever its axes are called."""
    order = site.order()
    moving = [axis for axis in order if site.shape_of(0)[axis] > 1]
    stored = site.get(0) if moving == sorted(moving) else site.plainly(0)
    site.give(site.file.shaped(stored, site.shape))


def _transpose(site: Site) -> None:
    """A change between channels last and the graph's order is that order: nothing moves before a reader asks."""
    order = unmoved(site.op, site.order(), site.work)
    if order is not None:
        site.file.alias(site.out, site.inputs[0], order)
    else:
        site.give(site.file.turned(site.plainly(0), perm_of(site.op, len(site.shape))))


def _expand(site: Site) -> None:
    source = site.plainly(0)
    site.give(site.file.op("BROADCAST_TO", [source, site.file.constant(list(site.shape), "int32")], site.shape))


def _tile(site: Site) -> None:
    times = [int(each) for each in site.values(1, "repeats") or ()]
    site.give(site.file.op("TILE", [site.plainly(0), site.file.constant(times, "int32")], site.shape))


def _slice(site: Site) -> None:
    shape, order = site.shape_of(0), site.order()
    begins, counts, strides = [0] * len(shape), list(site.shape), [1] * len(shape)
    for axis, start, end, stride in site.slices():
        begins[axis], _, strides[axis] = slice(start, end, stride).indices(shape[axis])
    source, made = site.get(0), [site.shape[axis] for axis in order]
    first, step = [begins[axis] for axis in order], [strides[axis] for axis in order]
    file = site.file
    if set(strides) == {1}:
        sizes = file.constant([counts[axis] for axis in order])
        site.give(file.op("SLICE", [source, file.constant(first), sizes], made), order)
        return
    last = [begin + count * stride for begin, count, stride in zip(first, made, step, strict=True)]
    open_ended = sum(1 << i for i, (end, stride) in enumerate(zip(last, step, strict=True)) if stride < 0 and end < 0)
    operands = [source, *map(file.constant, (first, [max(end, 0) for end in last], step))]
    options = {"beginMask": 0, "endMask": open_ended, "ellipsisMask": 0, "newAxisMask": 0, "shrinkAxisMask": 0}
    site.give(file.op("STRIDED_SLICE", operands, made, **options), order)


def _split(site: Site) -> None:
    file, order, axis = site.file, site.order(), site.axis(0)
    sizes = [file.shape(name)[axis] for name in site.outputs]
    shapes = [[file.shape(name)[each] for each in order] for name in site.outputs]
    source, place = site.get(0), file.constant(np.int32(order.index(axis)))
    if len(set(sizes)) == 1:
        made = file.ops("SPLIT", [place, source], shapes, *[source.dtype] * len(sizes), numSplits=len(sizes))
    else:
        made = file.ops("SPLIT_V", [source, file.constant(sizes), place], shapes, numSplits=len(sizes))
    for name, stored in zip(site.outputs, made, strict=True):
        file.keep(name, stored, order)


def _concat(site: Site) -> None:
    file = site.file
    computed = [name for name in site.inputs if file.known(name) is None]
    order = file.order(computed[0]) if computed else plain(len(site.shape))
    parts = [file.get(name, order) for name in site.inputs if 0 not in file.shape(name)]
    shape = [site.shape[axis] for axis in order]
    axis = int(site.number("axis", 0)) % len(order)
    stored = file.op("CONCATENATION", parts, shape, axis=order.index(axis), fusedActivationFunction=0)
    site.give(stored, order)


def _pad(site: Site) -> None:
    file, order = site.file, site.order()
    pads, mode = site.pads(), site.text("mode", "constant")
    if any(min(pair) < 0 for pair in pads.values()) or mode not in ("constant", "reflect"):
        raise NotImplementedError("that takes away" if mode == "constant" else f"in the mode {mode}")
    source, shape = site.get(0), [site.shape[axis] for axis in order]
    operands = [source, file.constant(np.array([pads.get(axis, (0, 0)) for axis in order], np.int32))]
    fill = (site.values(2, "value") or (0.0,))[0]
    if mode == "reflect":
        stored = file.op("MIRROR_PAD", operands, shape, mode=file.enum("MirrorPadMode", "REFLECT"))
    elif fill:
        stored = file.op("PADV2", [*operands, file.constant(np.array(fill, source.dtype))], shape)
    else:
        stored = file.op("PAD", operands, shape)
    site.give(stored, order)


def _gather(site: Site) -> None:
    file, axis = site.file, site.axis(0)
    known = site.constant(1)
    places = site.plainly(1) if known is None else file.constant((known % site.shape_of(0)[axis]).astype(np.int32))
    site.give(file.op("GATHER", [site.plainly(0), places], site.shape, axis=axis, batchDims=0))


def _gather_nd(site: Site) -> None:
    if site.number("batch_dims", 0):
        raise NotImplementedError("with axes of batch")
    site.give(site.file.op("GATHER_ND", [site.plainly(0), site.plainly(1)], site.shape))


def _one_hot(site: Site) -> None:
    depth, values = site.values(1) or (1,), site.constant(2)
    if values is None:
        raise NotImplementedError("of values that are computed")
    file = site.file
    operands = [site.plainly(0), file.constant(np.int32(depth[0])), file.constant(values[1]), file.constant(values[0])]
    axis, last = int(site.number("axis", -1)) % len(site.shape), len(site.shape) - 1
    site.give(file.op("ONE_HOT", operands, site.shape, str(values.dtype), axis=-1 if axis == last else axis))


def _cumulate(site: Site) -> None:
    (axis,) = site.values(1) or (0,)
    source = site.plainly(0)
    place = site.file.constant(np.int32(int(axis) % len(source.shape)))
    options = {"exclusive": site.flag("exclusive"), "reverse": site.flag("reverse")}
    site.give(site.file.op("CUMSUM", [source, place], source.shape, **options))


def _top_k(site: Site) -> None:
    if site.axis(-1) != len(site.shape) - 1 or not site.flag("largest", 1):
        raise NotImplementedError("along another axis than the last, or of the least")
    file, source = site.file, site.plainly(0)
    count = file.constant(np.int32(site.shape[-1]))
    values, places = file.ops("TOPK_V2", [source, count], [site.shape, site.shape], source.dtype, "int32")
    site.give(values)
    if len(site.outputs) > 1 and site.outputs[1]:
        file.keep(site.outputs[1], places)


def _space(code: str) -> Row:
    def row(site: Site) -> None:
        size, order = int(site.number("blocksize", 1)), channels_last(4)
        if site.text("mode", "DCR") != "DCR":
            _shuffle(site, size)
            return
        shape = [site.shape[axis] for axis in order]
        site.give(site.file.op(code, [site.get(0, order)], shape, blockSize=size), order)

    return row


def _shuffle(site: Site, size: int) -> None:
    """With the channels before the block: no operator of TFLite, but a transpose."""
    n, c, h, w = site.shape_of(0)
    channels = c // size**2
    apart = site.file.shaped(site.get(0, channels_last(4)), (n, h, w, channels, size, size))
    turned = site.file.turned(apart, (0, 1, 4, 2, 5, 3))
    site.give(site.file.shaped(turned, (n, h * size, w * size, channels)), channels_last(4))


def _resize(site: Site) -> None:
    mode, how = site.text("mode", "nearest"), site.text("coordinate_transformation_mode", "half_pixel")
    if len(site.shape) != 4 or site.shape[:2] != site.shape_of(0)[:2]:
        raise NotImplementedError("of other axes than two of space")
    if mode not in ("nearest", "linear"):
        raise NotImplementedError(f"in the mode {mode}")
    code = "RESIZE_BILINEAR" if mode == "linear" else "RESIZE_NEAREST_NEIGHBOR"
    order = channels_last(4)
    operands = [site.get(0, order), site.file.constant(list(site.shape[2:]))]
    options = {"alignCorners": how == "align_corners", "halfPixelCenters": "half_pixel" in how}
    site.give(site.file.op(code, operands, [site.shape[axis] for axis in order], **options), order)


def _identity(site: Site) -> None:
    site.give(site.file.shaped(site.get(0), site.get(0).shape), site.order())


ROWS: Mapping[str, Row] = MappingProxyType(
    {
        **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), _to_shape),
        "Concat": _concat,
        "CumSum": _cumulate,
        "DepthToSpace": _space("DEPTH_TO_SPACE"),
        "Expand": _expand,
        "Gather": _gather,
        "GatherND": _gather_nd,
        "Identity": _identity,
        "OneHot": _one_hot,
        "Pad": _pad,
        "Resize": _resize,
        "Slice": _slice,
        "SpaceToDepth": _space("SPACE_TO_DEPTH"),
        "Split": _split,
        "Tile": _tile,
        "TopK": _top_k,
        "Transpose": _transpose,
    }
)
"""Operator to its row."""
