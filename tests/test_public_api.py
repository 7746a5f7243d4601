"""What ``import nn_meter`` offers, exactly."""

from __future__ import annotations

import inspect
from importlib.metadata import PackageNotFoundError, version

import pytest

import nn_meter


def test_names() -> None:
    assert nn_meter.__all__ == [
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
    for name in nn_meter.__all__:
        assert getattr(nn_meter, name) is not None
    assert set(nn_meter.__all__) <= set(dir(nn_meter))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'nn_meter' has no attribute 'load_predictor'"):
        nn_meter.load_predictor  # noqa: B018


def test_nn_meters_class_name_stays() -> None:
    assert nn_meter.nnMeterPredictor is nn_meter.Predictor


@pytest.mark.parametrize(
    ("call", "parameters"),
    [
        ("load_latency_predictor", ["predictor_name", "predictor_version"]),
        ("list_latency_predictors", []),
        ("model_file_to_graph", ["filename", "model_type", "input_shape", "apply_nni"]),
        ("model_to_graph", ["model", "model_type", "input_shape", "apply_nni"]),
        ("latency_metrics", ["y_pred", "y_true"]),
        ("bench_dataset", ["url", "data_folder"]),
    ],
)
def test_calls_take_nn_meters_arguments(call: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(nn_meter, call)).parameters)[: len(parameters)] == parameters


def test_predict_takes_nn_meters_arguments() -> None:
    parameters = inspect.signature(nn_meter.Predictor.predict).parameters
    assert list(parameters)[1:5] == ["model", "model_type", "input_shape", "apply_nni"]
    assert parameters["input_shape"].default == (1, 3, 224, 224)
    assert parameters["apply_nni"].default is False


def test_version_is_the_distributions() -> None:
    try:
        installed = version("nn-meter")
    except PackageNotFoundError:
        pytest.skip("nn-meter is not installed, only on the path")
    assert nn_meter.__version__ == installed
