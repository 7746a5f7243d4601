"""An Einsum is told by the products that it is executed as, whatever its letters are called."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nn_meter.ir import Graph, GraphBuilder
from nn_meter.kernels.einsum import Contraction, Moved, contractions, parsed, transposed
from nn_meter.kernels.kinds import KINDS
from nn_meter.kernels.rules import read_rules
from nn_meter.runtimes.fusion import fuse

RULES = read_rules({"runtime": "onnxruntime"})
HEADS, WEIGHT = (2, 12, 197, 64), (64, 32)


def graph(equation: str, *shapes: Sequence[int]) -> Graph:
    b = GraphBuilder("einsum")
    return b.graph(b.op("Einsum", *(b.input(shape) for shape in shapes), equation=equation))


COPIED = 1
"""Runs of what stays in order: one."""


@pytest.mark.parametrize(
    ("equation", "shapes", "found"),
    [
        # the second operand gets an axis of 1 for i, and is copied for it
        ("ij,jk->ik", [(5, 64), WEIGHT], [Contraction(1, 5, 64, 32, Moved(64 * 32, runs=COPIED), 0)]),
        # the second operand is turned, so that it is summed over its first axis, and copied
        (
            "bhid,bhjd->bhij",
            [HEADS, HEADS],
            [Contraction(24, 197, 64, 197, Moved(2 * 2 * 12 * 197 * 64, runs=COPIED), 0)],
        ),
        (
            "bhij,bhjd->bhid",
            [(2, 12, 197, 197), HEADS],
            [Contraction(24, 197, 197, 64, Moved(2 * 12 * 197 * 64, runs=COPIED), 0)],
        ),
        (
            "...ij,...jk->...ik",
            [(2, 3, 5, 6), (2, 3, 6, 7)],
            [Contraction(6, 5, 6, 7, Moved(2 * 3 * 6 * 7, runs=COPIED), 0)],
        ),
        # of a batch of one nothing has to be turned around it: both operands and the result are copied
        ("bij,bjk->bik", [(1, 5, 6), (1, 6, 7)], [Contraction(1, 5, 6, 7, Moved(30 + 42 + 35, runs=3 * COPIED), 0)]),
        # but what has to be turned is turned around the batch, too, which goes last: element by element
        (
            "bhwc,wkc->bhwk",
            [(1, 14, 15, 64), (15, 16, 64)],
            [Contraction(15, 14, 64, 16, Moved(13440 + 2 * 15360 + 3360, single=13440, runs=COPIED + 14 * 15), 0)],
        ),
        ("i,j->ji", [(5,), (7,)], [Contraction(1, 5, 1, 7, Moved(7 + 35, runs=COPIED), 0)]),
        # k stands on one side alone
        ("ik,ij->j", [(5, 9), (5, 7)], [Contraction(1, 1, 5, 7, Moved(), 45)]),
        ("bij->bji", [(2, 5, 7)], [Contraction(1, 70, 1, 1, Moved(70), 0)]),
        ("bij->bi", [(2, 5, 7)], [Contraction(1, 10, 7, 1, Moved(), 0)]),
        (
            "ab,bc,cd->ad",
            [(2, 3), (3, 5), (5, 7)],
            [
                Contraction(1, 2, 3, 5, Moved(15, runs=COPIED), 0),
                Contraction(1, 2, 5, 7, Moved(35, runs=COPIED), 0),
            ],
        ),
    ],
)
def test_an_equation_is_products_of_matrices_between_transposes(
    equation: str, shapes: list[tuple[int, ...]], found: list[Contraction]
) -> None:
    given = parsed(equation, shapes)
    assert given is not None
    assert list(contractions(given)) == found


def test_names_do_not_count_and_a_result_that_is_left_out_is_alphabetical() -> None:
    kernels = [fuse(graph(each, (5, 64), WEIGHT), RULES).kernels[0] for each in ("ij,jk->ik", "xy,yz->xz", "ba,ac")]
    rows = {tuple(c.value(k.config) for c in KINDS["einsum"].columns) for k in kernels}  # type: ignore[union-attr]
    assert len(rows) == 1


@pytest.mark.parametrize(("known", "kind"), [(None, "einsum"), (("einsum", "other"), "einsum"), (("other",), "other")])
def test_a_bundle_from_before_reads_an_einsum_as_it_did(known: tuple[str, ...] | None, kind: str) -> None:
    (kernel,) = fuse(graph("ij,jk->ik", (5, 64), WEIGHT), RULES, known=known).kernels
    assert kernel.kind == kind


@pytest.mark.parametrize(
    ("dims", "axes", "moved"),
    [
        ((2, 3, 4), (0, 1, 2), Moved()),
        # axes of 1 may go anywhere
        ((1, 3, 1, 4), (1, 3, 0, 2), Moved(12, runs=1)),
        # runs of what lies behind the last axis that moves
        ((2, 3, 4, 5), (1, 0, 2, 3), Moved(120, runs=6)),
        # one axis, inwards or outwards, by plain loops
        ((2, 3, 4), (0, 2, 1), Moved(24)),
        ((2, 3, 4), (2, 0, 1), Moved(24)),
        ((2, 3, 4), (1, 2, 0), Moved(24)),
        # several, or one and an axis of 1: each element by itself
        ((2, 3, 4), (2, 1, 0), Moved(24, single=24)),
        ((1, 3, 4, 5, 1), (2, 1, 3, 0, 4), Moved(60, single=60)),
    ],
)
def test_a_transpose_copies_runs_moves_one_axis_or_each_element(
    dims: tuple[int, ...], axes: tuple[int, ...], moved: Moved
) -> None:
    assert transposed(dims, axes) == moved
