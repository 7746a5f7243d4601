"""Convolutions and products of quantised numbers.

What they cost is decided by the types of both operands and by the spelling: a product of uint8 and int8 has
instructions of its own where one of uint8 and uint8 may not, convolutions of integers compute with channels last, a
dynamic product quantises its rows first, and one with packed weights computes in floats or in int8 as its accuracy
level says (ONNX Runtime's ContribOperators.md and its MLAS). So operators, types and levels are categories.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from math import prod
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from nn_meter.ir import Graph, GraphBuilder
from nn_meter.kernels.kinds import convolutions, products
from nn_meter.kernels.kinds._shared import (
    DTYPE,
    ITEM_BYTES,
    OP,
    WAY,
    channels_first,
    pads_between,
    scale_and_zero,
    some,
    window,
)
from nn_meter.kernels.kinds.convolutions import ConvConfig
from nn_meter.kernels.kinds.products import GemmConfig
from nn_meter.kernels.schema import Category, Column, KernelKind, Operator, Work, item_bytes

_MICROSOFT = "com.microsoft"
C = TypeVar("C")

_WEIGHT_DTYPE = Category("weight_dtype", lambda c: c.weight_dtype)
_PER_CHANNEL = Column("per_channel", lambda c: c.per_channel)


def _extended(cls: Callable[..., C], base: ConvConfig | GemmConfig, op: Operator, at: int, scales: int) -> C:
    """A config that extends another: by the operator, by the type of the weights, which are input ``at``, whether input
    ``scales`` has a value for each channel, and by the type of the result."""
    values = [getattr(base, each.name) for each in fields(base)]
    w, scale = op.inputs[at], op.inputs[scales] if scales < len(op.inputs) else None
    per_channel = scale is not None and scale.size > 1
    return cls(*values, op.op_type, w.dtype if w is not None else "", per_channel, op.outputs[0].dtype)


# --- convolutions ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class QuantisedConvConfig(ConvConfig):
    """A convolution of integers, its result of type ``to``; in layout ``nhwc`` with channels last. ``per_channel`` says
    that each has a scale."""

    op: str
    weight_dtype: str
    per_channel: bool
    to: str

    @property
    def out_bytes(self) -> float:
        """Of the result."""
        return self.n * self.cout * prod(self.out) * item_bytes(self.to)

    @property
    def weight_bytes(self) -> float:
        """Of the weights, biases left out."""
        return self.cout * (self.cin // self.group) * prod(self.kernel) * item_bytes(self.weight_dtype)


def read_conv(op: Operator) -> QuantisedConvConfig:
    """Config of QLinearConv and ConvInteger; the first may have its channels last."""
    at, scales = (3, 4) if op.op_type == "QLinearConv" else (1, 3)
    found = channels_first(op) if op.int("channels_last", 0) else op
    base = convolutions.read_conv(replace(found, inputs=(found.inputs[0], found.inputs[at])))
    return _extended(QuantisedConvConfig, base, op, at, scales)


def build_conv(c: QuantisedConvConfig) -> Graph:
    """One convolution."""
    b = GraphBuilder("quantised_conv")
    x = b.input((c.n, c.cin, *c.size), c.dtype)
    w = b.weight((c.cout, c.cin // c.group, *c.kernel), c.weight_dtype)
    zeros = scale_and_zero(b, c.weight_dtype, c.cout if c.per_channel else 1)
    if c.op == "QLinearConv":
        inputs = [x, *scale_and_zero(b, c.dtype), w, *zeros, *scale_and_zero(b, c.to), b.weight((c.cout,), "int32")]
    else:
        inputs = [x, w, scale_and_zero(b, c.dtype)[1], zeros[1]]
    pads = pads_between(c.size, c.out, c.kernel, c.strides, c.dilations)
    y = b.op(
        c.op, *inputs, kernel_shape=c.kernel, strides=c.strides, dilations=c.dilations, pads=pads, group=c.group
    )
    return b.graph(y)


def _space_conv(depthwise: bool) -> Callable[[np.random.Generator], QuantisedConvConfig]:
    def draw(rng: np.random.Generator) -> QuantisedConvConfig:
        size, kernel, strides, out = window(rng, 2)
        op = str(rng.choice(["QLinearConv", "ConvInteger"]))
        linear = op == "QLinearConv"
        group = some(rng, 2, 600) if depthwise else int(rng.choice([1, 1, 1, 2, 4]))
        cin, cout = (group, group) if depthwise else (2 * group * some(rng, 1, 100), group * some(rng, 1, 300))
        per_channel = bool(linear and cout > 1 and rng.random() < 0.5)
        weight_dtype, to = (str(rng.choice(["int8", "uint8"])), "uint8") if linear else ("uint8", "int32")
        layout = "nhwc" if linear else "nchw"
        return QuantisedConvConfig(
            *(some(rng, 1, 8), cin, size, cout, out, kernel, strides, (1, 1), group, (), layout, "uint8"),
            *(op, weight_dtype, per_channel, to),
        )

    return draw


# --- products ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class QuantisedGemmConfig(GemmConfig):
    """Products of integers, their result of type ``to``; ``dtype`` is that of the first operand, floats where it is
    quantised inside. ``per_channel`` says that each column of the second has a scale."""

    op: str
    weight_dtype: str
    per_channel: bool
    to: str

    @property
    def right_bytes(self) -> float:
        """Of the second operand."""
        return (1 if self.weights else self.batch) * self.k * self.n * item_bytes(self.weight_dtype)

    @property
    def out_bytes(self) -> float:
        """Of the result."""
        return self.batch * self.m * self.n * item_bytes(self.to)


_SECOND: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "QLinearMatMul": (3, 4),
        "QGemm": (3, 4),
        "MatMulInteger": (1, 3),
        "MatMulIntegerToFloat": (1, 3),
        "DynamicQuantizeMatMul": (1, 2),
    }
)
"""Where the second operand of a product stands, and what it has of each column: scales, or zero points."""


def read_gemm(op: Operator) -> QuantisedGemmConfig:
    """Config of a product of integers in any spelling."""
    at, scales = _SECOND[op.op_type]
    base = products.read_gemm(replace(op, inputs=(op.inputs[0], op.inputs[at])))
    return _extended(QuantisedGemmConfig, base, op, at, scales)


def build_gemm(c: QuantisedGemmConfig) -> Graph:
    """One product."""
    b = GraphBuilder("quantised_product")
    lead = (c.batch,) if c.batch > 1 else ()

    def operand(shape: tuple[int, int], transposed: bool, dtype: str, const: bool, lead: tuple[int, ...]) -> str:
        whole = (*lead, *(reversed(shape) if transposed else shape))
        return b.weight(whole, dtype) if const else b.input(whole, dtype)

    x = operand((c.m, c.k), c.trans[0], c.dtype, False, lead)
    w = operand((c.k, c.n), c.trans[1], c.weight_dtype, c.weights, lead)
    scale, zero = scale_and_zero(b, c.weight_dtype, c.n if c.per_channel else 1)
    x_scale = scale_and_zero(b, c.dtype) if c.dtype != "float32" else ("", "")
    inputs: dict[str, list[str]] = {
        "QLinearMatMul": [x, *x_scale, w, scale, zero],
        "QGemm": [x, *x_scale, w, scale, zero, ""],
        "MatMulInteger": [x, w, x_scale[1], zero],
        "MatMulIntegerToFloat": [x, w, x_scale[0], scale, x_scale[1], zero],
        "DynamicQuantizeMatMul": [x, w, scale, zero],
    }
    target = scale_and_zero(b, c.to) if c.op in ("QLinearMatMul", "QGemm") and c.to != "float32" else ()
    domain = "" if c.op in ("QLinearMatMul", "MatMulInteger") else _MICROSOFT
    attrs = {"transA": int(c.trans[0]), "transB": int(c.trans[1])} if c.op == "QGemm" else {}
    return b.graph(b.op(c.op, *inputs[c.op], *target, domain=domain, **attrs))


def _space_gemm(rng: np.random.Generator) -> QuantisedGemmConfig:
    op = str(rng.choice(list(_SECOND)))
    m, k, n = some(rng, 1, 512), some(rng, 2, 2048), some(rng, 2, 2048)
    dynamic, flat = op == "DynamicQuantizeMatMul", op == "QGemm"
    weights = bool(rng.random() < 0.8)
    batch = some(rng, 2, 32) if not weights and not flat else 1
    trans = (bool(rng.random() < 0.2), bool(rng.random() < 0.5)) if flat else (False, False)
    weight_dtype = str(rng.choice(["int8", "uint8"]))
    to = {"QLinearMatMul": "uint8", "QGemm": str(rng.choice(["uint8", "float32"])), "MatMulInteger": "int32"}
    return QuantisedGemmConfig(
        *(batch, m, k, n, weights, trans, (), "float32" if dynamic else "uint8"),
        *(op, weight_dtype, bool(weights and rng.random() < 0.5), to.get(op, "float32")),
    )


@dataclass(frozen=True, slots=True)
class PackedGemmConfig:
    """A product of ``m`` rows of floats with weights of ``bits`` each, (``k``, ``n``) in blocks of ``block`` along
    ``k``, each with a scale and, with ``zeros``, a zero point. ``level`` is the accuracy that is asked for: at 4 rows
    may be quantised to int8, 0 leaves them as they are. ``format`` is another than that of whole numbers."""

    m: int
    k: int
    n: int
    bits: int
    block: int
    level: int
    zeros: bool
    dtype: str
    format: str = ""

    @property
    def way(self) -> str:
        """By what of all this ONNX Runtime chooses its code: a row has its own, 8 bits at level 0 become floats first,
        in each inference, as those of ``format`` do (its ``MlasIsQNBitGemmAvailable``)."""
        return (self.format or f"{self.bits} bits at {self.level}") + (", one row" if self.m == 1 else "")

    def describe(self) -> str:
        """Sizes in words."""
        return f"({self.m}, {self.k}) @ ({self.k}, {self.n}) in {self.bits} bits, blocks of {self.block}"

    @property
    def weight_bytes(self) -> float:
        """Of the weights with their scales."""
        return self.n * self.k * (self.bits / 8 + item_bytes(self.dtype) / self.block)


def read_packed(op: Operator) -> PackedGemmConfig:
    """Config of MatMulNBits and MatMulBnb4."""
    bnb4 = op.op_type == "MatMulBnb4"
    k = op.int("K", op.shape(0)[-1])
    return PackedGemmConfig(
        prod(op.shape(0)[:-1]),
        k,
        op.int("N", op.outputs[0].shape[-1]),
        op.int("bits", 4),
        op.int("block_size", max(k, 1)),
        op.int("accuracy_level", 0),
        not bnb4 and len(op.inputs) > 3 and op.inputs[3] is not None,
        op.dtype,
        "bnb4" if bnb4 else "",
    )


def work_packed(c: PackedGemmConfig) -> Work:
    """Two operations to a multiply-add; what unpacks the weights is left out."""
    unit = item_bytes(c.dtype)
    return Work(2.0 * c.m * c.k * c.n, c.m * c.k * unit + c.weight_bytes, c.m * c.n * unit, c.weight_bytes)


def build_packed(c: PackedGemmConfig) -> Graph:
    """One product with packed weights."""
    b = GraphBuilder("packed_product")
    blocks = -(-c.k // c.block)
    if c.format:
        weights = b.weight((c.n * c.k // 2,), "uint8"), b.weight((c.n * blocks,), c.dtype)
        attrs = {"K": c.k, "N": c.n, "block_size": c.block, "quant_type": 1}
        return b.graph(b.op("MatMulBnb4", b.input((c.m, c.k), c.dtype), *weights, domain=_MICROSOFT, **attrs))
    inputs = [
        b.input((c.m, c.k), c.dtype),
        b.weight((c.n, blocks, c.block * c.bits // 8), "uint8"),
        b.weight((c.n, blocks), c.dtype),
        *([b.weight((c.n, -(-blocks * c.bits // 8)), "uint8")] if c.zeros else []),
    ]
    attrs = {"K": c.k, "N": c.n, "bits": c.bits, "block_size": c.block, "accuracy_level": c.level}
    return b.graph(b.op("MatMulNBits", *inputs, domain=_MICROSOFT, **attrs))


def _space_packed(rng: np.random.Generator) -> PackedGemmConfig:
    block, level = int(rng.choice([32, 64, 128])), int(rng.choice([0, 4]))
    m, k, n = some(rng, 1, 256), 32 * some(rng, 1, 64), 8 * some(rng, 1, 256)
    return PackedGemmConfig(m, k, n, int(rng.choice([4, 8])), block, level, bool(rng.random() < 0.5), "float32")


# --- kinds -------------------------------------------------------------------------------------------------


def _conv(name: str, depthwise: bool) -> KernelKind:
    return KernelKind(
        name,
        ("QLinearConv", "ConvInteger"),
        QuantisedConvConfig,
        read_conv,
        (OP, _WEIGHT_DTYPE, _PER_CHANNEL, *convolutions.COLUMNS, DTYPE),
        convolutions.work,
        build_conv,
        _space_conv(depthwise),
        accepts=(lambda c: c.group > 1 and c.group == c.cin) if depthwise else None,
        quantised=True,
    )


KINDS = (
    _conv("conv_int8", False),
    _conv("dwconv_int8", True),
    KernelKind(
        "matmul_int8",
        tuple(_SECOND),
        QuantisedGemmConfig,
        read_gemm,
        (OP, _WEIGHT_DTYPE, _PER_CHANNEL, Category("to", lambda c: c.to), *products.COLUMNS),
        products.work,
        build_gemm,
        _space_gemm,
        quantised=True,
    ),
    KernelKind(
        "matmul_nbits",
        ("MatMulNBits", "MatMulBnb4"),
        PackedGemmConfig,
        read_packed,
        (
            Column("m", lambda c: c.m),
            Column("k", lambda c: c.k),
            Column("n", lambda c: c.n),
            Category("bits", lambda c: str(c.bits)),
            Column("block", lambda c: c.block),
            Category("level", lambda c: str(c.level)),
            WAY,
            Column("zeros", lambda c: c.zeros),
            Column("weight_bytes", lambda c: c.weight_bytes),
            ITEM_BYTES,
        ),
        work_packed,
        build_packed,
        _space_packed,
        quantised=True,
    ),
)
