"""Checks of the contracts that extensions keep; the built-ins pass the same ones."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import fields, is_dataclass

import numpy as np

from nn_meter.backends.base import Backend
from nn_meter.detection.cases import Case, is_case
from nn_meter.detection.probes import SHAPES, probes
from nn_meter.errors import BundleError
from nn_meter.ir.builder import GraphBuilder
from nn_meter.ir.graph import Graph, verify
from nn_meter.kernels.rewriting import Work
from nn_meter.kernels.rules import read_rules
from nn_meter.predictors.parts import Fallback
from nn_meter.predictors.trees import TreeEnsemble
from nn_meter.runtimes import Options, Runtime
from nn_meter.storage import Fields


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
    graph, tells = sample_graph(), getattr(backend, "tells_kernels", True)
    executed = backend.fused(graph) if tells else []
    assert executed or not tells, f"{name}: fused() finds no kernel"
    with backend.prepare(graph) as prepared:
        latencies_ms = prepared.run(3)
        traces = prepared.trace(2) if tells else []
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


def check_runtime(runtime: Runtime, *graphs: Graph) -> None:
    """Check that ``runtime`` keeps the contract of ``nn_meter.runtimes.Runtime``: after each of its passes, in every
    version that one begins or ends with, what is left of ``graphs`` is sound; by default, of ``sample_graph``.

    Raises:
        AssertionError: it does not; says after which pass, and in what.
    """
    assert runtime.name, "the runtime has no name"
    rules = read_rules({})
    for version in ("", *(v for each in runtime.passes for v in (each.since, each.until) if v)):
        passes = runtime.passes_of(version)
        names = [each.name for each in passes]
        assert len(set(names)) == len(names), f"{runtime.name} {version}: two passes have one name: {names}"
        for graph in graphs or (sample_graph(),):
            work = Work(graph)
            for each in passes:
                each.run(work, Options(rules, runtime.facts))
                try:
                    check_work(work, graph)
                except AssertionError as error:
                    raise AssertionError(f"{runtime.name} {version}, {graph.name}, {each.name}: {error}") from error


def check_work(work: Work, graph: Graph) -> None:
    """Check that ``work`` computes what ``graph`` does, as far as names tell: every tensor that is read is made before,
    constant, or comes from outside; none is made twice; every output is made; every node is in exactly one operator,
    or free.

    Raises:
        AssertionError: it does not; says in what.
    """
    made = {*graph.inputs, *(name for name, tensor in work.tensors.items() if tensor.const)}
    made |= {i for node in graph.nodes for i in node.inputs if i and i not in graph.producer}
    members = [node for node, _, _ in work.free]
    for op in work.ops():
        unmade = [name for name in op.inputs if name and name not in made]
        assert not unmade, f"{op.op_type} reads {unmade} before anything makes it"
        assert all(op in work.readers(name) for name in op.inputs if name), f"{op.op_type} is no reader of its inputs"
        for name in filter(None, op.outputs):
            assert name not in made, f"{name} is made twice"
            assert work.producer.get(name) is op, f"{name} has another producer than the {op.op_type} that makes it"
            made.add(name)
        members += op.members
    unmade = [name for name in work.outputs if name not in made]
    assert not unmade, f"nothing makes the outputs {unmade}"
    times = Counter(members)
    wrong = [node.name for node in graph.nodes if times[node.name] != 1]
    assert not wrong, f"the nodes {wrong} are in no operator, or in several"
    assert len(members) == len(graph.nodes), "an operator has members that are no nodes of the graph"


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


def check_fallback(fallback: Fallback) -> None:
    """Check that ``fallback`` keeps the contract of ``nn_meter.predictors.parts.Fallback``: what it writes it reads.

    Raises:
        AssertionError: it does not; says in what.
    """
    written = json.loads(json.dumps(fallback.written()))
    assert written.get("policy") == fallback.policy, f"{fallback!r} does not write its policy"
    again = type(fallback).read(Fields(written, repr(fallback), BundleError))
    assert again == fallback, f"{fallback!r} is read back as {again!r}"


def check_regressor(regressor: TreeEnsemble, columns: int) -> None:
    """Check that a regressor answers for rows of ``columns`` numbers, finite and alike in any company, and survives
    being written.

    Raises:
        AssertionError: it does not; says in what.
    """
    rows = np.random.default_rng(0).lognormal(3.0, 3.0, (64, columns))
    answers = regressor.predict(rows)
    assert answers.shape == (64,), f"64 rows gave an answer of the shape {answers.shape}"
    assert np.isfinite(answers).all(), "an answer is not finite"
    alone = np.concatenate([regressor.predict(row[None]) for row in rows])
    assert np.array_equal(alone, answers), "a row's answer depends on the rows beside it"
    again = type(regressor).load(io.BytesIO(regressor.to_bytes()))
    assert np.array_equal(again.predict(rows), answers), "written and read again it answers otherwise"
