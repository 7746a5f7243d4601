"""LiteRT's C interface (2.3): a model in memory, its runs, and what its profiler tells.

Options cross it as TOML, the model as the bytes of its file, tensors as buffers that are locked while they are read or
written. The interface has no stable layout, so that the backend takes no other version. What LiteRT and XNNPACK print
is held back; a refusal tells it.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from nn_meter.backends.base import held_back
from nn_meter.errors import BackendError, MissingDependencyError
from nn_meter.storage import Closing

_TYPES: Mapping[int, str] = MappingProxyType(
    {1: "float32", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8", 10: "float16", 11: "float64"}
)
"""LiteRT's numbers of element types, ``litert/c/litert_model_types.h``, to numpy's names."""

_CPU = 1
_READ, _WRITE = 0, 1
_OPERATOR, _INSIDE = 2, 8
"""Kinds of events: an operator of the file, and one inside a delegate."""
_FAILED = re.compile(r"Node number (\d+) \(\w+\) failed")
_UNKNOWN = re.compile(r"builtin opcode '(\w+)'")

_Handle = ctypes.c_void_p


class _Layout(ctypes.Structure):
    _fields_ = (
        ("rank", ctypes.c_uint, 7),
        ("has_strides", ctypes.c_uint, 1),
        ("sizes", ctypes.c_int32 * 8),
        ("strides", ctypes.c_uint32 * 8),
    )


class _Type(ctypes.Structure):
    _fields_ = (("element", ctypes.c_int), ("layout", _Layout))


class _Memory(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_size_t) for name in ("allocated", "in_use", "peak"))


class _Event(ctypes.Structure):
    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory_before", _Memory),
        ("memory_behind", _Memory),
        ("number", ctypes.c_uint64),
        ("part", ctypes.c_uint64),
        ("source", ctypes.c_int),
    )


@dataclass(frozen=True, slots=True)
class Event:
    """What the profiler tells of one operator: its name, whether it ran ``inside`` the delegate, its number in the
    file where it did not, when it began and how long it took, in microseconds."""

    name: str
    inside: bool
    number: int
    start_us: int
    elapsed_us: int


class Session(Closing):
    """A model that is ready to run; ``inputs`` go in as arrays of the file's shapes. A refusal calls the operators of
    the file by ``names``."""

    def __init__(
        self, data: bytes, inputs: Sequence[np.ndarray], names: Sequence[str], threads: int, profiled: bool
    ) -> None:
        self._free: list[tuple[str, Any]] = []
        self._data = ctypes.create_string_buffer(data, len(data))
        self._profiler = _Handle()
        with held_back() as told:
            try:
                self._open(inputs, threads, profiled)
            except BackendError as error:
                self.close()
                raise _refused(str(error), told(), names) from error

    def run(self) -> None:
        """Run once.

        Raises:
            BackendError: LiteRT cannot run the model.
        """
        self._run()

    def outputs(self) -> list[np.ndarray]:
        """What the last run gave."""
        found = []
        for buffer, kind in self._results:
            shape = tuple(kind.layout.sizes[: kind.layout.rank])
            made = np.empty(shape, _TYPES[kind.element])
            at = _Handle()
            _call("LiteRtLockTensorBuffer", buffer, ctypes.byref(at), _READ)
            ctypes.memmove(made.ctypes.data, at, made.nbytes)
            _call("LiteRtUnlockTensorBuffer", buffer)
            found.append(made)
        return found

    def profile(self) -> list[Event]:
        """What the profiler tells of one run, in its order; for sessions that are ``profiled``."""
        _call("LiteRtResetProfiler", self._profiler)
        _call("LiteRtStartProfiler", self._profiler)
        self._run()
        _call("LiteRtStopProfiler", self._profiler)
        count = ctypes.c_int()
        _call("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(count))
        events = (_Event * count.value)()
        _call("LiteRtGetProfilerEvents", self._profiler, count.value, events)
        return [
            Event(each.tag.decode(), each.kind == _INSIDE, each.number, each.start_us, each.elapsed_us)
            for each in events
            if each.kind in (_OPERATOR, _INSIDE)
        ]

    def close(self) -> None:
        """Free the model; harmless the second time."""
        while self._free:
            name, handle = self._free.pop()
            getattr(_library(), name)(handle)

    def _open(self, inputs: Sequence[np.ndarray], threads: int, profiled: bool) -> None:
        model, options, compiled = _Handle(), _Handle(), _Handle()
        environment = _environment()
        size = ctypes.c_size_t(len(self._data))
        self._make("Model", model, "LiteRtCreateModelFromBuffer", environment, self._data, size)
        self._make("Options", options, "LiteRtCreateOptions")
        _call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
        _add_options(options, "xnnpack", f"num_threads = {threads}\n")
        if profiled:
            _add_options(options, "runtime_options_string", "enable_profiling = true\n")
        self._make("CompiledModel", compiled, "LiteRtCreateCompiledModel", environment, model, options)
        if profiled:
            _call("LiteRtCompiledModelGetProfiler", compiled, ctypes.byref(self._profiler))
        given = self._buffers("Input", model, compiled)
        self._results = self._buffers("Output", model, compiled)
        for (buffer, kind), array in zip(given, inputs, strict=True):
            assert tuple(kind.layout.sizes[: kind.layout.rank]) == array.shape, "an input of another shape than written"
            at = _Handle()
            _call("LiteRtLockTensorBuffer", buffer, ctypes.byref(at), _WRITE)
            ctypes.memmove(at, np.ascontiguousarray(array).ctypes.data, array.nbytes)
            _call("LiteRtUnlockTensorBuffer", buffer)
        call, first = _library().LiteRtRunCompiledModel, ctypes.c_size_t(0)
        arrays = [(_Handle * len(each))(*(buffer for buffer, _ in each)) for each in (given, self._results)]
        sides = [part for array in arrays for part in (ctypes.c_size_t(len(array)), array)]

        def run() -> None:
            status = call(compiled, first, *sides)
            if status:
                raise BackendError(f"LiteRT cannot run the model: its status is {status}; measure another")

        self._run: Callable[[], None] = run
        run()

    def _make(self, kind: str, handle: Any, function: str, *arguments: Any) -> None:
        _call(function, *arguments, ctypes.byref(handle))
        self._free.append((f"LiteRtDestroy{kind}", handle))

    def _buffers(self, side: str, model: Any, compiled: Any) -> list[tuple[Any, Any]]:
        """A buffer for each input or output of the model, with its type."""
        part, count, first = _Handle(), ctypes.c_size_t(), ctypes.c_size_t(0)
        _call("LiteRtGetModelSubgraph", model, first, ctypes.byref(part))
        _call(f"LiteRtGetNumSubgraph{side}s", part, ctypes.byref(count))
        found = []
        for i in range(count.value):
            tensor, kind, needs, buffer = _Handle(), _Type(), _Handle(), _Handle()
            place = ctypes.c_size_t(i)
            _call(f"LiteRtGetSubgraph{side}", part, place, ctypes.byref(tensor))
            _call("LiteRtGetRankedTensorType", tensor, ctypes.byref(kind))
            _call(f"LiteRtGetCompiledModel{side}BufferRequirements", compiled, first, place, ctypes.byref(needs))
            function = "LiteRtCreateManagedTensorBufferFromRequirements"
            self._make("TensorBuffer", buffer, function, _environment(), ctypes.byref(kind), needs)
            found.append((buffer, kind))
        return found


@cache
def _library() -> Any:
    spec = find_spec("ai_edge_litert")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError("ai-edge-litert", "litert", "measuring with the backend litert")
    return ctypes.CDLL(str(Path(next(iter(spec.submodule_search_locations)), "libLiteRt.so")))


@cache
def _environment() -> Any:
    """One for the process."""
    made = _Handle()
    _call("LiteRtCreateEnvironment", 0, None, ctypes.byref(made))
    return made


@cache
def _memory() -> Any:
    """The C library, whose ``free`` LiteRT calls for what it was handed."""
    library = ctypes.CDLL(None)
    library.strdup.restype, library.strdup.argtypes = _Handle, [ctypes.c_char_p]
    return library


def _add_options(options: Any, name: str, toml: str) -> None:
    made, memory = _Handle(), _memory()
    text = _Handle(memory.strdup(toml.encode()))
    freed = ctypes.cast(memory.free, _Handle)
    _call("LiteRtCreateOpaqueOptions", ctypes.c_char_p(name.encode()), text, freed, ctypes.byref(made))
    _call("LiteRtAddOpaqueOptions", options, made)


def _call(function: str, *arguments: Any) -> None:
    status = getattr(_library(), function)(*arguments)
    if status:
        raise BackendError(f"{function} ended with {status}")


def _refused(error: str, told: str, names: Sequence[str]) -> BackendError:
    failed, unknown = _FAILED.search(told), _UNKNOWN.search(told)
    ending = f" as {unknown[1]}" if unknown else "\n"  # no name ends so
    found = names[int(failed[1]) :] if failed else [name for name in names if name.endswith(ending)]
    lines = [line for line in told.splitlines() if line.startswith("ERROR")]
    return BackendError(f"LiteRT refuses {found[0] if found else 'the model'}: {' / '.join(lines[-3:]) or error}")
