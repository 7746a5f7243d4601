"""Files are read with errors that say where, written whole or not at all, and held by one process at a time."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import stat
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from time import sleep

import pytest
from waiting import LONG_S

from nn_meter import storage
from nn_meter.errors import BuildError, InputError, StorageError

SEVEN = ["x"] * 7


def bomb(levels: int) -> str:
    """YAML whose last value stands for 7 ** ``levels`` values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x]"]
    lines += [f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 7)}]" for n in range(levels)]
    return "\n".join(lines)


def test_a_value_of_yaml_may_be_told_twice(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(bomb(1))
    assert storage.read_yaml(tmp_path / "f.yaml", "the file", InputError) == {"a0": SEVEN, "a1": [SEVEN] * 7}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (bomb(8), "values of YAML, aliases followed; at most 20,000"),
        ("a: &a [*a]", "values of YAML, aliases followed"),
        ("- x\n" * 200_000, "20,001 values of YAML, aliases followed; at most 20,000"),
        ("[" * 5000, "65 values of YAML within each other; at most 64"),
        ("- " * 5000, "65 values of YAML within each other; at most 64"),
        (f"1:{'5:' * 5000}5", "10,003 letters of a number of YAML; at most 4,300"),
        (f"1:{'5:' * 500}5.0", "not YAML"),
        ("!!bool x", "not YAML"),
        ("!!timestamp x", "not YAML"),
        ("!!int ''", "not YAML"),
        ("a: [", "not YAML .*line 1"),
        ("a: 2021-99-99", "not YAML"),
        ("!!python/object:os.system {}", "not YAML"),
        ("x" * (1 << 21), "2,097,152 bytes of YAML; at most 1,048,576"),
    ],
)
def test_yaml_that_stands_for_too_much_is_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "f.yaml").write_text(content)
    with pytest.raises(InputError, match=rf"f\.yaml: the file: .*{words}"):
        storage.read_yaml(tmp_path / "f.yaml", "the file", InputError)


@pytest.mark.parametrize("content", ["[" * 100_000, f"[{'9' * 5000}]", "[NaN]", "[-Infinity]", "{", b"\xff\xfe"])
def test_json_that_is_none_is_refused(content: str | bytes) -> None:
    with pytest.raises(BuildError, match=r"x: not JSON .*; mend it"):
        storage.parse_json(content, "x", BuildError, "mend it")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "absent", "a" * 5000, "a\0b"):
        with pytest.raises(InputError, match="the file cannot be read"):
            storage.read_bytes(path, "the file", InputError)


