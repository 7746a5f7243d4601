"""Latencies of a search space as a sum over places."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nn_meter import BlockTable
from nn_meter.errors import InputError, ModelError

COSTS_MS = ((1.0, 2.0, 4.0), (0.5, 0.25), (3.0, 3.5, 3.75, 0.0))
CHOICES = (3, 2, 4)


class Sums:
    """Predicts a space that is a sum; ``beyond`` is what two choices cost together beyond it."""

    def __init__(self, beyond: float = 0.0) -> None:
        self.beyond = beyond
        self.asked = 0

    def predict_many(self, models: Any, /, **options: Any) -> list[Any]:
        found = [self.whole_ms(model) for model in models]
        self.asked += len(found)
        return found

    def whole_ms(self, candidate: tuple[int, ...]) -> float:
        together = self.beyond if candidate[0] == 2 and candidate[2] == 1 else 0.0
        return 10.0 + sum(costs[choice] for costs, choice in zip(COSTS_MS, candidate, strict=True)) + together


def every() -> list[tuple[int, int, int]]:
    return [(a, b, c) for a in range(3) for b in range(2) for c in range(4)]


def test_a_space_that_is_a_sum_is_answered_exactly_by_as_many_predictions_as_choices() -> None:
    predictor = Sums()
    table = BlockTable.of(predictor, tuple, CHOICES, (1, 0, 2))
    assert predictor.asked == sum(CHOICES)
    assert table.reference_ms == predictor.whole_ms((1, 0, 2))
    assert table.latencies_ms(every()) == pytest.approx([predictor.whole_ms(each) for each in every()])
    assert table.latencies_ms(np.empty((0, 3), np.int8)).shape == (0,)


def test_what_two_places_cost_together_is_not_in_a_table() -> None:
    predictor = Sums(beyond=1.0)
    table = BlockTable.of(predictor, tuple, CHOICES, (1, 0, 2))
    errors = table.latencies_ms(every()) - [predictor.whole_ms(each) for each in every()]
    assert sorted(set(errors.round(9))) == [-1.0, 0.0]


@pytest.mark.parametrize("reference", [(1, 0), (3, 0, 0), (0, 0, -1)])
def test_a_reference_outside_the_space_is_refused(reference: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="is no candidate of a space with the choices"):
        BlockTable.of(Sums(), tuple, CHOICES, reference)


@pytest.mark.parametrize(
    ("candidates", "said"),
    [
        ([[0, 0]], r"whole numbers of shape \(n, 3\), not int64 of \(1, 2\)"),
        ([[0.0, 0.0, 0.0]], "not float64"),
        ([[0, 2, 0]], r"places have \[3, 2, 4\] choices"),
        ([[0, -1, 0]], "a choice is none of the space's"),
        ([[0], [0, 0]], "rows of 3 whole numbers each"),
    ],
)
def test_candidates_of_another_space_are_refused(candidates: Any, said: str) -> None:
    table = BlockTable.of(Sums(), tuple, CHOICES, (0, 0, 0))
    with pytest.raises(InputError, match=said):
        table.latencies_ms(candidates)


def test_a_choice_that_cannot_be_predicted_raises_its_own_error() -> None:
    class Refuses(Sums):
        def predict_many(self, models: Any, /, **options: Any) -> list[Any]:
            return [*super().predict_many(models)[:-1], ModelError("the last one is no model")]

    with pytest.raises(ModelError, match="the last one is no model"):
        BlockTable.of(Refuses(), tuple, CHOICES, (0, 0, 0))
