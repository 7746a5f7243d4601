"""Sizes that a file leaves free: what ONNX Runtime executes of it as it is, here and now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

from nn_meter.backends.onnx_writer import as_bytes, with_random_weights
from nn_meter.frontends.onnx import read
from nn_meter.ir import Graph
from nn_meter.kernels.rules import read_rules
from nn_meter.runtimes.fusion import fuse
from nn_meter.runtimes.structures import Structures

pytest.importorskip("onnxruntime")
from agreement import agreement, differing

from nn_meter.backends.onnxruntime_cpu import OnnxRuntimeCpu

CONSTANTS = """
    int64 i0 = {0}, int64 i1 = {1}, int64 i2 = {2}, int64[1] n0 = {0}, int64[1] n1 = {1}, int64[1] n2 = {2},
    int64[1] heads = {4}, int64[1] wide = {16}, int64[1] half = {32}, int64[1] rest = {-1},
    int64[3] none = {-1, -1, -1}, int64[3] ones = {1, 1, 1}, float[1] one = {1.0}
"""
SIZES = "s = Shape(x) g0 = Gather(s, i0) b = Unsqueeze(g0, n0) g1 = Gather(s, i1) t = Unsqueeze(g1, n0)"
RULES = read_rules({"runtime": "onnxruntime"})


def _model(
    text: str, inputs: str = "float[batch, tokens, 64] x", opset: int = 17, **weights: Sequence[int]
) -> ModelProto:
    """A model of nodes in the text form of ``onnx``, whose result is ``y``, with weights of these shapes."""
    head = f'<ir_version: 8, opset_import: ["": {opset}]> g ({inputs}) => (float y) <{CONSTANTS}>'
    proto: ModelProto = parser.parse_model(f"{head} {{ {text} }}")
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    dice = np.random.default_rng(0)
    for name, shape in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(dice.random(shape, np.float32), name))
    return proto


def _agrees(model: ModelProto, **shapes: Sequence[int]) -> Graph:
    """The graph of a model; what its free sizes become is executed as it is predicted."""
    given = shapes or {"x": (2, 6, 64)}
    graph = read(model, input_shapes=given)
    executed = OnnxRuntimeCpu().fused(as_bytes(with_random_weights(model, input_shapes=given, fixed=False)))
    kernels = fuse(graph, RULES).kernels
    assert sorted(node for kernel in kernels for node in kernel.nodes) == sorted(node.name for node in graph.nodes)
    assert differing(kernels, executed, "onnxruntime", graph) == []
    assert agreement(kernels, executed, "onnxruntime", graph).ours > 0
    return graph


def _labels(graph: Graph) -> list[str]:
    return [kernel.label for kernel in fuse(graph, RULES).kernels if not kernel.free]


TARGETS = {
    "own sizes": "r = Relu(x) k = Concat<axis = 0>(b, t, heads, wide) v = Reshape(r, k) y = Relu(v)",
    "own sizes and the rest": "r = Relu(x) k = Concat<axis = 0>(b, t, heads, rest) v = Reshape(r, k) y = Relu(v)",
    "sizes in other places": "r = Relu(x) k = Concat<axis = 0>(t, b, heads, wide) v = Reshape(r, k) y = Relu(v)",
    "one of another place": "r = Relu(x) k = Concat<axis = 0>(t, heads, half) v = Reshape(r, k) y = Relu(v)",
    "a product of sizes": """
        r = Relu(x) m = Mul(g0, g1) u = Unsqueeze(m, n0) k = Concat<axis = 0>(u, heads, wide) v = Reshape(r, k)
        y = Relu(v)""",
    "a target for two": """
        r = Relu(x) q = Sin(x) k = Concat<axis = 0>(b, t, heads, wide) v = Reshape(r, k) w = Reshape(q, k)
        y = Add(v, w)""",
    "two equal targets": """
        r = Relu(x) q = Sin(x) k = Concat<axis = 0>(b, t, heads, wide) l = Concat<axis = 0>(b, t, heads, wide)
        v = Reshape(r, k) w = Reshape(q, l) y = Add(v, w)""",
    "what is known of the result": """
        r = Relu(x) k = Concat<axis = 0>(b, t, heads, wide) v = Reshape(r, k) s2 = Shape(v) g2 = Gather(s2, i2)
        u = Unsqueeze(g2, n0) e = Concat<axis = 0>(u, u) f = Relu(v) h = Gather<axis = 2>(f, i0) w = Expand(one, e)
        z = ReduceSum(w) y = Add(h, z)""",
    "a mask": """
        r = Relu(x) k = Concat<axis = 0>(b, t, n1) e = Equal(k, none) w = Where(e, ones, k) m = Expand(one, w)
        y = Add(r, m)""",
    "views of what is counted": """
        r = Relu(x) a = Range(i0, g1, i1) c = Unsqueeze(a, n1) d = Unsqueeze(c, n0) f = Cast<to = 1>(d)
        y = Add(r, f)""",
    "the shape of what is turned": """
        r = Relu(x) k = Concat<axis = 0>(b, t, heads, wide) v = Reshape(r, k) p = Transpose<perm = [0, 2, 1, 3]>(v)
        s2 = Shape(p) h = Gather(s2, i2) f = Cast<to = 1>(h) c = Mul(p, f) y = Transpose<perm = [0, 2, 1, 3]>(c)""",
    "parts of a shape": """
        r = Relu(x) c0 = Slice(s, n0, n1, n0) c1 = Slice(s, n1, n2, n0) k = Concat<axis = 0>(c1, c0, rest)
        v = Reshape(r, k) y = Relu(v)""",
}  # fmt: skip


@pytest.mark.parametrize("text", TARGETS.values(), ids=TARGETS)
def test_shapes_are_computed_where_their_sizes_are_free(text: str) -> None:
    """And are constants where they are put together of what is reshaped."""
    graph = _agrees(_model(f"{SIZES} {text}"))
    assert not graph.tensors["y"].const


def test_a_weight_that_is_reshaped_to_a_constant_is_known_and_so_is_its_shape() -> None:
    """A size of another place is the rest."""
    text = """g2 = Gather(s, i2) u = Unsqueeze(g2, n0) k = Concat<axis = 0>(n1, u) v = Reshape(c, k)
        q = Transpose<perm = [1, 0]>(v) s2 = Shape(q) h = Gather(s2, i0) f = Cast<to = 1>(h) r = Relu(x)
        y = Mul(r, f)"""
    assert _labels(_agrees(_model(f"s = Shape(x) {text}", c=(64,)))) == ["Relu", "Mul"]


def test_a_multiple_of_a_size_is_not_that_size() -> None:
    """Rows that are counted by -1 have no name."""
    text = """r = Relu(x) k = Concat<axis = 0>(rest, heads, wide) v = Reshape(r, k) s = Shape(v) g = Gather(s, i0)
        u = Unsqueeze(g, n0) l = Concat<axis = 0>(u, rest, half) w = Reshape(r, l) f = Flatten(w) h = Flatten(v)
        y = Add(f, h)"""
    assert "Concat" in _labels(_agrees(_model(text, "float[batch, 6, 64] x")))


def test_a_shape_of_sizes_that_are_all_known_is_folded() -> None:
    """Whatever the file leaves free of another input."""
    text = "s = Shape(z) w = Expand(one, s) q = ReduceSum(w) r = Relu(x) y = Add(r, q)"
    graph = _agrees(_model(text, "float[batch, 8] x, float[3, 5] z"), x=(2, 8), z=(3, 5))
    assert "Shape" not in _labels(graph)


@pytest.mark.parametrize("inputs", ["float[batch, 6, 64] x", "float[2, tokens, 64] x", "float[2, 6, 64] x"])
def test_a_product_with_a_bias_is_a_gemm_where_its_rows_are_known(inputs: str) -> None:
    """Rows are batch and tokens together."""
    model = _model("p = MatMul(x, w) a = Add(p, c) y = Relu(a)", inputs, w=(64, 32), c=(32,))
    assert ("Gemm" in _labels(_agrees(model))) == (inputs == "float[2, 6, 64] x")


@pytest.mark.parametrize("inputs", ["float[batch, tokens, 64] x", "float[2, 6, 64] x"])
@pytest.mark.parametrize("weights", [(64, 32), (6, 64, 32)])
def test_a_batch_is_brought_to_the_front_by_a_product_of_batches_alone(inputs: str, weights: Sequence[int]) -> None:
    """Of a matrix there is none."""
    _agrees(_model("r = Relu(x) t = Transpose<perm = [1, 0, 2]>(r) p = MatMul(t, w) y = Relu(p)", inputs, w=weights))


@pytest.mark.parametrize("batch", ["batch", "2"])
def test_a_softmax_over_several_axes_knows_what_it_reads(batch: str) -> None:
    """It is read as one over the rows of a matrix, whose size no file states."""
    model = _model(
        "m = Softmax<axis = 1>(x) p = MatMul(m, w) a = Add(p, c) y = Relu(a)",
        f"float[{batch}, 6, 64] x", opset=11, w=(64, 32), c=(32,),
    )  # fmt: skip
    assert ("Gemm" in _labels(_agrees(model))) == (batch == "2")


@pytest.mark.parametrize("bias", ["a = Add(p, c) q = Add(a, r)", "a = Add(c, p) q = Add(r, a)", "q = Add(p, r)"])
@pytest.mark.parametrize("inputs", ["float[batch, tokens, 64] x", "float[batch, 6, 64] x", "float[2, 6, 64] x"])
def test_a_sum_goes_into_the_normalisation_behind_it_where_it_is_of_one_shape(bias: str, inputs: str) -> None:
    """A size that has a name is one, and the bias of a summand goes in, too."""
    text = f"r = Relu(x) p = MatMul(r, w) {bias} n = LayerNormalization(q, g, h) y = Relu(n)"
    _agrees(_model(text, inputs, w=(64, 64), c=(64,), g=(64,), h=(64,)))


CONVOLUTIONS = {
    "on the input": "a = Conv<pads = [1, 1, 1, 1]>(x, k) c = Conv(x, l) s = Add(a, c) y = Relu(s)",
    "on what is blocked": """
        h = Conv<pads = [1, 1, 1, 1]>(x, k) r = Relu(h) a = Conv<pads = [1, 1, 1, 1]>(r, m)
        s = Add(a, r) y = Relu(s)""",
    "halved twice": """
        h = Conv<pads = [1, 1, 1, 1]>(x, k) r = Relu(h) a = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(r, m)
        c = Conv<strides = [2, 2]>(r, n) s = Add(a, c) y = Relu(s)""",
    "without its edge": """
        h = Conv(x, k) r = Relu(h) a = Conv<pads = [0, 0, 1, 1], kernel_shape = [3, 3]>(r, m)
        c = Conv<pads = [0, 0, 1, 1], kernel_shape = [3, 3]>(r, m2) s = Add(a, c) y = Relu(s)""",
    "behind a pool": """
        h = Conv<pads = [1, 1, 1, 1]>(x, k) p = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]>(h)
        a = Conv(p, n) s = Add(a, p) y = Sigmoid(s)""",
}  # fmt: skip


@pytest.mark.parametrize("text", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_what_is_added_to_a_convolution_goes_into_it_where_both_are_known_to_be_as_large(text: str) -> None:
    """Else blocks are added between views."""
    weights = {"k": (32, 3, 3, 3), "l": (32, 3, 1, 1), "m": (32, 32, 3, 3), "m2": (32, 32, 3, 3), "n": (32, 32, 1, 1)}
    used = {name: shape for name, shape in weights.items() if f", {name})" in text}
    _agrees(_model(text, "float[batch, 3, height, width] x", **used), x=(1, 3, 20, 20))
    _agrees(_model(text, "float[batch, 3, 20, 20] x", **used), x=(1, 3, 20, 20))


def test_what_the_file_states_of_a_result_is_known() -> None:
    """Exporters write sizes that nothing else says."""
    text = """r = Relu(x) k = Concat<axis = 0>(t, b, wide, heads) v = Reshape(r, k) p = MatMul(v, w) a = Add(p, c)
        y = Relu(a)"""
    model = _model(f"{SIZES} {text}", "float[2, tokens, 64] x", w=(4, 8), c=(8,))
    assert "Gemm" not in _labels(_agrees(model))
    model.graph.value_info.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, (6, 2, 16, 4)))
    assert "Gemm" in _labels(_agrees(model))


@pytest.mark.parametrize("runtime", ["openvino", "litert", "ncnn", "mnn"])
def test_a_runtime_that_is_told_sizes_before_does_not_compute_them(runtime: str) -> None:
    """It makes of the file what it makes of one with these sizes, and the answer says so."""
    model = _model(f"{SIZES} {TARGETS['sizes in other places']}")
    free = read(model, input_shapes={"x": (2, 6, 64)})
    rules = read_rules({"runtime": runtime})
    found, fixed = fuse(free, rules), fuse(replace(free, stated=MappingProxyType({})), rules)
    assert found.kernels == fixed.kernels
    assert [note for note in found.notes if "as if they were fixed" in note]
    assert not fixed.notes


def test_files_that_leave_sizes_free_are_not_taken_for_such_as_do_not() -> None:
    """Whichever of them comes first."""
    model = _model(f"{SIZES} {TARGETS['sizes in other places']}")
    free = read(model, input_shapes={"x": (2, 6, 64)})
    fixed = replace(free, stated=MappingProxyType({}))

    def kernels(graph: Graph) -> list[tuple[str, object]]:
        return [(each.kind, each.config) for each in fuse(graph, RULES).kernels if not each.free]

    known = Structures(kernels, lambda kind, config: (kind, config))
    for _ in range(3):
        assert known.items(fixed) == kernels(fixed)
        assert known.items(free) == kernels(free)
    assert kernels(fixed) != kernels(free)
