"""Kernels of the corpus against what runtimes executed for it, as recorded: no further off than was accepted.

This is the ground that golden kernels stand on: those say what has changed, this says whether it is right. The table
``golden/fidelity.txt`` is written anew by ``NN_METER_ACCEPT=1``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from agreement import Agreement, agreement
from executed import HERE, MODELS, RUNTIMES, file_of, read

import nn_meter
from nn_meter import frontends
from nn_meter.kernels.rules import read_rules
from nn_meter.runtimes.fusion import fuse

TABLE = HERE / "golden" / "fidelity.txt"
LEAST = {"onnxruntime_cpu": (0.995, 0.995), "openvino_cpu": (0.86, 0.93)}
"""Precision and recall over the whole corpus that no acceptance may undercut."""


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, str], Agreement]:
    """How far kernels agree, by model and backend."""
    openvino = json.loads((HERE / "rules" / "openvino.json").read_text(encoding="utf-8"))
    rules = {
        "onnxruntime_cpu": read_rules(nn_meter.load_latency_predictor().bundle.rules),
        "openvino_cpu": read_rules(openvino),
    }
    result = {}
    for model in MODELS:
        graph = frontends.read(model)
        for backend, runtime in RUNTIMES.items():
            kernels = fuse(graph, rules[backend]).kernels
            result[model.stem, backend] = agreement(kernels, read(file_of(model, runtime)), backend, graph)
    if os.environ.get("NN_METER_ACCEPT"):
        TABLE.write_text(_table(result), encoding="utf-8")
    return result


def _table(found: dict[tuple[str, str], Agreement]) -> str:
    lines = [f"{'model':20} {'backend':16} {'ours':>6} {'truth':>6} {'both':>6} {'precision':>10} {'recall':>7}"]
    lines += [
        f"{model:20} {backend:16} {a.ours:6} {a.truth:6} {a.both:6} {a.precision:10.4f} {a.recall:7.4f}"
        for (model, backend), a in found.items()
    ]
    return "\n".join(lines) + "\n"


def accepted() -> dict[tuple[str, str], Agreement]:
    """The table's rows."""
    rows = [line.split() for line in TABLE.read_text(encoding="utf-8").splitlines()[1:]]
    return {(model, backend): Agreement(*map(int, counts[:3])) for model, backend, *counts in rows}


@pytest.mark.parametrize("backend", RUNTIMES)
@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.stem)
def test_no_kernel_is_further_off_than_was_accepted(
    model: Path, backend: str, found: dict[tuple[str, str], Agreement]
) -> None:
    now, before = found[model.stem, backend], accepted()[model.stem, backend]
    assert now.precision >= before.precision
    assert now.recall >= before.recall


@pytest.mark.parametrize("backend", RUNTIMES)
def test_the_corpus_as_a_whole_is_fused_as_the_runtime_does(
    backend: str, found: dict[tuple[str, str], Agreement]
) -> None:
    whole = sum((a for (_, each), a in found.items() if each == backend), Agreement(0, 0, 0))
    least_precision, least_recall = LEAST[backend]
    assert whole.precision >= least_precision
    assert whole.recall >= least_recall
