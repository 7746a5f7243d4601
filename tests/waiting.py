"""What tests wait for, whatever else the machine does."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

LONG_S = 1800.0
"""What has not come by then never does, however busy the machine is; nothing that comes is waited for longer."""


def until(true: Callable[[], object]) -> None:
    """Wait until it is."""
    end_s = time.monotonic() + LONG_S
    while not true():
        assert time.monotonic() < end_s, f"waited {LONG_S:g} s in vain"
        time.sleep(0.02)


def running(process: int) -> bool:
    """Whether a process of that number goes on; one that nobody asked how it ended does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
