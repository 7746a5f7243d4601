"""Schema ``onnx-1``: columns of the kernel kinds of runtimes that execute ONNX operators.

Every kind starts with its floating-point operations and the bytes that it reads and writes, weights included;
they give the roofline (Williams et al., CACM 2009) that regressors are relative to::

    roofline_ms = 1000 * max(flops / flops_per_s, bytes / bytes_per_s) + overhead_ms

which is appended as the last column. Before it stands the kernel's surroundings: ``footprint_bytes``, what a whole
inference reads and writes, rounded to a quarter of an octave. Between two uses of a weight that much has passed
through the caches, so that the same kernel takes longer in a large model. A new kind is one row in ``COLUMNS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log2, prod
from types import MappingProxyType
from typing import Any

from nn_meter.kernels.kinds import (
    KIND_OF,
    KINDS,
    AttentionConfig,
    BroadcastConfig,
    ConvConfig,
    CopyConfig,
    GemmConfig,
    OtherConfig,
    PiecesConfig,
    PoolConfig,
    RecurrentConfig,
    ReduceConfig,
    ReorderConfig,
    ResizeConfig,
    RowsConfig,
    TransposeConfig,
)

SCHEMA = "onnx-1"
ROOFLINE = "roofline_ms"
FOOTPRINT = "footprint_bytes"

ITEM_BYTES: Mapping[str, float] = MappingProxyType(
    {
        "float64": 8, "int64": 8, "uint64": 8, "complex64": 8, "float32": 4, "int32": 4, "uint32": 4,
        "float16": 2, "bfloat16": 2, "int16": 2, "uint16": 2, "int8": 1, "uint8": 1, "bool": 1,
        "float8e4m3fn": 1, "float8e5m2": 1, "int4": 0.5, "uint4": 0.5, "float4e2m1": 0.5,
    }
)  # fmt: skip

_FUSED = ("relu", "clip", "leakyrelu", "hardsigmoid", "hardswish", "sigmoid", "tanh", "swish", "gelu")
_LAYOUTS = ("nchw", "nchwc", "nchw>nchwc")
_FLOPS_PER_ELEMENT: Mapping[str, int] = MappingProxyType(
    {
        "Erf": 20, "Exp": 12, "Log": 12, "Gelu": 24, "BiasGelu": 25, "FastGelu": 24, "QuickGelu": 16, "Sigmoid": 14,
        "Tanh": 16, "Pow": 20, "Sqrt": 4, "Div": 4, "Softplus": 24, "Mish": 40, "HardSwish": 4, "HardSigmoid": 3,
    }
)  # fmt: skip
"""Floating-point operations an element, where it is not one: rough counts of the usual polynomial kernels."""

Row = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Speeds:
    """What a device does at best: floating-point operations and bytes a second, and the cost of one call."""

    flops_per_s: float
    bytes_per_s: float
    overhead_ms: float

    def roofline_ms(self, flops: float, size_bytes: float) -> float:
        """Lower bound of a kernel's latency."""
        return 1e3 * max(flops / self.flops_per_s, size_bytes / self.bytes_per_s) + self.overhead_ms


def item_bytes(dtype: str) -> float:
    """Bytes of one element; 4 for what is not in the table."""
    return ITEM_BYTES.get(dtype, 4)


def _op(name: str) -> int:
    """Position of an operator among those of its kind."""
    base = name.partition(" ")[0]
    kind = KINDS.get(KIND_OF.get(base, ""))
    return kind.operators.index(base) if kind is not None else -1


def _fused(names: tuple[str, ...]) -> int:
    return next((i + 1 for i, name in enumerate(_FUSED) if name in names), 0)


def _layout(name: str) -> int:
    return _LAYOUTS.index(name) if name in _LAYOUTS else -1


