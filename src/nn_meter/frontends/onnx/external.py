"""Constants that lie in files beside the model."""

from __future__ import annotations

from pathlib import Path


class External:
    """Reads small constants from the files beside the model, where they are there."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self.absent: dict[str, None] = {}

    def __call__(self, entries: dict[str, str], size: int) -> bytes | None:
        found = self._read(entries, size)
        if found is None:
            self.absent[entries.get("location", "")] = None
        return found

    def _read(self, entries: dict[str, str], size: int) -> bytes | None:
        location = Path(entries.get("location", ""))
        if self._folder is None or location.is_absolute() or ".." in location.parts:
            return None
        try:
            if not (self._folder / location).is_file():
                return None
            with (self._folder / location).open("rb") as file:
                file.seek(int(entries.get("offset", "0")))
                data = file.read(size)
        except (OSError, ValueError):
            return None
        return data if len(data) == size else None
