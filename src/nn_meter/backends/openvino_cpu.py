"""OpenVINO on the CPU of this machine.

The compiled model lists the layers that it executes. Its performance counters give each layer's time in whole
microseconds; counting costs time of its own, so that plain runs use a model compiled without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from time import perf_counter_ns
from types import MappingProxyType, TracebackType
from typing import Any, ClassVar, Self

import numpy as np

from nn_meter.backends.base import ExecutedKernel, KernelTrace, Model, Operand
from nn_meter.backends.onnx_writer import as_bytes, random_inputs
from nn_meter.errors import BackendError, MissingDependencyError

PRECISIONS = ("f32", "bf16", "f16")

NOT_EXECUTED = frozenset({"Input", "Output"})
"""Layers of a compiled model that compute nothing."""


@dataclass(frozen=True, slots=True)
class OpenVinoConfig:
    """Settings of a compiled model: one stream of ``threads``, computing in ``precision``.

    Raises:
        BackendError: a value that OpenVINO does not have.
    """

    threads: int = 1
    precision: str = "f32"

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise BackendError(f"openvino_cpu: threads is {self.threads}; use 1 or more")
        if self.precision not in PRECISIONS:
            raise BackendError(
                f"openvino_cpu: no precision {self.precision!r}; use one of {', '.join(PRECISIONS)}"
            )


class OpenVinoCpu:
    """``Backend`` that runs models in this process, on OpenVINO's CPU plugin."""

    name: ClassVar[str] = "openvino_cpu"
    config_type: ClassVar[type[OpenVinoConfig]] = OpenVinoConfig

    def __init__(self, config: OpenVinoConfig = OpenVinoConfig()) -> None:
        self.config = config

    def check(self) -> Mapping[str, str | int | float]:
        """Runtime, version, device and settings.

        Raises:
            MissingDependencyError: openvino is not installed.
        """
        runtime = _openvino()
        return {
            "runtime": "openvino",
            "runtime_version": str(runtime.__version__),
            "device": "cpu",
            **asdict(self.config),
        }

    def prepare(self, model: Model) -> OpenVinoPrepared:
        """``model`` compiled, with random inputs.

        Raises:
            BackendError: OpenVINO refuses the model, or an input has a free dimension.
            MissingDependencyError: openvino is not installed.
        """
        data = as_bytes(model)
        return OpenVinoPrepared(data, self.config, _compile(data, self.config), random_inputs(data))

    def fused(self, model: Model) -> list[ExecutedKernel]:
        """The layers that OpenVINO executes, in their order; those that only rename a buffer included.

        Raises:
            BackendError: OpenVINO refuses the model.
        """
        return _layers(_compile(as_bytes(model), self.config))


class OpenVinoPrepared:
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
        infer = self._request.infer
        latencies_ms = []
        for _ in range(repeats):
            start_ns = perf_counter_ns()
            infer()
            latencies_ms.append((perf_counter_ns() - start_ns) / 1e6)
        return latencies_ms

    def trace(self, repeats: int) -> list[KernelTrace]:
        """What the performance counters say of each layer in each of ``repeats`` runs; 0 for one not run."""
        compiled = _compile(self._data, self._config, PERF_COUNT=True)
        request = _request(compiled, self._inputs)
        runs: list[dict[str, float]] = []
        for _ in range(repeats):
            request.infer()
            runs.append(
                {each.node_name: each.real_time.total_seconds() * 1000 for each in request.profiling_info}
            )
        return [
            KernelTrace(layer, tuple(run.get(layer.name, 0.0) for run in runs)) for layer in _layers(compiled)
        ]

    def close(self) -> None:
        """Free the request."""
        self._request = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise MissingDependencyError(
            "openvino", "openvino", "measuring with the backend openvino_cpu"
        ) from error
    return openvino


def _compile(data: bytes, config: OpenVinoConfig, **more: object) -> Any:
    runtime = _openvino()
    settings = {
        "INFERENCE_NUM_THREADS": config.threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": config.precision,
        **more,
    }
    try:
        core = runtime.Core()
        return core.compile_model(core.read_model(data), "CPU", settings)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise BackendError(f"openvino refuses the model: {reason}") from error


def _request(compiled: Any, inputs: Mapping[str, np.ndarray]) -> Any:
    """An inference request that holds its inputs already."""
    runtime = _openvino()
    request = compiled.create_infer_request()
    for port in compiled.inputs:
        name = next(name for name in inputs if name in port.get_names())
        request.set_tensor(port, runtime.Tensor(np.ascontiguousarray(inputs[name])))
    return request


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
