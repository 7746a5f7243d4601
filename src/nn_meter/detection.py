"""``nn_meter.detect_rules``: which operators a runtime fuses, found by running small graphs on it.

Every case of ``kernels.testcases`` is drawn in several shapes. Its graphs take turns in a child process, some rounds
of each shape in one sweep over all cases; each result is committed to a journal. What ``training.detect`` finds
unclear then gets more sweeps, until the budget is spent. Where the runtime shows the graph that it executes, that
decides and the timing is the cross-check.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import monotonic
from types import MappingProxyType
from typing import Any, Literal
from zlib import crc32

import numpy as np

from nn_meter.backends import base
from nn_meter.backends.onnx_writer import as_bytes
from nn_meter.errors import BackendError, BuildError, NnMeterError
from nn_meter.ir import Graph, GraphBuilder
from nn_meter.ir.graph import Attr, Node, Tensor, verify
from nn_meter.ir.shapes import infer
from nn_meter.kernels.fusion import RUNTIMES
from nn_meter.kernels.testcases import CASES, Case, FusionCase, Sizes, draw
from nn_meter.profiling.environment import environment
from nn_meter.profiling.isolation import Failure, Worker, measuring_cpus
from nn_meter.profiling.journal import Entry, Journal, key_of
from nn_meter.training.detect import (
    APART,
    CONTROL,
    CONTROL_APART,
    FIRST,
    FRAME,
    NOT_MEASURED,
    PAIR,
    PASS,
    SAVING_GRAPHS,
    Conclusion,
    Decision,
    conclude,
    decide,
)

_LOG = logging.getLogger(__name__)

Method = Literal["timing", "graph", "both"]
METHODS: tuple[Method, ...] = ("timing", "graph", "both")

SHAPES: Mapping[str, Sizes] = MappingProxyType(
    {
        "flat": Sizes(
            hw=20, cin=32, cout=32, length=32, tokens=400, rows=400, pool_strides=1, pointwise=True
        ),
        "window": Sizes(hw=28, cin=16, cout=16, length=16, tokens=784, rows=784, pool_strides=1),
        "large": Sizes(
            hw=28, cin=32, cout=32, length=32, tokens=784, rows=784, pool_strides=1, pointwise=True
        ),
    }
)
"""Shapes of each case. A value between two operators has 50 KB, in the last 100: a pass over it outweighs what the
place of a buffer costs, and all of them stay in the second cache and below the 128 KiB from which memory comes fresh
from the system. Few channels and small windows keep convolutions from drowning a pass."""

_SMALL = Sizes(hw=14, cin=16, cout=16, length=16, tokens=196, rows=196, pool_strides=1, pointwise=True)
"""Shape in which the barriers of a case are chosen: a change of layout is much of what an operator costs."""

POOLING, SOFTMAX = "pooling", "softmax"
"""Families of barriers on maps: a runtime may keep channels in blocks through the one and not through the other."""

LAYOUT_KERNELS = frozenset({"ReorderInput", "ReorderOutput", "Reorder"})
"""Executed kernels that only change a layout; they come and go with what surrounds an operator."""

_ROUNDS = 6
"""Rounds of one shape in one sweep."""
_SCALE_ROUNDS = 4
"""Of the first sweep's rounds, those that also measure what a pass costs."""
_CHOICE_ROUNDS = 2
"""Rounds that choose the barriers of a case."""
_CARES_SHARE = 0.15
"""Share of its cost that an operator saves between the other barriers, from which it counts as having their layout."""
_MOST_SWEEPS = 12
_HOPELESS_SWEEPS = 2
"""After so many sweeps a shape in which there is nothing to see is left alone."""
_TURNS, _TURN_MS = 24, 0.15
_FEWEST_RUNS, _MOST_RUNS = 2, 20
_WARM_UP_RUNS = 5

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
        return self.timing or self.graph or Conclusion("undecided", 0.0, NOT_MEASURED)

    @property
    def clear(self) -> bool:
        """Whether more rounds would hardly change anything."""
        return self.conclusion.obey is not None if self.timing is None else self.timing.settled


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
    cpus = measuring_cpus(int(facts.get("threads", 1)))
    with Journal(journal) as book, Worker(timeout_s=plan.timeout_s, affinity=cpus) as worker:
        survey = _Survey(plan, device, book, worker.call if plan.isolated else _here, facts)
        for number in range(1 if plan.method == "graph" else _MOST_SWEEPS):
            survey.sweep(number, progress)
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


