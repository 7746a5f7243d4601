"""Terms: what a kernel's latency is a sum of, where only whole models were measured.

A term is some work (multiply-adds, elements) done at a speed, and the speed varies with sizes. A kernel has the terms
of what it computes and of what a runtime does around it::

    latency_ms = sum over terms of exp(base + log(work / unit) + sum over sizes of slope * log(size / typical))

so that ``exp(base)`` is the time of one unit of work in a kernel of typical sizes. Terms of one ``group`` are paid for
by one resource (arithmetic, memory), so that the speed of one says something about that of another. Where a size is
``squared``, its logarithm's square has a slope too. A new term is a row in ``TERMS`` and a line in ``steps``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import e, log, prod
from types import MappingProxyType
from typing import Any

from nn_meter.kernels.kinds import (
    KINDS,
    AttentionConfig,
    BroadcastConfig,
    ConvConfig,
    CopyConfig,
    GemmConfig,
    PiecesConfig,
    PoolConfig,
    RecurrentConfig,
    ReduceConfig,
    ReorderConfig,
    ResizeConfig,
    RowsConfig,
    TransposeConfig,
)
from nn_meter.kernels.partition import KernelConfig

SCHEMA = "terms-1"
"""The name of this table in bundles; what a row means never changes under one name."""

PROCESSOR, FLOATS, DELEGATE = "tflite_cpu", "tflite_float", "tflite_gpu"
TRAFFIC, CARD = "pytorch_gpu", "pytorch_card"
"""Runtimes that compute in stages of their own (``steps``)."""

CALL = "call"
LAUNCH = "launch"
START = "start"
STREAM = "stream"

NO_WORK = frozenset({LAUNCH, START})
"""Terms of every kernel, whatever it computes."""


@dataclass(frozen=True, slots=True)
class Size:
    """A size that the speed of a term varies with, relative to a typical one."""

    name: str
    of: Callable[[Any], float]
    typical: float
    squared: bool = False


@dataclass(frozen=True, slots=True)
class Term:
    """A row of the table. ``group`` is ``arithmetic``, ``memory`` or empty; ``unit`` of work is a thousandth or so
    of what a network has of it."""

    group: str
    work: Callable[[Any], float]
    unit: float
    sizes: tuple[Size, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what a slope is learned for."""
        named = [[s.name, f"{s.name}^2"] if s.squared else [s.name] for s in self.sizes]
        return tuple(name for each in named for name in each)

    def row(self, config: Any) -> tuple[float, ...]:
        """The logarithm of the work in units, then a number for each of ``columns``."""
        row = [log(max(self.work(config), 1.0) / self.unit)]
        for size in self.sizes:
            value = log(max(size.of(config), 1.0) / size.typical)
            row += [value, value * value] if size.squared else [value]
        return tuple(row)


def _pixels(c: ConvConfig) -> int:
    return c.n * prod(c.out)


def _macs(c: ConvConfig | GemmConfig) -> float:
    return float(c.macs)


def _written(c: ConvConfig) -> float:
    return float(_pixels(c) * c.cout)


def _rows_size(c: RowsConfig) -> float:
    return float(c.rows * c.length)


def _summed(c: ConvConfig) -> int:
    """Products that one element is a sum of."""
    return c.cin // c.group * prod(c.kernel)


def _weights(c: ConvConfig) -> float:
    return float(c.cout * _summed(c))


def _through(c: ConvConfig) -> float:
    """Elements that are read and written, without the weights."""
    return float(c.n * c.cin * prod(c.size)) + _written(c)


def _second(c: GemmConfig) -> float:
    """Elements of the second operand: the weights, where it has any."""
    return float(c.k * c.n * (1 if c.weights else c.batch))


def _patches(c: ConvConfig) -> float:
    return float(_pixels(c) * _summed(c))


