"""Operators that compute each number by itself, or one of many: a row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from types import MappingProxyType

import numpy as np

from nn_meter.backends.ncnn.layers import together
from nn_meter.backends.ncnn.model import Values, kept
from nn_meter.backends.ncnn.site import Row, Site, bounds

_TURNED: Mapping[int, int] = MappingProxyType({1: 7, 3: 8, 6: 9})
"""Operations of two numbers to those with the second one first."""


def _apart(kind: str, parameters: Callable[[Site], Mapping[int, Values]] = lambda site: {}) -> Row:
    def row(site: Site) -> None:
        source = site.raw(0)
        site.give(site.file.layer(kind, (source,), source.dims, parameters(site)))

    return row


def _unary(number: int) -> Row:
    return _apart("UnaryOp", lambda site: {0: number})


def _several(number: int, mean: bool = False) -> Row:
    """Of two or more operands, one after the other."""

    def row(site: Site) -> None:
        file = site.file
        values = [site.work.scalar(name) for name in site.inputs]
        if len(site.inputs) == 2 and None in values and values != [None, None]:
            place = values.index(None)
            value = values[1 - place]
            operation = number if place == 0 else _TURNED.get(number, number)
            if value is not None and len(site.shape_of(place)) == len(site.shape):
                source = site.raw(place)
                site.give(file.layer("BinaryOp", (source,), source.dims, {0: operation, 1: 1, 2: float(value)}))
                return
        operands = [together(site, i) for i in range(len(site.inputs))]
        made = operands[0]
        for other in operands[1:]:
            made = file.layer("BinaryOp", (made, other), _broadcast(made.dims, other.dims), {0: number})
        if mean:
            made = file.layer("BinaryOp", (made,), made.dims, {0: 2, 1: 1, 2: 1 / len(operands)})
        site.give(made)

    return row


def _broadcast(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes of what two blobs give; of the shorter the one axis is that of channels."""
    if len(first) != len(second):
        return max(first, second, key=len)
    return tuple(np.broadcast_shapes(first, second))


def _reduction(number: int) -> Row:
    def row(site: Site) -> None:
        shape = site.shape_of(0)
        axes = {int(axis) % len(shape) for axis in site.values(1, "axes") or range(len(shape))}
        places = sorted(site.place(axis) for axis in axes if axis in kept(shape))
        source = site.get(0)
        dims = tuple(1 if i in places else size for i, size in enumerate(source.dims))
        parameters: dict[int, Values] = {0: number, 1: 0, 3: places, 4: 1, 5: 1}
        site.give(site.file.shaped(site.file.layer("Reduction", (source,), dims, parameters), site.dims))

    return row


def _softmax(site: Site) -> None:
    source = site.get(0)
    site.give(site.file.layer("Softmax", (source,), source.dims, {0: site.place(site.axis(-1)), 1: 1}))


def _prelu(site: Site) -> None:
    slope, source = site.weights(1), site.image()
    if slope.size not in (1, source.dims[0]) or slope.size != prod(slope.shape[-3:-2] or slope.shape):
        raise NotImplementedError("with a slope for each element")
    site.give(site.file.layer("PReLU", (source,), source.dims, {0: slope.size}, (slope.reshape(-1),)))


def _power(site: Site) -> None:
    exponent = site.work.scalar(site.inputs[1]) or 0.0
    number = {2.0: 4, 0.5: 5, -0.5: 6, -1.0: 15}.get(exponent)
    if exponent == 3:  # of a negative number ncnn's power is none
        source = site.raw(0)
        square = site.file.layer("UnaryOp", (source,), source.dims, {0: 4})
        site.give(site.file.layer("BinaryOp", (source, square), source.dims, {0: 2}))
    else:
        (_several(6) if number is None else _unary(number))(site)


def _quick_gelu(site: Site) -> None:
    if site.number("alpha", 1.702) != 1:
        raise NotImplementedError("with a factor")
    _apart("Swish")(site)


def _clip(site: Site) -> None:
    least, most = bounds(site, site.op)
    _apart("Clip", lambda site: {0: least, 1: most})(site)


def _hard(kind: str) -> Row:
    scale = 1 / 6 if kind == "HardSwish" else 0.2
    return _apart(kind, lambda site: {0: float(site.number("alpha", scale)), 1: float(site.number("beta", 0.5))})


ROWS: Mapping[str, Row] = MappingProxyType(
    {
        **{
            name: _unary(number)
            for name, number in {
                "Abs": 0, "Neg": 1, "Floor": 2, "Ceil": 3, "Sqrt": 5, "Exp": 7, "Log": 8, "Sin": 9, "Cos": 10,
                "Reciprocal": 15, "Tanh": 16, "Round": 18,
            }.items()
        },
        **{
            name: _several(number)
            for name, number in {"Add": 0, "Sub": 1, "Mul": 2, "Div": 3, "Max": 4, "Min": 5, "Sum": 0}.items()
        },
        **{
            name: _reduction(number)
            for name, number in {
                "ReduceL1": 7, "ReduceL2": 8, "ReduceLogSum": 9, "ReduceLogSumExp": 10, "ReduceMax": 4, "ReduceMean": 3,
                "ReduceMin": 5, "ReduceProd": 6, "ReduceSum": 0, "ReduceSumSquare": 2,
            }.items()
        },
        "Clip": _clip,
        "Elu": _apart("ELU", lambda site: {0: float(site.number("alpha", 1.0))}),
        "Erf": _apart("Erf"),
        "FastGelu": _apart("GELU", lambda site: {0: 1}),
        "Gelu": _apart("GELU", lambda site: {0: int(site.text("approximate", "none") == "tanh")}),
        "HardSigmoid": _hard("HardSigmoid"),
        "HardSwish": _hard("HardSwish"),
        "LeakyRelu": _apart("ReLU", lambda site: {0: float(site.number("alpha", 0.01))}),
        "Mean": _several(0, mean=True),
        "Mish": _apart("Mish"),
        "PRelu": _prelu,
        "Pow": _power,
        "QuickGelu": _quick_gelu,
        "Relu": _apart("ReLU"),
        "Sigmoid": _apart("Sigmoid"),
        "Softmax": _softmax,
        "Softplus": _apart("Softplus"),
    }
)  # fmt: skip
"""Operator to its row."""
