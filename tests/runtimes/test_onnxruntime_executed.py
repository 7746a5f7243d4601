"""Small graphs become the operators that ONNX Runtime executes of them, here and now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from agreement import rules_here
from onnx import TensorProto, helper, parser

from nn_meter.frontends.onnx import read
from nn_meter.ir import Attr, Graph, GraphBuilder
from nn_meter.kernels.kinds.movement import CopyConfig
from nn_meter.kernels.kinds.places import PlacesConfig
from nn_meter.kernels.rules import read_rules
from nn_meter.runtimes import find
from nn_meter.runtimes.executed import read_all
from nn_meter.runtimes.fusion import fuse

pytest.importorskip("onnxruntime")
from nn_meter.backends.onnxruntime_cpu import OnnxRuntimeCpu

Make = Callable[[GraphBuilder], str]
MAP = (1, 64, 28, 28)
MICROSOFT = "com.microsoft"


def _between(*ops: tuple[object, ...]) -> Make:
    """Operators one behind the other, each with its further operands as constants, between two that stay."""

    def make(b: GraphBuilder) -> str:
        x = b.op("Relu", b.input((8, 64)))
        for op_type, *operands in ops:
            attrs = operands.pop() if operands and isinstance(operands[-1], dict) else {}
            held = [each if isinstance(each, str) else _const(b, each) for each in operands]
            x = b.op(str(op_type), x, *held, **attrs)
        return b.op("Neg", x)

    return make


def _const(b: GraphBuilder, value: object) -> str:
    return b.const(value, "float32" if isinstance(value, float) else "int64")  # type: ignore[arg-type]


def _on_an_input(b: GraphBuilder) -> str:
    return b.op("Relu", b.op("Mul", b.input((8, 64)), b.const(1.0, "float32")))


def _normed(scale: tuple[int, ...], bias: tuple[int, ...]) -> Make:
    def make(b: GraphBuilder) -> str:
        x = b.input((1, 8, 64))
        axes = b.const((-1,))
        d = b.op("Sub", x, b.op("ReduceMean", x, axes))
        v = b.op("ReduceMean", b.op("Pow", d, b.const(2.0, "float32")), axes)
        n = b.op("Div", d, b.op("Sqrt", b.op("Add", v, b.const(1e-6, "float32"))))
        return b.op("Add", b.op("Mul", n, b.weight(scale)), b.weight(bias))

    return make


def _products(b: GraphBuilder) -> str:
    x = b.input((1, 8, 64))
    for _ in range(2):
        x = b.op("Add", b.op("MatMul", x, b.weight((64, 64))), b.weight((64,)))
    return b.op("Relu", x)


def _heads(shape: tuple[int, ...]) -> Make:
    def make(b: GraphBuilder) -> str:
        x = b.op("Add", b.op("MatMul", b.input((1, 8, 64)), b.weight((64, 64))), b.weight((64,)))
        return b.op("Transpose", b.op("Reshape", x, b.const(shape)), perm=(0, 2, 1, 3))

    return make


def _conv(b: GraphBuilder, x: str) -> str:
    return b.op("Conv", x, b.weight((64, 64, 3, 3)), pads=(1, 1, 1, 1))


def _between_convolutions(make: Callable[[GraphBuilder, str], str]) -> Make:
    return lambda b: _conv(b, make(b, _conv(b, b.input(MAP))))


def _tanh_gelu(b: GraphBuilder, x: str) -> str:
    cube = b.op("Mul", b.op("Pow", x, b.const(3.0, "float32")), b.const(0.044715, "float32"))
    t = b.op("Tanh", b.op("Mul", b.op("Add", x, cube), b.const(0.7978845608, "float32")))
    return b.op("Mul", b.op("Mul", x, b.const(0.5, "float32")), b.op("Add", t, b.const(1.0, "float32")))


def _added_to_a_gate(b: GraphBuilder, x: str) -> str:
    gate = b.op("Conv", b.op("GlobalAveragePool", x), b.weight((64, 64, 1, 1)))
    return b.op("Add", x, gate)


def _padded(*value: str) -> Make:
    def make(b: GraphBuilder) -> str:
        x = b.op("Pad", b.op("Relu", b.input(MAP)), b.const((0, 0, 0, 0, 0, 0, 1, 1)), *value)
        return b.op("Conv", x, b.weight((64, 64, 2, 2)))

    return make


def _attention(b: GraphBuilder) -> str:
    """Three products of a normalised value, and one whose result is added to it; views with an open dimension."""
    norm = b.op("LayerNormalization", b.input((1, 8, 64)), b.weight((64,)), b.weight((64,)))
    parts = []
    for _ in range(3):
        y = b.op("Add", b.op("MatMul", norm, b.weight((64, 64))), b.weight((64,)))
        parts.append(b.op("Transpose", b.op("Reshape", y, b.const((1, -1, 4, 16))), perm=(0, 2, 1, 3)))
    q, k, v = parts
    y = b.op("MatMul", b.op("Softmax", b.op("MatMul", q, b.op("Transpose", k, perm=(0, 1, 3, 2)))), v)
    y = b.op("Reshape", b.op("Transpose", y, perm=(0, 2, 1, 3)), b.const((1, -1, 64)))
    y = b.op("Add", b.op("MatMul", y, b.weight((64, 64))), b.weight((64,)))
    return b.op("Relu", b.op("Add", y, norm))


def _parts(b: GraphBuilder, x: str, size: int, axis: int) -> list[str]:
    return _cut(b, x, axis, (0, size), (size, 2 * size), (2 * size, 3 * size))


def _cut(b: GraphBuilder, x: str, axis: int, *ends: tuple[int, int]) -> list[str]:
    return [b.op("Slice", x, b.const((s,)), b.const((e,)), b.const((axis,))) for s, e in ends]


def _turned_parts(b: GraphBuilder) -> str:
    """Of three slices of a transposed value one is transposed again: it is cut from what was not transposed."""
    x = b.op("Transpose", b.op("Relu", b.input((1, 2, 96, 49))), perm=(0, 1, 3, 2))
    q, k, v = _parts(b, x, 32, 3)
    scores = b.op("MatMul", b.op("Relu", q), b.op("Transpose", k, perm=(0, 1, 3, 2)))
    return b.op("MatMul", b.op("Softmax", scores), v)


def _parts_of_a_part(b: GraphBuilder) -> str:
    """Slices of one output of several stay slices."""
    x = b.multi("Split", (b.op("Relu", b.input((1, 64, 6))), b.const((32, 32))), 2, axis=1)
    first, *rest = _parts(b, x[0], 2, 2)
    for each in rest:
        first = b.op("Mul", first, each)
    return b.op("MatMul", x[1], b.op("Transpose", b.op("Concat", first, first, first, axis=2), perm=(0, 2, 1)))


def _halves_of_a_part(b: GraphBuilder) -> str:
    """As what is turned by its place is cut, of all tokens but the first."""
    first, rest = _cut(b, b.op("Neg", b.input((1, 8, 17, 64))), 2, (0, 1), (1, 17))
    left, right = _cut(b, rest, 3, (0, 32), (32, 64))
    return b.op("Concat", first, b.op("Concat", b.op("Neg", right), left, axis=3), axis=2)


def _keys_turned_back(b: GraphBuilder) -> str:
    """Positions last, as a convolution leaves them: the transposes of the keys cancel out, the others stay."""
    x = b.op("Transpose", b.op("Relu", b.input((1, 3, 6, 64, 196))), perm=(1, 0, 2, 4, 3))
    q, k, v = (b.op("Squeeze", part, b.const((0,))) for part in b.multi("Split", (x, b.const((1, 1, 1))), 3, axis=0))
    return b.op("MatMul", b.op("Softmax", b.op("MatMul", q, b.op("Transpose", k, perm=(0, 1, 3, 2)))), v)


def _masked(b: GraphBuilder) -> str:
    kept, mask = b.multi("Dropout", (b.input((8, 64)),), 2)
    return b.op("Mul", kept, b.op("Cast", mask, to=1))


def _padded_and_pooled(b: GraphBuilder) -> str:
    """A Transpose moves behind a padding, since behind the pooling there is another one."""
    x = b.op("Transpose", b.op("Relu", b.input((1, 28, 28, 64))), perm=(0, 3, 1, 2))
    x = b.op("Pad", x, b.const((0, 0, 0, 0, 0, 0, 1, 1)), b.const(-1e9, "float32"))
    x = b.op("MaxPool", x, kernel_shape=(3, 3), strides=(2, 2))
    return b.op("Softmax", b.op("Transpose", x, perm=(0, 2, 3, 1)))


def _mean_beside_all(b: GraphBuilder) -> str:
    x = b.op("Transpose", b.op("Relu", b.input((1, 64, 49))), perm=(0, 2, 1))
    mean = b.op("ReduceMean", x, b.const((1,)), keepdims=1)
    return b.op("MatMul", b.op("Concat", mean, x, axis=1), b.weight((64, 32)))


def _channels_last(b: GraphBuilder) -> str:
    """As TensorFlow's exporter writes it: factor, bias and activation between transposes that cancel out."""
    x = b.input((1, 28, 28, 64))
    for _ in range(2):
        y = _conv(b, b.op("Transpose", x, perm=(0, 3, 1, 2)))
        y = b.op("Transpose", y, perm=(0, 2, 3, 1))
        x = b.op("Relu", b.op("Add", b.op("Mul", y, b.weight((64,))), b.weight((64,))))
    return x


