"""A device as a value: what somebody who measured on it has to know to compare latencies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

_DIGITS = 18

Value = str | int | float | bool | None
"""A fact about a device or about the circumstances of a measurement; ``None`` where it cannot be read."""

DeviceKind = Literal["cpu", "gpu", "npu"]


@dataclass(frozen=True, slots=True)
class Device:
    """A processor in a machine, as the machine states it, or as who published measurements of it.

    ``name`` is what people call it, ``processor`` its model. ``cores`` is how many it has, ``processors`` those that
    may be used (``"0-3"``, ``"big"``). What nobody stated is empty or ``None``; ``environment`` holds further facts.
    """

    name: str
    maker: str = ""
    kind: DeviceKind = "cpu"
    processor: str = ""
    architecture: str = ""
    cores: int | None = None
    processors: str = ""
    clock_khz: int | None = None
    memory_bytes: int | None = None
    system: str = ""
    environment: Mapping[str, Value] = field(default_factory=dict)

    def facts(self) -> dict[str, Value]:
        """All that is known, as a bundle keeps it and ``same_machine`` compares it."""
        stated = {
            "cpu": self.processor or self.name,
            "machine": self.architecture or None,
            "cores": self.cores,
            "affinity": self.processors or None,
            "clock_khz": self.clock_khz,
            "memory_limit_bytes": self.memory_bytes,
            "kernel": self.system or None,
        }
        return {**stated, **self.environment}


_COMPARED: Mapping[str, str] = {
    "cpu": "the processor",
    "cpu_model": "the processor's model (CPUID family/model, or Arm's part)",
    "machine": "the architecture",
    "cores": "the number of cores",
    "affinity": "the cores it may use",
    "governor": "the frequency governor",
    "runtime": "the runtime",
    "runtime_version": "the runtime's version",
    "device": "the device",
    "threads": "the number of threads",
}
"""Fields in which two environments must agree for their latencies to be compared, in words."""


def counted(text: str | None) -> int | None:
    """The whole number that a machine says; ``None`` where it says none, or one that nothing has so many of."""
    said = (text or "").strip()
    return int(said) if said.isascii() and said.isdigit() and len(said) <= _DIGITS else None


def same_machine(first: Mapping[str, Value], second: Mapping[str, Value]) -> list[str]:
    """The differences that keep latencies taken in ``first`` and in ``second`` from being compared, in words.

    A fact that one of them does not hold is no difference.
    """
    return [
        f"{words} differs: {first[key]} and {second[key]}"
        for key, words in _COMPARED.items()
        if first.get(key) is not None and second.get(key) is not None and first[key] != second[key]
    ]
