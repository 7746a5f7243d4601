"""Waiting until the neighbours are still: a turn that is not begun beside them need not be corrected for them.

On a rented machine a processor may be half of a core. While a neighbour uses the other half everything takes 1.2 to
1.4 times as long, for some seconds: the probe has two speeds there, and does not scatter around one. Two turns of a
network differ by 2 to 3 % in the median where both began at the quicker one, by 12 % where not; of a busy afternoon a
quarter was quick.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from nn_meter.measuring.measure import Runner, quantile

RUNS = 10
"""Of the probe at once: it is itself again from its sixth run on, whatever ran before; its first three take longer the
larger that network was."""

_SLOWER = 1.12
"""The two speeds of the probe, 1.18 and 1.48 ms, are 1.25 times apart; at each it scatters by some 5 %."""

_QUICK = 0.1
"""The share of what was seen lately that counts as quick: fewer may be chance, and where neighbours rest for a tenth of
the time there is something to wait for."""

_LATELY = 500
"""Looks that are remembered, some minutes of measuring: what slowed the machine for longer is how it is."""

_LONGEST_S = 2.0
"""One wait: neighbours come and go within seconds."""

_FRESH_S = 0.05
"""A look tells of so much time: half a turn."""


_ALONE = 0.9
"""A turn in which other programs of this machine had the processor for longer than a tenth was not alone there. The
probe hardly sees them: it fits into the slices that they leave. Tests on the same core made models take up to three
times as long, and the probe often no longer than before."""

_WORKS = 0.25
"""Of a runtime that works in this process the probe takes this share of a processor at least, whoever wants it too;
of one that works elsewhere, on a device or in another program, next to nothing."""

_SHORT_S = 0.02
"""A few slices: in shorter turns one switch would count."""


class Patience:
    """Holds turns back while ``probe`` takes longer than at its quickest lately; by ``clock`` no longer, all in all,
    than everything else took, so that where neighbours never rest a measurement takes twice as long and not for ever.
    One that does not look lets every turn begin: a program on a phone would start anew for each look, and shares its
    cores with nobody.
    """

    def __init__(
        self,
        probe: Runner,
        clock: Callable[[], float] = time.monotonic,
        worked: Callable[[], float] = time.process_time,
        *,
        looks: bool = True,
    ) -> None:
        self.probe = probe
        self._looks = looks
        self._clock, self._worked = clock, worked
        self._begin = clock()
        self._waited_s = 0.0
        self._seen: deque[float] = deque(maxlen=_LATELY)
        self._still, self._looked_s = False, -math.inf
        self._here = False  # whether this process does the work, and does not wait for another that does

    def turn(self, runner: Runner, repeats: int) -> tuple[list[float], bool]:
        """Milliseconds of each of ``repeats`` runs, begun when the neighbours are still or patience ends; and whether
        they were still before and after, and this process (``worked``, its processor seconds) had the processor."""
        if not self._looks:
            return runner.run(repeats), True
        before = self._wait()
        taken, took_s, share = self._ran(runner, repeats)
        alone = took_s < _SHORT_S or share >= _ALONE or not self._here
        return taken, self._look() and before and alone

    def _ran(self, runner: Runner, repeats: int) -> tuple[list[float], float, float]:
        """What it says, how many seconds that took, and for which share of them this process worked."""
        begin, worked = self._clock(), self._worked()
        taken = runner.run(repeats)
        took_s = self._clock() - begin
        return taken, took_s, (self._worked() - worked) / took_s if took_s > 0 else 1.0

    def _wait(self) -> bool:
        begin = self._clock()
        if self._still and begin - self._looked_s < _FRESH_S:
            return True
        left_s = _LONGEST_S if begin - self._begin + _LONGEST_S > 2 * self._waited_s else 0.0
        still = self._look()
        while not still and self._clock() - begin < left_s:
            still = self._look(remembered=False)
        self._waited_s += self._clock() - begin
        return still

    def _look(self, remembered: bool = True) -> bool:
        """Whether the neighbours are still. Who waits looks so often that no other look would be remembered."""
        taken, _, share = self._ran(self.probe, RUNS)
        now_ms = quantile(taken)
        self._here = self._here or share >= _WORKS
        if remembered:
            self._seen.append(now_ms)
        self._still = now_ms <= _SLOWER * quantile(self._seen, _QUICK)
        self._looked_s = self._clock()
        return self._still
