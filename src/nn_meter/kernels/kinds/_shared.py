"""What several families of kinds share: activations that are fused, layouts, sizes in words, draws."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import ceil
from types import MappingProxyType
from typing import Any

import numpy as np

from nn_meter.ir import GraphBuilder
from nn_meter.kernels.partition import Shape
from nn_meter.kernels.schema import Category, Column, OnDevice, Operator, Speeds, Work, item_bytes

ACTIVATIONS: Mapping[str, str] = MappingProxyType(
    {
        "Relu": "relu",
        "Clip": "clip",
        "Sigmoid": "sigmoid",
        "Tanh": "tanh",
        "LeakyRelu": "leakyrelu",
        "HardSigmoid": "hardsigmoid",
        "HardSwish": "hardswish",
    }
)
"""Activation operators that runtimes fuse into the kernel before them, and how a config calls them."""

_NAMES = (
    *("relu", "clip", "leakyrelu", "hardsigmoid", "hardswish", "sigmoid", "tanh", "swish", "gelu"),
    *("elu", "selu", "softplus", "softsign", "thresholdedrelu"),
)

OP = Category("op", lambda c: c.op)
WAY = Category("way", lambda c: c.way)
LAYOUT = Category("layout", lambda c: c.layout)
ACTIVATION = Category("activation", lambda c: activation(c.fused))
DTYPE = Category("dtype", lambda c: c.dtype)
ITEM_BYTES = Column("item_bytes", lambda c: item_bytes(c.dtype))


TILES = ((128, 128), (64, 128), (128, 64), (64, 64), (128, 32), (32, 128), (32, 32))
"""Rows and columns of a product that one group of threads computes in libraries for GPUs; which of them is theirs to
choose."""

Product = tuple[int, int, int]
"""Products, rows and columns of each."""


def tiled(product: Callable[[Any], Product]) -> tuple[OnDevice, ...]:
    """How a device's processors share a matrix product, for each size of tile: how often each gets one, and how much of
    what all compute until the last is done belongs to the result (Lee et al., NeuSight, ASPLOS 2025)."""

    def on(a: int, b: int) -> tuple[OnDevice, OnDevice]:
        def rounds(config: Any, speeds: Speeds) -> float:
            batch, rows, columns = product(config)
            return batch * ceil(rows / a) * ceil(columns / b) / max(speeds.processors, 1)

        def share(config: Any, speeds: Speeds) -> float:
            batch, rows, columns = product(config)
            computed = ceil(rounds(config, speeds)) * max(speeds.processors, 1) * a * b
            return batch * rows * columns / max(computed, 1)

        return OnDevice(f"rounds_{a}x{b}", rounds), OnDevice(f"share_{a}x{b}", share)

    return tuple(column for tile in TILES for column in on(*tile))


def chosen(product: Callable[[Any], Product], depth: Callable[[Any], int]) -> tuple[OnDevice, ...]:
    """What a library's choice of a tile was seen to hang on: what each computes at a product's edges beside 64 x 64,
    and how much of the last 64 along the summed axis there is. On a Tesla P4 cuBLAS takes 32 x 128 for nine in ten
    large products where that pads no more and the summed axis has an odd number of 32, for one in twenty where it pads
    more and the number is even (by its kernels' names in NeuSight's tables)."""

    def computed(config: Any, a: int, b: int) -> int:
        _, rows, columns = product(config)
        return ceil(rows / a) * a * ceil(columns / b) * b

    def beside(a: int, b: int) -> OnDevice:
        return OnDevice(f"padded_{a}x{b}", lambda c, _: computed(c, 64, 64) / computed(c, a, b))

    return (
        *(beside(*tile) for tile in TILES if tile != (64, 64)),
        OnDevice("last_of_depth", lambda c, _: (depth(c) - 1) % 64 + 1),
    )


def cached(work: Callable[[Any], Work]) -> OnDevice:
    """How often what a kernel reads and writes would fill the device's last cache."""
    return OnDevice("cached", lambda c, speeds: work(c).bytes / max(speeds.cache_bytes, 1.0))


def aligned(name: str, size: Callable[[Any], int]) -> OnDevice:
    """Whether a size lets threads load four elements at once."""
    return OnDevice(f"aligned_{name}", lambda c, _: size(c) % 4 == 0)


