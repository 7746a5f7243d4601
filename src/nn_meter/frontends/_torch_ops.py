"""ATen operators as ONNX operators: the table ``OPERATORS``.

A row takes the writer and the call and returns the name of what it wrote, one for each result (``""`` for a
result
that has no counterpart). The spelling is that of ``torch.onnx.export`` after constant folding; where its two
exporters differ, the shorter one (``Gelu`` for the five operators around ``Erf``). Names are ATen's without
overload
and without the trailing underscore of operators in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nn_meter.errors import UnsupportedOperatorError
from nn_meter.ir import Attr
from nn_meter.ir.shapes import DTYPES


class Writer(Protocol):
    """What a row may ask and write."""

    def op(self, op_type: str, *inputs: str, **attrs: Attr) -> str: ...
    def multi(self, op_type: str, inputs: Sequence[str], outputs: int, **attrs: Attr) -> tuple[str, ...]: ...
    def const(self, value: Sequence[int | float] | int | float, dtype: str = "int64") -> str: ...
    def weight(self, shape: Sequence[int], dtype: str) -> str: ...
    def value(self, tensor: Any) -> str: ...
    def shape(self, name: str) -> tuple[int, ...]: ...
    def dtype(self, name: str) -> str: ...
    def note(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Call:
    """One ATen call: arguments by the names of its schema, results on the device ``meta``."""

    name: str
    args: Mapping[str, Any]
    outs: tuple[Any, ...]

    def __getitem__(self, key: str) -> Any:
        return self.args.get(key)

    @property
    def first(self) -> Any:
        """The first argument, ``self`` or ``input``."""
        return next(iter(self.args[key] for key in ("self", "input", "query") if key in self.args))

    @property
    def dtype(self) -> str:
        """Element type of the first result."""
        return _dtype(self.outs[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first result."""
        return tuple(self.outs[0].shape)


Written = str | tuple[str, ...]
Row = Callable[[Writer, Call], Written]


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "untyped_storage")