def graphs_of(case: Case, sizes: Sizes, family: str = POOLING) -> dict[str, Graph]:
    """The graphs that decide a case, by the names of ``training.detect``, each within its outer barriers, which are of
    ``family`` on maps."""
    if isinstance(case, FusionCase):
        first = case.first(sizes)
    else:
        first = draw(("dwconv",), sizes.input_shape("map"), sizes, f"{case.name}_first")
    pair, between = case.block(sizes), first.outputs[0]
    tensor = first.tensors[between]
    identity = GraphBuilder(f"{case.name}_frame")
    value = identity.input(tensor.shape, tensor.dtype)
    barred = inserted(first, between, "p", family)
    behind = barred.outputs[0]
    control, control_apart = inserted(first, between, "q", family), inserted(barred, behind, "q", family)
    drawn = {
        PAIR: pair,
        APART: inserted(pair, between, "p", family),
        CONTROL: _with_inputs_of(pair, control),
        CONTROL_APART: _with_inputs_of(pair, control_apart),
        FIRST: barred,
        PASS: inserted(barred, behind, "r", family),
        FRAME: inserted(identity.graph(value), value, "p", family),
    }
    return {name: framed(graph, family) for name, graph in drawn.items()}


def _with_inputs_of(other: Graph, graph: Graph) -> Graph:
    """``graph`` with the inputs that ``other`` has more as outputs of their own: what is read beside an operator leaves
    as little room in the caches."""
    more = tuple(name for name in other.inputs if name not in graph.inputs)
    tensors = {**graph.tensors, **{name: other.tensors[name] for name in more}}
    return verify(
        Graph(graph.name, graph.nodes, MappingProxyType(tensors), graph.inputs + more, graph.outputs + more)
    )


def framed(graph: Graph, family: str = POOLING) -> Graph:
    """``graph`` with a barrier behind each input and before each output, of which only the largest elements leave: a
    small output costs the same wherever it goes."""
    for name in graph.inputs:
        graph = inserted(graph, name, "p", family)
    for name in graph.outputs:
        graph = inserted(graph, name, "max", family)
        graph = inserted(graph, name, "p", family)
    return graph


def inserted(graph: Graph, name: str, role: str, family: str = POOLING) -> Graph:
    """``graph`` with an operator behind the tensor ``name``; all that read it, and the output, take its result.

    Args:
        role: ``"p"`` or ``"q"`` for a barrier, which keeps the shape and the layout and fuses with nothing;
            ``"r"`` for an activation; ``"max"``, behind outputs only, for the largest elements.
        family: Of barriers on maps.
    """
    between = graph.tensors[name]
    made = name
    while made in graph.tensors:
        made += f":{role}"
    op_type, attrs, value, dtype = _filler(between, role, family)
    operand = Tensor(f"{made}:operand", (len(value),), dtype, const=True, value=value)
    inputs = (name, operand.name) if value else (name,)
    node = Node(f"{made}:node", op_type, inputs, (made,), MappingProxyType(attrs))
    (behind,) = infer(node, [between, operand] if value else [between])
    nodes: list[Node] = [node] if name in graph.inputs else []
    for each in graph.nodes:
        nodes.append(replace(each, inputs=tuple(made if i == name else i for i in each.inputs)))
        if name in each.outputs:
            nodes.append(node)
    tensors = {**graph.tensors, made: behind, **({operand.name: operand} if value else {})}
    outputs = tuple(made if out == name else out for out in graph.outputs)
    return verify(Graph(graph.name, tuple(nodes), MappingProxyType(tensors), graph.inputs, outputs))


