"""ONNX Runtime on the CPU of this machine.

What its profiler tells (onnxruntime 1.32, one thread of an AMD EPYC): a kernel's time is a whole number of
microseconds, cut off below, and includes the profiler's own work, which seems to be done before it stops the
clock. A kernel that takes 0.25 us in an untraced run is traced at 2.0 us as the minimum of
100 runs and at 2.4 to 2.8 us as their mean: the profiler adds about 1.8 us to each minimum, whatever the
operator, its rank or its number of inputs (1.75 to 1.86 us). An untraced
run costs another 5 to 7 us outside all kernels.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, helper, numpy_helper

from nn_meter.backends.base import Model, timed
from nn_meter.backends.in_process import InProcess, Package, Threads
from nn_meter.backends.onnx_writer import as_bytes, random_inputs
from nn_meter.errors import BackendError
from nn_meter.ir.graph import Attr
from nn_meter.ir.shapes import dtype_of
from nn_meter.runtimes.onnxruntime.masks import MASKED, masked
from nn_meter.runtimes.trace import ExecutedKernel, KernelTrace, Operand
from nn_meter.storage import Closing

EXECUTION_MODES = ("sequential", "parallel")
OPTIMISATIONS = ("none", "basic", "extended", "all")

_MAX_TRACE_EVENTS = 500_000
"""Kernel events that one trace may take; onnxruntime keeps a million events and drops what follows."""

_KERNEL_EVENT = "_kernel_time"

_KEPT_VALUES = 16
"""Constants of up to so many elements say how an operator works: exponents, axes, sizes."""

_TRACE_DTYPES = MappingProxyType({"float": "float32", "double": "float64", "string": "str"})
"""Element types whose name in the trace is not numpy's."""


@dataclass(frozen=True, slots=True)
class OnnxRuntimeConfig(Threads):
    """Settings of an onnxruntime session.

    ``threads`` work inside one operator; ``execution_mode`` is ``"sequential"`` or ``"parallel"`` (branches
    side by side); ``optimisation`` is one of ``OPTIMISATIONS``; ``spinning`` lets idle threads wait busily,
    which only matters with more than one of them."""

    execution_mode: str = "sequential"
    optimisation: str = "all"
    spinning: bool = False


class OnnxRuntimeCpu(InProcess):
    """``Backend`` that runs models in this process, on onnxruntime's CPU provider."""

    name = "onnxruntime_cpu"
    runtime = "onnxruntime"
    opens_free = True
    package = Package("onnxruntime", "onnxruntime", "build")
    config_type = OnnxRuntimeConfig
    choices = MappingProxyType(
        {"execution_mode": ("execution mode", EXECUTION_MODES), "optimisation": ("optimisation level", OPTIMISATIONS)}
    )

    def prepare(self, model: Model) -> OnnxRuntimePrepared:
        """``model`` in a session of its own, with random inputs.

        Raises:
            BackendError: onnxruntime refuses the model, or an input has a free dimension.
            MissingDependencyError: onnxruntime is not installed.
        """
        data = as_bytes(model)
        return OnnxRuntimePrepared(data, self.config, random_inputs(data))

    def fused(self, model: Model) -> list[ExecutedKernel]:
        """The nodes of onnxruntime's optimised graph, with the shapes of one traced run.

        Nodes of the domain ``com.microsoft.nchwc`` read and write blocked layouts; their shapes are logical.

        Raises:
            BackendError: onnxruntime refuses the model.
        """
        data = as_bytes(model)
        traces = _thread().submit(_trace, data, self.config, random_inputs(data), 1).result()
        return [trace.executed for trace in traces]


class OnnxRuntimePrepared(Closing):
    """``Prepared`` around one session; tracing opens a second one, since profiling slows every run.

    Sessions are made and run in ``_thread``.
    """

    def __init__(self, data: bytes, config: OnnxRuntimeConfig, inputs: Mapping[str, np.ndarray]) -> None:
        self._data = data
        self._config = config
        self._inputs = inputs
        self._session: Any = _thread().submit(_session, data, _options(config)).result()

    def run(self, repeats: int) -> list[float]:
        """Milliseconds of each of ``repeats`` runs, outputs fetched."""
        return _thread().submit(timed, self._session.run, repeats, None, self._inputs).result()

    def trace(self, repeats: int) -> list[KernelTrace]:
        """The profiler's time of each kernel in each of ``repeats`` runs, whole microseconds, cut off below.

        Raises:
            BackendError: more events than onnxruntime's profiler keeps.
        """
        return _thread().submit(_trace, self._data, self._config, self._inputs, repeats).result()

    def close(self) -> None:
        """Free the session."""
        self._session = None


