"""Current models, as their users export them, predict under every rule file, and no node is lost."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from nn_meter import frontends
from nn_meter.api import Predictor
from nn_meter.ir import Graph
from nn_meter.predictors.bundle import Bundle

SHARED = Path(__file__).parents[1] / ".." / "shared"
MODELS = sorted((SHARED / "models").glob("*.onnx"))
RULES = sorted((SHARED / "parity" / "rules").glob("*.json"))

pytestmark = pytest.mark.skipif(not MODELS, reason="the shared folder of models is not beside the repository")


@cache
def graph(path: Path) -> Graph:
    return frontends.read(path)


@pytest.mark.parametrize("rules", RULES, ids=lambda path: path.stem)
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.name.removesuffix(".onnx"))
def test_every_node_is_in_exactly_one_kernel(path: Path, rules: Path, legacy: Bundle) -> None:
    predictor = Predictor(replace(legacy, rules=json.loads(rules.read_text())))
    prediction = predictor.explain(graph(path))
    covered = Counter(node for each in prediction.kernels for node in each.kernel.nodes)
    assert covered == Counter(node.name for node in graph(path).nodes)
    assert prediction.latency_ms > 0
    parts_ms = sum(part.latency_ms for part in prediction.coverage.values())
    assert prediction.latency_ms == pytest.approx(parts_ms)
    for each in prediction.kernels:
        assert each.status == "predicted" or each.notes or each.kernel.free, (
            f"{each.kernel.label} does not say why"
        )
