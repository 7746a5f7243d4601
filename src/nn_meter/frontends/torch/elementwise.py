"""Element by element: arithmetic, comparisons, activations."""

from __future__ import annotations

from collections.abc import Mapping

from nn_meter.frontends.torch.call import (
    Call,
    Row,
    Writer,
    axis_of,
    dtype_of,
    each,
    is_tensor,
    operand,
    reshaped,
)
from nn_meter.ir import Attr


def unary(op_type: str, **attrs: Attr) -> Row:
    """One input, one output."""
    return chain(op_type, **attrs)


def with_arguments(op_type: str, **arguments: str) -> Row:
    """One input, one output, and numbers: ONNX's attribute to ATen's argument."""

    def row(w: Writer, c: Call) -> str:
        return w.op(op_type, w.value(c.first), **{ours: float(c[theirs]) for ours, theirs in arguments.items()})

    return row


def predicate(op_type: str) -> Row:
    """One input of any type, a truth value as output."""

    def row(w: Writer, c: Call) -> str:
        return w.op(op_type, w.value(c.first))

    return row


def chain(*op_types: str, **attrs: Attr) -> Row:
    """One operator after the other; ``attrs`` are the last one's."""

    def row(w: Writer, c: Call) -> str:
        name = operand(w, c.first, c.dtype)
        for op_type in op_types[:-1]:
            name = w.op(op_type, name)
        return w.op(op_types[-1], name, **attrs)

    return row


def gated(*op_types: str) -> Row:
    """The input times what these operators make of it, one after the other."""

    def row(w: Writer, c: Call) -> str:
        x = name = w.value(c.first)
        for op_type in op_types:
            name = w.op(op_type, name)
        return w.op("Mul", x, name)

    return row


def binary(op_type: str) -> Row:
    """Two operands, either of them perhaps a number, cast to the type of the result."""

    def row(w: Writer, c: Call) -> str:
        a, b = c.first, c.args["exponent" if "exponent" in c.args else "other"]
        left, right = operand(w, a, c.dtype), operand(w, b, c.dtype)
        alpha = c["alpha"]
        if alpha is not None and alpha != 1:
            right = w.op("Mul", right, w.const(alpha, c.dtype))
        return w.op(op_type, left, right)

    return row


def compare(op_type: str, negate: bool = False) -> Row:
    """Two operands of one type, a truth value as output."""

    def row(w: Writer, c: Call) -> str:
        a, b = c.first, c["other"]
        dtype = dtype_of(a)
        if is_tensor(b) and a.dim() == 0:
            dtype = dtype_of(b)
        if isinstance(b, float) and not dtype.startswith(("float", "bfloat")):
            dtype = "float32"
        found = w.op(op_type, operand(w, a, dtype), operand(w, b, dtype))
        return w.op("Not", found) if negate else found

    return row


def logical(op_type: str) -> Row:
    """Two truth values."""

    def row(w: Writer, c: Call) -> str:
        if c.dtype != "bool":
            name = {"And": "BitwiseAnd", "Or": "BitwiseOr", "Xor": "BitwiseXor"}[op_type]
            return w.op(name, operand(w, c.first, c.dtype), operand(w, c["other"], c.dtype))
        return w.op(op_type, operand(w, c.first, "bool"), operand(w, c["other"], "bool"))

    return row


def _gelu(w: Writer, c: Call) -> str:
    return w.op("Gelu", w.value(c.first), approximate=c["approximate"] or "none")


def _glu(w: Writer, c: Call) -> str:
    x = w.value(c.first)
    axis = axis_of(c["dim"], len(w.shape(x)))
    half = w.shape(x)[axis] // 2
    a, b = w.multi("Split", (x, w.const((half, half))), 2, axis=axis)
    return w.op("Mul", a, w.op("Sigmoid", b))


def _rrelu(w: Writer, c: Call) -> str:
    return w.op("LeakyRelu", w.value(c.first), alpha=(c["lower"] + c["upper"]) / 2)


def shrink(biased: bool) -> Row:
    """``hardshrink`` and ``softshrink``."""

    def row(w: Writer, c: Call) -> str:
        return w.op("Shrink", w.value(c.first), lambd=float(c["lambd"]), bias=float(c["lambd"]) * biased)

    return row


def _prelu(w: Writer, c: Call) -> str:
    x, slope = w.value(c["self"]), w.value(c["weight"])
    return w.op("PRelu", x, reshaped(w, slope, (w.shape(slope)[0], *(1,) * (len(w.shape(x)) - 2))))


def _softplus(w: Writer, c: Call) -> str:
    x, beta = w.value(c.first), c["beta"]
    if beta == 1:
        return w.op("Softplus", x)
    return w.op("Div", w.op("Softplus", w.op("Mul", x, w.const(beta, c.dtype))), w.const(beta, c.dtype))


def _threshold(w: Writer, c: Call) -> str:
    x = w.value(c.first)
    above = w.op("Greater", x, w.const(c["threshold"], c.dtype))
    return w.op("Where", above, x, w.const(c["value"], c.dtype))


def _clip(low: str, high: str) -> Row:
    def row(w: Writer, c: Call) -> str:
        bounds = ["" if c[key] is None else operand(w, c[key], c.dtype) for key in (low, high)]
        if any(is_tensor(c[key]) and c[key].dim() for key in (low, high)):
            name = operand(w, c.first, c.dtype)
            for op_type, bound in (("Max", bounds[0]), ("Min", bounds[1])):
                name = w.op(op_type, name, bound) if bound else name
            return name
        return w.op("Clip", operand(w, c.first, c.dtype), *(bounds if bounds[1] else bounds[:1]))

    return row


