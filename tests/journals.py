"""What a journal holds while another process has it, for tests and ``fuzz.kills``."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from pathlib import Path

Rows = dict[str, tuple[str, str, str | None]]
"""Key of a row to its item, state and result."""


def rows(journal: Path) -> Rows:
    """The rows of a journal, read from a copy, so that nobody is in the way of whoever holds it."""
    with tempfile.TemporaryDirectory() as folder:
        for end in ("", "-wal"):
            if Path(f"{journal}{end}").exists():
                shutil.copy(f"{journal}{end}", f"{folder}/copy{end}")
        if not Path(f"{folder}/copy").exists():
            return {}
        database = sqlite3.connect(f"{folder}/copy")
        try:
            found = database.execute("SELECT key, item, state, result FROM work").fetchall()
        except sqlite3.OperationalError:  # killed before its table was there
            return {}
        finally:
            database.close()
    items = [item for _, item, _, _ in found]
    assert len(set(items)) == len(items), f"{journal.name} holds an item twice"
    return {key: (item, state, result) for key, item, state, result in found}


def done(journal: Path) -> int:
    """How many items of a journal are over; none where it was written while it was copied."""
    try:
        return sum(state != "pending" for _, state, _ in rows(journal).values())
    except sqlite3.DatabaseError:
        return 0
