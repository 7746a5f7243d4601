"""What is written runs, with weights that neither overflow nor fade."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from nn_meter.backends.onnx_writer import as_bytes, random_inputs, to_onnx, with_random_weights
from nn_meter.errors import BackendError, ModelFormatError
from nn_meter.frontends import read
from nn_meter.ir import GraphBuilder
from nn_meter.ir.graph import Graph

MODELS = Path(__file__).parents[2].parent / "shared" / "models"


def run(model: onnx.ModelProto, inputs: dict[str, np.ndarray] | None = None) -> list[np.ndarray]:
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs or random_inputs(model))


def embedding() -> Graph:
    b = GraphBuilder("embedding")
    ids = b.input((1, 7), "int64", name="ids")
    words = b.op("Gather", b.weight((11, 8)), ids)
    positions = b.op("Gather", b.weight((5, 8)), b.weight((1, 7), "int64"))
    total = b.op("Add", words, positions)
    return b.graph(b.op("LayerNormalization", total, b.weight((8,)), b.weight((8,)), axis=-1))


def deep(layers: int) -> Graph:
    b = GraphBuilder("deep")
    x = b.input((1, 16, 8, 8))
    for _ in range(layers):
        x = b.op("Conv", x, b.weight((16, 16, 3, 3)), b.weight((16,)), pads=(1, 1, 1, 1))
        channels = [b.weight((16,)) for _ in range(4)]
        x = b.op("Relu", b.op("BatchNormalization", x, *channels))
    return b.graph(x)


def test_a_graph_is_written_under_its_own_names() -> None:
    graph = deep(1)
    model = to_onnx(graph)
    assert [node.name for node in model.graph.node] == [node.name for node in graph.nodes]
    onnx.checker.check_model(model, full_check=True)


def test_the_seed_decides_the_weights() -> None:
    assert as_bytes(deep(1), seed=1) == as_bytes(deep(1), seed=1)
    assert as_bytes(deep(1), seed=1) != as_bytes(deep(1), seed=2)


def test_activations_stay_in_the_normal_range_through_many_layers() -> None:
    (output,) = run(to_onnx(deep(60)))
    assert np.isfinite(output).all()
    assert 1e-3 < np.abs(output).mean() < 1e3


def test_indices_lie_inside_their_tables() -> None:
    graph = embedding()
    assert random_inputs(graph)["ids"].max() < 11
    (output,) = run(to_onnx(graph))
    assert output.shape == (1, 7, 8)


def test_values_that_decide_shapes_are_written_as_they_are() -> None:
    b = GraphBuilder()
    x = b.input((2, 6))
    (output,) = run(to_onnx(b.graph(b.op("Reshape", x, b.const((3, 4))))))
    assert output.shape == (3, 4)


def test_a_number_takes_the_type_that_the_operator_declares() -> None:
    b = GraphBuilder()
    x = b.input((2, 6))
    run(to_onnx(b.graph(b.op("LeakyRelu", x, alpha=1))))


def _of_opset(opset: int, *nodes: onnx.NodeProto, initializers: Sequence[onnx.TensorProto] = ()) -> bytes:
    info = [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3, 8))]
    out = [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "older", info, out, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("opset", "op_type", "attrs"),
    [
        (9, "Clip", {"min": 0.0, "max": 6.0}),
        (9, "TopK", {"k": 2}),
        (10, "Pad", {"pads": (0, 0, 1, 0, 0, 1), "value": 0.5}),
        (11, "ReduceSum", {"axes": (1,)}),
        (11, "Split", {"split": (1, 2), "axis": 1}),
        (11, "Unsqueeze", {"axes": (0,)}),
        (17, "ReduceL2", {"axes": (-1,), "keepdims": 0}),
        (17, "ReduceMean", {"axes": (2,)}),
    ],
)
def test_what_was_read_in_an_older_opset_is_written_in_todays(
    opset: int, op_type: str, attrs: dict[str, Any]
) -> None:
    outputs = ["y", "z"] if op_type in ("Split", "TopK") else ["y"]
    older = _of_opset(opset, helper.make_node(op_type, ["x"], outputs, name="it", **attrs))
    written = to_onnx(read(older))
    assert written.opset_import[0].version >= 18
    x = {"x": np.linspace(-4, 9, 48, dtype=np.float32).reshape(2, 3, 8)}
    before, after = (run(onnx.load_from_string(each), x) for each in (older, written.SerializeToString()))
    assert np.array_equal(before[0], after[0])


@pytest.mark.parametrize(
    ("opset", "written", "op_type", "attrs"),
    [
        (9, 12, "Slice", {"starts": (0, 1), "ends": (2, 3), "axes": (0, 1)}),
        (11, 18, "AveragePool", {"kernel_shape": (3,)}),
        (19, 21, "AveragePool", {"kernel_shape": (3,)}),
    ],
)
def test_what_is_executed_otherwise_in_older_opsets_is_written_in_one(
    opset: int, written: int, op_type: str, attrs: dict[str, Any]
) -> None:
    older = _of_opset(opset, helper.make_node(op_type, ["x"], ["y"], **attrs))
    graph = read(older)
    assert to_onnx(graph).opset_import[0].version == written
    x = {"x": np.linspace(-4, 9, 48, dtype=np.float32).reshape(2, 3, 8)}
    before, after = (run(onnx.load_from_string(each), x) for each in (older, as_bytes(graph)))
    assert np.allclose(before[0], after[0])


def test_a_slice_of_an_older_opset_stands_beside_what_was_spelled_otherwise() -> None:
    nodes = [
        helper.make_node("Slice", ["x"], ["a"], starts=[0], ends=[2], axes=[1]),
        helper.make_node("Unsqueeze", ["a"], ["b"], axes=[0]),
        helper.make_node("Squeeze", ["b"], ["c"], axes=[0]),
        helper.make_node("ReduceSum", ["c"], ["d"], axes=[2]),
        helper.make_node("Softmax", ["d"], ["e"], axis=1),
        helper.make_node("Split", ["c"], ["s", "t"], axis=2, split=[3, 5]),
        helper.make_node("Add", ["s", "e"], ["y"]),
    ]
    older = _of_opset(9, *nodes)
    x = {"x": np.linspace(-4, 9, 48, dtype=np.float32).reshape(2, 3, 8)}
    before, after = (run(onnx.load_from_string(each), x) for each in (older, as_bytes(read(older))))
    assert np.allclose(before[0], after[0])


def test_a_young_operator_raises_the_opset() -> None:
    b = GraphBuilder()
    x = b.input((2, 6))
    old = to_onnx(b.graph(b.op("Relu", x)))
    young = to_onnx(b.graph(b.op("RMSNormalization", x, b.weight((6,)), axis=-1)))
    assert old.opset_import[0].version == 21
    assert young.opset_import[0].version == 23


def test_absent_weights_become_random(tmp_path: Path) -> None:
    file = tmp_path / "absent.onnx"
    model = to_onnx(deep(2))
    onnx.save(to_onnx(deep(2)), file, save_as_external_data=True, location="weights.bin", size_threshold=0)
    with_weights = with_random_weights(file)
    (tmp_path / "weights.bin").unlink()
    without = with_random_weights(file, seed=3)
    assert with_weights.graph.initializer[0].raw_data == model.graph.initializer[0].raw_data
    assert without.graph.initializer[0].raw_data != model.graph.initializer[0].raw_data
    assert run(without)[0].shape == run(model)[0].shape


def test_absent_weights_that_an_export_shares_are_made_up_each_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    b = GraphBuilder("shared")
    bias = b.weight((16,))
    first = b.op("Conv", b.input((1, 16, 8, 8)), b.weight((16, 16, 1, 1)), bias, kernel_shape=(1, 1))
    model = to_onnx(b.graph(b.op("Conv", first, b.weight((16, 16, 1, 1)), bias, kernel_shape=(1, 1))))
    model.graph.node.insert(0, helper.make_node("Identity", ["again"], ["same"]))
    model.graph.node.insert(0, helper.make_node("Identity", [bias], ["again"]))
    model.graph.node[-1].input[2] = "same"
    onnx.save(model, file, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert [node.op_type for node in with_random_weights(file).graph.node].count("Identity") == 2
    (tmp_path / "weights.bin").unlink()
    without = with_random_weights(file)
    assert [node.op_type for node in without.graph.node] == ["Conv", "Conv"]
    values = {tensor.name: tensor.raw_data for tensor in without.graph.initializer}
    assert values[bias] != values["same"]
    assert run(without)[0].shape == (1, 16, 8, 8)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224.dynamo", "levit_128"])
def test_shared_models_run_without_their_weights(name: str) -> None:
    if not MODELS.is_dir():
        pytest.skip("the shared models are not here")
    (output,) = run(with_random_weights(MODELS / f"{name}.onnx"))
    assert output.shape == (1, 1000)
    assert np.isfinite(output).all()


def test_free_dimensions_are_asked_for() -> None:
    model = to_onnx(deep(1))
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[0].dim_param = "batch"
    assert random_inputs(model)["input_0"].shape == (1, 16, 8, 8)
    dims[2].dim_param = "height"
    with pytest.raises(BackendError, match=r"'input_0': dimension 2 \(height\) is free; give the input's"):
        random_inputs(model)
    fixed = with_random_weights(model, input_shapes={"input_0": (2, 16, 4, 8)})
    assert random_inputs(fixed)["input_0"].shape == (2, 16, 4, 8)
    kept = with_random_weights(model, input_shapes={"input_0": (2, 16, 4, 8)}, fixed=False)
    assert kept.graph.input[0] == model.graph.input[0]
    assert random_inputs(kept)["input_0"].shape == (2, 16, 4, 8)
    resized = with_random_weights(model, input_shapes={"input_0": (2, 16, 4, 9)}, fixed=False)
    assert resized.graph.input[0].type.tensor_type.shape.dim[3].dim_value == 9, "a size that the file states"
    with pytest.raises(BackendError, match="no input 'x'; the model's inputs are input_0"):
        with_random_weights(model, input_shapes={"x": (1,)})
    with pytest.raises(BackendError, match="input 'input_0' has 4 dimensions, not 1"):
        with_random_weights(model, input_shapes={"input_0": (1,)})


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ModelFormatError, match="no ONNX model, or a damaged one"):
        with_random_weights(b"\xff\xff\xff")
