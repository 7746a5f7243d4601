"""Predicts how long a neural network takes for one inference on a device, without running it there.

>>> import nn_meter
>>> predictor = nn_meter.load_latency_predictor("cortexA76cpu_tflite21")
>>> predictor.predict("model.onnx")  # milliseconds

The names below are loaded when first used; importing the package alone imports no other one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nn_meter.api import (
        Predictor,
        bench_dataset,
        latency_metrics,
        list_latency_predictors,
        load_latency_predictor,
        model_file_to_graph,
        model_to_graph,
        nnMeterPredictor,
    )
    from nn_meter.block_table import BlockTable
    from nn_meter.building import BuildPlan, build
    from nn_meter.errors import NnMeterError
    from nn_meter.fitting import adapt, fit
    from nn_meter.fleets import measure_many
    from nn_meter.predictors.prediction import Prediction

__version__ = "3.0.0.dev0"

_HOMES = {
    "BlockTable": "nn_meter.block_table",
    "BuildPlan": "nn_meter.building",
    "NnMeterError": "nn_meter.errors",
    "Prediction": "nn_meter.predictors.prediction",
    "Predictor": "nn_meter.api",
    "adapt": "nn_meter.fitting",
    "bench_dataset": "nn_meter.api",
    "build": "nn_meter.building",
    "fit": "nn_meter.fitting",
    "latency_metrics": "nn_meter.api",
    "list_latency_predictors": "nn_meter.api",
    "measure_many": "nn_meter.fleets",
    "load_latency_predictor": "nn_meter.api",
    "model_file_to_graph": "nn_meter.api",
    "model_to_graph": "nn_meter.api",
    "nnMeterPredictor": "nn_meter.api",
}

__all__ = [
    "BlockTable",
    "BuildPlan",
    "NnMeterError",
    "Prediction",
    "Predictor",
    "__version__",
    "adapt",
    "bench_dataset",
    "build",
    "fit",
    "latency_metrics",
    "list_latency_predictors",
    "load_latency_predictor",
    "measure_many",
    "model_file_to_graph",
    "model_to_graph",
    "nnMeterPredictor",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
