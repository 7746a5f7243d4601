"""``evaluate``: all models in two halves, those that do not repeat once more, then predicted and measured side by
side."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from nn_meter import frontends
from nn_meter.backends import Backend, Named
from nn_meter.devices.device import Value, same_machine
from nn_meter.devices.link import Link
from nn_meter.errors import NnMeterError
from nn_meter.evaluation.bench import Bench
from nn_meter.evaluation.blame import blamed, by_kind
from nn_meter.evaluation.scores import MISS, Evaluation, Score
from nn_meter.evaluation.subjects import Subject
from nn_meter.ir import Graph
from nn_meter.kernels.schema import SCHEMA
from nn_meter.measuring import STATISTIC, Failure, Journal, Measurement, Plan
from nn_meter.measuring.fixed import PROBE
from nn_meter.predictors import onnx_1
from nn_meter.predictors.bundle import Bundle
from nn_meter.predictors.prediction import Prediction
from nn_meter.progress import Progress

GROUP_MODELS = 8
GROUP_BYTES = 3 << 30
"""What one group of models may take: the weights, and what the runtime makes of them."""

_COPIES_OF_WEIGHTS = 3
_WEIGHT_BYTES = 4
_TRACE_MS = 1500.0
_HALVES, _MEASURING = 0.55, 0.75
"""To these shares of a budget models are measured in two halves, and those that do not repeat once more; the rest is
for tracing what was missed."""

_VISIT_S = 10.0
"""To load a group of models and take a turn of each takes about so long: with less left none is asked once more."""

STATISTICS: Mapping[str, Callable[[Measurement], float]] = MappingProxyType(
    {STATISTIC: lambda taken: taken.quiet_ms, "median": lambda taken: taken.median_ms}
)
"""What a bundle may say that it predicts."""

DEFAULT_STATISTIC = "median"

_SCHEMAS = (SCHEMA, onnx_1.SCHEMA)
"""Of bundles that speak of the kernels that a runtime tells."""


class Answering(Protocol):
    """What predicts: ``nn_meter.api.Predictor`` is one."""

    bundle: Bundle

    def explain(self, model: Any) -> Prediction:
        """The prediction for a graph."""


def evaluate(
    predictors: Sequence[Answering],
    backend: Named | Backend,
    models: Sequence[Subject],
    *,
    rounds: int = 8,
    budget_s: float = math.inf,
    journal: Journal | None = None,
    link: Link | None = None,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Evaluation:
    """Measures ``models`` on ``backend`` and holds the answers of ``predictors`` against it.

    Args:
        predictors: Each is judged by the statistic that its bundle states.
        backend: The runtime to measure on: by name in a process of its own, so that one that crashes loses one model;
            an object in this one.
        models: What to measure, as of ``subjects``; one that fails is noted, the others go on.
        rounds: Turns that each model takes, half of them early and half of them late; models whose halves differ by
            more than ``MISS``, whatever is predicted, take half as many again, since two cannot tell which was slow.
        budget_s: Three quarters of it are shared out among the groups, each model gets at least one turn in each half;
            in the rest misses are traced, the largest first. A miss that there was no time for says so.
        journal: What it holds is not measured again; what is measured is committed to it.
        link: Where the backend runs; by default here.
        progress: Hears after each turn.
        clock: Seconds.

    Raises:
        BackendError, DeviceError, MeasurementError: the runtime is not installed or does not answer.
        BuildError, StorageError: the journal cannot be used.
    """
    if journal is None:
        with Journal(Path(":memory:")) as fleeting:
            return evaluate(
                predictors, backend, models, rounds=rounds, budget_s=budget_s,
                journal=fleeting, link=link, progress=progress, clock=clock,
            )  # fmt: skip
    failed: dict[str, str] = {}
    answers: dict[Subject, list[Prediction]] = {}
    weights: dict[Subject, int] = {}
    for subject in models:
        try:
            graph = subject.source
            if not isinstance(graph, Graph):
                graph = frontends.read(subject.source, **subject.options)
            answers[subject] = [each.explain(graph) for each in predictors]
        except NnMeterError as error:
            failed[subject.name] = str(error)
            continue
        weights[subject] = _WEIGHT_BYTES * sum(each.size for each in graph.tensors.values() if each.const)
    with Bench(backend, link, clock, journal.lost) as bench:
        course = _Course(bench, journal, max(1, rounds // 2), progress)
        begin, scores = clock(), list[Score]()
        missed: list[tuple[int, Subject, Prediction]] = []
        for subject, visits in course.measured(weights, budget_s).items():
            failure = next((visit for visit in visits if isinstance(visit, Failure)), None)
            if failure is not None:
                failed[subject.name] = failure.reason
                continue
            taken = [visit for visit in visits if isinstance(visit, Measurement)]
            for predictor, answer in zip(predictors, answers[subject], strict=True):
                score = _score(subject, predictor.bundle, answer, taken)
                if score.missed and predictor.bundle.schema in _SCHEMAS:
                    missed.append((len(scores), subject, answer))
                scores.append(score)
        for place, subject, answer in sorted(missed, key=lambda each: -abs(scores[each[0]].error)):
            scores[place] = course.explained(scores[place], subject, answer, clock() - begin < budget_s)
    losses = journal.losses()
    return Evaluation(
        tuple(scores),
        bench.name,
        2 * course.turns,
        MappingProxyType(dict(bench.facts)),
        tuple(failed.items()),
        (
            *(text for each in predictors for text in _doubts(each.bundle, bench.facts)),
            *((f"the device was lost {losses} times, and the work gone on with",) if losses else ()),
        ),
    )


@dataclass(frozen=True, slots=True)
class _Course:
    """Measurements of an evaluation; the journal holds what is done."""

    bench: Bench
    journal: Journal
    turns: int
    progress: Progress | None

    def measured(self, weights: Mapping[Subject, int], budget_s: float) -> dict[Subject, list[Measurement | Failure]]:
        """The early and the late half of each model, and of those that do not repeat a third visit."""
        begin, mixed = self.bench.clock(), _mixed(weights)
        halves = [(subject, half) for half in range(2) for subject in mixed]
        taken = self._taken(halves, weights, begin + _HALVES * budget_s)
        apart = [subject for subject in mixed if _apart(taken[subject, 0], taken[subject, 1])]
        until = begin + _MEASURING * budget_s
        again = self._taken([(subject, 2) for subject in apart], weights, until, at_least_s=_VISIT_S)
        taken |= {visit: each for visit, each in again.items() if isinstance(each, Measurement)}
        return {subject: [taken[subject, n] for n in range(3) if (subject, n) in taken] for subject in weights}

    def _taken(
        self, wanted: Sequence[tuple[Subject, int]], weights: Mapping[Subject, int], until: float, at_least_s: float = 0
    ) -> dict[tuple[Subject, int], Measurement | Failure]:
        """Visits of models, those of each number together; with less than ``at_least_s`` left no more of them."""
        clock = self.bench.clock
        begin = clock()
        keys = dict(zip(wanted, self.journal.add(self._item(*each) for each in wanted), strict=True))
        pending = {entry.key for entry in self.journal.pending()}
        over = set(keys.values())
        todo = [each for each in wanted if keys[each] in pending]
        before, size = 0, 0

        def heard(done: float, total: float | None, eta_s: float | None, what: str) -> None:
            if self.progress is not None:
                steps = len(todo) * self.turns
                over = max(1, before + round(done / (total or 1) * size))  # the probe's turns are nobody's
                self.progress(over, steps, (clock() - begin) / over * (steps - over), f"{over} of {steps} turns")

        for number in dict.fromkeys(number for _, number in todo):
            for group in _groups({subject: weights[subject] for subject, of in todo if of == number}):
                if at_least_s and until - clock() < at_least_s:
                    break
                left, size = len(todo) - before // self.turns, len(group) * self.turns
                share_s = (until - clock()) * len(group) / left
                taken = self.bench.measure(group, Plan(rounds=self.turns, budget_s=max(0.0, share_s)), heard)
                for subject, result in zip(group, taken, strict=True):
                    if isinstance(result, Failure):
                        self.journal.fail(keys[subject, number], result)
                    else:
                        self.journal.record(keys[subject, number], result.to_json())
                before += size
        told = {entry.key: entry for entry in self.journal.results() if entry.key in over}
        return {each: self.journal.understood(told[keys[each]], _read) for each in wanted if keys[each] in told}

    def explained(self, score: Score, subject: Subject, answer: Prediction, in_time: bool) -> Score:
        """``score`` with the kinds to blame, where the runtime tells its kernels, or told them before."""
        traced = self._traced(subject, score.measured_ms, in_time)
        if traced is None:
            return replace(score, warnings=(*score.warnings, "not traced: the budget was spent"))
        if isinstance(traced, Failure):
            return replace(score, warnings=(*score.warnings, f"cannot be traced: {traced.reason}"))
        statistic = STATISTICS[score.statistic]
        kinds = {kind: statistic(Measurement(tuple(values))) for kind, values in traced.items()}
        kernels_ms = score.measured_ms - answer.call_ms
        found = blamed(kinds, by_kind(answer), kernels_ms, score.predicted_ms - score.measured_ms)
        return replace(score, traced_ms=sum(kinds.values()), blamed=found)

    def _traced(
        self, subject: Subject, latency_ms: float, in_time: bool
    ) -> Mapping[str, Sequence[float]] | Failure | None:
        """Kernel kind to the sum of its kernels in each traced run, in milliseconds; ``None`` where it was not traced
        and there is no time to."""
        (key,) = self.journal.add([self._item(subject, half="trace")])
        entry = self.journal.find(key)
        known = None if entry is None or entry.result is None else self.journal.understood(entry, _traces)
        if known is None and in_time:
            known = self.bench.trace(subject, min(20, max(4, round(_TRACE_MS / latency_ms))))
            if isinstance(known, Failure):
                self.journal.fail(key, known)
            else:
                self.journal.record(key, known)
        return known

    def _item(self, subject: Subject, half: int | str) -> dict[str, Any]:
        return {
            "model": subject.name,
            "content": _digest(subject.source),
            "backend": self.bench.name,
            "settings": dict(self.bench.settings),
            "half": half,
            "turns": self.turns,
            **({"inputs": repr(sorted(subject.options.items()))} if subject.options else {}),
        }


def label(bundle: Bundle) -> str:
    """How scores name a predictor."""
    return f"{bundle.name} {bundle.version}"


def _score(subject: Subject, bundle: Bundle, answer: Prediction, visits: Sequence[Measurement]) -> Score:
    whole = reduce(Measurement.then, visits)
    name = bundle.statistic if bundle.statistic in STATISTICS else DEFAULT_STATISTIC
    statistic = STATISTICS[name]
    return Score(
        model=subject.name,
        family=subject.family,
        predictor=label(bundle),
        statistic=name,
        measured_ms=statistic(whole),
        median_ms=whole.median_ms,
        noise=_noise(*map(statistic, visits[:2])),
        runs=len(whole.values_ms),
        predicted_ms=answer.latency_ms,
        interval_ms=answer.interval_ms,
        predicted_share=answer.coverage["predicted"].share,
        nodes=sum(len(each.kernel.nodes) for each in answer.kernels),
        warnings=whole.warnings(),
        level=_level(bundle, *visits),
        kept=subject.kept,
    )


def _noise(early_ms: float, late_ms: float) -> float:
    return 2 * abs(early_ms - late_ms) / (early_ms + late_ms)


def _apart(early: Measurement | Failure, late: Measurement | Failure) -> bool:
    """Whether a model differs so much from itself that no prediction could be called right or wrong by it."""
    if isinstance(early, Failure) or isinstance(late, Failure):
        return False
    return _noise(early.quiet_ms, late.quiet_ms) > MISS


def _level(bundle: Bundle, *halves: Measurement) -> float | None:
    """How much longer the probe took in these turns than while the bundle was built, on the same machine."""
    usual_ms = bundle.environment.get(PROBE)
    taken_ms = [half.environment.get(PROBE) for half in halves]
    if not isinstance(usual_ms, float) or same_machine(bundle.environment, halves[0].environment):
        return None
    known_ms = [each for each in taken_ms if isinstance(each, float)]
    return math.fsum(known_ms) / len(known_ms) / usual_ms if len(known_ms) == len(halves) else None


def _doubts(bundle: Bundle, facts: Mapping[str, Value]) -> Iterator[str]:
    for difference in same_machine(bundle.environment, facts):
        yield f"{label(bundle)} was built under other circumstances: {difference}"
    if bundle.statistic not in STATISTICS:
        said = f"says {bundle.statistic!r}" if bundle.statistic else "does not say"
        yield (
            f"{label(bundle)} {said} which statistic it predicts; "
            f"it is compared with the {DEFAULT_STATISTIC} of the runs"
        )


def _mixed(models: Iterable[Subject]) -> list[Subject]:
    """Those kept away between those looked at, evenly: a machine that slows down meanwhile slows both."""
    some = list(models)
    halves = ([each for each in some if each.kept is kept] for kept in (False, True))
    placed = [((i + 0.5) / len(half), each) for half in halves for i, each in enumerate(half)]
    return [each for _, each in sorted(placed, key=lambda pair: pair[0])]


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
    return result if isinstance(result, Failure) else Measurement.from_json(result or {})


def _traces(result: Mapping[str, Any] | Failure) -> Mapping[str, Sequence[float]] | Failure:
    if isinstance(result, Failure):
        return result
    return {kind: Measurement(tuple(map(float, values))).values_ms for kind, values in result.items()}


def _digest(source: Any) -> str:
    """Tells a file from one that was there before under the same name."""
    if isinstance(source, Path):
        return hashlib.sha256(source.read_bytes()).hexdigest()
    return source.name if isinstance(source, Graph) else str(source)
