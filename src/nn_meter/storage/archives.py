"""Zips that others packed, checked before anything of them is read."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nn_meter import limits
from nn_meter.errors import NnMeterError
from nn_meter.limits import Limit
from nn_meter.storage.closing import Closing
from nn_meter.storage.files import reason
from nn_meter.storage.reading import legible

_UNREADABLE = (
    OSError, ValueError, LookupError, EOFError, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What :mod:`zipfile` raises of damaged and encrypted archives; ``NotImplementedError`` is a ``RuntimeError``."""

_END = struct.Struct("<4s4H2LH")
_END_LONGEST = _END.size + (1 << 16)


class Archive(Closing):
    """The zip ``source``; ``where`` names it in errors of the kind ``error``, ``advice`` follows where it is damaged.

    Use it as a context manager; of bytes there is nothing to close.

    Raises:
        error: it is no zip, holds too much, or a member leaves its folder, is no plain file (a link, a pipe), or is
            there twice.
    """

    def __init__(self, source: Path | bytes, where: str, error: type[NnMeterError], advice: str = "") -> None:
        self._where, self._error, self._advice = where, error, advice
        with self._guard():
            self._file = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
        try:
            with self._guard():
                size = self._file.seek(0, os.SEEK_END)
                limits.ARCHIVE_BYTES.check(size, where, error)
                self._file.seek(max(0, size - _END_LONGEST))
                limits.ARCHIVE_MEMBERS.check(_members(self._file.read()), where, error)
                self._zip = zipfile.ZipFile(self._file)
                _check(self._zip, size, where, error)
        except BaseException:
            self._file.close()
            raise
        self.names = tuple(self._zip.namelist())
        self.unpacked_bytes = sum(member.file_size for member in self._zip.infolist())

    def read(self, name: str, limit: Limit = limits.FILE_BYTES) -> bytes:
        """The bytes of a member.

        Raises:
            error: there is none of that name, it is damaged or encrypted, or larger than ``limit``.
        """
        with self._guard(f"{legible(name)} cannot be read"):
            member = self._zip.getinfo(name)
            limit.check(member.file_size, f"{self._where}: {name}", self._error)
            return self._zip.read(member)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @contextmanager
    def _guard(self, what: str = "no zip that can be read") -> Iterator[None]:
        try:
            yield
        except _UNREADABLE as e:
            advice = f"; {self._advice}" if self._advice else ""
            raise self._error(f"{self._where}: {what} ({legible(reason(e))}){advice}") from e


def _members(tail: bytes) -> int:
    """How many members the end of a zip claims; reading more of its directory would cost time and memory first."""
    start = tail.rfind(b"PK\5\6")
    if start < 0 or len(tail) - start < _END.size:
        raise zipfile.BadZipFile("File is not a zip file")
    *_, entries, _, _, _ = _END.unpack_from(tail, start)
    return int(entries)


def _check(archive: zipfile.ZipFile, size: int, where: str, error: type[NnMeterError]) -> None:
    members = archive.infolist()
    limits.ARCHIVE_MEMBERS.check(len(members), where, error)
    unpacked = sum(member.file_size for member in members)
    limits.UNPACKED_BYTES.check(unpacked, where, error)
    if unpacked > max(limits.UNPACKED_RATIO * size, limits.UNPACKED_SMALL_BYTES):
        raise error(f"{where}: {size:,} bytes claim to unpack to {unpacked:,}; the zip is refused")
    seen = set()
    for member in members:
        name = member.filename
        if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
            raise error(f"{where}: the entry {legible(name)!r} leaves the zip's folder; the zip is refused")
        if member.compress_size > size:
            raise error(f"{where}: the entry {legible(name)!r} claims to be larger than the zip; the zip is refused")
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            what = "a link" if kind == stat.S_IFLNK else "no plain file"
            raise error(f"{where}: the entry {legible(name)!r} is {what}; the zip is refused")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # LZMA asks for gigabytes first
            raise error(f"{where}: the entry {legible(name)!r} is packed in a way that is not read; pack it deflated")
        if name in seen:
            raise error(f"{where}: the entry {legible(name)!r} is there twice; the zip is refused")
        seen.add(name)
