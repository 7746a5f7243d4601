"""What a backend is. Those that exist are rows of ``nn_meter.plugins``.

A backend hands a model to one runtime on one device and tells what the runtime says: how long a run took,
which kernels it executed, how long each took. It decides nothing: how often, in which order and which of the
values to believe belongs to ``measuring``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field, fields
from time import perf_counter_ns
from types import TracebackType
from typing import Any, ClassVar, Protocol, runtime_checkable

from nn_meter import plugins, runtimes
from nn_meter.errors import BackendError
from nn_meter.ir.graph import Graph
from nn_meter.runtimes import Runtime
from nn_meter.runtimes.trace import ExecutedKernel, KernelTrace
from nn_meter.settings import device

Model = Graph | bytes
"""What a backend takes: a graph, which gets random weights, or a serialised ONNX model."""


class Prepared(Protocol):
    """A model that is ready to run. Closing it frees what it holds; use it as a context manager."""

    def run(self, repeats: int) -> list[float]:
        """Run ``repeats`` times; the milliseconds of each run, in order."""

    def trace(self, repeats: int) -> list[KernelTrace]:
        """Run ``repeats`` times under the runtime's profiler; kernels in the order of their execution.

        Raises:
            BackendError: the runtime does not tell its kernels' times.
        """

    def close(self) -> None:
        """Free the model; harmless the second time."""

    def __enter__(self) -> Prepared: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class Backend(Protocol):
    """One runtime on one device, made from a frozen dataclass of settings."""

    name: ClassVar[str]
    config_type: ClassVar[type[Any]]
    # and, where more is known of what it executes than rules say: runtime: ClassVar[str], a name in nn_meter.runtimes;
    # where it can be told without weights, so that large networks hold no part of that kind: refuses(graph) -> str, why
    # the runtime would refuse a graph, empty where it may take it;
    # where it takes seconds to make some hundred nodes ready: most_nodes: ClassVar[int], to which networks of many
    # parts get no other one;
    # where it tells nothing of what it executes, so that whole models are all there is to measure:
    # tells_kernels: ClassVar[bool], false;
    # where it opens models whose inputs have free sizes as they are, with those of random_inputs:
    # opens_free: ClassVar[bool], true;
    # where a program on a device without Python runs models: by_program: ClassVar[bool], and device() -> Device

    @property
    def config(self) -> Any:
        """The settings, an instance of ``config_type``."""

    def check(self) -> Mapping[str, str | int | float]:
        """What makes a measurement comparable: runtime, its version, device, settings.

        Raises:
            MissingDependencyError: the runtime is not installed.
            BackendError: the device does not answer.
        """

    def prepare(self, model: Model) -> Prepared:
        """``model`` ready to run.

        Raises:
            BackendError: the runtime refuses the model; holds its reason.
        """

    def fused(self, model: Model) -> list[ExecutedKernel]:
        """The kernels that the runtime makes of ``model``, in the order of their execution.

        Raises:
            BackendError: the runtime refuses the model, or does not tell.
        """


def runtime_of(backend: Backend) -> Runtime:
    """The runtime that ``backend`` measures: the one that its attribute ``runtime`` names, else what its rules say.

    Raises:
        RuleError: it names a runtime that does not exist.
    """
    return runtimes.find(getattr(backend, "runtime", runtimes.BY_RULES))


@dataclass(frozen=True, slots=True)
class Named:
    """A backend by its name and settings: what crosses a link in the place of a loaded one."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Backend:
        """The backend. Errors as of ``load``."""
        return load(self.name, **self.settings)


@dataclass(frozen=True, slots=True)
class Given:
    """A backend that is there already, in the place of one by its name; it stays in this process."""

    backend: Backend

    @property
    def name(self) -> str:
        """Of the backend."""
        return self.backend.name

    def load(self) -> Backend:
        """It."""
        return self.backend


def timed(run: Callable[..., object], repeats: int, *arguments: object) -> list[float]:
    """Milliseconds of each of ``repeats`` calls of ``run`` with ``arguments``."""
    latencies_ms = []
    for _ in range(repeats):
        start_ns = perf_counter_ns()
        run(*arguments)
        latencies_ms.append((perf_counter_ns() - start_ns) / 1e6)
    return latencies_ms


def check_threads(backend: str, threads: int) -> None:
    """Refuse a number of threads that no runtime works with.

    Raises:
        BackendError: it is less than one.
    """
    if threads < 1:
        raise BackendError(f"{backend}: threads is {threads}; use 1 or more")


@contextmanager
def held_back() -> Iterator[Callable[[], str]]:
    """What is written to standard error meanwhile, by Python or by a library, is told by the function instead."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile("w+", buffering=1) as file:

        def told() -> str:
            file.flush()
            return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")

        os.dup2(file.fileno(), 2)
        try:
            with redirect_stderr(file):
                yield told
        finally:
            os.dup2(kept, 2)
            os.close(kept)


class Traced:
    """What can be timed like a prepared model: its runs under the runtime's profiler, the first ``skip`` of each turn
    left out. ``traces`` are those of the last turn."""

    def __init__(self, prepared: Prepared, skip: int = 2) -> None:
        self._prepared = prepared
        self._skip = skip
        self.traces: tuple[KernelTrace, ...] = ()

    def run(self, repeats: int) -> list[float]:
        """Milliseconds of all kernels together in each of ``repeats`` runs; 0 where the runtime runs none, as of a
        model that only hands its input on."""
        self.traces = tuple(
            KernelTrace(trace.executed, trace.latencies_ms[self._skip :])
            for trace in self._prepared.trace(repeats + self._skip)
        )
        if not self.traces:
            return [0.0] * repeats
        return [sum(run) for run in zip(*(trace.latencies_ms for trace in self.traces), strict=True)]


def available() -> tuple[str, ...]:
    """Names of all backends, those of other packages and those that the user registered included, sorted."""
    return tuple(sorted(plugins.names("backend")))


_NEEDED = ("config_type", "check", "prepare", "fused")


def load(name: str, **settings: Any) -> Backend:
    """The backend ``name`` with ``settings`` for the fields of its config.

    Raises:
        BackendError: no backend of that name, one that cannot be imported or is written for nn-Meter's builder alone,
            or a setting that the backend does not have or refuses; names those that exist.
        MissingDependencyError: the backend's runtime is not installed.
    """
    backend_type = plugins.load("backend", name)
    missing = [each for each in _NEEDED if not hasattr(backend_type, each)]
    if missing:
        raise BackendError(
            f"backend {name!r} is written for nn-Meter's builder, whose calls run it; to measure, build and detect "
            f"rules here, its class needs {', '.join(missing)} as well (nn_meter.backends.Backend says how)"
        )
    known = [item.name for item in fields(backend_type.config_type)]
    unknown = [setting for setting in settings if setting not in known]
    if unknown:
        raise BackendError(
            f"backend {name!r} has no setting {unknown[0]!r}; it has {', '.join(known) if known else 'none'}"
        )
    if device() and not getattr(backend_type, "by_program", False):
        raise BackendError(
            f"backend {name!r} runs models in Python, which {device()} does not have; drive LiteRT's program there "
            "with --backend tflite_cpu or tflite_gpu"
        )
    backend: Backend = backend_type(backend_type.config_type(**settings))
    return backend
