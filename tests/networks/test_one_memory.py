"""A network of many parts touches the memory of one model, and computes what it did."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

from nn_meter.backends.onnx_writer import as_bytes
from nn_meter.ir import Graph, GraphBuilder
from nn_meter.networks.generated import FAMILIES
from nn_meter.networks.one_memory import one_memory


def _elements(graph: Graph, names: tuple[str, ...]) -> list[int]:
    return [prod(graph.tensors[name].shape) for name in names]


def _parts(*shapes: tuple[int, ...]) -> Graph:
    b = GraphBuilder("parts")
    return b.graph(*(b.op("Relu", b.input(shape)) for shape in shapes))


def test_one_input_holds_all_others_and_outputs_are_single_elements() -> None:
    graph = one_memory(_parts((1, 8, 32, 32), (1, 16, 48, 48), (4, 2000), (1, 3)))
    assert [graph.tensors[name].shape for name in graph.inputs] == [(1, 16, 48, 48), (1, 3)]  # small ones stay
    assert _elements(graph, graph.outputs) == [1, 1, 1, 3]


def test_it_computes_what_it_did() -> None:
    runtime = pytest.importorskip("onnxruntime")
    before = _parts((1, 8, 32, 32), (1, 16, 48, 48), (36864,))
    graph = one_memory(before)
    values = np.random.default_rng(0).normal(size=(1, 16, 48, 48)).astype(np.float32)

    def run(of: Graph, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        return list(runtime.InferenceSession(as_bytes(of)).run(None, inputs))

    first, *rest = graph.inputs
    assert not rest
    own = {name: values.ravel()[:count].reshape(before.tensors[name].shape)
           for name, count in zip(before.inputs, _elements(before, before.inputs), strict=True)}  # fmt: skip
    whole = run(before, own)
    assert [each.ravel()[0] for each in whole] == [each.ravel()[0] for each in run(graph, {first: values})]


def test_a_graph_without_floats_stays() -> None:
    b = GraphBuilder("integers")
    graph = b.graph(b.op("Abs", b.input((100, 100), "int64")))
    assert one_memory(graph) is graph


def test_networks_of_many_parts_are_drawn_so() -> None:
    drawn = [FAMILIES["inverted"](seed) for seed in range(40)]
    many = [graph for graph in drawn if "shared:flat" in graph.tensors]
    assert many
    for graph in many:
        sizes = _elements(graph, graph.inputs)
        assert sum(size for size in sizes if size > 4096) <= max(sizes) or any(
            graph.tensors[name].dtype != "float32" for name in graph.inputs
        )
