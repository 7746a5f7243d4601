"""The GPUs of data centres that ship: rows of the tables that they were fitted to, and families not seen."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from nn_meter.kernels.kinds import ConvConfig, GemmConfig, RowsConfig
from nn_meter.kernels.partition import Kernel, KernelConfig, Partition
from nn_meter.learning.sheets import IN_MODELS, speeds_of
from nn_meter.learning.training import train
from nn_meter.networks import published_neusight as neusight
from nn_meter.predictors.bundle import Bundle, load
from nn_meter.predictors.catalogue import SHIPPED
from nn_meter.predictors.runtime import GraphEngine
from nn_meter.runtimes import pytorch


def product(batch: int, m: int, k: int, n: int) -> tuple[str, KernelConfig]:
    """Of one, with weights."""
    return "matmul", GemmConfig(batch, m, k, n, batch == 1, (False, False), (), "float32")


def conv(n: int, cin: int, edge: int, cout: int) -> tuple[str, KernelConfig]:
    """3x3, padded."""
    size = (edge, edge)
    return "conv", ConvConfig(n, cin, size, cout, size, (3, 3), (1, 1), (1, 1), 1, (), "native", "float32")


def softmax(rows: int, length: int) -> tuple[str, KernelConfig]:
    """Over the last axis."""
    return "softmax", RowsConfig("Softmax", rows, length, 1, 1, "float32")


ROWS = [
    ("p4", product(1, 904, 335, 1694), 0.4309), ("p4", product(190, 47, 849, 190), 1.2687),
    ("p4", conv(12, 212, 5, 1491), 0.9763), ("p4", softmax(7610, 1532), 0.7389),
    ("p100", product(1, 697, 2147, 7496), 3.803), ("p100", product(148, 220, 182, 659), 1.5759),
    ("p100", conv(24, 81, 17, 439), 0.5633), ("p100", softmax(6524, 3148), 0.5797),
    ("v100", product(1, 1574, 1375, 1268), 0.5171), ("v100", product(173, 458, 74, 949), 1.6518),
    ("v100", conv(2, 1375, 5, 1081), 0.5854), ("v100", softmax(8706, 3606), 0.4671),
    ("t4", product(1, 835, 85, 7387), 0.4849), ("t4", product(186, 121, 450, 188), 1.0258),
    ("t4", conv(38, 1362, 10, 355), 4.8888), ("t4", softmax(6165, 3471), 0.9001),
    ("a100", product(1, 1630, 582, 2710), 0.424), ("a100", product(168, 798, 83, 178), 0.4115),
    ("a100", conv(11, 359, 23, 206), 0.4791), ("a100", softmax(12753, 3910), 0.4211),
]  # fmt: skip
"""Of each table the row at a third of those of 0.4 to 20 ms, what grew with the table taken off convolutions."""


@cache
def shipped(name: str) -> Bundle:
    """As it is in the archive."""
    return load(SHIPPED / "published.zip" / f"{name}_fp32_pytorch21")


@pytest.mark.parametrize(("name", "kernel", "measured_ms"), ROWS)
def test_rows_that_were_measured_are_answered(name: str, kernel: tuple[str, KernelConfig], measured_ms: float) -> None:
    kind, config = kernel
    answer = GraphEngine(shipped(name)).explain_partition(Partition("row", (Kernel(kind, config, (), "row"),)))
    in_models = float(str(shipped(name).environment.get(IN_MODELS, 1.0))) if kind != "softmax" else 1.0
    assert answer.kernels[0].status == "predicted"
    assert answer.kernels[0].latency_ms == pytest.approx(in_models * measured_ms, rel=0.2)


TABLES = Path(__file__).parents[2] / "shared" / "devices" / "neusight"


@pytest.mark.heavy
@pytest.mark.skipif(not TABLES.is_dir(), reason="the tables are not there")
@pytest.mark.parametrize("name", ["p100", "v100", "t4"])
def test_convolutions_of_families_held_out_are_within_ten_percent_in_the_mean(name: str) -> None:
    """With what grew with the table they were at 12 to 20; this draw of families is not that of the pages."""
    pytest.importorskip("sklearn")
    records = [r for r in neusight.read_kernels(TABLES, name).records if r.subject == "conv"]
    sheet = neusight.read_sheets(TABLES / "device_configs.json")[neusight.GPUS[name][1][0]]
    bundle = train(records, name=name, rules=pytorch.RULES, sheet=speeds_of(sheet))
    held = bundle.environment["held_out"]["conv"]  # type: ignore[call-overload,index]
    assert held["kernels"] > 300
    assert held["mean"] < 0.1
