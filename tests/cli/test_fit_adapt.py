"""``nn-meter fit --sheet`` and ``nn-meter adapt --known``: a GPU by its data sheet, a device by tables of others."""

from __future__ import annotations

import csv
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

SHEET = "device: NVIDIA L4\npeak_tflops: 30.3\nbandwidth_gb_per_s: 300\nprocessors: 58\ncache_mb: 48\nsource: NVIDIA\n"
NETWORKS = {f"{a} {b} {c}": (a, b, c) for a, b, c in product(range(4), repeat=3)}
COSTS = {"phone": (1, 2, 3), "board": (3, 1, 1), "server": (1, 1, 4), "watch": (4, 5, 6)}


def latency_ms(name: str, costs: tuple[int, ...]) -> float:
    return 5.0 + sum(cost * each for cost, each in zip(costs, NETWORKS[name], strict=True))


def test_a_gpu_is_estimated_from_its_data_sheet(run: Callable[..., object], tmp_path: Path) -> None:
    sheet, model = tmp_path / "l4.yaml", Path(__file__).parents[2] / "examples" / "small_net.onnx"
    sheet.write_text(SHEET, encoding="utf-8")
    said = run("fit", "--sheet", sheet, "--name", "l4")
    assert said.code == 0
    assert "estimated: nobody measured NVIDIA L4; its data sheet (NVIDIA)" in said.out
    assert "NVIDIA Tesla T4" in said.out
    answer = run("predict", "--predictor", "l4", model)
    assert answer.code == 0
    assert run("predict", "--strict", "--predictor", "l4", model).code != 0


def test_less_than_no_models_cannot_be_suggested(run: Callable[..., object], known: Path, tmp_path: Path) -> None:
    said = run("adapt", "--measured", known, "--known", known, "--name", "m", "-o", tmp_path / "o", "--suggest", -5)
    assert said.code == 2
    assert "--suggest -5: a number of models to name, 0 for none" in said.err


def test_a_sheet_and_tables_are_one_too_many(run: Callable[..., object], tmp_path: Path) -> None:
    for arguments in ((), ("table.csv", "--sheet", tmp_path / "l4.yaml")):
        said = run("fit", *arguments, "--name", "l4")
        assert said.code == 2
        assert "one of them" in said.err


@pytest.fixture
def known(tmp_path: Path) -> Path:
    path = tmp_path / "known.csv"
    rows = [",".join([name, *(f"{latency_ms(name, costs)}" for costs in COSTS.values())]) for name in NETWORKS]
    path.write_text("\n".join([f"architecture,{','.join(COSTS)}", *rows]), encoding="utf-8")
    return path


def test_a_device_is_adapted_to_by_tables_of_others(run: Callable[..., object], known: Path, tmp_path: Path) -> None:
    mine, out, costs = tmp_path / "mine.csv", tmp_path / "predicted.csv", (2, 3, 2)
    mine.write_text("model,latency_ms\n", encoding="utf-8")
    first = run("adapt", "--measured", mine, "--known", known, "--name", "mine", "-o", out, "--suggest", 8)
    asked = [line.split(": ")[1] for line in first.out.splitlines() if "measure next" in line]
    assert len(asked) == 8
    lines = [f"{name},{latency_ms(name, costs)}" for name in asked]
    mine.write_text("\n".join(["model,latency_ms", *lines, "another,3"]), encoding="utf-8")
    said = run("adapt", "--measured", mine, "--known", known, "--name", "mine", "-o", out, "--suggest", 2)
    assert said.code == 0
    assert f"{len(NETWORKS)} networks predicted from 8 measured and 4 known devices" in said.out
    assert not {line.split(": ")[1] for line in said.out.splitlines() if "measure next" in line} & {*asked}
    assert "1 measured networks are not in the known tables" in said.err
    with out.open(encoding="utf-8") as file:
        answer = {row["model"]: float(row["latency_ms"]) for row in csv.DictReader(file)}
    assert all(answer[name] == pytest.approx(latency_ms(name, costs), rel=0.2) for name in NETWORKS)


def test_what_cannot_be_adapted_to_is_said(run: Callable[..., object], known: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text("model,latency_ms\n0 0 0,5\n", encoding="utf-8")
    said = run("adapt", "--measured", mine, "--known", known, "--name", "mine")
    assert (said.code, "--output" in said.err) == (2, True)
    said = run("adapt", "--measured", mine, "--known", mine, "--name", "mine", "-o", tmp_path / "out.csv")
    assert (said.code, "devices do not show" in said.err) == (2, True)


def test_a_network_of_a_table_cannot_begin_a_line(run: Callable[..., object], tmp_path: Path) -> None:
    forged = "\n(nn-Meter) [RESULT] predict latency for y: 0.001 ms"
    known, mine, out = (tmp_path / name for name in ("known.csv", "mine.csv", "out.csv"))
    rows = [[f"net {number}{forged}", number + 1, number + 2, 2 * number + 1] for number in range(4)]
    with known.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["model", "phone", "board", "watch"], *rows])
    mine.write_text("model,latency_ms\n", encoding="utf-8")
    said = run("adapt", "--measured", mine, "--known", known, "--name", "mine", "-o", out, "--suggest", 2)
    assert said.code == 0
    assert said.out.count("measure next: net ") == 2
    assert not any(line.startswith("(nn-Meter) [RESULT]") for line in said.out.splitlines())


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("model,ms\na,1\n", "no column of latencies"),
        ("model,latency_ms,latency_us\na,1,1\n", "in 2 units"),
        ("model,latency_ms\nnowhere.onnx,1\n", "can be read: nowhere.onnx: no such file"),
        ("model,latency_ms\na.onnx,-1\nb.onnx,0\nc.onnx,1e15\nd.onnx,nan\n", "4 rows left out of 4"),
    ],
)
def test_bad_tables_end_both_commands_and_register_nothing(
    run: Callable[..., object], tmp_path: Path, rows: str, said: str
) -> None:
    table = tmp_path / "table.csv"
    table.write_text(rows, encoding="utf-8")
    for command in (("fit", table), ("adapt", "--measured", table)):
        answer = run(*command, "--name", "of_a_bad_table", "--runtime", "tflite", "-o", tmp_path / "out")
        assert answer.code == 2
        assert said in answer.err
        assert not (tmp_path / "out").exists()
    assert "of_a_bad_table" not in run("--list-predictors").out
