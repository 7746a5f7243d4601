"""``nn-meter measure`` and ``nn-meter evaluate`` on a pretended runtime."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nn_meter import backends, frontends
from nn_meter.backends.replay import ReplayBackend, ReplayConfig, ReplayPrepared

EXAMPLE = Path(__file__).parents[2] / "examples" / "small_net.onnx"
Run = Callable[..., Any]


class Replay(ReplayBackend):
    """Replays files too: their latency is that of their graph."""

    def prepare(self, model: Any) -> ReplayPrepared:
        return super().prepare(frontends.read(model) if isinstance(model, bytes) else model)


@pytest.fixture(autouse=True)
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "load", lambda name, **settings: Replay(ReplayConfig(us_per_kernel=1000)))


def test_measure_prints_quiet_and_median(run: Run) -> None:
    result = run("measure", EXAMPLE, "--seconds", "0.01")
    assert result.code == 0
    assert result.out.startswith("small_net: ")
    assert " ms quiet, " in result.out


def test_measure_writes_one_document_and_goes_on_after_a_bad_model(run: Run, folder: Path) -> None:
    result = run("measure", folder, "--seconds", "0.01", "--json")
    document = json.loads(result.out)
    assert result.code == 2
    assert [each["model"] for each in document["measurements"]] == ["a", "c"]
    assert [each["model"] for each in document["failed"]] == ["b"]
    assert document["measurements"][0]["quiet_ms"] > 0


def test_measure_needs_time(run: Run) -> None:
    result = run("measure", EXAMPLE, "--seconds", "0")
    assert (result.code, result.out) == (2, "")
    assert "give each model some time" in result.err


def test_evaluate_prints_a_table_and_writes_files(run: Run, tmp_path: Path) -> None:
    data, page = tmp_path / "e.json", tmp_path / "e.md"
    result = run("evaluate", "--predictor", "tiny_cpu", EXAMPLE, "--rounds", "2", "--budget", "1s",
                 "--json", data, "--markdown", page, "--resume", tmp_path / "journal")  # fmt: skip
    assert result.code == 0
    assert "small_net" in result.out
    assert json.loads(data.read_text())["models"][0]["predictor"] == "tiny_cpu 1.0"
    assert "nn-meter evaluate --predictor tiny_cpu --backend onnxruntime_cpu --rounds 2" in page.read_text()


def test_evaluate_says_which_model_failed(run: Run, folder: Path) -> None:
    result = run("evaluate", "--predictor", "tiny_cpu", folder, "--rounds", "2", "--budget", "1s")
    assert result.code == 1
    assert "failed:\n  b: " in result.out


def test_evaluate_refuses_a_single_round(run: Run) -> None:
    result = run("evaluate", "--predictor", "tiny_cpu", EXAMPLE, "--rounds", "1")
    assert result.code == 2
    assert "take at least 2, one early and one late" in result.err
