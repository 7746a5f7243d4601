"""Whether a runtime fuses two operators, decided from latencies alone.

Timing ``a``, ``b`` and ``a b`` and comparing sums goes wrong: an inference has a fixed cost, an output is written to
fresh memory where a value between two operators is not, and a runtime changes layouts around an operator that stands
alone. So the decision rests on differences of differences of the graphs of ``detection.probes``. A fusion keeps the
value between two operators from ever being stored, and two witnesses tell whether it is:

- the *reader*: one more operator that reads the value between ``a`` and ``b`` forces the runtime to store it. Where
  they fuse it costs a call and a pass over the value more there than where it reads what ``a`` reads; before an
  operator ``q`` that fuses with nothing it does not: ``[t(ab+) - t(+ab)] - [t(aq+) - t(+aq)]``. The neighbours stay
  neighbours, and what layout they agree on is theirs.
- the *barrier*: so does an operator between the two, against one before them:
  ``[t(apb) - t(pab)] - [t(apq) - t(paq)]``.

Each is mistaken where the other is not: a barrier also costs changes of layout that ``a`` and ``b`` would not need,
and a reader keeps an operator from writing over its input. Both tend to show savings that are none. So a pair fuses
where both witnesses say so, and does not where one denies it and the other does not insist.

The unit is what an activation costs on a map of as many elements: a call and a pass. On small values a pass is nothing
and what is saved is the call, so that the small shapes tell whether a kernel is gone; the larger ones, whether a pass
is. A runtime whose fused kernel still makes the pass has fused.

Where its buffers lie speeds an operator up or slows it down for as long as a model stays prepared. So every graph holds
several copies of what it asks, and every round prepares all graphs anew, in a random order. A rank test over the rounds
rejects that they save as little as a pair that does not fuse, or as much as one that does: it assumes nothing about the
noise but that it is as likely to add as to take, so heavy tails, drift and two humps cost rounds, not truth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from types import MappingProxyType
from typing import Literal

import numpy as np

from nn_meter.detection.probes import (
    APART,
    CONTROL_APART,
    CONTROL_READ_BEFORE,
    CONTROL_READ_BETWEEN,
    CONTROL_TOGETHER,
    FIRST,
    FRAME,
    READ_BEFORE,
    READ_BETWEEN,
    TOGETHER,
    UNIT,
    UNIT_FRAME,
    UNITS,
)

Verdict = Literal["fuses", "does not", "undecided"]
Witness = Literal["reader", "barrier"]
Round = Mapping[str, float]
"""Probe to its latency in one round, in milliseconds a copy."""

SAVINGS: Mapping[Witness, tuple[str, str, str, str]] = MappingProxyType(
    {
        "reader": (READ_BETWEEN, READ_BEFORE, CONTROL_READ_BETWEEN, CONTROL_READ_BEFORE),
        "barrier": (APART, TOGETHER, CONTROL_APART, CONTROL_TOGETHER),
    }
)
"""Witness to its probes: what the first costs more than the second, less what the third costs more than the fourth."""

APART_SHARE, FUSED_SHARE = 0.25, 0.45
"""A pair that does not fuse saves at most the first share of a unit, one that fuses at least the second. (Seen on two
runtimes: up to 0.2, and from 0.5 on.)"""

LOST_SHARE, MOST_SHARE = -0.3, 5.0
"""Savings below and above these are neither: something else changes with the neighbours."""

ERROR_RATE = 0.005
"""Chance at one look that rounds of the one kind give the verdict of the other."""

MIN_ROUNDS = 8
"""The fewest rounds that can reach ``ERROR_RATE``."""

RESOLUTION = 0.005
"""A unit below this share of a latency is not resolved: biases of that size are left."""

LEAST_SPREAD = 0.15
"""Spread of a shape's rounds, in units, below which a few of them may lie by chance."""

