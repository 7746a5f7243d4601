"""Operators that the families' blocks hardly use, each by itself: what a predictor is asked about has to be measured.

Each writer applies a few operators of one sort to tensors of its own, since one operator's result is seldom what the
next one wants; sizes reach from what fits the first cache to a few megabytes. Here are those that compute with numbers;
those that move and look up elements stand in ``_blocks_operators_places``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from nn_meter.ir.graph import Attr
from nn_meter.networks import _blocks_operators_places as places
from nn_meter.networks._blocks import Pen
from nn_meter.networks._blocks_operators_rare import RARE
from nn_meter.networks._blocks_operators_shared import (
    answers,
    any_shape,
    batch_or_none,
    how_many,
    operand,
    size,
    some_of,
    tensors,
    token_shape,
)
from nn_meter.networks._blocks_operators_types import types

TYPES: Mapping[str, int] = {
    "float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10, "float64": 11,
}  # fmt: skip
"""Element type to the number that ``Cast`` knows it by."""

POSITIVE = frozenset(("Log", "Reciprocal", "Sqrt", "Acosh"))
WITHIN_ONE = frozenset(("Acos", "Asin", "Atanh"))
FUNCTIONS = (
    "Abs", "Atan", "Asinh", "BitwiseNot", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu",
    "HardSigmoid", "HardSwish", "IsInf", "IsNaN", "LeakyRelu", "Mish", "Neg", "Not", "Relu", "Round", "Selu", "Shrink",
    "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Swish", "Tan", "Tanh", "ThresholdedRelu",
    *sorted(POSITIVE), *sorted(WITHIN_ONE),
)  # fmt: skip
"""Functions of one number."""

COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
LOGIC = ("And", "Or", "Xor")
BITS = ("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitShift")
SEVERAL = ("Sum", "Mean", "Max", "Min")
ARITHMETIC = ("Add", "Mul", "Sub", "Div")
WHOLE = ("Add whole", "Mul whole", "Sub whole", "Div whole")
PAIRS = (
    *COMPARISONS, *LOGIC, *BITS, *SEVERAL, *ARITHMETIC, *WHOLE, "Pow", "Pow by number", "Mod", "PRelu", "Where",
)  # fmt: skip
"""Functions of two numbers or more."""

REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare", "ArgMax", "ArgMin",
)  # fmt: skip


def elementwise(pen: Pen) -> str:
    """Functions of one number."""
    made = []
    for op_type in some_of(pen, FUNCTIONS, 30):
        dtype, shape = {"Not": "bool", "BitwiseNot": "int32"}.get(op_type), any_shape(pen)
        x = pen.b.input(shape, dtype) if dtype else operand(pen, *shape)
        if op_type in POSITIVE:
            x = pen.op("Add", pen.op("Abs", x), pen.scalar(1.0))
        elif op_type in WITHIN_ONE:
            x = pen.op("Tanh", x)
        ends = (pen.scalar(-1.0), pen.scalar(1.0)) if op_type == "Clip" else ()
        made.append(pen.op(op_type, x, *ends))
    return answers(pen, made)


def casts(pen: Pen) -> str:
    """From one element type to another, and on to a third."""
    made = []
    for x in tensors(pen):
        between = pen.pick(*(name for name in TYPES if name != pen.dtype))
        last = pen.pick(*(name for name in TYPES if name != between))
        made.append(pen.op("Cast", pen.op("Cast", x, to=TYPES[between]), to=TYPES[last]))
    return answers(pen, made)


def _partner(pen: Pen, shape: tuple[int, ...], dtype: str | None = None) -> str:
    """An operand that broadcasts to ``shape``."""
    pattern = pen.pick("equal", "equal", "last", "channel", "some", "one")
    dims = {
        "equal": shape,
        "last": shape[-1:],
        "channel": (1, shape[1], *(1,) * (len(shape) - 2)),
        "some": tuple(d if pen.chance(0.5) else 1 for d in shape),
        "one": (),
    }[pattern]
    fixed = pen.chance(0.5) or not dims
    return (pen.b.weight if fixed else pen.b.input)(dims, dtype or pen.dtype)


def _outer(pen: Pen, shape: tuple[int, ...]) -> tuple[str, str]:
    """Two operands of which each is repeated along axes of the other: together they are of ``shape``."""
    mine = [pen.chance(0.5) for _ in shape]
    left, right = ([d if held is side else 1 for d, held in zip(shape, mine, strict=True)] for side in (True, False))
    shared = pen.integer(0, len(shape) - 1)  # as Mamba's states are: both have the first axis, or another
    left[shared] = right[shared] = shape[shared]
    return operand(pen, *left), operand(pen, *right)


def binary(pen: Pen) -> str:
    """Functions of two numbers or more, logic and integers among them."""
    made = []
    for name in some_of(pen, PAIRS, 24):
        shape, op_type = any_shape(pen), name.split()[0]
        if name in LOGIC:
            made.append(pen.op(op_type, pen.b.input(shape, "bool"), _partner(pen, shape, "bool")))
        elif name in BITS or name in WHOLE:
            dtype = "uint32" if name == "BitShift" else pen.pick("int32", "int64")
            turn = {"direction": pen.pick("LEFT", "RIGHT")} if name == "BitShift" else {}
            # twice the same, so that nothing is divided by 0
            whole = pen.b.input(shape, dtype)
            made.append(pen.op(op_type, whole, whole if name == "Div whole" else _partner(pen, shape, dtype), **turn))
        elif name.startswith("Pow"):
            base = pen.op("Abs", pen.input(*shape))
            if name == "Pow":
                by = base if pen.chance(0.5) else _partner(pen, shape)
            else:
                by = pen.scalar(pen.pick(2.0, 3.0, 0.5, 1.5))
            made.append(pen.op("Pow", base, by))
        elif name == "Mod":
            made.append(pen.op("Mod", operand(pen, *shape), _partner(pen, shape), fmod=1))
        elif name == "PRelu":
            made.append(pen.op("PRelu", operand(pen, *shape), pen.weight(shape[1], *(1,) * (len(shape) - 2))))
        elif name in SEVERAL:
            repeated = pen.chance(0.3)  # along axes of which each operand lacks others
            shapes = [tuple(d if pen.chance(0.6) else 1 for d in shape) if repeated else shape for _ in range(3)]
            made.append(pen.op(name, *(operand(pen, *each) for each in (shape, *shapes)[-pen.integer(2, 4) :])))
        elif name == "Where":
            pair = (operand(pen, *shape), _partner(pen, shape))
            made.append(pen.op("Where", _partner(pen, shape, "bool"), *(pair if pen.chance(0.5) else pair[::-1])))
        else:
            pair = _outer(pen, shape) if pen.chance(0.25) else (operand(pen, *shape), _partner(pen, shape))
            made.append(pen.op(op_type, *(pair if pen.chance(0.6) else pair[::-1])))
    return answers(pen, made)


def reductions(pen: Pen) -> str:
    """Every reduction over neighbouring axes, those around some, and every other axis: runtimes have code for each."""
    made = []
    for op_type in 3 * some_of(pen, REDUCTIONS, 8):
        x, _ = batch_or_none(pen)
        rank = len(pen.shape(x))
        if op_type.startswith("Arg"):
            last = int(pen.chance(0.3))
            kept = pen.integer(0, 1)
            made.append(pen.op(op_type, x, axis=pen.integer(0, rank - 1), keepdims=kept, select_last_index=last))
            continue
        if op_type.startswith("ReduceLog"):
            x = pen.op("Abs", x)
        begin, end = sorted((pen.integer(0, rank), pen.integer(0, rank)))
        low = pen.integer(1, max(1, rank - 2))
        high = pen.integer(low + 1, max(low + 1, rank - 1))
        axes = {
            "first": tuple(range(low)),
            "neighbours": tuple(range(begin, end)),
            "around": (*range(low), *range(high, rank)),
            "every other": tuple(range(pen.integer(0, 1), rank, 2)),
        }[pen.pick("first", "neighbours", "neighbours", "around", "every other")]
        made.append(pen.reduce(op_type, x, axes or (pen.integer(0, rank - 1),), pen.integer(0, 1)))
    return answers(pen, made)


def softmaxes(pen: Pen) -> str:
    """Softmax and its kin over any axis."""
    made = []
    for _ in range(how_many(pen, 3, 8)):
        op_type = pen.pick("Softmax", "Softmax", "LogSoftmax", "Hardmax")
        x, first = batch_or_none(pen)
        if op_type == "Softmax" and pen.chance(0.3):  # as what attention does not look at
            x = pen.op("Where", pen.b.weight(pen.shape(x), "bool"), x, pen.scalar(-1e4))
        made.append(pen.op(op_type, x, axis=pen.integer(first, len(pen.shape(x)) - 1)))
    return answers(pen, made)


NORMALISATIONS = (
    "LRN", "MeanVarianceNormalization", "LpNormalization", "LpNormalization", "LpNormalization",
    "InstanceNormalization", "LayerNormalization",
    "GroupNormalization", "RMSNormalization", "RMSNormalization", "BatchNormalization",
)  # fmt: skip


RECURRENT: Mapping[str, tuple[int, tuple[tuple[str, ...], ...]]] = {
    "RNN": (1, (("Tanh",), ("Relu",), ("Sigmoid",))),
    "GRU": (3, (("Sigmoid", "Tanh"), ("HardSigmoid", "Tanh"), ("Sigmoid", "Relu"))),
    "LSTM": (4, (("Sigmoid", "Tanh", "Tanh"), ("HardSigmoid", "Tanh", "Tanh"), ("Sigmoid", "Relu", "Relu"))),
}
"""Recurrent operator to its gates, and to the functions that frameworks give it, its own first."""


def recurrences(pen: Pen) -> str:
    """Recurrent layers of any size and length, by their own functions and by others."""
    made = []
    for sort in pen.rng.choice(["RNN", "RNN", "GRU", "LSTM"], how_many(pen, 2, 8)):
        gates, functions = RECURRENT[str(sort)]
        width, hidden, directions = pen.width(4, 256), pen.width(4, 256), 2 if pen.chance(0.25) else 1
        macs = directions * gates * hidden * (width + hidden) * pen.batch
        steps = max(1, min(200, round(pen.log_uniform(3e4, 1e7) / macs)))
        pen.macs += float(steps * macs)
        operands = [pen.input(steps, pen.batch, width)]
        operands += [pen.weight(directions, gates * hidden, n) for n in (width, hidden)]
        if pen.chance(0.8):
            operands.append(pen.weight(directions, 2 * gates * hidden))
        chosen = functions[0] if pen.chance(0.5) else pen.pick(*functions[1:])
        ways: dict[str, Attr] = {"activations": chosen * directions}
        if sort == "GRU":
            ways["linear_before_reset"] = pen.integer(0, 1)
        direction = "bidirectional" if directions == 2 else pen.pick("forward", "forward", "reverse")
        made.append(pen.op(str(sort), *operands, hidden_size=hidden, direction=direction, **ways))
    return answers(pen, made)


def normalisations(pen: Pen) -> str:
    """Normalisations that few networks have."""
    made = []
    for sort in some_of(pen, NORMALISATIONS, 6):
        width = pen.width(8, 512)
        side = max(2, round(math.sqrt(size(pen, 2e3, 3e5) / width / pen.batch)))
        shape: tuple[int, ...] = (pen.batch, width, side, side)
        if sort == "LpNormalization" and pen.chance(0.6):
            shape = any_shape(pen, 3)
            if pen.chance(0.6):  # a table; columns of one as wide as a power of two crowd in a cache
                across = 2 ** pen.integer(5, 11) if pen.chance(0.6) else round(pen.log_uniform(20, 2000))
                shape = (round(pen.log_uniform(8, 3e5 / across)), across)
        elif sort in ("LayerNormalization", "RMSNormalization") and pen.chance(0.5):
            shape = token_shape(pen)
        x = operand(pen, *shape)
        if sort == "LRN":
            made.append(pen.op(sort, x, size=pen.pick(3, 5, 5, 7), alpha=1e-4, beta=0.75, bias=1.0))
        elif sort == "MeanVarianceNormalization":
            made.append(pen.op(sort, x, axes=pen.pick((0, 2, 3), (2, 3))))
        elif sort == "LpNormalization":
            made.append(pen.op(sort, x, axis=pen.integer(len(shape) > 2, len(shape) - 1), p=pen.pick(1, 2)))
        elif sort == "InstanceNormalization":
            made.append(pen.op(sort, x, pen.weight(width), pen.weight(width), epsilon=1e-5))
        elif sort == "GroupNormalization":
            groups = pen.divisor(width, 2, 32)
            made.append(pen.op(sort, x, pen.weight(width), pen.weight(width), num_groups=groups))
        elif sort == "BatchNormalization":
            made.append(pen.op(sort, x, *(pen.weight(width) for _ in range(4))))
        else:
            axis = pen.integer(1, 3) if len(shape) > 3 else 2
            scale = [pen.weight(*shape[axis:]) for _ in range(1 if sort == "RMSNormalization" else 2)]
            made.append(pen.op(sort, x, *scale, axis=axis))
    return answers(pen, made)


EQUATIONS = (
    "bij,bjk->bik", "bid,bjd->bij", "bhid,bhjd->bhij", "bhij,bhjd->bhid", "bijh,bkjh->bhik", "bchw,bkc->bkhw",
    "ij,jk->ik", "bhwd,hkd->bhwk", "bhwd,wkd->bhwk", "bqhd,bkhd->bhqk", "bi,ij->bj", "i,j->ij", "bcn,bdn->bcd",
    "nctw,vw->nctv", "bij->bji", "bij->bi", "bhqk,bkhd->bqhd", "byhwc,hkc->byhwk", "byhwc,wkc->byhwk",
    "bshd,bshm->bhmd", "bhmd,bshd->bshm", "bnd,bnd->bn", "bnc,bnk->bck", "nchw,c->nchw", "ii->i", "bij->b",
    "nchw,c->nchw", "nchw,nc->nchw", "kij,kj->ki", "kij,j->ki", "ij,j->i", "ij,j->ij", "kld,ld->kld", "bln,bhn->blh",
    "bdl,dn->bldn", "ijk->kji", "kij->ikj", "ijkl->ljki", "kwd,wdv->kwv",
)  # fmt: skip
"""As attention, relative positions, graph convolutions and bilinear layers are written."""


def einsums(pen: Pen) -> str:
    """Sums of products over named axes."""
    made = []
    for _ in range(how_many(pen, 3, 12)):
        equation = pen.pick(*EQUATIONS)
        terms = equation.split("->")[0].split(",")
        labels = sorted(set("".join(terms)))
        sizes = {label: max(1, round(pen.log_uniform(3, 2000 if pen.chance(0.2) else 200))) for label in labels}
        if pen.chance(0.5):  # else rows of an image, which are as many as may be
            sizes |= {"h": pen.pick(2, 4, 8, 12)}
        sizes |= {"b": pen.batch if pen.chance(0.5) else round(pen.log_uniform(2, 64))}  # or windows
        most = 6e7 if pen.chance(0.4) else pen.log_uniform(1e4, 2e7)  # a head or a window of a small network, too
        while math.prod(sizes[label] for label in labels) > most:
            sizes = {label: max(1, size * 3 // 4) for label, size in sizes.items()}
        operands = [pen.input(*(sizes[label] for label in term)) for term in terms]
        pen.macs += math.prod(sizes[label] for label in labels)
        made.append(pen.op("Einsum", *operands, equation=equation))
    return answers(pen, made)


BEHIND = ("Elu", "Selu", "Softplus", "Softsign", "ThresholdedRelu")
"""Functions that become part of a Gemm, and that no family of networks has there."""


def _thin(pen: Pen) -> str:
    inner, many = round(pen.log_uniform(2, 24)), pen.pick(1, 1, 4, 8, 16)
    rows, columns = (round(pen.log_uniform(20, 1000 if many == 1 else 300)) for _ in range(2))
    pen.macs += float(many * rows * inner * columns)
    held = (many,) * (many > 1)
    return pen.op("MatMul", operand(pen, *held, rows, inner), operand(pen, *held, inner, columns))


def vectors(pen: Pen) -> str:
    """Products of a row or a column, as steps of a decoder and scores are: of weights, and of what is computed."""
    made = []
    for _ in range(how_many(pen, 4, 12)):
        inner = round(pen.log_uniform(8, 3000))
        other = round(pen.log_uniform(2, min(40_000, 6e6 / inner)))  # as many as there are words
        sort = pen.pick("row", "row", "column", "column", "list", "both", "thin")
        if sort == "thin":  # a few numbers for each, as scores of narrow heads and of points
            made.append(_thin(pen))
            continue
        rows, columns = {"row": (1, other), "both": (1, 1)}.get(sort, (other, 1))
        many = pen.pick(1, 1, 1, 4, 12) if max(inner, other) < 600 else 1
        second = (inner,) if sort == "list" else (*(many,) * (many > 1), inner, columns)
        x = operand(pen, *(many,) * (many > 1), rows, inner)
        pen.macs += float(many * rows * inner * columns)
        by = pen.weight(*second) if pen.chance(0.5) else pen.input(*second)
        flat = many == 1 and sort != "list" and pen.chance(0.3)
        if not flat:
            made.append(pen.op("MatMul", x, by))
            continue
        product = pen.op("Gemm", x, by, pen.weight(columns))
        made.append(pen.op(pen.pick(*BEHIND), product) if pen.chance(0.5) else product)
    return answers(pen, made)


OPERATORS: Mapping[str, Callable[[Pen], str]] = {
    "elementwise": elementwise,
    "casts": casts,
    "binary": binary,
    "reductions": reductions,
    "softmaxes": softmaxes,
    "resizes": places.resizes,
    "pools": places.pools,
    "transposed_convolutions": places.transposed_convolutions,
    "scatters": places.scatters,
    "gathers": places.gathers,
    "movements": places.movements,
    "views": places.views,
    "orders": places.orders,
    "normalisations": normalisations,
    "recurrences": recurrences,
    "samplings": places.samplings,
    "spectra": places.spectra,
    "einsums": einsums,
    "vectors": vectors,
    "types": types,
    **RARE,
}
"""A sort of operators to its writer."""

NOT_DRAWN: Mapping[str, str] = {
    "BifurcationDetector": "how long its result is follows from the text that it goes on with",
    **dict.fromkeys(("FusedConv", "FusedGemm"), "it is what a convolution or product with an activation becomes"),
    "Size": "what it says is known before inference",
}
"""Operators that run on a CPU and that no network holds, and why."""
