"""Blocks that mix tokens: attention in several families and spellings, and perceptrons over tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nn_meter.networks._blocks import Pen, Step

HEAD_DIMS = (16, 24, 32, 32, 48, 64, 64, 64, 80, 96, 128)


def token_input(pen: Pen, low: int, high: int, macs: float, multiple: int = 1) -> str:
    """(batch, tokens, width), from a patch embedding or as the network's input.

    A layer costs about ``macs * width**2`` multiply-adds a token; the cost is drawn, the count follows.
    """
    width = multiple * max(1, round(pen.width(low, high) / multiple))
    tokens = pen.scale * pen.log_uniform(4e6, 9e7) / (macs * width * width * pen.batch)
    count = max(4, min(round(tokens), 1024 // pen.batch, round(1.5e6 * math.sqrt(pen.scale) / width)))
    if pen.chance(0.3 if pen.part else 0.5):
        return pen.input(pen.batch, count, width)
    side, patch = max(2, math.isqrt(count)), pen.pick(4, 8, 14, 16, 16, 32)
    patch = max(1, min(patch, 320 // side))
    x = pen.input(pen.batch, 3, side * patch, side * patch)
    x = pen.conv(x, width, patch, patch, pads=(0, 0, 0, 0))
    return pen.transpose(pen.reshape(x, pen.batch, width, side * side), 0, 2, 1)


def embed_positions(pen: Pen, x: str) -> str:
    """A class token in front in most networks, a position embedding added."""
    batch, _, width = pen.shape(x)
    if pen.chance(0.7):
        tokens = [pen.weight(batch, 1, width) for _ in range(pen.pick(1, 1, 1, 2))]
        x = pen.concat((*tokens, x))
    return pen.op("Add", x, pen.weight(1, *pen.shape(x)[1:]))


def _projected(pen: Pen, x: str, heads: int, dim: int) -> tuple[str, str, str]:
    """q, v (batch, heads, tokens, dim) and k (.., dim, tokens), from one projection that is cut in three."""
    batch, tokens, _ = pen.shape(x)
    wide = pen.linear(x, 3 * heads * dim, bias=pen.chance(0.85))
    stacked = pen.transpose(pen.reshape(wide, batch, tokens, 3, heads, dim), 2, 0, 3, 1, 4)
    spelling = pen.pick("split", "slice", "gather")
    if spelling == "split":
        q, k, v = (pen.squeeze(part, 0) for part in pen.split(stacked, (1, 1, 1), axis=0))
    elif spelling == "slice":
        q, k, v = (pen.squeeze(pen.slice(stacked, 0, i, i + 1), 0) for i in range(3))
    else:
        q, k, v = (pen.op("Gather", stacked, pen.b.const(i), axis=0) for i in range(3))
    return q, pen.transpose(k, 0, 1, 3, 2), v


def attend(pen: Pen, q: str, k: str, v: str, bias: Sequence[int] | None = None) -> str:
    """Softmax attention of q (.., tokens, dim), k (.., dim, tokens) and v.

    ``bias`` is the shape of a constant that is added to the scores, or in some networks says which of them count.
    """
    factor = pen.shape(q)[-1] ** -0.5
    spelling = pen.pick("both", "both", "query", "scores", "divide")
    if spelling == "both":
        q, k = pen.op("Mul", q, pen.scalar(factor**0.5)), pen.op("Mul", k, pen.scalar(factor**0.5))
    elif spelling == "query":
        q = pen.op("Mul", q, pen.scalar(factor))
    scores = pen.matmul(q, k)
    if spelling == "scores":
        scores = pen.op("Mul", scores, pen.scalar(factor))
    elif spelling == "divide":
        scores = pen.op("Div", scores, pen.scalar(1 / factor))
    if bias is not None and pen.chance(0.35):
        scores = pen.op("Where", pen.b.weight(bias, "bool"), pen.scalar(-1e4), scores)
    elif bias is not None:
        scores = pen.op("Add", scores, pen.weight(*bias))
    return pen.matmul(pen.op("Softmax", scores, axis=-1), v)


def merge_heads(pen: Pen, x: str) -> str:
    """(batch, heads, tokens, dim) to (batch, tokens, heads * dim)."""
    batch, heads, tokens, dim = pen.shape(x)
    return pen.reshape(pen.transpose(x, 0, 2, 1, 3), batch, tokens, heads * dim)


def heads_of(pen: Pen, width: int) -> tuple[int, int]:
    """Heads and their width: usual sizes where they divide ``width``, any divisor otherwise."""
    usual = [dim for dim in HEAD_DIMS if width % dim == 0]
    dim = pen.pick(*usual) if usual else pen.divisor(width, 4, 128)
    return (width // dim, dim) if width // dim <= 32 else (1, width)


def self_attention(pen: Pen, x: str, biased: bool = False) -> str:
    """Multi-head self-attention on (batch, tokens, width), with its output projection."""
    width = pen.shape(x)[-1]
    heads, dim = heads_of(pen, width)
    q, k, v = _projected(pen, x, heads, dim)
    tokens = pen.shape(q)[2]
    bias = (pen.pick(1, heads), tokens, tokens) if biased else None
    return pen.linear(merge_heads(pen, attend(pen, q, k, v, bias)), width)


def perceptron(pen: Pen, x: str, hidden: int, act: str) -> str:
    """Two fully connected layers over the last axis."""
    width = pen.shape(x)[-1]
    return pen.linear(pen.act(pen.linear(x, hidden), act), width)


def _scaled(pen: Pen, x: str, scaled: bool) -> str:
    return pen.op("Mul", x, pen.weight(pen.shape(x)[-1])) if scaled else x


def vision_transformer(pen: Pen) -> Step:
    """Attention, perceptron, each normed before and added; half of a block at times."""
    ratio = pen.pick(4, 4, 4, 3, 2, 1)
    act = pen.pick("gelu", "gelu", "gelu", "relu", "silu", "hard_swish")
    scaled = pen.chance(0.2)
    biased = pen.chance(0.2)
    halves = pen.pick("both", "both", "attention", "perceptron")

    def step(x: str) -> str:
        if halves != "perceptron":
            x = pen.op("Add", x, _scaled(pen, self_attention(pen, pen.layer_norm(x), biased), scaled))
        if halves != "attention":
            y = perceptron(pen, pen.layer_norm(x), ratio * pen.shape(x)[-1], act)
            x = pen.op("Add", x, _scaled(pen, y, scaled))
        return x

    return step


def token_mixer(pen: Pen) -> Step:
    """Perceptrons over tokens, then over channels, in three families' ways."""
    family = pen.pick("mixer", "gated", "affine")

    def affine(x: str) -> str:
        width = pen.shape(x)[-1]
        return pen.op("Add", pen.op("Mul", pen.weight(1, 1, width), x), pen.weight(1, 1, width))

    def step(x: str) -> str:
        _, tokens, width = pen.shape(x)
        if family == "gated":
            y = pen.act(pen.linear(pen.layer_norm(x), 2 * (hidden := width * pen.pick(1, 2, 3))), "gelu")
            u, v = pen.split(y, (hidden, hidden), axis=2)
            v = pen.linear(pen.transpose(pen.layer_norm(v), 0, 2, 1), tokens)
            return pen.op("Add", x, pen.linear(pen.op("Mul", u, pen.transpose(v, 0, 2, 1)), width))
        if family == "affine":
            y = pen.transpose(pen.linear(pen.transpose(affine(x), 0, 2, 1), tokens), 0, 2, 1)
            x = pen.op("Add", x, _scaled(pen, y, True))
            y = perceptron(pen, affine(x), 4 * width, "gelu")
            return pen.op("Add", x, _scaled(pen, y, True))
        y = pen.transpose(pen.layer_norm(x), 0, 2, 1)
        y = pen.transpose(perceptron(pen, y, pen.width(64, 512), "gelu"), 0, 2, 1)
        x = pen.op("Add", x, y)
        return pen.op("Add", x, perceptron(pen, pen.layer_norm(x), pen.pick(2, 4) * width, "gelu"))

    return step


