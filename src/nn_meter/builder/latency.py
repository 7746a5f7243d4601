"""What models are measured to take, as nn-Meter's files hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nn_meter.errors import BuildError
from nn_meter.measuring.latency import Latency


class ProfiledResults:
    """What a backend's parser found, by metric."""

    def __init__(self, results: Mapping[str, Any] | None = None) -> None:
        self.data = dict(results or {})

    def set(self, metric: str, value: Any) -> None:
        """Note a metric."""
        self.data[metric] = value

    def get(self, metrics: str | Sequence[str]) -> dict[str, Any]:
        """The metrics asked for.

        Raises:
            BuildError: one that was not found.
        """
        asked = [metrics] if isinstance(metrics, str) else list(metrics)
        missing = [metric for metric in asked if metric not in self.data]
        if missing:
            raise BuildError(f"the backend gives no {missing[0]!r}, only {', '.join(self.data) or 'nothing'}")
        return {metric: self.data[metric] for metric in asked}


Models = dict[str, dict[str, dict[str, Any]]]
"""nn-Meter's description of models: module (rule or kernel) to identity to ``model``, ``shapes``, ``config``,
``latency`` ..."""


def read_profiled_results(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Models:
    """The same with every latency parsed.

    Raises:
        BuildError: text that is no latency.
    """
    return {
        module: {
            name: {key: Latency.parse(value) if key == "latency" else value for key, value in model.items()}
            for name, model in models.items()
        }
        for module, models in results.items()
    }


def dump_profiled_results(
    results: Mapping[str, Mapping[str, Mapping[str, Any]]],
    detail: bool = False,
    metrics: Sequence[str] = ("latency",),
) -> Models:
    """As JSON holds it: latencies as text, and the metrics alone unless ``detail``."""
    return {
        module: {
            name: {
                key: str(value) if key == "latency" else value
                for key, value in model.items()
                if detail or key in metrics
            }
            for name, model in models.items()
        }
        for module, models in results.items()
    }
