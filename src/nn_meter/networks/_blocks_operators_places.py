"""Operators that move elements, look them up, or slide over them: each by itself, as in ``_blocks_operators``."""

from __future__ import annotations

import math

from nn_meter.ir.graph import Attr
from nn_meter.networks._blocks import Pen
from nn_meter.networks._blocks_operators_shared import (
    answers,
    any_shape,
    how_many,
    operand,
    size,
    some_of,
    tensors,
)


def resizes(pen: Pen) -> str:
    """Up and down, by any factor and mode, over one to three dimensions."""
    made = []
    for _ in range(how_many(pen, 2, 4)):
        rank = pen.pick(1, 2, 2, 2, 2, 3)
        mode = pen.pick("nearest", "nearest", "linear", "linear", *(["cubic"] * 4 if rank == 2 else []))
        picture = rank == 2 and pen.chance(0.35)  # images and masks, before a network or behind it
        most = 6e4 if (mode == "cubic" or rank == 3) and not picture else 2e5
        photograph = picture and mode != "cubic" and pen.chance(0.4)  # as it comes, to be made smaller
        elements = size(pen, 2e5, 3e6) if photograph else size(pen, 1e3, most)
        width = pen.pick(1, 2, 3, 3, 4) if picture else pen.width(1, 128)
        side = max(2, round((elements / width / pen.batch) ** (1 / rank)))
        x = operand(pen, pen.batch, width, *(max(1, round(side * pen.uniform(0.7, 1.4))) for _ in range(rank)))
        factors = [pen.pick(2.0, 2.0, 0.5, 4.0, pen.uniform(0.8, 1.25), pen.uniform(0.3, 3.0))] * rank
        doubled = mode == "nearest" and rank == 2 and not photograph and pen.chance(0.5)  # as exporters write it
        if doubled:
            factors = [2.0, 2.0]
        elif photograph:
            factors = [pen.uniform(0.08, 0.7)] * rank
        elif pen.chance(0.2):
            factors[-1] = pen.uniform(0.4, 2.5)
        target = [max(1, round(d * f)) for d, f in zip(pen.shape(x)[2:], factors, strict=True)]
        rule = pen.pick("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
        sizes = pen.b.const((*pen.shape(x)[:2], *target))
        attrs: dict[str, Attr] = {}
        if doubled:
            rule, attrs = "asymmetric", {"nearest_mode": "floor"}
        elif mode == "nearest":
            attrs = {"nearest_mode": pen.pick("floor", "round_prefer_floor")}
        elif rank == 2 and rule != "align_corners" and pen.chance(0.2):
            attrs = {"antialias": 1}
        made.append(pen.op("Resize", x, "", "", sizes, mode=mode, coordinate_transformation_mode=rule, **attrs))
    return answers(pen, made)


def pools(pen: Pen) -> str:
    """Windows of any size over one to three dimensions."""
    made: list[str] = []
    older = {"opset": 18} if pen.chance(0.5) and not pen.part else {}  # a file has one opset, and parts ask for others
    for _ in range(how_many(pen, 2, 5)):
        rank = pen.pick(1, 1, 2, 2, 3)
        width = pen.width(4, 512) if pen.chance(0.6) else pen.integer(1, 40)
        kernel = tuple(round(pen.log_uniform(1.6, {1: 1500, 2: 40, 3: 6}[rank])) for _ in range(rank))
        if pen.chance(0.5):  # as most are
            kernel = (pen.pick(2, 3, 3, 5),) * rank
        op_type = pen.pick("MaxPool", "MaxPool", "AveragePool", "AveragePool", "LpPool")
        fast = op_type == "MaxPool" or (op_type == "AveragePool" and bool(older))
        taps = 3e7 if fast else 9e6  # ten milliseconds, at 0.3 or 1.2 nanoseconds each
        elements = size(pen, 2e3, 2e6 if fast else 3e5) * min(1.0, taps / 3e5 / math.prod(kernel))
        side = max(round((elements / width / pen.batch) ** (1 / rank)), pen.pick(1, 1, 2) * max(kernel))
        width = max(1, min(width, round(taps / (math.prod(kernel) * side**rank))))
        x = operand(pen, pen.batch, width, *(side,) * rank)
        stride = (pen.pick(1, 2),) * rank if pen.chance(0.4) else tuple(1 if pen.chance(0.5) else k for k in kernel)
        pads = tuple((k - 1) // 2 if s == 1 else 0 for k, s in zip(kernel, stride, strict=True)) * 2
        attrs: dict[str, Attr] = {"kernel_shape": kernel, "strides": stride, "pads": pads}
        if op_type != "LpPool":
            attrs["ceil_mode"] = pen.integer(0, 1)
        if op_type == "AveragePool":
            attrs |= older
        elif op_type == "MaxPool" and pen.chance(0.15) and all(2 * k < side for k in kernel):
            attrs["dilations"] = (2,) * rank
        if op_type == "MaxPool" and pen.chance(0.4):  # with where each was found
            made.extend(pen.multi(op_type, (x,), 2, **attrs))
        else:
            made.append(pen.op(op_type, x, **attrs))
        if pen.chance(0.3):
            made.append(pen.op(pen.pick("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), x))
    return answers(pen, made)


def transposed_convolutions(pen: Pen) -> str:
    """Strides, groups and dimensions of transposed convolutions."""
    made = []
    for _ in range(pen.integer(1, 3)):
        rank = pen.pick(1, 2, 2, 2, 3)
        stride = pen.pick(1, 2, 2, 4)
        kernel = stride * pen.pick(1, 2) if pen.chance(0.7) else pen.integer(stride, stride + 3)
        cin, cout = pen.width(4, 512), pen.width(2, 256)
        if pen.chance(0.15):
            cin, cout = pen.integer(1, 8), pen.integer(1, 8)
        elif pen.chance(0.3):
            cin = cout  # each channel by itself, as learned interpolation is
        groups = math.gcd(cin, cout) if pen.chance(0.2) or cin == cout else 1
        cost = cin // groups * cout * kernel**rank
        least = pen.pick(1e3, 1e6, 1e6)  # a mask of a few pixels, or a map
        side = max(2, round(min(pen.log_uniform(least, 6e7) / cost, 4e5 / max(cin, cout)) ** (1 / rank)))
        x = pen.input(pen.batch, cin, *(side,) * rank)
        extra = max(0, kernel - stride)
        pads = (*(extra // 2,) * rank, *(extra - extra // 2,) * rank)
        operands = [x, pen.weight(cin, cout // groups, *(kernel,) * rank)]
        if pen.chance(0.7):
            operands.append(pen.weight(cout))
        pen.macs += pen.batch * side**rank * cost
        made.append(
            pen.op(
                "ConvTranspose",
                *operands,
                kernel_shape=(kernel,) * rank,
                strides=(stride,) * rank,
                pads=pads,
                group=groups,
            )
        )
    return answers(pen, made)


def _places(pen: Pen, *shape: int) -> str:
    """Where to put or to find values: constants in many models, which count as weights."""
    return (pen.b.weight if pen.chance(0.3) else pen.b.input)(shape, "int64")


def scatters(pen: Pen) -> str:
    """Values put to places: single elements, and rows."""
    made = []
    for _ in range(how_many(pen, 3, 12)):
        many = pen.chance(0.1)
        shape = any_shape(pen, pen.pick(2, 3, 4), size(pen, 1e5, 1e6) if many else size(pen, 1e3, 3e5))
        x = operand(pen, *shape)
        reduction = pen.pick("none", "none", "add", "max")
        if many:
            made.append(_written_one_by_one(pen, x, reduction))
        elif pen.chance(0.5):
            axis = pen.integer(0, len(shape) - 1)
            count = max(1, round(shape[axis] * pen.uniform(0.1, 1.0)))
            part = (*shape[:axis], count, *shape[axis + 1 :])
            places = _places(pen, *part)
            made.append(pen.op("ScatterElements", x, places, pen.input(*part), axis=axis, reduction=reduction))
        else:
            depth = pen.integer(1, len(shape))
            count = max(1, round(pen.log_uniform(1, 3e4 if depth == len(shape) else 600)))
            count = min(count, max(1, int(3e5 / max(1, math.prod(shape[depth:])))))
            places = _places(pen, count, depth)
            made.append(pen.op("ScatterND", x, places, pen.input(count, *shape[depth:]), reduction=reduction))
    return answers(pen, made)


def _written_one_by_one(pen: Pen, x: str, reduction: str) -> str:
    """A large part of ``x``, an element to each place: what assigning to a slice of a tensor is exported as."""
    shape = pen.shape(x)
    count = max(1, round(math.prod(shape) * pen.uniform(0.3, 1.0)))
    places = _places(pen, count, len(shape))
    return pen.op("ScatterND", x, places, pen.input(count), reduction=reduction)


def gathers(pen: Pen) -> str:
    """Values taken from places: single elements, rows, and along any axis."""
    made = []
    for _ in range(how_many(pen, 4, 16)):
        shape = any_shape(pen, pen.pick(2, 3, 4), size(pen, 1e2, 4e5))
        x = operand(pen, *shape)
        sort = pen.pick("Gather", "GatherElements", "GatherElements", "GatherND", "GatherND")
        axis = pen.integer(0, len(shape) - 1)
        if sort == "Gather":
            share = pen.uniform(0.1, 1.5) if pen.chance(0.7) else 0.0  # or one place, as a step of a sequence
            places = _places(pen, max(1, round(shape[axis] * share)))
            made.append(pen.op(sort, x, places, axis=axis))
        elif sort == "GatherElements":
            part = (*shape[:axis], max(1, round(shape[axis] * pen.uniform(0.1, 1.2))), *shape[axis + 1 :])
            made.append(pen.op(sort, x, _places(pen, *part), axis=axis))
        else:
            depth = pen.integer(1, len(shape))
            count = min(round(pen.log_uniform(1, 4e5)), max(1, int(4e5 / max(1, math.prod(shape[depth:])))))
            made.append(pen.op(sort, x, _places(pen, max(1, count), depth)))
    return answers(pen, made)


_MOST_TILED = 1e7
"""Elements of what is repeated along its axes, which three times along five would be hundreds of megabytes."""


_MOVES = (
    "Trilu", "Trilu", "Pad", "Pad", "Pad", "Tile", "Tile", "Expand", "Repeat", "Repeat", "OneHot", "ReverseSequence",
    "Slice", "Concat", "Depth", "Pieces", "View", "View",
)  # fmt: skip


def movements(pen: Pen) -> str:
    """What only moves or generates data."""
    made = []
    for _ in range(how_many(pen, 3, 8)):
        shape = any_shape(pen)
        rank = len(shape)
        sort = pen.pick(*_MOVES)
        x = "" if sort in ("Expand", "Repeat", "OneHot", "Depth", "Pieces") else operand(pen, *shape)
        if sort == "Trilu":
            if pen.chance(0.5):  # masks and scores: as many rows as columns
                side, many = round(size(pen, 20, 500)), pen.pick(1, 1, 4, 12)
                x = operand(pen, *(many,) * (many > 1), side, side)
            made.append(pen.op("Trilu", x, upper=pen.integer(0, 1)))
        elif sort == "Pad":
            most = pen.pick(4, 4, 0)  # or the last axis alone
            if pen.chance(0.25):  # of a few numbers each
                shape = (*shape[:-1], pen.integer(1, 12))
                x = operand(pen, *shape)
            edge = [pen.integer(0, most if axis < rank - 1 else 4) for axis in (*range(rank), *range(rank))]
            mode = pen.pick("constant", "edge", "reflect", "wrap")
            if mode in ("reflect", "wrap") and any(e >= d for e, d in zip(edge, shape * 2, strict=True)):
                mode = "edge"
            fill = (pen.scalar(0.0),) if mode == "constant" else ()
            made.append(pen.op("Pad", x, pen.b.const(edge), *fill, mode=mode))
        elif sort == "Tile" and pen.chance(0.3):  # single elements
            x = operand(pen, *shape[:-1], 1)
            often = round(pen.log_uniform(2, min(1000, max(3, _MOST_TILED / math.prod(shape[:-1])))))
            made.append(pen.op("Tile", x, pen.b.const([1] * (rank - 1) + [often])))
        elif sort == "Tile":
            times = [pen.pick(1, 1, 2, 3) for _ in shape]
            while max(times) > 1 and math.prod(shape) * math.prod(times) > _MOST_TILED:
                times[times.index(max(times))] = 1
            made.append(pen.op("Tile", x, pen.b.const(times)))
        elif sort == "Repeat":  # each of neighbours twice or more, as pixels of a map that grows
            axes = (rank - 2, rank - 1) if rank > 2 and pen.chance(0.6) else (rank - 1,)
            often = pen.integer(2, 4)
            wide = [side for axis, d in enumerate(shape) for side in ((d, often) if axis in axes else (d,))]
            before = [side for axis, d in enumerate(shape) for side in ((d, 1) if axis in axes else (d,))]
            made.append(pen.op("Expand", pen.input(*before), pen.b.const(wide)))
        elif sort == "Expand":
            small = pen.input(*(d if pen.chance(0.5) else 1 for d in shape))
            made.append(pen.op("Expand", small, pen.b.const(shape)))
        elif sort == "OneHot":
            ids = pen.b.input((max(1, shape[0]), min(shape[1], 256)), "int64")
            depth = pen.integer(2, 512)
            made.append(pen.op("OneHot", ids, pen.b.const(depth), pen.b.const((0.0, 1.0), "float32"), axis=-1))
        elif sort == "ReverseSequence" and rank > 1:
            first = pen.integer(0, 1)  # the axis of time
            lengths = pen.b.const([shape[first]] * shape[1 - first])
            made.append(pen.op("ReverseSequence", x, lengths, batch_axis=1 - first, time_axis=first))
        elif sort == "Slice":
            axis, step = pen.integer(0, rank - 1), pen.pick(1, 1, 2, 3, -1, -1, -2)
            begin, end = (shape[axis] // 4, shape[axis]) if step > 0 else (-1, -shape[axis] - 1)
            made.append(pen.slice(x, axis, begin, end, step))
        elif sort == "Depth":
            side, width = 2 * pen.integer(2, 40), 4 * pen.integer(1, 64)
            image = pen.input(pen.batch, width, side, side)
            turn = pen.pick(("SpaceToDepth", {}), ("DepthToSpace", {"mode": "DCR"}), ("DepthToSpace", {"mode": "CRD"}))
            made.append(pen.op(turn[0], image, blocksize=2, **turn[1]))
        elif sort == "Pieces":  # as what is computed step by step is taken apart and put together
            widths = (pen.integer(1, 16),) * pen.pick(4, 8, 16, 32, 64)
            long = operand(pen, shape[0], max(1, min(shape[1], 512)), sum(widths))
            made.append(pen.concat(pen.split(long, widths, axis=2)[::-1], pen.integer(1, 2)))
        elif sort == "View":  # as a result it is a copy
            made.append(pen.op("Reshape", x, pen.b.const((-1, shape[-1]))))
        else:
            axis = pen.integer(0, rank - 1)
            made.append(pen.concat([x, pen.input(*shape)], axis))
    return answers(pen, made)


def views(pen: Pen) -> str:
    """Other shapes of what the caller gave: as results of the model they are copies, from the cache where it is all."""
    made = []
    for _ in range(pen.pick(1, 1, 1, 2, 4)):
        shape = any_shape(pen, elements=size(pen, 1e2, 1.5e6))
        x = pen.input(*shape)
        sort = pen.pick("Reshape", "Flatten", "Unsqueeze", "Squeeze", "Identity")
        if sort == "Reshape":  # to another shape than it has: LiteRT leaves a result that is its input unwritten
            x = pen.op(sort, x, pen.b.const((-1, shape[-1]) if len(shape) > 2 else (-1,)))
        elif sort == "Unsqueeze":
            x = pen.op(sort, x, pen.b.const((pen.integer(0, len(shape)),)))
        elif sort == "Squeeze":
            x = pen.op(sort, pen.input(1, *shape), pen.b.const((0,)))
        else:
            x = pen.op(sort, x)
        made.append(x)
    return answers(pen, made)


def orders(pen: Pen) -> str:
    """Running sums and the largest elements: of any axis, and of long lists."""
    made = []
    lists = [(pen.batch, pen.pick(1, 1, 2, 4, 16), round(size(pen, 1e3, 1e5))) for _ in range(pen.integer(0, 2))]
    for x in (*tensors(pen, 1.5e5), *(operand(pen, *shape) for shape in lists)):
        shape = pen.shape(x)
        axis = shape.index(max(shape)) if pen.chance(0.6) else pen.integer(0, len(shape) - 1)
        if pen.chance(0.35):
            flags = {"exclusive": pen.integer(0, 1), "reverse": pen.integer(0, 1)}
            made.append(pen.op("CumSum", x, pen.b.const(axis), **flags))
        else:
            most = shape[axis] if pen.chance(0.5) else min(shape[axis], 1000)  # of few all, of many a few
            count = pen.b.const((max(1, round(pen.log_uniform(1, most))),))
            flags = {"largest": pen.integer(0, 1), "sorted": int(pen.chance(0.7))}
            made.extend(pen.multi("TopK", (x, count), 2, axis=axis, **flags))
    return answers(pen, made)


SAMPLINGS = (
    "GridSample linear", "GridSample linear", "GridSample linear", "GridSample nearest", "GridSample cubic",
    "RoiAlign avg", "RoiAlign max", "DeformConv", "AffineGrid",
)  # fmt: skip


def samplings(pen: Pen) -> str:
    """Images read between their pixels: grids, regions, deformed kernels."""
    made = []
    for op_type, _, mode in (name.partition(" ") for name in some_of(pen, SAMPLINGS, 6)):
        width = pen.pick(1, 2, 3) if pen.chance(0.2) else pen.width(3, 128)  # images and flows, or maps
        sampled = op_type == "GridSample"
        most = {"linear": 4e5, "nearest": 4e5, "cubic": 1.5e5}[mode] if sampled else 8e4
        rank = 3 if sampled and mode != "cubic" and pen.chance(0.2) else 2
        side = max(4, round((size(pen, 1e3, most) / width / pen.batch) ** (1 / rank)))
        x = operand(pen, pen.batch, width, *(side,) * rank)
        if sampled:
            out = max(2, round(side * pen.uniform(0.5, 1.5)))
            grid = pen.input(pen.batch, *(out,) * rank, rank)
            beyond = pen.pick("zeros", "zeros", "border", "reflection")
            aligned = pen.integer(0, 1)
            made.append(pen.op(op_type, x, grid, mode=mode, padding_mode=beyond, align_corners=aligned))
        elif op_type == "RoiAlign":
            regions = pen.integer(1, 64)
            boxes = pen.op("Abs", pen.op("Mul", pen.input(regions, 4), pen.scalar(side / 3)))
            owners = pen.b.const([0] * regions)
            bins = pen.pick(2, 3, 7, 14)
            attrs = {"output_height": bins, "output_width": bins, "sampling_ratio": pen.pick(1, 2, 4)}
            made.append(pen.op(op_type, x, boxes, owners, mode=mode, **attrs))
        elif op_type == "DeformConv":
            cout = pen.width(4, 64)
            offsets = pen.input(pen.batch, 18, side, side)
            weight = pen.weight(cout, width, 3, 3)
            made.append(pen.op(op_type, x, weight, offsets, kernel_shape=(3, 3), pads=(1, 1, 1, 1)))
            pen.macs += math.prod(pen.shape(x)) * cout * 9
        else:
            theta = pen.input(pen.batch, 2, 3)
            made.append(pen.op(op_type, theta, pen.b.const((pen.batch, width, side, side))))
    return answers(pen, made)


def spectra(pen: Pen) -> str:
    """Fourier transforms."""
    made = []
    for _ in range(pen.integer(1, 4)):
        if pen.chance(0.5):
            length = pen.pick(128, 256, 400, 512, 1000, 1024)
            x = pen.input(pen.batch, max(1, round(size(pen, 1e3, 1e5) / length)), length, 1)
            one_sided = pen.integer(0, 1)
            made.append(pen.op("DFT", x, "", pen.b.const(2), onesided=one_sided, inverse=0))
        else:
            frame = pen.pick(256, 400, 512)
            hop = frame // pen.pick(2, 4)
            signal = pen.input(pen.batch, round(pen.log_uniform(2 * frame, 3e4)), 1)
            window = pen.weight(frame)
            made.append(pen.op("STFT", signal, pen.b.const(hop), window, pen.b.const(frame), onesided=1))
    return answers(pen, made)
