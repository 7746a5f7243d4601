"""A prediction as plain values, and as a table of its kernels. ``docs/schema.json`` says what the keys mean."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from nn_meter.kernels.partition import config_json
from nn_meter.predictors.prediction import KernelPrediction, Prediction

SCHEMA_VERSION = 1
"""Changes when a key changes its meaning or goes."""

COLUMNS = (
    "model", "predictor", "version", "index", "nodes", "kernel", "kind", "shape", "status", "latency_ms", "share",
    "bound", "notes",
)  # fmt: skip


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
        "call_ms": prediction.call_ms,
        "size": None if prediction.size is None else asdict(prediction.size),
        "coverage": {status: asdict(part) for status, part in prediction.coverage.items()},
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


def table(prediction: Prediction) -> list[tuple[Any, ...]]:
    """A row for each kernel in the order of execution, its cells as ``COLUMNS`` name them."""
    return [
        (
            prediction.model, prediction.predictor, prediction.version, index, " ".join(each.kernel.nodes),
            each.kernel.label, each.kernel.kind, each.kernel.config.describe(), each.status, each.latency_ms,
            prediction.share(each.latency_ms), each.bound, "; ".join(each.notes),
        )
        for index, each in enumerate(prediction.kernels)
    ]  # fmt: skip


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
