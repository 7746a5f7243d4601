"""Protobuf's wire format (https://protobuf.dev/programming-guides/encoding/), walked by length prefixes.

What nobody asks for is skipped over, never touched, so that the cost follows the number of fields, not of bytes.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

Data = bytes | memoryview | mmap.mmap


class WireError(ValueError):
    """Bytes that are no protobuf message."""


def varint(buffer: Data, at: int, end: int) -> tuple[int, int]:
    """The number at ``at`` and where it ends."""
    value = shift = 0
    while at < end and shift < 70:
        byte = buffer[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise WireError("a number runs past its message")


def fields(buffer: Data, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Key, start and stop of each field of a message; for a varint field key, value and stop."""
    while at < end:
        key = buffer[at]
        at += 1
        if key > 127:
            key, at = varint(buffer, at - 1, end)
        wire = key & 7
        if key < 8:
            raise WireError("a field has the number 0")
        if wire == 2:
            size = buffer[at] if at < end else 128
            at += 1
            if size > 127:
                size, at = varint(buffer, at - 1, end)
        elif wire == 0:
            value = buffer[at] if at < end else 128
            at += 1
            if value > 127:
                value, at = varint(buffer, at - 1, end)
            yield key, value, at
            continue
        elif wire in (1, 5):
            size = 4 if wire == 5 else 8
        else:
            raise WireError(f"wire type {wire}")
        stop = at + size
        if stop > end:
            raise WireError("a field runs past its message")
        yield key, at, stop
        at = stop


def signed(value: int) -> int:
    """A number that may be negative."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def packed(buffer: Data, at: int, stop: int) -> list[int]:
    """Numbers one behind the other."""
    found = []
    while at < stop:
        value, at = varint(buffer, at, stop)
        found.append(signed(value))
    return found
