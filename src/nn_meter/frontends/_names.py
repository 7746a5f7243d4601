"""Names that a file gives more than once."""

from __future__ import annotations


class Names:
    """Tells equal names apart by a number, in time that does not grow with how many are equal."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}

    def unique(self, name: str) -> str:
        """``name``, or with a number behind it where it is taken."""
        found, count = name, self._counts.get(name, 0)
        while found in self._taken:
            count += 1
            found = f"{name}_{count}"
        self._counts[name] = count
        self._taken.add(found)
        return found
