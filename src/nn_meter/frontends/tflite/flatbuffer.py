"""Tables of a flatbuffer, each access checked against the file's bounds.

Layout: https://flatbuffers.dev/internals/. A table begins with the distance back to its vtable, which holds
the sizes of both and, slot by slot, where in the table a field lies; 0 says that the field has its default.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from nn_meter.errors import ModelFormatError

_SIZES: Final = {"b": 1, "B": 1, "?": 1, "h": 2, "H": 2, "i": 4, "I": 4, "f": 4, "q": 8, "Q": 8}


class Table:
    """One table; fields are asked for by slot, in the order of the schema."""

    __slots__ = ("_at", "_data", "_slots")

    def __init__(self, data: memoryview, at: int) -> None:
        self._data = data
        self._at = at
        vtable = at - _number(data, at, "i")
        count = _number(data, vtable, "H") // 2 - 2
        if count < 0:
            raise ModelFormatError(
                f"the flatbuffer table at byte {at} has no valid vtable; the file is damaged"
            )
        self._slots = _numbers(data, vtable + 4, count, "H")

    def _field(self, slot: int) -> int:
        offset = self._slots[slot] if slot < len(self._slots) else 0
        return self._at + offset if offset else 0

    def number(self, slot: int, kind: str, default: int | float = 0) -> int | float:
        """A scalar of a struct format, such as ``"i"`` for int32."""
        at = self._field(slot)
        return _number(self._data, at, kind) if at else default

    def integer(self, slot: int, kind: str = "i", default: int = 0) -> int:
        """A whole number."""
        return int(self.number(slot, kind, default))

    def table(self, slot: int) -> Table | None:
        """Another table."""
        at = self._field(slot)
        return Table(self._data, at + _number(self._data, at, "I")) if at else None

    def vector(self, slot: int, kind: str) -> Sequence[int] | None:
        """A vector of scalars, or ``None`` where it is absent."""
        start, count = self._vector(slot)
        return _numbers(self._data, start, count, kind) if start else None

    def tables(self, slot: int) -> list[Table]:
        """A vector of tables."""
        start, count = self._vector(slot)
        offsets = _numbers(self._data, start, count, "I")
        return [Table(self._data, start + 4 * i + offset) for i, offset in enumerate(offsets)]

    def content(self, slot: int) -> memoryview:
        """A vector of bytes, without copying them."""
        start, count = self._vector(slot)
        if start + count > len(self._data):
            raise ModelFormatError(
                f"a flatbuffer vector at byte {start} reaches beyond the file; it is damaged"
            )
        return self._data[start : start + count]

    def text(self, slot: int) -> str:
        """A string, empty where it is absent."""
        return str(self.content(slot), "utf-8", "replace")

    def texts(self, slot: int) -> list[str]:
        """A vector of strings."""
        start, count = self._vector(slot)
        found = []
        for i, offset in enumerate(_numbers(self._data, start, count, "I")):
            at = start + 4 * i + offset
            length = _number(self._data, at, "I")
            if at + 4 + length > len(self._data):
                raise ModelFormatError(f"a flatbuffer string at byte {at} reaches beyond the file; it is damaged")
            found.append(str(self._data[at + 4 : at + 4 + length], "utf-8", "replace"))
        return found

    def _vector(self, slot: int) -> tuple[int, int]:
        at = self._field(slot)
        if not at:
            return 0, 0
        start = at + _number(self._data, at, "I")
        return start + 4, _number(self._data, start, "I")


def root(data: memoryview) -> Table:
    """The root table of a file.

    Raises:
        ModelFormatError: the file is too short, or the table lies outside it.
    """
    return Table(data, _number(data, 0, "I"))


def _number(data: memoryview, at: int, kind: str) -> int:
    if at < 0 or at + _SIZES[kind] > len(data):
        raise ModelFormatError(f"a flatbuffer field at byte {at} lies outside the file of {len(data)} bytes")
    (value,) = struct.unpack_from("<" + kind, data, at)
    return value  # type: ignore[no-any-return]


def _numbers(data: memoryview, at: int, count: int, kind: str) -> tuple[int, ...]:
    if at < 0 or at + count * _SIZES[kind] > len(data):
        raise ModelFormatError(
            f"a flatbuffer vector at byte {at} reaches beyond the file of {len(data)} bytes"
        )
    return struct.unpack_from(f"<{count}{kind}", data, at)
