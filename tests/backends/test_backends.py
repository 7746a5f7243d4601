"""Backends keep their contract, and say what they are asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nn_meter.backends import available, load
from nn_meter.backends.onnxruntime_cpu import OnnxRuntimeCpu
from nn_meter.backends.replay import FakeClock, ReplayBackend, ReplayConfig
from nn_meter.errors import BackendError, ModelFormatError
from nn_meter.ir import GraphBuilder
from nn_meter.testing import check_backend, sample_graph


def test_a_replayed_backend_keeps_the_contract() -> None:
    assert "replay" in available()
    check_backend(load("replay"))


def test_an_unknown_backend_is_named_with_its_neighbours() -> None:
    with pytest.raises(BackendError, match="no backend 'onnxruntime'; did you mean onnxruntime_cpu"):
        load("onnxruntime")


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(BackendError, match="has no setting 'thread'; it has threads, execution_mode"):
        load("onnxruntime_cpu", thread=2)


def test_onnxruntime_shows_what_it_fuses() -> None:
    pytest.importorskip("onnxruntime")
    kernels = OnnxRuntimeCpu().fused(sample_graph())
    assert "Relu" not in [kernel.op_type for kernel in kernels]
    gemm = kernels[-1]
    assert gemm.op_type == "Gemm"
    assert gemm.inputs[1] is not None
    assert gemm.inputs[1].shape == (10, 8)
    assert gemm.attrs["transB"] == 1
    assert len(gemm.constant_inputs) == 2
    assert gemm.outputs[0] is not None
    assert gemm.outputs[0].dtype == "float32"


_TINY = """
import numpy as np
from nn_meter.backends.onnx_writer import as_bytes
from nn_meter.backends.onnxruntime_cpu import OnnxRuntimeConfig, OnnxRuntimePrepared, _thread
from nn_meter.ir import GraphBuilder

for _ in range(2):  # the second session is the one that onnxruntime sets no state for
    b = GraphBuilder("tiny")
    x = b.input((4,))
    graph = b.graph(b.op("Mul", x, b.const(1.0, "float32")))
    inputs = {x: np.full(4, 1e-40, np.float32)}
    prepared = OnnxRuntimePrepared(as_bytes(graph), OnnxRuntimeConfig(), inputs)
    (products,) = _thread().submit(prepared._session.run, None, inputs).result()
assert not products.any(), products
assert inputs[x].any() and np.float32(1e-40) * np.float32(1)  # this thread is as it was
"""


def test_denormal_numbers_slow_no_session_of_a_process() -> None:
    pytest.importorskip("onnxruntime")
    done = subprocess.run([sys.executable, "-c", _TINY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_optimisation_every_node_is_a_kernel() -> None:
    pytest.importorskip("onnxruntime")
    graph = sample_graph()
    kernels = load("onnxruntime_cpu", optimisation="none").fused(graph)
    assert [kernel.name for kernel in kernels] == [node.name for node in graph.nodes]


def test_a_refused_model_says_why() -> None:
    pytest.importorskip("onnxruntime")
    b = GraphBuilder()
    graph = b.graph(b.op("FusedMatMul", b.input((2, 2)), b.weight((2, 2)), domain="com.microsoft", strange=1))
    with pytest.raises(BackendError, match="onnxruntime refuses the model: "):
        OnnxRuntimeCpu().prepare(graph)


def test_tracing_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    OnnxRuntimeCpu().fused(sample_graph())
    assert list(tmp_path.iterdir()) == []


def test_replay_plays_records_and_moves_its_clock() -> None:
    clock = FakeClock()
    backend = ReplayBackend(ReplayConfig(recorded_ms={"sample": (1.0, 3.0)}, clock=clock))
    with backend.prepare(sample_graph()) as prepared:
        assert prepared.run(3) == [1.0, 3.0, 1.0]
        assert clock() == pytest.approx(0.005)
        traces = prepared.trace(1)
    assert sum(trace.latencies_ms[0] for trace in traces) == pytest.approx(3.0)


def test_replay_refuses_what_it_is_told_to() -> None:
    backend = ReplayBackend(ReplayConfig(refused=frozenset({"sample"})))
    with pytest.raises(BackendError, match="replay refuses the model: sample"):
        backend.prepare(sample_graph())
    with pytest.raises(ModelFormatError, match="not an ONNX model"):
        backend.prepare(b"")
    with pytest.raises(BackendError, match="replay refuses the model: Gemm is in its list of what to refuse"):
        ReplayBackend(ReplayConfig(refused=frozenset({"Gemm"}))).prepare(sample_graph())
    with pytest.raises(BackendError, match="replay does not show what it executes"):
        ReplayBackend(ReplayConfig(shows=False)).fused(sample_graph())


def test_replay_fuses_what_it_is_told_to() -> None:
    graph = sample_graph()
    apart, fused = (ReplayBackend(ReplayConfig(fusions=pairs)) for pairs in (frozenset(), {("Conv", "Relu")}))  # type: ignore[arg-type]
    assert [kernel.op_type for kernel in fused.fused(graph)] == ["Conv", *(n.op_type for n in graph.nodes[2:])]
    assert fused.fused(graph)[0].nodes == tuple(node.name for node in graph.nodes[:2])
    (activation,) = (node for node in graph.nodes if node.op_type == "Relu")
    (written,) = graph.output_tensors(activation)
    assert apart.prepare(graph).run(1)[0] - fused.prepare(graph).run(1)[0] == pytest.approx(1e-3 + written.size / 1e6)
