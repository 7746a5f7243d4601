"""Tables of measurements: a row that cannot be used is left out by its line, a file that is no table is an error."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from nn_meter.errors import BuildError
from nn_meter.limits import Limit
from nn_meter.networks import published, published_devices, published_phones
from nn_meter.networks.published import read_csv

ROWS = "model,latency_ms,batch\na.onnx,1.5,1\n"


@pytest.mark.parametrize("cell", ["²", "٣", "9" * 5000, "0", "-1", "x", "1_0"])
def test_a_row_whose_number_is_none_is_left_out(tmp_path: Path, cell: str) -> None:
    (tmp_path / "t.csv").write_text(f"{ROWS}b.onnx,2,{cell}\n", encoding="utf-8")
    found = read_csv(tmp_path / "t.csv")
    assert [record.subject for record in found.records] == ["a.onnx"]
    (left_out,) = found.left_out
    assert left_out.startswith("t.csv:3: batch is ")
    assert len(left_out) < 600


@pytest.mark.parametrize("features", ["{", "[]", "null", '{""Input_channel"": 1e999}', "[" * 50_000])
def test_a_row_whose_features_are_none_is_left_out(tmp_path: Path, features: str) -> None:
    table = f'model,operation,features,device,latency_ms,kernel\nm,CONV_2D,"{features}",pixel4,1,conv\n'
    (tmp_path / "t.csv").write_text(table)
    found = published_phones.read_gpu_kernels(tmp_path / "t.csv")
    assert not found.records
    assert len(found.left_out) == 1


def test_packed_tables_that_are_damaged_or_endless_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = gzip.compress(ROWS.encode())
    (tmp_path / "t.csv.gz").write_bytes(packed)
    assert len(read_csv(tmp_path / "t.csv.gz").records) == 1
    for damaged in (packed[:12] + b"\xff\xff" + packed[14:], packed[:-9], b"\x1f\x8b"):
        (tmp_path / "t.csv.gz").write_bytes(damaged)
        with pytest.raises(BuildError, match="cannot be read as a table"):
            read_csv(tmp_path / "t.csv.gz")
    monkeypatch.setattr(published, "FILE_BYTES", published.FILE_BYTES.__class__(1 << 20, "bytes in one file"))
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(bytes(1 << 21)))
    with pytest.raises(BuildError, match="unpacked: 1,048,577 bytes in one file; at most 1,048,576"):
        read_csv(tmp_path / "t.csv.gz")


def test_what_is_no_file_is_no_table(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for place in (tmp_path / "pipe.csv", "/dev/zero", tmp_path, "a\0b", tmp_path / "absent.csv"):
        with pytest.raises(BuildError, match="the table cannot be read"):
            read_csv(place)


def test_a_table_of_too_many_rows_or_columns_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a," * 200_000 + "model\n", encoding="utf-8")  # comparing each with each would take minutes
    with pytest.raises(BuildError, match="column a is there twice"):
        read_csv(path)
    path.write_text(",".join(f"c{number}" for number in range(100_000)) + ",model,latency_ms\n", encoding="utf-8")
    with pytest.raises(BuildError, match="unknown column c0, c1") as refused:
        read_csv(path)
    assert len(str(refused.value)) < 2000
    few = Limit(2, "measurements in one table")
    for module in (published, published_devices):
        monkeypatch.setattr(module, "TABLE_ROWS", few)
    path.write_text(ROWS + "a.onnx,1,1\n" * 2, encoding="utf-8")
    with pytest.raises(BuildError, match="3 measurements in one table; at most 2"):
        read_csv(path)
    path.write_text("model,p,q,r\na,1,2,3\n", encoding="utf-8")
    with pytest.raises(BuildError, match="3 measurements in one table; at most 2"):
        published_devices.read_wide(path)


def test_a_column_named_like_a_gpu_and_a_long_batch_is_a_device(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"model,1080ti_{'9' * 5000},1080ti_32\na,1,2\n", encoding="utf-8")
    long, short = (record.circumstances for record in published_devices.read_wide(path).records)
    assert (long.device.name[:8], long.batch) == ("1080ti_9", 1)
    assert (short.device.name, short.batch) == ("1080ti", 32)
