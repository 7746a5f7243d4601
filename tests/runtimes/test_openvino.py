"""The kernels that a model becomes against the layers that OpenVINO executes, as sets of the model's nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from agreement import Agreement, agreement
from onnx import numpy_helper

from nn_meter.backends.onnx_writer import with_random_weights
from nn_meter.frontends import onnx as reader
from nn_meter.kernels.rules import RuleSet, read_rules
from nn_meter.runtimes.fusion import fuse

SHARED = Path(__file__).parents[2] / ".." / "shared"
ALONE = read_rules({"runtime": "openvino"})
"""What is known of OpenVINO without rules."""

pytestmark = pytest.mark.heavy


def as_trained(model: onnx.ModelProto) -> bytes:
    """Each vector of parameters a tensor of its own, with unequal values: exporters of untrained networks share equal
    ones, and zeros and ones change nothing, so that OpenVINO leaves out what a trained network executes."""
    rng = np.random.default_rng(0)
    tensors = {item.name: item for item in model.graph.initializer}
    same = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Identity"}
    number = 0
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            item = tensors.get(same.get(name, name))
            if node.op_type in ("Identity", "Resize") or item is None or item.data_type != onnx.TensorProto.FLOAT:
                continue
            values = numpy_helper.to_array(item)
            equal = values.size > 1 and np.ptp(values) == 0
            if not equal and not 1 < values.size == max(values.shape):
                continue
            if equal:
                spread = max(1.0, abs(float(values.flat[0])))
                values = values + rng.uniform(0.05, 0.2, values.shape).astype(np.float32) * np.float32(spread)
            node.input[place] = f"parameter_of_its_own_{number}"
            model.graph.initializer.append(numpy_helper.from_array(values, node.input[place]))
            number += 1
    data: bytes = model.SerializeToString()
    return data


def compare(path: Path, rules: RuleSet = ALONE) -> Agreement:
    """Kernels that both have, that the partition has, that OpenVINO has; those that cost nothing left out."""
    pytest.importorskip("openvino")
    from nn_meter.backends.openvino_cpu import OpenVinoCpu

    data = as_trained(with_random_weights(path))
    graph = reader.read(data)
    return agreement(fuse(graph, rules).kernels, OpenVinoCpu().fused(data), "openvino_cpu", graph)


@pytest.mark.parametrize("folder", ["models", "parity/onnx"])
def test_kernels_are_those_that_openvino_executes(folder: str) -> None:
    paths = sorted((SHARED / folder).glob("*.onnx"))
    if not paths:
        pytest.skip("the shared models are not beside the repository")
    found = {path.stem: compare(path) for path in paths}
    poor = {name: each for name, each in found.items() if min(each.precision, each.recall) < 0.95}
    assert not poor
    together = sum(found.values(), Agreement(0, 0, 0))
    assert together.precision >= 0.99
    assert together.recall >= 0.99


def test_rules_that_were_detected_do_not_speak_against_what_is_known(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from nn_meter.building import kept_rules
    from nn_meter.detection import DetectionPlan, detect_rules

    plan = DetectionPlan(backend="openvino_cpu", method="graph", budget_s=60)
    detected = detect_rules(plan, journal=tmp_path / "journal.sqlite")
    rules = read_rules({"runtime": "openvino", **kept_rules(detected)})
    for name in ("efficientformer_l1", "regnety_004"):
        path = SHARED / "models" / f"{name}.onnx"
        if not path.exists():
            pytest.skip("the shared models are not beside the repository")
        graph = reader.read(path)
        kernels = [kernel.nodes for kernel in fuse(graph, rules).kernels]
        assert kernels == [kernel.nodes for kernel in fuse(graph, ALONE).kernels]
