"""MNN on the CPU of this machine.

A model is converted first, in a process of its own, and by the function behind MNN's command ``mnnconvert`` instead of
that command, which installs packages and asks an address on the network for credentials (MNN 3.6.1). The function
answers ``True`` whatever happened: what counts is the file.

A session calls back before and behind each kernel that it runs, with its name and its shapes. A converted operator is
called what its first node's output is called, and its result what its last node's output is called; the kernels that
an operator becomes bear its name, some with ``_raster_`` and a number. Calling back adds about 1.1 us to each kernel.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import version
from itertools import groupby, zip_longest
from pathlib import Path
from threading import Lock
from time import perf_counter_ns
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
import onnx

from nn_meter.backends.base import Model, check_threads
from nn_meter.backends.onnx_writer import as_bytes, random_inputs
from nn_meter.errors import BackendError, MissingDependencyError
from nn_meter.frontends.tflite.flatbuffer import root
from nn_meter.ir.graph import Graph
from nn_meter.runtimes.trace import ExecutedKernel, KernelTrace, Operand
from nn_meter.storage import Closing

PRECISIONS = ("normal", "high", "low")

_CONVERT = """
if not os.path.exists("model.onnx"):
    _tools.mnnconvert(["MNNConvert", "-f", "ONNX", "--OP"])
    sys.exit()
_tools.mnnconvert(
    ["MNNConvert", "-f", "ONNX", "--modelFile", "model.onnx", "--MNNModel", "model.mnn", "--bizCode", "nn-meter",
     "--useOriginRNNImpl"]
)
if not os.path.exists("model.mnn"):
    sys.exit(1)
net = _mnncengine.Interpreter("model.mnn")
session = net.createSession({"backend": "CPU"})
resized = net.getSessionInfo(session, 3) == 0
if not resized:
    print("a session of it is not resized")
sys.stdout.flush()
os._exit(not resized)
"""
"""Converts, and sees whether a session finds kernels for all: one that does not breaks the memory of its process.

Recurrent layers are to be one operator: as loops, which is the converter's default, a session does not run them.
Without a model it lists the operators that it knows.
"""

_CONVERTER = """
import os, sys

def tied():
    if sys.platform == "linux":
        import ctypes
        ctypes.CDLL(None).prctl(1, 9)

def convert(folder):
    os.chdir(folder)
    said = os.open("said", os.O_WRONLY | os.O_CREAT)
    os.dup2(said, 1)
    os.dup2(said, 2)
    exec(sys.argv[1], globals())

