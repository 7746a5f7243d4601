"""Matrix products, attention and recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence

from nn_meter.ir.shapes._dtypes import dtype_of
from nn_meter.ir.shapes._site import Out, Rule, Shape, ShapeError, Site, axis_in, broadcast


def product_of(a: Shape, b: Shape) -> Shape:
    """Shape of ``numpy.matmul`` of operands of the shapes ``a`` and ``b``."""
    if not a or not b:
        raise ShapeError(f"a scalar in a matrix product of {a} and {b}")
    rows = a[-2:-1]
    columns = b[-1:] if len(b) > 1 else ()
    if a[-1] != (b[-2] if len(b) > 1 else b[0]):
        raise ShapeError(f"matrices {a} and {b} do not fit")
    return broadcast(a[:-2], b[:-2]) + rows + columns


def _matmul(s: Site) -> Sequence[Out]:
    a = s.tensor(0)
    return ((product_of(a.shape, s.shape(1)), a.dtype),)


def _matmul_integer(s: Site) -> Sequence[Out]:
    return ((product_of(s.shape(0), s.shape(1)), "int32"),)


def _qlinear_matmul(s: Site) -> Sequence[Out]:
    return ((product_of(s.shape(0), s.shape(3)), s.dtype(7)),)


def _gemm(s: Site) -> Sequence[Out]:
    a = s.tensor(0)
    m, k = a.shape[::-1] if s.whole("transA", 0) else a.shape
    k_b, n = s.shape(1)[::-1] if s.whole("transB", 0) else s.shape(1)
    if k != k_b:
        raise ShapeError(f"matrices {a.shape} and {s.shape(1)} do not fit")
    bias = s.optional(2)
    if bias is not None and broadcast((m, n), bias.shape) != (m, n):
        raise ShapeError(f"the bias {bias.shape} does not fit the product {(m, n)}")
    return (((m, n), a.dtype),)


def _fused_matmul(s: Site) -> Sequence[Out]:
    def turned(shape: Shape, side: str) -> Shape:
        if s.whole(f"transBatch{side}", 0) and len(shape) > 2:  # the batch lies between rows and columns
            shape = (*shape[1:-1], shape[0], shape[-1])
        return (*shape[:-2], shape[-1], shape[-2]) if s.whole(f"trans{side}", 0) and len(shape) > 1 else shape

    return ((product_of(turned(s.shape(0), "A"), turned(s.shape(1), "B")), s.dtype(0)),)


def _packed(s: Site) -> Sequence[Out]:
    """Weights of a few bits each, in blocks."""
    block, bits = s.whole("block_size", 1), s.whole("bits", 4)
    if min(block, bits) < 1:
        raise ShapeError(f"blocks of {block} weights of {bits} bits each")
    return (((*s.shape(0)[:-1], s.whole("N")), s.dtype(0)),)


def _einsum(s: Site) -> Sequence[Out]:
    equation = s.text("equation", "").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(s.inputs):
        raise ShapeError(f"the equation {equation!r} has {len(terms)} terms for {len(s.inputs)} inputs")
    sizes: dict[str, int] = {}
    batch: Shape = ()
    for index, term in enumerate(terms):
        shape = s.shape(index)
        head, dots, tail = term.partition("...")
        free = len(shape) - len(head) - len(tail)
        if free < 0 or (free and not dots):
            raise ShapeError(f"the term {term!r} does not fit input {index} of shape {shape}")
        batch = broadcast(batch, shape[len(head) : len(head) + free])
        named = shape[: len(head)] + shape[len(shape) - len(tail) :]
        for letter, dim in zip(head + tail, named, strict=True):
            known = sizes.get(letter, 1)
            if known != dim and known != 1 and dim != 1:
                raise ShapeError(f"the index {letter!r} of {equation!r} is {known} and {dim}")
            sizes[letter] = max(known, dim) if known and dim else 0
    if not arrow:
        letters = "".join(terms).replace(".", "")
        once = "".join(sorted(letter for letter in sizes if letters.count(letter) == 1))
        right = ("..." if "..." in left else "") + once
    head, dots, tail = right.partition("...")
    out = (*(sizes[letter] for letter in head), *(batch if dots else ()), *(sizes[letter] for letter in tail))
    return ((out, s.dtype(0)),)


def _attention(s: Site) -> Sequence[Out]:
    """Attention of opset 23 and above, both layouts (https://onnx.ai/onnx/operators/onnx__Attention.html)."""
    q = s.tensor(0)
    k = s.shape(1)
    v = s.shape(2)
    if len(q.shape) == 4:
        batch, heads, length, _ = q.shape
        key_heads, key_length, head_size = k[1:]
        value_size = v[3]
        lengths = s.optional(6)  # of each sample's keys; one sample of queries serves several in ONNX Runtime 1.32
        several = lengths.shape[0] if lengths is not None and lengths.shape and batch == 1 else batch
        out: Shape = (several, heads, length, value_size)
    else:
        batch, length, _ = q.shape
        heads = s.whole("q_num_heads")
        key_heads = s.whole("kv_num_heads")
        key_length, head_size = k[1], k[2] // key_heads
        value_size = v[2] // key_heads
        out = (batch, length, heads * value_size)
    past = s.optional(4)
    total = key_length + (past.shape[2] if past is not None else 0)
    return (
        (out, q.dtype),
        ((batch, key_heads, total, head_size), s.dtype(1)),
        ((batch, key_heads, total, value_size), s.dtype(2)),
        ((batch, heads, length, total), q.dtype),
    )


def _ms_attention(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    batch, length, _ = x.shape
    sizes = s.ints("qkv_hidden_sizes")
    hidden = sizes[2] if sizes else s.shape(1)[1] // 3
    heads = s.whole("num_heads")
    past = s.optional(4)
    total = length + (past.shape[3] if past is not None else 0)
    return (
        ((batch, length, hidden), x.dtype),
        ((2, batch, heads, total, hidden // heads), x.dtype),
    )


def _ms_multi_head(s: Site) -> Sequence[Out]:
    q = s.tensor(0)
    heads = s.whole("num_heads")
    batch, length = q.shape[:2]
    key, value = s.optional(1), s.optional(2)
    if len(q.shape) == 5:  # queries, keys and values packed: (batch, length, heads, 3, size)
        head_size = value_size = q.shape[4]
        key_length = length
    elif key is None:
        raise ShapeError("input 1 (the keys) is missing")
    else:
        head_size = q.shape[2] // heads
        key_length = key.shape[2] if len(key.shape) == 4 else key.shape[1]
        if value is None:  # keys and values packed: (batch, length, heads, 2, size)
            value_size = key.shape[4]
        else:
            value_size = value.shape[3] if len(value.shape) == 4 else value.shape[2] // heads
    past = s.optional(6)
    total = key_length + (past.shape[2] if past is not None else 0)
    width = value.shape[2] if value is not None and len(value.shape) == 3 else heads * value_size
    return (
        ((batch, length, width), q.dtype),
        ((batch, heads, total, head_size), q.dtype),
        ((batch, heads, total, value_size), q.dtype),
    )


def _ms_group_query(s: Site) -> Sequence[Out]:
    q = s.tensor(0)
    batch, length, width = q.shape
    heads, key_heads = s.whole("num_heads"), s.whole("kv_num_heads")
    size = width // heads if s.optional(1) is not None else width // (heads + 2 * key_heads)
    past, total = s.optional(3), s.optional(6)
    before = past.shape[2] if past is not None else 0
    known = int(total.value[0]) if total is not None and total.value else before + length
    present = (batch, key_heads, max(known, before), size)  # a buffer for more than there is stays as long
    kept = past.dtype if past is not None else q.dtype
    return (((batch, length, heads * size), q.dtype), (present, kept), (present, kept))


def _embed_layer_norm(s: Site) -> Sequence[Out]:
    batch, length = s.shape(0)
    table = s.tensor(2)
    out = ((batch, length, table.shape[1]), table.dtype)
    return (out, ((batch,), "int32"), out)


def _recurrent(s: Site) -> Sequence[Out]:
    """LSTM, GRU and RNN (https://onnx.ai/onnx/operators/onnx__LSTM.html)."""
    x = s.tensor(0)
    length, batch, _ = x.shape
    hidden = s.attrs.get("hidden_size", s.shape(2)[-1])
    if not isinstance(hidden, int):
        raise ShapeError("attribute 'hidden_size' is no integer")
    directions = 2 if s.text("direction", "forward") == "bidirectional" else 1
    if s.whole("layout", 0):
        length, batch = batch, length
        full: Shape = (batch, length, directions, hidden)
        last: Shape = (batch, directions, hidden)
    else:
        full = (length, directions, batch, hidden)
        last = (directions, batch, hidden)
    return ((full, x.dtype), (last, x.dtype), (last, x.dtype))


def _dft(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    rank = len(x.shape)
    axis = axis_in(s.dims(2)[0] if s.optional(2) is not None else s.whole("axis", -2), rank)
    shape = list(x.shape)
    inverse, onesided = s.whole("inverse", 0), s.whole("onesided", 0)
    known = 2 * (x.shape[axis] - 1) if onesided and inverse else x.shape[axis]
    length = s.dims(1)[0] if s.optional(1) is not None else known
    shape[axis] = length // 2 + 1 if onesided and not inverse else length
    shape[-1] = 1 if onesided and inverse else 2
    return ((tuple(shape), x.dtype),)


def _stft(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    step = s.dims(1)[0]
    window = s.optional(2)
    length = s.dims(3)[0] if s.optional(3) is not None else window.shape[0] if window is not None else 0
    if length < 1 or step < 1:
        raise ShapeError("neither a window nor a frame length is given")
    bins = length // 2 + 1 if s.whole("onesided", 1) else length
    return (((x.shape[0], (x.shape[1] - length) // step + 1, bins, 2), x.dtype),)


def _linear_attention(s: Site) -> Sequence[Out]:
    """Attention without softmax, of opset 27: results, and the state of each key head."""
    q, k, v = s.tensor(0), s.shape(1), s.shape(2)
    heads, key_heads = s.whole("q_num_heads"), s.whole("kv_num_heads")
    size = v[2] // key_heads
    return (
        ((q.shape[0], q.shape[1], heads * size), q.dtype),
        ((q.shape[0], key_heads, k[2] // key_heads, size), q.dtype),
    )


def _window(s: Site) -> Sequence[Out]:
    return (((s.dims(0)[0],), dtype_of(s.whole("output_datatype", 1))),)


def _mel(s: Site) -> Sequence[Out]:
    return (((s.dims(1)[0] // 2 + 1, s.dims(0)[0]), dtype_of(s.whole("output_datatype", 1))),)


def _det(s: Site) -> Sequence[Out]:
    return ((s.shape(0)[:-2], s.dtype(0)),)


RULES: dict[str, Rule] = {
    "MatMul": _matmul,
    "MatMulInteger": _matmul_integer,
    "QLinearMatMul": _qlinear_matmul,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "Det": _det,
    "Attention": _attention,
    "LinearAttention": _linear_attention,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "DFT": _dft,
    "STFT": _stft,
    "HannWindow": _window,
    "HammingWindow": _window,
    "BlackmanWindow": _window,
    "MelWeightMatrix": _mel,
}

MICROSOFT: dict[str, Rule] = {
    "FusedMatMul": _fused_matmul,
    "TransposeMatMul": _fused_matmul,
    "FusedGemm": _gemm,
    "AttnLSTM": _recurrent,
    "MatMulBnb4": _packed,
    "MatMulNBits": _packed,
    "Attention": _ms_attention,
    "MultiHeadAttention": _ms_multi_head,
    "GroupQueryAttention": _ms_group_query,
    "EmbedLayerNormalization": _embed_layer_norm,
}
