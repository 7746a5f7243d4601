"""What ``scripts/runtimes.py`` says of the same models on several runtimes, by rows whose answers are plain."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

import runtimes

ON = {"a": "one.zip", "b": "two.zip", "c": "three.zip"}


def row(measured: dict[str, list[float]], predicted: dict[str, float], model: str = "net") -> runtimes.Row:
    return runtimes.Row(model, "family", measured, predicted)


RIGHT = row({"a": [1.0, 1.1], "b": [2.0, 2.2], "c": [4.0, 3.9]}, {"a": 3.0, "b": 4.0, "c": 5.0})


@pytest.mark.parametrize(
    ("turns", "predicted", "named"),
    [
        pytest.param({"a": [1.0, 1.0], "b": [1.2, 1.3]}, {"a": 1.0, "b": 1.1}, (1, 1), id="named"),
        pytest.param({"a": [1.0, 1.0], "b": [1.2, 1.3]}, {"a": 1.1, "b": 1.0}, (0, 1), id="the other one"),
        pytest.param({"a": [1.0, 1.0], "b": [1.2, 1.05]}, {"a": 1.0, "b": 1.1}, (0, 0), id="alike in a turn"),
        pytest.param({"a": [1.0, 1.5], "b": [1.5, 1.0]}, {"a": 1.0, "b": 1.1}, (0, 0), id="each the faster once"),
    ],
)
def test_a_pair_counts_where_every_turn_tells_it_apart(
    turns: dict[str, list[float]], predicted: dict[str, float], named: tuple[int, int]
) -> None:
    assert runtimes.told_apart([row(turns, predicted)]) == named


def test_runtimes_are_ranked_within_a_model_and_the_page_says_how_well() -> None:
    assert RIGHT.fastest == ("a", "a")
    assert RIGHT.repeated == pytest.approx(1.0)
    wrong = row({"a": [1.0, 1.0], "b": [2.0, 2.0], "c": [4.0, 4.0]}, {"a": 3.0, "b": 2.0, "c": 1.0}, "other")
    page = runtimes.page([RIGHT, wrong], ON, 2, "picture.png")
    assert "name the fastest runtime of 1 of 2 models" in page
    assert "150.0% longer than with the fastest in the mean" in page  # none, and three times as long again
    assert "0.000 within a model" in page  # 1 and -1
    assert "they name the faster of 3" in page


def test_what_every_second_turn_tells_is_held_against_the_others() -> None:
    assert row({"a": [1.0, 4.0], "b": [2.0, 2.0], "c": [4.0, 1.0]}, {}).repeated == pytest.approx(-1.0)
