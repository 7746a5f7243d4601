"""Kernels of the corpus under three rule files, word for word; and what holds whatever the words are.

``NN_METER_ACCEPT=1`` writes the golden files anew, for you to read in the diff: kernels, the nodes of each, why a
kernel is free, and for the predictor that ships its milliseconds.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path

import pytest
from executed import HERE, MODELS

import nn_meter
from nn_meter import frontends
from nn_meter.api import Predictor
from nn_meter.ir import Graph, Node
from nn_meter.kernels.kinds import KINDS
from nn_meter.predictors.bundle import Bundle
from nn_meter.predictors.prediction import KernelPrediction, Prediction

RULES = ("onnxruntime", "openvino", "nn_meter")
"""The predictor that ships; rules as detected on OpenVINO; nn-Meter's semantics."""


@cache
def graph(model: Path) -> Graph:
    return frontends.read(model)


@pytest.fixture(scope="session")
def predictors(tiny: Bundle) -> dict[str, Predictor]:
    """A predictor under each rule file; only that of ONNX Runtime has learned its milliseconds."""
    shipped = nn_meter.load_latency_predictor()
    rules = {name: json.loads((HERE / "rules" / f"{name}.json").read_text()) for name in RULES[1:]}
    return {
        "onnxruntime": shipped,
        "openvino": Predictor(replace(shipped.bundle, rules=rules["openvino"])),
        "nn_meter": Predictor(replace(tiny, rules=rules["nn_meter"])),
    }


Answers = dict[tuple[Path, str], Prediction]


@pytest.fixture(scope="session")
def answers(predictors: dict[str, Predictor]) -> Answers:
    return {(m, rules): p.explain(graph(m)) for m in MODELS for rules, p in predictors.items()}


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.stem)
def test_kernels_are_the_accepted_ones(model: Path, rules: str, answers: Answers) -> None:
    text = described(answers[model, rules], with_ms=rules == "onnxruntime")
    path = HERE / "golden" / f"{model.stem}.{rules}.txt"
    if os.environ.get("NN_METER_ACCEPT"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def described(answer: Prediction, with_ms: bool) -> str:
    """A line for each kernel, its nodes indented below; six digits of its milliseconds."""
    asked = [each for each in answer.kernels if not each.kernel.free]
    ms = f", {answer.latency_ms:.6g} ms" if with_ms else ""
    lines = [f"{len(asked)} kernels{ms}, {len(answer.kernels) - len(asked)} free"]
    for each in answer.kernels:
        lines += [_line(each, with_ms), *(f"    {node}" for node in each.kernel.nodes)]
    return "\n".join(lines) + "\n"


def _line(each: KernelPrediction, with_ms: bool) -> str:
    kernel = each.kernel
    if kernel.free:
        return f"free | {kernel.label} | {kernel.free}"
    line = f"{kernel.kind} | {kernel.label} | {kernel.config.describe()}"
    return f"{line} | {each.status} {each.latency_ms:.6g} ms" if with_ms else line


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.stem)
def test_every_node_is_in_one_kernel_and_the_parts_are_the_whole(model: Path, rules: str, answers: Answers) -> None:
    answer = answers[model, rules]
    covered = Counter(node for each in answer.kernels for node in each.kernel.nodes)
    assert covered == Counter(node.name for node in graph(model).nodes)
    parts_ms = sum(each.latency_ms for each in answer.kernels)
    assert answer.latency_ms == pytest.approx(answer.call_ms + parts_ms)
    assert {each.latency_ms for each in answer.kernels if each.kernel.free} <= {0.0}


@pytest.mark.parametrize("rules", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    "model",
    MODELS,
    ids=lambda path: path.stem,
)
def test_no_multiply_add_is_lost_or_made_up(model: Path, rules: str, answers: Answers) -> None:
    nodes = {node.name: node for node in graph(model).nodes}
    block = 16 if rules == "onnxruntime" else 1
    asked = 0
    for each in answers[model, rules].kernels:
        least = sum(products(nodes[name], graph(model)) for name in each.kernel.nodes)
        most = sum(products(nodes[name], graph(model), block) for name in each.kernel.nodes)
        if least:
            assert 2 * least <= flops(each) <= 2 * most, each.kernel
        asked += least
    assert asked > 1e6


def flops(each: KernelPrediction) -> float:
    """Floating-point operations of a kernel by the declaration of its kind."""
    return KINDS[each.kernel.kind].work(each.kernel.config).flops


def products(node: Node, graph: Graph, block: int = 1) -> int:
    """Multiply-adds of a node by the definition of its operator, channels of convolutions filled up to whole blocks; 0
    where it multiplies no matrices."""
    shapes = [graph.tensors[name].shape if name else () for name in node.inputs]
    if all(graph.tensors[name].const for name in node.inputs if name):
        return 0
    out = graph.tensors[node.outputs[0]].shape
    match node.op_type:
        case "Conv":
            cout, cin, *window = (*(-(-d // block) * block for d in shapes[1][:2]), *shapes[1][2:])
            return out[0] * cout * prod(out[2:]) * (cin if shapes[1][1] > 1 else 1) * prod(window)
        case "ConvTranspose":
            return prod(shapes[0]) * prod(shapes[1][1:])
        case "MatMul":
            return prod(out) * shapes[0][-1]
        case "Gemm":
            return prod(out) * shapes[0][0 if node.attrs.get("transA") else 1]
        case "LSTM":
            steps, batch = shapes[0][:2]
            return steps * batch * (prod(shapes[1]) + prod(shapes[2]))
    return 0
