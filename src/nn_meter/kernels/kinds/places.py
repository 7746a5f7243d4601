"""Operators that follow an axis or a list of places: gathers and scatters of elements, running sums, the largest."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2, prod

import numpy as np

from nn_meter.ir import Graph, GraphBuilder
from nn_meter.kernels.kinds._shared import DTYPE, ITEM_BYTES, OP, WAY, some
from nn_meter.kernels.partition import Shape
from nn_meter.kernels.schema import Category, Column, KernelKind, Operator, Work, item_bytes

INDEX_BYTES = 8
"""Of one number of a place; ONNX's are int64."""

_SCATTERS = ("Scatter", "ScatterElements", "ScatterND")
_GATHERS = ("GatherElements", "GatherND")


@dataclass(frozen=True, slots=True)
class PlacesConfig:
    """``places`` of ``depth`` numbers each, ``run`` contiguous elements at each, in ``size`` elements. ``axis_stride``
    is how far neighbours along the axis lie apart; ``reduction`` says how a scatter joins what falls together, ``over``
    that it writes into what it read, and copies nothing before."""

    op: str
    size: int
    places: int
    depth: int
    run: int
    axis_stride: int
    reduction: str
    dtype: str
    over: bool = False

    def describe(self) -> str:
        """Sizes in words."""
        joined = f", {self.reduction}" if self.reduction not in ("", "none") else ""
        return f"{self.op} {self.places} places of {self.run} in {self.size}{joined}"

    @property
    def moved(self) -> int:
        """Elements that are picked or put."""
        return self.places * self.run


def read_places(op: Operator) -> PlacesConfig:
    """Config of GatherElements, GatherND, ScatterElements, ScatterND."""
    shape, places = op.shape(0), op.shape(1)
    puts = op.op_type in _SCATTERS
    reduction, over = str(op.attrs.get("reduction", "none")) if puts else "", puts and op.over
    if op.op_type.endswith("ND"):
        depth = places[-1] if places else 1
        count = prod(places[:-1])
        run = prod(shape[depth + op.int("batch_dims", 0) :])
        return PlacesConfig(op.op_type, prod(shape), count, depth, run, run, reduction, op.dtype, over)
    stride = prod(shape[op.axis(len(shape), 0) + 1 :])
    return PlacesConfig(op.op_type, prod(shape), prod(places), 1, 1, stride, reduction, op.dtype, over)


def work_places(c: PlacesConfig) -> Work:
    """A scatter copies the whole first. One that need not does what its column says beside it: what older predictors
    learned stays."""
    unit = item_bytes(c.dtype)
    found = c.moved * unit + c.places * c.depth * INDEX_BYTES
    if c.op in _SCATTERS:
        joins = 0.0 if c.reduction in ("", "none") else float(c.moved)
        return Work(joins, c.size * unit + found, (c.size + c.moved) * unit)
    return Work(0.0, found, c.moved * unit)


