"""Quantised networks: kernels that ``fuse`` finds against what ONNX Runtime executes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from agreement import Agreement, agreement, rules_here

from nn_meter.backends.onnxruntime_cpu import OnnxRuntimeCpu
from nn_meter.errors import BackendError, UnsupportedOperatorError
from nn_meter.ir import Graph, GraphBuilder, parse
from nn_meter.kernels.kinds import KINDS
from nn_meter.networks import FAMILIES
from nn_meter.networks.quantised import PRECISIONS
from nn_meter.runtimes.executed import read_all
from nn_meter.runtimes.fusion import fuse
from nn_meter.runtimes.onnxruntime import RUNTIME

pytest.importorskip("onnxruntime")

RULES = rules_here()


def compare(graph: Graph) -> Agreement:
    return agreement(fuse(graph, RULES).kernels, OnnxRuntimeCpu().fused(graph), "onnxruntime_cpu", graph)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", ["residual_bottleneck", "inverted", "dense", "vision_transformer", "encoder"])
def test_quantised_networks_fuse_as_the_runtime_does(family: str, precision: str) -> None:
    drawn = replace(FAMILIES[family], precisions=(precision,))
    found = sum((compare(drawn(seed)) for seed in range(2)), Agreement(0, 0, 0))
    assert found.precision >= 0.95
    assert found.recall >= 0.95


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_dynamic_weights_are_of_the_type_that_is_asked_for(dtype: str) -> None:
    graph = PRECISIONS[f"dynamic_{dtype}"](FAMILIES["vision_transformer"](0))
    products = [node for node in graph.nodes if node.op_type == "MatMulInteger"]
    assert {graph.tensors[node.inputs[1]].dtype for node in products} == {dtype}
    assert {graph.tensors[node.inputs[0]].dtype for node in products} == {"uint8"}


QUANTISED = [name for name, family in FAMILIES.items() if family.precisions]


@pytest.mark.parametrize("family", QUANTISED)
def test_every_quantised_family_runs_and_its_integer_kernels_have_kinds(family: str) -> None:
    kinds: set[str] = set()
    for seed in range(8):
        graph = FAMILIES[family](seed)
        found = read_all(OnnxRuntimeCpu().fused(graph), RUNTIME, graph)
        kinds.update(each.kind for each in found)
        odd = [each.config for each in found if each.kind == "other" and "uint8" in str(each.config)]
        assert odd == []
    assert any(KINDS[kind].quantised for kind in kinds)


def test_a_fifth_of_a_build_is_quantised() -> None:
    """Half of the networks of operators are of one, in a tenth of the time."""
    takes = {name: f.weight * (0.6 if name.startswith("operators_") else 1) for name, f in FAMILIES.items()}
    share = sum(takes[name] for name in QUANTISED) / sum(takes.values())
    assert 0.2 <= share <= 0.25


def test_normalisations_are_quantised_as_the_quantiser_does_it() -> None:
    """Weights and biases have one scale each; mean and variance stay floats."""
    graph = parse(
        """
        input x: float32[1,8,6,6]
        const s: float32[8]
        const b: float32[8]
        const m: float32[8]
        const v: float32[8]
        n = BatchNormalization(x, s, b, m, v)
        y = Relu(n)
        output y
        """
    )
    written = PRECISIONS["qdq_int8_signed"](graph)
    found = Counter(node.op_type for node in written.nodes)
    assert found == {"QuantizeLinear": 2, "DequantizeLinear": 4, "BatchNormalization": 1, "Relu": 1}
    assert [written.tensors[node.inputs[0]].dtype for node in written.nodes if node.op_type == "DequantizeLinear"] == [
        *("int8", "int8", "int32", "int8")
    ]
    assert compare(written).ours == compare(written).both


@pytest.mark.parametrize("precision", ["qdq_int8_signed", "qdq_int8_signed_tensor"])
def test_signed_activations_come_with_both_kinds_of_scales(precision: str) -> None:
    """The static quantiser's default is int8, with a scale for each channel only where that is asked for."""
    graph = PRECISIONS[precision](FAMILIES["residual_bottleneck"](0))
    scales = {
        graph.tensors[node.inputs[1]].size > 1
        for node in graph.nodes
        if node.op_type == "DequantizeLinear" and len(graph.tensors[node.inputs[0]].shape) == 4
        and graph.tensors[node.inputs[0]].const
    }
    assert scales == {precision == "qdq_int8_signed"}


