"""A backend without a runtime: plays latencies from a table, on a clock that it moves itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import ClassVar, Self

import numpy as np

from nn_meter.backends.base import ExecutedKernel, KernelTrace, Model, Operand
from nn_meter.errors import BackendError
from nn_meter.ir.graph import Graph, Node


class FakeClock:
    """A clock in seconds that stands still until somebody moves it; call it to read it."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s

    def __call__(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Move on by ``seconds``."""
        self._now_s += seconds


@dataclass(frozen=True, slots=True)
class ReplayConfig:
    """What the pretended device does.

    ``recorded_ms`` are latencies of whole runs by graph name, played in turn and over again. A graph that is
    not there costs ``ns_per_element`` for each element that its nodes write and ``us_per_kernel`` for each
    node; ``noise`` is the largest relative slowdown of a run. ``clock`` moves on by each run. Graphs named in
    ``refused`` are not accepted.
    """

    recorded_ms: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    ns_per_element: float = 1.0
    us_per_kernel: float = 1.0
    noise: float = 0.0
    seed: int = 0
    refused: frozenset[str] = frozenset()
    clock: FakeClock | None = None


class ReplayBackend:
    """``Backend`` for tests: every node is a kernel of its own."""

    name: ClassVar[str] = "replay"
    config_type: ClassVar[type[ReplayConfig]] = ReplayConfig

    def __init__(self, config: ReplayConfig = ReplayConfig()) -> None:
        self.config = config

    def check(self) -> Mapping[str, str | int | float]:
        """A runtime of no version."""
        return {"runtime": "replay", "runtime_version": "0", "device": "none"}

    def prepare(self, model: Model) -> ReplayPrepared:
        """``model`` ready to be pretended to run.

        Raises:
            BackendError: bytes instead of a graph, or a graph named in ``refused``.
        """
        return ReplayPrepared(self._accept(model), self.config)

    def fused(self, model: Model) -> list[ExecutedKernel]:
        """One kernel for each node.

        Raises:
            BackendError: bytes instead of a graph, or a graph named in ``refused``.
        """
        graph = self._accept(model)
        return [_executed(graph, node) for node in graph.nodes]

    def _accept(self, model: Model) -> Graph:
        if not isinstance(model, Graph):
            raise BackendError("replay takes graphs only; read the model with a front end first")
        if model.name in self.config.refused:
            raise BackendError(f"replay refuses the model: {model.name} is in its list of refused graphs")
        return model


class ReplayPrepared:
    """``Prepared`` that computes or looks up its latencies."""

    def __init__(self, graph: Graph, config: ReplayConfig) -> None:
        self._graph = graph
        self._config = config
        self._rng = np.random.default_rng(config.seed)
        self._played = 0

    def run(self, repeats: int) -> list[float]:
        """The next ``repeats`` latencies in milliseconds."""
        return [self._next_ms() for _ in range(repeats)]

    def trace(self, repeats: int) -> list[KernelTrace]:
        """The latencies of the next ``repeats`` runs, shared out among the nodes by their cost."""
        runs = self.run(repeats)
        costs = [self._cost_ms(node) for node in self._graph.nodes]
        total = sum(costs) or 1.0
        return [
            KernelTrace(_executed(self._graph, node), tuple(run * cost / total for run in runs))
            for node, cost in zip(self._graph.nodes, costs, strict=True)
        ]

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next_ms(self) -> float:
        recorded = self._config.recorded_ms.get(self._graph.name)
        if recorded:
            latency_ms = recorded[self._played % len(recorded)]
        else:
            latency_ms = sum(map(self._cost_ms, self._graph.nodes)) * (
                1 + self._config.noise * self._rng.random()
            )
        self._played += 1
        if self._config.clock is not None:
            self._config.clock.advance(latency_ms / 1000)
        return latency_ms

    def _cost_ms(self, node: Node) -> float:
        elements = sum(tensor.size for tensor in self._graph.output_tensors(node))
        return elements * self._config.ns_per_element / 1e6 + self._config.us_per_kernel / 1e3


def _executed(graph: Graph, node: Node) -> ExecutedKernel:
    tensors = graph.tensors

    def operands(names: tuple[str, ...]) -> tuple[Operand | None, ...]:
        return tuple(Operand(tensors[name].shape, tensors[name].dtype) if name else None for name in names)

    return ExecutedKernel(
        name=node.name,
        op_type=node.op_type,
        domain=node.domain,
        inputs=operands(node.inputs),
        outputs=operands(node.outputs),
        input_names=node.inputs,
        output_names=node.outputs,
        attrs=MappingProxyType(dict(node.attrs)),
        constant_inputs=frozenset(name for name in node.inputs if name and tensors[name].const),
    )
