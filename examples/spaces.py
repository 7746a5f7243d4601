"""Two search spaces for the examples: what a candidate is, and the network that it stands for.

Networks are written with ``GraphBuilder``, so that nothing beside nn-meter is needed; a ``torch.nn.Module`` or an ONNX
file does as well wherever a network is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

from nn_meter.ir import Graph, GraphBuilder

WIDTHS = (16, 24, 32, 48, 64, 96, 128, 192)
DEPTHS = (1, 2, 3)
STAGES = 4

KERNELS, EXPANSIONS = (3, 5, 7), (3, 4, 6)
UNITS = ((24, 2), (40, 2), (80, 2), (112, 1), (160, 2))
"""Output channels and stride of each unit of the space of Once-for-All (Cai et al., ICLR 2020), on MobileNetV3."""
BLOCKS = 4
"""The most blocks of a unit; the last ones of a unit may be left out, the first never is."""
CHOICES = (9, 9, 10, 10) * len(UNITS)
"""Of each block: kernel size and expansion; beyond these, none at all."""


def staged(widths: Sequence[int], depths: Sequence[int], resolution: int = 96) -> Graph:
    """A plain network: stages of residual blocks, one width and one depth for each of ``STAGES``."""
    b = GraphBuilder("staged")
    x = b.input((1, 3, resolution, resolution))
    cin = 3
    for width, depth in zip(widths, depths, strict=True):
        x = b.op("Relu", b.op("Conv", x, b.weight((width, cin, 3, 3)), pads=(1, 1, 1, 1), strides=(2, 2)))
        for _ in range(depth):
            y = b.op("Relu", b.op("Conv", x, b.weight((width, width, 3, 3)), pads=(1, 1, 1, 1)))
            x = b.op("Relu", b.op("Add", x, b.op("Conv", y, b.weight((width, width, 3, 3)), pads=(1, 1, 1, 1))))
        cin = width
    x = b.op("Flatten", b.op("GlobalAveragePool", x))
    return b.graph(b.op("Gemm", x, b.weight((100, cin)), transB=1))


def once_for_all(candidate: Sequence[int], resolution: int = 160) -> Graph:
    """A network of the second space; ``candidate`` has a choice below ``CHOICES`` for each block."""
    b = GraphBuilder("once_for_all")
    x = b.input((1, 3, resolution, resolution))
    x = b.op("HardSwish", b.op("Conv", x, b.weight((16, 3, 3, 3)), pads=(1, 1, 1, 1), strides=(2, 2)))
    cin = 16
    for unit, (cout, stride) in enumerate(UNITS):
        for block, choice in enumerate(candidate[BLOCKS * unit : BLOCKS * (unit + 1)]):
            if choice == len(KERNELS) * len(EXPANSIONS):
                continue  # left out
            kernel, expansion = KERNELS[choice // 3], EXPANSIONS[choice % 3]
            y = _inverted(b, x, cin, cout, kernel, expansion * cin, 1 if block else stride)
            x = b.op("Add", x, y) if block else y
            cin = cout
    x = b.op("HardSwish", b.op("Conv", x, b.weight((960, cin, 1, 1))))
    x = b.op("Flatten", b.op("GlobalAveragePool", x))
    return b.graph(b.op("Gemm", x, b.weight((1000, 960)), transB=1))


def _inverted(b: GraphBuilder, x: str, cin: int, cout: int, kernel: int, inner: int, stride: int) -> str:
    y = b.op("HardSwish", b.op("Conv", x, b.weight((inner, cin, 1, 1))))
    depthwise = b.weight((inner, 1, kernel, kernel))
    y = b.op("Conv", y, depthwise, pads=(kernel // 2,) * 4, strides=(stride, stride), group=inner)
    return b.op("Conv", b.op("HardSwish", y), b.weight((cout, inner, 1, 1)))
