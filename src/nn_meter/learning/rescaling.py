"""From a predictor whose kernels were measured on one device to one of another device, by a few whole models.

A kernel there takes what it takes here, times a factor of its kind:

    latency_ms = sum over kinds of exp(factor) * what the base predicts for the kernels of that kind

The factors are the most probable ones after the models that were measured: the error of a model's logarithm is normal
(and robust, after Huber), and so are, before, the factors, of which a part is shared by all kinds, a part by those that
compute or by those that move data, and a part is a kind's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nn_meter.ir import Graph
from nn_meter.predictors.bundle import Bundle
from nn_meter.predictors.kind import KindPredictor
from nn_meter.predictors.parts import CALL_MS_MOST, Roofline
from nn_meter.predictors.runtime import GraphEngine

Floats = NDArray[np.float64]

CALL, OTHERS = "call", "others"
"""What has a factor beside kinds: what is outside all kernels, and what no regressor answers for."""

NOISE = 0.05
"""Standard deviation that is taken for the logarithm of a model's latency, kinds' errors included."""

_COMPUTING = frozenset(
    {"conv", "conv_nchw", "dwconv", "convtrans", "fc", "matmul", "einsum", "attention", "recurrent", "conv_int8",
     "dwconv_int8", "matmul_int8", "matmul_nbits"}
)  # fmt: skip
_ALL, _GROUP, _OWN = 1.0, 0.2, 0.2
"""Standard deviations of the parts of a factor. A device is two or three times as fast or slow as another. Between the
two processors whose ONNX Runtime predictors ship, kinds that compute differ by 0.67 to 0.9, those that move data by 1.1
to 1.6, and within these groups by 0.2 on the logarithm."""

_STEPS = 50
"""Of Newton's method; five to ten suffice."""


@dataclass(frozen=True)
class Rescaling:
    """Factors on the logarithm of each of ``kinds``, float64 (kinds,), their ``covariance``, and the ``cost`` of what
    was measured under them, by which bases are compared."""

    kinds: tuple[str, ...]
    factors: Floats
    covariance: Floats
    cost: float

    def predict(self, models: Sequence[Mapping[str, float]]) -> Floats:
        """Milliseconds, float64 (models,), of models by what the base predicts for their kinds."""
        answer: Floats = _table(models, self.kinds) @ np.exp(self.factors)
        return answer

    def sensitivity(self, models: Sequence[Mapping[str, float]]) -> Floats:
        """How the logarithm of each latency follows each factor, float64 (models, kinds)."""
        each = _table(models, self.kinds) * np.exp(self.factors)
        found: Floats = each / each.sum(1, keepdims=True)
        return found


def learn(models: Sequence[Mapping[str, float]], latencies_ms: Floats, kinds: Sequence[str]) -> Rescaling:
    """The factors of ``kinds``.

    Args:
        models: of each that was measured what the base predicts for its kinds, in milliseconds.
        latencies_ms: what they took, float64 (models,).
    """
    parts, logs = _table(models, kinds), np.log(latencies_ms)
    computing = np.array([kind in _COMPUTING for kind in kinds])
    covariance = _ALL**2 + _GROUP**2 * (computing[:, None] == computing) + np.diag(np.full(len(kinds), _OWN**2))
    precision = np.linalg.inv(covariance)
    factors = np.full(len(kinds), np.median(logs - np.log(parts.sum(1))))
    hessian, cost = precision, np.inf
    for _ in range(_STEPS):
        each = parts * np.exp(factors)
        error = np.log(each.sum(1)) - logs
        along = each / each.sum(1, keepdims=True)
        weight = np.minimum(1, 2 * NOISE / np.maximum(np.abs(error), 1e-12)) / NOISE**2
        cost = float(weight @ error**2 + factors @ precision @ factors)
        hessian = (along.T * weight) @ along + precision
        step = np.linalg.solve(hessian, along.T @ (weight * error) + precision @ factors)
        factors = factors - np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-6:
            break
    return Rescaling(tuple(kinds), factors, np.asarray(np.linalg.inv(hessian), np.float64), cost)


def nearest(
    bases: Sequence[Bundle], graphs: Sequence[Graph], latencies_ms: Sequence[float]
) -> tuple[Rescaling, Bundle, list[dict[str, float]]]:
    """Of the bases the one under which the latencies of the first ``graphs`` are likeliest: its factors after them, and
    what it predicts for the kinds of each graph."""
    tried = []
    for base in bases:
        engine, models = GraphEngine(base), []
        for graph in graphs:
            parts: dict[str, float] = {CALL: base.call_ms}
            for each in engine.explain(graph).kernels:
                kind = each.kernel.kind if each.kernel.kind in base.kinds else OTHERS
                parts[kind] = parts.get(kind, 0.0) + each.latency_ms
            models.append(parts)
        found = learn(models[: len(latencies_ms)], np.array(latencies_ms), (*base.kinds, OTHERS, CALL))
        tried.append((found, base, models))
    return min(tried, key=lambda each: each[0].cost)


def rescaled(base: Bundle, found: Rescaling) -> Bundle:
    """The base with its kinds, fallback and calls at these factors; its roofline stays as regressors know it."""
    factors = dict(zip(found.kinds, map(float, found.factors), strict=True))
    fallback = base.fallback
    if isinstance(fallback, Roofline):
        fallback = replace(fallback, factor=fallback.factor * float(np.exp(factors[OTHERS])))
    return replace(
        base,
        kinds={kind: _times(each, factors[kind]) for kind, each in base.kinds.items()},
        fallback=fallback,
        call_ms=min(base.call_ms * float(np.exp(factors[CALL])), CALL_MS_MOST),
    )


def _times(kind: KindPredictor, log: float) -> KindPredictor:
    """The regressor with answers that are ``exp(log)`` times as large."""
    trees = kind.regressor
    if kind.target != "log_roofline_ratio":
        times = float(np.exp(log))
        trees = replace(trees, value=trees.value * times, init=trees.init * times)
    elif trees.aggregate == "mean":
        trees = replace(trees, value=trees.value + log)
    else:
        trees = replace(trees, init=trees.init + log)
    return replace(kind, regressor=trees)


def _table(models: Sequence[Mapping[str, float]], kinds: Sequence[str]) -> Floats:
    return np.array([[each.get(kind, 0.0) for kind in kinds] for each in models]).reshape(len(models), len(kinds))
