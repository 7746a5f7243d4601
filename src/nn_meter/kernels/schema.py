"""What a kernel kind declares, and how kernels of it become rows of numbers: the feature schema ``onnx-2``.

A kind names its columns; a row holds them in the order that a predictor asks for. Every kind has more columns, which
follow from the work that its configs do and from what surrounds the kernel:

``flops``, ``bytes``
    what it computes, and what it reads and writes, weights included;
``resident_bytes``
    what a whole inference touches: all weights once, and twice what the largest kernel moves beside them, since
    activations share their memory; no more than it reads and writes in all. Between two uses of a weight that much has
    passed through the caches, so that the same kernel takes longer in a large model;
``inference_bytes``, ``kernels``
    what a whole inference reads and writes, ``LARGE`` at most, and of how many kernels it is: these three rounded to a
    quarter of an octave;
``recent_1_bytes``, ``recent_2_bytes``, ``recent_4_bytes``
    what the kernel before, the two and the four before read and wrote, rounded to half an octave: where it was little,
    what they left is still in the nearest cache. Before the first kernel of an inference the last of another ran;
``roofline_ms``
    the least that the device needs (Williams et al., CACM 2009), which regressors are relative to::

        1000 * max(flops / flops_per_s, bytes / bytes_per_s) + overhead_ms

A category is a name. Its codes belong to whoever was trained on them, so that another operator in a kind renumbers
nothing that was learned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations
from types import MappingProxyType
from typing import Any, Literal, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from nn_meter.ir import Attr, Graph, Tensor
from nn_meter.ir.frozen import quickly_made
from nn_meter.kernels.partition import Shape

SCHEMA = "onnx-2"
ROOFLINE = "roofline_ms"
FOOTPRINT = "footprint_bytes"
"""``inference_bytes`` without a limit, as bundles before 2026-11-28 have it."""

LARGE = 2.0**26
"""Few networks that are drawn read and write more: beyond, regressors would know them by their largest kernels, and
take additions of small ones for slow."""

_RECENT = (1, 2, 4)
AROUND = ("resident_bytes", "inference_bytes", "kernels", *(f"recent_{count}_bytes" for count in _RECENT))
"""Columns that say what surrounds a kernel."""

UNKNOWN = -1
"""Code of a name that has none."""

ITEM_BYTES: Mapping[str, float] = MappingProxyType(
    {
        "complex128": 16, "float64": 8, "int64": 8, "uint64": 8, "complex64": 8, "float32": 4, "int32": 4, "uint32": 4,
        "float16": 2, "bfloat16": 2, "int16": 2, "uint16": 2, "int8": 1, "uint8": 1, "bool": 1,
        "float8e4m3fn": 1, "float8e4m3fnuz": 1, "float8e5m2": 1, "float8e5m2fnuz": 1,
        "int4": 0.5, "uint4": 0.5, "float4e2m1": 0.5,
    }
)  # fmt: skip

Row = tuple[float, ...]
Bound = Literal["compute", "memory", "call"]
Codes = Mapping[str, Mapping[str, int]]
"""Of each category column: name to code."""


def together(a: str, b: str) -> str:
    """Two category columns, or a name of each, as one."""
    return f"{a} with {b}"


def item_bytes(dtype: str) -> float:
    """Bytes of one element; 4 for what is not in the table."""
    return ITEM_BYTES.get(dtype, 4)


@quickly_made
@dataclass(frozen=True, slots=True)
class Operator:
    """One executed operator: what a config is read from.

    ``inputs`` are tensors in ONNX's order, ``None`` for an optional one left out. ``fused`` names what the
    runtime put into it beyond its own operator: ``relu``, ``sum`` ...; ``last`` says that it computes a result of the
    model, ``over`` that another operator computes what it reads first and nobody else reads that: runtimes let some
    operators write over it.
    """

    op_type: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    fused: tuple[str, ...] = ()
    layout: str = ""
    last: bool = False
    over: bool = False

    def shape(self, index: int) -> Shape:
        """Shape of an input; empty where it is left out."""
        tensor = self.inputs[index] if index < len(self.inputs) else None
        return tensor.shape if tensor is not None else ()

    def ints(self, name: str, default: Sequence[int]) -> Shape:
        """An attribute of integers."""
        value = self.attrs.get(name)
        if not isinstance(value, tuple) or not value:
            return tuple(default)
        return tuple([v if isinstance(v, int) else int(v) for v in value])

    def axis(self, rank: int, default: int) -> int:
        """The attribute ``axis``, counted from the front."""
        axis = self.int("axis", default)
        return axis + rank if axis < 0 else axis

    def int(self, name: str, default: int) -> int:
        """An attribute that is one integer."""
        value = self.attrs.get(name, default)
        return value if isinstance(value, int) else default

    def value(self, index: SupportsIndex) -> tuple[float, ...]:
        """The values of a small constant input; empty where it is none, or they are not known."""
        tensor = self.inputs[index] if index.__index__() < len(self.inputs) else None
        return tuple(map(float, tensor.value)) if tensor is not None and tensor.value is not None else ()

    @property
    def data(self) -> tuple[Tensor, ...]:
        """Inputs that are present and not empty."""
        return tuple(t for t in self.inputs if t is not None)

    @property
    def dtype(self) -> str:
        """Element type of the first input, else of the output; empty where there are sequences alone."""
        return next((t.dtype for t in (*self.inputs, *self.outputs) if t is not None and t.dtype), "")


@quickly_made
@dataclass(frozen=True, slots=True)
class Work:
    """What a kernel does: floating-point operations, and bytes that it reads and writes; ``weight_bytes`` of those that
    it reads are constants."""

    flops: float
    read_bytes: float
    written_bytes: float
    weight_bytes: float = 0.0

    @property
    def bytes(self) -> float:
        """Bytes read and written."""
        return self.read_bytes + self.written_bytes


@dataclass(frozen=True, slots=True)
class Speeds:
    """What a device does at best: floating-point operations and bytes a second, and the cost of one call.

    Of a GPU whose data sheet is known also how many ``processors`` it has (streaming multiprocessors, compute units),
    and how much its last cache holds.
    """

    flops_per_s: float
    bytes_per_s: float
    overhead_ms: float
    processors: int = 0
    cache_bytes: float = 0.0

    def bound(self, work: Work) -> Bound:
        """What a kernel waits for: arithmetic, memory, or, where both take less, the call itself."""
        compute_ms, memory_ms = 1e3 * work.flops / self.flops_per_s, 1e3 * work.bytes / self.bytes_per_s
        if max(compute_ms, memory_ms) < self.overhead_ms:
            return "call"
        return "compute" if compute_ms > memory_ms else "memory"

    def roofline_ms(self, work: Work) -> float:
        """Lower bound of a kernel's latency."""
        return 1e3 * max(work.flops / self.flops_per_s, work.bytes / self.bytes_per_s) + self.overhead_ms


