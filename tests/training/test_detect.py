"""The timed decision, against simulated runtimes whose rules are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from nn_meter.training.detect import (
    MIN_ROUNDS,
    SAVING_GRAPHS,
    SCALE_GRAPHS,
    Conclusion,
    Decision,
    conclude,
    decide,
)

GRAPHS = SAVING_GRAPHS + SCALE_GRAPHS

Noise = Callable[[np.random.Generator, int], np.ndarray]
"""Factors that a neighbour or the machine puts on each of the runs of a session."""

TURN = 4
"""Runs of one graph in a round; the fastest counts."""

PLACE = 0.5
"""What the place of a graph's buffers costs at most, in passes."""


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
    """Rounds of a runtime whose costs are drawn: call, pass, arithmetic of both operators, barriers, and what the
    place of its buffers costs each graph in each round."""
    fixed_ms, p_ms, q_ms = rng.uniform(0.005, 0.02), rng.uniform(0.01, 0.05), rng.uniform(0.01, 0.05)
    pass_ms = rng.uniform(0.01, 0.04)
    a_ms = pass_ms + rng.choice([0.0, rng.uniform(0.02, 0.2)])
    b_ms = pass_ms + rng.choice([0.0, rng.uniform(0.02, 0.2)])
    saved_ms = pass_ms if fuses else 0.0
    true_ms = {
        "ab": 2 * p_ms + a_ms + b_ms - saved_ms,
        "apb": 3 * p_ms + a_ms + b_ms,
        "aq": 2 * p_ms + a_ms + q_ms,
        "apq": 3 * p_ms + a_ms + q_ms,
        "ap": 3 * p_ms + a_ms,
        "apr": 3 * p_ms + a_ms + pass_ms,
        "pp": 3 * p_ms,
    }
    factors = noise(rng, rounds * len(GRAPHS) * TURN).reshape(rounds, len(GRAPHS), TURN).min(2)
    places_ms = rng.uniform(0, PLACE, (rounds, len(GRAPHS))) * pass_ms
    return {name: (fixed_ms + true_ms[name] + places_ms[:, i]) * factors[:, i] for i, name in enumerate(GRAPHS)}


def sequential(rounds_ms: dict[str, np.ndarray]) -> Decision:
    """As the measuring does it: a look every few rounds, until one is clear."""
    total = len(rounds_ms["ab"])
    for count in range(MIN_ROUNDS, total + 1, 6):
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
        decision = sequential(session(np.random.default_rng(seed), fuses, noise, 62))
        undecided += decision.verdict == "undecided"
        wrong += decision.verdict == ("does not" if fuses else "fuses")
    assert wrong <= 0.01 * sessions
    assert undecided <= UNDECIDED[noise] * sessions


def rounds_of(saving_ms: float, b_ms: float = 0.02, pass_ms: float = 0.02, rounds: int = 12) -> dict[str, list[float]]:
    times = {"ab": 0.2 + b_ms - saving_ms, "apb": 0.25 + b_ms, "aq": 0.24, "apq": 0.29}
    scale = {"ap": 0.25, "apr": 0.25 + pass_ms, "pp": 0.15}
    return {name: [value] * rounds for name, value in times.items()} | {
        name: [value] * (rounds // 2) for name, value in scale.items()
    }


def test_a_saved_pass_is_a_fusion_even_where_the_arithmetic_stays() -> None:
    assert decide(rounds_of(0.02, b_ms=0.2)).verdict == "fuses"


@pytest.mark.parametrize("share", [0.3, 0.45, 0.55])
def test_what_neither_hypothesis_explains_stays_undecided(share: float) -> None:
    decision = decide(rounds_of(share * 0.02))
    assert decision.verdict == "undecided"
    assert decision.reason == f"saves {share:.0%} of a pass: neither fused nor apart"


def test_what_is_too_little_to_see_is_said() -> None:
    decision = decide(rounds_of(0.0, pass_ms=0.0002))
    assert decision.reason == "0.2 us to save of 220 us: too little to see"
    assert decision.shares == ()


@pytest.mark.parametrize("saving_ms", [0.2, -0.2])
def test_more_than_a_fusion_can_save_or_lose_is_not_taken_for_a_verdict(saving_ms: float) -> None:
    decision = decide(rounds_of(saving_ms, b_ms=0.3))
    assert decision.reason == f"saves {saving_ms / 0.02:.0f} passes, which is no fusion and no lack of one"
    assert conclude([decision]).settled


def test_few_rounds_decide_nothing() -> None:
    decision = decide(rounds_of(0.02, rounds=4))
    assert decision.reason == "4 rounds, at least 8 are needed"
    assert not conclude([decision]).settled


def test_shapes_decide_together_what_none_decides_alone() -> None:
    few = [decide(rounds_of(0.02, rounds=6)) for _ in range(3)]
    assert {each.verdict for each in few} == {"undecided"}
    assert conclude(few).verdict == "fuses"


YES = Decision("fuses", 0.999, 1.0, 12, shares=(1.0,) * 12)
NO = Decision("does not", 0.999, 0.0, 12, shares=(0.0,) * 12)
UNCLEAR = Decision("undecided", 0.6, 0.7, 12, "noise", shares=(0.9,) * 7 + (0.1,) * 5)
BLIND = Decision("undecided", 0.0, 0.0, 12, "too little to see")


def test_shapes_that_contradict_each_other_are_reported() -> None:
    assert conclude([YES, NO, UNCLEAR]) == Conclusion("undecided", 0.0, "fuses in 1 of 2 shapes")


def test_what_some_shapes_leave_open_the_others_may_decide() -> None:
    assert conclude([YES, UNCLEAR, YES]).obey is True
    assert conclude([NO, BLIND]).obey is False
    assert conclude([BLIND]) == Conclusion("undecided", 0.0, "too little to see", settled=False)
    assert conclude([]) == Conclusion("undecided", 0.0, "nothing was measured", settled=False)


def test_one_clear_shape_does_not_outvote_others_that_lean_the_other_way() -> None:
    clear = Decision("does not", 0.999, 0.0, 60, shares=(0.0,) * 60)
    found = conclude([clear, UNCLEAR, UNCLEAR])
    assert (found.obey, found.reason) == (None, "only 1 of 3 shapes lean to 'does not'")


def test_executed_graphs_agree_or_do_not() -> None:
    fused, apart = Decision("fuses", 1.0, 1.0, 0), Decision("does not", 1.0, 0.0, 0)
    assert conclude([fused, fused]) == Conclusion("fuses", 1.0)
    assert conclude([fused, apart]).reason == "fuses in 1 of 2 shapes"
