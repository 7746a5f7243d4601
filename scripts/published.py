"""Published measurements as studies, ready to fit: which tables, which models, which families were looked at."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

from nn_meter import frontends
from nn_meter.errors import ModelError
from nn_meter.fitting import Study, study
from nn_meter.ir import Graph
from nn_meter.networks import published_phones as phones

Source = Callable[[Path], Iterator[tuple[Study, frozenset[str]]]]


def first_half(families: set[str], seed: int = 7) -> frozenset[str]:
    """The families that the method was made with."""
    shuffled = sorted(families)
    random.Random(seed).shuffle(shuffled)
    return frozenset(shuffled[: len(shuffled) // 2])


def PHONES(folder: Path) -> Iterator[tuple[Study, frozenset[str]]]:  # noqa: N802
    """The phones' processors, then their GPUs."""
    here = folder / "phones"

    def read(subject: str, batch: int) -> Graph:
        path = here / "models" / f"{subject}.onnx"
        if not path.exists():
            raise ModelError(f"{subject}: no such model")
        return frontends.read(path)

    table = phones.read_models(here / "tflite_cnn_e2e.csv.gz")
    kernels = phones.read_gpu_kernels(here / "tflite_cnn_ops_gpu.csv.gz")
    for text in (*table.left_out, *kernels.left_out):
        print("  left out", text)
    for kind in ("cpu", "gpu"):
        records = [r for r in table.records if r.circumstances.device.kind == kind]
        records += list(kernels.records) if kind == "gpu" else []
        found = study(records, read)
        yield found, first_half({r.family for r in table.records})