def _fused_conv(activation: str, channels: int, summed: bool = False) -> Make:
    """As a file has it that a runtime has written."""

    def make(b: GraphBuilder) -> str:
        x = b.op("Neg", b.input((1, channels, 28, 28)))
        operands = (x, b.weight((64, channels, 3, 3)), b.weight((64,)), *((b.input(MAP),) if summed else ()))
        attrs = {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)}
        return b.op("FusedConv", *operands, domain=MICROSOFT, activation=activation, **attrs)

    return make


def _fused_gemm(b: GraphBuilder) -> str:
    operands = b.input((4, 64)), b.weight((32, 64)), b.weight((32,))
    return b.op("FusedGemm", *operands, domain=MICROSOFT, activation="Relu", transB=1)


def _quantised_maxima(opset: int) -> Make:
    """Between conversions of one scale; before opset 12 there are maxima of floats alone."""

    def make(b: GraphBuilder) -> str:
        ends = b.const(0.02, "float32"), b.const(128, "uint8")

        def there_and_back(x: str) -> str:
            return b.op("DequantizeLinear", b.op("QuantizeLinear", x, *ends), *ends)

        attrs: dict[str, Attr] = {"opset": opset} if opset < 12 else {}
        x = b.op("MaxPool", there_and_back(b.input(MAP)), kernel_shape=(2, 2), strides=(2, 2), **attrs)
        return there_and_back(x)

    return make