def residual(dtype: str) -> Graph:
    zero = -128 if dtype == "int8" else 0
    return parse(
        f"""
        input x: float32[1,8,6,6]
        const s: float32[](0.02)
        const z: {dtype}[]({zero})
        const wq: int8[8,8,1,1]
        const wz: int8[](0)
        q = QuantizeLinear(x, s, z)
        d = DequantizeLinear(q, s, z)
        w = DequantizeLinear(wq, s, wz)
        c = Conv(d, w)
        cq = QuantizeLinear(c, s, z)
        cd = DequantizeLinear(cq, s, z)
        a = Add(cd, d)
        aq = QuantizeLinear(a, s, z)
        y = DequantizeLinear(aq, s, z)
        output y
        """
    )


@pytest.mark.parametrize(("dtype", "integers"), [("uint8", True), ("int8", False)])
def test_int8_activations_that_are_read_twice_keep_their_neighbours_in_floats(dtype: str, integers: bool) -> None:
    """ONNX Runtime makes uint8 of int8 where one reader asks for it, and has no convolution of int8 on x86."""
    graph = residual(dtype)
    found = compare(graph)
    assert found.ours == found.truth == found.both
    assert ("conv_int8" in {k.kind for k in fuse(graph, RULES).kernels}) == integers


def test_a_predictor_from_before_there_were_such_kinds_reads_them_as_other() -> None:
    graph = FAMILIES["qdq_maps"](0)
    kinds = {k.kind for k in fuse(graph, RULES, known=("conv", "other")).kernels}
    assert not any(KINDS[kind].quantised for kind in kinds if kind != "free")
    assert "other" in kinds
    now = {k.kind for k in fuse(graph, RULES).kernels}
    assert "other" not in now


def test_what_the_runtime_refuses_says_what_to_do_instead() -> None:
    graph = "input x: {0}[1,8]\nconst w: {0}[8,8]\ny = MatMul(x, w)\noutput y\n"
    with pytest.raises(UnsupportedOperatorError, match=r"MatMul of bfloat16.*export it in float32"):
        fuse(parse(graph.format("bfloat16")), RULES)
    with pytest.raises(BackendError):
        OnnxRuntimeCpu().fused(parse(graph.format("bfloat16")))
    assert [k.kind for k in fuse(parse(graph.format("float32")), RULES).kernels] == ["matmul"]


def test_what_is_computed_from_dequantised_weights_is_executed() -> None:
    graph = parse(
        """
        input x: float32[1,8]
        const q: uint8[4,8]
        const i: int64[1](2)
        const s: float32[](0.02)
        const z: uint8[](128)
        w = DequantizeLinear(q, s, z)
        r = Gather(w, i) {axis=0}
        y = Add(x, r)
        output y
        """
    )
    found = compare(graph)
    assert found.ours == found.truth == found.both == 3


def test_transposes_cancel_out_through_what_works_element_by_element() -> None:
    graph = parse(
        """
        input x: float32[1,8,6,4]
        const s: float32[8]
        a = Sin(x)
        b = Transpose(a) {perm=(0, 2, 3, 1)}
        c = Mul(b, s)
        d = Relu(c)
        e = Transpose(d) {perm=(0, 3, 1, 2)}
        y = Sin(e)
        output y
        """
    )
    found = compare(graph)
    assert found.ours == found.truth == found.both == 4


def test_what_works_element_by_element_between_integer_convolutions_has_channels_last() -> None:
    graph = parse(
        """
        input x: float32[1,8,6,6]
        const s: float32[](0.02)
        const z: uint8[](0)
        const wq: int8[8,8,3,3]
        const wz: int8[](0)
        q = QuantizeLinear(x, s, z)
        d = DequantizeLinear(q, s, z)
        w = DequantizeLinear(wq, s, wz)
        c = Conv(d, w)
        cq = QuantizeLinear(c, s, z)
        cd = DequantizeLinear(cq, s, z)
        l = Log(cd)
        lq = QuantizeLinear(l, s, z)
        ld = DequantizeLinear(lq, s, z)
        e = Conv(ld, w)
        eq = QuantizeLinear(e, s, z)
        y = DequantizeLinear(eq, s, z)
        output y
        """
    )
    found = compare(graph)
    assert found.ours == found.truth == found.both


