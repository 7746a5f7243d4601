"""Pooling, reductions and interpolation: windows over an image, or over whole axes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np

from nn_meter.ir import Graph, GraphBuilder
from nn_meter.kernels.kinds._shared import (
    DTYPE,
    ITEM_BYTES,
    LAYOUT,
    OP,
    WAY,
    blocked,
    inside,
    pads_between,
    some,
    times,
    window,
)
from nn_meter.kernels.partition import Shape
from nn_meter.kernels.schema import Category, Column, KernelKind, Operator, Work, item_bytes

_GLOBAL = ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
_BLOCK = 8
"""Channels, or twice as many, that lie together in blocks."""

_WINDOWED = ("AveragePool", "MaxPool", "LpPool")
_ARG = ("ArgMax", "ArgMin")
_REDUCE = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """A pooling window, or global pooling where the kernel is the image.

    ``way`` is another than the usual: ``opset 18`` of averages in the plain layout, which ONNX Runtime 1.32 computes up
    to 70 times as fast as those of later opsets; ``dilated`` of maxima there, up to 80 times as slow, as are those that
    say at which ``places`` they were found.
    """

    op: str
    n: int
    c: int
    size: Shape
    out: Shape
    kernel: Shape
    strides: Shape
    layout: str
    dtype: str
    way: str = ""

    def describe(self) -> str:
        """Sizes in words."""
        way = f", {self.way}" if self.way else ""
        return f"{self.n}x{self.c}x{times(self.size)} -> {times(self.out)}, kernel {times(self.kernel)}{way}"

    @property
    def computed(self) -> bool:
        """Whether it is no input of the model, which ONNX Runtime would pool in blocks."""
        return self.layout == "nchw" and self.op in _GLOBAL[:2] and self.c % _BLOCK == 0

    @property
    def in_bytes(self) -> float:
        """Of the image."""
        return self.n * self.c * prod(self.size) * item_bytes(self.dtype)

    @property
    def out_bytes(self) -> float:
        """Of the result."""
        return self.n * self.c * prod(self.out) * item_bytes(self.dtype)


def _image(shape: Shape) -> Shape:
    """A shape with batch and channels before the axes that windows move over; ONNX resizes images without, too."""
    return shape if len(shape) > 2 else (1, 1, *shape, 1)[: max(len(shape) + 2, 3)]


def read_pool(op: Operator) -> PoolConfig:
    """Config of windowed and global pooling."""
    x, y = _image(op.shape(0)), _image(op.outputs[0].shape)
    ones = (1,) * (len(x) - 2)
    whole = op.op_type in _GLOBAL
    return PoolConfig(
        op.op_type,
        x[0],
        x[1],
        x[2:],
        y[2:],
        x[2:] if whole else op.ints("kernel_shape", ones),
        ones if whole else op.ints("strides", ones),
        op.layout or "nchw",
        op.dtype,
        _way_of_pool(op),
    )


def _way_of_pool(op: Operator) -> str:
    if op.layout not in ("", "nchw"):
        return ""
    if op.op_type == "MaxPool" and len(op.outputs) > 1:
        return "places"
    if op.op_type == "MaxPool" and any(d > 1 for d in op.ints("dilations", ())):
        return "dilated"
    return "opset 18" if op.op_type == "AveragePool" and op.int("opset", 19) < 19 else ""


def work_pool(c: PoolConfig) -> Work:
    """One operation to each element of each window."""
    return Work(float(c.n * c.c * prod(c.out) * prod(c.kernel)), c.in_bytes, c.out_bytes)


POOL = (
    OP,
    Column("n", lambda c: c.n),
    Column("channels", lambda c: c.c),
    Column("out_pixels", lambda c: prod(c.out)),
    Column("out_w", lambda c: c.out[-1]),
    Column("in_pixels", lambda c: prod(c.size)),
    Column("kernel_area", lambda c: prod(c.kernel)),
    Column("kernel_w", lambda c: c.kernel[-1]),
    Column("stride_w", lambda c: c.strides[-1]),
    Column("spatial", lambda c: len(c.kernel)),
    Column("inside", lambda c: inside(c.size, c.out, c.kernel, c.strides, (1,) * len(c.size))),
    Column("taps_a_byte", lambda c: work_pool(c).flops / max(c.in_bytes + c.out_bytes, 1)),
    LAYOUT,
    WAY,
    Column("in_bytes", lambda c: c.in_bytes),
    Column("out_bytes", lambda c: c.out_bytes),
    ITEM_BYTES,
    DTYPE,
)


def build_pool(c: PoolConfig) -> Graph:
    """One pooling."""
    b = GraphBuilder("pool")
    x = b.input((c.n, c.c, *c.size), c.dtype)
    if c.op in _GLOBAL:
        plain = b.op("Neg", x) if c.computed else x
        return b.graph(b.op(c.op, blocked(b, x) if c.layout != "nchw" else plain))
    apart = (2 if c.way == "dilated" else 1,) * len(c.size)
    pads = pads_between(c.size, c.out, c.kernel, c.strides, apart)
    ways: dict[str, dict[str, Any]] = {"dilated": {"dilations": apart}, "opset 18": {"opset": 18}}
    attrs = {"kernel_shape": c.kernel, "strides": c.strides, "pads": pads} | ways.get(c.way, {})
    return b.graph(*b.multi(c.op, [x], 2 if c.way == "places" else 1, **attrs))


def _space_pool(rng: np.random.Generator) -> PoolConfig:
    """Images in blocks of 16 channels, or of odd numbers of them in the plain layout."""
    op = str(rng.choice((*_GLOBAL, *_WINDOWED)))
    size, kernel, strides, out = window(rng, 2, widest=5)
    if op in _GLOBAL:
        kernel, strides, out = size, (1, 1), (1, 1)
    blocks = "Lp" not in op and rng.random() < 0.6
    channels, layout = (16 * some(rng, 1, 64), "nchwc") if blocks else (2 * some(rng, 1, 200) - 1, "nchw")
    way = {"AveragePool": "opset 18", "MaxPool": "places"}.get(op, "") if not blocks and rng.random() < 0.5 else ""
    return PoolConfig(op, some(rng, 1, 8), channels, size, out, kernel, strides, layout, "float32", way)


_BY_VECTORS = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")
"""Reductions that ONNX Runtime has code of their own for, by which axes go: up to eight times as fast as its loops."""

_PATTERNS = ("KR", "RK", "KRK", "RKR")


@dataclass(frozen=True, slots=True)
class ReduceConfig:
    """A reduction; ``dims`` alternate between kept and reduced, the first kept (1 where it is not).

    ``way`` says in ONNX Runtime's letters which neighbouring axes are kept and which reduced, as they were written,
    axes of 1 too, where it has code for that; ``kept`` where no axis goes; ``whole`` where other reductions leave one
    element, ten times as fast as where there is an axis that is kept; ``last`` of a place where it is the last of equal
    ones, twice as long.
    """

    op: str
    dims: Shape
    dtype: str
    way: str = ""

    def describe(self) -> str:
        """Sizes in words."""
        return "reduce " + " ".join(f"[{d}]" if i % 2 else str(d) for i, d in enumerate(self.dims))

    @property
    def kept(self) -> int:
        """Elements of the result."""
        return prod(self.dims[0::2])

    @property
    def reduced(self) -> int:
        """Elements that become one."""
        return prod(self.dims[1::2])


def _axes(op: Operator, rank: int) -> set[int]:
    """Those that go: all where none are named, unless they are none then, and the function alone is computed."""
    given: Iterable[int | float] = op.ints("axes", ())
    if len(op.inputs) > 1 and (axes := op.inputs[1]) is not None and axes.value is not None:
        given = axes.value
    found = {int(a) % rank for a in given} if rank else set()
    return found or set(range(0 if op.int("noop_with_empty_axes", 0) else rank))


def read_reduce(op: Operator) -> ReduceConfig:
    """Config of Reduce*, ArgMax, ArgMin."""
    shape = op.shape(0)
    axes = {op.axis(len(shape), 0)} if op.op_type in _ARG else _axes(op, len(shape))
    runs: list[int] = [1]
    pattern, reduced = "", False
    for i, size in enumerate(shape):
        letter = "R" if i in axes else "K"
        pattern += letter if not pattern.endswith(letter) else ""
        if size == 1:
            continue
        if (i in axes) != reduced:
            runs.append(1)
            reduced = not reduced
        runs[-1] *= size
    way = "last" if op.int("select_last_index", 0) else _way_of_reduction(op.op_type, pattern)
    return ReduceConfig(op.op_type, tuple(runs), op.dtype, way)


def _way_of_reduction(op_type: str, pattern: str) -> str:
    if pattern == "K":
        return "kept"
    if op_type in _BY_VECTORS:
        return "KR" if pattern == "R" else pattern if pattern in _PATTERNS else ""
    return "whole" if pattern == "R" and op_type not in _ARG else ""


def work_reduce(c: ReduceConfig) -> Work:
    """One operation to each element."""
    unit = item_bytes(c.dtype)
    return Work(float(c.kept * c.reduced), c.kept * c.reduced * unit, c.kept * unit)


def build_reduce(c: ReduceConfig) -> Graph:
    """One reduction."""
    b = GraphBuilder("reduce")
    dims = c.dims if len(c.dims) > 1 else (*c.dims, 1)  # one element becomes one
    if c.op in _ARG:
        return b.graph(b.op(c.op, b.input(dims, c.dtype), axis=1, keepdims=1, select_last_index=int(c.way == "last")))
    if c.way in _PATTERNS:
        return _built(b, c, _by_letters(c.dims, c.way), [place for place, each in enumerate(c.way) if each == "R"])
    first = 1 if c.way == "whole" else 0  # an axis of 1 that is kept makes another way of it
    dims = dims[first:]
    if c.op in _BY_VECTORS:
        dims = (*dims, *(1,) * (len(dims) % 2), 1, 1)  # and two axes of 1 make it none
    return _built(b, c, dims, range(1 - first, len(dims), 2))


def _built(b: GraphBuilder, c: ReduceConfig, dims: Shape, axes: Iterable[int]) -> Graph:
    x = b.input(dims, c.dtype)
    return b.graph(b.op(c.op, x, b.const(tuple(axes)), keepdims=1))


def _by_letters(dims: Shape, way: str) -> Shape:
    """A size for each letter: those of ``dims``, which leave out axes of 1 but for a first one that is not kept."""
    left = list(dims[1:] if way.startswith("R") and dims[0] == 1 else dims)
    kept = len(left) == len(dims)  # whether the next of those left is kept
    found = []
    for letter in way:
        taken = bool(left) and kept == (letter == "K")
        found.append(left.pop(0) if taken else 1)
        kept ^= taken
    return tuple(found)


def _space_reduce(rng: np.random.Generator) -> ReduceConfig:
    op = str(rng.choice((*_ARG, *_REDUCE)))
    inner = tuple(some(rng, 2, 200) for _ in range(rng.integers(1, 3 if op in _ARG else 4)))
    way = (("KR", "KRK", "") if op in _BY_VECTORS else ("",) * 3)[len(inner) - 1]
    if op in _ARG and rng.random() < 0.3:
        way = "last"
    return ReduceConfig(op, (some(rng, 2, 200), *inner), "float32", way)


@dataclass(frozen=True, slots=True)
class ResizeConfig:
    """Interpolation from ``size`` to ``out``. ``way`` is another than the usual: ``doubled`` where each pixel becomes
    four as ``asymmetric`` and ``floor`` say it, which ONNX Runtime knows by itself in the plain layout, four times as
    fast; ``antialias`` where all that a pixel covers is read."""

    mode: str
    n: int
    c: int
    size: Shape
    out: Shape
    layout: str
    dtype: str
    way: str = ""

    def describe(self) -> str:
        """Sizes in words."""
        return f"{self.mode} {self.n}x{self.c}x{times(self.size)} -> {times(self.out)}"

    @property
    def in_size(self) -> int:
        """Elements of the image."""
        return self.n * self.c * prod(self.size)

    @property
    def out_size(self) -> int:
        """Elements of the result."""
        return self.n * self.c * prod(self.out)

    @property
    def rows_interpolated(self) -> int:
        """Values between pixels of one row that a cubic interpolation takes, each kept for the four rows of the result
        that want it: as many as rows are read, times the result's width (``ResizeBiCubic`` of ONNX Runtime 1.32)."""
        return self.n * self.c * min(self.size[0], 4 * self.out[0]) * self.out[-1] if self.mode == "cubic" else 0


