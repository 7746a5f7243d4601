"""``nn_meter.build``: from nothing to a predictor for a runtime on a device.

What the runtime fuses is detected first, unless rules are given. Then networks of random widths are generated, run
and traced one by one in a process of their own; each record is committed to a journal before the next network starts.
Half-way through the budget the families whose networks a first fit predicts worst are drawn more often. Then
``learning.training.train`` makes a bundle of the records.

Several devices of one kind share the work: each takes the next network as soon as it is free, and measures a few
networks that are common to all at first and every ten minutes, by which ``learning.correction`` compares them.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from nn_meter.backends import base
from nn_meter.detection import DetectionPlan, detect_rules
from nn_meter.detection.decision import NOT_MEASURED
from nn_meter.devices.link import open_link
from nn_meter.errors import BackendError, BuildError, MeasurementError
from nn_meter.fleets import BOUND, COMMON_NETWORKS, Shared, check_alike, links_to, named
from nn_meter.ir import Graph
from nn_meter.learning.correction import CALL, COMMON
from nn_meter.learning.fit import spent_on_fits
from nn_meter.learning.training import check_kinds, train, worst_families
from nn_meter.measuring import wire
from nn_meter.measuring.asking import ask
from nn_meter.measuring.fixed import PROBED, nothing, patience, probe
from nn_meter.measuring.fleet import Fleet
from nn_meter.measuring.isolation import RECONNECTS_S, Failure, Worker
from nn_meter.measuring.journal import Entry, Journal
from nn_meter.measuring.measure import Plan, measure, quiet_parts
from nn_meter.measuring.records import Circumstances, MeasuredKernel, Record
from nn_meter.networks.generated import FAMILIES, draw, weights_for
from nn_meter.predictors.bundle import Bundle
from nn_meter.progress import Progress
from nn_meter.runtimes.executed import read_all

_LOG = logging.getLogger(__name__)

DETECTION_SHARE = 0.2
LONGEST_DETECTION_S = 180.0
"""Detecting fusion rules takes this share of the budget at most, and no longer than this."""

MIN_NETWORKS = 30
"""A build that ends with fewer measured networks trains nothing."""

_DRAWN_AT_ONCE = 50

LEAST_MOVED, MOST_MOVED = 0.5, 3.0
"""Half-way the share of a family of networks becomes so much of what it was, at the least and at the most."""

TRAINING_GROWTH = 2.3
"""Training takes so many times what the fits took that judge the families half-way: 2.3 on a journal of 2,622 networks,
2.1 on one of 7,923 (processor seconds from reading the journal to the bundle, on a Xeon)."""

_TRACED = Plan(rounds=1, warmup_turns=0, max_repeats=16)


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """What to measure and for how long.

    ``runs_ms`` is spent on a turn of runs of each network, two turns each, between ``least`` and ``most`` of them;
    ``timeout_s`` ends a network that hangs; ``kinds`` limits the regressors that are trained. ``detect_s`` is what
    detecting fusion rules may take of the budget, by default ``DETECTION_SHARE`` of it and ``LONGEST_DETECTION_S`` at
    most; 0 for none. ``device`` is the address of where the backend runs, ``fleet`` in its place those of several that
    share the work; they are of one kind unless ``mixed``.
    """

    backend: str = "onnxruntime_cpu"
    settings: Mapping[str, Any] = field(default_factory=dict)
    budget_s: float = 1200.0
    runs_ms: float = 100.0
    least: int = 6
    most: int = 30
    timeout_s: float = 60.0
    seed: int = 0
    kinds: tuple[str, ...] | None = None
    detect_s: float | None = None
    device: str = "local"
    fleet: tuple[str, ...] = ()
    mixed: bool = False

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of all devices."""
        return tuple(self.fleet) or (self.device,)

    @property
    def chosen(self) -> base.Named:
        """The backend with its settings."""
        return base.Named(self.backend, self.settings)

    @property
    def detection_s(self) -> float:
        """Seconds for detecting fusion rules; 0 for none."""
        if self.detect_s is not None:
            return self.detect_s
        return min(DETECTION_SHARE * self.budget_s, LONGEST_DETECTION_S)