def convolutions(space: tuple[int, ...], tail: str) -> Graph:
    """Two convolutions of integers with something between them, over so many axes of space."""
    ones, rank = ",".join(["1"] * 2 * len(space)), ",".join(map(str, space))
    kernel = ",".join(["3"] * len(space))
    return parse(
        f"""
        input x: uint8[1,16,{rank}]
        const s: float32[](0.02)
        const z: uint8[](128)
        const v: int8[](0)
        const w: int8[16,16,{kernel}]
        a = QLinearConv(x, s, z, w, s, v, s, z) {{pads=({ones})}}
        {tail}
        output c
        """
    )


TAIL = {
    "another": "c = QLinearConv(a, s, z, w, s, v, s, z)",
    "maximum": "c = MaxPool(a) {{kernel_shape={kernel}}}",
    "maximum and joined": "b = MaxPool(a) {{kernel_shape={kernel}}}\n"
    "c = com.microsoft::QLinearConcat(s, z, b, s, z, b, s, z) {{axis=1}}",
}


@pytest.mark.parametrize("space", [(40,), (12, 12), (6, 6, 6)])
@pytest.mark.parametrize("tail", TAIL)
def test_convolutions_of_integers_have_channels_last_whatever_their_rank(tail: str, space: tuple[int, ...]) -> None:
    kernel = f"({', '.join(['2'] * len(space))},)" if len(space) == 1 else str((2,) * len(space))
    graph = convolutions(space, TAIL[tail].format(kernel=kernel))
    found = compare(graph)
    assert found.ours == found.truth == found.both


