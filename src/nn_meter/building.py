"""``nn_meter.build``: from nothing to a predictor for the runtime at hand.

What the runtime fuses is detected first, unless rules are given. Then networks of random widths are generated, run
and traced one by one in a child process; each result is committed to a journal before the next starts. Half-way through
the budget the families whose networks a first fit predicts worst are drawn more often. Then regressors are fitted, kind
by kind, and a bundle is written.

What a trace says is corrected in two ways. A neighbour on the machine slows whole stretches: a fixed probe runs
before and after each network. Networks measured while it was slow are kept in the journal and left out of training,
and what is slow about the stretch that a network was measured in is divided out. And the runtime's profiler costs
time in every kernel: the same network run without it tells how much.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from nn_meter.backends import base
from nn_meter.detection import DetectionPlan, detect_rules
from nn_meter.detection.decision import NOT_MEASURED
from nn_meter.devices.environment import environment
from nn_meter.errors import BackendError, BuildError
from nn_meter.ir import Graph, GraphBuilder
from nn_meter.kernels.kinds import ConvConfig
from nn_meter.kernels.schema import SCHEMA
from nn_meter.learning.fit import Network, Sample, fallback_factor, fit_kinds, fit_speeds
from nn_meter.measuring.isolation import Failure, Worker, measuring_cpus
from nn_meter.measuring.journal import Entry, Journal
from nn_meter.measuring.records import config_from_json, config_to_json
from nn_meter.networks.generated import FAMILIES
from nn_meter.predictors.bundle import Bundle
from nn_meter.progress import Progress
from nn_meter.runtimes.executed import read_all

_LOG = logging.getLogger(__name__)

STATISTIC = "quiet"
DETECTION_SHARE = 0.2
LONGEST_DETECTION_S = 180.0
"""Detecting fusion rules takes this share of the budget at most, and no longer than this."""

MIN_NETWORKS = 30
"""A build that ends with fewer measured networks trains nothing."""

_DISTURBED = 1.15
"""A network counts as disturbed where the probe took this much longer than its quiet time around then."""

@dataclass(frozen=True, slots=True)
class BuildPlan:
    """What to measure and for how long.

    ``runs_ms`` is spent on runs of each network, between ``least`` and ``most`` of them; ``timeout_s`` ends a
    network that hangs; ``kinds`` limits the regressors that are trained. ``detect_s`` is what detecting fusion rules
    may take of the budget, by default ``DETECTION_SHARE`` of it and ``LONGEST_DETECTION_S`` at most; 0 for none.
    """

    backend: str = "onnxruntime_cpu"
    settings: Mapping[str, Any] = field(default_factory=dict)
    budget_s: float = 1200.0
    runs_ms: float = 40.0
    least: int = 6
    most: int = 12
    timeout_s: float = 60.0
    seed: int = 0
    kinds: tuple[str, ...] | None = None
    detect_s: float | None = None

    @property
    def detection_s(self) -> float:
        """Seconds for detecting fusion rules; 0 for none."""
        if self.detect_s is not None:
            return self.detect_s
        return min(DETECTION_SHARE * self.budget_s, LONGEST_DETECTION_S)


def probe() -> Graph:
    """The network whose latency tells how quiet the machine is: a convolution, a product and a large sum."""
    b = GraphBuilder("probe")
    x = b.input((1, 64, 28, 28))
    y = b.op("Conv", x, b.weight((64, 64, 3, 3)), kernel_shape=(3, 3), pads=(1, 1, 1, 1))
    flat = b.op("Reshape", y, b.const((196, 256)))
    z = b.op("MatMul", flat, b.weight((256, 256)))
    big = b.input((1, 512, 1024))
    return b.graph(z, b.op("Add", big, b.input((1, 512, 1024))))


_PROBES: dict[str, base.Prepared] = {}


def measure_network(family: str, seed: int, plan: BuildPlan) -> dict[str, Any]:
    """Run and trace one generated network; called in the child process.

    Returns:
        ``kernels``: per executed kernel kind, config and quiet latency in ms as the trace says; ``whole_ms`` and
        ``traced_ms``: quiet latency of the network without and with the profiler; ``probe_ms``;
        ``elapsed_s``.
    """
    begin = monotonic()
    backend = base.load(plan.backend, **plan.settings)
    if plan.backend not in _PROBES:
        _PROBES[plan.backend] = backend.prepare(probe())
        _PROBES[plan.backend].run(20)
    prober = _PROBES[plan.backend]
    graph = FAMILIES[family](seed)
    with backend.prepare(graph) as prepared:
        first = min(prepared.run(2))
        repeats = int(np.clip(plan.runs_ms / max(first, 1e-3), plan.least, plan.most))
        before = min(prober.run(3))
        runs = prepared.run(repeats)
        traces = prepared.trace(repeats + 2)
        runs += prepared.run(repeats)
        after = min(prober.run(3))
    times = np.array([t.latencies_ms for t in traces])[:, 2:]
    quietest = np.argsort(times.sum(0))[: max(2, math.ceil(0.3 * times.shape[1]))]
    quiet = times[:, quietest].mean(1)
    kernels = []
    for each in read_all([trace.executed for trace in traces], base.runtime_of(backend), graph):
        latency_ms = float(quiet[list(each.positions)].sum())
        kernels.append([each.kind, config_to_json(each.config), round(latency_ms, 6)])
    return {
        "kernels": kernels,
        "whole_ms": float(np.quantile(runs, 0.05)),
        "traced_ms": float(quiet.sum()),
        "probe_ms": [before, after],
        "elapsed_s": monotonic() - begin,
    }


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

    Raises:
        BackendError: an unknown backend or setting.
        MissingDependencyError: the runtime or scikit-learn is not installed.
        BuildError: the budget is too small to train on, or the journal cannot be used.
    """
    if not plan.budget_s > 0:
        raise BuildError(f"a budget of {plan.budget_s:g} s measures nothing; give some minutes")
    backend = base.load(plan.backend, **plan.settings)
    facts = dict(backend.check())
    with Journal(journal) as book:  # from the start, so that a second build of this name is refused there
        if rules is None and plan.detection_s > 0:
            begin = monotonic()
            rules = _detected(plan, journal.with_suffix(".rules.sqlite"), progress)
            plan = replace(plan, budget_s=max(plan.budget_s - (monotonic() - begin), 1.0))
        _measure(plan, book, measuring_cpus(int(facts.get("threads", 1))), progress)
        results = book.results()
    _LOG.info("training on %d networks", len(results))
    bundle = train(results, plan, name=name, version=version, rules=rules)
    return replace(
        bundle,
        device=str(environment().get("cpu") or facts.get("device", "cpu")),
        runtime=str(facts.get("runtime", plan.backend)),
        runtime_version=str(facts.get("runtime_version", "")),
        threads=int(facts.get("threads", 1)),
        environment=environment({k: v for k, v in facts.items() if isinstance(v, str | int | float)}),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _detected(plan: BuildPlan, journal: Path, progress: Progress | None) -> dict[str, Any]:
    """The rules that the runtime obeys: as its executed graph says where it shows one, else as latencies say."""

    def heard(spent_s: float, budget_s: float | None, left_s: float | None, rule: str) -> None:
        if progress is not None:
            progress(spent_s, plan.budget_s, plan.budget_s - spent_s, f"fusion rule {rule}")

    with Worker(timeout_s=plan.timeout_s) as worker:
        shows = worker.call(shows_graph, plan)
    if isinstance(shows, Failure):
        _LOG.warning("%s does not show what it executes (%s); rules rest on latencies", plan.backend, shows.reason)
    detection = DetectionPlan(
        backend=plan.backend,
        settings=plan.settings,
        method="graph" if shows is True else "timing",
        budget_s=plan.detection_s,
    )
    return kept_rules(detect_rules(detection, journal=journal, progress=heard))


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


def shows_graph(plan: BuildPlan) -> bool:
    """Whether the runtime tells which kernels it makes of a graph; called in the child process."""
    try:
        return bool(base.load(plan.backend, **plan.settings).fused(probe()))
    except BackendError:
        return False


def _measure(
    plan: BuildPlan, book: Journal, cpus: frozenset[int] | None, progress: Progress | None
) -> None:
    spent_s = sum(float(e.result["elapsed_s"]) for e in book.results() if isinstance(e.result, Mapping))
    done = len(book.results())
    weights: Mapping[str, float] = {family: f.weight for family, f in FAMILIES.items()}
    adapted = spent_s > plan.budget_s / 2
    if adapted:
        weights = _adapted(book.results(), plan, weights)
    with Worker(timeout_s=plan.timeout_s, affinity=cpus) as worker:
        while spent_s < plan.budget_s:
            pending = book.pending()
            if not pending:
                book.add(_draw(weights, plan.seed, done, 50))
                continue
            for entry in pending:
                begin = monotonic()
                result = worker.call(
                    measure_network, str(entry.item["family"]), int(entry.item["seed"]), plan
                )
                if isinstance(result, Failure):
                    book.fail(entry.key, result)
                else:
                    book.record(entry.key, result)
                spent_s += monotonic() - begin
                done += 1
                if progress is not None:
                    progress(spent_s, plan.budget_s, max(plan.budget_s - spent_s, 0.0), f"{done} networks")
                if spent_s >= plan.budget_s:
                    break
            if not adapted and spent_s > plan.budget_s / 2:
                adapted = True
                weights = _adapted(book.results(), plan, weights)


def _draw(weights: Mapping[str, float], seed: int, start: int, count: int) -> list[dict[str, Any]]:
    """The next networks; a function of the seed and how many were drawn before."""
    rng = np.random.default_rng([seed, start])
    families = sorted(weights)
    share = np.array([weights[f] for f in families])
    drawn = rng.choice(len(families), size=count, p=share / share.sum())
    return [
        {"family": families[i], "seed": int(s)}
        for i, s in zip(drawn, rng.integers(2**40, size=count), strict=True)
    ]


def _adapted(results: Sequence[Entry], plan: BuildPlan, weights: Mapping[str, float]) -> Mapping[str, float]:
    """Family weights raised by the errors on networks that a first fit did not see."""
    good = _undisturbed(results)
    if len(good) < 4 * MIN_NETWORKS:
        return weights
    held = good[::4]
    seen = [pair for n, pair in enumerate(good) if n % 4]
    profiler_ms = _profiler_ms(good)
    networks = [_network(e, slowness, profiler_ms) for e, slowness in seen]
    speeds = fit_speeds(networks)
    kinds = fit_kinds(networks, speeds, seed=plan.seed)
    errors: dict[str, list[float]] = {}
    for entry, slowness in held:
        total_ms = _network(entry, slowness, profiler_ms).predict_ms(kinds, speeds)
        error = abs(math.log(total_ms * slowness / max(_result(entry)["whole_ms"], 1e-6)))
        errors.setdefault(str(entry.item["family"]), []).append(error)
    typical = float(np.median([e for some in errors.values() for e in some]))
    return {
        f: w * float(np.clip(np.mean(errors.get(f, [typical])) / typical, 0.5, 3.0))
        for f, w in weights.items()
    }


def _result(entry: Entry) -> Mapping[str, Any]:
    assert isinstance(entry.result, Mapping)
    return entry.result


def _undisturbed(results: Sequence[Entry]) -> list[tuple[Entry, float]]:
    """Networks whose probes were quiet, and how much slower than at its quietest the machine was around then.

    Quiet is judged within some hundred networks around, since a machine's clock may change for good. Slowness is the
    probe's median over quiet networks around, relative to its 5th percentile over the whole build.
    """
    taken = [e for e in results if isinstance(e.result, Mapping)]
    if not taken:
        return []
    probes = np.array([_result(e)["probe_ms"] for e in taken])
    best, mean, worst = probes.min(1), probes.mean(1), probes.max(1)
    around = [slice(max(0, i - 300), i + 300) for i in range(len(taken))]
    level = np.repeat([np.quantile(best[around[i]], 0.1) for i in range(0, len(taken), 50)], 50)[: len(taken)]
    keep = worst <= _DISTURBED * level
    if keep.mean() < 0.3:
        keep = worst / level <= np.quantile(worst / level, 0.3)
    quietest = float(np.quantile(best, 0.05))
    kept = np.flatnonzero(keep)
    slowness = [float(np.median(mean[kept[max(0, n - 50) : n + 50]])) / quietest for n in range(len(kept))]
    return [(taken[i], max(s, 1.0)) for i, s in zip(kept, slowness, strict=True)]


def _profiler_ms(results: Sequence[tuple[Entry, float]]) -> float:
    """What the profiler adds to each kernel: the median over networks of many kernels."""
    added = [
        (r["traced_ms"] - r["whole_ms"]) / len(r["kernels"])
        for r in (_result(e) for e, _ in results)
        if len(r["kernels"]) >= 12
    ]
    return max(0.0, float(np.median(added))) if added else 0.0


def _network(entry: Entry, slowness: float, profiler_ms: float) -> Network:
    """A measured network at the machine's quiet speed, the profiler's cost taken off its kernels."""
    result = _result(entry)
    samples = []
    for kind, values, latency_ms in result["kernels"]:
        corrected_ms = max(latency_ms - profiler_ms, 0.2 * latency_ms, 1e-4) / slowness
        samples.append(Sample(kind, config_from_json(kind, values), corrected_ms))
    return Network(tuple(samples))


def _block(networks: Sequence[Network]) -> int:
    """Channels to a block, from what the runtime padded: 16, 8, or 0 where it blocked nothing."""
    configs = [s.config for network in networks for s in network.samples]
    padded = [c.cout for c in configs if isinstance(c, ConvConfig) and "nchwc" in c.layout]
    return 0 if not padded else 16 if all(c % 16 == 0 for c in padded) else 8


def train(
    results: Sequence[Entry],
    plan: BuildPlan,
    *,
    name: str,
    version: str = "1.0",
    rules: Mapping[str, Any] | None = None,
) -> Bundle:
    """A bundle of what a journal holds.

    Raises:
        BuildError: fewer than ``MIN_NETWORKS`` networks were measured; says how many failed and why.
    """
    taken = [e for e in results if isinstance(e.result, Mapping)]
    if len(taken) < MIN_NETWORKS:
        failed = [e.result for e in results if isinstance(e.result, Failure)]
        why = f"; {len(failed)} failed, the first because: {failed[0].reason}" if failed else ""
        raise BuildError(
            f"{len(taken)} measured networks are too few to train on, {MIN_NETWORKS} are needed{why}; "
            "give the build a larger budget"
        )
    good = _undisturbed(taken)
    profiler_ms = _profiler_ms(good)
    networks = [_network(e, slowness, profiler_ms) for e, slowness in good]
    speeds = fit_speeds(networks)
    kinds = fit_kinds(networks, speeds, seed=plan.seed, kinds=plan.kinds)
    runtime = base.runtime_of(base.load(plan.backend, **plan.settings))
    spent_s = sum(float(_result(e)["elapsed_s"]) for e in taken)
    return Bundle(
        name=name,
        version=version,
        kinds=kinds,
        rules={"runtime": runtime.name, "block": _block(networks), **(rules or {})},
        schema=SCHEMA,
        category="cpu",
        statistic=STATISTIC,
        fallback={
            "policy": "roofline",
            "flops_per_s": speeds.flops_per_s,
            "bytes_per_s": speeds.bytes_per_s,
            "overhead_ms": speeds.overhead_ms,
            "factor": fallback_factor(networks, speeds),
        },
        notes=(
            f"{len(taken)} generated networks measured in {spent_s / 60:.1f} minutes, "
            f"{len(taken) - len(good)} of them left out as disturbed, {len(results) - len(taken)} failed",
            f"{1e3 * profiler_ms:.2f} microseconds taken off each traced kernel for the profiler",
        ),
    )
