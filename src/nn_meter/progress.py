"""How what takes long says how far it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Hears how far the work is; called often, from the thread that works."""

    def __call__(self, done: float, total: float | None, eta_s: float | None, what: str, /) -> None:
        """``done`` of ``total`` are over: bytes of a download, seconds of a budget, turns of a measurement.

        The rest takes about ``eta_s`` seconds; ``None`` where either is unknown. ``what`` tells a person in a few
        words what was just done.
        """
