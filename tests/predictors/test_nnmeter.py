"""The engine of nn-Meter's terms."""

from __future__ import annotations

from typing import Any

import pytest

from nn_meter.frontends import nnmeter_ir
from nn_meter.ir import GraphBuilder
from nn_meter.kernels.rules import read_rules
from nn_meter.predictors.bundle import Bundle
from nn_meter.predictors.nnmeter import NnMeterEngine, _Kind


def convolution(channels: int) -> dict[str, Any]:
    b = GraphBuilder("conv")
    x = b.input((1, 3, 32, 32))
    y = b.op("Conv", x, b.weight((channels, 3, 3, 3)), kernel_shape=(3, 3), pads=(1, 1, 1, 1))
    return nnmeter_ir.write(b.graph(b.op("Relu", y)))


def test_forgetting_loses_no_answer(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Kind, "_REMEMBERED", 3)
    engine = NnMeterEngine(tiny, read_rules(tiny.rules, "tiny"))
    models = [convolution(channels) for channels in range(1, 9)]
    assert engine.latencies_ms(models[:3]) == [2.0] * 3  # known now; those beside them are too many to remember
    assert engine.latencies_ms(models) == [2.0] * 8
    assert engine.latencies_ms(models[4:6]) == [2.0] * 2
    assert [engine.explain(model, "conv").latency_ms for model in models] == [2.0] * 8
