"""Language models with a cache: how many tokens there are, and how many before them, says all shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from nn_meter.errors import GraphError, InputError
from nn_meter.frontends.onnx import read

FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64
HEADS, SIZE, WIDTH = 2, 4, 8


def value(name: str, shape: tuple[Any, ...] | None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def decoder(past: int | str = "past_sequence_length", total: str = "past_sequence_length + 1") -> onnx.ModelProto:
    """One layer of attention over a cache, as exporters name its inputs."""
    node = helper.make_node
    cache = ("batch_size", HEADS, past, SIZE)
    inputs = [
        value("input_ids", ("batch_size", "sequence_length"), INT),
        value("attention_mask", ("batch_size", total), INT),
        value("past_key_values.0.key", cache),
        value("past_key_values.0.value", cache),
    ]
    nodes = [
        node("Gather", ["table", "input_ids"], ["x"]),
        node("Reshape", ["x", "apart"], ["h"]),
        node("Transpose", ["h"], ["q"], perm=[0, 2, 1, 3]),
        node("Concat", ["past_key_values.0.key", "q"], ["present.0.key"], axis=2),
        node("Concat", ["past_key_values.0.value", "q"], ["present.0.value"], axis=2),
        node("Transpose", ["present.0.key"], ["kt"], perm=[0, 1, 3, 2]),
        node("MatMul", ["q", "kt"], ["scores"]),
        node("Cast", ["attention_mask"], ["mask"], to=FLOAT),
        node("Unsqueeze", ["mask", "axes"], ["wide"]),
        node("Add", ["scores", "wide"], ["masked"]),
        node("Softmax", ["masked"], ["p"], axis=-1),
        node("MatMul", ["p", "present.0.value"], ["y"]),
    ]
    table, apart = np.zeros((32, WIDTH), np.float32), np.array([0, 0, HEADS, SIZE])
    held = {"table": table, "apart": apart, "axes": np.array([1, 2])}
    outputs = [value(name, None) for name in ("y", "present.0.key", "present.0.value")]
    weights = [onnx.numpy_helper.from_array(array, name) for name, array in held.items()]
    graph = helper.make_graph(nodes, "decoder", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def shapes(**options: Any) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in read(decoder(), **options).tensors.items()}


def test_one_token_behind_a_past() -> None:
    found = shapes(past=100)
    assert found["input_ids"] == (1, 1)
    assert found["attention_mask"] == (1, 101)
    assert found["past_key_values.0.key"] == (1, HEADS, 100, SIZE)
    assert found["present.0.value"] == (1, HEADS, 101, SIZE)
    assert found["scores"] == (1, HEADS, 1, 101)


def test_a_prefill_has_no_past() -> None:
    found = shapes(past=0, seq_len=16)
    assert found["past_key_values.0.key"] == (1, HEADS, 0, SIZE)
    assert found["present.0.key"] == (1, HEADS, 16, SIZE)
    assert found["scores"] == (1, HEADS, 16, 16)
    assert shapes(past=0)["input_ids"] == (1, 128)


def test_several_tokens_of_several_texts_behind_a_past() -> None:
    found = shapes(past=7, input_shapes={"input_ids": (2, 3)})
    assert found["attention_mask"] == (2, 10)
    assert found["scores"] == (2, HEADS, 3, 10)


def test_a_dimension_computed_from_others_follows_from_them() -> None:
    found = shapes(input_shapes={"input_ids": (1, 1), "past_key_values.0.key": (1, HEADS, 9, SIZE)})
    assert found["attention_mask"] == (1, 10)


def test_the_shapes_are_those_that_onnx_runtime_computes() -> None:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(decoder().SerializeToString(), providers=["CPUExecutionProvider"])
    for options in ({"past": 5}, {"past": 0, "seq_len": 3}, {"past": 4, "seq_len": 2}):
        graph = read(decoder(), **options)
        feeds = {name: np.zeros(graph.tensors[name].shape, graph.tensors[name].dtype) for name in graph.inputs}
        computed = session.run(list(graph.outputs), feeds)
        assert [each.shape for each in computed] == [graph.tensors[name].shape for name in graph.outputs]


def test_the_advice_for_a_past_that_is_not_stated_works() -> None:
    with pytest.raises(GraphError, match=r"the tokens \(--seq-len 128\), or its shape: --input-shape input_ids="):
        read(decoder())
    with pytest.raises(GraphError, match=r"those of the past, if there is one \(--past 128\), or"):
        read(decoder(), input_shapes={"input_ids": (1, 1)})
    with pytest.raises(GraphError, match=r"the tokens of the past \(--past 128\), or"):
        read(decoder(), input_shapes={"input_ids": (1, 1), "attention_mask": (1, 9)})
    assert read(decoder(), past=128).tensors["input_ids"].shape == (1, 1)


def behind_an_encoder() -> onnx.ModelProto:
    """The decoder of an encoder-decoder with its caches, as exporters name their inputs."""
    own = ("batch_size", HEADS, "past_decoder_sequence_length", SIZE)
    other = ("batch_size", HEADS, "encoder_sequence_length", SIZE)
    inputs = [
        value("input_ids", ("batch_size", "decoder_sequence_length"), INT),
        value("encoder_attention_mask", ("batch_size", "encoder_sequence_length"), INT),
        value("past_key_values.0.decoder.key", own),
        value("past_key_values.0.encoder.key", other),
    ]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"]),
        helper.make_node("Reshape", ["x", "apart"], ["h"]),
        helper.make_node("Transpose", ["h"], ["q"], perm=[0, 2, 1, 3]),
        helper.make_node("Concat", ["past_key_values.0.decoder.key", "q"], ["present.0.key"], axis=2),
        helper.make_node("Transpose", ["past_key_values.0.encoder.key"], ["kt"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "kt"], ["scores"]),
        helper.make_node("Cast", ["encoder_attention_mask"], ["mask"], to=FLOAT),
    ]
    held = {"table": np.zeros((32, WIDTH), np.float32), "apart": np.array([0, 0, HEADS, SIZE])}
    weights = [onnx.numpy_helper.from_array(array, name) for name, array in held.items()]
    outputs = [value(name, None) for name in ("scores", "present.0.key", "mask")]
    graph = helper.make_graph(nodes, "decoder", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_what_an_encoder_left_is_asked_for_and_the_advice_works() -> None:
    wanted = r"encoder_attention_mask'.*--input-shape encoder_attention_mask=BATCH_SIZE,ENCODER_SEQUENCE_LENGTH"
    with pytest.raises(GraphError, match=wanted):
        read(behind_an_encoder(), past=20)
    found = read(behind_an_encoder(), past=20, input_shapes={"encoder_attention_mask": (1, 50)}).tensors
    assert found["input_ids"].shape == (1, 1)
    assert found["past_key_values.0.encoder.key"].shape == (1, HEADS, 50, SIZE)
    assert found["present.0.key"].shape == (1, HEADS, 21, SIZE)
    assert found["scores"].shape == (1, HEADS, 1, 50)


def test_a_past_that_the_file_fixes_is_kept() -> None:
    fixed = decoder(past=12, total="total")
    assert read(fixed, past=12).tensors["attention_mask"].shape == (1, 13)
    with pytest.raises(InputError, match=r"dimension 2 of the input 'past_key_values.0.key' is 12, .* make it 20"):
        read(fixed, past=20)


@pytest.mark.parametrize(
    ("options", "why"), [({"past": -1}, "past is -1; give 0 or more"), ({"seq_len": 0}, "seq_len is 0; give 1 or more")]
)
def test_a_number_of_tokens_that_is_none(options: dict[str, int], why: str) -> None:
    with pytest.raises(InputError, match=why):
        read(decoder(), **options)


def test_what_is_no_text_takes_no_tokens() -> None:
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value("x", (1, 3))], [value("y", None)])
    image = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for options, name in (({"seq_len": 8}, "seq_len"), ({"past": 8}, "past")):
        with pytest.raises(InputError, match=rf"takes no {name}, since none of its inputs \(x\) is a text"):
            read(image, **options)
    encoder = helper.make_graph(
        [helper.make_node("Gather", ["t", "input_ids"], ["y"])], "g", [value("input_ids", (1, "s"), INT)],
        [value("y", None)], [onnx.numpy_helper.from_array(np.zeros((4, 2), np.float32), "t")],
    )  # fmt: skip
    proto = helper.make_model(encoder, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert read(proto, seq_len=9).tensors["y"].shape == (1, 9, 2)
    with pytest.raises(InputError, match="holds the keys and values of earlier tokens"):
        read(proto, past=9)


def test_a_step_is_measured_with_the_past_that_is_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from nn_meter.backends.onnxruntime_cpu import OnnxRuntimeCpu
    from nn_meter.evaluation.bench import Source

    path = tmp_path / "decoder.onnx"
    onnx.save(decoder(), path)
    source = Source.of(path, lambda path: path, {"past": 6})
    backend = OnnxRuntimeCpu()
    kernels = backend.fused(source.model(backend))
    keys = {operand.shape for kernel in kernels for operand in kernel.outputs if operand is not None}
    assert (1, HEADS, 7, SIZE) in keys
    assert source.read().tensors["attention_mask"].shape == (1, 7)