tied()
answers = os.dup(1)
os.dup2(2, 1)
import _tools, _mnncengine
for folder in sys.stdin:
    child = os.fork() if hasattr(os, "fork") else 0
    if child == 0:
        tied()
        convert(folder[:-1])
        os._exit(0)
    os.write(answers, b"%d\\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
"""A process that has loaded MNN, which takes longer than most conversions, and converts what lies in the folders that
it is told, each in a process of its own; where a process cannot be copied it is one for a single conversion. All end
with the process that asked (``PR_SET_PDEATHSIG``, SIGKILL), which is killed where a model takes too long: a converter
that hangs would slow down whatever is measured next."""

_UNKNOWN = re.compile(r"These Op Not Support: (.+)")
_LAST_LINES = 3

_KEPT_MODELS, _KEPT_BYTES = 2048, 1 << 18
"""How many converted models are kept at most, and how large a model may be for that."""

_OPERATORS, _TENSORS = 3, 7
"""Slots of ``Net`` in MNN's schema, ``schema/default/MNN.fbs`` of its sources."""
_INPUTS, _NAME, _OUTPUTS, _TYPE = 0, 3, 4, 5
"""Slots of ``Op`` there."""
_CONVERT_TENSOR = 129
"""Number of the operator that changes a layout there."""

_VIEWS = frozenset({26, 28, 73, 90, 107, _CONVERT_TENSOR})
"""ExpandDims, Flatten, Reshape, Squeeze, Unsqueeze there, and changes of layout: what moves no data by itself."""

_JOINS = frozenset({10, 44})
"""Concat, Pack: what else moves data takes it from its first input alone."""

_MOVER = "Raster"
"""The kernel that moves data."""
_RASTER = re.compile(r"_raster_\d+$")
"""What follows an operator's name in that of a kernel that it becomes."""
_PRODUCT = "__matmul_converted"
"""What follows a product's name in that of the convolution that it becomes."""


@dataclass(frozen=True, slots=True)
class MnnConfig:
    """Settings of a session: ``threads``, and ``precision`` as MNN calls it: with ``"low"`` it computes in half
    precision or bfloat16 where the processor can.

    Raises:
        BackendError: a value that MNN does not have.
    """

    threads: int = 1
    precision: str = "normal"

    def __post_init__(self) -> None:
        check_threads("mnn", self.threads)
        if self.precision not in PRECISIONS:
            raise BackendError(f"mnn: no precision {self.precision!r}; use one of {', '.join(PRECISIONS)}")


class Mnn:
    """``Backend`` that runs models in this process, on MNN's CPU backend."""

    name: ClassVar[str] = "mnn"
    runtime: ClassVar[str] = "mnn"
    config_type: ClassVar[type[MnnConfig]] = MnnConfig

    def __init__(self, config: MnnConfig = MnnConfig()) -> None:
        self.config = config

    def check(self) -> Mapping[str, str | int | float]:
        """Runtime, version, device and settings.

        Raises:
            MissingDependencyError: MNN is not installed.
        """
        _mnn()
        return {"runtime": "mnn", "runtime_version": version("MNN"), "device": "cpu", **asdict(self.config)}

    def refuses(self, graph: Graph) -> str:
        """Which operators of ``graph`` MNN's converter does not list; empty where it has all."""
        known = _known()
        there = {node.op_type for node in graph.nodes if any(not graph.tensors[o].const for o in node.outputs if o)}
        lacking = sorted(there - known) if known else ()
        return f"MNN refuses the model: it has no operator {' | '.join(lacking)}" if lacking else ""

    def prepare(self, model: Model) -> MnnPrepared:
        """``model`` converted and in a session of its own, with random inputs.

        Raises:
            BackendError: MNN refuses the model, or an input has a free dimension.
            MissingDependencyError: MNN is not installed.
        """
        _mnn()
        refused = self.refuses(model) if isinstance(model, Graph) else ""
        if refused:
            raise BackendError(refused)
        data = as_bytes(model)
        return MnnPrepared(_converted(data), self.config, random_inputs(data))

    def fused(self, model: Model) -> list[ExecutedKernel]:
        """The kernels that MNN executes, in their order.

        Raises:
            BackendError: MNN refuses the model.
        """
        with self.prepare(model) as prepared:
            return [trace.executed for trace in prepared.trace(1)]


class MnnPrepared:
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
        kernels = _kernels(self._told(), _operators(self._converted))
        starts_ns: list[int] = []
        ends_ns: list[int] = []

        def before(tensors: object, info: object) -> bool:
            starts_ns.append(perf_counter_ns())
            return True

        def behind(tensors: object, info: object) -> bool:
            ends_ns.append(perf_counter_ns())
            return True

        for _ in range(repeats):
            self._fill()
            self._net.runSessionWithCallBackInfo(self._session, before, behind)
        taken_ms = [(end - start) / 1e6 for start, end in zip(starts_ns, ends_ns, strict=True)]
        count = len(kernels)
        return [KernelTrace(kernel, tuple(taken_ms[i::count])) for i, kernel in enumerate(kernels)]

    def close(self) -> None:
        """Free the session."""
        if MnnPrepared._threaded is self:
            MnnPrepared._threaded = None
        self._session = self._net = None
        self._filled = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        """See that there is a session, that has its inputs and has run once."""
        if self._config.threads > 1 and MnnPrepared._threaded is not self:
            if MnnPrepared._threaded is not None:
                MnnPrepared._threaded.close()
            MnnPrepared._threaded = self
        if self._session is not None:
            return
        mnn = _mnn()
        self._net = _interpreter(self._converted)
        settings = {"backend": "CPU", "numThread": self._config.threads, "precision": self._config.precision}
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
        """Its inputs as they were given: a run overwrites them, since MNN puts later tensors in their place. What runs
        on its own results ends in denormal numbers, which take a hundred times as long."""
        for tensor, given in self._filled:
            tensor.copyFrom(given)

    def _told(self) -> list[_Told]:
        """The kernels of one run."""
        found: list[_Told] = []

        def operands(tensors: Sequence[Any]) -> list[Operand]:
            return [Operand(tuple(each.getShape()), self._dtypes[each.getDataType()]) for each in tensors]

        def before(tensors: Sequence[Any], info: Any) -> bool:
            found.append(_Told(info.getName(), info.getType(), operands(tensors), []))
            return True

        def behind(tensors: Sequence[Any], info: Any) -> bool:
            found[-1].outputs.extend(operands(tensors))
            return True

        self._fill()
        self._net.runSessionWithCallBackInfo(self._session, before, behind)
        return found


def _mnn() -> Any:
    try:
        import MNN
    except ImportError as error:
        raise MissingDependencyError("MNN", "mnn", "measuring with the backend mnn") from error
    return MNN


def _failed(code: int) -> BackendError:
    return BackendError(f"MNN cannot run the model: its error code is {code}; measure another, or report it to MNN")


def _dtypes() -> dict[Any, str]:
    """MNN's element types to numpy's names. Indices and truth values are of 32 bits; int8 has no name in Python."""
    mnn = _mnn()
    return {
        mnn.Halide_Type_Float: "float32",
        mnn.Halide_Type_Int: "int32",
        mnn.Halide_Type_Int64: "int64",
        mnn.Halide_Type_Uint8: "uint8",
        None: "int8",
    }


class _Converter(Closing):
    """The process that converts, started where there is none."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, folder: Path) -> int:
        """Convert ``model.onnx`` in a folder; gives the exit code of the process that did."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self.close()
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _CONVERTER, _CONVERT],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
            asked, told = self._process.stdin, self._process.stdout
            assert asked is not None
            assert told is not None
            asked.write(os.fsencode(folder) + b"\n")
            asked.flush()
            answer = told.readline()
            return int(answer) if answer else self._process.wait()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            with self._process:  # which closes both streams, by which it ends, and waits
                self._process = None


