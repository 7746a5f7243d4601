"""Parts of a bundle beside its regressors: what answers without one, and how far an answer may be off.

Each is a small value that reads and writes itself; a fallback is chosen by its ``policy``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, Self

from nn_meter.kernels.schema import Speeds
from nn_meter.storage import Fields

_SLOWEST_PER_S = 1.0
_FACTOR_MOST, LOG_RATIO_MOST = 1e6, 20.0
CALL_MS_MOST = 1e9
"""No device that a network runs on is slower, takes longer to begin, and no correction is larger; each keeps answers
finite."""


class Fallback(Protocol):
    """What answers for a kernel without a regressor."""

    policy: ClassVar[str]

    @classmethod
    def read(cls, stored: Fields) -> Fallback:
        """From a manifest; its numbers give a finite latency of more than nothing."""

    def written(self) -> dict[str, Any]:
        """For a manifest, ``policy`` included."""


@dataclass(frozen=True, slots=True)
class Roofline:
    """From a kernel's work: ``factor``, the median of measured over least, times the least that the device needs.

    ``processors`` and ``cache_bytes`` are those of a GPU's data sheet. A device that is not ``measured`` has regressors
    that others' kernels trained, so that all of its answers are estimates.
    """

    flops_per_s: float
    bytes_per_s: float
    overhead_ms: float
    factor: float = 1.0
    processors: int = 0
    cache_bytes: float = 0.0
    measured: bool = True
    policy: ClassVar[str] = "roofline"

    @property
    def speeds(self) -> Speeds:
        """What the device does at best."""
        return Speeds(self.flops_per_s, self.bytes_per_s, self.overhead_ms, self.processors, self.cache_bytes)

    @classmethod
    def read(cls, stored: Fields) -> Self:
        """See :class:`Fallback`."""
        return cls(
            stored.number("flops_per_s", low=_SLOWEST_PER_S),
            stored.number("bytes_per_s", low=_SLOWEST_PER_S),
            stored.number("overhead_ms", low=0.0, high=CALL_MS_MOST),
            stored.number("factor", low=0.0, high=_FACTOR_MOST) if "factor" in stored.values else 1.0,
            stored.whole("processors") if "processors" in stored.values else 0,
            stored.number("cache_bytes", low=0.0) if "cache_bytes" in stored.values else 0.0,
            stored.take("measured", bool, "true or false", True),
        )

    def written(self) -> dict[str, Any]:
        """See :class:`Fallback`."""
        found = {"policy": self.policy, **asdict(self)}
        unsaid = {"processors": 0, "cache_bytes": 0.0, "measured": True}
        return {key: value for key, value in found.items() if key not in unsaid or value != unsaid[key]}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Nothing, as nn-Meter's sums have it: such kernels count 0 ms."""

    policy: ClassVar[str] = "zero"

    @classmethod
    def read(cls, stored: Fields) -> Self:
        """See :class:`Fallback`."""
        return cls()

    def written(self) -> dict[str, Any]:
        """See :class:`Fallback`."""
        return {"policy": self.policy}


@dataclass(frozen=True, slots=True)
class ByTerms:
    """The bundle's own terms say what a kernel costs that none was fitted for."""

    policy: ClassVar[str] = "terms"

    @classmethod
    def read(cls, stored: Fields) -> Self:
        """See :class:`Fallback`."""
        return cls()

    def written(self) -> dict[str, Any]:
        """See :class:`Fallback`."""
        return {"policy": self.policy}


FALLBACKS: Mapping[str, type[Roofline] | type[LeftOut] | type[ByTerms]] = MappingProxyType(
    {each.policy: each for each in (Roofline, LeftOut, ByTerms)}
)
"""By their policies."""


def read_fallback(stored: Fields) -> Fallback:
    """The fallback of a manifest; errors name file and key."""
    if stored.text("policy") not in FALLBACKS:
        stored.refuse("policy", f"one of {', '.join(map(repr, FALLBACKS))}")
    return FALLBACKS[stored.values["policy"]].read(stored)


