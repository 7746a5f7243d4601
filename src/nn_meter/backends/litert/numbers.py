"""Operators that compute each number by itself, or one of many: a row each. They keep the order that is there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from nn_meter.backends.litert.model import Stored
from nn_meter.backends.litert.site import Row, Site, named_clamp
from nn_meter.backends.site import clamp
from nn_meter.runtimes.litert import Order, plain


def _apart(function: Callable[[Site, Stored], Stored]) -> Row:
    def row(site: Site) -> None:
        site.give(function(site, site.get(0)), site.order())

    return row


def _unary(code: str) -> Row:
    return _apart(lambda site, stored: site.file.op(code, [stored], stored.shape))


def _with(site: Site, code: str, stored: Stored, value: float) -> Stored:
    """One with a constant of one element."""
    return site.file.op(code, [stored, site.file.constant(np.array(value, stored.dtype))], stored.shape)


def _together(site: Site, names: Sequence[str]) -> tuple[list[Stored], Order]:
    """Operands that are broadcast to the result, each in the order of the first that is as large and computed."""
    file, rank = site.file, len(site.shape)
    computed = [name for name in names if file.known(name) is None and len(file.shape(name)) == rank]
    whole = [name for name in computed if file.shape(name) == site.shape]
    order = file.order((whole or computed)[0]) if computed else plain(rank)
    return [_broadcast(site, name, order) for name in names], order


def _broadcast(site: Site, name: str, order: Order) -> Stored:
    file, shape = site.file, site.file.shape(name)
    known, missing = file.known(name), len(order) - len(shape)
    if known is not None:
        wide = known.reshape((1,) * missing + shape).transpose(order)
        leading = next((i for i, n in enumerate(wide.shape) if n > 1), wide.ndim)
        return file.constant(np.ascontiguousarray(wide.reshape(wide.shape[leading:])))
    if not missing:
        return file.get(name, order)
    stored = file.get(name, plain(len(shape)))
    if order == plain(len(order)) or not shape:
        return stored
    return file.turned(file.shaped(stored, (1,) * missing + shape), order)


def _several(code: str, dtype: str = "") -> Row:
    """Of two or more operands, taken together one after the other."""

    def row(site: Site) -> None:
        operands, order = _together(site, site.inputs)
        stored = operands[0]
        for i, other in enumerate(operands[1:], 2):
            last = i == len(operands)
            shape = [site.shape[axis] for axis in order] if last else np.broadcast_shapes(stored.shape, other.shape)
            stored = site.file.op(code, [stored, other], shape, dtype)
        site.give(stored, order)

    return row


def _mean_of(site: Site) -> None:
    _several("ADD")(site)
    order = site.file.order(site.out)
    total = site.file.get(site.out, order)
    site.give(_with(site, "MUL", total, 1 / len(site.inputs)), order)


def _power(site: Site) -> None:
    exponent = site.work.scalar(site.inputs[1])
    code = {2.0: "SQUARE", 0.5: "SQRT"}.get(exponent or 0.0)
    (_several("POW") if code is None else _unary(code))(site)


def _where(site: Site) -> None:
    operands, order = _together(site, site.inputs)
    site.give(site.file.op("SELECT_V2", operands, [site.shape[a] for a in order], operands[1].dtype), order)


def _clip(site: Site) -> None:
    low, high = clamp(site.op, site.work)
    stored, order = site.get(0), site.order()
    code = named_clamp(site.op, site.work)
    if code:
        stored = site.file.op(code, [stored], stored.shape)
    else:
        stored = stored if low is None else _with(site, "MAXIMUM", stored, low)
        stored = stored if high is None else _with(site, "MINIMUM", stored, high)
    site.give(stored, order)


def _hard_sigmoid(site: Site) -> None:
    alpha, beta = site.number("alpha", 0.2), site.number("beta", 0.5)
    stored, order = site.get(0), site.order()
    if math.isclose(alpha, 1 / 6, rel_tol=1e-3) and beta == 0.5:
        clamped = site.file.op("RELU6", [_with(site, "ADD", stored, 3.0)], stored.shape)
        site.give(_with(site, "MUL", clamped, 1 / 6), order)
        return
    stored = _with(site, "ADD", _with(site, "MUL", stored, alpha), beta)
    site.give(_with(site, "MAXIMUM", _with(site, "MINIMUM", stored, 1.0), 0.0), order)


def _softplus(site: Site, stored: Stored) -> Stored:
    grown = _with(site, "ADD", site.file.op("EXP", [stored], stored.shape), 1.0)
    return site.file.op("LOG", [grown], stored.shape)


def _mish(site: Site, stored: Stored) -> Stored:
    gate = site.file.op("TANH", [_softplus(site, stored)], stored.shape)
    return site.file.op("MUL", [stored, gate], stored.shape)


def _quick_gelu(site: Site, stored: Stored) -> Stored:
    alpha = site.number("alpha", 1.702)
    scaled = stored if alpha == 1 else _with(site, "MUL", stored, alpha)
    return site.file.op("MUL", [stored, site.file.op("LOGISTIC", [scaled], stored.shape)], stored.shape)


def _elu(site: Site, stored: Stored) -> Stored:
    if site.number("alpha", 1.0) != 1:
        raise NotImplementedError(f"with alpha {site.number('alpha', 1.0):g}")
    return site.file.op("ELU", [stored], stored.shape)


def _gelu(approximate: bool) -> Row:
    def row(site: Site) -> None:
        stored = site.get(0)
        rough = approximate or site.text("approximate", "none") == "tanh"
        site.give(site.file.op("GELU", [stored], stored.shape, approximate=rough), site.order())

    return row


def _leaky(site: Site, stored: Stored) -> Stored:
    return site.file.op("LEAKY_RELU", [stored], stored.shape, alpha=site.number("alpha", 0.01))


def _reciprocal(site: Site, stored: Stored) -> Stored:
    return site.file.op("DIV", [site.file.constant(np.ones((), np.float32)), stored], stored.shape)


def _prelu(site: Site) -> None:
    source, order = site.get(0), site.order()
    slope = site.weights(1)
    wide = slope.reshape((1,) * (len(order) - slope.ndim) + slope.shape).transpose(order)[0]
    site.give(site.file.op("PRELU", [source, site.file.constant(np.ascontiguousarray(wide))], source.shape), order)


def _cast(site: Site) -> None:
    source, dtype = site.get(0), site.file.dtype(site.out)
    types = {"inDataType": site.file.type(source.dtype), "outDataType": site.file.type(dtype)}
    site.give(site.file.op("CAST", [source], source.shape, dtype, **types), site.order())


def _reduced(site: Site, code: str, source: Stored, order: Order) -> None:
    """The result is what ``code`` makes of ``source`` over the axes that the operator names."""
    rank = len(order)
    axes = {int(axis) % rank for axis in site.values(1, "axes") or range(rank)}
    keep = site.flag("keepdims", 1)
    kept = [axis for axis in order if keep or axis not in axes]
    shape = [1 if axis in axes else site.shape_of(0)[axis] for axis in kept]
    over = site.file.constant(sorted(order.index(axis) for axis in axes))
    places = sorted(kept)
    site.give(
        site.file.op(code, [source, over], shape, keepDims=keep),
        tuple(places.index(axis) for axis in kept),
    )


def _reduction(code: str, *before: str) -> Row:
    def row(site: Site) -> None:
        source, order = site.get(0), site.order()
        for each in before:
            source = site.file.op(each, [source], source.shape)
        _reduced(site, code, source, order)

    return row


def _behind(row: Row, *codes: str) -> Row:
    """``row``, then these operators of its result."""

    def both(site: Site) -> None:
        row(site)
        order = site.file.order(site.out)
        stored = site.file.get(site.out, order)
        for code in codes:
            stored = site.file.op(code, [stored], stored.shape)
        site.file.keep(site.out, stored, order)

    return both


def _last(code: str, **options: float) -> Row:
    """Over one axis, which TFLite wants last."""

    def row(site: Site) -> None:
        axis, rank, order = site.axis(-1), len(site.shape), site.order()
        if order[-1] != axis:
            order = (*(each for each in range(rank) if each != axis), axis)
        stored = site.get(0, order)
        site.give(site.file.op(code, [stored], stored.shape, **options), order)

    return row


def _arg(code: str) -> Row:
    def row(site: Site) -> None:
        axis, source = site.axis(0), site.plainly(0)
        shape = [n for i, n in enumerate(source.shape) if i != axis]
        options = {"outputType": site.file.type("int64")}
        stored = site.file.op(code, [source, site.file.constant(np.int32(axis))], shape, "int64", **options)
        site.give(site.file.shaped(stored, site.shape))

    return row


def _lp_norm(site: Site) -> None:
    if site.number("p", 2) != 2:
        raise NotImplementedError(f"of the order {site.number('p', 2):g}")
    axis, source, order = site.axis(-1), site.get(0), site.order()
    squares = site.file.op("SQUARE", [source], source.shape)
    narrow = [1 if each == axis else site.shape[each] for each in order]
    over = site.file.constant([order.index(axis)])
    total = site.file.op("SUM", [squares, over], narrow, keepDims=True)
    site.give(site.file.op("DIV", [source, site.file.op("SQRT", [total], narrow)], source.shape), order)


ROWS: Mapping[str, Row] = MappingProxyType(
    {
        **{
            name: _unary(code)
            for name, code in {
                "Abs": "ABS", "Ceil": "CEIL", "Cos": "COS", "Exp": "EXP", "Floor": "FLOOR", "HardSwish": "HARD_SWISH",
                "Log": "LOG", "Neg": "NEG", "Not": "LOGICAL_NOT", "Relu": "RELU", "Round": "ROUND",
                "Sigmoid": "LOGISTIC", "Sign": "SIGN", "Sin": "SIN", "Sqrt": "SQRT", "Tanh": "TANH",
            }.items()
        },
        **{
            name: _several(code)
            for name, code in {
                "Add": "ADD", "And": "LOGICAL_AND", "Div": "DIV", "Max": "MAXIMUM", "Min": "MINIMUM",
                "Mod": "FLOOR_MOD", "Mul": "MUL", "Or": "LOGICAL_OR", "Sub": "SUB", "Sum": "ADD",
            }.items()
        },
        **{
            name: _several(code, "bool")
            for name, code in {
                "Equal": "EQUAL", "Greater": "GREATER", "GreaterOrEqual": "GREATER_EQUAL", "Less": "LESS",
                "LessOrEqual": "LESS_EQUAL", "Xor": "NOT_EQUAL",
            }.items()
        },
        "ArgMax": _arg("ARG_MAX"),
        "ArgMin": _arg("ARG_MIN"),
        "Cast": _cast,
        "Clip": _clip,
        "Elu": _apart(_elu),
        "FastGelu": _gelu(True),
        "Gelu": _gelu(False),
        "HardSigmoid": _hard_sigmoid,
        "LeakyRelu": _apart(_leaky),
        "LogSoftmax": _last("LOG_SOFTMAX"),
        "LpNormalization": _lp_norm,
        "Mean": _mean_of,
        "Mish": _apart(_mish),
        "PRelu": _prelu,
        "Pow": _power,
        "QuickGelu": _apart(_quick_gelu),
        "Reciprocal": _apart(_reciprocal),
        "ReduceL1": _reduction("SUM", "ABS"),
        "ReduceL2": _behind(_reduction("SUM", "SQUARE"), "SQRT"),
        "ReduceLogSum": _behind(_reduction("SUM"), "LOG"),
        "ReduceMax": _reduction("REDUCE_MAX"),
        "ReduceMean": _reduction("MEAN"),
        "ReduceMin": _reduction("REDUCE_MIN"),
        "ReduceProd": _reduction("REDUCE_PROD"),
        "ReduceSum": _reduction("SUM"),
        "ReduceSumSquare": _reduction("SUM", "SQUARE"),
        "Softmax": _last("SOFTMAX", beta=1.0),
        "Softplus": _apart(_softplus),
        "Where": _where,
    }
)  # fmt: skip
"""Operator to its row."""
