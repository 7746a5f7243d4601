"""The store keeps what was appended, survives a kill, and says where a file is damaged."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nn_meter.datasets import Record, RecordStore
from nn_meter.errors import BuildError, StorageError

NAMES = ("records.jsonl", "records.jsonl.gz")
MEASURED = Record("conv", {"cin": 3, "kernel": [3, 3]}, latency_ms=1.25, provenance={"device": "here"})
FAILED = Record("fc", {"cin": 8}, failure="timed out after 5 s")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
configs = st.dictionaries(st.text(), json_values, max_size=4)
records = st.builds(Record, st.text(), configs, st.floats(0, 1e6), st.none(), configs) | st.builds(
    Record, st.text(), configs, st.none(), st.text(), configs
)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, deadline=None)
@given(batches=st.lists(st.lists(records, max_size=3), max_size=3))
def test_what_is_appended_is_read_in_order(
    tmp_path_factory: pytest.TempPathFactory, name: str, batches: list[list[Record]]
) -> None:
    path = tmp_path_factory.mktemp("store") / name
    for batch in batches:
        RecordStore(path).append(batch)
    assert list(RecordStore(path).read()) == [record for batch in batches for record in batch]


def test_no_file_holds_no_records(tmp_path: Path) -> None:
    assert list(RecordStore(tmp_path / "absent.jsonl").read()) == []


@pytest.mark.parametrize("name", NAMES)
def test_an_append_killed_at_any_byte_loses_nothing_before_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    RecordStore(path).append([MEASURED])
    first = path.stat().st_size
    RecordStore(path).append([FAILED])
    whole = path.read_bytes()
    for size in range(first, len(whole)):
        path.write_bytes(whole[:size])
        assert list(RecordStore(path).read()) == [MEASURED]
        RecordStore(path).append([FAILED])
        assert list(RecordStore(path).read()) == [MEASURED, FAILED]


def test_a_torn_end_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'{"kind":"co')
    with caplog.at_level(logging.WARNING):
        assert list(RecordStore(path).read()) == []
    assert caplog.messages == [f"{path}: the last 11 bytes are torn and left out"]


@pytest.mark.parametrize("line", [b"not json", b"{}", b"[]", b'{"kind":"a","config":{},"latency_ms":null}'])
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    store = RecordStore(tmp_path / "records.jsonl")
    store.append([MEASURED])
    with open(store.path, "ab") as file:
        file.write(line + b"\n")
    store.append([FAILED])
    with pytest.raises(BuildError, match=r"records\.jsonl: line 2 is no record .*; restore the file"):
        list(store.read())


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    store = RecordStore(tmp_path / "records.jsonl.gz")
    store.append([MEASURED])
    store.path.write_bytes(b"garbage" + store.path.read_bytes())
    with pytest.raises(BuildError, match=r"records\.jsonl\.gz: damaged at byte 0 .*; restore it from a copy"):
        list(store.read())
    with pytest.raises(BuildError, match="damaged at byte 0"):
        RecordStore(store.path).append([FAILED])


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = RecordStore(tmp_path / "file" / "records.jsonl")
    with pytest.raises(StorageError, match=r"records\.jsonl: cannot be written \(.*\); free space"):
        store.append([MEASURED])


def test_a_place_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot be read \(Is a directory\); check its permissions"):
        list(RecordStore(tmp_path).read())


@pytest.mark.parametrize("outcome", [{}, {"latency_ms": 1.0, "failure": "both"}])
def test_a_record_is_a_latency_or_a_failure(outcome: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="record of 'conv': give either latency_ms or failure"):
        Record("conv", {}, **outcome)


def test_what_json_cannot_hold_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    store = RecordStore(tmp_path / "records.jsonl")
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.append([MEASURED, Record("conv", {}, latency_ms=float("nan"))])
    assert list(store.read()) == []
