"""The timed decision, against simulated runtimes whose rules are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from nn_meter.detection.decision import (
    APART_SHARE,
    ERROR_RATE,
    FUSED_SHARE,
    MIN_ROUNDS,
    SAVINGS,
    Conclusion,
    Decision,
    Round,
    Seen,
    Verdict,
    Witness,
    agree,
    conclude,
    seen,
    statement,
    unit_ms,
    weigh,
    weigh_once,
)
from nn_meter.detection.probes import UNITS

PROBES = tuple(dict.fromkeys(name for names in SAVINGS.values() for name in names))

Noise = Callable[[np.random.Generator, int], np.ndarray]
"""Factors that a neighbour or the machine puts on each of the runs of a session."""

TURN = 4
"""Runs of one graph in a round; the fastest counts."""

COPIES, PLACE = 4, 1.0
"""Copies in a graph, and what the place of its buffers costs each of them at most, in units."""

SWEEPS, SWEEP = 16, 4
"""Looks at most, and rounds of each shape between two of them."""


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


UNDECIDED = {gentle: 0.02, heavy_tails: 0.05, drift: 0.05, two_humps: 0.3, neighbour: 0.1}
"""Noise to the share of sessions that it may leave undecided; humps that change within each round cost most."""


def shape_of(
    rng: np.random.Generator, fuses: bool, calls: bool, noise: Noise, false_saving: Mapping[Witness, float]
) -> tuple[list[Round], float]:
    """All rounds of one shape of a runtime whose costs are drawn, and its unit: the cost of a call and a pass, of both
    operators, of the barriers and the reader, and what the place of its buffers costs each graph in each round.

    Args:
        false_saving: What else a witness's graphs save, in units.
    """
    unit_ms = rng.uniform(0.0003, 0.0004) if calls else rng.uniform(0.001, 0.0015)
    p_ms, q_ms, tap_ms = (unit_ms * rng.uniform(1, 4) for _ in range(3))
    a_ms, b_ms = (unit_ms * rng.uniform(1, 10) for _ in range(2))
    saved_ms = unit_ms * rng.uniform(0.7, 1.5) if fuses else 0.0
    true_ms = {
        "+ab": p_ms + a_ms + b_ms + tap_ms - saved_ms,
        "ab+": p_ms + a_ms + b_ms + tap_ms + unit_ms * false_saving.get("reader", 0.0),
        "+aq": p_ms + a_ms + q_ms + tap_ms,
        "aq+": p_ms + a_ms + q_ms + tap_ms,
        "pab": 2 * p_ms + a_ms + b_ms - saved_ms,
        "apb": 2 * p_ms + a_ms + b_ms + unit_ms * false_saving.get("barrier", 0.0),
        "paq": 2 * p_ms + a_ms + q_ms,
        "apq": 2 * p_ms + a_ms + q_ms,
    }
    rounds = SWEEPS * SWEEP
    factors = noise(rng, rounds * len(PROBES) * TURN).reshape(rounds, len(PROBES), TURN).min(2)
    places_ms = rng.uniform(0, PLACE, (rounds, len(PROBES), COPIES)).mean(2) * unit_ms
    fixed_ms = rng.uniform(0.005, 0.02) / COPIES
    taken = {name: (fixed_ms + true_ms[name] + places_ms[:, i]) * factors[:, i] for i, name in enumerate(PROBES)}
    return [{name: float(values[i]) for name, values in taken.items()} for i in range(rounds)], unit_ms


def session(seed: int, fuses: bool, noise: Noise, false_saving: Mapping[Witness, float] = {}) -> Conclusion:
    """As the measuring does it: a look every few rounds, until one is clear; the barrier only once the reader saw
    something."""
    rng = np.random.default_rng(seed)
    shapes = [(calls, *shape_of(rng, fuses, calls, noise, false_saving)) for calls in (True, False)]
    heard: list[list[Round]] = [[] for _ in shapes]
    found = Conclusion("undecided", 0.0)
    suspected = False
    for sweep in range(SWEEPS):
        for taken, (_, rounds, _) in zip(heard, shapes, strict=True):
            for each in rounds[sweep * SWEEP : (sweep + 1) * SWEEP]:
                taken.append(each if suspected else {name: each[name] for name in SAVINGS["reader"]})
        told = [seen(taken, unit, calls=calls) for taken, (calls, _, unit) in zip(heard, shapes, strict=True)]
        found = conclude(told)
        if found.obey is not None:
            break
        suspected = statement(told, "reader").saved_share > APART_SHARE
    return found


def errors(noise: Noise, sessions: int, false_saving: Mapping[Witness, float] = {}) -> tuple[int, int]:
    """How many of the sessions, half of them with a fused pair, are decided wrongly, and how many not at all."""
    wrong = undecided = 0
    for seed in range(sessions):
        fuses = seed % 2 == 0
        obey = session(seed, fuses, noise, {} if fuses else false_saving).obey
        undecided += obey is None
        wrong += obey is (not fuses)
    return wrong, undecided


@pytest.mark.parametrize("noise", UNDECIDED, ids=lambda noise: noise.__name__)
def test_known_rules_are_found_and_wrong_verdicts_are_rare(noise: Noise) -> None:
    wrong, undecided = errors(noise, 200)
    assert wrong <= 2
    assert undecided <= UNDECIDED[noise] * 200


@pytest.mark.parametrize("mistaken", SAVINGS)
def test_a_saving_that_one_witness_alone_sees_is_never_taken_for_a_fusion(mistaken: Witness) -> None:
    """Two changes of layout around a barrier, or a place that may not be written over."""
    assert {session(seed, False, gentle, {mistaken: 1.5}).obey for seed in range(50)} <= {False, None}


def rounds_of(reader: float, barrier: float | None = None, count: int = 12) -> list[Round]:
    """Rounds without noise in which the witnesses see these savings, in milliseconds."""
    each = {"+ab": 0.2, "ab+": 0.25 + reader, "+aq": 0.24, "aq+": 0.29}
    if barrier is not None:
        each |= {"pab": 0.2, "apb": 0.26 + barrier, "paq": 0.24, "apq": 0.30}
    return [each] * count


def of(reader: float, barrier: float | None = None, count: int = 12, *, calls: bool = False) -> Seen:
    """The same in units."""
    return seen(rounds_of(0.02 * reader, None if barrier is None else 0.02 * barrier, count), 0.02, calls=calls)


def test_a_unit_is_the_median_cost_of_an_activation() -> None:
    taken = [{"units": 3.0, "frame": 1.0}, {"units": 9.0, "frame": 8.0}, {"units": 4.5, "frame": 3.0}]
    assert unit_ms(taken) == pytest.approx(1.5 / UNITS)
    assert unit_ms([]) == 0.0


def test_both_witnesses_make_a_fusion() -> None:
    found = conclude([of(1.0, 1.0)])
    assert (found.verdict, found.obey) == ("fuses", True)
    assert {name: round(told.saved_share, 3) for name, told in found.witnesses.items()} == {"reader": 1, "barrier": 1}


@pytest.mark.parametrize(
    ("reader", "barrier", "verdict"),
    [
        (0.0, None, "does not"),
        (0.0, 0.0, "does not"),
        (0.35, 0.0, "does not"),
        (0.0, 0.35, "does not"),
        (1.0, None, "undecided"),
        (0.35, 1.0, "undecided"),
        (1.0, 0.35, "undecided"),
    ],
)
def test_one_witness_denies_what_two_have_to_confirm(reader: float, barrier: float | None, verdict: Verdict) -> None:
    assert conclude([of(reader, barrier)]).verdict == verdict


def test_witnesses_that_contradict_each_other_leave_it_open() -> None:
    assert conclude([of(0.0, 1.0)]).reason == "the barrier shows a fusion, the reader shows none"
    assert conclude([of(1.0, 0.0)]).reason == "the reader shows a fusion, the barrier shows none"


@pytest.mark.parametrize(
    ("share", "deviation", "verdict"),
    [(1.0, 0.1, "fuses"), (0.0, 0.1, "does not"), (1.0, 0.5, "undecided"), (0.0, 0.0, "does not"), (3.0, 0.0, "fuses")],
)
def test_what_was_measured_once_rests_on_its_spread(share: float, deviation: float, verdict: Verdict) -> None:
    assert weigh_once(share, deviation).verdict == verdict


def test_a_witness_that_was_not_heard_is_named() -> None:
    assert conclude([of(1.0)]).reason == "barrier: nothing was measured"


def test_a_case_without_a_reader_rests_on_the_barrier() -> None:
    shape = Seen(False, {"barrier": (1.0,) * 12})
    assert conclude([shape], ("barrier",)).verdict == "fuses"


@pytest.mark.parametrize("share", [0.27, 0.3, 0.37])
def test_what_neither_hypothesis_explains_stays_undecided(share: float) -> None:
    told = weigh([[share] * 40])
    assert told.verdict == "undecided"
    assert told.reason == f"saves {share:.0%} of a call and a pass: neither fused nor apart"


@pytest.mark.parametrize(
    ("share", "reason"),
    [
        (8.0, "saves 8.0 times a call and a pass, which is no fusion"),
        (-2.0, "loses 200% of a call and a pass, which no lack of a fusion does"),
    ],
)
def test_more_than_a_fusion_can_save_or_lose_is_not_taken_for_a_verdict(share: float, reason: str) -> None:
    told = weigh([[share] * 12])
    assert (told.verdict, told.reason) == ("undecided", reason)


def test_what_is_too_little_to_see_is_said() -> None:
    blind = seen(rounds_of(0.0), 0.0002, calls=False)
    assert (dict(blind.shares), blind.reason) == ({}, "0.2 us to save of 200 us: too little to see")
    assert conclude([blind]).reason == blind.reason


def test_few_rounds_decide_nothing() -> None:
    assert weigh([[1.0] * (MIN_ROUNDS - 1)]).reason == "7 rounds, at least 8 are needed"
    assert weigh([]).reason == "nothing was measured"
    assert conclude([]).reason == "nothing was measured"


def test_rounds_that_disagree_decide_nothing() -> None:
    assert weigh([[0.9, 0.1] * 10]).reason == "saves 50% of a call and a pass; the rounds disagree"


def test_shapes_decide_together_what_none_decides_alone() -> None:
    few = [of(1.0, 1.0, 6) for _ in range(3)]
    assert {weigh([each.shares["reader"]]).verdict for each in few} == {"undecided"}
    assert conclude(few).verdict == "fuses"


def test_shapes_that_contradict_each_other_are_reported() -> None:
    told = statement([of(1.0), of(0.0)], "reader")
    assert (told.verdict, told.reason) == ("undecided", "fuses in 1 of 2 shapes")


def test_a_noisy_shape_weighs_less_than_a_quiet_one() -> None:
    noisy = [0.4 + 2.0 * (-1) ** i * (1 + 0.01 * i) for i in range(20)]
    told = weigh([noisy, [0.005 * i for i in range(16)]])
    assert told.verdict == "does not"
    assert told.saved_share == pytest.approx(0.05, abs=0.05)


def test_a_shape_in_which_neighbours_lose_tells_nothing_beside_others() -> None:
    """As OpenVINO's products, which compute small ones otherwise where something is fused."""
    assert statement([of(-3.0, calls=True), of(1.0)], "reader").verdict == "fuses"
    assert statement([of(-3.0, calls=True)], "reader").verdict == "undecided"


