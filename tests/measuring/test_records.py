"""Records keep their circumstances, and come back from JSON as they were."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from nn_meter.devices.device import Device
from nn_meter.errors import BuildError
from nn_meter.ir import Graph, GraphBuilder
from nn_meter.kernels.rules import read_rules
from nn_meter.measuring import Measurement, wire
from nn_meter.measuring.records import Circumstances, MeasuredKernel, Record, read_records, write_records
from nn_meter.networks import FAMILIES
from nn_meter.runtimes.fusion import fuse

PHONE = Device("Phone 4", "Maker", "cpu", "Core A76", clock_khz=2_400_000, environment={"governor": None})
WHERE = Circumstances(PHONE, "tflite", "2.1", threads=2, statistic="mean", source="a table", licence="MIT")


def kernels() -> tuple[MeasuredKernel, ...]:
    found = fuse(FAMILIES["inverted"](3), read_rules({"runtime": "onnxruntime_cpu"})).kernels
    return tuple(MeasuredKernel(k.kind, k.config, 0.1, k.nodes) for k in found if not k.free)


def graph() -> Graph:
    b = GraphBuilder("g")
    return b.graph(b.op("Reshape", b.op("Relu", b.input((1, 3, 4))), b.const((3, 4))))


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    runs = Measurement((1.0, 1.5), (2.0,), (1, 1))
    records = [
        Record("net", WHERE, kernels(), runs, replace(runs, values_ms=(1.7, 1.8)), runs, "inverted", 0.25),
        Record("net", WHERE, whole=runs),
        Record.of_kernel(kernels()[0].kind, kernels()[0].config, 0.25, WHERE),
    ]
    write_records(records, tmp_path / "records.jsonl")
    assert list(read_records(tmp_path / "records.jsonl")) == records


def test_a_line_that_is_no_record_is_named(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write_records([Record.of_kernel(kernels()[0].kind, kernels()[0].config, 0.25, WHERE)], path)
    path.write_text(path.read_text() + '{"subject": "x"}\n')
    with pytest.raises(BuildError, match=r"records\.jsonl:2: no record of a measurement"):
        list(read_records(path))
    path.write_text(path.read_text().replace('"config": {"', '"config": {"of_old_'))
    with pytest.raises(BuildError, match=r"records\.jsonl:1: .*of_old_"):
        list(read_records(path))


def test_a_record_holds_a_latency() -> None:
    with pytest.raises(ValueError, match="holds no latency"):
        Record("net", WHERE)
    with pytest.raises(ValueError, match="0 or more"):
        Record.of_kernel(kernels()[0].kind, kernels()[0].config, -1.0, WHERE)


@dataclass(frozen=True)
class Mixed:
    graph: Graph
    models: Mapping[str, bytes]
    pair: tuple[int, str]
    many: frozenset[int]
    maybe: float | None = None
    loose: Any = None


def test_values_cross_by_their_types() -> None:
    given = Mixed(graph(), {"a": b"\x00\xff"}, (1, "x"), frozenset({2, 1}), 3.0, {"k": (1, (2.5, None))})
    assert wire.from_json(Mixed, json.loads(json.dumps(wire.to_json(given)))) == given


@pytest.mark.parametrize(
    ("kind", "data"),
    [(int, True), (int, 1.5), (str, 1), (float, "1"), (tuple[int, str], [1]), (Mapping[str, int], []),
     (Device, {"name": "x", "colour": "red"}), (Device, {"name": "x", "kind": "abacus"}), (int | str, [])],
)  # fmt: skip
def test_what_is_not_of_the_type_is_refused(kind: Any, data: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        wire.from_json(kind, data)


def test_what_cannot_be_read_back_is_not_written() -> None:
    with pytest.raises(TypeError, match="a object cannot be written"):
        wire.to_json({"x": object()})


@pytest.mark.parametrize(
    "values",
    [{"values_ms": (math.nan,)}, {"values_ms": (-1.0,)},
     {"values_ms": (math.inf,)}, {"values_ms": (1.0,), "rounds": (2,)}],
)  # fmt: skip
def test_a_latency_is_a_number_of_milliseconds(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a measurement"):
        Measurement(**values)


@pytest.mark.parametrize("latency_ms", [-1.0, math.nan, math.inf])
def test_so_is_that_of_a_kernel(latency_ms: float) -> None:
    with pytest.raises(ValueError, match="a latency is finite, 0 or more"):
        MeasuredKernel(kernels()[0].kind, kernels()[0].config, latency_ms)


def test_fields_of_configs_are_of_their_types() -> None:
    written = wire.to_json(MeasuredKernel(kernels()[0].kind, kernels()[0].config, 1.0))
    name = next(name for name, value in written["config"].items() if isinstance(value, int))
    with pytest.raises(TypeError):
        MeasuredKernel.from_json({**written, "config": {**written["config"], name: "x"}})
