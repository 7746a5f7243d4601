"""What an Einsum is executed as: pairs of operands from the left, each a product of matrices between transposes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    def size(self, labels: Sequence[str]) -> int:
        """Elements of a tensor that has these labels."""
        return prod([self.sizes[label] for label in labels])


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
class Contraction:
    """A product: ``batch`` times, ``rows`` x ``summed`` by ``summed`` x ``columns``. ``moved`` elements of its operands
    and result lie in another order than that, ``single`` of them one by one: neither do runs of them stay together, nor
    is it one axis that goes elsewhere; ``alone`` are summed before, since one operand alone has their label."""

    batch: int
    rows: int
    summed: int
    columns: int
    moved: int
    alone: int
    single: int = 0


def contractions(given: Equation) -> tuple[Contraction, ...]:
    """The products of an Einsum as ONNX Runtime 1.32 computes them: labels in the order in which they first stand, then
    those that both operands keep, those of one, and those that are summed (its ``EinsumTypedComputeProcessor``)."""
    order = {label: place for place, label in enumerate(given.sizes)}

    def moved(labels: Sequence[str], wanted: Sequence[str]) -> Moved:
        own, asked = ([each for each in some if given.sizes[each] > 1] for some in (labels, wanted))
        size = given.size(labels)
        return Moved(0, 0) if own == asked else Moved(size, 0 if _in_runs(own, asked) else size)

    def in_order(labels: Sequence[str]) -> Labels:
        return tuple(sorted(dict.fromkeys(labels), key=order.__getitem__))

    left = in_order(given.terms[0])
    steps = moved(given.terms[0], left)
    if len(given.terms) == 1:
        kept = [label for label in left if label in given.result]
        size = given.size(kept)
        steps += moved(kept, given.result)
        return (Contraction(1, size, given.size(left) // max(1, size), 1, steps.size, 0, steps.single),)
    found = []
    for position, term in enumerate(given.terms[1:], 2):
        right, last = in_order(term), position == len(given.terms)
        needed = {*given.result}.union(*given.terms[position:])
        both = [label for label in left if label in right]
        batch, summed = ([each for each in both if (each in needed) is kept] for kept in (True, False))
        rows, columns = (
            [each for each in own if each not in both and each in needed] for own in (left, right)
        )
        alone = sum(given.size(own) for own in (left, right) if any(x not in both and x not in needed for x in own))
        before = [each for each in left if each in both or each in needed], [*batch, *rows, *summed]
        behind = [each for each in right if each in both or each in needed], [*batch, *summed, *columns]
        made = (*batch, *rows, *columns)
        wanted = given.result if last else in_order(made)
        steps += moved(term, right) + moved(*before) + moved(*behind) + moved(made, wanted)
        m, n = given.size(rows), given.size(columns)
        found.append(Contraction(given.size(batch), m, given.size(summed), n, steps.size, alone, steps.single))
        left, steps = in_order(made), Moved(0, 0)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Moved:
    """Elements that change their order, those of them that move one by one."""

    size: int
    single: int

    def __add__(self, other: Moved) -> Moved:
        return Moved(self.size + other.size, self.single + other.single)


def _in_runs(labels: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether the last axis stays, or one axis goes elsewhere and the others keep their order."""

    def without(label: str) -> bool:
        left, asked = ([each for each in some if each != label] for some in (labels, wanted))
        return left == asked

    return labels[-1:] == wanted[-1:] or any(map(without, labels))
