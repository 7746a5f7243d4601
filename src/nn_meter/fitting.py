"""``nn_meter.fit`` and ``nn_meter.adapt``: predictors from measurements that others took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from nn_meter import frontends
from nn_meter.devices.sheet import Sheet
from nn_meter.errors import BuildError, ModelError
from nn_meter.ir import Graph
from nn_meter.kernels.partition import KernelConfig
from nn_meter.kernels.rules import read_rules
from nn_meter.kernels.terms import SCHEMA
from nn_meter.learning import rescaling
from nn_meter.learning.environments import default_name, tags_of, told
from nn_meter.learning.lowerings import LOWERINGS, Lowering, lowering_of
from nn_meter.learning.sheets import from_sheet, is_base
from nn_meter.learning.sums import (
    MIN_MODELS,
    Design,
    Environment,
    Floats,
    Prior,
    Subject,
    doubt,
    fit_together,
    interval_of,
    kernel_subject,
    leave_families_out,
    model_subject,
    most_telling,
    terms_document,
)
from nn_meter.measuring.records import Circumstances, Record
from nn_meter.predictors.bundle import Bundle, load
from nn_meter.predictors.catalogue import list_predictors
from nn_meter.predictors.parts import ByTerms, Interval, Roofline
from nn_meter.predictors.sums import staging
from nn_meter.runtimes import BY_RULES
from nn_meter.runtimes.fusion import fuse

Reader = Callable[[str, int], Graph]
"""From a subject's name and the batch to its graph; raises ``ModelError`` where there is none."""

Kernels = Sequence[tuple[str, KernelConfig]]
"""Kind and config of what a runtime executes of a model."""


@dataclass(frozen=True)
class Errors:
    """Relative errors of predictions by models of other families, as fractions."""

    models: int
    median: float
    mean: float
    within_10: float

    @classmethod
    def of(cls, predicted: Floats, measured: Floats) -> Errors:
        """Of latencies in ms, float64 of one shape; pairs with a NaN do not count."""
        both = ~np.isnan(predicted) & ~np.isnan(measured)
        off = np.abs(predicted[both] / measured[both] - 1)
        return cls(int(both.sum()), float(np.median(off)), float(off.mean()), float((off <= 0.1).mean()))

    def written(self) -> dict[str, float]:
        """As a bundle keeps them."""
        return {
            "models": self.models,
            "median": round(self.median, 4),
            "mean": round(self.mean, 4),
            "within_10": round(self.within_10, 4),
        }


@dataclass(frozen=True)
class Study:
    """Environments of one lowering: subjects, latencies, what was predicted with families left out."""

    design: Design
    names: tuple[str, ...]
    environments: tuple[Environment, ...]
    circumstances: tuple[Circumstances, ...]
    lowering: Lowering
    left_out: tuple[str, ...]
    subjects: tuple[Subject, ...]
    batches: tuple[tuple[int, ...], ...]

    def blind(self, folds: int | None = None) -> Floats:
        """Predictions in ms, float64 (environments, subjects), each without its family; ``folds`` as in
        ``leave_families_out``."""
        return leave_families_out(self.design, self.environments, folds=folds)

    def bundles(self, blind: Floats | None, label: Callable[[Circumstances], str]) -> list[Bundle]:
        """A predictor of every environment, named by ``label``; ``blind`` gives its errors and its interval."""
        fitted = fit_together(self.design, self.environments)
        made = []
        for k, (each, around) in enumerate(zip(self.environments, self.circumstances, strict=True)):
            used = ~np.isnan(each.latencies_ms)
            document = terms_document(
                self.design, fitted.parameters[k], used, staged=self.lowering.staged, batches=self.batches[k]
            )
            errors = interval = None
            if blind is not None:
                errors = Errors.of(blind[k], each.latencies_ms)
                some = ~np.isnan(blind[k]) & used
                interval = interval_of(np.log(each.latencies_ms[some] / blind[k][some]))
            made.append(_bundle(label(around), around, self.lowering, document, errors, interval))
        return made