TYPES = {
    "float16": 10, "float32": 1, "float64": 11, "int8": 3, "uint8": 2, "int32": 6, "int64": 7, "bool": 9,
}  # fmt: skip


@pytest.mark.parametrize("first", TYPES)
def test_casts_behind_each_other_are_one_where_the_runtime_makes_them_one(first: str) -> None:
    """Over each other type to each, in one graph; the last is read, or a result of the model."""
    b = GraphBuilder()
    results = []
    for between in sorted(TYPES.keys() - {first}):
        for last in sorted(TYPES.keys() - {between}):
            y = b.op("Cast", b.op("Cast", b.input((8, 64), first), to=TYPES[between]), to=TYPES[last])
            results.append(b.op("Transpose", y, perm=(1, 0)) if between > last else y)
    graph = b.graph(*results)
    assert ours(graph) == executed(graph)


@pytest.mark.parametrize("last", [("int32",), ("int32", "uint8"), ("int32", "float32")])
def test_a_cast_stays_where_one_that_reads_it_needs_it(last: tuple[str, ...]) -> None:
    b = GraphBuilder()
    whole = b.op("Cast", b.input((8, 64)), to=TYPES["int64"])
    graph = b.graph(*(b.op("Transpose", b.op("Cast", whole, to=TYPES[each]), perm=(1, 0)) for each in last))
    assert ours(graph) == executed(graph)
    assert sum(ours(graph).values()) == 2 * len(last) + ("float32" in last)