@cache
def _thread() -> ThreadPoolExecutor:
    """The one thread of this process that makes and runs sessions.

    Treating denormal numbers as zero is a state of the processor. onnxruntime sets it where the first session of a
    process is made, in the thread that makes it, and nowhere else (``InferenceSession::ConstructorCommon`` does so
    once): a product with the few denormal numbers of a sharp softmax took 60 ms in another thread, 0.1 ms in that one.
    Nothing takes it back, so that it is not the caller's thread.
    """
    return ThreadPoolExecutor(1, "onnxruntime")


def _options(config: OnnxRuntimeConfig) -> Any:
    runtime = OnnxRuntimeCpu.imported()
    levels = runtime.GraphOptimizationLevel
    modes = runtime.ExecutionMode
    options = runtime.SessionOptions()
    options.intra_op_num_threads = config.threads
    options.inter_op_num_threads = 1 if config.execution_mode == "sequential" else config.threads
    options.execution_mode = {"sequential": modes.ORT_SEQUENTIAL, "parallel": modes.ORT_PARALLEL}[
        config.execution_mode
    ]
    options.graph_optimization_level = {
        "none": levels.ORT_DISABLE_ALL,
        "basic": levels.ORT_ENABLE_BASIC,
        "extended": levels.ORT_ENABLE_EXTENDED,
        "all": levels.ORT_ENABLE_ALL,
    }[config.optimisation]
    options.log_severity_level = 3
    for scope in ("intra_op", "inter_op"):
        options.add_session_config_entry(f"session.{scope}.allow_spinning", "1" if config.spinning else "0")
    # Random weights may fade out over hundreds of layers; denormal numbers would then slow the kernels.
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return options


def _session(data: bytes, options: Any) -> Any:
    try:
        return OnnxRuntimeCpu.imported().InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise BackendError(f"onnxruntime refuses the model: {reason}") from error


def _trace(
    data: bytes,
    config: OnnxRuntimeConfig,
    inputs: Mapping[str, np.ndarray],
    repeats: int,
) -> list[KernelTrace]:
    """One profiled session, which also saves the graph that it executes: names, attributes and weights come
    from the graph, shapes of activations and times from the trace."""
    with tempfile.TemporaryDirectory(prefix="nn-meter-") as folder:
        optimised = Path(folder, "optimised.onnx")
        options = _options(config)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "trace"))
        options.optimized_model_filepath = str(optimised)
        for key, value in (("file_name", "weights.bin"), ("min_size_in_bytes", "1024")):
            options.add_session_config_entry(f"session.optimized_model_external_initializers_{key}", value)
        session = _session(data, options)
        model = onnx.load(optimised, load_external_data=False)
        graph = model.graph
        most = _MAX_TRACE_EVENTS // max(1, len(graph.node))
        if repeats > most:
            raise BackendError(
                f"{graph.name}: {repeats} traced runs of {len(graph.node)} kernels are more than "
                f"onnxruntime's profiler keeps; trace at most {most} runs at once"
            )
        for _ in range(repeats):
            session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text())
    by_key = _events_by_key(events, {node.name for node in graph.node})
    opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    return _kernels(graph, opset, inputs, by_key, repeats)


_Key = tuple[str, str]
"""Name and operator of a node; the name is empty where onnxruntime gave a node of its own making none."""


def _events_by_key(events: list[dict[str, Any]], names: Set[str]) -> dict[_Key, list[dict[str, Any]]]:
    found: dict[_Key, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL_EVENT):
            name, op_type = event["name"].removesuffix(_KERNEL_EVENT), event["args"]["op_name"]
            invented = name not in names and name == f"{op_type}_{event['args']['node_index']}"
            found["" if invented else name, op_type].append(event)
    return found