@pytest.mark.parametrize("block", [16, 32])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("product", ["MatMul", "Gemm"])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_weights_in_blocks_stay_packed_where_they_lie_along_the_rows(
    dtype: str, product: str, axis: int, block: int
) -> None:
    b = GraphBuilder()
    scales = (64 // block, 64) if axis == 0 else (64, 64 // block)
    operands = [b.weight((64, 64), dtype), b.weight(scales), *([b.weight(scales, dtype)] if dtype == "uint8" else [])]
    weights = b.op("DequantizeLinear", *operands, axis=axis, block_size=block)
    found = compare(b.graph(b.op(product, b.input((4, 64)), weights)))
    assert found.ours == found.truth == found.both == 2 - (axis == 0)


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("product", ["MatMul", "Gemm"])
@pytest.mark.parametrize(("scales", "axis"), [((), 1), ((1,), 1), ((40,), 1), ((40,), -1), ((100,), 0)])
def test_weights_that_are_scaled_whole_or_by_columns_stay_packed(
    scales: tuple[int, ...], axis: int, product: str, dtype: str, zero: bool
) -> None:
    b = GraphBuilder()
    operands = [b.weight((100, 40), dtype), b.weight(scales), *([b.weight(scales, dtype)] if zero else [])]
    weights = b.op("DequantizeLinear", *operands, axis=axis)
    found = compare(b.graph(b.op(product, b.input((4, 100)), weights)))
    assert found.ours == found.truth == found.both == (1 if axis == 1 and scales != (1,) else 2)


@pytest.mark.parametrize("bias", [(40,), (1, 40), (1, 1, 40), (4, 1)])
@pytest.mark.parametrize("lead", [(4,), (1, 4), (2, 3, 4)])
@pytest.mark.parametrize("dtype", ["int4", "uint4", "int8"])
def test_a_bias_behind_packed_weights_is_theirs_between_views_of_a_matrix(
    dtype: str, lead: tuple[int, ...], bias: tuple[int, ...]
) -> None:
    b = GraphBuilder()
    weights = b.op("DequantizeLinear", b.weight((64, 40), dtype), b.weight((2, 40)), axis=0, block_size=32)
    product = b.op("MatMul", b.input((*lead, 64)), weights)
    found = compare(b.graph(b.op("Relu", b.op("Add", product, b.weight(bias)))))
    assert found.ours == found.truth == found.both


@pytest.mark.parametrize("bias_scale", [2e-4, 3e-4])
def test_a_convolution_whose_bias_is_of_another_scale_stays_one_of_floats(bias_scale: float) -> None:
    """As a bias is that two share in a file."""
    b = GraphBuilder()

    def floats(q: str, scale: float, dtype: str) -> str:
        return b.op("DequantizeLinear", q, b.const(scale, "float32"), b.const(0, dtype))

    ends = b.const(0.05, "float32"), b.const(0, "uint8")
    x = b.op("DequantizeLinear", b.op("QuantizeLinear", b.input((1, 16, 8, 8)), *ends), *ends)
    weights = floats(b.weight((32, 16, 3, 3), "int8"), 0.004, "int8")
    y = b.op("Conv", x, weights, floats(b.weight((32,), "int32"), bias_scale, "int32"), kernel_shape=(3, 3))
    graph = b.graph(b.op("DequantizeLinear", b.op("QuantizeLinear", y, *ends), *ends))
    found = compare(graph)
    assert found.ours == found.truth == found.both
    kinds = {kernel.kind for kernel in fuse(graph, RULES).kernels}
    assert ("conv_int8" in kinds) == (bias_scale == 2e-4)


def test_weights_beside_activations_of_16_bits_stay_packed() -> None:
    b = GraphBuilder()
    ends = b.const(0.05, "float32"), b.const(0, "uint16")
    x = b.op("DequantizeLinear", b.op("QuantizeLinear", b.input((4, 64)), *ends), *ends)
    weights = b.op("DequantizeLinear", b.weight((64, 40), "int8"), b.const(0.02, "float32"), b.const(0, "int8"))
    y = b.op("QuantizeLinear", b.op("MatMul", x, weights), *ends)
    found = compare(b.graph(b.op("DequantizeLinear", y, *ends)))
    assert found.ours == found.truth == found.both


class Quantised(GraphBuilder):
    """Changes between floats and integers of one scale."""

    def integers(self, x: str, dtype: str = "uint8") -> str:
        return self.op("QuantizeLinear", x, self.const(0.05, "float32"), self.const(0, dtype))

    def floats(self, x: str, dtype: str = "uint8", scale: float = 0.05) -> str:
        return self.op("DequantizeLinear", x, self.const(scale, "float32"), self.const(0, dtype))

    def both(self, x: str) -> str:
        return self.floats(self.integers(x))

    def weights(self, *shape: int) -> str:
        return self.floats(self.weight(shape, "int8"), "int8", 0.004)


def _convolution(b: Quantised, weights: str, bias: bool, after: str) -> Graph:
    operands = [b.both(b.input((1, 16, 8, 8))), weights, *([b.weight((32,))] if bias else [])]
    y = b.op("Conv", *operands, kernel_shape=(3, 3))
    return b.graph(b.both(b.op(after, y) if after else y))


@pytest.mark.parametrize("after", ["", "Relu"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("quantised", [True, False])
def test_weights_and_biases_that_a_file_holds_as_floats_become_integers(
    quantised: bool, bias: bool, after: str
) -> None:
    """A network whose activations alone were quantised was predicted as one of floats."""
    b = Quantised()
    shape = (32, 16, 3, 3)
    graph = _convolution(b, b.weights(*shape) if quantised else b.weight(shape), bias, after)
    found = compare(graph)
    assert found.ours == found.truth == found.both
    assert "conv_int8" in {kernel.kind for kernel in fuse(graph, RULES).kernels}


def _read_as(b: Quantised, y: str, result: str) -> Graph:
    integers = [b.both(y)] if result != "floats" else []
    return b.graph(*integers, *([b.op("Relu", y)] if result != "integers" else []))


@pytest.mark.parametrize("result", ["integers", "floats", "both"])
@pytest.mark.parametrize("lead", [(4,), (1, 4)])
def test_a_product_with_a_bias_of_floats_is_of_integers_where_integers_come_of_it(
    lead: tuple[int, ...], result: str
) -> None:
    b = Quantised()
    y = b.op("Add", b.op("MatMul", b.both(b.input((*lead, 64))), b.weights(64, 40)), b.weight((40,)))
    graph = _read_as(b, y, result)
    found = compare(graph)
    assert found.ours == found.truth == found.both
    assert ("matmul_int8" in {kernel.kind for kernel in fuse(graph, RULES).kernels}) == (result == "integers")


@pytest.mark.parametrize("result", ["integers", "floats", "both"])
def test_a_product_that_is_read_as_floats_and_as_integers_is_of_floats(result: str) -> None:
    b = Quantised()
    y = b.op("MatMul", b.both(b.input((4, 64))), b.weights(64, 40))
    found = compare(_read_as(b, y, result))
    assert found.ours == found.truth == found.both


MOVES = {
    "Transpose": lambda b, x: b.op("Transpose", x, perm=(0, 2, 3, 1)),
    "Reshape": lambda b, x: b.op("Reshape", x, b.const((16, 64))),
    "MaxPool": lambda b, x: b.op("MaxPool", x, kernel_shape=(2, 2), strides=(2, 2)),
    "two": lambda b, x: b.op("Transpose", b.op("Reshape", x, b.const((16, 64))), perm=(1, 0)),
    "Slice": lambda b, x: b.op("Slice", x, b.const((0,)), b.const((8,)), b.const((1,))),
}


@pytest.mark.parametrize("place", ["behind integers", "before integers", "a result", "beside another"])
@pytest.mark.parametrize("move", MOVES)
def test_what_only_moves_numbers_moves_integers(move: str, place: str) -> None:
    b = Quantised()
    x = b.input((1, 16, 8, 8))
    if place == "before integers":
        graph = b.graph(b.both(MOVES[move](b, b.op("Erf", x))))
    elif place == "behind integers":
        graph = b.graph(b.op("Erf", MOVES[move](b, b.both(x))))
    elif place == "a result":
        graph = b.graph(MOVES[move](b, b.both(x)))
    else:
        quantised = b.both(x)
        graph = b.graph(b.op("Erf", MOVES[move](b, quantised)), b.op("Exp", quantised))
    found = compare(graph)
    assert found.ours == found.truth == found.both


def test_parts_of_a_transposed_tensor_of_integers_are_one_split_behind_it() -> None:
    """As attention of vision transformers takes queries, keys and values apart."""
    b = Quantised()
    x = b.both(b.op("Transpose", b.both(b.input((1, 16, 3, 4, 8))), perm=(2, 0, 3, 1, 4)))
    q, k, v = (b.both(b.op("Gather", x, b.const(i), axis=0)) for i in range(3))
    scores = b.both(b.op("MatMul", q, b.both(b.op("Transpose", k, perm=(0, 1, 3, 2)))))
    found = compare(b.graph(b.both(b.op("MatMul", scores, v))))
    assert found.ours == found.truth == found.both


def test_weights_that_one_operator_reads_twice_are_made_floats_twice() -> None:
    """As of a normalisation whose mean is its bias, which files with random weights share."""
    b = Quantised()
    scale, bias = b.weights(16), b.weights(16)
    y = b.op("BatchNormalization", b.op("Relu", b.input((1, 16, 8, 8))), scale, bias, bias, scale)
    found = compare(b.graph(y))
    assert found.ours == found.truth == found.both == 6


PAIRS = {  # of scale and zero point, what stands between the two, how many kernels are executed
    "ranges that overlap": (((0.02, 128), (0.01, 0)), "", 5),
    "ranges that are one": (((0.02, 128), (0.02, 128)), "", 5),
    "a Clip that changes nothing": (((0.02, 0), (0.02, 0)), "Clip", 6),
    "a Clip that the second pair makes idle": (((0.02, 128), (0.01, 0)), "Clip", 8),
    "a Relu that changes nothing": (((0.02, 0), (0.02, 0)), "Relu", 6),
    "a Relu that changes something": (((0.02, 128), (0.02, 128)), "Relu", None),
}


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("between", PAIRS)
def test_what_is_quantised_twice_is_quantised_once_as_the_runtime_does(between: str, dtype: str) -> None:
    """Quantisers write two pairs where they keep an activation (QDQKeepRemovableActivations) or quantise convolutions
    alone."""
    ends, op_type, kernels = PAIRS[between]
    b = GraphBuilder()
    offset = 0 if dtype == "uint8" else -128
    weights = b.op("DequantizeLinear", b.weight((8, 8, 1, 1), "int8"), b.const(0.02, "float32"), b.const(0, "int8"))

    def pair(x: str, scale: float, zero: int) -> str:
        held = b.const(scale, "float32"), b.const(zero + offset, dtype)
        return b.op("DequantizeLinear", b.op("QuantizeLinear", x, *held), *held)

    x = b.input((1, 8, 6, 6))
    if op_type:
        x = pair(b.op("Conv", pair(x, 0.03, 0), weights), *ends[0])
        x = b.op(op_type, x, *([b.const(0.0, "float32"), b.const(6.0, "float32")] if op_type == "Clip" else []))
    else:
        x = pair(x, *ends[0])
    y = pair(b.op("Conv", pair(x, *ends[1]), weights), 0.04, 0)
    found = compare(b.graph(y))
    assert found.ours == found.truth == found.both
    assert kernels in (found.ours, None)
