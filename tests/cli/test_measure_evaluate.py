"""``nn-meter measure`` and ``nn-meter evaluate`` on a pretended runtime."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nn_meter.networks.published import read_csv

EXAMPLE = Path(__file__).parents[2] / "examples" / "small_net.onnx"
Run = Callable[..., Any]


def test_measure_prints_quiet_and_median(run: Run) -> None:
    result = run("measure", EXAMPLE, "--backend", "replay", "--seconds", "0.01")
    assert result.code == 0
    assert result.out.startswith("small_net: ")
    assert " ms quiet, " in result.out


def test_measure_writes_one_document_and_goes_on_after_a_bad_model(run: Run, folder: Path) -> None:
    result = run("measure", folder, "--backend", "replay", "--seconds", "0.01", "--json")
    document = json.loads(result.out)
    assert result.code == 2
    assert [each["model"] for each in document["measurements"]] == ["a", "c"]
    assert [each["model"] for each in document["failed"]] == ["b"]
    assert document["measurements"][0]["quiet_ms"] > 0


def test_measure_writes_a_table_that_adapt_takes(run: Run, tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    result = run("measure", EXAMPLE, "--backend", "replay", "--seconds", "0.01", "--csv", table)
    assert result.code == 0
    (record,) = read_csv(table).records
    assert (record.subject, record.circumstances.statistic) == (str(EXAMPLE), "quiet")
    assert f"{record.whole.median_ms:.4f} ms quiet" in result.out


def test_a_table_says_nothing_of_inputs(run: Run, tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    result = run("measure", EXAMPLE, "--backend", "replay", "--csv", table, "--batch-size", "2")
    assert (result.code, table.exists()) == (2, False)
    assert "leave out --csv" in result.err


def test_measure_needs_time(run: Run) -> None:
    result = run("measure", EXAMPLE, "--backend", "replay", "--seconds", "0")
    assert (result.code, result.out) == (2, "")
    assert "give each model some time" in result.err


def test_evaluate_prints_a_table_and_writes_files(run: Run, tmp_path: Path) -> None:
    data, page = tmp_path / "e.json", tmp_path / "e.md"
    result = run("evaluate", "--predictor", "tiny_cpu", "--backend", "replay", EXAMPLE, "--rounds", "2",
                 "--budget", "1s", "--json", data, "--markdown", page, "--resume", tmp_path / "journal")  # fmt: skip
    assert result.code == 0
    assert "small_net" in result.out
    assert json.loads(data.read_text())["models"][0]["predictor"] == "tiny_cpu 1.0"
    assert "nn-meter evaluate --predictor tiny_cpu --backend replay --rounds 2" in page.read_text()


def test_a_backend_without_a_setting_says_which_it_has(run: Run) -> None:
    for command in (["measure", EXAMPLE], ["build"], ["evaluate", "--predictor", "tiny_cpu", EXAMPLE]):
        result = run(*command, "--backend", "replay", "--threads", "2")
        assert (result.code, result.out) == (2, "")
        assert "backend 'replay' has no setting 'threads'; it has recorded_ms" in result.err


def test_evaluate_writes_its_files_before_it_prints(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, file: object = None) -> None:
        if file is None:
            raise KeyboardInterrupt

    monkeypatch.setattr("builtins.print", broken)
    result = run("evaluate", "--predictor", "tiny_cpu", "--backend", "replay", EXAMPLE, "--rounds", "2",
                 "--json", tmp_path / "e.json")  # fmt: skip
    assert result.code == 130
    assert json.loads((tmp_path / "e.json").read_text())["models"]


def test_evaluate_says_which_model_failed(run: Run, folder: Path) -> None:
    result = run("evaluate", "--predictor", "tiny_cpu", "--backend", "replay", folder, "--rounds", "2")
    assert result.code == 1
    assert "failed:\n  b: " in result.out


def test_evaluate_refuses_a_single_round(run: Run) -> None:
    result = run("evaluate", "--predictor", "tiny_cpu", "--backend", "replay", EXAMPLE, "--rounds", "1")
    assert result.code == 2
    assert "take at least 2, one early and one late" in result.err