def _pooled(op_type: str, make: Make = lambda b: b.input(MAP), **attrs: Attr) -> Make:
    return lambda b: b.op(op_type, make(b), domain="", **attrs)


def _batch_between(batch: int) -> Make:
    """Attention of ``torch.nn.TransformerEncoder`` as the newer exporter writes it: tokens first, then the batch."""

    def make(b: GraphBuilder) -> str:
        x = b.op("Relu", b.input((16, batch, 64)))
        query, key, value = (
            b.op("Transpose", b.op("Reshape", b.op(op, x), b.const((16, 4 * batch, 16))), perm=(1, 0, 2))
            for op in ("Neg", "Abs", "Exp")
        )
        turned = b.op("Transpose", key, perm=(0, 2, 1))
        query, key, value = (b.op("Reshape", each, b.const((batch, 4, 16, 16))) for each in (query, turned, value))
        seen = b.op("Softmax", b.op("MatMul", query, key), axis=-1)
        return b.op("Reshape", b.op("Transpose", b.op("MatMul", seen, value), perm=(2, 0, 1, 3)), b.const((-1, 64)))

    return make


def _keys_of_one_head(b: GraphBuilder) -> str:
    """As the newer exporter turns the keys of attention that has one head: only an axis of 1 is moved, and moved back.
    """
    x = b.op("Reshape", b.op("Relu", b.input((1, 16, 12))), b.const((1, 16, 1, 12)))
    x = b.op("Reshape", b.op("Transpose", x, perm=(0, 2, 1, 3)), b.const((-1, 16, 12)))
    return b.op("Exp", b.op("Reshape", b.op("Transpose", x, perm=(0, 2, 1)), b.const((1, 1, 12, 16))))


def _moved_and_back(b: GraphBuilder) -> str:
    x = b.op("Transpose", b.op("Relu", b.input((1, 16, 1, 12))), perm=(0, 2, 1, 3))
    return b.op("Exp", b.op("Reshape", x, b.const((1, 16, 1, 12))))


def _gated_scan(b: GraphBuilder) -> str:
    """As a layer of Mamba: one part of what is turned goes to a convolution, the other through a gate to a Transpose;
    what one turns and another turns back is read by a product, too."""
    turned = b.op("Transpose", b.op("Neg", b.input((1, 20, 64))), perm=(0, 2, 1))
    x, gate = b.multi("Split", [turned], 2, axis=1, num_outputs=2)
    x = b.op("Relu", b.op("Conv", x, b.weight((32, 1, 3)), group=32, pads=(1, 1)))
    back = b.op("Transpose", x, perm=(0, 2, 1))
    first = b.op("MatMul", back, b.weight((32, 8)))
    x = b.op("Mul", b.op("Transpose", back, perm=(0, 2, 1)), b.weight((1, 32, 1)))
    second = b.op("MatMul", b.op("Transpose", b.op("Mul", x, b.op("Tanh", gate)), perm=(0, 2, 1)), b.weight((32, 8)))
    return b.op("Sub", first, second)


def _joined_with_itself(b: GraphBuilder) -> str:
    """Two inputs can do without a Transpose, one result needs it."""
    x = b.op("Transpose", b.op("Relu", b.input(MAP)), perm=(0, 2, 3, 1))
    return b.op("Concat", x, x, axis=3)


def _gated(alpha: float) -> Make:
    """As PyTorch writes a HardSwish in opset 13."""
    return _between_convolutions(lambda b, x: b.op("Mul", x, b.op("HardSigmoid", x, alpha=alpha)))


