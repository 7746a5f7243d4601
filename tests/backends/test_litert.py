"""LiteRT keeps the contract of backends, computes what ONNX Runtime does, and shows what XNNPACK makes of a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from agreement import Agreement, agreement

from nn_meter.backends import load
from nn_meter.backends.base import Traced
from nn_meter.backends.litert import tracing
from nn_meter.backends.litert.model import Stored, Written
from nn_meter.backends.litert.native import Event
from nn_meter.backends.onnx_writer import as_bytes, random_inputs, with_random_weights
from nn_meter.errors import BackendError
from nn_meter.frontends import onnx as reader
from nn_meter.ir import Graph, parse
from nn_meter.ir.builder import GraphBuilder
from nn_meter.kernels.rules import read_rules
from nn_meter.networks.generated import FAMILIES
from nn_meter.runtimes import find
from nn_meter.runtimes.executed import read_all
from nn_meter.runtimes.fusion import fuse
from nn_meter.runtimes.trace import ExecutedKernel
from nn_meter.testing import sample_graph


@pytest.fixture
def there() -> None:
    pytest.importorskip("ai_edge_litert")


def assert_like_onnxruntime(graph: Graph) -> None:
    runtime = pytest.importorskip("onnxruntime")
    data = as_bytes(graph)
    wanted = runtime.InferenceSession(data).run(list(graph.outputs), random_inputs(data))
    with load("litert").prepare(graph) as prepared:
        assert len(prepared.run(1)) == 1
        found = prepared.outputs()  # type: ignore[attr-defined]
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-2, atol=1e-3 * max(1.0, float(np.abs(theirs).max())))


REFUSED = ("recurrent", "qdq_maps", "qdq_tokens", "dynamic_maps", "dynamic_tokens", "packed_tokens")
"""Families that hold what a file of floats has no operator for."""
WHOLE = [name for name in FAMILIES if not name.startswith(("operators_", "micro_")) and name not in REFUSED]
SINGLE = [name for name in FAMILIES if name not in (*WHOLE, "micro_resizes", "operators_casts")]
"""Single operators, some of which TFLite has not. Those that resize round otherwise there, and what a negative number
is as an unsigned one is nobody's promise."""


@pytest.mark.heavy
@pytest.mark.parametrize("family", WHOLE)
def test_networks_compute_what_onnxruntime_does(family: str, there: None) -> None:
    assert_like_onnxruntime(FAMILIES[family](1))


@pytest.mark.heavy
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul", "Div", "Equal", "Less", "GreaterOrEqual"])
def test_bytes_without_a_scale_are_refused_by_name(op_type: str, dtype: str, there: None) -> None:
    b = GraphBuilder("bytes")
    graph = b.graph(b.op(op_type, b.input((4, 50), dtype), b.input((4, 50), dtype)))
    with pytest.raises(BackendError, match=f"{op_type}.*{dtype}"):
        load("litert").prepare(graph)


@pytest.mark.heavy
@pytest.mark.parametrize("family", SINGLE)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_single_operators_compute_what_onnxruntime_does_or_are_named(family: str, seed: int, there: None) -> None:
    graph = FAMILIES[family](seed)
    refused = ""
    try:
        assert_like_onnxruntime(graph)
    except BackendError as error:
        refused = str(error)
    assert not refused or any(node.op_type in refused for node in graph.nodes)


