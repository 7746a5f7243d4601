"""Operators that move data and compute nothing, or only look at it another way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

import numpy as np

from nn_meter.ir import Graph, GraphBuilder
from nn_meter.kernels.einsum import moves_one
from nn_meter.kernels.kinds._shared import ITEM_BYTES, OP, WAY, some, times
from nn_meter.kernels.partition import Shape
from nn_meter.kernels.schema import Category, Column, KernelKind, Operator, Work, item_bytes

VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
"""Operators that only look at data another way."""


@dataclass(frozen=True, slots=True)
class TransposeConfig:
    """A permutation of axes, those that stay together merged; no sizes of 1. Where single elements move, ``one`` says
    that as it was written, with axes of size 1, one axis moves and the others keep their order: runtimes have quick
    code for that alone. Where the last axis stays, runs of elements move, and it is true."""

    dims: Shape
    perm: Shape
    dtype: str
    one: bool = True

    def describe(self) -> str:
        """Sizes in words."""
        return f"{times(self.dims)} by {self.perm}"


def read_transpose(op: Operator) -> TransposeConfig:
    """Config of Transpose, axes of size 1 left out and those that stay neighbours merged."""
    shape = op.shape(0)
    perm = op.ints("perm", tuple(reversed(range(len(shape)))))
    order = [p for p in perm if shape[p] != 1]
    groups: list[list[int]] = []
    for p in order:
        if groups and p == _next_axis(groups[-1][-1], shape):
            groups[-1].append(p)
        else:
            groups.append([p])
    starts = sorted(g[0] for g in groups)
    by_start = {g[0]: prod(shape[a] for a in g) for g in groups}
    merged = tuple(starts.index(g[0]) for g in groups) or (0,)
    one = merged[-1] == len(merged) - 1 or moves_one(perm)
    return TransposeConfig(tuple(by_start[s] for s in starts) or (1,), merged, op.dtype, one)


def _next_axis(axis: int, shape: Shape) -> int:
    """The next axis whose size is not 1."""
    return next((a for a in range(axis + 1, len(shape)) if shape[a] != 1), -1)


def work_transpose(c: TransposeConfig) -> Work:
    """All is read and written once."""
    size_bytes = prod(c.dims) * item_bytes(c.dtype)
    return Work(0.0, size_bytes, size_bytes)


def build_transpose(c: TransposeConfig) -> Graph:
    """One transpose; two axes of size 1 that change places keep it from moving one axis alone."""
    b = GraphBuilder("transpose")
    if moves_one(c.perm) and not c.one:
        return b.graph(b.op("Transpose", b.input((1, 1, *c.dims), c.dtype), perm=(1, 0, *(p + 2 for p in c.perm))))
    return b.graph(b.op("Transpose", b.input(c.dims, c.dtype), perm=c.perm))


def _space_transpose(rng: np.random.Generator) -> TransposeConfig:
    rank = int(rng.integers(2, 6))
    perm = tuple(range(rank))
    while any(b == a + 1 for a, b in pairwise(perm)):
        perm = tuple(int(p) for p in rng.permutation(rank))
    one = perm[-1] == rank - 1 or (moves_one(perm) and bool(rng.random() < 0.7))
    return TransposeConfig(tuple(some(rng, 2, 40) for _ in perm), perm, "float32", one)


def _dim(place: int) -> Column:
    """One of the last five sizes, 1 where there are fewer."""
    return Column(f"dim{place}", lambda c: ((1,) * (5 - len(c.dims)) + c.dims)[place - 6])


@dataclass(frozen=True, slots=True)
class PiecesConfig:
    """Concat and split: ``outer`` times, ``pieces`` of so many contiguous elements. Those of ``rescaled`` in all are
    of another scale than the result, and looked up in a table one by one."""

    op: str
    outer: int
    pieces: Shape
    dtype: str
    rescaled: int = 0

    def describe(self) -> str:
        """Sizes in words."""
        return f"{self.outer} x ({' + '.join(map(str, self.pieces[:6]))}{' ...' if len(self.pieces) > 6 else ''})"

    @property
    def size(self) -> int:
        """Elements."""
        return self.outer * sum(self.pieces)


def read_concat(op: Operator) -> PiecesConfig:
    """Config of Concat."""
    out = op.outputs[0].shape
    axis = op.axis(len(out), 0)
    return PiecesConfig(op.op_type, prod(out[:axis]), tuple(prod(t.shape[axis:]) for t in op.data), op.dtype)


def read_split(op: Operator) -> PiecesConfig:
    """Config of Split."""
    axis = op.axis(len(op.shape(0)), 0)
    return PiecesConfig(
        op.op_type, prod(op.shape(0)[:axis]), tuple(prod(t.shape[axis:]) for t in op.outputs), op.dtype
    )


def work_pieces(c: PiecesConfig) -> Work:
    """All is read and written once."""
    size_bytes = c.size * item_bytes(c.dtype)
    return Work(0.0, size_bytes, size_bytes)


PIECES = (
    Column("outer", lambda c: c.outer),
    Column("count", lambda c: len(c.pieces)),
    Column("size", lambda c: c.size),
    Column("smallest", lambda c: min(c.pieces)),
    Column("largest", lambda c: max(c.pieces)),
    Column("width", lambda c: sum(c.pieces)),
    Column("copies", lambda c: c.outer * len(c.pieces)),
    ITEM_BYTES,
)


def build_concat(c: PiecesConfig) -> Graph:
    """One concat."""
    b = GraphBuilder("concat")
    return b.graph(b.op("Concat", *(b.input((c.outer, p), c.dtype) for p in c.pieces), axis=1))


def build_split(c: PiecesConfig) -> Graph:
    """One split."""
    b = GraphBuilder("split")
    x = b.input((c.outer, sum(c.pieces)), c.dtype)
    return b.graph(*b.multi("Split", (x, b.const(c.pieces)), len(c.pieces), axis=1))


def _space_pieces(op: str) -> Callable[[np.random.Generator], PiecesConfig]:
    def draw(rng: np.random.Generator) -> PiecesConfig:
        pieces = tuple(some(rng, 1, 5000) for _ in range(rng.integers(2, 7)))
        return PiecesConfig(op, some(rng, 1, 2000), pieces, "float32")

    return draw


@dataclass(frozen=True, slots=True)
class CopyConfig:
    """Data that moves: ``out`` elements written in runs of ``run`` contiguous ones, from ``size`` elements. ``way`` is
    ``backwards`` where single elements are read from back to front, ``copied`` where a view is a result of the model:
    ONNX Runtime gives those memory of their own; ``over`` where a triangle is written over what was read, ``wrap``
    where edges are those of the other side; ``pieces`` where what is repeated is written ``writes`` times, a few
    elements each."""

    op: str
    size: int
    out: int
    run: int
    dtype: str
    way: str = ""
    writes: int = 0

    def describe(self) -> str:
        """Sizes in words."""
        return f"{self.op} {self.size} -> {self.out} elements, runs of {self.run}"


def read_copy(op: Operator) -> CopyConfig:
    """Config of Pad, Expand, Tile, DepthToSpace ...: runs are the axes at the end that stay whole, of a triangle its
    rows."""
    found = _copied(op, frozenset())
    if op.op_type == "Trilu":
        return replace(found, run=op.shape(0)[-1], way="over" if op.over else "")
    if op.op_type in _REPEATING:
        writes = _writes(op.shape(0), op.outputs[0].shape, doubling=op.op_type == "Expand")
        return replace(found, way="pieces" if found.out < _PIECE * writes else "", writes=writes)
    return replace(found, way="wrap") if op.attrs.get("mode") == "wrap" else found


_PIECE = 8
"""Elements of a piece; copying fewer takes as long as so many."""


def _writes(shape: Shape, out: Shape, *, doubling: bool) -> int:
    """How often ONNX Runtime copies: what lies together in what it reads once, then, axis by axis from the last, what
    is there already: an Expand twice as much each time, a Tile the same again."""
    given = (1,) * (len(out) - len(shape)) + shape
    repeated = [axis for axis, (a, b) in enumerate(zip(given, out, strict=False)) if a < b]
    behind = min(repeated[-1] + 1, len(given) - 1) if repeated else 0  # what a row holds is copied at once
    copies = max(1, prod(given) // max(1, prod(given[behind:])))
    more = {axis: int(out[axis] // max(1, given[axis])) - 1 for axis in repeated}
    return copies + sum(prod(given[:axis]) * (n.bit_length() if doubling else n) for axis, n in more.items())


def _copied(op: Operator, stepped: frozenset[int]) -> CopyConfig:
    """Of axes that are ``stepped`` through neighbours are no run."""
    x, y = op.shape(0), op.outputs[0].shape
    run = 1
    for axis, (a, b) in enumerate(zip(reversed(x), reversed(y), strict=False), 1):
        run *= 1 if len(x) - axis in stepped else min(a, b)
        if a != b:
            break
    return CopyConfig(op.op_type, prod(x), prod(y), run, op.dtype)


def read_slice(op: Operator) -> CopyConfig:
    """Config of Slice."""
    rank = len(op.shape(0))
    steps = {int(axis) % rank: step for axis, step in zip(op.value(3), op.value(4), strict=False)}
    found = _copied(op, frozenset(axis for axis, step in steps.items() if abs(step) > 1))
    return replace(found, way="backwards" if steps.get(rank - 1, 1) < 0 else "")


def read_gather(op: Operator) -> CopyConfig:
    """Config of Gather: runs are the elements behind the axis."""
    x = op.shape(0)
    axis = op.axis(len(x), 0)
    return CopyConfig(op.op_type, prod(x), prod(op.outputs[0].shape), prod(x[axis + 1 :]), op.dtype)


def read_view(op: Operator) -> CopyConfig:
    """Config of Reshape and its kin, which move nothing where another operator of the model reads the result."""
    size = prod(op.shape(0))
    return CopyConfig("Reshape", size, size, size, op.dtype, "copied" if op.last else "")


def work_copy(c: CopyConfig) -> Work:
    """What is written was read."""
    size_bytes = c.out * item_bytes(c.dtype)
    return Work(0.0, size_bytes, size_bytes)


def work_view(c: CopyConfig) -> Work:
    """None."""
    return Work(0.0, 0.0, 0.0)


COPY = (
    OP,
    Column("in_size", lambda c: c.size),
    Column("out_size", lambda c: c.out),
    Column("run", lambda c: c.run),
    Column("runs", lambda c: c.out // max(c.run, 1)),
    ITEM_BYTES,
)


def _unit(c: TransposeConfig) -> str:
    return f"{item_bytes(c.dtype):g}"



def build_gather(c: CopyConfig) -> Graph:
    """One gather of rows."""
    b = GraphBuilder("gather")
    x = b.weight((c.size // c.run, c.run), c.dtype)
    return b.graph(b.op("Gather", x, b.input((c.out // c.run,), "int64"), axis=0))


def build_slice(c: CopyConfig) -> Graph:
    """One slice of the first axis that is cut."""
    b = GraphBuilder("slice")
    if c.way:
        x = b.input((c.out // c.run, c.size * c.run // c.out), c.dtype)
        ends = [b.const((each,)) for each in (-1, -c.run - 1, 1, -1)]
        return b.graph(b.op("Slice", x, *ends))
    outer = c.out // c.run
    width = c.size // outer
    x = b.input((outer, width), c.dtype)
    return b.graph(b.op("Slice", x, b.const((0,)), b.const((c.run,)), b.const((1,))))


def build_view(c: CopyConfig) -> Graph:
    """One reshape, and where it moves nothing a transpose that reads it."""
    b = GraphBuilder("reshape")
    if c.way:
        return b.graph(b.op("Reshape", b.input((1, c.size), c.dtype), b.const((c.size,))))
    view = b.op("Reshape", b.input((c.size,), c.dtype), b.const((1, c.size)))
    return b.graph(b.op("Transpose", view, perm=(1, 0)))


def _space_gather(rng: np.random.Generator) -> CopyConfig:
    run = some(rng, 1, 1024)
    return CopyConfig("Gather", run * some(rng, 2, 30_000), run * some(rng, 1, 512), run, "float32")


def _space_slice(rng: np.random.Generator) -> CopyConfig:
    outer, run = some(rng, 1, 2000), some(rng, 1, 2000)
    return CopyConfig("Slice", outer * (run + some(rng, 1, 2000)), outer * run, run, "float32")


def _space_view(rng: np.random.Generator) -> CopyConfig:
    size = some(rng, 1, 1_000_000)
    return CopyConfig("Reshape", size, size, size, "float32", "copied")


@dataclass(frozen=True, slots=True)
class ReorderConfig:
    """A change between a plain layout (``last``: channels last) and blocks of channels."""

    op: str
    n: int
    c: int
    hw: int
    last: bool
    dtype: str

    def describe(self) -> str:
        """Sizes in words."""
        return f"{self.n}x{self.c}x{self.hw}{', channels last' if self.last else ''}"

    @property
    def size(self) -> int:
        """Elements in the plain layout."""
        return self.n * self.c * self.hw


def read_reorder(op: Operator) -> ReorderConfig:
    """Config of a change of layout."""
    x, y = op.shape(0), op.outputs[0].shape
    last = bool(op.int("channels_last", 0))
    plain = y if op.op_type == "ReorderOutput" else x
    channels = plain[-1] if last else plain[1]
    return ReorderConfig(
        op.op_type, plain[0], channels, prod(plain) // max(plain[0] * channels, 1), last, op.dtype
    )


def work_reorder(c: ReorderConfig) -> Work:
    """All is read and written once."""
    size_bytes = c.size * item_bytes(c.dtype)
    return Work(0.0, size_bytes, size_bytes)


_COPIES = ("Pad", "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "Trilu")
_REPEATING = ("Expand", "Tile")

KINDS = (
    KernelKind(
        "transpose",
        ("Transpose",),
        TransposeConfig,
        read_transpose,
        (
            Column("size", lambda c: prod(c.dims)),
            Column("rank", lambda c: len(c.dims)),
            Category("perm", lambda c: ",".join(map(str, c.perm))),
            Category("unit", _unit),
            Column("one", lambda c: c.one),
            Column("keeps_last", lambda c: c.perm[-1] == len(c.dims) - 1),
            Column("last", lambda c: c.dims[-1]),
            Column("new_last", lambda c: c.dims[c.perm[-1]]),
            *(_dim(place) for place in range(1, 6)),
            ITEM_BYTES,
        ),
        work_transpose,
        build_transpose,
        _space_transpose,
    ),
    KernelKind(
        "concat",
        ("Concat",),
        PiecesConfig,
        read_concat,
        PIECES,
        work_pieces,
        build_concat,
        _space_pieces("Concat"),
    ),
    KernelKind(
        "split", ("Split",), PiecesConfig, read_split, PIECES, work_pieces, build_split, _space_pieces("Split")
    ),
    KernelKind("gather", ("Gather",), CopyConfig, read_gather, COPY, work_copy, build_gather, _space_gather),
    KernelKind(
        "slice",
        ("Slice",),
        CopyConfig,
        read_slice,
        (*COPY, WAY),
        work_copy,
        build_slice,
        _space_slice,
    ),
    KernelKind(
        "copy",
        _COPIES,
        CopyConfig,
        read_copy,
        (
            *COPY,
            Column("over", lambda c: c.way == "over"),
            WAY,
            Column("writes", lambda c: c.writes or c.out // max(c.run, 1)),
        ),
        work_copy,
    ),
    KernelKind(
        "reshape",
        (*VIEWS, "ExpandDims"),
        CopyConfig,
        read_view,
        (
            Column("size", lambda c: c.size),
            Column("size_bytes", lambda c: c.size * item_bytes(c.dtype)),
            Column("copied_bytes", lambda c: c.size * item_bytes(c.dtype) if c.way else 0),
            ITEM_BYTES,
        ),
        work_view,
        build_view,
        _space_view,
    ),
    KernelKind(
        "reorder",
        ("ReorderInput", "ReorderOutput"),
        ReorderConfig,
        read_reorder,
        (
            OP,
            Column("n", lambda c: c.n),
            Column("channels", lambda c: c.c),
            Column("pixels", lambda c: c.hw),
            Column("size", lambda c: c.size),
            Column("last", lambda c: c.last),
            Column("ragged", lambda c: c.c % 16),
            ITEM_BYTES,
        ),
        work_reorder,
    ),
)