@dataclass(frozen=True, slots=True)
class Column:
    """A number, or a flag, of a config."""

    name: str
    value: Callable[[Any], float]


@dataclass(frozen=True, slots=True)
class OnDevice:
    """A number of a config on a device whose data sheet is known: how evenly its processors are busy ..."""

    name: str
    value: Callable[[Any, Speeds], float]


@dataclass(frozen=True, slots=True)
class Category:
    """A name of a config: its operator, its layout ..."""

    name: str
    value: Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class KernelKind:
    """A kind of kernel.

    ``operators`` become one; ``read`` gives the config of an executed one. Of the kinds that read one operator all but
    one say which configs they take: ``accepts``. ``columns`` and ``work`` are functions of the config. ``build`` writes
    a graph of one kernel of a config, ``space`` draws a plausible config; both are ``None`` where only a runtime makes
    such kernels, so that they are measured in networks alone. One that is ``quantised`` computes otherwise than in
    floats: it says nothing of how fast a device does those. Bundles from before there were such kinds, or one that came
    ``late``, read its operators as ``other``.
    """

    name: str
    operators: tuple[str, ...]
    config: type
    read: Callable[[Operator], Any]
    columns: tuple[Column | Category | OnDevice, ...]
    work: Callable[[Any], Work]
    build: Callable[[Any], Graph] | None = None
    space: Callable[[np.random.Generator], Any] | None = None
    accepts: Callable[[Any], bool] | None = None
    quantised: bool = False
    late: bool = False

    @property
    def may_be_other(self) -> bool:
        """Whether there are bundles that read its operators as ``other``."""
        return self.quantised or self.late

    @property
    def schema(self) -> tuple[str, ...]:
        """Names of all columns that every device has."""
        own = (column.name for column in self.columns if not isinstance(column, OnDevice))
        return ("flops", "bytes", *own, *AROUND, ROOFLINE)

    def schema_on(self, speeds: Speeds) -> tuple[str, ...]:
        """Names of all columns on such a device: where its processors are known, also those that depend on them."""
        more = (column.name for column in self.columns if isinstance(column, OnDevice) and speeds.processors)
        return (*self.schema, *more)

    def names(self, config: Any) -> dict[str, str]:
        """The category columns of a config: column to name."""
        return {column.name: column.value(config) for column in self.columns if isinstance(column, Category)}

    def counted(self, configs: Iterable[Any]) -> dict[str, dict[str, int]]:
        """Of each category column, and of each two of them as ``together`` writes them, the names among ``configs`` in
        alphabetical order and how often they occur."""
        taken = [self.names(config) for config in configs]
        columns = [column.name for column in self.columns if isinstance(column, Category)]
        single = {column: Counter(names[column] for names in taken) for column in columns}
        pairs = {
            together(a, b): Counter(together(names[a], names[b]) for names in taken)
            for a, b in combinations(columns, 2)
        }
        return {column: dict(sorted(count.items())) for column, count in (single | pairs).items()}