IMAGE = "input x: float32[1,6,9,12]"
PIXEL = f"{IMAGE}; const v: float32[6,6,1,1]; c = Conv(x, v)"
TOKENS = "input x: float32[2,8,12]"
SMALL = "input x: float32[1,8,4,6]"
FORMS = {
    "strided": (IMAGE, "const w: float32[8,6,3,3]; y = Conv(x, w) {strides=(2, 2), pads=(1, 1, 1, 1)}"),
    "same": (IMAGE, 'const w: float32[8,6,3,3]; y = Conv(x, w) {strides=(2, 2), auto_pad="SAME_UPPER"}'),
    "lower": (IMAGE, 'const w: float32[8,6,4,4]; y = Conv(x, w) {auto_pad="SAME_LOWER"}'),
    "dilated": (IMAGE, "const w: float32[8,6,3,3]; y = Conv(x, w) {dilations=(2, 2), pads=(2, 2, 2, 2)}"),
    "grouped": (IMAGE, "const w: float32[8,3,3,3]; y = Conv(x, w) {group=2}"),
    "multiplied": (IMAGE, "const w: float32[12,1,3,3]; y = Conv(x, w) {group=6}"),
    "row": ("input x: float32[1,6,20]", "const w: float32[8,6,5]; y = Conv(x, w) {strides=(2,), pads=(2, 2)}"),
    "transposed": (IMAGE, "const w: float32[6,8,4,4]; y = ConvTranspose(x, w) {strides=(2, 2), pads=(1, 1, 1, 1)}"),
    "cropped": (IMAGE, "const w: float32[6,8,3,3]; y = ConvTranspose(x, w) {strides=(2, 2), pads=(1, 1, 1, 1)}"),
    "folded": (PIXEL, "const a: float32[6,1,1]; m = Mul(c, a); s = Sub(m, a); d = Div(s, a); y = Relu(d)"),
    "wider": (IMAGE, "const w: float32[1,6,1,1]; const a: float32[4,1,1]; c = Conv(x, w); y = Mul(c, a)"),
    "ceiling": (IMAGE, "y = AveragePool(x) {kernel_shape=(2, 2), strides=(2, 2), ceil_mode=1}"),
    "uncounted": (IMAGE, "y = AveragePool(x) {kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1)}"),
    "counted": (IMAGE, "y = AveragePool(x) {kernel_shape=(3, 3), pads=(1, 1, 1, 1), count_include_pad=1}"),
    "largest": (IMAGE, "y = MaxPool(x) {kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1)}"),
    "shuffled": (SMALL, 'y = DepthToSpace(x) {blocksize=2, mode="CRD"}'),
    "to_space": (SMALL, "y = DepthToSpace(x) {blocksize=2}"),
    "to_depth": (SMALL, "y = SpaceToDepth(x) {blocksize=2}"),
    "channels": (PIXEL, "y = Softmax(c) {axis=1}"),
    "flat": (PIXEL, "y = Flatten(c)"),
    "turned": (PIXEL, "t = Transpose(c) {perm=(0, 2, 3, 1)}; y = Softmax(t) {axis=-1}"),
    "narrow": (PIXEL, "const b: float32[12]; y = Add(c, b)"),
    "gate": (PIXEL, "g = GlobalAveragePool(c); y = Mul(c, g)"),
    "summed": (PIXEL, "const a: int64[2](1, 3); y = ReduceSum(c, a) {keepdims=0}"),
    "tokens": (TOKENS, "const w: float32[12,5]; const b: float32[5]; p = MatMul(x, w); a = Add(p, b); y = Relu(a)"),
    "gemm": ("input x: float32[3,8]", "const w: float32[8,5]; const b: float32[5]; y = Gemm(x, w, b) {alpha=0.5}"),
    "scores": (TOKENS, "t = Transpose(x) {perm=(0, 2, 1)}; y = MatMul(x, t)"),
    "normal": (TOKENS, "const w: float32[12]; const b: float32[12]; y = LayerNormalization(x, w, b)"),
}
"""Forms of single operators, and of what is written with what is beside it."""


@pytest.mark.heavy
@pytest.mark.parametrize("name", FORMS)
def test_each_form_of_an_operator_computes_what_onnxruntime_does(name: str, there: None) -> None:
    assert_like_onnxruntime(parse("; ".join((*FORMS[name], "output y")).replace("; ", "\n")))


CORPUS = sorted((Path(__file__).parents[1] / "corpus" / "models").glob("*.onnx"))
SHARED = sorted((Path(__file__).parents[2] / ".." / "shared" / "models").glob("*.onnx"))


def compare(path: Path) -> Agreement:
    data = with_random_weights(path).SerializeToString()
    graph = reader.read(data)
    kernels = fuse(graph, read_rules({"runtime": "litert"})).kernels
    return agreement(kernels, load("litert").fused(data), "litert", graph)


@pytest.mark.heavy
def test_kernels_are_those_that_it_executes(there: None) -> None:
    """The bounds lie a little below what was found when the facts were written, with these models in view."""
    if not SHARED:
        pytest.skip("the shared models are not beside the repository")
    whole = sum((compare(path) for path in SHARED), Agreement(0, 0, 0))
    assert whole.precision >= 0.98
    assert whole.recall >= 0.98


@pytest.mark.heavy
def test_kernels_of_the_corpus_are_those_that_it_executes(there: None) -> None:
    """The bounds lie a little below what was found, 0.998 and 0.995."""
    found = [compare(path) for path in CORPUS if path.stem != "tagger"]
    whole = sum(found, Agreement(0, 0, 0))
    assert whole.precision >= 0.98
    assert whole.recall >= 0.98


@pytest.mark.heavy
def test_a_layer_that_a_file_of_floats_has_not_is_named(there: None) -> None:
    with pytest.raises(BackendError, match="TFLite has no operator for LSTM"):
        compare(next(path for path in CORPUS if path.stem == "tagger"))


@pytest.mark.heavy
def test_of_sessions_with_several_threads_one_is_open_at_a_time(there: None) -> None:
    backend = load("litert", threads=2)
    with backend.prepare(sample_graph()) as first, backend.prepare(sample_graph()) as second:
        for running, waiting in ((first, second), (second, first), (first, second)):
            assert len(running.run(3)) == 3
            assert not waiting._sessions  # type: ignore[attr-defined]
            assert len(running.trace(1)[0].latencies_ms) == 1
            assert list(running._sessions) == [True]  # type: ignore[attr-defined]


@pytest.mark.heavy
def test_nothing_is_printed_and_a_refusal_tells_what_was(there: None, capfd: pytest.CaptureFixture[str]) -> None:
    load("litert").prepare(sample_graph()).close()
    b = GraphBuilder("doubled")
    x = b.input((2, 3), "float64")
    with pytest.raises(BackendError, match=r"LiteRT refuses Sin \(Sin_0\) as SIN: "):
        load("litert").prepare(b.graph(b.op("Sin", x)))
    assert capfd.readouterr() == ("", "")


