"""How far predicted latencies are from measured ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nn_meter.errors import InputError

Floats = NDArray[np.float64]


def central(values: ArrayLike, level: float) -> tuple[float, float]:
    """The ends that hold a new one of ``values``, float64 (n,), with probability ``level``: in order, the
    floor((n + 1) a / 2)-th and the ceil((n + 1) (1 - a / 2))-th, where a is 1 - level (split conformal prediction, Vovk
    et al., 2005).

    Raises:
        InputError: they are too few, models or networks, for the level.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    rank = math.floor((len(ordered) + 1) * (1 - level) / 2 + 1e-9)  # 1 - 0.9 is a little less than a tenth
    if rank < 1:
        raise InputError(
            f"{len(ordered)} models are too few for intervals of {level:.0%}; measure at least "
            f"{math.ceil(2 / (1 - level) - 1e-9) - 1}"
        )
    return float(ordered[rank - 1]), float(ordered[-rank])


@dataclass(frozen=True, slots=True)
class Metrics:
    """Figures of merit over ``n`` models; but for ``rmse_ms`` they are relative to the measured latency.

    0.1 is 10 %. ``rmspe`` is the root of the mean square, ``mape`` the mean and ``median_ape`` the median of
    the absolute error; ``within_5`` and its like are the share of models whose absolute error is at most 5 %;
    ``bias`` is the mean of the signed error, positive where predictions are too high. ``spearman`` is the
    correlation of the ranks, ``None`` where they say nothing: fewer than two models, or all alike.
    """

    n: int
    rmse_ms: float
    rmspe: float
    mape: float
    median_ape: float
    within_5: float
    within_10: float
    within_15: float
    spearman: float | None
    bias: float


def metrics(predicted_ms: ArrayLike, measured_ms: ArrayLike) -> Metrics:
    """Compares two arrays of shape (n,), in milliseconds.

    Raises:
        InputError: no values, lengths that differ, or a measured latency that is not positive.
    """
    predicted, measured = np.asarray(predicted_ms, np.float64), np.asarray(measured_ms, np.float64)
    if predicted.ndim != 1 or predicted.shape != measured.shape or not predicted.size:
        raise InputError(
            f"{predicted.size} predicted and {measured.size} measured latencies; "
            "give as many of each, at least one"
        )
    if not (measured > 0).all():
        raise InputError("a measured latency is not positive, so that it has no relative error")
    signed = predicted / measured - 1
    error = np.abs(signed)
    return Metrics(
        n=predicted.size,
        rmse_ms=_rms(predicted - measured),
        rmspe=_rms(signed),
        mape=float(error.mean()),
        median_ape=float(np.median(error)),
        within_5=float((error <= 0.05).mean()),
        within_10=float((error <= 0.10).mean()),
        within_15=float((error <= 0.15).mean()),
        spearman=spearman(predicted, measured),
        bias=float(signed.mean()),
    )


def by_group(
    predicted_ms: ArrayLike, measured_ms: ArrayLike, groups: Sequence[str]
) -> Mapping[str, Metrics]:
    """The metrics of each group, by name in alphabetical order; ``groups`` names that of each model.

    Raises:
        InputError: as of ``metrics``, or another number of groups.
    """
    predicted, measured = np.asarray(predicted_ms, np.float64), np.asarray(measured_ms, np.float64)
    if not len(groups) == predicted.size == measured.size:
        raise InputError(f"{len(groups)} groups for {predicted.size} models; name the group of each")
    names = np.asarray(groups, np.str_)
    return {
        str(name): metrics(predicted[names == name], measured[names == name]) for name in np.unique(names)
    }


def spearman(first: ArrayLike, second: ArrayLike) -> float | None:
    """Pearson's correlation of the ranks of two arrays of shape (n,); equal values share their mean rank."""
    centred = [ranks - ranks.mean() for ranks in (_ranks(np.asarray(v, np.float64)) for v in (first, second))]
    lengths = [float(np.linalg.norm(each)) for each in centred]
    if not all(lengths):
        return None
    return float(centred[0] @ centred[1]) / (lengths[0] * lengths[1])


def _ranks(values: Floats) -> Floats:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    mean_rank: Floats = np.cumsum(count) - (count - 1) / 2
    return mean_rank[place]


def _rms(values: Floats) -> float:
    return float(np.sqrt((values**2).mean()))
