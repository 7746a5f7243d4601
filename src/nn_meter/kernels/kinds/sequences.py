"""Recurrent layers, and attention in one operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from nn_meter.ir import Graph, GraphBuilder
from nn_meter.kernels.kinds._shared import ITEM_BYTES, OP, some
from nn_meter.kernels.schema import Column, KernelKind, Operator, Work, item_bytes

_GATES: Mapping[str, int] = MappingProxyType({"LSTM": 4, "GRU": 3, "RNN": 1})


@dataclass(frozen=True, slots=True)
class RecurrentConfig:
    """A recurrent layer over ``steps``."""

    op: str
    steps: int
    batch: int
    input: int
    hidden: int
    directions: int
    dtype: str

    def describe(self) -> str:
        """Sizes in words."""
        return f"{self.op} {self.steps} steps, batch {self.batch}, {self.input} -> {self.hidden}"

    @property
    def weights(self) -> int:
        """Elements of all matrices."""
        return self.directions * _GATES[self.op] * self.hidden * (self.input + self.hidden)


def read_recurrent(op: Operator) -> RecurrentConfig:
    """Config of LSTM, GRU, RNN."""
    x, w = op.shape(0), op.shape(1)
    return RecurrentConfig(
        op.op_type, x[0], x[1], x[2], op.int("hidden_size", op.shape(2)[-1]), w[0], op.dtype
    )


def work_recurrent(c: RecurrentConfig) -> Work:
    """Every step uses all weights, which are read once."""
    unit, tokens = item_bytes(c.dtype), c.steps * c.batch
    return Work(
        2.0 * tokens * c.weights,
        (c.weights + tokens * c.input) * unit,
        tokens * c.directions * c.hidden * unit,
    )


def build_recurrent(c: RecurrentConfig) -> Graph:
    """One recurrent layer."""
    b = GraphBuilder(c.op.lower())
    x = b.input((c.steps, c.batch, c.input), c.dtype)
    w = b.weight((c.directions, _GATES[c.op] * c.hidden, c.input), c.dtype)
    r = b.weight((c.directions, _GATES[c.op] * c.hidden, c.hidden), c.dtype)
    direction = "bidirectional" if c.directions == 2 else "forward"
    return b.graph(b.op(c.op, x, w, r, hidden_size=c.hidden, direction=direction))


def _space_recurrent(rng: np.random.Generator) -> RecurrentConfig:
    op, directions = str(rng.choice(tuple(_GATES))), int(rng.integers(1, 3))
    steps, batch = some(rng, 1, 256), some(rng, 1, 16)
    return RecurrentConfig(op, steps, batch, some(rng, 1, 512), some(rng, 1, 512), directions, "float32")


@dataclass(frozen=True, slots=True)
class AttentionConfig:
    """Attention in one operator: ``heads`` of ``width`` over ``queries`` and ``keys``."""

    op: str
    batch: int
    heads: int
    queries: int
    keys: int
    width: int
    dtype: str

    def describe(self) -> str:
        """Sizes in words."""
        return f"{self.heads} heads of {self.width}, {self.queries} x {self.keys}"


def read_attention(op: Operator) -> AttentionConfig:
    """Config of MultiHeadAttention, Attention, GroupQueryAttention over (batch, sequence, hidden) or with heads."""
    q = op.shape(0)
    k = op.shape(1) if len(op.inputs) > 1 and op.inputs[1] is not None else q
    heads = op.int("num_heads", op.int("q_num_heads", q[1] if len(q) == 4 else 1))
    if len(q) == 4:
        return AttentionConfig(op.op_type, q[0], q[1], q[2], k[2], q[3], op.dtype)
    return AttentionConfig(op.op_type, q[0], heads, q[1], k[1], q[2] // max(heads, 1), op.dtype)


def work_attention(c: AttentionConfig) -> Work:
    """Two products; queries, keys and values are read, the result is as large as the queries."""
    heads, unit = c.batch * c.heads, item_bytes(c.dtype)
    return Work(
        4.0 * heads * c.queries * c.keys * c.width,
        heads * c.width * (c.queries + 2 * c.keys) * unit,
        heads * c.width * c.queries * unit,
    )


KINDS = (
    KernelKind(
        "recurrent",
        tuple(_GATES),
        RecurrentConfig,
        read_recurrent,
        (
            OP,
            Column("steps", lambda c: c.steps),
            Column("batch", lambda c: c.batch),
            Column("input", lambda c: c.input),
            Column("hidden", lambda c: c.hidden),
            Column("directions", lambda c: c.directions),
            Column("weight_bytes", lambda c: c.weights * item_bytes(c.dtype)),
            ITEM_BYTES,
        ),
        work_recurrent,
        build_recurrent,
        _space_recurrent,
    ),
    KernelKind(
        "attention",
        ("Attention", "MultiHeadAttention", "GroupQueryAttention"),
        AttentionConfig,
        read_attention,
        (
            OP,
            Column("batch", lambda c: c.batch),
            Column("heads", lambda c: c.heads),
            Column("queries", lambda c: c.queries),
            Column("keys", lambda c: c.keys),
            Column("width", lambda c: c.width),
            ITEM_BYTES,
        ),
        work_attention,
    ),
)
