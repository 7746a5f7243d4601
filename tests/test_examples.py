"""The examples run, with little to do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import LONG_S

EXAMPLES = Path(__file__).parents[1] / "examples"


def ran(tmp_path: Path, *command: str) -> str:
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "NN_METER_HOME": str(tmp_path / "home"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    line = [sys.executable, *command]
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=LONG_S)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_the_evolutionary_search_keeps_its_limit(tmp_path: Path) -> None:
    said = ran(tmp_path, str(EXAMPLES / "evolutionary_search.py"), "--generations", "3", "--limit-ms", "3")
    found = re.fullmatch(r"widths \([\d, ]+\), depths \([\d, ]+\): ([\d.]+) ms, worth [\d.]+\n", said)
    assert found, said
    assert float(found[1]) <= 3


def test_the_block_table_is_near_whole_predictions(tmp_path: Path) -> None:
    said = ran(tmp_path, str(EXAMPLES / "block_table.py"), "--candidates", "1000", "--held", "8")
    found = re.search(r"median error ([\d.]+)%, largest [\d.]+%, rank correlation ([\d.]+)", said)
    assert found, said
    assert float(found[1]) < 10
    assert float(found[2]) > 0.9


def test_the_budget_is_a_test_that_passes(tmp_path: Path) -> None:
    said = ran(tmp_path, "-m", "pytest", "-p", "no:cacheprovider", str(EXAMPLES / "test_latency_budget.py"))
    assert "2 passed" in said


@pytest.mark.heavy
def test_optuna_finds_candidates_of_both_kinds(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    lines = ran(tmp_path, str(EXAMPLES / "optuna_objective.py"), "--trials", "12").splitlines()
    latencies_ms = [float(line.split()[0]) for line in lines]
    worths = [float(line.split()[3]) for line in lines]
    assert latencies_ms == sorted(latencies_ms)
    assert worths == sorted(worths)  # of candidates on the front, what takes longer is worth more