def study(
    records: Iterable[Record],
    read: Reader,
    *,
    lowering: Lowering | None = None,
    lower: Callable[[str, int], Kernels] | None = None,
) -> Study:
    """Bring records of one lowering into the form that fits.

    A model that cannot be read is left out and named; kernels of a model keep its family. ``lower`` gives a subject's
    kernels where they are known without reading it.

    Raises:
        BuildError: no records, or of runtimes that lower differently.
    """
    records = tuple(records)
    if not records:
        raise BuildError("there are no measurements to fit; see docs/measurements.md for the forms")
    kinds = {lowering_of(r.circumstances) for r in records}
    if lowering is None:
        if len(kinds) > 1:
            named = ", ".join(f"{' '.join((runtime, *way))} on a {kind}" for runtime, kind, *way in sorted(kinds))
            raise BuildError(f"the measurements are of several runtimes ({named}); fit one at a time")
        lowering = LOWERINGS.get(next(iter(kinds)), Lowering({"runtime": BY_RULES}))
    lower = lower or _lowered(read, lowering)
    places: dict[Any, int] = {}
    subjects: list[Subject] = []
    names: list[str] = []
    failed: dict[str, str] = {}
    latencies: dict[Any, dict[int, float]] = {}
    around_of: dict[Any, Circumstances] = {}
    batches: dict[Any, set[int]] = {}
    repeats: Counter[Any] = Counter()
    for record in records:
        around = record.circumstances
        where = (default_name(around), around.threads, around.source)
        around_of.setdefault(where, around)
        batches.setdefault(where, set()).add(around.batch)
        if record.whole is not None:
            key: Any = (record.subject, around.batch)
            if key not in places and record.subject not in failed:
                try:
                    kernels = lower(record.subject, around.batch)
                except ModelError as error:
                    failed[record.subject] = str(error)
                else:
                    places[key] = len(subjects)
                    family = record.family or record.subject
                    subjects.append(model_subject(kernels, family, staged=lowering.staged))
                    names.append(record.subject)
            if key in places:
                latencies.setdefault(where, {})[places[key]] = record.whole.median_ms
        for kernel in record.kernels:
            one = kernel_subject(
                kernel.kind, kernel.config, record.family or record.subject, staged=lowering.staged
            )
            repeats[where, record.subject, one] += 1
            key = (one, record.subject, repeats[where, record.subject, one])
            if key not in places:
                places[key] = len(subjects)
                subjects.append(one)
                names.append(record.subject)
            latencies.setdefault(where, {})[places[key]] = kernel.latency_ms
    left_out = tuple(why if why.startswith(f"{name}:") else f"{name}: {why}" for name, why in failed.items())
    if not subjects:
        raise BuildError(f"no model of the measurements can be read: {'; '.join(left_out[:3])}")
    environments = []
    for where, found in latencies.items():
        around = around_of[where]
        values = np.full(len(subjects), np.nan)
        values[list(found)] = list(found.values())
        environments.append(Environment(default_name(around), tags_of(around), values))
    return Study(
        Design(subjects, lowering.noise, lowering.bounded),
        tuple(names), tuple(environments), tuple(around_of[w] for w in latencies), lowering, left_out, tuple(subjects),
        tuple(tuple(sorted(batches[w])) for w in latencies),
    )