def _conv(c: ConvConfig) -> Row:
    unit = item_bytes(c.dtype)
    pixels, area = prod(c.out), prod(c.kernel)
    data_in, data_out = c.n * c.cin * prod(c.size) * unit, c.n * c.cout * pixels * unit
    weights = c.cout * (c.cin // c.group) * area * unit
    size_bytes = data_in + data_out * (2 if "sum" in c.fused else 1) + weights
    return (
        2.0 * c.macs,
        size_bytes,
        c.n,
        c.cin,
        c.cout,
        c.cin // c.group,
        c.cout // c.group,
        pixels,
        c.out[-1],
        prod(c.size),
        c.size[-1],
        area,
        c.kernel[-1],
        c.strides[-1],
        prod(c.strides),
        max(c.dilations),
        c.group,
        _fused(c.fused),
        int("sum" in c.fused),
        _layout(c.layout),
        data_in,
        data_out,
        weights,
        2.0 * c.macs / size_bytes,
        unit,
    )


def _gemm(c: GemmConfig) -> Row:
    unit = item_bytes(c.dtype)
    left, right, out = (
        c.batch * c.m * c.k * unit,
        (1 if c.weights else c.batch) * c.k * c.n * unit,
        c.batch * c.m * c.n * unit,
    )
    size_bytes = left + right + out
    return (
        2.0 * c.macs, size_bytes, c.batch, c.m, c.k, c.n, int(c.weights), int(c.trans[0]), int(c.trans[1]),
        _fused(c.fused), left, right, out, 2.0 * c.macs / max(size_bytes, 1), 2.0 * c.m * c.k * c.n, unit,
    )  # fmt: skip


def _broadcast(c: BroadcastConfig) -> Row:
    unit = item_bytes(c.dtype)
    sizes = [prod(d for d, has in zip(c.dims, p, strict=True) if has) for p in c.present]
    sizes += [0] * (3 - len(sizes))
    inner = tuple(int(p[-1]) for p in c.present[:3]) + (0,) * (3 - len(c.present))
    return (
        float(c.size * _FLOPS_PER_ELEMENT.get(c.op, 1)),
        (sum(sizes) + c.size) * unit,
        _op(c.op),
        c.size,
        len(c.dims),
        c.dims[-1],
        c.dims[-2] if len(c.dims) > 1 else 1,
        c.size // c.dims[-1],
        *sizes[:3],
        *inner[:3],
        len(c.present),
        unit,
    )


def _rows(c: RowsConfig) -> Row:
    unit = item_bytes(c.dtype)
    size = c.rows * c.length
    return 8.0 * size, 2 * size * unit, _op(c.op), int(" " in c.op), c.rows, c.length, c.inputs, size, unit


def _pool(c: PoolConfig) -> Row:
    unit = item_bytes(c.dtype)
    pixels, area = prod(c.out), prod(c.kernel)
    data_in, data_out = c.n * c.c * prod(c.size) * unit, c.n * c.c * pixels * unit
    return (
        float(c.n * c.c * pixels * area), data_in + data_out, _op(c.op), c.n, c.c, pixels, c.out[-1], prod(c.size),
        area, c.kernel[-1], c.strides[-1], _layout(c.layout), data_in, data_out, unit,
    )  # fmt: skip


def _reduce(c: ReduceConfig) -> Row:
    unit = item_bytes(c.dtype)
    kept, reduced = prod(c.dims[0::2]), prod(c.dims[1::2])
    last = c.dims[-1]
    return (
        float(kept * reduced), (kept * reduced + kept) * unit, _op(c.op), len(c.dims), kept, reduced, last,
        int(len(c.dims) % 2), c.dims[0], c.dims[1] if len(c.dims) > 1 else 1, c.dims[2] if len(c.dims) > 2 else 1, unit,
    )  # fmt: skip


def _transpose(c: TransposeConfig) -> Row:
    unit = item_bytes(c.dtype)
    size, rank = prod(c.dims), len(c.dims)
    keeps_last = int(c.perm[-1] == rank - 1)
    padded = (1,) * (5 - rank) + c.dims if rank < 5 else c.dims[-5:]
    code = 0
    for p in c.perm:
        code = code * rank + p
    return 0.0, 2 * size * unit, size, rank, code, keeps_last, c.dims[-1], c.dims[c.perm[-1]], *padded, unit


def _pieces(c: PiecesConfig) -> Row:
    unit = item_bytes(c.dtype)
    size = c.outer * sum(c.pieces)
    return (
        0.0,
        2 * size * unit,
        c.outer,
        len(c.pieces),
        size,
        min(c.pieces),
        max(c.pieces),
        sum(c.pieces),
        c.outer * len(c.pieces),
        unit,
    )


def _copy(c: CopyConfig) -> Row:
    unit = item_bytes(c.dtype)
    return 0.0, 2 * c.out * unit, _op(c.op), c.size, c.out, c.run, c.out // max(c.run, 1), unit


def _view(c: CopyConfig) -> Row:
    unit = item_bytes(c.dtype)
    return 0.0, 0.0, c.size, c.size * unit, unit


def _reorder(c: ReorderConfig) -> Row:
    unit = item_bytes(c.dtype)
    size = c.n * c.c * c.hw
    return 0.0, 2 * size * unit, _op(c.op), c.n, c.c, c.hw, size, int(c.last), c.c % 16, unit


def _resize(c: ResizeConfig) -> Row:
    unit = item_bytes(c.dtype)
    source, out = c.n * c.c * prod(c.size), c.n * c.c * prod(c.out)
    mode = ("nearest", "linear", "cubic").index(c.mode) if c.mode in ("nearest", "linear", "cubic") else -1
    return (
        float(out * (1, 6, 32, 6)[mode]), (source + out) * unit, mode, c.n * c.c, source, out, c.out[-1], c.size[-1],
        out / max(source, 1), _layout(c.layout), unit,
    )  # fmt: skip


def _recurrent(c: RecurrentConfig) -> Row:
    unit = item_bytes(c.dtype)
    gates = {"LSTM": 4, "GRU": 3}.get(c.op, 1)
    weights = c.directions * gates * c.hidden * (c.input + c.hidden)
    flops = 2.0 * c.steps * c.batch * weights
    data = c.steps * c.batch * (c.input + c.directions * c.hidden)
    return (
        flops,
        (weights + data) * unit,
        _op(c.op),
        c.steps,
        c.batch,
        c.input,
        c.hidden,
        c.directions,
        weights * unit,
        unit,
    )


def _attention(c: AttentionConfig) -> Row:
    unit = item_bytes(c.dtype)
    heads = c.batch * c.heads
    flops = 4.0 * heads * c.queries * c.keys * c.width
    size_bytes = heads * c.width * (2 * c.queries + 2 * c.keys) * unit
    return flops, size_bytes, _op(c.op), c.batch, c.heads, c.queries, c.keys, c.width, unit


def _other(c: OtherConfig) -> Row:
    unit = item_bytes(c.dtype)
    size = sum(map(prod, c.inputs)) + sum(map(prod, c.outputs))
    return (
        float(max([prod(s) for s in c.outputs] or [0])),
        size * unit,
        size,
        len(c.inputs),
        len(c.outputs),
        unit,
    )


_CONV = (
    "flops", "bytes", "n", "cin", "cout", "cin_per_group", "cout_per_group", "out_pixels", "out_w", "in_pixels",
    "in_w", "kernel_area", "kernel_w", "stride_w", "stride_area", "dilation", "group", "activation", "sum", "layout",
    "in_bytes", "out_bytes", "weight_bytes", "intensity", "item_bytes",
)  # fmt: skip
_GEMM = (
    "flops", "bytes", "batch", "m", "k", "n", "weights", "trans_a", "trans_b", "activation", "left_bytes",
    "right_bytes", "out_bytes", "intensity", "flops_per_product", "item_bytes",
)  # fmt: skip
_BROADCAST = (
    "flops", "bytes", "op", "size", "rank", "inner", "second", "outer", "size_a", "size_b", "size_c", "inner_a",
    "inner_b", "inner_c", "operands", "item_bytes",
)  # fmt: skip
_ROWS = ("flops", "bytes", "op", "strided", "rows", "length", "inputs", "size", "item_bytes")
_PIECES = ("flops", "bytes", "outer", "count", "size", "smallest", "largest", "width", "copies", "item_bytes")
_COPY = ("flops", "bytes", "op", "in_size", "out_size", "run", "runs", "item_bytes")

COLUMNS: Mapping[str, tuple[tuple[str, ...], Callable[[Any], Row]]] = MappingProxyType(
    {
        "conv": (_CONV, _conv),
        "dwconv": (_CONV, _conv),
        "conv_nchw": (_CONV, _conv),
        "convtrans": (_CONV, _conv),
        "fc": (_GEMM, _gemm),
        "matmul": (_GEMM, _gemm),
        "attention": (
            ("flops", "bytes", "op", "batch", "heads", "queries", "keys", "width", "item_bytes"),
            _attention,
        ),
        "unary": (_BROADCAST, _broadcast),
        "binary": (_BROADCAST, _broadcast),
        "softmax": (_ROWS, _rows),
        "norm": (_ROWS, _rows),
        "channelnorm": (_ROWS, _rows),
        "bn": (_ROWS, _rows),
        "pool": (
            (
                "flops", "bytes", "op", "n", "channels", "out_pixels", "out_w", "in_pixels", "kernel_area",
                "kernel_w", "stride_w", "layout", "in_bytes", "out_bytes", "item_bytes",
            ),
            _pool,
        ),
        "reduce": (
            (
                "flops", "bytes", "op", "runs", "kept", "reduced", "last", "keeps_last", "first", "second", "third",
                "item_bytes",
            ),
            _reduce,
        ),
        "transpose": (
            (
                "flops", "bytes", "size", "rank", "perm", "keeps_last", "last", "new_last", "dim1", "dim2", "dim3",
                "dim4", "dim5", "item_bytes",
            ),
            _transpose,
        ),
        "concat": (_PIECES, _pieces),
        "split": (_PIECES, _pieces),
        "gather": (_COPY, _copy),
        "slice": (_COPY, _copy),
        "copy": (_COPY, _copy),
        "reshape": (("flops", "bytes", "size", "size_bytes", "item_bytes"), _view),
        "reorder": (
            ("flops", "bytes", "op", "n", "channels", "pixels", "size", "last", "ragged", "item_bytes"),
            _reorder,
        ),
        "resize": (
            (
                "flops", "bytes", "mode", "maps", "in_size", "out_size", "out_w", "in_w", "growth", "layout",
                "item_bytes",
            ),
            _resize,
        ),
        "recurrent": (
            (
                "flops", "bytes", "op", "steps", "batch", "input", "hidden", "directions", "weight_bytes",
                "item_bytes",
            ),
            _recurrent,
        ),
        "other": (("flops", "bytes", "size", "inputs", "outputs", "item_bytes"), _other),
    }
)  # fmt: skip
"""Kind to its columns and the function that makes them from a config."""


def columns(kind: str) -> tuple[str, ...]:
    """Names of the columns of a kind; footprint and roofline last."""
    return (*COLUMNS[kind][0], FOOTPRINT, ROOFLINE)


def encode(kernels: Sequence[tuple[str, Any]], speeds: Speeds) -> list[Row]:
    """Rows of all kernels of one inference, given as kind and config, in the order of ``columns`` of their kinds.

    Raises:
        KeyError: no such kind.
    """
    rows = [COLUMNS[kind][1](config) for kind, config in kernels]
    footprint = sum(row[1] for row in rows)
    rounded = 2.0 ** (round(4 * log2(max(footprint, 1.0))) / 4)
    return [(*row, rounded, speeds.roofline_ms(row[0], row[1])) for row in rows]
