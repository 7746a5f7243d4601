"""nn-Meter 2.0's answers are ours: kernels, columns, latencies; from its IR and from ONNX."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nn_meter.api import Predictor
from nn_meter.predictors.bundle import Bundle
from nn_meter.predictors.nnmeter_columns import kernel_name
from nn_meter.predictors.prediction import KernelPrediction, Prediction

SHARED = Path(__file__).parents[1] / ".." / "shared"
CASES = sorted(
    path.name.removesuffix(".json.gz") for path in (SHARED / "parity" / "expected").glob("*.json.gz")
)
RELATIVE = 1e-9

pytestmark = pytest.mark.skipif(
    not CASES, reason="the shared folder with nn-Meter's answers is not beside the repository"
)


def read(path: Path) -> Any:
    return json.loads(gzip.decompress(path.read_bytes()))


@pytest.fixture(scope="session")
def predictors(legacy: Bundle) -> dict[str, Predictor]:
    """The legacy predictor under each rule file."""
    rules = {path.stem: json.loads(path.read_text()) for path in (SHARED / "parity" / "rules").glob("*.json")}
    return {name: Predictor(replace(legacy, rules=parsed)) for name, parsed in rules.items()}


def shape_key(shapes: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(map(tuple, shapes))


def expected_kernels(case: dict[str, Any]) -> Counter[tuple[Any, ...]]:
    return Counter((k["op"], shape_key(k["input_tensors"])) for k in case["kernels"])


def our_kernels(prediction: Prediction) -> Counter[tuple[Any, ...]]:
    return Counter((k.kernel.label, shape_key(k.kernel.config.input_tensors)) for k in charged(prediction))  # type: ignore[attr-defined]


def charged(prediction: Prediction) -> list[KernelPrediction]:
    return [each for each in prediction.kernels if each.status != "free"]


def check(prediction: Prediction, total_ms: float, case: dict[str, Any]) -> None:
    assert our_kernels(prediction) == expected_kernels(case)
    rows = Counter((label, tuple(row)) for label, row in case["features"])
    ours = Counter((k.kernel.label, k.kernel.config.row) for k in charged(prediction))  # type: ignore[attr-defined]
    differing = {label for label, _ in (rows - ours)} | {label for label, _ in (ours - rows)}
    assert {kernel_name(label.split("-")) for label in differing} <= {None, *case["failed"]}
    for name, latencies_ms in case["per_kernel"].items():
        found = [
            k.latency_ms for k in charged(prediction) if k.kernel.kind == name and k.status == "predicted"
        ]
        assert sorted(found) == pytest.approx(sorted(latencies_ms), rel=RELATIVE)
    assert total_ms == prediction.latency_ms
    if case["latency"] is None:
        assert case["failed"]
        assert total_ms > 0
    else:
        assert total_ms == pytest.approx(case["latency"], rel=RELATIVE)


@pytest.mark.parametrize("name", CASES)
def test_ir_gives_the_answer_of_nn_meter(name: str, predictors: dict[str, Predictor]) -> None:
    case = read(SHARED / "parity" / "expected" / f"{name}.json.gz")
    path = SHARED / "parity" / "ir" / f"{case['model']}.json.gz"
    predictor = predictors[case["rules"]]
    check(predictor.explain(path), predictor.predict(read(path), "nnmeter-ir"), case)


@pytest.mark.parametrize("name", CASES)
def test_onnx_gives_the_answer_of_nn_meter(name: str, predictors: dict[str, Predictor]) -> None:
    case = read(SHARED / "parity" / "expected" / f"{name}.json.gz")
    path = SHARED / "parity" / "onnx" / f"{case['model']}.onnx"
    if not path.exists():
        pytest.skip(f"{case['model']} is shared as IR only")
    predictor = predictors[case["rules"]]
    check(predictor.explain(path), predictor.predict(path, "onnx"), case)
