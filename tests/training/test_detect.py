"""The timed decision, against simulated runtimes whose rules are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from nn_meter.training.detect import GRAPHS, MIN_ROUNDS, Conclusion, Decision, conclude, decide

Noise = Callable[[np.random.Generator, int], np.ndarray]
"""Factors that a neighbour or the machine puts on each of the runs of a session."""

TURN = 4
"""Runs of one graph in a round; the fastest counts."""


def gentle(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.normal(1, 0.005, count).clip(0.98)


def heavy_tails(rng: np.random.Generator, count: int) -> np.ndarray:
    return 1 + 0.02 * rng.pareto(1.5, count)


def drift(rng: np.random.Generator, count: int) -> np.ndarray:
    return gentle(rng, count) * np.linspace(1, 1.3, count)


def two_humps(rng: np.random.Generator, count: int) -> np.ndarray:
    return gentle(rng, count) * np.where(np.arange(count) // 30 % 2, 1.15, 1.0)


def neighbour(rng: np.random.Generator, count: int) -> np.ndarray:
    """Stretches of 5 to 200 runs at half speed, a third of the time."""
    factors = gentle(rng, count)
    at = 0
    while at < count:
        at += int(rng.integers(10, 400))
        length = int(rng.integers(5, 200))
        factors[at : at + length] *= rng.uniform(1.5, 2.2)
        at += length
    return factors


UNDECIDED = {gentle: 0.02, heavy_tails: 0.1, drift: 0.1, two_humps: 0.25, neighbour: 0.1}
"""Noise to the share of sessions that it may leave undecided; humps that change within each round cost most."""


def session(rng: np.random.Generator, fuses: bool, noise: Noise, rounds: int) -> dict[str, np.ndarray]:
    """Rounds of a runtime whose costs are drawn: call, pass, arithmetic of both operators, outputs."""
    fixed_ms, barrier_ms = rng.uniform(0.005, 0.02), rng.uniform(0.01, 0.05)
    pass_ms = rng.uniform(0.01, 0.04)
    a_ms = pass_ms + rng.choice([0.0, rng.uniform(0.02, 0.2)])
    b_ms = pass_ms + rng.choice([0.0, rng.uniform(0.02, 0.2)])
    output_ms = rng.uniform(0, 0.05)
    saved_ms = pass_ms if fuses else 0.0
    true_ms = {
        "a": fixed_ms + a_ms + output_ms,
        "ab": fixed_ms + a_ms + b_ms - saved_ms + output_ms,
        "apb": fixed_ms + a_ms + barrier_ms + b_ms + output_ms,
        "ap": fixed_ms + a_ms + barrier_ms + output_ms,
        "p": fixed_ms + barrier_ms + output_ms,
        "apr": fixed_ms + a_ms + barrier_ms + pass_ms + output_ms,
    }
    factors = noise(rng, rounds * len(GRAPHS) * TURN).reshape(rounds, len(GRAPHS), TURN).min(2)
    return {name: true_ms[name] * factors[:, index] for index, name in enumerate(GRAPHS)}


def sequential(rounds_ms: dict[str, np.ndarray]) -> Decision:
    """As the measuring does it: a look every few rounds, until one is clear."""
    total = len(rounds_ms["ab"])
    for count in range(MIN_ROUNDS, total + 1, 4):
        decision = decide({name: values[:count] for name, values in rounds_ms.items()})
        if decision.verdict != "undecided":
            break
    return decision


@pytest.mark.parametrize("noise", UNDECIDED, ids=lambda noise: noise.__name__)
def test_known_rules_are_found_and_wrong_verdicts_are_rare(noise: Noise) -> None:
    wrong = undecided = 0
    sessions = 300
    for seed in range(sessions):
        fuses = seed % 2 == 0
        decision = sequential(session(np.random.default_rng(seed), fuses, noise, 42))
        undecided += decision.verdict == "undecided"
        wrong += decision.verdict == ("does not" if fuses else "fuses")
    assert wrong <= 0.01 * sessions
    assert undecided <= UNDECIDED[noise] * sessions


def rounds_of(saving_ms: float, b_ms: float = 0.02) -> dict[str, list[float]]:
    times = {"a": 0.1, "ab": 0.1 + b_ms - saving_ms, "apb": 0.15 + b_ms, "ap": 0.15, "p": 0.06, "apr": 0.17}
    return {name: [value] * 12 for name, value in times.items()}


def test_a_saved_pass_is_a_fusion_even_where_the_arithmetic_stays() -> None:
    assert decide(rounds_of(0.02, b_ms=0.2)).verdict == "fuses"


def test_what_neither_hypothesis_explains_stays_undecided() -> None:
    decision = decide(rounds_of(0.01))
    assert decision.verdict == "undecided"
    assert decision.reason == "saves 50% of a pass; the rounds disagree"


def test_what_is_too_little_to_see_is_said() -> None:
    assert "too little to see" in decide(rounds_of(0.0, b_ms=0.001)).reason


def test_an_operator_that_writes_nothing_has_nothing_to_save() -> None:
    times = rounds_of(0.02)
    times["p"] = [0.145] * 12
    assert decide(times).reason == "the first costs less than a pass: nothing to save"


def test_more_than_a_fusion_can_save_is_not_taken_for_one() -> None:
    assert decide(rounds_of(0.1, b_ms=0.2)).reason == "saves 5 passes, more than a fusion can"


def test_few_rounds_decide_nothing() -> None:
    few = {name: values[:3] for name, values in rounds_of(0.02).items()}
    assert decide(few).reason == "3 rounds, at least 10 are needed"


def test_shapes_that_contradict_each_other_are_reported() -> None:
    yes, no = Decision("fuses", 0.999, 1.0, 10), Decision("does not", 0.999, 0.0, 10)
    unclear = Decision("undecided", 0.0, 0.5, 40, "noise")
    assert conclude([yes, unclear, yes]) == Conclusion("fuses", 0.999)
    assert conclude([no, unclear]).obey is False
    assert conclude([yes, no, unclear]) == Conclusion("undecided", 0.999, "fuses in 1 of 2 shapes")
    assert conclude([unclear]) == Conclusion("undecided", 0.0, "noise")


def test_one_clear_shape_does_not_outvote_another_that_leans_the_other_way() -> None:
    yes, leaning = Decision("fuses", 0.999, 1.0, 10), Decision("undecided", 0.9, 0.3, 40, "noise")
    assert conclude([yes, leaning]).obey is None
    assert conclude([yes, yes, leaning]).obey is True
