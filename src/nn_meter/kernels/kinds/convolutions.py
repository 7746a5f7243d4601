"""Convolutions: blocked, depthwise, in the plain layout, transposed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil, prod

import numpy as np

from nn_meter.ir import Graph, GraphBuilder
from nn_meter.kernels.kinds._shared import (
    ACTIVATION,
    ACTIVATIONS,
    ITEM_BYTES,
    LAYOUT,
    activate,
    aligned,
    blocked,
    cached,
    halves,
    inside,
    pads_between,
    some,
    tiled,
    times,
    window,
)
from nn_meter.kernels.partition import Shape
from nn_meter.kernels.schema import Category, Column, KernelKind, OnDevice, Operator, Speeds, Work, item_bytes


@dataclass(frozen=True, slots=True)
class ConvConfig:
    """A convolution over 1 to 3 spatial dimensions. In layout ``nchwc`` channels are padded to whole blocks;
    ``nchw>nchwc`` reads a plain image and writes blocks."""

    n: int
    cin: int
    size: Shape
    cout: int
    out: Shape
    kernel: Shape
    strides: Shape
    dilations: Shape
    group: int
    fused: tuple[str, ...]
    layout: str
    dtype: str

    def describe(self) -> str:
        """Sizes in words."""
        text = f"{self.n}x{self.cin}x{times(self.size)} -> {self.cout}x{times(self.out)}"
        text += f", kernel {times(self.kernel)}"
        text += f", stride {times(self.strides)}" if set(self.strides) != {1} else ""
        text += f", dilation {times(self.dilations)}" if set(self.dilations) != {1} else ""
        return text + (f", {self.group} groups" if self.group > 1 else "")

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return self.n * self.cout * prod(self.out) * (self.cin // self.group) * prod(self.kernel)

    @property
    def in_bytes(self) -> float:
        """Of the image that is convolved."""
        return self.n * self.cin * prod(self.size) * item_bytes(self.dtype)

    @property
    def out_bytes(self) -> float:
        """Of the result."""
        return self.n * self.cout * prod(self.out) * item_bytes(self.dtype)

    @property
    def weight_bytes(self) -> float:
        """Of the weights, biases left out."""
        return self.cout * (self.cin // self.group) * prod(self.kernel) * item_bytes(self.dtype)


def read_conv(op: Operator) -> ConvConfig:
    """Config of Conv, FusedConv, ConvTranspose in any layout."""
    x, w, y = op.shape(0), op.shape(1), op.outputs[0].shape
    spatial = len(x) - 2
    return ConvConfig(
        x[0],
        x[1],
        x[2:],
        y[1],
        y[2:],
        op.ints("kernel_shape", w[2:]),
        op.ints("strides", (1,) * spatial),
        op.ints("dilations", (1,) * spatial),
        op.int("group", 1),
        op.fused,
        op.layout or "nchw",
        op.dtype,
    )


def work(c: ConvConfig) -> Work:
    """What a fused sum adds is read too."""
    added = c.out_bytes if "sum" in c.fused else 0
    return Work(2.0 * c.macs, c.in_bytes + added + c.weight_bytes, c.out_bytes, c.weight_bytes)


def work_transposed(c: ConvConfig) -> Work:
    """Each pixel that is read is multiplied into a window of the result."""
    weights = c.cin * (c.cout // c.group) * prod(c.kernel)
    weight_bytes = weights * item_bytes(c.dtype)
    return Work(2.0 * c.n * prod(c.size) * weights, c.in_bytes + weight_bytes, c.out_bytes, weight_bytes)


def _inside(c: ConvConfig) -> float:
    """Of a plain convolution; a transposed one's window lies in the result."""
    return inside(c.size, c.out, c.kernel, c.strides, c.dilations) if prod(c.out) <= prod(c.size) * 2 else 1.0


def _intensity(c: ConvConfig) -> float:
    done = work(c)
    return done.flops / max(done.bytes, 1)


