"""A journal of work on disk, so that a build that is killed goes on where it stopped.

One SQLite file; one row for each item of work, keyed by what the item is. A result is committed before the
next item starts, and never replaced: nothing is lost, nothing is taken twice.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

from nn_meter.errors import BuildError, ModelError, StorageError
from nn_meter.measuring.isolation import Failure, FailureKind
from nn_meter.storage import Closing, Fields, legible, parse_json, shown, unwritable

T = TypeVar("T")

SCHEMA_VERSION = 2

_APPLICATION_ID = 0x6E6E4D74  # "nnMt": tells a journal from another program's database
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS work (
    position INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    item TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'failed')),
    result TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS work_by_state ON work (state, position);
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""
_UNWRITABLE = frozenset((sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN))
_DAMAGED = "move the file away and begin anew, or put back a copy of it"
_PATIENCE_S = 1.0
"""How long a journal that another process holds is waited for: one that was killed just now may still be ending."""
_LOCKED = frozenset((sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED))
_NOT_UNDERSTOOD = (
    ArithmeticError, AttributeError, LookupError, ModelError, RecursionError, TypeError, ValueError,
)  # fmt: skip
"""What comes of a result that holds something else than its reader takes it for."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One item of the journal: ``result`` is ``None`` while pending, a ``Failure`` where it failed."""

    key: str
    item: Mapping[str, Any]
    result: Mapping[str, Any] | Failure | None


def key_of(item: Mapping[str, Any]) -> str:
    """SHA-256 of the item's canonical JSON: sorted keys, no blanks."""
    return hashlib.sha256(_canonical(item).encode()).hexdigest()


class Journal(Closing):
    """The journal in the file ``path``, made where there is none; use it as a context manager.

    Raises:
        BuildError: the file is damaged, no journal, or one of another version.
        StorageError: the file cannot be written: disk full, read-only or locked. Every call may raise it;
            what was recorded before stays, and the same call goes through once there is space.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._guard():
            if "\0" in str(path):
                raise OSError("a path holds no NUL")
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=_PATIENCE_S)
        try:
            with self._guard():
                self._open()
        except BaseException:
            self._db.close()
            raise

    def add(self, items: Iterable[Mapping[str, Any]]) -> list[str]:
        """Note work to do; an item that is known already stays as it is. Returns the keys, in order."""
        rows = [(key_of(item), _canonical(item)) for item in items]
        with self._guard(), self._transaction():
            self._db.executemany("INSERT INTO work (key, item) VALUES (?, ?) ON CONFLICT (key) DO NOTHING", rows)
        return [key for key, _ in rows]

    def pending(self) -> list[Entry]:
        """Work that has no result yet, in the order in which it was added."""
        return self._entries("WHERE state = 'pending'")

    def record(self, key: str, result: Mapping[str, Any]) -> None:
        """Commit the result of a pending item.

        Raises:
            BuildError: the key is unknown, or its item is over already.
        """
        self._finish(key, "done", _canonical(result))

    def fail(self, key: str, failure: Failure) -> None:
        """Commit that a pending item failed, and why.

        Raises:
            BuildError: the key is unknown, or its item is over already.
        """
        self._finish(key, "failed", _canonical(asdict(failure)))

    def lost(self, failure: Failure) -> None:
        """Commit that the device was lost for a while, and when; ``losses`` counts these."""
        item = {"lost": datetime.now(UTC).isoformat()}
        with self._guard(), self._transaction():
            self._db.execute(
                "INSERT INTO work (key, item, state, result) VALUES (?, ?, 'failed', ?)",
                (key_of(item), _canonical(item), _canonical(asdict(failure))),
            )

    def losses(self) -> int:
        """How often the device was lost."""
        return sum("lost" in entry.item for entry in self.results())

    def find(self, key: str) -> Entry | None:
        """The item of that key, ``None`` where there is none."""
        return next(iter(self._entries("WHERE key = ?", key)), None)

    def results(self) -> list[Entry]:
        """Work that is over, failures included, in the order in which it was added."""
        return self._entries("WHERE state != 'pending'")

    def understood(self, entry: Entry, read: Callable[[Any], T]) -> T:
        """What ``read`` makes of the result of an entry.

        Raises:
            BuildError: it makes nothing of it: the row was altered, or another program wrote it.
        """
        try:
            return read(entry.result)
        except _NOT_UNDERSTOOD as error:
            text = legible(f"{type(error).__name__}: {error}")
            raise self._damaged(f"the result of {shown(dict(entry.item))} is none: {text}") from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _open(self) -> None:
        # before anything is read: the file is then ours until it is closed, or this process ends
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables:
            self._check()
        self._db.execute("PRAGMA journal_mode = WAL")
        # NORMAL survives a killed process; only a power cut can take the last commits.
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")

    def _check(self) -> None:
        application = self._db.execute("PRAGMA application_id").fetchone()[0]
        if application != _APPLICATION_ID:
            raise BuildError(f"{self._path}: another program's database, no journal; choose another file")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version != SCHEMA_VERSION:
            raise BuildError(
                f"{self._path}: a journal of version {version}, this nn-Meter reads {SCHEMA_VERSION}; "
                "go on with the nn-Meter that began it, or begin anew in another file"
            )
        verdict = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise self._damaged(verdict)

    def _entries(self, where: str, *given: str) -> list[Entry]:
        with self._guard():
            query = f"SELECT key, item, state, result FROM work {where} ORDER BY position"
            rows = self._db.execute(query, given).fetchall()
            return [self._entry(*row) for row in rows]

    def _entry(self, key: str, item: str, state: str, result: str | None) -> Entry:
        fields = self._fields(item)
        if result is None:
            return Entry(key, fields.values, None)
        told = self._fields(result)
        if state != "failed":
            return Entry(key, fields.values, told.values)
        kind = told.text("kind")
        if kind not in get_args(FailureKind):
            told.refuse("kind", f"one of {', '.join(get_args(FailureKind))}")
        return Entry(key, fields.values, Failure(cast(FailureKind, kind), told.text("reason")))

    def _fields(self, text: str) -> Fields:
        where = f"{self._path}: a row of the journal"
        return Fields(parse_json(text, where, BuildError, _DAMAGED, constants=True), where, BuildError, _DAMAGED)

    def _finish(self, key: str, state: str, result: str) -> None:
        with self._guard():
            changed = self._db.execute(
                "UPDATE work SET state = ?, result = ? WHERE key = ? AND state = 'pending'",
                (state, result, key),
            ).rowcount
        if changed != 1:
            raise BuildError(f"{self._path}: no pending item {key[:12]}; it is unknown, or was recorded before")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Translate what SQLite says."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _LOCKED:
                raise StorageError(
                    f"{self._path}: the journal is locked; another process writes it: wait for it, or choose another "
                    "name"
                ) from error
            if code in _UNWRITABLE:
                raise StorageError(
                    f"{self._path}: the journal cannot be written ({error}); free some space or choose "
                    "another folder, then go on: nothing recorded is lost"
                ) from error
            raise self._damaged(str(error)) from error
        except UnicodeDecodeError as error:  # as sqlite3 says of its own texts
            raise self._damaged(str(error)) from error
        except OSError as error:
            raise unwritable(self._path, error) from error

    def _damaged(self, reason: str) -> BuildError:
        return BuildError(f"{self._path}: the journal is damaged ({reason}); {_DAMAGED}")


def _canonical(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