def _loop(c: ConvConfig) -> float:
    """Multiply-adds of taps that lie inside the input; the loop skips the others."""
    inside = 1.0
    for size, out, kernel, stride in zip(c.size, c.out, c.kernel, c.strides, strict=True):
        before = kernel // 2 if stride > 1 else max(out + kernel - 1 - size, 0) // 2
        inside *= sum(0 <= o * stride + k - before < size for o in range(out) for k in range(kernel)) / (out * kernel)
    return (_macs(c) + _TAP * _written(c) * prod(c.kernel)) * inside


def _tiles(c: ConvConfig) -> float:
    """Multiply-adds of a product in tiles of 8 by 8."""
    return float(_summed(c) * 8 * -(-c.cout // 8) * 8 * -(-_pixels(c) // 8))


def _winograd(c: ConvConfig) -> bool:
    """Whether TFLite's delegate computes it in squares of 4 by 4, as the names of the kernels that it ran say: where
    there are 32 squares and 64 channels (in fours, 16) on both sides, on other GPUs than Adreno, which ran none."""
    squares = prod(-(-out // 4) for out in c.out)
    plain = set(c.kernel) == {3} and max(c.strides) == 1 and c.group == 1
    return plain and squares >= 32 and min(-(-c.cin // 4), -(-c.cout // 4)) >= 16


def _attention_macs(c: AttentionConfig) -> float:
    return 2.0 * c.batch * c.heads * c.queries * c.keys * c.width


_TAP = 4
"""A tap of a reference loop (its offsets, whether it is inside) in multiply-adds: 3 to 6 where RegNets of two phones
differ in channels per group."""

_STRIDE = Size("stride", lambda c: max(c.strides), 1)
_AREA = Size("area", lambda c: prod(c.kernel), 9)
_PIXELS = Size("pixels", _pixels, 784, squared=True)
_CIN = Size("cin", lambda c: c.cin, 64, squared=True)
_COUT = Size("cout", lambda c: c.cout, 64, squared=True)
_ELEMENTS = Size("elements", lambda c: c.size, 1e5)

TERMS: Mapping[str, Term] = MappingProxyType(
    {
        CALL: Term("", lambda c: 1.0, 1.0),
        LAUNCH: Term("", lambda c: 1.0, 1.0),
        START: Term("", lambda c: 1.0, 1.0),
        "conv": Term("arithmetic", _macs, 1e6, (_CIN, _COUT, _PIXELS, _AREA, _STRIDE)),
        "conv1x1": Term("arithmetic", _macs, 1e6, (_CIN, _COUT, _PIXELS, _STRIDE)),
        "stem": Term("arithmetic", _macs, 1e6, (Size("cout", lambda c: c.cout, 32), _AREA, _STRIDE)),
        "grouped": Term(
            "arithmetic",
            _macs,
            1e6,
            (
                Size("cin", lambda c: c.cin // c.group, 16),
                Size("cout", lambda c: c.cout // c.group, 16),
                Size("groups", lambda c: c.group, 16),
                Size("pixels", _pixels, 784),
                _STRIDE,
            ),
        ),
        "grouped_loop": Term("", _loop, 1e6, (Size("cin", lambda c: c.cin // c.group, 16),)),
        "dwconv": Term("", _macs, 1e6, (Size("cin", lambda c: c.cin, 128, True), _PIXELS, _AREA, _STRIDE)),
        "depthwise": Term(
            "",
            _macs,
            1e6,
            (
                Size("cin", lambda c: c.cin, 128, True),
                _PIXELS,
                _AREA,
                _STRIDE,
                Size("ragged", lambda c: 1 if c.cin % 8 == 0 and set(c.kernel) == {3} else e, 1),
            ),
        ),
        "convtrans": Term("arithmetic", _macs, 1e6),
        "conv_vector": Term(
            "", _macs, 1e6, (Size("cin", lambda c: c.cin, 256), Size("cout", lambda c: c.cout, 256))
        ),
        "linear": Term(
            "arithmetic",
            _macs,
            1e6,
            (
                Size("m", lambda c: c.m, 196, True),
                Size("k", lambda c: c.k, 256, True),
                Size("n", lambda c: c.n, 256, True),
            ),
        ),
        "linear_vector": Term("", _macs, 1e6, (Size("k", lambda c: c.k, 256), Size("n", lambda c: c.n, 256))),
        "matmul": Term(
            "arithmetic",
            _macs,
            1e6,
            (
                Size("m", lambda c: c.m, 196),
                Size("k", lambda c: c.k, 64),
                Size("n", lambda c: c.n, 196),
                Size("batch", lambda c: c.batch, 8),
            ),
        ),
        "attention": Term(
            "arithmetic",
            _attention_macs,
            1e6,
            (Size("queries", lambda c: c.queries, 196), Size("width", lambda c: c.width, 64)),
        ),
        "recurrent": Term(
            "arithmetic", lambda c: c.steps * c.batch * c.hidden * (c.input + c.hidden) * c.directions, 1e6
        ),
        "gemm": Term(
            "arithmetic",
            _tiles,
            1e6,
            (
                Size("k", _summed, 256),
                Size("cout", lambda c: c.cout, 64),
                Size("pixels", _pixels, 784),
                _AREA,
                _STRIDE,
            ),
        ),
        "gemm_in": Term("memory", _patches, 1e5),
        "gemm_patches": Term(
            "memory",
            _patches,
            1e5,
            (Size("cin", lambda c: c.cin, 64), Size("cout", lambda c: c.cout, 64)),
        ),
        "gemm_out": Term("memory", _written, 1e5),
        "depthwise_out": Term("memory", _written, 1e5),
        "conv_traffic": Term("memory", _through, 1e5),
        "depthwise_traffic": Term("memory", _through, 1e5),
        "conv_weights": Term("memory", _weights, 1e5),
        "gemm_traffic": Term("memory", lambda c: float(c.batch * c.m * (c.k + c.n)), 1e5),
        "gemm_weights": Term("memory", _second, 1e5),
        "attention_traffic": Term("memory", lambda c: 2.0 * c.batch * c.heads * c.width * (c.queries + c.keys), 1e5),
        STREAM: Term("memory", lambda work: work.bytes, 8e5),
        "winograd": Term("arithmetic", _macs, 1e6, (_CIN, _COUT, _PIXELS)),
        "wait": Term("", lambda c: float(4 * -(-c.cin // 4) * prod(c.kernel)), 1e3),
        "im2col": Term("memory", _patches, 1e6),
        "pad": Term("memory", lambda c: float(c.out), 1e5),
        "pad_rows": Term("", lambda c: float(c.out), 1e5),
        "fused_activation": Term("memory", _written, 1e5),
        "fused_hardswish": Term("memory", _written, 1e5),
        "fused_transcendental": Term("memory", _written, 1e5),
        "fused_sum": Term("memory", _written, 1e5),
        "binary": Term("memory", lambda c: float(c.size), 1e5, (_ELEMENTS,)),
        "scale": Term("memory", lambda c: float(c.size), 1e5, (_ELEMENTS,)),
        "clamp": Term("memory", lambda c: float(c.size), 1e5, (_ELEMENTS,)),
        "hardswish": Term("memory", lambda c: float(c.size), 1e5, (_ELEMENTS,)),
        "transcendental": Term("memory", lambda c: float(c.size), 1e5, (_ELEMENTS,)),
        "bn": Term("memory", _rows_size, 1e5, (Size("elements", _rows_size, 1e5),)),
        "norm": Term("memory", _rows_size, 1e5, (Size("length", lambda c: c.length, 196),)),
        "softmax": Term("memory", _rows_size, 1e5, (Size("length", lambda c: c.length, 196),)),
        "mean": Term(
            "memory",
            lambda c: float(c.n * c.c * prod(c.size)),
            1e5,
            (Size("channels", lambda c: c.c, 256), Size("pixels", lambda c: prod(c.size), 49)),
        ),
        "reduce": Term("memory", lambda c: float(prod(c.dims)), 1e5),
        "maxpool": Term("memory", lambda c: float(c.n * c.c * prod(c.out) * prod(c.kernel)), 1e5, (_AREA,)),
        "avgpool": Term("memory", lambda c: float(c.n * c.c * prod(c.out) * prod(c.kernel)), 1e5, (_AREA,)),
        "concat": Term("memory", lambda c: float(c.outer * sum(c.pieces)), 1e5),
        "split": Term("memory", lambda c: float(c.outer * sum(c.pieces)), 1e5),
        "transpose": Term("memory", lambda c: float(prod(c.dims)), 1e5),
        "copy": Term("memory", lambda c: float(c.out), 1e5),
        "reorder": Term("memory", lambda c: float(c.n * c.c * c.hw), 1e5),
        "resize": Term("memory", lambda c: float(c.n * c.c * prod(c.out)), 1e5),
    }
)

GROUPS = ("arithmetic", "memory")

_TFLITE = frozenset({PROCESSOR, FLOATS})

_TRAFFIC = frozenset({TRAFFIC, CARD})
"""Where products pay for what they read and write beside the work."""

_STREAMED = (BroadcastConfig, RowsConfig, PiecesConfig, CopyConfig, ReduceConfig)
"""Kernels that take what bringing and writing their elements takes."""

_SLOW = frozenset({"hardswish", "swish", "sigmoid", "gelu", "tanh", "hardsigmoid"})
_CLAMPS = frozenset({"Relu", "Clip", "LeakyRelu"})
_HARD = frozenset({"HardSwish", "HardSigmoid"})


def steps(kind: str, config: KernelConfig, staged: str = "") -> Iterator[str]:
    """Names of the terms of one kernel, ``launch`` first; none for one that only looks at data another way.

    ``staged`` names the runtime that computes in stages of its own, if it is one of these:

    - ``PROCESSOR``, TFLite's kernels: it writes out what a convolution reads patch by patch (``im2col``), and
      multiplies matrices (``gemm``) that it packs (``gemm_in``) and writes (``gemm_out``: scaled anew, where they are
      integers); convolutions in groups run in a plain loop of one thread (its ``conv.cc`` left them to the reference
      kernel; RegNets and ResNeXts gain nothing by threads); depthwise ones of integers are quick where they are 3x3
      over channels in eights (others are ``ragged``); no activation but a clamp is fused; a batch normalisation by
      itself is a product and a sum.
    - ``FLOATS``, the same in single precision: patches are packed the slower, the fewer channels lie side by side
      (``gemm_patches``), depthwise convolutions pay for what they write (``depthwise_out``), and pads are copied in
      rows (``pad_rows``; those of integers, element by element).
    - ``DELEGATE``, TFLite's kernels for GPUs: a kernel that does nothing takes a while by the GPU's own clock too
      (``start``; ``launch`` lies between kernels); each work item sums one group of elements in a loop, which takes its
      time (``wait``) where there are too few items to fill the GPU; some convolutions are Winograd's (``winograd``).
    - ``TRAFFIC``, PyTorch's kernels on GPUs: tensor cores multiply in less time than memory takes to bring what they
      multiply, so that what is read and written is paid for beside the work (``conv_traffic``, ``depthwise_traffic``,
      ``gemm_traffic``, ``attention_traffic``, whose scores stay inside), and the weights once a batch
      (``conv_weights``, ``gemm_weights``).
    - ``CARD``, the same where each operator is a kernel: all that are no products share one speed, that of the memory
      (``stream``), whatever they compute; moving axes, pooling and resizing cost something beside it.
    """
    if kind == "reshape":
        return
    yield LAUNCH
    if staged == DELEGATE:
        yield START
    if staged == CARD and not isinstance(config, ConvConfig | GemmConfig | AttentionConfig):
        yield STREAM
        if isinstance(config, _STREAMED) or (isinstance(config, PoolConfig) and _whole(config)):
            return
    if isinstance(config, ConvConfig):
        yield from _convolution(kind, config, staged)
    elif isinstance(config, GemmConfig):
        yield "matmul" if not config.weights else "linear" if config.m > 1 else "linear_vector"
        if staged in _TRAFFIC:
            yield from ("gemm_traffic", "gemm_weights")
    elif isinstance(config, AttentionConfig):
        yield "attention"
        if staged in _TRAFFIC:
            yield "attention_traffic"
    elif isinstance(config, BroadcastConfig):
        yield _elementwise(config)
    elif isinstance(config, RowsConfig):
        if config.op.startswith("Batch"):
            yield from (LAUNCH, "bn", "bn") if staged in _TFLITE else (LAUNCH, "bn")
        else:
            yield "softmax" if "Softmax" in config.op else "norm"
    elif isinstance(config, PoolConfig):
        yield "mean" if _whole(config) else "maxpool" if config.op.startswith("Max") else "avgpool"
    elif isinstance(config, CopyConfig) and config.op == "Pad" and staged in _TFLITE:
        yield "pad" if staged == PROCESSOR else "pad_rows"
    else:
        yield from (name for kind_of, name in _SIMPLE.items() if isinstance(config, kind_of))


def _whole(c: PoolConfig) -> bool:
    return c.op.startswith("Global") or prod(c.out) == 1


def _convolution(kind: str, c: ConvConfig, staged: str) -> Iterator[str]:
    area, inner = prod(c.kernel), c.cin // c.group
    vector = prod(c.out) == 1 and prod(c.size) == 1
    slow = _SLOW.intersection(c.fused)
    if kind == "convtrans":
        yield "convtrans"
    elif vector:
        yield "conv_vector"
    elif staged in _TFLITE:
        yield from _on_a_processor(c, staged)
    elif c.group > 1:
        yield "dwconv" if inner == 1 else "grouped"
    else:
        squares = staged == DELEGATE and _winograd(c)
        yield "winograd" if squares else "conv1x1" if area == 1 else "stem" if c.cin <= 4 else "conv"
        if staged == DELEGATE:
            yield "wait"
    if staged in _TRAFFIC:
        yield from ("depthwise_traffic" if c.group > 1 and inner == 1 else "conv_traffic", "conv_weights")
    if staged in _TFLITE and not vector and c.group == 1 and (area > 1 or max(c.strides) > 1):
        yield "im2col"
    if slow and staged in _TFLITE:
        yield LAUNCH
        yield "fused_hardswish" if "hardswish" in slow else "fused_transcendental"
    elif slow:
        yield "fused_activation"
    if "sum" in c.fused:
        yield "fused_sum"


def _on_a_processor(c: ConvConfig, staged: str) -> Iterator[str]:
    if c.group > 1:
        yield "depthwise" if c.group == c.cin else "grouped_loop"
        if c.group == c.cin and staged == FLOATS:
            yield "depthwise_out"
    else:
        patches = staged == FLOATS and prod(c.kernel) > 1
        yield from ("gemm", "gemm_patches" if patches else "gemm_in", "gemm_out")


def _elementwise(c: BroadcastConfig) -> str:
    if len(c.present) > 1:
        return "binary" if sum(all(p) for p in c.present) > 1 else "scale"
    return "clamp" if c.op in _CLAMPS else "hardswish" if c.op in _HARD else "transcendental"


_SIMPLE: Mapping[type, str] = MappingProxyType(
    {
        RecurrentConfig: "recurrent",
        ReduceConfig: "reduce",
        TransposeConfig: "transpose",
        PiecesConfig: "concat",
        CopyConfig: "copy",
        ReorderConfig: "reorder",
        ResizeConfig: "resize",
    }
)


def rows(kind: str, config: KernelConfig, staged: str = "") -> list[tuple[str, tuple[float, ...]]]:
    """Terms of one kernel with their rows, as ``Term.row`` says."""
    work = KINDS[kind].work(config) if staged == CARD else None
    return [(name, TERMS[name].row(work if name == STREAM else config)) for name in steps(kind, config, staged)]
