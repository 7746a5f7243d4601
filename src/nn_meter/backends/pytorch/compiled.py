"""Models that PyTorch compiles for the CPU of this machine: whole, since its compiler tells no kernels of the model.

The calls of ``pytorch_eager`` become a module, which ``torch.compile`` makes C++ of, with the compiler of the machine:
that takes one to some minutes a network (torch 2.13), so that a build would see a dozen. A predictor comes of a few
whole models, on top of one of PyTorch's that ships (``nn-meter measure --csv``, ``nn-meter adapt``).
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any
from warnings import catch_warnings, simplefilter

from nn_meter.backends.base import Model
from nn_meter.backends.denormals import FLUSH, treated
from nn_meter.backends.in_process import InProcess, both_forms
from nn_meter.backends.pytorch import PyTorchEager, PyTorchPrepared
from nn_meter.backends.pytorch.module import as_module
from nn_meter.errors import BackendError
from nn_meter.runtimes.trace import KernelTrace
from nn_meter.storage import Closing, legible


class PyTorchCompiled(InProcess):
    """``Backend`` that compiles a model before it runs it, by ``torch.compile`` as it comes."""

    name = "pytorch_compiled"
    runtime = "pytorch"
    package = PyTorchEager.package
    tells_kernels = False

    def prepare(self, model: Model) -> CompiledPrepared:
        """``model`` compiled, with random inputs.

        Raises:
            BackendError: as of ``pytorch_eager``, or the model cannot be compiled.
            MissingDependencyError: torch is not installed.
        """
        torch = self.imported()
        graph, data = both_forms(model)
        called = PyTorchPrepared(graph, data, self.config)
        given: list[Any] = [called.values[called.place[name]] for name in graph.inputs]
        inputs = tuple(each.clone() for each in given)  # else torch takes them for made in inference alone
        try:
            with catch_warnings():
                simplefilter("ignore")  # of torch about what it imports itself
                # processes that compile by themselves would stay, beside what is measured
                module = torch.compile(as_module(called, graph), options={"compile_threads": 1})
                prepared = CompiledPrepared(torch, module, inputs, self.config.threads)
                prepared.run(1)
        except Exception as error:  # whatever its passes, or the compiler of C++, say
            said = legible(" ".join((str(error).strip() or repr(error)).splitlines()[:2]))
            raise BackendError(
                f"{graph.name}: PyTorch does not compile the model ({said}); it takes a compiler of C++ (g++, or the "
                "one that CXX names); without one measure with --backend pytorch_eager"
            ) from error
        return prepared


class CompiledPrepared(Closing):
    """``Prepared`` around a compiled module and its inputs."""

    def __init__(self, torch: Any, module: Any, inputs: tuple[Any, ...], threads: int) -> None:
        self._torch, self._module, self._inputs, self._threads = torch, module, inputs, threads

    def run(self, repeats: int) -> list[float]:
        """Milliseconds of each of ``repeats`` runs."""
        self._torch.set_num_threads(self._threads)
        latencies_ms = []
        with treated(FLUSH), self._torch.no_grad():
            for _ in range(repeats):
                start_ns = perf_counter_ns()
                self._module(*self._inputs)
                latencies_ms.append((perf_counter_ns() - start_ns) / 1e6)
        return latencies_ms

    def outputs(self) -> tuple[Any, ...]:
        """What it computes."""
        with self._torch.no_grad():
            made: tuple[Any, ...] = self._module(*self._inputs)
        return made

    def trace(self, repeats: int) -> list[KernelTrace]:
        """What there is none of.

        Raises:
            BackendError: always.
        """
        raise BackendError("PyTorch's compiler does not tell the kernels of a model; measure whole models there")

    def close(self) -> None:
        """Free the module."""
        self._module, self._inputs = None, ()
