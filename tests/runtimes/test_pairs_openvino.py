"""The kernels that detected rules give against the layers that OpenVINO executes, as sets of the model's nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from agreement import agreement
from onnx import numpy_helper

from nn_meter.backends.onnx_writer import with_random_weights
from nn_meter.frontends import onnx as reader
from nn_meter.kernels.rules import RuleSet, read_rules
from nn_meter.runtimes.fusion import fuse

SHARED = Path(__file__).parents[2] / ".." / "shared"
CONVOLUTIONAL = (
    "efficientnet_b0", "ghostnet_100", "mobilenetv2_100", "mobilenetv3_small_100", "mobilenetv3_small_100.dynamo",
    "regnety_004", "resnet18",
)  # fmt: skip

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> RuleSet:
    """As OpenVINO's executed graphs of the test cases say."""
    pytest.importorskip("openvino")
    from nn_meter.detection import DetectionPlan, detect_rules

    plan = DetectionPlan(backend="openvino_cpu", method="graph", budget_s=180)
    return read_rules(detect_rules(plan, journal=tmp_path_factory.mktemp("rules") / "journal.sqlite"))


def with_own_biases(model: onnx.ModelProto) -> bytes:
    """Each convolution's bias a tensor of its own: exporters share equal ones, which a trained model does not have, and
    OpenVINO leaves a shared one out of its convolution."""
    rng = np.random.default_rng(0)
    channels = {item.name: item.dims[0] for item in model.graph.initializer if item.dims}
    for number, node in enumerate(model.graph.node):
        if node.op_type == "Conv" and len(node.input) > 2 and node.input[1] in channels:
            bias = rng.normal(size=channels[node.input[1]]).astype(np.float32)
            node.input[2] = f"bias_of_its_own_{number}"
            model.graph.initializer.append(numpy_helper.from_array(bias, node.input[2]))
    data: bytes = model.SerializeToString()
    return data


def compare(path: Path, rules: RuleSet) -> tuple[int, int, int]:
    """Kernels that both have, that the partition has, that OpenVINO has; those that cost nothing left out."""
    from nn_meter.backends.openvino_cpu import OpenVinoCpu

    data = with_own_biases(with_random_weights(path))
    graph = reader.read(data)
    found = agreement(fuse(graph, rules).kernels, OpenVinoCpu().fused(data), "openvino_cpu", graph)
    return found.both, found.ours, found.truth


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_convolutional_networks_fuse_as_openvino_does(name: str, rules: RuleSet) -> None:
    path = SHARED / "models" / f"{name}.onnx"
    if not path.exists():
        pytest.skip("the shared models are not beside the repository")
    both, ours, truth = compare(path, rules)
    least = 0.9 if name == "regnety_004" else 0.99  # OpenVINO leaves five of its sums out of their convolutions
    assert both / ours >= least
    assert both / truth >= least


@pytest.mark.parametrize(("folder", "precision", "recall"), [("models", 0.78, 0.87), ("parity/onnx", 0.87, 0.95)])
def test_all_shared_models_together(folder: str, precision: float, recall: float, rules: RuleSet) -> None:
    paths = sorted((SHARED / folder).glob("*.onnx"))
    if not paths:
        pytest.skip("the shared models are not beside the repository")
    both, ours, truth = (sum(column) for column in zip(*(compare(path, rules) for path in paths), strict=True))
    assert both / ours >= precision
    assert both / truth >= recall
