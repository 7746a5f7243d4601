"""float16 on the CPU: kernels that ``fuse`` finds against what ONNX Runtime executes."""

from __future__ import annotations

from itertools import count

import pytest
from agreement import agreement, rules_here

from nn_meter.backends.onnxruntime_cpu import OnnxRuntimeCpu
from nn_meter.ir import parse
from nn_meter.networks import FAMILIES
from nn_meter.runtimes.executed import read_all
from nn_meter.runtimes.fusion import fuse
from nn_meter.runtimes.onnxruntime import RUNTIME

pytest.importorskip("onnxruntime")

RULES = rules_here()


@pytest.mark.parametrize(
    ("family", "least"),
    [("inverted", 1.0), ("residual_bottleneck", 1.0), ("dense", 1.0), ("convnext", 1.0), ("vision_transformer", 0.9)],
)
def test_networks_of_float16_run_in_float32_between_casts(family: str, least: float) -> None:
    every = (FAMILIES[family](seed, dtype="float16") for seed in count(1))
    graph = next(each for each in every if len(each.nodes) < 100)  # one that is not of many parts
    found = agreement(fuse(graph, RULES).kernels, OnnxRuntimeCpu().fused(graph), "onnxruntime_cpu", graph)
    assert found.precision >= least
    assert found.recall >= least


def test_weights_are_cast_in_advance_and_a_neighbour_that_could_stay_goes_along() -> None:
    graph = parse(
        """
        input x: float16[4,8]
        const w: float16[8,8]
        const s: int64[2](8, 4)
        a = MatMul(x, w)
        b = Reshape(a, s)
        c = Sin(b)
        d = Transpose(c) {perm=(1, 0)}
        output d
        """
    )
    kernels = [k for k in fuse(graph, RULES).kernels if k.kind != "free"]
    types = sorted((k.kind, k.config.dtype) for k in kernels)
    truth = sorted((k.kind, k.config.dtype) for k in read_all(OnnxRuntimeCpu().fused(graph), RUNTIME, graph))
    assert types == truth
    assert ("transpose", "float16") in types
    assert types.count(("unary", "float16")) == 1


def test_constants_that_several_read_are_cast_at_every_inference() -> None:
    graph = parse(
        """
        input x: float16[1,16,12,12]
        const w: float16[16,16,3,3]
        a = Conv(x, w)
        b = Conv(a, w)
        output b
        """
    )
    ours = sorted((k.kind, k.label) for k in fuse(graph, RULES).kernels if k.kind != "free")
    found = agreement(fuse(graph, RULES).kernels, OnnxRuntimeCpu().fused(graph), "onnxruntime_cpu", graph)
    assert (found.precision, found.recall) == (1.0, 1.0)
    assert [kind for kind, _ in ours] == ["conv_nchw", "conv_nchw", "unary", "unary", "unary"]


def test_an_activation_behind_weights_that_several_read_stands_alone() -> None:
    """As in the heads of a detector, which every level of its pyramid shares."""
    graph = parse(
        """
        input x: float16[1,16,12,12]
        const w: float16[16,16,3,3]
        a = Conv(x, w)
        b = Relu(a)
        c = Conv(b, w)
        d = Sigmoid(c)
        output d
        """
    )
    found = agreement(fuse(graph, RULES).kernels, OnnxRuntimeCpu().fused(graph), "onnxruntime_cpu", graph)
    assert (found.precision, found.recall) == (1.0, 1.0)


CASTS = {
    "in and out": "h = Cast(x) {to=10}\nr = Relu(h)\na = Add(r, h)\ny = Cast(a) {to=1}",
    "on to floats": "h = Cast(x) {to=10}\nr = Relu(h)\ns = Cast(r) {to=1}\ny = Exp(s)",
    "of what stays half": "h = Cast(x) {to=10}\nt = Transpose(h) {perm=(1, 0)}\nr = Relu(t)\ny = Cast(r) {to=1}",
    "of integers": "i = Cast(x) {to=7}\nh = Cast(i) {to=10}\nr = Exp(h)\ny = Cast(r) {to=1}",
    "to bools": "h = Cast(x) {to=10}\nr = Exp(h)\nb = Cast(r) {to=9}\ny = Not(b)",
    "the model's own": "h = Cast(x) {to=10}\ns = Cast(h) {to=1}\nr = Exp(s)\nt = Cast(r) {to=10}\nu = Cast(t) {to=1}\n"
    "y = Sin(u)",
}


@pytest.mark.parametrize("casts", CASTS)
def test_casts_that_lead_back_are_left_out(casts: str) -> None:
    graph = parse(f"input x: float32[64,48]\n{CASTS[casts]}\noutput y")
    found = agreement(fuse(graph, RULES).kernels, OnnxRuntimeCpu().fused(graph), "onnxruntime_cpu", graph)
    assert found.ours == found.truth == found.both