_FLOPS_PER_PIXEL: Mapping[str, int] = MappingProxyType({"nearest": 1, "linear": 6, "cubic": 32})


def read_resize(op: Operator) -> ResizeConfig:
    """Config of Resize and Upsample; where channels or the batch change, too, all axes are those of an image."""
    x, y = _image(op.shape(0)), _image(op.outputs[0].shape)
    if x[:2] != y[:2]:
        x, y = (1, 1, *x), (1, 1, *y)
    mode = op.attrs.get("mode", "nearest")
    return ResizeConfig(str(mode), x[0], x[1], x[2:], y[2:], op.layout or "nchw", op.dtype, _way_of_resize(op))


_DOUBLED = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def _way_of_resize(op: Operator) -> str:
    if op.int("antialias", 0):
        return "antialias"
    x, y = op.shape(0), op.outputs[0].shape
    attrs = {"mode": "nearest", **(_DOUBLED if op.op_type == "Upsample" else {}), **op.attrs}
    doubled = len(x) == 4 and y == (*x[:2], 2 * x[2], 2 * x[3]) and op.layout in ("", "nchw")
    return "doubled" if doubled and _DOUBLED.items() <= attrs.items() else ""


def work_resize(c: ResizeConfig) -> Work:
    """By mode, so many operations to each pixel of the result."""
    unit = item_bytes(c.dtype)
    return Work(float(c.out_size * _FLOPS_PER_PIXEL.get(c.mode, 6)), c.in_size * unit, c.out_size * unit)


