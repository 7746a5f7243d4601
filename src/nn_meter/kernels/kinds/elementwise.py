"""Operators that compute each element by itself, of one operand or of several that are broadcast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod
from types import MappingProxyType

import numpy as np

from nn_meter.ir import Graph, GraphBuilder
from nn_meter.ir.shapes import DTYPES
from nn_meter.kernels.kinds._shared import ITEM_BYTES, OP, cached, some, times
from nn_meter.kernels.partition import Shape
from nn_meter.kernels.schema import Category, Column, KernelKind, OnDevice, Operator, Work, item_bytes

UNARY = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "Ceil", "Celu", "Clip", "Cos",
    "Cosh", "Elu", "Erf", "Exp", "FastGelu", "Floor", "Gelu", "HardSigmoid", "HardSwish", "IsInf", "IsNaN",
    "LeakyRelu", "Log", "Mish", "Neg", "Not", "QuickGelu", "Reciprocal", "Relu", "Round", "SampleOp", "Selu", "Shrink",
    "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
)  # fmt: skip
BINARY = (
    "Add", "And", "BiasGelu", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum",
    "Where", "Xor",
)  # fmt: skip

FLOPS_PER_ELEMENT: Mapping[str, int] = MappingProxyType(
    {
        "Acos": 16, "Acosh": 20, "Asin": 16, "Asinh": 20, "Atan": 16, "Atanh": 20, "BiasGelu": 25, "Celu": 14,
        "Cos": 20, "Cosh": 16, "Div": 4, "Elu": 14, "Erf": 20, "Exp": 12, "FastGelu": 24, "Gelu": 24,
        "HardSigmoid": 3, "HardSwish": 4, "Log": 12, "Mish": 40, "Mod": 8, "Pow": 20, "QuickGelu": 16, "Selu": 14,
        "Sigmoid": 14, "Sin": 20, "Sinh": 16, "Softplus": 24, "Sqrt": 4, "Swish": 16, "Tan": 24, "Tanh": 16,
    }
)  # fmt: skip
"""Floating-point operations an element, where it is not one: rough counts of the usual polynomial kernels."""

APIECE_NS: Mapping[str, float] = MappingProxyType(
    {
        "Sign": 1.3, "Elu": 1.5, "Selu": 1.5, "Log": 1.6, "Cos": 1.6, "Sin": 1.6, "Celu": 1.8, "PRelu": 4.1,
        "Shrink": 5.3, "Cosh": 5.8, "Acosh": 6.4, "Pow": 7.1, "Where": 7.9, "Mod": 8.2, "Softplus": 8.9, "Tan": 10.2,
        "Sinh": 15.1, "Atanh": 15.9, "Asinh": 18.6,
    }
)  # fmt: skip
"""Nanoseconds an element where ONNX Runtime computes them one by one, measured with 1.32 on a core of an Intel Xeon (64
maps of 56 x 56 random numbers): what runtimes have no vectors for is rare, so that a build measures little of each, and
some of all. The others take less than one."""

CONDITIONS = "a condition for each"
"""Of what a kernel reads: a choice for each element, which a processor foresees or not."""

QUOTIENTS = "a quotient of long integers"
"""Of what a kernel computes: a processor divides them digit by digit."""

KNOWN_EXPONENTS = ("0.5", "2", "3")
"""Exponents that runtimes compute otherwise than the rest."""

_DTYPES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("Not", "And", "Or", "Xor", "Where"), "bool"),
        **dict.fromkeys(("BitwiseNot", "BitwiseAnd", "BitwiseOr", "BitwiseXor"), "int32"),
        "BitShift": "uint32",
    }
)
"""Element type of the first operand, where it cannot be a floating-point number."""


def collapse(shapes: Sequence[Shape], out: Shape) -> tuple[Shape, tuple[tuple[bool, ...], ...]]:
    """Broadcasting in its shortest form.

    Returns the output's dimensions, neighbours merged where every operand treats them alike, and per operand
    whether it has each of them (else it is repeated along it).
    """
    different = {id(s): tuple(s) for s in shapes}  # of a million operands most are of one tensor
    padded = [(1,) * (len(out) - len(s)) + s for s in different.values()]
    columns = [(size, tuple(p[i] == size for p in padded)) for i, size in enumerate(out) if size != 1]
    merged = [
        (prod(c[0] for c in run), has)
        for has, group in groupby(columns, key=lambda c: c[1])
        for run in [list(group)]
    ]
    dims = tuple(m[0] for m in merged) or (1,)
    present = {s: tuple(m[1][k] for m in merged) or (True,) for k, s in enumerate(different)}
    return dims, tuple([present[id(s)] for s in shapes])


@dataclass(frozen=True, slots=True)
class BroadcastConfig:
    """An elementwise operator over ``dims``; ``present`` says per operand along which of them it varies. ``to`` is the
    element type of the result, ``constant`` the exponent that ``Pow`` is asked for, of which runtimes know some, or
    what ``QuickGelu`` scales by where that is not 1: it takes twice as long then."""

    op: str
    dims: Shape
    present: tuple[tuple[bool, ...], ...]
    dtype: str
    to: str
    constant: str = ""

    def describe(self) -> str:
        """Sizes in words."""
        return f"{self.op} {' , '.join(map(times, self.operands))} -> {times(self.dims)}"

    @property
    def operands(self) -> tuple[Shape, ...]:
        """The dimensions that each operand has."""
        known = {p: tuple(d for d, has in zip(self.dims, p, strict=True) if has) for p in set(self.present)}
        return tuple([known[p] for p in self.present])

    @property
    def size(self) -> int:
        """Output elements."""
        return prod(self.dims)


def read_unary(op: Operator) -> BroadcastConfig:
    """Config of operators of one operand; what else they read are settings."""
    dims, present = collapse([op.data[0].shape], op.outputs[0].shape)
    scale = op.attrs.get("alpha", 1.702) if op.op_type == "QuickGelu" else 1.0
    constant = f"{scale:g}" if isinstance(scale, float) and scale != 1 else ""
    return BroadcastConfig(op.op_type, dims, present, op.dtype, op.outputs[0].dtype, constant)


def read_broadcast(op: Operator) -> BroadcastConfig:
    """Config of operators of several operands."""
    dims, present = collapse([t.shape for t in op.data], op.outputs[0].shape)
    exponent = op.value(1) if op.op_type == "Pow" else ()
    constant = f"{exponent[0]:g}" if len(exponent) == 1 else ""
    return BroadcastConfig(op.op_type, dims, present, op.dtype, op.outputs[0].dtype, constant)


def work(c: BroadcastConfig) -> Work:
    """Each operand is read once."""
    read = sum(map(prod, c.operands)) * item_bytes(c.dtype)
    return Work(float(c.size * FLOPS_PER_ELEMENT.get(c.op, 1)), read, c.size * item_bytes(c.to))


def _size(operand: int) -> Column:
    """Elements of an operand, 0 where there are fewer."""
    name = f"size_{'abc'[operand]}"
    return Column(name, lambda c: prod(c.operands[operand]) if operand < len(c.present) else 0)


def _inner(operand: int) -> Column:
    """Whether an operand varies along the last dimension."""
    name = f"inner_{'abc'[operand]}"
    return Column(name, lambda c: operand < len(c.present) and c.present[operand][-1])


_DIVIDED = ("int64", "uint64")
_OF_INTEGERS_NS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {"Div": {"int64": 2.6, "uint64": 2.6, "uint32": 1.5, "int32": 0.5}, "Sign": {"int64": 1.0}}
)
"""The same of integers, which a processor divides one by one; measured as ``APIECE_NS`` was."""


def _apiece_ns(c: BroadcastConfig) -> float:
    if "int" in c.dtype and c.op in _OF_INTEGERS_NS:
        return _OF_INTEGERS_NS[c.op].get(c.dtype, 0.0)
    return 0.0 if c.constant in KNOWN_EXPONENTS[1:] else APIECE_NS.get(c.op, 0.0)


def _chosen_apiece(c: BroadcastConfig) -> bool:
    """Whether there is a condition for each of neighbours, and not one for all."""
    return c.op == "Where" and c.present[0][-1]


IN_PLACE = frozenset(
    ("Clip", "Celu", "Elu", "HardSigmoid", "LeakyRelu", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Tanh",
     "ThresholdedRelu")
)  # fmt: skip
"""Functions whose result ONNX Runtime may write over what they read (``MayInplace`` of 1.32): where that is computed
too, half as much passes through the caches, and 200,000 elements of Relu take 17 microseconds in place of 36."""


_FEW_CHOICES = 20_000
"""A choice that the processor takes for another costs it some 7 ns: of fewer, as masks of short texts have, at most a
seventh of a millisecond."""


def _by_data(c: BroadcastConfig) -> str:
    """What of its data decides how long it takes, beside what its operator says."""
    if c.op == "Div" and c.dtype in _DIVIDED:
        return QUOTIENTS
    varies = _chosen_apiece(c) and c.size > _FEW_CHOICES
    return CONDITIONS if varies else ""


COLUMNS: tuple[Column | Category | OnDevice, ...] = (
    OP,
    Column("size", lambda c: c.size),
    Column("rank", lambda c: len(c.dims)),
    Column("inner", lambda c: c.dims[-1]),
    Column("second", lambda c: c.dims[-2] if len(c.dims) > 1 else 1),
    Column("outer", lambda c: c.size // max(c.dims[-1], 1)),
    *(_size(operand) for operand in range(3)),
    *(_inner(operand) for operand in range(3)),
    Column("operands", lambda c: len(c.present)),
    Column("apiece_ns", _apiece_ns),
    ITEM_BYTES,
    Category("dtype", lambda c: c.dtype),
    Category("to", lambda c: c.to),
    Category("data", _by_data),
    Category("constant", lambda c: c.constant if c.constant in ("", *KNOWN_EXPONENTS) else "other"),
    cached(work),
)


def build_broadcast(c: BroadcastConfig) -> Graph:
    """One elementwise operator."""
    b = GraphBuilder(c.op.lower())
    others = "float32" if c.op == "Where" else c.dtype
    names = [
        b.input([d if has else 1 for d, has in zip(c.dims, p, strict=True)], others if i else c.dtype)
        for i, p in enumerate(c.present[:1] if c.constant else c.present)
    ]
    if c.op == "QuickGelu":
        return b.graph(b.op(c.op, *names, domain="com.microsoft", alpha=float(c.constant or 1)))
    if c.constant:
        names.append(b.const(float(c.constant), c.dtype))
    if c.op == "Cast":
        return b.graph(b.op(c.op, *names, to=DTYPES.index(c.to)))
    if c.op == "Clip":
        names += [b.const(-1.0, "float32"), b.const(1.0, "float32")]
    domain = "com.microsoft" if c.op in ("FastGelu", "BiasGelu", "SampleOp") else ""
    return b.graph(b.op(c.op, *names, domain=domain))


def _space_unary(rng: np.random.Generator) -> BroadcastConfig:
    op = str(rng.choice(UNARY))
    dtype = _DTYPES.get(op, "float32")
    to = "int32" if op == "Cast" else "bool" if op in ("IsInf", "IsNaN", "Not") else dtype
    return BroadcastConfig(op, (some(rng, 1, 2_000_000),), ((True,),), dtype, to)


def _space_binary(rng: np.random.Generator) -> BroadcastConfig:
    op = str(rng.choice(BINARY))
    out = tuple(some(rng, 2, 100) for _ in range(rng.integers(1, 4)))
    operands = 3 if op == "Where" else int(rng.integers(2, 4)) if op in ("Max", "Mean", "Min", "Sum") else 2
    shapes = [out]
    for _ in range(operands - 1):
        if op == "BiasGelu":
            shapes.append(out[-1:])
        else:
            shapes.append(tuple(d if rng.random() < 0.6 else 1 for d in out))
    dims, present = collapse(shapes, out)
    dtype = _DTYPES.get(op, "float32")
    to = "float32" if op == "Where" else "bool" if op in _COMPARISONS else dtype
    return BroadcastConfig(op, dims, present, dtype, to)


_COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")

KINDS = (
    KernelKind(
        "unary",
        UNARY,
        BroadcastConfig,
        read_unary,
        (*COLUMNS, Column("in_place", lambda c: c.op in IN_PLACE)),
        work,
        build_broadcast,
        _space_unary,
    ),
    KernelKind(
        "binary",
        BINARY,
        BroadcastConfig,
        read_broadcast,
        (*COLUMNS, Column("chosen_apiece", _chosen_apiece)),
        work,
        build_broadcast,
        _space_binary,
    ),
)
