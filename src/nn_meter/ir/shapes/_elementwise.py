"""Operators that work element by element, and those that keep the shape of their first input."""

from __future__ import annotations

from collections.abc import Sequence

from nn_meter.ir.shapes._dtypes import dtype_of
from nn_meter.ir.shapes._site import Out, Rule, Shape, ShapeError, Site, axis_in, broadcast


def same(s: Site) -> Sequence[Out]:
    """Shape and dtype of input 0."""
    x = s.tensor(0)
    return ((x.shape, x.dtype),)


def _same_bool(s: Site) -> Sequence[Out]:
    return ((s.shape(0), "bool"),)


def binary(s: Site) -> Sequence[Out]:
    """Two operands, broadcast; the dtype of the first."""
    a = s.tensor(0)
    b = s.shape(1)
    if "axis" in s.attrs:  # one-way broadcast of opset 6 and below
        b += (1,) * (len(a.shape) - axis_in(s.whole("axis"), len(a.shape)) - len(b))
    return ((broadcast(a.shape, b), a.dtype),)


def _compare(s: Site) -> Sequence[Out]:
    return ((broadcast(s.shape(0), s.shape(1)), "bool"),)


def _variadic(s: Site) -> Sequence[Out]:
    shape = s.shape(0)
    for index in range(1, len(s.inputs)):
        shape = broadcast(shape, s.shape(index))
    return ((shape, s.dtype(0)),)


def _where(s: Site) -> Sequence[Out]:
    return ((broadcast(broadcast(s.shape(0), s.shape(1)), s.shape(2)), s.dtype(1)),)


def _prelu(s: Site) -> Sequence[Out]:
    return ((broadcast(s.shape(0), s.shape(1)), s.dtype(0)),)


def _along_axis(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    axis_in(s.whole("axis", -1), max(len(x.shape), 1))
    return ((x.shape, x.dtype),)


def _cast(s: Site) -> Sequence[Out]:
    return ((s.shape(0), dtype_of(s.whole("to"))),)


def _string_concat(s: Site) -> Sequence[Out]:
    return ((broadcast(s.shape(0), s.shape(1)), "str"),)


def _loss(s: Site) -> Sequence[Out]:
    """Losses of classes along axis 1; the second result of one of them are the logarithms."""
    x, labels = s.tensor(0), s.shape(1)
    shape = labels if s.text("reduction", "mean") == "none" else ()
    return ((shape, x.dtype), (x.shape, x.dtype))


def _cast_like(s: Site) -> Sequence[Out]:
    return ((s.shape(0), s.dtype(1)),)


def _dropout(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    return ((x.shape, x.dtype), (x.shape, "bool"))


def _batch_norm(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    channels = x.shape[1] if len(x.shape) > 1 else 1
    for index in range(1, 5):
        if s.shape(index) != (channels,):
            raise ShapeError(
                f"input {index} has the shape {s.shape(index)}, the input has {channels} channels"
            )
    statistic = ((channels,), s.dtype(3))
    return ((x.shape, x.dtype), statistic, statistic, statistic, statistic)


def _layer_norm(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    rank = len(x.shape)
    axis = axis_in(s.whole("axis", -1), rank)
    broadcast(x.shape, s.shape(1))
    reduced = x.shape[:axis] + (1,) * (rank - axis)
    statistic = (reduced, dtype_of(s.whole("stash_type", 1)))
    return ((x.shape, x.dtype), statistic, statistic)


def _skip_layer_norm(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    statistic = ((*x.shape[:-1], 1), "float32")
    return ((x.shape, x.dtype), statistic, statistic, (x.shape, x.dtype))


def _channel_norm(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    if len(x.shape) < 2:
        raise ShapeError(f"the input {x.shape} has no channels")
    return ((x.shape, x.dtype),)


def _scaled(s: Site) -> Shape:
    """The shape of what is scaled; several scales are of places along an axis that it has."""
    scales = s.optional(1)
    if scales is not None and scales.size > 1:
        axis_in(s.whole("axis", 1), len(s.shape(0)))
    return s.shape(0)


def _quantize(s: Site) -> Sequence[Out]:
    zero = s.optional(2)
    if zero is not None:
        dtype = zero.dtype
    else:
        dtype = dtype_of(s.whole("output_dtype", 0) or 2)
    return ((_scaled(s), dtype),)


def _dequantize(s: Site) -> Sequence[Out]:
    code = s.whole("output_dtype", 0)
    return ((_scaled(s), dtype_of(code) if code else s.dtype(1)),)


def _dynamic_quantize(s: Site) -> Sequence[Out]:
    return ((s.shape(0), "uint8"), ((), "float32"), ((), "uint8"))


def _triangle(s: Site) -> Sequence[Out]:
    axis_in(-2, len(s.shape(0)))
    return same(s)


def _random_like(s: Site) -> Sequence[Out]:
    code = s.whole("dtype", 0)
    return ((s.shape(0), dtype_of(code) if code else s.dtype(0)),)


def _rows(names: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Rule] = {
    **_rows(
        "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Ceil Celu Clip Cos Cosh Elu Erf Exp Floor Gelu "
        "HardSigmoid HardSwish Identity LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink "
        "Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu CumSum CumProd "
        "LRN RotaryEmbedding MeanVarianceNormalization RMSNormalization ScatterND ScatterElements "
        "Scatter TensorScatter ReverseSequence OptionalGetElement",
        same,
    ),
    **_rows("Softmax LogSoftmax Hardmax LpNormalization", _along_axis),
    **_rows("IsNaN IsInf RegexFullMatch", _same_bool),
    **_rows("Add Sub Mul Div Pow Mod BitShift BitwiseAnd BitwiseOr BitwiseXor", binary),
    **_rows("And Or Xor Equal Less LessOrEqual Greater GreaterOrEqual", _compare),
    **_rows("Sum Min Max Mean", _variadic),
    **_rows("InstanceNormalization GroupNormalization", _channel_norm),
    **_rows("LayerNormalization SimplifiedLayerNormalization", _layer_norm),
    **_rows("RandomNormalLike RandomUniformLike Bernoulli", _random_like),
    "Where": _where,
    "PRelu": _prelu,
    "Cast": _cast,
    "BitCast": _cast,
    "StringConcat": _string_concat,
    "NegativeLogLikelihoodLoss": _loss,
    "SoftmaxCrossEntropyLoss": _loss,
    "CastLike": _cast_like,
    "Dropout": _dropout,
    "BatchNormalization": _batch_norm,
    "Trilu": _triangle,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic_quantize,
}

MICROSOFT: dict[str, Rule] = {
    **_rows("Gelu FastGelu QuickGelu BiasGelu BiasSoftmax RotaryEmbedding GroupNorm", same),
    **_rows("SkipLayerNormalization SkipSimplifiedLayerNormalization", _skip_layer_norm),
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "BiasAdd": same,
}
