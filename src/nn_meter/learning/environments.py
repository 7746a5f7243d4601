"""What the circumstances of measurements are called, share with others, and leave in a bundle."""

from __future__ import annotations

import re
from typing import Any

from nn_meter.measuring.records import Circumstances


def default_name(around: Circumstances) -> str:
    """``pixel4_1large_float_tflite``: device, processors, precision, runtime."""
    precision = {"float32": "float", "int8": "quant"}.get(around.precision, around.precision)
    device = str(around.device.environment.get("short") or around.device.name)
    parts = (device, around.device.processors, precision, around.runtime + around.runtime_version)
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", "_".join(part for part in parts if part))


def tags_of(around: Circumstances) -> tuple[str, ...]:
    """What an environment shares with others: its device, kind of cores, number of threads, maker."""
    device = around.device
    cores = re.sub(r"\d", "", device.processors)
    kind = re.sub(".*(?=large|med|small)", "", cores)
    shared = (f"device:{device.name}", f"cores:{device.name}:{cores}", f"threads:{min(around.threads, 4)}")
    return (*shared, f"kind:{kind}", f"maker:{device.maker}")


def told(around: Circumstances) -> tuple[list[str], dict[str, Any]]:
    """Notes and environment of a bundle: who measured, and on what."""
    notes = [f"measured by {around.source}, licence {around.licence or 'unknown'}"] if around.source else []
    facts: dict[str, Any] = {
        **{key: value for key, value in around.device.facts().items() if value is not None},
        "maker": around.device.maker,
        "batch": around.batch,
        "source": around.source,
        "licence": around.licence,
    }
    return notes, facts
