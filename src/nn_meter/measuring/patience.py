"""Waiting until the neighbours are still: a turn that is not begun beside them need not be corrected for them.

On a rented machine a processor may be half of a core. While a neighbour uses the other half everything takes 1.2 to
1.4 times as long, for some seconds: the probe has two speeds there, and does not scatter around one. Two turns of a
network differ by 2 to 3 % in the median where both began at the quicker one, by 12 % where not; of a busy afternoon a
quarter was quick.
"""

from __future__ import annotations

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
"""Turns whose first look is remembered, some minutes of measuring: what slowed the machine for longer is how it is."""

_LONGEST_S = 2.0
"""One wait: neighbours come and go within seconds."""


class Patience:
    """Holds turns back while ``probe`` takes longer than at its quickest lately; by ``clock`` no longer, all in all,
    than everything else took, so that where neighbours never rest a measurement takes twice as long and not for ever.
    """

    def __init__(self, probe: Runner, clock: Callable[[], float] = time.monotonic) -> None:
        self.probe = probe
        self._clock = clock
        self._begin = clock()
        self._waited_s = 0.0
        self._seen: deque[float] = deque(maxlen=_LATELY)

    def wait(self) -> None:
        """Return when the neighbours are still, or patience ends."""
        begin = self._clock()
        left_s = _LONGEST_S if begin - self._begin + _LONGEST_S > 2 * self._waited_s else 0.0
        now_ms = quantile(self.probe.run(RUNS))
        self._seen.append(now_ms)
        quick_ms = quantile(self._seen, _QUICK)
        while now_ms > _SLOWER * quick_ms and self._clock() - begin < left_s:
            now_ms = quantile(self.probe.run(RUNS))
        self._waited_s += self._clock() - begin
