"""What PyTorch's compiler makes of a model computes the same, is measured whole, and is adapted to."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import nn_meter
from nn_meter.backends import load
from nn_meter.backends.onnx_writer import as_bytes, random_inputs
from nn_meter.backends.pytorch.compiled import CompiledPrepared
from nn_meter.building import BuildPlan, build
from nn_meter.cli.main import main
from nn_meter.errors import BackendError, BuildError
from nn_meter.ir import GraphBuilder
from nn_meter.networks.published import read_csv
from nn_meter.testing import sample_graph


def test_a_build_says_at_once_what_to_do_instead(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"tells none of the kernels .*nn-meter adapt --measured .* --name x"):
        build(BuildPlan(backend="pytorch_compiled"), name="x", journal=tmp_path / "j.sqlite")
    assert not (tmp_path / "j.sqlite").exists()


def compiling() -> None:
    pytest.importorskip("torch")
    if not shutil.which("g++"):
        pytest.skip("no compiler of C++ here")


@pytest.mark.heavy
def test_it_computes_what_onnxruntime_does_and_tells_no_kernels() -> None:
    compiling()
    runtime = pytest.importorskip("onnxruntime")
    b = GraphBuilder("attended")
    x = b.input((2, 4, 8))
    mixed = b.op("MatMul", b.op("Softmax", b.op("MatMul", x, b.op("Transpose", x, perm=(0, 2, 1)))), x)
    graph = b.graph(b.op("Gelu", b.op("MatMul", mixed, b.weight((8, 16)))))
    data = as_bytes(graph)
    (wanted,) = runtime.InferenceSession(data).run(None, random_inputs(data))
    with load("pytorch_compiled").prepare(graph) as prepared:
        assert isinstance(prepared, CompiledPrepared)
        assert min(prepared.run(3)) > 0
        (found,) = prepared.outputs()
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)
        with pytest.raises(BackendError, match="does not tell the kernels"):
            prepared.trace(1)


@pytest.mark.heavy
def test_without_a_compiler_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = pytest.importorskip("torch._inductor.config")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # what was compiled before needs none
    with (
        config.patch({"cpp.cxx": (None, "/no/such/compiler")}),
        pytest.raises(BackendError, match=r"takes a compiler of C\+\+ .* --backend pytorch_eager"),
    ):
        load("pytorch_compiled").prepare(sample_graph())


@pytest.mark.heavy
def test_what_it_measures_adapts_a_predictor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiling()
    monkeypatch.setenv("NN_METER_HOME", str(tmp_path / "home"))
    table, model = tmp_path / "m.csv", Path(__file__).parents[2] / "examples" / "small_net.onnx"
    assert main(["measure", str(model), "--backend", "pytorch_compiled", "--seconds", "0.2", "--csv", str(table)]) == 0
    assert main(["adapt", "--measured", str(table), "--base", "xeoncpu_pytorch213", "--name", "mine"]) == 0
    (record,) = read_csv(table).records
    predictor = nn_meter.load_latency_predictor("mine")
    assert predictor.predict(model) == pytest.approx(record.whole.median_ms, rel=0.2)
    assert "measured with pytorch, kernels as pytorch_eager makes them" in predictor.bundle.notes
