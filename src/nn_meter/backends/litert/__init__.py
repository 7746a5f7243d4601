"""LiteRT on the CPU of this machine, with XNNPACK.

A graph is written as a TFLite file of our own, as TensorFlow Lite's converter would: channels last, batch
normalisation folded, clamps in the operator before. XNNPACK runs what it knows and LiteRT's own kernels the rest.
The profiler tells the operators inside XNNPACK by kind and order alone, in whole microseconds cut off below; which of
the file's operators each is follows from the order (``tracing``).
"""

from __future__ import annotations

from typing import Any, ClassVar

from nn_meter.backends.base import Model, timed
from nn_meter.backends.in_process import InProcess, Package, Threads, both_forms
from nn_meter.backends.litert.lowering import Lowered, lowered
from nn_meter.backends.litert.native import Session
from nn_meter.backends.litert.tracing import kernels
from nn_meter.backends.onnx_writer import random_inputs
from nn_meter.runtimes.trace import KernelTrace
from nn_meter.storage import Closing


class LiteRt(InProcess):
    """``Backend`` that runs models in this process, on LiteRT's CPU accelerator."""

    name = runtime = "litert"
    package = Package("ai_edge_litert.schema_py_generated", "ai-edge-litert", "litert", known="2.3")

    def prepare(self, model: Model) -> LiteRtPrepared:
        """``model`` as a TFLite file and in a session, with random inputs.

        Raises:
            BackendError: an operator that TFLite has not, or that LiteRT refuses; names it.
            MissingDependencyError: ai-edge-litert is not installed.
        """
        return LiteRtPrepared(written(model), self.config)


class LiteRtPrepared(Closing):
    """``Prepared`` around a session; tracing opens a second one, under the profiler. Of sessions with several threads
    one is open at a time, since they share the threads of a process."""

    _threaded: ClassVar[LiteRtPrepared | None] = None

    def __init__(self, model: Lowered, config: Threads) -> None:
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
    schema = LiteRt.imported()
    graph, data = both_forms(model)
    return lowered(graph, data, random_inputs(data), schema)
