"""Nothing recorded is lost and nothing is taken twice, whatever kills the build."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import until

from nn_meter.errors import BuildError, StorageError
from nn_meter.measuring import Failure, Journal, key_of

ITEMS = [{"kind": "conv", "seed": number} for number in range(40)]

BUILD = """
import sys, time
from pathlib import Path
from nn_meter.measuring.journal import Journal
with Journal(Path(sys.argv[1])) as journal:
    journal.add([{"kind": "conv", "seed": number} for number in range(40)])
    for entry in journal.pending():
        with open(sys.argv[2], "a") as log:
            log.write(entry.key + "\\n")
        time.sleep(0.005)
        journal.record(entry.key, {"ms": entry.item["seed"]})
"""


def child(script: str, *arguments: str) -> subprocess.Popen[bytes]:
    source = str(Path(__file__).parents[2] / "src")
    environment = {**os.environ, "PYTHONPATH": source}
    return subprocess.Popen([sys.executable, "-c", script, *arguments], env=environment)


def size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def test_work_is_pending_until_it_is_recorded(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db") as journal:
        first, second, third = journal.add(ITEMS[:3])
        journal.record(first, {"ms": 1.5})
        journal.fail(second, Failure("timeout", "too slow"))
    with Journal(tmp_path / "journal.db") as journal:
        assert [entry.key for entry in journal.pending()] == [third]
        assert [entry.result for entry in journal.results()] == [{"ms": 1.5}, Failure("timeout", "too slow")]


def test_losses_of_the_device_are_noted_and_are_no_work(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db") as journal:
        journal.add(ITEMS[:1])
        for _ in range(2):
            journal.lost(Failure("lost", "the link was cut"))
    with Journal(tmp_path / "journal.db") as journal:
        assert journal.losses() == 2
        assert [entry.item for entry in journal.pending()] == ITEMS[:1]
        assert {entry.result for entry in journal.results()} == {Failure("lost", "the link was cut")}


def test_adding_again_changes_nothing(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db") as journal:
        key, _ = journal.add(ITEMS[:2])
        journal.record(key, {"ms": 1.0})
        journal.add(ITEMS[:3])
        assert [entry.item for entry in journal.pending()] == ITEMS[1:3]
        assert [entry.result for entry in journal.results()] == [{"ms": 1.0}]


def test_nothing_is_recorded_twice(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db") as journal:
        (key,) = journal.add(ITEMS[:1])
        journal.record(key, {"ms": 1.0})
        with pytest.raises(BuildError, match="no pending item"):
            journal.record(key, {"ms": 2.0})


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), min_size=2, max_size=5))
def test_a_key_does_not_depend_on_order(item: dict[str, int | str]) -> None:
    assert key_of(item) == key_of(dict(reversed(item.items())))


def killed(path: Path, log: Path, after_s: float) -> bool:
    """Whether a build was killed, so long after it took its first item: it may be over by then."""
    before = size(log)
    build = child(BUILD, str(path), str(log))
    until(lambda: build.poll() is not None or size(log) > before)
    time.sleep(after_s)
    build.send_signal(signal.SIGKILL)
    return build.wait() == -signal.SIGKILL


def test_a_build_killed_at_random_moments_ends_in_the_same_set(tmp_path: Path) -> None:
    path, log = tmp_path / "journal.db", tmp_path / "log"
    dice = random.Random(7)
    kills = sum(killed(path, log, dice.random() * 0.05) for _ in range(4))
    assert child(BUILD, str(path), str(log)).wait() == 0
    with Journal(path) as journal:
        assert journal.pending() == []
        assert [entry.result for entry in journal.results()] == [{"ms": item["seed"]} for item in ITEMS]
    begun = log.read_text().split()
    assert set(begun) == {key_of(item) for item in ITEMS}
    assert len(begun) <= len(ITEMS) + kills, "only what was under way at a kill is begun again"


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on file sizes")
def test_a_full_disk_is_an_error_and_work_goes_on_once_there_is_space(tmp_path: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
from nn_meter.errors import StorageError
from nn_meter.measuring.journal import Journal
journal = Journal(Path(sys.argv[1]))
first, second = journal.add([{"n": 1}, {"n": 2}])
journal.record(first, {"ms": 1})
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
try:
    journal.record(second, {"ms": 2, "padding": "x" * 100_000})
    sys.exit("the disk was not full")
except StorageError as error:
    assert "free some space" in str(error), error
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert [entry.key for entry in journal.pending()] == [second]
journal.record(second, {"ms": 2})
assert [entry.result for entry in journal.results()] == [{"ms": 1}, {"ms": 2}]
"""
    assert child(script, str(tmp_path / "journal.db")).wait() == 0