def _winograd(edge: int) -> tuple[OnDevice, OnDevice]:
    """Of results computed in squares of such an edge (Lavin and Gray, CVPR 2016): how much of what is computed belongs
    to the image, and how often each processor gets 32 squares of 128 channels, as cuDNN's kernels name their tiles."""

    def squares(c: ConvConfig) -> int:
        return prod(ceil(o / edge) for o in c.out)

    def share(c: ConvConfig, _: Speeds) -> float:
        return prod(c.out) / max(squares(c) * float(edge) ** len(c.out), 1.0)

    def rounds(c: ConvConfig, speeds: Speeds) -> float:
        return ceil(c.n * squares(c) / 32) * ceil(c.cout / 128) / max(speeds.processors, 1)

    return OnDevice(f"winograd_{edge}_share", share), OnDevice(f"winograd_{edge}_rounds", rounds)


_GROUPS = ((1, 4, 8), (2, 2, 8), (2, 4, 4), (4, 1, 8), (4, 2, 4), (4, 4, 2))
"""Images, rows and columns of the 32 squares of 2 by 2 that a group of threads makes of 32 channels in cuDNN's fused
kernels of Winograd's method: the digits in their names (``winograd_128x128_..._tile148t``). That 128 x 128 are 16
products of 32 by 32, of 8 channels that are read at a time, and not 128 channels: Yan, Wang and Chu, PPoPP 2020."""

_SEPARATE = ((128, 128), (64, 64), (32, 128))
"""Tiles of the 36 products that squares of 4 by 4 are where their transforms are kernels of their own."""


def _fused_groups(c: ConvConfig, images: int, rows: int, columns: int) -> int:
    *deep, height, width = (1, *c.out)
    pictures = ceil(c.n * prod(deep) / images)
    return pictures * ceil(ceil(height / 2) / rows) * ceil(ceil(width / 2) / columns) * ceil(c.cout / 32)


Share = Callable[[ConvConfig, Speeds], float]
"""What an algorithm needs, relative to the roofline."""


def _algorithms() -> tuple[OnDevice, ...]:
    """How long the algorithms that cuDNN chooses among take for a convolution of 3x3 over pictures at the speeds of a
    data sheet, relative to the roofline, and to each other."""

    def share(c: ConvConfig, speeds: Speeds, macs: float, moved_bytes: float = 0.0) -> float:
        least = replace(speeds, overhead_ms=0.0).roofline_ms(work(c))
        return 1e3 * (2 * macs / speeds.flops_per_s + moved_bytes / speeds.bytes_per_s) / max(least, 1e-12)

    def busy(groups: int, speeds: Speeds) -> int:
        processors = max(speeds.processors, 1)
        return ceil(groups / processors) * processors

    def fused(c: ConvConfig, speeds: Speeds, groups: int) -> float:
        filled = 4 * 8  # channels' worth of time until the first products begin and the last is written
        return share(c, speeds, busy(groups, speeds) * 128 * 128 * (ceil(c.cin / 8) * 8 + filled))

    def quickest_fused(c: ConvConfig, speeds: Speeds) -> float:
        return fused(c, speeds, min(_fused_groups(c, *each) for each in _GROUPS))

    def beside(name: str, first: Share, second: Share) -> OnDevice:
        return OnDevice(name, lambda c, speeds: first(c, speeds) / max(second(c, speeds), 1e-12))

    def squares(c: ConvConfig) -> int:
        return c.n * prod(ceil(o / 4) for o in c.out)

    def transforms_bytes(c: ConvConfig) -> float:
        """Of images, results and weights, 36 numbers to a square: written by one kernel, read by the next."""
        return 2 * item_bytes(c.dtype) * 36 * (squares(c) * (c.cin + c.cout) + c.cin * c.cout)

    def separate(c: ConvConfig, speeds: Speeds, a: int, b: int) -> float:
        groups = 36 * ceil(squares(c) / a) * ceil(c.cout / b)
        return share(c, speeds, busy(groups, speeds) * a * b * c.cin, transforms_bytes(c))

    def separately(a: int, b: int) -> OnDevice:
        return OnDevice(f"separate_{a}x{b}", lambda c, speeds: separate(c, speeds, a, b))

    def quickest_separate(c: ConvConfig, speeds: Speeds) -> float:
        return min(separate(c, speeds, *tile) for tile in _SEPARATE)

    def direct(c: ConvConfig, speeds: Speeds) -> float:
        """As a matrix product whose patches are gathered on the way."""
        depth = c.cin // c.group * prod(c.kernel)
        return min(
            share(c, speeds, busy(ceil(c.n * prod(c.out) / 128) * ceil(c.cout / b), speeds) * 128 * b * depth)
            for b in (128, 64, 32)
        )

    return (
        OnDevice("fused_rounds", lambda c, speeds: _fused_groups(c, *_GROUPS[0]) / max(speeds.processors, 1)),
        OnDevice("fused_first", lambda c, speeds: fused(c, speeds, _fused_groups(c, *_GROUPS[0]))),
        OnDevice("fused", quickest_fused),
        *(separately(*tile) for tile in _SEPARATE),
        OnDevice("transforms", lambda c, speeds: share(c, speeds, 0.0, transforms_bytes(c))),
        OnDevice("direct", direct),
        beside("separate_by_fused", quickest_separate, quickest_fused),
        beside("fused_by_direct", quickest_fused, direct),
        beside("separate_by_direct", quickest_separate, direct),
    )


