"""Frozen graphs, as TensorFlow 1 wrote them, read without TensorFlow."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nn_meter
from nn_meter.errors import (
    GraphError,
    MissingDependencyError,
    ModelError,
    ModelFormatError,
    NnMeterError,
    UnsupportedOperatorError,
)
from nn_meter.frontends import tensorflow
from nn_meter.frontends.tensorflow import flow
from nn_meter.ir import Graph, verify
from nn_meter.limits import Limit

# A writer of protobuf's wire format, as small as these tests need it.

FLOAT, INT32 = 1, 3


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def shape_proto(dims: tuple[int, ...]) -> bytes:
    return b"".join(field(2, field(1, dim)) for dim in dims)


def entry(number: int, key: str, value: bytes) -> bytes:
    return field(number, field(1, key) + field(2, value))


class Type(int):
    """A ``DataType`` as an attribute."""


class Dims(tuple[int, ...]):
    """A shape as an attribute."""


def attr(value: Any) -> bytes:
    match value:
        case bytes():
            return value
        case Type():
            return field(6, int(value))
        case bool():
            return field(5, int(value))
        case int():
            return field(3, value)
        case float():
            return varint(4 << 3 | 5) + struct.pack("<f", value)
        case Dims():
            return field(7, shape_proto(value))
        case str():
            return field(2, value)
        case tuple() | list():
            return field(1, b"".join(field(3, int(item)) for item in value))
    raise TypeError(value)


def node(name: str, op: str, *inputs: str, **attrs: Any) -> bytes:
    parts = [field(1, name), field(2, op), *(field(3, each) for each in inputs)]
    return field(1, b"".join(parts) + b"".join(entry(5, key, attr(value)) for key, value in attrs.items()))


def const(name: str, value: Any, shape: tuple[int, ...] | None = None, dtype: int | None = None) -> bytes:
    """A constant; a tuple of numbers gives a vector. Without a value it holds zeros of ``shape``."""
    items = list(value) if isinstance(value, tuple | list) else [] if value is None else [value]
    if dtype is None:
        dtype = FLOAT if not items or isinstance(items[0], float) else INT32
    dims = shape if shape is not None else ((len(items),) if isinstance(value, tuple | list) else ())
    content = struct.pack(f"<{len(items)}{'f' if dtype == FLOAT else 'i'}", *items)
    tensor = field(1, dtype) + field(2, shape_proto(dims)) + (field(4, content) if items else b"")
    return node(name, "Const", value=field(8, tensor), dtype=Type(dtype))


def placeholder(name: str = "x", shape: tuple[int, ...] = (-1, 8, 8, 3), dtype: int = FLOAT) -> bytes:
    return node(name, "Placeholder", dtype=Type(dtype), shape=Dims(shape))


def weight(name: str, *shape: int) -> bytes:
    return const(name, None, shape)


def conv(name: str, x: str, w: str, stride: int = 1, padding: str = "SAME") -> bytes:
    return node(
        name,
        "Conv2D",
        x,
        w,
        strides=[1, stride, stride, 1],
        padding=padding,
        data_format="NHWC",
        dilations=[1, 1, 1, 1],
    )


def read(*nodes: bytes, **options: Any) -> Graph:
    return tensorflow.read(b"".join(nodes), **options)


def kinds(graph: Graph) -> list[str]:
    return [each.op_type for each in graph.nodes]


def out_shape(graph: Graph, index: int = 0) -> tuple[int, ...]:
    return graph.tensors[graph.outputs[index]].shape


STEM = (placeholder(), weight("w", 3, 3, 3, 16), conv("conv", "x", "w", 2))


def test_a_frozen_graph_needs_no_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert kinds(read(*STEM)) == ["Conv"]


def test_a_convolution_is_channels_first_with_explicit_pads() -> None:
    graph = read(*STEM)
    (only,) = graph.nodes
    assert graph.tensors["x"].shape == (1, 3, 8, 8)
    assert out_shape(graph) == (1, 16, 4, 4)
    assert graph.tensors[only.inputs[1]].shape == (16, 3, 3, 3)
    # SAME puts an odd padding at the end
    assert only.attrs["pads"] == (0, 0, 1, 1)
    assert only.origin == "Conv2D"
    assert graph.notes == ("the unset batch of the input 'x' became 1",)


def test_a_bias_is_an_add_of_a_constant() -> None:
    graph = read(*STEM, weight("b", 16), node("bias", "BiasAdd", "conv", "b"), node("relu", "Relu6", "bias"))
    assert kinds(graph) == ["Conv", "Add", "Clip"]
    assert [each.origin for each in graph.nodes] == ["Conv2D", "BiasAdd", "Relu6"]
    assert graph.tensors[graph.nodes[1].inputs[1]].shape == (1, 16, 1, 1)
    assert [graph.tensors[name].value for name in graph.nodes[2].inputs[1:]] == [(0.0,), (6.0,)]


@pytest.mark.parametrize("version", ["FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"])
def test_fused_batch_normalisation(version: str) -> None:
    vectors = [weight(name, 16) for name in ("g", "b", "m", "v")]
    graph = read(*STEM, *vectors, node("bn", version, "conv", "g", "b", "m", "v", is_training=False, epsilon=0.001))
    assert kinds(graph) == ["Conv", "BatchNormalization"]
    assert graph.nodes[1].attrs["epsilon"] == pytest.approx(0.001)
    assert graph.outputs == ("bn",)


@pytest.mark.parametrize("channels", [16, 512])
def test_decomposed_batch_normalisation_is_one_operator(channels: int) -> None:
    vectors = [weight(name, channels) for name in ("g", "b", "m", "v")]
    graph = read(
        placeholder(),
        weight("w", 3, 3, 3, channels),
        conv("conv", "x", "w"),
        *vectors,
        const("eps", 0.001),
        node("bn/add", "Add", "v", "eps"),
        node("bn/Rsqrt", "Rsqrt", "bn/add"),
        node("bn/mul", "Mul", "bn/Rsqrt", "g"),
        node("bn/mul_1", "Mul", "conv", "bn/mul"),
        node("bn/mul_2", "Mul", "m", "bn/mul"),
        node("bn/sub", "Sub", "b", "bn/mul_2"),
        node("bn/add_1", "Add", "bn/mul_1", "bn/sub"),
        node("relu", "Relu", "bn/add_1"),
    )
    assert kinds(graph) == ["Conv", "BatchNormalization", "Relu"]
    assert graph.nodes[1].origin == "Mul+Add"
    assert out_shape(graph) == (1, channels, 8, 8)


def test_decomposed_hard_swish_keeps_its_operators_and_constants() -> None:
    graph = read(
        *STEM,
        const("three", 3.0),
        const("sixth", 1 / 6),
        node("add", "AddV2", "conv", "three"),
        node("relu6", "Relu6", "add"),
        node("mul", "Mul", "relu6", "sixth"),
        node("mul_1", "Mul", "conv", "mul"),
    )
    assert kinds(graph) == ["Conv", "Add", "Clip", "Mul", "Mul"]
    assert graph.tensors["three"].value == (3.0,)


def test_depthwise_convolution_has_groups() -> None:
    graph = read(
        placeholder(), weight("w", 3, 3, 3, 2),
        node("dw", "DepthwiseConv2dNative", "x", "w", strides=[1, 1, 1, 1], padding="VALID"),
    )  # fmt: skip
    (only,) = graph.nodes
    assert (only.op_type, only.attrs["group"]) == ("Conv", 3)
    assert graph.tensors[only.inputs[1]].shape == (6, 1, 3, 3)
    assert out_shape(graph) == (1, 6, 6, 6)


def test_fewer_channels_in_the_filter_mean_groups() -> None:
    graph = read(placeholder(shape=(1, 8, 8, 8)), weight("w", 3, 3, 2, 16), conv("conv", "x", "w"))
    assert graph.nodes[0].attrs["group"] == 4


@pytest.mark.parametrize("size", [15, 16])
def test_transposed_convolution_reaches_the_size_asked_for(size: int) -> None:
    graph = read(
        placeholder(), weight("w", 3, 3, 5, 3), const("sizes", (1, size, size, 5)),
        node("up", "Conv2DBackpropInput", "sizes", "w", "x", strides=[1, 2, 2, 1], padding="SAME"),
    )  # fmt: skip
    assert kinds(graph) == ["ConvTranspose"]
    assert out_shape(graph) == (1, 5, size, size)


def test_a_dilated_convolution_written_as_three_operators_is_one() -> None:
    graph = read(
        placeholder(shape=(1, 9, 9, 3)),
        weight("w", 3, 3, 3, 4),
        const("block", (2, 2)),
        const("pads", (2, 3, 2, 3), shape=(2, 2)),
        const("crops", (0, 1, 0, 1), shape=(2, 2)),
        node("s2b", "SpaceToBatchND", "x", "block", "pads"),
        conv("conv", "s2b", "w", padding="VALID"),
        node("b2s", "BatchToSpaceND", "conv", "block", "crops"),
    )
    (only,) = graph.nodes
    assert (only.op_type, only.attrs["dilations"], only.attrs["pads"]) == ("Conv", (2, 2), (2, 2, 2, 2))
    assert only.origin == "SpaceToBatchND+Conv2D+BatchToSpaceND"
    assert out_shape(graph) == (1, 4, 9, 9)


def test_channels_first_models_are_left_as_they_are() -> None:
    graph = read(
        placeholder(shape=(1, 3, 8, 8)), weight("w", 3, 3, 3, 4),
        node("conv", "Conv2D", "x", "w", strides=[1, 1, 2, 2], padding="SAME", data_format="NCHW"),
    )  # fmt: skip
    assert out_shape(graph) == (1, 4, 4, 4)


@pytest.mark.parametrize(
    ("keep", "axes", "kind", "shape"),
    [
        (True, (1, 2), "GlobalAveragePool", (1, 16, 1, 1)),
        (False, (1, 2), "ReduceMean", (1, 16)),
        (True, (3,), "ReduceMean", (1, 1, 4, 4)),
        (False, (3,), "ReduceMean", (1, 4, 4)),
    ],
)
def test_means_over_an_image(keep: bool, axes: tuple[int, ...], kind: str, shape: tuple[int, ...]) -> None:
    graph = read(*STEM, const("axes", axes), node("mean", "Mean", "conv", "axes", keep_dims=keep))
    assert kinds(graph) == ["Conv", kind]
    assert out_shape(graph) == shape


def test_axes_follow_the_layout() -> None:
    graph = read(
        *STEM,
        const("axis", 3),
        const("pads", (0, 0, 1, 2, 3, 4, 0, 0), shape=(4, 2)),
        node("split", "Split", "axis", "conv", num_split=2),
        node("concat", "ConcatV2", "split:1", "split", "axis"),
        node("pad", "Pad", "concat", "pads"),
    )
    split, concat, pad = graph.nodes[1:]
    assert (split.attrs["axis"], concat.attrs["axis"]) == (1, 1)
    assert graph.tensors[pad.inputs[1]].value == (0, 0, 1, 3, 0, 0, 2, 4)
    assert out_shape(graph) == (1, 16, 7, 11)


def test_shape_arithmetic_is_folded() -> None:
    graph = read(
        *STEM,
        node("shape", "Shape", "conv"),
        const("zero", (0,)),
        const("one", (1,)),
        node("batch", "StridedSlice", "shape", "zero", "one", "one", shrink_axis_mask=1),
        const("rest", -1),
        node("target", "Pack", "batch", "rest"),
        node("flat", "Reshape", "conv", "target"),
        weight("fc", 256, 10),
        node("logits", "MatMul", "flat", "fc"),
        node("prob", "Softmax", "logits"),
    )
    assert kinds(graph) == ["Conv", "Reshape", "MatMul", "Softmax"]
    assert out_shape(graph) == (1, 10)


def test_constants_shaped_like_an_image_are_shown_like_one() -> None:
    graph = read(
        *STEM,
        const("two", 2.0),
        node("shape", "Shape", "conv"),
        node("full", "Fill", "shape", "two"),
        node("twice", "Mul", "full", "two"),
        node("sum", "AddV2", "conv", "twice"),
    )
    assert kinds(graph) == ["Conv", "Add"]
    assert graph.tensors[graph.nodes[1].inputs[1]].shape == out_shape(graph) == (1, 16, 4, 4)


def test_a_real_transpose_stays() -> None:
    graph = read(*STEM, const("perm", (0, 2, 1, 3)), node("turned", "Transpose", "conv", "perm"))
    assert kinds(graph) == ["Conv", "Transpose"]
    assert out_shape(graph) == (1, 4, 4, 16)


def test_a_product_over_the_channels_reshapes_and_moves_nothing() -> None:
    graph = read(
        *STEM, weight("k", 16, 32), node("dense", "BatchMatMulV2", "conv", "k"),
        weight("w2", 1, 1, 32, 16), conv("conv2", "dense", "w2"), node("sum", "AddV2", "conv", "conv2"),
    )  # fmt: skip
    assert kinds(graph) == ["Conv", "Reshape", "MatMul", "Reshape", "Conv", "Add"]
    assert out_shape(graph) == (1, 16, 4, 4)


def test_squeeze_and_expansion_of_an_image() -> None:
    graph = read(
        *STEM, const("axes", (1, 2)), node("pool", "Mean", "conv", "axes", keep_dims=True),
        node("flat", "Squeeze", "pool", squeeze_dims=[1, 2]), const("one", 1),
        node("a", "ExpandDims", "flat", "one"), node("b", "ExpandDims", "a", "one"),
        node("gate", "Sigmoid", "b"),
        node("scaled", "Mul", "conv", "gate"),
    )  # fmt: skip
    assert out_shape(graph) == (1, 16, 4, 4)
    assert "Transpose" not in kinds(graph)


def test_unpacking_and_slicing() -> None:
    graph = read(
        placeholder(shape=(2, 3, 5)), node("parts", "Unpack", "x", num=3, axis=1),
        node("sum", "AddN", "parts", "parts:1", "parts:2"), const("b", (0, 1)), const("e", (0, 4)),
        const("s", (1, 2)),
        node("cut", "StridedSlice", "sum", "b", "e", "s", begin_mask=1, end_mask=1),
    )  # fmt: skip
    assert out_shape(graph) == (2, 2)


def test_identities_name_a_value_and_are_no_operators() -> None:
    graph = read(
        placeholder(), weight("w", 1, 1, 3, 4), node("w/read", "Identity", "w"), node("start", "NoOp"),
        conv("conv", "x", "w/read"), node("drop", "StopGradient", "conv", "^start"),
        node("out", "Relu", "drop"),
    )  # fmt: skip
    assert kinds(graph) == ["Conv", "Relu"]


def test_nodes_may_come_in_any_order() -> None:
    assert kinds(read(*reversed(STEM))) == ["Conv"]


def test_functions_are_inlined() -> None:
    inner = node("relu", "Relu", "a") + node("again", "Relu", "relu:activations:0")
    signature = field(1, "f") + field(2, field(1, "a")) + field(3, field(1, "r"))
    body = field(1, signature) + b"".join(
        field(3, part) for part in (inner[2 : 2 + inner[1]], inner[2 + inner[1] + 2 :])
    )
    body += entry(4, "r", b"again:activations:0")
    library = field(2, field(1, body))
    graph = read(placeholder(), node("call", "PartitionedCall", "x", f=field(10, field(1, "f"))), library)
    assert [each.name for each in graph.nodes] == ["call/relu", "call/again"]
    assert out_shape(graph) == (1, 8, 8, 3)


def library(**bodies: tuple[str, ...]) -> bytes:
    """Functions by name, each of operators or functions without inputs."""
    functions = []
    for name, ops in bodies.items():
        nodes = [field(3, field(1, f"n{number}") + field(2, op)) for number, op in enumerate(ops)]
        functions.append(field(1, field(1, field(1, name)) + b"".join(nodes)))
    return field(2, b"".join(functions))


def test_functions_that_call_one_another_end(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies: dict[str, tuple[str, ...]] = {"f0": (), **{f"f{i}": (f"f{i - 1}",) * 2 for i in range(1, 50)}}
    with pytest.raises(ModelFormatError, match=r"100,001 nodes.*at most 100,000 are read"):
        read(*STEM, library(**bodies), node("call", "f49"))
    monkeypatch.setattr(flow, "LETTERS", Limit(10_000, "letters"))
    with pytest.raises(ModelFormatError, match="letters; at most 10,000 are read"):
        read(*STEM, library(f=("NoOp",) * 100), node("n" * 1000, "f"))


def test_complex_constants_are_held_without_their_elements() -> None:
    complex64 = 8
    zero = const("c", (0, 0), (), complex64)  # two integers of four bytes: both parts of one element
    graph = read(placeholder(shape=(4,), dtype=complex64), zero, node("y", "AddV2", "x", "c"))
    assert (graph.tensors["c"].const, graph.tensors["c"].value) == (True, None)
    assert nn_meter.load_latency_predictor().predict(graph) > 0


def test_a_scalar_with_a_default_is_no_input() -> None:
    graph = read(
        placeholder(),
        const("one", 1.0),
        node("keep_prob", "PlaceholderWithDefault", "one", shape=Dims()),
        node("scaled", "Mul", "x", "keep_prob"),
    )
    assert graph.inputs == ("x",)
    assert graph.tensors[graph.nodes[0].inputs[1]].value == (1.0,)


def test_shapes_may_be_given_in_either_order() -> None:
    nodes = (placeholder(shape=(-1, -1, -1, 3)), *STEM[1:])
    for shape in ((2, 16, 8, 3), (2, 3, 16, 8)):
        assert read(*nodes, input_shapes=shape).tensors["x"].shape == (2, 3, 16, 8)
        assert out_shape(read(*nodes, input_shapes={"x": shape})) == (2, 16, 8, 4)


# Bad input


def test_unset_dimensions_are_asked_for() -> None:
    with pytest.raises(
        GraphError, match=r"input 'x' has the shape \(\?, \?, \?, 3\); give its shape: --input-shape x="
    ):
        read(placeholder(shape=(-1, -1, -1, 3)), *STEM[1:])


def test_a_shape_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ModelError, match=r"\(1, 4, 4, 4\) given for the input 'x' does not fit \(\?, 8, 8, 3\)"):
        read(*STEM, input_shapes=(1, 4, 4, 4))
    with pytest.raises(ModelError, match="there is no input 'y'; the inputs are x"):
        read(*STEM, input_shapes={"y": (1, 8, 8, 3)})
    with pytest.raises(ModelError, match=r"the shape \(1, 8, 8, -3\) given for the input 'x' is negative"):
        read(*STEM, input_shapes={"x:0": (1, 8, 8, -3)})


def test_an_unknown_operator_is_named_with_its_node() -> None:
    with pytest.raises(UnsupportedOperatorError, match="node 'odd': the operator Frobnicate has no row"):
        read(*STEM, node("odd", "Frobnicate", "conv"))


def test_control_flow_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedOperatorError, match=r"node 'join' is control flow \(Merge\).*export the model"):
        read(
            *STEM,
            const("p", 1),
            node("branch", "Switch", "conv", "p"),
            node("join", "Merge", "branch", "branch:1"),
        )


def test_a_shape_that_only_a_run_knows_is_refused() -> None:
    with pytest.raises(UnsupportedOperatorError, match=r"node 'r' \(Reshape\) takes its shape from 's:0'"):
        read(*STEM, placeholder("s", (2,), INT32), node("r", "Reshape", "conv", "s"))


def test_dangling_references_and_cycles_are_found() -> None:
    with pytest.raises(ModelFormatError, match="node 'r' read 'nowhere', which is not in the graph"):
        read(node("r", "Relu", "nowhere"))
    with pytest.raises(GraphError, match="cycle through or before node 'a'"):
        read(node("a", "Relu", "b"), node("b", "Relu", "a"), node("c", "Relu", "a"))


def test_a_truncated_file_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "cut.pb"
    path.write_bytes(b"".join(STEM)[:-7])
    with pytest.raises(ModelFormatError, match=r"cut\.pb: not a TensorFlow graph, or a damaged one"):
        tensorflow.read(path)


@pytest.mark.parametrize(("dtype", "words"), [(INT32, "int32 lists <f4"), (19, "float16 lists <f4")])
def test_fractions_where_whole_numbers_are_listed_are_damage(dtype: int, words: str) -> None:
    listed = field(5, struct.pack("<f", float("nan")))
    tensor = field(1, dtype) + field(2, shape_proto((1,))) + listed
    with pytest.raises(ModelFormatError, match=words):
        read(*STEM, node("c", "Const", value=field(8, tensor), dtype=Type(dtype)))


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        tensorflow.read(tmp_path / "none.pb")


def test_keras_files_name_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    path = tmp_path / "model.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    assert tensorflow.sniff(path)
    with pytest.raises(MissingDependencyError, match=r"pip install 'nn-meter\[tensorflow\]'"):
        tensorflow.read(path)


def test_content_decides_what_is_a_graph(tmp_path: Path) -> None:
    path = tmp_path / "anything"
    path.write_bytes(b"".join(STEM))
    assert tensorflow.sniff(path)
    for other in (b"", b"\x08\x07\x12\x04back", b"PK\x03\x04....", b"{}", b"\x0a"):
        path.write_bytes(other)
        assert not tensorflow.sniff(path)


SEED = b"".join(
    (
        *STEM,
        const("axes", (1, 2)),
        node("mean", "Mean", "conv", "axes", keep_dims=False),
        node("shape", "Shape", "mean"),
        node("flat", "Reshape", "mean", "shape"),
    )
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(SEED) - 1), st.integers(0, 255)), max_size=4),
    st.integers(0, len(SEED)),
)
def test_any_bytes_end_in_a_graph_or_in_an_error_of_the_tree(changes: list[tuple[int, int]], end: int) -> None:
    data = bytearray(SEED)
    for at, value in changes:
        data[at] = value
    for candidate in (bytes(data), bytes(data[:end])):
        tensorflow.sniff(candidate)
        try:
            graph = tensorflow.read(candidate)
        except NnMeterError:
            continue
        verify(graph)
