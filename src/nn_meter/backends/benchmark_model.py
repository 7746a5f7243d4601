"""LiteRT on an Android phone, by its program ``benchmark_model``, which ``adb`` runs there.

The TFLite file is the one of the backend ``litert``. What the program prints is read as these sources of tensorflow
print it: ``lite/tools/benchmark/benchmark_model.cc`` (runs), ``lite/profiling/profile_summarizer.cc`` (what an operator
is called), ``core/util/stats_calculator.cc`` (the table). It tells means alone: each value of a turn is the mean of its
runs. Operators inside XNNPACK are numbered in each part of the file anew and told by kind and number alone: of a model
that XNNPACK takes in several parts too little is told, and tracing it is refused.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from nn_meter.backends.base import Model, check_threads
from nn_meter.backends.litert import written
from nn_meter.backends.litert.lowering import Lowered
from nn_meter.backends.litert.native import Event
from nn_meter.backends.litert.tracing import kernels
from nn_meter.devices.adb import FOLDER, AdbLink
from nn_meter.devices.device import Device
from nn_meter.errors import BackendError
from nn_meter.runtimes.trace import ExecutedKernel, KernelTrace
from nn_meter.settings import device
from nn_meter.storage import Closing, legible, shown

_PROGRAM = "/data/local/tmp/benchmark_model"

_POLL_S = 1.0
_EVENTS = 8
"""Places for events in the profiler for each operator of the file: what is not told for want of places is lost."""
_SPARE_EVENTS = 1024  # the program's own default

_WHOLE = re.compile(r"Inference timings in us: .*Inference \(avg\): (.*)$", re.MULTILINE)
_COUNT = re.compile(r"count=([0-9]{1,9}) ")
_TABLE = re.compile(
    r"Operator-wise Profiling Info for Regular Benchmark Runs:\n=+ Run Order =+\n(.*\n)(?P<rows>(?:\t.*\n)*)"
)
_OBSERVED = re.compile(r"\b([0-9]{1,9}) nodes observed")
_COLUMNS = ("[node type]", "[avg ms]", "[times called]", "[Name]")
"""Those that are read: newer versions have no [start]."""

_INSIDE = re.compile(r"Delegate/(?P<name>.*):(?P<number>[0-9]{1,9})")
_OUTSIDE = re.compile(r"\[.*\]:(?P<number>[0-9]{1,9})")
_DELEGATE = "TfLiteXNNPackDelegate"
"""A part of the file, as one operator: its operators are told beside it."""


@dataclass(frozen=True, slots=True)
class Row:
    """An operator as the program tells it: an event, without its time, and its mean in ms over all runs."""

    event: Event
    mean_ms: float


@dataclass(frozen=True, slots=True)
class BenchmarkModelConfig:
    """Settings; those that nn-Meter's workspaces have are called as there.

    ``device_serial`` is the phone's, empty for the only one, ``benchmark_model_path`` the program there and ``cpus``
    the mask of its cores: where the link tells them (``adb://SERIAL/path?cpus=f0``), they are the link's. Models lie in
    ``remote_model_dir`` while they are measured. ``cool_s`` is how long a phone that throttles is waited for, and
    ``run_s`` how long one run of the program may take; together they stay below the minute that a build gives a
    network.

    Raises:
        BackendError: a number of threads below one, or a time that is none.
    """

    threads: int = 1
    device_serial: str | None = None
    benchmark_model_path: str = _PROGRAM
    remote_model_dir: str = FOLDER
    cpus: str = ""
    cool_s: float = 30.0
    run_s: float = 25.0

    def __post_init__(self) -> None:
        check_threads("benchmark_model", self.threads)
        if not (self.cool_s >= 0 and self.run_s >= 1):
            raise BackendError("benchmark_model: cool_s is 0 or more seconds, run_s 1 or more")


class BenchmarkModel:
    """``Backend`` of a phone's CPU, with XNNPACK."""

    name: ClassVar[str] = "tflite_cpu"
    runtime: ClassVar[str] = "litert"
    config_type: ClassVar[type[BenchmarkModelConfig]] = BenchmarkModelConfig
    by_program: ClassVar[bool] = True
    options: ClassVar[tuple[str, ...]] = ("--use_xnnpack=true",)
    tells_kernels: ClassVar[bool] = True

    def __init__(self, config: BenchmarkModelConfig = BenchmarkModelConfig()) -> None:
        self.config = config
        address = device()
        if address.startswith("adb://"):
            self.link = AdbLink.at(address)
        else:
            self.link = AdbLink.at(f"adb://{config.device_serial}") if config.device_serial else AdbLink("adb://")
        self.program = self.link.program or config.benchmark_model_path
        self.cpus = self.link.cpus or config.cpus

    def device(self) -> Device:
        """The phone. Errors as of ``check``."""
        return self.link.device()

    def check(self) -> Mapping[str, str | int | float]:
        """Settings, and which program it is, since that tells no version.

        Raises:
            DeviceError: the phone does not answer, or has no such program, or cannot run it.
        """
        self.link.run([self.program, "--help"], timeout_s=self.config.run_s)
        told = self.link.asked(f"sha256sum {self.program}")[:12]
        kind = "cpu" if self.tells_kernels else "gpu"
        settings = {key: value for key, value in asdict(self.config).items() if key != "device_serial"}
        where = {"benchmark_model_path": self.program, "cpus": self.cpus}
        return {"runtime": "litert", "runtime_version": told, "device": kind, **settings, **where}

    def prepare(self, model: Model) -> BenchmarkModelPrepared:
        """``model`` as a TFLite file on the phone.

        Raises:
            BackendError: an operator that TFLite has not; names it.
            DeviceError: the phone does not answer, or is full.
            MissingDependencyError: ai-edge-litert, which the file is written by, is not installed here.
        """
        return BenchmarkModelPrepared(written(model), self)

    def fused(self, model: Model) -> list[ExecutedKernel]:
        """The operators that are executed, those of XNNPACK included, in the file's order.

        Raises:
            BackendError: as of ``prepare`` and ``BenchmarkModelPrepared.trace``.
        """
        with self.prepare(model) as prepared:
            return [trace.executed for trace in prepared.trace(1)]


class BenchmarkModelOnGpu(BenchmarkModel):
    """``Backend`` of a phone's GPU: the program tells nothing of the kernels there."""

    name: ClassVar[str] = "tflite_gpu"
    options: ClassVar[tuple[str, ...]] = ("--use_gpu=true",)
    tells_kernels: ClassVar[bool] = False


class BenchmarkModelPrepared(Closing):
    """``Prepared`` as a file on the phone; each turn starts the program once."""

    def __init__(self, model: Lowered, backend: BenchmarkModel) -> None:
        self._model = model
        self._backend = backend
        with TemporaryDirectory() as folder:
            path = Path(folder) / f"{hashlib.sha256(model.data).hexdigest()[:16]}.tflite"
            path.write_bytes(model.data)
            self._file = backend.link.put(path, backend.config.remote_model_dir)

    def run(self, repeats: int) -> list[float]:
        """``repeats`` times the mean of as many runs, in milliseconds.

        Raises:
            BackendError: the program fails or prints what cannot be read, or the phone does not cool down.
            DeviceError: the phone is gone.
        """
        return [whole_ms(self._printed(repeats), repeats)] * repeats

    def trace(self, repeats: int) -> list[KernelTrace]:
        """For each operator ``repeats`` times the mean over as many runs, in the order of the file. XNNPACK tells whole
        microseconds, cut off below: half of one is added, as in the backend ``litert``.

        Raises:
            BackendError: as of ``run``, or the program does not tell its operators.
        """
        if not self._backend.tells_kernels:
            raise BackendError("benchmark_model does not tell the kernels of a GPU; measure whole models there")
        places = _EVENTS * len(self._model.operators) + _SPARE_EVENTS
        profiling = ("--enable_op_profiling=true", f"--max_profiling_buffer_entries={places}")
        rows = operators(self._printed(repeats, *profiling))
        executed = kernels([row.event for row in rows], self._model.operators)
        ordered = sorted(executed, key=lambda each: int(each[0].name.rpartition("_")[2]))
        return [
            KernelTrace(kernel, (sum(rows[i].mean_ms + 0.5e-3 for i in own),) * repeats) for kernel, own in ordered
        ]

    def close(self) -> None:
        """Take the file away."""
        self._backend.link.forget(self._file)

    def _printed(self, repeats: int, *more: str) -> str:
        """What the program printed in a run during which the phone did not throttle."""
        backend, config = self._backend, self._backend.config
        command = (
            backend.program, f"--graph={self._file}", f"--num_threads={config.threads}", f"--num_runs={repeats}",
            "--min_secs=0", "--warmup_runs=1", "--warmup_min_secs=0", *backend.options, *more,
        )  # fmt: skip
        until = time.monotonic() + config.cool_s
        while True:
            while (hot := backend.link.thermal_status()) and time.monotonic() < until:
                time.sleep(min(_POLL_S, config.cool_s))
            if hot:
                raise BackendError(
                    f"{backend.link} throttles (thermal status {hot}) and does not cool down within "
                    f"{config.cool_s:g} s; take it off the charger, out of its case, and let it rest"
                )
            done = backend.link.run(command, timeout_s=config.run_s)
            if done.status != 0:
                said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
                words = " / ".join(map(legible, said[-3:]))
                ended = f"died of signal {-done.status}" if done.status < 0 else f"ended with status {done.status}"
                raise BackendError(f"{backend.program} {ended} on {backend.link}; it said: {words or 'nothing'}")
            if not backend.link.thermal_status():
                return f"{done.stdout}\n{done.stderr}".replace("\r\n", "\n")  # older ones print to standard error


def whole_ms(text: str, repeats: int) -> float:
    """The mean latency in ms that ``benchmark_model`` printed.

    Raises:
        BackendError: it is not there, is no number, or of fewer runs than ``repeats``.
    """
    found = _WHOLE.search(text)
    if found is None:
        raise _unread("no line 'Inference timings in us: ... Inference (avg): ...'")
    counts = _COUNT.findall(text[: found.start()])
    if not counts or int(counts[-1]) < repeats:
        raise _unread(f"{counts[-1] if counts else 'no'} runs in place of {repeats}")
    return _number(found[1].strip()) / 1e3


def operators(text: str) -> list[Row]:
    """The rows of the table of operators: those inside XNNPACK first, in their order, then the others.

    Raises:
        BackendError: no table, one that is cut off or of other columns, or two operators told as one.
    """
    found = _TABLE.search(text)
    if found is None:
        raise _unread("no table of operators")
    head = [each.strip() for each in found[1].split("\t") if each.strip()]
    if missing := [each for each in _COLUMNS if each not in head]:
        raise _unread(f"a table without a column {missing[0]}, with {legible(' '.join(head))}")
    lines = [line.strip("\t").split("\t") for line in found["rows"].splitlines()]
    observed = _OBSERVED.search(text, found.end())
    if observed is None or int(observed[1]) != len(lines):
        raise _unread(f"{len(lines)} operators of {observed[1] if observed else 'nobody knows how many'}")
    inside, outside = [], []
    for cells in lines:
        if len(cells) != len(head):
            raise _unread(f"a row of {len(cells)} columns in place of {len(head)}")
        told_of = dict(zip(head, (each.strip() for each in cells), strict=True))
        kind, mean, times, name = (told_of[each] for each in _COLUMNS)
        mean_ms = _number(mean)
        if (told := _INSIDE.fullmatch(name)) is not None:
            inside.append(Row(Event(told["name"], True, int(told["number"]), 0, 0), mean_ms))
            if times != "1":
                raise _parts()
        elif (told := _OUTSIDE.fullmatch(name)) is not None and not kind.startswith(_DELEGATE):
            outside.append(Row(Event(kind, False, int(told["number"]), 0, 0), mean_ms))
    inside.sort(key=lambda row: row.event.number)
    if [row.event.number for row in inside] != list(range(len(inside))):
        raise _parts()
    if not inside and not outside:
        raise _unread("a table without operators")
    return [*inside, *outside]


def _number(text: str) -> float:
    """A time that is told: finite, not below zero, with a point."""
    try:
        value = float(text)
    except ValueError:
        raise _unread(f"{shown(text)}, which is no number") from None
    if not (math.isfinite(value) and value >= 0):
        raise _unread(f"{shown(text)}, which is no time")
    return value


def _unread(what: str) -> BackendError:
    return BackendError(
        f"benchmark_model prints {what}; push a current one of LiteRT's, and see that it "
        "runs by hand"
    )


def _parts() -> BackendError:
    return BackendError(
        "benchmark_model tells operators of several parts of the model as one: XNNPACK does not take it whole; such a "
        "model can be measured as a whole alone"
    )
