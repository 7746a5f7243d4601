"""A budget as a test: what the product promises about a model's latency fails the build that breaks it.

    pytest examples/test_latency_budget.py
"""

from __future__ import annotations

from pathlib import Path

import pytest

import nn_meter

MODEL = Path(__file__).with_name("small_net.onnx")
BUDGETS_MS = {"zen4cpu_onnxruntime132": 2.0, "pixel4_gpu_float_tflite": 20.0}
"""Predictor to what one inference may take."""


@pytest.mark.parametrize(("name", "budget_ms"), BUDGETS_MS.items())
def test_the_model_keeps_its_budget(name: str, budget_ms: float) -> None:
    prediction = nn_meter.load_latency_predictor(name).explain(MODEL)
    slowest = max(prediction.kernels, key=lambda each: each.latency_ms)
    assert prediction.latency_ms <= budget_ms, f"{prediction}; the slowest kernel is {slowest.kernel.nodes}"