@quickly_made
@dataclass(frozen=True, slots=True, eq=False)
class Half:
    """Of a kernel what follows from its config alone: the bytes that it moves, those of them that are weights, and
    those columns."""

    kind: str
    config: Any
    moved_bytes: float
    weight_bytes: float
    columns: NDArray[np.float64]


class Encoder:
    """Makes rows of a kind's configs.

    Args:
        kind: whose configs these are.
        columns: what a row holds, in this order; names of ``kind.schema_on(speeds)``.
        codes: of each category column; a name without one becomes ``UNKNOWN``.
        speeds: of the device.
        work: what a kernel does, by default as the kind declares it.

    Raises:
        KeyError: ``kind`` has no such column, or a category column has no codes.
    """

    __slots__ = ("_half_known", "_kind", "_own", "_places", "_speeds", "_work")
    _REMEMBERED = 100_000

    def __init__(
        self,
        kind: KernelKind,
        columns: Sequence[str],
        codes: Codes,
        speeds: Speeds,
        work: Callable[[Any], Work] | None = None,
    ) -> None:
        declared = {column.name: column for column in kind.columns}
        shared = (FOOTPRINT, *AROUND, "flops", "bytes", ROOFLINE)
        asked = [name for name in columns if name not in shared]
        self._kind = kind.name
        self._work = work or kind.work
        self._own = tuple(_number(declared[name], codes, speeds) for name in asked)
        places = {name: place for place, name in enumerate((*shared, *asked))}
        self._places = [places[name] for name in columns]
        self._speeds = speeds
        self._half_known: dict[Any, Half] = {}

    def half(self, config: Any) -> Half:
        """What follows from the config alone; the same for equal configs, as long as it is remembered."""
        known = self._half_known.get(config)
        if known is None:
            if len(self._half_known) >= self._REMEMBERED:
                self._half_known.clear()
            work = self._work(config)
            own = [value(config) for value in self._own]
            columns = np.array([work.flops, work.bytes, self._speeds.roofline_ms(work), *own], np.float64)
            half = Half(self._kind, config, work.bytes, work.weight_bytes, columns)
            known = self._half_known.setdefault(config, half)
        return known

    def bound(self, config: Any) -> Bound:
        """What a kernel of ``config`` waits for on the device."""
        half = self.half(config)
        return self._speeds.bound(Work(float(half.columns[0]), half.moved_bytes, 0.0))

    def rows(self, halves: Sequence[Half], around: Sequence[int]) -> NDArray[np.float64]:
        """The rows of kernels that are surrounded so, as ``surroundings`` says it: float64 of shape (n, columns)."""
        own = np.concatenate([half.columns for half in halves]).reshape(len(halves), -1)
        rows: NDArray[np.float64] = np.concatenate([_around(around), own], axis=1)[:, self._places]
        return rows


