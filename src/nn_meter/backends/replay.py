"""A backend without a runtime: plays latencies from a table, or those of a runtime whose fusions are given, on a clock
that it moves itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from nn_meter.backends.base import Model
from nn_meter.errors import BackendError
from nn_meter.frontends import onnx
from nn_meter.ir.graph import Graph, Node
from nn_meter.runtimes.trace import ExecutedKernel, KernelTrace, Operand
from nn_meter.storage import Closing


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
    not there costs ``ns_per_element`` for each element that its kernels write and ``us_per_kernel`` for each
    kernel. ``fusions`` are the pairs of operators that make one kernel where the second alone reads what the first
    writes; with ``shows`` false nobody is told. ``noise`` is the largest relative slowdown of a run, ``place_noise``
    that of a model for as long as it stays prepared. ``clock`` moves on by each run. Graphs named in ``refused``, and
    those with an operator named there, are not accepted; those in ``deadly`` kill the process.
    """

    recorded_ms: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    ns_per_element: float = 1.0
    us_per_kernel: float = 1.0
    fusions: frozenset[tuple[str, str]] = frozenset()
    shows: bool = True
    noise: float = 0.0
    place_noise: float = 0.0
    seed: int = 0
    refused: frozenset[str] = frozenset()
    deadly: frozenset[str] = frozenset()
    clock: FakeClock | None = None


class ReplayBackend:
    """``Backend`` for tests: every node is a kernel of its own, save where ``fusions`` say otherwise."""

    name: ClassVar[str] = "replay"
    config_type: ClassVar[type[ReplayConfig]] = ReplayConfig

    def __init__(self, config: ReplayConfig = ReplayConfig()) -> None:
        self.config = config
        self.prepared = 0
        """Models prepared so far; each has noise of its own."""

    def check(self) -> Mapping[str, str | int | float]:
        """A runtime of no version."""
        return {"runtime": "replay", "runtime_version": "0", "device": "none"}

    def prepare(self, model: Model) -> ReplayPrepared:
        """``model`` ready to be pretended to run.

        Raises:
            BackendError: a graph that ``refused`` names.
            ModelError: bytes that are no ONNX model.
        """
        self.prepared += 1
        return ReplayPrepared(self._accept(model), self.config, self.prepared)

    def fused(self, model: Model) -> list[ExecutedKernel]:
        """The kernels that ``fusions`` make.

        Raises:
            BackendError: a graph that ``refused`` names, or ``shows`` is false.
            ModelError: bytes that are no ONNX model.
        """
        if not self.config.shows:
            raise BackendError("replay does not show what it executes")
        graph = self._accept(model)
        return [_executed(graph, kernel) for kernel in _kernels(graph, self.config.fusions)]

    def _accept(self, model: Model) -> Graph:
        graph = model if isinstance(model, Graph) else _read(model)
        refused = frozenset(self.config.refused).intersection((graph.name, *(node.op_type for node in graph.nodes)))
        if graph.name in self.config.deadly:
            os.abort()
        if refused:
            raise BackendError(f"replay refuses the model: {min(refused)} is in its list of what to refuse")
        return graph


class ReplayPrepared(Closing):
    """``Prepared`` that computes or looks up its latencies."""

    def __init__(self, graph: Graph, config: ReplayConfig, number: int = 0) -> None:
        self._graph = graph
        self._config = config
        self._rng = np.random.default_rng((config.seed, number))
        self._played = 0
        self._kernels = _kernels(graph, config.fusions)
        slower = 1 + config.place_noise * self._rng.random()
        self._costs_ms = [slower * self._cost_ms(kernel) for kernel in self._kernels]

    def run(self, repeats: int) -> list[float]:
        """The next ``repeats`` latencies in milliseconds."""
        return [self._next_ms() for _ in range(repeats)]

    def trace(self, repeats: int) -> list[KernelTrace]:
        """The latencies of the next ``repeats`` runs, shared out among the kernels by their cost."""
        runs = self.run(repeats)
        total = sum(self._costs_ms) or 1.0
        return [
            KernelTrace(_executed(self._graph, kernel), tuple(run * cost_ms / total for run in runs))
            for kernel, cost_ms in zip(self._kernels, self._costs_ms, strict=True)
        ]

    def close(self) -> None:
        """Nothing is held."""

    def _next_ms(self) -> float:
        recorded = self._config.recorded_ms.get(self._graph.name)
        if recorded:
            latency_ms = recorded[self._played % len(recorded)]
        else:
            latency_ms = sum(self._costs_ms) * (1 + self._config.noise * self._rng.random())
        self._played += 1
        if self._config.clock is not None:
            self._config.clock.advance(latency_ms / 1000)
        return latency_ms

    def _cost_ms(self, kernel: tuple[Node, ...]) -> float:
        elements = sum(tensor.size for tensor in self._graph.output_tensors(kernel[-1]))
        return elements * self._config.ns_per_element / 1e6 + self._config.us_per_kernel / 1e3


@lru_cache(maxsize=64)
def _read(model: bytes) -> Graph:
    """Detection prepares the same models over and over."""
    return onnx.read(model)


def _kernels(graph: Graph, fusions: frozenset[tuple[str, str]]) -> list[tuple[Node, ...]]:
    """Nodes of each kernel, in the order of the first ones: a node joins the one whose result it alone reads."""
    found: dict[str, list[Node]] = {}
    last: dict[str, str] = {}
    """Output of a kernel's last node to the kernel."""
    for node in graph.nodes:
        home = next(
            (
                last[name]
                for name in node.inputs
                if name in last
                and (graph.producer[name].op_type, node.op_type) in fusions
                and len(graph.consumers[name]) == 1
                and name not in graph.outputs
            ),
            node.name,
        )
        found.setdefault(home, []).append(node)
        last |= dict.fromkeys(node.outputs, home)
    return [tuple(nodes) for nodes in found.values()]


def _executed(graph: Graph, kernel: tuple[Node, ...]) -> ExecutedKernel:
    tensors, first, last = graph.tensors, kernel[0], kernel[-1]
    made = {name for node in kernel[:-1] for name in node.outputs}
    inputs = tuple(name for node in kernel for name in node.inputs if name not in made)

    def operands(names: tuple[str, ...]) -> tuple[Operand | None, ...]:
        return tuple(Operand(tensors[name].shape, tensors[name].dtype) if name else None for name in names)

    return ExecutedKernel(
        name=first.name,
        op_type=first.op_type,
        domain=first.domain,
        inputs=operands(inputs),
        outputs=operands(last.outputs),
        input_names=inputs,
        output_names=last.outputs,
        attrs=MappingProxyType(dict(first.attrs)),
        constant_inputs=frozenset(name for name in inputs if name and tensors[name].const),
        nodes=tuple(node.name for node in kernel),
    )
