"""Real models through every door of TensorFlow: the same operators' shapes, the work that Keras states."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

import pytest

from nn_meter import frontends
from nn_meter.frontends import tensorflow, tflite
from nn_meter.ir import Graph, Node, verify

pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("ignore")]

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

IMAGES = {
    "MobileNet": 64,
    "MobileNetV2": 64,
    "MobileNetV3Small": 64,
    "ResNet50": 64,
    "EfficientNetB0": 64,
    "DenseNet121": 64,
    "InceptionV3": 96,
}
"""Model of ``tf.keras.applications`` to the side of its images: small ones, as the converter runs on them."""

QUANTISED = ("MobileNet", "MobileNetV2", "MobileNetV3Small", "transformer")
"""Models that are also converted to int8; the converter is too slow for all."""

NOT_IN_H5 = ("MobileNetV3Small",)
"""Models with layers that Keras 3 saves as ``.h5`` but refuses to load from it."""


def _transformer(keras: Any) -> Any:
    layers = keras.layers
    tokens = keras.Input((16,), dtype="int32")
    x = layers.Embedding(50, 32)(tokens)
    for _ in range(2):
        x = layers.LayerNormalization()(layers.Add()([x, layers.MultiHeadAttention(4, 8)(x, x)]))
        y = layers.Dense(32)(layers.Dense(64, activation="gelu")(x))
        x = layers.LayerNormalization()(layers.Add()([x, y]))
    return keras.Model(tokens, layers.Dense(5)(layers.GlobalAveragePooling1D()(x)), name="transformer")


class Doors:
    """One model, and its graph by each door."""

    def __init__(self, name: str, folder: Path) -> None:
        import tensorflow as tf
        from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

        keras = tf.keras
        keras.backend.clear_session()
        side = IMAGES.get(name)
        self.name = name
        if side is None:
            self.model = _transformer(keras)
        else:
            self.model = getattr(keras.applications, name)(weights=None, input_shape=(side, side, 3))
        (tensor,) = self.model.inputs
        spec = tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype)
        concrete = tf.function(lambda x: self.model(x, training=False)).get_concrete_function(spec)
        frozen = convert_variables_to_constants_v2(concrete).graph.as_graph_def().SerializeToString()
        self.files = {
            "frozen": folder / "frozen.pb",
            "saved": folder / "saved",
            "keras": folder / "model.keras",
            "h5": folder / "model.h5",
            "tflite": folder / "model.tflite",
        }
        self.files["frozen"].write_bytes(frozen)
        self.model.export(str(self.files["saved"]), verbose=False)
        self.model.save(self.files["keras"])
        if name in NOT_IN_H5:
            del self.files["h5"]
        else:
            self.model.save(self.files["h5"])
        self.files["tflite"].write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(self.files["saved"])).convert())
        if name in QUANTISED:
            self._quantise(tf, side)
        self.graphs = {door: frontends.read(path) for door, path in self.files.items()}
        self.graphs["object"] = frontends.read(self.model)

    def _quantise(self, tf: Any, side: int | None) -> None:
        import numpy as np

        self.files["int8"] = self.files["tflite"].with_name("int8.tflite")
        converter = tf.lite.TFLiteConverter.from_saved_model(str(self.files["saved"]))
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if side is not None:
            sample = np.random.default_rng(0).random((1, side, side, 3), "float32")
            converter.representative_dataset = lambda: iter([[sample]])
        self.files["int8"].write_bytes(converter.convert())


def opened(name: str, tmp_path_factory: pytest.TempPathFactory) -> Doors:
    """The model ``name`` through all doors; skips where TensorFlow is absent."""
    pytest.importorskip("tensorflow")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Doors(name, tmp_path_factory.mktemp(name))


@pytest.fixture(scope="module", params=QUANTISED)
def doors(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Doors:
    return opened(request.param, tmp_path_factory)


def _shape(graph: Graph, name: str) -> tuple[int, ...]:
    return graph.tensors[name].shape


def _macs(graph: Graph, node: Node) -> int:
    out = graph.tensors[node.outputs[0]].size
    if node.op_type == "Conv":
        return out * prod(_shape(graph, node.inputs[1])[1:])
    if node.op_type in ("MatMul", "Gemm"):
        first = _shape(graph, node.inputs[0])
        return out * (first[0] if node.attrs.get("transA") else first[-1])
    if node.op_type == "Einsum":
        terms = str(node.attrs["equation"]).partition("->")[0].split(",")
        sizes = {
            c: d for t, i in zip(terms, node.inputs, strict=True) for c, d in zip(t, _shape(graph, i), strict=True)
        }
        return prod(sizes.values())
    return 0


def _work(graph: Graph) -> Counter[tuple[Any, ...]]:
    """Convolutions, products and pools by their shapes, not by how they are padded."""
    found: Counter[tuple[Any, ...]] = Counter()
    for node in graph.nodes:
        # TFLite's converter folds padding into what follows, so the input's height and width may differ
        shapes = (_shape(graph, node.inputs[0])[1:2], _shape(graph, node.outputs[0]))
        if node.op_type == "Conv":
            keys = ("kernel_shape", "strides", "dilations", "group")
            found["Conv", *shapes, *(node.attrs[key] for key in keys)] += 1
        elif node.op_type in ("MatMul", "Gemm"):
            found["product", *shapes] += 1
        elif node.op_type in ("MaxPool", "AveragePool"):
            found[node.op_type, *shapes, node.attrs["kernel_shape"], node.attrs["strides"]] += 1
        elif node.op_type in ("GlobalAveragePool", "ReduceMean"):
            found["mean", _shape(graph, node.inputs[0]), prod(shapes[1])] += 1
    return found


def _keras_macs(model: Any) -> int:
    """Multiplications and additions, from the layers' own shapes."""
    total = 0
    for layer in model.layers:
        kind = type(layer).__name__
        if kind == "MultiHeadAttention":
            length, width = layer.output.shape[1:]
            heads, size = layer.num_heads, layer.key_dim
            total += 4 * length * width * heads * size + 2 * heads * length * length * size
        elif kind == "DepthwiseConv2D":
            total += prod(layer.output.shape[1:]) * prod(layer.kernel.shape[:2])
        elif kind in ("Conv2D", "Dense"):
            total += prod(layer.output.shape[1:]) * prod(layer.kernel.shape[:-1])
    return total


