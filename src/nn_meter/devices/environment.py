"""The circumstances of a measurement, and whether two of them are comparable."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

Value = str | int | float | bool | None

RUNTIMES = ("onnxruntime", "openvino", "ai-edge-litert", "torch", "numpy")
"""Packages whose versions are noted."""

_CPUFREQ = Path("/sys/devices/system/cpu/cpu0/cpufreq")
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_UNLIMITED_BYTES = 1 << 60

_COMPARED: Mapping[str, str] = {
    "cpu": "the processor",
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


def environment(extra: Mapping[str, Value] | None = None) -> dict[str, Value]:
    """What this machine is and how it is set; ``None`` where it cannot be read.

    Args:
        extra: Facts to add, such as what a backend's ``check`` says.
    """
    facts: dict[str, Value] = {
        "cpu": _cpu_model(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "affinity": _ranges(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "governor": _read(_CPUFREQ / "scaling_governor"),
        "clock_khz": _number(_read(_CPUFREQ / "scaling_cur_freq")),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "memory_limit_bytes": _memory_limit_bytes(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    facts.update({f"{package}_version": _version(package) for package in RUNTIMES})
    return {**facts, **(extra or {})}


def same_machine(first: Mapping[str, Value], second: Mapping[str, Value]) -> list[str]:
    """The differences that keep latencies taken in ``first`` and in ``second`` from being compared, in words.

    A fact that one of them does not hold is no difference.
    """
    return [
        f"{words} differs: {first[key]} and {second[key]}"
        for key, words in _COMPARED.items()
        if first.get(key) is not None and second.get(key) is not None and first[key] != second[key]
    ]


def _cpu_model() -> str | None:
    info = _read(Path("/proc/cpuinfo")) or ""
    found = re.search(r"^(?:model name|Hardware|Model)\s*:\s*(.+)$", info, re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or None


def _memory_limit_bytes() -> int | None:
    limits = (_number(_read(path)) for path in _CGROUP_LIMITS)
    return next((limit for limit in limits if limit is not None and limit < _UNLIMITED_BYTES), None)


def _ranges(numbers: Iterable[int]) -> str:
    """``{0, 1, 2, 5}`` as ``0-2,5``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
