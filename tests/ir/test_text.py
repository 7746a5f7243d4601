"""Text and graph are inverse, and a line that is no statement is named."""

from __future__ import annotations

from contextlib import suppress
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nn_meter.errors import GraphError, ModelFormatError
from nn_meter.ir import Graph, Node, Tensor, parse, to_text

TEXT = """\
graph example
input x: float32[1,3,8,8]
const w: float32[4,3,3,3]
const shape: int64[2](1, -1)
c: float32[1,4,8,8] = Conv(x, w) {pads=(1, 1, 1, 1)} name "body/conv"
y: float32[1,256] = Reshape(c, shape) {allowzero=0} origin "Flatten"
output y
note "the unset batch became 1"
"""


def test_the_text_of_a_graph_is_what_was_read():
    assert to_text(parse(TEXT)) == TEXT


def test_shapes_left_out_are_inferred():
    short = TEXT.replace("c: float32[1,4,8,8]", "c").replace("y: float32[1,256]", "y")
    assert parse(short) == parse(TEXT)


names = st.text(min_size=1, max_size=4) | st.sampled_from(
    ["_", "output", "const", "1", "1e5", "inf", 'a "b"', "a b", "-"]
)
numbers = st.integers() | st.floats(allow_nan=False)
attrs = st.dictionaries(
    names, numbers | st.text(max_size=4) | st.lists(numbers, max_size=3).map(tuple), max_size=3
)


@given(names, st.lists(names, min_size=3, max_size=3, unique=True), names, names, attrs, st.text(max_size=3))
def test_any_graph_comes_back_equal(title, tensors, op_type, domain, attributes, origin):
    x, w, y = tensors
    node = Node(title, op_type, (x, "", w), ("", y), MappingProxyType(attributes), domain, origin)
    graph = Graph(
        title,
        (node,),
        MappingProxyType(
            {
                x: Tensor(x, (1, 2)),
                w: Tensor(w, (2,), "int64", True, (1, -2)),
                y: Tensor(y, (), "bool", True, (1,)),
            }
        ),
        (x,),
        (y,),
        (origin,),
    )
    assert parse(to_text(graph)) == graph


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("input x float32[1]", "expected ':' before 'float32'"),
        ("input x: float32[a]", "the dimension 'a' is no integer"),
        ("y = Relu(x", "expected '\\)' before 'the end'"),
        ("y = Relu(x) {a=b}", "expected a value before 'b'"),
        ("output y z", "unexpected 'z'"),
        ("y = Relu(x) ?", "unexpected '\\?'"),
    ],
)
def test_a_line_that_is_no_statement_is_named(line, message):
    with pytest.raises(ModelFormatError, match=rf"line 2: {message}"):
        parse(f"graph g\n{line}")


def test_a_tensor_must_be_declared_once_and_before_it_is_read():
    with pytest.raises(GraphError, match=r"line 1: node 'y' \(Relu\) reads 'x', not declared above"):
        parse("y = Relu(x)")
    with pytest.raises(GraphError, match=r"line 2: the tensor 'x' is declared twice"):
        parse("input x: float32[1]\nconst x: float32[1]")


@given(st.text(alphabet='xy_=:[](){},"1 -.\\\ngraphinputconst', max_size=60))
def test_any_text_is_a_graph_or_an_error_of_our_tree(text):
    with suppress(GraphError, ModelFormatError):
        parse(text)
