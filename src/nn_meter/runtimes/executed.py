"""Kind and config of a kernel that a runtime says it executed: the truth that rules are held against, and what
a traced measurement is filed under.

Where a runtime's graph is in ONNX's terms, each of its kernels is read by itself: ``read`` of its value knows the
runtime's spellings. Of any other runtime it is enough to know which of the model's nodes a kernel covers
(``runtimes.cover``): they give kind and config as they do in ``runtimes.pairs``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nn_meter.errors import BackendError
from nn_meter.ir import Graph
from nn_meter.kernels.kinds import read_kernel
from nn_meter.kernels.partition import KernelConfig
from nn_meter.runtimes.base import Runtime
from nn_meter.runtimes.cover import cover
from nn_meter.runtimes.pairs import read_groups
from nn_meter.runtimes.trace import ExecutedKernel


@dataclass(frozen=True, slots=True)
class Executed:
    """A kernel as it ran: ``positions`` among those that the runtime tells, whose times add up to its own, and the
    model's ``nodes`` that it covers, empty where the runtime does not tell."""

    kind: str
    config: KernelConfig
    positions: tuple[int, ...]
    nodes: tuple[str, ...] = ()


def read_all(kernels: Sequence[ExecutedKernel], runtime: Runtime, graph: Graph) -> list[Executed]:
    """Every kernel that ``runtime`` executed for ``graph``; what costs nothing by a table is left out.

    Raises:
        BackendError: kernels that are not read by themselves and do not tell which nodes they cover.
    """
    if runtime.read is not None:
        results = frozenset(graph.outputs)
        reads = Counter(name for kernel in kernels for name in kernel.input_names)
        once = {name for kernel in kernels for name in kernel.output_names if reads[name] == 1} - results
        operators = (
            replace(
                runtime.read(kernel),
                last=not results.isdisjoint(kernel.output_names),
                over=not once.isdisjoint(kernel.input_names[:1]),
            )
            for kernel in kernels
        )
        return [Executed(*read_kernel(operator), (i,)) for i, operator in enumerate(operators)]
    groups = cover(kernels, graph)
    if kernels and not groups:
        raise BackendError(
            f"{graph.name}: the runtime does not say which of the model's nodes its kernels cover; its backend has to "
            "fill `nodes` of the kernels that it traces"
        )
    idle = runtime.idle(graph)
    working = [[name for name in group.nodes if name not in idle] or group.nodes for group in groups]
    configs = read_groups(graph, working, lambda work: runtime.laid(work, idle))
    return [
        Executed(*config, group.positions, group.nodes)
        for group, config in zip(groups, configs, strict=True)
        if config is not None
    ]
