"""A GPU's data sheet: what its maker says that it does at best."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nn_meter.errors import BuildError
from nn_meter.storage import Fields, read_yaml

KEYS = ("device", "maker", "peak_tflops", "bandwidth_gb_per_s", "processors", "cache_mb", "board_watts", "source")


@dataclass(frozen=True, slots=True)
class Sheet:
    """A data sheet. ``flops_per_s`` is for the precision that is predicted, a multiply-add counted as two.

    ``processors`` are streaming multiprocessors or compute units, ``cache_bytes`` those of the last cache. A board
    may take ``board_watts``, 0 where unknown; ``source`` says whose the sheet is.
    """

    device: str
    flops_per_s: float
    bytes_per_s: float
    processors: int
    cache_bytes: float
    board_watts: float = 0.0
    maker: str = ""
    source: str = ""

    @classmethod
    def of(cls, stored: Fields) -> Sheet:
        """From keys in the units that data sheets use: ``peak_tflops``, ``bandwidth_gb_per_s``, ``cache_mb``."""
        if unknown := sorted(map(str, stored.values.keys() - {*KEYS})):
            stored.refuse(unknown[0], f"one of {', '.join(KEYS)}")
        processors = stored.whole("processors")
        if not processors:
            stored.refuse("processors", "a whole number of at least 1")
        return cls(
            stored.text("device"),
            1e12 * stored.number("peak_tflops", low=1e-3, high=1e5),
            1e9 * stored.number("bandwidth_gb_per_s", low=1e-1, high=1e6),
            processors,
            1e6 * stored.number("cache_mb", low=1e-2, high=1e5),
            stored.number("board_watts", low=1.0, high=1e4) if "board_watts" in stored.values else 0.0,
            stored.text("maker", default=""),
            stored.text("source", default=""),
        )


def read_sheet(path: Path | str) -> Sheet:
    """The data sheet in a YAML file.

    Raises:
        BuildError: it cannot be read, a key is missing or unknown, or its number is none that a GPU could have.
    """
    what = "the data sheet"
    stored: Any = read_yaml(path, what, BuildError)
    return Sheet.of(Fields(stored, f"{path}: {what}", BuildError, "docs/measurements.md shows one"))
