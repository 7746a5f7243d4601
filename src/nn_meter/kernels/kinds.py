"""Kernel kinds of runtimes that execute ONNX operators: one declaration each, used to train and to predict.

A kind has a name, the operators that it reads, a typed config, and ``build``, which writes a graph of one
kernel of that config. The keystone, tested for every kind: fusing ``build(config)`` gives that kind and config
back. Where the config says that an operand lies in blocks of channels, a pooling of single elements before it
puts it there. To add a kind, add its config class (or take one that fits) and a row to ``KINDS``, and its
columns to ``kernels.columns``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from math import prod
from types import MappingProxyType

from nn_meter.ir import Attr, Graph, GraphBuilder, Tensor
from nn_meter.kernels.partition import KernelConfig, Shape


@dataclass(frozen=True, slots=True)
class Operator:
    """One executed operator: what a config is read from.

    ``inputs`` are tensors in ONNX's order, ``None`` for an optional one left out. ``fused`` names what the
    runtime put into it beyond its own operator: ``relu``, ``sum`` ...
    """

    op_type: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    fused: tuple[str, ...] = ()
    layout: str = ""

    def shape(self, index: int) -> Shape:
        """Shape of an input."""
        tensor = self.inputs[index]
        return tensor.shape if tensor is not None else ()

    def ints(self, name: str, default: Sequence[int]) -> Shape:
        """An attribute of integers."""
        value = self.attrs.get(name)
        return tuple(int(v) for v in value) if isinstance(value, tuple) and value else tuple(default)

    def int(self, name: str, default: int) -> int:
        """An attribute that is one integer."""
        value = self.attrs.get(name, default)
        return value if isinstance(value, int) else default

    @property
    def data(self) -> tuple[Tensor, ...]:
        """Inputs that are present and not empty."""
        return tuple(t for t in self.inputs if t is not None)

    @property
    def dtype(self) -> str:
        """Element type of the first input, else of the output."""
        return self.data[0].dtype if self.data else self.outputs[0].dtype


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def collapse(shapes: Sequence[Shape], out: Shape) -> tuple[Shape, tuple[tuple[bool, ...], ...]]:
    """Broadcasting in its shortest form.

    Returns the output's dimensions, neighbours merged where every operand treats them alike, and per operand
    whether it has each of them (else it is repeated along it).
    """
    padded = [(1,) * (len(out) - len(s)) + tuple(s) for s in shapes]
    columns = [(size, tuple(p[i] == size for p in padded)) for i, size in enumerate(out) if size != 1]
    merged = [
        (prod(c[0] for c in run), has)
        for has, group in groupby(columns, key=lambda c: c[1])
        for run in [list(group)]
    ]
    dims = tuple(m[0] for m in merged) or (1,)
    present = tuple(tuple(m[1][k] for m in merged) or (True,) for k in range(len(shapes)))
    return dims, present


@dataclass(frozen=True, slots=True)
class ConvConfig:
    """A convolution over 1 to 3 spatial dimensions. In layout ``nchwc`` channels are padded to whole blocks;
    ``nchw>nchwc`` reads a plain image and writes blocks."""

    n: int
    cin: int
    size: Shape
    cout: int
    out: Shape
    kernel: Shape
    strides: Shape
    dilations: Shape
    group: int
    fused: tuple[str, ...]
    layout: str
    dtype: str

    def describe(self) -> str:
        """Sizes in words."""
        text = f"{self.n}x{self.cin}x{_times(self.size)} -> {self.cout}x{_times(self.out)}"
        text += f", kernel {_times(self.kernel)}"
        text += f", stride {_times(self.strides)}" if set(self.strides) != {1} else ""
        text += f", dilation {_times(self.dilations)}" if set(self.dilations) != {1} else ""
        return text + (f", {self.group} groups" if self.group > 1 else "")

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return self.n * self.cout * prod(self.out) * (self.cin // self.group) * prod(self.kernel)


@dataclass(frozen=True, slots=True)
class GemmConfig:
    """``batch`` products of (m, k) and (k, n). ``weights`` says that the second is constant, so that the runtime
    may pack it beforehand; ``rows`` that it is shared by the batch; ``trans`` which operands lie transposed."""

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


@dataclass(frozen=True, slots=True)
class BroadcastConfig:
    """An elementwise operator over ``dims``; ``present`` says per operand along which of them it varies."""

    op: str
    dims: Shape
    present: tuple[tuple[bool, ...], ...]
    dtype: str

    def describe(self) -> str:
        """Sizes in words."""
        operands = (_times([d for d, has in zip(self.dims, p, strict=True) if has]) for p in self.present)
        return f"{self.op} {' , '.join(operands)} -> {_times(self.dims)}"

    @property
    def size(self) -> int:
        """Output elements."""
        return prod(self.dims)


@dataclass(frozen=True, slots=True)
class RowsConfig:
    """``rows`` independent rows of ``length`` elements: softmax, normalisations over the last axes."""

    op: str
    rows: int
    length: int
    inputs: int
    dtype: str

    def describe(self) -> str:
        """Sizes in words."""
        return f"{self.rows} rows of {self.length}"


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """A pooling window, or global pooling where the kernel is the image."""

    op: str
    n: int
    c: int
    size: Shape
    out: Shape
    kernel: Shape
    strides: Shape
    layout: str
    dtype: str

    def describe(self) -> str:
        """Sizes in words."""
        return f"{self.n}x{self.c}x{_times(self.size)} -> {_times(self.out)}, kernel {_times(self.kernel)}"


@dataclass(frozen=True, slots=True)
class ReduceConfig:
    """A reduction; ``dims`` alternate between kept and reduced, the first kept (1 where it is not)."""

    op: str
    dims: Shape
    dtype: str

    def describe(self) -> str:
        """Sizes in words."""
        return "reduce " + " ".join(f"[{d}]" if i % 2 else str(d) for i, d in enumerate(self.dims))


@dataclass(frozen=True, slots=True)
class TransposeConfig:
    """A permutation of axes, those that stay together merged; no sizes of 1."""

    dims: Shape
    perm: Shape
    dtype: str

    def describe(self) -> str:
        """Sizes in words."""
        return f"{_times(self.dims)} by {self.perm}"


@dataclass(frozen=True, slots=True)
class PiecesConfig:
    """Concat and split: ``outer`` times, ``pieces`` of so many contiguous elements."""

    op: str
    outer: int
    pieces: Shape
    dtype: str

    def describe(self) -> str:
        """Sizes in words."""
        return f"{self.outer} x ({' + '.join(map(str, self.pieces[:6]))}{' ...' if len(self.pieces) > 6 else ''})"


@dataclass(frozen=True, slots=True)
class CopyConfig:
    """Data that moves: ``out`` elements written in runs of ``run`` contiguous ones, from ``size`` elements."""

    op: str
    size: int
    out: int
    run: int
    dtype: str

    def describe(self) -> str:
        """Sizes in words."""
        return f"{self.op} {self.size} -> {self.out} elements, runs of {self.run}"


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


@dataclass(frozen=True, slots=True)
class ResizeConfig:
    """Interpolation from ``size`` to ``out``."""

    mode: str
    n: int
    c: int
    size: Shape
    out: Shape
    layout: str
    dtype: str

    def describe(self) -> str:
        """Sizes in words."""
        return f"{self.mode} {self.n}x{self.c}x{_times(self.size)} -> {_times(self.out)}"


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


@dataclass(frozen=True, slots=True)
class OtherConfig:
    """An operator without a kind of its own: what goes in and out."""

    op: str
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    dtype: str

    def describe(self) -> str:
        """Sizes in words."""
        return f"{self.op} {' , '.join(map(_times, self.inputs))} -> {' , '.join(map(_times, self.outputs))}"


# --- reading configs ---------------------------------------------------------------------------------------


def read_conv(op: Operator) -> ConvConfig:
    """Config of Conv, FusedConv, ConvTranspose in any layout."""
    x, w, y = op.shape(0), op.shape(1), op.outputs[0].shape
    spatial = len(x) - 2
    kernel = op.ints("kernel_shape", w[2:])
    return ConvConfig(
        x[0],
        x[1],
        x[2:],
        y[1],
        y[2:],
        kernel,
        op.ints("strides", (1,) * spatial),
        op.ints("dilations", (1,) * spatial),
        op.int("group", 1),
        op.fused,
        op.layout or "nchw",
        op.dtype,
    )


def read_gemm(op: Operator) -> GemmConfig:
    """Config of Gemm, FusedGemm, MatMul, FusedMatMul."""
    a, b = op.shape(0), op.shape(1)
    trans_a, trans_b = bool(op.int("transA", 0)), bool(op.int("transB", 0))
    if len(a) == 1:
        a = (1, *a)
    if len(b) == 1:
        b = (*b, 1)
    m, k = (a[-1], a[-2]) if trans_a else (a[-2], a[-1])
    n = b[-2] if trans_b else b[-1]
    batch = prod(a[:-2])
    if prod(b[:-2]) == 1 and not trans_a:
        # one right operand for the whole batch: a single product of more rows
        m, batch = m * batch, 1
    else:
        batch = max(batch, prod(op.outputs[0].shape[:-2]))
    second = op.inputs[1]
    weights = second is not None and second.const
    return GemmConfig(batch, m, k, n, weights, (trans_a, trans_b), op.fused, op.dtype)


def read_broadcast(op: Operator) -> BroadcastConfig:
    """Config of elementwise operators of any number of operands."""
    out = op.outputs[0].shape
    operands = [t.shape for t in op.data]
    if op.op_type in _UNARY:
        operands = operands[:1]
    dims, present = collapse(operands, out)
    return BroadcastConfig(op.op_type, dims, present, op.dtype)


def _axis(op: Operator, rank: int, default: int) -> int:
    axis = op.int("axis", default)
    return axis + rank if axis < 0 else axis


def read_last_axes(op: Operator) -> RowsConfig:
    """Config of LayerNormalization and its kin, over all axes from ``axis`` on."""
    shape = op.shape(0)
    axis = _axis(op, len(shape), -1)
    return RowsConfig(op.op_type, prod(shape[:axis]), prod(shape[axis:]), len(op.data), op.dtype)


def read_softmax(op: Operator) -> RowsConfig | ReduceConfig:
    """Config of Softmax and LogSoftmax along one axis."""
    shape = op.shape(0)
    axis = _axis(op, len(shape), -1)
    if prod(shape[axis + 1 :]) == 1:
        return RowsConfig(op.op_type, prod(shape[:axis]), shape[axis], 1, op.dtype)
    return RowsConfig(f"{op.op_type} strided", prod(shape) // shape[axis], shape[axis], 1, op.dtype)


def read_channel_norm(op: Operator) -> RowsConfig:
    """Config of InstanceNormalization and GroupNormalization: a row per image and channel or group."""
    shape = op.shape(0)
    rows = shape[0] * (op.int("num_groups", op.int("groups", shape[1])))
    return RowsConfig(op.op_type, rows, prod(shape) // max(rows, 1), len(op.data), op.dtype)


def read_batch_norm(op: Operator) -> RowsConfig:
    """Config of BatchNormalization at inference: scale and shift per channel."""
    shape = op.shape(0)
    rows = prod(shape[:2])
    return RowsConfig(op.op_type, rows, prod(shape) // max(rows, 1), 3, op.dtype)


def read_pool(op: Operator) -> PoolConfig:
    """Config of windowed and global pooling."""
    x, y = op.shape(0), op.outputs[0].shape
    whole = op.op_type.startswith("Global")
    return PoolConfig(
        op.op_type,
        x[0],
        x[1],
        x[2:],
        y[2:],
        x[2:] if whole else op.ints("kernel_shape", (1,) * (len(x) - 2)),
        (1,) * (len(x) - 2) if whole else op.ints("strides", (1,) * (len(x) - 2)),
        op.layout or "nchw",
        op.dtype,
    )


def _axes(op: Operator, rank: int) -> set[int]:
    given: Iterable[int | float] = op.ints("axes", ())
    if len(op.inputs) > 1 and (axes := op.inputs[1]) is not None and axes.value is not None:
        given = axes.value
    found = {int(a) % rank for a in given} if rank else set()
    return found or set(range(rank))


def read_reduce(op: Operator) -> ReduceConfig:
    """Config of Reduce*, ArgMax, ArgMin."""
    shape = op.shape(0)
    axes = {_axis(op, len(shape), 0)} if op.op_type.startswith("Arg") else _axes(op, len(shape))
    runs: list[int] = [1]
    reduced = False
    for i, size in enumerate(shape):
        if size == 1:
            continue
        if (i in axes) != reduced:
            runs.append(1)
            reduced = not reduced
        runs[-1] *= size
    return ReduceConfig(op.op_type, tuple(runs), op.dtype)


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
    return TransposeConfig(
        tuple(by_start[s] for s in starts) or (1,),
        tuple(starts.index(g[0]) for g in groups) or (0,),
        op.dtype,
    )


def _next_axis(axis: int, shape: Shape) -> int:
    """The next axis whose size is not 1."""
    return next((a for a in range(axis + 1, len(shape)) if shape[a] != 1), -1)


def read_concat(op: Operator) -> PiecesConfig:
    """Config of Concat."""
    out = op.outputs[0].shape
    axis = _axis(op, len(out), 0)
    return PiecesConfig(op.op_type, prod(out[:axis]), tuple(prod(t.shape[axis:]) for t in op.data), op.dtype)


def read_split(op: Operator) -> PiecesConfig:
    """Config of Split."""
    axis = _axis(op, len(op.shape(0)), 0)
    return PiecesConfig(
        op.op_type, prod(op.shape(0)[:axis]), tuple(prod(t.shape[axis:]) for t in op.outputs), op.dtype
    )


def read_copy(op: Operator) -> CopyConfig:
    """Config of Slice, Pad, Expand, Tile, DepthToSpace ...: runs are the axes at the end that stay whole."""
    x, y = op.shape(0), op.outputs[0].shape
    run = 1
    for a, b in zip(reversed(x), reversed(y), strict=False):
        run *= min(a, b)
        if a != b:
            break
    return CopyConfig(op.op_type, prod(x), prod(y), run, op.dtype)


def read_gather(op: Operator) -> CopyConfig:
    """Config of Gather: runs are the elements behind the axis."""
    x = op.shape(0)
    axis = _axis(op, len(x), 0)
    return CopyConfig(op.op_type, prod(x), prod(op.outputs[0].shape), prod(x[axis + 1 :]), op.dtype)


def read_view(op: Operator) -> CopyConfig:
    """Config of Reshape and its kin, which move nothing."""
    size = prod(op.shape(0))
    return CopyConfig("Reshape", size, size, size, op.dtype)


def read_reorder(op: Operator) -> ReorderConfig:
    """Config of a change of layout."""
    x, y = op.shape(0), op.outputs[0].shape
    last = bool(op.int("channels_last", 0))
    plain = y if op.op_type == "ReorderOutput" else x
    channels = plain[-1] if last else plain[1]
    return ReorderConfig(
        op.op_type, plain[0], channels, prod(plain) // max(plain[0] * channels, 1), last, op.dtype
    )


def read_resize(op: Operator) -> ResizeConfig:
    """Config of Resize and Upsample."""
    x, y = op.shape(0), op.outputs[0].shape
    mode = op.attrs.get("mode", "nearest")
    return ResizeConfig(
        str(mode), x[0], x[1] if len(x) > 1 else 1, x[2:], y[2:], op.layout or "nchw", op.dtype
    )


def read_recurrent(op: Operator) -> RecurrentConfig:
    """Config of LSTM, GRU, RNN."""
    x, w = op.shape(0), op.shape(1)
    return RecurrentConfig(
        op.op_type, x[0], x[1], x[2], op.int("hidden_size", op.shape(2)[-1]), w[0], op.dtype
    )


def read_attention(op: Operator) -> AttentionConfig:
    """Config of MultiHeadAttention, Attention, GroupQueryAttention over (batch, sequence, hidden) or with heads."""
    q = op.shape(0)
    k = op.shape(1) if len(op.inputs) > 1 and op.inputs[1] is not None else q
    heads = op.int("num_heads", op.int("q_num_heads", q[1] if len(q) == 4 else 1))
    if len(q) == 4:
        return AttentionConfig(op.op_type, q[0], q[1], q[2], k[2], q[3], op.dtype)
    return AttentionConfig(op.op_type, q[0], heads, q[1], k[1], q[2] // max(heads, 1), op.dtype)


def read_other(op: Operator) -> OtherConfig:
    """Config of an operator that has no kind."""
    return OtherConfig(
        op.op_type, tuple(t.shape for t in op.data), tuple(t.shape for t in op.outputs), op.dtype
    )


# --- building one kernel -----------------------------------------------------------------------------------

ACTIVATIONS: Mapping[str, str] = MappingProxyType(
    {
        "Relu": "relu",
        "Clip": "clip",
        "Sigmoid": "sigmoid",
        "Tanh": "tanh",
        "LeakyRelu": "leakyrelu",
        "HardSigmoid": "hardsigmoid",
        "HardSwish": "hardswish",
    }
)
"""Activation operators that runtimes fuse into the kernel before them, and how a config calls them."""


def _activation(b: GraphBuilder, x: str, fused: Sequence[str]) -> str:
    for op_type, name in ACTIVATIONS.items():
        if name in fused:
            if op_type == "Clip":
                return b.op("Clip", x, b.const(0.0, "float32"), b.const(6.0, "float32"))
            return b.op(op_type, x)
    return x


def build_conv(c: ConvConfig) -> Graph:
    """One convolution with what is fused into it."""
    b = GraphBuilder("conv")
    x = b.input((c.n, c.cin, *c.size), c.dtype)
    pads = [
        max(0, (o - 1) * s + d * (k - 1) + 1 - i)
        for o, s, d, k, i in zip(c.out, c.strides, c.dilations, c.kernel, c.size, strict=True)
    ]
    before = tuple(p // 2 for p in pads)
    after = tuple(p - q for p, q in zip(pads, before, strict=True))
    w = b.weight((c.cout, c.cin // c.group, *c.kernel), c.dtype)
    y = b.op(
        "Conv",
        x,
        w,
        b.weight((c.cout,), c.dtype),
        kernel_shape=c.kernel,
        strides=c.strides,
        dilations=c.dilations,
        pads=(*before, *after),
        group=c.group,
    )
    if "sum" in c.fused:
        other = b.input(b.shape(y), c.dtype)
        y = b.op("Add", y, _blocked(b, other) if c.layout != "nchw" else other)
    return b.graph(_activation(b, y, c.fused))


def _blocked(b: GraphBuilder, x: str) -> str:
    """``x`` behind an operator that leaves it in blocks of channels: a pooling of single elements."""
    return b.op("MaxPool", x, kernel_shape=(1,) * (len(b.shape(x)) - 2))


def build_conv_transpose(c: ConvConfig) -> Graph:
    """One transposed convolution."""
    b = GraphBuilder("convtrans")
    x = b.input((c.n, c.cin, *c.size), c.dtype)
    w = b.weight((c.cin, c.cout // c.group, *c.kernel), c.dtype)
    full = [
        (i - 1) * s + d * (k - 1) + 1
        for i, s, d, k in zip(c.size, c.strides, c.dilations, c.kernel, strict=True)
    ]
    pads = [max(0, f - o) for f, o in zip(full, c.out, strict=True)]
    extra = tuple(max(0, o - f) for f, o in zip(full, c.out, strict=True))
    before = tuple(p // 2 for p in pads)
    after = tuple(p - q for p, q in zip(pads, before, strict=True))
    y = b.op(
        "ConvTranspose",
        x,
        w,
        kernel_shape=c.kernel,
        strides=c.strides,
        dilations=c.dilations,
        pads=(*before, *after),
        output_padding=extra,
        group=c.group,
    )
    return b.graph(y)


def build_gemm(c: GemmConfig) -> Graph:
    """A Gemm: two-dimensional, constant right operand, with bias."""
    b = GraphBuilder("gemm")
    x = b.input((c.k, c.m) if c.trans[0] else (c.m, c.k), c.dtype)
    shape = (c.n, c.k) if c.trans[1] else (c.k, c.n)
    w = b.weight(shape, c.dtype) if c.weights else b.input(shape, c.dtype)
    y = b.op("Gemm", x, w, b.weight((c.n,), c.dtype), transA=int(c.trans[0]), transB=int(c.trans[1]))
    return b.graph(_activation(b, y, c.fused))


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


def build_broadcast(c: BroadcastConfig) -> Graph:
    """One elementwise operator."""
    b = GraphBuilder(c.op.lower())
    first = "bool" if c.op == "Where" else c.dtype
    names = [
        b.input([d if has else 1 for d, has in zip(c.dims, p, strict=True)], first if i == 0 else c.dtype)
        for i, p in enumerate(c.present)
    ]
    if c.op == "Cast":
        return b.graph(b.op(c.op, *names, to=6))
    if c.op == "Clip":
        names += [b.const(-1.0, "float32"), b.const(1.0, "float32")]
    domain = "com.microsoft" if c.op in ("QuickGelu", "FastGelu", "BiasGelu") else ""
    return b.graph(b.op(c.op, *names, domain=domain))


def build_rows(c: RowsConfig) -> Graph:
    """One softmax or normalisation."""
    b = GraphBuilder(c.op.lower())
    if c.op in ("InstanceNormalization", "GroupNormalization", "BatchNormalization"):
        x = b.input((1, c.rows, c.length), c.dtype)
        count = 4 if c.op == "BatchNormalization" else 2
        weights = [b.weight((c.rows,), c.dtype) for _ in range(count)]
        if c.op == "GroupNormalization":
            return b.graph(b.op(c.op, x, *weights, num_groups=c.rows))
        return b.graph(b.op(c.op, x, *weights))
    op, _, strided = c.op.partition(" ")
    if strided:
        return b.graph(b.op(op, b.input((c.length, c.rows), c.dtype), axis=0))
    if op == "SkipLayerNormalization":
        x = b.op("Add", *(b.input((1, c.rows, c.length), c.dtype) for _ in range(2)))
        return b.graph(
            b.op("LayerNormalization", x, *(b.weight((c.length,), c.dtype) for _ in range(2)), axis=-1)
        )
    x = b.input((c.rows, c.length), c.dtype)
    if op in ("Softmax", "LogSoftmax"):
        return b.graph(b.op(op, x, axis=-1))
    return b.graph(b.op(op, x, *(b.weight((c.length,), c.dtype) for _ in range(c.inputs - 1)), axis=-1))


def build_pool(c: PoolConfig) -> Graph:
    """One pooling."""
    b = GraphBuilder("pool")
    x = b.input((c.n, c.c, *c.size), c.dtype)
    if c.op.startswith("Global"):
        return b.graph(b.op(c.op, _blocked(b, x) if c.layout != "nchw" else x))
    pads = [
        max(0, (o - 1) * s + k - i) for o, s, k, i in zip(c.out, c.strides, c.kernel, c.size, strict=True)
    ]
    before = tuple(p // 2 for p in pads)
    after = tuple(p - q for p, q in zip(pads, before, strict=True))
    return b.graph(b.op(c.op, x, kernel_shape=c.kernel, strides=c.strides, pads=(*before, *after)))


def build_reduce(c: ReduceConfig) -> Graph:
    """One reduction."""
    b = GraphBuilder("reduce")
    x = b.input(c.dims, c.dtype)
    if c.op.startswith("Arg"):
        return b.graph(b.op(c.op, x, axis=1, keepdims=1))
    axes = tuple(range(1, len(c.dims), 2))
    return b.graph(b.op(c.op, x, b.const(axes), keepdims=1))


def build_transpose(c: TransposeConfig) -> Graph:
    """One transpose."""
    b = GraphBuilder("transpose")
    return b.graph(b.op("Transpose", b.input(c.dims, c.dtype), perm=c.perm))


def build_concat(c: PiecesConfig) -> Graph:
    """One concat."""
    b = GraphBuilder("concat")
    return b.graph(b.op("Concat", *(b.input((c.outer, p), c.dtype) for p in c.pieces), axis=1))


def build_split(c: PiecesConfig) -> Graph:
    """One split."""
    b = GraphBuilder("split")
    x = b.input((c.outer, sum(c.pieces)), c.dtype)
    return b.graph(*b.multi("Split", (x, b.const(c.pieces)), len(c.pieces), axis=1))


def build_gather(c: CopyConfig) -> Graph:
    """One gather of rows."""
    b = GraphBuilder("gather")
    x = b.weight((c.size // c.run, c.run), c.dtype)
    return b.graph(b.op("Gather", x, b.input((c.out // c.run,), "int64"), axis=0))


def build_slice(c: CopyConfig) -> Graph:
    """One slice of the first axis that is cut."""
    b = GraphBuilder("slice")
    outer = c.out // c.run
    width = c.size // outer
    x = b.input((outer, width), c.dtype)
    return b.graph(b.op("Slice", x, b.const((0,)), b.const((c.run,)), b.const((1,))))


def build_view(c: CopyConfig) -> Graph:
    """One reshape between two that have to be executed."""
    b = GraphBuilder("reshape")
    return b.graph(b.op("Reshape", b.input((1, c.size), c.dtype), b.const((c.size,))))


def build_resize(c: ResizeConfig) -> Graph:
    """One resize."""
    b = GraphBuilder("resize")
    x = b.input((c.n, c.c, *c.size), c.dtype)
    if c.layout != "nchw":
        x = _blocked(b, x)
    return b.graph(
        b.op(
            "Resize",
            x,
            "",
            "",
            b.const((c.n, c.c, *c.out)),
            mode=c.mode,
            coordinate_transformation_mode="asymmetric",
        )
    )


def build_recurrent(c: RecurrentConfig) -> Graph:
    """One recurrent layer."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[c.op]
    b = GraphBuilder(c.op.lower())
    x = b.input((c.steps, c.batch, c.input), c.dtype)
    w = b.weight((c.directions, gates * c.hidden, c.input), c.dtype)
    r = b.weight((c.directions, gates * c.hidden, c.hidden), c.dtype)
    direction = "bidirectional" if c.directions == 2 else "forward"
    return b.graph(b.op(c.op, x, w, r, hidden_size=c.hidden, direction=direction))


