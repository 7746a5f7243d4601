"""What backends have in common that run models in this process, on the CPU: which package they need, their settings,
and what they say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, ClassVar

from nn_meter.backends.base import Model, Prepared, check_threads
from nn_meter.backends.onnx_writer import as_bytes
from nn_meter.errors import BackendError, needed
from nn_meter.frontends import onnx as reader
from nn_meter.ir.graph import Graph
from nn_meter.runtimes.trace import ExecutedKernel


@dataclass(frozen=True, slots=True)
class Package:
    """What is imported, what it is called where it is installed from, by which extra of ours; ``known`` is the version
    that no other may stand in for, where the backend relies on what is not public."""

    module: str
    name: str
    extra: str
    known: str = ""


@dataclass(frozen=True, slots=True)
class Threads:
    """Settings: how many ``threads`` work inside one operator."""

    threads: int = 1


class InProcess:
    """``Backend`` without its ``prepare``; ``choices`` are settings that have only so many values: what an error calls
    each, and its values.

    Raises:
        BackendError: a number of threads below one, or a value that is no choice.
    """

    name: ClassVar[str]
    runtime: ClassVar[str]
    package: ClassVar[Package]
    config_type: ClassVar[type[Any]] = Threads
    choices: ClassVar[Mapping[str, tuple[str, tuple[str, ...]]]] = MappingProxyType({})

    def __init__(self, config: Any = None) -> None:
        self.config = self.config_type() if config is None else config
        check_threads(self.name, self.config.threads)
        for setting, (called, values) in self.choices.items():
            if (value := getattr(self.config, setting)) not in values:
                raise BackendError(f"{self.name}: no {called} {value!r}; use one of {', '.join(values)}")

    @classmethod
    def imported(cls) -> Any:
        """The module of the runtime.

        Raises:
            BackendError: a version that is not known here.
            MissingDependencyError: it is not installed.
        """
        package = cls.package
        module = needed(package.module, package.name, package.extra, f"measuring with the backend {cls.name}")
        if package.known and not (found := version(package.name)).startswith(f"{package.known}."):
            raise BackendError(
                f"{cls.name}: {package.name} {found} is installed, which may be inside another than {package.known}, "
                f"which is known here; install that with: pip install 'nn-meter[{package.extra}]'"
            )
        return module

    def check(self) -> Mapping[str, str | int | float]:
        """Runtime, version, device and settings. Errors as of ``imported``."""
        found = getattr(self.imported(), "__version__", None) or version(self.package.name)
        return {"runtime": self.runtime, "runtime_version": str(found), "device": "cpu", **asdict(self.config)}

    def prepare(self, model: Model) -> Prepared:
        """``model`` ready to run, with random inputs.

        Raises:
            BackendError: the runtime refuses the model; names the operator where one is to blame.
            MissingDependencyError: the runtime is not installed.
        """
        raise NotImplementedError

    def fused(self, model: Model) -> list[ExecutedKernel]:
        """The kernels that are executed, in their order. Errors as of ``prepare`` and ``Prepared.trace``."""
        with self.prepare(model) as prepared:
            return [trace.executed for trace in prepared.trace(1)]


def both_forms(model: Model) -> tuple[Graph, bytes]:
    """``model`` as a graph and as an ONNX model, which holds the weights."""
    data = as_bytes(model)
    return model if isinstance(model, Graph) else reader.read(data), data