@pytest.mark.heavy
def test_a_model_that_hands_its_input_on_runs_no_kernel(there: None) -> None:
    with load("litert").prepare(parse("input x: float32[1,8]\ny = Identity(x)\noutput y")) as prepared:
        traced = Traced(prepared)
        assert traced.run(3) == [0.0, 0.0, 0.0]
        assert traced.traces == ()


def written(code: str, reads: tuple[int, ...], writes: int, *nodes: str) -> Written:
    tensors = [Stored(number, (1, 4), "float32") for number in (*reads, writes)]
    return Written(code, tuple(tensors[:-1]), (tensors[-1],), nodes, frozenset())


def told(name: str, number: int, inside: bool = True) -> Event:
    return Event(name, inside, number, 0, 5)


def test_what_xnnpack_tells_is_found_by_order_part_by_part() -> None:
    operators = [
        written("PAD", (0,), 1, "pad"),
        written("CONV_2D", (1,), 2, "conv"),
        written("RELU", (2,), 3, "relu"),
        written("GATHER", (3,), 4, "gather"),  # outside
        written("TRANSPOSE", (2,), 5),  # not behind it: XNNPACK runs it with the first part
        written("FULLY_CONNECTED", (4,), 6, "linear"),
    ]
    events = [
        told("Convolution (NHWC, F32) IGEMM", 0),
        told("Transpose (ND, X32) Transpose", 1),
        told("GATHER", 3, inside=False),
        told("Static Reshape (NC)", 0),
        told("Fully Connected (NC, F32) GEMM", 1),
    ]
    found = tracing.kernels(events, operators)
    assert [kernel.nodes for kernel, _ in found] == [("conv", "relu"), (), ("gather",), ("linear",)]
    assert [places for _, places in found] == [(0,), (1,), (2,), (3, 4)]
    assert found[1][0].op_type in find("litert").layout_kernels
    assert [kernel.domain for kernel, _ in found] == ["xnnpack", "xnnpack", "tflite", "xnnpack"]


def test_a_kernel_that_no_operator_becomes_is_an_error() -> None:
    with pytest.raises(BackendError, match=r"tells of Bessel \(NC\), which belongs to no operator of its file"):
        tracing.kernels([told("Bessel (NC)", 0)], [written("CONV_2D", (0,), 1, "conv")])


def test_transposes_between_channels_first_and_last_cost_nothing_where_nothing_moves() -> None:
    graph = parse(
        "input x: float32[1,6,9,12]\nconst w: float32[6,6,1,1]\nconst a: float32[6]\nconst s: int64[3](1, 6, 108)\n"
        "c = Conv(x, w)\nt = Transpose(c) {perm=(0, 2, 3, 1)}\nl = LayerNormalization(t, a, a)\n"
        "b = Transpose(l) {perm=(0, 3, 1, 2)}\nd = Conv(b, w)\nv = Reshape(d, s)\n"
        "m = Transpose(v) {perm=(0, 2, 1)}\ny = Relu(m)\noutput y"
    )
    kinds = [kernel.kind for kernel in fuse(graph, read_rules({"runtime": "litert"})).kernels]
    assert kinds == ["conv", "norm", "conv", "reshape", "transpose", "unary"]


def test_a_view_behind_which_a_linear_layer_tells_its_own_is_told_apart() -> None:
    operators = [
        written("RESHAPE", (0,), 1, "transpose"),  # one with the view behind it
        written("RESHAPE", (1,), 2, "flatten"),
        written("FULLY_CONNECTED", (2,), 3, "linear"),
    ]
    names = ("Static Reshape (NC)", "Static Reshape (NC)", "Fully Connected (NC, F32) GEMM")
    found = tracing.kernels([told(name, number) for number, name in enumerate(names)], operators)
    covered = [(kernel.nodes, places) for kernel, places in found]
    assert covered == [(("transpose", "flatten"), (0,)), (("linear",), (1, 2))]


def test_what_is_not_executed_decides_no_config() -> None:
    graph = parse(
        "input x: float32[1,6,9,12]\nconst w: float32[6,6,1,1]\nconst a: float32[6]\n"
        "c = Conv(x, w)\nt = Transpose(c) {perm=(0, 2, 3, 1)}\nl = LayerNormalization(t, a, a)\n"
        "b = Transpose(l) {perm=(0, 3, 1, 2)}\ny = Add(b, c)\nz = Conv(y, w)\noutput z"
    )
    ran = [ExecutedKernel(name, "", "", (), (), (), (), nodes=(name,)) for name in ("c", "l", "y", "z")]
    ours = [(k.kind, k.config) for k in fuse(graph, read_rules({"runtime": "litert"})).kernels]
    assert [(each.kind, each.config) for each in read_all(ran, find("litert"), graph)] == ours
    assert [kind for kind, _ in ours] == ["conv", "norm", "binary", "conv"]