GEMM_ACTIVATIONS = (
    *("Elu", "HardSigmoid", "LeakyRelu", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Tanh", "ThresholdedRelu"),
    *("Celu", "Gelu", "HardSwish"),  # which stay by themselves
)


def _activated(op_type: str) -> Make:
    return lambda b: b.op(op_type, b.op("Gemm", b.input((8, 64)), b.weight((64, 32)), b.weight((32,))))


CASES: dict[str, Make] = {
    "a global pool of an input": _pooled("GlobalAveragePool"),
    "global maxima of an input, and a convolution": lambda b: _conv(b, _pooled("GlobalMaxPool")(b)),
    "a global pool of what is computed": _pooled("GlobalAveragePool", lambda b: b.op("Relu", b.input(MAP))),
    "averages of before opset 19": _pooled(
        "AveragePool", lambda b: b.input((1, 63, 28, 28)), opset=18, kernel_shape=(2, 2), strides=(2, 2)
    ),
    "averages of today": _pooled("AveragePool", lambda b: b.input((1, 63, 28, 28)), kernel_shape=(2, 2)),
    "a convolution written with Relu": _fused_conv("Relu", 32),
    "a convolution of few channels written with Tanh": _fused_conv("Tanh", 3),
    "a convolution written with a sum": _fused_conv("Relu", 32, summed=True),
    "a product written with Relu": _fused_gemm,
    "quantised maxima": _quantised_maxima(13),
    "quantised maxima of before opset 12": _quantised_maxima(11),
    "a view to the same shape": _between(("Reshape", (8, 64))),
    "views there and back": _between(("Reshape", (64, 8)), ("Reshape", (8, 64))),
    "views that Reshape leads": _between(("Reshape", (8, 64)), ("Unsqueeze", (0,)), ("Squeeze", (0,))),
    "Unsqueeze and Squeeze": _between(("Unsqueeze", (0,)), ("Squeeze", (0,))),
    "products behind each other": _products,
    "heads of a product": _heads((1, 8, 4, 16)),
    "Tile by 1": _between(("Tile", (1, 1))),
    "Transpose that turns nothing": _between(("Transpose", {"perm": (0, 1)})),
    "Expand to the same shape": _between(("Expand", (8, 64))),
    "times 1": _between(("Mul", 1.0)),
    "times 1, of an input": _on_an_input,
    "over 1, less 0": _between(("Div", 1.0), ("Sub", 0.0)),
    "Clip behind Clip": _between(("Clip", 0.0, 6.0), ("Clip", 0.0, 6.0)),
    "Clip behind Relus": _between(("Neg",), ("Relu",), ("Relu",), ("Clip", 0.0, 6.0)),
    "layer normalisation": _normed((64,), (64,)),
    "layer normalisation, one weight": _normed((1,), (1,)),
    "layer normalisation, weights of two axes": _normed((1, 64), (64,)),
    "tanh-GELU between convolutions": _between_convolutions(_tanh_gelu),
    "GELU between convolutions": _between_convolutions(lambda b, x: b.op("Gelu", x)),
    "Mish between convolutions": _between_convolutions(lambda b, x: b.op("Mish", x)),
    "Mish": _between(("Mish",)),
    "HardSwish that is a result": lambda b: b.op("HardSwish", _conv(b, b.input(MAP))),
    "HardSwish between convolutions": _between_convolutions(lambda b, x: b.op("HardSwish", x)),
    "HardSwish by a gate": _gated(1 / 6),
    "a gate that is nearly HardSwish": _gated(0.16667),
    "HardSwish behind a pool": _between_convolutions(
        lambda b, x: b.op("HardSwish", b.op("MaxPool", x, kernel_shape=(1, 1)))
    ),
    "a factor for each channel": _between_convolutions(
        lambda b, x: b.op("Mul", b.op("Add", b.op("Exp", x), x), b.weight((64, 1, 1)))
    ),
    "blocks times a factor for each channel": _between_convolutions(
        lambda b, x: b.op("Mul", b.op("MaxPool", x, kernel_shape=(1, 1)), b.weight((64, 1, 1)))
    ),
    "a sum of blocks of different shapes": _between_convolutions(_added_to_a_gate),
    "Pad before a convolution": _padded(),
    "Pad that leaves its value open": _padded(""),
    "attention as the file has it": _attention,
    "slices of a transposed value": _turned_parts,
    "slices of one part of several": _parts_of_a_part,
    "halves of a part": _halves_of_a_part,
    "keys that are turned back": _keys_turned_back,
    "keys of one head": _keys_of_one_head,
    "an axis of 1 that is moved and moved back": _moved_and_back,
    "a gate beside a scan": _gated_scan,
    "what is turned, joined with itself": _joined_with_itself,
    "a padding before a pooling between transposes": _padded_and_pooled,
    "a mean beside what it is of": _mean_beside_all,
    "a mask that is read": _masked,
    "convolutions between transposes": _channels_last,
    "attention whose batch lies between": _batch_between(2),
    "attention of one sample, tokens first": _batch_between(1),
    **{f"a product and {name}": _activated(name) for name in GEMM_ACTIVATIONS},
}


@pytest.mark.parametrize("name", CASES)
def test_what_becomes_of_it_is_what_is_executed(name: str) -> None:
    b = GraphBuilder()
    graph: Graph = b.graph(CASES[name](b))
    assert ours(graph) == executed(graph)


@pytest.mark.parametrize("shape", [(8, 64), (64,), (8, 1)])
def test_what_is_added_to_a_product_is_its_bias_whatever_is_found_of_dense_layers(shape: tuple[int, ...]) -> None:
    """A build finds that no sum goes into a Gemm: into one that has its bias."""
    b = GraphBuilder()
    graph = b.graph(b.op("Add", b.op("MatMul", b.input((8, 32)), b.weight((32, 64))), b.op("Exp", b.input(shape))))
    rules = read_rules({"runtime": "onnxruntime", "BF_fc_add": {"obey": False}})
    said = Counter((k.kind, repr(k.config)) for k in fuse(graph, rules).kernels)
    assert said == executed(graph)
    assert sum(said.values()) == 2


def ours(graph: Graph) -> Counter[tuple[str, str]]:
    kernels = fuse(graph, rules_here()).kernels
    return Counter((each.kind, repr(each.config)) for each in kernels if not each.free)


def executed(graph: Graph) -> Counter[tuple[str, str]]:
    found = read_all(OnnxRuntimeCpu().fused(graph), find("onnxruntime"), graph)
    return Counter((each.kind, repr(each.config)) for each in found)


def test_a_loop_over_sequences_is_read_as_it_is_executed() -> None:
    """None of what goes into one kernel and out of it is a tensor."""
    model = parser.parse_model(
        """<ir_version: 9, opset_import: ["": 21]> m (float[4, 8] x, int64 n) => (float[a, 8] y) <bool go = {1}> {
        e = SequenceEmpty ()
        s = Loop <body = b (int64 i, bool c, seq(float[4, 8]) t) => (bool d, seq(float[4, 8]) u) {
            d = Identity (c) v = Abs (x) u = SequenceInsert (t, v) }> (n, go, e)
        y = ConcatFromSequence <axis = 0> (s) }"""
    ).SerializeToString()
    b = GraphBuilder()
    unrolled = b.graph(b.op("Abs", b.input((4, 8))))
    found = read_all(OnnxRuntimeCpu().fused(model), find("onnxruntime"), unrolled)
    assert [getattr(each.config, "op", "") for each in found] == ["SequenceEmpty", "Loop", "ConcatFromSequence"]


def test_a_weight_that_two_layers_have_is_one() -> None:
    """As PyTorch's exporter writes a second layer whose weights are the first's: both normalise the same."""
    node, value = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("Identity", ["w"], ["v"]),
        node("LayerNormalization", ["x", "w"], ["left"], axis=-1),
        node("LayerNormalization", ["x", "v"], ["right"], axis=-1),
        node("Sub", ["left", "right"], ["y"]),
    ]
    weights = [helper.make_tensor("w", TensorProto.FLOAT, (64,), [0.5] * 64)]
    x, y = value("x", TensorProto.FLOAT, (8, 64)), value("y", TensorProto.FLOAT, None)
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], weights), ir_version=8)
    model.opset_import[0].version = 17
    data = model.SerializeToString()
    found = read_all(OnnxRuntimeCpu().fused(data), find("onnxruntime"), read(data))
    assert ours(read(data)) == Counter((each.kind, repr(each.config)) for each in found)
    assert [each.kind for each in found] == ["norm", "binary"]


