"""ncnn keeps the contract of backends; a net that is written for it computes what ONNX Runtime does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from agreement import Agreement, agreement

from nn_meter.backends import load
from nn_meter.backends.ncnn import Ncnn, written
from nn_meter.backends.ncnn.model import without_batch
from nn_meter.backends.onnx_writer import as_bytes, random_inputs, with_random_weights
from nn_meter.errors import BackendError
from nn_meter.frontends import onnx as reader
from nn_meter.ir import Graph, parse
from nn_meter.kernels.rules import read_rules
from nn_meter.networks.generated import FAMILIES
from nn_meter.runtimes.fusion import fuse
from nn_meter.testing import sample_graph


@pytest.fixture
def there() -> None:
    pytest.importorskip("ncnn")


def assert_like_onnxruntime(data: bytes, graph: Graph, runs: int = 1) -> None:
    """To a thousandth of the largest value; a run after many gives what the first one does."""
    runtime = pytest.importorskip("onnxruntime")
    wanted = runtime.InferenceSession(data).run(list(graph.outputs), random_inputs(data))
    with load("ncnn").prepare(data) as prepared:
        assert len(prepared.run(runs)) == runs
        found = prepared.outputs()  # type: ignore[attr-defined]
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-3 * max(1e-3, float(np.abs(theirs).max())))


SHARED = sorted((Path(__file__).parents[2] / ".." / "shared" / "models").glob("*.onnx"))


@pytest.mark.heavy
@pytest.mark.parametrize("family", FAMILIES)
def test_networks_compute_what_onnxruntime_does_or_are_named(family: str, there: None) -> None:
    graph = FAMILIES[family](1)
    refused = ""
    try:
        assert_like_onnxruntime(as_bytes(graph), graph, runs=20)
    except BackendError as error:
        refused = str(error)
    assert not refused or any(node.op_type in refused for node in graph.nodes) or "no inputs of" in refused


IMAGE = "input x: float32[1,6,9,12]"
PIXEL = f"{IMAGE}; const v: float32[6,6,1,1]; c = Conv(x, v)"
TOKENS = "input x: float32[1,8,12]"
FORMS = {
    "strided": (IMAGE, "const w: float32[8,6,3,3]; y = Conv(x, w) {strides=(2, 2), pads=(1, 0, 2, 1)}"),
    "same": (IMAGE, 'const w: float32[8,6,4,4]; y = Conv(x, w) {strides=(2, 2), auto_pad="SAME_LOWER"}'),
    "dilated": (IMAGE, "const w: float32[8,6,3,3]; y = Conv(x, w) {dilations=(2, 2), pads=(2, 2, 2, 2)}"),
    "grouped": (IMAGE, "const w: float32[8,3,3,3]; y = Conv(x, w) {group=2}"),
    "multiplied": (IMAGE, "const w: float32[12,1,3,3]; y = Conv(x, w) {group=6}"),
    "row": ("input x: float32[1,6,20]", "const w: float32[8,6,5]; y = Conv(x, w) {strides=(2,), pads=(2, 1)}"),
    "deep": ("input x: float32[1,4,5,6,7]", "const w: float32[8,4,2,3,3]; y = Conv(x, w) {pads=(0, 1, 2, 1, 1, 0)}"),
    "transposed": (IMAGE, "const w: float32[6,4,4,4]; y = ConvTranspose(x, w) {group=2, strides=(2, 2)}"),
    "padded": (IMAGE, "const p: int64[8](0, 0, 1, 2, 0, 0, 0, 1); const w: float32[8,6,3,3]; q = Pad(x, p); "
               "c = Conv(q, w); y = Relu(c)"),
    "sides": (IMAGE, "const p: int64[8](0, 1, 1, 2, 0, 2, 0, 1); y = Pad(x, p)"),
    "gate": (PIXEL, "g = GlobalAveragePool(c); e = Conv(g, v); s = Sigmoid(e); y = Mul(c, s)"),
    "ceiling": (IMAGE, "y = AveragePool(x) {kernel_shape=(2, 2), strides=(2, 2), ceil_mode=1}"),
    "uncounted": (IMAGE, "y = AveragePool(x) {kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1)}"),
    "channels": (PIXEL, "y = Softmax(c) {axis=1}"),
    "summed": (PIXEL, "const a: int64[2](1, 3); y = ReduceSum(c, a) {keepdims=0}"),
    "turned": (PIXEL, "t = Transpose(c) {perm=(0, 2, 3, 1)}; y = Softmax(t) {axis=-1}"),
    "repeated": ("input x: float32[1,3,4,2]", "const t: int64[4](1, 2, 1, 3); y = Tile(x, t)"),
    "places": (
        "input x: float32[2,3,1,2,5]",
        "const s: int64[5](2, 3, 4, 2, 5); const f: int64[4](6, 4, 2, 5); e = Expand(x, s); y = Reshape(e, f)",
    ),
    "often": ("input x: float32[2,3,2,1,1]", "const t: int64[5](1, 2, 1, 3, 2); y = Tile(x, t)"),
    "narrow": (PIXEL, "const b: float32[12]; y = Sub(b, c)"),
    "shuffled": ("input x: float32[1,8,4,6]", 'y = DepthToSpace(x) {blocksize=2, mode="CRD"}'),
    "to_depth": ("input x: float32[1,8,4,6]", "y = SpaceToDepth(x) {blocksize=2}"),
    "steps": (PIXEL, "const z: int64[2](1, 0); const e: int64[2](9, 12); const a: int64[2](2, 3); "
              "const s: int64[2](3, 2); y = Slice(c, z, e, a, s)"),
    "windows": (
        "input x: float32[1,8,6,4]",
        "const s: int64[6](1, 2, 4, 3, 2, 4); v = Reshape(x, s); y = Transpose(v) {perm=(0, 1, 3, 2, 4, 5)}",
    ),
    "tokens": (TOKENS, "const w: float32[12,5]; const b: float32[5]; p = MatMul(x, w); a = Add(p, b); y = Relu(a)"),
    "gemm": ("input x: float32[3,8]", "const w: float32[8,5]; const b: float32[5]; y = Gemm(x, w, b) {alpha=0.5}"),
    "scores": (TOKENS, "t = Transpose(x) {perm=(0, 2, 1)}; y = MatMul(x, t)"),
    "normal": (TOKENS, "const w: float32[12]; const b: float32[12]; y = LayerNormalization(x, w, b)"),
    "cube": (TOKENS, "const e: float32[1](3.0); y = Pow(x, e)"),
    "words": ("input x: int64[1,5]", "const t: float32[7,4]; y = Gather(t, x)"),
}  # fmt: skip
"""Forms of single operators, and of what is written with what is beside it."""


@pytest.mark.heavy
@pytest.mark.parametrize("name", FORMS)
def test_each_form_of_an_operator_computes_what_onnxruntime_does(name: str, there: None) -> None:
    graph = parse("; ".join((*FORMS[name], "output y")).replace("; ", "\n"))
    assert_like_onnxruntime(as_bytes(graph), graph, runs=20)


@pytest.mark.heavy
def test_shared_models_compute_what_onnxruntime_does_and_run_as_predicted(there: None) -> None:
    """What is predicted and what is written follow the same facts, but are two passes over a graph."""
    if not SHARED:
        pytest.skip("the shared models are not beside the repository")
    whole = Agreement(0, 0, 0)
    for path in SHARED:
        data = with_random_weights(path).SerializeToString()
        graph = reader.read(data)
        assert_like_onnxruntime(data, graph)
        kernels = fuse(graph, read_rules({"runtime": "ncnn"})).kernels
        whole += agreement(kernels, load("ncnn").fused(data), "ncnn", graph)
    assert whole.precision >= 0.98
    assert whole.recall >= 0.98


def layers(text: str) -> list[str]:
    graph = parse(text.replace("; ", "\n"))
    return [line.split()[0] for line in written(graph, as_bytes(graph)).text.splitlines()[2:]]


def test_a_net_holds_what_pnnx_makes_one_layer() -> None:
    folded = "b = BatchNormalization(c, n, n, n, n); r = Relu(b); y = Mul(r, x)"
    assert layers(f"{PIXEL}; const n: float32[6]; {folded}; output y") == ["Input", "Split", "Convolution", "BinaryOp"]
    assert layers(f"{PIXEL}; s = Sigmoid(c); y = Mul(c, s); output y") == ["Input", "Convolution", "Swish"]
    assert layers(f"{PIXEL}; h = HardSigmoid(c); output h") == ["Input", "Convolution", "HardSigmoid"]


def test_a_blob_has_four_axes_and_none_of_batch() -> None:
    shapes = ((1, 6, 9, 12), (1, 8), (8,), (), (2, 3, 4), (3, 1, 2, 5, 4), (1, 8, 7, 8, 7, 96))
    dims = ((6, 9, 12), (8,), (8,), (1,), (2, 3, 4), (3, 2, 5, 4), (8, 7, 8, 7 * 96))
    assert tuple(map(without_batch, shapes)) == dims


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("input x: float32[2,6,9,12]; y = GlobalAveragePool(x)", r"no GlobalAveragePool \(y\) of more than one image"),
        (f"{IMAGE}; y = Celu(x)", r"no layer for Celu \(y\)"),
        ("input x: int64[1,5]; y = Neg(x)", "no inputs of int64: x"),
    ],
)
def test_what_it_has_no_layer_for_is_named(text: str, told: str, there: None) -> None:
    with pytest.raises(BackendError, match=told):
        load("ncnn").prepare(parse(f"{text}; output y".replace("; ", "\n")))


def test_what_it_has_no_layer_for_is_told_without_weights() -> None:
    image = "input x: float32[1,6,9,12]; const w: float32[6,6,3,3]; y = Conv(x, w)"
    for text, told in {
        image: "",
        image.replace("[1,", "[2,"): "more than one image",
        f"{image}; z = Celu(y)": "no layer for Celu",
        "input x: int64[1,5]; y = Neg(x)": "no inputs of int64: x",
    }.items():
        graph = parse(f"{text}; output {'z' if 'Celu' in text else 'y'}".replace("; ", "\n"))
        found = Ncnn().refuses(graph)
        assert told in found
        assert bool(told) == bool(found)


@pytest.mark.heavy
def test_nothing_is_printed(there: None, capfd: pytest.CaptureFixture[str]) -> None:
    with load("ncnn", threads=2).prepare(sample_graph()) as prepared:
        prepared.run(2)
        prepared.trace(2)
    prepared.close()
    assert capfd.readouterr() == ("", "")
