"""Where models are measured and traced: a process of its own, so that a runtime that crashes loses one model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from nn_meter import frontends
from nn_meter.backends import Backend, Given, Model, Named, Prepared, runtime_of
from nn_meter.backends.onnx_writer import as_bytes, with_random_weights
from nn_meter.devices.device import Value
from nn_meter.devices.here import here
from nn_meter.devices.link import Link, LocalLink
from nn_meter.errors import NnMeterError
from nn_meter.evaluation.subjects import Subject
from nn_meter.ir import Graph
from nn_meter.measuring import Failure, Measurement, Plan, Runner, Worker, measure
from nn_meter.measuring.asking import measurer
from nn_meter.measuring.fixed import PROBE, PROBED, patience
from nn_meter.measuring.patience import Patience
from nn_meter.progress import Progress
from nn_meter.runtimes.executed import read_all
from nn_meter.storage import Closing

TIMEOUT_S = 900.0
"""Longest silence of the measuring process: loading a group of models and a turn of each."""


@dataclass(frozen=True, slots=True)
class Source:
    """A model as it crosses a link: a file that lies there, an ONNX model, or a graph; shapes and values of a
    file's inputs where they are not its own."""

    path: Path | None = None
    onnx: bytes | None = None
    graph: Graph | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    values: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, source: Any, attach: Callable[[Path], Path], options: Mapping[str, Any] = MappingProxyType({})) -> Self:
        """``source``: an ONNX file as it is, ``attach`` says where; anything else as the graph that a front end reads
        with ``options``.

        Raises:
            ModelError: it cannot be read.
        """
        if isinstance(source, Graph):
            return cls(graph=source)
        front = frontends.find(source)
        if front.name != "onnx":
            return cls(graph=frontends.read(source, front.name, **options))
        shapes: dict[str, tuple[int, ...]] = {}
        values: dict[str, tuple[float, ...]] = {}
        if options:
            inputs = [graph.tensors[name] for graph in (frontends.read(source, **options),) for name in graph.inputs]
            shapes = {each.name: each.shape for each in inputs}
            values = {each.name: each.value for each in inputs if each.value is not None}
        if isinstance(source, str | Path):
            return cls(path=attach(Path(source)), shapes=shapes, values=values)
        return cls(onnx=as_bytes(with_random_weights(source)), shapes=shapes, values=values)

    def model(self, backend: Backend) -> Model:
        """As ``backend`` takes it; weights that are absent become random, sizes that are free are fixed unless it opens
        models with such as they are."""
        if self.graph:
            return self.graph
        fixed = not getattr(backend, "opens_free", False)
        source = self.onnx or self.path
        return as_bytes(with_random_weights(source, input_shapes=self.shapes, input_values=self.values, fixed=fixed))

    def read(self) -> Graph:
        """Its graph."""
        return self.graph or frontends.read(self.onnx or self.path, input_shapes=self.shapes or None)


def measure_models(
    backend: Named,
    sources: Sequence[Source],
    plan: Plan,
    facts: Mapping[str, Value],
    *,
    progress: Progress | None = None,
) -> list[Measurement | Failure]:
    """Models of one group, loaded together and timed by turns, the probe among them; called where the backend runs."""
    begin = time.monotonic()
    return _measure_models(backend.load(), _patience(backend), sources, plan, facts, progress, time.monotonic, begin)


def _patience(backend: Named) -> Patience | None:
    """With the probe, where the runtime takes it."""
    try:
        return patience(backend)
    except Exception:  # a runtime may fail in any way
        return None


def _measure_models(
    backend: Backend,
    still: Patience | None,
    sources: Sequence[Source],
    plan: Plan,
    facts: Mapping[str, Value],
    progress: Progress | None,
    clock: Callable[[], float],
    begin: float,
) -> list[Measurement | Failure]:
    results: dict[int, Measurement | Failure] = {}
    ready: dict[int, Prepared] = {}
    with ExitStack() as stack:
        for index, source in enumerate(sources):
            try:
                prepared = stack.enter_context(backend.prepare(source.model(backend)))
                prepared.run(1)
                ready[index] = prepared
            except Exception as error:  # a runtime may fail in any way
                results[index] = _failure(error)
        left = replace(plan, budget_s=max(0.0, plan.budget_s - (clock() - begin)))
        turned: list[Runner] = list(ready.values())
        plans = [left] * len(ready)
        if still is not None and turned:
            turned.append(still.probe)
            plans.append(replace(PROBED, rounds=left.rounds, budget_s=left.budget_s))
        taken = measure(turned, plans, clock=clock, progress=progress, patience=still, environment=facts)
        if len(turned) > len(ready):
            *taken, probed = taken
            taken = [replace(each, environment={**facts, PROBE: probed.quiet_ms}) for each in taken]
    results.update(zip(ready, taken, strict=True))
    return [results[index] for index in range(len(sources))]


