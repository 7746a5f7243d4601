"""``nn_meter.detect_rules``: which operators a runtime fuses, found by running small graphs on it.

Every case of ``kernels.testcases`` is drawn in several shapes. Its graphs take turns in a child process, until
``training.detect`` finds the rounds clear or the time of the case is spent; each result is committed to a journal.
What stays undecided gets the rest of the budget in a second pass. Where the runtime shows the graph that it
executes, that decides and the timing is the cross-check.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import monotonic
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from nn_meter.backends import base
from nn_meter.errors import BackendError, BuildError, NnMeterError
from nn_meter.ir import Graph, GraphBuilder
from nn_meter.ir.graph import Node, Tensor, verify
from nn_meter.kernels.fusion import RUNTIMES
from nn_meter.kernels.testcases import CASES, Case, FusionCase, Sizes, draw
from nn_meter.profiling.environment import environment
from nn_meter.profiling.isolation import Failure, Worker
from nn_meter.profiling.journal import Entry, Journal, key_of
from nn_meter.training.detect import (
    APART,
    BARRIER,
    FIRST,
    FIRST_BARRED,
    GRAPHS,
    MIN_ROUNDS,
    PAIR,
    PASS,
    Conclusion,
    Decision,
    conclude,
    decide,
)

_LOG = logging.getLogger(__name__)

Method = Literal["timing", "graph", "both"]
METHODS: tuple[Method, ...] = ("timing", "graph", "both")

SECOND = "b"
"""The last operator alone: nothing is decided by it, nn-Meter's files list it."""

SHAPES: Mapping[str, Sizes] = MappingProxyType(
    {
        "large": Sizes(hw=40, cin=16, cout=16, length=512, tokens=1024),
        "medium": Sizes(hw=28, cin=16, cout=16, length=128, tokens=196),
        "tiny": Sizes(hw=8, cin=16, cout=16, length=64, tokens=32),
    }
)
"""Shapes of each case. Few channels keep convolutions from drowning a pass over the value between. No map
reaches 128 KiB: larger blocks come fresh from the system for each inference, at a price as high as a pass and
not the same for all graphs. The tiny shape shows the cost of a call."""

LAYOUT_KERNELS = frozenset({"ReorderInput", "ReorderOutput", "Reorder"})
"""Executed kernels that only change a layout; they come and go with what surrounds an operator."""

FIRST_PASS_SHARE = 0.7
"""Share of the budget for the first pass; what it leaves undecided gets the rest."""

_TURN_MS = 3.0
_FEWEST_RUNS, _MOST_RUNS = 3, 200
_WARM_UP_RUNS = 5
_LOOK_EVERY = 4
_MOST_ROUNDS = 120
_LEAST_LIMIT_S = 0.3

Progress = Callable[[float, float, str], None]
"""Called with seconds spent, seconds of the budget, the rule just measured."""


@dataclass(frozen=True, slots=True)
class DetectionPlan:
    """What to find out, and for how long.

    ``timeout_s`` ends a case that hangs. Without ``isolated`` everything runs in this process: a runtime that
    crashes then takes it along.
    """

    backend: str = "onnxruntime_cpu"
    settings: Mapping[str, Any] = field(default_factory=dict)
    budget_s: float = 900.0
    method: Method = "both"
    cases: tuple[str, ...] = tuple(CASES)
    shapes: Mapping[str, Sizes] = field(default_factory=lambda: SHAPES)
    timeout_s: float = 60.0
    seed: int = 0
    isolated: bool = True