def build_resize(c: ResizeConfig) -> Graph:
    """One resize."""
    b = GraphBuilder("resize")
    x = b.input((c.n, c.c, *c.size), c.dtype)
    if c.layout != "nchw":
        x = blocked(b, x)
    sizes = b.const((c.n, c.c, *c.out))
    ways: dict[str, dict[str, Any]] = {"antialias": {"antialias": 1}, "doubled": {"nearest_mode": "floor"}}
    attrs = {"mode": c.mode, "coordinate_transformation_mode": "asymmetric"} | ways.get(c.way, {})
    if c.layout != "nchw" and c.mode == "nearest":  # in blocks there is code for this rounding alone
        attrs["nearest_mode"] = "floor"
    return b.graph(b.op("Resize", x, "", "", sizes, **attrs))


def _space_resize(rng: np.random.Generator) -> ResizeConfig:
    """Images in blocks of 16 channels that grow by whole numbers, or any in the plain layout."""
    size = (some(rng, 2, 60), some(rng, 2, 60))
    n = some(rng, 1, 4)
    if rng.random() < 0.5:
        grown, mode = int(rng.integers(2, 5)), str(rng.choice(["nearest", "linear"]))
        out = (grown * size[0], grown * size[1])
        return ResizeConfig(mode, n, 16 * some(rng, 1, 32), size, out, "nchwc", "float32")
    out = (size[0] + some(rng, 1, 200), some(rng, 1, 300))
    mode = str(rng.choice(["nearest", "linear", "cubic"]))
    return ResizeConfig(mode, n, some(rng, 1, 200), size, out, "nchw", "float32")