def test_a_view_that_is_a_result_of_the_model_is_a_copy() -> None:
    b = GraphBuilder("views")
    x = b.op("Neg", b.input((8, 64)))
    graph = b.graph(b.op("Reshape", x, b.const((64, 8))), b.op("Abs", b.op("Reshape", x, b.const((4, 128)))))
    executed = [each.config for each in read_all(OnnxRuntimeCpu().fused(graph), find("onnxruntime"), graph)]
    said = [kernel.config for kernel in fuse(graph, read_rules({"runtime": "onnxruntime"})).kernels]
    for configs in (executed, said):
        assert sorted(c.way for c in configs if isinstance(c, CopyConfig)) == ["", "copied"]


def test_what_nobody_else_reads_is_written_over() -> None:
    """A triangle, or an element that is put, takes a fifth of the time where nothing is copied before."""
    b = GraphBuilder("over")
    given, computed, shared = b.input((64, 64)), b.op("Neg", b.input((64, 64))), b.op("Abs", b.input((64, 64)))
    put = [b.weight((5, 2), "int64"), b.weight((5,))]
    graph = b.graph(
        *(b.op("Trilu", x) for x in (given, computed, shared)),
        *(b.op("ScatterND", x, *put) for x in (given, b.op("Exp", b.input((64, 64))), shared)),
    )
    executed = [each.config for each in read_all(OnnxRuntimeCpu().fused(graph), find("onnxruntime"), graph)]
    said = [kernel.config for kernel in fuse(graph, read_rules({"runtime": "onnxruntime"})).kernels]
    for configs in (executed, said):
        assert sorted(c.way for c in configs if isinstance(c, CopyConfig)) == ["", "", "over"]
        assert sorted(c.over for c in configs if isinstance(c, PlacesConfig)) == [False, False, True]


