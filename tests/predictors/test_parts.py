"""Parts of a bundle keep the contract that extensions keep."""

from __future__ import annotations

import math

import pytest

import nn_meter
from nn_meter.predictors.parts import ByTerms, Interval, LeftOut, Roofline
from nn_meter.testing import check_fallback, check_regressor

FALLBACKS = (
    Roofline(1e11, 2e10, 0.003, 1.7),
    Roofline(1e13, 3e11, 0.01, 1.2, 40, 4e6, measured=False),
    LeftOut(),
    ByTerms(),
)


@pytest.mark.parametrize("fallback", FALLBACKS, ids=lambda f: f.policy)
def test_fallbacks_read_what_they_write(fallback: Roofline | LeftOut | ByTerms) -> None:
    check_fallback(fallback)


def test_the_shipped_regressors_keep_their_contract() -> None:
    for predictor in nn_meter.load_latency_predictor().bundle.kinds.values():
        check_regressor(predictor.regressor, len(predictor.columns))


def test_an_interval_widens_from_predictions_to_estimates() -> None:
    interval = Interval(-0.1, 0.2, estimated=(-1.0, 1.5))
    assert interval.around(10.0) == (10 * math.exp(-0.1), 10 * math.exp(0.2))
    assert interval.around(10.0, 1.0) == (10 * math.exp(-1.0), 10 * math.exp(1.5))
    widths = [high - low for low, high in (interval.around(10.0, unsure) for unsure in (0, 0.25, 0.5, 0.75, 1))]
    assert widths == sorted(widths)


def test_one_that_knows_nothing_of_estimates_takes_them_for_predictions() -> None:
    assert Interval(-0.1, 0.2).around(3.0, 1.0) == Interval(-0.1, 0.2).around(3.0)
