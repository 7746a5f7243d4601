"""What a prediction says, kernel by kernel, and what it rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import floor, log10
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self

from nn_meter.errors import MissingDependencyError
from nn_meter.ir import Tensor
from nn_meter.ir.frozen import quickly_made
from nn_meter.ir.size import ModelSize
from nn_meter.kernels.partition import Kernel, Unfused
from nn_meter.kernels.schema import Bound

if TYPE_CHECKING:
    from pandas import DataFrame

    from nn_meter.predictors.bundle import Bundle

Status = Literal["predicted", "extrapolated", "estimated", "free"]
STATUSES: tuple[Status, ...] = ("predicted", "extrapolated", "estimated", "free")
DOUBTFUL: tuple[Status, ...] = tuple(status for status in STATUSES if status not in ("predicted", "free"))
"""What ``strict`` refuses, and people are warned of."""


def milliseconds(value: float) -> str:
    """Four significant milliseconds, as people read milliseconds."""
    return f"{value:.{max(0, 3 - floor(log10(abs(value))))}f}" if value else "0"


@quickly_made
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
    bound: Bound | Literal[""] = ""
    beyond: float = 0.0


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many kernels and nodes have a status, their time, and its share of the total (0 to 1). What a call costs was
    measured, and counts as predicted."""

    kernels: int
    nodes: int
    latency_ms: float
    share: float


@dataclass(frozen=True, repr=False)
class Prediction:
    """Latency of one inference of ``model`` in milliseconds, and its parts: ``kernels``, and
    ``call_ms``, what a call costs outside them all.

    ``runtime`` with its version, ``threads`` (0 where unknown) and ``dtype`` are the predictor's; ``inputs`` and
    ``size`` the model's, where it is a graph. ``past`` tokens were asked for in the cache of a language model;
    ``assumed`` says what the data decides, and what was taken for it. ``source`` is the path or the name that the model
    was given as, where it was given as one.
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
    source: str = ""

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        model: str,
        kernels: Iterable[KernelPrediction],
        unfused: tuple[Unfused, ...] = (),
        notes: tuple[str, ...] = (),
        call_ms: float = 0.0,
    ) -> Self:
        """What a predictor with this bundle says of a model: the sum of its kernels and the call, without interval."""
        parts = tuple(kernels)
        return cls(
            model,
            bundle.name,
            bundle.version,
            bundle.device,
            bundle.statistic,
            sum(each.latency_ms for each in parts) + call_ms,
            parts,
            unfused=unfused,
            notes=notes,
            runtime=f"{bundle.runtime} {bundle.runtime_version}".strip(),
            threads=bundle.threads if bundle.runtime and bundle.category == "cpu" else 0,
            dtype=bundle.dtype,
            call_ms=call_ms,
        )

    def __repr__(self) -> str:
        name = f"{self.model} on {self.predictor} {self.version}"
        return f"<Prediction: {name}: {milliseconds(self.latency_ms)} ms, {len(self.charged)} kernels>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the answer, what it rests on, the rows that take the longest."""
        from nn_meter.predictors.notebook import html

        return html(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``nn-meter explain --json`` prints them; ``docs/schema.json`` says what the keys mean."""
        from nn_meter.predictors.documents import document

        return document(self, explain=True)

    def to_pandas(self) -> DataFrame:
        """A row for each kernel in the order of execution, in the columns of ``nn-meter predict --csv``.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise MissingDependencyError("pandas", "pandas", "Prediction.to_pandas") from error
        from nn_meter.predictors.documents import COLUMNS, table

        return DataFrame(table(self), columns=list(COLUMNS))

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
            latency_ms = sum(k.latency_ms for k in some) + (self.call_ms if status == "predicted" else 0.0)
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

    @property
    def caution(self) -> str:
        """One line where not all of the total is predicted or free, else empty."""
        said = []
        for status, part in self.coverage.items():
            if status in DOUBTFUL and part.kernels:
                share = f"{part.share:.1%} of the total" if part.latency_ms else "they count 0 ms, which is too little"
                kernels = f"{len(self.kernels)} kernel{'s' if len(self.kernels) > 1 else ''}"
                said.append(f"{part.kernels} of {kernels} ({share}) are {status}")
        which = ", ".join(said)
        where = f"{self.model} on {self.predictor}"
        return f"{where}: {which}, not predicted; nn-meter explain says which and why" if said else ""
