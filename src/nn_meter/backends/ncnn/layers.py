"""Layers: convolutions, products, pools, normalisations: a row each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from types import MappingProxyType

import numpy as np

from nn_meter.backends.ncnn.model import MOST_AXES, Blob, Dims, Values
from nn_meter.backends.ncnn.site import Row, Site
from nn_meter.backends.site import Window, scaled

_DIMENSIONS: Mapping[int, str] = MappingProxyType({1: "1D", 2: "", 3: "3D"})
"""What the name of a layer ends with, by its spatial axes."""
_BEFORE, _BEHIND = (4, 14, 24), (15, 16, 17)
"""Parameters of padding: left, top, front; right, bottom, behind."""


def _over(values: Sequence[int], first: int) -> dict[int, Values]:
    """Parameters for each spatial axis, the last axis first."""
    return {first + 10 * i: each for i, each in enumerate(reversed(values))}


def _window(window: Window) -> dict[int, Values]:
    return {
        **_over(window.kernel, 1),
        **_over(window.dilations, 2),
        **_over(window.strides, 3),
        **dict(zip(_BEFORE, reversed(window.before), strict=False)),
        **dict(zip(_BEHIND, reversed(window.behind), strict=False)),
    }


def _conv(site: Site) -> None:
    weight = site.weights(1)
    bias = site.weights(2) if site.has(2) else np.zeros(weight.shape[0], np.float32)
    given = bias.any() or site.follower("BatchNormalization") is not None
    window, group, spatial = Window(site, weight.shape[2:]), int(site.number("group", 1)), weight.ndim - 2
    weight, bias = scaled(site, weight, bias, "BatchNormalization")
    activation = site.activation()
    before, behind, nodes = site.file.pads.pop(site.inputs[0], ((0,) * spatial, (0,) * spatial, ()))
    window.before = tuple(a + b for a, b in zip(window.before, before, strict=True))
    window.behind = tuple(a + b for a, b in zip(window.behind, behind, strict=True))
    site.file.nodes = (*nodes, *site.file.nodes)
    pixel = site.raw(0)
    alone = spatial == 2 and set(weight.shape[2:]) == {1} and pixel.dims == (site.shape_of(0)[1],) and group == 1
    if alone:  # as the converter does: one pixel is a vector
        _dense(site, pixel, weight.reshape(len(weight), -1), bias if given else None, activation)
        return
    source = pixel if nodes else site.image()
    parameters: dict[int, Values] = {
        0: len(weight), **_window(window), 5: int(given), 6: weight.size, **activation,
        **({7: group} if group > 1 else {}),
    }  # fmt: skip
    kind = f"Convolution{'DepthWise' if group > 1 else ''}{_DIMENSIONS[spatial]}"
    weights = (weight, bias) if given else (weight,)
    site.give(site.file.layer(kind, (source,), site.dims, parameters, weights, tagged=True))


def _conv_transpose(site: Site) -> None:
    weight, group = site.weights(1), int(site.number("group", 1))
    spatial, channels = weight.ndim - 2, weight.shape[1] * int(site.number("group", 1))
    if spatial != 2 or site.text("auto_pad", "NOTSET").startswith("SAME"):
        raise NotImplementedError("of other than two spatial axes, or padded to a size")
    window = Window(site, weight.shape[2:])
    bias = site.weights(2) if site.has(2) else np.zeros(channels, np.float32)
    apart = weight.reshape(group, weight.shape[0] // group, *weight.shape[1:])
    turned = apart.transpose(0, 2, 1, 3, 4).reshape(channels, -1, *weight.shape[2:])
    turned, bias = scaled(site, turned, bias, "BatchNormalization")
    more = site.numbers("output_padding", (0,) * spatial)
    parameters: dict[int, Values] = {
        0: channels, **_window(window), 18: more[-1], 19: more[0], 5: 1, 6: turned.size, **site.activation(),
        **({7: group} if group > 1 else {}),
    }  # fmt: skip
    kind = f"Deconvolution{'DepthWise' if group > 1 else ''}"
    site.give(site.file.layer(kind, (site.image(),), site.dims, parameters, (turned, bias), tagged=True))


def _pool(average: int) -> Row:
    def row(site: Site) -> None:
        kernel = site.numbers("kernel_shape", ())
        if len(kernel) not in _DIMENSIONS or len([each for each in site.outputs if each]) > 1:
            raise NotImplementedError("with indices")
        window = Window(site, kernel)
        if any(each != 1 for each in window.dilations):
            raise NotImplementedError("with dilations")
        parameters: dict[int, Values] = {
            0: average, **_over(kernel, 1), **_over(window.strides, 2),
            **dict(zip((3, 13, 23), reversed(window.before), strict=False)),
            **dict(zip((14, 15, 16), reversed(window.behind), strict=False)),
            5: 0 if site.flag("ceil_mode") else 1, 6: int(site.flag("count_include_pad")),
        }  # fmt: skip
        kind = f"Pooling{_DIMENSIONS[len(kernel)]}"
        site.give(site.file.layer(kind, (site.image(),), site.dims, parameters))

    return row


def _over_space(average: int) -> Row:
    def row(site: Site) -> None:
        source = site.image()
        kind = f"Pooling{_DIMENSIONS[len(source.dims) - 1]}"
        site.give(site.file.layer(kind, (source,), source.dims[:1], {0: average, 4: 1}))

    return row


def _product(site: Site) -> None:
    weight = site.constant(1)
    if weight is not None and weight.ndim == 2 and len(site.shape_of(0)) > 1:
        _linear(site, weight.T, np.zeros(weight.shape[1], np.float32), "Add")
        return
    if min(len(site.shape_of(0)), len(site.shape_of(1))) < 2:
        raise NotImplementedError("of a vector")
    first, second = (site.file.get(name, _of_product(site, i)) for i, name in enumerate(site.inputs))
    dims = (*np.broadcast_shapes(first.dims[:-2], second.dims[:-2]), first.dims[-2], second.dims[-1])
    site.give(site.file.shaped(site.file.layer("MatMul", (first, second), dims), site.dims))


def _of_product(site: Site, position: int) -> Dims:
    """The sizes of an operand of a product: its last two axes, behind those that the result has before its own."""
    made, shape = site.shape, site.shape_of(position)
    whole = (1,) * (len(made) - len(shape)) + shape
    axes = [axis for axis in range(len(made) - 2) if made[axis] > 1]
    if len(axes) > MOST_AXES - 2:
        raise NotImplementedError("of more than four axes")
    return (*(whole[axis] for axis in axes), *whole[-2:])


def _gemm(site: Site) -> None:
    weight, alpha, beta = site.constant(1), site.number("alpha", 1.0), site.number("beta", 1.0)
    third = site.constant(2)
    computed = site.has(2) and (third is None or third.size not in (1, site.shape[-1]))
    if weight is None or computed or site.flag("transA"):
        raise NotImplementedError("of operands that are computed")
    weight = alpha * (weight if site.flag("transB") else weight.T)
    bias = np.zeros(len(weight)) if third is None else np.broadcast_to(beta * third.reshape(-1), (len(weight),))
    _linear(site, weight, bias)


def _linear(site: Site, weight: np.ndarray, bias: np.ndarray, *added: str) -> None:
    """A layer of vectors, or of the rows of a matrix: what has more axes is one matrix for it."""
    reader = site.follower(*added) if added else None
    given = bool(bias.any()) or reader is not None or site.follower("BatchNormalization") is not None
    if reader is not None:
        weight, bias = scaled(site, weight, bias, *added)
    weight, bias = scaled(site, weight, bias, "BatchNormalization")
    activation = site.activation()
    rows, size = prod(site.shape_of(0)[:-1]), weight.shape[1]
    source = site.file.shaped(site.raw(0), (size,) if rows == 1 and len(site.dims) == 1 else (rows, size))
    made = _dense(site, source, weight, bias if given else None, activation)
    site.give(site.file.shaped(made, site.dims))


def _dense(
    site: Site, source: Blob, weight: np.ndarray, bias: np.ndarray | None, activation: Mapping[int, Values]
) -> Blob:
    """An InnerProduct of a vector, or of each row of a matrix; the first output is what it gives."""
    parameters: dict[int, Values] = {0: len(weight), 1: int(bias is not None), 2: weight.size, **activation}
    weights = (weight,) if bias is None else (weight, bias)
    dims = (*source.dims[:-1], len(weight))
    made = site.file.layer("InnerProduct", (source,), dims, parameters, weights, tagged=True)
    site.give(made)
    return made


def _batch_norm(site: Site) -> None:
    gamma, beta, mean, variance = (site.weights(place) for place in range(1, 5))
    epsilon = float(site.number("epsilon", 1e-5))
    if len(site.shape_of(0)) == 2 and site.shape_of(0)[0] > 1:  # rows, whose channels are the inner axis
        factor = gamma / np.sqrt(variance + epsilon)
        made = site.get(0)
        for number, each in ((2, factor), (0, beta - mean * factor)):
            made = site.file.layer("BinaryOp", (made, site.file.constant(each[None])), made.dims, {0: number})
        site.give(made)
        return
    source = site.image()
    parameters: dict[int, Values] = {0: len(gamma), 1: epsilon}
    site.give(site.file.layer("BatchNorm", (source,), source.dims, parameters, (gamma, mean, variance, beta)))


def _layer_norm(kind: str) -> Row:
    def row(site: Site) -> None:
        if len([each for each in site.outputs if each]) > 1:
            raise NotImplementedError("with its statistics")
        source, size = site.get(0), prod(site.shape_of(0)[site.axis(-1) :])
        if len(site.shape_of(0)) - site.axis(-1) > 1 and size not in (source.dims[-1], prod(source.dims[-2:])):
            raise NotImplementedError("over more than two axes")
        weights = [np.broadcast_to(site.weights(1), site.shape_of(0)[site.axis(-1) :]).reshape(-1)]
        if kind == "LayerNorm":
            weights.append(site.weights(2).reshape(-1) if site.has(2) else np.zeros(size, np.float32))
        parameters: dict[int, Values] = {0: size, 1: float(site.number("epsilon", 1e-5)), 2: 1}
        site.give(site.file.layer(kind, (source,), source.dims, parameters, weights))

    return row


def _instance_norm(site: Site) -> None:
    channels, *spatial = site.image().dims
    source = site.file.shaped(site.image(), (channels, 1, *spatial) if len(spatial) == 1 else site.dims)
    parameters: dict[int, Values] = {0: channels, 1: float(site.number("epsilon", 1e-5)), 2: 1}
    made = site.file.layer("InstanceNorm", (source,), source.dims, parameters, (site.weights(1), site.weights(2)))
    site.give(site.file.shaped(made, site.dims))


def _group_norm(site: Site) -> None:
    source, gamma, beta = site.image(), site.weights(1), site.weights(2)
    channels, groups = source.dims[0], int(site.number("num_groups", 1))
    weights = [np.repeat(each, channels // len(each)) for each in (gamma, beta)]
    parameters: dict[int, Values] = {0: groups, 1: channels, 2: float(site.number("epsilon", 1e-5)), 3: 1}
    site.give(site.file.layer("GroupNorm", (source,), source.dims, parameters, weights))


def _local_norm(site: Site) -> None:
    source = site.image()
    parameters: dict[int, Values] = {
        0: 0, 1: int(site.number("size", 1)), 2: float(site.number("alpha", 1e-4)),
        3: float(site.number("beta", 0.75)), 4: float(site.number("bias", 1.0)),
    }  # fmt: skip
    site.give(site.file.layer("LRN", (source,), source.dims, parameters))


def together(site: Site, position: int) -> Blob:
    """An operand with as many axes as the result, so that sizes of 1 are broadcast."""
    name, dims = site.inputs[position], site.wide(position)
    if site.file.known(name) is None:
        lying = site.file.raw(name)
        if len(lying.dims) == 1 < len(site.dims) and dims == (*lying.dims, *(1,) * (len(site.dims) - 1)):
            return lying  # a value for each channel
    return site.file.get(name, dims)


ROWS: Mapping[str, Row] = MappingProxyType(
    {
        "AveragePool": _pool(1),
        "BatchNormalization": _batch_norm,
        "Conv": _conv,
        "ConvTranspose": _conv_transpose,
        "Gemm": _gemm,
        "GlobalAveragePool": _over_space(1),
        "GlobalMaxPool": _over_space(0),
        "GroupNormalization": _group_norm,
        "InstanceNormalization": _instance_norm,
        "LRN": _local_norm,
        "LayerNormalization": _layer_norm("LayerNorm"),
        "MatMul": _product,
        "MaxPool": _pool(0),
        "SimplifiedLayerNormalization": _layer_norm("RMSNorm"),
    }
)
"""Operator to its row."""
