"""The measuring loop: calibrate, warm up, then take turns between runners in rounds spread over time.

*Quiet* means one thing in this project: the quantile ``QUIET`` of the runs of a turn, in the middle one of all turns
that were not taken beside busy neighbours (``measuring.patience``), or of all where all were.
Neighbours on a machine slow stretches of runs and never speed one up, so that a low quantile is what the machine does
while they are still, and unlike the fastest run it does not fall with the number of runs. What they hold of a shared
cache changes over minutes, and moves whole turns: those of one model by 24 %, on a Xeon whose fixed probe moved by 8 %.
The quietest of many turns would be another thing than the one or two that a build has time for, and a predictor judged
by what it never saw. Where a stretch was slow as a whole, it is corrected by a probe that took turns in it: by its
quiet latency in that stretch, relative to that in the usual one. What the runtime's profiler tells of single kernels is
shared out so that they add up to their network's quiet latency (``learning.correction``). Bundles name it as their
``statistic``.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from nn_meter.devices.device import Value
from nn_meter.progress import Progress

if TYPE_CHECKING:
    from nn_meter.measuring.patience import Patience

QUIET = 0.05
"""The quantile of runs that stands for a quiet machine."""

STATISTIC = "quiet"
"""Its name in bundles and records."""


class Runner(Protocol):
    """What can be timed: a backend's prepared model, or a test's."""

    def run(self, repeats: int) -> list[float]:
        """Milliseconds of each of ``repeats`` runs."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a measurement is taken.

    ``rounds`` turns are spread over all runners; one turn lasts about ``turn_s``, of ``min_repeats`` to
    ``max_repeats`` runs. Warm-up ends when a turn is within ``stable`` of the one before, at the latest after
    ``warmup_turns`` of them; without any, each turn is of ``max_repeats`` runs. No turn begins after ``budget_s``, but
    each runner gets one. With a ``seed`` the order within each round is random.
    """

    rounds: int = 8
    turn_s: float = 0.1
    min_repeats: int = 3
    max_repeats: int = 1000
    warmup_turns: int = 5
    stable: float = 0.03
    budget_s: float = math.inf
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """Latencies of one model as they were taken, and the circumstances.

    ``values_ms`` are in the order of time; ``rounds`` says how many of them each turn took. ``warmup_ms`` are
    the runs before, which no statistic looks at. ``started`` is ISO 8601 in UTC. ``beside`` are the places of turns
    that were taken while neighbours were busy, as far as somebody looked.
    """

    values_ms: tuple[float, ...]
    warmup_ms: tuple[float, ...] = ()
    rounds: tuple[int, ...] = ()
    unit: str = "ms"
    started: str = ""
    environment: Mapping[str, Value] = field(default_factory=dict)
    beside: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.values_ms:
            raise ValueError("a measurement holds at least one value")
        if not all(0 <= value < math.inf for value in self.values_ms):
            raise ValueError("a measurement holds a latency that is negative or not finite")
        if self.rounds and (min(self.rounds) < 1 or sum(self.rounds) != len(self.values_ms)):
            raise ValueError(f"a measurement of {len(self.values_ms)} values has rounds of {sum(self.rounds)}")
        if self.beside and not 0 <= min(self.beside) <= max(self.beside) < max(1, len(self.rounds)):
            raise ValueError(f"a measurement of {len(self.rounds)} turns has none at {max(self.beside)}")

    @property
    def median_ms(self) -> float:
        """Half of the runs were faster."""
        return statistics.median(self.values_ms)

    @property
    def quiet_ms(self) -> float:
        """The quantile ``QUIET`` of each still turn, in the middle one: the latency while the neighbours were quiet."""
        return statistics.median(map(quantile, self.still_turns))

    @property
    def still_turns(self) -> list[tuple[float, ...]]:
        """The values of each turn that was not taken ``beside`` busy neighbours; of all, where all were."""
        turns = self.turns
        return [turn for place, turn in enumerate(turns) if place not in self.beside] or turns

    @property
    def crowded(self) -> bool:
        """Whether every turn was taken ``beside`` busy neighbours."""
        return len(self.beside) == len(self.rounds) > 0

    def then(self, later: Measurement) -> Measurement:
        """This one and one that was taken later, as one."""
        first, second = (each.rounds or (len(each.values_ms),) for each in (self, later))
        beside = (*self.beside, *(len(first) + place for place in later.beside))
        return replace(self, values_ms=self.values_ms + later.values_ms, rounds=first + second, beside=beside)

    @property
    def turns(self) -> list[tuple[float, ...]]:
        """The values of each turn."""
        rounds = self.rounds or (len(self.values_ms),)
        ends = itertools.accumulate(rounds)
        return [self.values_ms[end - count : end] for end, count in zip(ends, rounds, strict=True)]

    @property
    def noise(self) -> float:
        """Distance between the quartiles, relative to the median."""
        return (self.quantile_ms(0.75) - self.quantile_ms(0.25)) / self.median_ms if self.median_ms else 0.0

    def quantile_ms(self, q: float) -> float:
        """The quantile ``q`` in 0..1, interpolated linearly between neighbouring values."""
        return quantile(self.values_ms, q)

    def warnings(self) -> tuple[str, ...]:
        """What makes this measurement doubtful, in words."""
        return tuple(text for text in (check(self) for check in _CHECKS) if text)

    def to_json(self) -> dict[str, object]:
        """A dictionary that ``from_json`` reads."""
        return {
            "values_ms": list(self.values_ms),
            "warmup_ms": list(self.warmup_ms),
            "rounds": list(self.rounds),
            "unit": self.unit,
            "started": self.started,
            "environment": dict(self.environment),
            "beside": list(self.beside),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Measurement:
        """The measurement that ``to_json`` wrote.

        Raises:
            KeyError, TypeError, ValueError: the dictionary is not one of a measurement.
        """
        values, warmup, rounds = data["values_ms"], data["warmup_ms"], data["rounds"]
        environment, beside = data["environment"], data.get("beside", [])
        if not (isinstance(values, list) and isinstance(warmup, list) and isinstance(rounds, list)):
            raise TypeError("values_ms, warmup_ms and rounds are lists")
        if not isinstance(beside, list):
            raise TypeError("beside is a list")
        if not isinstance(environment, Mapping):
            raise TypeError("environment is a dictionary")
        return cls(
            tuple(map(float, values)),
            tuple(map(float, warmup)),
            tuple(map(int, rounds)),
            str(data["unit"]),
            str(data["started"]),
            MappingProxyType(dict(environment)),
            tuple(map(int, beside)),
        )


def quantile(values: Iterable[float], q: float = QUIET) -> float:
    """The quantile ``q`` in 0..1 of some values, interpolated linearly between neighbouring ones."""
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


QUIETEST = 0.3
"""The share of traced runs, the quickest as a whole, that tell how a run's time is shared out among its parts."""