@pytest.mark.parametrize("count", [8, 20, 60])
@pytest.mark.parametrize(("share", "other"), [(APART_SHARE, "fuses"), (FUSED_SHARE, "does not")])
def test_the_rank_test_errs_as_often_as_it_says(share: float, other: Verdict, count: int) -> None:
    rng = np.random.default_rng(count)
    looks = 2000
    wrong = sum(weigh([share + rng.standard_t(3, count)]).verdict == other for _ in range(looks))
    assert wrong <= 2 * ERROR_RATE * looks


def test_a_kernel_gone_is_a_fusion_even_where_the_pass_is_still_made() -> None:
    """As ONNX Runtime's product with an activation."""
    found = conclude([of(0.8, 0.8, calls=True), of(0.0, 0.2)])
    assert (found.verdict, found.reason) == ("fuses", "saves the call, and still makes the pass")


def test_what_saves_some_of_a_call_and_nothing_of_a_pass_is_left_open() -> None:
    told = statement([of(0.4, calls=True), of(0.0, count=40)], "reader")
    assert (told.verdict, told.reason) == ("undecided", "saves 40% of a call, and less of a pass")


def test_a_pass_saved_where_the_kernel_stays_is_left_open() -> None:
    """As an operator that writes over its input."""
    told = statement([of(0.0, calls=True), of(1.0)], "reader")
    assert (told.verdict, told.reason) == ("undecided", "fuses in 1 of 2 shapes")


def graph(verdict: Verdict, reason: str = "") -> Decision:
    return Decision(verdict, 0.0 if verdict == "undecided" else 1.0, 0.0, 0, reason)


def decisions(*verdicts: Verdict) -> Sequence[Decision]:
    return [graph(verdict, "views" if verdict == "undecided" else "") for verdict in verdicts]


def test_executed_graphs_agree_or_do_not() -> None:
    assert agree(decisions("fuses", "undecided", "fuses")) == Conclusion("fuses", 1.0)
    assert agree(decisions("fuses", "does not")).reason == "fuses in 1 of 2 shapes"
    assert agree(decisions("undecided", "undecided")).reason == "views"
    assert agree([]).reason == "nothing was measured"