def _number(column: Column | Category | OnDevice, codes: Codes, speeds: Speeds) -> Callable[[Any], float]:
    if isinstance(column, Column):
        return column.value
    if isinstance(column, OnDevice):
        on_device = column.value
        return lambda config: on_device(config, speeds)
    name, code = column.value, codes[column.name]
    return lambda config: code.get(name(config), UNKNOWN)


def encode(kernels: Sequence[tuple[Encoder, Any]]) -> list[Row]:
    """A row for each kernel of one inference, given as encoder and config, in the order of execution."""
    if not kernels:
        return []
    halves = [encoder.half(config) for encoder, config in kernels]
    (around,) = surroundings([halves]).tolist()
    rows: list[Row] = [()] * len(kernels)
    places: dict[int, list[int]] = {}
    for place, (encoder, _) in enumerate(kernels):
        places.setdefault(id(encoder), []).append(place)
    for own in places.values():
        found = kernels[own[0]][0].rows([halves[place] for place in own], [around[place] for place in own])
        for place, row in zip(own, found.tolist(), strict=True):
            rows[place] = tuple(row)
    return rows


def surroundings(inferences: Sequence[Sequence[Half]]) -> NDArray[np.int64]:
    """What surrounds each kernel, as one number: inferences of as many kernels each, shape (n, kernels), in the order
    of execution.

    Inferences follow each other: before the first kernel the last one ran. Sizes are rounded, so that kernels whose
    surroundings are alike share a row.
    """
    moved = np.array([[half.moved_bytes for half in halves] for halves in inferences], np.float64)
    weights = np.array([[half.weight_bytes for half in halves] for halves in inferences], np.float64)
    count, most = moved.shape[1], _RECENT[-1]
    touched = weights.sum(axis=1) + 2 * (moved - weights).max(axis=1)
    whole = np.array([np.full(len(moved), count, np.float64), touched, moved.sum(axis=1)])
    kernels, resident, footprint = _code(np.maximum(whole, 1.0), _WHOLE)
    turned = moved[:, np.arange(-most, count) % count]
    so_far = np.concatenate([np.zeros((len(moved), 1)), turned.cumsum(axis=1)], axis=1)
    passed = np.array([so_far[:, most:-1] - so_far[:, most - back : -1 - back] for back in _RECENT])
    code: NDArray[np.int64] = ((kernels * _CODES + np.minimum(footprint, resident)) * _CODES + footprint)[:, None]
    for recent in _code(passed, _PASSED):
        code = code * _CODES + recent
    return code


_WHOLE, _PASSED = 4, 2
"""Parts of an octave to which what is said of a whole inference, and of the kernels before, is rounded."""

_CODES = 1 << 10
"""Of a size: parts of an octave, counted from below the least, and 0 for none. Six fit into one number."""


def _code(sizes: NDArray[np.float64], parts: int) -> NDArray[np.int64]:
    with np.errstate(divide="ignore"):
        found = np.where(sizes > 0, np.rint(parts * np.log2(sizes)) + _CODES // 2, 0)
    return found.clip(0, _CODES - 1).astype(np.int64)


def _around(codes: Sequence[int]) -> NDArray[np.float64]:
    """The columns ``FOOTPRINT`` and ``AROUND``, shape (n, 7)."""
    found, left = [], np.array(codes, np.int64)
    for parts in (*(_PASSED,) * len(_RECENT), _WHOLE, _WHOLE, _WHOLE):
        left, code = np.divmod(left, _CODES)
        found.append(_sizes(parts)[code])
    *recent, footprint, resident, kernels = found
    return np.stack([footprint, resident, np.minimum(footprint, LARGE), kernels, *reversed(recent)], axis=1)


@cache
def _sizes(parts: int) -> NDArray[np.float64]:
    """What each code stands for."""
    return np.array([0.0, *(2.0 ** ((code - _CODES // 2) / parts) for code in range(1, _CODES))])
