"""ncnn on the CPU of this machine.

A graph is written as a text of layers and their weights, by rows of our own that fuse as ncnn's converter pnnx does;
what is in the text is what runs. ncnn computes a net up to what is extracted of it, so that extracting one layer after
the other tells the time of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter_ns
from types import MappingProxyType
from typing import Any

import numpy as np

from nn_meter.backends.base import Model, timed
from nn_meter.backends.constants import constants
from nn_meter.backends.in_process import InProcess, Package, Threads, both_forms
from nn_meter.backends.ncnn import layers, movement, numbers
from nn_meter.backends.ncnn.model import File, Net, without_batch
from nn_meter.backends.ncnn.site import Row, Site
from nn_meter.backends.onnx_writer import random_inputs
from nn_meter.backends.site import write
from nn_meter.errors import BackendError
from nn_meter.ir.graph import Graph
from nn_meter.kernels.rewriting import Work
from nn_meter.runtimes import ncnn as runtime
from nn_meter.runtimes.trace import KernelTrace
from nn_meter.storage import Closing

ROWS: Mapping[str, Row] = MappingProxyType({**numbers.ROWS, **layers.ROWS, **movement.ROWS})
"""Operator to what writes it."""

_LEFT_OUT = ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed", "bf16_storage", "vulkan_compute")
"""Options that would compute in fewer bits, or elsewhere: ncnn's own defaults have the first three on."""
_UNPACKED = 1
"""Type of an extraction that leaves a blob as the layer gave it, packed by 4, 8 or 16."""


class Ncnn(InProcess):
    """``Backend`` that runs models in this process, on ncnn's CPU layers, in float32."""

    name = runtime = "ncnn"
    package = Package("ncnn", "ncnn", "ncnn")

    def refuses(self, graph: Graph) -> str:
        """Why there is no net of ``graph``, whatever its weights; empty where there may be one."""
        work = runtime.lowered(graph)
        known = [tensor for tensor in work.tensors.values() if tensor.const]
        arrays = {
            each.name: np.broadcast_to(np.float32(0), each.shape) if each.value is None
            else np.reshape(each.value, each.shape)
            for each in known
        }  # fmt: skip
        try:
            for name in graph.inputs:
                _kind(name, graph)
            _written(graph, work, arrays)
        except BackendError as error:
            return str(error)
        return ""

    def prepare(self, model: Model) -> NcnnPrepared:
        """``model`` as a net, with random inputs.

        Raises:
            BackendError: an operator that ncnn has no layer for, or a net that it refuses; names it.
            MissingDependencyError: ncnn is not installed.
        """
        self.imported()
        return NcnnPrepared(*both_forms(model), self.config)


