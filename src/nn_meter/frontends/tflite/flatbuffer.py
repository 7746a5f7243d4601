"""Tables of a flatbuffer, each access checked against the file's bounds.

Layout: https://flatbuffers.dev/internals/. A table begins with the distance back to its vtable, which holds
the sizes of both and, slot by slot, where in the table a field lies; 0 says that the field has its default.

Whatever refers may refer to the same place as others do, so that a small file could stand for any amount: a hundred
thousand operators with one list of a hundred thousand inputs. Of a file no more is read than some times what it holds.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from nn_meter.errors import ModelFormatError

_SIZES: Final = {"b": 1, "B": 1, "?": 1, "h": 2, "H": 2, "i": 4, "I": 4, "f": 4, "q": 8, "Q": 8}


_TIMES, _SMALL_BYTES = 16, 1 << 20
"""Readers ask for a field up to three times, writers share what is equal; what is small may be read more often."""


class _File:
    """The bytes of a file, and how many may yet be copied out of it."""

    __slots__ = ("data", "left")

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.left = _TIMES * len(data) + _SMALL_BYTES

    def number(self, at: int, kind: str) -> int:
        if at < 0 or at + _SIZES[kind] > len(self.data):
            raise ModelFormatError(f"a flatbuffer field at byte {at} lies outside the file of {len(self.data)} bytes")
        (value,) = struct.unpack_from("<" + kind, self.data, at)
        return value  # type: ignore[no-any-return]

    def numbers(self, at: int, count: int, kind: str) -> tuple[int, ...]:
        self.spend(at, count * _SIZES[kind])
        return struct.unpack_from(f"<{count}{kind}", self.data, at)

    def text(self, at: int, length: int) -> str:
        self.spend(at, length)
        return str(self.data[at : at + length], "utf-8", "replace")

    def spend(self, at: int, size: int) -> None:
        if at < 0 or at + size > len(self.data):
            raise ModelFormatError(
                f"a flatbuffer vector at byte {at} reaches beyond the file of {len(self.data)} bytes; it is damaged"
            )
        self.left -= size
        if self.left < 0:
            raise ModelFormatError(
                f"its tables share so much that the file of {len(self.data)} bytes stands for more than {_TIMES} times "
                "that; no converter writes such files"
            )


class Table:
    """One table; fields are asked for by slot, in the order of the schema."""

    __slots__ = ("_at", "_count", "_file", "_vtable")

    def __init__(self, file: _File, at: int) -> None:
        self._file = file
        self._at = at
        self._vtable = at - file.number(at, "i")
        self._count = file.number(self._vtable, "H") // 2 - 2
        if self._count < 0:
            raise ModelFormatError(f"the flatbuffer table at byte {at} has no valid vtable; the file is damaged")

    def _field(self, slot: int) -> int:
        offset = self._file.number(self._vtable + 4 + 2 * slot, "H") if slot < self._count else 0
        return self._at + offset if offset else 0

    def number(self, slot: int, kind: str, default: int | float = 0) -> int | float:
        """A scalar of a struct format, such as ``"i"`` for int32."""
        at = self._field(slot)
        return self._file.number(at, kind) if at else default

    def integer(self, slot: int, kind: str = "i", default: int = 0) -> int:
        """A whole number."""
        return int(self.number(slot, kind, default))

    def table(self, slot: int) -> Table | None:
        """Another table."""
        at = self._field(slot)
        return Table(self._file, at + self._file.number(at, "I")) if at else None

    def vector(self, slot: int, kind: str) -> Sequence[int] | None:
        """A vector of scalars, or ``None`` where it is absent."""
        start, count = self._vector(slot)
        return self._file.numbers(start, count, kind) if start else None

    def tables(self, slot: int) -> list[Table]:
        """A vector of tables."""
        start, count = self._vector(slot)
        offsets = self._file.numbers(start, count, "I")
        return [Table(self._file, start + 4 * i + offset) for i, offset in enumerate(offsets)]

    def content(self, slot: int) -> memoryview:
        """A vector of bytes, without copying them."""
        start, count = self._vector(slot)
        if start + count > len(self._file.data):
            raise ModelFormatError(f"a flatbuffer vector at byte {start} reaches beyond the file; it is damaged")
        return self._file.data[start : start + count]

    def text(self, slot: int) -> str:
        """A string, empty where it is absent."""
        return self._file.text(*self._vector(slot))

    def texts(self, slot: int) -> list[str]:
        """A vector of strings."""
        start, count = self._vector(slot)
        places = (start + 4 * i + offset for i, offset in enumerate(self._file.numbers(start, count, "I")))
        return [self._file.text(at + 4, self._file.number(at, "I")) for at in places]

    def _vector(self, slot: int) -> tuple[int, int]:
        at = self._field(slot)
        if not at:
            return 0, 0
        start = at + self._file.number(at, "I")
        return start + 4, self._file.number(start, "I")


def root(data: memoryview) -> Table:
    """The root table of a file.

    Raises:
        ModelFormatError: the file is too short, or the table lies outside it.
    """
    file = _File(data)
    return Table(file, file.number(0, "I"))
