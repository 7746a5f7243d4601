"""What README and docs name: models that have to be told something, tables of measurements."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

CORPUS = Path(__file__).parents[1] / "corpus" / "models"
SHEET = "device: NVIDIA L4\npeak_tflops: 30.3\nbandwidth_gb_per_s: 300\nprocessors: 58\ncache_mb: 48\nsource: NVIDIA\n"
FLOAT, WHOLE = TensorProto.FLOAT, TensorProto.INT64


def write(place: Path) -> None:
    """Put them into a folder."""
    made = {"encoder": _encoder, "decoder": _decoder, "detector": _detector, "speech": _speech}
    for name, make in made.items():
        onnx.save(make(), place / f"{name}.onnx")
    models = sorted(CORPUS.glob("*.onnx"))
    for letter, model in zip("abc", models, strict=False):
        shutil.copy(model, place / f"{letter}.onnx")
    measured = "\n".join(["model,latency_ms", *(f"{model},{number + 1.5}" for number, model in enumerate(models))])
    for folder, held in (("MODELS", models[:4]), ("KEPT", models[4:6])):
        (place / folder).mkdir()
        for model in held:
            shutil.copy(model, place / folder)
    (place / "measurements.csv").write_text(measured)
    (place / "results.csv").write_text(measured)
    (place / "l4.yaml").write_text(SHEET)
    (place / "config.json").write_text('{"model_type": "bert", "num_hidden_layers": 2}')
    cells = [*product(range(4), repeat=3)]
    known = [f"net{a}{b}{c},{5 + a + 2 * b + 3 * c},{5 + 3 * a + b + c},{5 + a + b + 4 * c}" for a, b, c in cells]
    (place / "help_fbnet.csv").write_text("\n".join(["architecture,phone,board,server", *known]))
    mine = [f"net{a}{b}{c},{5 + 2 * a + 3 * b + 2 * c}" for a, b, c in cells[::5]]
    (place / "mine.csv").write_text("\n".join(["model,latency_ms", *mine]))


def needed(package: str) -> dict[str, Any]:
    """What a page's code names that needs a package."""
    makes = {"torch": _modules, "tensorflow": _saved}
    return makes[package]() if package in makes else {}


