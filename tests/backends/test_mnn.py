"""MNN keeps the contract of backends, converts in a process of its own, and shows what it fuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from agreement import Agreement, agreement
from onnx import TensorProto, helper
from waiting import running, until

from nn_meter.backends import Operand, load, mnn
from nn_meter.backends.mnn import converter, kernels
from nn_meter.backends.onnx_writer import as_bytes, with_random_weights
from nn_meter.errors import BackendError
from nn_meter.frontends import onnx as reader
from nn_meter.ir import GraphBuilder, parse
from nn_meter.kernels.rules import read_rules
from nn_meter.measuring.fixed import probe
from nn_meter.networks.generated import FAMILIES
from nn_meter.runtimes import find
from nn_meter.runtimes.executed import read_all
from nn_meter.runtimes.fusion import fuse
from nn_meter.testing import sample_graph


@pytest.fixture
def there() -> None:
    pytest.importorskip("MNN")


@pytest.mark.heavy
@pytest.mark.parametrize("family", FAMILIES)
def test_it_runs_what_is_generated_or_names_the_operator(family: str, there: None) -> None:
    graph = FAMILIES[family](1)
    refused = ""
    try:
        kernels = load("mnn").fused(graph)
    except BackendError as error:
        refused = str(error)
    if refused:
        assert any(node.op_type in refused for node in graph.nodes)
    elif all(kernel.free for kernel in fuse(graph, read_rules({"runtime": "mnn"})).kernels):  # views and no more
        with pytest.raises(BackendError, match="does not say which of the model's nodes"):
            read_all(kernels, find("mnn"), graph)
    else:
        assert read_all(kernels, find("mnn"), graph)


@pytest.mark.heavy
def test_an_einsum_that_becomes_a_product_of_another_name_is_not_told(there: None) -> None:
    """A view ends it, which no kernel stands for: where nothing else is in a network a build passes it over."""
    b = GraphBuilder("alone")
    graph = b.graph(b.op("Einsum", b.input((8, 9)), b.input((9, 7)), equation="ij,jk->ik"))
    with pytest.raises(BackendError, match="does not say which of the model's nodes"):
        read_all(load("mnn").fused(graph), find("mnn"), graph)


SHARED = sorted((Path(__file__).parents[2] / ".." / "shared" / "models").glob("*.onnx"))
CONVOLUTIONAL = ("efficientnet_b0", "ghostnet_100", "mobilenetv2_100", "regnety_004", "resnet18")


def compare(path: Path) -> Agreement:
    data = with_random_weights(path).SerializeToString()
    graph = reader.read(data)
    kernels = fuse(graph, read_rules({"runtime": "mnn"})).kernels
    return agreement(kernels, load("mnn").fused(data), "mnn", graph)


@pytest.mark.heavy
def test_kernels_are_those_that_it_executes(there: None) -> None:
    """The bounds of all lie a little below what was found when they were written, 0.998 and 0.999."""
    if not SHARED:
        pytest.skip("the shared models are not beside the repository")
    found = {path.stem: compare(path) for path in SHARED}
    for name in CONVOLUTIONAL:
        assert (found[name].precision, found[name].recall) == (1.0, 1.0)
    whole = sum(found.values(), Agreement(0, 0, 0))
    assert whole.precision >= 0.99
    assert whole.recall >= 0.99


IMAGE = "input x: float32[1,6,9,12]; const w: float32[6,6,3,3]; c = Conv(x, w)"


@pytest.mark.parametrize(
    ("text", "kernels"),
    [
        (f"{IMAGE}; z = LeakyRelu(c)", [("c",), ("z",)]),
        (f"{IMAGE}; z = Relu(c)", [("c", "z")]),
        (
            f"{IMAGE}; t = Transpose(c) {{perm=(0, 2, 3, 1)}}; a, b = Split(t) {{axis=3}}; "
            "d = Transpose(a) {perm=(0, 2, 1, 3)}; e = Transpose(b) {perm=(0, 2, 1, 3)}; z = Add(d, e)",
            [("c",), ("d",), ("e",), ("z",)],
        ),
        (
            f"{IMAGE}; const i: int64[3](2, 0, 1); g = Gather(c, i) {{axis=1}}; z = Transpose(g) {{perm=(0, 2, 3, 1)}}",
            [("c",), ("g",), ("z",)],
        ),
        (
            f"{IMAGE}; const i: int64[](2); g = Gather(c, i) {{axis=1}}; z = Transpose(g) {{perm=(0, 2, 1)}}",
            [("c",), ("g", "z")],
        ),
    ],
)
def test_what_is_known_of_it_holds_whatever_rules_say(text: str, kernels: list[tuple[str, ...]]) -> None:
    rules = read_rules({"runtime": "mnn", "BF_conv_relu": {"obey": True}, "BF_relu_conv": {"obey": True}})
    found = fuse(parse(f"{text}; output z".replace("; ", "\n")), rules).kernels
    assert [kernel.nodes for kernel in found if not kernel.free] == kernels


FLOATS = [Operand((1, 4, 8, 8), "float32")]


def test_a_kernel_that_moves_data_for_a_reader_covers_the_operators_that_move() -> None:
    operators = [
        kernels.Operator("x", 34, (), ("x",)),
        kernels.Operator("a", 46, ("x",), ("a",)),  # Permute
        kernels.Operator("b", 73, ("a", "shape"), ("b",)),  # Reshape
        kernels.Operator("to", 129, ("b",), ("to",)),
        kernels.Operator("c", 12, ("to",), ("d",)),  # Convolution, whose activation was node d
        kernels.Operator("e", 73, ("d",), ("e",)),
    ]
    names = [("c_raster_0", "Raster"), ("c", "Convolution"), ("e_raster_0", "Raster")]
    told = [kernels.Told(name, kind, FLOATS, FLOATS) for name, kind in names]
    moving, convolution, last = kernels.executed(told, {each.name: each for each in operators})
    assert moving.nodes == ("a", "b", "to")
    assert (moving.input_names, moving.output_names) == (("x",), ("to",))
    assert convolution.nodes == ("c", "d")
    assert convolution.input_names == ("to",)
    assert (last.op_type, last.nodes) == ("ConvertTensor", ())


@pytest.mark.heavy
def test_what_its_converter_does_not_list_is_refused_before_there_are_weights(there: None) -> None:
    graph = parse("input x: float32[2,8]\ny = Relu(x)\nz = Hardmax(y)\noutput z")
    assert "no operator Hardmax" in mnn.Mnn().refuses(graph)
    assert mnn.Mnn().refuses(sample_graph()) == ""
    with pytest.raises(BackendError, match="no operator Hardmax"):
        load("mnn").prepare(graph)


@pytest.mark.heavy
def test_parts_of_a_split_that_are_moved_on_are_kernels_of_their_own(there: None) -> None:
    graph = parse(
        "input x: float32[1,3,96,64]\ns = Sigmoid(x)\na, b, c = Split(s) {axis=2}\nt = Transpose(a) {perm=(0,1,3,2)}\n"
        "m = MatMul(t, b)\nz = MatMul(c, m)\noutput z"
    )
    executed = read_all(load("mnn").fused(graph), find("mnn"), graph)
    assert {each.nodes: len(each.positions) for each in executed} == {
        ("s",): 1, ("t",): 1, ("a",): 2, ("m",): 1, ("z",): 1
    }  # fmt: skip
    assert agreement(fuse(graph, read_rules({"runtime": "mnn"})).kernels, load("mnn").fused(graph), "mnn", graph) == (
        Agreement(5, 5, 5)
    )


@pytest.mark.heavy
def test_an_operator_that_it_lacks_is_named(there: None) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in ("x", "y")]
    node = helper.make_node("Bessel", ["x"], ["y"], domain="mine")
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    with pytest.raises(BackendError, match="has no operator ONNX::Bessel"):
        load("mnn").prepare(model.SerializeToString())


@pytest.mark.heavy
def test_a_small_model_is_converted_once(there: None, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, graph = load("mnn"), sample_graph()
    converter._convert_once.cache_clear()
    backend.prepare(graph).close()
    monkeypatch.setattr(converter, "_converter", lambda folder: pytest.fail("converted again"))
    with backend.prepare(graph) as again:
        assert len(again.run(3)) == 3


@pytest.mark.heavy
def test_every_run_sees_the_inputs_as_they_were_given(there: None) -> None:
    """MNN puts later tensors where an input was: what ran on its own results became a hundred times slower in time."""
    import MNN

    def output(prepared: mnn.MnnPrepared) -> np.ndarray:
        tensor = prepared._net.getSessionOutputAll(prepared._session)["MatMul_0:out"]
        zeros = np.zeros(tensor.getShape(), np.float32)
        there = MNN.Tensor(tensor.getShape(), tensor.getDataType(), zeros, MNN.Tensor_DimensionType_Caffe)
        tensor.copyToHostTensor(there)
        return np.array(there.getData(), copy=True)

    with mnn.Mnn().prepare(probe()) as prepared:
        prepared.run(1)
        first = output(prepared)
        prepared.run(30)
        assert np.array_equal(output(prepared), first)
        prepared.trace(2)
        assert np.array_equal(output(prepared), first)


@pytest.mark.heavy
def test_of_sessions_with_several_threads_one_is_alive_at_a_time(there: None) -> None:
    backend = load("mnn", threads=2)
    with backend.prepare(sample_graph()) as first, backend.prepare(sample_graph()) as second:
        for running, waiting in ((first, second), (second, first), (first, second)):
            assert len(running.run(3)) == 3
            assert waiting._session is None  # type: ignore[attr-defined]
    alone = load("mnn")
    with alone.prepare(sample_graph()) as first, alone.prepare(sample_graph()) as second:
        assert len(second.run(3)) == 3
        assert first._session is not None  # type: ignore[attr-defined]


@pytest.mark.heavy
def test_one_process_converts_one_model_after_another_and_is_started_anew(there: None) -> None:
    data = as_bytes(sample_graph())
    assert converter._convert(data)
    first = converter._converter._process
    assert first is not None
    assert converter._convert(data)
    assert converter._converter._process is first
    first.kill()
    first.wait()
    assert converter._convert(data)
    assert converter._converter._process is not first


@pytest.mark.heavy
def test_a_converter_that_dies_is_a_refusal(there: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converter, "_CONVERT", "print('halfway', flush=True); os.abort()")
    with converter.Converter() as fresh:
        monkeypatch.setattr(converter, "_converter", fresh)
        with pytest.raises(BackendError, match=r"which is of Conv, .*: its converter ended with -6 and said halfway"):
            converter._convert(as_bytes(sample_graph()))


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a converter outlives the process that asked")
def test_a_converter_that_hangs_ends_with_the_process_that_asked(there: None, tmp_path: Path) -> None:
    told = tmp_path / "told"
    hanging = f"import time; open({str(told)!r}, 'w').write(f'{{os.getpid()}} '); time.sleep(600)"
    asking = f"from nn_meter.backends.mnn import converter; converter._CONVERT = {hanging!r}; converter._convert(b'')"
    process = subprocess.Popen([sys.executable, "-c", asking], env={**os.environ, "TMPDIR": str(tmp_path)})
    try:
        until(lambda: told.exists() and told.read_text().endswith(" "))
    finally:
        process.kill()
        process.wait()
    until(lambda: not running(int(told.read_text())))
