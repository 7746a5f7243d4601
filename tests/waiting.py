"""What tests wait for, whatever else the machine does."""

from __future__ import annotations

import time
from collections.abc import Callable

LONG_S = 600.0
"""What has not come by then never does, however busy the machine is; nothing that comes is waited for longer."""


def until(true: Callable[[], object]) -> None:
    """Wait until it is."""
    end_s = time.monotonic() + LONG_S
    while not true():
        assert time.monotonic() < end_s, f"waited {LONG_S:g} s in vain"
        time.sleep(0.02)
