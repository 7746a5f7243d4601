"""Operators that models spell as several and that runtimes execute as one; any runtime's passes may take them."""

from __future__ import annotations

from nn_meter.kernels.patterns import Match, Pattern
from nn_meter.kernels.rewriting import Work

GELU = Pattern(
    "Gelu",
    ("x",),
    """
    e = Erf(Div(x, 1.41421)) | Erf(Mul(x, 0.70711))
    g = Add(e, 1.0)
    y = Mul(Mul(x, g), 0.5) | Mul(Mul(x, 0.5), g) | Mul(x, Mul(g, 0.5))
    """,
)

TANH_GELU = Pattern(
    "FastGelu",
    ("x",),
    """
    c = Mul(Pow(x, 3.0), 0.044715) | Mul(Mul(x, Mul(x, x)), 0.044715)
    g = Add(Tanh(Mul(Add(x, c), 0.79788)), 1.0)
    y = Mul(Mul(x, g), 0.5) | Mul(Mul(x, 0.5), g) | Mul(x, Mul(g, 0.5))
    """,
)

HARD_SWISH = Pattern(
    "HardSwish",
    ("x",),
    """
    c = Clip(Add(x, 3.0), ...)
    y = Mul(x, Div(c, 6.0)) | Mul(x, Mul(c, 0.16667)) | Div(Mul(x, c), 6.0) | Mul(Mul(x, c), 0.16667)
    """,
)


def _one_shape(work: Work, match: Match) -> str:
    return "" if work.shape(match["x"]) == work.shape(match["y"]) else "the gate has another shape than its operand"


SWISH = Pattern(
    "QuickGelu",
    ("x",),
    """
    const c: [1]
    s = Sigmoid(x) | Sigmoid(Mul(x, c))
    y = Mul(x, s)
    """,
    check=_one_shape,
)

LAYER_NORM = Pattern(
    "LayerNormalization",
    ("x", "w", "b"),
    """
    const e: [1]
    const w
    const b
    m = ReduceMean(x, ...)
    d = Sub(x, m)
    v = ReduceMean(Pow(d, 2.0), ...) | ReduceMean(Mul(d, d), ...)
    y = Add(Mul(Div(d, Sqrt(Add(v, e))), w), b)
    """,
    {"axis": -1},
)

RMS_NORM = Pattern(
    "SimplifiedLayerNormalization",
    ("x", "w"),
    """
    const e: [1]
    const w
    v = ReduceMean(Pow(x, 2.0), ...) | ReduceMean(Mul(x, x), ...)
    s = Sqrt(Add(v, e))
    y = Mul(Mul(x, Div(1.0, s)), w) | Mul(Div(x, s), w)
    """,
    {"axis": -1},
)


def _per_column(work: Work, match: Match) -> str:
    bias = work.shape(match["b"])
    same = work.shape(match["p"]) == work.shape(match["y"])
    return "" if len(bias) == 1 and same else "what is added to the product is no bias: it has more than one axis"


BIAS = Pattern(
    "MatMul",
    ("x", "w"),
    """
    const w
    const b
    p = MatMul(x, w)
    y = Add(p, b)
    """,
    check=_per_column,
)


def _per_channel(work: Work, match: Match) -> str:
    bias, x = work.shape(match["b"]), work.shape(match["x"])
    return "" if bias == x[-1:] else "what is added before the GELU is no value per channel"


BIAS_GELU = Pattern("BiasGelu", ("x", "b"), "const b\ny = Gelu(Add(x, b))", check=_per_channel)

BIAS_TANH_GELU = Pattern("FastGelu", ("x", "b"), "const b\ny = FastGelu(Add(x, b))", check=_per_channel)


def _of_sequences(work: Work, match: Match) -> str:
    shapes = work.shape(match["p"]), work.shape(match["q"])
    if shapes[0] != shapes[1]:
        return "the summands before the normalisation have different shapes"
    if len(shapes[0]) != 3:
        return f"the sum before the normalisation has {len(shapes[0])} axes, not 3"
    last = match.ops["y"].attrs.get("axis", -1) in (-1, 2)
    return "" if last else "the normalisation is over more than the last axis"


SKIP_LAYER_NORM = Pattern(
    "SkipLayerNormalization", ("p", "q", "w", "b"), "y = LayerNormalization(Add(p, q), w, b)", check=_of_sequences
)
