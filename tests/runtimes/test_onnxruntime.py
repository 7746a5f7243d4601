"""The kernels that ``fuse`` finds against the graph that ONNX Runtime really executes."""

from __future__ import annotations

from pathlib import Path

import pytest
from agreement import agreement, rules_here

from nn_meter.backends.onnx_writer import with_random_weights
from nn_meter.backends.onnxruntime_cpu import OnnxRuntimeCpu
from nn_meter.frontends import onnx as reader
from nn_meter.ir import Graph, parse
from nn_meter.networks import FAMILIES
from nn_meter.runtimes.fusion import fuse

pytest.importorskip("onnxruntime")

MODELS = Path(__file__).parents[2] / ".." / "shared" / "models"
RULES = rules_here()
QUICK = (
    "mobilenetv2_100",
    "mobilenetv3_small_100.dynamo",
    "efficientnet_b0",
    "regnety_004",
    "convnext_atto",
    "deit_tiny_patch16_224",
)


def compare(graph: Graph, model: Graph | bytes) -> tuple[int, int, int]:
    """Kernels that both have, that only the partition has, that only the runtime has."""
    found = agreement(fuse(graph, RULES).kernels, OnnxRuntimeCpu().fused(model), "onnxruntime_cpu", graph)
    return found.both, found.ours - found.both, found.truth - found.both


@pytest.mark.parametrize("name", QUICK)
def test_shared_models_fuse_as_the_runtime_does(name: str) -> None:
    path = MODELS / f"{name}.onnx"
    if not path.exists():
        pytest.skip("the shared models are not beside the repository")
    both, extra, missing = compare(reader.read(path), with_random_weights(path).SerializeToString())
    assert both / (both + extra) >= 0.99
    assert both / (both + missing) >= 0.99


@pytest.mark.heavy
def test_all_shared_models_together_reach_99_percent() -> None:
    if not MODELS.exists():
        pytest.skip("the shared models are not beside the repository")
    counts = [
        compare(reader.read(p), with_random_weights(p).SerializeToString())
        for p in sorted(MODELS.glob("*.onnx"))
    ]
    both, extra, missing = (sum(column) for column in zip(*counts, strict=True))
    assert both / (both + extra) >= 0.99
    assert both / (both + missing) >= 0.99


@pytest.mark.parametrize(
    "family", ["residual_bottleneck", "inverted", "dense", "convnext", "vision_transformer", "encoder"]
)
def test_generated_networks_fuse_as_the_runtime_does(family: str) -> None:
    counts = [compare(graph, graph) for graph in map(FAMILIES[family], range(3))]
    both, extra, missing = (sum(column) for column in zip(*counts, strict=True))
    assert both / (both + extra + missing) >= 0.9


SPELLINGS = {
    "views with allowzero stay, others merge": """
        input x: float32[1,2,12]
        const s: int64[2](4, 6)
        const t: int64[2](3, 8)
        const u: int64[2](2, 12)
        a = Relu(x)
        b = Reshape(a, s) {allowzero=1}
        c = Reshape(b, t)
        d = Reshape(c, u)
        y = Sigmoid(d)
        output y
        """,
    "a view of the shape that is there stays": """
        input x: float32[2,12]
        const s: int64[2](2, 12)
        a = Relu(x)
        b = Reshape(a, s)
        y = Sigmoid(b)
        output y
        """,
    "a reduction comes before the transpose": """
        input x: float32[1,7,7,96]
        const axes: int64[2](-1, -2)
        a = Relu(x)
        b = Transpose(a) {perm=(0, 3, 1, 2)}
        c = ReduceMean(b, axes) {keepdims=1}
        y = Sigmoid(c)
        output y
        """,
    "a reduction that leaves nothing to transpose": """
        input x: float32[1,7,7,96]
        const axes: int64[2](2, 3)
        a = Relu(x)
        b = Transpose(a) {perm=(0, 3, 1, 2)}
        c = ReduceMean(b, axes) {keepdims=0}
        y = Sigmoid(c)
        output y
        """,
    "keys turned by views and two transposes": """
        input x: float32[1,128,12,64]
        const s: int64[3](12, 128, 64)
        const t: int64[4](1, 12, 64, 128)
        a = Relu(x)
        b = Transpose(a) {perm=(0, 2, 1, 3)}
        c = Reshape(b, s)
        d = Transpose(c) {perm=(0, 2, 1)}
        e = Reshape(d, t)
        y = Sigmoid(e)
        output y
        """,
    "axes split behind a transpose": """
        input x: float32[2,128,64]
        const s: int64[5](4, 32, 2, 4, 16)
        a = Relu(x)
        b = Transpose(a) {perm=(1, 0, 2)}
        c = Reshape(b, s)
        y = Sigmoid(c)
        output y
        """,
    "axes merged behind a transpose": """
        input x: float32[2,128,64]
        const s: int64[3](2, 16, 512)
        a = Relu(x)
        b = Transpose(a) {perm=(0, 2, 1)}
        c = Reshape(b, s)
        y = Sigmoid(c)
        output y
        """,
    "a view of one shape behind a transpose goes": """
        input x: float32[2,128,64]
        const s: int64[3](2, 64, 128)
        a = Relu(x)
        b = Transpose(a) {perm=(0, 2, 1)}
        c = Reshape(b, s)
        y = Sigmoid(c)
        output y
        """,
    "a factor before the transpose of a product's operand": """
        input x: float32[4,16,49]
        input z: float32[4,16,49]
        const f: float32[](0.25)
        a = Mul(x, f)
        b = Transpose(a) {perm=(0, 2, 1)}
        y = MatMul(b, z)
        output y
        """,
}
"""Ways in which exporters write the same thing."""


