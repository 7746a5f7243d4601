"""``nn-meter detect-rules``: earlier measurements are gone on with or forgotten, and Ctrl-C says how to go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import nn_meter.detection
from nn_meter.detection import DetectionPlan

RULES = {"BF_conv_relu": {"obey": True, "latency": {}}}


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Where to write rules; detecting only leaves its journal behind."""

    def detect(plan: DetectionPlan, *, journal: Path, progress: object) -> dict[str, object]:
        journal.parent.mkdir(exist_ok=True)
        journal.write_text("begun" + journal.read_text() if journal.exists() else "begun")
        return RULES

    monkeypatch.setattr(nn_meter.detection, "detect_rules", detect)
    return ["detect-rules", "--backend", "replay", "-o", tmp_path / "rules.json"]


def test_earlier_measurements_are_not_mixed_in_silently(
    run: Callable[..., object], rules: list[object], home: Path
) -> None:
    home.mkdir(exist_ok=True)
    journal = home / "detections" / "replay.sqlite"
    assert run(*rules).code == 0
    again = run(*rules)
    assert again.code == 2
    assert "add --resume to go on with them, or --fresh to forget them" in again.err
    assert run(*rules, "--resume").code == 0
    assert journal.read_text() == "begunbegun"
    assert run(*rules, "--fresh").code == 0
    assert journal.read_text() == "begun"
    assert run(*rules, "--fresh", "--resume").code == 2


def test_an_interrupt_says_how_to_go_on(
    run: Callable[..., object], rules: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*asked: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(nn_meter.detection, "detect_rules", interrupted)
    stopped = run(*rules)
    assert stopped.code == 130
    assert stopped.err == "nn-meter: stopped; the same command with --resume goes on where it was\n"
    fresh = run(*rules, "--fresh")
    assert "with --resume in the place of --fresh goes on" in fresh.err
