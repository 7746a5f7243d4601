"""Blocks of convolutional families: from one NCHW feature map to the next.

Each maker draws what its network keeps throughout (activation, kernel, expansion) and returns the step that
adds one block. Every step takes a map of any width.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from nn_meter.networks._blocks import SIDES, Pen, Step

Maker = Callable[[Pen], Step]

MOBILE_ACTS = ("relu", "relu6", "relu6", "silu", "silu", "hard_swish", "hard_swish_spelled", "mish", "prelu")
GATES = ("sigmoid", "sigmoid", "hard_sigmoid", "hard_sigmoid_spelled")


def feature_map(pen: Pen, low: int, high: int, macs: float) -> str:
    """The map that the first block reads: the network's input, or what a stem makes of an image.

    The width is log-uniform from ``low`` to ``high``; a block costs about ``macs * width**2`` multiply-adds a
    pixel, so a cost drawn log-uniformly decides the side. Late stages (wide and small) come as often as early
    ones, at the same cost.
    """
    stem = pen.chance(0.7 if pen.part else 0.3)
    grown = pen.scale**0.35
    width = pen.width(low * grown, min(high, 160) * grown if stem else high)
    side = math.sqrt(pen.scale * pen.log_uniform(2e6, 8e7) / (macs * width * width * pen.batch))
    largest = math.sqrt(2e6 * math.sqrt(pen.scale) / (width * pen.batch))
    side = min(max(side, 1.0 if pen.chance(0.05) else 5.0), largest, 230.0)
    height = min(SIDES, key=lambda usual: abs(usual - side)) if pen.chance(0.6) else max(1, round(side))
    across = max(1, round(height * pen.uniform(0.5, 1.6))) if pen.chance(0.1) else height
    if not stem:
        return pen.input(pen.batch, width, height, across)
    return _stem(pen, width, height, across)


def _stem(pen: Pen, width: int, height: int, across: int) -> str:
    act = pen.pick("relu", "relu", "silu", "hard_swish", "gelu")
    colours = pen.pick(3, 3, 3, 3, 3, 3, 1, 4)
    kind = pen.pick("conv", "conv", "pooled", "deep", "patch", "same")
    factor = {"conv": 2, "pooled": 4, "deep": 4, "patch": pen.pick(2, 4, 4, 8), "same": 2}[kind]
    while factor * height > 320 and height > 1:
        height, across = (height + 1) // 2, (across + 1) // 2
    x = pen.input(pen.batch, colours, factor * height, factor * across)
    if kind == "patch":
        return pen.conv(x, width, factor, factor, pads=(0, 0, 0, 0))
    if kind == "same":
        if pen.chance(0.5):
            pads = pen.b.const((0, 0, 0, 0, 0, 0, 1, 1))
            padded = pen.op("Pad", x, pads, pen.scalar(0.0), mode="constant")
            return pen.conv_bn(padded, width, 3, 2, pads=(0, 0, 0, 0), act=act)
        return pen.conv_bn(x, width, 3, 2, pads=(0, 0, 1, 1), act=act)
    if kind == "conv":
        return pen.conv_bn(x, width, pen.pick(3, 3, 5, 7), 2, act=act)
    if kind == "pooled":
        return pen.max_pool(pen.conv_bn(x, width, pen.pick(7, 7, 5, 3), 2, act=act), 3, 2)
    narrow = max(4, width // 2)
    x = pen.conv_bn(x, narrow, 3, 2, act=act)
    x = pen.conv_bn(x, narrow, 3, 1, act=act)
    return pen.conv_bn(x, width, 3, 2, act=act)


def head(pen: Pen, x: str) -> str:
    """Global pooling and a classifier; a wide 1x1 convolution before it in some."""
    if pen.chance(0.3):
        x = pen.conv_bn(x, pen.width(128, 1536), act=pen.pick("relu", "relu6", "silu"))
    spelling = pen.pick("flatten", "flatten", "reduce", "reshape")
    if spelling == "flatten":
        x = pen.op("Flatten", pen.op("GlobalAveragePool", x), axis=1)
    elif spelling == "reduce":
        x = pen.reduce("ReduceMean", x, (2, 3), keepdims=0)
    else:
        x = pen.reshape(pen.reduce("ReduceMean", x, (2, 3)), pen.batch, pen.channels(x))
    return pen.gemm(x, pen.pick(10, 100, 1000, 1000, pen.integer(2, 2000)))


def halve(pen: Pen, x: str) -> int:
    """Stride of the next block: 2 at times, where the map is large enough."""
    return 2 if min(pen.shape(x)[2:]) >= 4 and pen.chance(0.25) else 1


def _next_width(pen: Pen, x: str, stride: int) -> int:
    """Width after the next block: mostly the same, another where the stage changes."""
    width = pen.channels(x)
    if stride == 2 or pen.chance(0.15):
        return pen.width(min(2048.0, max(8.0, 0.6 * width)), min(2048.0, max(8.0, 2.0 * width)))
    return width


def plain(pen: Pen) -> Step:
    """Convolution, activation, and a pool at times."""
    act = pen.pick("relu", "relu", "relu", "leaky_relu", "elu", "silu", "prelu")

    def step(x: str) -> str:
        kernel = pen.pick(3, 3, 3, 1, 5)
        stride = halve(pen, x)
        if stride == 2 and pen.chance(0.6):
            x = pen.max_pool(x, pen.pick(2, 3), 2, ceil_mode=pen.pick(0, 0, 1))
            stride = 1
        return pen.conv_bn(x, _next_width(pen, x, stride), kernel, stride, act=act)

    return step


def _shortcut(pen: Pen, x: str, width: int, stride: int) -> str:
    if stride == 1 and width == pen.channels(x):
        return x
    if stride == 2 and pen.chance(0.3):
        return pen.conv_bn(pen.average_pool(x, 2, 2), width) if even(pen, x) else pen.conv_bn(x, width, 1, 2)
    return pen.conv_bn(x, width, 1, stride)


def even(pen: Pen, x: str) -> bool:
    """Whether height and width can be halved."""
    return all(side % 2 == 0 for side in pen.shape(x)[2:])


def residual_basic(pen: Pen) -> Step:
    """Two 3x3 convolutions and the way around them."""
    act = pen.pick("relu", "relu", "relu", "silu")
    gated = pen.chance(0.1)

    def step(x: str) -> str:
        stride = halve(pen, x)
        width = _next_width(pen, x, stride)
        y = pen.conv_bn(pen.conv_bn(x, width, 3, stride, act=act), width, 3)
        if gated:
            y = pen.squeeze_excite(y, max(4, width // 8), "relu", "sigmoid")
        return pen.act(pen.op("Add", y, _shortcut(pen, x, width, stride)), act)

    return step


def residual_bottleneck(pen: Pen) -> Step:
    """1x1, 3x3 (grouped in some), 1x1 and the way around them."""
    act = pen.pick("relu", "relu", "relu", "silu")
    ratio = pen.pick(4, 4, 2, 1)
    grouped = pen.chance(0.35)
    cap = pen.pick(8, 16, 32, 64)

    def step(x: str) -> str:
        stride = halve(pen, x)
        width = _next_width(pen, x, stride)
        inner = max(8, width // ratio)
        groups = pen.divisor(inner, 2, cap) if grouped else 1
        y = pen.conv_bn(pen.conv_bn(x, inner, act=act), inner, 3, stride, groups, act=act)
        return pen.act(pen.op("Add", pen.conv_bn(y, width), _shortcut(pen, x, width, stride)), act)

    return step


def regnet(pen: Pen) -> Step:
    """Bottlenecks of fixed group width, with squeeze-and-excite in most."""
    act = pen.pick("relu", "relu", "silu")
    gated = pen.chance(0.7)
    group_width = pen.pick(4, 8, 8, 16, 24, 32, 40, 64)

    def step(x: str) -> str:
        stride = halve(pen, x)
        width = max(group_width, _next_width(pen, x, stride) // group_width * group_width)
        y = pen.conv_bn(pen.conv_bn(x, width, act=act), width, 3, stride, width // group_width, act=act)
        if gated:
            y = pen.squeeze_excite(y, max(4, round(pen.channels(x) / 4)), "relu", "sigmoid")
        return pen.act(pen.op("Add", pen.conv_bn(y, width), _shortcut(pen, x, width, stride)), act)

    return step


def inverted(pen: Pen) -> Step:
    """Expand, depthwise, squeeze-and-excite in some, project."""
    act = pen.pick(*MOBILE_ACTS)
    gate, gated = pen.pick(*GATES), pen.chance(0.55)
    inner_act = pen.pick("relu", act if act != "prelu" else "relu")
    partial = pen.chance(0.12)
    fused = pen.chance(0.1)
    act_after_gate = pen.chance(0.2)

    def step(x: str) -> str:
        stride, cin = halve(pen, x), pen.channels(x)
        width = _next_width(pen, x, stride)
        if partial:
            width = cin + pen.integer(1, 12)
        hidden = max(8, round(cin * pen.pick(1, 2, 3, 4, 6, 6, pen.uniform(1.2, 7.0))))
        kernel = pen.pick(3, 3, 3, 5, 5, 7)
        if fused:
            y = pen.conv_bn(x, hidden, 3, stride, act=act)
        else:
            y = pen.conv_bn(x, hidden, act=act) if hidden != cin else x
            if stride == 2 and kernel == 3 and pen.chance(0.15):
                y = pen.conv_bn(y, hidden, kernel, 2, hidden, pads=(0, 0, 1, 1))
            else:
                y = pen.depthwise(y, kernel, stride)
            y = y if act_after_gate else pen.act(y, act)
        if gated:
            y = pen.squeeze_excite(y, max(4, round(cin / pen.pick(4, 4, 1, 12))), inner_act, gate)
        if act_after_gate and not fused:
            y = pen.act(y, act)
        y = pen.conv_bn(y, width)
        if stride == 1 and width == cin:
            return pen.op("Add", y, x)
        if stride == 1 and partial and width > cin:
            both = pen.op("Add", pen.slice(y, 1, 0, cin), x)
            return pen.concat((both, pen.slice(y, 1, cin, 2**62)))
        return y

    return step


def separable(pen: Pen) -> Step:
    """Depthwise then pointwise, without a way around; in some a scale for each channel beside the depthwise one, as
    networks that are trained with branches have it before these are folded."""
    act = pen.pick(*MOBILE_ACTS)
    branched = pen.chance(0.25)

    def step(x: str) -> str:
        stride, kernel = halve(pen, x), pen.pick(3, 3, 5)
        if branched:
            x = pen.act(pen.op("Add", pen.depthwise(x, kernel, stride), pen.depthwise(x, 1, stride)), act)
        else:
            x = pen.depthwise(x, kernel, stride, act=act)
        return pen.conv_bn(x, _next_width(pen, x, stride), act=act)

    return step


def _parts(pen: Pen, total: int, count: int) -> list[int]:
    """``total`` channels in ``count`` nearly equal parts, the rest in the first."""
    part = total // count
    return [total - part * (count - 1)] + [part] * (count - 1)


def mixed_kernels(pen: Pen) -> Step:
    """Inverted residual whose depthwise convolution has several kernel sizes, one a part of the channels."""
    act = pen.pick("relu", "silu", "silu")
    gated = pen.chance(0.6)

    def step(x: str) -> str:
        stride, cin = halve(pen, x), pen.channels(x)
        width = _next_width(pen, x, stride)
        hidden = max(16, cin * pen.pick(2, 3, 6))
        y = pen.conv_bn(x, hidden, act=act)
        sizes = _parts(pen, hidden, pen.integer(2, 4))
        parts = pen.split(y, sizes)
        mixed = [
            pen.conv(part, size, 3 + 2 * i, stride, size, bias=pen.fold)
            for i, (part, size) in enumerate(zip(parts, sizes, strict=True))
        ]
        y = pen.concat(mixed)
        y = pen.act(y if pen.fold else pen.batch_norm(y), act)
        if gated:
            y = pen.squeeze_excite(y, max(4, cin // 2), act, "sigmoid")
        if pen.chance(0.3):
            half = _parts(pen, hidden, 2)
            outs = _parts(pen, max(2, width), 2)
            y = pen.concat([pen.conv_bn(p, w) for p, w in zip(pen.split(y, half), outs, strict=True)])
        else:
            y = pen.conv_bn(y, width)
        return pen.op("Add", y, x) if pen.shape(y) == pen.shape(x) else y

    return step


def ghost(pen: Pen) -> Step:
    """Half of the channels by convolution, half by a cheap depthwise one."""
    gated = pen.chance(0.5)

    def module(x: str, width: int, act: str) -> str:
        half = math.ceil(width / 2)
        first = pen.conv_bn(x, half, act=act)
        both = pen.concat((first, pen.depthwise(first, 3, act=act)))
        return pen.slice(both, 1, 0, width)

    def step(x: str) -> str:
        stride, cin = halve(pen, x), pen.channels(x)
        width = _next_width(pen, x, stride)
        y = module(x, max(8, round(cin * pen.uniform(1.5, 6.0))), "relu")
        if stride == 2:
            y = pen.depthwise(y, pen.pick(3, 5), 2)
        if gated:
            y = pen.squeeze_excite(y, max(4, pen.channels(y) // 4), "relu", "hard_sigmoid")
        y = module(y, width, "identity")
        if stride == 1 and width == cin:
            return pen.op("Add", y, x)
        around = pen.depthwise(x, 3, stride)
        return pen.op("Add", y, pen.conv_bn(around, width))

    return step


def dense(pen: Pen) -> Step:
    """Each layer adds a few channels to all before it; a transition halves at times."""
    growth = pen.pick(8, 12, 16, 24, 32, 32, 48)
    layers = pen.integer(1, 3)
    bottleneck = pen.chance(0.8)
    pre_activation = pen.chance(0.85)

    def unit(x: str, width: int, kernel: int) -> str:
        if pre_activation:
            return pen.conv(pen.act(pen.batch_norm(x), "relu"), width, kernel, bias=False)
        return pen.conv_bn(x, width, kernel, act="relu")

    def step(x: str) -> str:
        features = [x]
        for _ in range(layers):
            y = pen.concat(features) if len(features) > 1 else x
            if bottleneck and pre_activation:
                y = pen.act(pen.batch_norm(y), "relu")
                y = pen.act(pen.conv(y, 4 * growth), "relu")
                y = pen.conv(y, growth, 3, bias=False)
            else:
                y = unit(y, growth, 3)
            features.append(y)
        y = pen.concat(features)
        if pen.chance(0.4):
            y = unit(y, max(8, pen.channels(y) // 2), 1)
            if min(pen.shape(y)[2:]) >= 4:
                y = pen.average_pool(y, 2, 2)
        return y

    return step


def inception(pen: Pen) -> Step:
    """Parallel convolutions of several shapes and a pool, concatenated."""
    act = pen.pick("relu", "relu", "relu", "silu")
    shape = pen.pick("square", "asymmetric", "split")
    long = pen.pick(3, 5, 7)

    def branch_width(x: str) -> int:
        return pen.width(8, max(16.0, 0.6 * pen.channels(x)))

    def step(x: str) -> str:
        branches = [pen.conv_bn(x, branch_width(x), act=act)]
        y = pen.conv_bn(x, branch_width(x), act=act)
        if shape == "asymmetric":
            y = pen.conv_bn(y, branch_width(x), (1, long), act=act)
            branches.append(pen.conv_bn(y, branch_width(x), (long, 1), act=act))
        elif shape == "split":
            branches.append(pen.conv_bn(y, branch_width(x), (1, 3), act=act))
            branches.append(pen.conv_bn(y, branch_width(x), (3, 1), act=act))
        else:
            branches.append(pen.conv_bn(y, branch_width(x), pen.pick(3, 5), act=act))
        if pen.chance(0.5):
            y = pen.conv_bn(pen.conv_bn(x, branch_width(x), act=act), branch_width(x), 3, act=act)
            branches.append(pen.conv_bn(y, branch_width(x), 3, act=act))
        pooled = pen.average_pool(x, 3, 1, pen.pick(0, 1)) if pen.chance(0.6) else pen.max_pool(x, 3, 1)
        branches.append(pen.conv_bn(pooled, branch_width(x), act=act) if pen.chance(0.8) else pooled)
        return pen.concat(branches)

    return step


def _shuffle(pen: Pen, x: str, groups: int) -> str:
    batch, width, height, across = pen.shape(x)
    y = pen.reshape(x, batch, groups, width // groups, height, across)
    return pen.reshape(pen.transpose(y, 0, 2, 1, 3, 4), batch, width, height, across)


def shuffle(pen: Pen) -> Step:
    """Half of the channels through a depthwise block, then the halves are interleaved."""
    act = pen.pick("relu", "relu", "hard_swish", "silu")
    grouped = pen.chance(0.3)
    sliced = pen.chance(0.5)

    def branch(x: str, width: int, stride: int) -> str:
        y = pen.conv_bn(x, width, act=act)
        return pen.conv_bn(pen.depthwise(y, 3, stride), width, act=act)

    def step(x: str) -> str:
        stride, width = halve(pen, x), pen.channels(x)
        if grouped and width % 4 == 0:
            groups = pen.divisor(width // 4, 2, 8)
            inner = width // 4
            y = _shuffle(pen, pen.conv_bn(x, inner, groups=groups, act=act), groups)
            y = pen.conv_bn(pen.depthwise(y, 3), width, groups=groups)
            return pen.act(pen.op("Add", x, y), act)
        if stride == 2 or width % 2:
            out = max(8, width // 2 * pen.pick(1, 2))
            side = pen.conv_bn(pen.depthwise(x, 3, stride), out, act=act)
            return _shuffle(pen, pen.concat((side, branch(x, out, stride))), 2)
        if sliced:
            kept, moved = pen.slice(x, 1, 0, width // 2), pen.slice(x, 1, width // 2, width)
        else:
            kept, moved = pen.split(x, (width // 2, width // 2))
        return _shuffle(pen, pen.concat((kept, branch(moved, width // 2, 1))), 2)

    return step


def repvgg(pen: Pen) -> Step:
    """3x3 convolutions as deployed, or the parallel branches that they were trained as."""
    deployed = pen.chance(0.5)

    def step(x: str) -> str:
        stride = halve(pen, x)
        width = _next_width(pen, x, stride)
        if deployed:
            return pen.act(pen.conv(x, width, 3, stride), "relu")
        y = pen.op("Add", pen.conv(x, width, 3, stride), pen.conv(x, width, 1, stride))
        if stride == 1 and width == pen.channels(x):
            y = pen.op("Add", y, pen.batch_norm(x))
        return pen.act(y, "relu")

    return step


def cross_stage(pen: Pen) -> Step:
    """Part of the channels through a chain of residual units, all concatenated; and detectors' necks."""
    act = pen.pick("silu", "silu", "silu", "leaky_relu", "mish", "relu")
    units = pen.integer(1, 2)

    def stage(x: str) -> str:
        width = _next_width(pen, x, 1)
        half = max(4, width // 2)
        if pen.chance(0.5):
            parts = list(pen.split(pen.conv_bn(x, 2 * half, act=act), (half, half)))
        else:
            parts = [pen.conv_bn(x, half, act=act), pen.conv_bn(x, half, act=act)]
        for _ in range(units):
            y = pen.conv_bn(pen.conv_bn(parts[-1], half, pen.pick(1, 3), act=act), half, 3, act=act)
            parts.append(pen.op("Add", parts[-1], y) if pen.chance(0.6) else y)
        return pen.conv_bn(pen.concat(parts), width, act=act)

    def pyramid_pool(x: str) -> str:
        half, kernel = max(4, pen.channels(x) // 2), pen.pick(5, 5, 3, 9)
        parts = [pen.conv_bn(x, half, act=act)]
        for _ in range(3):
            parts.append(pen.max_pool(parts[-1], kernel, 1))
        return pen.conv_bn(pen.concat(parts), pen.channels(x), act=act)

    def neck(x: str) -> str:
        if not even(pen, x):
            return stage(x)
        small = pen.conv_bn(x, pen.channels(x), 3, 2, act=act)
        return stage(pen.concat((pen.resize(small, 2, "nearest"), x)))

    def step(x: str) -> str:
        return pen.pick(stage, stage, pyramid_pool, neck)(x)

    return step


def encoder_decoder(pen: Pen) -> Step:
    """Down by a pool, up again by a transposed convolution or a resize, and what was before beside it."""
    up = pen.pick("transposed", "linear", "nearest")

    def step(x: str) -> str:
        if not even(pen, x):
            return pen.conv_bn(x, pen.channels(x), 3, act="relu")
        width = pen.channels(x)
        low = pen.conv_bn(pen.max_pool(x, 2, 2), min(2048, width * pen.pick(1, 2)), 3, act="relu")
        if up == "transposed":
            low = pen.conv_transpose(low, width, pen.pick(2, 2, 4), 2)
        else:
            low = pen.conv_bn(pen.resize(low, 2, up), width, pen.pick(1, 3), act="relu")
        return pen.conv_bn(pen.concat((x, low)), width, 3, act="relu")

    return step


def atrous(pen: Pen) -> Step:
    """Parallel dilated convolutions and an image-wide mean, concatenated; a resize at the end of some."""
    depthwise = pen.chance(0.4)

    def step(x: str) -> str:
        _, cin, height, across = pen.shape(x)
        width = pen.width(16, min(256, max(24, cin // 2)))
        branches = [pen.conv_bn(x, width, act="relu")]
        for rate in sorted({pen.integer(2, 18), pen.integer(2, 18)}):
            y = pen.depthwise(x, 3, dilation=rate) if depthwise else x
            kernel, dilation = (1, 1) if depthwise else (3, rate)
            branches.append(pen.conv_bn(y, width, kernel, dilation=dilation, act="relu"))
        if height == across:
            mean = pen.conv(pen.global_pool(x), width)
            branches.append(pen.resize(pen.act(mean, "relu"), height, "linear"))
        x = pen.conv_bn(pen.concat(branches), width, act="relu")
        return pen.resize(x, 2, "linear") if pen.chance(0.4) and height * across * width < 400_000 else x

    return step
