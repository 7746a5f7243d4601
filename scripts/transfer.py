"""Errors of adapting to devices left out, by tables of the same networks on others."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nn_meter.learning.metrics import metrics
from nn_meter.learning.transfer import Known, Transfer
from nn_meter.networks.published_devices import read_wide

TABLES = ("help_fbnet.csv.gz", "help_nasbench201.csv.gz")
COUNTS = (10, 50)
DRAWS = 3
LOOKED = ("1080ti", "2080ti", "essential_ph_1", "pixel2", "pixel3", "samsung_a50", "samsung_s7", "silver_4114")
"""The devices that the method's constants were chosen on: half of them, by a coin."""


def run(folder: Path, ship: bool, errors: bool = True) -> None:
    """Each device, left out with its other batches, answered for by the others and 10 or 50 measurements: those that
    tell most, and for comparison some drawn at random."""
    for table in TABLES:
        known = Known.of(read_wide(folder / "transfer" / table).records)
        print(f"{table}: {len(known.networks)} networks on {len(known.devices)} devices")
        print(f"{'rank correlation, median error':28s} " + "  ".join(
            f"{f'{count} {how}':>15s}" for count in COUNTS for how in ("chosen", "drawn")))  # fmt: skip
        rows = []
        for group in dict.fromkeys(known.groups):
            others = known.without(group)
            fitted = Transfer(others)
            chosen = {count: fitted.most_telling(count) for count in COUNTS}
            for place in (i for i, each in enumerate(known.groups) if each == group):
                truth = known.latencies_ms[place]
                cells = []
                for count in COUNTS:
                    rng = np.random.default_rng(place)
                    drawn = [rng.choice(len(truth), count, replace=False).tolist() for _ in range(DRAWS)]
                    for some in ([chosen[count]], drawn):
                        cells.append(np.mean([_judged(fitted, truth, each) for each in some], axis=0))
                rows.append((group in LOOKED, cells))
                print(f"{known.devices[place]:28s} " + _shown(cells), flush=True)
        for text, half in (("mean", (True, False)), ("mean, looked at", (True,)), ("mean, not", (False,))):
            print(f"{text:28s} " + _shown(np.mean([cells for looked, cells in rows if looked in half], axis=0)))


def _judged(fitted: Transfer, truth: np.ndarray, some: list[int]) -> tuple[float, float]:
    answer, _ = fitted.predict({number: float(truth[number]) for number in some})
    rest = np.setdiff1d(np.arange(len(truth)), some)
    found = metrics(answer[rest], truth[rest])
    return found.spearman or 0.0, found.median_ape


def _shown(cells: object) -> str:
    return "  ".join(f"{rank:7.3f} {error:7.1%}" for rank, error in cells)  # type: ignore[attr-defined]