def test_every_door_gives_a_graph_that_is_one(doors: Doors) -> None:
    for graph in doors.graphs.values():
        verify(graph)
        assert len(graph.inputs) == len(graph.outputs) == 1


def test_each_file_is_recognised_by_its_content(doors: Doors) -> None:
    for door, path in doors.files.items():
        assert frontends.find(path) is (tflite if door in ("tflite", "int8") else tensorflow)
    assert tensorflow.sniff(doors.model)


def test_images_are_channels_first(doors: Doors) -> None:
    side = IMAGES.get(doors.name)
    expected = (1, 16) if side is None else (1, 3, side, side)
    for graph in doors.graphs.values():
        assert graph.tensors[graph.inputs[0]].shape == expected


def test_no_door_inserts_a_transpose_for_the_layout(doors: Doors) -> None:
    if doors.name in IMAGES:
        for graph in doors.graphs.values():
            assert not [node for node in graph.nodes if node.op_type == "Transpose"]


def test_convolutions_products_and_pools_are_the_same_by_every_door(doors: Doors) -> None:
    if doors.name not in IMAGES:
        pytest.skip("the converter to TFLite rewrites the products of attention; their work is compared below")
    expected = _work(doors.graphs["frozen"])
    for door, graph in doors.graphs.items():
        assert _work(graph) == expected, door


def test_the_work_is_what_keras_layers_state(doors: Doors) -> None:
    expected = _keras_macs(doors.model)
    for door, graph in doors.graphs.items():
        assert sum(_macs(graph, node) for node in graph.nodes) == expected, door


def test_quantised_tensors_keep_their_type(doors: Doors) -> None:
    if doors.name not in IMAGES or doors.name not in QUANTISED:
        pytest.skip("not converted with calibrated activations")
    graph = doors.graphs["int8"]
    convolutions = [node for node in graph.nodes if node.op_type == "Conv"]
    assert {graph.tensors[name].dtype for node in convolutions for name in node.inputs[:2]} == {"int8"}
    assert {graph.tensors[node.inputs[2]].dtype for node in convolutions} == {"int32"}
    kinds = {node.op_type for node in graph.nodes}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds


def test_shapes_are_those_of_a_run_of_tflite(doors: Doors) -> None:
    import numpy as np

    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    for door in doors.graphs.keys() & {"tflite", "int8"}:
        interpreter = Interpreter(
            str(doors.files[door]),
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
        (entry,) = interpreter.get_input_details()
        interpreter.set_tensor(entry["index"], np.zeros(entry["shape"], entry["dtype"]))
        interpreter.invoke()
        found = {each["name"]: int(np.prod(each["shape"])) for each in interpreter.get_tensor_details()}
        graph = doors.graphs[door]
        compared = [tensor for tensor in graph.tensors.values() if tensor.name in found]
        assert len(compared) > len(graph.nodes) / 2
        assert [tensor for tensor in compared if tensor.size != found[tensor.name]] == []
