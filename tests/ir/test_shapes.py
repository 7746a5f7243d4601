"""Shapes agree with ONNX's own inference and its reference implementation, and errors name the node."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from nn_meter.errors import GraphError
from nn_meter.ir import GraphBuilder, Node, ShapeError, Tensor, infer
from nn_meter.ir.shapes import MAX_ELEMENTS, RULES, dtype_of

small = st.integers(1, 6)


def ours(op_type, arrays, outputs=1, domain="", **attrs):
    """Outputs of one node over constants of the given arrays, values known."""
    tensors = [
        None
        if array is None
        else Tensor(f"i{i}", array.shape, str(array.dtype), True, tuple(array.reshape(-1).tolist()))
        for i, array in enumerate(arrays)
    ]
    names = tuple(f"o{i}" for i in range(outputs))
    inputs = tuple(tensor.name if tensor else "" for tensor in tensors)
    return infer(Node("n", op_type, inputs, names, attrs, domain), tensors)


def reference(op_type, arrays, outputs=1, opset=21, **attrs):
    """What ONNX's reference implementation computes."""
    names = [f"i{i}" if array is not None else "" for i, array in enumerate(arrays)]
    node = helper.make_node(op_type, names, [f"o{i}" for i in range(outputs)], **attrs)
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in zip(names, arrays, strict=True)
        if name
    ]
    outs = [helper.make_tensor_value_info(f"o{i}", TensorProto.UNDEFINED, None) for i in range(outputs)]
    graph = helper.make_graph([node], "g", inputs, outs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return ReferenceEvaluator(model).run(None, {n: a for n, a in zip(names, arrays, strict=True) if n})


def inferred(op_type, shapes, outputs=1, opset=21, **attrs):
    """Shapes that ONNX's own inference states."""
    node = helper.make_node(
        op_type, [f"i{i}" for i in range(len(shapes))], [f"o{i}" for i in range(outputs)], **attrs
    )
    inputs = [helper.make_tensor_value_info(f"i{i}", 1, shape) for i, shape in enumerate(shapes)]
    outs = [helper.make_empty_tensor_value_info(f"o{i}") for i in range(outputs)]
    graph = helper.make_graph([node], "g", inputs, outs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    done = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    return [tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in done.graph.output]


def shaped(op_type, shapes, outputs=1, **attrs):
    """Shapes that our rule gives."""
    tensors = [Tensor(f"i{i}", tuple(shape)) for i, shape in enumerate(shapes)]
    names = tuple(f"o{i}" for i in range(outputs))
    node = Node("n", op_type, tuple(t.name for t in tensors), names, attrs)
    return [tensor.shape for tensor in infer(node, tensors)]


@st.composite
def windows(draw):
    rank = draw(st.integers(1, 3))
    many = st.lists(st.integers(1, 3), min_size=rank, max_size=rank).map(tuple)
    kernel = draw(many)
    attrs = {"kernel_shape": kernel, "strides": draw(many)}
    auto_pad = draw(st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if auto_pad == "NOTSET":
        attrs["dilations"] = draw(many)
        attrs["pads"] = draw(st.lists(st.integers(0, 2), min_size=2 * rank, max_size=2 * rank).map(tuple))
    else:
        attrs["auto_pad"] = auto_pad
    space = draw(st.lists(st.integers(7, 15), min_size=rank, max_size=rank).map(tuple))
    return space, kernel, attrs


@settings(max_examples=40, deadline=None)
@given(windows(), small, small, st.integers(1, 3))
def test_convolutions_agree_with_onnx(case, cin, cout, group):
    space, kernel, attrs = case
    shapes = [(2, cin * group, *space), (cout * group, cin, *kernel)]
    assert shaped("Conv", shapes, group=group, **attrs) == inferred("Conv", shapes, group=group, **attrs)


@settings(max_examples=40, deadline=None)
@given(windows(), small, small, st.integers(1, 3), st.integers(0, 1))
def test_transposed_convolutions_agree_with_onnx(case, cin, cout, group, extra):
    space, kernel, attrs = case
    attrs = attrs | {"output_padding": (extra,) * len(space), "group": group}
    shapes = [(2, cin * group, *space), (cin * group, cout, *kernel)]
    assume(attrs.get("auto_pad", "NOTSET") in ("NOTSET", "VALID"))
    assert shaped("ConvTranspose", shapes, **attrs) == inferred("ConvTranspose", shapes, **attrs)


@settings(max_examples=40, deadline=None)
@given(windows(), st.sampled_from(["MaxPool", "AveragePool"]), st.booleans())
def test_pools_agree_with_onnx(case, op_type, ceil_mode):
    space, _, attrs = case
    if "pads" in attrs:
        attrs["ceil_mode"] = int(ceil_mode)
    assert shaped(op_type, [(1, 3, *space)], **attrs) == inferred(
        op_type, [(1, 3, *space)], opset=22, **attrs
    )


@given(st.lists(small, max_size=4), st.data())
def test_broadcasting_is_numpys(shape, data):
    other = [dim if data.draw(st.booleans()) else 1 for dim in shape[data.draw(st.integers(0, len(shape))) :]]
    expected = np.broadcast_shapes(tuple(shape), tuple(other))
    assert shaped("Add", [shape, other]) == [expected]
    assert shaped("Less", [other, shape]) == [expected]
    assert shaped("Max", [other, shape, (1,)]) == [np.broadcast_shapes(expected, (1,))]


@given(st.lists(small, min_size=1, max_size=2), small, small, small, st.booleans())
def test_matrix_products_are_numpys(batch, m, k, n, vector):
    a, b = np.zeros((*batch, m, k)), np.zeros((k,) if vector else (k, n))
    assert shaped("MatMul", [a.shape, b.shape]) == [np.matmul(a, b).shape]


arrays = st.lists(small, min_size=1, max_size=3).map(
    lambda s: np.arange(np.prod(s), dtype=np.int64).reshape(s)
)


def same(op_type, inputs, outputs=1, opset=21, **attrs):
    """Our shapes, dtypes and values are the reference's."""
    for mine, theirs in zip(
        ours(op_type, inputs, outputs, **attrs),
        reference(op_type, inputs, outputs, opset, **attrs),
        strict=True,
    ):
        theirs = np.asarray(theirs)
        assert (mine.shape, mine.dtype) == (theirs.shape, str(theirs.dtype))
        assert mine.const
        if mine.value is not None:
            np.testing.assert_array_equal(np.array(mine.value, mine.dtype).reshape(mine.shape), theirs)


@settings(max_examples=15, deadline=None)
@given(arrays, st.data())
def test_layout_operators_agree_with_the_reference(x, data):
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    ints = lambda *values: np.array(values, np.int64)  # noqa: E731
    same("Transpose", [x], perm=tuple(data.draw(st.permutations(range(x.ndim)))))
    same("Unsqueeze", [x, ints(axis)])
    same("Flatten", [x], axis=axis)
    same("Reshape", [x, ints(-1)])
    same("Reshape", [x, ints(0, -1)])
    same("Concat", [x, x], axis=axis)
    same("Gather", [x, ints(0, -1)], axis=axis)
    start, end = data.draw(st.integers(-x.shape[axis], x.shape[axis] - 1)), data.draw(st.integers(-9, 9))
    step = data.draw(st.sampled_from([-2, -1, 1, 2]))
    same("Slice", [x, ints(start), ints(end), ints(axis), ints(step)])
    same("Tile", [x, ints(*[2] * x.ndim)])
    same("Expand", [x, ints(2, *x.shape)])
    same("ReduceProd", [x % 3 + 1, ints(axis)], keepdims=data.draw(st.integers(0, 1)))
    same("ReduceSum", [x], keepdims=data.draw(st.integers(0, 1)))
    same(
        "CumSum",
        [x, np.array(axis)],
        exclusive=data.draw(st.integers(0, 1)),
        reverse=data.draw(st.integers(0, 1)),
    )
    same(
        "Shape",
        [x],
        start=data.draw(st.integers(-x.ndim, x.ndim)),
        end=data.draw(st.integers(-x.ndim, x.ndim)),
    )
    same("ArgMax", [x], axis=axis, keepdims=data.draw(st.integers(0, 1)))
    same("TopK", [x.astype("float32"), ints(1)], outputs=2, axis=axis)
    same("OneHot", [x, np.array(5), ints(0, 1)], axis=axis)


@settings(max_examples=20, deadline=None)
@given(arrays, st.integers(-7, 7).filter(bool))
def test_arithmetic_agrees_with_the_reference(x, divisor):
    y = np.array(divisor, np.int64)
    for op_type in ("Add", "Sub", "Mul", "Equal", "Less", "GreaterOrEqual"):
        same(op_type, [x, y])
    same("Mod", [x, y])
    same("Mod", [x, y], fmod=1)
    same("Where", [x > 2, x, y])
    same("Clip", [x, np.array(2), np.array(4)])
    same("Cast", [x], to=TensorProto.FLOAT)


@pytest.mark.parametrize(
    ("a", "b", "quotient"), [(7, 2, 3), (-7, 2, -3), (7, -2, -3), (-7, -2, 3), (-8, 2, -4), (0, 5, 0)]
)
def test_integers_divide_towards_zero(a, b, quotient):
    (out,) = ours("Div", [np.array(a), np.array(b)])
    assert out.value == (quotient,)


def test_the_shape_of_anything_is_constant():
    (out,) = infer(Node("n", "Shape", ("x",), ("y",)), [Tensor("x", (1, 3, 8, 9))])
    assert out == Tensor("y", (4,), "int64", True, (1, 3, 8, 9))


def test_large_constants_keep_no_value():
    big = np.zeros(MAX_ELEMENTS, np.int64)
    assert ours("Add", [big, big])[0].value is not None
    assert ours("Concat", [big, big], axis=0)[0].value is None


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("axes", [(), (0,), (-1,)])
def test_a_reduction_of_nothing_has_a_shape_and_no_value_that_would_be_made_up(shape, axes):
    x, places = np.zeros(shape, np.int64), np.array(axes, np.int64)
    for op_type in ("ReduceMean", "ReduceMax", "ReduceMin"):
        (out,) = ours(op_type, [x, places], keepdims=1)
        assert out.shape == np.sum(x, axes or None, keepdims=True).shape
        assert out.value is None
    same("ReduceSum", [x, places])
    same("ReduceProd", [x, places])


def test_attributes_and_inputs_of_every_opset_are_taken():
    b = GraphBuilder()
    x = b.input((2, 4, 6))
    assert b.shape(b.op("Slice", x, starts=(1,), ends=(3,), axes=(2,))) == (2, 4, 2)
    assert b.shape(b.op("ReduceMean", x, axes=(-1,), keepdims=0)) == (2, 4)
    assert b.shape(b.op("ReduceMean", x, b.const((-1,)), keepdims=0)) == (2, 4)
    assert b.shape(b.op("Pad", x, pads=(0, 0, 1, 0, 0, 2))) == (2, 4, 9)
    assert b.shape(b.op("Upsample", x, scales=(1.0, 1.0, 2.0))) == (2, 4, 12)
    assert b.shape(b.op("Resize", x, "", "", b.const((2, 4, 3)))) == (2, 4, 3)
    assert b.shape(b.op("Resize", x, "", b.const((1.0, 1.0, 0.5), "float32"))) == (2, 4, 3)
    assert [b.shape(o) for o in b.multi("Split", (x,), 2, axis=1)] == [(2, 2, 6)] * 2
    assert [b.shape(o) for o in b.multi("Split", (x,), 2, axis=1, split=(1, 3))] == [(2, 1, 6), (2, 3, 6)]
    assert [b.shape(o) for o in b.multi("Split", (x,), 4, axis=2, num_outputs=4)] == [(2, 4, 2)] * 3 + [
        (2, 4, 0)
    ]


@pytest.mark.parametrize(
    ("op_type", "domain", "shapes", "attrs", "expected"),
    [
        ("Einsum", "", [(2, 3, 4), (2, 4, 5)], {"equation": "bij,bjk->bik"}, [(2, 3, 5)]),
        ("Einsum", "", [(7, 3, 4), (4, 5)], {"equation": "...ij,jk"}, [(7, 3, 5)]),
        ("DepthToSpace", "", [(1, 12, 4, 5)], {"blocksize": 2}, [(1, 3, 8, 10)]),
        ("SpaceToDepth", "", [(1, 3, 8, 10)], {"blocksize": 2}, [(1, 12, 4, 5)]),
        ("GridSample", "", [(1, 3, 8, 8), (1, 5, 6, 2)], {}, [(1, 3, 5, 6)]),
        ("Attention", "", [(2, 8, 5, 16), (2, 4, 7, 16), (2, 4, 7, 32)], {}, [(2, 8, 5, 32)]),
        (
            "Attention",
            "",
            [(2, 5, 128), (2, 7, 64), (2, 7, 64)],
            {"q_num_heads": 8, "kv_num_heads": 4},
            [(2, 5, 128), (2, 4, 7, 16), (2, 4, 7, 16), (2, 8, 5, 7)],
        ),
        (
            "Attention",
            "com.microsoft",
            [(2, 5, 64), (64, 192)],
            {"num_heads": 4},
            [(2, 5, 64), (2, 2, 4, 5, 16)],
        ),
        (
            "MultiHeadAttention",
            "com.microsoft",
            [(2, 5, 64), (2, 7, 64), (2, 7, 96)],
            {"num_heads": 4},
            [(2, 5, 96)],
        ),
        ("FusedMatMul", "com.microsoft", [(2, 4, 3), (2, 5, 3)], {"transB": 1}, [(2, 4, 5)]),
        ("FusedGemm", "com.microsoft", [(4, 3), (5, 3)], {"transB": 1}, [(4, 5)]),
        ("FastGelu", "com.microsoft", [(2, 5, 64), (64,)], {}, [(2, 5, 64)]),
        ("SkipLayerNormalization", "com.microsoft", [(2, 5, 8), (2, 5, 8), (8,)], {}, [(2, 5, 8), (2, 5, 1)]),
        (
            "LSTM",
            "",
            [(9, 2, 5), (2, 24, 5), (2, 24, 6)],
            {"hidden_size": 6, "direction": "bidirectional"},
            [(9, 2, 2, 6)],
        ),
        ("GRU", "", [(9, 2, 5), (1, 18, 5), (1, 18, 6)], {"hidden_size": 6}, [(9, 1, 2, 6), (1, 2, 6)]),
        ("LayerNormalization", "", [(2, 5, 8), (8,)], {"axis": -1}, [(2, 5, 8), (2, 5, 1), (2, 5, 1)]),
        (
            "RoiAlign",
            "",
            [(1, 3, 8, 8), (9, 4), (9,)],
            {"output_height": 7, "output_width": 7},
            [(9, 3, 7, 7)],
        ),
        ("GatherND", "", [(2, 3, 4), (2, 1)], {"batch_dims": 1}, [(2, 4)]),
        ("Gemm", "", [(3, 4), (3, 5), (5,)], {"transA": 1}, [(4, 5)]),
    ],
)
def test_known_shapes(op_type, domain, shapes, attrs, expected):
    tensors = [Tensor(f"i{i}", shape) for i, shape in enumerate(shapes)]
    names = tuple(f"o{i}" for i in range(len(expected)))
    node = Node("n", op_type, tuple(tensor.name for tensor in tensors), names, attrs, domain)
    assert [tensor.shape for tensor in infer(node, tensors)] == expected


def test_errors_name_operator_and_node():
    x = Tensor("x", (1, 3, 8, 8))
    with pytest.raises(
        ShapeError, match=r"node 'odd': no shape rule for the operator my\.domain\.Frobnicate"
    ):
        infer(Node("odd", "Frobnicate", ("x",), ("y",), {}, "my.domain"), [x])
    with pytest.raises(ShapeError, match=r"node 'c' \(Conv\): input 1 is missing"):
        infer(Node("c", "Conv", ("x",), ("y",)), [x])
    with pytest.raises(ShapeError, match=r"node 'c' \(Conv\): .*do not fit in 1 groups"):
        infer(Node("c", "Conv", ("x", "w"), ("y",)), [x, Tensor("w", (4, 2, 3, 3))])
    with pytest.raises(ShapeError, match=r"node 'r' \(Reshape\): the values of input 1 \('s'\)"):
        infer(Node("r", "Reshape", ("x", "s"), ("y",)), [x, Tensor("s", (2,), "int64")])
    with pytest.raises(ShapeError, match=r"do not broadcast"):
        infer(Node("a", "Add", ("x", "w"), ("y",)), [x, Tensor("w", (2, 8))])


@given(
    st.sampled_from([(domain, op) for domain, table in RULES.items() for op in table]),
    st.lists(st.none() | st.lists(st.integers(0, 3), max_size=4), max_size=6),
    st.dictionaries(
        st.sampled_from(
            ["axis", "axes", "perm", "pads", "kernel_shape", "group", "num_heads", "split", "to", "value"]
        ),
        st.integers(-3, 3)
        | st.floats()
        | st.sampled_from(["", "x"])
        | st.lists(st.integers(-3, 3), max_size=3).map(tuple),
        max_size=3,
    ),
    st.integers(0, 3),
)
@settings(max_examples=400, deadline=None)
def test_whatever_a_node_holds_the_answer_is_shapes_or_a_graph_error(op, shapes, attrs, outputs):
    tensors = []
    for i, shape in enumerate(shapes):
        size = int(np.prod(shape)) if shape is not None else 0
        tensors.append(
            None if shape is None else Tensor(f"i{i}", tuple(shape), "int64", True, tuple(range(size)))
        )
    names = tuple(f"o{i}" for i in range(outputs))
    node = Node("n", op[1], tuple(t.name if t else "" for t in tensors), names, attrs, op[0])
    with suppress(GraphError):
        assert [tensor.name for tensor in infer(node, tensors)] == list(names)


def test_element_types_are_onnx_own():
    other = {"FLOAT": "float32", "DOUBLE": "float64", "STRING": "str"}
    for name, code in TensorProto.DataType.items():
        if code:
            assert dtype_of(code) == other.get(name, name.lower())
    with pytest.raises(ShapeError, match="no element type 99"):
        dtype_of(99)


@pytest.mark.parametrize(
    ("axis", "shapes"),
    [(None, [(3,), (3,), (6,), (3,)]), (0, [(2, 2), (2,), (3,), (2,)]), (1, [(3, 2), (2,), (2,), (2,)])],
)
def test_of_known_values_those_that_differ_are_counted(axis, shapes):
    x = Tensor("x", (3, 2), "int64", True, (1, 2, 5, 2, 1, 2))
    node = Node("u", "Unique", ("x",), ("y", "first", "places", "counts"), {} if axis is None else {"axis": axis})
    assert [tensor.shape for tensor in infer(node, [x])] == shapes
