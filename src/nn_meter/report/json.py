"""Predictions as JSON documents. ``schema_version`` changes when a key changes its meaning or goes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from nn_meter.kernels.partition import config_json
from nn_meter.predictors.prediction import KernelPrediction, Prediction

SCHEMA_VERSION = 1


def document(prediction: Prediction, explain: bool = False) -> dict[str, Any]:
    """One prediction as plain values; ``explain`` adds the neighbours that did not fuse."""
    result: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "model": prediction.model,
        "predictor": prediction.predictor,
        "version": prediction.version,
        "device": prediction.device,
        "runtime": prediction.runtime,
        "threads": prediction.threads,
        "dtype": prediction.dtype,
        "inputs": {each.name: {"shape": each.shape, "dtype": each.dtype} for each in prediction.inputs},
        "past": prediction.past,
        "statistic": prediction.statistic,
        "latency_ms": prediction.latency_ms,
        "interval_ms": prediction.interval_ms,
        "size": None if prediction.size is None else asdict(prediction.size),
        "coverage": {
            status: {
                "kernels": part.kernels,
                "nodes": part.nodes,
                "latency_ms": part.latency_ms,
                "share": part.share,
            }
            for status, part in prediction.coverage.items()
        },
        "kernels": [_kernel(each) for each in prediction.kernels],
        "assumed": prediction.assumed,
        "notes": prediction.notes,
    }
    if explain:
        result["unfused"] = [
            {"producer": each.producer, "consumer": each.consumer, "reason": each.reason}
            for each in prediction.unfused
        ]
    return result


def documents(
    predictions: Sequence[Prediction], failed: Sequence[tuple[str, str]], explain: bool = False
) -> dict[str, Any]:
    """Several predictions, and the models that failed with the reason, as one document."""
    return {
        "schema_version": SCHEMA_VERSION,
        "predictions": [document(each, explain) for each in predictions],
        "failed": [{"model": model, "error": error} for model, error in failed],
    }


def told(
    predictions: Sequence[Prediction],
    failed: Sequence[tuple[str, str]],
    *,
    several: bool,
    explain: bool = False,
) -> str:
    """The text of one document: of the only prediction, or of ``several`` and the models that failed."""
    found = documents(predictions, failed, explain) if several else document(predictions[0], explain)
    return dumps(found)


def dumps(value: dict[str, Any]) -> str:
    """The document as text; equal documents give equal text."""
    return json.dumps(value, indent=2, default=str)


def _kernel(each: KernelPrediction) -> dict[str, Any]:
    kernel = each.kernel
    result = {
        "kind": kernel.kind,
        "label": kernel.label,
        "nodes": kernel.nodes,
        "config": config_json(kernel.config),
        "status": each.status,
        "latency_ms": each.latency_ms,
        "interval_ms": each.interval_ms,
        "bound": each.bound,
        "notes": each.notes,
    }
    if kernel.free:
        result["free"] = kernel.free
    return result
