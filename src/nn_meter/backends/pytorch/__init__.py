"""PyTorch on the CPU of this machine, operator by operator.

A graph becomes a flat list of calls, as a module makes them (``torch.conv2d``, ``torch.layer_norm``). Shapes are those
of the graph, so that nothing is computed for them. Operators that models spell as several are the one call that they
were exported from (``runtimes.pytorch.EAGER``). torch's profiler makes small networks 1.35 times as slow, so that a
trace times each call instead (torch 2.13). Denormal numbers are flushed: weights are random, and torch leaves nothing
of what a softmax masks, so that trained networks have none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from time import perf_counter_ns
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from nn_meter.backends.base import Model
from nn_meter.backends.denormals import FLUSH, treated
from nn_meter.backends.in_process import InProcess, Package, Threads, both_forms
from nn_meter.backends.onnx_writer import random_inputs
from nn_meter.backends.pytorch import layers, movement, numbers
from nn_meter.backends.pytorch.site import Row, Site
from nn_meter.errors import BackendError
from nn_meter.ir.graph import Graph, Tensor
from nn_meter.runtimes import pytorch
from nn_meter.runtimes.trace import ExecutedKernel, KernelTrace, Operand
from nn_meter.storage import Closing

ROWS: Mapping[str, Row] = MappingProxyType({**numbers.ROWS, **layers.ROWS, **movement.ROWS})
"""Operator to what makes a call of it."""


class PyTorchEager(InProcess):
    """``Backend`` that runs models in this process, on PyTorch's CPU kernels; the ``threads`` are the process's, for
    every model in it."""

    name = runtime = "pytorch_eager"
    package = Package("torch", "torch", "torch")

    def prepare(self, model: Model) -> PyTorchPrepared:
        """``model`` as calls, with random inputs.

        Raises:
            BackendError: an operator that there is no call for, or that PyTorch refuses; names it.
            MissingDependencyError: torch is not installed.
        """
        self.imported()
        return PyTorchPrepared(*both_forms(model), self.config)


@dataclass(frozen=True, slots=True)
class Call:
    """A call; ``reads`` and ``writes`` are places among the values, ``None`` of a tensor that is left out; ``drops``
    those of values that nothing reads any more."""

    executed: ExecutedKernel
    function: Callable[..., Any]
    reads: tuple[int | None, ...]
    writes: tuple[int | None, ...]
    drops: tuple[int, ...] = ()


class PyTorchPrepared(Closing):
    """``Prepared`` around a list of ``calls`` and the ``values`` that they pass on, each at its name's ``place``."""

    def __init__(self, graph: Graph, data: bytes, config: Threads) -> None:
        self._torch = torch = PyTorchEager.imported()
        self._threads = config.threads
        arrays = _arrays(data)
        self.place = {name: place for place, name in enumerate(graph.tensors)}
        self.values = [
            self._given(arrays[name], name, graph) if name in arrays else None for name in graph.tensors
        ]
        calls: list[Call] = []
        torch.set_num_threads(self._threads)
        with treated(FLUSH), torch.inference_mode():
            for operator in pytorch.calls(graph):
                call = self._made(operator, graph)
                self._try(call, graph)
                if not operator.known:
                    calls.append(call)
        kept = {*graph.inputs, *graph.outputs, *(name for name, each in graph.tensors.items() if each.const)}
        self.calls = _dropping(calls, {self.place[name] for name in kept})

    def run(self, repeats: int) -> list[float]:
        """Milliseconds of each of ``repeats`` runs."""
        go, calls = self._go, self.calls
        self._torch.set_num_threads(self._threads)
        latencies_ms = []
        with treated(FLUSH), self._torch.inference_mode():
            for _ in range(repeats):
                start_ns = perf_counter_ns()
                for call in calls:
                    go(call)
                latencies_ms.append((perf_counter_ns() - start_ns) / 1e6)
        return latencies_ms

    def trace(self, repeats: int) -> list[KernelTrace]:
        """The time of each call in each of ``repeats`` runs."""
        self._torch.set_num_threads(self._threads)
        taken_ms: list[list[float]] = [[] for _ in self.calls]
        with treated(FLUSH), self._torch.inference_mode():
            for _ in range(repeats):
                for call, taken in zip(self.calls, taken_ms, strict=True):
                    start_ns = perf_counter_ns()
                    self._go(call)
                    taken.append((perf_counter_ns() - start_ns) / 1e6)
        return [KernelTrace(call.executed, tuple(ms)) for call, ms in zip(self.calls, taken_ms, strict=True)]

    def close(self) -> None:
        """Free the values."""
        self.values, self.calls = [], []

    def _go(self, call: Call) -> None:
        values = self.values
        given = call.function(*[None if place is None else values[place] for place in call.reads])
        if not isinstance(given, tuple | list):
            given = (given,)
        for place, value in zip(call.writes, given, strict=False):
            if place is not None:
                values[place] = value
        for place in call.drops:
            values[place] = None

    def _given(self, array: np.ndarray, name: str, graph: Graph) -> Any:
        """A constant or an input as torch's tensor."""
        try:
            return self._torch.from_numpy(np.array(array))
        except TypeError as error:
            raise BackendError(
                f"{graph.name}: PyTorch makes no tensor of {name}, whose elements are {array.dtype}; export the model "
                "in float32"
            ) from error

    def _made(self, operator: pytorch.Called, graph: Graph) -> Call:
        """The call of an operator."""
        tensors = [graph.tensors[name] if name else None for name in operator.inputs]
        written = [name for name in operator.outputs if name]
        places = tuple(self.place[name] if name else None for name in operator.inputs)
        constants = tuple(
            self.values[place] if place is not None and tensor is not None and tensor.const else None
            for place, tensor in zip(places, tensors, strict=True)
        )
        outputs = tuple(graph.tensors[name] for name in written)
        executed = ExecutedKernel(
            name=operator.members[-1],
            op_type=operator.op_type,
            domain="pytorch",
            inputs=tuple(None if each is None else Operand(each.shape, each.dtype) for each in tensors),
            outputs=tuple(Operand(tensor.shape, tensor.dtype) for tensor in outputs),
            input_names=operator.inputs,
            output_names=tuple(written),
            constant_inputs=frozenset(tensor.name for tensor in tensors if tensor and tensor.const),
            nodes=operator.members,
        )
        writes = tuple(self.place[name] if name else None for name in operator.outputs)
        if operator.known and all(tensor.value is not None for tensor in outputs):
            known = [self._tensor(tensor) for tensor in outputs]
            return Call(executed, lambda *_: known, places, writes)
        row = ROWS.get(operator.op_type)
        if row is None:
            raise BackendError(f"{graph.name}: PyTorch has no one call for the operator {operator.op_type}")
        try:
            function = row(Site(self._torch, operator.attrs, tuple(tensors), outputs, constants))
        except (NotImplementedError, AttributeError, LookupError) as error:
            raise BackendError(f"{graph.name}: PyTorch has no one call for {operator.op_type}, {error}") from error
        return Call(executed, function, places, writes)

    def _try(self, call: Call, graph: Graph) -> None:
        """Make the call once; what it gives has to be of the shapes that it is to be of."""
        name, op_type = call.executed.name, call.executed.op_type
        try:
            self._go(call)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            reason = str(error).strip().splitlines()[0]
            raise BackendError(f"{graph.name}: PyTorch refuses {name} ({op_type}): {reason}") from error
        written: list[Any] = [self.values[place] for place in call.writes if place is not None]
        for value, operand in zip(written, call.executed.outputs, strict=True):
            shape = None if value is None else tuple(value.shape)
            if operand is None or shape != operand.shape:
                raise BackendError(f"{graph.name}: PyTorch makes {shape} of {name} ({op_type}), not {operand}")

    def _tensor(self, known: Tensor) -> Any:
        return self._torch.from_numpy(np.array(known.value, known.dtype).reshape(known.shape))


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    """Constants and random inputs of a model by name."""
    graph = onnx.load_model_from_string(data).graph
    found = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value":
                found[node.output[0]] = numpy_helper.to_array(attribute.t)
    return found | random_inputs(data)


def _dropping(calls: Sequence[Call], kept: Set[int]) -> list[Call]:
    """The calls, each dropping what no later one reads; ``kept`` stay."""
    last = {place: number for number, call in enumerate(calls) for place in call.reads if place is not None}
    drops: list[list[int]] = [[] for _ in calls]
    for place, number in last.items():
        if place not in kept:
            drops[number].append(place)
    return [replace(call, drops=tuple(each)) for call, each in zip(calls, drops, strict=True)]
