"""The measuring loop, replayed on a clock that stands still until a run moves it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nn_meter.backends.replay import FakeClock
from nn_meter.measuring import Measurement, Plan, measure
from nn_meter.measuring.measure import quiet_parts


class Played:
    """A runner whose n-th run takes ``latency_ms(n)``; writes down who ran."""

    def __init__(
        self,
        clock: FakeClock,
        latency_ms: Callable[[int], float],
        log: list[str] | None = None,
        name: str = "",
    ) -> None:
        self.clock, self.latency_ms, self.log, self.name = clock, latency_ms, log, name
        self.runs = 0

    def run(self, repeats: int) -> list[float]:
        if self.log is not None:
            self.log.append(self.name)
        values = [self.latency_ms(self.runs + i) for i in range(repeats)]
        self.runs += repeats
        self.clock.advance(sum(values) / 1000)
        return values


def steady(clock: FakeClock, latency_ms: float, log: list[str] | None = None, name: str = "") -> Played:
    return Played(clock, lambda _: latency_ms, log, name)


def test_repeats_fill_a_turn_whatever_the_model_takes() -> None:
    clock = FakeClock()
    fast, slow = steady(clock, 1.0), steady(clock, 400.0)
    measurements = measure([fast, slow], Plan(rounds=4, turn_s=0.1, min_repeats=3), clock=clock)
    assert measurements[0].rounds == (100,) * 4
    assert measurements[1].rounds == (3,) * 4
    assert measurements[0].median_ms == 1.0
    assert measurements[1].quiet_ms == 400.0


def test_quiet_is_the_middle_turn_s_and_not_the_quietest_s() -> None:
    slow, still, usual = ([float(first + n) for n in range(21)] for first in (30, 10, 20))
    taken = Measurement((*slow, *still, *usual), rounds=(21, 21, 21))
    assert [len(turn) for turn in taken.turns] == [21, 21, 21]
    assert taken.quiet_ms == 21.0  # the 5th percentile of 20 .. 40
    assert taken.quiet_ms == Measurement((*still, *usual, *slow), rounds=(21, 21, 21)).quiet_ms


def test_models_take_turns() -> None:
    clock, log = FakeClock(), []
    measure([steady(clock, 1.0, log, "a"), steady(clock, 1.0, log, "b")], Plan(rounds=3), clock=clock)
    assert "".join(log).endswith("abbaab")


def test_a_runner_of_fewer_rounds_has_its_turns_in_the_midst_and_plans_are_each_ones_own() -> None:
    clock, log = FakeClock(), []
    runners = [steady(clock, 1.0, log, name) for name in "pnt"]
    short = Plan(rounds=2, min_repeats=2, max_repeats=2, warmup_turns=1)
    once = Plan(rounds=1, warmup_turns=0, max_repeats=7)
    probe, network, traced = measure(runners, [short, short, once], clock=clock)
    assert "".join(log) == "ppnn" + "pn" + "tnp"
    assert (probe.rounds, network.rounds, traced.rounds, traced.warmup_ms) == ((2, 2), (2, 2), (7,), ())


def test_with_a_seed_the_order_of_each_round_is_random_and_repeatable() -> None:
    def order(seed: int) -> str:
        clock, log = FakeClock(), []
        plan = Plan(rounds=6, warmup_turns=0, max_repeats=1, seed=seed)
        measure([steady(clock, 1.0, log, name) for name in "abcd"], plan, clock=clock)
        return "".join(log)

    assert order(1) == order(1) != order(2)
    assert all(sorted(order(1)[i : i + 4]) == list("abcd") for i in range(0, 24, 4))


def test_parts_are_those_of_the_runs_that_were_quickest_as_a_whole() -> None:
    parts = [[1.0, 9.0, 1.2, 5.0, 5.0, 5.0, 5.0, 5.0], [2.0, 0.0, 2.2, 5.0, 5.0, 5.0, 5.0, 5.0]]
    assert quiet_parts(parts) == pytest.approx([11.2 / 3, 4.2 / 3])


def test_warm_up_goes_on_until_the_times_settle_and_is_kept_apart() -> None:
    clock = FakeClock()
    settling = Played(clock, lambda run: 10.0 if run < 4 else 1.0)
    (measurement,) = measure([settling], Plan(rounds=2), clock=clock)
    assert max(measurement.warmup_ms) == 10.0
    assert set(measurement.values_ms) == {1.0}


def test_warm_up_has_an_end_where_times_never_settle() -> None:
    clock = FakeClock()
    falling = Played(clock, lambda run: 1000.0 * 0.9**run + 1)
    (measurement,) = measure([falling], Plan(rounds=1, warmup_turns=3, max_repeats=3), clock=clock)
    assert len(measurement.warmup_ms) == 1 + 3 * 3


def test_the_budget_ends_the_rounds_but_every_model_is_measured_once() -> None:
    clock = FakeClock()
    runners = [steady(clock, 100.0), steady(clock, 100.0)]
    measurements = measure(runners, Plan(rounds=1000, budget_s=2.0), clock=clock)
    assert all(measurement.rounds for measurement in measurements)
    assert clock() < 3.0


def test_progress_counts_up_and_the_time_left_down() -> None:
    clock, heard = FakeClock(), []
    measure(
        [steady(clock, 10.0)],
        Plan(rounds=4),
        clock=clock,
        progress=lambda done, total, eta_s, what: heard.append((done, total, eta_s)),
    )
    assert [done for done, _, _ in heard] == [1, 2, 3, 4]
    assert [eta_s for _, _, eta_s in heard] == pytest.approx([0.3, 0.2, 0.1, 0.0])


def test_the_date_and_the_circumstances_are_noted() -> None:
    clock = FakeClock()
    (measurement,) = measure(
        [steady(clock, 1.0)],
        clock=clock,
        environment={"cpu": "abacus"},
        now=lambda: datetime(2026, 1, 2, tzinfo=UTC),
    )
    assert measurement.started == "2026-01-02T00:00:00+00:00"
    assert measurement.environment["cpu"] == "abacus"
    assert Measurement.from_json(json.loads(json.dumps(measurement.to_json()))) == measurement


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1.0] * 5, "only 5 runs"),
        ([1.0] * 50 + [1.2] * 50, "two humps: 50 runs around 1 ms and 50 around 1.2 ms"),
        ([1.0 + i / 1000 for i in range(100)], "slower than the first"),
        ([1.0] * 50 + [5.0], "1 of 51 runs took more than 2 times the median"),
    ],
)
def test_unstable_runs_are_said_to_be_so(values: list[float], words: str) -> None:
    assert any(words in warning for warning in Measurement(tuple(values)).warnings())


def test_a_loaded_machine_is_said_to_be_so() -> None:
    loaded = Measurement((1.0,) * 20, environment={"load_average": 3.5, "cores": 2})
    (warning,) = loaded.warnings()
    assert warning == "the machine was loaded: 3.5 tasks ran on 2 cores before the measurement began"


def test_steady_runs_earn_no_warning() -> None:
    calm = Measurement(tuple(1.0 + (i * 7 % 10) / 1000 for i in range(100)))
    assert calm.warnings() == ()


@given(st.lists(st.floats(0.001, 1e4), min_size=1, max_size=200))
def test_statistics_are_ordered_and_warnings_never_fail(values: list[float]) -> None:
    taken = Measurement(tuple(values))
    assert min(values) <= taken.quiet_ms <= taken.quantile_ms(0.9) * (1 + 1e-12)
    assert taken.quantile_ms(0.5) == pytest.approx(taken.median_ms)
    assert taken.noise >= -1e-12
    assert isinstance(taken.warnings(), tuple)
