"""A latency with its spread, as nn-Meter's files write it: ``"42.001 +- 1.0"``, in milliseconds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nn_meter.errors import BuildError
from nn_meter.measuring.measure import Measurement

_QUARTILES = 1.349
"""Distance of a normal distribution's quartiles in standard deviations."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Mean and standard deviation in ms; spreads of sums add up in squares."""

    avg: float = 0.0
    std: float = 0.0

    @classmethod
    def of(cls, taken: Measurement) -> Latency:
        """The median of the runs, and their deviation as the quartiles tell it: a few runs in which the machine did
        something else would make up most of any other."""
        return cls(taken.median_ms, taken.noise * taken.median_ms / _QUARTILES)

    @classmethod
    def parse(cls, value: object) -> Latency:
        """From a latency, a number, or text ``"42.001 +- 1.0"``.

        Raises:
            BuildError: none of these.
        """
        if isinstance(value, Latency):
            return value
        try:
            avg, _, std = str(value).partition("+-")
            return cls(float(avg), float(std or 0))
        except ValueError:
            raise BuildError(f"{value!r} is no latency; give milliseconds such as '42.001 +- 1.0'") from None

    def __str__(self) -> str:
        return f"{self.avg} +- {self.std}"

    def __add__(self, other: Latency) -> Latency:
        return Latency(self.avg + other.avg, math.hypot(self.std, other.std))

    def __sub__(self, other: Latency) -> Latency:
        return Latency(self.avg - other.avg, math.hypot(self.std, other.std))
