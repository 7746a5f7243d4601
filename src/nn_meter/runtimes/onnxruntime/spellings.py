"""Spellings that ONNX Runtime recognises, and what it makes of its own operators (seen with 1.20, 1.26 and 1.32)."""

from __future__ import annotations

from dataclasses import replace

from nn_meter.kernels import spellings
from nn_meter.kernels.patterns import Match, Pattern
from nn_meter.kernels.rewriting import Work
from nn_meter.runtimes.base import Options, Run, rewriting

QUOTIENT = Pattern("Div", ("x", "d"), "y = Mul(x, Div(1.0, d))")
"""A product with a reciprocal; the norms below expect it done."""

GELU = replace(
    spellings.GELU,
    text="""
    g = Add(Erf(Div(x, 1.41421)), 1.0)
    y = Mul(Mul(x, g), 0.5) | Mul(Mul(x, 0.5), g)
    """,
)

TANH_GELU = replace(
    spellings.TANH_GELU,
    text="""
    s = Mul(Add(x, Mul(Pow(x, 3.0), 0.044715)), 0.79788) | Mul(Mul(x, 0.79788), Add(Mul(Mul(x, 0.044715), x), 1.0))
    y = Mul(Mul(x, 0.5), Add(Tanh(s), 1.0))
    """,
)


def _weights_of_one_axis(work: Work, match: Match) -> str:
    """Weights are of one axis and alike: one value for each place of the last axis, or one for all."""
    reason = spellings.means_over_the_last_axis(work, match)
    if reason:
        return reason
    last = work.shape(match["x"])[-1]
    shapes = {work.shape(match[name]) for name in ("w", "b") if name in match.tensors}
    if len(shapes) == 1 and shapes <= {(last,), (1,)}:
        return ""
    return "the weights of the normalisation are no values for each place of the last axis"


LAYER_NORM = replace(
    spellings.LAYER_NORM,
    text="""
    const e: [1]
    const w
    const b
    m = ReduceMean(x, ...)
    d = Sub(x, m)
    v = ReduceMean(Pow(d, 2.0), ...)
    s = Sqrt(Add(v, e))
    n = Div(d, s) | Div(Sub(x, m), s)
    y = Add(Mul(n, w), b)
    """,
    check=_weights_of_one_axis,
)

RMS_NORM = replace(
    spellings.RMS_NORM,
    text="""
    const e: [1]
    const w
    v = ReduceMean(Pow(x, 2.0), ...)
    s = Sqrt(Add(v, e))
    y = Mul(Div(x, s), w)
    """,
    check=_weights_of_one_axis,
)


def _per_channel(work: Work, match: Match) -> str:
    bias, x = work.shape(match["b"]), work.shape(match["x"])
    return "" if bias == x[-1:] else "what is added before the GELU is no value per channel"


BIAS_GELU = Pattern("BiasGelu", ("x", "b"), "const b\ny = Gelu(Add(x, b))", check=_per_channel)

BIAS_TANH_GELU = Pattern("FastGelu", ("x", "b"), "const b\ny = FastGelu(Add(x, b))", check=_per_channel)


def _of_sequences(work: Work, match: Match) -> str:
    shapes = work.told(match["p"]), work.told(match["q"])
    if shapes[0] != shapes[1] or None in shapes[0]:
        return "the summands before the normalisation have different shapes"
    if len(shapes[0]) != 3:
        return f"the sum before the normalisation has {len(shapes[0])} axes, not 3"
    last = match.ops["y"].attrs.get("axis", -1) in (-1, 2)
    return "" if last else "the normalisation is over more than the last axis"


def fuse_norms(*, older: bool) -> Run:
    """Norms that are written out: in files of opset 17 on before transposes move, in older ones behind that."""
    fuse = rewriting(LAYER_NORM, RMS_NORM)

    def run(work: Work, options: Options) -> None:
        if older == any("opset" in op.attrs for op in work.ops("ReduceMean")):
            fuse(work, options)

    return run


SKIP_LAYER_NORM = Pattern(
    "SkipLayerNormalization", ("p", "q", "w", "b"), "y = LayerNormalization(Add(p, q), w, b)", check=_of_sequences
)

SKIP_LAYER_NORM_WITHOUT_BIAS = replace(
    SKIP_LAYER_NORM, inputs=("p", "q", "w"), text="y = LayerNormalization(Add(p, q), w)"
)


def fuse_skip_layer_norm(work: Work, options: Options) -> None:
    """A sum and the normalisation behind it, with the bias of one of its summands."""
    rewriting(SKIP_LAYER_NORM, SKIP_LAYER_NORM_WITHOUT_BIAS)(work, options)
    for op in work.ops("SkipLayerNormalization"):
        for place in (0, 1):
            biased = work.made_by(op.inputs[place], "Add")
            if biased is None or len(op.inputs) > 4 or work.only_reader(biased.outputs[0]) is not op:
                continue
            x, bias = sorted(biased.inputs, key=work.const)
            if work.const(bias) and work.shape(bias) == work.told(x)[2:]:
                inputs = [*op.inputs, *[""] * (4 - len(op.inputs)), bias]
                inputs[place] = x
                work.fuse((biased, op), op.op_type, inputs, op.outputs, op.attrs)
                break
