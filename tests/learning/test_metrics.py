"""Metrics say how far predictions are off, and refuse what has no answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nn_meter.errors import InputError
from nn_meter.learning.metrics import by_group, metrics, spearman

LATENCIES = st.lists(st.floats(0.01, 1e4), min_size=2, max_size=30)


def test_figures_that_can_be_done_by_hand() -> None:
    found = metrics([104.0, 90.0, 80.0, 300.0], [100.0, 100.0, 100.0, 300.0])
    assert (found.n, found.within_5, found.within_10, found.within_15) == (4, 0.5, 0.75, 0.75)
    assert found.mape == pytest.approx(0.085)
    assert found.median_ape == pytest.approx(0.07)
    assert found.rmspe == pytest.approx(np.sqrt((0.04**2 + 0.1**2 + 0.2**2) / 4))
    assert found.rmse_ms == pytest.approx(np.sqrt((16 + 100 + 400) / 4))
    assert found.bias == pytest.approx(-0.065)


@given(LATENCIES)
def test_a_perfect_answer_has_no_error(measured: list[float]) -> None:
    found = metrics(measured, measured)
    assert (found.rmse_ms, found.rmspe, found.bias, found.within_5) == (0.0, 0.0, 0.0, 1.0)


@given(LATENCIES)
def test_spearman_sees_ranks_only(values: list[float]) -> None:
    found = spearman(values, [2 * value for value in values])
    assert found is None if len(set(values)) == 1 else found == pytest.approx(1.0)


def test_spearman_of_opposite_and_of_equal_ranks() -> None:
    assert spearman([1, 2, 3], [9, 4, 1]) == pytest.approx(-1.0)
    assert spearman([1, 1, 2], [1, 2, 3]) == pytest.approx(np.sqrt(0.75))
    assert spearman([5], [5]) is None


def test_groups_are_judged_apart() -> None:
    found = by_group([1.0, 2.0, 6.0], [1.0, 1.0, 5.0], ["b", "a", "b"])
    assert list(found) == ["a", "b"]
    assert (found["a"].n, found["a"].mape, found["b"].n) == (1, 1.0, 2)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match="0 predicted and 0 measured latencies; give as many of each"):
        metrics([], [])
    with pytest.raises(InputError, match="2 predicted and 1 measured"):
        metrics([1, 2], [1])
    with pytest.raises(InputError, match="not positive"):
        metrics([1], [0])
    with pytest.raises(InputError, match="1 groups for 2 models"):
        by_group([1, 2], [1, 2], ["a"])
