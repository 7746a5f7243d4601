"""How each operator is drawn that a case of ``detection.cases`` may name. Another operator is a row of ``DRAWINGS``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from nn_meter.errors import RuleError
from nn_meter.ir import Graph, GraphBuilder

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a case's operators look like. Names follow nn-Meter's keys ``HW``, ``CIN``, ``COUT`` ...

    ``length`` is the width of a vector (``SHAPE_1D``); ``tokens`` the length of a sequence of ``cin``
    features; ``rows`` how many vectors. With ``pointwise``, convolutions over all channels are 1x1 whatever
    ``kernel_size`` is. ``padding`` is ``"same"`` or ``"valid"``.
    """

    hw: int = 28
    cin: int = 64
    cout: int = 128
    kernel_size: int = 3
    strides: int = 1
    pool_strides: int = 2
    length: int = 428
    tokens: int = 196
    rows: int = 1
    pointwise: bool = False
    padding: str = "same"

    def input_shape(self, domain: str) -> Shape:
        """Logical shape of what a case of ``domain`` starts from."""
        return {
            "map": (1, self.cin, self.hw, self.hw),
            "vector": (self.rows, self.length),
            "tokens": (1, self.tokens, self.cin),
        }[domain]


USUAL = Sizes()
"""nn-Meter's sizes."""

Drawing = Callable[[GraphBuilder, str, Sizes], tuple[str, ...]]
"""Adds an operator behind the tensor named; returns the names of its outputs."""

_AUTO_PAD = MappingProxyType({"same": "SAME_UPPER", "valid": "VALID"})


def _conv(op_type: str, *, depthwise: bool = False) -> Drawing:
    def draw(b: GraphBuilder, x: str, s: Sizes) -> tuple[str, ...]:
        cin = b.shape(x)[1]
        cout = cin if depthwise else s.cout
        ends = {"Conv": (cout, 1 if depthwise else cin), "ConvTranspose": (cin, cout)}[op_type]
        window = (1, 1) if s.pointwise and not depthwise else (s.kernel_size, s.kernel_size)
        y = b.op(
            op_type,
            x,
            b.weight((*ends, *window)),
            b.weight((cout,)),
            kernel_shape=window,
            strides=(s.strides, s.strides),
            auto_pad=_AUTO_PAD[s.padding],
            group=cin if depthwise else 1,
        )
        return (y,)

    return draw


def _pool(op_type: str) -> Drawing:
    def draw(b: GraphBuilder, x: str, s: Sizes) -> tuple[str, ...]:
        window, strides = (s.kernel_size, s.kernel_size), (s.pool_strides, s.pool_strides)
        return (b.op(op_type, x, kernel_shape=window, strides=strides, auto_pad=_AUTO_PAD[s.padding]),)

    return draw


def _unary(op_type: str) -> Drawing:
    return lambda b, x, s: (b.op(op_type, x),)


def _residual(b: GraphBuilder, x: str, s: Sizes) -> tuple[str, ...]:
    return (b.op("Add", x, b.input(b.shape(x))),)


def _scale(b: GraphBuilder, x: str, s: Sizes) -> tuple[str, ...]:
    return (b.op("Mul", x, b.const(0.125, "float32")),)


def _concat(b: GraphBuilder, x: str, s: Sizes) -> tuple[str, ...]:
    axis = 1 if len(b.shape(x)) != 3 else 2
    return (b.op("Concat", x, b.input(b.shape(x)), axis=axis),)


def _dense(b: GraphBuilder, x: str, s: Sizes) -> tuple[str, ...]:
    shape = b.shape(x)
    if len(shape) == 2:
        return (b.op("Gemm", x, b.weight((shape[1], s.cout)), b.weight((s.cout,))),)
    return (b.op("MatMul", x, b.weight((shape[-1], s.cout))),)


def _batch_norm(b: GraphBuilder, x: str, s: Sizes) -> tuple[str, ...]:
    return (b.op("BatchNormalization", x, *(b.weight((b.shape(x)[1],)) for _ in range(4))),)


def _layer_norm(b: GraphBuilder, x: str, s: Sizes) -> tuple[str, ...]:
    width = b.shape(x)[-1]
    return (b.op("LayerNormalization", x, b.weight((width,)), b.weight((width,)), axis=-1),)


def _relu6(b: GraphBuilder, x: str, s: Sizes) -> tuple[str, ...]:
    return (b.op("Clip", x, b.const(0.0, "float32"), b.const(6.0, "float32")),)


def _hswish(b: GraphBuilder, x: str, s: Sizes) -> tuple[str, ...]:
    (clipped,) = _relu6(b, b.op("Add", x, b.const(3.0, "float32")), s)
    return (b.op("Mul", x, b.op("Div", clipped, b.const(6.0, "float32"))),)