def _relu6(w: Writer, c: Call) -> str:
    return w.op("Clip", w.value(c.first), w.const(0.0, c.dtype), w.const(6.0, c.dtype))


def _div(w: Writer, c: Call) -> str:
    out = w.op("Div", operand(w, c.first, c.dtype), operand(w, c["other"], c.dtype))
    if c["rounding_mode"] == "floor" and c.dtype.startswith(("float", "bfloat")):
        return w.op("Floor", out)
    return out


def _rsub(w: Writer, c: Call) -> str:
    return w.op("Sub", operand(w, c["other"], c.dtype), operand(w, c.first, c.dtype))


def _addcmul(op_type: str) -> Row:
    def row(w: Writer, c: Call) -> str:
        term = w.op(op_type, w.value(c["tensor1"]), w.value(c["tensor2"]))
        if c["value"] != 1:
            term = w.op("Mul", term, w.const(c["value"], c.dtype))
        return w.op("Add", w.value(c["self"]), term)

    return row


def _expm1(w: Writer, c: Call) -> str:
    return w.op("Sub", w.op("Exp", w.value(c.first)), w.const(1.0, c.dtype))


def _log1p(w: Writer, c: Call) -> str:
    return w.op("Log", w.op("Add", w.value(c.first), w.const(1.0, c.dtype)))


def _square(w: Writer, c: Call) -> str:
    return w.op("Pow", w.value(c.first), w.const(2, c.dtype))


def _where(w: Writer, c: Call) -> str:
    return w.op(
        "Where", w.value(c["condition"]), operand(w, c["self"], c.dtype), operand(w, c["other"], c.dtype)
    )


def _lerp(w: Writer, c: Call) -> str:
    begin, end = w.value(c["self"]), operand(w, c["end"], c.dtype)
    return w.op("Add", begin, w.op("Mul", w.op("Sub", end, begin), operand(w, c["weight"], c.dtype)))


def _logaddexp(w: Writer, c: Call) -> str:
    powers = [w.op("Exp", operand(w, c[each], c.dtype)) for each in ("self", "other")]
    return w.op("Log", w.op("Add", *powers))


def _masked_fill(w: Writer, c: Call) -> str:
    return w.op("Where", w.value(c["mask"]), operand(w, c["value"], c.dtype), w.value(c["self"]))


ROWS: Mapping[str, Row] = {
    **{
        name: unary(name.capitalize())
        for name in (
            *("abs", "acos", "asin", "atan", "ceil", "cos", "cosh", "erf", "exp", "floor", "log", "neg"),
            *("reciprocal", "relu", "round", "selu", "sigmoid", "sign", "sin", "sinh", "sqrt", "tan", "tanh"),
        )
    },
    **each("logical_not bitwise_not", unary("Not")),
    "isnan": predicate("IsNaN"),
    "isinf": predicate("IsInf"),
    "hardswish": unary("HardSwish"),
    "hardsigmoid": unary("HardSigmoid", alpha=1 / 6, beta=0.5),
    "log_sigmoid": chain("Sigmoid", "Log"),
    "softsign": unary("Softsign"),
    "relu6": _relu6,
    "gelu": _gelu,
    "silu": gated("Sigmoid"),
    "mish": gated("Softplus", "Tanh"),
    "glu": _glu,
    "leaky_relu": with_arguments("LeakyRelu", alpha="negative_slope"),
    "rrelu": _rrelu,
    "hardshrink": shrink(biased=False),
    "softshrink": shrink(biased=True),
    **each("elu celu", with_arguments("Elu", alpha="alpha")),
    **each("prelu _prelu_kernel", _prelu),
    "softplus": _softplus,
    "threshold": _threshold,
    "hardtanh": _clip("min_val", "max_val"),
    **each("clamp clip clamp_min clamp_max", _clip("min", "max")),
    "rsqrt": chain("Sqrt", "Reciprocal"),
    "expm1": _expm1,
    "log1p": _log1p,
    "square": _square,
    "add": binary("Add"),
    "sub": binary("Sub"),
    **each("mul multiply", binary("Mul")),
    "rsub": _rsub,
    **each("div divide true_divide floor_divide", _div),
    "pow": binary("Pow"),
    **each("remainder fmod", binary("Mod")),
    "maximum": binary("Max"),
    "minimum": binary("Min"),
    "addcmul": _addcmul("Mul"),
    "addcdiv": _addcmul("Div"),
    "eq": compare("Equal"),
    "ne": compare("Equal", negate=True),
    "gt": compare("Greater"),
    "ge": compare("GreaterOrEqual"),
    "lt": compare("Less"),
    "le": compare("LessOrEqual"),
    **each("logical_and bitwise_and __and__ __iand__", logical("And")),
    **each("logical_or bitwise_or __or__ __ior__", logical("Or")),
    **each("logical_xor bitwise_xor __xor__", logical("Xor")),
    "where": _where,
    "masked_fill": _masked_fill,
    "lerp": _lerp,
    "logaddexp": _logaddexp,
}  # fmt: skip
"""ATen operator to what writes it."""
