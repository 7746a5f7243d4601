"""NAS-Bench-201 (Dong and Yang, ICLR 2020): networks of one repeated cell, named by the operators on the cell's edges.

``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|``: a group for each inner place of the cell, in a group an operator for
each place before it.
"""

from __future__ import annotations

import re

from nn_meter.errors import ModelError
from nn_meter.ir import Graph, GraphBuilder

CELLS, WIDTHS, SIZE, CLASSES = 5, (16, 32, 64), 32, 10
"""Cells in a stage, channels of each stage, pixels of a side, classes: those of CIFAR-10."""

OPERATORS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


def network(architecture: str) -> Graph:
    """The network of a cell, for one image.

    Raises:
        ModelError: another text, or an operator that there is not.
    """
    groups = [re.findall(r"([a-z0-9_]+)~(\d+)", group) for group in architecture.split("+")]
    edges = [[(op, int(place)) for op, place in group] for group in groups]
    if not all(edges) or any(op not in OPERATORS or p > i for i, g in enumerate(edges) for op, p in g):
        raise ModelError(f"{architecture!r} is no cell of NAS-Bench-201; one is |nor_conv_3x3~0|+|none~0|...")
    b = GraphBuilder("nasbench201")
    x = _convolved(b, b.input((1, 3, SIZE, SIZE)), WIDTHS[0], 3)
    for stage, width in enumerate(WIDTHS):
        if stage:
            x = _reduced(b, x, width)
        for _ in range(CELLS):
            x = _cell(b, x, edges)
    x = b.op("Flatten", b.op("GlobalAveragePool", b.op("Relu", x)))
    return b.graph(b.op("Gemm", x, b.weight((WIDTHS[-1], CLASSES)), b.weight((CLASSES,))))


def _cell(b: GraphBuilder, x: str, edges: list[list[tuple[str, int]]]) -> str:
    places: list[str | None] = [x]
    for group in edges:
        made = [y for op, place in group if (y := _edge(b, op, places[place])) is not None]
        total = made[0] if made else None
        for other in made[1:]:
            total = b.op("Add", total or "", other)
        places.append(total)
    # a cell that lets nothing through adds up zeros, which runtimes fold to a constant
    return places[-1] or b.op("Mul", x, b.const(0.0, "float32"))


def _edge(b: GraphBuilder, op: str, x: str | None) -> str | None:
    if x is None or op == "none":
        return None
    if op == "skip_connect":
        return x
    if op == "avg_pool_3x3":
        return b.op("AveragePool", x, kernel_shape=(3, 3), pads=(1,) * 4, count_include_pad=0)
    return _convolved(b, b.op("Relu", x), b.shape(x)[1], int(op[-1]))


def _convolved(b: GraphBuilder, x: str, width: int, area: int, stride: int = 1) -> str:
    """A convolution, its batch normalisation folded into it."""
    weight, bias = b.weight((width, b.shape(x)[1], area, area)), b.weight((width,))
    return b.op("Conv", x, weight, bias, kernel_shape=(area, area), strides=(stride,) * 2, pads=(area // 2,) * 4)


def _reduced(b: GraphBuilder, x: str, width: int) -> str:
    """A residual block that halves the image."""
    inner = _convolved(b, b.op("Relu", x), width, 3, 2)
    inner = _convolved(b, b.op("Relu", inner), width, 3)
    halved = b.op("AveragePool", x, kernel_shape=(2, 2), strides=(2, 2))
    return b.op("Add", inner, _convolved(b, halved, width, 1))
