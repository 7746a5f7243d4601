"""Turns wait for the neighbours to be still, on a clock that stands still until a run moves it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nn_meter.backends.replay import FakeClock
from nn_meter.measuring import Measurement, Plan, measure
from nn_meter.measuring.patience import Patience

PROBE_MS, BESIDE = 1.2, 1.25
TURN = Plan(rounds=1, turn_s=0.08, min_repeats=3, warmup_turns=0, max_repeats=8)


class Machine:
    """Half of a core, whose other half is used by turns: ``spells_s`` of stillness and of use."""

    def __init__(self, spells_s: list[float]) -> None:
        self.clock = FakeClock()
        self._ends = list(itertools.accumulate(itertools.islice(itertools.cycle(spells_s), 100_000)))

    @property
    def beside(self) -> bool:
        return next(n for n, end in enumerate(self._ends) if self.clock() < end) % 2 == 1

    def runner(self, latency_ms: float) -> Here:
        return Here(self, latency_ms)


class Here:
    def __init__(self, machine: Machine, latency_ms: float) -> None:
        self.machine, self.latency_ms = machine, latency_ms
        self.values: list[float] = []

    def run(self, repeats: int) -> list[float]:
        taken = []
        for _ in range(repeats):
            taken.append(self.latency_ms * (BESIDE if self.machine.beside else 1.0))
            self.machine.clock.advance(taken[-1] / 1000)
        self.values += taken
        return taken


def quick_share(machine: Machine, turns: int, patience: Patience | None) -> float:
    """Of ``turns`` turns, the share whose first run was quick."""
    network, quick = machine.runner(10.0), 0
    for _ in range(turns):
        machine.clock.advance(0.1)  # preparing
        (taken,) = measure([network], TURN, clock=machine.clock, patience=patience)
        quick += taken.values_ms[0] == 10.0
    return quick / turns


def patient(machine: Machine) -> Patience:
    return Patience(machine.runner(PROBE_MS), machine.clock, machine.clock)


def test_turns_begin_while_the_neighbours_are_still() -> None:
    without, machine = Machine([1.0, 1.0]), Machine([1.0, 1.0])
    assert 0.4 < quick_share(without, 200, None) < 0.6
    assert quick_share(machine, 200, patient(machine)) > 0.95


def test_a_quarter_of_stillness_is_found_oftener_than_it_is() -> None:
    without, machine = Machine([1.0, 3.0]), Machine([1.0, 3.0])
    assert quick_share(without, 300, None) < 0.3
    assert quick_share(machine, 300, patient(machine)) > 0.5


def test_a_machine_that_is_always_alike_is_looked_at_before_and_after_a_turn() -> None:
    machine = Machine([1e9])
    patience = patient(machine)
    (taken,) = measure([machine.runner(10.0)], replace(TURN, rounds=50), clock=machine.clock, patience=patience)
    assert taken.beside == ()
    assert len(patience.probe.values) == (50 + 1) * 10  # type: ignore[attr-defined]


def test_a_turn_that_a_neighbour_breaks_into_does_not_count() -> None:
    """Whatever the spells, quiet is what the network takes while nobody is beside it."""
    machine = Machine([0.37, 0.29])
    (taken,) = measure(
        [machine.runner(10.0)], replace(TURN, rounds=40), clock=machine.clock, patience=patient(machine)
    )
    assert 0 < len(taken.beside) < 30
    assert taken.quiet_ms == pytest.approx(10.0)
    assert {value for turn in taken.still_turns for value in turn} == {10.0}
    assert max(taken.values_ms) == 10.0 * BESIDE


def test_where_all_turns_were_beside_neighbours_all_count() -> None:
    taken = Measurement((1.0, 2.0, 3.0), rounds=(1, 1, 1), beside=(0, 1, 2))
    assert taken.quiet_ms == 2.0
    assert "others used the processor in every turn (3)" in taken.warnings()[-1]
    assert not any("others" in text for text in replace(taken, beside=(0, 1)).warnings())
    assert replace(taken, beside=(1,)).quiet_ms == 2.0
    assert replace(taken, beside=(0, 1)).quiet_ms == 3.0
    with pytest.raises(ValueError, match="of 3 turns has none at 3"):
        replace(taken, beside=(3,))


def test_a_program_that_starts_for_each_look_is_not_asked() -> None:
    machine = Machine([0.37, 0.29])
    patience = Patience(machine.runner(PROBE_MS), machine.clock, machine.clock, looks=False)
    (taken,) = measure([machine.runner(10.0)], TURN, clock=machine.clock, patience=patience)
    assert taken.beside == ()
    assert patience.probe.values == []  # type: ignore[attr-defined]


def test_a_turn_in_which_another_program_had_the_processor_does_not_count() -> None:
    """The probe sees nothing of it: its few milliseconds fit into the slices that are left."""
    machine, others = Machine([1e9]), FakeClock()
    patience = Patience(machine.runner(PROBE_MS), machine.clock, lambda: machine.clock() - others())

    class Shared(Here):
        def run(self, repeats: int) -> list[float]:
            taken = super().run(repeats)
            if len(self.values) % 24:  # two of three turns
                lost_s = 0.3 * sum(taken) / 1000
                machine.clock.advance(lost_s)
                others.advance(lost_s)
                return [1.3 * each for each in taken]
            return taken

    (taken,) = measure([Shared(machine, 10.0)], replace(TURN, rounds=9), clock=machine.clock, patience=patience)
    assert taken.beside == (0, 1, 3, 4, 6, 7)
    assert taken.quiet_ms == 10.0


def test_a_runtime_that_works_elsewhere_leaves_the_processor_alone() -> None:
    machine = Machine([1e9])
    patience = Patience(machine.runner(PROBE_MS), machine.clock, lambda: 0.01 * machine.clock())
    (taken,) = measure([machine.runner(10.0)], replace(TURN, rounds=9), clock=machine.clock, patience=patience)
    assert taken.beside == ()


def test_two_measurements_of_one_are_one() -> None:
    early = Measurement((1.0, 2.0), rounds=(1, 1), beside=(0,))
    late = Measurement((3.0, 4.0), rounds=(1, 1), beside=(1,))
    both = early.then(late)
    assert both.still_turns == [(2.0,), (3.0,)]
    assert Measurement.from_json(both.to_json()) == both


def test_what_stays_slower_is_how_the_machine_is_now() -> None:
    """A clock that changed for good is waited for until what was before is forgotten, not longer."""
    machine = Machine([10.0, 1e9])
    patience = patient(machine)
    quick_share(machine, 700, patience)
    begin = machine.clock()
    quick_share(machine, 50, patience)
    assert machine.clock() - begin < 50 * (0.1 + 0.08 * BESIDE + 0.04)


@given(st.lists(st.floats(0.01, 20.0), min_size=2, max_size=8).filter(lambda spells: len(spells) % 2 == 0))
def test_waiting_takes_no_longer_than_all_else(spells_s: list[float]) -> None:
    without, machine = Machine(spells_s), Machine(spells_s)
    quick_share(without, 60, None)
    quick_share(machine, 60, patient(machine))
    one_wait_s, looks_s = 2.1, 60 * 0.032
    assert machine.clock() <= 2 * BESIDE * without.clock() + looks_s + 2 * one_wait_s
