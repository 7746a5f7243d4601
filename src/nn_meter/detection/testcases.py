"""Test cases for fusion rules, as data: what to run together, and what alone, to see what a runtime fuses.

A case is a block of operators and the parts it is compared with. The 79 basic pairs and ``MON`` are
nn-Meter's (facts of ``ruletest_config.yaml`` in its 2.0); chains of three and the pairs of today's networks
are added. A new case is a row; an operator that rows may name is a row of ``DRAWINGS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from nn_meter.errors import RuleError
from nn_meter.ir.builder import GraphBuilder
from nn_meter.ir.graph import Graph

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


def _quantize(b: GraphBuilder, x: str, s: Sizes) -> tuple[str, ...]:
    return (b.op("QuantizeLinear", x, b.const(0.02, "float32"), b.const(128, "uint8")),)


def _dequantize(b: GraphBuilder, x: str, s: Sizes) -> tuple[str, ...]:
    return (b.op("DequantizeLinear", x, b.const(0.02, "float32"), b.const(128, "uint8")),)


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
        "DequantizeLinear": _dequantize,
        "Gelu": _unary("Gelu"),
        "HardSwish": _unary("HardSwish"),
        "LayerNormalization": _layer_norm,
        "QuantizeLinear": _quantize,
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
    sizes: Sizes = Sizes(),
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


class Case(Protocol):
    """What a rule is decided by: a block of operators, and its first part without what may join it.

    ``name`` is the rule's. ``requires`` names the rules that must have a verdict before the case means anything.
    ``labels`` is what nn-Meter's files call the two parts; empty where several operators read the value between.
    """

    @property
    def name(self) -> str: ...

    @property
    def requires(self) -> Mapping[str, bool]: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    def block(self, sizes: Sizes = ...) -> Graph:
        """All operators together, from float inputs; the first part's nodes and tensors have the same names in it."""

    def first(self, sizes: Sizes = ...) -> Graph:
        """The first part alone."""

    def between(self, sizes: Sizes = ...) -> str:
        """The tensor of both graphs that the other operators read."""