def quiet_parts(parts_ms: Sequence[Sequence[float]]) -> list[float]:
    """What each part took in the runs that were quickest as a whole: their mean, so that the parts add up to a run
    that happened, and whole microseconds that a profiler cuts off average out.

    Args:
        parts_ms: Of each part, its time in each run.
    """
    sums = [sum(run) for run in zip(*parts_ms, strict=True)]
    count = max(2, math.ceil(QUIETEST * len(sums)))
    quickest = sorted(range(len(sums)), key=sums.__getitem__)[:count]
    return [statistics.fmean(part[run] for run in quickest) for part in parts_ms]


FEW_RUNS = 10
"""Fewer runs give no low quantile."""

OUTLIER_FACTOR = 2.0
"""A run this many times the median is an outlier."""

DRIFT = 0.05
"""Relative change from the first to the last third of the runs that is worth a word."""

GAP = 0.05
"""Relative distance of two groups of runs that is worth a word."""


def _few_runs(taken: Measurement) -> str:
    count = len(taken.values_ms)
    if count >= FEW_RUNS:
        return ""
    return f"only {count} runs; take at least {FEW_RUNS} for a quantile that means something"


def _outliers(taken: Measurement) -> str:
    limit = OUTLIER_FACTOR * taken.median_ms
    count = sum(value > limit for value in taken.values_ms)
    if not count:
        return ""
    return f"{count} of {len(taken.values_ms)} runs took more than {OUTLIER_FACTOR:g} times the median"


def _drift(taken: Measurement) -> str:
    values = taken.values_ms
    third = len(values) // 3
    if third < 5:
        return ""
    first, last = statistics.median(values[:third]), statistics.median(values[-third:])
    change = last / first - 1 if first else 0.0
    if abs(change) < DRIFT:
        return ""
    direction = "slower" if change > 0 else "faster"
    return f"the last third of the runs is {abs(change):.0%} {direction} than the first; the machine drifts"


def _two_humps(taken: Measurement) -> str:
    """Two groups of a fifth of the runs or more, farther apart than ``GAP`` and four of their spreads."""
    values = sorted(taken.values_ms)
    if len(values) < 2 * FEW_RUNS:
        return ""
    fewest = len(values) // 5
    split = max(range(fewest, len(values) - fewest), key=lambda index: values[index] - values[index - 1])
    low, high = values[:split], values[split:]
    centres = statistics.median(low), statistics.median(high)
    spread = max(statistics.pstdev(low), _middle_spread(high))
    if centres[1] - centres[0] < max(GAP * centres[0], 4 * spread):
        return ""
    return (
        f"two humps: {len(low)} runs around {centres[0]:.4g} ms and {len(high)} around {centres[1]:.4g} ms; "
        "something else uses the machine by turns"
    )


