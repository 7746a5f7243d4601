"""Generated networks are graphs, repeatable, small, runnable, and use what real models use."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nn_meter.ir import GraphBuilder
from nn_meter.ir.graph import Graph, verify
from nn_meter.ir.shapes import FOUND
from nn_meter.networks import FAMILIES, draw
from nn_meter.networks._blocks import SOFT_PARAMETERS, Pen
from nn_meter.networks.generated import MAX_FLOPS, MOST_FLOPS, weights_for
from nn_meter.runtimes import find

MODELS = Path(__file__).parents[2] / ".." / "shared" / "models"
WRITTEN_AS_TENSORS = {"Constant"}
"""Operators that a model file has and a graph has not: a constant is a tensor there."""


WEIGHTS = {name: family.weight for name, family in FAMILIES.items()}


def drawn(seed: int, count: int) -> Iterator[Graph]:
    """The networks that a build would measure."""
    return (FAMILIES[family](each) for family, each in draw(WEIGHTS, seed, 0, count))


def flops(graph: Graph) -> float:
    """Twice the multiply-adds of convolutions and matrix products."""
    total = 0.0
    for node in graph.nodes:
        operands, out = graph.input_tensors(node), graph.tensors[node.outputs[0]]
        if node.op_type == "Conv":
            total += out.size * math.prod(operands[1].shape[1:])
        elif node.op_type == "ConvTranspose":
            total += operands[0].size * math.prod(operands[1].shape[1:])
        elif node.op_type in ("MatMul", "Gemm"):
            total += out.size * operands[0].shape[-1]
        elif node.op_type in ("LSTM", "GRU", "RNN"):
            tokens, batch, _ = operands[0].shape
            total += tokens * batch * (operands[1].size + operands[2].size)
    return 2 * total


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_group_normalisation_in_parts_scales_by_ones_and_adds_zeros(dtype: str) -> None:
    """As exporters write it: MNN leaves that out, and would work in blocks of four groups for anything else."""
    pen = Pen(GraphBuilder("norm"), np.random.default_rng(0), dtype)
    pen.fused_norm = False
    graph = pen.b.graph(pen.group_norm(pen.b.input((2, 12, 5, 5), dtype), 3))
    (node,) = [each for each in graph.nodes if each.op_type == "InstanceNormalization"]
    scale, bias = (graph.tensors[name] for name in node.inputs[1:])
    assert (scale.value, bias.value) == ((1.0,) * 3, (0.0,) * 3)
    assert {scale.dtype, bias.dtype} == {dtype}


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15, deadline=None)
@example(seed=598)  # tiled by three along several axes
@given(seed=st.integers(0, 2**62))
def test_every_family_gives_a_small_graph_for_any_seed(family: str, seed: int) -> None:
    graph = FAMILIES[family](seed)
    assert verify(graph) is graph
    written = 5 if FAMILIES[family].precisions else 1  # changes of type around each operator
    assert 1 <= len(graph.nodes) <= 1200 * written
    assert flops(graph) <= max(MAX_FLOPS, 2 * MOST_FLOPS)
    assert sum(t.size for t in graph.tensors.values() if t.const and t.value is None) <= 4 * SOFT_PARAMETERS
    assert all(1 <= tensor.size <= 1e8 for tensor in graph.tensors.values())
    if not family.startswith("operators"):  # there are operators of every element type
        assert all(graph.tensors[name].dtype in ("float32", "int64") for name in graph.inputs)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_stands_for_one_network(family: str) -> None:
    first, second = FAMILIES[family](3), FAMILIES[family](3)
    assert first.nodes == second.nodes
    assert first.tensors == second.tensors
    assert (first.name, first.inputs, first.outputs) == (second.name, second.inputs, second.outputs)


def test_parts_that_a_runtime_refuses_are_left_out_of_large_networks() -> None:
    def takes(part: Graph) -> bool:
        return all(node.op_type != "Conv" for node in part.nodes) and verify(part) is part

    whole, less = (
        next(graph for seed in range(50) if len((graph := FAMILIES["linear_norm"](seed, takes=each)).nodes) > 200)
        for each in (lambda part: True, takes)
    )
    assert any(node.op_type == "Conv" for node in whole.nodes)
    assert all(node.op_type != "Conv" for node in less.nodes)
    assert verify(less) is less


@pytest.mark.parametrize("most", [30, 100])
def test_no_part_is_added_where_a_runtime_takes_no_more_nodes(most: int) -> None:
    whole, less = (
        max(len(FAMILIES["inverted"](seed, most_nodes=nodes).nodes) for seed in range(40)) for nodes in (math.inf, most)
    )
    assert whole > 300
    assert less < most + 120  # the part that reaches it is written to its end


def test_different_seeds_give_different_networks() -> None:
    networks = [str((graph.nodes, sorted(graph.tensors.items()))) for graph in drawn(0, 150)]
    assert len(set(networks)) == len(networks)


def test_networks_are_used_in_full() -> None:
    for graph in drawn(4, 200):
        read = {name for node in graph.nodes for name in node.inputs} | set(graph.outputs)
        for node in graph.nodes:
            assert read & set(node.outputs), f"{graph.name}: nothing reads {node.name}"


def test_what_is_drawn_next_depends_on_the_seed_and_on_how_many_were_drawn() -> None:
    assert draw(WEIGHTS, 1, 0, 20) == draw(WEIGHTS, 1, 0, 20)
    assert draw(WEIGHTS, 1, 0, 20) != draw(WEIGHTS, 1, 20, 20)
    assert draw(WEIGHTS, 1, 0, 20) != draw(WEIGHTS, 2, 0, 20)


def test_families_come_by_their_weights() -> None:
    count = Counter(family for family, _ in draw(WEIGHTS, 1, 0, 10_000))
    for name, weight in WEIGHTS.items():
        share = weight / sum(WEIGHTS.values())
        assert abs(count[name] / 10_000 - share) <= 4 * math.sqrt(share / 10_000)
    assert {family for family, _ in draw({"plain": 1.0, "dense": 0.0}, 1, 0, 50)} == {"plain"}


def test_the_element_type_is_the_one_asked_for() -> None:
    for name in ("residual_basic", "vision_transformer", "windowed", "micro_binary"):
        graph = FAMILIES[name](5, dtype="float16")
        found = {tensor.dtype for tensor in graph.tensors.values() if tensor.value is None}
        assert found <= {"float16", "int64", "bool"}
        assert graph.tensors[graph.outputs[0]].dtype == "float16"


def test_costs_spread_over_two_orders_of_magnitude() -> None:
    costs = [flops(graph) for graph in drawn(2, 300) if not graph.name.startswith("micro")]
    low, middle, high = np.quantile(costs, (0.1, 0.5, 0.9))
    assert low < 2.5e7 < middle < 2e8 < high


def test_late_stages_are_as_frequent_as_early_ones() -> None:
    widths = {"late": 0, "early": 0}
    for graph in drawn(6, 400):
        for node in graph.nodes:
            if node.op_type == "Conv":
                _, width, height = graph.tensors[node.outputs[0]].shape[:3]
                widths["late"] += width >= 256 and height <= 16
                widths["early"] += width <= 64 and height >= 40
    assert 0.4 <= widths["late"] / widths["early"] <= 2.5  # five draws of 400: 0.37 to 0.48


def test_a_short_build_holds_every_operator_of_the_shared_models() -> None:
    onnx = pytest.importorskip("onnx")
    files = sorted(MODELS.glob("*.onnx"))
    if not files:
        pytest.skip("the shared models are not beside this repository")
    wanted = {
        node.op_type for file in files for node in onnx.load(file, load_external_data=False).graph.node
    } - WRITTEN_AS_TENSORS
    for seed in range(2):
        found = {node.op_type for graph in drawn(seed, 1500) for node in graph.nodes}
        assert wanted - found == set()


def test_networks_load_and_run_in_onnxruntime() -> None:
    runtime = pytest.importorskip("onnxruntime")
    writer = pytest.importorskip("nn_meter.backends.onnx_writer")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    for graph in drawn(8, 30):  # where the data decides it, a shape is the most that there can be
        session = runtime.InferenceSession(
            writer.as_bytes(graph), options, providers=["CPUExecutionProvider"]
        )
        answer = session.run(None, writer.random_inputs(graph))[0]
        most = graph.tensors[graph.outputs[0]].shape
        if any(node.op_type in FOUND for node in graph.nodes):
            assert all(size <= known for size, known in zip(answer.shape, most, strict=True)), graph.name
        else:
            assert answer.shape == most, graph.name
        assert np.isfinite(answer).all(), graph.name


def test_a_runtime_measures_only_what_its_kernels_are_known_for() -> None:
    every, floats = (weights_for(find(name).precisions) for name in ("onnxruntime", "openvino"))
    assert every == WEIGHTS
    assert {name for name in every if name not in floats} == {"qdq_maps", "qdq_tokens"}