def test_a_damaged_journal_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"this was a journal once" * 100)
    with pytest.raises(BuildError, match=r"the journal is damaged .* move the file away and begin anew"):
        Journal(path)


def test_a_torn_journal_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with Journal(path) as journal:
        journal.add([{"kind": "conv", "seed": number, "text": "x" * 200} for number in range(200)])
    data = bytearray(path.read_bytes())
    data[8192:] = b"\x55" * (len(data) - 8192)
    path.write_bytes(bytes(data))
    with pytest.raises(BuildError, match="the journal is damaged"):
        Journal(path)


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE songs (title)")
    db.commit()
    db.close()
    with pytest.raises(BuildError, match="another program's database, no journal"):
        Journal(path)


def test_a_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    Journal(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(BuildError, match="a journal of version 99, this nn-Meter reads 2"):
        Journal(path)


def test_a_place_that_cannot_be_written_is_a_matter_of_storage(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in ("file/journal.db", "a" * 300):
        with pytest.raises(StorageError, match="cannot be written"):
            Journal(tmp_path / place)


def test_a_journal_is_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    with Journal(tmp_path / "new" / "journal.db"):
        again = child(BUILD, str(tmp_path / "new" / "journal.db"), str(tmp_path / "log"))
        assert again.wait() == 1
    assert not (tmp_path / "log").exists()
    with Journal(tmp_path / "new" / "journal.db"), pytest.raises(StorageError, match="another process writes it"):
        Journal(tmp_path / "new" / "journal.db")


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ("'{}'", "'kind' is missing"),
        ("'[]'", "must be keys with values, not a list"),
        ("""'{"kind":"x","reason":"y"}'""", "'kind' is 'x'; it must be one of crash"),
        ("""'{"kind":"crash","reason":1}'""", "'reason' is 1"),
        ("cast(x'7b22ff227d' as text)", "damaged|not JSON"),
        ("'" + "[" * 100_000 + "'", "not JSON"),
    ],
)
def test_a_damaged_row_says_what_to_do(tmp_path: Path, result: str, words: str) -> None:
    with Journal(tmp_path / "j") as journal:
        (key,) = journal.add(ITEMS[:1])
        journal.fail(key, Failure("crash", "x"))
    db = sqlite3.connect(tmp_path / "j")
    db.execute(f"UPDATE work SET result = {result}")
    db.commit()
    db.close()
    with Journal(tmp_path / "j") as journal, pytest.raises(BuildError, match=rf"({words}).*; move the file away"):
        journal.results()


def test_one_item_is_found_by_its_key(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db") as journal:
        first, second = journal.add(ITEMS[:2])
        journal.record(first, {"ms": 1.0})
        found = journal.find(first)
        assert found is not None
        assert found.result == {"ms": 1.0}
        pending = journal.find(second)
        assert pending is not None
        assert pending.result is None
        assert journal.find("x") is None


def test_a_result_that_is_none_names_its_item(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db") as journal:
        (key,) = journal.add(ITEMS[:1])
        journal.record(key, {"sm": 1.0})
        (entry,) = journal.results()
        with pytest.raises(BuildError, match=r"the result of \{.*'conv'.*\} is none: KeyError: 'ms'.* begin anew"):
            journal.understood(entry, lambda told: told["ms"])


def test_a_journal_whose_texts_are_damaged_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with Journal(path) as journal:
        journal.add(ITEMS)
    stored = path.read_bytes()
    path.write_bytes(stored.replace(b"state IN", b"\xfftate IN"))
    with pytest.raises(BuildError, match="the journal is damaged"):
        Journal(path)


def test_a_journal_where_no_path_can_be_is_said() -> None:
    with pytest.raises(StorageError, match="a path holds no NUL"):
        Journal(Path("a\0b"))