def fit(
    records: Iterable[Record],
    base: Bundle | None = None,
    *,
    name: str | None = None,
    version: str = "1.0",
    read: Reader | None = None,
) -> Bundle:
    """A predictor of the one environment that ``records`` were measured in.

    Args:
        records: whole models, four at least, and single kernels beside them; as
            ``nn_meter.networks.published.read_csv`` gives them.
        base: a predictor of schema ``terms-1`` to start from, as :func:`adapt` does.
        name: of the predictor; made of device, processors, precision and runtime where left out.
        read: finds the graph of a subject; a path or a name that ``nn_meter.frontends`` knows where left out.

    Raises:
        BuildError: too few measurements, of several environments, or no model can be read.
        MissingDependencyError: scikit-learn is not installed.
    """
    if base is not None:
        return adapt(tuple(records), [base], name=name, version=version, read=read).bundle
    found = study(records, read or read_subject)
    if len(found.environments) > 1:
        named = ", ".join(each.name for each in found.environments)
        raise BuildError(f"the measurements are of several environments ({named}); fit one at a time")
    count = int(found.design.whole.sum())
    if found.left_out and count < MIN_MODELS:
        raise BuildError(
            f"{len(found.left_out)} models cannot be read ({'; '.join(found.left_out[:3])}): {count} are left, "
            f"{MIN_MODELS} are needed"
        )
    blind = found.blind() if len(set(found.design.families[found.design.whole])) > 2 else None
    bundle = found.bundles(blind, lambda around: name or default_name(around))[0]
    notes = (*bundle.notes, *(f"left out: {text}" for text in found.left_out))
    return replace(bundle, version=version, notes=notes)


@dataclass(frozen=True)
class Adapted:
    """What ``adapt`` gives: a predictor, and which of the candidates to measure next, the most telling first."""

    bundle: Bundle
    next: tuple[str, ...]


def adapt(
    records: Iterable[Record],
    bases: Sequence[Bundle],
    *,
    name: str | None = None,
    version: str = "1.0",
    read: Reader | None = None,
    candidates: Sequence[str] = (),
    suggest: int = 5,
) -> Adapted:
    """A predictor of a new device from a handful of whole models, and from predictors of other devices.

    Args:
        records: latencies of whole models in one environment, one at least.
        bases: predictors of schema ``terms-1`` with one lowering: the more, the more is known about how devices
            differ. Or predictors of kernels of one runtime, of which the one that fits best is taken.
        candidates: subjects that could be measured next.
        suggest: how many of them to name.

    Raises:
        BuildError: no measurements, of several environments, no base, or bases that lower differently.
    """
    if not bases:
        raise BuildError("there is no predictor to adapt; name one, such as those that ship")
    if any(each.schema != SCHEMA for each in bases):
        return _rescaled(tuple(records), bases, name, version, read or read_subject, candidates, suggest)
    if len({(repr(sorted(each.rules)), staging(each.terms)) for each in bases}) > 1:
        raise BuildError("the base predictors are of runtimes that fuse differently; name those of one runtime")
    lowering = Lowering(bases[0].rules, staging(bases[0].terms))
    reader = read or read_subject
    found = study(records, reader, lowering=lowering)
    if len(found.environments) > 1:
        named = ", ".join(each.name for each in found.environments)
        raise BuildError(f"the measurements are of several environments ({named}); adapt to one at a time")
    measured, around = found.environments[0], found.circumstances[0]
    count = int((found.design.whole & ~np.isnan(measured.latencies_ms)).sum())
    if not count:
        raise BuildError("there is no whole model among the measurements, only kernels; measure one model at least")
    lower = _lowered(reader, lowering)
    asked = {}
    for each in candidates:
        if each not in found.names:
            asked[each] = model_subject(lower(each, around.batch), each, staged=lowering.staged)
    design = Design([*found.subjects, *asked.values()])
    latencies = np.concatenate([measured.latencies_ms, np.full(len(asked), np.nan)])
    prior = Prior.of([each.terms["learned"] for each in bases], design.parameters)
    parameters, covariance = prior.fit(design, latencies)
    used = ~np.isnan(latencies)
    document = terms_document(design, parameters, used, staged=lowering.staged, batches=[around.batch])
    _keep_known(document, bases)
    interval = _widened(bases, design.doubt(parameters, covariance), count)
    bundle = _bundle(name or default_name(around), around, lowering, document, None, interval)
    notes = (
        *bundle.notes,
        f"adapted from {len(bases)} predictors by {count} measurements",
        *(f"left out: {text}" for text in found.left_out),
    )
    order = design.most_telling(parameters, covariance, np.flatnonzero(~used), suggest)
    order_named = tuple(list(asked)[i - len(found.subjects)] for i in order)
    return Adapted(replace(bundle, version=version, notes=notes), order_named)


