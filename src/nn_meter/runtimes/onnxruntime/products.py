"""What becomes part of a matrix product."""

from __future__ import annotations

from collections.abc import Set
from math import prod

from nn_meter.kernels.rewriting import Op, Work
from nn_meter.runtimes.base import Options

_GEMM_DTYPES = ("float32", "float16", "bfloat16")


def fuse_matmul_add(work: Work, options: Options) -> None:
    """MatMul and what is added become Gemm, between views where the left side has more axes; attention's wait for
    theirs. Rules about a sum behind a dense layer speak of a Gemm, which has its bias already."""
    _fuse_matmul_add(work, _of_attention(work))


def fuse_matmul_add_of_attention(work: Work, options: Options) -> None:
    """What was kept for a fusion of attention becomes Gemm too, once views are no longer merged."""
    _fuse_matmul_add(work, frozenset())


def _fuse_matmul_add(work: Work, kept: Set[str]) -> None:
    for op in work.ops("MatMul"):
        after = work.only_reader(op.outputs[0])
        if after is not None and after.op_type == "Add":
            with_bias(work, op, after, kept)


def with_bias(work: Work, op: Op, after: Op, kept: Set[str] = frozenset()) -> Op | None:
    """The Gemm that a MatMul and the Add behind it become, if they do; sums that are ``kept`` do only without views."""
    a, b = op.inputs
    if len(work.shape(b)) != 2 or len(work.shape(a)) < 2 or work.tensors[a].dtype not in _GEMM_DTYPES:
        return None
    bias = next((i for i in after.inputs if i != op.outputs[0]), "")
    n = work.shape(b)[1]
    if not bias or work.shape(op.outputs[0]) != work.shape(after.outputs[0]):
        return None
    if len(work.shape(a)) == 2:
        fits = work.shape(bias) in ((n,), (1, n), (work.shape(a)[0], 1), work.shape(op.outputs[0]))
        return work.fuse((op, after), "Gemm", [a, b, bias], after.outputs) if fits else None
    if work.shape(bias) != (n,) or after.outputs[0] in kept or not work.known(a):
        return None
    rows = prod(work.shape(a)[:-1])
    flat = work.fresh("flat", (rows, work.shape(a)[-1]), a)
    result = work.fresh("flat", (rows, n), a)
    out = after.outputs
    gemm = work.fuse((op, after), "Gemm", [flat, b, bias], [result])
    work.add(Op("Reshape", [a], [flat], {}), before=gemm)
    work.add(Op("Reshape", [result], out, {}), behind=gemm)
    return gemm


def _of_attention(work: Work) -> set[str]:
    """Sums behind the four products of an attention as the runtime knows it: three read one LayerNormalization of the
    file, the fourth's result is added to that (``AttentionPatternCache`` in its ``matmul_add_fusion.cc``)."""
    found: set[str] = set()
    for norm in work.ops("LayerNormalization"):
        readers = list(work.readers(norm.outputs[0]))
        products = [op for op in readers if op.op_type == "MatMul" and op.inputs[0] == norm.outputs[0]]
        sums = [op for op in readers if op.op_type == "Add"]
        if len(norm.members) != 1 or len(readers) != 4 or len(products) != 3 or len(sums) != 1:
            continue
        other = work.made_by(next((i for i in sums[0].inputs if i != norm.outputs[0]), ""), "Add")
        if other is None:
            continue
        found.update(o for op in products for r in work.readers(op.outputs[0]) for o in r.outputs)
        found.update(other.outputs)
    return found


def fuse_matmul_scale(work: Work, options: Options) -> None:
    """A scalar factor on an operand or the result of a MatMul becomes its ``alpha``."""
    for op in work.ops("MatMul", "FusedMatMul"):
        for position in (0, 1):
            before = work.made_by(op.inputs[position], "Mul", "Div")
            if before is None or work.only_reader(before.outputs[0]) is not op:
                continue
            if not any(
                work.is_one_element(i) for i in before.inputs[(1 if before.op_type == "Div" else 0) :]
            ):
                continue
            inputs = list(op.inputs)
            inputs[position] = next(i for i in before.inputs if not work.is_one_element(i))
            if work.shape(inputs[position]) == work.shape(before.outputs[0]):
                op = work.fuse((before, op), "FusedMatMul", inputs, op.outputs, op.attrs)
        after = work.only_reader(op.outputs[0])
        if (
            after is not None
            and after.op_type in ("Mul", "Div")
            and any(work.is_one_element(i) for i in after.inputs[(1 if after.op_type == "Div" else 0) :])
        ):
            work.fuse((op, after), "FusedMatMul", op.inputs, after.outputs, op.attrs)


def fuse_matmul_transpose(work: Work, options: Options) -> None:
    """A Transpose of the last two axes before a MatMul becomes its ``transA`` or ``transB``, one that brings the batch
    from between rows and columns to the front its ``transBatchA`` or ``transBatchB`` (where the other side has a batch,
    too), one that does both both."""
    for op in work.ops("MatMul", "FusedMatMul"):
        for position, side in ((0, "A"), (1, "B")):
            before = work.made_by(op.inputs[position], "Transpose")
            perm = before.attrs.get("perm") if before is not None else None
            if before is None or not isinstance(perm, tuple) or len(perm) < 2:
                continue
            rank = len(perm)
            turns = {
                (*range(1, rank), 0): {f"trans{side}": 1, f"transBatch{side}": 1},
                (*range(1, rank - 1), 0, rank - 1): {f"transBatch{side}": 1},
                (*range(rank - 2), rank - 1, rank - 2): {f"trans{side}": 1},  # of a matrix this alone
            }
            turn = turns.get(tuple(perm))
            if turn is None or (f"transBatch{side}" in turn and len(work.shape(op.inputs[1 - position])) != rank):
                continue
            inputs = list(op.inputs)
            inputs[position] = before.inputs[0]
            alone = work.only_reader(before.outputs[0]) is op
            op = work.fuse(
                (before, op) if alone else (op,), "FusedMatMul", inputs, op.outputs, {**op.attrs, **turn}
            )
