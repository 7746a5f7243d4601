"""Checks of the contracts that extensions keep; the built-ins pass the same ones."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

from nn_meter.backends.base import Backend
from nn_meter.detection.cases import Case, is_case
from nn_meter.detection.probes import SHAPES, probes
from nn_meter.ir.builder import GraphBuilder
from nn_meter.ir.graph import Graph, verify


def sample_graph() -> Graph:
    """A convolution, an activation, a global pooling and a classifier, a fraction of a millisecond in all."""
    b = GraphBuilder("sample")
    x = b.input((1, 3, 16, 16))
    features = b.op("Relu", b.op("Conv", x, b.weight((8, 3, 3, 3)), b.weight((8,)), pads=(1, 1, 1, 1)))
    pooled = b.op("Flatten", b.op("GlobalAveragePool", features))
    return b.graph(b.op("Gemm", pooled, b.weight((10, 8)), b.weight((10,)), transB=1))


def check_backend(backend: Backend) -> None:
    """Check that ``backend`` keeps the contract of ``nn_meter.backends.Backend``.

    Raises:
        AssertionError: it does not; says in what.
    """
    assert isinstance(backend, Backend), f"{backend!r} lacks a method or attribute of Backend"
    config_type = backend.config_type
    assert is_dataclass(config_type), f"{backend.name}: config_type is no dataclass"
    assert isinstance(backend.config, config_type), f"{backend.name}: config is no {config_type.__name__}"
    frozen = getattr(config_type, "__dataclass_params__").frozen  # noqa: B009 (unknown to type checkers)
    assert frozen, f"{backend.name}: {config_type.__name__} is not frozen"
    defaults = config_type()
    for item in fields(config_type):
        assert hasattr(defaults, item.name), f"{backend.name}: the setting {item.name} has no default"

    facts = backend.check()
    for key in ("runtime", "runtime_version", "device"):
        assert facts.get(key), f"{backend.name}: check() does not tell {key!r}"

    name = backend.name
    graph = sample_graph()
    executed = backend.fused(graph)
    assert executed, f"{name}: fused() finds no kernel"
    with backend.prepare(graph) as prepared:
        latencies_ms = prepared.run(3)
        traces = prepared.trace(2)
    assert len(latencies_ms) == 3, f"{name}: run(3) gave {len(latencies_ms)} values"
    assert all(value > 0 for value in latencies_ms), f"{name}: run() gave a latency of zero or less"
    assert [trace.executed for trace in traces] == executed, f"{name}: trace() and fused() disagree"
    for trace in traces:
        kernel_name = trace.executed.name
        assert len(trace.latencies_ms) == 2, f"{name}: trace(2) gave not 2 values of {kernel_name}"
        assert min(trace.latencies_ms) >= 0, f"{name}: trace() gave a negative latency of {kernel_name}"
    for kernel in executed:
        assert len(kernel.inputs) == len(kernel.input_names), f"{name}: {kernel.name} has unnamed inputs"
        assert len(kernel.outputs) == len(kernel.output_names), f"{name}: {kernel.name} has nameless outputs"
    prepared.close()


def check_testcase(case: Case) -> None:
    """Check that ``case`` keeps the contract of ``nn_meter.detection.cases.Case`` in every shape that is measured.

    Raises:
        AssertionError: it does not; says in what.
    """
    assert is_case(case), f"{case!r} lacks an attribute of Case"
    assert len(case.labels) in (0, 2), f"{case.name}: labels are those of two parts, or none"
    for shape, sizes in SHAPES.items():
        where = f"{case.name} in the shape {shape!r}"
        block, first, between = case.block(sizes), case.first(sizes), case.between(sizes)
        for graph in (block, first):
            assert between in verify(graph).producer, f"{where}: no node of {graph.name} writes {between}"
        assert first.outputs == (between,), f"{where}: the first part ends in {first.outputs}, not in {between}"
        assert between not in block.outputs, f"{where}: the block hands out {between}, so that nothing can fuse it"
        assert set(first.tensors) <= set(block.tensors), f"{where}: the first part's tensors have other names in it"
        probes(case, sizes)