def _rescaled(
    records: Sequence[Record],
    bases: Sequence[Bundle],
    name: str | None,
    version: str,
    read: Reader,
    candidates: Sequence[str],
    suggest: int,
) -> Adapted:
    """As ``adapt``, from predictors of kernels."""
    if len({(each.runtime, each.schema == SCHEMA) for each in bases}) > 1:
        raise BuildError("the base predictors are of several runtimes or schemas; name those of one")
    if odd := [each for each in bases if not isinstance(each.fallback, Roofline)]:
        raise BuildError(f"{odd[0].name}: nn-Meter's own predictors know no kinds to adapt; name another base")
    around = _one_environment(records)
    taken = {each.subject: each.whole.median_ms for each in records if each.whole}
    graphs, left_out = {}, []
    for subject in tuple(taken):
        try:
            graphs[subject] = read(subject, around.batch)
        except ModelError as error:
            left_out.append(f"left out: {error}")
            del taken[subject]
    if not taken:
        raise BuildError("; ".join(["there is no whole model among the measurements that can be read", *left_out[:3]]))
    asked = {each: read(each, around.batch) for each in candidates if each not in taken}
    found, base, models = rescaling.nearest(bases, [*graphs.values(), *asked.values()], [*taken.values()])
    along, measured = found.sensitivity(models), len(taken)
    order = most_telling(along, found.covariance, np.arange(measured, len(models)), suggest, rescaling.NOISE)
    notes, facts = told(around)
    notes.append(f"adapted from {base.name} {base.version} by {measured} measurements")
    if around.runtime != base.runtime:
        notes.append(f"measured with {around.runtime}, kernels as {base.runtime} makes them")
    bundle = replace(
        rescaling.rescaled(base, found),
        name=name or default_name(around),
        version=version,
        device=around.device.name,
        category=around.device.kind,
        threads=around.threads,
        statistic=around.statistic,
        interval=_widened([base], doubt(along, found.covariance) + rescaling.NOISE**2, measured),
        notes=(*notes, *left_out),
        created=datetime.now(UTC).date().isoformat(),
        environment=facts,
        path=None,
    )
    return Adapted(bundle, tuple(list(asked)[each - measured] for each in order))


def _widened(bases: Sequence[Bundle], doubts: Floats, models: int) -> Interval:
    """The mean interval of the bases, or 10 % where they have none, wider by variances of logarithms, float64 (n,)."""
    known = [each.interval for each in bases if each.interval] or [Interval(-0.1, 0.1)]
    spread = 1.645 * float(np.sqrt(np.mean(doubts)))  # of a normal distribution 90 % lie within
    low, high = (float(np.mean(ends)) for ends in zip(*((each.low, each.high) for each in known), strict=True))
    return Interval(round(low - spread, 4), round(high + spread, 4), models=models)


def _one_environment(records: Sequence[Record]) -> Circumstances:
    """What all were measured in."""
    if not records:
        raise BuildError("there are no measurements to adapt to; see docs/measurements.md for the forms")
    found = {(default_name(each.circumstances), each.circumstances.threads): each.circumstances for each in records}
    if len(found) > 1:
        named = ", ".join(name for name, _ in found)
        raise BuildError(f"the measurements are of several environments ({named}); adapt to one at a time")
    return next(iter(found.values()))


