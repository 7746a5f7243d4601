"""Records of what was measured, and the file that they are appended to."""

from __future__ import annotations

import gzip
import json
import logging
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nn_meter.errors import BuildError, StorageError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Record:
    """One kernel or network that was measured, or the reason why it could not be.

    ``kind`` is a kernel kind's key. ``config`` and ``provenance`` (device, runtime, date, source ...) hold
    what JSON can: text, numbers, booleans, ``None``, lists and mappings of them. Exactly one of
    ``latency_ms`` and ``failure`` (in words) is given.

    Raises:
        ValueError: both or neither of ``latency_ms`` and ``failure`` are given.
    """

    kind: str
    config: Mapping[str, Any]
    latency_ms: float | None = None
    failure: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.latency_ms is None) == (self.failure is None):
            raise ValueError(f"record of {self.kind!r}: give either latency_ms or failure")


class RecordStore:
    """Records in a file, one JSON object a line; ``.gz`` at the end of its name compresses it.

    The file is only ever appended to. A process that is killed while it writes leaves at most its last append
    torn: reading skips that, and the next append first cuts it off.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._compressed = self.path.suffix == ".gz"
        self._end_is_whole = False

    def append(self, records: Iterable[Record]) -> None:
        """Write ``records`` at the end, on disk before this returns.

        Raises:
            StorageError: the file cannot be written.
            BuildError: the file is damaged elsewhere than at its end.
        """
        lines = "".join(f"{_to_line(record)}\n" for record in records).encode()
        if not lines:
            return
        data = gzip.compress(lines, mtime=0) if self._compressed else lines
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab") as file:
                if not self._end_is_whole:
                    file.truncate(self._whole()[1])
                self._end_is_whole = False
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                self._end_is_whole = True
        except OSError as error:
            raise StorageError(
                f"{self.path}: cannot be written ({error.strerror}); free space or choose another folder"
            ) from error

    def read(self) -> Iterator[Record]:
        """The records in the order in which they were appended; none if the file does not exist.

        Raises:
            BuildError: a line that is no record, elsewhere than at the torn end; names the line.
            StorageError: the file cannot be read.
        """
        try:
            text, whole, size = self._whole()
        except OSError as error:
            raise StorageError(
                f"{self.path}: cannot be read ({error.strerror}); check its permissions"
            ) from error
        if whole < size:
            logger.warning("%s: the last %d bytes are torn and left out", self.path, size - whole)
        for number, line in enumerate(text.splitlines(), start=1):
            yield _from_line(line, self.path, number)

    def _whole(self) -> tuple[bytes, int, int]:
        """The lines written whole, how many bytes of the file hold them, and how many the file has."""
        data = self.path.read_bytes() if self.path.exists() else b""
        if self._compressed:
            text, whole = _members(data, self.path)
        else:
            whole = data.rfind(b"\n") + 1
            text = data[:whole]
        return text, whole, len(data)


def _members(data: bytes, path: Path) -> tuple[bytes, int]:
    """What the whole gzip members of ``data`` hold, and how many bytes those take."""
    text, whole = [], 0
    while whole < len(data):
        member = zlib.decompressobj(wbits=31)
        try:
            lines = member.decompress(data[whole:])
        except zlib.error as error:
            raise BuildError(
                f"{path}: damaged at byte {whole} ({error}); restore it from a copy, or remove it"
            ) from error
        if not member.eof:
            break
        text.append(lines)
        whole = len(data) - len(member.unused_data)
    return b"".join(text), whole


def _to_line(record: Record) -> str:
    row = {
        "kind": record.kind,
        "config": dict(record.config),
        "latency_ms": record.latency_ms,
        "failure": record.failure,
        "provenance": dict(record.provenance),
    }
    return json.dumps(row, separators=(",", ":"), allow_nan=False)


def _from_line(line: bytes, path: Path, number: int) -> Record:
    try:
        row = json.loads(line)
        return Record(
            kind=row["kind"],
            config=row["config"],
            latency_ms=row["latency_ms"],
            failure=row["failure"],
            provenance=row["provenance"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BuildError(
            f"{path}: line {number} is no record ({type(error).__name__}: {error}); "
            "restore the file from a copy, or remove that line"
        ) from error
