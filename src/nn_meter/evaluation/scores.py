"""What an evaluation found: a score for each model and predictor, and figures over all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nn_meter.devices.device import Value
from nn_meter.errors import InputError
from nn_meter.learning.metrics import Metrics, by_group, central, metrics
from nn_meter.predictors.parts import LOG_RATIO_MOST, Interval

MISS = 0.10
"""A larger relative error is looked into: its kernels are traced."""


@dataclass(frozen=True, slots=True)
class Blame:
    """A kernel kind whose predicted sum over the model is far from what the runtime's trace says, all its kernels
    scaled to add up to the measured latency."""

    kind: str
    traced_ms: float
    predicted_ms: float


@dataclass(frozen=True, slots=True)
class Score:
    """One model, measured and predicted.

    ``measured_ms`` is the ``statistic`` that the predictor states, ``median_ms`` stands beside it. ``noise``
    is the distance between the statistic of the early and of the late half, relative to their mean.
    ``predicted_share`` is the part of the prediction that comes from regressors. ``traced_ms``, the sum of
    the kernels under the runtime's profiler, and ``blamed`` are there where the model was missed and the
    runtime tells its kernels. ``level`` is how much longer the probe took in the model's turns than while the predictor
    was built; ``None`` where that is not known. ``kept`` is a model that nobody looked at while the predictor was made.
    """

    model: str
    family: str
    predictor: str
    statistic: str
    measured_ms: float
    median_ms: float
    noise: float
    runs: int
    predicted_ms: float
    interval_ms: tuple[float, float] | None
    predicted_share: float
    nodes: int
    traced_ms: float | None = None
    blamed: tuple[Blame, ...] = ()
    warnings: tuple[str, ...] = ()
    level: float | None = None
    kept: bool = False

    @property
    def error(self) -> float:
        """Signed and relative to the measured latency; 0.1 is 10 % too high."""
        return self.predicted_ms / self.measured_ms - 1

    @property
    def missed(self) -> bool:
        """Whether the error is larger than ``MISS``."""
        return abs(self.error) > MISS

    @property
    def slowed(self) -> bool:
        """Whether a miss is the measurement's: the kernels, traced at another time, add up to what was predicted, and
        to less than was measured by more than ``MISS``. A profiler adds time, and takes none away."""
        if self.traced_ms is None or not self.missed:
            return False
        return abs(self.predicted_ms / self.traced_ms - 1) <= MISS < self.measured_ms / self.traced_ms - 1

    @property
    def covered(self) -> bool | None:
        """Whether the interval holds the measured latency; ``None`` where there is no interval."""
        if self.interval_ms is None:
            return None
        low, high = self.interval_ms
        return low <= self.measured_ms <= high


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of all models by all predictors; ``failed`` are models without, and why."""

    scores: tuple[Score, ...]
    backend: str
    rounds: int
    environment: Mapping[str, Value] = field(default_factory=dict)
    failed: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def predictors(self) -> tuple[str, ...]:
        """Those that answered, in the order given."""
        return tuple(dict.fromkeys(score.predictor for score in self.scores))

    def of(self, predictor: str) -> tuple[Score, ...]:
        """The scores of one predictor."""
        return tuple(score for score in self.scores if score.predictor == predictor)

    def metrics(self, predictor: str, kept: bool | None = None) -> Metrics:
        """Over all models, or over those that were ``kept`` away or looked at.

        Raises:
            InputError: the predictor has no such scores.
        """
        scores = [s for s in self.of(predictor) if kept in (None, s.kept)]
        return metrics([s.predicted_ms for s in scores], [s.measured_ms for s in scores])

    def levelled(self, predictor: str) -> Metrics | None:
        """As ``metrics``, of what all models would have taken at the speed that the machine had while the predictor was
        built: what the probe says is divided out. ``None`` where it does not say it of each of them."""
        scores = self.of(predictor)
        levels = [s.level for s in scores if s.level is not None]
        if not levels or len(levels) < len(scores):
            return None
        return metrics(
            [s.predicted_ms for s in scores], [s.measured_ms / level for s, level in zip(scores, levels, strict=True)]
        )

    def families(self, predictor: str) -> Mapping[str, Metrics]:
        """By family."""
        scores = self.of(predictor)
        return by_group([s.predicted_ms for s in scores], [s.measured_ms for s in scores], [s.family for s in scores])

    def noise(self, predictor: str, q: float = 0.5) -> float:
        """The quantile ``q`` of the models' repeat noise, by the predictor's statistic."""
        noises = sorted(score.noise for score in self.of(predictor))
        return noises[round(q * (len(noises) - 1))]

    def covered(self, predictor: str) -> float | None:
        """The share of models whose interval holds the measured latency; ``None`` without intervals."""
        inside = [score.covered for score in self.of(predictor) if score.covered is not None]
        return sum(inside) / len(inside) if inside else None

    def errors(self, predictor: str) -> dict[str, Any]:
        """For the entry ``EVALUATED`` of a bundle's ``environment``: errors over all models and by family."""
        whole, scores = self.metrics(predictor), self.of(predictor)
        families = {
            family: {
                "models": sorted(score.model for score in scores if score.family == family),
                "median": round(found.median_ape, 4),
                "bias": round(found.bias, 4),
            }
            for family, found in self.families(predictor).items()
        }
        figures = {"median": round(whole.median_ape, 4), "bias": round(whole.bias, 4)}
        return {"models": whole.n, **figures, "families": families}

    def interval(self, predictor: str) -> Interval | None:
        """What :func:`calibrate` makes of its scores; ``None`` where they are too few."""
        try:
            return calibrate(self.of(predictor))
        except InputError:
            return None


def calibrate(scores: Sequence[Score], known: Interval | None = None, level: float = 0.9) -> Interval:
    """The interval that holds a new model's log(measured / predicted) with probability ``level``: the central share of
    those of ``scores``. What ``known``, the interval that they were predicted with, says of estimates stays; where it
    follows from the spread of sums, so does this one: the central share of the logarithm over that spread (normalised
    conformal prediction, Papadopoulos et al., 2008).

    Raises:
        InputError: too few models for the level.
    """
    ratios = [math.log(score.measured_ms / score.predicted_ms) for score in scores]
    low, high = central(ratios, level)
    found = replace(known or Interval(low, high), low=low, high=high, level=level, models=len(ratios), networks=0)
    if known is None or known.sums is None:
        return found
    widths = [math.log(end / begin) for begin, end in (score.interval_ms or (1.0, 1.0) for score in scores)]
    per_spread = known.sums[1] - known.sums[0]
    over = [ratio / (width / per_spread) for ratio, width in zip(ratios, widths, strict=True) if width]
    lower, upper = (min(max(end, -LOG_RATIO_MOST), LOG_RATIO_MOST) for end in central(over, level))
    return replace(found, sums=(lower, upper))
