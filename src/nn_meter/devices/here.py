"""What the machine that runs this says of itself. A worker process calls it where it runs, so that a device is asked
there, and never the host in its place."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import signal
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nn_meter.devices.device import Device, counted

RUNTIMES = ("onnxruntime", "openvino", "MNN", "ai-edge-litert", "ncnn", "executorch", "torch", "numpy")
"""Packages whose versions are noted."""

_CPUFREQ = Path("/sys/devices/system/cpu/cpu0/cpufreq")
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_THERMAL = Path("/sys/class/thermal")
_UNLIMITED_BYTES = 1 << 60
_GENERATION = ("cpu family", "model", "CPU part")
"""What tells processors apart whose names a cloud shortens to ``AMD EPYC``: two fields on x86, one on Arm."""
_PR_SET_PDEATHSIG = 1  # prctl(2)
_MAKERS = {"authenticamd": "AMD", "genuineintel": "Intel", "apple": "Apple", "arm": "Arm"}


def end_with(parent: int) -> None:
    """Let this process end with the one that started it, even where that is killed; on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the call above
            os._exit(1)


def here() -> Device:
    """The processor of this machine and how it is set; ``None`` and empty where it cannot be read."""
    info = _read(Path("/proc/cpuinfo")) or ""
    model = _field(info, "model name|Hardware|Model") or platform.processor()
    vendor = _field(info, "vendor_id") or ""
    return Device(
        name=model or platform.machine() or "cpu",
        maker=_MAKERS.get(vendor.lower(), vendor),
        kind="cpu",
        processor=model,
        architecture=platform.machine(),
        cores=os.cpu_count(),
        processors=_ranges(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else "",
        clock_khz=counted(_read(_CPUFREQ / "scaling_cur_freq")),
        memory_bytes=_memory_limit_bytes(),
        system=f"{platform.system()} {platform.release()}",
        environment={
            "cpu_model": "/".join(_field(info, each) for each in _GENERATION).strip("/") or None,
            "governor": _read(_CPUFREQ / "scaling_governor"),
            "temperature_c": _temperature_c(),
            "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
            "python": platform.python_version(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            **{f"{package}_version": _version(package) for package in RUNTIMES},
        },
    )


def _field(info: str, names: str) -> str:
    found = re.search(rf"^(?:{names})\s*:\s*(.+)$", info, re.MULTILINE)
    return found.group(1).strip() if found else ""


def _memory_limit_bytes() -> int | None:
    limits = (counted(_read(path)) for path in _CGROUP_LIMITS)
    return next((limit for limit in limits if limit is not None and limit < _UNLIMITED_BYTES), None)


def _temperature_c() -> float | None:
    """Of the warmest place that the system tells of."""
    told = (counted(_read(zone)) for zone in _THERMAL.glob("thermal_zone*/temp"))
    return max((milli / 1000 for milli in told if milli), default=None)


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


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