@dataclass(frozen=True, slots=True)
class ShapeEvidence:
    """What was seen in one shape: timing, and executed kernels of each graph where the runtime tells them."""

    shape: str
    timing: Decision | None
    graph: Decision | None
    medians_ms: Mapping[str, float]
    kernels: Mapping[str, int]
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule with its verdict and what it rests on. ``skipped`` says why it was not measured."""

    name: str
    labels: tuple[str, ...]
    timing: Conclusion | None = None
    graph: Conclusion | None = None
    shapes: tuple[ShapeEvidence, ...] = ()
    latency: Mapping[str, str] = field(default_factory=dict)
    skipped: Conclusion | None = None

    @property
    def conclusion(self) -> Conclusion:
        """The executed graph's word where it has one, else the timing's."""
        if self.skipped is not None:
            return self.skipped
        if self.graph is not None and self.graph.obey is not None:
            return self.graph
        return self.timing or self.graph or Conclusion("undecided", 0.0, "nothing was measured")

    @property
    def clear(self) -> bool:
        """Whether more rounds could change nothing: decided, and the timing too where there is one."""
        return self.conclusion.obey is not None and (self.timing is None or self.timing.obey is not None)


def detect_rules(
    plan: DetectionPlan,
    *,
    journal: Path,
    backend: base.Backend | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure until every rule is clear or the budget is spent.

    Args:
        journal: file that holds every measurement; one that is there already is gone on with.
        backend: in the place of the one that the plan names; it has to be picklable if ``plan.isolated``.

    Returns:
        The rules as the JSON of a fusion-rule file, with evidence; ``rules_json`` says how.

    Raises:
        BackendError: an unknown backend or setting.
        MissingDependencyError: the runtime is not installed.
        BuildError: no budget, an unknown case or method, or a journal that cannot be used.
    """
    if not plan.budget_s > 0:
        raise BuildError(f"a budget of {plan.budget_s:g} s measures nothing; give some minutes")
    if plan.method not in METHODS:
        raise BuildError(f"no method {plan.method!r}; use one of {', '.join(METHODS)}")
    unknown = [name for name in plan.cases if name not in CASES]
    if unknown:
        raise BuildError(f"no test case {unknown[0]!r}; see nn-meter --list-testcases")
    device = backend or base.load(plan.backend, **plan.settings)
    facts = dict(device.check())
    with Journal(journal) as book, Worker(timeout_s=plan.timeout_s) as worker:
        survey = _Survey(plan, device, book, worker.call if plan.isolated else _here, facts)
        for number in (0, 1):
            survey.work(number, progress)
        return rules_json(survey.rules(), plan, facts)


def rules_json(rules: Sequence[Rule], plan: DetectionPlan, facts: Mapping[str, Any]) -> dict[str, Any]:
    """nn-Meter's file: ``obey`` and ``latency`` of each rule, with ``evidence``; ``runtime`` where prediction
    knows the backend's own passes; ``comment`` says what was measured."""
    circumstances = environment({k: v for k, v in facts.items() if isinstance(v, str | int | float)})
    what = f"{facts.get('runtime', plan.backend)} {facts.get('runtime_version', '')}".strip()
    written: dict[str, Any] = {"runtime": plan.backend} if plan.backend in RUNTIMES else {}
    written["comment"] = (
        f"detected by {plan.method} on {what}, {facts.get('threads', 1)} thread(s), "
        f"{circumstances.get('cpu') or facts.get('device', 'cpu')}, {circumstances.get('date')}"
    )
    for rule in rules:
        found = rule.conclusion
        written[rule.name] = {
            "obey": found.obey,
            "latency": dict(rule.latency),
            "evidence": {
                "verdict": found.verdict,
                "confidence": round(found.confidence, 6),
                "reason": found.reason,
                "timing": rule.timing.verdict if rule.timing else None,
                "graph": rule.graph.verdict if rule.graph else None,
                "runs": sum(each.timing.rounds for each in rule.shapes if each.timing),
                "medians_ms": next((dict(each.medians_ms) for each in rule.shapes if each.medians_ms), {}),
                "shapes": {each.shape: _shape_json(each) for each in rule.shapes},
            },
        }
    return written


def _shape_json(seen: ShapeEvidence) -> dict[str, Any]:
    timing = seen.timing
    return {
        "timing": timing.verdict if timing else None,
        "saved_share": round(timing.saved_share, 3) if timing else None,
        "confidence": round(timing.confidence, 6) if timing else None,
        "rounds": timing.rounds if timing else 0,
        "graph": seen.graph.verdict if seen.graph else None,
        "kernels": dict(seen.kernels),
        "reason": seen.failure or (timing.reason if timing else ""),
    }


