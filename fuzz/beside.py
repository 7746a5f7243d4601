"""What commands are given beside models: data sheets, baselines of checks, tables with a column per device, the list of
devices, and what devices and the programs on them say."""

from __future__ import annotations

import io
import json
import math
import random
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import numpy as np
from rich.console import Console

from nn_meter.backends.benchmark_model import operators, whole_ms
from nn_meter.backends.litert.tracing import kernels
from nn_meter.devices import known
from nn_meter.devices.adb import AdbLink
from nn_meter.devices.device import Device
from nn_meter.devices.link import Finished, open_link
from nn_meter.devices.sheet import read_sheet
from nn_meter.errors import DeviceError, InputError
from nn_meter.learning.transfer import Known, Transfer
from nn_meter.networks.published_devices import read_wide
from nn_meter.predictors.checking import Limits, judge, read_baseline
from nn_meter.report import checks
from nn_meter.report.json import documents, dumps
from nn_meter.storage import legible, read_json

from . import mutation
from .answers import EXAMPLE, controls, predictors
from .files import CELLS, Yaml
from .mutation import as_json, damaged, odd
from .sandbox import LONGEST_TEXT


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


_ROWS = [
    {"address": "ssh://me@board:22", "name": "board", "processor": "A76", "cores": 4, "system": "Linux", "seen": ""},
    {"address": "adb://0a38/data/x?cpus=f0", "name": "phone", "processor": "", "cores": 0, "system": "", "seen": ""},
]


class Devices:
    """The list of devices that the data folder keeps, and addresses."""

    def __init__(self, folder: Path) -> None:
        self._path = known.file()

    def make(self, draw: random.Random) -> bytes:
        """As ``sandbox.Target`` says."""
        how = draw.random()
        if how < 0.02:
            return draw.choice(mutation.NESTED)
        text = as_json(odd(_ROWS, draw))
        return damaged(text, text, draw) if how < 0.4 else text

    def run(self, data: bytes, turn: int) -> None:
        """As ``sandbox.Target`` says."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_bytes(data)
        rows = known.known()
        assert not controls("".join(legible(each.name) for each in rows)), "control characters in a name"
        for each in (*rows[:2], known.Known("ssh://" + "".join(map(chr, data[:30])))):
            with suppress(DeviceError):
                open_link(each.address)
            with suppress(DeviceError):
                known.name(each.name, each.address)
        known.seen("ssh://me@board:22", Device("d"))
        known.forget("ssh://me@board:22")


_PRINTED = (
    "INFO: Inference timings in us: Init: 5400, First inference: 5123, Warmup (avg): 5123, Inference (avg): 4998.5\n",
    "count=50 first=5012 curr=4987 min=4958 max=5211 avg=4998.5 std=40\n",
    "Operator-wise Profiling Info for Regular Benchmark Runs:\n",
    "============================== Run Order ==============================\n",
    "\t             [node type]\t    [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]\n",
    "\t                 CONV_2D\t    0.010\t    0.008\t  4.4%\t 42.6%\t     0.000\t        1\t[out]:0\n",
    "\tConvolution (NHWC, F32) IGEMM\t0.0\t0.002\t  1.0%\t 43.6%\t   0.000\t        1\tDelegate/Convolution:0\n",
    "\tTfLiteXNNPackDelegate\t    0.011\t    0.010\t  5.4%\t 49.0%\t     0.000\t        1\t[out]:2\n",
    "2 nodes observed\n", "3 nodes observed\n",
    "[ro.product.model]: [Pixel 4]\n[ro.product.cpu.abi]: [arm64-v8a]\n", "8\n", "MemTotal:        5618464 kB\n",
    "Thermal Status: 0\n", "performance\n",
)  # fmt: skip
_WORDS = ("9" * 5000, "\u00b2", "\u0663", "-1", "nan", "inf", "1e999", "1_0", "", "x" * 100_000, "\0", "1e-400")
_STATUS = ("", "\nnn-meter-status=0", *(f"\nnn-meter-status={words}" for words in _WORDS))


class _Phone(AdbLink):
    """A phone that says the same whatever it is asked."""

    said: ClassVar[str] = ""

    def _adb(self, words: Sequence[str], timeout_s: float) -> Finished:
        return Finished(0, self.said, self.said)


class Printed:
    """What ``benchmark_model`` prints, and what a phone says of itself."""

    def __init__(self, folder: Path) -> None:
        self._phone = _Phone("adb://x", "x")

    def make(self, draw: random.Random) -> bytes:
        """As ``sandbox.Target`` says."""
        lines = [*_PRINTED]
        for _ in range(draw.choice((0, 1, 1, 2, 4))):
            at, words = draw.randrange(len(lines)), draw.choice((*_WORDS, *mutation.NAMES))
            numbers = [*re.finditer(r"\d+(\.\d+)?", lines[at])]
            if numbers and draw.random() < 0.7:
                found = draw.choice(numbers)
                lines[at] = lines[at][: found.start()] + words + lines[at][found.end() :]
            else:
                lines[at] = draw.choice((words, "", lines[at] * 2, "\t" + words + "\n"))
        data = "".join((*lines, draw.choice(_STATUS))).encode("utf-8", "surrogatepass")
        return damaged(data, data, draw) if draw.random() < 0.3 else data

    def run(self, data: bytes, turn: int) -> None:
        """As ``sandbox.Target`` says."""
        text = data.decode(errors="replace")
        match turn % 3:
            case 0:
                assert 0 <= whole_ms(text, 10) < math.inf, "a latency that cannot be"
            case 1:
                rows = operators(text)
                kernels([row.event for row in rows], ())
            case 2:
                _Phone.said = text
                device = self._phone.device()
                assert len(str(device)) < LONGEST_TEXT, "a long device"
                self._phone.run(["x"], timeout_s=1.0)
