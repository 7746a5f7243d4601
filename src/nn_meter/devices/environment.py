"""The circumstances of a measurement that is taken in this process."""

from __future__ import annotations

from collections.abc import Mapping

from nn_meter.devices.device import Value, same_machine
from nn_meter.devices.here import here

__all__ = ["Value", "environment", "same_machine"]


def environment(extra: Mapping[str, Value] | None = None) -> dict[str, Value]:
    """What this machine is and how it is set; ``None`` where it cannot be read.

    Args:
        extra: Facts to add, such as what a backend's ``check`` says.
    """
    return {**here().facts(), **(extra or {})}
