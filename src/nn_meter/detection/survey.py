"""The measuring: some rounds of each case and shape in one sweep, then more of what is unclear."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from time import monotonic
from types import MappingProxyType
from typing import Any, Literal
from zlib import crc32

import numpy as np

from nn_meter.backends import base
from nn_meter.backends.onnx_writer import as_bytes
from nn_meter.detection.cases import Case
from nn_meter.detection.decision import (
    APART_SHARE,
    ERROR_RATE,
    SAVINGS,
    Conclusion,
    Round,
    Seen,
    Witness,
    agree,
    conclude,
    executed_decision,
    seen,
    statement,
    unit_ms,
)
from nn_meter.detection.drawings import Sizes
from nn_meter.detection.probes import (
    APART,
    CALL_SHAPES,
    CONTROL_READ_BEFORE,
    CONTROL_TOGETHER,
    COPIES,
    FIRST,
    FRAME,
    SHAPES,
    TOGETHER,
    UNIT,
    UNIT_FRAME,
    copies,
    probes,
    unit_probes,
)
from nn_meter.detection.rules import Rule, ShapeEvidence
from nn_meter.ir import Graph
from nn_meter.measuring import wire
from nn_meter.measuring.isolation import Failure
from nn_meter.measuring.journal import Entry, Journal, key_of
from nn_meter.measuring.measure import Plan, measure
from nn_meter.progress import Progress

_LOG = logging.getLogger(__name__)

Method = Literal["timing", "graph", "both"]
"""What may decide: latencies, the executed graph, or the graph with latencies beside."""

PARTS = (TOGETHER, APART, FIRST, FRAME)
"""Probes of what the parts of a case cost."""

_UNIT_NAME = "unit"
_RESULTS: Mapping[str, tuple[str, Any]] = MappingProxyType(
    {"graph": ("kernels", dict[str, int]), "timing": ("rounds", list[dict[str, float]])}
)
"""What each kind of item of the journal results in."""

_ROUNDS = 6
"""Rounds of one shape in one sweep."""
_UNIT_ROUNDS = 40
_PARTS_ROUNDS = 2
"""Rounds of the first sweep that tell what a unit is, and what the parts of a case cost in its last shape."""
MOST_SWEEPS = 24
_HOPELESS_SWEEPS = 4
"""After so many sweeps a case that no number of rounds can decide is left alone."""
_TURNS, _TURN_MS = 12, 0.3
_FEWEST_RUNS, _MOST_RUNS = 2, 10
_WARM_UP_RUNS = 3


@dataclass(frozen=True, slots=True)
class DetectionPlan:
    """What to find out, and for how long.

    ``cases`` are names of rules as ``cases.find_cases`` takes them; none stand for all known ones. ``timeout_s`` ends
    what hangs. Without ``isolated`` everything runs in this process: a runtime that crashes then takes it along.
    ``device`` is the address of where the backend runs.
    """

    backend: str = "onnxruntime_cpu"
    settings: Mapping[str, Any] = field(default_factory=dict)
    budget_s: float = 900.0
    method: Method = "both"
    cases: tuple[str, ...] = ()
    shapes: Mapping[str, Sizes] = field(default_factory=lambda: SHAPES)
    timeout_s: float = 60.0
    seed: int = 0
    isolated: bool = True
    device: str = "local"


def measure_rounds(
    backend: base.Named, models: Mapping[str, bytes], count: int, seed: Sequence[int]
) -> list[dict[str, float]]:
    """Rounds that prepare all models anew and then let them take many short turns, all in random orders; called
    where the backend runs.

    A neighbour on the same core slows runs by a third or more, in stretches from a tenth of a millisecond on: the
    fastest run of all turns of a round counts.

    Returns:
        For each of ``count`` rounds the milliseconds of each model, those of one copy.

    Raises:
        BackendError: the runtime refuses a model.
    """
    rng = np.random.default_rng(seed)
    names = list(models)
    loaded = backend.load()
    rounds: list[dict[str, float]] = []
    for _ in range(count):
        with ExitStack() as stack:
            ready = {
                names[i]: stack.enter_context(loaded.prepare(models[names[i]])) for i in rng.permutation(len(names))
            }
            slowest_ms = max(min(model.run(_WARM_UP_RUNS)) for model in ready.values())
            runs = int(np.clip(_TURN_MS / max(slowest_ms, 1e-6), _FEWEST_RUNS, _MOST_RUNS))
            turns = Plan(rounds=_TURNS, warmup_turns=0, max_repeats=runs, seed=int(rng.integers(2**31)))
            taken = dict(zip(ready, measure(list(ready.values()), turns), strict=True))
            rounds.append({name: min(taken[name].values_ms) / COPIES for name in names})
    return rounds


def count_kernels(backend: base.Named, models: Mapping[str, bytes]) -> dict[str, int]:
    """How many kernels the runtime executes for each model, changes of layout aside; called where the backend runs.

    Raises:
        BackendError: the runtime refuses a model, or does not tell.
    """
    loaded = backend.load()
    layout_kernels = base.runtime_of(loaded).layout_kernels
    return {
        name: sum(kernel.op_type not in layout_kernels for kernel in loaded.fused(model))
        for name, model in models.items()
    }


class Survey:
    """The rules so far: which measurements there are, what they say, what to measure next."""

    def __init__(
        self,
        plan: DetectionPlan,
        backend: base.Named | base.Given,
        book: Journal,
        call: Callable[..., Any],
        cases: Mapping[str, Case],
        facts: Mapping[str, Any],
    ) -> None:
        self._plan = plan
        self._backend = backend
        self._book = book
        self._call = call
        self._facts = {key: facts[key] for key in sorted(facts)}
        self._cases = cases
        self._known: dict[str, Entry] = {entry.key: entry for entry in book.results()}
        self._rounds: dict[tuple[str, str], list[Round]] = {}
        self._kernels: dict[tuple[str, str], Mapping[str, int]] = {}
        self._failures: dict[tuple[str, str], str] = {}
        self._rules: dict[str, Rule] = {}
        self._spent_s = 0.0

    def count(self, progress: Progress | None) -> None:
        """Ask the runtime what it executes, of every case: little work, so that it comes before all timing."""
        for case in self._cases.values():
            self._decide(case, 0, self._count, progress)

    def sweep(self, number: int, progress: Progress | None) -> None:
        """Some rounds of every case that is not clear; where the budget ends early, those have had theirs that were
        near a verdict."""
        cases = self._cases.values()
        open_ = sorted((c for c in cases if not self._rules[c.name].clear), key=self._far) if number else list(cases)
        if open_:
            rounds = _ROUNDS if number else _UNIT_ROUNDS
            for shape, sizes in self._plan.shapes.items():
                self._time(_UNIT_NAME, shape, number, partial(unit_probes, sizes), (UNIT, UNIT_FRAME), rounds)
        for case in open_:
            self._decide(case, number, partial(self._time_case, sweep=number), progress)

    def _decide(self, case: Case, sweep: int, work: Callable[[Case], None], progress: Progress | None) -> None:
        """The rule of one case after some more work, which needs the rules that it builds on decided first."""
        rule = self._skipped(case)
        if rule is None:
            work(case)
            rule = self._rule(case, sweep)
            if progress is not None:
                left_s = max(self._plan.budget_s - self._spent_s, 0.0)
                progress(self._spent_s, self._plan.budget_s, left_s, case.name)
        self._rules[case.name] = rule

    def _far(self, case: Case) -> tuple[bool, float]:
        """Sorts rules that nothing decides before those that the executed graph does, and the surer ones first."""
        rule = self._rules[case.name]
        return rule.conclusion.obey is not None, -(rule.timing.confidence if rule.timing else 0.0)

    def rules(self) -> list[Rule]:
        """Every rule, in the order of the cases."""
        return [self._rules[name] for name in self._cases]

    def _count(self, case: Case) -> None:
        """Executed kernels of each shape, as far as the runtime tells."""
        for shape, sizes in self._plan.shapes.items():
            item = self._item(case.name, shape, "graph")
            result = self._done(item, partial(probes, case, sizes), None, partial(self._call, count_kernels))
            if isinstance(result, Failure):
                _LOG.info("%s does not show what it executes: %s", self._backend.name, result.reason)
            elif result is not None:
                self._kernels[case.name, shape] = result["kernels"]

    def _time_case(self, case: Case, sweep: int) -> None:
        """The next rounds of each shape: of the probes of each witness that is still to be heard."""
        wanted = tuple(dict.fromkeys(name for witness in self._heard(case) for name in SAVINGS[witness]))
        *_, last = self._plan.shapes
        for shape, sizes in self._plan.shapes.items():
            if not sweep and shape == last:
                self._time(case.name, shape, sweep, partial(probes, case, sizes), PARTS, _PARTS_ROUNDS)
            self._time(case.name, shape, sweep, partial(probes, case, sizes), wanted, _ROUNDS)

    def _heard(self, case: Case) -> tuple[Witness, ...]:
        """The reader where the case has one; the barrier where there is none, or where the reader sees a saving."""
        if not case.labels:
            return ("barrier",)
        timing = (self._timing(case, shape) for shape in self._plan.shapes)
        told = statement([each for each in timing if each is not None], "reader")
        return ("reader", "barrier") if told.rounds and told.saved_share > APART_SHARE else ("reader",)

    def _time(
        self,
        name: str,
        shape: str,
        sweep: int,
        draw: Callable[[], Mapping[str, Graph]],
        wanted: tuple[str, ...],
        count: int,
    ) -> None:
        """``count`` rounds of the probes ``wanted``, unless they are known, the budget is spent, or the runtime refused
        one before."""
        if (name, shape) in self._failures:
            return
        item = {**self._item(name, shape, "timing"), "sweep": sweep, "probes": list(wanted)}
        seed = (self._plan.seed, crc32(key_of(item).encode()))

        def call(backend: base.Named | base.Given, models: Mapping[str, bytes]) -> Any:
            return self._call(measure_rounds, backend, models, count, seed)

        result = self._done(item, draw, wanted, call, COPIES)
        if isinstance(result, Failure):
            self._failures[name, shape] = result.reason
        elif result is not None:
            self._rounds.setdefault((name, shape), []).extend(result["rounds"])

    def _item(self, name: str, shape: str, what: str) -> dict[str, Any]:
        sizes = asdict(self._plan.shapes[shape])
        return {"what": what, "case": name, "sizes": sizes, "copies": COPIES, "backend": self._facts}

    def _done(
        self,
        item: Mapping[str, Any],
        draw: Callable[[], Mapping[str, Graph]],
        wanted: tuple[str, ...] | None,
        call: Callable[[base.Named | base.Given, Mapping[str, bytes]], Any],
        count: int = 1,
    ) -> Mapping[str, Any] | Failure | None:
        """The result of an item, of all probes or those ``wanted``: from the journal, or by asking the runtime now;
        ``None`` where the budget is spent."""
        key = key_of(item)
        if key not in self._known:
            if self._spent_s >= self._plan.budget_s:
                return None
            begin = monotonic()
            graphs = draw()
            models = {name: as_bytes(copies(graphs[name], count)) for name in wanted or graphs}
            answer = call(self._backend, models)
            self._book.add([item])
            if isinstance(answer, Failure):
                self._book.fail(key, answer)
            else:
                answer = {_RESULTS[str(item["what"])][0]: answer, "elapsed_s": monotonic() - begin}
                self._book.record(key, answer)
            self._known[key] = Entry(key, item, answer)
        result = self._known[key].result
        if isinstance(result, Mapping):
            result = self._book.understood(self._known[key], partial(_read, item))
            self._spent_s += result["elapsed_s"]
        return result

    def _skipped(self, case: Case) -> Rule | None:
        """The rule of a case that builds on another which does not hold, or is unknown."""
        for name, wanted in case.requires.items():
            before = self._rules.get(name)
            if before is None or before.conclusion.obey is wanted:
                continue
            found = before.conclusion
            if found.obey is None:
                why = Conclusion("undecided", 0.0, f"not measured: {name} is undecided")
            else:
                why = Conclusion("does not", found.confidence, f"not measured: {name} does not hold")
            return Rule(case.name, skipped=why)
        return None

    def _rule(self, case: Case, sweep: int) -> Rule:
        shapes = tuple(self._shape(case, shape) for shape in self._plan.shapes)
        graph = [each.graph for each in shapes if each.graph is not None]
        timing = [each.timing for each in shapes if each.timing is not None]
        timed = self._timed(case, timing, shapes)
        return Rule(
            case.name,
            timed,
            agree(graph) if graph else None,
            shapes,
            self._latency(case),
            clear=timed is None or timed.obey is not None or (sweep >= _HOPELESS_SWEEPS and _hopeless(timed)),
        )

    def _timed(self, case: Case, timing: Sequence[Seen], shapes: Sequence[ShapeEvidence]) -> Conclusion | None:
        if timing:
            return conclude(timing, tuple(SAVINGS) if case.labels else ("barrier",))
        failures = dict.fromkeys(each.failure for each in shapes if each.failure)
        return Conclusion("undecided", 0.0, "; ".join(failures)) if failures else None

    def _timing(self, case: Case, shape: str) -> Seen | None:
        rounds = self._rounds.get((case.name, shape), [])
        unit = unit_ms(self._rounds.get((_UNIT_NAME, shape), []))
        return seen(rounds, unit, calls=shape in CALL_SHAPES) if rounds else None

    def _shape(self, case: Case, shape: str) -> ShapeEvidence:
        rounds = self._rounds.get((case.name, shape), [])
        kernels = self._kernels.get((case.name, shape), {})
        values: dict[str, list[float]] = {}
        for each in rounds:
            for name, ms in each.items():
                values.setdefault(name, []).append(ms)
        graph = None
        if kernels:
            brought = len(case.block().inputs) - len(case.first().inputs)
            graph = executed_decision(kernels, brought, partly=not case.labels)
        return ShapeEvidence(
            shape,
            self._timing(case, shape),
            graph,
            {name: round(float(np.median(each)), 6) for name, each in values.items()},
            kernels,
            sum(CONTROL_READ_BEFORE in each or CONTROL_TOGETHER in each for each in rounds),
            self._failures.get((case.name, shape), ""),
        )

    def _latency(self, case: Case) -> dict[str, str]:
        """nn-Meter's keys: what each part costs between barriers in the last shape, their sum as ``ops``, and what the
        block costs; mean and deviation of the rounds."""
        *_, last = self._plan.shapes
        rounds = [each for each in self._rounds.get((case.name, last), []) if FRAME in each]
        if not rounds:
            return {}
        t = {name: np.array([each[name] for each in rounds]) for name in PARTS}
        first, second = t[FIRST] - t[FRAME], t[APART] - t[FIRST]
        found = {"block": _spread(t[TOGETHER] - t[FRAME])}
        if case.labels:
            one, other = case.labels
            found |= {one: _spread(first), other: _spread(second), "ops": _spread(first + second)}
        return found


def _read(item: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """The result of an item as the journal has it."""
    name, kind = _RESULTS[str(item["what"])]
    found = wire.from_json(kind, told[name])
    for each in found if name == "rounds" else ():
        if not all(0 <= each[probe] < math.inf for probe in item["probes"]):
            raise ValueError("a latency that is negative or not finite")
    return {name: found, "elapsed_s": float(told["elapsed_s"])}


def _hopeless(found: Conclusion) -> bool:
    """Whether a rule is undecided for another reason than noise, and no witness is still to be heard."""
    told = [each for each in found.witnesses.values() if each.rounds]
    unheard = len(told) < len(found.witnesses)
    return all(1 - each.confidence <= ERROR_RATE and not (unheard and each.verdict == "fuses") for each in told)


def _spread(values_ms: np.ndarray) -> str:
    return f"{values_ms.mean():.4f} +- {values_ms.std():.4f}"
