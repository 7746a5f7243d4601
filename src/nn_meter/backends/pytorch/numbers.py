"""Operators that compute each number by itself, or one of many: a row each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from nn_meter.backends.pytorch.site import Function, Row, Site


def _named(name: str) -> Row:
    """The function of torch of that name, of as many inputs as there are."""
    return lambda site: getattr(site.torch, name)


def _activation(name: str, **names: tuple[str, float]) -> Row:
    """A function of ``torch.nn.functional`` with ONNX's attributes under its own names, each with ONNX's default."""

    def made(site: Site) -> Function:
        function = getattr(site.torch.nn.functional, name)
        given = {own: site.number(theirs, default) for own, (theirs, default) in names.items()}
        return lambda x: function(x, **given)

    return made


def _reduction(function: Callable[[Any, Any, tuple[int, ...], bool], Any]) -> Row:
    def made(site: Site) -> Function:
        torch, keep = site.torch, site.flag("keepdims", 1)
        axes = site.values(1, "axes") or tuple(range(len(site.shape_of(0))))
        return lambda x, *_: function(torch, x, axes, keep)

    return made


def _several(function: Callable[[Any, Any, Any], Any]) -> Row:
    """Of two or more inputs, taken together one after the other."""

    def made(site: Site) -> Function:
        torch = site.torch

        def run(first: Any, *others: Any) -> Any:
            for other in others:
                first = function(torch, first, other)
            return first

        return run

    return made


def _along(name: str, default: int, **more: Any) -> Row:
    def made(site: Site) -> Function:
        function, axis = getattr(site.torch, name), int(site.number("axis", default))
        return lambda x: function(x, axis, **more)

    return made


def _arg(name: str) -> Row:
    def made(site: Site) -> Function:
        function, axis, keep = getattr(site.torch, name), int(site.number("axis", 0)), site.flag("keepdims", 1)
        return lambda x: function(x, axis, keep)

    return made


def _hardmax(site: Site) -> Function:
    torch, axis = site.torch, int(site.number("axis", -1))
    return lambda x: torch.zeros_like(x).scatter_(axis, x.argmax(axis, True), 1.0)


def _clip(site: Site) -> Function:
    torch, low, high = site.torch, site.values(1, "min"), site.values(2, "max")
    least, most = low[0] if low else None, high[0] if high else None
    return lambda x, *_: torch.clamp(x, least, most)


def _hard_sigmoid(site: Site) -> Function:
    alpha, beta = site.number("alpha", 0.2), site.number("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-3) and beta == 0.5:
        function: Function = site.torch.nn.functional.hardsigmoid
        return function
    return lambda x: (x * alpha + beta).clamp(0.0, 1.0)


def _gelu(site: Site) -> Function:
    function, how = site.torch.nn.functional.gelu, str(site.attrs.get("approximate", "none"))
    return lambda x, *_: function(x, approximate=how)


def _tanh_gelu(site: Site) -> Function:
    function = site.torch.nn.functional.gelu
    return lambda x, *_: function(x, approximate="tanh")


def _prelu(site: Site) -> Function:
    function, slope = site.torch.prelu, site.constants[1]
    if slope is not None and slope.numel() in (1, *site.shape_of(0)[1:2]):
        flat = slope.reshape(-1)
        return lambda x, _: function(x, flat)
    torch = site.torch
    return lambda x, w: torch.where(x < 0, x * w, x)


def _mod(site: Site) -> Function:
    function: Function = site.torch.fmod if site.flag("fmod") else site.torch.remainder
    return function


_TYPES: Mapping[int, str] = MappingProxyType(
    {
        1: "float32", 2: "uint8", 3: "int8", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
        11: "float64", 16: "bfloat16",
    }
)  # fmt: skip
"""ONNX's number of an element type to torch's name."""


def _cast(site: Site) -> Function:
    number = int(site.number("to", 1))
    if number not in _TYPES:
        raise NotImplementedError(f"to the type that ONNX numbers {number}")
    kind = getattr(site.torch, _TYPES[number])
    return lambda x: x.to(kind)


def _mean(site: Site) -> Function:
    torch = site.torch
    return lambda *parts: torch.stack(parts).mean(0) if len(parts) > 1 else parts[0]


def _product(site: Site) -> Function:
    """torch multiplies along one axis at a time."""
    shape, axes = site.shape, site.values(1, "axes") or tuple(range(len(site.shape_of(0))))
    ordered = sorted((int(axis) % len(site.shape_of(0)) for axis in axes), reverse=True)

    def run(x: Any, *_: Any) -> Any:
        for axis in ordered:
            x = x.prod(axis)
        return x.reshape(shape)

    return run


ROWS: Mapping[str, Row] = MappingProxyType(
    {
        **{
            name: _named(torchs)
            for name, torchs in {
                "Abs": "abs", "Acos": "acos", "Acosh": "acosh", "Asin": "asin", "Asinh": "asinh", "Atan": "atan",
                "Atanh": "atanh", "Ceil": "ceil", "Cos": "cos", "Cosh": "cosh", "Erf": "erf", "Exp": "exp",
                "Floor": "floor", "IsInf": "isinf", "IsNaN": "isnan", "Log": "log", "Neg": "neg", "Not": "logical_not",
                "Reciprocal": "reciprocal", "Relu": "relu", "Round": "round", "Sigmoid": "sigmoid", "Sign": "sign",
                "Sin": "sin", "Sinh": "sinh", "Sqrt": "sqrt", "Tan": "tan", "Tanh": "tanh",
                "Add": "add", "And": "logical_and", "BitwiseAnd": "bitwise_and", "BitwiseOr": "bitwise_or",
                "BitwiseXor": "bitwise_xor", "Div": "div", "Equal": "eq", "Greater": "gt", "GreaterOrEqual": "ge",
                "Less": "lt", "LessOrEqual": "le", "Mul": "mul", "Or": "logical_or", "Pow": "pow", "Sub": "sub",
                "Where": "where", "Xor": "logical_xor",
            }.items()
        },
        "Celu": _activation("celu", alpha=("alpha", 1.0)),
        "Elu": _activation("elu", alpha=("alpha", 1.0)),
        "HardSwish": _activation("hardswish"),
        "LeakyRelu": _activation("leaky_relu", negative_slope=("alpha", 0.01)),
        "Mish": _activation("mish"),
        "QuickGelu": _activation("silu"),
        "Selu": _activation("selu"),
        "Shrink": _activation("softshrink", lambd=("lambd", 0.5)),
        "Softplus": _activation("softplus"),
        "Softsign": _activation("softsign"),
        "ThresholdedRelu": lambda site: lambda x: site.torch.threshold(x, site.number("alpha", 1.0), 0.0),
        "Cast": _cast,
        "Clip": _clip,
        "FastGelu": _tanh_gelu,
        "Gelu": _gelu,
        "HardSigmoid": _hard_sigmoid,
        "Mod": _mod,
        "PRelu": _prelu,
        "Max": _several(lambda torch, a, b: torch.maximum(a, b)),
        "Mean": _mean,
        "Min": _several(lambda torch, a, b: torch.minimum(a, b)),
        "Sum": _several(lambda torch, a, b: a + b),
        "ArgMax": _arg("argmax"),
        "ArgMin": _arg("argmin"),
        "Hardmax": _hardmax,
        "LogSoftmax": _along("log_softmax", -1),
        "Softmax": _along("softmax", -1),
        "ReduceL1": _reduction(lambda torch, x, axes, keep: torch.norm(x, 1, axes, keep)),
        "ReduceL2": _reduction(lambda torch, x, axes, keep: torch.norm(x, 2, axes, keep)),
        "ReduceLogSum": _reduction(lambda torch, x, axes, keep: x.sum(axes, keep).log()),
        "ReduceLogSumExp": _reduction(lambda torch, x, axes, keep: x.logsumexp(axes, keep)),
        "ReduceMax": _reduction(lambda torch, x, axes, keep: x.amax(axes, keep)),
        "ReduceMean": _reduction(lambda torch, x, axes, keep: x.mean(axes, keep)),
        "ReduceMin": _reduction(lambda torch, x, axes, keep: x.amin(axes, keep)),
        "ReduceProd": _product,
        "ReduceSum": _reduction(lambda torch, x, axes, keep: x.sum(axes, keep)),
        "ReduceSumSquare": _reduction(lambda torch, x, axes, keep: x.square().sum(axes, keep)),
    }
)  # fmt: skip
"""Operator to its row."""
