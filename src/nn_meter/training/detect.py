"""Whether a runtime fuses two operators, decided from latencies alone.

Timing ``a``, ``b`` and ``a b`` and comparing sums goes wrong: an inference has a fixed cost, an output is
written to fresh memory where a value between two operators is not, and a runtime changes layouts around an
operator that stands alone. So the decision rests on a difference of differences. With ``p`` and ``q`` two
operators that nothing fuses with and that keep shape and layout (barriers):

    saving = [t(p a p b p) - t(p a b p)] - [t(p a p q p) - t(p a q p)]

The first bracket is what a barrier between ``a`` and ``b`` costs, the second what it costs between ``a`` and an
operator that does not fuse. All four begin and end with ``p``: the runtime's own layout is there before ``a`` and
left after ``b``, and fixed costs, inputs and outputs cancel. Where nothing fuses the saving is zero; where ``b``
joins ``a``, or ``a`` joins ``b``, one pass over the value between them and one call are saved. That is the scale:
the lesser of what ``b`` and what an activation cost between barriers. Where ``a`` costs nothing, as a view does, no
fusion saves anything, and *does not* predicts the same time.

Where its buffers lie speeds an operator up or slows it down, by as much as a pass, for as long as a model stays
prepared, and differently for each order in which they are prepared. So every round prepares all graphs anew, in a
random order. A sign test over the rounds says on which side of half a pass
the saving lies: it assumes nothing about the noise but that rounds are alike, so heavy tails, drift and two humps
cost rounds, not truth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np

Verdict = Literal["fuses", "does not", "undecided"]

PAIR, APART, CONTROL, CONTROL_APART, FIRST, PASS, FRAME = "ab", "apb", "aq", "apq", "ap", "apr", "pp"
"""The graphs of a decision, their outer ``p`` left out; ``apr`` has an activation in the place of ``b``."""

SAVING_GRAPHS = (PAIR, APART, CONTROL, CONTROL_APART)
SCALE_GRAPHS = (FIRST, PASS, FRAME)
"""Graphs whose differences within each round decide, and those of which only the median matters."""

FUSED_SHARE, APART_SHARE = 0.6, 0.2
"""Median savings, relative to the scale, from which a pair counts as fused, and up to which as not. What lies between
may be a fusion that saves the call and still makes the pass, as ONNX Runtime's product with an activation does."""

ERROR_RATE = 0.005
"""Chance at one look that rounds which are as often above half a pass as below give a verdict."""

MIN_ROUNDS = 8
"""The fewest rounds that can reach ``ERROR_RATE``."""

RESOLUTION = 0.005
"""A scale below this share of the pair's latency is not resolved: biases of that size are left."""

NOT_MEASURED = "nothing was measured"
"""Reason of a rule that the budget did not reach."""

