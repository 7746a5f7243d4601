"""Fusing by rules alone: what is admitted joins, what is not stays, and every node is in exactly one kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

import pytest

from nn_meter.ir import Graph, GraphBuilder, verify
from nn_meter.kernels.kinds import KINDS, ConvConfig
from nn_meter.kernels.partition import Kernel
from nn_meter.kernels.rules import RuleSet, read_rules
from nn_meter.runtimes import available
from nn_meter.runtimes.fusion import fuse

YES = (
    "BF_conv_bn", "BF_conv_relu", "BF_conv_add", "BF_conv_add_relu", "BF_conv_Swish", "BF_dwconv_relu", "BF_fc_Gelu",
    "BF_add_add", "BF_add_relu", "BF_relu_add", "BF_concat_concat", "BF_LayerNormalization_add",
)  # fmt: skip


def rules(
    *obeyed: str, denied: tuple[str, ...] = (), undecided: tuple[str, ...] = (), runtime: str = "rules"
) -> RuleSet:
    verdicts: Mapping[str, bool | None] = {
        **dict.fromkeys(obeyed, True),
        **dict.fromkeys(denied, False),
        **dict.fromkeys(undecided),
    }
    return read_rules({"runtime": runtime, **{name: {"obey": obey} for name, obey in verdicts.items()}})


def kernels(graph: Graph, known: RuleSet) -> list[Kernel]:
    return [k for k in fuse(graph, known).kernels if not k.free]


def convolution(b: GraphBuilder, x: str, cout: int = 16) -> str:
    cin = b.shape(x)[1]
    return b.op("Conv", x, b.weight((cout, cin, 3, 3)), b.weight((cout,)), kernel_shape=(3, 3), pads=(1, 1, 1, 1))


def conv_then(*op_types: str) -> Graph:
    b = GraphBuilder("chain")
    x = b.input((1, 16, 28, 28))
    y = convolution(b, x)
    for op_type in op_types:
        extra = (x,) if op_type == "Add" else ()
        if op_type == "BatchNormalization":
            extra = tuple(b.weight((16,)) for _ in range(4))
        y = b.op(op_type, y, *extra)
    return b.graph(y)


def test_without_rules_every_operator_is_a_kernel() -> None:
    assert [k.label for k in kernels(conv_then("BatchNormalization", "Relu"), rules())] == [
        "Conv",
        "BatchNormalization",
        "Relu",
    ]


def test_what_rules_admit_is_one_kernel_and_normalisation_vanishes_into_the_weights() -> None:
    (kernel,) = kernels(conv_then("BatchNormalization", "Relu"), rules("BF_conv_bn", "BF_conv_relu"))
    assert isinstance(kernel.config, ConvConfig)
    assert (kernel.kind, kernel.config.fused, len(kernel.nodes)) == ("conv", ("relu",), 3)
    assert kernel.label == "Conv-bn-relu"


def test_a_residual_add_is_a_sum_and_its_activation_follows_the_rule_of_three() -> None:
    graph = conv_then("Add", "Relu")
    pairs = ("BF_conv_add", "BF_conv_relu")
    (kernel,) = kernels(graph, rules(*pairs, "BF_conv_add_relu"))
    assert isinstance(kernel.config, ConvConfig)
    assert kernel.config.fused == ("sum", "relu")
    assert len(kernels(graph, rules(*pairs, denied=("BF_conv_add_relu",)))) == 2


@pytest.mark.parametrize(
    "known", [rules(undecided=("BF_conv_relu",)), rules(denied=("BF_conv_relu",)), rules("BF_conv_add")]
)
def test_undecided_denied_and_missing_rules_do_not_fuse(known: RuleSet) -> None:
    assert len(kernels(conv_then("Relu"), known)) == 2


def test_an_operator_without_a_rule_takes_that_of_one_like_it() -> None:
    assert len(kernels(conv_then("LeakyRelu"), rules("BF_conv_relu"))) == 1
    own_says_no = rules("BF_conv_relu", denied=("BF_conv_Sigmoid",))
    assert len(kernels(conv_then("Sigmoid"), own_says_no)) == 2


def two_readers() -> Graph:
    b = GraphBuilder("shared")
    y = convolution(b, b.input((1, 16, 8, 8)))
    return b.graph(b.op("Relu", y), b.op("MaxPool", y, kernel_shape=(2, 2)))


def test_a_result_with_two_readers_stays_unless_mon_is_obeyed() -> None:
    assert len(kernels(two_readers(), rules("BF_conv_relu"))) == 3
    assert [k.label for k in kernels(two_readers(), rules("BF_conv_relu", "MON"))] == ["Conv-relu", "MaxPool"]


def test_the_first_may_disappear_into_the_second() -> None:
    b = GraphBuilder("pad")
    x = b.op("Pad", b.input((1, 16, 8, 8)), b.const((0, 0, 1, 1, 0, 0, 1, 1)))
    graph = b.graph(b.op("Relu", b.op("Conv", x, b.weight((8, 16, 3, 3)), kernel_shape=(3, 3))))
    (kernel,) = kernels(graph, rules("BF_pad_conv", "BF_conv_relu"))
    assert isinstance(kernel.config, ConvConfig)
    assert (kernel.config.cout, kernel.config.fused) == (8, ("relu",))


def silu() -> Graph:
    b = GraphBuilder("silu")
    y = convolution(b, b.input((1, 16, 8, 8)))
    return b.graph(b.op("Mul", y, b.op("Sigmoid", y)))


def test_an_operator_spelled_as_two_is_one_where_a_rule_that_names_it_is_obeyed() -> None:
    (kernel,) = kernels(silu(), rules("BF_conv_Swish"))
    assert isinstance(kernel.config, ConvConfig)
    assert (kernel.config.fused, len(kernel.nodes)) == (("swish",), 3)
    assert len(kernels(silu(), rules(denied=("BF_conv_Swish",)))) == 3


def test_one_sum_only_joins_a_convolution() -> None:
    graph = conv_then("Add", "Add")
    assert [k.label for k in kernels(graph, rules("BF_conv_add", "BF_add_add"))] == ["Conv-add", "Add"]


def test_openvino_makes_one_kernel_of_attention() -> None:
    b = GraphBuilder("attention")
    q, k, v = (b.input((1, 3, s, w)) for s, w in ((197, 64), (64, 197), (197, 64)))
    scores = b.op("Softmax", b.op("MatMul", q, k), axis=-1)
    graph = b.graph(b.op("Transpose", b.op("MatMul", scores, v), perm=(0, 2, 1, 3)))
    (kernel,) = kernels(graph, rules(runtime="openvino_cpu"))
    assert kernel.kind == "attention"
    assert kernel.config.describe() == "3 heads of 64, 197 x 197"
    assert len(kernels(graph, rules())) == 4


@pytest.mark.parametrize(
    ("lead", "said"),
    [((), "1 heads of 64, 197 x 197"), ((2,), "1 heads of 64, 197 x 197"), ((2, 5, 3), "3 heads of 64, 197 x 197")],
)
def test_attention_has_any_number_of_axes_before_its_rows(lead: tuple[int, ...], said: str) -> None:
    b = GraphBuilder("attention")
    q, k, v = (b.input((*lead, s, w)) for s, w in ((197, 64), (64, 197), (197, 64)))
    graph = b.graph(b.op("MatMul", b.op("Softmax", b.op("MatMul", q, k), axis=-1), v))
    (kernel,) = kernels(graph, rules(runtime="openvino_cpu"))
    assert (kernel.kind, kernel.config.describe()) == ("attention", said)
    work = KINDS["attention"].work(kernel.config)
    assert work.flops == 4 * prod(lead) * 197 * 197 * 64


def test_openvino_scales_what_has_no_axes() -> None:
    b = GraphBuilder("scalar")
    total = b.op("ReduceSum", b.input((2, 3)), keepdims=0)
    y = b.op("Mul", total, b.const(0.5, "float32"))
    assert [k.nodes for k in kernels(b.graph(y), rules(runtime="openvino"))] == [("ReduceSum_0", "Mul_0")]


def test_a_kernel_that_shares_what_it_makes_reads_none_of_it_by_itself() -> None:
    b = GraphBuilder("inside")
    x = b.op("Add", b.input((4, 8)), b.input((4, 8)))
    inner = b.op("Add", b.op("Relu", x), x)
    graph = b.graph(b.op("Softmax", inner), b.op("Softmax", x))
    partition = fuse(graph, rules("BF_add_relu", "BF_add_add", "MON"))
    assert [k.nodes for k in partition.kernels][:1] == [("Add_0", "Relu_0", "Add_1")]
    assert all(edge.kernels[0] != edge.kernels[1] for edge in partition.unfused)


@pytest.mark.parametrize("runtime", available())
def test_a_result_that_is_left_out_has_no_shape_on_any_runtime(runtime: str) -> None:
    b = GraphBuilder("last state")
    x = b.op("Relu", b.input((4, 1, 8)))
    _, state, _ = b.multi("LSTM", [x, b.weight((1, 32, 8)), b.weight((1, 32, 8))], 3, hidden_size=8)
    graph = b.graph(b.op("Relu", state))
    recurrent = replace(graph.nodes[1], outputs=("", *graph.nodes[1].outputs[1:]))
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name != graph.nodes[1].outputs[0]}
    graph = replace(graph, nodes=(graph.nodes[0], recurrent, graph.nodes[2]), tensors=tensors)
    verify(graph)
    assert {node for k in fuse(graph, rules(runtime=runtime)).kernels for node in k.nodes} == set(graph.node_by_name)
