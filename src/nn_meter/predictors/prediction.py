"""What a prediction says, kernel by kernel, and what it rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from nn_meter.ir import Tensor
from nn_meter.ir.size import ModelSize
from nn_meter.kernels.partition import Kernel, Unfused

Bound = Literal["compute", "memory", "call", ""]
Status = Literal["predicted", "extrapolated", "estimated", "free"]
STATUSES: tuple[Status, ...] = ("predicted", "extrapolated", "estimated", "free")
DOUBTFUL: tuple[Status, ...] = tuple(status for status in STATUSES if status not in ("predicted", "free"))
"""What ``strict`` refuses, and people are warned of."""


@dataclass(frozen=True, slots=True)
class KernelPrediction:
    """One kernel's share.

    ``predicted``: by a regressor of its kind, within what that was trained on. ``extrapolated``: by one that was asked
    about more than it saw; the notes say about what. ``estimated``: by a fallback, because there is none. ``free``: it
    costs nothing, by a row in a table. ``interval_ms`` is the central 90 % where the predictor knows it. ``bound`` is
    what the device's roofline says that it waits for, empty where nobody knows: arithmetic, memory, or the call itself.
    ``beyond`` is how far outside of what was trained on it lies: doublings of the farthest column, 0 within.
    """

    kernel: Kernel
    status: Status
    latency_ms: float
    interval_ms: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()
    bound: Bound = ""
    beyond: float = 0.0


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many kernels and nodes have a status, their time, and its share of the total (0 to 1)."""

    kernels: int
    nodes: int
    latency_ms: float
    share: float


@dataclass(frozen=True)
class Prediction:
    """Latency of one inference of ``model`` in milliseconds, and its parts: ``kernels``, and
    ``call_ms``, what a call costs outside them all.

    ``runtime`` with its version, ``threads`` (0 where unknown) and ``dtype`` are the predictor's; ``inputs`` and
    ``size`` the model's, where it is a graph. ``past`` tokens were asked for in the cache of a language model;
    ``assumed`` says what the data decides, and what was taken for it.
    """

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
    runtime: str = ""
    threads: int = 0
    dtype: str = ""
    inputs: tuple[Tensor, ...] = ()
    size: ModelSize | None = None
    call_ms: float = 0.0
    past: int | None = None
    assumed: tuple[str, ...] = ()

    @property
    def charged(self) -> tuple[KernelPrediction, ...]:
        """The kernels that are not free, in the order of execution."""
        return tuple(each for each in self.kernels if each.status != "free")

    @property
    def free_operators(self) -> tuple[tuple[str, str, int], ...]:
        """What is free, by operator: label, reason, count; the most frequent first."""
        free = (each.kernel for each in self.kernels if each.status == "free")
        found = Counter((kernel.label, kernel.free) for kernel in free)
        return tuple((label, reason, count) for (label, reason), count in found.most_common())

    @property
    def unfused_by_reason(self) -> Mapping[str, tuple[Unfused, ...]]:
        """The neighbours that did not fuse, by reason; the most frequent first."""
        found: dict[str, list[Unfused]] = {}
        for each in self.unfused:
            found.setdefault(each.reason, []).append(each)
        ordered = sorted(found.items(), key=lambda item: -len(item[1]))
        return MappingProxyType({reason: tuple(pairs) for reason, pairs in ordered})

    def share(self, latency_ms: float) -> float:
        """A part of the total, 0 to 1; 0 where there is none."""
        return latency_ms / self.latency_ms if self.latency_ms else 0.0

    @property
    def coverage(self) -> Mapping[Status, Coverage]:
        """Per status, what the total rests on."""
        result: dict[Status, Coverage] = {}
        for status in STATUSES:
            some = [k for k in self.kernels if k.status == status]
            latency_ms = sum(k.latency_ms for k in some)
            nodes = sum(len(k.kernel.nodes) for k in some)
            result[status] = Coverage(len(some), nodes, latency_ms, self.share(latency_ms))
        return MappingProxyType(result)

    @property
    def strict_problems(self) -> tuple[str, ...]:
        """Why the answer does not rest on regressors and decisions alone; empty if it does."""
        return self.assumed + tuple(
            f"{k.kernel.label} ({', '.join(k.kernel.nodes[:2] + ('...',) * (len(k.kernel.nodes) > 2))}): "
            f"{'; '.join(k.notes) or k.status}"
            for k in self.kernels
            if k.status in DOUBTFUL
        )