class NcnnPrepared(Closing):
    """``Prepared`` around a net and what goes into it."""

    def __init__(self, graph: Graph, data: bytes, config: Threads) -> None:
        module = Ncnn.imported()
        self.net = written(graph, data)
        self._name = graph.name
        self._shapes = [graph.tensors[name].shape for name in graph.outputs]
        arrays = random_inputs(data)
        given = [_given(arrays[name], name, graph) for name in graph.inputs]  # which a Mat does not keep alive
        self._inputs = [module.Mat(array).clone() for array in given]
        self._loaded = net = module.Net()
        self._pools = (module.PoolAllocator(), module.PoolAllocator())  # behind the net: they have to outlive it
        net.opt.num_threads = config.threads
        net.opt.blob_allocator, net.opt.workspace_allocator = self._pools
        for option in _LEFT_OUT:
            setattr(net.opt, f"use_{option}", False)
        with TemporaryDirectory() as folder:
            weights = Path(folder) / "net.bin"
            weights.write_bytes(self.net.weights)
            if net.load_param_mem(self.net.text) != 0 or net.load_model(str(weights)) != 0:
                raise BackendError(f"{graph.name}: ncnn refuses the net of it, and says no more")
        self._places = {blob.name: i for i, blob in enumerate(net.blobs())}
        self._checked()

    def run(self, repeats: int) -> list[float]:
        """Milliseconds of each of ``repeats`` runs."""
        return timed(self._go, repeats)

    def trace(self, repeats: int) -> list[KernelTrace]:
        """The time of each layer in each of ``repeats`` runs, less what it takes to extract what is there already."""
        taken_ms: list[list[float]] = [[] for _ in self.net.steps]
        places = [self._places[step.top] for step in self.net.steps]
        for _ in range(repeats):
            extractor = self._begun()
            for place, taken in zip(places, taken_ms, strict=True):
                start_ns = perf_counter_ns()
                extractor.extract(place, _UNPACKED)
                done_ns = perf_counter_ns()
                extractor.extract(place, _UNPACKED)
                idle_ns = perf_counter_ns() - done_ns
                taken.append(max(done_ns - start_ns - idle_ns, 0) / 1e6)
            extractor.clear()
        return [KernelTrace(step.executed, tuple(ms)) for step, ms in zip(self.net.steps, taken_ms, strict=True)]

    def outputs(self) -> list[np.ndarray]:
        """What a run gives, in the shapes of the graph."""
        return [np.array(mat).reshape(shape) for mat, shape in zip(self._go(), self._shapes, strict=True)]

    def close(self) -> None:
        """Free the net, then what its blobs lie in: the other way round ncnn crashes."""
        if self._inputs:
            self._inputs = []
            self._loaded.clear()
            self._loaded = None
            for pool in self._pools:
                pool.clear()

    def _begun(self) -> Any:
        extractor = self._loaded.create_extractor()
        for name, mat in zip(self.net.inputs, self._inputs, strict=True):
            extractor.input(name, mat)
        return extractor

    def _go(self) -> list[Any]:
        extractor = self._begun()
        return [extractor.extract(name)[1] for name in self.net.outputs]

    def _checked(self) -> None:
        """Run once, each layer by itself.

        Raises:
            BackendError: ncnn refuses one of them; names it.
        """
        extractor = self._begun()
        for step in self.net.steps:
            if extractor.extract(self._places[step.top], _UNPACKED)[0] != 0:
                told = f"{step.executed.op_type} of {step.executed.nodes[0]}"
                raise BackendError(f"{self._name}: ncnn refuses the layer {told}")
        extractor.clear()


def written(graph: Graph, data: bytes) -> Net:
    """``graph``, whose constants are those of the ONNX model ``data``, as a net.

    Raises:
        BackendError: an operator that ncnn has no layer for; names it.
    """
    work = runtime.lowered(graph)
    return _written(graph, work, constants(data, work))


def _written(graph: Graph, work: Work, arrays: Mapping[str, np.ndarray]) -> Net:
    file = File(work.tensors, arrays)
    for name in graph.inputs:
        file.given(name)
    write(graph, work, file, ROWS, Site, "ncnn", "layer")
    return file.finished([name for name in work.outputs_in_order() if name])


def _given(array: np.ndarray, name: str, graph: Graph) -> np.ndarray:
    """An input as ncnn takes it: floats, or the numbers of rows as int32."""
    return np.ascontiguousarray(array.reshape(without_batch(array.shape)).astype(_kind(name, graph)))


def _kind(name: str, graph: Graph) -> type[np.generic]:
    """Element type of an input there.

    Raises:
        BackendError: ncnn has no inputs of this one.
    """
    dtype = graph.tensors[name].dtype
    readers = [node for node in graph.nodes if name in node.inputs]
    rows = dtype.startswith("int") and all(each.op_type == "Gather" and each.inputs[1] == name for each in readers)
    if dtype != "float32" and not rows:
        raise BackendError(f"{graph.name}: ncnn has no inputs of {dtype}: {name}; export the model in float32")
    return np.int32 if rows else np.float32