@dataclass(frozen=True, slots=True)
class Interval:
    """The central share ``level`` of log(measured / predicted), over so many ``models`` or held-out ``networks``; and
    of log(measured / estimated) where that was found out.

    ``sums`` is the same share of that logarithm over the ``spread`` of a sum, where it was found out what the errors of
    kernels of one kind ``share``: then a model's interval follows from what its answer is the sum of.
    """

    low: float
    high: float
    level: float = 0.9
    models: int = 0
    networks: int = 0
    estimated: tuple[float, float] | None = None
    sums: tuple[float, float] | None = None
    share: float = 0.0

    @classmethod
    def read(cls, stored: Fields) -> Self:
        """From a manifest; errors name file and key."""
        low, high = _ends(stored, "low", "high")
        return cls(
            low,
            high,
            stored.number("level", low=0.0, high=1.0) if "level" in stored.values else 0.9,
            stored.whole("models") if "models" in stored.values else 0,
            stored.whole("networks") if "networks" in stored.values else 0,
            _ends(stored, "estimated_low", "estimated_high") if "estimated_low" in stored.values else None,
            _ends(stored, "sums_low", "sums_high") if "sums_low" in stored.values else None,
            stored.number("share", low=0.0, high=1.0) if "share" in stored.values else 0.0,
        )

    def written(self) -> dict[str, Any]:
        """For a manifest."""
        found: dict[str, Any] = {"low": self.low, "high": self.high, "level": self.level}
        found |= {key: count for key in ("models", "networks") if (count := getattr(self, key))}
        if self.estimated is not None:
            found |= dict(zip(("estimated_low", "estimated_high"), self.estimated, strict=True))
        if self.sums is not None:
            found |= {"sums_low": self.sums[0], "sums_high": self.sums[1], "share": self.share}
        return found

    def around(self, latency_ms: float, unsure: float = 0.0) -> tuple[float, float]:
        """Lower and upper end in ms; ``unsure`` goes from 0, the interval of predictions, to 1, that of estimates."""
        others = self.estimated or (self.low, self.high)
        low, high = ((1 - unsure) * a + unsure * b for a, b in zip((self.low, self.high), others, strict=True))
        return latency_ms * math.exp(low), latency_ms * math.exp(high)

    @property
    def off_estimated(self) -> float:
        """Half of the width of the interval of estimates, as a logarithm."""
        low, high = self.estimated or (self.low, self.high)
        return (high - low) / 2


@dataclass(frozen=True, slots=True)
class Part:
    """What a sum is made of: latencies of one ``kind`` that are off by about ``off``, as a logarithm. Parts of one
    ``key``, which is hashable, are the same kernel, so that their errors are one."""

    kind: str
    key: Any
    latency_ms: float
    off: float


def spread(parts: Iterable[Part], share: float) -> float:
    """How far a sum is off, as a logarithm, to first order: the standard deviation of a sum whose parts' errors are one
    where they are the same kernel, correlate by ``share`` within a kind, and do not between kinds; in units of ``off``.
    """
    same: dict[tuple[str, Any], float] = {}
    total_ms = 0.0
    for part in parts:
        total_ms += part.latency_ms
        same[part.kind, part.key] = same.get((part.kind, part.key), 0.0) + part.latency_ms * part.off
    kinds: dict[str, tuple[float, float]] = {}
    for (kind, _), off_ms in same.items():
        one, squares = kinds.get(kind, (0.0, 0.0))
        kinds[kind] = one + off_ms, squares + off_ms**2
    variance = sum(share * one**2 + (1 - share) * squares for one, squares in kinds.values())
    return math.sqrt(variance) / total_ms if total_ms else 0.0


def _ends(stored: Fields, low: str, high: str) -> tuple[float, float]:
    least = stored.number(low, low=-LOG_RATIO_MOST, high=LOG_RATIO_MOST)
    return least, stored.number(high, low=least, high=LOG_RATIO_MOST)
