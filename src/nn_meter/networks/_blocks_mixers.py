"""Blocks on feature maps that mix positions and channels by turns."""

from __future__ import annotations

from nn_meter.networks._blocks import Pen, Step
from nn_meter.networks._blocks_maps import even, halve


def convnext(pen: Pen) -> Step:
    """Large depthwise kernel, norm, perceptron over channels (channels last, or as 1x1 convolutions)."""
    ratio = pen.pick(4, 4, 4, 3, 2)
    scaled = pen.chance(0.8)
    kernel = pen.pick(7, 7, 7, 5, 9, 3)
    channels_last = pen.chance(0.6)
    act = pen.pick("gelu", "gelu", "gelu", "relu", "silu")

    def step(x: str) -> str:
        width = pen.channels(x)
        if halve(pen, x) == 2 and even(pen, x):
            normed = pen.transpose(pen.layer_norm(pen.transpose(x, 0, 2, 3, 1)), 0, 3, 1, 2)
            wider = pen.width(max(8.0, width), min(2048.0, 2.0 * width))
            return pen.conv(normed, wider, 2, 2, pads=(0, 0, 0, 0))
        y = pen.layer_norm(pen.transpose(pen.conv(x, width, kernel, groups=width), 0, 2, 3, 1))
        if channels_last:
            y = pen.linear(pen.act(pen.linear(y, ratio * width), act), width)
            if scaled and pen.chance(0.5):
                y, scaled_here = pen.op("Mul", pen.weight(width), y), True
            else:
                scaled_here = False
            y = pen.transpose(y, 0, 3, 1, 2)
        else:
            y, scaled_here = pen.transpose(y, 0, 3, 1, 2), False
            y = pen.conv(pen.act(pen.conv(y, ratio * width), act), width)
        if scaled and not scaled_here:
            y = pen.op("Mul", y, pen.weight(1, width, 1, 1))
        return pen.op("Add", y, x)

    return step


def pool_mixer(pen: Pen) -> Step:
    """Average pooling in place of attention, a perceptron of 1x1 convolutions, both scaled and added."""
    grouped = pen.chance(0.7)
    ratio = pen.pick(4, 4, 3, 2)

    def norm(x: str) -> str:
        if not grouped:
            return x
        return pen.group_norm(x, 1 if pen.chance(0.7) else pen.divisor(pen.channels(x), 2, 32))

    def scale(x: str) -> str:
        return pen.op("Mul", x, pen.weight(pen.channels(x), 1, 1))

    def step(x: str) -> str:
        width, normed = pen.channels(x), norm(x)
        x = pen.op("Add", x, scale(pen.op("Sub", pen.average_pool(normed, 3, 1, 0), normed)))
        y = pen.conv(pen.act(pen.conv(norm(x), ratio * width), "gelu"), width)
        return pen.op("Add", x, scale(y))

    return step
