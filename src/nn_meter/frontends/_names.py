"""Names that a file gives more than once."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property


class Names:
    """Tells equal names apart by a number, in time that does not grow with how many are equal. Those that are
    ``reserved`` only who owns them gets."""

    def __init__(self, reserved: Collection[str] = ()) -> None:
        self._given = reserved
        self._taken: dict[str, None] = {}  # whose latest lie close together, unlike a set's
        self._counts: dict[str, int] = {}

    @cached_property
    def _reserved(self) -> Collection[str]:
        return frozenset(self._given)

    def unique(self, name: str, own: str = "") -> str:
        """``name``, or with a number behind it where it is taken, or reserved and not ``own``: the first of equal names
        keeps it."""
        count = self._counts.get(name, 0)
        found = f"{name}_{count}" if count else name
        while found in self._taken or (found != own and found in self._reserved):
            count += 1
            found = f"{name}_{count}"
        if count:
            self._counts[name] = count
        self._taken[found] = None
        return found