def _tuple(value: Any, count: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * count if len(values) == 1 else values


def _axis(axis: int, rank: int) -> int:
    return axis + rank if axis < 0 else axis


def _axes(dims: Any, rank: int) -> tuple[int, ...]:
    if dims is None:
        return tuple(range(rank))
    found = tuple(_axis(dim, rank) for dim in ((dims,) if isinstance(dims, int) else dims))
    return found or tuple(range(rank))


def _cast(w: Writer, name: str, dtype: str) -> str:
    return name if w.dtype(name) == dtype else w.op("Cast", name, to=DTYPES.index(dtype))


def _operand(w: Writer, value: Any, dtype: str) -> str:
    """A tensor or number as an input of element type ``dtype``."""
    if _is_tensor(value):
        return _cast(w, w.value(value), dtype)
    return w.const(value, dtype)


def _reshape(w: Writer, name: str, shape: Sequence[int]) -> str:
    return name if w.shape(name) == tuple(shape) else w.op("Reshape", name, w.const(tuple(shape)))


def _transpose(w: Writer, name: str, perm: Sequence[int]) -> str:
    return name if tuple(perm) == tuple(range(len(perm))) else w.op("Transpose", name, perm=tuple(perm))


def _swap_last(w: Writer, name: str) -> str:
    rank = len(w.shape(name))
    return _transpose(w, name, (*range(rank - 2), rank - 1, rank - 2))


def _slice(w: Writer, name: str, axis: int, start: int, end: int, step: int = 1) -> str:
    return w.op("Slice", name, w.const((start,)), w.const((end,)), w.const((axis,)), w.const((step,)))


# Makers of rows


def nothing(w: Writer, c: Call) -> str:
    """No result and no work at inference."""
    return ""


def keep(w: Writer, c: Call) -> str:
    """Nothing to do at inference: the value passes."""
    return w.value(c.first)


def unary(op_type: str, **attrs: Attr) -> Row:
    """One input, one output."""

    def row(w: Writer, c: Call) -> str:
        return w.op(op_type, _operand(w, c.first, c.dtype), **attrs)

    return row


def predicate(op_type: str) -> Row:
    """One input of any type, a truth value as output."""

    def row(w: Writer, c: Call) -> str:
        return w.op(op_type, w.value(c.first))

    return row


def chain(*op_types: str) -> Row:
    """One operator after the other."""

    def row(w: Writer, c: Call) -> str:
        name = _operand(w, c.first, c.dtype)
        for op_type in op_types:
            name = w.op(op_type, name)
        return name

    return row


def binary(op_type: str, reverse: bool = False) -> Row:
    """Two operands, either of them perhaps a number, cast to the type of the result."""

    def row(w: Writer, c: Call) -> str:
        a, b = c.first, c.args["exponent" if "exponent" in c.args else "other"]
        left, right = _operand(w, a, c.dtype), _operand(w, b, c.dtype)
        alpha = c["alpha"]
        if alpha is not None and alpha != 1:
            right = w.op("Mul", right, w.const(alpha, c.dtype))
        return w.op(op_type, right, left) if reverse else w.op(op_type, left, right)

    return row


def compare(op_type: str, negate: bool = False) -> Row:
    """Two operands of one type, a truth value as output."""

    def row(w: Writer, c: Call) -> str:
        a, b = c.first, c["other"]
        dtype = _dtype(a)
        if _is_tensor(b) and a.dim() == 0:
            dtype = _dtype(b)
        if isinstance(b, float) and not dtype.startswith(("float", "bfloat")):
            dtype = "float32"
        found = w.op(op_type, _operand(w, a, dtype), _operand(w, b, dtype))
        return w.op("Not", found) if negate else found

    return row


def logical(op_type: str) -> Row:
    """Two truth values."""

    def row(w: Writer, c: Call) -> str:
        if c.dtype != "bool":
            name = {"And": "BitwiseAnd", "Or": "BitwiseOr", "Xor": "BitwiseXor"}[op_type]
            return w.op(name, _operand(w, c.first, c.dtype), _operand(w, c["other"], c.dtype))
        return w.op(op_type, _operand(w, c.first, "bool"), _operand(w, c["other"], "bool"))

    return row


def reduce(op_type: str) -> Row:
    """Reduction along ``dim``, or along all axes."""

    def row(w: Writer, c: Call) -> str:
        x = c.first
        name = w.value(x) if c.dtype == "bool" else _operand(w, x, c.dtype)
        axes = _axes(c["dim"], x.dim())
        if not axes:
            return name
        if c.dtype == "bool":
            return _cast(w, _reduce(w, op_type, _cast(w, name, "int32"), axes, bool(c["keepdim"])), "bool")
        return _reduce(w, op_type, name, axes, bool(c["keepdim"]))

    return row


def _reduce(w: Writer, op_type: str, name: str, axes: Sequence[int], keepdims: bool) -> str:
    return w.op(op_type, name, w.const(tuple(axes)), keepdims=int(keepdims))


def extreme(op_type: str, arg_type: str) -> Row:
    """Largest or smallest along an axis with its index, or over everything."""

    def row(w: Writer, c: Call) -> Written:
        x = w.value(c.first)
        rank = len(w.shape(x))
        if c["dim"] is None:
            return _reduce(w, op_type, x, range(rank), False)
        axis, keepdims = _axis(c["dim"], rank), bool(c["keepdim"])
        return _reduce(w, op_type, x, (axis,), keepdims), w.op(arg_type, x, axis=axis, keepdims=int(keepdims))

    return row


def arg_extreme(op_type: str) -> Row:
    """Index of the largest or smallest."""

    def row(w: Writer, c: Call) -> str:
        x = w.value(c.first)
        if c["dim"] is None:
            x = _reshape(w, x, (math.prod(w.shape(x)),))
        keepdims = bool(c["keepdim"]) and c["dim"] is not None
        return w.op(op_type, x, axis=_axis(c["dim"] or 0, len(w.shape(x))), keepdims=int(keepdims))

    return row


def convolution(rank: int, transposed: bool = False) -> Row:
    """``convNd`` and ``conv_transposeNd``; ``rank`` 0 takes it from the weight."""

    def row(w: Writer, c: Call) -> str:
        x, weight = w.value(c["input"]), w.value(c["weight"])
        n = rank or len(w.shape(weight)) - 2
        single = len(w.shape(x)) == n + 1
        if single:
            x = w.op("Unsqueeze", x, w.const((0,)))
        kernel = w.shape(weight)[2:]
        dilations, strides = _tuple(c["dilation"], n), _tuple(c["stride"], n)
        if isinstance(c["padding"], str):
            total = [
                d * (k - 1) if c["padding"] == "same" else 0 for d, k in zip(dilations, kernel, strict=True)
            ]
            pads = (*(t // 2 for t in total), *(t - t // 2 for t in total))
        else:
            pads = _tuple(c["padding"], n) * 2
        attrs: dict[str, Attr] = {
            "dilations": dilations, "group": c["groups"], "kernel_shape": kernel, "pads": pads,
            "strides": strides,
        }  # fmt: skip
        inputs = (x, weight) if c["bias"] is None else (x, weight, w.value(c["bias"]))
        if transposed or c["transposed"]:
            extra = _tuple(c["output_padding"], n)
            out = w.op("ConvTranspose", *inputs, **attrs, **({"output_padding": extra} if any(extra) else {}))
        else:
            out = w.op("Conv", *inputs, **attrs)
        return w.op("Squeeze", out, w.const((0,))) if single else out

    return row


def _window(c: Call, rank: int) -> tuple[int, ...]:
    """The kernel of a pooling; one larger than the padded input, which ``ceil_mode`` allows, as large as that."""
    sizes, pads = c.first.shape[-rank:], _tuple(c["padding"], rank)
    kernel = _tuple(c["kernel_size"], rank)
    return tuple(min(k, size + 2 * p) for k, size, p in zip(kernel, sizes, pads, strict=True))


def max_pool(rank: int, indices: bool = False) -> Row:
    """``max_poolNd`` with and without indices."""

    def row(w: Writer, c: Call) -> Written:
        kernel = _window(c, rank)
        return w.multi(
            "MaxPool",
            (w.value(c.first),),
            1 + indices,
            kernel_shape=kernel,
            strides=_tuple(c["stride"], rank) if c["stride"] else kernel,
            pads=_tuple(c["padding"], rank) * 2,
            dilations=_tuple(c["dilation"], rank),
            ceil_mode=int(c["ceil_mode"]),
        )

    return row


def avg_pool(rank: int) -> Row:
    """``avg_poolNd``."""

    def row(w: Writer, c: Call) -> str:
        kernel = _window(c, rank)
        return w.op(
            "AveragePool",
            w.value(c.first),
            kernel_shape=kernel,
            strides=_tuple(c["stride"], rank) if c["stride"] else kernel,
            pads=_tuple(c["padding"], rank) * 2,
            ceil_mode=int(c["ceil_mode"]),
            count_include_pad=int(c["count_include_pad"]),
        )

    return row


def adaptive_pool(rank: int, kind: str) -> Row:
    """``adaptive_xxx_poolNd``: global where the result is one element, else windows of one size."""

    def row(w: Writer, c: Call) -> Written:
        x = w.value(c.first)
        size, out = w.shape(x)[-rank:], c.shape[-rank:]
        if out == size:
            return (x, "")
        if out == (1,) * rank and len(w.shape(x)) == rank + 2:
            return (w.op(f"Global{kind}Pool", x), "")
        strides = tuple(i // o for i, o in zip(size, out, strict=True))
        if any(i < o for i, o in zip(size, out, strict=True)):
            sizes = w.const((*w.shape(x)[:-rank], *out))
            w.note(f"{c.name} from {size} to {out} enlarges; it was read as Resize")
            return (w.op("Resize", x, "", "", sizes, mode="nearest"), "")
        if any(i % o for i, o in zip(size, out, strict=True)):
            w.note(f"{c.name} from {size} to {out} has windows of several sizes; it was read with one size")
        kernel = tuple(i - (o - 1) * s for i, o, s in zip(size, out, strides, strict=True))
        op_type = f"{kind}Pool"
        return (w.op(op_type, x, kernel_shape=kernel, strides=strides, pads=(0,) * (2 * rank)), "")

    return row


def fractional_pool(rank: int) -> Row:
    """``fractional_max_poolNd``, whose windows lie at random."""
    pool = adaptive_pool(rank, "Max")

    def row(w: Writer, c: Call) -> Written:
        w.note(f"{c.name} has windows at random places; it was read with windows in a row")
        return pool(w, c)

    return row


def max_unpool(rank: int) -> Row:
    """``max_unpoolNd``: each value goes to its index within the plane, among zeros."""

    def row(w: Writer, c: Call) -> str:
        x = w.value(c.first)
        flat = (*w.shape(x)[:-rank], math.prod(w.shape(x)[-rank:]))
        blank = w.weight((*flat[:-1], math.prod(c.shape[-rank:])), c.dtype)
        values, places = (_reshape(w, name, flat) for name in (x, w.value(c["indices"])))
        return _reshape(w, w.op("ScatterElements", blank, places, values, axis=len(flat) - 1), c.shape)

    return row


def resize(mode: str, place: str = "pytorch_half_pixel", **attrs: Attr) -> Row:
    """``upsample_xxx`` and ``interpolate``; ``place`` says where the source of an element lies."""

    def row(w: Writer, c: Call) -> str:
        align = "align_corners" if c["align_corners"] else place
        sizes = w.const(c.shape)
        return w.op(
            "Resize",
            w.value(c.first),
            "",
            "",
            sizes,
            mode=mode,
            coordinate_transformation_mode=align,
            **attrs,
        )

    return row


def pad(mode: str) -> Row:
    """Padding; PyTorch lists pairs from the last axis on."""

    def row(w: Writer, c: Call) -> str:
        amounts = c["pad"] if c["pad"] is not None else c["padding"]
        rank = c.first.dim()
        begins, ends = [0] * rank, [0] * rank
        for index in range(len(amounts) // 2):
            begins[rank - 1 - index], ends[rank - 1 - index] = amounts[2 * index], amounts[2 * index + 1]
        if not any(amounts):
            return w.value(c.first)
        kind = c["mode"] if isinstance(c["mode"], str) else mode
        kind = {"replicate": "edge", "circular": "wrap"}.get(kind, kind)
        value = () if kind != "constant" else (w.const(c["value"] or 0, c.dtype),)
        return w.op("Pad", w.value(c.first), w.const((*begins, *ends)), *value, mode=kind)

    return row


# Rows


def _linear(w: Writer, c: Call) -> str:
    x, weight = w.value(c["input"]), w.value(c["weight"])
    bias = None if c["bias"] is None else w.value(c["bias"])
    if len(w.shape(x)) == 2 and bias is not None:
        return w.op("Gemm", x, weight, bias, alpha=1.0, beta=1.0, transB=1)
    out = w.op("MatMul", x, _swap_last(w, weight) if len(w.shape(weight)) > 1 else weight)
    return out if bias is None else w.op("Add", out, bias)


def _matmul(w: Writer, c: Call) -> str:
    second = next(c.args[key] for key in ("other", "mat2", "vec2", "vec", "tensor") if key in c.args)
    return w.op("MatMul", w.value(c.first), w.value(second))


def _addmm(w: Writer, c: Call) -> str:
    bias, a, b = w.value(c["self"]), w.value(c["mat1"]), w.value(c["mat2"])
    return w.op("Gemm", a, b, bias, alpha=float(c["alpha"]), beta=float(c["beta"]))


def _baddbmm(w: Writer, c: Call) -> str:
    product = w.op("MatMul", w.value(c["batch1"]), w.value(c["batch2"]))
    if c["alpha"] != 1:
        product = w.op("Mul", product, w.const(c["alpha"], c.dtype))
    if c["beta"] == 0:
        return product
    bias = w.value(c["self"])
    if c["beta"] != 1:
        bias = w.op("Mul", bias, w.const(c["beta"], c.dtype))
    return w.op("Add", product, bias)


def _bilinear(w: Writer, c: Call) -> str:
    """One matrix product with the first input, a weighted sum by the second."""
    first, second, weight = w.value(c["input1"]), w.value(c["input2"]), w.shape(w.value(c["weight"]))
    out, left, right = weight
    product = w.op("MatMul", first, w.weight((left, out * right), c.dtype))
    apart = _reshape(w, product, (*w.shape(first)[:-1], out, right))
    terms = w.op("Mul", apart, w.op("Unsqueeze", second, w.const((len(w.shape(second)) - 1,))))
    total = _reduce(w, "ReduceSum", terms, (len(w.shape(terms)) - 1,), False)
    return total if c["bias"] is None else w.op("Add", total, w.value(c["bias"]))


def _grouped_mm(w: Writer, c: Call) -> str:
    """Each group of rows times a matrix of its own: a mixture of experts, its rows spread evenly."""
    x, weight = w.value(c["self"]), w.value(c["mat2"])
    if len(w.shape(x)) != 2 or len(w.shape(weight)) != 3 or c["bias"] is not None:
        raise UnsupportedOperatorError(
            f"{c.name} of {w.shape(x)} by {w.shape(weight)} has no counterpart; only rows in groups by one "
            "matrix for each group have"
        )
    rows, experts = w.shape(x)[0], w.shape(weight)[0]
    hit = min(rows, experts)
    each = f"{rows // hit}" if rows % hit == 0 else f"{rows // hit} or {rows // hit + 1}"
    w.note(f"{rows} rows were taken to be spread evenly over {experts} experts: {hit} get {each} each")
    sizes = tuple(rows // hit + (index < rows % hit) for index in range(hit))
    parts = _split_into(w, x, 0, sizes)
    done = [w.op("MatMul", part, w.weight(w.shape(weight)[1:], c.dtype)) for part in parts]
    return done[0] if hit == 1 else w.op("Concat", *done, axis=0)


def _histogram(w: Writer, c: Call) -> str:
    """Each element's bin compared with every bin, and counted."""
    x, bins = w.value(c.first), c["bins"]
    if c["max"] <= c["min"]:
        raise UnsupportedOperatorError(
            "histc whose range is that of the data has no counterpart; give min and max"
        )
    flat = _reshape(w, x, (math.prod(w.shape(x)), 1))
    above = w.op("Sub", flat, w.const(c["min"], c.dtype))
    scaled = w.op("Mul", above, w.const(bins / (c["max"] - c["min"]), c.dtype))
    hits = w.op("Equal", w.op("Floor", scaled), w.weight((1, bins), c.dtype))
    return _reduce(w, "ReduceSum", _cast(w, hits, c.dtype), (0,), False)


def _einsum(w: Writer, c: Call) -> str:
    return w.op("Einsum", *(w.value(t) for t in c["tensors"]), equation=c["equation"].replace(" ", ""))


def _batch_norm(w: Writer, c: Call) -> Written:
    x = w.value(c["input"])
    channels, dtype = w.shape(x)[1], w.dtype(x)
    parts = [c["weight"], c["bias"], c["running_mean"], c["running_var"]]
    if c["running_mean"] is None:
        w.note("a batch normalisation without running statistics was read as one with them")
    names = [w.weight((channels,), dtype) if part is None else w.value(part) for part in parts]
    return (w.op("BatchNormalization", x, *names, epsilon=float(c["eps"])), "", "")


def _layer_norm(w: Writer, c: Call) -> Written:
    x = w.value(c["input"])
    shape = tuple(c["normalized_shape"])
    weight = w.weight(shape, w.dtype(x)) if c["weight"] is None else w.value(c["weight"])
    rest = () if c["bias"] is None else (w.value(c["bias"]),)
    out = w.op("LayerNormalization", x, weight, *rest, axis=-len(shape), epsilon=float(c["eps"]))
    return (out, "", "")


def _group_norm(w: Writer, c: Call) -> str:
    x = w.value(c["input"])
    shape, groups, dtype = w.shape(x), c["num_groups"], w.dtype(x)
    flat = w.op("Reshape", x, w.const((shape[0], groups, math.prod(shape[1:]) // groups)))
    normal = w.op(
        "InstanceNormalization",
        flat,
        w.weight((groups,), dtype),
        w.weight((groups,), dtype),
        epsilon=float(c["eps"]),
    )
    out = w.op("Reshape", normal, w.const(shape))
    for op_type, part in (("Mul", c["weight"]), ("Add", c["bias"])):
        if part is not None:
            out = w.op(op_type, out, _reshape(w, w.value(part), (shape[1], *(1,) * (len(shape) - 2))))
    return out


def _instance_norm(w: Writer, c: Call) -> str:
    x = w.value(c["input"])
    channels, dtype = w.shape(x)[1], w.dtype(x)
    names = [
        w.weight((channels,), dtype) if c[key] is None else w.value(c[key]) for key in ("weight", "bias")
    ]
    return w.op("InstanceNormalization", x, *names, epsilon=float(c["eps"]))


def _attention(w: Writer, c: Call) -> str:
    query, key, value = (w.value(c[part]) for part in ("query", "key", "value"))
    dtype, depth = w.dtype(query), w.shape(query)[-1]
    heads = w.shape(query)[-3] if len(w.shape(query)) > 3 else 1
    if c["enable_gqa"] and w.shape(key)[-3] != heads:
        key, value = (_repeat_heads(w, name, heads) for name in (key, value))
    scale = w.const(math.sqrt(c["scale"] if c["scale"] is not None else 1 / math.sqrt(depth)), dtype)
    scores = w.op("MatMul", w.op("Mul", query, scale), w.op("Mul", _swap_last(w, key), scale))
    mask = None if c["attn_mask"] is None else w.value(c["attn_mask"])
    if c["is_causal"]:
        mask = w.weight(w.shape(scores)[-2:], dtype)
    if mask is not None:
        if w.dtype(mask) == "bool":
            mask = w.op("Where", mask, w.const(0.0, dtype), w.const(float("-inf"), dtype))
        scores = w.op("Add", scores, mask)
    return w.op("MatMul", w.op("Softmax", scores, axis=-1), value)


def _repeat_heads(w: Writer, name: str, heads: int) -> str:
    *lead, groups, length, depth = w.shape(name)
    apart = w.op("Unsqueeze", name, w.const((len(lead) + 1,)))
    wide = w.op("Expand", apart, w.const((*lead, groups, heads // groups, length, depth)))
    return w.op("Reshape", wide, w.const((*lead, heads, length, depth)))


def _softmax(op_type: str) -> Row:
    def row(w: Writer, c: Call) -> str:
        return w.op(op_type, _operand(w, c.first, c.dtype), axis=c["dim"])

    return row


def _gelu(w: Writer, c: Call) -> str:
    return w.op("Gelu", w.value(c.first), approximate=c["approximate"] or "none")


def _silu(w: Writer, c: Call) -> str:
    x = w.value(c.first)
    return w.op("Mul", x, w.op("Sigmoid", x))


def _mish(w: Writer, c: Call) -> str:
    x = w.value(c.first)
    return w.op("Mul", x, w.op("Tanh", w.op("Softplus", x)))


def _glu(w: Writer, c: Call) -> str:
    x = w.value(c.first)
    axis = _axis(c["dim"], len(w.shape(x)))
    half = w.shape(x)[axis] // 2
    a, b = w.multi("Split", (x, w.const((half, half))), 2, axis=axis)
    return w.op("Mul", a, w.op("Sigmoid", b))


def _hard_sigmoid(w: Writer, c: Call) -> str:
    return w.op("HardSigmoid", w.value(c.first), alpha=1 / 6, beta=0.5)


def _leaky_relu(w: Writer, c: Call) -> str:
    return w.op("LeakyRelu", w.value(c.first), alpha=float(c["negative_slope"]))


def _rrelu(w: Writer, c: Call) -> str:
    return w.op("LeakyRelu", w.value(c.first), alpha=(c["lower"] + c["upper"]) / 2)


def shrink(biased: bool) -> Row:
    """``hardshrink`` and ``softshrink``."""

    def row(w: Writer, c: Call) -> str:
        return w.op("Shrink", w.value(c.first), lambd=float(c["lambd"]), bias=float(c["lambd"]) * biased)

    return row


def _elu(w: Writer, c: Call) -> str:
    return w.op("Elu", w.value(c.first), alpha=float(c["alpha"]))


def _prelu(w: Writer, c: Call) -> str:
    x, slope = w.value(c["self"]), w.value(c["weight"])
    return w.op("PRelu", x, _reshape(w, slope, (w.shape(slope)[0], *(1,) * (len(w.shape(x)) - 2))))


def _softplus(w: Writer, c: Call) -> str:
    x, beta = w.value(c.first), c["beta"]
    if beta == 1:
        return w.op("Softplus", x)
    return w.op("Div", w.op("Softplus", w.op("Mul", x, w.const(beta, c.dtype))), w.const(beta, c.dtype))


def _threshold(w: Writer, c: Call) -> str:
    x = w.value(c.first)
    above = w.op("Greater", x, w.const(c["threshold"], c.dtype))
    return w.op("Where", above, x, w.const(c["value"], c.dtype))


def _clip(low: str, high: str) -> Row:
    def row(w: Writer, c: Call) -> str:
        bounds = ["" if c[key] is None else _operand(w, c[key], c.dtype) for key in (low, high)]
        if any(_is_tensor(c[key]) and c[key].dim() for key in (low, high)):
            name = _operand(w, c.first, c.dtype)
            for op_type, bound in (("Max", bounds[0]), ("Min", bounds[1])):
                name = w.op(op_type, name, bound) if bound else name
            return name
        return w.op("Clip", _operand(w, c.first, c.dtype), *(bounds if bounds[1] else bounds[:1]))

    return row


def _relu6(w: Writer, c: Call) -> str:
    return w.op("Clip", w.value(c.first), w.const(0.0, c.dtype), w.const(6.0, c.dtype))


def _div(w: Writer, c: Call) -> str:
    out = w.op("Div", _operand(w, c.first, c.dtype), _operand(w, c["other"], c.dtype))
    if c["rounding_mode"] == "floor" and c.dtype.startswith(("float", "bfloat")):
        return w.op("Floor", out)
    return out


def _rsub(w: Writer, c: Call) -> str:
    return w.op("Sub", _operand(w, c["other"], c.dtype), _operand(w, c.first, c.dtype))


def _addcmul(op_type: str) -> Row:
    def row(w: Writer, c: Call) -> str:
        term = w.op(op_type, w.value(c["tensor1"]), w.value(c["tensor2"]))
        if c["value"] != 1:
            term = w.op("Mul", term, w.const(c["value"], c.dtype))
        return w.op("Add", w.value(c["self"]), term)

    return row


def _rsqrt(w: Writer, c: Call) -> str:
    return w.op("Reciprocal", w.op("Sqrt", _operand(w, c.first, c.dtype)))


def _expm1(w: Writer, c: Call) -> str:
    return w.op("Sub", w.op("Exp", w.value(c.first)), w.const(1.0, c.dtype))


def _log1p(w: Writer, c: Call) -> str:
    return w.op("Log", w.op("Add", w.value(c.first), w.const(1.0, c.dtype)))


def _square(w: Writer, c: Call) -> str:
    return w.op("Pow", w.value(c.first), w.const(2, c.dtype))


def _where(w: Writer, c: Call) -> str:
    return w.op(
        "Where", w.value(c["condition"]), _operand(w, c["self"], c.dtype), _operand(w, c["other"], c.dtype)
    )


def _masked_fill(w: Writer, c: Call) -> str:
    return w.op("Where", w.value(c["mask"]), _operand(w, c["value"], c.dtype), w.value(c["self"]))


def _norm(w: Writer, c: Call) -> str:
    x = c.first
    order = next((c[key] for key in ("ord", "p") if c[key] is not None), 2)
    axes, keepdims = _axes(c["dim"], x.dim()), bool(c["keepdim"])
    op_type = {2: "ReduceL2", "fro": "ReduceL2", 1: "ReduceL1"}.get(order)
    if op_type is not None:
        return _reduce(w, op_type, w.value(x), axes, keepdims)
    size = w.op("Abs", w.value(x))
    if isinstance(order, str) or order == 0:
        raise UnsupportedOperatorError(f"{c.name} of order {order!r} has no counterpart; other orders have")
    if math.isinf(order):
        return _reduce(w, "ReduceMax" if order > 0 else "ReduceMin", size, axes, keepdims)
    total = _reduce(w, "ReduceSum", w.op("Pow", size, w.const(float(order), c.dtype)), axes, keepdims)
    return w.op("Pow", total, w.const(1 / order, c.dtype))


def _variance(root: bool, mean_too: bool) -> Row:
    def row(w: Writer, c: Call) -> Written:
        x = w.value(c.first)
        axes, keepdims = _axes(c["dim"], len(w.shape(x))), bool(c["keepdim"])
        off = w.op("Sub", x, _reduce(w, "ReduceMean", x, axes, True))
        out = _reduce(w, "ReduceMean", w.op("Mul", off, off), axes, keepdims)
        count = math.prod(w.shape(x)[axis] for axis in axes)
        correction = c["correction"] if c["correction"] is not None else int(c["unbiased"] is not False)
        if correction and count > correction:
            out = w.op("Mul", out, w.const(count / (count - correction), c.dtype))
        if root:
            out = w.op("Sqrt", out)
        return (out, _reduce(w, "ReduceMean", x, axes, keepdims)) if mean_too else out

    return row


def _to(w: Writer, c: Call) -> str:
    return _cast(w, w.value(c.first), c.dtype)


def _view(w: Writer, c: Call) -> str:
    return _reshape(w, w.value(c.first), c.shape)


def _flatten(w: Writer, c: Call) -> str:
    x = w.value(c.first)
    if len(c.shape) == 2 and c["start_dim"] == 1 and w.shape(x) != c.shape:
        return w.op("Flatten", x, axis=1)
    return _reshape(w, x, c.shape)


def _permute(w: Writer, c: Call) -> str:
    return _transpose(w, w.value(c.first), _axes(c["dims"], c.first.dim()))


def _transpose_pair(first: str, second: str) -> Row:
    def row(w: Writer, c: Call) -> str:
        rank = c.first.dim()
        perm = list(range(rank))
        if rank:
            a, b = _axis(c[first], rank), _axis(c[second], rank)
            perm[a], perm[b] = perm[b], perm[a]
        return _transpose(w, w.value(c.first), perm)

    return row


def _transposed(w: Writer, c: Call) -> str:
    x = w.value(c.first)
    return _swap_last(w, x) if len(w.shape(x)) > 1 else x


def _movedim(w: Writer, c: Call) -> str:
    rank = c.first.dim()
    source, target = _axes(c["source"], rank), _axes(c["destination"], rank)
    rest = iter(axis for axis in range(rank) if axis not in source)
    place = dict(zip(target, source, strict=True))
    return _transpose(
        w, w.value(c.first), [place[axis] if axis in place else next(rest) for axis in range(rank)]
    )


def _unsqueeze(w: Writer, c: Call) -> str:
    return w.op("Unsqueeze", w.value(c.first), w.const((_axis(c["dim"], c.first.dim() + 1),)))


def _squeeze(w: Writer, c: Call) -> str:
    x = w.value(c.first)
    shape = w.shape(x)
    axes = tuple(axis for axis in _axes(c["dim"], len(shape)) if shape[axis] == 1)
    return w.op("Squeeze", x, w.const(axes)) if axes else x


def _expand(w: Writer, c: Call) -> str:
    return _expanded(w, w.value(c.first), c.shape)


def _expanded(w: Writer, name: str, shape: Sequence[int]) -> str:
    return name if w.shape(name) == tuple(shape) else w.op("Expand", name, w.const(tuple(shape)))


def _repeat(w: Writer, c: Call) -> str:
    times = tuple(c["repeats"] if c["repeats"] is not None else c["dims"])
    x = w.value(c.first)
    rank = max(len(times), len(w.shape(x)))
    x = _reshape(w, x, (*(1,) * (rank - len(w.shape(x))), *w.shape(x)))
    times = (1,) * (rank - len(times)) + times
    return w.op("Tile", x, w.const(times)) if any(t != 1 for t in times) else x


def _repeat_interleave(w: Writer, c: Call) -> str:
    x, times = w.value(c.first), c["repeats"]
    if not isinstance(times, int):
        raise UnsupportedOperatorError(
            "repeat_interleave with a tensor of repeats has a result of unknown shape"
        )
    if c["dim"] is None:
        x = _reshape(w, x, (math.prod(w.shape(x)),))
    shape = w.shape(x)
    axis = _axis(c["dim"] or 0, len(shape))
    apart = w.op("Unsqueeze", x, w.const((axis + 1,)))
    wide = w.op("Expand", apart, w.const((*shape[: axis + 1], times, *shape[axis + 1 :])))
    return w.op("Reshape", wide, w.const(c.shape))


def _slice_row(w: Writer, c: Call) -> str:
    x = w.value(c.first)
    shape = w.shape(x)
    axis = _axis(c["dim"], len(shape))
    if c.shape == shape and c["step"] == 1:
        return x
    start, end = c["start"] or 0, c["end"]
    size = shape[axis]
    start = max(0, min(size, start + size if start < 0 else start))
    end = size if end is None else max(start, min(size, end + size if end < 0 else end))
    return _slice(w, x, axis, start, end, c["step"])


def _narrow(w: Writer, c: Call) -> str:
    start = c["start"]
    axis = _axis(c["dim"], c.first.dim())
    start = start + c.first.shape[axis] if start < 0 else start
    return _slice(w, w.value(c.first), axis, start, start + c["length"])


def _select(w: Writer, c: Call) -> str:
    x = w.value(c.first)
    axis = _axis(c["dim"], len(w.shape(x)))
    return w.op("Gather", x, w.const(_axis(c["index"], w.shape(x)[axis])), axis=axis)


def _unbind(w: Writer, c: Call) -> Written:
    axis = _axis(c["dim"], c.first.dim())
    parts = _split_into(w, w.value(c.first), axis, (1,) * len(c.outs))
    return tuple(w.op("Squeeze", part, w.const((axis,))) for part in parts)


def _split(w: Writer, c: Call) -> Written:
    axis = _axis(c["dim"] or 0, c.first.dim())
    return _split_into(w, w.value(c.first), axis, tuple(out.shape[axis] for out in c.outs))


def _split_into(w: Writer, name: str, axis: int, sizes: tuple[int, ...]) -> tuple[str, ...]:
    if len(sizes) == 1:
        return (name,)
    return w.multi("Split", (name, w.const(sizes)), len(sizes), axis=axis)


def _concat(w: Writer, c: Call) -> str:
    names = [_operand(w, t, c.dtype) for t in c["tensors"] if tuple(t.shape) != (0,)]
    return names[0] if len(names) == 1 else w.op("Concat", *names, axis=_axis(c["dim"], len(c.shape)))


def _stack(w: Writer, c: Call) -> str:
    axis = _axis(c["dim"], len(c.shape))
    names = [w.op("Unsqueeze", _operand(w, t, c.dtype), w.const((axis,))) for t in c["tensors"]]
    return names[0] if len(names) == 1 else w.op("Concat", *names, axis=axis)


def _flip(w: Writer, c: Call) -> str:
    x = w.value(c.first)
    axes = _axes(c["dims"], len(w.shape(x)))
    ends = w.const((-(2**63),) * len(axes))
    return w.op("Slice", x, w.const((-1,) * len(axes)), ends, w.const(axes), w.const((-1,) * len(axes)))


def _roll(w: Writer, c: Call) -> str:
    x = w.value(c.first)
    shape = w.shape(x)
    dims = c["dims"]
    if not dims:
        x = _reshape(w, x, (math.prod(shape),))
        dims = (0,)
    for dim, shift in zip(_axes(dims, len(w.shape(x))), _tuple(c["shifts"], 1), strict=True):
        size = w.shape(x)[dim]
        cut = -shift % size
        if cut:
            x = w.op("Concat", _slice(w, x, dim, cut, size), _slice(w, x, dim, 0, cut), axis=dim)
    return _reshape(w, x, shape)


def _index(w: Writer, c: Call) -> str:
    x = w.value(c.first)
    rank = len(w.shape(x))
    given = [(axis, w.value(index)) for axis, index in enumerate(c["indices"]) if index is not None]
    if len(given) == 1:
        return w.op("Gather", x, given[0][1], axis=given[0][0])
    axes = [axis for axis, _ in given]
    front = _transpose(w, x, (*axes, *(axis for axis in range(rank) if axis not in axes)))
    found = w.op("GatherND", front, _joined_indices(w, [name for _, name in given]))
    count, tail = len(w.shape(found)) - (rank - len(axes)), rank - len(axes)
    lead = axes[0] if axes == list(range(axes[0], axes[-1] + 1)) else 0
    perm = (*range(count, count + lead), *range(count), *range(count + lead, count + tail))
    return _transpose(w, found, perm)


def _joined_indices(w: Writer, names: Sequence[str]) -> str:
    shape: tuple[int, ...] = ()
    for name in names:
        other = w.shape(name)
        width = max(len(shape), len(other))
        a, b = ((1,) * (width - len(s)) + s for s in (shape, other))
        shape = tuple(max(p, q) for p, q in zip(a, b, strict=True))
    wide = [_expanded(w, name, shape) for name in names]
    apart = [w.op("Unsqueeze", name, w.const((len(shape),))) for name in wide]
    return apart[0] if len(apart) == 1 else w.op("Concat", *apart, axis=len(shape))


def _index_put(w: Writer, c: Call) -> str:
    x, values, rank = w.value(c["self"]), c["values"], c.first.dim()
    given = [(axis, index) for axis, index in enumerate(c["indices"]) if index is not None]
    masks = [index for _, index in given if _dtype(index) in ("bool", "uint8")]
    if len(given) == 1 and masks and values.numel() == 1:
        mask = w.value(masks[0])
        mask = _reshape(w, mask, (*w.shape(mask), *(1,) * (rank - len(w.shape(mask)))))
        return w.op("Where", mask, _operand(w, values, c.dtype), x)
    update = _operand(w, values, c.dtype)
    if masks:
        w.note(f"{c.name}: a mask was taken to select as many elements as there are values")
        return w.op("ScatterND", x, w.weight((*w.shape(update), rank), "int64"), update)
    axes = [axis for axis, _ in given]
    rest = [axis for axis in range(rank) if axis not in axes]
    places = _joined_indices(w, [_operand(w, index, "int64") for _, index in given])
    found = w.shape(places)[:-1]
    lead = axes[0] if axes == list(range(axes[0], axes[-1] + 1)) else 0
    tail = [w.shape(x)[axis] for axis in rest]
    update = _expanded(w, update, (*tail[:lead], *found, *tail[lead:]))
    count = lead + len(found)
    update = _transpose(
        w, update, (*range(lead, count), *range(lead), *range(count, count + len(tail) - lead))
    )
    front = (*axes, *rest)
    placed = w.op(
        "ScatterND", _transpose(w, x, front), places, update, reduction="add" if c["accumulate"] else "none"
    )
    return _transpose(w, placed, tuple(front.index(axis) for axis in range(rank)))


def _gather(w: Writer, c: Call) -> str:
    return w.op(
        "GatherElements", w.value(c["self"]), w.value(c["index"]), axis=_axis(c["dim"], c.first.dim())
    )


def _index_select(w: Writer, c: Call) -> str:
    return w.op("Gather", w.value(c["self"]), w.value(c["index"]), axis=_axis(c["dim"], c.first.dim()))


def _scatter(reduction: str) -> Row:
    def row(w: Writer, c: Call) -> str:
        index = w.value(c["index"])
        if c["src"] is None:
            update = w.op("Expand", w.const(c["value"], c.dtype), w.const(w.shape(index)))
        else:
            update = _operand(w, c["src"], c.dtype)
        axis = _axis(c["dim"], c.first.dim())
        return w.op("ScatterElements", w.value(c["self"]), index, update, axis=axis, reduction=reduction)

    return row


def _embedding(w: Writer, c: Call) -> str:
    return w.op("Gather", w.value(c["weight"]), w.value(c["indices"]), axis=0)


def _renormalised(w: Writer, c: Call) -> str:
    w.note("an embedding with max_norm was read without the renormalisation of its rows")
    return w.value(c["self"])


def _embedding_bag(w: Writer, c: Call) -> Written:
    """Rows are looked up and reduced bag by bag; bags have one size."""
    indices, bags = w.value(c["indices"]), c.shape[0]
    count = math.prod(w.shape(indices))
    if count % bags:
        raise UnsupportedOperatorError(
            f"an embedding bag of {count} indices in {bags} bags has bags of several sizes, which are read as "
            "one size only; give a number of indices that the number of bags divides"
        )
    if bags > 1:
        w.note(f"{count} indices were taken to be spread evenly over {bags} bags")
    rows = w.op("Gather", w.value(c["weight"]), _reshape(w, indices, (bags, count // bags)), axis=0)
    if c["per_sample_weights"] is not None:
        scale = _reshape(w, w.value(c["per_sample_weights"]), (bags, count // bags, 1))
        rows = w.op("Mul", rows, scale)
    return (_reduce(w, ("ReduceSum", "ReduceMean", "ReduceMax")[c["mode"]], rows, (1,), False), "", "", "")


def _unfold(w: Writer, c: Call) -> str:
    """Windows along one axis: picked by a constant index, the axis within a window moved to the end."""
    x = w.value(c.first)
    rank = len(w.shape(x))
    axis = _axis(c["dimension"], rank)
    count, size = (w.shape(x)[axis] - c["size"]) // c["step"] + 1, c["size"]
    picked = w.op("Gather", x, w.weight((count, size), "int64"), axis=axis)
    return _transpose(w, picked, (*range(axis + 1), *range(axis + 2, rank + 1), axis + 1))


def _as_strided(w: Writer, c: Call) -> str:
    """Elements by their place in memory: picked by a constant index."""
    x = w.value(c.first)
    flat = _reshape(w, x, (math.prod(w.shape(x)),))
    return w.op("Gather", flat, w.weight(c.shape, "int64"), axis=0)


def _im2col(w: Writer, c: Call) -> str:
    """Patches as columns: padded, rows and columns picked by constants, as the TorchScript exporter does."""
    x = w.value(c.first)
    n, channels = w.shape(x)[:2]
    (kh, kw), (ph, pw) = _tuple(c["kernel_size"], 2), _tuple(c["padding"], 2)
    if ph or pw:
        x = w.op("Pad", x, w.const((0, 0, ph, pw, 0, 0, ph, pw)), w.const(0.0, c.dtype), mode="constant")
    height, width = w.shape(x)[2:]
    (dh, dw), (sh, sw) = _tuple(c["dilation"], 2), _tuple(c["stride"], 2)
    rows, columns = (height - dh * (kh - 1) - 1) // sh + 1, (width - dw * (kw - 1) - 1) // sw + 1
    x = w.op("Gather", x, w.weight((kh, rows), "int64"), axis=2)
    x = w.op("Gather", x, w.weight((kw, columns), "int64"), axis=4)
    return w.op(
        "Reshape", _transpose(w, x, (0, 1, 2, 4, 3, 5)), w.const((n, channels * kh * kw, rows * columns))
    )


def _col2im(w: Writer, c: Call) -> str:
    pads = _tuple(c["padding"], 2) * 2
    return w.op(
        "Col2Im", w.value(c.first), w.const(tuple(c["output_size"])), w.const(_tuple(c["kernel_size"], 2)),
        dilations=_tuple(c["dilation"], 2), pads=pads, strides=_tuple(c["stride"], 2),
    )  # fmt: skip


def _pixel_shuffle(w: Writer, c: Call) -> str:
    x = w.value(c.first)
    images = _reshape(w, x, (math.prod(w.shape(x)[:-3]), *w.shape(x)[-3:]))
    return _reshape(w, w.op("DepthToSpace", images, blocksize=c["upscale_factor"], mode="CRD"), c.shape)


def _pixel_unshuffle(w: Writer, c: Call) -> str:
    x, block = w.value(c.first), c["downscale_factor"]
    *lead, height, width = w.shape(x)
    rank = len(lead)
    apart = _reshape(w, x, (*lead, height // block, block, width // block, block))
    return _reshape(w, _transpose(w, apart, (*range(rank), rank + 1, rank + 3, rank, rank + 2)), c.shape)


def _channel_shuffle(w: Writer, c: Call) -> str:
    x, groups = w.value(c.first), c["groups"]
    n, channels, *rest = w.shape(x)
    apart = w.op("Reshape", x, w.const((n, groups, channels // groups, *rest)))
    swapped = _transpose(w, apart, (0, 2, 1, *range(3, 3 + len(rest))))
    return w.op("Reshape", swapped, w.const((n, channels, *rest)))


def _grid_sample(w: Writer, c: Call) -> str:
    mode = ("linear", "nearest", "cubic")[c["interpolation_mode"]]
    padding = ("zeros", "border", "reflection")[c["padding_mode"]]
    return w.op(
        "GridSample", w.value(c.first), w.value(c["grid"]),
        align_corners=int(c["align_corners"]), mode=mode, padding_mode=padding,
    )  # fmt: skip


def _cumsum(w: Writer, c: Call) -> str:
    return w.op("CumSum", _operand(w, c.first, c.dtype), w.const(_axis(c["dim"], c.first.dim())))


def _topk(w: Writer, c: Call) -> Written:
    axis = _axis(c["dim"], c.first.dim())
    return w.multi("TopK", (w.value(c.first), w.const((c["k"],))), 2, axis=axis, largest=int(c["largest"]))


def _sort(w: Writer, c: Call) -> Written:
    axis = _axis(c["dim"], c.first.dim())
    count = w.const((c.first.shape[axis],))
    return w.multi("TopK", (w.value(c.first), count), 2, axis=axis, largest=int(bool(c["descending"])))


def _triangle(upper: int) -> Row:
    def row(w: Writer, c: Call) -> str:
        return w.op("Trilu", w.value(c.first), w.const(c["diagonal"]), upper=upper)

    return row


def _copy(w: Writer, c: Call) -> str:
    source = _operand(w, c["src"], c.dtype)
    return _expanded(w, source, c.shape)


def _fill(w: Writer, c: Call) -> str:
    if _is_tensor(c["value"]):
        return w.op("Expand", _operand(w, c["value"], c.dtype), w.const(c.shape))
    return w.weight(c.shape, c.dtype)


def recurrent(op_type: str, gates: int, **attrs: Attr) -> Row:
    """LSTM, GRU and plain cells: one node for each layer; weights as ONNX stacks them, by direction."""

    def row(w: Writer, c: Call) -> Written:
        if len(c.outs) > 2 and c.outs[1].shape[-1] != c.outs[2].shape[-1]:
            raise UnsupportedOperatorError(
                f"{op_type} with proj_size has no counterpart in ONNX; replace it by an {op_type} and a Linear"
            )
        x, states = w.value(c["input"]), c["hx"] if isinstance(c["hx"], list | tuple) else [c["hx"]]
        directions = 2 if c["bidirectional"] else 1
        hidden, dtype = c.outs[1].shape[-1], c.dtype
        if c["batch_first"]:
            x = _transpose(w, x, (1, 0, 2))
        initial = [w.value(state) for state in states]
        ends: list[list[str]] = [[] for _ in initial]
        for layer in range(c["num_layers"]):
            rows = gates * hidden
            length, batch, width = w.shape(x)
            bias = w.weight((directions, 2 * rows), dtype) if c["has_biases"] else ""
            weights = [w.weight((directions, rows, size), dtype) for size in (width, hidden)]
            first = [_slice(w, name, 0, layer * directions, (layer + 1) * directions) for name in initial]
            out, *last = w.multi(
                op_type,
                (x, *weights, bias, "", *first),
                1 + len(initial),
                hidden_size=hidden,
                direction="bidirectional" if directions == 2 else "forward",
                **attrs,
            )  # fmt: skip
            for names, name in zip(ends, last, strict=True):
                names.append(name)
            x = w.op(
                "Reshape", _transpose(w, out, (0, 2, 1, 3)), w.const((length, batch, directions * hidden))
            )
        finals = [names[0] if len(names) == 1 else w.op("Concat", *names, axis=0) for names in ends]
        return (_transpose(w, x, (1, 0, 2)) if c["batch_first"] else x, *finals)

    return row


def _each(names: str, row: Row) -> dict[str, Row]:
    return dict.fromkeys(names.split(), row)


SHAPE_ONLY = frozenset(
    [
        *("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "new_zeros"),
        *("new_ones", "new_full", "new_empty", "new_empty_strided", "new_tensor"),
    ]
)
"""Operators that take a tensor only for its shape; what they make is constant."""

SHAPED: dict[str, Callable[[Any, Any], tuple[int, ...]]] = {
    "_grouped_mm": lambda rows, matrices: (*rows.shape[:-1], matrices.shape[-1]),
}
"""Result shape from the first two arguments, where PyTorch refuses on ``meta`` what it computes elsewhere."""

OPERATORS: dict[str, Row] = {
    **_each(
        "alias contiguous clone detach dropout alpha_dropout feature_dropout feature_alpha_dropout "
        "identity lift "
        "lift_fresh requires_grad resolve_conj resolve_neg positive view_as_real_copy",
        keep,
    ),
    **_each("_assert_async _assert_scalar _functional_assert_async", nothing),
    **_each("to _to_copy type_as float half", _to),
    **_each("view reshape _unsafe_view view_as reshape_as unflatten _reshape_alias", _view),
    **{
        name: unary(name.capitalize())
        for name in (
            *("abs", "acos", "asin", "atan", "ceil", "cos", "cosh", "erf", "exp", "floor", "log", "neg"),
            *("reciprocal", "relu", "round", "selu", "sigmoid", "sign", "sin", "sinh", "sqrt", "tan", "tanh"),
        )
    },
    **_each("logical_not bitwise_not", unary("Not")),
    "isnan": predicate("IsNaN"),
    "isinf": predicate("IsInf"),
    "hardswish": unary("HardSwish"),
    "hardsigmoid": _hard_sigmoid,
    "log_sigmoid": chain("Sigmoid", "Log"),
    "softsign": unary("Softsign"),
    "relu6": _relu6,
    "gelu": _gelu,
    "silu": _silu,
    "mish": _mish,
    "glu": _glu,
    "leaky_relu": _leaky_relu,
    "rrelu": _rrelu,
    "hardshrink": shrink(biased=False),
    "softshrink": shrink(biased=True),
    "elu": _elu,
    "celu": _elu,
    "prelu": _prelu,
    "_prelu_kernel": _prelu,
    "softplus": _softplus,
    "threshold": _threshold,
    "hardtanh": _clip("min_val", "max_val"),
    "clamp": _clip("min", "max"),
    "clip": _clip("min", "max"),
    "clamp_min": _clip("min", "max"),
    "clamp_max": _clip("min", "max"),
    **_each("softmax _softmax _safe_softmax", _softmax("Softmax")),
    **_each("log_softmax _log_softmax", _softmax("LogSoftmax")),
    "rsqrt": _rsqrt,
    "expm1": _expm1,
    "log1p": _log1p,
    "square": _square,
    "add": binary("Add"),
    "sub": binary("Sub"),
    "mul": binary("Mul"),
    "multiply": binary("Mul"),
    "rsub": _rsub,
    **_each("div divide true_divide floor_divide", _div),
    "pow": binary("Pow"),
    "remainder": binary("Mod"),
    "fmod": binary("Mod"),
    "maximum": binary("Max"),
    "minimum": binary("Min"),
    "addcmul": _addcmul("Mul"),
    "addcdiv": _addcmul("Div"),
    "eq": compare("Equal"),
    "ne": compare("Equal", negate=True),
    "gt": compare("Greater"),
    "ge": compare("GreaterOrEqual"),
    "lt": compare("Less"),
    "le": compare("LessOrEqual"),
    **_each("logical_and bitwise_and __and__ __iand__", logical("And")),
    **_each("logical_or bitwise_or __or__ __ior__", logical("Or")),
    **_each("logical_xor bitwise_xor __xor__", logical("Xor")),
    "where": _where,
    "masked_fill": _masked_fill,
    "linear": _linear,
    **_each("matmul mm bmm mv dot", _matmul),
    "addmm": _addmm,
    "baddbmm": _baddbmm,
    "einsum": _einsum,
    "bilinear": _bilinear,
    "_grouped_mm": _grouped_mm,
    "histc": _histogram,
    "scaled_dot_product_attention": _attention,
    "conv1d": convolution(1),
    "conv2d": convolution(2),
    "conv3d": convolution(3),
    "convolution": convolution(0),
    "_convolution": convolution(0),
    "conv_transpose1d": convolution(1, transposed=True),
    "conv_transpose2d": convolution(2, transposed=True),
    "conv_transpose3d": convolution(3, transposed=True),
    **_each("batch_norm native_batch_norm _native_batch_norm_legit_no_training", _batch_norm),
    **_each("layer_norm native_layer_norm", _layer_norm),
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    **{f"max_pool{n}d": max_pool(n) for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices": max_pool(n, indices=True) for n in (1, 2, 3)},
    **{f"avg_pool{n}d": avg_pool(n) for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d": adaptive_pool(n, "Average") for n in (1, 2, 3)},
    **{f"_adaptive_avg_pool{n}d": adaptive_pool(n, "Average") for n in (2, 3)},
    **{f"adaptive_max_pool{n}d": adaptive_pool(n, "Max") for n in (1, 2, 3)},
    **{f"fractional_max_pool{n}d": fractional_pool(n) for n in (2, 3)},
    **{f"max_unpool{n}d": max_unpool(n) for n in (2, 3)},
    **{f"upsample_nearest{n}d": resize("nearest", "asymmetric", nearest_mode="floor") for n in (1, 2, 3)},
    **{
        f"_upsample_nearest_exact{n}d": resize("nearest", "half_pixel", nearest_mode="round_prefer_ceil")
        for n in (1, 2, 3)
    },
    **_each("upsample_linear1d upsample_bilinear2d upsample_trilinear3d", resize("linear")),
    "_upsample_bilinear2d_aa": resize("linear", antialias=1),
    "upsample_bicubic2d": resize("cubic", cubic_coeff_a=-0.75),
    "_upsample_bicubic2d_aa": resize("cubic", cubic_coeff_a=-0.5, antialias=1),
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    **_each("channel_shuffle native_channel_shuffle", _channel_shuffle),
    **_each("grid_sampler grid_sampler_2d grid_sampler_3d", _grid_sample),
    **_each("pad constant_pad_nd", pad("constant")),
    **{f"reflection_pad{n}d": pad("reflect") for n in (1, 2, 3)},
    **{f"replication_pad{n}d": pad("edge") for n in (1, 2, 3)},
    "unfold": _unfold,
    "as_strided": _as_strided,
    "im2col": _im2col,
    "col2im": _col2im,
    "mean": reduce("ReduceMean"),
    "sum": reduce("ReduceSum"),
    "prod": reduce("ReduceProd"),
    "amax": reduce("ReduceMax"),
    "amin": reduce("ReduceMin"),
    "any": reduce("ReduceMax"),
    "all": reduce("ReduceMin"),
    "logsumexp": reduce("ReduceLogSumExp"),
    "max": extreme("ReduceMax", "ArgMax"),
    "min": extreme("ReduceMin", "ArgMin"),
    "argmax": arg_extreme("ArgMax"),
    "argmin": arg_extreme("ArgMin"),
    "var": _variance(root=False, mean_too=False),
    "std": _variance(root=True, mean_too=False),
    "var_mean": _variance(root=False, mean_too=True),
    "std_mean": _variance(root=True, mean_too=True),
    **_each("linalg_vector_norm norm", _norm),
    "cumsum": _cumsum,
    "topk": _topk,
    "sort": _sort,
    "tril": _triangle(0),
    "triu": _triangle(1),
    "flatten": _flatten,
    "permute": _permute,
    "movedim": _movedim,
    "transpose": _transpose_pair("dim0", "dim1"),
    "swapaxes": _transpose_pair("axis0", "axis1"),
    "swapdims": _transpose_pair("dim0", "dim1"),
    **_each("t numpy_T mT", _transposed),
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    **_each("expand expand_as broadcast_to", _expand),
    **_each("repeat tile", _repeat),
    "repeat_interleave": _repeat_interleave,
    "slice": _slice_row,
    "narrow": _narrow,
    "select": _select,
    "unbind": _unbind,
    **_each("split split_with_sizes chunk tensor_split unsafe_split unsafe_chunk", _split),
    **_each("cat concat concatenate", _concat),
    "stack": _stack,
    "flip": _flip,
    "roll": _roll,
    **_each("index _unsafe_index", _index),
    "index_put": _index_put,
    "index_select": _index_select,
    "gather": _gather,
    "scatter": _scatter("none"),
    "scatter_add": _scatter("add"),
    "embedding": _embedding,
    "embedding_renorm": _renormalised,
    **_each("_embedding_bag _embedding_bag_forward_only", _embedding_bag),
    "copy": _copy,
    **_each("fill zero", _fill),
    "lstm": recurrent("LSTM", 4),
    "gru": recurrent("GRU", 3),
    "rnn_tanh": recurrent("RNN", 1, activations="Tanh"),
    "rnn_relu": recurrent("RNN", 1, activations="Relu"),
}  # fmt: skip
