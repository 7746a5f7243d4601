"""Every command of README does what README says: its blocks are run line by line, less those that a table names."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nn_meter.predictors.bundle import Bundle, save
from nn_meter.predictors.registration import register

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "small_net.onnx"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [line for language, block in BLOCKS if language == "sh" for line in block.splitlines() if line]

SKIPPED = {
    "python3 -m venv .venv": "installs from the network; .ci/run does it in a fresh clone",
    "scripts/test": "would run this test; .ci/run does it in a fresh clone",
    "pip install 'nn-meter[build]'": "installs from the network",
    "nn-meter build": "measures for twenty minutes; tests/test_building.py builds in seconds",
    "nn-meter detect-rules": "measures for minutes; tests/detection detects single rules",
}
"""Beginning of a command to why it is not run here."""

NAMED = ("cortexA76cpu_tflite21", "A", "B", "my_cpu")
"""Predictors that README asks; one that is registered under a published name is taken before it."""


def skipped(command: str) -> str:
    """Why a command is not run here, or nothing."""
    return next((why for start, why in SKIPPED.items() if command.startswith(start)), "")


@pytest.fixture
def place(tiny: Bundle, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with the files and a home with the predictors that README names."""
    place = tmp_path / "place"
    (place / "models").mkdir(parents=True)
    for name in ("model.onnx", "models/one.onnx", "models/two.onnx"):
        shutil.copy(EXAMPLE, place / name)
    for name in (*NAMED, "mine"):
        save(replace(tiny, name=name), tmp_path / f"{name}.zip")
        meta = place / ("meta.yaml" if name == "mine" else f"{name}.yaml")
        meta.write_text(f"name: {name}\nversion: 9.0\ncategory: cpu\npackage_location: {tmp_path / name}.zip\n")
        if name in NAMED:
            register(meta)
    monkeypatch.chdir(place)


@pytest.mark.parametrize("command", [each for each in COMMANDS if not skipped(each)])
@pytest.mark.usefixtures("place")
def test_a_command_of_readme_answers(command: str, run: Callable[..., Any]) -> None:
    if "--backend onnxruntime_cpu" in command:
        pytest.importorskip("onnxruntime")
    name, *arguments = shlex.split(command, comments=True)
    assert name == "nn-meter"
    before = set(Path().rglob("*"))
    result = run(*arguments)
    assert result.code == 0, result.err
    assert result.out or set(Path().rglob("*")) - before


@pytest.mark.parametrize("block", [block for language, block in BLOCKS if language == "python"])
@pytest.mark.usefixtures("place")
def test_the_python_of_readme_runs(block: str) -> None:
    exec(compile(block, "README.md", "exec"), {"variants": ["models/one.onnx", "models/two.onnx"]})


@pytest.mark.parametrize("start", SKIPPED)
def test_what_is_skipped_stands_in_readme(start: str) -> None:
    assert any(command.startswith(start) for command in COMMANDS)
