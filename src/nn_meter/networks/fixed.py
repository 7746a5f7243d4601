"""Networks that every measurement shares."""

from __future__ import annotations

from nn_meter.ir import Graph, GraphBuilder


def probe() -> Graph:
    """The network whose latency tells how quiet the machine is: a convolution, a product and a large sum."""
    b = GraphBuilder("probe")
    x = b.input((1, 64, 28, 28))
    y = b.op("Conv", x, b.weight((64, 64, 3, 3)), kernel_shape=(3, 3), pads=(1, 1, 1, 1))
    flat = b.op("Reshape", y, b.const((196, 256)))
    z = b.op("MatMul", flat, b.weight((256, 256)))
    big = b.input((1, 512, 1024))
    return b.graph(z, b.op("Add", big, b.input((1, 512, 1024))))


def nothing() -> Graph:
    """One operator on one number: what a call of it costs is what any call costs outside its kernels."""
    b = GraphBuilder("nothing")
    return b.graph(b.op("Sigmoid", b.input((1,))))
