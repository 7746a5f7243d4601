"""ExecuTorch on the CPU of this machine, with XNNPACK.

A graph becomes the calls of the backend ``pytorch_eager``, which torch exports and ExecuTorch's own passes lower, in a
process of its own. XNNPACK runs what its partitioner takes and ExecuTorch's own kernels the rest. The profiler tells
the operators inside XNNPACK by kind and order alone, in whole microseconds cut off below; which of the calls each is
of follows from the order (``tracing``), as for the backend ``litert``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar
from weakref import WeakSet

import numpy as np

from nn_meter.backends.base import Model, held_back, timed
from nn_meter.backends.executorch.conversion import Converted, converted
from nn_meter.backends.executorch.tracing import kernels, runs
from nn_meter.backends.in_process import InProcess, Package, Threads
from nn_meter.backends.onnx_writer import as_bytes, random_inputs
from nn_meter.errors import BackendError, needed
from nn_meter.runtimes.trace import KernelTrace
from nn_meter.storage import Closing

_FAILED = re.compile(r"in operator (\w+::[\w.]+\w)")


class ExecuTorch(InProcess):
    """``Backend`` that runs models in this process, on ExecuTorch's XNNPACK delegate."""

    name = runtime = "executorch"
    package = Package("executorch.extension.pybindings._C", "executorch", "executorch", known="1.5")
    """Of the module ``portable_lib``, whose import takes 3 s, what does the work."""
    most_nodes: ClassVar[int] = 100
    """Converting takes a tenth of a second a node on an EPYC: a network of 670 did not end within a minute."""

    @classmethod
    def imported(cls) -> Any:
        """What loads and runs programs, behind torch, which brings the libraries that it is linked to."""
        needed("torch", "executorch", "executorch", "measuring with the backend executorch")
        return super().imported()

    def prepare(self, model: Model) -> ExecuTorchPrepared:
        """``model`` as a program, with random inputs.

        Raises:
            BackendError: an operator that ExecuTorch has not, or a model that it refuses; names it.
            MissingDependencyError: executorch is not installed.
        """
        self.imported()
        data = as_bytes(model)
        return ExecuTorchPrepared(converted(data), self.config, random_inputs(data))


class ExecuTorchPrepared(Closing):
    """``Prepared`` around a loaded program, whose results stay where they are; tracing loads it a second time.

    The threads are the process's: where their number changes, programs that are loaded are dropped, and loaded anew for
    their next run.
    """

    _loaded: ClassVar[WeakSet[ExecuTorchPrepared]] = WeakSet()
    _threads_there: ClassVar[int] = 0

    def __init__(self, model: Converted, config: Threads, inputs: Mapping[str, np.ndarray]) -> None:
        import torch

        self._model = model
        self._threads = config.threads
        self._inputs = [torch.from_numpy(np.array(each)) for each in inputs.values()]
        self._programs: dict[bool, Any] = {}  # by whether they are under the profiler
        missing = sorted(set(model.operators) - set(ExecuTorch.imported()._get_operator_names()))
        if missing:
            raise BackendError(f"ExecuTorch has no kernel for {', '.join(missing)} in its own library")
        self._opened(False)

    def run(self, repeats: int) -> list[float]:
        """Milliseconds of each of ``repeats`` runs."""
        return timed(self._opened(False).forward, repeats, self._inputs, False)

    def trace(self, repeats: int) -> list[KernelTrace]:
        """The time of each kernel in each of ``repeats`` runs, half a microsecond more than is told of those of
        XNNPACK: it tells whole ones, cut off below."""
        program = self._opened(True)
        with TemporaryDirectory() as folder:
            for _ in range(repeats):
                program.forward(self._inputs, False)
            path = Path(folder, "trace")
            with held_back():
                program.write_etdump_result_to_file(str(path), str(path.with_suffix(".debug")))
            told = runs(path.read_bytes())[-repeats:] if repeats else []
        executed = kernels(told[0], self._model) if told else []
        return [
            KernelTrace(kernel, tuple(sum(run[i].latency_ms for i in places) for run in told))
            for kernel, places in executed
        ]

    def outputs(self) -> list[np.ndarray]:
        """What a run gives."""
        return [each.numpy() for each in self._opened(False).forward(self._inputs)]

    def close(self) -> None:
        """Free the programs."""
        self._programs.clear()

    def _opened(self, profiled: bool) -> Any:
        """The program, loaded where it is not."""
        if ExecuTorchPrepared._threads_there == self._threads and profiled in self._programs:
            return self._programs[profiled]
        bindings = ExecuTorch.imported()
        with held_back() as told:
            if ExecuTorchPrepared._threads_there != self._threads:
                for other in self._loaded:
                    other.close()
                bindings._unsafe_reset_threadpool(self._threads)
                ExecuTorchPrepared._threads_there = self._threads
            try:
                program = bindings._load_for_executorch_from_buffer(self._model.program, enable_etdump=profiled)
                program.forward(self._inputs)
            except RuntimeError as error:
                failed = _FAILED.search(told())
                lines = " / ".join(told().strip().splitlines()[:2]) or str(error)
                said = f"its {failed[1]} does not take what it is given" if failed else lines
                raise BackendError(f"ExecuTorch refuses the program of the model: {said}") from error
        self._programs[profiled] = program
        self._loaded.add(self)
        return program
