"""How far the kernels of a partition are those that a runtime executes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from nn_meter.backends.onnxruntime_cpu import OnnxRuntimeCpu
from nn_meter.ir import Graph, parse
from nn_meter.kernels.kinds import VIEWS
from nn_meter.kernels.partition import Kernel
from nn_meter.kernels.rules import RuleSet, read_rules
from nn_meter.runtimes import find
from nn_meter.runtimes.executed import read_all
from nn_meter.runtimes.trace import ExecutedKernel


@cache
def rules_here() -> RuleSet:
    """ONNX Runtime's on this processor: to how many channels it pads four, 16 with AVX-512 and 8 without."""
    graph = parse(
        "input x: float32[1,3,8,8]\nconst w: float32[4,3,1,1]\ny = Conv(x, w) {kernel_shape=(1, 1)}\noutput y"
    )
    padded = next(k.outputs[0].shape[1] for k in OnnxRuntimeCpu().fused(graph) if k.outputs[0] is not None)
    return read_rules({"runtime": "onnxruntime", "block": padded})


@dataclass(frozen=True)
class Agreement:
    """Kernels of the partition (``ours``), those that were executed (``truth``), and how many are ``both``."""

    ours: int
    truth: int
    both: int

    @property
    def precision(self) -> float:
        """Share of our kernels that were executed, 0 to 1."""
        return self.both / max(self.ours, 1)

    @property
    def recall(self) -> float:
        """Share of the executed kernels that are ours, 0 to 1."""
        return self.both / max(self.truth, 1)

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(self.ours + other.ours, self.truth + other.truth, self.both + other.both)


def agreement(
    kernels: Iterable[Kernel], executed: Sequence[ExecutedKernel], backend: str, graph: Graph
) -> Agreement:
    """Kernels that cost something against those that ``backend`` executed for ``graph``.

    They are the same where kind and config are; for a runtime whose graph is not in ONNX's terms, where they cover the
    same nodes, nodes that cost nothing left out.
    """
    ours, truth = _both(kernels, executed, backend, graph)
    return Agreement(ours.total(), truth.total(), (ours & truth).total())


def differing(
    kernels: Iterable[Kernel], executed: Sequence[ExecutedKernel], backend: str, graph: Graph
) -> list[str]:
    """What is in one alone of what ``agreement`` compares: ``-`` predicted, ``+`` executed."""
    ours, truth = _both(kernels, executed, backend, graph)
    place = {node.name: (i, node.op_type) for i, node in enumerate(graph.nodes)}

    def said(key: Hashable) -> tuple[int, str]:
        if not isinstance(key, frozenset):
            return 0, str(key)
        nodes = sorted(key, key=place.__getitem__)
        return place[nodes[0]][0], " ".join(f"{place[name][1]}({name})" for name in nodes)

    found = [(*said(key), sign) for sign, some in (("-", ours - truth), ("+", truth - ours)) for key in some]
    return [f"{sign} {text}" for _, text, sign in sorted(found)]


def _both(
    kernels: Iterable[Kernel], executed: Sequence[ExecutedKernel], backend: str, graph: Graph
) -> tuple[Counter[Hashable], Counter[Hashable]]:
    costly, free = [], set()
    for kernel in kernels:
        if kernel.free:
            free.update(kernel.nodes)
        else:
            costly.append(kernel)
    ours: Counter[Hashable]
    truth: Counter[Hashable]
    runtime = find(backend)
    if runtime.read is not None:
        ours = Counter((k.kind, k.config) for k in costly)
        truth = Counter((k.kind, k.config) for k in read_all(executed, runtime, graph))
    else:
        if runtime.views:
            free.update(node.name for node in graph.nodes if node.op_type in VIEWS)
        ours = Counter({frozenset(k.nodes) - free: 1 for k in costly})
        truth = Counter({frozenset(k.nodes) - free: 1 for k in read_all(executed, runtime, graph)})
        del ours[frozenset()], truth[frozenset()]
    return ours, truth