def _kernels(
    graph: onnx.GraphProto,
    opset: int,
    inputs: Mapping[str, np.ndarray],
    events: Mapping[_Key, list[dict[str, Any]]],
    repeats: int,
) -> list[KernelTrace]:
    """Join graph and trace. Nodes of one name take turns in the trace, the k-th of n has each n-th. Those of ONNX's own
    domain say of which ``opset`` they are: some are other code since; softmaxes whether their scores are masked."""
    operands = {name: Operand(array.shape, array.dtype.name) for name, array in inputs.items()}
    weights = {item.name: Operand(tuple(item.dims), dtype_of(item.data_type)) for item in graph.initializer}
    operands.update(weights)
    values = {item.name: _values(item) for item in graph.initializer if math.prod(item.dims) <= _KEPT_VALUES}
    namesakes: dict[_Key, list[int]] = defaultdict(list)
    for index, node in enumerate(graph.node):
        namesakes[node.name, node.op_type].append(index)
    known = _InModel({name: node for node in graph.node for name in node.output}, values, weights)
    traces = []
    for index, node in enumerate(graph.node):
        key = (node.name, node.op_type)
        peers = namesakes[key]
        own = events.get(key, [])[peers.index(index) :: len(peers)]
        if len(own) != repeats:
            raise BackendError(
                f"{graph.name}: onnxruntime's trace holds {len(own)} of {repeats} runs of the kernel "
                f"{node.name!r} ({node.op_type}); give the model's nodes unique names"
            )
        written = [name for name in node.output if name]
        for name, entry in zip(written, own[0]["args"]["output_type_shape"], strict=False):
            operands[name] = _operand(entry)
        domain = "" if node.domain == "ai.onnx" else node.domain
        asked: dict[str, Attr] = {"opset": opset} if not domain else {}
        scores = operands.get(node.input[0]) if node.op_type == "Softmax" else None
        if scores is not None and masked(node.input[0], scores.shape, known):
            asked[MASKED] = 1
        executed = ExecutedKernel(
            name=node.name,
            op_type=node.op_type,
            domain=domain,
            inputs=tuple(operands.get(name) for name in node.input),
            outputs=tuple(operands.get(name) for name in node.output),
            input_names=tuple(node.input),
            output_names=tuple(node.output),
            attrs=MappingProxyType(asked | _attrs(node)),
            constant_inputs=frozenset(name for name in node.input if name in weights),
            constant_values={name: values[name] for name in node.input if values.get(name)},
        )
        traces.append(KernelTrace(executed, tuple(event["dur"] / 1000 for event in own)))
    return traces


@dataclass(frozen=True)
class _InModel:
    """What masks follow from, in an optimised graph."""

    makers: Mapping[str, onnx.NodeProto]
    values: Mapping[str, tuple[float, ...]]
    constants: Mapping[str, Operand]

    def made(self, name: str) -> tuple[str, tuple[str, ...]] | None:
        node = self.makers.get(name)
        return (node.op_type, tuple(node.input)) if node is not None else None

    def differs(self, name: str) -> bool | None:
        if name not in self.constants:
            return None
        found = self.values.get(name)
        return not found or len(set(found)) > 1

    def ends(self, name: str) -> tuple[float, float] | None:
        values = self.values.get(name)
        return (min(values), max(values)) if values else None

    def shape(self, name: str) -> tuple[int, ...]:
        return self.constants[name].shape


def _values(item: onnx.TensorProto) -> tuple[float, ...]:
    """The values of a setting: one number, or a few whole ones or flags; none of weights, or of what lies elsewhere."""
    if item.data_location == onnx.TensorProto.EXTERNAL or item.data_type == onnx.TensorProto.STRING:
        return ()
    array = numpy_helper.to_array(item).ravel()
    return tuple(array.tolist()) if array.size == 1 or array.dtype.kind in "iub" else ()


def _operand(entry: Mapping[str, list[int]]) -> Operand:
    kind, shape = next(iter(entry.items()))
    return Operand(tuple(shape), _TRACE_DTYPES.get(kind, kind))


_SIMPLE_ATTRIBUTES = frozenset(
    (
        AttributeProto.FLOAT,
        AttributeProto.INT,
        AttributeProto.STRING,
        AttributeProto.FLOATS,
        AttributeProto.INTS,
        AttributeProto.STRINGS,
    )
)


def _attrs(node: onnx.NodeProto) -> dict[str, Attr]:
    return {
        attribute.name: _plain(helper.get_attribute_value(attribute))
        for attribute in node.attribute
        if attribute.type in _SIMPLE_ATTRIBUTES
    }


def _plain(value: Any) -> Attr:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, int | float):
        return value
    return tuple(_plain(item) for item in value)  # type: ignore[return-value]