def graphs_of(case: Case, sizes: Sizes) -> dict[str, Graph]:
    """The graphs that decide a case, by the names of ``training.detect``, and ``SECOND`` where it is a chain."""
    if isinstance(case, FusionCase):
        first, extra = case.first(sizes), {SECOND: case.second(sizes)}
    else:
        first, extra = draw(("dwconv",), sizes.input_shape("map"), sizes, f"{case.name}_first"), {}
    block = case.block(sizes)
    between = first.tensors[first.outputs[0]]
    alone = GraphBuilder("barrier")
    op_type, attrs = _barrier(between)
    barrier = alone.graph(alone.op(op_type, alone.input(between.shape, between.dtype), **attrs))
    barred = with_barrier(first, between.name)
    return {
        FIRST: first,
        PAIR: block,
        APART: with_barrier(block, between.name),
        FIRST_BARRED: barred,
        BARRIER: barrier,
        PASS: _appended(barred, "Relu"),
        **extra,
    }


def with_barrier(graph: Graph, name: str) -> Graph:
    """``graph`` with an operator after the tensor ``name`` that keeps its shape and its layout and fuses with
    nothing: a pooling of stride one on maps, a softmax on all else."""
    between = graph.tensors[name]
    behind = replace(between, name=f"{name}:barred")
    op_type, attrs = _barrier(between)
    barrier = Node(f"{name}:barrier", op_type, (name,), (behind.name,), MappingProxyType(attrs))
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes.append(replace(node, inputs=tuple(behind.name if i == name else i for i in node.inputs)))
        if name in node.outputs:
            nodes.append(barrier)
    return verify(
        Graph(
            f"{graph.name}_barred",
            tuple(nodes),
            MappingProxyType({**graph.tensors, behind.name: behind}),
            graph.inputs,
            tuple(behind.name if out == name else out for out in graph.outputs),
        )
    )


def _barrier(between: Tensor) -> tuple[str, dict[str, Any]]:
    if len(between.shape) == 4:
        return "MaxPool", {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1), "strides": (1, 1)}
    return "Softmax", {"axis": -1}


def _appended(graph: Graph, op_type: str) -> Graph:
    """``graph`` with a unary operator behind its first output."""
    last = graph.tensors[graph.outputs[0]]
    out = replace(last, name=f"{last.name}:{op_type}")
    node = Node(f"{last.name}:{op_type}:node", op_type, (last.name,), (out.name,))
    tensors = MappingProxyType({**graph.tensors, out.name: out})
    return verify(
        Graph(f"{graph.name}_{op_type}", (*graph.nodes, node), tensors, graph.inputs, (out.name, *graph.outputs[1:]))
    )


def measure_case(
    backend: base.Backend, case: str, sizes: Sizes, method: Method, limit_s: float, seed: int
) -> dict[str, Any]:
    """Measure one case, given by its rule's name, in one shape; called in the child process.

    Returns:
        ``rounds_ms``: latency of each graph in each round; ``kernels``: how many kernels the runtime executes
        for each graph, layout changes aside, empty where it does not tell; ``elapsed_s``.

    Raises:
        BackendError: the runtime refuses a graph that the method needs.
    """
    begin = monotonic()
    graphs = graphs_of(CASES[case], sizes)
    kernels = _executed_kernels(backend, graphs) if method != "timing" else {}
    rounds_ms: dict[str, list[float]] = {}
    refused = ""
    if method != "graph":
        try:
            rounds_ms = _rounds(backend, graphs, begin + limit_s, seed)
        except BackendError as error:
            if not kernels:
                raise
            refused = str(error)
    return {"rounds_ms": rounds_ms, "kernels": kernels, "refused": refused, "elapsed_s": monotonic() - begin}


def _executed_kernels(backend: base.Backend, graphs: Mapping[str, Graph]) -> dict[str, int]:
    needed = (FIRST, SECOND, PAIR) if SECOND in graphs else (FIRST, PAIR, FIRST_BARRED, APART)
    try:
        return {
            name: sum(kernel.op_type not in LAYOUT_KERNELS for kernel in backend.fused(graphs[name]))
            for name in needed
        }
    except BackendError as error:
        _LOG.info("%s does not show what it executes: %s", backend.name, error)
        return {}


