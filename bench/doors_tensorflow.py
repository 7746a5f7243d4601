"""Models of ``keras.applications`` by every door of TensorFlow, and beside PyTorch's of the same name.

    python bench/doors_tensorflow.py [MODEL ...]

Do the kernels (kind and config, without what is free) and the predictions of the default predictor agree with those
of the frozen graph? Weights are random and none keeps its initial value; images are 224 x 224.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import nn_meter
from nn_meter.frontends.zoo.modules import importable
from nn_meter.predictors.prediction import Prediction

SIDE = 224
TWINS = {
    "MobileNet": "timm:mobilenetv1_100",
    "MobileNetV2": "torchvision:mobilenet_v2",
    "MobileNetV3Small": "torchvision:mobilenet_v3_small",
    "MobileNetV3Large": "torchvision:mobilenet_v3_large",
    "ResNet50": "torchvision:resnet50",
    "EfficientNetB0": "timm:efficientnet_b0",
    "DenseNet121": "torchvision:densenet121",
    "InceptionV3": "torchvision:inception_v3",
}
"""Model of ``keras.applications`` to the one of PyTorch."""


def doors(name: str, folder: Path) -> dict[str, Any]:
    """The Keras model itself, and its files in ``folder``."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    tf.keras.backend.clear_session()
    model = getattr(tf.keras.applications, name)(weights=None, input_shape=(SIDE, SIDE, 3))
    for (
        weight
    ) in model.weights:  # the converter to TFLite drops scales of 1 and shifts of 0, which training ends
        weight.assign(tf.random.uniform(weight.shape, 0.5, 1.5, weight.dtype))
    spec = tf.TensorSpec((1, SIDE, SIDE, 3), tf.float32)
    concrete = tf.function(lambda x: model(x, training=False)).get_concrete_function(spec)
    found = {
        "frozen": folder / "frozen.pb",
        "SavedModel": folder / "saved",
        "keras": folder / "model.keras",
        "object": model,
        "tflite": folder / "model.tflite",
    }
    graph = convert_variables_to_constants_v2(concrete).graph.as_graph_def()
    found["frozen"].write_bytes(graph.SerializeToString())
    model.export(str(found["SavedModel"]), verbose=False)
    model.save(found["keras"])
    converter = tf.lite.TFLiteConverter.from_saved_model(str(found["SavedModel"]))
    found["tflite"].write_bytes(converter.convert())
    return found


def kernels(prediction: Prediction) -> Counter[Any]:
    """Kind and config of what costs something."""
    return Counter((k.kernel.kind, k.kernel.config) for k in prediction.kernels if k.status != "free")


def kinds(only: Counter[Any]) -> str:
    """``5 reshape, 1 pool`` of kernels that one side has alone."""
    return ", ".join(f"{n} {kind}" for kind, n in Counter(k for k, _ in only.elements()).items()) or "none"


def line(door: str, prediction: Prediction, frozen: Prediction) -> str:
    """How one door differs from the frozen graph."""
    ours, theirs = kernels(prediction), kernels(frozen)
    text = "the same kernels"
    if ours != theirs:
        text = f"only here {kinds(ours - theirs)}; only frozen {kinds(theirs - ours)}"
    return f"  {door} {prediction.latency_ms / frozen.latency_ms - 1:+.1%}: {text}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(TWINS), help="names of keras.applications")
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore")
    importable()
    predictor = nn_meter.load_latency_predictor()
    for name in args.models:
        with tempfile.TemporaryDirectory() as folder:
            found = {door: predictor.explain(source) for door, source in doors(name, Path(folder)).items()}
        twin = TWINS[name]
        found[twin] = predictor.explain(twin, input_shape=(1, 3, SIDE, SIDE))
        print(f"{name}: {found['frozen'].latency_ms:.2f} ms")
        for door, prediction in found.items():
            print(line(door, prediction, found["frozen"]), flush=True)


if __name__ == "__main__":
    main()