NOT_MEASURED = "nothing was measured"
"""Reason of a rule that the budget did not reach."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What rounds say, of one witness or of an executed graph.

    ``saved_share`` is the median saving in units; ``confidence`` is one less the test's chance of being mistaken,
    of the verdict or of the nearer one where undecided; ``reason`` says why it is undecided.
    """

    verdict: Verdict
    confidence: float
    saved_share: float
    rounds: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """The savings of one shape in units, by witness and round. ``calls`` where the value is so small that its call is
    all that a fusion saves; ``reason`` says why there is nothing to see."""

    calls: bool
    shares: Mapping[Witness, tuple[float, ...]]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What all shapes of a rule say together. ``obey`` is what the rule file says; ``witnesses`` what each of them
    says; ``reason``, where undecided, why, else what to add."""

    verdict: Verdict
    confidence: float
    reason: str = ""
    witnesses: Mapping[Witness, Decision] = field(default_factory=dict, compare=False)

    @property
    def obey(self) -> bool | None:
        """``True``, ``False``, or ``None`` where undecided."""
        return OBEYS[self.verdict]


OBEYS: Mapping[Verdict, bool | None] = MappingProxyType({"fuses": True, "does not": False, "undecided": None})


def unit_ms(rounds: Sequence[Round]) -> float:
    """What an activation costs, in milliseconds: the median over rounds of ``UNIT`` and ``UNIT_FRAME``; 0 for none."""
    return float(np.median([each[UNIT] - each[UNIT_FRAME] for each in rounds])) / UNITS if rounds else 0.0


def seen(rounds: Sequence[Round], unit: float, *, calls: bool) -> Seen:
    """The savings of the rounds that measured a witness's probes.

    Args:
        unit: ``unit_ms`` of the same shape.
        calls: Whether the shape is one of the small ones.
    """
    together_ms = [each[name] for each in rounds for name in (READ_BEFORE, TOGETHER) if name in each]
    if not together_ms:
        return Seen(calls, {}, NOT_MEASURED)
    whole = float(np.median(together_ms))
    if unit < RESOLUTION * whole:
        return Seen(calls, {}, f"{1000 * unit:.2g} us to save of {1000 * whole:.3g} us: too little to see")
    shares: dict[Witness, tuple[float, ...]] = {}
    for witness, (more, less, control_more, control_less) in SAVINGS.items():
        told = [each for each in rounds if {more, less, control_more, control_less} <= each.keys()]
        if told:
            shares[witness] = tuple(
                ((each[more] - each[less]) - (each[control_more] - each[control_less])) / unit for each in told
            )
    return Seen(calls, MappingProxyType(shares))


def weigh(groups: Sequence[Sequence[float]]) -> Decision:
    """The verdict of savings in units, one of each round, in groups that differ in noise.

    Wilcoxon's signed-rank test (Biometrics Bulletin 1, 1945) rejects that they are of the one kind or the other, each
    in units of its group's spread; the saving is the mean of the groups' medians, weighted by their precision.
    """
    told = [np.asarray(each, float) for each in groups if len(each)]
    if not told:
        return Decision("undecided", 0.0, 0.0, 0, NOT_MEASURED)
    spreads = [math.hypot(spread(each), LEAST_SPREAD) for each in told]
    weights = [len(each) / width**2 for each, width in zip(told, spreads, strict=True)]
    share = float(np.average([np.median(each) for each in told], weights=weights))

    def above(limit: float) -> np.ndarray:
        return np.concatenate([(each - limit) / width for each, width in zip(told, spreads, strict=True)])

    apart, fused = _signed_rank(above(APART_SHARE)), _signed_rank(-above(FUSED_SHARE))
    count = sum(map(len, told))
    if count < MIN_ROUNDS:
        reason = f"{count} rounds, at least {MIN_ROUNDS} are needed"
        return Decision("undecided", 1 - min(apart, fused), share, count, reason)
    return _judge(share, apart, fused, count)


def spread(values: Sequence[float] | np.ndarray) -> float:
    """Standard deviation as the median deviation from the median tells it, which outliers do not change."""
    return 1.4826 * float(np.median(np.abs(np.asarray(values) - np.median(values)))) if len(values) else 0.0


def weigh_once(share: float, deviation: float) -> Decision:
    """The verdict of one saving in units that is known to a standard deviation, its error taken as normal."""

    def chance(above: float) -> float:
        sure = above / deviation if deviation else math.copysign(math.inf, above)
        return math.erfc(sure / math.sqrt(2)) / 2

    return _judge(share, chance(share - APART_SHARE), chance(FUSED_SHARE - share), 1)


def _judge(share: float, apart: float, fused: float, count: int) -> Decision:
    """The verdict, given the chances that a pair of the one kind, or of the other, is seen to save as much or as
    little."""

    def decision(verdict: Verdict, reason: str = "") -> Decision:
        return Decision(verdict, 1 - min(apart, fused), share, count, reason)

    if min(apart, fused) > ERROR_RATE:
        return decision("undecided", f"saves {share:.0%} of a call and a pass; the rounds disagree")
    if share > MOST_SHARE:
        return decision("undecided", f"saves {share:.1f} times a call and a pass, which is no fusion")
    if share < LOST_SHARE:
        return decision("undecided", f"loses {-share:.0%} of a call and a pass, which no lack of a fusion does")
    if max(apart, fused) <= ERROR_RATE:
        return decision("undecided", f"saves {share:.0%} of a call and a pass: neither fused nor apart")
    return decision("fuses" if apart < fused else "does not")


def statement(shapes: Sequence[Seen], witness: Witness) -> Decision:
    """What one witness says of all shapes: what it says of the small ones where it sees a fusion there, else of all
    together. Shapes in which the neighbours lose more than noise explains tell nothing, as long as there are others;
    shapes that contradict each other leave it undecided, and so do small ones that lean to a fusion."""
    told = [(each.calls, each.shares[witness]) for each in shapes if each.shares.get(witness)]
    sound = [(calls, shares) for calls, shares in told if float(np.median(shares)) >= LOST_SHARE] or told
    calls = _together([shares for calls, shares in sound if calls])
    if calls.verdict == "fuses":
        return calls
    found = _together([shares for _, shares in sound])
    if found.verdict == "does not" and calls.saved_share > (APART_SHARE + FUSED_SHARE) / 2:
        reason = f"saves {calls.saved_share:.0%} of a call, and less of a pass"
        return Decision("undecided", 0.0, found.saved_share, found.rounds, reason)
    return found


def _together(groups: Sequence[Sequence[float]]) -> Decision:
    together = weigh(groups)
    alone = [each.verdict for each in (weigh([group]) for group in groups) if each.verdict != "undecided"]
    fused = alone.count("fuses")
    if 0 < fused < len(alone):
        reason = f"fuses in {fused} of {len(alone)} shapes"
        return Decision("undecided", 0.0, together.saved_share, together.rounds, reason)
    return together


def conclude(shapes: Sequence[Seen], witnesses: Sequence[Witness] = ("reader", "barrier")) -> Conclusion:
    """One verdict of all shapes and witnesses.

    Args:
        witnesses: Those that the case can have.
    """
    found = confirm({each: statement(shapes, each) for each in witnesses})
    if found.verdict == "fuses":
        return replace(found, reason=_passes(shapes))
    if found.verdict == "undecided" and not any(each.rounds for each in found.witnesses.values()):
        reasons = dict.fromkeys(each.reason or NOT_MEASURED for each in shapes)
        return replace(found, reason="; ".join(reasons) or NOT_MEASURED)
    return found


def confirm(told: Mapping[Witness, Decision]) -> Conclusion:
    """One verdict of all witnesses: all of them make a fusion, and one denies it where none affirms it."""
    told = MappingProxyType(dict(told))
    by: dict[Verdict, dict[Witness, Decision]] = {"fuses": {}, "does not": {}, "undecided": {}}
    for name, each in told.items():
        by[each.verdict][name] = each
    if by["fuses"] and by["does not"]:
        reason = f"the {min(by['fuses'])} shows a fusion, the {min(by['does not'])} shows none"
        return Conclusion("undecided", 0.0, reason, told)
    if by["does not"]:
        return Conclusion("does not", max(each.confidence for each in by["does not"].values()), "", told)
    confidence = min(each.confidence for each in (by["undecided"] or told).values())
    if not by["undecided"]:
        return Conclusion("fuses", confidence, "", told)
    reason = "; ".join(f"{name}: {each.reason}" for name, each in by["undecided"].items())
    return Conclusion("undecided", confidence, reason, told)


def executed_decision(kernels: Mapping[str, int], inputs: int = 0, *, partly: bool = False) -> Decision:
    """What the numbers of executed kernels say. A pair fuses where as many kernels are gone as its last operator has,
    among the probes of each witness: what a runtime fuses may depend on the surroundings.

    Args:
        kernels: How many each probe has.
        inputs: Inputs that the last operator brings with it; the barriers behind them are no kernels of its own.
        partly: Whether one kernel gone is enough, as where several operators read the first one's result.
    """
    first, second = kernels[FIRST] - kernels[FRAME], kernels[APART] - kernels[FIRST] - inputs
    if first <= 0 or second <= 0:
        return Decision("undecided", 0.0, 0.0, 0, "the runtime executes nothing for one of the parts")
    saved = {
        witness: (kernels[more] - kernels[less]) - (kernels[control_more] - kernels[control_less])
        for witness, (more, less, control_more, control_less) in SAVINGS.items()
        if more in kernels
    }
    verdicts: dict[Verdict, list[str]] = {}
    for witness, gone in saved.items():
        all_gone = gone >= (1 if partly else second)
        verdicts.setdefault("fuses" if all_gone else "undecided" if gone > 0 else "does not", []).append(witness)
    share = min(saved.values()) / second
    if len(verdicts) == 1 and "undecided" not in verdicts:
        return Decision(next(iter(verdicts)), 1.0, share, 0)
    if "undecided" in verdicts:
        return Decision("undecided", 0.0, share, 0, f"{max(saved.values())} of {second} kernels fuse")
    where = f"fuses among the probes of the {verdicts['fuses'][0]}, not among those of the {verdicts['does not'][0]}"
    return Decision("undecided", 0.0, share, 0, where)


def agree(decisions: Sequence[Decision]) -> Conclusion:
    """What the executed graphs of all shapes say together."""
    decided = [each for each in decisions if each.verdict != "undecided"]
    fused = sum(each.verdict == "fuses" for each in decided)
    if 0 < fused < len(decided):
        return Conclusion("undecided", 0.0, f"fuses in {fused} of {len(decided)} shapes")
    if not decided:
        reasons = dict.fromkeys(each.reason for each in decisions if each.reason)
        return Conclusion("undecided", 0.0, "; ".join(reasons) or NOT_MEASURED)
    return Conclusion(decided[0].verdict, max(each.confidence for each in decided))


def _passes(shapes: Sequence[Seen]) -> str:
    """What to add where a fusion shows on small values only."""
    larger = [share for each in shapes if not each.calls for share in each.shares.get("reader", ())]
    kept = weigh([larger]).verdict == "does not"
    return "saves the call, and still makes the pass" if kept else ""


def _signed_rank(values: np.ndarray) -> float:
    """Chance that the positive ones of as many values, spread evenly around zero, have ranks as high or higher."""
    ranks = np.empty(len(values), int)
    ranks[np.argsort(np.abs(values))] = np.arange(1, len(values) + 1)
    return float(_rank_sums(len(values))[int(ranks[values > 0].sum()) :].sum())


@cache
def _rank_sums(count: int) -> np.ndarray:
    """Chance of each sum of the ranks 1 to ``count`` of which a fair coin picks some."""
    chances = np.ones(1)
    for rank in range(1, count + 1):
        longer = np.zeros(len(chances) + rank)
        longer[: len(chances)] += chances / 2
        longer[rank:] += chances / 2
        chances = longer
    return chances
