"""What an Einsum is executed as: pairs of operands from the left, each a product of matrices between transposes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from nn_meter.kernels.partition import Shape

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Equation:
    """Labels of each operand and of the result, ``None`` where it is left out, and the size of each label; those that
    an ellipsis stands for are ``…0``, ``…1`` from the back."""

    terms: tuple[Labels, ...]
    out: Labels | None
    sizes: Mapping[str, int]

    @property
    def result(self) -> Labels:
        """Labels of the result: where it is left out, those that stand once, in alphabetical order."""
        if self.out is not None:
            return self.out
        written = [label for term in self.terms for label in term]
        once = sorted(label for label in self.sizes if written.count(label) == 1 and label[0] != "…")
        return (*sorted((label for label in self.sizes if label[0] == "…"), reverse=True), *once)


def parsed(equation: str, shapes: Sequence[Shape]) -> Equation | None:
    """``equation`` over operands of ``shapes``; ``None`` where they do not fit."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    written = left.split(",")
    if len(written) != len(shapes) or not all(written):
        return None
    sizes: dict[str, int] = {}
    terms: list[Labels] = []
    hidden: Labels = ()
    for term, shape in zip(written, shapes, strict=True):
        head, dots, tail = term.partition("...")
        middle = [f"…{i}" for i in range(len(shape) - len(head) - len(tail))] if dots else []
        names = (*head, *reversed(middle), *tail)
        sizes |= {name: max(size, sizes.get(name, 1)) for name, size in zip(names, shape, strict=False)}
        terms.append(names)
        hidden = max(hidden, tuple(reversed(middle)), key=len)
    head, dots, tail = right.partition("...")
    return Equation(tuple(terms), (*head, *(hidden if dots else ()), *tail) if arrow else None, sizes)


@dataclass(frozen=True, slots=True)
class Moved:
    """What transposes do: elements that they write, of those ``single`` one by one with an index that counts through
    all axes, and the ``runs`` of neighbours that are copied at once."""

    size: int = 0
    single: int = 0
    runs: int = 0

    def __add__(self, other: Moved) -> Moved:
        return Moved(self.size + other.size, self.single + other.single, self.runs + other.runs)


@dataclass(frozen=True, slots=True)
class Contraction:
    """A product: ``batch`` times, ``rows`` x ``summed`` by ``summed`` x ``columns``; what of its operands and result is
    ``moved`` to lie in that order; ``alone`` elements are summed before, since one operand alone has their label."""

    batch: int
    rows: int
    summed: int
    columns: int
    moved: Moved
    alone: int


def contractions(given: Equation) -> tuple[Contraction, ...]:
    """The products of an Einsum as ONNX Runtime 1.32 computes them (its ``EinsumTypedComputeProcessor``).

    All operands get all labels, with an axis of 1 where they lack one, in the order in which those first stand. Of the
    left one come first what both keep, what it keeps alone, and what is summed; of the right one what both keep, what
    is summed, and what it keeps alone. A label whose size is 1 counts as the right one's.
    """
    order = sorted(given.sizes, key=lambda label: label[0] != "…")
    place = {label: position for position, label in enumerate(order)}

    def sizes(labels: Collection[str]) -> dict[str, int]:
        return {label: given.sizes[label] if label in labels else 1 for label in order}

    def sorted_in(term: Labels) -> Moved:
        own = tuple(dict.fromkeys(term))
        return transposed([given.sizes[label] for label in own], _from(own, sorted(own, key=place.__getitem__)))

    def turned(dims: Mapping[str, int], wanted: Sequence[str]) -> Moved:
        return transposed([*dims.values()], _from(order, wanted))

    def last(made: Mapping[str, int], layout: Sequence[str]) -> Moved:
        kept = [label for label in layout if label in given.result]
        return transposed([made[label] for label in kept], _from(kept, given.result))

    left = sizes(given.terms[0])
    steps = sorted_in(given.terms[0])
    if len(given.terms) == 1:
        made = {label: size if label in given.result else 1 for label, size in left.items()}
        kept, whole = prod(made.values()), prod(left.values())
        return (Contraction(1, kept, whole // max(1, kept), 1, steps + last(made, order), 0),)
    found = []
    for position, term in enumerate(given.terms[1:], 2):
        right = sizes(term)
        steps += sorted_in(term)
        needed = {*given.result}.union(*given.terms[position:])
        read = {*term}.union(*given.terms[: position - 1])
        gone = [label for label in order if label in read and label not in needed]
        alone = 0
        for side, other in ((left, right), (right, left)):
            single = [label for label in gone if side[label] > 1 and other[label] == 1]
            alone += prod(side.values()) if single else 0
            side |= dict.fromkeys(single, 1)
        staying = [label for label in order if label not in gone]
        both = [label for label in staying if left[label] > 1 and right[label] > 1]
        rows = [label for label in staying if left[label] > 1 and right[label] == 1]
        columns = [label for label in staying if left[label] == 1]
        layout = (*both, *rows, *gone, *columns)
        steps += turned(left, layout) + turned(right, (*both, *gone, *columns, *rows))
        summed = prod([left[label] for label in gone])
        m, n = (prod([side[label] for label in own]) for side, own in ((left, rows), (right, columns)))
        made = {label: 1 if label in gone else max(left[label], right[label]) for label in order}
        if position == len(given.terms):
            steps += last(made, layout)
        else:
            steps += transposed([made[label] for label in layout], _from(layout, order))
        found.append(Contraction(prod([left[label] for label in both]), m, summed, n, steps, alone))
        left, steps = made, Moved()
    return tuple(found)


def _from(labels: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """The permutation that makes the second order of the first."""
    return [labels.index(label) for label in wanted]


def transposed(dims: Sequence[int], axes: Sequence[int]) -> Moved:
    """What ONNX Runtime's transpose of a tensor with these dimensions does (``TransposeBase::DoTranspose``): it copies
    at once what stays in order but for axes of 1, moves a single axis by plain loops, or what lies behind the last axis
    that moves, and else counts through all axes for each element."""
    size = prod(dims)
    moving = [axis for axis in axes if dims[axis] > 1]
    if [*axes] == sorted(axes):
        return Moved()
    if moving == sorted(moving):
        return Moved(size, runs=1)
    together = prod(dims[max(place for place, axis in enumerate(axes) if place != axis) + 1 :])
    if together > 1:
        return Moved(size, runs=size // together)
    return Moved(size) if moves_one(tuple(axes)) else Moved(size, single=size)


def moves_one(perm: Shape) -> bool:
    """Whether ``perm`` takes one axis elsewhere and leaves the others in their order."""
    return any(list(perm[:i] + perm[i + 1 :]) == sorted(perm[:i] + perm[i + 1 :]) for i in range(len(perm))) or not perm
