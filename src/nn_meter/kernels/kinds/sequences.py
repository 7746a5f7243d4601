"""Recurrent layers, and attention in one operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType

import numpy as np

from nn_meter.ir import Attr, Graph, GraphBuilder, Tensor
from nn_meter.kernels.kinds._shared import DTYPE, ITEM_BYTES, OP, some
from nn_meter.kernels.schema import Category, Column, KernelKind, Operator, Work, item_bytes

_GATES: Mapping[str, int] = MappingProxyType({"LSTM": 4, "GRU": 3, "RNN": 1})


@dataclass(frozen=True, slots=True)
class RecurrentConfig:
    """A recurrent layer over ``steps``; ``activations`` are its functions where they are not those that ONNX takes for
    granted, once for both directions."""

    op: str
    steps: int
    batch: int
    input: int
    hidden: int
    directions: int
    dtype: str
    activations: str = ""

    def describe(self) -> str:
        """Sizes in words."""
        by = f", {self.activations}" if self.activations else ""
        return f"{self.op} {self.steps} steps, batch {self.batch}, {self.input} -> {self.hidden}{by}"

    @property
    def weights(self) -> int:
        """Elements of all matrices."""
        return self.directions * _GATES[self.op] * self.hidden * (self.input + self.hidden)


def read_recurrent(op: Operator) -> RecurrentConfig:
    """Config of LSTM, GRU, RNN."""
    x, w = op.shape(0), op.shape(1)
    hidden = op.int("hidden_size", op.shape(2)[-1])
    return RecurrentConfig(op.op_type, x[0], x[1], x[2], hidden, w[0], op.dtype, _activations(op))


_USUAL: Mapping[str, str] = MappingProxyType(
    {"LSTM": "sigmoid tanh tanh", "GRU": "sigmoid tanh", "RNN": "tanh"}
)
"""What they are where none are named; names of any case are the same."""


def _activations(op: Operator) -> str:
    given = op.attrs.get("activations", ())
    names = [str(name).lower() for name in given] if isinstance(given, tuple) else []
    each = len(_USUAL[op.op_type].split())
    found = [" ".join(names[place : place + each]) for place in range(0, len(names), each)]
    chosen = " and ".join(dict.fromkeys(found))
    return "" if chosen == _USUAL[op.op_type] else chosen


def work_recurrent(c: RecurrentConfig) -> Work:
    """Every step uses all weights, which are read once."""
    unit, tokens = item_bytes(c.dtype), c.steps * c.batch
    return Work(
        2.0 * tokens * c.weights,
        (c.weights + tokens * c.input) * unit,
        tokens * c.directions * c.hidden * unit,
        c.weights * unit,
    )


def build_recurrent(c: RecurrentConfig) -> Graph:
    """One recurrent layer."""
    b = GraphBuilder(c.op.lower())
    x = b.input((c.steps, c.batch, c.input), c.dtype)
    w = b.weight((c.directions, _GATES[c.op] * c.hidden, c.input), c.dtype)
    r = b.weight((c.directions, _GATES[c.op] * c.hidden, c.hidden), c.dtype)
    direction = "bidirectional" if c.directions == 2 else "forward"
    both = (c.activations.split(" and ") * c.directions)[: c.directions]
    chosen: dict[str, Attr] = {"activations": tuple(" ".join(both).split())} if c.activations else {}
    return b.graph(b.op(c.op, x, w, r, domain="", hidden_size=c.hidden, direction=direction, **chosen))


def _space_recurrent(rng: np.random.Generator) -> RecurrentConfig:
    op, directions = str(rng.choice(tuple(_GATES))), int(rng.integers(1, 3))
    steps, batch = some(rng, 1, 256), some(rng, 1, 16)
    activations = "relu" if op == "RNN" and rng.random() < 0.5 else ""
    sizes = some(rng, 1, 512), some(rng, 1, 512)
    return RecurrentConfig(op, steps, batch, *sizes, directions, "float32", activations)


@dataclass(frozen=True, slots=True)
class AttentionConfig:
    """Attention in one operator: ``heads`` of ``width`` over ``queries`` and ``keys``, those of the past included.
    ``ways`` says what else it does to queries and scores: turns them, bounds them, forgets what lies far back.

    ``key_heads`` are shared by as many heads each; ``kept`` keys are written out again for the next step, ``projected``
    is the width of what the operator makes queries, keys and values of itself, 0 where it does not. ``mask`` is what
    keeps queries from keys: the element type of one that is given, ``causal``. What it leaves out becomes numbers so
    small that a processor computes with them in microcode: attention takes three times as long.
    """

    op: str
    batch: int
    heads: int
    key_heads: int
    queries: int
    keys: int
    width: int
    kept: int
    projected: int
    dtype: str
    mask: str = ""
    ways: str = ""

    @property
    def scores(self) -> int:
        """Elements of the tables of queries and keys."""
        return self.batch * self.heads * self.queries * self.keys

    def describe(self) -> str:
        """Sizes in words."""
        shared = f" ({self.key_heads} of keys)" if self.key_heads != self.heads else ""
        mask = f", mask {self.mask}" if self.mask else ""
        ways = f", {self.ways}" if self.ways else ""
        return f"{self.heads} heads{shared} of {self.width}, {self.queries} x {self.keys}{mask}{ways}"


_PAST: Mapping[str, int] = MappingProxyType({"Attention": 4, "MultiHeadAttention": 6, "GroupQueryAttention": 3})
"""Operator to the input that holds the keys of earlier tokens, which lie along the last axis but one."""


def read_attention(op: Operator) -> AttentionConfig:
    """Config of attention over (batch, sequence, hidden), with heads of their own axis, or packed."""
    q = op.shape(0)
    k = op.shape(1) if len(op.inputs) > 1 else ()
    heads = op.int("num_heads", op.int("q_num_heads", q[1] if len(q) == 4 else 1))
    key_heads = op.int("kv_num_heads", k[1] if len(q) == 4 and len(k) == 4 else heads)
    projected = q[2] if len(k) == 2 and len(q) == 3 else 0
    queries = q[2] if len(q) == 4 else q[1]
    if len(q) > 3:
        width = q[-1]
    elif projected:
        width = k[1] // 3 // max(heads, 1)
    else:
        width = q[2] // max(heads + (0 if k else 2 * key_heads), 1)
    past = op.shape(_PAST[op.op_type]) if len(op.inputs) > _PAST[op.op_type] else ()
    keys = queries if projected or not k else k[2] if len(k) == 4 else k[1]
    keys += past[-2] if len(past) > 3 else 0
    present = [t.shape[-2] for t in op.outputs[1:3] if len(t.shape) > 3]
    if op.op_type == "GroupQueryAttention" and present:
        keys = present[0]
    kept = present[0] if present else 0
    sizes = q[0], heads, key_heads, queries, keys, width, kept, projected
    ways = " ".join(way for attribute, (none, way) in _WAYS.items() if op.attrs.get(attribute, none) != none)
    return AttentionConfig(op.op_type, *sizes, op.dtype, _mask(op, bool(projected), queries), ways)


_WAYS: Mapping[str, tuple[float, str]] = MappingProxyType(
    {"softcap": (0.0, "bounded"), "do_rotary": (0, "turned"), "local_window_size": (-1, "local")}
)
"""Attribute to its value where it does nothing, and what it does otherwise."""


def _mask(op: Operator, projected: bool, queries: int) -> str:
    """What is given as a mask, and as numbers to add to the scores, and whether later keys are left out."""
    if op.op_type == "GroupQueryAttention":
        return "causal" if queries > 1 else ""
    places = (4, 5) if op.op_type == "MultiHeadAttention" else (3, 5) if projected else (3,)
    given = [op.inputs[place] for place in places if place < len(op.inputs)]
    causal = op.int("is_causal", 0) or op.int("unidirectional", 0)
    names = [_mask_of(tensor) for tensor in given if tensor is not None]
    return " ".join(names + ["causal"] * bool(causal))


def _mask_of(mask: Tensor) -> str:
    """What is bool is made floats of first."""
    return f"{mask.dtype} of each head" if mask.dtype == "bool" and mask.size > prod(mask.shape[-2:]) else mask.dtype


def work_attention(c: AttentionConfig) -> Work:
    """Two products, and the projections inside; each key head is read once, what the next step needs is written."""
    heads, shared, unit = c.batch * c.heads, c.batch * c.key_heads, item_bytes(c.dtype)
    weights = 3.0 * c.projected * c.heads * c.width
    return Work(
        4.0 * heads * c.queries * c.keys * c.width + 2.0 * c.batch * c.queries * weights,
        (c.width * (heads * c.queries + 2 * shared * c.keys) + weights) * unit,
        c.width * (heads * c.queries + 2 * shared * c.kept) * unit,
        weights * unit,
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
            Category("activations", lambda c: c.activations),
            ITEM_BYTES,
            DTYPE,
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
            Column("key_heads", lambda c: c.key_heads),
            Column("kept", lambda c: c.kept),
            Column("projected", lambda c: c.projected),
            Column("scores", lambda c: c.scores),
            Category("mask", lambda c: c.mask),
            Category("ways", lambda c: c.ways),
            ITEM_BYTES,
            DTYPE,
        ),
        work_attention,
    ),
)
