"""The engine of graphs: rows by name, codes that a bundle froze, and what lies outside of what was learned."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from test_trees import STUMP

import nn_meter
from nn_meter.errors import BundleError
from nn_meter.ir import Graph, GraphBuilder
from nn_meter.kernels.kinds import KINDS
from nn_meter.kernels.schema import SCHEMA, Operator, Speeds, encode
from nn_meter.networks import FAMILIES
from nn_meter.predictors import runtime
from nn_meter.predictors.bundle import Bundle, load
from nn_meter.predictors.kind import KindPredictor
from nn_meter.predictors.parts import Roofline
from nn_meter.predictors.runtime import GraphEngine, KindAnswers

ALL_SHIPPED = sorted((Path(nn_meter.__file__).parent / "predictors" / "shipped").glob("*/bundle.json"))
SHIPPED = Path(nn_meter.__file__).parent / "predictors" / "shipped" / "zen4cpu_onnxruntime132"
SPEEDS = Speeds(1e11, 1e10, 0.002)


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return load(SHIPPED)


@pytest.fixture(scope="module")
def graphs() -> list[Graph]:
    return [FAMILIES[family](3) for family in sorted(FAMILIES)]


def elementwise(op: str, size: int = 1000) -> Graph:
    b = GraphBuilder(op)
    return b.graph(b.op(op, b.input((size,))))


def without(predictor: KindPredictor, name: str) -> KindPredictor:
    """As if it had been trained before there was an operator of that name."""
    codes = {other: code for other, code in predictor.categories["op"].items() if other != name}
    return replace(predictor, categories={"op": codes})


@pytest.mark.parametrize("path", ALL_SHIPPED, ids=lambda path: path.parent.name)
def test_each_kind_of_what_ships_asks_for_columns_that_there_are(path: Path) -> None:
    """A kind that no model of a test holds would else be found out by whoever has one that does."""
    bundle = load(path.parent)
    if bundle.schema == SCHEMA:
        for kind, predictor in bundle.kinds.items():
            assert KindAnswers(kind, predictor, SPEEDS).predictor is predictor


def test_an_operator_more_in_a_kind_changes_nothing_that_was_learned(
    shipped: Bundle, graphs: list[Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = GraphEngine(shipped).latencies_ms(graphs)
    more = {name: replace(kind, operators=("Aardvark", *kind.operators)) for name, kind in KINDS.items()}
    monkeypatch.setattr(runtime, "KINDS", more)
    assert GraphEngine(shipped).latencies_ms(graphs) == before


def test_a_bundle_without_codes_of_its_own_gives_the_same_bits(
    shipped: Bundle, graphs: list[Graph], tmp_path: Path
) -> None:
    shutil.copytree(SHIPPED, tmp_path / "old")
    manifest = json.loads((SHIPPED / "bundle.json").read_text())
    for kind in manifest["kinds"].values():
        del kind["categories"], kind["seen"]
    (tmp_path / "old" / "bundle.json").write_text(json.dumps(manifest))
    old = load(tmp_path / "old")
    assert {k: p.categories for k, p in old.kinds.items()} == {k: p.categories for k, p in shipped.kinds.items()}
    assert GraphEngine(old).latencies_ms(graphs) == GraphEngine(shipped).latencies_ms(graphs)


def test_what_was_not_seen_in_training_is_said(shipped: Bundle) -> None:
    unary = shipped.kinds["unary"]

    def notes(predictor: KindPredictor, graph: Graph) -> tuple[str, ...]:
        (kernel,) = GraphEngine(replace(shipped, kinds={"unary": predictor})).explain(graph).kernels
        assert kernel.status == ("extrapolated" if kernel.notes else "predicted")
        return kernel.notes

    (size,) = notes(unary, elementwise("Tanh", 10**9))[1:2]
    assert size.startswith("bytes 8e+09 is outside the trained range")
    assert notes(unary, elementwise("Sqrt")) == ()
    assert notes(without(unary, "Sqrt"), elementwise("Sqrt")) == ("op 'Sqrt' was not seen in training",)
    assert notes(replace(unary, seen={"op": {"Tanh": 24}}), elementwise("Tanh")) == ()
    assert notes(replace(unary, seen={"op": {"Tanh": 24}}), elementwise("Sqrt")) == (
        "op 'Sqrt' was not seen in training",
    )


def test_what_was_seen_too_rarely_for_leaves_of_its_own_is_said(shipped: Bundle) -> None:
    """Of eleven Cosh among thousands of others one was answered at a third of its time, as its neighbour; of sixteen
    LpNormalization one at a third, as a smaller one."""
    unary = shipped.kinds["unary"]
    for seen, rows, said in ((23, 60_000, True), (24, 60_000, False), (10, 500, False), (5, 90, True)):
        rare = replace(unary, rows=rows, seen={"op": {"Tanh": seen}})
        (kernel,) = GraphEngine(replace(shipped, kinds={"unary": rare})).explain(elementwise("Tanh")).kernels
        assert kernel.status == ("extrapolated" if said else "predicted")
        assert bool(kernel.notes) == said
        assert all(note.startswith(f"op 'Tanh' was measured {seen} times") for note in kernel.notes)


def asking(*columns: str, **codes: int) -> KindPredictor:
    trees = replace(STUMP, n_columns=len(columns))
    return KindPredictor("unary", "onnx-1", columns, trees, categories={"op": codes} if codes else {})


def test_a_regressor_is_given_the_columns_that_it_was_trained_with() -> None:
    config = KINDS["unary"].read(_operator("Sqrt"))
    for columns in (("size", "item_bytes", "op"), ("op", "size"), ("size",)):
        codes = {"Sqrt": 5} if "op" in columns else {}
        answers = KindAnswers("unary", asking(*columns, **codes), SPEEDS)
        wanted = {"size": 1000, "item_bytes": 4, "op": 5}
        assert encode([(answers.encoder, config)]) == [tuple(wanted[column] for column in columns)]


def _operator(op: str) -> Operator:
    graph = elementwise(op)
    (node,) = graph.nodes
    return Operator(op, (graph.tensors[node.inputs[0]],), (graph.tensors[node.outputs[0]],))


@pytest.mark.parametrize("predictor", [asking("size", "weather"), asking("op", "size")])
def test_a_column_that_nobody_knows_is_refused(predictor: KindPredictor) -> None:
    with pytest.raises(BundleError, match=r"trained on a column '(weather|op)'"):
        KindAnswers("unary", predictor, SPEEDS)


def test_forgetting_loses_no_answer(
    shipped: Bundle, graphs: list[Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_leisure = GraphEngine(shipped).latencies_ms(graphs)
    monkeypatch.setattr(GraphEngine, "_REMEMBERED", 3)
    monkeypatch.setattr("nn_meter.kernels.schema.Encoder._REMEMBERED", 3)
    engine = GraphEngine(shipped)
    assert engine.latencies_ms(graphs) == at_leisure
    assert [engine.latency_ms(graph) for graph in graphs] == at_leisure
    assert [engine.explain(graph).latency_ms for graph in graphs] == at_leisure


def test_a_kind_without_a_regressor_is_estimated_by_the_roofline(shipped: Bundle) -> None:
    (kernel,) = GraphEngine(replace(shipped, kinds={})).explain(elementwise("Relu")).kernels
    assert isinstance(shipped.fallback, Roofline)
    roofline_ms = shipped.fallback.speeds.roofline_ms(KINDS["unary"].work(kernel.kernel.config))
    assert kernel.status == "estimated"
    assert kernel.latency_ms == roofline_ms * shipped.fallback.factor


def _backwards(axis: int) -> Graph:
    b = GraphBuilder("turned")
    x = b.input((16, 64, 64))
    return b.graph(b.op("Slice", x, *(b.const((each,)) for each in (-1, -65, axis, -1))))


def _multiplied(dtype: str) -> Graph:
    b = GraphBuilder("product")
    return b.graph(b.op("MatMul", b.input((64, 64), dtype), b.weight((64, 64), dtype)))


def _reduced(op_type: str, *axes: int) -> Graph:
    b = GraphBuilder("reduced")
    return b.graph(b.op(op_type, b.input((16, 64, 64)), b.const(axes)))


def _chosen(*condition: int) -> Graph:
    b = GraphBuilder("chosen")
    return b.graph(b.op("Where", b.input(condition, "bool"), b.input((16, 64, 64)), b.input((16, 64, 64))))


def _chosen_integers() -> Graph:
    b = GraphBuilder("chosen")
    scale, zero, x = b.const(0.02, "float32"), b.const(128, "uint8"), b.input((16, 64, 64), "uint8")
    operands = b.input((16, 64, 64), "bool"), x, scale, zero, x, scale, zero, scale, zero
    return b.graph(b.op("QLinearWhere", *operands, domain="com.microsoft"))


@pytest.mark.parametrize(
    ("graph", "why"),
    [
        (elementwise("Tan"), "Tan: how large its values are decides"),
        (elementwise("Shrink"), "Shrink: how often values leave the middle decides"),
        (_chosen_integers(), "QLinearWhere: how often its condition changes decides"),
        (elementwise("Cosh"), "Cosh: how large its values are decides"),
        (_reduced("ReduceProd", 1), "ReduceProd: whether its products become denormal numbers decides"),
        (_chosen(16, 64, 64), "a condition for each: how often it changes decides"),
        (_chosen(64, 64), "a condition for each: how often it changes decides"),  # the same of each of 16
        (_chosen(16, 1, 1), ""),  # whole rows are chosen
        (_chosen(64, 1), ""),
    ],
)
def test_what_its_values_decide_by_more_than_twice_is_not_predicted(graph: Graph, why: str) -> None:
    """Numbers that are alike are foreseen by the processor: of 200,000 the last takes 0.18 to 1.5 ms."""
    (kernel,) = nn_meter.load_latency_predictor().explain(graph).charged
    assert kernel.status == ("extrapolated" if why else "predicted")
    assert any(why in note for note in kernel.notes) == bool(why)


@pytest.mark.parametrize(
    ("graph", "status"),
    [
        (_reduced("ReduceMean", 2), "predicted"),
        (_reduced("ReduceMean", 0, 1), "extrapolated"),  # a seventh
        (_reduced("ReduceMean", 0, 2), "extrapolated"),
        (_reduced("ReduceL2", 0, 1, 2), "extrapolated"),  # a tenth
        (_multiplied("float32"), "predicted"),
        (_multiplied("int32"), "extrapolated"),  # ten times as long, found with onnxruntime 1.32
        (_backwards(1), "predicted"),  # rows are copied whole
        (_backwards(2), "extrapolated"),  # twice as long
    ],
)
def test_elements_and_directions_that_no_network_held_are_not_predicted(graph: Graph, status: str) -> None:
    (kernel,) = nn_meter.load_latency_predictor("zen4cpu_onnxruntime132").explain(graph).charged
    assert kernel.status == status
    assert any(note.endswith("was not seen in training") for note in kernel.notes) == (status != "predicted")
