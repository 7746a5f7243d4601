"""A predictor for a GPU that nobody measured: what measured ones make of their data sheets, at the speeds of its own.

The regressors of measured GPUs give the logarithm of latency over roofline, from sizes and from how evenly these keep a
device's processors and its cache busy (the idea of NeuSight: Lee et al., ASPLOS 2025). Their mean is taken, and the
roofline, processors and cache are those of the new data sheet. How far that is off was found out on each measured GPU
by the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from nn_meter.devices.sheet import Sheet
from nn_meter.errors import BuildError
from nn_meter.kernels.schema import Speeds
from nn_meter.predictors.bundle import Bundle
from nn_meter.predictors.kind import KindPredictor
from nn_meter.predictors.parts import Interval, Roofline
from nn_meter.predictors.trees import TreeEnsemble

LEFT_OUT = "left_out"
"""In the environment of a measured GPU's bundle: how far off the others were that answered for it by its data sheet."""

IN_MODELS = "in_models"
"""In the environment of a measured GPU's bundle: which share of what products took alone they take in models."""


def speeds_of(sheet: Sheet) -> Speeds:
    """What the data sheet says; the cost of a call is not in it."""
    return Speeds(sheet.flops_per_s, sheet.bytes_per_s, 0.0, sheet.processors, sheet.cache_bytes)


def is_base(bundle: Bundle) -> bool:
    """Whether a predictor was measured on a GPU whose data sheet it knows."""
    found = bundle.fallback
    return isinstance(found, Roofline) and found.measured and found.processors > 0


POWER_RATIO = 3.0
"""Boards that may take so many times the power slow down under other loads."""


def alike(sheet: Sheet, bases: Sequence[Bundle]) -> list[Bundle]:
    """Those of the measured GPUs whose boards may take about as much power: what a card of 70 watts makes of its peak
    says little of one of 250. All of them where none is like that, or the power is not known."""
    some = [each for each in bases if _near(sheet.board_watts, float(each.environment.get("board_watts", 0.0)))]
    return some or list(bases)


def _near(first: float, second: float) -> bool:
    return bool(first and second) and max(first, second) <= POWER_RATIO * min(first, second)


def from_sheet(sheet: Sheet, bases: Sequence[Bundle], *, name: str, version: str = "1.0") -> Bundle:
    """A predictor whose every answer is an estimate.

    Args:
        bases: predictors of measured GPUs, of one runtime and precision; those that are ``alike`` are taken, but for
            the cost of a call, which is the host's: the median of all.

    Raises:
        BuildError: none, one that was not measured or whose data sheet is not known, or of several runtimes.
    """
    if not bases:
        raise BuildError("no predictor to start from; name measured GPUs (--base), such as those that ship")
    for each in bases:
        if not is_base(each):
            raise BuildError(f"{each.name}: no predictor of a measured GPU whose data sheet is known; name another")
    if len({(each.runtime, each.runtime_version, each.dtype) for each in bases}) > 1:
        raise BuildError("the predictors to start from are of several runtimes or precisions; name those of one")
    calls_ms = [each.fallback.overhead_ms for each in bases if isinstance(each.fallback, Roofline)]
    bases = alike(sheet, bases)
    first = bases[0]
    known = [each.fallback for each in bases if isinstance(each.fallback, Roofline)]
    shared = [kind for kind in first.kinds if all(kind in each.kinds for each in bases)]
    found = [each.environment[LEFT_OUT] for each in bases if LEFT_OUT in each.environment]
    return replace(
        first,
        name=name,
        version=version,
        kinds={kind: merged([each.kinds[kind] for each in bases]) for kind in shared},
        device=sheet.device,
        fallback=Roofline(
            sheet.flops_per_s,
            sheet.bytes_per_s,
            float(np.median(calls_ms)),
            float(np.median([each.factor for each in known])),
            sheet.processors,
            sheet.cache_bytes,
            measured=False,
        ),
        interval=_interval(found),
        notes=(
            f"estimated: nobody measured {sheet.device}; its data sheet"
            f"{f' ({sheet.source})' if sheet.source else ''}, by what {len(bases)} measured GPUs make of theirs",
            *_errors(bases),
        ),
        created=datetime.now(UTC).date().isoformat(),
        environment={"cpu": sheet.device, "maker": sheet.maker, "source": sheet.source, "batch": 1},
        path=None,
    )


def merged(predictors: Sequence[KindPredictor]) -> KindPredictor:
    """One that answers the geometric mean of what several of one kind answer, their columns and codes being the same.

    Raises:
        BuildError: they differ.
    """
    first = predictors[0]
    for each in predictors:
        if (each.columns, each.target) != (first.columns, first.target) or each.categories != first.categories:
            raise BuildError(f"predictors of {first.kind!r} that were trained on different columns cannot be merged")
    ranges = {
        column: (
            min(each.trained_range[column][0] for each in predictors),
            max(each.trained_range[column][1] for each in predictors),
        )
        for column in first.trained_range
    }
    return replace(
        first,
        regressor=_mean([each.regressor for each in predictors]),
        trained_range=ranges,
        rows=sum(each.rows for each in predictors),
        errors={},
    )


def _mean(ensembles: Sequence[TreeEnsemble]) -> TreeEnsemble:
    """Sums of trees, a share of each."""
    counts = [len(each.feature) for each in ensembles]
    shifts = np.cumsum([0, *counts])[:-1]

    def joined(name: str, shifted: bool = False) -> Any:
        arrays = [getattr(each, name) for each in ensembles]
        if shifted:
            arrays = [np.where(a < 0, a, a + s).astype(np.int32) for a, s in zip(arrays, shifts, strict=True)]
        return np.concatenate(arrays)

    return TreeEnsemble(
        feature=joined("feature"),
        threshold=joined("threshold"),
        left=joined("left", shifted=True),
        right=joined("right", shifted=True),
        value=joined("value") / len(ensembles),
        roots=joined("roots", shifted=True),
        n_columns=ensembles[0].n_columns,
        aggregate="sum",
        init=float(np.mean([each.init for each in ensembles])),
    )


def _interval(found: Sequence[Mapping[str, Any]]) -> Interval | None:
    """The widest that a GPU left out showed."""
    if not found:
        return None
    return Interval(min(float(each["log_low"]) for each in found), max(float(each["log_high"]) for each in found))


def _errors(bases: Sequence[Bundle]) -> list[str]:
    found = {each.device: each.environment[LEFT_OUT] for each in bases if LEFT_OUT in each.environment}
    if not found:
        return []
    told = ", ".join(f"{device} {each['mean']:.0%}" for device, each in found.items())
    return [f"mean error of kernels on each of these GPUs, answered for by the others: {told}"]