@pytest.mark.parametrize("text", SPELLINGS.values(), ids=SPELLINGS)
def test_exporters_spellings_fuse_as_the_runtime_does(text: str) -> None:
    graph = parse(text)
    both, extra, missing = compare(graph, graph)
    assert both
    assert (extra, missing) == (0, 0)


CONSTANTS = """
    input x: float32[1,4,8]
    input z: float32[1,4,8]
    const one: float32[](1.0)
    const half: float32[](0.5)
    const two: float32[](2.0)
    const three: float32[](3.0)
    const root2: float32[](1.4142135)
    const unroot2: float32[](0.7071068)
    const tenth: float32[](0.044715)
    const rootpi: float32[](0.7978846)
    const eps: float32[](1e-05)
    const w: float32[8]
    const b: float32[8]
    const w4: float32[4,1]
    const b4: float32[4,1]
    const last: int64[1](-1)
    const rows: int64[1](1)
    """
NORM = (
    "a = ReduceMean(r, {axis}); d = Sub(r, a); q = {square}; v = ReduceMean(q, {axis}); k = Add(v, eps); s = Sqrt(k); "
    "n = Div(d, s); m = Mul(n, {w}); t = Add(m, {b})"
)
LAST = NORM.format(axis="last", square="Pow(d, two)", w="w", b="b")
RMS = "q = {square}; v = ReduceMean(q, {axis}); k = Add(v, eps); s = Sqrt(k); n = Div(r, s); t = Mul(n, {w})"
ERF = "f = {scaled}; e = Erf(f); g = Add(e, one); "
TANH = "p = {cube}; c = Mul(tenth, p); i = Add(r, c); s = Mul(rootpi, i); h = Tanh(s); g = Add(one, h); "
WRITTEN = {
    "layer norm": LAST,
    "layer norm that subtracts twice": LAST.replace("q = Pow(d, two)", "d2 = Sub(r, a); q = Pow(d2, two)"),
    "layer norm with a product for the square": NORM.format(axis="last", square="Mul(d, d)", w="w", b="b"),
    "layer norm over rows": NORM.format(axis="rows", square="Pow(d, two)", w="w4", b="b4"),
    "layer norm without bias": LAST.replace("t = Add(m, b)", "t = Tanh(m)"),
    "rms norm": RMS.format(axis="last", square="Pow(r, two)", w="w"),
    "rms norm with a product for the square": RMS.format(axis="last", square="Mul(r, r)", w="w"),
    "rms norm by a reciprocal": RMS.format(axis="last", square="Pow(r, two)", w="w").replace(
        "n = Div(r, s)", "c = Div(one, s); n = Mul(r, c)"
    ),
    "a product with a reciprocal": "s = Exp(r); c = Div(one, s); t = Mul(c, z)",
    "rms norm over rows": RMS.format(axis="rows", square="Pow(r, two)", w="w4"),
    "rms norm with one weight for all": RMS.format(axis="last", square="Pow(r, two)", w="two"),
    "gelu": ERF.format(scaled="Div(r, root2)") + "j = Mul(r, g); t = Mul(j, half)",
    "gelu with its half first": ERF.format(scaled="Div(r, root2)") + "j = Mul(r, half); t = Mul(j, g)",
    "gelu with its half inside": ERF.format(scaled="Div(r, root2)") + "j = Mul(g, half); t = Mul(r, j)",
    "gelu with a factor for the divisor": ERF.format(scaled="Mul(r, unroot2)") + "j = Mul(r, g); t = Mul(j, half)",
    "gelu by tanh": TANH.format(cube="Pow(r, three)") + "j = Mul(half, r); t = Mul(j, g)",
    "gelu by tanh with its half last": TANH.format(cube="Pow(r, three)") + "j = Mul(g, r); t = Mul(j, half)",
    "gelu by tanh with products": (
        "p2 = Mul(r, r); " + TANH.format(cube="Mul(p2, r)") + "j = Mul(half, r); t = Mul(j, g)"
    ),
    "gelu by tanh, factored": (
        "c = Mul(r, tenth); c2 = Mul(c, r); i = Add(c2, one); f = Mul(r, rootpi); s = Mul(f, i); h = Tanh(s); "
        "g = Add(one, h); j = Mul(half, r); t = Mul(j, g)"
    ),
    "bias before a gelu": "p = Add(r, b); t = Gelu(p)",
    "sum before a layer norm": "p = Add(r, z); t = LayerNormalization(p, w, b) {axis=-1}",
    "sum before a layer norm without bias": "p = Add(r, z); t = LayerNormalization(p, w) {axis=-1}",
    "sum with a vector before a layer norm": "p = Add(r, w); t = LayerNormalization(p, w, b) {axis=-1}",
}
"""Ways to write what one operator would do, whether ONNX Runtime sees through them or not."""


@pytest.mark.parametrize("statements", WRITTEN.values(), ids=WRITTEN)
def test_what_the_runtime_sees_through_and_nothing_else_is_one_kernel(statements: str) -> None:
    graph = parse("\n".join((CONSTANTS, "r = Relu(x)", *statements.split("; "), "y = Neg(t)", "output y")))
    both, extra, missing = compare(graph, graph)
    assert both >= 3
    assert (extra, missing) == (0, 0)