def cross_covariance(pen: Pen) -> Step:
    """Attention between channels: q and k normed along tokens, scores of (dim, dim)."""
    temperature = pen.chance(0.8)
    expanded = pen.chance(0.7)

    def normed(x: str) -> str:
        length = pen.op("Clip", pen.reduce("ReduceL2", x, (-1,)), pen.scalar(1e-12), "")
        if expanded:
            length = pen.op("Expand", length, pen.b.const(pen.shape(x)))
        return pen.op("Div", x, length)

    def step(x: str) -> str:
        batch, tokens, width = pen.shape(x)
        heads, dim = heads_of(pen, width)
        wide = pen.reshape(pen.linear(pen.layer_norm(x), 3 * width), batch, tokens, 3, heads, dim)
        stacked = pen.transpose(wide, 2, 0, 3, 4, 1)
        q, k, v = (pen.squeeze(part, 0) for part in pen.split(stacked, (1, 1, 1), axis=0))
        scores = pen.matmul(normed(q), pen.transpose(normed(k), 0, 1, 3, 2))
        if temperature:
            scores = pen.op("Mul", scores, pen.weight(heads, 1, 1))
        y = pen.matmul(pen.op("Softmax", scores, axis=-1), v)
        y = pen.reshape(pen.transpose(y, 0, 3, 1, 2), batch, tokens, width)
        x = pen.op("Add", x, _scaled(pen, pen.linear(y, width), True))
        if pen.chance(0.5):
            x = pen.op("Add", x, perceptron(pen, pen.layer_norm(x), pen.pick(3, 4) * width, "gelu"))
        return x

    return step