MOST_SHARE = 5.0
"""Savings above this, or losses, are neither hypothesis: something else changes with the neighbours."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the rounds of one shape say, or of several together.

    ``saved_share`` is the median saving relative to the scale, ``shares`` that of each round; ``confidence`` is one
    less the sign test's chance of being mistaken, of the verdict or of the nearer one where undecided; ``reason``
    says why it is undecided. Without ``shares`` there is nothing to see, however many rounds are made.
    """

    verdict: Verdict
    confidence: float
    saved_share: float
    rounds: int
    reason: str = ""
    shares: tuple[float, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What all shapes of a rule say together. ``obey`` is what the rule file says; ``settled`` that more rounds would
    hardly change it."""

    verdict: Verdict
    confidence: float
    reason: str = ""
    settled: bool = True

    @property
    def obey(self) -> bool | None:
        """``True``, ``False``, or ``None`` where undecided."""
        return OBEYS[self.verdict]


OBEYS: Mapping[Verdict, bool | None] = MappingProxyType({"fuses": True, "does not": False, "undecided": None})


def decide(rounds_ms: Mapping[str, Sequence[float]]) -> Decision:
    """The verdict of one shape.

    Args:
        rounds_ms: For each graph its latency in each round, in milliseconds; equally many rounds of each of
            ``SAVING_GRAPHS``, the first of which are those of ``SCALE_GRAPHS``.
    """
    t = {name: np.asarray(rounds_ms[name], float) for name in SAVING_GRAPHS + SCALE_GRAPHS}
    count, some = len(t[PAIR]), len(t[FIRST])
    if not some:
        return Decision("undecided", 0.0, 0.0, 0, NOT_MEASURED)
    saving = (t[APART] - t[PAIR]) - (t[CONTROL_APART] - t[CONTROL])
    costs = (t[APART][:some] - t[FIRST], t[PASS] - t[FIRST])
    scale, pair_ms = min(float(np.median(cost)) for cost in costs), float(np.median(t[PAIR]))
    if scale < RESOLUTION * pair_ms:
        seen = f"{1000 * scale:.2g} us to save of {1000 * pair_ms:.3g} us: too little to see"
        return Decision("undecided", 0.0, 0.0, count, seen)
    return _weigh((saving / scale).tolist())


def _weigh(shares: Sequence[float]) -> Decision:
    """The verdict of savings in units of what a fusion saves."""
    count, share = len(shares), float(np.median(shares))
    doubt_fused = _chance(sum(each > 0.5 for each in shares), count)
    doubt_apart = _chance(sum(each < 0.5 for each in shares), count)
    confidence = 1 - min(doubt_fused, doubt_apart)

    def decision(verdict: Verdict, reason: str = "") -> Decision:
        return Decision(verdict, confidence, share, count, reason, tuple(shares))

    if count < MIN_ROUNDS:
        return decision("undecided", f"{count} rounds, at least {MIN_ROUNDS} are needed")
    if min(doubt_fused, doubt_apart) > ERROR_RATE:
        return decision("undecided", f"saves {share:.0%} of a pass; the rounds disagree")
    if abs(share) > MOST_SHARE:
        return decision("undecided", f"saves {share:.0f} passes, which is no fusion and no lack of one")
    if share >= FUSED_SHARE:
        return decision("fuses")
    if share <= APART_SHARE:
        return decision("does not")
    return decision("undecided", f"saves {share:.0%} of a pass: neither fused nor apart")


def conclude(decisions: Sequence[Decision]) -> Conclusion:
    """One verdict of all shapes: of timed ones that of their rounds together, if most shapes lean to it.

    Shapes that contradict each other leave the rule undecided, and the reason says in how many it fuses.
    """
    decided = [each for each in decisions if each.verdict != "undecided"]
    fused = sum(each.verdict == "fuses" for each in decided)
    if 0 < fused < len(decided):
        return Conclusion("undecided", 0.0, f"fuses in {fused} of {len(decided)} shapes")
    timed = [each for each in decisions if each.shares]
    if not timed and decided:
        return Conclusion(decided[0].verdict, max(each.confidence for each in decided))
    if not timed:
        reasons = dict.fromkeys(each.reason for each in decisions if each.reason)
        return Conclusion("undecided", 0.0, "; ".join(reasons) or NOT_MEASURED, settled=False)
    together = _weigh([share for each in timed for share in each.shares])
    if together.verdict == "undecided":
        settled = together.rounds >= MIN_ROUNDS and abs(together.saved_share) > MOST_SHARE
        return Conclusion("undecided", together.confidence, together.reason, settled)
    leaning = sum((each.saved_share > 0.5) == (together.verdict == "fuses") for each in timed)
    if 3 * leaning < 2 * len(timed) or (decided and decided[0].verdict != together.verdict):
        reason = f"only {leaning} of {len(timed)} shapes lean to {together.verdict!r}"
        return Conclusion("undecided", 0.0, reason, settled=False)
    return Conclusion(together.verdict, together.confidence)


def _chance(hits: int, rounds: int) -> float:
    """Probability of ``hits`` or more heads in ``rounds`` throws of a fair coin."""
    return float(sum(math.comb(rounds, k) for k in range(hits, rounds + 1)) / 2**rounds)
