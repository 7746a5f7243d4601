"""Blocks of several operators that count as one, and how they are found.

A pattern lists operators by rule name with the operators they read. ``*`` stands for whatever produces the
block's input; it has to be there and stays outside. An occurrence must be *induced*: between the operators it
names there are exactly the edges that the pattern has, as in nn-Meter, which searches with VF2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

ANY = "*"


@dataclass(frozen=True, slots=True)
class Pattern:
    """``types[i]`` is the rule name of the i-th operator, ``reads[i]`` the positions of those that it reads."""

    types: tuple[str, ...]
    reads: tuple[tuple[int, ...], ...]


def pattern(text: str) -> Pattern:
    """Read ``"a: conv(x) b: relu(a)"``: label, rule name, labels read; a label without entry is not part of it.

    ``x: *()`` declares the producer of the block's input.
    """
    labels: list[str] = []
    types: list[str] = []
    arguments: list[list[str]] = []
    for part in text.split(";"):
        label, _, call = part.strip().partition(":")
        name, _, inside = call.strip().partition("(")
        labels.append(label.strip())
        types.append(name.strip())
        arguments.append([a.strip() for a in inside.rstrip(")").split(",") if a.strip()])
    position = {label: i for i, label in enumerate(labels)}
    return Pattern(tuple(types), tuple(tuple(position[a] for a in args) for args in arguments))


def chain(names: Sequence[str]) -> Pattern:
    """The pattern of operators one after the other, as ``BF_conv_bn_relu`` names it."""
    return Pattern(tuple(names), tuple((i - 1,) if i else () for i in range(len(names))))


BLOCKS: Mapping[str, tuple[Pattern, ...]] = MappingProxyType(
    {
        "se": (
            pattern(
                "x: *(); add: add(bias2); relu6: relu(add); scale: mul(relu6); out: mul(scale, x); pool: avgpool(x);"
                "relu: relu(bias1); bias1: BiasAdd(conv1); conv1: conv(pool); bias2: BiasAdd(conv2); conv2: conv(relu)"
            ),
            pattern(
                "x: *(); pool: gap(x); conv1: conv(pool); relu: relu(conv1); conv2: conv(relu);"
                "gate: hardsigmoid(conv2); out: mul(x, gate)"
            ),
            pattern(
                "pool1: gap(); pool2: gap(pool1); conv1: conv(pool2); relu: relu(conv1); conv2: conv(relu);"
                "add: add(conv2); relu6: relu(add); div: div(relu6); mul: mul(conv2, div); out: mul(mul)"
            ),
        ),
        "hswish": (
            pattern("x: *(); relu6: relu(add); add: add(x); scale: mul(relu6); out: mul(scale, x)"),
            pattern("x: *(); add: add(x); relu6: relu(add); div: div(relu6); out: mul(x, div)"),
            pattern("add: add(); relu: relu(add); scale: mul(relu); out: mul(scale)"),
            pattern("add: add(); relu6: relu(add); div: div(relu6); out: mul(div)"),
        ),
        "channelshuffle": (
            pattern(
                "first: reshape(pack1); pack1: Pack(slice1); slice1: StridedSlice(); perm: transpose(first);"
                "second: reshape(perm, pack2); pack2: Pack(slice2); slice2: StridedSlice()"
            ),
            pattern("second: reshape(perm); perm: transpose(first); first: reshape()"),
        ),
        "gap": (pattern("mean: gap(); flat: reshape(mean)"),),
    }
)
"""nn-Meter's multi-operator blocks with their spellings, in the order in which it tries them (facts of its 2.0)."""


def occurrences(
    wanted: Pattern,
    order: Sequence[int],
    types: Sequence[str],
    reads: Sequence[Sequence[int]],
    readers: Sequence[Sequence[int]],
) -> Iterator[tuple[int, ...]]:
    """Every occurrence of ``wanted``, as the operators at its positions.

    ``order`` lists the operators in the order in which a first position is tried; overlapping occurrences are
    all given. ``reads`` and ``readers`` are the edges, once per use.
    """
    size = len(wanted.types)
    plan = _plan(wanted)
    by_type: dict[str, list[int]] = {}
    for op in order:
        by_type.setdefault(types[op], []).append(op)
    if any(name != ANY and name not in by_type for name in wanted.types):
        return
    edges = {(a, b): wanted.reads[b].count(a) for b in range(size) for a in wanted.reads[b]}
    found: list[int] = [-1] * size

    def fits(position: int, op: int, placed: Sequence[int]) -> bool:
        if wanted.types[position] not in (ANY, types[op]) or op in found:
            return False
        return all(
            reads[op].count(found[other]) == edges.get((other, position), 0)
            and reads[found[other]].count(op) == edges.get((position, other), 0)
            for other in placed
        )

    def extend(step: int) -> Iterator[tuple[int, ...]]:
        if step == size:
            yield tuple(found)
            return
        position, anchor, downwards = plan[step]
        if anchor < 0:
            candidates: Sequence[int] = (
                order if wanted.types[position] == ANY else by_type[wanted.types[position]]
            )
        else:
            candidates = list(dict.fromkeys(readers[found[anchor]] if downwards else reads[found[anchor]]))
        placed = [p for p, _, _ in plan[:step]]
        for op in candidates:
            if fits(position, op, placed):
                found[position] = op
                yield from extend(step + 1)
                found[position] = -1

    yield from extend(0)


def _plan(wanted: Pattern) -> list[tuple[int, int, bool]]:
    """Order of positions so that each but the first touches an earlier one: (position, that one, reads it?)."""
    plan = [(0, -1, False)]
    left = set(range(1, len(wanted.types)))
    while left:
        step = min(
            (position, anchor, anchor in wanted.reads[position])
            for position in left
            for anchor, _, _ in plan
            if anchor in wanted.reads[position] or position in wanted.reads[anchor]
        )
        plan.append(step)
        left.discard(step[0])
    return plan