def _saved() -> dict[str, Any]:
    """A small network in the files that TensorFlow writes."""
    import numpy as np
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    image = (1, 224, 224, 3)
    net = tf.keras.Sequential([tf.keras.layers.Input(image[1:]), tf.keras.layers.Conv2D(4, 3, strides=8)])
    net.export("export", verbose=False)
    call = tf.function(lambda x: net(x)).get_concrete_function(tf.TensorSpec(image, tf.float32))
    Path("mobilenet.pb").write_bytes(convert_variables_to_constants_v2(call).graph.as_graph_def().SerializeToString())
    converter = tf.lite.TFLiteConverter.from_keras_model(net)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: [[np.zeros(image, np.float32)], [np.ones(image, np.float32)]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ranges, which nobody asks for here
        Path("model_int8.tflite").write_bytes(converter.convert())
    return {}


def _modules() -> dict[str, Any]:
    """The modules that a page names, and ``model.pt2``."""
    import torch

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(50, 16)

        def forward(self, input_ids: Any, weights: Any) -> Any:
            return self.table(input_ids) * weights

    class Scaled(torch.nn.Module):
        def forward(self, x: Any, scale: float, mask: Any) -> Any:
            return x * scale if mask is None else x * mask

    class Detector(torch.nn.Module):
        def forward(self, batch: Any) -> Any:
            return torch.relu(batch["image"])

    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    torch.export.save(torch.export.export(net, (torch.zeros(1, 3, 32, 32),)), "model.pt2")
    return {
        "net": net, "encoder": Encoder(), "scaled": Scaled(), "embedding": torch.nn.Embedding(50, 16),
        "detector": Detector(),
    }  # fmt: skip


def _value(name: str, shape: Sequence[Any] | None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _weight(name: str, shape: Sequence[int]) -> onnx.TensorProto:
    size = 1
    for each in shape:
        size *= each
    return helper.make_tensor(name, FLOAT, shape, [0.1] * size)


def _whole(name: str, values: Sequence[int]) -> onnx.TensorProto:
    return helper.make_tensor(name, WHOLE, [len(values)], values)


def _model(nodes: Any, inputs: Any, outputs: Any, weights: Any = ()) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "net", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _encoder() -> onnx.ModelProto:
    """Tokens and a mask, whose lengths are free."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Cast", ["mask"], ["kept"], to=FLOAT),
        helper.make_node("Unsqueeze", ["kept", "last"], ["wide"]),
        helper.make_node("Mul", ["rows", "wide"], ["masked"]),
        helper.make_node("MatMul", ["masked", "weight"], ["out"]),
    ]
    inputs = [_value(name, ("texts", "tokens"), WHOLE) for name in ("ids", "mask")]
    weights = [_weight("table", (50, 16)), _weight("weight", (16, 16)), _whole("last", [-1])]
    return _model(nodes, inputs, [_value("out", None)], weights)


def _decoder() -> onnx.ModelProto:
    """One layer of attention behind a cache, as exporters of language models name its inputs."""
    cache = ("batch_size", 2, "past_sequence_length", 8)
    inputs = [
        _value("input_ids", ("batch_size", "sequence_length"), WHOLE),
        _value("attention_mask", ("batch_size", "past_sequence_length + sequence_length"), WHOLE),
        _value("past_key_values.0.key", cache), _value("past_key_values.0.value", cache),
    ]  # fmt: skip
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Reshape", ["rows", "heads"], ["split"]),
        helper.make_node("Transpose", ["split"], ["q"], perm=[0, 2, 1, 3]),
        helper.make_node("Concat", ["past_key_values.0.key", "q"], ["present.0.key"], axis=2),
        helper.make_node("Concat", ["past_key_values.0.value", "q"], ["present.0.value"], axis=2),
        helper.make_node("Transpose", ["present.0.key"], ["k"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "k"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["weights"]),
        helper.make_node("MatMul", ["weights", "present.0.value"], ["logits"]),
    ]
    outputs = [_value(name, None) for name in ("logits", "present.0.key", "present.0.value")]
    return _model(nodes, inputs, outputs, [_weight("table", (50, 16)), _whole("heads", [0, 0, 2, 8])])


def _detector() -> onnx.ModelProto:
    """A convolution that gives boxes and scores, of which the data says how many are kept."""
    nodes = [
        helper.make_node("Conv", ["images", "weight"], ["found"], strides=[32, 32]),
        helper.make_node("Reshape", ["found", "flat"], ["places"]),
        helper.make_node("Split", ["places", "parts"], ["sides", "scores"], axis=1),
        helper.make_node("Transpose", ["sides"], ["boxes"], perm=[0, 2, 1]),
        helper.make_node("NonMaxSuppression", ["boxes", "scores", "most"], ["kept"], "nms"),
    ]
    wholes = [_whole("flat", [0, 6, -1]), _whole("parts", [4, 2]), _whole("most", [400])]
    weights = [_weight("weight", (6, 3, 32, 32)), *wholes]
    return _model(nodes, [_value("images", (1, 3, 320, 320))], [_value("kept", None, WHOLE)], weights)


def _speech() -> onnx.ModelProto:
    """As many samples are read of a recording as an input says."""
    nodes = [
        helper.make_node("Slice", ["recording", "start", "samples", "axis"], ["read"]),
        helper.make_node("Relu", ["read"], ["out"]),
    ]
    inputs = [_value("recording", (1, 48_000)), _value("samples", (1,), WHOLE)]
    return _model(nodes, inputs, [_value("out", None)], [_whole("start", [0]), _whole("axis", [1])])
