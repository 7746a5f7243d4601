"""PyTorch on GPUs and desktop processors: the benchmark tables of huggingface/pytorch-image-models (Apache-2.0).

Models by their names in timm and the image's size; milliseconds of one batch, automatic mixed precision on GPUs at the
batch that is stated, single precision at batch 1 on processors; eager, or compiled (``dynamo``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from nn_meter.devices.device import Device
from nn_meter.errors import BuildError
from nn_meter.measuring.records import Circumstances, Record
from nn_meter.networks.published import Published, header_of, number, plausible, read_rows, whole

SOURCE = "https://github.com/huggingface/pytorch-image-models (results/)"
LICENCE = "Apache-2.0"

DEVICES: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "rtx3090": ("rtx3090", "NVIDIA GeForce RTX 3090", "NVIDIA"),
        "4090": ("rtx4090", "NVIDIA GeForce RTX 4090", "NVIDIA"),
        "5090": ("rtx5090", "NVIDIA GeForce RTX 5090", "NVIDIA"),
        "pro6000maxq": ("pro6000maxq", "NVIDIA RTX PRO 6000 Max-Q", "NVIDIA"),
        "i9_10940x": ("i9-10940x", "Intel Core i9-10940X", "Intel"),
        "i7_12700h": ("i7-12700h", "Intel Core i7-12700H", "Intel"),
    }
)
"""How a file calls a device, to its short name, its name and its maker."""

_NAME = re.compile(r"(amp|fp32)-nchw-pt(\d+)-(?:cpu|cu\d+)-(\w+?)(-dynamo)?\.csv(?:\.gz)?")


def family_of(model: str) -> str:
    """Family of a network: the letters that its name begins with."""
    name = model.removeprefix("tf_").removeprefix("legacy_")
    match = re.match(r"[a-z]+", name)
    return match[0] if match else name


def circumstances(file_name: str) -> Circumstances:
    """Of one table, by its name: ``amp-nchw-pt291-cu128-4090-dynamo.csv.gz``.

    Raises:
        BuildError: a name of another form, or an unknown device.
    """
    match = _NAME.fullmatch(file_name)
    if match is None or match[3] not in DEVICES:
        raise BuildError(f"{file_name}: no table of timm's benchmarks: precision-nchw-ptVERSION-PLATFORM-DEVICE.csv")
    short, name, maker = DEVICES[match[3]]
    kind = "cpu" if "-cpu-" in file_name else "gpu"
    return Circumstances(
        Device(name, maker, kind, name, environment={"short": short}),  # type: ignore[arg-type]
        "pytorch",
        match[2] + (match[4] or "").replace("-", "_"),
        precision={"amp": "float16", "fp32": "float32"}[match[1]],
        statistic="mean",
        source=SOURCE,
        licence=LICENCE,
    )


def predictor_name(around: Circumstances) -> str:
    """``rtx4090_amp_pytorch291_dynamo``."""
    precision = "amp" if around.precision == "float16" else "fp32"
    return f"{around.device.environment['short']}_{precision}_pytorch{around.runtime_version}"


def read_table(path: Path) -> Published:
    """Whole networks: a table with the columns architecture, image_size, batch_size, batch_ms; a subject is
    ``timm:NAME@SIZE``.

    Raises:
        BuildError: no such table.
    """
    header_of(path, ("architecture", "image_size", "batch_size", "batch_ms"))
    around = circumstances(path.name)
    by_batch: dict[int, Circumstances] = {}

    def record(row: Mapping[str, str]) -> Record:
        batch, size = whole(row["batch_size"], "batch_size"), whole(row["image_size"], "image_size")
        if batch not in by_batch:
            by_batch[batch] = replace(around, batch=batch)
        latency_ms, name = plausible(number(row, "batch_ms")), row["architecture"]
        return Record.of_model(f"timm:{name}@{size}", by_batch[batch], latency_ms, family_of(name))

    return read_rows(path, record)
