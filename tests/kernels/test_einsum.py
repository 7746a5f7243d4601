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


@pytest.mark.parametrize(
    ("equation", "shapes", "found"),
    [
        ("ij,jk->ik", [(5, 64), WEIGHT], [Contraction(1, 5, 64, 32, copied(64 * 32), 0)]),
        # the second operand is turned, so that it is summed over its first axis
        (
            "bhid,bhjd->bhij",
            [HEADS, HEADS],
            [Contraction(24, 197, 64, 197, 2 * 12 * 197 * 64, 0)],
        ),
        ("bhij,bhjd->bhid", [(2, 12, 197, 197), HEADS], [Contraction(24, 197, 197, 64, 0, 0)]),
        ("...ij,...jk->...ik", [(2, 3, 5, 6), (2, 3, 6, 7)], [Contraction(6, 5, 6, 7, 0, 0)]),
        # of a batch of one nothing has to be turned around it
        ("bij,bjk->bik", [(1, 5, 6), (1, 6, 7)], [Contraction(1, 5, 6, 7, 0, 0)]),
        ("i,j->ji", [(5,), (7,)], [Contraction(1, 5, 1, 7, 35, 0)]),
        # k stands on one side alone
        ("ik,ij->j", [(5, 9), (5, 7)], [Contraction(1, 1, 5, 7, 0, 45)]),
        ("bij->bji", [(2, 5, 7)], [Contraction(1, 70, 1, 1, 70, 0)]),
        ("bij->bi", [(2, 5, 7)], [Contraction(1, 10, 7, 1, 0, 0)]),
        ("ab,bc,cd->ad", [(2, 3), (3, 5), (5, 7)], [Contraction(1, 2, 3, 5, 0, 0), Contraction(1, 2, 5, 7, 0, 0)]),
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
