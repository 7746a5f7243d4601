"""Which kernel kinds a miss comes from."""

from __future__ import annotations

from collections.abc import Mapping

from nn_meter.evaluation.scores import Blame
from nn_meter.kernels.kinds import KINDS
from nn_meter.predictors.prediction import Prediction

_MOST = 3
_SHARE = 0.2
"""A kind is named where it makes up this share of the error."""


def blamed(
    traced_ms: Mapping[str, float], predicted_ms: Mapping[str, float], measured_ms: float, error_ms: float
) -> tuple[Blame, ...]:
    """The kinds that pull most in the direction of the prediction's error, the worst first.

    Args:
        traced_ms: Kernel kind to the sum of its kernels in the runtime's trace.
        predicted_ms: Kernel kind to the sum of its predicted kernels.
        measured_ms: What the traced kernels have to add up to: the profiler's own time is in all of them.
        error_ms: Predicted less measured latency of the whole model.
    """
    scale = measured_ms / (sum(traced_ms.values()) or 1.0)
    truth: dict[str, float] = {}
    for kind, ms in traced_ms.items():
        told = "other" if kind not in predicted_ms and kind in KINDS and KINDS[kind].may_be_other else kind
        truth[told] = truth.get(told, 0.0) + scale * ms
    excess = {kind: predicted_ms.get(kind, 0.0) - truth.get(kind, 0.0) for kind in {**truth, **predicted_ms}}
    worst = sorted(excess, key=lambda kind: -abs(excess[kind]))
    return tuple(
        Blame(kind, truth.get(kind, 0.0), predicted_ms.get(kind, 0.0))
        for kind in worst
        if excess[kind] * error_ms > 0 and abs(excess[kind]) >= _SHARE * abs(error_ms)
    )[:_MOST]


def by_kind(answer: Prediction) -> dict[str, float]:
    """Kernel kind to the sum of its predicted kernels."""
    sums: dict[str, float] = {}
    for each in answer.kernels:
        if each.status != "free":
            sums[each.kernel.kind] = sums.get(each.kernel.kind, 0.0) + each.latency_ms
    return sums
