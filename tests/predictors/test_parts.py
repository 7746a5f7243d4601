"""Parts of a bundle keep the contract that extensions keep."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

import nn_meter
from nn_meter.errors import BundleError
from nn_meter.kernels.partition import Partition
from nn_meter.predictors.bundle import load
from nn_meter.predictors.catalogue import SHIPPED
from nn_meter.predictors.parts import ByTerms, Interval, LeftOut, Part, Roofline, spread
from nn_meter.predictors.sums import SumsEngine
from nn_meter.storage import Fields
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


@pytest.mark.parametrize(
    "change", [{"batches": [[1]]}, {"batches": 1}, {"batches": ["x"]}, {"batches": [math.inf]}, {"learned": {}}]
)
def test_terms_that_are_none_are_told_when_the_bundle_is_asked(change: dict[str, Any]) -> None:
    shipped = load(SHIPPED / "published.zip" / "a03s_1large_float_tflite")
    with pytest.raises(BundleError, match=r"'batches' of 'terms' must be a list of numbers|lacks the term"):
        SumsEngine(replace(shipped, terms={**shipped.terms, **change})).explain_partition(Partition("m", (), (), ()))


@pytest.mark.parametrize(
    "change",
    [
        {"base": math.inf},
        {"base": 1e308},
        {"slopes": [math.inf]},
        {"slopes": [-1e308]},
        {"work": [0.0, math.inf]},
        {"work": [1.0, 0.0]},
        {"work": [0.0]},
        {"seen": []},
        {"seen": [[1.0, 0.0]]},
        {"seen": [[0.0, 1.0]], "work": None},
    ],
    ids=str,
)
def test_what_was_learned_of_terms_is_finite_ordered_and_whole(change: dict[str, Any]) -> None:
    shipped = load(SHIPPED / "published.zip" / "a03s_1large_float_tflite")
    learned = shipped.terms["learned"].items()
    name, entry = next((name, each) for name, each in learned if len(each["slopes"]) == 1 and "work" in each)
    SumsEngine(replace(shipped, terms={**shipped.terms, "learned": {name: entry}}))
    altered = {key: value for key, value in {**entry, **change}.items() if value is not None}
    with pytest.raises(BundleError, match="'terms' does not hold what"):
        SumsEngine(replace(shipped, terms={**shipped.terms, "learned": {name: altered}}))


def test_the_same_kernel_errs_alike_and_kinds_err_by_themselves() -> None:
    same = [Part("conv", "one", 1.0, 0.1)] * 9
    others = [Part("conv", number, 1.0, 0.1) for number in range(9)]
    kinds = [Part(str(number), "one", 1.0, 0.1) for number in range(9)]
    for share in (0.0, 0.5, 1.0):
        assert spread(same, share) == pytest.approx(0.1)
        assert spread(kinds, share) == pytest.approx(0.1 / 3)
    assert spread(others, 0.0) == pytest.approx(0.1 / 3)
    assert spread(others, 1.0) == pytest.approx(0.1)
    assert 0.1 / 3 < spread(others, 0.5) < 0.1
    assert spread([], 0.5) == 0.0


def test_a_sums_interval_is_kept_with_a_bundle() -> None:
    interval = Interval(-0.1, 0.2, networks=50, estimated=(-1.0, 1.5), sums=(-1.1, 0.9), share=0.4)
    assert Interval.read(Fields(interval.written(), "a manifest", BundleError)) == interval