def _silu(b: GraphBuilder, x: str, s: Sizes) -> tuple[str, ...]:
    return (b.op("Mul", x, b.op("Sigmoid", x)),)


def _squeeze_excite(b: GraphBuilder, x: str, s: Sizes) -> tuple[str, ...]:
    channels = b.shape(x)[1]
    squeezed = max(1, channels // 4)
    y = b.op("GlobalAveragePool", x)
    y = b.op("Conv", y, b.weight((squeezed, channels, 1, 1)), b.weight((squeezed,)))
    y = b.op("Conv", b.op("Relu", y), b.weight((channels, squeezed, 1, 1)), b.weight((channels,)))
    return (b.op("Mul", x, b.op("HardSigmoid", y)),)


def _reshape(b: GraphBuilder, x: str, s: Sizes) -> tuple[str, ...]:
    n, c, *rest = b.shape(x)
    target: Shape = (n, *rest, c) if rest else (2 * n, c // 2)
    if len(rest) == 2 and rest[0] % 2 == 0:
        target = (n, 2 * c, rest[0] // 2, rest[1])
    elif not rest and n % 2 == 0:
        target = (2, n // 2, c)
    return (b.op("Reshape", x, b.const(target)),)


def _shuffle(b: GraphBuilder, x: str, s: Sizes) -> tuple[str, ...]:
    n, c, h, w = b.shape(x)
    pairs = b.op("Reshape", x, b.const((n, 2, c // 2, h, w)))
    return (b.op("Reshape", b.op("Transpose", pairs, perm=(0, 2, 1, 3, 4)), b.const((n, c, h, w))),)


def _halves(b: GraphBuilder, x: str, s: Sizes) -> tuple[str, ...]:
    half = b.shape(x)[1] // 2
    return b.multi("Split", (x, b.const((half, b.shape(x)[1] - half))), 2, axis=1)


def _quantised(op_type: str) -> Drawing:
    return lambda b, x, s: (b.op(op_type, x, b.const(0.02, "float32"), b.const(128, "uint8")),)


DRAWINGS: Mapping[str, Drawing] = MappingProxyType(
    {
        "conv": _conv("Conv"),
        "convtrans": _conv("ConvTranspose"),
        "dwconv": _conv("Conv", depthwise=True),
        "avgpool": _pool("AveragePool"),
        "maxpool": _pool("MaxPool"),
        "add": _residual,
        "bn": _batch_norm,
        "channelshuffle": _shuffle,
        "concat": _concat,
        "fc": _dense,
        "flatten": _unary("Flatten"),
        "gap": _unary("GlobalAveragePool"),
        "hswish": _hswish,
        "mul": _scale,
        "relu": _unary("Relu"),
        "relu6": _relu6,
        "reshape": _reshape,
        "se": _squeeze_excite,
        "sigmoid": _unary("Sigmoid"),
        "split": _halves,
        "DequantizeLinear": _quantised("DequantizeLinear"),
        "Gelu": _unary("Gelu"),
        "HardSwish": _unary("HardSwish"),
        "LayerNormalization": _layer_norm,
        "QuantizeLinear": _quantised("QuantizeLinear"),
        "Sigmoid": _unary("Sigmoid"),
        "Softmax": _unary("Softmax"),
        "Swish": _silu,
    }
)
"""Rule name to how the operator is drawn; ``Swish`` as ``Sigmoid`` and ``Mul``, which every opset has."""

_STARTS_FROM = MappingProxyType({"DequantizeLinear": "uint8"})
"""Element type that a graph begins with, where it is not float32."""


def draw(
    operators: Sequence[str],
    shape: Shape,
    sizes: Sizes = USUAL,
    name: str = "",
    drawings: Mapping[str, Drawing] = DRAWINGS,
) -> Graph:
    """The graph of ``operators`` one after the other, from one input of ``shape`` (NCHW).

    ``add`` and ``concat`` take an input of their own as second operand. Where an operator has several
    outputs, the chain goes on with the first.

    Raises:
        RuleError: an operator without a row in ``drawings``.
        ModelError: the shapes do not admit an operator.
    """
    b = GraphBuilder(name or "_".join(operators))
    out: tuple[str, ...] = (b.input(shape, _STARTS_FROM.get(operators[0], "float32")),)
    for operator in operators:
        if operator not in drawings:
            raise RuleError(
                f"test case {'_'.join(operators)}: no operator {operator!r}; there are {', '.join(drawings)}"
            )
        out = drawings[operator](b, out[0], sizes)
    return b.graph(*out)
