"""Operators that models spell as several, with all their spellings; a runtime that knows fewer has patterns of its own.
"""

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
    c = Pow(x, 3.0) | Mul(x, Mul(x, x))
    g = Add(Tanh(Mul(Add(x, Mul(c, 0.044715)), 0.79788)), 1.0)
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


SWISH = Pattern("QuickGelu", ("x",), "y = Mul(x, Sigmoid(x))", {"alpha": 1.0}, check=_one_shape)
SCALED_SWISH = Pattern(
    "QuickGelu",
    ("x",),
    """
    const c: [1]
    y = Mul(x, Sigmoid(Mul(x, c)))
    """,
    check=_one_shape,
)

def means_over_the_last_axis(work: Work, match: Match) -> str:
    """Whether the means of a normalisation, named ``m`` and ``v``, are over the last axis."""
    last = len(work.shape(match["x"])) - 1
    for name in ("m", "v"):
        if name in match.ops:
            mean = match.ops[name]
            axes = mean.attrs.get("axes", work.value(mean, 1))
            if axes not in ((-1,), (last,)):
                return "the normalisation is over other axes than the last"
    return ""


def over_the_last_axis(work: Work, match: Match) -> str:
    """Whether that is so, and its weight ``w`` has a value for each place there."""
    reason = means_over_the_last_axis(work, match)
    if reason:
        return reason
    fits = work.shape(match["w"])[-1:] == work.shape(match["x"])[-1:]
    return "" if fits else "the weight of the normalisation is not one value for each place of the last axis"


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
    s = Sqrt(Add(v, e))
    n = Div(d, s) | Div(Sub(x, m), s)
    y = Add(Mul(n, w), b)
    """,
    {"axis": -1},
    over_the_last_axis,
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
    over_the_last_axis,
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