def _middle_spread(values: Sequence[float]) -> float:
    """Standard deviation without the slowest tenth, which is the tail of outliers."""
    return statistics.pstdev(values[: max(1, len(values) - len(values) // 10)])


def _loaded(taken: Measurement) -> str:
    load, cores = taken.environment.get("load_average"), taken.environment.get("cores")
    if not isinstance(load, int | float) or not isinstance(cores, int) or load <= max(1, cores - 1):
        return ""
    return f"the machine was loaded: {load:.1f} tasks ran on {cores} cores before the measurement began"


def _beside(taken: Measurement) -> str:
    if not taken.crowded:
        return ""
    turns = len(taken.rounds)
    return f"others used the processor in every turn ({turns}), and the latency is that beside them; let them end first"


_CHECKS: tuple[Callable[[Measurement], str], ...] = (_few_runs, _two_humps, _drift, _outliers, _loaded, _beside)


def measure(
    runners: Sequence[Runner],
    plan: Plan | Sequence[Plan] = Plan(),
    *,
    clock: Callable[[], float] = time.monotonic,
    progress: Progress | None = None,
    patience: Patience | None = None,
    environment: Mapping[str, Value] = MappingProxyType({}),
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> list[Measurement]:
    """Time ``runners``, one turn each by turns, so that all of them see the same machine.

    Args:
        runners: What to time; the measurements come back in the same order.
        plan: Repeats, rounds and limits: of all, or of each. The turns of a runner with fewer rounds than others lie
            in the midst of theirs; every other round goes backwards, so that what drifts weighs alike on all.
        clock: Seconds, for the budget.
        progress: Hears after each turn.
        patience: Holds turns back, and tells which were taken beside busy neighbours.
        environment: Circumstances to note in each measurement.
        now: The date to note.
    """
    plans = [plan] * len(runners) if isinstance(plan, Plan) else list(plan)
    begin = clock()
    started = now().isoformat(timespec="seconds")
    warmed = [_warm_up(*each, clock, begin) for each in zip(runners, plans, strict=True)]
    values: list[list[float]] = [[] for _ in runners]
    turns: list[list[int]] = [[] for _ in runners]
    beside: list[list[int]] = [[] for _ in runners]
    order = _order(plans)
    timed_from = clock()
    for done, index in enumerate(order, 1):
        if turns[index] and clock() - begin >= plans[index].budget_s:
            continue
        if patience is None:
            taken = runners[index].run(warmed[index][0])
        else:
            taken, still = patience.turn(runners[index], warmed[index][0])
            beside[index] += [] if still else [len(turns[index])]
        values[index] += taken
        turns[index].append(len(taken))
        if progress is not None:
            left_s = (clock() - timed_from) / done * (len(order) - done)
            eta_s = min(left_s, max(0.0, plans[index].budget_s - (clock() - begin)))
            progress(done, len(order), eta_s, f"{done} of {len(order)} turns")
    noted = MappingProxyType(dict(environment))
    return [
        Measurement(tuple(values[i]), tuple(warmed[i][1]), tuple(turns[i]), "ms", started, noted, tuple(beside[i]))
        for i in range(len(runners))
    ]


def _order(plans: Sequence[Plan]) -> list[int]:
    """Whose turn it is, turn by turn."""
    rounds = max((plan.rounds for plan in plans), default=0)
    seeds = [plan.seed for plan in plans if plan.seed is not None]
    shuffled = random.Random(seeds[0]) if seeds else None
    order: list[int] = []
    for number in range(rounds):
        due = [
            index
            for index, plan in enumerate(plans)
            for turn in range(plan.rounds)
            if int((turn + 0.5) * rounds / plan.rounds) == number
        ]
        if shuffled is not None:
            shuffled.shuffle(due)
        order += due[::-1] if number % 2 and shuffled is None else due
    return order


def _warm_up(runner: Runner, plan: Plan, clock: Callable[[], float], begin: float) -> tuple[int, list[float]]:
    """Runs until the times settle; how many runs fill a turn, and the milliseconds of those taken so far."""
    if not plan.warmup_turns:
        return plan.max_repeats, []
    warmup = runner.run(1)
    repeats = plan.min_repeats
    before = math.inf
    for _ in range(plan.warmup_turns):
        if clock() - begin >= plan.budget_s:
            break
        taken = runner.run(repeats)
        warmup += taken
        best_ms = min(taken)
        repeats = _repeats(best_ms, plan)
        if best_ms >= before * (1 - plan.stable):
            break
        before = best_ms
    return repeats, warmup


def _repeats(latency_ms: float, plan: Plan) -> int:
    wanted = math.ceil(plan.turn_s * 1000 / latency_ms) if latency_ms > 0 else plan.max_repeats
    return max(plan.min_repeats, min(plan.max_repeats, wanted))
