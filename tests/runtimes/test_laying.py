"""Which copies and casts PyTorch runs on a card between the operators that a model names."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nn_meter.ir import Graph, GraphBuilder
from nn_meter.kernels.rules import read_rules
from nn_meter.runtimes.fusion import fuse
from nn_meter.runtimes.laying import Lay, viewed
from nn_meter.runtimes.pytorch import AUTOCAST_RULES


def kernels(graph: Graph) -> list[str]:
    """Executed kernels by kind, casts and elementwise operators by name."""
    found = [k for k in fuse(graph, read_rules(AUTOCAST_RULES)).kernels if not k.free]
    return [k.config.op if k.kind in ("unary", "binary") else k.kind for k in found]


@st.composite
def _looks(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], int | None, tuple[int, ...]]:
    """A shape in memory, how its axes are turned, an axis of which a part is taken, and a shape to look at it in."""
    shape = tuple(draw(st.lists(st.integers(2, 4), min_size=1, max_size=4)))
    turned = tuple(draw(st.permutations(range(len(shape)))))
    part = draw(st.none() | st.sampled_from(range(len(shape))))
    seen = [shape[axis] - (axis == part) for axis in turned]
    size = prod(seen)
    wanted, left = [], size
    while left > 1:
        factor = draw(st.sampled_from([d for d in range(2, left + 1) if left % d == 0]))
        wanted.append(factor)
        left //= factor
    return shape, turned, part, tuple(wanted) or (1,)


@given(_looks())
def test_what_can_be_looked_at_in_another_shape_is_what_numpy_need_not_copy(
    case: tuple[tuple[int, ...], tuple[int, ...], int | None, tuple[int, ...]],
) -> None:
    shape, turned, part, wanted = case
    whole = np.arange(prod(shape)).reshape(shape)
    taken = whole[tuple(slice(1, None) if axis == part else slice(None) for axis in range(len(shape)))]
    seen = taken.transpose(turned)
    order = tuple(turned.index(axis) for axis in range(len(shape)))
    cut = frozenset({turned.index(part)} if part is not None else ())
    if 1 in seen.shape:
        return  # an axis of one element lies anywhere
    assert (viewed(seen.shape, Lay(order, cut), wanted) is not None) == np.shares_memory(seen.reshape(wanted), whole)


def test_nothing_is_looked_at_in_any_shape() -> None:
    assert viewed((0, 3), Lay((1, 0)), (3, 0)) == Lay((0, 1))


@pytest.mark.parametrize("token", [True, False])
def test_tokens_straight_from_a_convolution_are_copied_for_every_normalisation(token: bool) -> None:
    """A sum writes as its first operand lies, so that they stay transposed; a class token puts them in order once."""
    b = GraphBuilder("tokens")
    picture = b.op("Conv", b.input((1, 3, 32, 32), "float32"), b.weight((8, 3, 8, 8), "float32"), strides=(8, 8))
    x = b.op("Transpose", b.op("Reshape", picture, b.const((1, 8, 16))), perm=(0, 2, 1))
    if token:
        x = b.op("Concat", b.weight((1, 1, 8), "float32"), x, axis=1)
    norm = [b.weight((8,), "float32") for _ in range(2)]
    for _ in range(2):
        normed = b.op("LayerNormalization", x, *norm, axis=-1)
        x = b.op("Add", x, b.op("MatMul", normed, b.weight((8, 8), "float32")))
    if token:  # a parameter, so that all are single precision from there on
        block = ["Cast", "norm", "matmul", "Add"]
        assert kernels(b.graph(x)) == ["Cast", "conv", "Cast", "concat", *block, *block]
    else:
        # what is added lies otherwise, and is read at the cost of a copy
        turned = ["transpose", "norm", "matmul", "transpose", "Add"]
        assert kernels(b.graph(x)) == ["Cast", "conv", *turned, *turned]


def test_heads_are_views_for_attention_and_copies_for_products() -> None:
    def attending(scales: int) -> list[str]:
        b = GraphBuilder("attention")
        x = b.op("MatMul", b.input((2, 49, 96), "float32"), b.weight((96, 288), "float32"))
        heads = b.op("Transpose", b.op("Reshape", x, b.const((2, 49, 3, 3, 32))), perm=(2, 0, 3, 1, 4))
        q, k, v = (b.op("Squeeze", each, b.const((0,))) for each in b.multi("Split", (heads,), 3, axis=0))
        root = b.const(32**-0.25, "float32")
        turned = b.op("Transpose", k, perm=(0, 1, 3, 2))
        scores = b.op("MatMul", b.op("Mul", q, root), b.op("Mul", turned, root) if scales == 2 else turned)
        out = b.op("Transpose", b.op("MatMul", b.op("Softmax", scores, axis=-1), v), perm=(0, 2, 1, 3))
        y = b.op("MatMul", b.op("Reshape", out, b.const((2, 49, 96))), b.weight((96, 96), "float32"))
        return kernels(b.graph(y))

    assert attending(2) == ["Cast", "matmul", "attention", "matmul"]
    of_product = ["transpose", "transpose", "matmul"]
    mixed = ["softmax", "Cast", "transpose", "matmul", "transpose"]
    assert attending(1) == ["Cast", "matmul", "Mul", *of_product, *mixed, "matmul"]
