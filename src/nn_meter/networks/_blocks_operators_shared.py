"""What networks of single operators are drawn with: tensors of any shape, a few operators out of many."""

from __future__ import annotations

from collections.abc import Sequence

from nn_meter.networks._blocks import Pen


def size(pen: Pen, low: float = 5e2, high: float = 5e5) -> float:
    """A number of elements."""
    return pen.log_uniform(low, high)


def any_shape(pen: Pen, rank: int | None = None, elements: float | None = None) -> tuple[int, ...]:
    """A shape of ``rank`` axes and about so many ``elements``; the first is the batch."""
    rank = rank or pen.pick(2, 3, 3, 4, 4, 5)
    left = (elements or size(pen)) / pen.batch
    dims = [pen.batch]
    for axes_left in range(rank - 1, 0, -1):
        share = left if axes_left == 1 else pen.log_uniform(1.0, max(2.0, left ** (2.0 / axes_left)))
        dims.append(max(1, round(share)))
        left = max(1.0, left / dims[-1])
    return tuple(dims)


def some_of(pen: Pen, names: Sequence[str], most: int = 14) -> list[str]:
    """A few of ``names``, none twice: one alone in some networks, whose footprint is small, else many, so that each
    comes up in a build of minutes."""
    count = 1 if pen.chance(0.2) else pen.integer(min(5, most), most)
    return [names[int(place)] for place in pen.rng.permutation(len(names))[:count]]


def operand(pen: Pen, *shape: int) -> str:
    """An input, in half of all cases as another operator leaves it: it was just written, and may be written over."""
    x = pen.input(*shape)
    return pen.op("Neg", x) if pen.chance(0.5) else x


def tensors(pen: Pen, most: float = 5e5) -> list[str]:
    """A few operands of up to ``most`` elements; one in some networks."""
    count = 1 if pen.chance(0.2) else pen.integer(3, 8)
    return [operand(pen, *any_shape(pen, elements=size(pen, high=most))) for _ in range(count)]


def answers(pen: Pen, parts: Sequence[str]) -> str:
    """The answers of a network that has several: all but the last are kept beside it."""
    pen.also(*parts[:-1])
    return parts[-1]