KINDS = (
    KernelKind(
        "pool",
        (*_WINDOWED, *_GLOBAL),
        PoolConfig,
        read_pool,
        POOL,
        work_pool,
        build_pool,
        _space_pool,
    ),
    KernelKind(
        "reduce",
        (*_ARG, *_REDUCE),
        ReduceConfig,
        read_reduce,
        (
            OP,
            Column("runs", lambda c: len(c.dims)),
            Column("kept", lambda c: c.kept),
            Column("reduced", lambda c: c.reduced),
            Column("last", lambda c: c.dims[-1]),
            Column("keeps_last", lambda c: len(c.dims) % 2),
            Column("first", lambda c: c.dims[0]),
            Column("second", lambda c: c.dims[1] if len(c.dims) > 1 else 1),
            Column("third", lambda c: c.dims[2] if len(c.dims) > 2 else 1),
            WAY,
            ITEM_BYTES,
            DTYPE,
        ),
        work_reduce,
        build_reduce,
        _space_reduce,
    ),
    KernelKind(
        "resize",
        ("Resize", "Upsample"),
        ResizeConfig,
        read_resize,
        (
            Category("mode", lambda c: c.mode),
            Column("maps", lambda c: c.n * c.c),
            Column("in_size", lambda c: c.in_size),
            Column("out_size", lambda c: c.out_size),
            Column("out_w", lambda c: c.out[-1]),
            Column("in_w", lambda c: c.size[-1]),
            Column("growth", lambda c: c.out_size / max(c.in_size, 1)),
            Column("growth_w", lambda c: c.out[-1] / max(c.size[-1], 1)),
            Column("spatial", lambda c: len(c.size)),
            Column("rows_interpolated", lambda c: c.rows_interpolated),
            LAYOUT,
            WAY,
            ITEM_BYTES,
            DTYPE,
        ),
        work_resize,
        build_resize,
        _space_resize,
    ),
)
