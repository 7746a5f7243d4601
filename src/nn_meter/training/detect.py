"""Whether a runtime fuses two operators, decided from latencies alone.

Timing ``a``, ``b`` and ``a b`` and comparing sums goes wrong: an inference has a fixed cost, an output is
written to fresh memory where a value between two operators is not, and a runtime changes layouts around an
operator that stands alone. So the decision rests on a difference of differences. With ``p`` an operator that
nothing fuses with and that keeps shape and layout (the barrier):

    saving = [t(a p b) - t(a p)] - [t(a b) - t(a)]

The first bracket is what ``b`` costs where it cannot fuse, the second what it costs right after ``a``. Both
have the same inputs and outputs and the same layout before ``b``, so that fixed costs, outputs and conversions
cancel. Where nothing fuses the saving is zero; where ``b`` joins ``a``, or ``a`` joins ``b``, one pass over the
value between them and one call are saved. That is the scale: the least of what ``a`` costs, what ``b`` costs
and what an activation costs after ``a p``.

All graphs take turns in rounds. Each round says whether the saving is nearer to the scale or to zero, and a sign
test over the rounds says how sure that is: it assumes nothing about the noise but that rounds are alike, so heavy
tails, drift and two humps cost rounds, not truth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

Verdict = Literal["fuses", "does not", "undecided"]

FIRST, PAIR, APART, FIRST_BARRED, BARRIER, PASS = "a", "ab", "apb", "ap", "p", "apr"
"""The graphs of a decision: ``p`` is the barrier alone, ``apr`` has an activation in the place of ``b``."""

GRAPHS = (FIRST, PAIR, APART, FIRST_BARRED, BARRIER, PASS)

FUSED_SHARE, APART_SHARE = 0.6, 0.4
"""Savings, relative to the scale, above which a pair counts as fused and below which as not. Neither hypothesis
explains what lies between."""

ERROR_RATE = 1e-3
"""Chance at one look that rounds which are as often above as below give a verdict."""

MIN_ROUNDS = 10
"""The fewest rounds that can reach ``ERROR_RATE``."""

RESOLUTION = 0.02
"""A scale below this share of the pair's latency is not resolved: biases of that size are left."""


MOST_SHARE = 4.0
"""Savings above this are no fusion: the barrier changed what the runtime does with its neighbours."""

VIEW_SHARE = 0.6
"""An ``a`` that costs less than this share of a pass renames its input and writes nothing that could be saved;
alone it has to copy, which would look like a saving."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the rounds of one shape say.

    ``saved_share`` is the median saving relative to the scale; ``confidence`` is one less the sign test's chance
    of being mistaken, of the verdict or of the nearer one where undecided; ``reason`` says why it is undecided.
    """

    verdict: Verdict
    confidence: float
    saved_share: float
    rounds: int
    reason: str = ""

    @property
    def leans(self) -> bool:
        """Undecided, but the rounds point somewhere."""
        return self.verdict == "undecided" and self.confidence > 0


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What all shapes of a rule say together. ``obey`` is what the rule file says."""

    verdict: Verdict
    confidence: float
    reason: str = ""

    @property
    def obey(self) -> bool | None:
        """``True``, ``False``, or ``None`` where undecided."""
        return OBEYS[self.verdict]


OBEYS: Mapping[Verdict, bool | None] = MappingProxyType({"fuses": True, "does not": False, "undecided": None})


def decide(rounds_ms: Mapping[str, Sequence[float]]) -> Decision:
    """The verdict of one shape.

    Args:
        rounds_ms: For each graph of ``GRAPHS`` its latency in each round, in milliseconds; equally many of each.
    """
    t = {name: np.asarray(rounds_ms[name], float) for name in GRAPHS}
    count = len(t[PAIR])
    if count < MIN_ROUNDS:
        return Decision("undecided", 0.0, 0.0, count, f"{count} rounds, at least {MIN_ROUNDS} are needed")
    saving = (t[APART] - t[FIRST_BARRED]) - (t[PAIR] - t[FIRST])
    costs = (t[FIRST_BARRED] - t[BARRIER], t[APART] - t[FIRST_BARRED], t[PASS] - t[FIRST_BARRED])
    first_ms, second_ms, pass_ms = (float(np.median(cost)) for cost in costs)
    scale, pair_ms = min(first_ms, second_ms, pass_ms), float(np.median(t[PAIR]))
    if scale < RESOLUTION * pair_ms:
        seen = f"{1000 * scale:.2g} us to save of {1000 * pair_ms:.3g} us: too little to see"
        return Decision("undecided", 0.0, 0.0, count, seen)
    share = float(np.median(saving)) / scale
    if first_ms < VIEW_SHARE * pass_ms:
        return Decision("undecided", 0.0, share, count, "the first costs less than a pass: nothing to save")
    if share > MOST_SHARE:
        return Decision("undecided", 0.0, share, count, f"saves {share:.0f} passes, more than a fusion can")
    doubt_fused = _chance(int((saving > FUSED_SHARE * scale).sum()), count)
    doubt_apart = _chance(int((saving < APART_SHARE * scale).sum()), count)
    confidence = 1 - min(doubt_fused, doubt_apart)
    if doubt_fused <= ERROR_RATE:
        return Decision("fuses", confidence, share, count)
    if doubt_apart <= ERROR_RATE:
        return Decision("does not", confidence, share, count)
    return Decision("undecided", confidence, share, count, f"saves {share:.0%} of a pass; the rounds disagree")


def conclude(decisions: Sequence[Decision]) -> Conclusion:
    """One verdict of all shapes. Shapes that contradict each other leave the rule undecided and say so; so does
    a shape that is clear all alone while another leans the other way."""
    decided = [each for each in decisions if each.verdict != "undecided"]
    verdicts = {each.verdict for each in decided}
    if not decided:
        reasons = dict.fromkeys(each.reason for each in decisions if each.reason)
        return Conclusion("undecided", 0.0, "; ".join(reasons) or "nothing was measured")
    confidence = max(each.confidence for each in decided)
    if len(verdicts) > 1:
        fused = sum(each.verdict == "fuses" for each in decided)
        return Conclusion("undecided", confidence, f"fuses in {fused} of {len(decided)} shapes")
    verdict = decided[0].verdict
    leans_to_fused = (each.saved_share > (FUSED_SHARE + APART_SHARE) / 2 for each in decisions if each.leans)
    if len(decided) == 1 and any(leaning != (verdict == "fuses") for leaning in leans_to_fused):
        return Conclusion("undecided", 0.0, "one shape alone is clear, another leans the other way")
    return Conclusion(verdict, confidence)


def _chance(hits: int, rounds: int) -> float:
    """Probability of ``hits`` or more heads in ``rounds`` throws of a fair coin."""
    return float(sum(math.comb(rounds, k) for k in range(hits, rounds + 1)) / 2**rounds)