def _filler(between: Tensor, role: str, family: str) -> tuple[str, dict[str, Attr], tuple[int, ...], str]:
    """What stands for a role behind a tensor: operator, attributes, and a second operand's values and dtype.

    OpenVINO fuses through a MaxPool what follows into a convolution before it, but nothing follows a ``q`` save a
    ``p``. Other values than maps have no pooling that runtimes agree on, and few operators take integers.
    """
    rank, dtype = len(between.shape), between.dtype
    if role == "max":
        pooled = rank == 4 and dtype == "float32"
        return (
            ("GlobalMaxPool", {}, (), "") if pooled else ("ReduceMax", {"keepdims": 0}, (rank - 1,), "int64")
        )
    if dtype != "float32":
        return ("Min", {}, (200,), dtype) if role == "q" else ("Max", {}, (3,), dtype)
    if role == "r":
        return "Relu", {}, (), ""
    if rank == 4 and family == POOLING:
        window: dict[str, Attr] = {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1), "strides": (1, 1)}
        return ("AveragePool" if role == "p" else "MaxPool"), window, (), ""
    return ("Softmax", {"axis": -1}, (), "") if role == "p" else ("CumSum", {}, (rank - 1,), "int64")


def measure_case(
    backend: base.Backend,
    case: str,
    sizes: Sizes,
    method: Method,
    seed: Sequence[int],
    family: str,
    again: bool,
) -> dict[str, Any]:
    """Some rounds of one case, given by its rule's name, in one shape; called in the child process.

    Args:
        family: Barriers to use; empty to choose.
        again: Whether the case was measured in this shape before: what needs to be known once is left out.

    Returns:
        ``rounds_ms``: latency of each graph in each round; ``kernels``: how many kernels the runtime executes for each
        graph, layout changes aside, empty where it does not tell or was asked before; ``inputs``: how many inputs, and
        so barriers, the last operator brings with it; ``family``; ``elapsed_s``.

    Raises:
        BackendError: the runtime refuses a graph that the method needs.
    """
    begin = monotonic()
    rounds_ms: dict[str, list[float]] = {}
    refused = ""
    try:
        family = family or _natural_family(backend, CASES[case], seed)
    except BackendError as error:
        family, refused = POOLING, str(error)
    graphs = graphs_of(CASES[case], sizes, family)
    kernels = _executed_kernels(backend, graphs) if method != "timing" and not again else {}
    if method != "graph" and not refused:
        scaled = 0 if again else _SCALE_ROUNDS
        try:
            rounds_ms = _rounds(backend, graphs, seed, scaled) if scaled else {}
            more = _rounds(
                backend, {name: graphs[name] for name in SAVING_GRAPHS}, (*seed, 1), _ROUNDS - scaled
            )
            for name, values in more.items():
                rounds_ms.setdefault(name, []).extend(values)
        except BackendError as error:
            refused = str(error)
    if refused and not kernels:
        raise BackendError(refused)
    return {
        "rounds_ms": rounds_ms,
        "kernels": kernels,
        "inputs": len(graphs[PAIR].inputs) - len(graphs[FIRST].inputs),
        "family": family,
        "refused": refused,
        "elapsed_s": monotonic() - begin,
    }


