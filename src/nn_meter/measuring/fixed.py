"""Networks of every measurement: the probe, which tells how quiet the machine is, and one that does nothing."""

from __future__ import annotations

from nn_meter.backends import Named
from nn_meter.ir import Graph, GraphBuilder
from nn_meter.measuring.measure import Plan
from nn_meter.measuring.patience import RUNS, Patience

PROBE = "probe_ms"
"""In the ``environment`` of a measurement the quiet latency of the probe that took turns in it; in that of a bundle,
what it usually was while the bundle's networks were measured."""

PROBED = Plan(rounds=2, turn_s=0.0, min_repeats=RUNS, warmup_turns=1)
"""How the probe takes its turns."""


def probe() -> Graph:
    """A convolution, a product and a large sum."""
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


def patience(chosen: Named) -> Patience:
    """With the probe on a backend, ready to take turns; kept for the life of the process.

    Raises:
        BackendError: the backend refuses it.
    """
    key = str(chosen)
    if key not in _PATIENCE:
        backend = chosen.load()
        prepared = backend.prepare(probe())
        prepared.run(20)
        _PATIENCE[key] = Patience(prepared, looks=not getattr(backend, "by_program", False))
    return _PATIENCE[key]


_PATIENCE: dict[str, Patience] = {}