def shipped_bases(records: Sequence[Record]) -> list[Bundle]:
    """All predictors that ship for the runtime and the kind of device of these measurements, those of their precision
    and, on cards, compiled or not as they were, where there are any.

    Raises:
        BuildError: none ships for that runtime.
    """
    if not records:
        raise BuildError("there are no measurements to adapt to; see docs/measurements.md for the forms")
    around = records[0].circumstances
    known = [load(each.location) for each in list_predictors() if each.origin == "shipped" and each.summary]
    of_runtime = [b for b in known if (b.runtime, b.category) == (around.runtime, around.device.kind)]
    of_runtime = [b for b in of_runtime if b.schema == SCHEMA] or of_runtime
    if not of_runtime:
        there = ", ".join(sorted({f"{b.runtime} on a {b.category}" for b in known}))
        raise BuildError(
            f"no predictor ships for {around.runtime!r} on a {around.device.kind}; there are: {there}. "
            "Say which runtime was measured (--runtime, --category), or name a base (--base)"
        )
    of_precision = [b for b in of_runtime if b.dtype == around.precision] or of_runtime
    called = LOWERINGS.get(lowering_of(around))
    alike = [b for b in of_precision if called and b.schema == SCHEMA and staging(b.terms) == called.staged]
    return alike or of_precision


def estimate(sheet: Sheet, bases: Sequence[Bundle] = (), *, name: str, version: str = "1.0") -> Bundle:
    """A predictor for a GPU that nobody measured, from its data sheet; all of its answers count as estimated.

    Args:
        bases: predictors of measured GPUs; all that ship where left out.

    Raises:
        BuildError: none of a measured GPU, or of several runtimes.
    """
    if not bases:
        shipped = (each for each in list_predictors() if each.origin == "shipped" and each.category == "gpu")
        bases = [each for each in (load(found.location) for found in shipped) if is_base(each)]
    return from_sheet(sheet, bases, name=name, version=version)


def _keep_known(document: dict[str, Any], bases: Sequence[Bundle]) -> None:
    """Terms that no measured model has are as certain as the bases know them: their ranges, and their mean speed."""
    for name, entry in document["learned"].items():
        theirs = [b.terms["learned"][name] for b in bases if "work" in b.terms["learned"].get(name, {})]
        if not theirs:
            continue
        ranges = [[t["work"], *t["seen"]] for t in (*theirs, entry) if "work" in t]
        wide = [[min(r[i][0] for r in ranges), max(r[i][1] for r in ranges)] for i in range(len(ranges[0]))]
        entry["work"], entry["seen"] = wide[0], wide[1:]


def read_subject(subject: str, batch: int) -> Graph:
    """The graph of a path, or of a name such as ``timm:resnet50``, at a batch."""
    graph = frontends.read(subject)
    if batch == 1:
        return graph
    shapes = {name: (batch, *graph.tensors[name].shape[1:]) for name in graph.inputs}
    return frontends.read(subject, input_shapes=shapes)


def _lowered(read: Reader, lowering: Lowering) -> Callable[[str, int], Kernels]:
    rules = read_rules(lowering.rules, "rules of the runtime")

    def lower(subject: str, batch: int) -> Kernels:
        return [(k.kind, k.config) for k in fuse(read(subject, batch), rules, known=()).kernels if not k.free]

    return lower


def _bundle(
    name: str,
    around: Circumstances,
    lowering: Lowering,
    document: Mapping[str, Any],
    errors: Errors | None,
    interval: Interval | None,
) -> Bundle:
    notes, facts = told(around)
    if errors is not None:
        notes.append(
            f"on families of networks left out: median error {errors.median:.1%}, mean {errors.mean:.1%}, "
            f"within 10 %: {errors.within_10:.0%} of {errors.models}"
        )
        facts["errors"] = errors.written()
    return Bundle(
        name=name,
        version="1.0",
        kinds={},
        rules=dict(lowering.rules),
        schema=SCHEMA,
        device=around.device.name,
        category=around.device.kind,
        runtime=around.runtime,
        runtime_version=around.runtime_version,
        threads=around.threads,
        dtype=around.precision,
        statistic=around.statistic,
        fallback=ByTerms(),
        interval=interval,
        notes=tuple(notes),
        created=datetime.now(UTC).date().isoformat(),
        environment=facts,
        terms=document,
    )