def test_an_error_names_file_key_and_what_it_must_be() -> None:
    fields = storage.Fields({"a": {"b": "x" * 10_000, "n": -1}}, "f.json", BuildError, "repair it").inner("a")
    with pytest.raises(BuildError, match=r"f\.json: 'a\.n' is -1; it must be a whole number; repair it"):
        fields.whole("n")
    with pytest.raises(BuildError, match=r"f\.json: 'a\.c' is missing; it must be a text"):
        fields.text("c")
    with pytest.raises(BuildError) as caught:
        fields.texts("b")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("conv_1/é 中文", "conv_1/é 中文"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[2J\x9b31m", r"\x1b[2J\x9b31m"),
        ("a\u202eb\u2028c\u2066", r"a\u202eb\u2028c\u2066"),
        ("\ud7ff\udc80", r"\ud7ff\udc80"),
        ("x" * 100_000, "x" * 200 + "... (100,000 letters)"),
    ],
)
def test_names_are_shown_on_one_line(text: str, shown: str) -> None:
    assert storage.legible(text) == shown


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    storage.write(tmp_path / "new" / "f", "one")
    with pytest.raises(ZeroDivisionError), storage.replacing(tmp_path / "new" / "f") as stage:
        stage.write_text("half" * (1 // 0))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["f"]
    assert (tmp_path / "new" / "f").read_text() == "one"
    (tmp_path / "link").symlink_to(tmp_path / "new" / "f")
    storage.write(tmp_path / "link", "two")
    assert (tmp_path / "new" / "f").read_text() == "two"
    for place in (tmp_path / "new" / "f" / "g", tmp_path / ("a" * 5000), "a\0b"):
        with pytest.raises(StorageError, match=r"cannot be written .*choose another place"):
            storage.write(place, "")
    with pytest.raises(StorageError, match="a path holds no NUL"), storage.replacing(Path("a\0b"), folder=True):
        pass


def test_a_file_takes_the_place_of_no_folder(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis").write_text("years")
    (tmp_path / "link").symlink_to(tmp_path / "d")
    for place in (tmp_path / "d", tmp_path / "link"):
        with pytest.raises(StorageError, match=r"cannot be written \(Is a directory\); .*choose another place"):
            storage.write(place, "")
        with pytest.raises(StorageError, match="Is a directory"), storage.replacing(place):
            pass
    assert (tmp_path / "d" / "thesis").read_text() == "years"


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    for content in ("one", "two"):
        with storage.replacing(tmp_path / "d", folder=True) as stage:
            (stage / content).write_text(content)
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["two"]
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_what_a_killed_process_left_goes_a_day_later(tmp_path: Path) -> None:
    left = []
    for _ in range(2):
        with storage.replacing(tmp_path / "f") as stage:
            stage.write_text("half")
            left.append(Path(shutil.copytree(stage.parent, f"{stage.parent}x")))
    yesterday = time.time() - 90_000
    os.utime(left[0], (yesterday, yesterday))
    storage.write(tmp_path / "f", "whole")
    assert sorted(tmp_path.iterdir()) == sorted((left[1], tmp_path / "f"))


def _hold(lock: Path, held: object, free: object) -> None:
    with storage.locked(lock):
        held.set()  # type: ignore[attr-defined]
        free.wait(LONG_S)  # type: ignore[attr-defined]


def test_a_lock_is_held_by_one_process_and_freed_by_its_end(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, free = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "lock", held, free), daemon=True)
    holder.start()
    assert held.wait(LONG_S)
    asked = 0

    def waiting() -> None:
        nonlocal asked
        asked += 1
        if asked == 2:
            holder.kill()

    with storage.locked(tmp_path / "lock", waiting):
        assert asked >= 2
    holder.join()


def _archive(path: Path, change: Callable[[zipfile.ZipFile], None]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good", "content")
        change(archive)
    return path


def _special(name: str, mode: int) -> Callable[[zipfile.ZipFile], None]:
    def add(archive: zipfile.ZipFile) -> None:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        archive.writestr(entry, "/etc/passwd")

    return add


def _packed(archive: zipfile.ZipFile) -> None:
    archive.writestr("packed", bytes(1000), compress_type=zipfile.ZIP_LZMA)


def _overlong(archive: zipfile.ZipFile) -> None:
    archive.writestr("long", bytes(1000))
    archive.getinfo("long").compress_size = 1 << 31


def _many(archive: zipfile.ZipFile) -> None:
    for number in range(10_001):
        archive.writestr(str(number), b"")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_special("link", stat.S_IFLNK | 0o777), "'link' is a link"),
        (_special("pipe", stat.S_IFIFO | 0o666), "'pipe' is no plain file"),
        (_special("../up", 0), "leaves the zip's folder"),
        (lambda archive: archive.writestr("big", bytes(64 << 20)), "claim to unpack to 67,108,871"),
        (_many, "10,002 files in one archive; at most 10,000"),
        (_packed, "'packed' is packed in a way that is not read"),
        (_overlong, "'long' claims to be larger than the zip"),
    ],
)
def test_a_hostile_archive_is_refused(tmp_path: Path, change: Callable[[zipfile.ZipFile], None], words: str) -> None:
    path = _archive(tmp_path / "a.zip", change)
    with pytest.raises(InputError, match=words):
        storage.Archive(path, "a.zip", InputError)


def test_members_are_read_and_their_damage_told(tmp_path: Path) -> None:
    path = _archive(tmp_path / "a.zip", lambda archive: None)
    with storage.Archive(path, "a.zip", InputError, "get another") as archive:
        assert (archive.names, archive.read("good")) == (("good",), b"content")
        with pytest.raises(InputError, match=r"a\.zip: bad cannot be read .*; get another"):
            archive.read("bad")
    torn = path.read_bytes()
    torn = torn[:35] + b"\xff\xff" + torn[37:]
    with pytest.raises(InputError, match=r"a\.zip: good cannot be read"):
        storage.Archive(torn, "a.zip", InputError).read("good")


def test_locks_of_threads_exclude_one_another(tmp_path: Path) -> None:
    count = 0

    def enter() -> None:
        nonlocal count
        for _ in range(10):
            with storage.locked(tmp_path / "lock"):
                seen = count
                sleep(0.0005)  # another thread inside would count from the same number
                count = seen + 1

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert count == 40
