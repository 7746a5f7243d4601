"""LiteRT on the CPU of this machine, with XNNPACK.

A graph is written as a TFLite file of our own, as TensorFlow Lite's converter would: channels last, batch
normalisation folded, clamps in the operator before. XNNPACK runs what it knows and LiteRT's own kernels the rest.
The profiler tells the operators inside XNNPACK by kind and order alone, in whole microseconds cut off below; which of
the file's operators each is follows from the order (``tracing``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, ClassVar

from nn_meter.backends.base import Model, check_threads, timed
from nn_meter.backends.litert.lowering import Lowered, lowered
from nn_meter.backends.litert.native import Session
from nn_meter.backends.litert.tracing import kernels
from nn_meter.backends.onnx_writer import as_bytes, random_inputs
from nn_meter.errors import BackendError, MissingDependencyError
from nn_meter.frontends import onnx as reader
from nn_meter.ir.graph import Graph
from nn_meter.runtimes.trace import ExecutedKernel, KernelTrace
from nn_meter.storage import Closing

_KNOWN = "2.3"
"""The version whose C interface, and whose kernels, are known here."""


@dataclass(frozen=True, slots=True)
class LiteRtConfig:
    """Settings: ``threads`` of XNNPACK and of LiteRT's own kernels.

    Raises:
        BackendError: a number of threads below one.
    """

    threads: int = 1

    def __post_init__(self) -> None:
        check_threads("litert", self.threads)


class LiteRt:
    """``Backend`` that runs models in this process, on LiteRT's CPU accelerator."""

    name: ClassVar[str] = "litert"
    runtime: ClassVar[str] = "litert"
    config_type: ClassVar[type[LiteRtConfig]] = LiteRtConfig

    def __init__(self, config: LiteRtConfig = LiteRtConfig()) -> None:
        self.config = config

    def check(self) -> Mapping[str, str | int | float]:
        """Runtime, version, device and settings.

        Raises:
            BackendError: a version that is not known here.
            MissingDependencyError: ai-edge-litert is not installed.
        """
        _schema()
        found = version("ai-edge-litert")
        return {"runtime": "litert", "runtime_version": found, "device": "cpu", **asdict(self.config)}

    def prepare(self, model: Model) -> LiteRtPrepared:
        """``model`` as a TFLite file and in a session, with random inputs.

        Raises:
            BackendError: an operator that TFLite has not, or that LiteRT refuses; names it.
            MissingDependencyError: ai-edge-litert is not installed.
        """
        return LiteRtPrepared(written(model), self.config)

    def fused(self, model: Model) -> list[ExecutedKernel]:
        """The operators that LiteRT executes, those of XNNPACK included, in their order.

        Raises:
            BackendError: as of ``prepare``.
        """
        with self.prepare(model) as prepared:
            return [trace.executed for trace in prepared.trace(1)]


class LiteRtPrepared(Closing):
    """``Prepared`` around a session; tracing opens a second one, under the profiler. Of sessions with several threads
    one is open at a time, since they share the threads of a process."""

    _threaded: ClassVar[LiteRtPrepared | None] = None

    def __init__(self, model: Lowered, config: LiteRtConfig) -> None:
        self.lowered = model
        self._config = config
        self._sessions: dict[bool, Session] = {}  # by whether they are under the profiler
        self._opened(False)

    def run(self, repeats: int) -> list[float]:
        """Milliseconds of each of ``repeats`` runs."""
        return timed(self._opened(False).run, repeats)

    def trace(self, repeats: int) -> list[KernelTrace]:
        """The time of each operator in each of ``repeats`` runs, half a microsecond more than is told: it tells whole
        ones, cut off below."""
        session = self._opened(True)
        runs = [session.profile() for _ in range(repeats)]
        executed = kernels(runs[0], self.lowered.operators) if runs else []
        return [
            KernelTrace(kernel, tuple(sum(run[i].elapsed_us + 0.5 for i in places) / 1e3 for run in runs))
            for kernel, places in executed
        ]

    def outputs(self) -> list[Any]:
        """What the last run gave, in the order of the graph's axes."""
        given = zip(self._opened(False).outputs(), self.lowered.orders, strict=True)
        return [array.transpose([order.index(axis) for axis in range(array.ndim)]) for array, order in given]

    def close(self) -> None:
        """Free the sessions."""
        if LiteRtPrepared._threaded is self:
            LiteRtPrepared._threaded = None
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()

    def _opened(self, profiled: bool) -> Session:
        """The session, opened where it is not."""
        if self._config.threads > 1:
            other = LiteRtPrepared._threaded
            if other is not None and (other is not self or profiled not in self._sessions):
                other.close()
            LiteRtPrepared._threaded = self
        if profiled not in self._sessions:
            model, threads = self.lowered, self._config.threads
            self._sessions[profiled] = Session(model.data, model.inputs, model.names, threads, profiled)
        return self._sessions[profiled]


def written(model: Model) -> Lowered:
    """``model`` as a TFLite file, with random inputs.

    Raises:
        BackendError: an operator that TFLite has not; names it.
        MissingDependencyError: ai-edge-litert is not installed.
    """
    schema = _schema()
    data = as_bytes(model)
    graph = model if isinstance(model, Graph) else reader.read(data)
    return lowered(graph, data, random_inputs(data), schema)


def _schema() -> Any:
    """What LiteRT writes files by.

    Raises:
        BackendError: its C interface may be another than is known here.
        MissingDependencyError: ai-edge-litert is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise MissingDependencyError("ai-edge-litert", "litert", "measuring with the backend litert") from error
    found = version("ai-edge-litert")
    if not found.startswith(f"{_KNOWN}."):
        raise BackendError(
            f"litert: ai-edge-litert {found} is installed, whose C interface may have changed since {_KNOWN}; install "
            "what is known with: pip install 'nn-meter[litert]'"
        )
    return schema_py_generated
