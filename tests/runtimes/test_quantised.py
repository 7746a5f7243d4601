"""Quantised networks: kernels that ``fuse`` finds against what ONNX Runtime executes."""

from __future__ import annotations

import pytest
from agreement import Agreement, agreement

from nn_meter.backends.onnxruntime_cpu import OnnxRuntimeCpu
from nn_meter.ir import Graph, parse
from nn_meter.kernels.rules import read_rules
from nn_meter.networks import FAMILIES
from nn_meter.networks.quantised import PRECISIONS
from nn_meter.runtimes.fusion import fuse

pytest.importorskip("onnxruntime")

RULES = read_rules({"runtime": "onnxruntime_cpu"})


def compare(graph: Graph) -> Agreement:
    return agreement(fuse(graph, RULES).kernels, OnnxRuntimeCpu().fused(graph), "onnxruntime_cpu", graph)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", ["residual_bottleneck", "inverted", "dense", "vision_transformer", "encoder"])
def test_quantised_networks_fuse_as_the_runtime_does(family: str, precision: str) -> None:
    found = sum((compare(PRECISIONS[precision](FAMILIES[family](seed))) for seed in range(2)), Agreement(0, 0, 0))
    assert found.precision >= 0.95
    assert found.recall >= 0.95


def test_what_is_computed_from_dequantised_weights_is_executed() -> None:
    graph = parse(
        """
        input x: float32[1,8]
        const q: uint8[4,8]
        const i: int64[1](2)
        const s: float32[](0.02)
        const z: uint8[](128)
        w = DequantizeLinear(q, s, z)
        r = Gather(w, i) {axis=0}
        y = Add(x, r)
        output y
        """
    )
    found = compare(graph)
    assert found.ours == found.truth == found.both == 3


def test_transposes_cancel_out_through_what_works_element_by_element() -> None:
    graph = parse(
        """
        input x: float32[1,8,6,4]
        const s: float32[8]
        a = Sin(x)
        b = Transpose(a) {perm=(0, 2, 3, 1)}
        c = Mul(b, s)
        d = Relu(c)
        e = Transpose(d) {perm=(0, 3, 1, 2)}
        y = Sin(e)
        output y
        """
    )
    found = compare(graph)
    assert found.ours == found.truth == found.both == 4
