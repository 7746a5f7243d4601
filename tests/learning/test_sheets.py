"""A GPU that nobody measured is answered for by its data sheet, and every answer says that it is an estimate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nn_meter.devices.device import Device
from nn_meter.devices.sheet import Sheet, read_sheet
from nn_meter.errors import BuildError
from nn_meter.ir import Graph, GraphBuilder
from nn_meter.kernels.kinds import KINDS, GemmConfig
from nn_meter.kernels.schema import Encoder, encode
from nn_meter.learning.sheets import LEFT_OUT, alike, from_sheet, merged, speeds_of
from nn_meter.learning.training import train
from nn_meter.measuring import Circumstances, Record
from nn_meter.predictors import bundle as bundles
from nn_meter.predictors.bundle import Bundle
from nn_meter.predictors.parts import Roofline
from nn_meter.predictors.runtime import GraphEngine

pytest.importorskip("sklearn")

SHEETS = [
    Sheet("small", 4e12, 2e11, 20, 2e6),
    Sheet("middle", 8e12, 3e11, 40, 4e6),
    Sheet("large", 2e13, 1e12, 80, 8e6),
]
NEW = Sheet("new", 1.4e13, 6e11, 60, 6e6, source="a leaflet")


def true_ms(sheet: Sheet, c: GemmConfig) -> float:
    """A device that computes tiles of 128 by 64 in rounds."""
    rounds = np.ceil(np.ceil(c.m / 64) * np.ceil(c.n / 128) * c.batch / sheet.processors)
    return 0.01 + 1e3 * rounds * sheet.processors * 64 * 128 * c.k * 2 / sheet.flops_per_s / 0.8


def config(rng: np.random.Generator) -> GemmConfig:
    m, k, n = (int(2 ** rng.uniform(4, 11)) for _ in range(3))
    return GemmConfig(1, m, k, n, False, (False, False), (), "float32")


def gpu(sheet: Sheet, seed: int) -> Bundle:
    rng = np.random.default_rng(seed)
    around = Circumstances(Device(sheet.device, kind="gpu"), "pytorch", "2.1", statistic="mean")
    configs = [config(rng) for _ in range(400)]
    some = [replace(Record.of_kernel("matmul", c, true_ms(sheet, c), around), subject="bmm") for c in configs]
    return train(some, name=sheet.device, sheet=speeds_of(sheet))


@pytest.fixture(scope="module")
def gpus() -> list[Bundle]:
    return [gpu(sheet, seed) for seed, sheet in enumerate(SHEETS)]


def product(c: GemmConfig) -> Graph:
    b = GraphBuilder("product")
    x, y = b.input((c.m, c.k)), b.input((c.k, c.n))
    return b.graph(b.op("MatMul", x, y))


def test_a_data_sheet_gives_estimates_and_says_so(gpus: list[Bundle], tmp_path: Path) -> None:
    told = [replace(each, environment={LEFT_OUT: {"mean": 0.1, "log_low": -0.2, "log_high": 0.3}}) for each in gpus]
    bundles.save(from_sheet(NEW, told, name="new"), tmp_path / "new.zip")
    bundle = bundles.load(tmp_path / "new.zip")
    assert bundle.device == "new"
    assert any("a leaflet" in note for note in bundle.notes)
    assert any("small 10%" in note for note in bundle.notes)
    engine = GraphEngine(bundle)
    rng = np.random.default_rng(9)
    off = []
    for c in (config(rng) for _ in range(40)):
        answer = engine.explain(product(c))
        assert {k.status for k in answer.kernels} == {"estimated"}
        assert "data sheet" in answer.kernels[0].notes[0]
        assert answer.interval_ms == pytest.approx((answer.latency_ms * np.exp(-0.2), answer.latency_ms * np.exp(0.3)))
        off.append(abs(answer.latency_ms / true_ms(NEW, c) - 1))
    assert np.mean(off) < 0.2


def test_kernels_held_out_are_told_by_operator(gpus: list[Bundle]) -> None:
    held = gpus[0].environment["held_out"]["bmm"]
    assert 10 < held["kernels"] < 100
    assert held["median"] < 0.2


def test_merged_regressors_answer_the_geometric_mean(gpus: list[Bundle]) -> None:
    each = [bundle.kinds["matmul"] for bundle in gpus]
    encoder = Encoder(KINDS["matmul"], each[0].columns, each[0].categories, speeds_of(NEW))
    rows = np.array(encode([(encoder, config(np.random.default_rng(3)))]))
    one = merged(each)
    assert one.predict(rows) == pytest.approx(np.exp(np.mean([np.log(p.predict(rows)) for p in each], axis=0)))
    assert one.rows == 1200
    with pytest.raises(BuildError, match="different columns"):
        merged([each[0], replace(each[1], columns=each[1].columns[::-1])])


def test_boards_of_other_power_are_not_asked(gpus: list[Bundle]) -> None:
    told = [replace(each, environment={"board_watts": watts}) for each, watts in zip(gpus, (70, 250, 300), strict=True)]
    assert [each.name for each in alike(replace(NEW, board_watts=72), told)] == ["small"]
    assert [each.name for each in alike(replace(NEW, board_watts=700), told)] == ["middle", "large"]
    assert len(alike(NEW, told)) == len(alike(replace(NEW, board_watts=5), told)) == 3


def test_a_call_costs_what_it_does_on_all_hosts(gpus: list[Bundle]) -> None:
    calls_ms = (0.01, 0.03, 0.05)
    told = [
        replace(each, environment={"board_watts": watts}, fallback=replace(each.fallback, overhead_ms=call_ms))
        for each, watts, call_ms in zip(gpus, (70, 250, 300), calls_ms, strict=True)
    ]
    for watts in (72, 700):
        found = from_sheet(replace(NEW, board_watts=watts), told, name="new").fallback
        assert isinstance(found, Roofline)
        assert found.overhead_ms == 0.03


def test_only_measured_gpus_answer_for_others(gpus: list[Bundle]) -> None:
    with pytest.raises(BuildError, match="no predictor to start from"):
        from_sheet(NEW, [], name="new")
    with pytest.raises(BuildError, match="no predictor of a measured GPU"):
        from_sheet(NEW, [from_sheet(NEW, gpus, name="guessed")], name="new")
    with pytest.raises(BuildError, match="several runtimes"):
        from_sheet(NEW, [gpus[0], replace(gpus[1], dtype="float16")], name="new")


SHEET = "device: NVIDIA L4\npeak_tflops: 30.3\nbandwidth_gb_per_s: 300\nprocessors: 58\ncache_mb: 48\n"


def test_a_data_sheet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "l4.yaml"
    path.write_text(SHEET, encoding="utf-8")
    assert read_sheet(path) == Sheet("NVIDIA L4", 30.3e12, 300e9, 58, 48e6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("processors: 58", "processors: 0"), "'processors' is 0; it must be a whole number of at least 1"),
        (("peak_tflops: 30.3", "peak_tflops: -1"), "'peak_tflops' is -1"),
        (("cache_mb: 48\n", ""), "'cache_mb' is missing"),
        (("peak_tflops", "peak_gflops"), "'peak_gflops' is 30.3; it must be one of device, "),
        ((SHEET, "- 1\n"), "keys with values"),
    ],
)
def test_a_data_sheet_that_is_none_is_refused(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    path = tmp_path / "sheet.yaml"
    path.write_text(SHEET.replace(*change), encoding="utf-8")
    with pytest.raises(BuildError, match=said):
        read_sheet(path)
