"""What errors of the Python calls advise works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from nn_meter import load_latency_predictor
from nn_meter.errors import NnMeterError

EXAMPLE = Path(__file__).parents[2] / "examples" / "small_net.onnx"
SIZE = (1, 3, 224, 224)
FLOAT, BFLOAT16, INT = TensorProto.FLOAT, TensorProto.BFLOAT16, TensorProto.INT64
value = helper.make_tensor_value_info


def net(dtype: int = FLOAT, cache: bool = False) -> onnx.ModelProto:
    """Embedded tokens and two layers, whose keys and values may be kept."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"]),
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["y"]),
    ]
    weights = [helper.make_tensor(n, dtype, (8, 8), np.ones(64)) for n in ("table", "w")]
    inputs, outputs = [value("input_ids", INT, ("batch", "sequence"))], [value("y", dtype, None)]
    if cache:
        inputs.append(value("past_key_values.0.key", FLOAT, ("batch", 2, "past", 4)))
        nodes.append(helper.make_node("Neg", [inputs[-1].name], ["present"]))
        outputs.append(value("present", FLOAT, None))
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def sequence(tensors: bool) -> onnx.ModelProto:
    """A join of what a sequence holds, or of tensors."""
    shape = (1, 4)
    if tensors:
        node, inputs = helper.make_node("Concat", ["a", "b"], ["y"], axis=0), [value(n, FLOAT, shape) for n in "ab"]
    else:
        node = helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=0)
        inputs = [helper.make_tensor_sequence_value_info("s", FLOAT, shape)]
    graph = helper.make_graph([node], "g", inputs, [value("y", FLOAT, None)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def called(again: str) -> onnx.ModelProto:
    """Tensors of a name each, or one that is computed twice."""
    model = net()
    model.graph.node.append(helper.make_node("Abs", ["y"], [again]))
    model.graph.output.append(value(again, FLOAT, None))
    del model.graph.output[0]
    return model


def explain(model: Any, **options: Any) -> Any:
    """Of the default predictor."""
    return load_latency_predictor().explain(model, **options)


Call = Callable[[], Any]
ADVICES: dict[str, tuple[Call, str, tuple[Call, ...]]] = {
    "two shapes": (
        lambda: explain(EXAMPLE, input_shape=SIZE, input_shapes=SIZE),
        "state one of them",
        (lambda: explain(EXAMPLE, input_shape=SIZE), lambda: explain(EXAMPLE, input_shapes=SIZE)),
    ),
    "a file without a past": (
        lambda: explain(net(), past=7),
        "export the model with its cache .* or leave past out",
        (lambda: explain(net(cache=True), past=7), lambda: explain(net(), seq_len=8)),
    ),
    "a past below nothing": (
        lambda: explain(net(cache=True), past=-1),
        "give 0 or more",
        (lambda: explain(net(cache=True), past=0),),
    ),
    "bfloat16": (
        lambda: explain(net(BFLOAT16), seq_len=8),
        "export it in float32",
        (lambda: explain(net(), seq_len=8),),
    ),
    "a sequence": (
        lambda: explain(sequence(False)),
        "export the model with tensors as inputs",
        (lambda: explain(sequence(True)),),
    ),
    "one name twice": (
        lambda: explain(called("h"), seq_len=8),
        "names must be unique",
        (lambda: explain(called("z"), seq_len=8),),
    ),
    "a model of NNI": (
        lambda: explain(EXAMPLE, model_type="nni-ir"),
        "export the model to ONNX",
        (lambda: explain(EXAMPLE, model_type="onnx"),),
    ),
}


@pytest.mark.parametrize("case", ADVICES)
def test_what_is_advised_works(case: str) -> None:
    refused, words, followed = ADVICES[case]
    with pytest.raises(NnMeterError, match=words):
        refused()
    for each in followed:
        assert each()