def activation(fused: Sequence[str]) -> str:
    """The activation among what is fused, ``none`` where there is none."""
    return next((name for name in _NAMES if name in fused), "none")


def activate(b: GraphBuilder, x: str, fused: Sequence[str]) -> str:
    """``x`` behind the activation that is fused."""
    for op_type, name in ACTIVATIONS.items():
        if name in fused:
            if op_type == "Clip":
                return b.op("Clip", x, b.const(0.0, "float32"), b.const(6.0, "float32"))
            return b.op(op_type, x)
    return x


def blocked(b: GraphBuilder, x: str) -> str:
    """``x`` behind an operator that leaves it in blocks of channels: a pooling of single elements."""
    return b.op("MaxPool", x, kernel_shape=(1,) * (len(b.shape(x)) - 2))


def halves(pads: Iterable[int]) -> Shape:
    """ONNX's ``pads`` of what is padded in all along each axis, the larger half behind."""
    all_ = tuple(pads)
    before = tuple(p // 2 for p in all_)
    return (*before, *(p - q for p, q in zip(all_, before, strict=True)))


def pads_between(size: Shape, out: Shape, kernel: Shape, strides: Shape, dilations: Shape) -> Shape:
    """ONNX's ``pads`` that let a window over ``size`` give ``out``."""
    rows = zip(size, out, kernel, strides, dilations, strict=True)
    return halves(max(0, (o - 1) * s + d * (k - 1) + 1 - i) for i, o, k, s, d in rows)


def inside(size: Shape, out: Shape, kernel: Shape, strides: Shape, dilations: Shape) -> float:
    """Share of a window's elements that lie inside the image, over all places, padding halved between both ends."""
    pads, share = pads_between(size, out, kernel, strides, dilations), 1.0
    rows = zip(size, out, kernel, strides, dilations, pads[: len(size)], strict=True)
    for i, o, k, s, d, before in rows:
        apart = max(d, 1)
        begin, end = max(0, -(-(before - (o - 1) * s) // apart)), min(k, (before + i - 1) // apart + 1)  # ever inside
        step, hits = 1 + max(0, end - begin) // _TAPS, 0
        for tap in range(begin, end, step):
            first = before - tap * d  # the smallest place times stride that is inside
            low, high = max(0, -(-first // s)), min(o - 1, (i - 1 + first) // s)
            hits += max(0, high - low + 1)
        share *= hits * step / max(1, o * k)
    return share


_TAPS = 100_000
"""Of a window that is longer (a file may say 2**62) some are looked at, as far apart as another."""


def times(shape: Sequence[int]) -> str:
    """``3x224x224``."""
    return "x".join(map(str, shape)) or "scalar"


def some(rng: np.random.Generator, low: int, high: int) -> int:
    """A whole number between ``low`` and ``high``, both included, small ones as often as large ones."""
    return min(high, int(np.exp(rng.uniform(np.log(low), np.log(high + 1)))))


def window(rng: np.random.Generator, rank: int, *, widest: int = 7) -> tuple[Shape, Shape, Shape, Shape]:
    """Size, kernel, strides and output of a window that moves over ``rank`` axes, padded by up to half of it."""
    kernel = tuple(some(rng, 1, widest) for _ in range(rank))
    strides = (int(rng.integers(1, 4)),) * rank
    size = tuple(k + some(rng, 1, 64) for k in kernel)
    pads = [int(rng.integers(0, k // 2 + 1)) for k in kernel]
    rows = zip(size, kernel, strides, pads, strict=True)
    return size, kernel, strides, tuple((i + 2 * p - k) // s + 1 for i, k, s, p in rows)


def scale_and_zero(b: GraphBuilder, dtype: str, channels: int = 1) -> tuple[str, str]:
    """A scale and a zero point, one for all or one for each channel."""
    shape = (channels,) if channels > 1 else ()
    return b.weight(shape), b.weight(shape, dtype)


def channels_first(op: Operator) -> Operator:
    """The same with the shapes that it would have with channels first."""
    inputs = op.inputs[0]
    assert inputs is not None

    def turned(shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], shape[-1], *shape[1:-1])

    first = replace(inputs, shape=turned(inputs.shape), value=None)
    outputs = tuple(replace(each, shape=turned(each.shape), value=None) for each in op.outputs)
    return replace(op, inputs=(first, *op.inputs[1:]), outputs=outputs, layout="nhwc")
