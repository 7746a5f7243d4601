"""Rules of a pretended runtime are found from its latencies, from its graph, and from both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import ClassVar

import numpy as np
import pytest

from nn_meter.backends.base import ExecutedKernel, KernelTrace, Model
from nn_meter.detection import DetectionPlan, detect_rules, executed_decision, graphs_of, with_barrier
from nn_meter.errors import BackendError, BuildError
from nn_meter.ir.graph import Graph, Node, verify
from nn_meter.kernels.rules import read_rules
from nn_meter.kernels.testcases import CASES, Sizes
from nn_meter.report.rules import matrix, page, summary

FUSED = frozenset({("Conv", "Relu"), ("Conv", "BatchNormalization"), ("BatchNormalization", "Relu"), ("Gemm", "Add")})
"""What the pretended runtime fuses: operators of neighbouring nodes."""

SHAPES = {"small": Sizes(hw=16, cin=16, cout=16, length=64, tokens=32)}


@dataclass(frozen=True, slots=True)
class PretenderConfig:
    noise: float = 0.02
    shows: bool = True
    refused: frozenset[str] = frozenset()


class Pretender:
    """A runtime of known rules; a call, a pass over the output and an inference have a price."""

    name: ClassVar[str] = "pretender"
    config_type: ClassVar[type[PretenderConfig]] = PretenderConfig

    def __init__(self, config: PretenderConfig = PretenderConfig()) -> None:
        self.config = config
        self.prepared = 0

    def check(self) -> Mapping[str, str | int | float]:
        return {"runtime": "pretender", "runtime_version": "1", "device": "none"}

    def prepare(self, model: Model) -> PretenderPrepared:
        graph = self._graph(model)
        self.prepared += 1
        return PretenderPrepared(latency_ms(graph), self.config.noise)

    def fused(self, model: Model) -> list[ExecutedKernel]:
        if not self.config.shows:
            raise BackendError("pretender does not show its graph")
        graph = self._graph(model)
        return [
            ExecutedKernel(kernel[0].name, kernel[0].op_type, "", (), (), (), ()) for kernel in kernels(graph)
        ]

    def _graph(self, model: Model) -> Graph:
        assert isinstance(model, Graph)
        if any(node.op_type in self.config.refused for node in model.nodes):
            raise BackendError(f"pretender refuses {model.name}")
        return model


class PretenderPrepared:
    def __init__(self, true_ms: float, noise: float) -> None:
        self._true_ms = true_ms
        self._noise = noise
        self._rng = np.random.default_rng(round(true_ms * 1e6))

    def run(self, repeats: int) -> list[float]:
        slower = 1 + self._noise * self._rng.exponential(size=repeats)
        return [float(value) for value in self._true_ms * slower]

    def trace(self, repeats: int) -> list[KernelTrace]:
        raise BackendError("pretender does not trace")

    def close(self) -> None:
        pass

    def __enter__(self) -> PretenderPrepared:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def kernels(graph: Graph) -> list[list[Node]]:
    """Nodes joined to their producer where a rule says so and nobody else reads it."""
    home: dict[str, list[Node]] = {}
    found: list[list[Node]] = []
    for node in graph.nodes:
        source = graph.producer.get(node.inputs[0])
        alone = source is not None and len(graph.consumers[node.inputs[0]]) == 1
        if source is not None and alone and (source.op_type, node.op_type) in FUSED:
            home[node.name] = home[source.name]
            home[node.name].append(node)
        else:
            home[node.name] = [node]
            found.append(home[node.name])
    return found


def latency_ms(graph: Graph) -> float:
    arithmetic = {"Conv": 0.05, "Gemm": 0.03, "MaxPool": 0.01}
    total = 0.02
    for kernel in kernels(graph):
        total += 0.01 + sum(arithmetic.get(node.op_type, 0.0) for node in kernel)
    return total


def plan(*cases: str, **changes: object) -> DetectionPlan:
    base = DetectionPlan("pretender", budget_s=60.0, cases=cases, shapes=SHAPES, isolated=False)
    return replace(base, **changes)  # type: ignore[arg-type]


EXPECTED = {
    "BF_conv_relu": True,
    "BF_conv_bn": True,
    "BF_bn_relu": True,
    "BF_conv_conv": False,
    "BF_relu_relu": False,
    "BF_relu_conv": False,
    "BF_dwconv_relu": True,
    "BF_fc_add": True,
    "BF_fc_relu": False,
    "MON": False,
    "BF_conv_bn_relu": True,
    "BF_conv_bn_add": False,
    "BF_conv_add_relu": False,
}


@pytest.mark.parametrize("method", ["timing", "graph", "both"])
def test_known_rules_are_found(method: str, tmp_path: Path) -> None:
    cases = ("BF_conv_add", "BF_conv_relu", *EXPECTED)
    rules = detect_rules(
        plan(*dict.fromkeys(cases), method=method), journal=tmp_path / "j.sqlite", backend=Pretender()
    )
    assert {name: rules[name]["obey"] for name in EXPECTED} == EXPECTED


def test_rules_carry_their_evidence_and_can_be_read(tmp_path: Path) -> None:
    rules = detect_rules(plan("BF_conv_relu"), journal=tmp_path / "j.sqlite", backend=Pretender())
    assert read_rules(json.loads(json.dumps(rules))).fuses("conv", "relu")
    rule = rules["BF_conv_relu"]
    assert set(rule["latency"]) == {"conv", "relu", "ops", "block"}
    assert all(" +- " in text for text in rule["latency"].values())
    evidence = rule["evidence"]
    assert (evidence["verdict"], evidence["timing"], evidence["graph"]) == ("fuses", "fuses", "fuses")
    assert evidence["runs"] >= 10
    assert evidence["shapes"]["small"]["kernels"] == {"a": 1, "b": 1, "ab": 1}
    assert set(evidence["medians_ms"]) == {"a", "ab", "apb", "ap", "p", "apr", "b"}


def test_a_chain_is_not_measured_where_its_beginning_does_not_fuse(tmp_path: Path) -> None:
    backend = Pretender()
    rules = detect_rules(
        plan("BF_conv_add", "BF_conv_add_relu"), journal=tmp_path / "j.sqlite", backend=backend
    )
    assert rules["BF_conv_add_relu"]["evidence"]["reason"] == "not measured: BF_conv_add does not hold"
    assert backend.prepared == 7


def test_a_runtime_that_shows_nothing_is_decided_by_time(tmp_path: Path) -> None:
    backend = Pretender(PretenderConfig(shows=False))
    rules = detect_rules(plan("BF_conv_relu", "BF_conv_conv"), journal=tmp_path / "j.sqlite", backend=backend)
    assert [rules[name]["obey"] for name in ("BF_conv_relu", "BF_conv_conv")] == [True, False]
    assert rules["BF_conv_relu"]["evidence"]["graph"] is None


def test_what_the_runtime_refuses_stays_undecided_with_its_words(tmp_path: Path) -> None:
    backend = Pretender(PretenderConfig(refused=frozenset({"Conv"})))
    rules = detect_rules(plan("BF_conv_relu", "BF_fc_add"), journal=tmp_path / "j.sqlite", backend=backend)
    assert rules["BF_conv_relu"]["obey"] is None
    assert "pretender refuses" in rules["BF_conv_relu"]["evidence"]["reason"]
    assert rules["BF_fc_add"]["obey"] is True


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    asked = plan("BF_conv_relu", "BF_conv_conv")
    first = detect_rules(asked, journal=tmp_path / "j.sqlite", backend=Pretender())
    backend = Pretender()
    second = detect_rules(asked, journal=tmp_path / "j.sqlite", backend=backend)
    assert backend.prepared == 0
    assert {**first, "comment": ""} == {**second, "comment": ""}


def test_a_spent_budget_leaves_the_rest_undecided(tmp_path: Path) -> None:
    asked = plan("BF_conv_relu", "BF_conv_conv", budget_s=1e-9)
    rules = detect_rules(asked, journal=tmp_path / "j.sqlite", backend=Pretender())
    assert rules["BF_conv_conv"]["obey"] is None
    assert rules["BF_conv_conv"]["evidence"]["reason"] == "nothing was measured"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget_s": 0.0}, "a budget of 0 s measures nothing"),
        ({"method": "guess"}, "no method 'guess'; use one of timing, graph, both"),
        ({"cases": ("BF_x_y",)}, "no test case 'BF_x_y'"),
    ],
)
def test_a_plan_that_cannot_work_is_refused(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=message):
        detect_rules(plan("BF_conv_relu", **changes), journal=tmp_path / "j.sqlite", backend=Pretender())


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_every_case_gives_its_graphs(case: object) -> None:
    graphs = graphs_of(case, SHAPES["small"])  # type: ignore[arg-type]
    for graph in graphs.values():
        verify(graph)
    assert len(graphs["apb"].nodes) == len(graphs["ab"].nodes) + 1
    assert len(graphs["ap"].nodes) == len(graphs["a"].nodes) + 1


def test_a_barrier_stands_before_every_reader() -> None:
    block = CASES["MON"].block(SHAPES["small"])
    barred = with_barrier(block, block.nodes[0].outputs[0])
    assert [node.op_type for node in barred.consumers[block.nodes[0].outputs[0]]] == ["MaxPool"]


@pytest.mark.parametrize(
    ("kernels", "verdict"),
    [
        ({"a": 1, "b": 1, "ab": 1}, "fuses"),
        ({"a": 1, "b": 1, "ab": 2}, "does not"),
        ({"a": 1, "b": 4, "ab": 1}, "fuses"),
        ({"a": 1, "b": 4, "ab": 4}, "undecided"),
        ({"a": 5, "b": 1, "ab": 5}, "fuses"),
        ({"a": 1, "b": 0, "ab": 1}, "undecided"),
        ({"a": 1, "ap": 2, "apb": 5, "ab": 4}, "does not"),
        ({"a": 1, "ap": 2, "apb": 5, "ab": 3}, "fuses"),
    ],
)
def test_executed_kernels_decide(kernels: dict[str, int], verdict: str) -> None:
    assert executed_decision(kernels).verdict == verdict


@pytest.mark.parametrize("backend", ["onnxruntime_cpu", "openvino_cpu"])
@pytest.mark.heavy
def test_a_runtime_in_a_child_process_shows_what_it_fuses(backend: str, tmp_path: Path) -> None:
    pytest.importorskip(backend.removesuffix("_cpu"))
    cases = ("BF_conv_relu", "BF_conv_conv")
    asked = DetectionPlan(backend, cases=cases, method="graph", shapes=SHAPES)
    rules = detect_rules(asked, journal=tmp_path / "j.sqlite")
    assert [rules[name]["obey"] for name in cases] == [True, False]


def test_the_reports_show_each_rule(tmp_path: Path) -> None:
    rules = detect_rules(
        plan("BF_conv_relu", "BF_conv_conv", "BF_dwconv_relu", "MON"),
        journal=tmp_path / "j.sqlite",
        backend=Pretender(),
    )
    lines = matrix(rules).splitlines()
    assert lines[1].split() == ["conv", "-", "+"] or lines[1].split() == ["conv", "+", "-"]
    assert "MON: does not" in lines
    assert summary(rules) == (
        "4 rules: 2 fuse, 2 do not, 0 undecided; timing agrees with the executed graph in 4 of 4"
    )
    text = page(rules)
    assert all(name in text for name in ("BF_conv_relu", "BF_conv_conv", "MON"))
    assert "http" not in text


def test_a_rule_file_without_evidence_is_shown_too() -> None:
    rules = {"BF_conv_relu": {"obey": None}, "RT": {"obey": True}}
    assert "?" in matrix(rules)
    assert "<td" in page(rules)
