"""OpenVINO on the CPU of this machine.

The compiled model lists the layers that it executes. Its performance counters add up whole microseconds of each run,
cut off below, and give for each layer their sum over the number of runs since compilation, cut off again (``PerfCount``
in the CPU plugin's ``perf_count.h``, openvino 2026.4): the first runs, ten times as slow as others, stay in it. A trace
therefore takes the counters after a few runs and after all of them; what is between is the mean of the runs that count,
and what is cut off on average is put back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from types import MappingProxyType
from typing import Any

import numpy as np

from nn_meter.backends.base import Model, timed
from nn_meter.backends.in_process import InProcess, Package, Threads
from nn_meter.backends.onnx_writer import as_bytes, random_inputs
from nn_meter.errors import BackendError
from nn_meter.runtimes.trace import ExecutedKernel, KernelTrace, Operand
from nn_meter.storage import Closing

_SLOW_RUNS = 3
"""Runs of a fresh model that a trace leaves out: they make the layers' code."""

_KEPT_MODELS, _KEPT_BYTES = 2048, 1 << 18
"""How many compiled models are kept at most, and how large a model may be for that."""

NOT_EXECUTED = frozenset({"Input", "Output"})
"""Layers of a compiled model that compute nothing."""


@dataclass(frozen=True, slots=True)
class OpenVinoConfig(Threads):
    """Settings of a compiled model: one stream of ``threads``, computing in ``precision``."""

    precision: str = "f32"


class OpenVinoCpu(InProcess):
    """``Backend`` that runs models in this process, on OpenVINO's CPU plugin."""

    name = "openvino_cpu"
    runtime = "openvino"
    package = Package("openvino", "openvino", "openvino")
    config_type = OpenVinoConfig
    choices = MappingProxyType({"precision": ("precision", ("f32", "bf16", "f16"))})

    def prepare(self, model: Model) -> OpenVinoPrepared:
        """``model`` compiled, with random inputs.

        A small model that was prepared before is imported as it was compiled then, which makes its layers' code and
        buffers anew in a quarter of the time.

        Raises:
            BackendError: OpenVINO refuses the model, or an input has a free dimension.
            MissingDependencyError: openvino is not installed.
        """
        data = as_bytes(model)
        return OpenVinoPrepared(data, self.config, _compiled_again(data, self.config), random_inputs(data))

    def fused(self, model: Model) -> list[ExecutedKernel]:
        """The layers that OpenVINO executes, in their order; those that only rename a buffer included.

        Raises:
            BackendError: OpenVINO refuses the model.
        """
        return _layers(_compile(as_bytes(model), self.config))


class OpenVinoPrepared(Closing):
    """``Prepared`` around one inference request; tracing compiles the model a second time."""

    def __init__(
        self, data: bytes, config: OpenVinoConfig, compiled: Any, inputs: Mapping[str, np.ndarray]
    ) -> None:
        self._data = data
        self._config = config
        self._inputs = inputs
        self._request = _request(compiled, inputs)

    def run(self, repeats: int) -> list[float]:
        """Milliseconds of each of ``repeats`` runs."""
        return timed(self._request.infer, repeats)

    def trace(self, repeats: int) -> list[KernelTrace]:
        """What the performance counters say of each layer, 0 for one that is not run: the mean over ``repeats`` runs,
        in each run scaled down where all layers together took longer on average than that run did."""
        compiled = _compile(self._data, self._config, PERF_COUNT=True)
        request = _request(compiled, self._inputs)
        for _ in range(_SLOW_RUNS):
            request.infer()
        before_ms = _counters_ms(request)
        runs_ms = timed(request.infer, repeats)
        after_ms = _counters_ms(request)
        layers = _layers(compiled)
        means_ms = [
            between_ms(before_ms.get(layer.name, 0.0), after_ms.get(layer.name, 0.0), repeats) for layer in layers
        ]
        all_ms = max(sum(means_ms), 1e-6)
        shares = [min(1.0, run_ms / all_ms) for run_ms in runs_ms]
        return [
            KernelTrace(layer, tuple(mean_ms * share for share in shares))
            for layer, mean_ms in zip(layers, means_ms, strict=True)
        ]

    def close(self) -> None:
        """Free the request."""
        self._request = None


_kept: OrderedDict[tuple[bytes, OpenVinoConfig], bytes] = OrderedDict()
"""Small models as they were compiled, the one used last at the end: detection prepares the same ones over and over."""