# --- the table ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KernelKind:
    """A kind of kernel: the operators that become one, how its config is read, how one is built (``None`` where
    only a runtime makes such kernels, so that they are measured in networks alone)."""

    name: str
    operators: tuple[str, ...]
    config: type
    read: Callable[[Operator], KernelConfig]
    build: Callable[..., Graph] | None


_UNARY = (
    "Abs", "Acos", "Asin", "Atan", "BitwiseNot", "Cast", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Elu", "Erf", "Exp",
    "FastGelu", "Floor", "Gelu", "HardSigmoid", "HardSwish", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg",
    "Not", "QuickGelu", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh",
    "Softplus", "Softsign", "Sqrt", "Tan", "Tanh", "ThresholdedRelu",
)  # fmt: skip
_BINARY = (
    "Add", "And", "BiasGelu", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum",
    "Where", "Xor",
)  # fmt: skip
_REDUCE = (
    "ArgMax", "ArgMin", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
)  # fmt: skip

VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
"""Operators that only look at data another way."""

KINDS: Mapping[str, KernelKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            KernelKind("conv", ("Conv", "FusedConv"), ConvConfig, read_conv, build_conv),
            KernelKind("dwconv", (), ConvConfig, read_conv, build_conv),
            KernelKind("conv_nchw", (), ConvConfig, read_conv, build_conv),
            KernelKind("convtrans", ("ConvTranspose",), ConvConfig, read_conv, build_conv_transpose),
            KernelKind("fc", ("Gemm", "FusedGemm"), GemmConfig, read_gemm, build_gemm),
            KernelKind("matmul", ("MatMul", "FusedMatMul"), GemmConfig, read_gemm, build_matmul),
            KernelKind(
                "attention",
                ("Attention", "MultiHeadAttention", "GroupQueryAttention"),
                AttentionConfig,
                read_attention,
                None,
            ),
            KernelKind("unary", _UNARY, BroadcastConfig, read_broadcast, build_broadcast),
            KernelKind("binary", _BINARY, BroadcastConfig, read_broadcast, build_broadcast),
            KernelKind("softmax", ("Softmax", "LogSoftmax"), RowsConfig, read_softmax, build_rows),
            KernelKind(
                "norm",
                (
                    "LayerNormalization",
                    "SimplifiedLayerNormalization",
                    "RMSNormalization",
                    "SkipLayerNormalization",
                    "LpNormalization",
                ),
                RowsConfig,
                read_last_axes,
                build_rows,
            ),
            KernelKind(
                "channelnorm",
                ("InstanceNormalization", "GroupNormalization"),
                RowsConfig,
                read_channel_norm,
                build_rows,
            ),
            KernelKind("bn", ("BatchNormalization",), RowsConfig, read_batch_norm, build_rows),
            KernelKind(
                "pool",
                ("AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"),
                PoolConfig,
                read_pool,
                build_pool,
            ),
            KernelKind("reduce", _REDUCE, ReduceConfig, read_reduce, build_reduce),
            KernelKind("transpose", ("Transpose",), TransposeConfig, read_transpose, build_transpose),
            KernelKind("concat", ("Concat",), PiecesConfig, read_concat, build_concat),
            KernelKind("split", ("Split",), PiecesConfig, read_split, build_split),
            KernelKind("gather", ("Gather",), CopyConfig, read_gather, build_gather),
            KernelKind("slice", ("Slice",), CopyConfig, read_copy, build_slice),
            KernelKind(
                "copy",
                (
                    "Pad",
                    "Expand",
                    "Tile",
                    "DepthToSpace",
                    "SpaceToDepth",
                    "Trilu",
                    "GatherElements",
                    "ScatterElements",
                    "ScatterND",
                    "GatherND",
                    "CumSum",
                ),
                CopyConfig,
                read_copy,
                None,
            ),
            KernelKind("reshape", VIEWS, CopyConfig, read_view, build_view),
            KernelKind("reorder", ("ReorderInput", "ReorderOutput"), ReorderConfig, read_reorder, None),
            KernelKind("resize", ("Resize", "Upsample"), ResizeConfig, read_resize, build_resize),
            KernelKind("recurrent", ("LSTM", "GRU", "RNN"), RecurrentConfig, read_recurrent, build_recurrent),
            KernelKind("other", (), OtherConfig, read_other, None),
        )
    }
)

KIND_OF: Mapping[str, str] = MappingProxyType(
    {op: kind.name for kind in KINDS.values() for op in kind.operators}
)
"""Operator to kind; a convolution's depends on its layout and groups too."""


def read_kernel(op: Operator) -> tuple[str, KernelConfig]:
    """Kind and config of an executed operator; ``other`` where it has no row."""
    name = KIND_OF.get(op.op_type, "other")
    config = KINDS[name].read(op)
    if isinstance(config, ConvConfig) and name == "conv":
        if config.layout == "nchw":
            name = "conv_nchw"
        elif config.group > 1 and config.group == config.cin:
            name = "dwconv"
    return name, config
