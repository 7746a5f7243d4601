"""Measures models and predicts them side by side.

All models are timed in two halves, the late one after the early one has been through them all, so that the
distance between a model's two answers, the *repeat noise*, holds what the machine itself does in that time.
Within a half, groups of models that fit into memory take turns.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from nn_meter import frontends
from nn_meter.backends import Backend, Model, Prepared, runtime_of
from nn_meter.backends.onnx_writer import as_bytes, with_random_weights
from nn_meter.devices.environment import Value
from nn_meter.errors import InputError, NnMeterError
from nn_meter.frontends.sources import models as named_models
from nn_meter.ir import Graph
from nn_meter.kernels.kinds import read_kernel
from nn_meter.kernels.schema import SCHEMA
from nn_meter.learning.metrics import Metrics, by_group, metrics
from nn_meter.measuring import (
    Failure,
    Journal,
    Measurement,
    Plan,
    environment,
    measure,
    same_machine,
)
from nn_meter.predictors import onnx_1
from nn_meter.predictors.bundle import Bundle
from nn_meter.predictors.prediction import Prediction
from nn_meter.progress import Progress
from nn_meter.runtimes import Runtime
from nn_meter.runtimes.trace import KernelTrace

MISS = 0.10
"""A larger relative error is looked into: its kernels are traced."""

GROUP_MODELS = 8
GROUP_BYTES = 3 << 30
"""What one group of models may take: the weights, and what the runtime makes of them."""

_COPIES_OF_WEIGHTS = 3
_WEIGHT_BYTES = 4
_TRACE_MS = 1500.0
_BLAMED_MAX = 3
_BLAMED_SHARE = 0.2

STATISTICS: Mapping[str, Callable[[Measurement], float]] = MappingProxyType(
    {"quiet": lambda taken: taken.quiet_ms, "median": lambda taken: taken.median_ms}
)
"""What a bundle may say that it predicts."""

DEFAULT_STATISTIC = "median"

PLAN = Plan()


class Answering(Protocol):
    """What predicts: ``nn_meter.api.Predictor`` is one."""

    bundle: Bundle

    def explain(self, model: Any) -> Prediction:
        """The prediction for a graph."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to evaluate on: a path, a zoo's name or a graph."""

    name: str
    family: str
    source: Any = field(compare=False)


@dataclass(frozen=True, slots=True)
class Blame:
    """A kernel kind whose predicted sum over the model is far from what the runtime's trace says."""

    kind: str
    traced_ms: float
    predicted_ms: float


