"""Matrix products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from nn_meter.ir import Graph, GraphBuilder
from nn_meter.kernels.kinds._shared import (
    ACTIVATION,
    DTYPE,
    ITEM_BYTES,
    activate,
    aligned,
    cached,
    chosen,
    some,
    tiled,
)
from nn_meter.kernels.schema import Category, Column, KernelKind, OnDevice, Operator, Work, item_bytes


@dataclass(frozen=True, slots=True)
class GemmConfig:
    """``batch`` products of (m, k) and (k, n). ``weights`` says that the second is constant, so that the runtime
    may pack it beforehand and the batch shares it; ``trans`` which operands lie transposed."""

    batch: int
    m: int
    k: int
    n: int
    weights: bool
    trans: tuple[bool, bool]
    fused: tuple[str, ...]
    dtype: str

    def describe(self) -> str:
        """Sizes in words."""
        head = f"{self.batch} x " if self.batch > 1 else ""
        return f"{head}({self.m}, {self.k}) @ ({self.k}, {self.n})"

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return self.batch * self.m * self.k * self.n

    @property
    def left_bytes(self) -> float:
        """Of the first operand."""
        return self.batch * self.m * self.k * item_bytes(self.dtype)

    @property
    def right_bytes(self) -> float:
        """Of the second operand."""
        return (1 if self.weights else self.batch) * self.k * self.n * item_bytes(self.dtype)

    @property
    def out_bytes(self) -> float:
        """Of the result."""
        return self.batch * self.m * self.n * item_bytes(self.dtype)


def read_gemm(op: Operator) -> GemmConfig:
    """Config of Gemm, FusedGemm, MatMul, FusedMatMul; by a vector each row is a product by itself, as ONNX Runtime
    computes it (its ``MatMulComputeHelper``)."""
    a, b = (_batch_first(op.shape(i), op.int(f"transBatch{side}", 0)) for i, side in ((0, "A"), (1, "B")))
    trans_a, trans_b = bool(op.int("transA", 0)), bool(op.int("transB", 0))
    if len(a) == 1:
        a = (1, *a)
    if len(b) == 1:
        b = (*b, 1)
    m, k = (a[-1], a[-2]) if trans_a else (a[-2], a[-1])
    n = b[-2] if trans_b else b[-1]
    batch = prod(a[:-2])
    if len(op.shape(1)) == 1:
        m, batch = 1, m * batch
    elif prod(b[:-2]) == 1 and not trans_a:
        # one right operand for the whole batch: a single product of more rows
        m, batch = m * batch, 1
    else:
        batch = max(batch, prod(op.outputs[0].shape[:-2]))
    second = op.inputs[1]
    weights = second is not None and second.const
    return GemmConfig(batch, m, k, n, weights, (trans_a, trans_b), op.fused, op.dtype)


def _batch_first(shape: tuple[int, ...], last: int) -> tuple[int, ...]:
    """A shape whose batch may lie between rows and columns, with the batch in front of them."""
    return (*shape[1:-1], shape[0], shape[-1]) if last and len(shape) > 2 else shape


def work(c: GemmConfig) -> Work:
    """Two operations to a multiply-add."""
    return Work(2.0 * c.macs, c.left_bytes + c.right_bytes, c.out_bytes, c.right_bytes if c.weights else 0.0)


def _intensity(c: GemmConfig) -> float:
    done = work(c)
    return done.flops / max(done.bytes, 1)


def _vector(c: GemmConfig) -> str:
    """Which operand is a row or a column: runtimes have other code for those, of constants and of what is computed."""
    which = "both" if c.m == c.n == 1 else "row" if c.m == 1 else "column" if c.n == 1 else ""
    return f"{which} by a constant" if which and c.weights else which


COLUMNS: tuple[Column | Category | OnDevice, ...] = (
    Column("batch", lambda c: c.batch),
    Column("m", lambda c: c.m),
    Column("k", lambda c: c.k),
    Column("n", lambda c: c.n),
    Column("weights", lambda c: c.weights),
    Category("vector", _vector),
    Column("trans_a", lambda c: c.trans[0]),
    Column("trans_b", lambda c: c.trans[1]),
    ACTIVATION,
    Column("left_bytes", lambda c: c.left_bytes),
    Column("right_bytes", lambda c: c.right_bytes),
    Column("out_bytes", lambda c: c.out_bytes),
    Column("intensity", _intensity),
    Column("flops_per_product", lambda c: 2.0 * c.m * c.k * c.n),
    ITEM_BYTES,
    DTYPE,
    *tiled(lambda c: (c.batch, c.m, c.n)),
    *chosen(lambda c: (c.batch, c.m, c.n), lambda c: c.k),
    cached(work),
    aligned("m", lambda c: c.m),
    aligned("k", lambda c: c.k),
    aligned("n", lambda c: c.n),
)


def build_gemm(c: GemmConfig) -> Graph:
    """A Gemm: two-dimensional, with bias."""
    b = GraphBuilder("gemm")
    x = b.input((c.k, c.m) if c.trans[0] else (c.m, c.k), c.dtype)
    shape = (c.n, c.k) if c.trans[1] else (c.k, c.n)
    w = b.weight(shape, c.dtype) if c.weights else b.input(shape, c.dtype)
    y = b.op("Gemm", x, w, b.weight((c.n,), c.dtype), transA=int(c.trans[0]), transB=int(c.trans[1]))
    return b.graph(activate(b, y, c.fused))


def build_matmul(c: GemmConfig) -> Graph:
    """A MatMul, of a batch where there is one."""
    b = GraphBuilder("matmul")
    lead = (c.batch,) if c.batch > 1 else ()

    def operand(rows: int, columns: int, transposed: bool, make: Callable[..., str]) -> str:
        if not transposed:
            return make((*lead, rows, columns), c.dtype)
        rank = len(lead) + 2
        return b.op(
            "Transpose", make((*lead, columns, rows), c.dtype), perm=(*range(rank - 2), rank - 1, rank - 2)
        )

    x = operand(c.m, c.k, c.trans[0], b.input)
    w = operand(c.k, c.n, c.trans[1], b.weight if c.weights else b.input)
    return b.graph(b.op("MatMul", x, w))


def _space_gemm(rng: np.random.Generator) -> GemmConfig:
    m, k, n = some(rng, 1, 512), some(rng, 1, 2048), some(rng, 1, 2048)
    trans = bool(rng.random() < 0.2), bool(rng.random() < 0.5)
    named = str(rng.choice(["", "relu", "sigmoid", "tanh", "leakyrelu", "hardsigmoid"]))
    return GemmConfig(1, m, k, n, bool(rng.random() < 0.8), trans, (named,) if named else (), "float32")


def _space_matmul(rng: np.random.Generator) -> GemmConfig:
    batch = some(rng, 2, 64) if rng.random() < 0.5 else 1
    m, k, n = some(rng, 2, 512), some(rng, 2, 1024), some(rng, 2, 1024)
    weights = bool(rng.random() < 0.5)
    trans = bool(rng.random() < 0.2), bool(not weights and rng.random() < 0.4)
    return GemmConfig(batch, m, k, n, weights, trans, (), "float32")


KINDS = (
    KernelKind("fc", ("Gemm", "FusedGemm"), GemmConfig, read_gemm, COLUMNS, work, build_gemm, _space_gemm),
    KernelKind(
        "matmul", ("MatMul", "FusedMatMul"), GemmConfig, read_gemm, COLUMNS, work, build_matmul, _space_matmul
    ),
)
