"""Answers that were given, in SQLite: each with its page, the latest first."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from nn_meter.errors import StorageError

KEPT = 1000
"""So many answers are kept; the oldest go first."""

_TABLE = """
CREATE TABLE IF NOT EXISTS answers (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, at TEXT NOT NULL, model TEXT NOT NULL,
  totals TEXT NOT NULL, document BLOB NOT NULL, page BLOB NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """An answer in the list; ``totals`` are predictor and milliseconds."""

    id: str
    at: str
    model: str
    totals: tuple[tuple[str, float], ...]


class History:
    """The file ``path``, made where it is not there.

    Raises:
        StorageError: it cannot be written or is no such file; so do all calls.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._opened() as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute(_TABLE)

    def add(self, entry: Entry, document: str, page: str) -> None:
        """Keep an answer, and forget the oldest where there are too many."""
        packed = (zlib.compress(document.encode()), zlib.compress(page.encode()))
        with self._opened() as database:
            database.execute(
                "INSERT INTO answers (id, at, model, totals, document, page) VALUES (?, ?, ?, ?, ?, ?)",
                (entry.id, entry.at, entry.model, json.dumps(entry.totals), *packed),
            )
            database.execute(
                "DELETE FROM answers WHERE number <= (SELECT MAX(number) FROM answers) - ?", (KEPT,)
            )

    def entries(self, limit: int = 100) -> tuple[Entry, ...]:
        """The latest answers."""
        with self._opened() as database:
            rows = database.execute(
                "SELECT id, at, model, totals FROM answers ORDER BY number DESC LIMIT ?", (limit,)
            ).fetchall()
        return tuple(
            Entry(id, at, model, tuple((name, ms) for name, ms in json.loads(totals))) for id, at, model, totals in rows
        )

    def document(self, id: str) -> str | None:
        """An answer as JSON; ``None`` where it is not kept."""
        return self._stored("document", id)

    def page(self, id: str) -> str | None:
        """An answer's page; ``None`` where it is not kept."""
        return self._stored("page", id)

    def _stored(self, column: str, id: str) -> str | None:
        with self._opened() as database:
            row = database.execute(f"SELECT {column} FROM answers WHERE id = ?", (id,)).fetchone()
        return None if row is None else zlib.decompress(row[0]).decode()

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            database = sqlite3.connect(self._path, timeout=10)
            try:
                with database:
                    yield database
            finally:
                database.close()
        except sqlite3.Error as error:
            raise StorageError(f"{self._path}: the history cannot be used: {error}") from error


def now() -> str:
    """The time of an entry."""
    return datetime.now(UTC).isoformat(timespec="seconds")
