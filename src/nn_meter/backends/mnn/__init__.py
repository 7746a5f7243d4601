"""MNN on the CPU of this machine.

A model is converted first, in a process of its own (``converter``).

A session calls back before and behind each kernel that it runs, with its name and its shapes. A converted operator is
called what its first node's output is called, and its result what its last node's output is called; the kernels that
an operator becomes bear its name, some with ``_raster_`` and a number. Calling back adds about 1.1 us to each kernel.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter_ns
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from nn_meter.backends.base import Model
from nn_meter.backends.denormals import FLUSH, KEEP, treated, usual
from nn_meter.backends.in_process import InProcess, Package, Threads
from nn_meter.backends.mnn.converter import converted, known
from nn_meter.backends.mnn.kernels import Told, executed, operators
from nn_meter.backends.onnx_writer import as_bytes, random_inputs
from nn_meter.errors import BackendError
from nn_meter.ir.graph import Graph
from nn_meter.runtimes.trace import KernelTrace, Operand
from nn_meter.storage import Closing


@dataclass(frozen=True, slots=True)
class MnnConfig(Threads):
    """Settings of a session: ``threads``; ``precision`` as MNN calls it: with ``"low"`` it computes in half precision
    or bfloat16 where the processor can; and what becomes of ``denormals``, which MNN itself keeps."""

    precision: str = "normal"
    denormals: str = field(default_factory=usual)


class Mnn(InProcess):
    """``Backend`` that runs models in this process, on MNN's CPU backend."""

    name = runtime = "mnn"
    package = Package("MNN", "MNN", "mnn")
    config_type = MnnConfig
    choices = MappingProxyType(
        {"precision": ("precision", ("normal", "high", "low")), "denormals": ("treatment", (FLUSH, KEEP))}
    )

    def refuses(self, graph: Graph) -> str:
        """Which operators of ``graph`` MNN's converter does not list; empty where it has all."""
        listed = known()
        there = {node.op_type for node in graph.nodes if any(not graph.tensors[o].const for o in node.outputs if o)}
        lacking = sorted(there - listed) if listed else ()
        return f"MNN refuses the model: it has no operator {' | '.join(lacking)}" if lacking else ""

    def prepare(self, model: Model) -> MnnPrepared:
        """``model`` converted and in a session of its own, with random inputs.

        Raises:
            BackendError: MNN refuses the model, or an input has a free dimension.
            MissingDependencyError: MNN is not installed.
        """
        self.imported()
        refused = self.refuses(model) if isinstance(model, Graph) else ""
        if refused:
            raise BackendError(refused)
        data = as_bytes(model)
        return MnnPrepared(converted(data), self.config, random_inputs(data))


class MnnPrepared(Closing):
    """``Prepared`` around one session; one of several threads is freed where another such begins to run, and made anew
    for its own next run, since sessions share the threads of a process."""

    _threaded: ClassVar[MnnPrepared | None] = None

    def __init__(self, converted: bytes, config: MnnConfig, inputs: Mapping[str, np.ndarray]) -> None:
        self._converted = converted
        self._config = config
        self._inputs = inputs
        self._dtypes = _dtypes()
        self._net: Any = None
        self._session: Any = None
        self._filled: list[tuple[Any, Any]] = []
        self._open()

    def run(self, repeats: int) -> list[float]:
        """Milliseconds of each of ``repeats`` runs.

        Raises:
            BackendError: MNN cannot run the model.
        """
        self._open()
        run, session = self._net.runSession, self._session
        latencies_ms = []
        with treated(self._config.denormals):
            for _ in range(repeats):
                self._fill()
                start_ns = perf_counter_ns()
                code = run(session)
                latencies_ms.append((perf_counter_ns() - start_ns) / 1e6)
                if code:
                    raise _failed(code)
        return latencies_ms

    def trace(self, repeats: int) -> list[KernelTrace]:
        """The time between the two calls around each kernel in each of ``repeats`` runs."""
        self._open()
        found = executed(self._told(), operators(self._converted))
        starts_ns: list[int] = []
        ends_ns: list[int] = []

        def before(tensors: object, info: object) -> bool:
            starts_ns.append(perf_counter_ns())
            return True

        def behind(tensors: object, info: object) -> bool:
            ends_ns.append(perf_counter_ns())
            return True

        with treated(self._config.denormals):
            for _ in range(repeats):
                self._fill()
                self._net.runSessionWithCallBackInfo(self._session, before, behind)
        taken_ms = [(end - start) / 1e6 for start, end in zip(starts_ns, ends_ns, strict=True)]
        count = len(found)
        return [KernelTrace(kernel, tuple(taken_ms[i::count])) for i, kernel in enumerate(found)]

    def close(self) -> None:
        """Free the session."""
        if MnnPrepared._threaded is self:
            MnnPrepared._threaded = None
        self._session = self._net = None
        self._filled = []

    def _open(self) -> None:
        """See that there is a session, that has its inputs and has run once."""
        if self._config.threads > 1 and MnnPrepared._threaded is not self:
            if MnnPrepared._threaded is not None:
                MnnPrepared._threaded.close()
            MnnPrepared._threaded = self
        if self._session is not None:
            return
        mnn = Mnn.imported()
        self._net = _interpreter(self._converted)
        settings = {"backend": "CPU", "numThread": self._config.threads, "precision": self._config.precision}
        with treated(self._config.denormals):  # its threads begin as this one is
            self._session = self._net.createSession(settings)
        for name, tensor in self._net.getSessionInputAll(self._session).items():
            kind = tensor.getDataType()
            values = np.ascontiguousarray(self._inputs[name], self._dtypes[kind])
            given = mnn.Tensor(tensor.getShape(), kind, values, mnn.Tensor_DimensionType_Caffe)
            self._filled.append((tensor, given))
        self._fill()
        code = self._net.runSession(self._session)
        if code:
            raise _failed(code)

    def _fill(self) -> None:
        """Its inputs as they were given: a run overwrites them, since MNN puts later tensors in their place."""
        for tensor, given in self._filled:
            tensor.copyFrom(given)

    def _told(self) -> list[Told]:
        """The kernels of one run."""
        found: list[Told] = []

        def operands(tensors: Sequence[Any]) -> list[Operand]:
            return [Operand(tuple(each.getShape()), self._dtypes[each.getDataType()]) for each in tensors]

        def before(tensors: Sequence[Any], info: Any) -> bool:
            found.append(Told(info.getName(), info.getType(), operands(tensors), []))
            return True

        def behind(tensors: Sequence[Any], info: Any) -> bool:
            found[-1].outputs.extend(operands(tensors))
            return True

        self._fill()
        self._net.runSessionWithCallBackInfo(self._session, before, behind)
        return found


def _failed(code: int) -> BackendError:
    return BackendError(f"MNN cannot run the model: its error code is {code}; measure another, or report it to MNN")


def _dtypes() -> dict[Any, str]:
    """MNN's element types to numpy's names. Indices and truth values are of 32 bits; int8 has no name in Python."""
    mnn = Mnn.imported()
    return {
        mnn.Halide_Type_Float: "float32",
        mnn.Halide_Type_Int: "int32",
        mnn.Halide_Type_Int64: "int64",
        mnn.Halide_Type_Uint8: "uint8",
        None: "int8",
    }

def _interpreter(converted: bytes) -> Any:
    with tempfile.TemporaryDirectory(prefix="nn-meter-") as folder:
        path = Path(folder, "model.mnn")
        path.write_bytes(converted)
        return Mnn.imported().Interpreter(str(path))