COLUMNS: tuple[Column | Category | OnDevice, ...] = (
    Column("n", lambda c: c.n),
    Column("cin", lambda c: c.cin),
    Column("cout", lambda c: c.cout),
    Column("cin_per_group", lambda c: c.cin // c.group),
    Column("cout_per_group", lambda c: c.cout // c.group),
    Column("out_pixels", lambda c: prod(c.out)),
    Column("out_w", lambda c: c.out[-1]),
    Column("in_pixels", lambda c: prod(c.size)),
    Column("in_w", lambda c: c.size[-1]),
    Column("kernel_area", lambda c: prod(c.kernel)),
    Column("kernel_w", lambda c: c.kernel[-1]),
    Column("stride_w", lambda c: c.strides[-1]),
    Column("stride_area", lambda c: prod(c.strides)),
    Column("dilation", lambda c: max(c.dilations)),
    Column("group", lambda c: c.group),
    Column("spatial", lambda c: len(c.kernel)),
    Column("inside", _inside),
    ACTIVATION,
    Column("sum", lambda c: "sum" in c.fused),
    LAYOUT,
    Column("in_bytes", lambda c: c.in_bytes),
    Column("out_bytes", lambda c: c.out_bytes),
    Column("weight_bytes", lambda c: c.weight_bytes),
    Column("intensity", _intensity),
    ITEM_BYTES,
    *tiled(lambda c: (c.group, c.n * prod(c.out), c.cout // c.group)),
    *_winograd(2),
    *_winograd(4),
    *_algorithms(),
    cached(work),
    aligned("cin", lambda c: c.cin),
    aligned("cout", lambda c: c.cout),
    aligned("pixels", lambda c: prod(c.out)),
)


_OWN_CODE: Mapping[tuple[object, ...], str] = {(1, 2, (7, 7), (2, 2), (1, 1)): "7x7 halves, doubles"}
"""Channels of a group that are read and made, kernel, strides and dilations of a plain convolution that ONNX Runtime
has code for alone, with 512 bits (``MlasConvAlgorithmDepthwiseWithMultiplier`` of 1.32, for MobileCLIP): it takes a
third of the time. Padding is 3 all around."""


def _code(c: ConvConfig) -> str:
    halved = c.out == tuple(ceil(size / 2) for size in c.size)
    known = c.cin // c.group, c.cout // c.group, c.kernel, c.strides, c.dilations
    return _OWN_CODE.get(known, "") if halved else ""


def build_conv(c: ConvConfig) -> Graph:
    """One convolution with what is fused into it, and what reads it where that has to be."""
    b = GraphBuilder("conv")
    x = b.input((c.n, c.cin, *c.size), c.dtype)
    y = b.op(
        "Conv",
        x,
        b.weight((c.cout, c.cin // c.group, *c.kernel), c.dtype),
        b.weight((c.cout,), c.dtype),
        kernel_shape=c.kernel,
        strides=c.strides,
        dilations=c.dilations,
        pads=pads_between(c.size, c.out, c.kernel, c.strides, c.dilations),
        group=c.group,
    )
    if "sum" in c.fused:
        other = b.input(b.shape(y), c.dtype)
        y = b.op("Add", y, blocked(b, other) if c.layout != "nchw" else other)
    y = activate(b, y, c.fused)
    inner = "hardswish" in c.fused and c.layout != "nchw"  # one that is a result of the model is not fused
    return b.graph(blocked(b, y) if inner else y)


def build_conv_transpose(c: ConvConfig) -> Graph:
    """One transposed convolution."""
    b = GraphBuilder("convtrans")
    x = b.input((c.n, c.cin, *c.size), c.dtype)
    w = b.weight((c.cin, c.cout // c.group, *c.kernel), c.dtype)
    rows = zip(c.size, c.strides, c.dilations, c.kernel, strict=True)
    full = [(i - 1) * s + d * (k - 1) + 1 for i, s, d, k in rows]
    y = b.op(
        "ConvTranspose",
        x,
        w,
        kernel_shape=c.kernel,
        strides=c.strides,
        dilations=c.dilations,
        pads=halves(max(0, f - o) for f, o in zip(full, c.out, strict=True)),
        output_padding=tuple(max(0, o - f) for f, o in zip(full, c.out, strict=True)),
        group=c.group,
    )
    return b.graph(y)


def _space(blocks: bool, depthwise: bool) -> Callable[[np.random.Generator], ConvConfig]:
    """Convolutions over images in blocks of 16 channels, or over what stays in the plain layout: one or three spatial
    dimensions, and groups of odd numbers of channels."""

    def draw(rng: np.random.Generator) -> ConvConfig:
        size, kernel, strides, out = window(rng, 2 if blocks else int(rng.choice([1, 3])))
        layout, group = "nchwc" if blocks else "nchw", 1
        if depthwise:
            group = cin = cout = 16 * some(rng, 1, 40)
        elif blocks:
            group = int(rng.choice([1, 1, 1, 2, 4]))
            cin, cout = (group * 16 * some(rng, 1, 20) for _ in range(2))
            if group == 1 and rng.random() < 0.2:
                layout, cin = "nchw>nchwc", int(rng.integers(1, 16))
        else:
            cin, cout = some(rng, 1, 256), some(rng, 1, 256)
            if rng.random() < 0.3:
                group = cin = cout = 2 * cin + 1
        known = [each for each in ACTIVATIONS.values() if blocks or each != "hardswish"]  # plain ones do not take it
        named = str(rng.choice(["", *known]))
        fused = tuple(name for name in ("sum" if blocks and rng.random() < 0.2 else "", named) if name)
        ones = (1,) * len(kernel)
        return ConvConfig(some(rng, 1, 8), cin, size, cout, out, kernel, strides, ones, group, fused, layout, "float32")

    return draw


def _space_transposed(rng: np.random.Generator) -> ConvConfig:
    kernel, stride = (some(rng, 1, 5),) * 2, int(rng.integers(1, 4))
    size = (some(rng, 2, 40), some(rng, 2, 40))
    out = tuple((i - 1) * stride + k + int(rng.integers(-(k // 2), stride)) for i, k in zip(size, kernel, strict=True))
    group = int(rng.choice([1, 1, 2]))
    cin, cout = (group * some(rng, 1, 128) for _ in range(2))
    return ConvConfig(
        some(rng, 1, 4), cin, size, cout, out, kernel, (stride,) * 2, (1, 1), group, (), "nchw", "float32"
    )


_OPERATORS = ("Conv", "FusedConv")

KINDS = (
    KernelKind("conv", _OPERATORS, ConvConfig, read_conv, COLUMNS, work, build_conv, _space(True, False)),
    KernelKind(
        "dwconv",
        _OPERATORS,
        ConvConfig,
        read_conv,
        COLUMNS,
        work,
        build_conv,
        _space(True, True),
        accepts=lambda c: c.layout != "nchw" and c.group > 1 and c.group == c.cin,
    ),
    KernelKind(
        "conv_nchw",
        _OPERATORS,
        ConvConfig,
        read_conv,
        (*COLUMNS, Category("code", _code)),
        work,
        build_conv,
        _space(False, False),
        accepts=lambda c: c.layout == "nchw",
    ),
    KernelKind(
        "convtrans",
        ("ConvTranspose",),
        ConvConfig,
        read_conv,
        COLUMNS,
        work_transposed,
        build_conv_transpose,
        _space_transposed,
    ),
)
