"""Configs drawn from ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Config = Mapping[str, int]
Values = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Channels:
    """Numbers of channels from ``low`` to ``high``, even on a logarithmic scale, multiples of ``step``."""

    low: int
    high: int
    step: int = 1

    def draw(self, rng: np.random.Generator) -> int:
        """One of them."""
        value = np.exp(rng.uniform(np.log(self.low), np.log(self.high)))
        return max(self.low, int(value) // self.step * self.step)

    def near(self, value: int, rng: np.random.Generator) -> int:
        """One from half of ``value`` to 1.2 times it, as nn-Meter samples around large errors."""
        drawn = int(rng.integers(int(value * 0.5), max(int(value * 1.2), int(value * 0.5) + 1)))
        return max(self.step, drawn // self.step * self.step)


Space = Mapping[str, Values | Channels]
"""Key of a config to what it is drawn from."""


def sample(space: Space, rng: np.random.Generator) -> dict[str, int]:
    """One config."""
    return {
        key: values.draw(rng) if isinstance(values, Channels) else int(rng.choice(values))
        for key, values in space.items()
    }


def sample_near(space: Space, config: Config, rng: np.random.Generator) -> dict[str, int]:
    """One config around ``config``: other channels, where it has any, and all else the same."""
    return {
        key: values.near(int(config[key]), rng)
        if isinstance(values, Channels) and config[key]
        else int(config[key])
        for key, values in space.items()
    }
