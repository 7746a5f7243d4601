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
from nn_meter.detection import (
    POOLING,
    SOFTMAX,
    DetectionPlan,
    detect_rules,
    executed_decision,
    graphs_of,
    inserted,
)
from nn_meter.errors import BackendError, BuildError
from nn_meter.frontends import onnx
from nn_meter.ir.graph import Graph, Node, verify
from nn_meter.kernels.rules import read_rules
from nn_meter.kernels.testcases import CASES, Sizes
from nn_meter.report.rules import matrix, page, summary
from nn_meter.training.detect import MIN_ROUNDS

FUSED = frozenset({("Conv", "Relu"), ("Conv", "BatchNormalization"), ("BatchNormalization", "Relu"), ("Gemm", "Add")})
"""What the pretended runtime fuses: operators of neighbouring nodes."""

SHAPES = {"small": Sizes(hw=16, cin=16, cout=16, length=64, tokens=32, rows=4)}


@dataclass(frozen=True, slots=True)
class PretenderConfig:
    noise: float = 0.02
    shows: bool = True
    refused: frozenset[str] = frozenset()
    blocked: bool = False


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
        graph = self._graph(onnx.read(model) if isinstance(model, bytes) else model)
        self.prepared += 1
        moves = layout_changes(graph) if self.config.blocked else 0
        return PretenderPrepared(latency_ms(graph) + 0.01 * moves, self.config.noise)

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


BLOCKED = frozenset({"Conv", "AveragePool", "MaxPool", "GlobalMaxPool"})
"""Operators that the pretended runtime has for blocks of channels only; all others, for plain maps only."""


def layout_changes(graph: Graph) -> int:
    """Edges between an operator on blocks and one on plain maps, model inputs and outputs being plain."""
    changes = 0
    for node in graph.nodes:
        source = graph.producer.get(node.inputs[0])
        changes += (source is not None and source.op_type in BLOCKED) != (node.op_type in BLOCKED)
        changes += node.op_type in BLOCKED and node.outputs[0] in graph.outputs
    return changes


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
    assert evidence["runs"] >= MIN_ROUNDS
    assert evidence["shapes"]["small"]["kernels"] == {"ab": 4, "apb": 6, "aq": 5, "apq": 6, "ap": 5, "pp": 4}
    assert set(evidence["medians_ms"]) == {"ab", "apb", "aq", "apq", "ap", "apr", "pp"}


def test_a_chain_is_not_measured_where_its_beginning_does_not_fuse(tmp_path: Path) -> None:
    backend = Pretender()
    rules = detect_rules(
        plan("BF_conv_add", "BF_conv_add_relu"), journal=tmp_path / "j.sqlite", backend=backend
    )
    evidence = rules["BF_conv_add_relu"]["evidence"]
    assert (evidence["reason"], evidence["runs"]) == ("not measured: BF_conv_add does not hold", 0)


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
    nodes = {name: len(graph.nodes) for name, graph in graphs.items()}
    assert nodes["apb"] == nodes["ab"] + 1
    assert nodes["apq"] == nodes["aq"] + 1
    assert len(graphs["aq"].inputs) == len(graphs["ab"].inputs)
    for graph in graphs.values():
        assert {graph.consumers[name][0].op_type for name in graph.inputs} <= {"AveragePool", "Softmax", "Max"}
        assert {graph.producer[name].op_type for name in graph.outputs} <= {"GlobalMaxPool", "ReduceMax"}


@pytest.mark.parametrize(("family", "op_type"), [(POOLING, "AveragePool"), (SOFTMAX, "Softmax")])
def test_a_barrier_stands_before_every_reader(family: str, op_type: str) -> None:
    block = CASES["MON"].block(SHAPES["small"])
    between = block.nodes[0].outputs[0]
    barred = inserted(block, between, "p", family)
    assert [node.op_type for node in barred.consumers[between]] == [op_type]


def counted(first: int, second: int, saved: int) -> dict[str, int]:
    """Executed kernels of a case between barriers of which none is fused."""
    return {
        "pp": 3,
        "ap": 3 + first,
        "apb": 3 + first + second,
        "ab": 2 + first + second - saved,
        "aq": 3 + first,
        "apq": 4 + first,
    }


@pytest.mark.parametrize(
    ("first", "second", "saved", "inputs", "partly", "verdict"),
    [
        (1, 1, 1, 0, False, "fuses"),
        (1, 1, 0, 0, False, "does not"),
        (1, 4, 4, 0, False, "fuses"),
        (1, 4, 1, 0, False, "undecided"),
        (5, 1, 1, 0, False, "fuses"),
        (1, 0, 0, 0, False, "undecided"),
        (0, 1, 0, 0, False, "undecided"),
        (1, 2, 1, 1, False, "fuses"),
        (1, 3, 0, 0, True, "does not"),
        (1, 3, 1, 0, True, "fuses"),
    ],
)
def test_executed_kernels_decide(
    first: int, second: int, saved: int, inputs: int, partly: bool, verdict: str
) -> None:
    assert executed_decision(counted(first, second, saved), inputs, partly=partly).verdict == verdict


def test_a_product_that_keeps_its_layout_is_held_between_barriers_of_that_layout(tmp_path: Path) -> None:
    """Where two operators agree on a layout that poolings do not have, a pooling between them costs two changes."""
    cases = ("BF_convtrans_convtrans",)
    rules = detect_rules(
        plan(*cases, method="timing"), journal=tmp_path / "j.sqlite", backend=Pretender(PretenderConfig(blocked=True))
    )
    assert rules[cases[0]]["obey"] is False


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
