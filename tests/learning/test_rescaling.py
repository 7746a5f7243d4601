"""A predictor of kernels answers for another device after a few whole models."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nn_meter.learning.rescaling import CALL, OTHERS, learn, rescaled
from nn_meter.predictors.bundle import Bundle
from nn_meter.predictors.kind import KindPredictor, Target
from nn_meter.predictors.parts import Roofline
from nn_meter.predictors.trees import Aggregate, TreeEnsemble

KINDS = ("conv", "fc", "binary", "transpose", CALL)


def models(count: int, seed: int) -> list[dict[str, float]]:
    """Milliseconds by kind, of models that are of some kinds more than of others."""
    drawn = np.random.default_rng(seed).lognormal(0, 1.5, (count, len(KINDS)))
    return [dict(zip(KINDS, map(float, row), strict=True)) for row in drawn]


@given(
    st.lists(st.floats(-1.5, 1.5), min_size=len(KINDS), max_size=len(KINDS)),
    st.floats(-2, 2),
    st.integers(0, 1000),
)
def test_many_models_give_back_the_factors(own: list[float], shared: float, seed: int) -> None:
    """Kinds may be slower or quicker, each by itself and all together."""
    truth = np.array(own) * 0.2 + shared
    some = models(200, seed)
    taken = np.array([sum(ms * np.exp(f) for ms, f in zip(each.values(), truth, strict=True)) for each in some])
    found = learn(some, taken, KINDS)
    assert found.factors == pytest.approx(truth, abs=0.05)
    assert found.predict(some) == pytest.approx(taken, rel=0.05)


def test_one_model_tells_how_fast_a_device_is_and_the_more_the_less_is_in_doubt() -> None:
    some = models(60, 1)
    slower = np.array([3 * sum(each.values()) for each in some])
    doubts = []
    for count in (1, 5, 50):
        found = learn(some[:count], slower[:count], KINDS)
        assert found.predict(some) == pytest.approx(slower, rel=0.02)
        doubts.append(np.trace(found.covariance))
    assert doubts == sorted(doubts, reverse=True)


def test_a_kind_that_no_model_has_follows_those_that_move_data_as_it_does() -> None:
    some = [{"conv": a, "binary": b} for a, b in ((1.0, 0.1), (0.1, 1.0), (1.0, 1.0), (0.5, 0.1), (0.1, 0.5))]
    taken = np.array([2.0 * each["conv"] + 6.0 * each["binary"] for each in some])
    found = dict(zip((*KINDS, OTHERS), learn(some, taken, (*KINDS, OTHERS)).factors, strict=True))
    assert found["conv"] < found["fc"] < found["transpose"] < found["binary"]


@pytest.mark.parametrize("target", ["latency_ms", "log_roofline_ratio"])
@pytest.mark.parametrize("aggregate", ["mean", "sum"])
def test_a_rescaled_predictor_takes_that_much_longer(target: Target, aggregate: Aggregate) -> None:
    stump = TreeEnsemble(
        np.array([0, 0, 0, 0, 0, 0], np.int32), np.array([1.5, 0, 0, 2.5, 0, 0]),
        np.array([1, -1, -1, 4, -1, -1], np.int32), np.array([2, -1, -1, 5, -1, -1], np.int32),
        np.array([0, 0.5, 0.7, 0, 0.2, 0.4]), np.array([0, 3], np.int32), 2, aggregate, 0.1,
    )  # fmt: skip
    kind = KindPredictor("conv", "onnx-2", ("n", "roofline_ms"), stump, target)
    base = Bundle("base", "1.0", {"conv": kind}, {}, "onnx-2", fallback=Roofline(1e9, 1e9, 0.0, 2.0), call_ms=0.01)
    some = [{"conv": 1.0}, {CALL: 1.0}, {OTHERS: 1.0}]
    found = learn(some, np.array([3.0, 3.0, 3.0]), ("conv", OTHERS, CALL))
    made = rescaled(base, found)
    rows = np.array([[1.0, 0.3], [2.0, 0.4], [3.0, 0.5]])
    assert made.kinds["conv"].predict(rows) == pytest.approx(3 * kind.predict(rows), rel=0.01)
    assert isinstance(made.fallback, Roofline)
    assert (made.fallback.factor, made.call_ms) == pytest.approx((6.0, 0.03), rel=0.01)
