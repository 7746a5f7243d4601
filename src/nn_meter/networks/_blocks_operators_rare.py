"""Operators of ONNX that no other family draws and few files hold, a row each.

What only the data decides (how much is not zero, which boxes overlap) is as random as the inputs of a measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

from nn_meter.ir.graph import Attr
from nn_meter.networks._blocks import Pen
from nn_meter.networks._blocks_operators_contributed import CONTRIBUTED, packed
from nn_meter.networks._blocks_operators_shared import (
    Row,
    a_map,
    answers,
    any_shape,
    how_many,
    node,
    of_a_list,
    of_any_shape,
    of_squares,
    own_node,
    size,
    some_of,
    whole_input,
)


def _compress(pen: Pen) -> Sequence[str]:
    shape = any_shape(pen)
    axis = pen.integer(0, len(shape) - 1)
    return node(pen, "Compress", pen.input(*shape), pen.b.weight((shape[axis],), "bool"), axis=axis)


def _suppression(pen: Pen) -> Sequence[str]:
    boxes, classes = round(size(pen, 20, 3000)), pen.pick(1, 1, 2, 5, 20)
    ends = (pen.b.const((pen.pick(20, 100, 300),)), pen.scalar(0.5), pen.scalar(0.3))
    scores = pen.input(1, classes, boxes)
    return node(pen, "NonMaxSuppression", pen.input(1, boxes, 4), scores, *ends)


def _columns_to_image(pen: Pen) -> Sequence[str]:
    kernel, side, width = pen.pick(2, 3, 4), 2 * pen.integer(2, 28), pen.width(1, 32)
    x = pen.input(pen.batch, width * kernel**2, (side - kernel + 1) ** 2)
    return node(pen, "Col2Im", x, pen.b.const((side, side)), pen.b.const((kernel, kernel)))


def _region_pool(pen: Pen) -> Sequence[str]:
    bins = pen.pick(2, 5, 7)
    return node(pen, "MaxRoiPool", a_map(pen), pen.weight(pen.integer(1, 40), 5), pooled_shape=(bins, bins))


def _unpool(pen: Pen) -> Sequence[str]:
    x = a_map(pen, 3e2, 2e5)
    return node(pen, "MaxUnpool", x, pen.b.weight(pen.shape(x), "int64"), kernel_shape=(2, 2), strides=(2, 2))


def _dropped(pen: Pen) -> Sequence[str]:
    return node(pen, "Dropout", pen.input(*any_shape(pen)), outputs=2)


def _random(op_type: str) -> Row:
    return lambda pen: node(pen, op_type, shape=any_shape(pen, elements=size(pen, 500, 1e5)))


def _multinomial(pen: Pen) -> Sequence[str]:
    odds = pen.input(pen.integer(1, 16), round(size(pen, 10, 2e4)))
    return node(pen, "Multinomial", odds, sample_size=pen.pick(1, 4))


def _eye(pen: Pen) -> Sequence[str]:
    side = round(size(pen, 8, 800))
    return node(pen, "EyeLike", pen.input(side, side))


def _cache_update(pen: Pen) -> Sequence[str]:
    heads, length, width = pen.pick(1, 4, 8, 12), round(size(pen, 16, 1024)), pen.pick(32, 64, 128)
    new = pen.pick(1, 1, 8)
    past = pen.input(pen.batch, heads, length, width)
    begins = pen.b.const((length - new,) * pen.batch)
    return node(pen, "TensorScatter", past, pen.input(pen.batch, heads, new, width), begins)


def _rotary(pen: Pen) -> Sequence[str]:
    heads, length, width = pen.pick(4, 8, 12), round(size(pen, 4, 512)), pen.pick(32, 64, 128)
    most = length * pen.pick(1, 1, 4, 16)  # as many places as a context may have
    caches = (pen.weight(most, width // 2), pen.weight(most, width // 2))
    places, turned = whole_input(pen, pen.batch, length), pen.integer(0, 1)
    if pen.chance(0.5):
        x = pen.input(pen.batch, heads, length, width)
        return node(pen, "RotaryEmbedding", x, *caches, places, interleaved=turned)
    x = pen.input(pen.batch, length, heads * width)
    return own_node(pen, "RotaryEmbedding", x, places, *caches, num_heads=heads, interleaved=turned)


def _attention(pen: Pen) -> Sequence[str]:
    heads, length, width = pen.pick(2, 4, 8, 12), round(size(pen, 1, 400)), pen.pick(32, 64, 96)
    keys = length if pen.chance(0.6) else round(size(pen, 4, 400))
    shared = heads // pen.pick(1, 1, 2) or 1
    parts = [pen.input(pen.batch, held, n, width) for held, n in ((heads, length), (shared, keys), (shared, keys))]
    ways: dict[str, Attr] = {"softcap": 30.0} if pen.chance(0.15) else {}
    if keys == length and pen.chance(0.3):
        return node(pen, "Attention", *parts, outputs=1, domain="", is_causal=1, **ways)
    mask = pen.pick("", "", "bool", "bool", "float32")
    each = (pen.batch, heads) if pen.chance(0.5) else ()
    masks = [pen.b.input((*each, length, keys), mask)] if mask else []
    return node(pen, "Attention", *parts, *masks, outputs=1, domain="", **ways)


def _loss(pen: Pen) -> Sequence[str]:
    rows, classes = round(size(pen, 1, 128)), round(size(pen, 10, 1000))
    sort = pen.pick("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
    return node(pen, sort, pen.input(rows, classes), whole_input(pen, rows))


def _cropped_or_padded(pen: Pen) -> Sequence[str]:
    x = a_map(pen)
    side = max(1, round(pen.shape(x)[2] * pen.uniform(0.6, 1.4)))
    return node(pen, "CenterCropPad", x, pen.b.const((side, side)), axes=(2, 3))


_MOST_BRANCHES = 2e4
"""Of one forest: a file holds seven lists as long."""


def _forest(pen: Pen) -> Sequence[str]:
    """Trees in balance, each asking for features at random: their nodes are numbered level by level."""
    depth, features = pen.integer(2, 9), pen.integer(2, 64)
    inner, nodes = 2**depth - 1, 2 ** (depth + 1) - 1
    trees = round(pen.log_uniform(1, max(2, min(300, _MOST_BRANCHES / nodes))))
    asked = [[pen.integer(0, features - 1) for _ in range(inner)] + [0] * (nodes - inner) for _ in range(trees)]
    bounds = [[pen.uniform(-0.5, 0.5) for _ in range(inner)] + [0.0] * (nodes - inner) for _ in range(trees)]
    places = [*range(nodes)]
    leaves = places[inner:]
    below = [[2 * n + side if n < inner else 0 for n in places] for side in (1, 2)]
    return node(
        pen, "TreeEnsembleRegressor", pen.input(round(size(pen, 1, 3000)), features), domain="ai.onnx.ml",
        nodes_treeids=tuple(tree for tree in range(trees) for _ in places), nodes_nodeids=(*places,) * trees,
        nodes_featureids=tuple(chain.from_iterable(asked)), nodes_values=tuple(chain.from_iterable(bounds)),
        nodes_modes=(*("BRANCH_LEQ",) * inner, *("LEAF",) * len(leaves)) * trees,
        nodes_truenodeids=(*below[0],) * trees, nodes_falsenodeids=(*below[1],) * trees,
        target_treeids=tuple(tree for tree in range(trees) for _ in leaves), target_nodeids=(*leaves,) * trees,
        target_ids=(0,) * (trees * len(leaves)), target_weights=(0.5,) * (trees * len(leaves)), n_targets=1,
    )  # fmt: skip


OLD: Mapping[str, Row] = {
    **{name: of_any_shape(name) for name in ("Bernoulli", "Dropout", "Identity", "NonZero")},
    **{name: of_any_shape(name) for name in ("RandomNormalLike", "RandomUniformLike")},
    "CastLike": lambda pen: node(pen, "CastLike", pen.input(*any_shape(pen)), pen.b.weight((1,), "float16")),
    "Unique": of_a_list("Unique", 20, 1e5),
    "TreeEnsembleRegressor": _forest,
    "Compress": _compress,
    "NonMaxSuppression": _suppression,
    "Col2Im": _columns_to_image,
    "Det": of_squares("Det"),
    "MaxRoiPool": _region_pool,
    "MaxUnpool": _unpool,
    "RandomNormal": _random("RandomNormal"),
    "RandomUniform": _random("RandomUniform"),
    "Multinomial": _multinomial,
    "EyeLike": _eye,
    "loss": _loss,
    "CenterCropPad": _cropped_or_padded,
    **{f"Dropout {number}": _dropped for number in range(2)},
    **{f"MaxUnpool {number}": _unpool for number in range(2)},
}
"""Operators that ONNX has had for long."""

NEWEST: Mapping[str, Row] = {
    "TensorScatter": _cache_update,
    "RotaryEmbedding": _rotary,
    "Attention": _attention,
    **{f"RotaryEmbedding {number}": _rotary for number in range(2)},
    "Swish": of_any_shape("Swish"),
}
"""Those of an opset at which onnxruntime no longer has some of the others."""


def _attentions(pen: Pen) -> str:
    """Attention in one operator, as ONNX has it."""
    return answers(pen, [part for _ in range(how_many(pen, 3, 8)) for part in _attention(pen)])


def _from(rows: Mapping[str, Row], most: int) -> Callable[[Pen], str]:
    return lambda pen: answers(pen, [part for name in some_of(pen, tuple(rows), most) for part in rows[name](pen)])


RARE: Mapping[str, Callable[[Pen], str]] = {
    "rare": _from(OLD, 10),
    "newest": _from(NEWEST, 4),
    "contributed": _from(CONTRIBUTED, 30),
    "attentions": _attentions,
    "packed": packed,
}
"""A sort of operators to its writer."""