def _rounds(
    backend: base.Backend, graphs: Mapping[str, Graph], end: float, seed: int
) -> dict[str, list[float]]:
    """Rounds in which all graphs take turns, in an order drawn anew for each; the first run of a turn, whose
    caches hold the graph before, does not count, and of the others the fastest does."""
    rng = np.random.default_rng(seed)
    prepared: dict[str, base.Prepared] = {}
    try:
        for name, graph in graphs.items():
            prepared[name] = backend.prepare(graph)
        runs = {}
        for name, model in prepared.items():
            fastest_ms = max(min(model.run(_WARM_UP_RUNS)), 1e-6)
            runs[name] = int(np.clip(_TURN_MS / fastest_ms, _FEWEST_RUNS, _MOST_RUNS))
        rounds_ms: dict[str, list[float]] = {name: [] for name in prepared}
        names = list(prepared)
        for done in range(1, _MOST_ROUNDS + 1):
            for index in rng.permutation(len(names)):
                name = names[index]
                rounds_ms[name].append(min(prepared[name].run(runs[name] + 1)[1:]))
            if done < MIN_ROUNDS:
                continue
            look = (done - MIN_ROUNDS) % _LOOK_EVERY == 0
            if (look and decide(rounds_ms).verdict != "undecided") or monotonic() >= end:
                break
        return rounds_ms
    finally:
        for model in prepared.values():
            model.close()


def _here(task: Callable[..., Any], *args: Any) -> Any:
    """The task in this process, errors as the isolated one gives them."""
    try:
        return task(*args)
    except NnMeterError as error:
        return Failure("refused", str(error))


