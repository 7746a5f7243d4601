"""What a prediction says, kernel by kernel, and what it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from nn_meter.kernels.partition import Kernel, Unfused

Status = Literal["predicted", "extrapolated", "estimated", "free"]
STATUSES: tuple[Status, ...] = ("predicted", "extrapolated", "estimated", "free")


@dataclass(frozen=True, slots=True)
class KernelPrediction:
    """One kernel's share.

    ``predicted``: by a regressor of its kind, within what that was trained on. ``extrapolated``: by one that was asked
    about more than it saw; the notes say about what. ``estimated``: by a fallback, because there is none. ``free``: it
    costs nothing, by a row in a table. ``interval_ms`` is the central 90 % where the predictor knows it.
    """

    kernel: Kernel
    status: Status
    latency_ms: float
    interval_ms: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many kernels and nodes have a status, their time, and its share of the total (0 to 1)."""

    kernels: int
    nodes: int
    latency_ms: float
    share: float


@dataclass(frozen=True)
class Prediction:
    """Latency of one inference of ``model`` in milliseconds, and its parts."""

    model: str
    predictor: str
    version: str
    device: str
    statistic: str
    latency_ms: float
    kernels: tuple[KernelPrediction, ...]
    interval_ms: tuple[float, float] | None = None
    unfused: tuple[Unfused, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def coverage(self) -> Mapping[Status, Coverage]:
        """Per status, what the total rests on."""
        result: dict[Status, Coverage] = {}
        for status in STATUSES:
            some = [k for k in self.kernels if k.status == status]
            latency_ms = sum(k.latency_ms for k in some)
            share = latency_ms / self.latency_ms if self.latency_ms else 0.0
            result[status] = Coverage(len(some), sum(len(k.kernel.nodes) for k in some), latency_ms, share)
        return MappingProxyType(result)

    @property
    def strict_problems(self) -> tuple[str, ...]:
        """Why the answer does not rest on regressors and decisions alone; empty if it does."""
        return tuple(
            f"{k.kernel.label} ({', '.join(k.kernel.nodes[:2] + ('...',) * (len(k.kernel.nodes) > 2))}): "
            f"{'; '.join(k.notes) or k.status}"
            for k in self.kernels
            if k.status in ("extrapolated", "estimated")
        )