_converter = _Converter()


@lru_cache(1)
def _known() -> frozenset[str]:
    """ONNX's operators that the converter lists; empty where it fails."""
    with tempfile.TemporaryDirectory(prefix="nn-meter-") as folder:
        log = Path(folder, "said")
        return frozenset(log.read_text().split()) if _converter(Path(folder)) == 0 and log.exists() else frozenset()


def _convert(data: bytes) -> bytes:
    """An ONNX model in MNN's format."""
    with tempfile.TemporaryDirectory(prefix="nn-meter-") as folder:
        Path(folder, "model.onnx").write_bytes(data)
        code = _converter(Path(folder))
        made, log = Path(folder, "model.mnn"), Path(folder, "said")
        if code == 0 and made.exists():
            return made.read_bytes()
        said = log.read_text(errors="replace") if log.exists() else ""
    unknown = _UNKNOWN.search(said)
    if unknown:
        raise BackendError(f"MNN refuses the model: it has no operator {unknown[1].strip(' |')}")
    words = [line for line in said.splitlines() if line.strip()][-_LAST_LINES:]
    there = {node.op_type for node in onnx.load_model_from_string(data).graph.node}
    why = f"its converter ended with {code} and said {' / '.join(words)}"
    raise BackendError(f"MNN refuses the model, which is of {', '.join(sorted(there))}: {why}")


_convert_once = lru_cache(_KEPT_MODELS)(_convert)


def _converted(data: bytes) -> bytes:
    """``_convert``; a small model is converted once, since detection prepares the same ones over and over."""
    return _convert_once(data) if len(data) <= _KEPT_BYTES else _convert(data)


def _interpreter(converted: bytes) -> Any:
    with tempfile.TemporaryDirectory(prefix="nn-meter-") as folder:
        path = Path(folder, "model.mnn")
        path.write_bytes(converted)
        return _mnn().Interpreter(str(path))


@dataclass(frozen=True, slots=True)
class _Told:
    """A kernel as a session tells it."""

    name: str
    kind: str
    inputs: list[Operand]
    outputs: list[Operand]


@dataclass(frozen=True, slots=True)
class _Operator:
    """An operator of a converted model, with the names of what it reads and writes."""

    name: str
    kind: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def data(self) -> tuple[str, ...]:
        """What it reads, without what only says how."""
        return self.inputs[:1] if self.kind not in _JOINS else self.inputs


def _operators(converted: bytes) -> dict[str, _Operator]:
    """The operators of a converted model by name."""
    net = root(memoryview(converted))
    tensors = net.texts(_TENSORS)

    def names(numbers: Sequence[int] | None) -> tuple[str, ...]:
        return tuple(tensors[number] for number in numbers or () if number >= 0)

    found = (
        _Operator(op.text(_NAME), op.integer(_TYPE), names(op.vector(_INPUTS, "i")), names(op.vector(_OUTPUTS, "i")))
        for op in net.tables(_OPERATORS)
    )
    return {op.name: op for op in found}