def _natural_family(backend: base.Backend, case: Case, seed: Sequence[int]) -> str:
    """Barriers that fit a case: ``SOFTMAX`` where both its operators cost less between them, else ``POOLING``.

    Between barriers of another layout than its own an operator costs two changes of layout more. Where both operators
    agree with each other and not with the barriers, so does a barrier between them, and that would look like a saving.
    An operator that brings an input, such as a sum, takes the layout that it finds.
    """
    drawn = {family: graphs_of(case, _SMALL, family) for family in (POOLING, SOFTMAX)}
    if drawn[SOFTMAX] == drawn[POOLING]:
        return POOLING
    asked = {
        f"{family} {name}": graphs[name] for family, graphs in drawn.items() for name in (FRAME, FIRST, APART)
    }
    ms = {name: min(values) for name, values in _rounds(backend, asked, seed, _CHOICE_ROUNDS).items()}
    inputs = [len(drawn[POOLING][name].inputs) for name in (FRAME, FIRST, APART)]
    for brought, before, behind in (
        (inputs[1] - inputs[0], FRAME, FIRST),
        (inputs[2] - inputs[1], FIRST, APART),
    ):
        pooled, softened = (
            ms[f"{family} {behind}"] - ms[f"{family} {before}"] for family in (POOLING, SOFTMAX)
        )
        if brought or softened > (1 - _CARES_SHARE) * pooled:
            return POOLING
    return SOFTMAX


def _executed_kernels(backend: base.Backend, graphs: Mapping[str, Graph]) -> dict[str, int]:
    try:
        return {
            name: sum(kernel.op_type not in LAYOUT_KERNELS for kernel in backend.fused(graphs[name]))
            for name in (PAIR, APART, CONTROL, CONTROL_APART, FIRST, FRAME)
        }
    except BackendError as error:
        _LOG.info("%s does not show what it executes: %s", backend.name, error)
        return {}


def _rounds(
    backend: base.Backend, graphs: Mapping[str, Graph], seed: Sequence[int], count: int
) -> dict[str, list[float]]:
    """Rounds that prepare all graphs anew and then let them take many short turns, all in random orders.

    A neighbour on the same core slows runs by a third or more, in stretches from a tenth of a millisecond on: the
    fastest run of all turns of a round counts.
    """
    rng = np.random.default_rng(seed)
    models = {name: as_bytes(graph) for name, graph in graphs.items()}
    names = list(models)
    rounds_ms: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(count):
        prepared: dict[str, base.Prepared] = {}
        try:
            for index in rng.permutation(len(names)):
                prepared[names[index]] = backend.prepare(models[names[index]])
            best_ms = {name: min(model.run(_WARM_UP_RUNS)) for name, model in prepared.items()}
            runs = int(np.clip(_TURN_MS / max(*best_ms.values(), 1e-6), _FEWEST_RUNS, _MOST_RUNS))
            for _ in range(_TURNS):
                for index in rng.permutation(len(names)):
                    name = names[index]
                    best_ms[name] = min(best_ms[name], *prepared[name].run(runs))
            for name in names:
                rounds_ms[name].append(best_ms[name])
        finally:
            for model in prepared.values():
                model.close()
    return rounds_ms


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

    def sweep(self, number: int, progress: Progress | None) -> None:
        """Some rounds of every case that is not clear; each needs the rules that it builds on decided first."""
        plan = self._plan
        spent_s = self._spent_s()
        for name in plan.cases:
            if number and self._rules[name].clear:
                continue
            rule = self._skipped(CASES[name])
            if rule is None:
                for shape in plan.shapes:
                    if spent_s < plan.budget_s and not self._settled(name, shape, number):
                        spent_s += self._measure(name, shape, number)
                        if progress is not None:
                            progress(spent_s, plan.budget_s, name)
                rule = self._rule(CASES[name])
            self._rules[name] = rule

    def rules(self) -> list[Rule]:
        """Every rule, in the order of the plan."""
        return [self._rules[name] for name in self._plan.cases]

    def _item(self, name: str, shape: str, sweep: int) -> dict[str, Any]:
        return {
            "case": name,
            "sizes": asdict(self._plan.shapes[shape]),
            "method": self._plan.method,
            "backend": self._facts,
            "sweep": sweep,
        }

    def _entries(self, name: str, shape: str) -> list[Entry]:
        keys = (key_of(self._item(name, shape, sweep)) for sweep in range(_MOST_SWEEPS))
        return [self._known[key] for key in keys if key in self._known]

    def _spent_s(self) -> float:
        return sum(
            float(entry.result["elapsed_s"])
            for name in self._plan.cases
            for shape in self._plan.shapes
            for entry in self._entries(name, shape)
            if isinstance(entry.result, Mapping)
        )

    def _settled(self, name: str, shape: str, sweep: int) -> bool:
        """Whether measuring this shape (again) can change nothing."""
        results = [entry.result for entry in self._entries(name, shape)]
        if any(isinstance(result, Failure) or (result and result["refused"]) for result in results):
            return True
        if sweep < _HOPELESS_SWEEPS:
            return False
        timing = self._shape(name, shape).timing
        return timing is None or not timing.shares

    def _measure(self, name: str, shape: str, sweep: int) -> float:
        item = self._item(name, shape, sweep)
        (key,) = self._book.add([item])
        if key in self._known:
            return 0.0
        begin = monotonic()
        sizes, plan = self._plan.shapes[shape], self._plan
        seed = (plan.seed, crc32(key.encode()))
        again = bool(self._entries(name, shape))
        family = self._family(name)
        result = self._call(measure_case, self._backend, name, sizes, plan.method, seed, family, again)
        if isinstance(result, Failure):
            self._book.fail(key, result)
        else:
            self._book.record(key, result)
        self._known[key] = Entry(key, item, result)
        return monotonic() - begin

    def _family(self, name: str) -> str:
        """The barriers that were chosen for a case, empty before the first shape."""
        entries = (entry for shape in self._plan.shapes for entry in self._entries(name, shape))
        return next((str(e.result["family"]) for e in entries if isinstance(e.result, Mapping)), "")

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
        timing = decide(rounds) if rounds else None
        graph = None
        if kernels:
            inputs = next(result["inputs"] for result in results)
            graph = executed_decision(kernels, inputs, partly=not isinstance(CASES[name], FusionCase))
        medians_ms = {key: round(float(np.median(values)), 6) for key, values in rounds.items()}
        return ShapeEvidence(shape, timing, graph, medians_ms, kernels, failure or refused)

    def _latency(self, case: Case, shape: str) -> dict[str, str]:
        """nn-Meter's keys: what each part costs between barriers, their sum as ``ops``, and what the block costs; mean
        and deviation of the rounds."""
        rounds = self._rounds(case.name, shape)
        t = {graph: np.asarray(values[: len(rounds[FRAME])]) for graph, values in rounds.items()}
        found = {"block": _spread(t[PAIR] - t[FRAME])}
        if isinstance(case, FusionCase):
            first, second = case.labels
            found[first] = _spread(t[FIRST] - t[FRAME])
            found[second] = _spread(t[APART] - t[FIRST])
            found["ops"] = _spread(t[APART] - t[FRAME])
        return found