def _compiled_again(data: bytes, config: OpenVinoConfig) -> Any:
    key = (data, config)
    if key in _kept:
        _kept.move_to_end(key)
        return OpenVinoCpu.imported().Core().import_model(_kept[key], "CPU", _settings(config))
    compiled = _compile(data, config)
    if len(data) <= _KEPT_BYTES:
        exported = BytesIO()
        compiled.export_model(exported)
        _kept[key] = exported.getvalue()
        if len(_kept) > _KEPT_MODELS:
            _kept.popitem(last=False)
    return compiled


def _settings(config: OpenVinoConfig) -> dict[str, object]:
    return {
        "INFERENCE_NUM_THREADS": config.threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": config.precision,
    }


def _compile(data: bytes, config: OpenVinoConfig, **more: object) -> Any:
    runtime = OpenVinoCpu.imported()
    settings = {**_settings(config), **more}
    try:
        core = runtime.Core()
        return core.compile_model(core.read_model(data), "CPU", settings)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise BackendError(f"openvino refuses the model: {reason}") from error


def _request(compiled: Any, inputs: Mapping[str, np.ndarray]) -> Any:
    """An inference request that holds its inputs already."""
    runtime = OpenVinoCpu.imported()
    request = compiled.create_infer_request()
    for port in compiled.inputs:
        name = next(name for name in inputs if name in port.get_names())
        request.set_tensor(port, runtime.Tensor(np.ascontiguousarray(inputs[name])))
    return request


def between_ms(before_ms: float, after_ms: float, repeats: int) -> float:
    """A layer's mean in milliseconds over ``repeats`` runs behind ``_SLOW_RUNS`` others, from its counter before and
    behind them; 0 for one that is not run, or in less than a microsecond.

    Each run loses half a microsecond on average, and a sum that is divided by its ``n`` runs (n - 1) / 2 of them, which
    is half a microsecond of the mean, too.
    """
    if not after_ms:
        return 0.0
    sum_ms = (_SLOW_RUNS + repeats) * after_ms - _SLOW_RUNS * before_ms
    return max(sum_ms / repeats + 0.001, 0.0)


def _counters_ms(request: Any) -> dict[str, float]:
    """Layer to its mean latency over all runs so far."""
    return {each.node_name: each.real_time.total_seconds() * 1000 for each in request.profiling_info}


def _layers(compiled: Any) -> list[ExecutedKernel]:
    """What is executed with each inference; layers that only reshape weights are not."""
    layers = []
    constants: set[str] = set()
    for op in compiled.get_runtime_model().get_ordered_ops():
        facts = {key: _text(value) for key, value in op.get_rt_info().items()}
        name, kind = op.get_friendly_name(), facts["layerType"]
        sources = [port.get_source_output() for port in op.inputs()]
        givers = [source.get_node().get_friendly_name() for source in sources]
        if kind == "Const" or (givers and constants.issuperset(givers)):
            constants.add(name)
            continue
        if kind in NOT_EXECUTED:
            continue
        operands = tuple(map(_operand, sources))
        # openvino numbers its constants anew in each compilation
        names = tuple(
            ""
            if operand is None
            else f"{name}:constant{index}"
            if giver in constants
            else f"{giver}:{source.get_index()}"
            for index, (giver, source, operand) in enumerate(zip(givers, sources, operands, strict=True))
        )
        layers.append(
            ExecutedKernel(
                name=name,
                op_type=kind,
                domain="openvino",
                inputs=operands,
                outputs=tuple(map(_operand, op.outputs())),
                input_names=names,
                output_names=tuple(f"{name}:{port.get_index()}" for port in op.outputs()),
                attrs=MappingProxyType(
                    {key: facts.get(key, "") for key in ("originalLayersNames", "primitiveType", "outputLayouts")}
                ),
                constant_inputs=frozenset(
                    each for each, giver in zip(names, givers, strict=True) if each and giver in constants
                ),
                nodes=_nodes(facts.get("originalLayersNames", "")),
            )
        )
    return layers


def _nodes(names: str) -> tuple[str, ...]:
    """The model's nodes among the names of a layer. A convolution's weights and its bias are two names to openvino."""
    return tuple(dict.fromkeys(name.removesuffix("/WithoutBiases") for name in names.split(",") if name))


def _operand(port: Any) -> Operand | None:
    """``None`` for an optional operand left out, which has no element type."""
    kind = port.get_element_type()
    return Operand(tuple(port.get_shape()), kind.to_dtype().name) if kind.is_static() else None


def _text(value: Any) -> str:
    return str(value.astype(str) if hasattr(value, "astype") else value)