class _Net:
    """A converted model, in which kernels are looked up.

    An operator that only moves data runs no kernel: each reader reads from where the data lies. Where it cannot, a
    kernel of the first reader puts the data in place before; that kernel is the moving operators' own.
    """

    def __init__(self, operators: Mapping[str, _Operator], told: Sequence[_Told]) -> None:
        self._operators = operators
        self._makers = {name: operator for operator in operators.values() for name in operator.outputs}
        self._running = {self.owner(kernel).name for kernel in told}
        self._placed: set[str] = set()

    def owner(self, kernel: _Told) -> _Operator:
        """The operator that a kernel belongs to; one of its own where that has no name."""
        name = kernel.name if kernel.name in self._operators else _RASTER.sub("", kernel.name)
        return self._operators.get(name) or _Operator(kernel.name, _CONVERT_TENSOR, (), ())

    def sources(self, operator: _Operator) -> tuple[str, ...]:
        """What is in memory of what an operator is read from."""
        found: dict[str, None] = {}
        for name in operator.data:
            maker = self._moving(name)
            found.update(dict.fromkeys((name,) if maker is None else self.sources(maker)))
        return tuple(found)

    def moved(self, operator: _Operator) -> tuple[_Operator, ...]:
        """The operators through which one is read, and it."""
        makers = [maker for name in operator.data if (maker := self._moving(name)) is not None]
        return (*(each for maker in makers for each in self.moved(maker)), operator)

    def put(self, operator: _Operator) -> _Operator | None:
        """The operator that a kernel of ``operator`` puts the result of in place, before it is read; ``None`` where all
        is in place."""
        for name in operator.inputs:
            maker = self._moving(name)
            if maker is not None:
                self._placed.add(name)
                return maker
        return None

    def own(self, operators: Sequence[_Operator]) -> Sequence[_Operator]:
        """Of operators that a kernel moves data through, those that count to it: what is behind one that hands out
        several parts is that part's own; parts that are read as they are count to the operator that hands them out, and
        to what is before it."""
        end = max((place + 1 for place, each in enumerate(operators) if len(each.outputs) > 1), default=0)
        behind = operators[end:]
        return behind if any(each.kind not in _VIEWS for each in behind) else operators[:end] or operators

    def nodes(self, operators: Sequence[_Operator]) -> tuple[str, ...]:
        """What the nodes that operators were converted from, or their results, are called. A product that became a
        convolution bears its name and a suffix, and what gives its result the right shape bears the name: its output is
        that of an activation which joined the convolution, or runs by itself."""
        names: dict[str, None] = {}
        for each in operators:
            product = self._operators.get(each.name.removesuffix(_PRODUCT), each)
            shaped = (name for name in product.outputs if name not in self._running)
            names.update(dict.fromkeys((product.name, *shaped, *each.outputs)))
        return tuple(names)

    def _moving(self, name: str) -> _Operator | None:
        """The operator without a kernel that makes a tensor; ``None`` of what is in memory."""
        maker = self._makers.get(name)
        if maker is None or maker.name in self._running or not maker.inputs or name in self._placed:
            return None
        return maker


def _kernels(told: Sequence[_Told], operators: Mapping[str, _Operator]) -> list[ExecutedKernel]:
    """Kernels with what they read and write and the nodes that they cover, as far as their operators tell.

    Of those that one operator becomes, each reads what the one before wrote, the first what the operator reads, and the
    last writes what it writes.
    """
    net = _Net(operators, told)
    kernels = []
    for operator, group in groupby(told, net.owner):
        *before, last = group
        chain = net.moved(operator) if all(kernel.kind == _MOVER for kernel in (*before, last)) else (operator,)
        changes_layout = all(each.kind in _VIEWS for each in chain)
        nodes = () if changes_layout else net.nodes(chain)
        own = []
        for kernel in before:
            put = net.put(operator) if kernel.kind == _MOVER else None
            if put is None:
                own.append(kernel)
                continue
            sources, through = net.sources(put), net.own(net.moved(put))
            moved = nodes if all(each.kind in _VIEWS for each in through) else net.nodes(through)
            kernels.append(_kernel(kernel, kernel.kind, sources, put.outputs, moved))
        between = [(f"{operator.name}#{i}",) for i in range(len(own))]
        reads = [net.sources(operator), *between]
        for kernel, read, written in zip((*own, last), reads, [*between, operator.outputs], strict=True):
            kind = "ConvertTensor" if changes_layout else kernel.kind
            kernels.append(_kernel(kernel, kind, read, written, nodes))
    return kernels


def _kernel(
    told: _Told, kind: str, read: Sequence[str], written: Sequence[str], nodes: tuple[str, ...]
) -> ExecutedKernel:
    """A kernel may read a part of what its operator reads: operands and names without a counterpart stand alone."""
    inputs, outputs = list(zip_longest(told.inputs, read)), list(zip_longest(told.outputs, written))
    return ExecutedKernel(
        name=told.name,
        op_type=kind,
        domain="mnn",
        inputs=tuple(operand for operand, _ in inputs),
        outputs=tuple(operand for operand, _ in outputs),
        input_names=tuple(name or "" for _, name in inputs),
        output_names=tuple(name or "" for _, name in outputs),
        nodes=nodes,
    )