def windowed(pen: Pen) -> Step:
    """Attention inside windows of a channels-last map (batch, height, width, channels), shifted in some."""
    window = pen.pick(4, 7, 7, 8)
    shifted = pen.chance(0.5)

    def roll(x: str, by: int) -> str:
        for axis in (1, 2):
            size = pen.shape(x)[axis]
            cut = by % size
            x = pen.concat((pen.slice(x, axis, cut, size), pen.slice(x, axis, 0, cut)), axis)
        return x

    def step(x: str) -> str:
        batch, height, across, width = pen.shape(x)
        side = window if height % window == 0 and across % window == 0 else math.gcd(height, across)
        rows, columns = height // side, across // side
        y = pen.layer_norm(x)
        moved = shifted and side > 1 and rows > 1
        if moved:
            y = roll(y, side // 2)
        y = pen.transpose(pen.reshape(y, batch, rows, side, columns, side, width), 0, 1, 3, 2, 4, 5)
        y = pen.reshape(y, batch * rows * columns, side * side, width)
        y = self_attention(pen, y, biased=True)
        y = pen.reshape(y, batch, rows, columns, side, side, width)
        y = pen.reshape(pen.transpose(y, 0, 1, 3, 2, 4, 5), batch, height, across, width)
        if moved:
            y = roll(y, -(side // 2))
        x = pen.op("Add", x, y)
        if pen.chance(0.6):
            x = pen.op("Add", x, perceptron(pen, pen.layer_norm(x), 4 * width, "gelu"))
        if height % 2 == 0 and across % 2 == 0 and pen.chance(0.3):
            y = pen.reshape(x, batch, height // 2, 2, across // 2, 2, width)
            y = pen.reshape(pen.transpose(y, 0, 1, 3, 4, 2, 5), batch, height // 2, across // 2, 4 * width)
            x = pen.linear(pen.layer_norm(y), 2 * width, bias=False)
        return x

    return step


def window_input(pen: Pen) -> str:
    """A channels-last map whose sides are mostly multiples of usual windows."""
    width = 8 * max(2, pen.width(16, 768) // 8)
    side = math.sqrt(pen.log_uniform(6e6, 7e7) / (12.0 * width * width * pen.batch))
    step = pen.pick(7, 7, 8, 4)
    side = step * max(1, min(round(side / step), 64 // step))
    return pen.input(pen.batch, side, side, width)


def map_attention(pen: Pen) -> Step:
    """Attention over the pixels of an NCHW map, or between patches of it: the hybrids' blocks."""
    family = pen.pick("patches", "pixels", "conv_projected", "reduced")
    act = pen.pick("silu", "gelu", "hard_swish")

    def add_attention(tokens: str, ratio: int) -> str:
        tokens = pen.op("Add", tokens, self_attention(pen, pen.layer_norm(tokens)))
        y = perceptron(pen, pen.layer_norm(tokens), ratio * pen.shape(tokens)[-1], act)
        return pen.op("Add", tokens, y)

    def patches(x: str) -> str:
        batch, cin, height, across = pen.shape(x)
        width = max(16, cin // 16 * 16)
        y = pen.conv(pen.conv_bn(x, cin, 3, act=act), width, bias=False)
        y = pen.reshape(y, batch * width * (height // 2), 2, across // 2, 2)
        y = pen.reshape(pen.transpose(y, 0, 2, 1, 3), batch, width, height * across // 4, 4)
        y = pen.reshape(pen.transpose(y, 0, 3, 2, 1), batch * 4, height * across // 4, width)
        y = pen.layer_norm(add_attention(y, pen.pick(2, 4)))
        y = pen.transpose(pen.reshape(y, batch, 4, height * across // 4, width), 0, 3, 2, 1)
        y = pen.reshape(y, batch * width * (height // 2), across // 2, 2, 2)
        y = pen.reshape(pen.transpose(y, 0, 2, 1, 3), batch, width, height, across)
        y = pen.conv_bn(y, cin, act=act)
        return pen.conv_bn(pen.concat((x, y)), cin, 3, act=act)

    def pixels(x: str) -> str:
        batch, width, height, across = pen.shape(x)
        tokens = pen.transpose(pen.reshape(x, batch, width, height * across), 0, 2, 1)
        tokens = add_attention(tokens, pen.pick(2, 4))
        return pen.reshape(pen.transpose(tokens, 0, 2, 1), batch, width, height, across)

    def conv_projected(x: str) -> str:
        batch, width, height, across = pen.shape(x)
        heads, count = pen.pick(2, 4, 8), height * across
        dim, value_dim = pen.pick(16, 16, 32), pen.pick(16, 32, 64)
        y = pen.conv_bn(x, heads * (2 * dim + value_dim))
        y = pen.reshape(y, batch, heads, 2 * dim + value_dim, count)
        q, k, v = pen.split(y, (dim, dim, value_dim), axis=2)
        scores = pen.matmul(pen.transpose(q, 0, 1, 3, 2), k)
        scores = pen.op("Mul", scores, pen.scalar(dim**-0.5))
        scores = pen.op("Add", scores, pen.weight(1, heads, count, count))
        y = pen.matmul(v, pen.transpose(pen.op("Softmax", scores, axis=-1), 0, 1, 3, 2))
        y = pen.reshape(y, batch, heads * value_dim, height, across)
        return pen.op("Add", x, pen.conv_bn(pen.act(y, act), width))

    def reduced(x: str) -> str:
        """Queries from all pixels, keys and values from a strided convolution of them."""
        batch, width, height, across = pen.shape(x)
        heads, dim = heads_of(pen, width)
        tokens = pen.layer_norm(pen.transpose(pen.reshape(x, batch, width, height * across), 0, 2, 1))
        small = pen.conv(x, width, 2, 2, pads=(0, 0, 0, 0))
        few = math.prod(pen.shape(small)[2:])
        small = pen.layer_norm(pen.transpose(pen.reshape(small, batch, width, few), 0, 2, 1))
        q = pen.reshape(pen.linear(tokens, width), batch, height * across, heads, dim)
        q = pen.transpose(q, 0, 2, 1, 3)
        both = pen.reshape(pen.linear(small, 2 * width), batch, few, 2, heads, dim)
        both = pen.transpose(both, 2, 0, 3, 1, 4)
        k, v = (pen.op("Gather", both, pen.b.const(i), axis=0) for i in range(2))
        y = merge_heads(pen, attend(pen, q, pen.transpose(k, 0, 1, 3, 2), v))
        y = pen.transpose(pen.linear(y, width), 0, 2, 1)
        return pen.op("Add", x, pen.reshape(y, batch, width, height, across))

    def step(x: str) -> str:
        _, _, height, across = pen.shape(x)
        if height * across > 1600:
            return pen.conv_bn(x, pen.width(16, 256), 3, 2, act=act)
        halves = height % 2 == 0 and across % 2 == 0
        if family == "patches" and halves:
            return patches(x)
        if family == "reduced" and halves:
            return reduced(x)
        return conv_projected(x) if family == "conv_projected" else pixels(x)

    return step


def linear_norm(pen: Pen) -> Step:
    """Attention whose projections are fully connected layers with batch normalisation on flattened tokens."""
    act = pen.pick("hard_swish", "hard_swish", "gelu", "relu")

    def project(x: str, width: int) -> str:
        batch, tokens, _ = pen.shape(x)
        y = pen.matmul(x, pen.weight(pen.shape(x)[-1], width))
        flat = pen.batch_norm(pen.reshape(y, batch * tokens, width))
        return pen.reshape(flat, batch, tokens, width)

    def step(x: str) -> str:
        batch, tokens, width = pen.shape(x)
        dim, value_dim = pen.pick(16, 16, 32), pen.pick(32, 32, 64)
        heads = pen.integer(2, 8)
        y = pen.reshape(project(x, heads * (2 * dim + value_dim)), batch, tokens, heads, 2 * dim + value_dim)
        q, k, v = pen.split(y, (dim, dim, value_dim), axis=3)
        q, k, v = pen.transpose(q, 0, 2, 1, 3), pen.transpose(k, 0, 2, 3, 1), pen.transpose(v, 0, 2, 1, 3)
        y = attend(pen, q, k, v, (heads, tokens, tokens))
        x = pen.op("Add", x, project(pen.act(merge_heads(pen, y), act), width))
        y = project(pen.act(project(x, 2 * width), act), width)
        return pen.op("Add", x, y)

    return step


def token_head(pen: Pen, x: str) -> str:
    """Class token or mean over tokens, then a classifier."""
    if pen.chance(0.5):
        x = pen.op("Gather", pen.layer_norm(x), pen.b.const(0), axis=1)
    else:
        x = pen.reduce("ReduceMean", x, (1,), keepdims=0)
    return pen.gemm(x, pen.pick(10, 100, 1000, pen.integer(2, 2000)))