def build(
    plan: BuildPlan,
    *,
    name: str,
    journal: Path,
    version: str = "1.0",
    rules: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Measure until the budget is spent, then train.

    Args:
        journal: file that holds every measurement; one that is there already is gone on with.
        rules: parsed fusion rules; by default they are detected.
        progress: hears what is being detected, measured and trained.

    Regressors that are fitted are kept beside the journal too, so that a build that is killed while it trains goes on.

    Raises:
        BackendError: an unknown backend or setting, or a runtime that does not answer on the device.
        DeviceError: an unknown device, one that refuses, or one of another kind than the first.
        MeasurementError: the device, or every one of a fleet, was lost and did not come back; the journal can be gone
            on with.
        MissingDependencyError: scikit-learn is not installed.
        BuildError: an unknown kind, a budget that is too small to train on, a journal that cannot be used, or a
            backend that tells no kernels.
    """
    if not plan.budget_s > 0:
        raise BuildError(f"a budget of {plan.budget_s:g} s measures nothing; give some minutes")
    check_kinds(plan.kinds)
    backend = plan.chosen.load()
    if not getattr(backend, "tells_kernels", True):
        raise BuildError(
            f"{backend.name} tells none of the kernels that a build learns from; measure some models "
            f"(nn-meter measure MODELS --backend {backend.name} --csv measured.csv) and adapt a predictor that ships "
            f"(nn-meter adapt --measured measured.csv --name {name})"
        )
    runtime = base.runtime_of(backend)
    there = _asked(plan)
    with Journal(journal) as book:  # from the start, so that a second build of this name is refused there
        shared = len(plan.addresses) > 1 or any(BOUND in each.item for each in (*book.pending(), *book.results()))
        if rules is None and plan.detection_s > 0 and not runtime.settled:
            begin = monotonic()
            rules = _detected(plan, list(there), journal.with_suffix(".rules.sqlite"), progress)
            plan = replace(plan, budget_s=max(plan.budget_s - (monotonic() - begin), 1.0))
        with Journal(journal.with_suffix(".fits.sqlite")) as fits:
            if shared:
                _share(plan, book, fits, there, progress)
            else:
                _measure(plan, book, fits, there[plan.addresses[0]], progress)
            records, failures = measured(book)
            if len(records) < MIN_NETWORKS:
                why = f"; {len(failures)} failed, the first because: {failures[0].reason}" if failures else ""
                raise BuildError(
                    f"{len(records)} measured networks are too few to train on, {MIN_NETWORKS} are needed{why}; "
                    "give the build a larger budget, with --resume to go on with these"
                )
            bundle = train(
                records,
                name=name,
                version=version,
                rules={"runtime": runtime.name, **(rules or {})},
                kinds=plan.kinds,
                seed=plan.seed,
                kept=fits,
                progress=progress,
            )
            losses = book.losses()
    notes = (
        *unmeasured(failures),
        *((f"{'a' if shared else 'the'} device was lost {losses} times, and the work gone on with",) if losses else ()),
    )
    return replace(bundle, notes=(*bundle.notes, *notes))


def unmeasured(failures: Sequence[Failure]) -> tuple[str, ...]:
    """How many networks the runtime refused, as is its right, and how many failed, each as a note."""
    counts = Counter("refused by the runtime" if each.kind == "refused" else "failed" for each in failures)
    return tuple(f"{count} network{'s' * (count != 1)} {why}" for why, count in sorted(counts.items(), reverse=True))


def measure_network(family: str, seed: int, plan: BuildPlan, where: Circumstances) -> Record:
    """Run and trace one generated network, in turns with the probe; called where the backend runs.

    Raises:
        BackendError: the runtime refuses the network, or does not tell its kernels.
    """
    begin = monotonic()
    backend = plan.chosen.load()
    graph = _drawn(family, seed, backend)
    timed = Plan(
        rounds=2, turn_s=plan.runs_ms / 1000, min_repeats=plan.least, max_repeats=plan.most, warmup_turns=1
    )
    with backend.prepare(graph) as prepared:
        traced = base.Traced(prepared)
        still = patience(plan.chosen)
        probed, whole, sums = measure([still.probe, prepared, traced], [PROBED, timed, _TRACED], patience=still)
    parts_ms = quiet_parts([trace.latencies_ms for trace in traced.traces])
    kernels = tuple(
        MeasuredKernel(
            each.kind, each.config, round(sum(parts_ms[i] for i in each.positions), 6), each.nodes
        )
        for each in read_all([trace.executed for trace in traced.traces], base.runtime_of(backend), graph)
    )
    return Record(graph.name, where, kernels, whole, sums, probed, family, monotonic() - begin)


def _drawn(family: str, seed: int, backend: base.Backend) -> Graph:
    if family == CALL:
        return nothing()
    name, seed = COMMON_NETWORKS[seed] if family == COMMON else (family, seed)
    refuses = getattr(backend, "refuses", lambda graph: "")
    most_nodes = getattr(backend, "most_nodes", math.inf)
    return FAMILIES[name](seed, takes=lambda part: not refuses(part), most_nodes=most_nodes)


def _asked(plan: BuildPlan) -> dict[str, Circumstances]:
    """Addresses of the devices that answer, and their circumstances; of a fleet some may be away."""
    links = links_to(plan.addresses)
    there: dict[str, Circumstances] = {}
    away: list[MeasurementError] = []
    for address, link in zip(plan.addresses, links, strict=True):
        try:
            with Worker(timeout_s=plan.timeout_s, link=link) as worker:
                there[address] = ask(worker, plan.chosen)
        except MeasurementError as error:
            away.append(error)
            if len(links) > 1:
                _LOG.warning("%s; the other devices begin without it", error)
        else:
            check_alike(next(iter(there.values())), there[address], plan.mixed)
    if not there:
        raise away[0]
    return there


def _detected(plan: BuildPlan, addresses: list[str], journal: Path, progress: Progress | None) -> dict[str, Any]:
    """The rules that the runtime obeys, by the first device, or by another where that is lost."""
    for address in addresses[:-1]:
        try:
            return _detected_on(replace(plan, device=address), journal, progress)
        except MeasurementError as error:
            _LOG.warning("%s; the next device goes on with the fusion rules", error)
    return _detected_on(replace(plan, device=addresses[-1]), journal, progress)


def _detected_on(plan: BuildPlan, journal: Path, progress: Progress | None) -> dict[str, Any]:
    """As the runtime's executed graph says where it shows one, else as latencies say."""

    def heard(done: float, total: float | None, eta_s: float | None, rule: str) -> None:
        if progress is not None:
            progress(done, total, eta_s, f"detecting, fusion rule {rule}")

    with Worker(timeout_s=plan.timeout_s, link=open_link(plan.device), waits_s=RECONNECTS_S) as worker:
        shows = worker.call(shows_graph, plan)
    if isinstance(shows, Failure):
        _LOG.warning("%s does not show what it executes (%s); rules rest on latencies", plan.backend, shows.reason)
    detection = DetectionPlan(
        backend=plan.backend,
        settings=plan.settings,
        device=plan.device,
        method="graph" if shows is True else "timing",
        budget_s=plan.detection_s,
    )
    return kept_rules(detect_rules(detection, journal=journal, progress=heard))


def shows_graph(plan: BuildPlan) -> bool:
    """Whether the runtime tells which kernels it makes of a graph; called where it runs."""
    try:
        return bool(plan.chosen.load().fused(probe()))
    except BackendError:
        return False


def kept_rules(rules: Mapping[str, Any]) -> dict[str, Any]:
    """What a bundle keeps of a rule file: verdicts, and of their evidence all but the single shapes.

    Rules that nobody came to measure are left out: undecided they would deny what the runtime is known to fuse.
    """
    kept: dict[str, Any] = {}
    for name, rule in rules.items():
        evidence = rule.get("evidence", {}) if isinstance(rule, Mapping) else {}
        if not isinstance(rule, Mapping):
            kept[name] = rule
        elif evidence.get("reason") != NOT_MEASURED:
            short = {key: v for key, v in evidence.items() if key != "shapes" and v not in (None, {}, "", 0)}
            kept[name] = {"obey": rule["obey"], "evidence": short}
    return kept


def _measure(
    plan: BuildPlan, book: Journal, fits: Journal, where: Circumstances, progress: Progress | None
) -> None:
    """Fill the journal until the budget is spent, less what training will take."""
    work = Drawing(plan, book, fits, progress)
    with Worker(
        timeout_s=plan.timeout_s, processors=where.threads, link=open_link(plan.addresses[0]), waits_s=RECONNECTS_S,
        lost=book.lost,
    ) as worker:  # fmt: skip
        while (entry := work.next()) is not None:
            begin = monotonic()
            work.over(entry, _taken(plan, entry, worker, where), begin)


def _share(
    plan: BuildPlan, book: Journal, fits: Journal, there: Mapping[str, Circumstances], progress: Progress | None
) -> None:
    """The same with several devices."""
    links = links_to(plan.addresses)
    devices = [named(where, open_link(address).address) for address, where in there.items()]
    drawing = Drawing(plan, book, fits, progress, len(links))
    run = partial(_taken, replace(plan, fleet=()))  # a device hears of no other
    shared = Shared(plan.chosen, book, drawing, devices, run, measured(book)[0], plan.mixed)
    try:
        with Fleet(links, timeout_s=plan.timeout_s) as fleet:
            fleet.run(shared)
    except MeasurementError as error:
        raise MeasurementError(
            f"{error}: what was measured is kept, go on with --resume and those that are there again"
        ) from error


def _taken(plan: BuildPlan, entry: Entry, worker: Worker, where: Circumstances) -> Record | Failure:
    """An entry of the journal, measured at the other end of a link."""
    return worker.call(measure_network, entry.item.get("family", ""), entry.item.get("seed", 0), plan, where)


class Drawing:
    """What to measure next, until the budget is spent, less what training will take.

    Args:
        devices: how many share the budget.
    """

    def __init__(
        self, plan: BuildPlan, book: Journal, fits: Journal, progress: Progress | None, devices: int = 1
    ) -> None:
        records, failures = measured(book)
        self.out: dict[str, Entry] = {}
        """What devices have at the moment, by key."""
        self._plan, self._book, self._fits, self._progress = plan, book, fits, progress
        self._weights: Mapping[str, float] = weights_for(base.runtime_of(plan.chosen.load()).precisions)
        self._spent_s = sum(record.elapsed_s for record in records) / devices
        self._done = len(records) + len(failures)
        self._budget_s = plan.budget_s
        self._adapted = False
        self._queue: deque[Entry] = deque()

    @property
    def spent(self) -> bool:
        """Whether the budget is."""
        return self._spent_s >= self._budget_s

    def next(self) -> Entry | None:
        """The next network; ``None`` where the budget is spent, or not before what is ``out`` is over."""
        while not self.spent:
            if self._queue:
                return self._queue.popleft()
            if not self._adapted and self._spent_s > self._plan.budget_s / 2:
                if self.out:
                    return None
                self._adapt()
            pending = [each for each in self._book.pending() if BOUND not in each.item and each.key not in self.out]
            if not pending:
                start = self._done + len(self.out)
                drawn = draw(self._weights, self._plan.seed, start, _DRAWN_AT_ONCE)
                self._book.add({"family": family, "seed": seed} for family, seed in [(CALL, start), *drawn])
            self._queue.extend(pending)
        return None

    def again(self, entry: Entry) -> None:
        """It is not over; it is the next."""
        self._queue.appendleft(entry)

    def over(self, entry: Entry, result: Record | Failure, begin: float) -> None:
        """Commit a result; the time since ``begin`` is spent."""
        if isinstance(result, Failure):
            self._book.fail(entry.key, result)
        else:
            self._book.record(entry.key, wire.to_json(result))
        self._spent_s += monotonic() - begin
        self._done += 1
        self._tell(f"measuring, {self._done} networks")

    def _adapt(self) -> None:
        self._adapted, begin = True, monotonic()

        def judging(*_: object) -> None:
            self._tell("judging which families are predicted worst")

        records, _ = measured(self._book)
        worse = worst_families(records, seed=self._plan.seed, kept=self._fits, progress=judging)
        self._spent_s += monotonic() - begin
        self._budget_s = max(self._budget_s - TRAINING_GROWTH * spent_on_fits(self._fits), self._spent_s)
        self._weights = {f: w * min(max(worse.get(f, 1.0), LEAST_MOVED), MOST_MOVED) for f, w in self._weights.items()}

    def _tell(self, what: str) -> None:
        budget_s = self._plan.budget_s
        if self._progress is not None:
            self._progress(min(self._spent_s, budget_s), budget_s, max(budget_s - self._spent_s, 0.0), what)


def measured(book: Journal) -> tuple[list[Record], list[Failure]]:
    """Records of the networks that a build measured, and why it has none of the others.

    Raises:
        BuildError: a row of the journal that is neither.
    """
    told = [book.understood(entry, _record) for entry in book.results() if "lost" not in entry.item]
    return [each for each in told if isinstance(each, Record)], [each for each in told if isinstance(each, Failure)]


def _record(result: Mapping[str, Any] | Failure) -> Record | Failure:
    return result if isinstance(result, Failure) else wire.from_json(Record, result)