def build_places(c: PlacesConfig) -> Graph:
    """One gather or scatter over a matrix, or a stack of them."""
    b = GraphBuilder(c.op.lower())
    if c.op.endswith("ND"):
        dims = (c.size // c.run, *(1,) * (c.depth - 1), c.run)
        places, part = b.input((c.places, c.depth), "int64"), (c.places, c.run)
        x = _operand(b, dims, c)
        if c.op == "GatherND":
            return b.graph(b.op(c.op, x, places))
        return b.graph(b.op(c.op, x, places, b.input(part, c.dtype), reduction=c.reduction))
    x = _operand(b, (c.size // c.axis_stride, c.axis_stride), c)
    part = (c.places // c.axis_stride, c.axis_stride)
    places = b.input(part, "int64")
    if c.op == "GatherElements":
        return b.graph(b.op(c.op, x, places, axis=0))
    return b.graph(b.op(c.op, x, places, b.input(part, c.dtype), axis=0, reduction=c.reduction))


def _operand(b: GraphBuilder, shape: Shape, c: PlacesConfig) -> str:
    """What is picked from or put into: computed where it may be written over."""
    x = b.input(shape, c.dtype)
    return b.op("Neg", x) if c.over else x


def _space_places(rng: np.random.Generator) -> PlacesConfig:
    op = str(rng.choice([*_GATHERS, "ScatterElements", "ScatterND"]))
    puts = op in _SCATTERS
    reduction, over = str(rng.choice(["none", "none", "add", "max"])) if puts else "", puts and bool(rng.random() < 0.5)
    if op.endswith("ND"):
        run, depth = some(rng, 2, 400), int(rng.integers(1, 4))
        size, places = run * some(rng, 2, 2000), some(rng, 1, 500)
        return PlacesConfig(op, size, places, depth, run, run, reduction, "float32", over)
    stride = some(rng, 2, 400)
    length = some(rng, 2, 1000)
    return PlacesConfig(op, stride * length, stride * some(rng, 1, length), 1, 1, stride, reduction, "float32", over)


@dataclass(frozen=True, slots=True)
class AxisConfig:
    """An operator along one axis of ``length``: ``outer`` times, ``inner`` elements between neighbours. ``kept`` is how
    many of each row are given back.

    ``way`` is how ONNX Runtime finds the largest (``FindTopKElements`` of 1.32): ``one``; a ``heap`` of those kept;
    ``select``, where they are many. ``ordered`` says that they are sorted, which takes up to four times as long as to
    select them.
    """

    op: str
    outer: int
    length: int
    inner: int
    kept: int
    dtype: str
    way: str = ""
    ordered: bool = False

    def describe(self) -> str:
        """Sizes in words."""
        best = f", {self.kept} kept" if self.kept != self.length else ""
        way = f", {self.way}" if self.way else ""
        return f"{self.op} {self.outer} x [{self.length}] x {self.inner}{best}{way}"

    @property
    def pushed(self) -> float:
        """Of how many elements a heap lets one go, of rows in random order: the i-th is among the ``kept`` so far by
        ``kept`` / i."""
        times = self.kept * (1.0 + np.log(max(1, self.length) / max(1, self.kept)))
        return float(self.outer * self.inner * times) if self.way == "heap" else 0.0


def read_axis(op: Operator) -> AxisConfig:
    """Config of CumSum, CumProd, TopK."""
    shape, out = op.shape(0), op.outputs[0].shape
    given = op.value(1) if op.op_type.startswith("Cum") else ()
    axis = int(given[0]) % len(shape) if given and shape else op.axis(len(shape), -1)
    if not shape:
        return AxisConfig(op.op_type, 1, 1, 1, 1, op.dtype)
    outer, length, inner = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
    if op.op_type != "TopK":
        return AxisConfig(op.op_type, outer, length, inner, length, op.dtype)
    way, ordered = _way_of_largest(length, out[axis]), bool(op.int("sorted", 1))
    return AxisConfig(op.op_type, outer, length, inner, out[axis], op.dtype, way, ordered)


_HEAP_MOST, _HEAP_SHARE = 4, 0.725
"""Fewer are kept in a heap, or those whose logarithm is less than this share of the row's."""


def _way_of_largest(length: int, kept: int) -> str:
    if kept == 1:
        return "one"
    heap = kept < _HEAP_MOST or log2(kept) < _HEAP_SHARE * log2(max(1, length))
    return "heap" if heap else "select"


def work_axis(c: AxisConfig) -> Work:
    """A running sum has an addition an element; of the largest a heap is kept."""
    unit, size = item_bytes(c.dtype), c.outer * c.length * c.inner
    kept = c.outer * c.kept * c.inner
    if c.op == "TopK":
        return Work(size * (1.0 + np.log2(max(2, c.kept))), size * unit, kept * (unit + INDEX_BYTES))
    return Work(float(size), size * unit, size * unit)


def build_axis(c: AxisConfig) -> Graph:
    """One operator along the middle of three axes."""
    b = GraphBuilder(c.op.lower())
    x = b.input((c.outer, c.length, c.inner), c.dtype)
    if c.op == "TopK":
        return b.graph(*b.multi(c.op, (x, b.const((c.kept,))), 2, axis=1, sorted=int(c.ordered)))
    return b.graph(b.op(c.op, x, b.const(1)))


def _space_axis(rng: np.random.Generator) -> AxisConfig:
    op = str(rng.choice(["CumSum", "TopK"]))
    length = some(rng, 1, 2000)
    sizes = some(rng, 1, 200), length, some(rng, 1, 100)
    if op == "CumSum":
        return AxisConfig(op, *sizes, length, "float32")
    kept = some(rng, 1, length)
    return AxisConfig(op, *sizes, kept, "float32", _way_of_largest(length, kept), bool(rng.random() < 0.7))


KINDS = (
    KernelKind(
        "places",
        (*_GATHERS, *_SCATTERS),
        PlacesConfig,
        read_places,
        (
            OP,
            Column("size", lambda c: c.size),
            Column("places", lambda c: c.places),
            Column("depth", lambda c: c.depth),
            Column("run", lambda c: c.run),
            Column("moved", lambda c: c.moved),
            Column("axis_stride", lambda c: c.axis_stride),
            Category("reduction", lambda c: c.reduction),
            Column("over", lambda c: c.over),
            ITEM_BYTES,
        ),
        work_places,
        build_places,
        _space_places,
    ),
    KernelKind(
        "axis",
        ("CumSum", "CumProd", "TopK"),
        AxisConfig,
        read_axis,
        (
            OP,
            Column("outer", lambda c: c.outer),
            Column("length", lambda c: c.length),
            Column("inner", lambda c: c.inner),
            Column("kept", lambda c: c.kept),
            Column("size", lambda c: c.outer * c.length * c.inner),
            Column("steps", lambda c: c.outer * c.length),
            Column("pushed", lambda c: c.pushed),
            Column("ordered", lambda c: c.ordered),
            WAY,
            ITEM_BYTES,
            DTYPE,
        ),
        work_axis,
        build_axis,
        _space_axis,
    ),
)
