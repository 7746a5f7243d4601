"""The kernels that ``fuse`` finds against the graph that ONNX Runtime really executes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from nn_meter.backends.onnx_writer import with_random_weights
from nn_meter.backends.onnxruntime_cpu import OnnxRuntimeCpu
from nn_meter.datasets import FAMILIES
from nn_meter.datasets.executed import read_executed
from nn_meter.frontends import onnx as reader
from nn_meter.ir import Graph, parse
from nn_meter.kernels.fusion import fuse
from nn_meter.kernels.rules import read_rules

pytest.importorskip("onnxruntime")

MODELS = Path(__file__).parents[2] / ".." / "shared" / "models"
RULES = read_rules({"runtime": "onnxruntime_cpu"})
QUICK = (
    "mobilenetv2_100",
    "mobilenetv3_small_100.dynamo",
    "efficientnet_b0",
    "regnety_004",
    "convnext_atto",
    "deit_tiny_patch16_224",
)


def compare(graph: Graph, model: Graph | bytes) -> tuple[int, int, int]:
    """Kernels that both have, that only the partition has, that only the runtime has."""
    ours = Counter((k.kind, k.config) for k in fuse(graph, RULES).kernels if not k.free)
    truth = Counter(read_executed(k, "onnxruntime_cpu") for k in OnnxRuntimeCpu().fused(model))
    return (ours & truth).total(), (ours - truth).total(), (truth - ours).total()


def channels_in_a_block() -> int:
    """What this processor's ONNX Runtime pads four channels to."""
    graph = parse(
        "input x: float32[1,3,8,8]\nconst w: float32[4,3,1,1]\ny = Conv(x, w) {kernel_shape=(1, 1)}\noutput y"
    )
    return next(k.outputs[0].shape[1] for k in OnnxRuntimeCpu().fused(graph) if k.outputs[0] is not None)


needs_avx512 = pytest.mark.skipif(
    channels_in_a_block() != 16, reason="this processor blocks channels otherwise than by 16"
)


@needs_avx512
@pytest.mark.parametrize("name", QUICK)
def test_shared_models_fuse_as_the_runtime_does(name: str) -> None:
    path = MODELS / f"{name}.onnx"
    if not path.exists():
        pytest.skip("the shared models are not beside the repository")
    both, extra, missing = compare(reader.read(path), with_random_weights(path).SerializeToString())
    assert both / (both + extra) >= 0.99
    assert both / (both + missing) >= 0.99


@needs_avx512
@pytest.mark.heavy
def test_all_shared_models_together_reach_99_percent() -> None:
    if not MODELS.exists():
        pytest.skip("the shared models are not beside the repository")
    counts = [
        compare(reader.read(p), with_random_weights(p).SerializeToString())
        for p in sorted(MODELS.glob("*.onnx"))
    ]
    both, extra, missing = (sum(column) for column in zip(*counts, strict=True))
    assert both / (both + extra) >= 0.99
    assert both / (both + missing) >= 0.99


@needs_avx512
@pytest.mark.parametrize(
    "family", ["residual_bottleneck", "inverted", "dense", "convnext", "vision_transformer", "encoder"]
)
def test_generated_networks_fuse_as_the_runtime_does(family: str) -> None:
    counts = [compare(graph, graph) for graph in map(FAMILIES[family], range(3))]
    both, extra, missing = (sum(column) for column in zip(*counts, strict=True))
    assert both / (both + extra + missing) >= 0.9
