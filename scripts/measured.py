"""Whether what nn-Meter's authors measured of whole networks on their four devices carries predictors.

It does not: 18 standard networks are too few to predict each other, and the cells tell nothing of them, so that nothing
ships. The standard networks are those of torchvision, so that it has to be there.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from nn_meter import frontends
from nn_meter.devices.device import Device
from nn_meter.errors import ModelError
from nn_meter.fitting import Errors, study
from nn_meter.ir import Graph
from nn_meter.measuring.records import Circumstances, Record
from nn_meter.networks.nasbench201 import network
from nn_meter.networks.published_devices import read_wide

SOURCE = "https://github.com/microsoft/nn-Meter (28e982e)"
DEVICES = {
    "cortexA76cpu_tflite21": ("Google Pixel 4", "Google", "cpu", "Cortex-A76", "tflite", "2.1"),
    "adreno640gpu_tflite21": ("Xiaomi Mi 9", "Xiaomi", "gpu", "Adreno 640", "tflite", "2.1"),
    "adreno630gpu_tflite21": ("Google Pixel 3 XL", "Google", "gpu", "Adreno 630", "tflite", "2.1"),
    "myriadvpu_openvino2019r2": ("Intel Neural Compute Stick 2", "Intel", "npu", "Myriad X", "openvino", "2019r2"),
}  # fmt: skip
STANDARD = {
    "alexnet": "alexnet", "densenet": "densenet121", "googlenet": "googlenet", "mnasnet": "mnasnet1_0",
    "mobilenetv2": "mobilenet_v2", "mobilenetv3large": "mobilenet_v3_large", "mobilenetv3small": "mobilenet_v3_small",
    "resnet18": "resnet18", "resnet34": "resnet34", "resnet50": "resnet50", "shufflenetv2": "shufflenet_v2_x1_0",
    "squeezenet": "squeezenet1_1", "vgg11": "vgg11", "vgg13": "vgg13", "vgg16": "vgg16", "vgg19": "vgg19",
}  # fmt: skip
CELLS = 200
"""So many of the cells are fitted; they differ little from each other."""


def run(folder: Path, ship: bool, errors: bool = True) -> None:
    """Fit each device by itself; print errors of families left out."""
    here = folder / "transfer"
    cells = list(dict.fromkeys(r.subject for r in read_wide(here / "help_nasbench201.csv.gz").records))
    graphs: dict[str, Graph] = {}

    def read(subject: str, batch: int) -> Graph:
        if subject not in graphs:
            kind, place = subject.rsplit("_", 1)
            if kind == "nasbench201":
                graphs[subject] = network(cells[int(place)])
            elif kind in STANDARD:
                graphs[subject] = frontends.read(f"torchvision:{STANDARD[kind]}")
            else:
                raise ModelError(f"{kind}: not in torchvision")
        return graphs[subject]

    table = read_wide(here / "nnmeter_measured.csv.gz").records
    for column, (name, maker, kind, processor, runtime, version) in DEVICES.items():
        start = time.monotonic()
        device = Device(name, maker, kind, processor, environment={"short": processor})  # type: ignore[arg-type]
        around = Circumstances(device, runtime, version, statistic="mean", source=SOURCE, licence="MIT")
        mine = [r for r in table if r.circumstances.device.name == column]
        standard = [r for r in mine if not r.subject.startswith("nasbench201")]
        some = [r for r in mine if r.subject.startswith("nasbench201")]
        some = some[:: max(1, len(some) // CELLS)]
        found = study([_placed(r, around) for r in (*standard, *some)], read)
        blind = found.blind(16)
        print(f"{column}: {len(standard)} standard networks, {len(some)} cells")
        latencies = found.environments[0].latencies_ms
        cell = np.array([n.startswith("nasbench201") for n in found.names])
        for text, which in (("standard networks", ~cell), ("cells", cell)):
            off = Errors.of(blind[0][which], latencies[which])
            print(f"    {text}: median {off.median:.1%}, mean {off.mean:.1%}, within 10 %: {off.within_10:.0%}")
        print(f"    {time.monotonic() - start:.0f} s", flush=True)


def _placed(record: Record, around: Circumstances) -> Record:
    """With its circumstances, and a family: a standard network's kin, some of the cells."""
    kind, place = record.subject.rsplit("_", 1)
    family = f"cells{int(place) % 16}" if kind == "nasbench201" else kind.rstrip("0123456789")
    return replace(record, circumstances=around, family=family)
