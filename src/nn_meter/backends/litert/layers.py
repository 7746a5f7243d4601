"""Layers: convolutions, products, pools, normalisations: a row each. Their images have the channels last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from types import MappingProxyType

import numpy as np

from nn_meter.backends.litert.model import Stored
from nn_meter.backends.litert.site import Row, Site
from nn_meter.backends.site import Window, scaled
from nn_meter.runtimes.litert import channels_last

_SCALING = ("BatchNormalization", "Add", "Sub", "Mul", "Div")
"""What is folded into the weights of a layer before it."""
_LOWEST = float(np.finfo(np.float32).min)


def _padded(
    site: Site, source: Stored, window: Window, fill: float | None = None, counted: bool = False
) -> tuple[Stored, str]:
    """What a window goes over, and how TFLite is to pad: what is neither ``SAME`` nor nothing stands before, as does
    what is to be ``counted`` as elements."""
    if not any((*window.before, *window.missing)):
        return source, "VALID"
    if window.same and not counted:
        return source, "SAME"
    pads = np.array([(0, 0), *zip(window.before, window.missing, strict=True), (0, 0)], np.int32)
    shape = [size + int(sum(pair)) for size, pair in zip(source.shape, pads, strict=True)]
    operands = [source, site.file.constant(pads)]
    if fill is None:
        return site.file.op("PAD", operands, shape), "VALID"
    return site.file.op("PADV2", [*operands, site.file.constant(np.float32(fill))], shape), "VALID"


def _conv(site: Site) -> None:
    file = site.file
    weight = site.weights(1)
    bias = site.weights(2) if site.has(2) else np.zeros(weight.shape[0], np.float32)
    window, group, rank = Window(site, weight.shape[2:]), int(site.number("group", 1)), weight.ndim
    weight, bias = scaled(site, weight, bias, *_SCALING)
    activation = site.activation()
    source = site.get(0, channels_last(rank))
    if rank > 4 and group > 1:
        raise NotImplementedError(f"of {rank - 2} spatial axes in groups")
    source, padding = _padded(site, source, window)
    strides, dilations, kernel = window.strides, window.dilations, weight
    made = (site.shape[0], *site.shape[2:], site.shape[1])
    if rank == 3:  # of one spatial axis: an image of one row
        source = file.shaped(source, (source.shape[0], 1, *source.shape[1:]))
        kernel, strides, dilations = kernel[:, :, None], (1, *strides), (1, *dilations)
    options = {
        "padding": file.enum("Padding", padding),
        "strideH": strides[-2],
        "strideW": strides[-1],
        "dilationHFactor": dilations[-2],
        "dilationWFactor": dilations[-1],
        "fusedActivationFunction": activation,
    }
    shape = made if rank != 3 else (made[0], 1, *made[1:])
    offsets = file.constant(bias)
    if rank == 5:
        weights = file.constant(kernel.transpose(2, 3, 4, 1, 0))
        deep = {"strideD": strides[0], "dilationDFactor": dilations[0]}
        stored = file.op("CONV_3D", [source, weights, offsets], shape, **options, **deep)
    elif group > 1 and group == source.shape[-1]:
        weights = file.constant(kernel.reshape(kernel.shape[0], *kernel.shape[2:]).transpose(1, 2, 0)[None])
        options["depthMultiplier"] = kernel.shape[0] // group
        stored = file.op("DEPTHWISE_CONV_2D", [source, weights, offsets], shape, **options)
    else:
        stored = file.op("CONV_2D", [source, file.constant(kernel.transpose(0, 2, 3, 1)), offsets], shape, **options)
    site.give(file.shaped(stored, made), channels_last(rank))


def _conv_transpose(site: Site) -> None:
    file = site.file
    weight = site.weights(1)
    if weight.ndim != 4 or site.number("group", 1) != 1:
        raise NotImplementedError("in groups, or of other than two spatial axes")
    window, channels = Window(site, weight.shape[2:]), weight.shape[1]
    if any(each != 1 for each in window.dilations):
        raise NotImplementedError("with dilations")
    bias = site.weights(2) if site.has(2) else np.zeros(channels, np.float32)
    turned, bias = scaled(site, weight.transpose(1, 2, 3, 0), bias, *_SCALING)
    activation = site.activation()
    n, _, *made = site.shape
    axes = list(zip(window.size, window.strides, window.kernel, strict=True))
    whole = [(size - 1) * s + k for size, s, k in axes]
    total = [max(0, (size - 1) * s + k - size * s) for size, s, k in axes]
    same = made == [size * s for size, s, _ in axes] and list(window.before) == [each // 2 for each in total]
    shape = [n, *(made if same else [max(a, b + less) for a, b, less in zip(whole, made, window.before, strict=True)])]
    shape.append(channels)
    operands = [file.constant(shape), file.constant(turned), site.get(0, channels_last(4)), file.constant(bias)]
    stored = file.op(
        "TRANSPOSE_CONV",
        operands,
        shape,
        "float32",
        padding=file.enum("Padding", "SAME" if same else "VALID"),
        strideH=window.strides[0],
        strideW=window.strides[1],
        fusedActivationFunction=activation,
    )
    if shape[1:3] != made:
        starts = file.constant([0, *window.before, 0])
        stored = file.op("SLICE", [stored, starts, file.constant([n, *made, channels])], (n, *made, channels))
    site.give(stored, channels_last(4))


def _pool(code: str) -> Row:
    def row(site: Site) -> None:
        file = site.file
        kernel = site.numbers("kernel_shape", ())
        rank = len(kernel) + 2
        if rank > 4 or len([each for each in site.outputs if each]) > 1:
            raise NotImplementedError("of three axes, or with indices")
        window = Window(site, kernel)
        if any(each != 1 for each in window.dilations):
            raise NotImplementedError("with dilations")
        fill = _LOWEST if code == "MAX_POOL_2D" else None
        counted = fill is None and site.flag("count_include_pad")
        counts = _counts(window) if fill is None and not counted and not window.same else None
        source, padding = _padded(site, site.get(0, channels_last(rank)), window, fill, counted)
        n, c, *made = site.shape
        wide = (1,) * (4 - rank)  # an image of one row where there is one spatial axis
        pooled = file.op(
            code,
            [file.shaped(source, (n, *wide, *source.shape[1:]))],
            (n, *wide, *made, c),
            padding=file.enum("Padding", padding),
            strideH=(*wide, *window.strides)[0],
            strideW=window.strides[-1],
            filterHeight=(*wide, *kernel)[0],
            filterWidth=kernel[-1],
        )
        pooled = file.shaped(pooled, (n, *made, c))
        if counts is not None and (counts != 1).any():
            pooled = file.op("MUL", [pooled, file.constant(counts[..., None])], pooled.shape)
        site.give(pooled, channels_last(rank))

    return row


def _counts(window: Window) -> np.ndarray:
    """What an average over padding is multiplied by where padding is not to count, of the spatial shape."""
    factor = np.ones((), np.float32)
    axes = zip(window.made, window.strides, window.kernel, window.size, window.before, strict=True)
    for made, stride, kernel, size, less in axes:
        starts = np.arange(made) * stride - less
        there = np.minimum(starts + kernel, size) - np.maximum(starts, 0)
        factor = np.multiply.outer(factor, (kernel / there).astype(np.float32))
    return factor


def _over_space(code: str) -> Row:
    def row(site: Site) -> None:
        rank = len(site.shape_of(0))
        source = site.get(0, channels_last(rank))
        axes = site.file.constant(list(range(1, rank - 1)))
        shape = (source.shape[0], *(1,) * (rank - 2), source.shape[-1])
        site.give(site.file.op(code, [source, axes], shape, keepDims=True), channels_last(rank))

    return row


def _product(site: Site) -> None:
    """Of constant weights it is a layer, which keeps them outputs first and takes bias and activation."""
    weight = site.constant(1)
    if weight is None or weight.ndim != 2 or len(site.shape_of(0)) < 2 or site.op.op_type == "Gemm":
        _matrix_product(site)
    else:
        _fully_connected(site, site.plainly(0), weight.astype(np.float32).T)


def _fully_connected(site: Site, source: Stored, weight: np.ndarray, bias: np.ndarray | None = None) -> None:
    file = site.file
    weight, bias = scaled(site, weight, np.zeros(len(weight), np.float32) if bias is None else bias, *_SCALING)
    activation = site.activation()
    operands = [source, file.constant(weight)]
    if bias.any():
        operands.append(file.constant(bias))
    options = {"keepNumDims": len(source.shape) > 2, "fusedActivationFunction": activation}
    site.give(file.op("FULLY_CONNECTED", operands, (*source.shape[:-1], len(weight)), **options))


def _gemm(site: Site) -> None:
    file = site.file
    weight, alpha, beta = site.constant(1), site.number("alpha", 1.0), site.number("beta", 1.0)
    source = site.plainly(0)
    if site.flag("transA"):
        source = file.turned(source, (1, 0))
    third = site.constant(2)
    if weight is None or (site.has(2) and (third is None or third.size not in (1, site.shape[-1]))):
        if alpha != 1 or beta != 1:
            raise NotImplementedError("of computed operands, scaled")
        made = file.op("BATCH_MATMUL", [source, site.plainly(1)], site.shape, adjX=False, adjY=site.flag("transB"))
        if site.has(2):
            made = file.op("ADD", [made, site.plainly(2)], site.shape)
        site.give(made)
        return
    weight = alpha * (weight if site.flag("transB") else weight.T).astype(np.float32)
    bias = None if third is None else np.broadcast_to(beta * third.reshape(-1), (len(weight),)).astype(np.float32)
    _fully_connected(site, source, weight, bias)


def _matrix_product(site: Site) -> None:
    file = site.file
    first, second = site.plainly(0), site.plainly(1)
    a, b, made = first.shape, second.shape, site.shape
    if min(len(a), len(b)) < 2:
        raise NotImplementedError("of a vector")
    if max(len(a), len(b)) > 4:
        if a[:-2] != b[:-2]:
            raise NotImplementedError("of more than four axes, not all of one size")
        batch = prod(a[:-2])
        first, second = file.shaped(first, (batch, *a[-2:])), file.shaped(second, (batch, *b[-2:]))
        made = (batch, *made[-2:])
    stored = file.op("BATCH_MATMUL", [first, second], made, adjX=False, adjY=False)
    site.give(file.shaped(stored, site.shape))


def _batch_norm(site: Site) -> None:
    """By itself: multiplied and added."""
    gamma, beta, mean, variance = (site.weights(place) for place in range(1, 5))
    factor = gamma / np.sqrt(variance + site.number("epsilon", 1e-5))
    offset = (beta - mean * factor).astype(np.float32)
    rank = len(site.shape)
    order = channels_last(rank)
    source = site.get(0, order)
    made = site.file.op("MUL", [source, site.file.constant(factor.astype(np.float32))], source.shape)
    site.give(site.file.op("ADD", [made, site.file.constant(offset)], source.shape), order)


def _normalised(
    site: Site, source: Stored, axes: Sequence[int], weight: Stored | None, bias: Stored | None, centred: bool = True
) -> Stored:
    """As TensorFlow spells it: moments over ``axes`` of what is stored, then what each element becomes by them."""
    file, shape = site.file, source.shape
    over, narrow = file.constant(list(axes)), [1 if i in axes else n for i, n in enumerate(shape)]
    epsilon = file.constant(np.float32(site.number("epsilon", 1e-5)))
    if centred:
        mean = file.op("MEAN", [source, over], narrow, keepDims=True)
        squares = file.op("SQUARED_DIFFERENCE", [source, mean], shape)
        source = file.op("SUB", [source, mean], shape)
    else:
        squares = file.op("SQUARE", [source], shape)
    variance = file.op("MEAN", [squares, over], narrow, keepDims=True)
    scale = file.op("RSQRT", [file.op("ADD", [variance, epsilon], narrow)], narrow)
    made = file.op("MUL", [source, scale], shape)
    if weight is not None:
        made = file.op("MUL", [made, weight], shape)
    return made if bias is None else file.op("ADD", [made, bias], shape)


def _layer_norm(centred: bool) -> Row:
    def row(site: Site) -> None:
        rank = len(site.shape_of(0))
        axes = range(int(site.number("axis", -1)) % rank, rank)
        weight, bias = (site.plainly(place) if site.has(place) else None for place in (1, 2))
        site.give(_normalised(site, site.plainly(0), axes, weight, bias, centred))

    return row


def _instance_norm(site: Site) -> None:
    order = channels_last(len(site.shape))
    source, weight, bias = site.get(0, order), site.plainly(1), site.plainly(2)
    site.give(_normalised(site, source, range(1, len(order) - 1), weight, bias), order)


def _group_norm(site: Site) -> None:
    file, order = site.file, channels_last(len(site.shape))
    source, groups = site.get(0, order), int(site.number("num_groups", 1))
    *outer, channels = source.shape
    parted = file.shaped(source, (*outer, groups, channels // groups))
    rank = len(parted.shape)

    def each(position: int) -> Stored:
        values = site.weights(position)
        wide = values if len(values) == channels else values.repeat(channels // groups)
        return file.constant(wide.reshape(groups, -1))

    made = _normalised(site, parted, [*range(1, rank - 2), rank - 1], each(1), each(2))
    site.give(file.shaped(made, source.shape), order)


def _mean_variance_norm(site: Site) -> None:
    order = channels_last(len(site.shape))
    axes = [order.index(axis) for axis in site.numbers("axes", (0, 2, 3))]
    site.give(_normalised(site, site.get(0, order), axes, None, None), order)


def _lrn(site: Site) -> None:
    size = int(site.number("size", 1))
    if size % 2 == 0:
        raise NotImplementedError(f"over {size} channels")
    order = channels_last(len(site.shape))
    source = site.get(0, order)
    options = {"radius": size // 2, "bias": site.number("bias", 1.0), "beta": site.number("beta", 0.75)}
    alpha = site.number("alpha", 1e-4) / size
    site.give(site.file.op("LOCAL_RESPONSE_NORMALIZATION", [source], source.shape, alpha=alpha, **options), order)


ROWS: Mapping[str, Row] = MappingProxyType(
    {
        "AveragePool": _pool("AVERAGE_POOL_2D"),
        "BatchNormalization": _batch_norm,
        "Conv": _conv,
        "ConvTranspose": _conv_transpose,
        "Gemm": _gemm,
        "GlobalAveragePool": _over_space("MEAN"),
        "GlobalMaxPool": _over_space("REDUCE_MAX"),
        "GroupNormalization": _group_norm,
        "InstanceNormalization": _instance_norm,
        "LRN": _lrn,
        "LayerNormalization": _layer_norm(True),
        "MatMul": _product,
        "MaxPool": _pool("MAX_POOL_2D"),
        "MeanVarianceNormalization": _mean_variance_norm,
        "RMSNormalization": _layer_norm(False),
        "SimplifiedLayerNormalization": _layer_norm(False),
    }
)
"""Operator to its row."""
