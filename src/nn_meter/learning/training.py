"""``train``: from records, wherever they come from, to a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import numpy as np

from nn_meter.errors import BuildError, RuleError, did_you_mean
from nn_meter.kernels.kinds import KINDS, ConvConfig
from nn_meter.kernels.schema import SCHEMA, Codes, Speeds
from nn_meter.learning.correction import ALIKE, COMMON, Corrected, Level, corrected
from nn_meter.learning.fit import (
    LEVEL,
    Network,
    fallback_factor,
    fallback_spread,
    fit_kinds,
    fit_speeds,
)
from nn_meter.learning.metrics import central
from nn_meter.measuring.fixed import PROBE
from nn_meter.measuring.journal import Journal
from nn_meter.measuring.records import Circumstances, Record
from nn_meter.predictors.bundle import Bundle
from nn_meter.predictors.parts import LOG_RATIO_MOST, Interval, Part, Roofline, spread
from nn_meter.progress import Progress
from nn_meter.runtimes import BY_RULES, find

FEWEST_TO_JUDGE = 120
"""Fewer records than this do not tell which families are predicted badly."""


def train(
    records: Sequence[Record],
    *,
    name: str,
    version: str = "1.0",
    rules: Mapping[str, Any] | None = None,
    kinds: Sequence[str] | None = None,
    sheet: Speeds | None = None,
    codes: Mapping[str, Codes] = MappingProxyType({}),
    probe_ms: float | None = None,
    seed: int = 0,
    kept: Journal | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """A bundle of what ``records`` say; they are of one runtime and precision, and of one device, or of several that
    measured ``COMMON`` networks: it answers for the first then.

    Args:
        rules: parsed fusion rules that the bundle shall carry, the name of its ``runtime`` among them.
        kinds: kernel kinds to train; by default all that have enough measurements.
        sheet: what the data sheet of a GPU says that it does at best, in place of what the records show; the cost of a
            call is theirs.
        codes: of kinds whose names have codes already, those of another predictor that this one shall agree with.
        probe_ms: at which speed of the machine to answer, as ``corrected`` takes it.
        kept: holds regressors that were fitted before to the same numbers, and gets those that are fitted now.
        progress: hears after each kind.

    Raises:
        BuildError: no or too few records, records of different circumstances, or an unknown kind.
        MissingDependencyError: scikit-learn is not installed.
    """
    check_kinds(kinds)
    where = _shared(records)
    correction = corrected(records, probe_ms)
    for level in correction.levels[:1]:  # it answers for that device
        where = next(each.circumstances for each in records if each.circumstances.device.name == level.device)
    speeds = fit_speeds(correction.networks)
    if sheet is not None:
        speeds = replace(sheet, overhead_ms=speeds.overhead_ms)
    fitted = fit_kinds(
        correction.networks, speeds, seed=seed, kinds=kinds, codes=codes, kept=kept, progress=progress
    )
    spent_s = sum(record.elapsed_s for record in records)
    taken = f" in {spent_s / 60:.1f} minutes" if spent_s else ""
    return Bundle(
        name=name,
        version=version,
        kinds=fitted.kinds,
        rules={"runtime": _runtime(where), "block": _block(correction.networks), **(rules or {})},
        schema=SCHEMA,
        device=where.device.processor or where.device.name if correction.levels else where.device.name,
        category=where.device.kind,
        runtime=where.runtime,
        runtime_version=where.runtime_version,
        threads=where.threads,
        dtype=where.precision,
        statistic=where.statistic,
        fallback=Roofline(
            speeds.flops_per_s,
            speeds.bytes_per_s,
            speeds.overhead_ms,
            fallback_factor(correction.networks, speeds),
            speeds.processors,
            speeds.cache_bytes,
        ),
        interval=interval(correction.networks, fitted.held, speeds),
        call_ms=correction.call_ms,
        notes=(
            f"{len(records)} networks measured{taken}, {correction.disturbed} of them left out as disturbed",
            f"{1e3 * correction.profiler_ms:.2f} microseconds taken off each traced kernel for the profiler",
            *(f"measured by {source}" for source in _sources(records)),
            *(_told(level, where.device.name) for level in correction.levels[1:] if level.networks),
        ),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        environment={
            **where.facts(), **_held_out(correction, fitted.held), **_level(correction), **_fleet(correction),
        },
    )  # fmt: skip


def _told(level: Level, first: str) -> str:
    """How a device of a fleet differs, and what follows where that is much."""
    if level.factor is None:
        return f"warning: {level.networks} networks of {level.device} left out, for it measured none to compare it by"
    text = (
        f"{level.networks} networks measured on {level.device}, at {level.factor:.3f} times the latency of {first} "
        f"(spread {level.spread:.1%} among {level.common} networks that both measured), and divided by it"
    )
    if not level.odd:
        return text
    return f"warning: {text}; devices of one kind differ by {ALIKE:.0%} at most, and what is predicted is {first}'s"


def _fleet(correction: Corrected) -> dict[str, Any]:
    """The devices that measured, where there were several."""
    return {"fleet": [asdict(level) for level in correction.levels]} if correction.levels else {}


def _level(correction: Corrected) -> dict[str, float]:
    """At which speed of the machine the bundle answers."""
    return {PROBE: round(correction.probe_ms, 6)} if correction.probe_ms else {}


def _held_out(correction: Corrected, held: Mapping[int, Sequence[Part]]) -> dict[str, Any]:
    """Of kernels that were measured by themselves: how far those held out are off, by the subjects of their records."""
    if any(len(network.samples) > 1 for network in correction.networks):
        return {}
    off: dict[str, list[float]] = {}
    for number, (part,) in held.items():
        (sample,) = correction.networks[number].samples
        error = abs(part.latency_ms / sample.latency_ms - 1)
        off.setdefault(correction.records[number].subject, []).append(error)
    return {
        "held_out": {
            subject: {"kernels": len(some), "mean": float(np.mean(some)), "median": float(np.median(some))}
            for subject, some in sorted(off.items())
        }
    }


FEWEST_FOR_INTERVALS = 40
"""Networks held out; fewer give no interval."""


WIDER = 1.2
"""Real models are off by so much more, relative to the spread of their sums, than generated networks held out: chosen
on 123 models that were looked at (docs/accuracy_xeon.md)."""

_SHARES = tuple(tenth / 10 for tenth in range(11))


def interval(networks: Sequence[Network], held: Mapping[int, Sequence[Part]], speeds: Speeds) -> Interval | None:
    """The central share ``LEVEL`` of log(measured / predicted) over networks held out (split conformal prediction, Vovk
    et al., 2005), as it is and over the spread of each sum (normalised: Papadopoulos et al., 2008), and of estimates
    from flops and bytes; ``None`` where there are too few.

    What the errors within a kind share is where errors of that spread, of Laplace's distribution, make the ratios most
    likely.

    Args:
        held: of networks held out, by number, what regressors fitted without them answer for each kernel.
    """
    sums = [(number, sum(part.latency_ms for part in parts)) for number, parts in held.items()]
    sums = [(number, predicted_ms) for number, predicted_ms in sums if predicted_ms > 0]
    if len(sums) < FEWEST_FOR_INTERVALS:
        return None
    measured = [sum(s.latency_ms for s in networks[number].samples) for number, _ in sums]
    ratios = np.log(np.array(measured) / [predicted_ms for _, predicted_ms in sums])
    spreads = {share: np.array([spread(held[number], share) for number, _ in sums]) for share in _SHARES}

    def unlikely(share: float) -> float:
        by = spreads[share]
        return float(np.mean(np.log(by)) + np.log(np.mean(np.abs(ratios) / by)))  # Laplace: ratios have long tails

    share = min(_SHARES, key=unlikely)
    low, high = central(ratios, LEVEL)
    # of few networks one may be off by any number of spreads, which a bundle does not hold
    ends = np.multiply(WIDER, central(ratios / spreads[share], LEVEL))
    lower, upper = np.clip(ends, -LOG_RATIO_MOST, LOG_RATIO_MOST)
    return Interval(
        low,
        high,
        LEVEL,
        networks=len(ratios),
        estimated=fallback_spread(networks, speeds),
        sums=(float(lower), float(upper)),
        share=share,
    )


def check_kinds(kinds: Sequence[str] | None) -> None:
    """Raise where a kernel kind is unknown.

    Raises:
        BuildError: suggests near names.
    """
    for kind in kinds or ():
        if kind not in KINDS:
            hint = did_you_mean(kind, KINDS)
            raise BuildError(f"no kernel kind {kind!r}; {hint}known kinds: {', '.join(sorted(KINDS))}")


def worst_families(
    records: Sequence[Record], *, seed: int = 0, kept: Journal | None = None, progress: Progress | None = None
) -> Mapping[str, float]:
    """How much worse than a typical network those of each family are predicted: the mean absolute logarithm of
    predicted over measured of networks that a first fit did not see, relative to the median of all; empty where there
    are too few records to tell. ``kept`` and ``progress`` as in ``train``."""
    correction = corrected(records)
    if len(correction.networks) < FEWEST_TO_JUDGE:
        return {}
    seen = tuple(network for n, network in enumerate(correction.networks) if n % 4)
    speeds = fit_speeds(seen)
    kinds = fit_kinds(seen, speeds, seed=seed, kept=kept, progress=progress).kinds
    errors: dict[str, list[float]] = {}
    for network, record in list(zip(correction.networks, correction.records, strict=True))[::4]:
        predicted_ms = network.predict_ms(kinds, speeds)
        measured_ms = sum(sample.latency_ms for sample in network.samples)
        errors.setdefault(record.family, []).append(abs(float(np.log(predicted_ms / measured_ms))))
    typical = float(np.median([error for some in errors.values() for error in some]))
    return {family: float(np.mean(some)) / typical for family, some in errors.items()}


def _shared(records: Sequence[Record]) -> Circumstances:
    """The circumstances of all records, as far as latencies depend on them."""
    if not records:
        raise BuildError("no records to train on; measure something first")
    first = records[0].circumstances
    compared = any(record.family == COMMON for record in records)
    for record in records:
        other = record.circumstances
        for what in ("runtime", "runtime_version", "precision", "batch", "threads", "statistic"):
            if getattr(other, what) != getattr(first, what):
                raise BuildError(
                    f"record of {record.subject!r}: its {what.replace('_', ' ')} is {getattr(other, what)!r}, that of "
                    f"others {getattr(first, what)!r}; train on each by itself"
                )
        if other.device.name != first.device.name and not compared:
            raise BuildError(
                f"record of {record.subject!r}: measured on {other.device.name}, others on {first.device.name}; "
                "train on each by itself"
            )
    return first


def _runtime(where: Circumstances) -> str:
    """The runtime of the records where it is known here, else the one that does what rules say."""
    try:
        return find(where.runtime).name
    except RuleError:
        return BY_RULES


def _sources(records: Sequence[Record]) -> list[str]:
    """Who measured, and under which licence, where that is stated."""
    said = dict.fromkeys((each.circumstances.source, each.circumstances.licence) for each in records)
    return [f"{source} ({licence})" if licence else source for source, licence in said if source]


def _block(networks: Sequence[Network]) -> int:
    """Channels to a block, from what the runtime padded: 16, 8, or 0 where it blocked nothing."""
    configs = [s.config for network in networks for s in network.samples]
    padded = [c.cout for c in configs if isinstance(c, ConvConfig) and "nchwc" in c.layout]
    return 0 if not padded else 16 if all(c % 16 == 0 for c in padded) else 8