def trace_model(backend: Named, source: Source, repeats: int) -> dict[str, list[float]]:
    """Kernel kind to the sum of its kernels in each traced run, in milliseconds; called where the backend runs.

    Raises:
        BackendError: the runtime does not tell its kernels, or which nodes they cover.
    """
    loaded = backend.load()
    with loaded.prepare(source.model(loaded)) as prepared:
        traces = prepared.trace(repeats)
    sums: dict[str, list[float]] = {}
    for each in read_all([trace.executed for trace in traces], runtime_of(loaded), source.read()):
        own = [sum(run) for run in zip(*(traces[i].latencies_ms for i in each.positions), strict=True)]
        before = sums.get(each.kind, [0.0] * repeats)
        sums[each.kind] = [a + b for a, b in zip(before, own, strict=True)]
    return sums


class Bench(Closing):
    """A backend and the process that it runs in.

    Args:
        backend: By name it runs in a process of its own; an object runs in this one.
        link: Where it runs; by default here.
        clock: Seconds; of an object's runs.
        lost: Hears of each time that the link is lost.

    Raises:
        BackendError, DeviceError, MeasurementError: the runtime does not answer.
    """

    def __init__(
        self,
        backend: Named | Backend,
        link: Link | None = None,
        clock: Callable[[], float] = time.monotonic,
        lost: Callable[[Failure], None] | None = None,
    ) -> None:
        self.link: Link = link or LocalLink()
        self.clock = clock
        self._backend = backend
        self._worker: Worker | None = None
        if isinstance(backend, Named):
            where, self._worker = measurer(backend, self.link, TIMEOUT_S, lost)
            self.settings: Mapping[str, Value] = where.settings
            self.facts: Mapping[str, Value] = where.facts()
        else:
            self.settings = backend.check()
            self.facts = {**here().facts(), **self.settings}
        self.name = backend.load().name if isinstance(backend, Named) else backend.name

    def measure(
        self, models: Sequence[Any], plan: Plan, progress: Progress | None = None
    ) -> list[Measurement | Failure]:
        """Models, or subjects, loaded together and timed by turns; where the process dies of it, each by itself."""
        sources = [source_of(model, self._attach) for model in models]
        sound = [source for source in sources if isinstance(source, Source)]
        taken = self._take(sound, plan, progress)
        if isinstance(taken, Failure):
            taken = [taken] if len(sound) == 1 else self._alone(sound, plan, progress)
        rest = iter(taken)
        return [next(rest) if isinstance(source, Source) else source for source in sources]

    def _alone(self, sources: Sequence[Source], plan: Plan, progress: Progress | None) -> list[Measurement | Failure]:
        results: list[Measurement | Failure] = []
        for source in sources:
            taken = self._take([source], plan, None)
            results.append(taken if isinstance(taken, Failure) else taken[0])
            if progress is not None:
                total = len(sources) * plan.rounds
                progress(len(results) * plan.rounds, total, None, "after a crash, each model by itself")
        return results

    def trace(self, model: Any, repeats: int) -> Mapping[str, list[float]] | Failure:
        """Kernel kind to the sum of its kernels in each traced run, in milliseconds."""
        source = source_of(model, self._attach)
        if isinstance(source, Failure):
            return source
        if self._worker is not None:
            assert isinstance(self._backend, Named)
            return self._worker.call(trace_model, self._backend, source, repeats)
        try:
            return trace_model(Given(self._backend), source, repeats)  # type: ignore[arg-type]
        except Exception as error:  # a runtime may fail in any way
            return _failure(error)

    def close(self) -> None:
        """End the process."""
        if self._worker is not None:
            self._worker.close()

    def _attach(self, path: Path) -> Path:
        return path if self._worker is None else self._worker.attach(path)

    def _take(
        self, sources: Sequence[Source], plan: Plan, progress: Progress | None
    ) -> list[Measurement | Failure] | Failure:
        if self._worker is None:
            assert not isinstance(self._backend, Named)
            return _measure_models(self._backend, None, sources, plan, self.facts, progress, self.clock, self.clock())
        assert isinstance(self._backend, Named)
        return self._worker.call(measure_models, self._backend, sources, plan, self.facts, progress=progress)


def source_of(model: Any, attach: Callable[[Path], Path]) -> Source | Failure:
    """What crosses a link of a model, or of a subject; ``attach`` as in ``Source.of``."""
    try:
        if isinstance(model, Subject):
            return Source.of(model.source, attach, model.options)
        return Source.of(model, attach)
    except NnMeterError as error:
        return _failure(error)


def _failure(error: Exception) -> Failure:
    if isinstance(error, NnMeterError):
        return Failure("refused", str(error))
    return Failure("crash", f"{type(error).__name__}: {error}")
