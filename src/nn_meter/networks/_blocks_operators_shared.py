"""What networks of single operators are drawn with: tensors of any shape, a few operators out of many."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nn_meter.ir.graph import Attr
from nn_meter.networks._blocks import Pen

MICROSOFT = "com.microsoft"
Row = Callable[[Pen], Sequence[str]]
"""Draws an operator with its operands; the tensors that it computes."""


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


def token_shape(pen: Pen, *, widest: int = 1024) -> tuple[int, int, int]:
    """Batch, tokens and width, a multiple of 64."""
    width = 64 * pen.integer(1, widest // 64)
    return pen.batch, max(1, round(size(pen, 64, 3e5) / width / pen.batch)), width


def how_many(pen: Pen, least: int, most: int) -> int:
    """Of how many operators a network is: in half of all cases of one, in some of a few. What those touch stays in the
    nearest cache, as does their code, which of many has to be fetched: the same small kernel takes 3 microseconds among
    few and 8 among thirty. They are measured in a tenth of the time."""
    share = pen.uniform(0.0, 1.0)
    return 1 if share < 0.5 else pen.integer(2, min(4, most)) if share < 0.65 else pen.integer(least, most)


def some_of(pen: Pen, names: Sequence[str], most: int = 14) -> list[str]:
    """A few of ``names``, none twice: one alone, or many, so that each comes up in a build of minutes."""
    count = how_many(pen, min(5, most), most)
    return [names[int(place)] for place in pen.rng.permutation(len(names))[:count]]


def operand(pen: Pen, *shape: int) -> str:
    """An input, in half of all cases as another operator leaves it: it was just written, and may be written over."""
    x = pen.input(*shape)
    return pen.op("Neg", x) if pen.chance(0.5) else x


def batch_or_none(pen: Pen) -> tuple[str, int]:
    """An operand of any shape, and its first axis that is no batch: some have none."""
    shape = any_shape(pen)
    first = int(pen.chance(0.6) or len(shape) < 3)
    return operand(pen, *shape[1 - first :]), first


def tensors(pen: Pen, most: float = 5e5) -> list[str]:
    """A few operands of up to ``most`` elements, or one."""
    count = how_many(pen, 3, 8)
    return [operand(pen, *any_shape(pen, elements=size(pen, high=most))) for _ in range(count)]


def a_map(pen: Pen, low: float = 2e3, high: float = 2e5) -> str:
    """A feature map of so many elements."""
    width = pen.width(4, 256)
    side = max(4, round((size(pen, low, high) / width / pen.batch) ** 0.5))
    return operand(pen, pen.batch, width, side, side)


def whole_input(pen: Pen, *shape: int) -> str:
    """An input of whole numbers: places, tokens."""
    return pen.b.input(shape, "int64")


def scale(pen: Pen) -> str:
    """What quantised numbers are multiples of."""
    return pen.b.const(0.02, "float32")


def zero_point(pen: Pen, dtype: str = "uint8") -> str:
    """The quantised number that stands for 0."""
    return pen.b.const(128 if dtype == "uint8" else 0, dtype)


def node(pen: Pen, op_type: str, *inputs: str, outputs: int = 1, domain: str = "", **attrs: Attr) -> Sequence[str]:
    """An operator of so many outputs."""
    pen.nodes += 1
    return pen.b.multi(op_type, inputs, outputs, domain=domain, **attrs)


def own_node(pen: Pen, op_type: str, *inputs: str, outputs: int = 1, **attrs: Attr) -> Sequence[str]:
    """An operator of onnxruntime's own domain."""
    return node(pen, op_type, *inputs, outputs=outputs, domain=MICROSOFT, **attrs)


def of_any_shape(op_type: str, domain: str = "") -> Row:
    """An operator of one tensor of any shape."""
    return lambda pen: node(pen, op_type, operand(pen, *any_shape(pen)), domain=domain)


def of_a_list(op_type: str, least: float, most: float, domain: str = "", dtype: str = "float32") -> Row:
    """An operator of one list."""
    return lambda pen: node(pen, op_type, pen.b.input((round(size(pen, least, most)),), dtype), domain=domain)


def of_squares(op_type: str, domain: str = "") -> Row:
    """An operator of small square matrices."""

    def row(pen: Pen) -> Sequence[str]:
        side = pen.integer(2, 48)
        return node(pen, op_type, pen.input(max(1, round(size(pen, 200, 3e4) / side**2)), side, side), domain=domain)

    return row


def answers(pen: Pen, parts: Sequence[str]) -> str:
    """The answers of a network that has several: all but the last are kept beside it. A single one is, in half of all
    cases, read by another operator: a model's own results have memory that is theirs alone, and others share it."""
    if len(parts) == 1 and pen.b.dtype(parts[0]) == pen.dtype and pen.chance(0.5):
        return pen.op("Neg", parts[0])
    pen.also(*parts[:-1])
    return parts[-1]