@dataclass(frozen=True, slots=True)
class Score:
    """One model, measured and predicted.

    ``measured_ms`` is the ``statistic`` that the predictor states, ``median_ms`` stands beside it. ``noise``
    is the distance between the statistic of the early and of the late half, relative to their mean.
    ``predicted_share`` is the part of the prediction that comes from regressors. ``traced_ms``, the sum of
    the kernels under the runtime's profiler, and ``blamed`` are there where the model was missed and the
    runtime tells its kernels.
    """

    model: str
    family: str
    predictor: str
    statistic: str
    measured_ms: float
    median_ms: float
    noise: float
    runs: int
    predicted_ms: float
    interval_ms: tuple[float, float] | None
    predicted_share: float
    nodes: int
    traced_ms: float | None = None
    blamed: tuple[Blame, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def error(self) -> float:
        """Signed and relative to the measured latency; 0.1 is 10 % too high."""
        return self.predicted_ms / self.measured_ms - 1

    @property
    def missed(self) -> bool:
        """Whether the error is larger than ``MISS``."""
        return abs(self.error) > MISS

    @property
    def covered(self) -> bool | None:
        """Whether the interval holds the measured latency; ``None`` where there is no interval."""
        if self.interval_ms is None:
            return None
        low, high = self.interval_ms
        return low <= self.measured_ms <= high


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of all models by all predictors; ``failed`` are models without, and why."""

    scores: tuple[Score, ...]
    backend: str
    rounds: int
    environment: Mapping[str, Value] = field(default_factory=dict)
    failed: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def predictors(self) -> tuple[str, ...]:
        """Those that answered, in the order given."""
        return tuple(dict.fromkeys(score.predictor for score in self.scores))

    def of(self, predictor: str) -> tuple[Score, ...]:
        """The scores of one predictor."""
        return tuple(score for score in self.scores if score.predictor == predictor)

    def metrics(self, predictor: str) -> Metrics:
        """Over all models.

        Raises:
            InputError: the predictor has no scores.
        """
        scores = self.of(predictor)
        return metrics([s.predicted_ms for s in scores], [s.measured_ms for s in scores])

    def families(self, predictor: str) -> Mapping[str, Metrics]:
        """By family."""
        scores = self.of(predictor)
        return by_group(
            [s.predicted_ms for s in scores], [s.measured_ms for s in scores], [s.family for s in scores]
        )

    def noise(self, predictor: str, q: float = 0.5) -> float:
        """The quantile ``q`` of the models' repeat noise, by the predictor's statistic."""
        noises = sorted(score.noise for score in self.of(predictor))
        return noises[round(q * (len(noises) - 1))]

    def covered(self, predictor: str) -> float | None:
        """The share of models whose interval holds the measured latency; ``None`` without intervals."""
        inside = [score.covered for score in self.of(predictor) if score.covered is not None]
        return sum(inside) / len(inside) if inside else None


def subjects(
    sources: Iterable[str | Path], note: Callable[[str], None] | None = None
) -> tuple[Subject, ...]:
    """The models that files, folders (at any depth) and zoo names stand for.

    A model's family is the folder that it lies in; ``note`` hears what in a folder is no model.

    Raises:
        InputError: a folder without models, or none at all.
    """
    paths = {each: Path(each) for each in named_models(list(sources), note=note)}
    found = [
        Subject(path.stem, path.parent.name, path if os.path.exists(path) else each)
        for each, path in paths.items()
    ]
    if not found:
        raise InputError("no model is named; give files, or a folder of models")
    names = Counter(each.name for each in found)
    return tuple(
        replace(each, name=f"{each.family}/{each.name}") if names[each.name] > 1 else each
        for each in found
    )


def measure_model(
    source: Any,
    backend: Backend,
    plan: Plan = PLAN,
    *,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Measurement:
    """Times one model: a path, a graph, or whatever a front end reads. Absent weights are random.

    Raises:
        ModelError: it cannot be read.
        BackendError: the runtime refuses it.
        MissingDependencyError: the runtime is not installed.
    """
    facts = environment(backend.check())
    with backend.prepare(_runnable(source)) as prepared:
        return measure([prepared], plan, clock=clock, progress=progress, environment=facts)[0]


def evaluate(
    predictors: Sequence[Answering],
    backend: Backend,
    models: Sequence[Subject],
    *,
    rounds: int = 8,
    budget_s: float = math.inf,
    journal: Journal | None = None,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Evaluation:
    """Measures ``models`` on ``backend`` and holds the answers of ``predictors`` against it.

    Args:
        predictors: Each is judged by the statistic that its bundle states.
        backend: The runtime to measure on.
        models: What to measure, as of ``subjects``; one that fails is noted, the others go on.
        rounds: Turns that each model takes, half of them early and half of them late.
        budget_s: Shared out among the groups; each model gets at least one turn in each half.
        journal: What it holds is not measured again; what is measured is committed to it.
        progress: Hears after each turn.
        clock: Seconds.

    Raises:
        MissingDependencyError: the runtime is not installed.
        BuildError, StorageError: the journal cannot be used.
    """
    if journal is None:
        with Journal(Path(":memory:")) as fleeting:
            return evaluate(
                predictors, backend, models, rounds=rounds, budget_s=budget_s,
                journal=fleeting, progress=progress, clock=clock,
            )  # fmt: skip
    facts = environment(backend.check())
    failed: dict[str, str] = {}
    answers: dict[Subject, list[Prediction]] = {}
    weights: dict[Subject, int] = {}
    for subject in models:
        try:
            graph = _graph(subject.source)
            answers[subject] = [each.explain(graph) for each in predictors]
        except NnMeterError as error:
            failed[subject.name] = str(error)
            continue
        weights[subject] = _WEIGHT_BYTES * sum(each.size for each in graph.tensors.values() if each.const)
    bench = _Bench(backend, journal, facts, max(1, rounds // 2), clock, progress)
    taken = bench.measured(weights, budget_s)
    scores: list[Score] = []
    for subject, halves in taken.items():
        failure = next((half for half in halves if isinstance(half, Failure)), None)
        if failure is not None:
            failed[subject.name] = failure.reason
            continue
        early, late = (half for half in halves if isinstance(half, Measurement))
        for predictor, answer in zip(predictors, answers[subject], strict=True):
            score = _score(subject, predictor.bundle, answer, early, late)
            if score.missed:
                score = bench.explained(score, subject, predictor.bundle, answer)
            scores.append(score)
    return Evaluation(
        tuple(scores),
        backend.name,
        2 * bench.turns,
        MappingProxyType(facts),
        tuple(failed.items()),
        tuple(text for each in predictors for text in _doubts(each.bundle, facts)),
    )


def calibrate(scores: Sequence[Score], level: float = 0.9) -> dict[str, float | int]:
    """The interval that holds a new model's log(measured / predicted) with probability ``level``.

    Split conformal prediction (Vovk et al., 2005): of n scores in order, the floor((n + 1) a / 2)-th and the
    ceil((n + 1) (1 - a / 2))-th, where a is 1 - level. As ``interval`` of a bundle.

    Raises:
        InputError: too few models for the level.
    """
    ratios = sorted(math.log(score.measured_ms / score.predicted_ms) for score in scores)
    rank = math.floor((len(ratios) + 1) * (1 - level) / 2 + 1e-9)
    if rank < 1:
        raise InputError(
            f"{len(ratios)} models are too few for intervals of {level:.0%}; measure at least "
            f"{math.ceil(2 / (1 - level) - 1e-9) - 1}"
        )
    return {"low": ratios[rank - 1], "high": ratios[-rank], "level": level, "models": len(ratios)}


def label(bundle: Bundle) -> str:
    """How scores name a predictor."""
    return f"{bundle.name} {bundle.version}"


def _runnable(source: Any) -> Model:
    """``source`` as a backend takes it; an ONNX file stays as it is, but absent weights become random."""
    if isinstance(source, Graph):
        return source
    front = frontends.find(source)
    if front.name != "onnx":
        return front.read(source)
    return as_bytes(with_random_weights(Path(source) if isinstance(source, str) else source))


def _graph(source: Any) -> Graph:
    return source if isinstance(source, Graph) else frontends.read(source)


@dataclass(slots=True)
class _Bench:
    """Where models are measured and traced; the journal holds what is done."""

    backend: Backend
    journal: Journal
    facts: Mapping[str, Value]
    turns: int
    clock: Callable[[], float]
    progress: Progress | None

    def measured(
        self, weights: Mapping[Subject, int], budget_s: float
    ) -> dict[Subject, list[Measurement | Failure]]:
        """The early and the late half of each model."""
        begin = self.clock()
        wanted = [(subject, half) for half in range(2) for subject in weights]
        keys = dict(zip(wanted, self.journal.add(self._item(*each) for each in wanted), strict=True))
        pending = {entry.key for entry in self.journal.pending()}
        waiting = sum(key in pending for key in keys.values())
        steps_total, before = waiting * self.turns, 0

        def heard(done: float, total: float | None, eta_s: float | None, what: str) -> None:
            if self.progress is not None:
                steps = before + done
                left_s = (self.clock() - begin) / steps * (steps_total - steps)
                self.progress(steps, steps_total, left_s, f"{steps:.0f} of {steps_total} turns")

        for half in range(2):
            for group in _groups({s: size for s, size in weights.items() if keys[s, half] in pending}):
                share_s = (budget_s - (self.clock() - begin)) * len(group) / waiting
                self._take({subject: keys[subject, half] for subject in group}, share_s, heard)
                waiting -= len(group)
                before += len(group) * self.turns
        results = {entry.key: entry.result for entry in self.journal.results()}
        return {subject: [_read(results[keys[subject, half]]) for half in range(2)] for subject in weights}

    def explained(self, score: Score, subject: Subject, bundle: Bundle, answer: Prediction) -> Score:
        """``score`` with the kinds to blame, where runtime and predictor speak of the same kernels."""
        if runtime_of(self.backend).read is None or bundle.schema not in (SCHEMA, onnx_1.SCHEMA):
            return score
        traced = self._traced(subject, score.measured_ms)
        if isinstance(traced, Failure):
            return replace(score, warnings=(*score.warnings, f"cannot be traced: {traced.reason}"))
        statistic = STATISTICS[score.statistic]
        kinds = {kind: statistic(Measurement(tuple(values))) for kind, values in traced.items()}
        return replace(score, traced_ms=sum(kinds.values()), blamed=blamed(kinds, _by_kind(answer)))

    def _take(self, group: Mapping[Subject, str], budget_s: float, heard: Progress) -> None:
        begin = self.clock()
        with ExitStack() as stack:
            ready: list[tuple[str, Prepared]] = []
            for subject, key in group.items():
                try:
                    prepared = stack.enter_context(self.backend.prepare(_runnable(subject.source)))
                    prepared.run(1)
                    ready.append((key, prepared))
                except Exception as error:  # a runtime may fail in any way
                    self.journal.fail(key, _failure(error))
            left_s = max(0.0, budget_s - (self.clock() - begin))
            plan = Plan(rounds=self.turns, budget_s=left_s)
            taken = measure(
                [prepared for _, prepared in ready],
                plan,
                clock=self.clock,
                progress=heard,
                environment=self.facts,
            )
        for (key, _), measurement in zip(ready, taken, strict=True):
            self.journal.record(key, measurement.to_json())

    def _traced(self, subject: Subject, latency_ms: float) -> Mapping[str, list[float]] | Failure:
        """Kernel kind to the sum of its kernels in each traced run, in milliseconds."""
        (key,) = self.journal.add([self._item(subject, half="trace")])
        known = {entry.key: entry.result for entry in self.journal.results()}.get(key)
        if known is None:
            try:
                with self.backend.prepare(_runnable(subject.source)) as prepared:
                    repeats = min(20, max(4, round(_TRACE_MS / latency_ms)))
                    sums = _sums(prepared.trace(repeats), runtime_of(self.backend))
                self.journal.record(key, sums)
                return sums
            except Exception as error:  # a runtime may fail in any way
                known = _failure(error)
                self.journal.fail(key, known)
        return known

    def _item(self, subject: Subject, half: int | str) -> dict[str, Any]:
        return {
            "model": subject.name,
            "content": _digest(subject.source),
            "backend": self.backend.name,
            "settings": dict(self.backend.check()),
            "half": half,
            "turns": self.turns,
        }


def blamed(traced_ms: Mapping[str, float], predicted_ms: Mapping[str, float]) -> tuple[Blame, ...]:
    """The kinds that pull the sum most in the direction of its error, the worst first.

    Args:
        traced_ms: Kernel kind to the sum of its kernels in the runtime's trace.
        predicted_ms: Kernel kind to the sum of its predicted kernels.
    """
    excess = {
        kind: predicted_ms.get(kind, 0.0) - traced_ms.get(kind, 0.0) for kind in {**traced_ms, **predicted_ms}
    }
    total = sum(excess.values())
    worst = sorted(excess, key=lambda kind: -abs(excess[kind]))
    return tuple(
        Blame(kind, traced_ms.get(kind, 0.0), predicted_ms.get(kind, 0.0))
        for kind in worst
        if excess[kind] * total > 0 and abs(excess[kind]) >= _BLAMED_SHARE * abs(total)
    )[:_BLAMED_MAX]


def _score(
    subject: Subject, bundle: Bundle, answer: Prediction, early: Measurement, late: Measurement
) -> Score:
    both = replace(early, values_ms=early.values_ms + late.values_ms, rounds=early.rounds + late.rounds)
    name = _statistic(bundle)
    statistic = STATISTICS[name]
    first, second = statistic(early), statistic(late)
    return Score(
        model=subject.name,
        family=subject.family,
        predictor=label(bundle),
        statistic=name,
        measured_ms=statistic(both),
        median_ms=both.median_ms,
        noise=2 * abs(first - second) / (first + second),
        runs=len(both.values_ms),
        predicted_ms=answer.latency_ms,
        interval_ms=answer.interval_ms,
        predicted_share=answer.coverage["predicted"].share,
        nodes=sum(len(each.kernel.nodes) for each in answer.kernels),
        warnings=both.warnings(),
    )


def _statistic(bundle: Bundle) -> str:
    return bundle.statistic if bundle.statistic in STATISTICS else DEFAULT_STATISTIC


def _doubts(bundle: Bundle, facts: Mapping[str, Value]) -> Iterator[str]:
    for difference in same_machine(bundle.environment, facts):
        yield f"{label(bundle)} was built under other circumstances: {difference}"
    if bundle.statistic not in STATISTICS:
        said = f"says {bundle.statistic!r}" if bundle.statistic else "does not say"
        yield (
            f"{label(bundle)} {said} which statistic it predicts; "
            f"it is compared with the {DEFAULT_STATISTIC} of the runs"
        )


def _groups(sizes: Mapping[Subject, int]) -> Iterator[list[Subject]]:
    """Neighbours that may be loaded together."""
    group: list[Subject] = []
    taken = 0
    for subject, size in sizes.items():
        size *= _COPIES_OF_WEIGHTS
        if group and (len(group) == GROUP_MODELS or taken + size > GROUP_BYTES):
            yield group
            group, taken = [], 0
        group.append(subject)
        taken += size
    if group:
        yield group


def _read(result: Mapping[str, Any] | Failure | None) -> Measurement | Failure:
    if isinstance(result, Failure):
        return result
    return Measurement.from_json(result or {})


def _failure(error: Exception) -> Failure:
    if isinstance(error, NnMeterError):
        return Failure("refused", str(error))
    return Failure("crash", f"{type(error).__name__}: {error}")


def _sums(traces: Sequence[KernelTrace], runtime: Runtime) -> dict[str, list[float]]:
    assert runtime.read is not None
    sums: dict[str, list[float]] = {}
    for trace in traces:
        kind, _ = read_kernel(runtime.read(trace.executed))
        before = sums.get(kind, [0.0] * len(trace.latencies_ms))
        sums[kind] = [a + b for a, b in zip(before, trace.latencies_ms, strict=True)]
    return sums


def _by_kind(answer: Prediction) -> dict[str, float]:
    sums: dict[str, float] = {}
    for each in answer.kernels:
        if each.status != "free":
            sums[each.kernel.kind] = sums.get(each.kernel.kind, 0.0) + each.latency_ms
    return sums


def _digest(source: Any) -> str:
    """Tells a file from one that was there before under the same name."""
    if isinstance(source, Path):
        return hashlib.sha256(source.read_bytes()).hexdigest()
    return source.name if isinstance(source, Graph) else str(source)
