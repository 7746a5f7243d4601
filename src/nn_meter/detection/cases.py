"""Test cases for fusion rules: what to run together, and what alone, to see what a runtime fuses.

A case is a block of operators and the parts it is compared with. The 79 basic pairs and ``MON`` are nn-Meter's (facts
of ``ruletest_config.yaml`` in its 2.0); chains of three and the pairs of today's networks are added. A new case is a
row; other packages bring cases of their own, and users register them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from nn_meter import plugins
from nn_meter.detection.drawings import DRAWINGS, USUAL, Drawing, Shape, Sizes, draw
from nn_meter.errors import BuildError, did_you_mean
from nn_meter.ir import Graph, GraphBuilder


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

    def block(self, sizes: Sizes = USUAL) -> Graph:
        """All operators together."""
        return self._draw(self.operators, sizes.input_shape(self.domain), sizes, "block")

    def first(self, sizes: Sizes = USUAL) -> Graph:
        """All but the last operator."""
        return self._draw(self.operators[:-1], sizes.input_shape(self.domain), sizes, self.labels[0])

    def second(self, sizes: Sizes = USUAL) -> Graph:
        """The last operator alone, on what the ones before it give."""
        before = self.first(sizes)
        between = before.tensors[before.outputs[0]].shape
        return self._draw(self.operators[-1:], between, sizes, self.labels[1])

    def between(self, sizes: Sizes = USUAL) -> str:
        """The tensor, in block and first part, that the last operator reads."""
        return self.first(sizes).outputs[0]

    def graphs(self, sizes: Sizes = USUAL) -> Mapping[str, Graph]:
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

    def block(self, sizes: Sizes = USUAL) -> Graph:
        """A depthwise convolution with two branches: two activations; an activation and a convolution."""
        b = GraphBuilder(f"{self.name}_block")
        (x,) = DRAWINGS["dwconv"](b, b.input(sizes.input_shape("map")), sizes)
        first = b.op("Relu", b.op("Relu", x))
        (second,) = DRAWINGS["dwconv"](b, b.op("LeakyRelu", x, alpha=2.0), sizes)
        return b.graph(first, second)

    def first(self, sizes: Sizes = USUAL) -> Graph:
        """The depthwise convolution alone."""
        return draw(("dwconv",), sizes.input_shape("map"), sizes, f"{self.name}_first")

    def between(self, sizes: Sizes = USUAL) -> str:
        """The tensor, in block and first part, that both branches read."""
        return self.first(sizes).outputs[0]

    def graphs(self, sizes: Sizes = USUAL) -> Mapping[str, Graph]:
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


def _cases(texts_by_domain: Mapping[str, Iterable[str]]) -> tuple[FusionCase, ...]:
    return tuple(FusionCase(tuple(text.split()), domain) for domain, texts in texts_by_domain.items() for text in texts)


CHAINS = _cases(
    {
        "map": (
            "conv bn relu", "conv bn add", "conv bn hswish", "conv add relu", "conv relu add",
            "dwconv bn relu", "dwconv bn hswish", "dwconv add relu",
        ),
        "vector": ("fc add relu", "fc relu add"),
    }
)  # fmt: skip
"""Rules over three operators."""

TODAY = _cases(
    {
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
    }
)  # fmt: skip
"""Pairs of transformers, of mobile and of quantised networks."""

_ALL: tuple[FusionCase | ShareCase, ...] = (*BASIC, MON, *CHAINS, *TODAY)
CASES: Mapping[str, FusionCase | ShareCase] = MappingProxyType({case.name: case for case in _ALL})
"""Every case by the rule that it decides; those that a case requires come before it or are among them."""

IMPLEMENT = "onnx"
"""Registered operators of this ``implement`` take part: classes whose instances are called as ``Drawing`` is."""

_CASE = ("name", "labels", "requires", "block", "first", "between")


def drawings() -> Mapping[str, Drawing]:
    """How every operator is drawn that a case may name, registered ones included.

    Raises:
        RegistrationError: a registered operator that cannot be loaded.
    """
    own = {entry.name: entry.load()() for entry in plugins.registered("operator") if entry.implement == IMPLEMENT}
    return MappingProxyType({**DRAWINGS, **own})


def known_cases() -> Mapping[str, Case]:
    """Every case by the rule that it decides: the built-in ones, then those of other packages and registered ones.

    Raises:
        RegistrationError: a case that cannot be loaded.
    """
    found: dict[str, Case] = dict(CASES)
    for each in plugins.listed("testcase"):
        case = each.load()  # a case of another package, a class that a user registered
        if is_case(case):
            case = case() if isinstance(case, type) else case
            found[case.name] = case
    return MappingProxyType(found)


def is_case(found: object) -> bool:
    """Whether a class or an object has what ``Case`` asks for; classes written for nn-Meter's builder have not."""
    return all(hasattr(found, attribute) for attribute in _CASE)


def find_cases(names: Iterable[str]) -> Mapping[str, Case]:
    """The cases of that name; ``BF_a_b`` is one for any two operators that can be drawn, registered ones included.

    Raises:
        BuildError: a name without a case; says what it could be.
        RegistrationError: a registered case or operator that cannot be loaded.
    """
    known, drawn = known_cases(), drawings()
    found: dict[str, Case] = {}
    for name in names:
        prefix, *operators = name.split("_")
        if name in known:
            found[name] = known[name]
        elif prefix == "BF" and len(operators) > 1 and drawn.keys() >= set(operators):
            domain = pair(operators[0], operators[1]).domain
            found[name] = FusionCase(tuple(operators), domain, drawn)
        elif plugins.find("testcase", name) is not None:
            raise BuildError(
                f"test case {name!r} is written for nn-Meter's builder, whose detect_fusion_rule runs it; to be timed "
                f"here, its class needs {', '.join(_CASE)}"
            )
        else:
            unknown = [each for each in operators if each not in drawn]
            what = f"no operator {unknown[0]!r} among {', '.join(drawn)}" if unknown else "see --list-testcases"
            raise BuildError(f"no test case {name!r}; {did_you_mean(name, known)}{what}")
    return MappingProxyType(found)