@dataclass(frozen=True, slots=True)
class FusionCase:
    """Operators of one rule. A chain of three asks whether its last operator joins the two before.

    ``domain`` is what flows in: ``"map"`` (NCHW), ``"vector"`` (one row) or ``"tokens"`` (a sequence).
    ``drawings`` says how the operators are drawn.
    """

    operators: tuple[str, ...]
    domain: str = "map"
    drawings: Mapping[str, Drawing] = field(default_factory=lambda: DRAWINGS, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The rule, as fusion-rule files call it: ``BF_conv_relu``."""
        return "_".join(("BF", *self.operators))

    @property
    def requires(self) -> Mapping[str, bool]:
        """Rules that must have this verdict before the case means anything."""
        before = self.operators[:-1]
        return MappingProxyType({"_".join(("BF", *before)): True} if len(before) > 1 else {})

    @property
    def labels(self) -> tuple[str, str]:
        """What nn-Meter's files call the two parts: ``conv`` and ``relu``, or ``relu_1`` and ``relu_2``."""
        first, second = "_".join(self.operators[:-1]), self.operators[-1]
        return (f"{first}_1", f"{second}_2") if first == second else (first, second)

    def block(self, sizes: Sizes = Sizes()) -> Graph:
        """All operators together."""
        return self._draw(self.operators, sizes.input_shape(self.domain), sizes, "block")

    def first(self, sizes: Sizes = Sizes()) -> Graph:
        """All but the last operator."""
        return self._draw(self.operators[:-1], sizes.input_shape(self.domain), sizes, self.labels[0])

    def second(self, sizes: Sizes = Sizes()) -> Graph:
        """The last operator alone, on what the ones before it give."""
        before = self.first(sizes)
        between = before.tensors[before.outputs[0]].shape
        return self._draw(self.operators[-1:], between, sizes, self.labels[1])

    def between(self, sizes: Sizes = Sizes()) -> str:
        """The tensor, in block and first part, that the last operator reads."""
        return self.first(sizes).outputs[0]

    def graphs(self, sizes: Sizes = Sizes()) -> Mapping[str, Graph]:
        """Parts and block under the names that nn-Meter's files give them."""
        first, second = self.labels
        parts = {first: self.first(sizes), second: self.second(sizes)}
        return MappingProxyType({**parts, "block": self.block(sizes)})

    def _draw(self, operators: Sequence[str], shape: Shape, sizes: Sizes, label: str) -> Graph:
        return draw(operators, shape, sizes, f"{self.name}_{label}", self.drawings)


@dataclass(frozen=True, slots=True)
class ShareCase:
    """``MON``: what happens to a producer with two consumers.

    ``outcomes`` lists, for each outcome, the chains that the runtime would then execute; the outcome whose
    chains take as long as the block is the true one. ``obeys`` says what the rule file makes of it: whether
    the producer is fused into one of its consumers.
    """

    name: str
    outcomes: Mapping[str, tuple[tuple[str, ...], ...]]
    obeys: Mapping[str, bool]
    requires: Mapping[str, bool]

    @property
    def labels(self) -> tuple[str, ...]:
        """None: two operators read the convolution's result."""
        return ()

    def block(self, sizes: Sizes = Sizes()) -> Graph:
        """A depthwise convolution with two branches: two activations; an activation and a convolution."""
        b = GraphBuilder(f"{self.name}_block")
        (x,) = DRAWINGS["dwconv"](b, b.input(sizes.input_shape("map")), sizes)
        first = b.op("Relu", b.op("Relu", x))
        (second,) = DRAWINGS["dwconv"](b, b.op("LeakyRelu", x, alpha=2.0), sizes)
        return b.graph(first, second)

    def first(self, sizes: Sizes = Sizes()) -> Graph:
        """The depthwise convolution alone."""
        return draw(("dwconv",), sizes.input_shape("map"), sizes, f"{self.name}_first")

    def between(self, sizes: Sizes = Sizes()) -> str:
        """The tensor, in block and first part, that both branches read."""
        return self.first(sizes).outputs[0]

    def graphs(self, sizes: Sizes = Sizes()) -> Mapping[str, Graph]:
        """The block and every chain of an outcome, each once, by name."""
        chains = dict.fromkeys(chain for outcome in self.outcomes.values() for chain in outcome)
        drawn = {
            "_".join(chain): draw(chain, sizes.input_shape("map"), sizes, "_".join((self.name, *chain)))
            for chain in chains
        }
        return MappingProxyType({"block": self.block(sizes), **drawn})


MON = ShareCase(
    "MON",
    MappingProxyType(
        {
            "case1": (("relu", "relu"), ("relu", "dwconv"), ("dwconv",)),
            "case2": (("dwconv", "relu", "relu"), ("relu", "dwconv")),
            "case3": (("dwconv", "relu"), ("dwconv",), ("relu", "relu")),
        }
    ),
    MappingProxyType({"case1": False, "case2": True, "case3": True}),
    MappingProxyType({"BF_dwconv_relu": True}),
)
"""Alone; into the first consumer with all that follows; into the second."""

_CONSUMERS: Mapping[str, str] = MappingProxyType(
    {
        "add": "add avgpool concat conv convtrans dwconv fc relu reshape",
        "avgpool": "add avgpool concat conv convtrans dwconv relu reshape",
        "bn": "relu",
        "concat": "add avgpool concat conv convtrans dwconv fc relu reshape",
        "conv": "add avgpool bn concat conv convtrans dwconv hswish relu reshape se",
        "convtrans": "add avgpool concat conv convtrans dwconv relu reshape",
        "dwconv": "add avgpool bn concat conv convtrans dwconv relu reshape",
        "fc": "add concat fc relu reshape",
        "relu": "add avgpool concat conv convtrans dwconv fc relu reshape",
        "reshape": "add avgpool concat conv convtrans dwconv fc relu reshape",
        "se": "relu",
    }
)

VECTORS = frozenset({"fc"})
"""Pairs with one of these are tried on a vector (``LAYERS_1D``)."""


def pair(first: str, second: str, vectors: frozenset[str] = VECTORS) -> FusionCase:
    """nn-Meter's basic case of two operators."""
    return FusionCase((first, second), "map" if vectors.isdisjoint((first, second)) else "vector")


BASIC: tuple[FusionCase, ...] = tuple(
    pair(first, second) for first, seconds in _CONSUMERS.items() for second in seconds.split()
)
"""nn-Meter's pairs, in its order."""

CHAINS: tuple[FusionCase, ...] = tuple(
    FusionCase(tuple(text.split()), domain)
    for domain, texts in {
        "map": (
            "conv bn relu", "conv bn add", "conv bn hswish", "conv add relu", "conv relu add",
            "dwconv bn relu", "dwconv bn hswish", "dwconv add relu",
        ),
        "vector": ("fc add relu", "fc relu add"),
    }.items()
    for text in texts
)  # fmt: skip
"""Rules over three operators."""

TODAY: tuple[FusionCase, ...] = tuple(
    FusionCase(tuple(text.split()), domain)
    for domain, texts in {
        "map": (
            "conv Gelu", "conv HardSwish", "conv Swish", "conv maxpool", "conv mul", "conv Sigmoid",
            "convtrans bn", "dwconv Gelu", "dwconv HardSwish", "dwconv Swish", "bn add", "bn conv",
            "conv QuantizeLinear", "relu QuantizeLinear", "DequantizeLinear conv",
            "DequantizeLinear QuantizeLinear", "QuantizeLinear DequantizeLinear",
        ),
        "tokens": (
            "fc Gelu", "fc Swish", "fc mul", "fc Softmax", "fc LayerNormalization", "mul Softmax",
            "add Softmax", "add LayerNormalization", "LayerNormalization add", "LayerNormalization fc",
            "Softmax fc", "Gelu fc", "fc QuantizeLinear", "DequantizeLinear fc",
        ),
    }.items()
    for text in texts
)  # fmt: skip
"""Pairs of transformers, of mobile and of quantised networks."""

_ALL: tuple[FusionCase | ShareCase, ...] = (*BASIC, MON, *CHAINS, *TODAY)
CASES: Mapping[str, FusionCase | ShareCase] = MappingProxyType({case.name: case for case in _ALL})
"""Every case by the rule that it decides; those that a case requires come before it or are among them."""
