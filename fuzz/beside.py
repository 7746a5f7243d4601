"""What commands are given beside models: data sheets, baselines of checks, tables with a column per device."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import numpy as np
from rich.console import Console

from nn_meter.devices.sheet import read_sheet
from nn_meter.errors import InputError
from nn_meter.learning.transfer import Known, Transfer
from nn_meter.networks.published_devices import read_wide
from nn_meter.predictors.checking import Limits, judge, read_baseline
from nn_meter.report import checks
from nn_meter.report.json import documents, dumps
from nn_meter.storage import read_json

from . import mutation
from .answers import EXAMPLE, controls, predictors
from .files import CELLS, Yaml
from .mutation import as_json, damaged, odd


class Sheets(Yaml):
    """Data sheets of GPUs."""

    texts = (
        "device: NVIDIA L4\npeak_tflops: 30.3\nbandwidth_gb_per_s: 300\nprocessors: 58\ncache_mb: 48\nsource: NVIDIA\n",
        "device: x\nmaker: y\npeak_tflops: 1e3\nbandwidth_gb_per_s: 0.1\nprocessors: 1\ncache_mb: 1\nboard_watts: 75\n",
    )

    def __init__(self, folder: Path) -> None:
        self._path = folder / "sheet.yaml"

    def run(self, data: bytes, turn: int) -> None:
        """As ``sandbox.Target`` says."""
        self._path.write_bytes(data)
        sheet = read_sheet(self._path)
        assert 0 < sheet.flops_per_s < 1e18, f"{sheet.flops_per_s} operations a second"


class Baselines:
    """What ``nn-meter check`` holds predictions against, and what it says then."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "base.json"
        self._found = predictors()[0].explain(EXAMPLE)
        self._tree = json.loads(dumps(documents([self._found], ())))
        self._text = as_json(self._tree)

    def make(self, draw: random.Random) -> bytes:
        """As ``sandbox.Target`` says."""
        how = draw.random()
        if how < 0.02:
            return draw.choice(mutation.NESTED)
        if how < 0.3:
            return damaged(self._text, self._text, draw)
        tree = json.loads(self._text)
        kernels = tree["predictions"][0]["kernels"]
        at = draw.randrange(len(kernels))
        kernels[at] = odd(kernels[at], draw)
        return as_json(odd(tree, draw) if how < 0.6 else tree)

    def run(self, data: bytes, turn: int) -> None:
        """As ``sandbox.Target`` says."""
        self._path.write_bytes(data)
        before = read_baseline(read_json(self._path, "the baseline", InputError), str(self._path))
        verdicts = [judge("m", self._found, each, Limits(1.0)) for each in (*before.values(), None)]
        written = io.StringIO()
        Console(file=written, width=120, force_terminal=False).print(checks.table(verdicts))
        for text in (written.getvalue(), checks.markdown(verdicts), checks.junit(verdicts)):
            assert not controls(text), "control characters in a report"
            text.encode()


_WIDE = ("1e-5", "3e6", f"1080ti_{'9' * 5000}", "board", "model")


class Wide:
    """Tables with a column per device, and what is told from them of another one."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "known.csv"
        self._rows = [["model", "phone", "board", "watch", "1080ti_32"]]
        self._rows += [[f"{a} {b}", *(f"{(1 + a) * each + b}" for each in (1, 2, 3, 5))] for a, b in np.ndindex(4, 3)]

    def make(self, draw: random.Random) -> bytes:
        """As ``sandbox.Target`` says."""
        rows = [[*row] for row in self._rows]
        for _ in range(draw.choice((0, 1, 1, 2, 4))):
            row = draw.choice(rows)
            row[draw.randrange(len(row))] = draw.choice((*CELLS, *mutation.NAMES, *_WIDE))
        data = "\n".join(map(",".join, rows)).encode("utf-8", "surrogatepass")
        return damaged(data, data, draw) if draw.random() < 0.4 else data

    def run(self, data: bytes, turn: int) -> None:
        """As ``sandbox.Target`` says."""
        self._path.write_bytes(data)
        known = Known.of(read_wide(self._path).records)
        if turn % 16 == 0:
            found = Transfer(known)
            latency_ms, off = found.predict({0: 1.0})
            assert np.isfinite([*latency_ms, *off]).all(), "an answer is not finite"
            found.table({}).encode()
            found.most_telling(2, (0,))