Mask = Callable[[GraphBuilder, str], str]


def _filled(b: GraphBuilder, scores: str) -> str:
    return b.op("Where", b.weight((16, 16), "bool"), scores, b.const(float("-inf"), "float32"))


def _added(least: float) -> Mask:
    """As exporters of GPT write it: what is added is made of places that are compared, and given a batch."""

    def make(b: GraphBuilder, scores: str) -> str:
        seen = b.op("And", b.op("GreaterOrEqual", b.input((16, 1)), b.input((1, 16))), b.input((1, 16), "bool"))
        mask = b.op("Where", seen, b.const(0.0, "float32"), b.const(least, "float32"))
        return b.op("Add", scores, b.op("Unsqueeze", mask, b.const((0,))))

    return make


def _padded_batch(b: GraphBuilder, scores: str) -> str:
    return b.op("Where", b.op("Not", b.input((1, 1, 16), "bool")), b.const(-3.4e38, "float32"), scores)


MASKS: dict[str, tuple[Mask, bool]] = {
    "none": (lambda b, x: b.op("Neg", x), False),
    "positions": (lambda b, x: b.op("Add", x, b.weight((4, 16, 16))), False),
    "a constant": (_filled, True),
    "a constant, and a Cast": (lambda b, x: b.op("Cast", b.op("Cast", _filled(b, x), to=11), to=1), True),
    "places that are compared": (_added(-3.4e38), True),
    "a little added": (_added(-5.0), False),
    "what an input says": (_padded_batch, False),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_softmax_says_whether_its_scores_are_masked(name: str) -> None:
    """Eight times as long: what is left out are numbers below the normal ones."""
    b = GraphBuilder()
    make, told = MASKS[name]
    scores = b.op("MatMul", b.input((4, 16, 8)), b.input((4, 8, 16)))
    graph = b.graph(b.op("Softmax", make(b, scores), axis=-1))
    assert ours(graph) == executed(graph)
    assert any("way='masked'" in config for _, config in ours(graph)) is told


@pytest.mark.parametrize(
    ("queries", "hidden", "told"), [(16, -3.4e38, True), (1, -3.4e38, False), (16, -5.0, False), (16, None, False)]
)
def test_a_mask_that_is_known_before_inference_is_read(queries: int, hidden: float | None, told: bool) -> None:
    """One of a single step, or one that hides nothing, is none."""
    b = GraphBuilder()
    places = [(query, key) for query in range(queries) for key in range(16)]
    values = [hidden if hidden is not None and key > query else 0.0 for query, key in places]
    mask = b.const(values, "float32", (queries, 16))
    scores = b.op("MatMul", b.input((4, queries, 8)), b.input((4, 8, 16)))
    graph = b.graph(b.op("Softmax", b.op("Add", scores, mask), axis=-1))
    assert any("way='masked'" in config for _, config in ours(graph)) is told