def executed_decision(kernels: Mapping[str, int], inputs: int = 0, *, partly: bool = False) -> Decision:
    """What the numbers of executed kernels say. A pair fuses where as many kernels are gone as its last operator has.

    Args:
        kernels: How many each graph of ``training.detect`` has.
        inputs: Inputs that the last operator brings with it; the barriers behind them are no kernels of its own.
        partly: Whether one kernel gone is enough, as where several operators read the first one's result.
    """
    first, second = kernels[FIRST] - kernels[FRAME], kernels[APART] - kernels[FIRST] - inputs
    saved = (kernels[APART] - kernels[PAIR]) - (kernels[CONTROL_APART] - kernels[CONTROL])
    if first <= 0 or second <= 0:
        return Decision("undecided", 0.0, 0.0, 0, "the runtime executes nothing for one of the parts")
    if saved >= (1 if partly else second):
        return Decision("fuses", 1.0, saved / second, 0)
    if saved <= 0:
        return Decision("does not", 1.0, saved / second, 0)
    return Decision("undecided", 0.0, saved / second, 0, f"{saved} of {second} kernels fuse")


def _labels(case: Case) -> tuple[str, ...]:
    return case.labels if isinstance(case, FusionCase) else ()


def _spread(values_ms: np.ndarray) -> str:
    return f"{values_ms.mean():.4f} +- {values_ms.std():.4f}"