class _Survey:
    """The rules so far: which measurements there are, what they say, what to measure next."""

    def __init__(
        self,
        plan: DetectionPlan,
        backend: base.Backend,
        book: Journal,
        call: Callable[..., Any],
        facts: Mapping[str, Any],
    ) -> None:
        self._plan = plan
        self._backend = backend
        self._book = book
        self._call = call
        self._facts = {key: facts[key] for key in sorted(facts)}
        self._known: dict[str, Entry] = {entry.key: entry for entry in book.results()}
        self._rules: dict[str, Rule] = {}

    def work(self, number: int, progress: Progress | None) -> None:
        """Pass ``number`` over all cases; each needs the rules that it builds on decided first."""
        plan = self._plan
        spent_s = self._spent_s()
        share = FIRST_PASS_SHARE if number == 0 else 1.0
        open_cases = [name for name in plan.cases if number == 0 or not self._rules[name].clear]
        left = len(open_cases) * len(plan.shapes)
        for name in open_cases:
            rule = self._skipped(CASES[name])
            if rule is None:
                for shape in plan.shapes:
                    limit_s = max(_LEAST_LIMIT_S, (share * plan.budget_s - spent_s) / left)
                    limit_s = min(limit_s, plan.timeout_s / 2)
                    left -= 1
                    if self._settled(name, shape) or spent_s >= plan.budget_s:
                        continue
                    spent_s += self._measure(name, shape, number, limit_s)
                    if progress is not None:
                        progress(spent_s, plan.budget_s, name)
                rule = self._rule(CASES[name])
            else:
                left -= len(plan.shapes)
            self._rules[name] = rule

    def rules(self) -> list[Rule]:
        """Every rule, in the order of the plan."""
        return [self._rules[name] for name in self._plan.cases]

    def _item(self, name: str, shape: str, number: int) -> dict[str, Any]:
        return {
            "case": name,
            "sizes": asdict(self._plan.shapes[shape]),
            "method": self._plan.method,
            "backend": self._facts,
            "pass": number,
        }

    def _entries(self, name: str, shape: str) -> list[Entry]:
        keys = (key_of(self._item(name, shape, number)) for number in (0, 1))
        return [self._known[key] for key in keys if key in self._known]

    def _spent_s(self) -> float:
        return sum(
            float(entry.result["elapsed_s"])
            for name in self._plan.cases
            for shape in self._plan.shapes
            for entry in self._entries(name, shape)
            if isinstance(entry.result, Mapping)
        )

    def _settled(self, name: str, shape: str) -> bool:
        """Whether measuring this shape (again) can change nothing."""
        entries = self._entries(name, shape)
        if any(isinstance(entry.result, Failure) for entry in entries):
            return True
        seen = self._shape(name, shape)
        return bool(entries) and (seen.timing is None or seen.timing.verdict != "undecided")

    def _measure(self, name: str, shape: str, number: int, limit_s: float) -> float:
        item = self._item(name, shape, number)
        (key,) = self._book.add([item])
        if key in self._known:
            return 0.0
        begin = monotonic()
        sizes, plan = self._plan.shapes[shape], self._plan
        result = self._call(measure_case, self._backend, name, sizes, plan.method, limit_s, plan.seed + number)
        if isinstance(result, Failure):
            self._book.fail(key, result)
        else:
            self._book.record(key, result)
        self._known[key] = Entry(key, item, result)
        return monotonic() - begin

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
            return Rule(case.name, _labels(case), skipped=why)
        return None

    def _rule(self, case: Case) -> Rule:
        shapes = tuple(self._shape(case.name, shape) for shape in self._plan.shapes)
        timing = [each.timing for each in shapes if each.timing is not None]
        graph = [each.graph for each in shapes if each.graph is not None]
        failures = dict.fromkeys(each.failure for each in shapes if each.failure)
        timed = conclude(timing) if timing else None
        if timed is None and failures:
            timed = Conclusion("undecided", 0.0, "; ".join(failures))
        timed_shape = next((each.shape for each in shapes if each.medians_ms), None)
        latency = self._latency(case, timed_shape) if timed_shape else {}
        return Rule(case.name, _labels(case), timed, conclude(graph) if graph else None, shapes, latency)

    def _rounds(self, name: str, shape: str) -> dict[str, list[float]]:
        """The rounds of all passes, one after the other."""
        rounds: dict[str, list[float]] = {}
        for entry in self._entries(name, shape):
            if isinstance(entry.result, Mapping):
                for graph, values in entry.result["rounds_ms"].items():
                    rounds.setdefault(graph, []).extend(values)
        return rounds

    def _shape(self, name: str, shape: str) -> ShapeEvidence:
        entries = self._entries(name, shape)
        failure = next((entry.result.reason for entry in entries if isinstance(entry.result, Failure)), "")
        results = [entry.result for entry in entries if isinstance(entry.result, Mapping)]
        kernels: Mapping[str, Any] = next((result["kernels"] for result in results if result["kernels"]), {})
        refused = next((result["refused"] for result in results if result["refused"]), "")
        rounds = self._rounds(name, shape)
        return ShapeEvidence(
            shape,
            decide(rounds) if all(graph in rounds for graph in GRAPHS) else None,
            executed_decision(kernels) if kernels else None,
            {graph: round(float(np.median(values)), 6) for graph, values in rounds.items()},
            kernels,
            failure or refused,
        )

    def _latency(self, case: Case, shape: str) -> dict[str, str]:
        """nn-Meter's keys: each part, their sum as ``ops``, the block; mean and deviation of the rounds."""
        rounds = {graph: np.asarray(values) for graph, values in self._rounds(case.name, shape).items()}
        if not isinstance(case, FusionCase):
            return {"block": _spread(rounds[PAIR])}
        first, second = case.labels
        return {
            "block": _spread(rounds[PAIR]),
            first: _spread(rounds[FIRST]),
            second: _spread(rounds[SECOND]),
            "ops": _spread(rounds[FIRST] + rounds[SECOND]),
        }


def executed_decision(kernels: Mapping[str, int]) -> Decision:
    """What the numbers of executed kernels say. A pair fuses where all kernels of its last operator are gone,
    or all of the first are, into a last that is a single one."""
    first, pair = kernels[FIRST], kernels[PAIR]
    second = kernels[SECOND] if SECOND in kernels else kernels[APART] - kernels[FIRST_BARRED]
    saved = first + second - pair
    if not first or not second:
        return Decision("undecided", 0.0, 0.0, 0, "the runtime executes nothing for one of the parts")
    share = saved / min(first, second)
    if SECOND not in kernels:
        return Decision("fuses" if saved > 0 else "does not", 1.0, share, 0)
    if saved >= second or (second == 1 and saved >= first):
        return Decision("fuses", 1.0, share, 0)
    if saved <= 0:
        return Decision("does not", 1.0, share, 0)
    return Decision("undecided", 0.0, share, 0, f"{saved} of {second} kernels fuse")


def _labels(case: Case) -> tuple[str, ...]:
    return case.labels if isinstance(case, FusionCase) else ()


def _spread(values_ms: np.ndarray) -> str:
    return f"{values_ms.mean():.4f} +- {values_ms.std():.4f}"
