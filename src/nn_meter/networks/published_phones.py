"""TensorFlow Lite on phones: Li, Paolieri, Golubchik, *Inference Latency Prediction at the Edge* (arXiv 2210.02620).

Their repository qed-usc/mobile-ml-benchmark (MIT) holds latencies of whole networks on sets of cores and on the GPU, in
float and quantised to int8, and of the kernels that the GPU delegate ran, whose names tell what was fused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nn_meter.devices.device import Device
from nn_meter.kernels.kinds import ConvConfig, GemmConfig, PiecesConfig, PoolConfig
from nn_meter.kernels.partition import KernelConfig
from nn_meter.measuring.records import Circumstances, MeasuredKernel, Record
from nn_meter.networks.published import Published, RowError, header_of, number, plausible, read_rows, refuse

SOURCE = "https://github.com/qed-usc/mobile-ml-benchmark (40ba833), arXiv 2210.02620"
LICENCE = "MIT"

DEVICES: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "pixel4": ("Google Pixel 4", "Google", "Snapdragon 855"),
        "s10": ("Samsung Galaxy S10", "Samsung", "Exynos 9820"),
        "mi8se": ("Xiaomi Mi 8 SE", "Xiaomi", "Snapdragon 710"),
        "a03s": ("Samsung Galaxy A03s", "Samsung", "Helio P35"),
        "iphone7": ("Apple iPhone 7", "Apple", "A10 Fusion"),
        "iphonexs": ("Apple iPhone XS", "Apple", "A12 Bionic"),
        "onefusion": ("Motorola One Fusion", "Motorola", "Snapdragon 710"),
    }
)
"""Short name to the device's name, its maker and its processor."""

_PRECISIONS: Mapping[str, str] = MappingProxyType({"float": "float32", "quant": "int8"})

FAMILIES = (
    "mobilenetv3", "mobilenetv2", "mobilenet", "preresnet", "seresnet", "resnext", "resnet", "regnet", "proxylessnas",
    "efficientnet", "squeezenet", "hardnet", "cvt", "deit", "efficientformer", "mit", "mobilevit", "swin", "vit",
)  # fmt: skip
"""Beginnings of names, those before others that begin with them, too."""


def family_of(model: str) -> str:
    """Family of a network by the beginning of its name; the name where there is none."""
    return next((family for family in FAMILIES if model.startswith(family)), model)


@cache
def circumstances(device: str, processors: str, precision: str) -> Circumstances:
    """Of one environment of the tables.

    Raises:
        RowError: an unknown device or precision.
    """
    if device not in DEVICES or precision not in _PRECISIONS:
        refuse(f"unknown device {device!r} or precision {precision!r}")
    name, maker, processor = DEVICES[device]
    threads = sum(map(int, re.findall(r"\d", processors))) or 1
    return Circumstances(
        Device(
            name,
            maker,
            "gpu" if processors == "gpu" else "cpu",
            processor,
            processors=processors,
            environment={"short": device},
        ),
        "tflite",
        precision=_PRECISIONS[precision],
        threads=threads,
        statistic="mean",
        source=SOURCE,
        licence=LICENCE,
    )


def read_models(path: Path) -> Published:
    """Whole networks: a table with the columns model, device, processors, precision, mean_ms.

    Raises:
        BuildError: no such table.
    """
    header_of(path, ("model", "device", "processors", "precision", "mean_ms"))

    def record(row: Mapping[str, str]) -> Record:
        around = circumstances(row["device"], row["processors"], row["precision"])
        latency_ms = plausible(number(row, "mean_ms"))
        return Record.of_model(row["model"], around, latency_ms, family_of(row["model"]))

    return read_rows(path, record)


def read_gpu_kernels(path: Path) -> Published:
    """Kernels of the GPU delegate, a record per kernel: a table with the columns model, operation, features (JSON),
    device, latency_ms, kernel.

    Raises:
        BuildError: no such table.
    """
    header_of(path, ("model", "operation", "features", "device", "latency_ms", "kernel"))

    def record(row: Mapping[str, str]) -> Record | None:
        latency_ms = number(row, "latency_ms")
        if latency_ms == 0:
            return None  # below what the profiler resolves
        kind, config = _config(row["operation"], json.loads(row["features"]), row["kernel"])
        one = MeasuredKernel(kind, config, plausible(latency_ms))
        around = circumstances(row["device"], "gpu", "float")
        return Record(row["model"], around, kernels=(one,), family=family_of(row["model"]))

    return read_rows(path, record)


_FUSED: Mapping[str, str] = MappingProxyType(
    {"relu": "relu", "hard_swish": "hardswish", "sigmoid": "sigmoid", "add": "sum"}
)


def _config(operation: str, features: Mapping[str, Any], name: str) -> tuple[str, KernelConfig]:
    """A kernel's config. ``Input_shape`` is of the padded input, so that the plain one is taken from the output."""
    linked = re.findall(r"linked_:_([a-z_]+?)_\d", name)
    fused = tuple(dict.fromkeys(_FUSED[each] for each in linked if each in _FUSED))

    def value(key: str) -> int:
        return int(features[key])

    if "CONV" in operation:
        deep = operation.startswith("DEPTHWISE")
        cin, out, stride, area = value("Input_channel"), value("Output_shape"), value("Stride"), value("Kernel")
        cout = cin if deep else value("Filter")
        group = cin if deep else value("Group") if operation.endswith("GROUP") else 1
        size = min(value("Input_shape"), out * stride)
        return "conv", ConvConfig(
            1, cin, (size,) * 2, cout, (out,) * 2, (area,) * 2, (stride,) * 2, (1, 1), group, fused, "", "float32"
        )
    if operation == "FULLY_CONNECTED":
        k, n = value("Input_channel"), value("Filter")
        return "fc", GemmConfig(1, 1, k, n, True, (False, True), fused, "float32")
    if operation == "MEAN" or name.startswith("mean"):
        c, whole = value("Input_channel"), (value("Input_shape"),) * 2
        return "pool", PoolConfig("GlobalAveragePool", 1, c, whole, (1, 1), whole, (1, 1), "", "float32")
    if operation.endswith("POOL_2D"):
        op = "MaxPool" if operation.startswith("MAX") else "AveragePool"
        c, size, out = value("Input_channel"), value("Input_shape"), value("Output_shape")
        area, stride = value("Kernel"), value("Stride")
        return "pool", PoolConfig(op, 1, c, (size,) * 2, (out,) * 2, (area,) * 2, (stride,) * 2, "", "float32")
    if operation == "CONCATENATION":
        return "concat", PiecesConfig("Concat", 1, (value("Filter") * value("Output_shape") ** 2,), "float32")
    raise RowError(f"unknown operation {operation!r}")
