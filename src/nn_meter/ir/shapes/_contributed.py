"""Operators of com.microsoft on integers and packed weights, and those around attention
(https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md)."""

from __future__ import annotations

from collections.abc import Sequence

from nn_meter.ir.shapes._elementwise import same
from nn_meter.ir.shapes._linear import product_of
from nn_meter.ir.shapes._site import Out, Rule, Shape, ShapeError, Site, axis_in, broadcast, product
from nn_meter.ir.shapes._spatial import windows


def _binary(s: Site) -> Sequence[Out]:
    return ((broadcast(s.shape(0), s.shape(3)), s.dtype(0)),)


def _concat(s: Site) -> Sequence[Out]:
    first = s.tensor(2)
    axis = axis_in(s.whole("axis", 1), len(first.shape))
    shape = list(first.shape)
    shape[axis] = sum(s.shape(place)[axis] for place in range(2, len(s.inputs), 3))
    return ((tuple(shape), first.dtype),)


def _where(s: Site) -> Sequence[Out]:
    return ((broadcast(broadcast(s.shape(0), s.shape(1)), s.shape(4)), s.dtype(1)),)


def _gemm(s: Site) -> Sequence[Out]:
    a, b = s.tensor(0), s.shape(3)
    m, k = a.shape[::-1] if s.whole("transA", 0) else a.shape
    k_b, n = b[::-1] if s.whole("transB", 0) else b
    if k != k_b:
        raise ShapeError(f"matrices {a.shape} and {b} do not fit")
    return (((m, n), s.dtype(8) if s.optional(8) is not None else "float32"),)


def _to_float(s: Site) -> Sequence[Out]:
    return ((product_of(s.shape(0), s.shape(1)), s.dtype(2)),)


def _dynamic_matmul(s: Site) -> Sequence[Out]:
    return ((product_of(s.shape(0), s.shape(1)), s.dtype(0)),)


def _integer_matmul(s: Site) -> Sequence[Out]:
    return ((product_of(s.shape(0), s.shape(1)), "int32"),)


def _lstm(s: Site) -> Sequence[Out]:
    """Weights lie transposed: (directions, inputs, 4 hidden)."""
    x = s.tensor(0)
    length, batch, _ = x.shape
    hidden = s.shape(1)[2] // 4
    directions = 2 if s.text("direction", "forward") == "bidirectional" else 1
    last: Shape = (directions, batch, hidden)
    return (((length, directions, batch, hidden), x.dtype), (last, x.dtype), (last, x.dtype))


def _gather_blocks(s: Site) -> Sequence[Out]:
    """Values of less than 8 bits lie packed along the quantised axis where the type is uint8."""
    data = s.tensor(0)
    shape = list(data.shape)
    rank = len(shape)
    if data.dtype == "uint8":
        shape[axis_in(s.whole("quantize_axis", 1), rank)] *= 8 // s.whole("bits", 4)
    axis = axis_in(s.whole("gather_axis", 0), rank)
    return (((*shape[:axis], *s.shape(1), *shape[axis + 1 :]), s.dtype(2)),)


def _quantised_attention(s: Site) -> Sequence[Out]:
    batch, length, _ = s.shape(0)
    hidden, heads = s.shape(1)[1] // 3, s.whole("num_heads")
    past = s.optional(8)
    total = length + (past.shape[3] if past is not None else 0)
    dtype = s.dtype(3)
    return (((batch, length, hidden), dtype), ((2, batch, heads, total, hidden // heads), dtype))


def _decoder_attention(s: Site) -> Sequence[Out]:
    """One step: queries of one position; keys and values of the past, in a buffer or one longer."""
    q = s.tensor(0)
    batch, length, width = q.shape
    heads = s.whole("num_heads")
    key, value, past = s.optional(1), s.optional(2), s.optional(5)
    hidden = width if key is not None else width // 3
    value_size = value.shape[-1] // (1 if len(value.shape) == 4 else heads) if value is not None else hidden // heads
    if past is None:
        total = key.shape[-2] if key is not None else length
    else:
        total = past.shape[2] + (0 if s.whole("past_present_share_buffer", 0) else length)
    return (
        ((batch, length, heads * value_size), q.dtype),
        ((batch, heads, total, hidden // heads), q.dtype),
        ((batch, heads, total, value_size), q.dtype),
        ((batch, heads, length, total), q.dtype),
    )


def _sparse_attention(s: Site) -> Sequence[Out]:
    q = s.tensor(0)
    batch, length, width = q.shape
    heads, key_heads = s.whole("num_heads"), s.whole("kv_num_heads")
    size = width // heads if s.optional(1) is not None else width // (heads + 2 * key_heads)
    past = s.shape(3)
    return (((batch, length, heads * size), q.dtype), (past, q.dtype), (past, q.dtype))


def _channels_last_pool(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    kernel, space = s.ints("kernel_shape"), x.shape[1:-1]
    if kernel is None or len(kernel) != len(space):
        raise ShapeError(f"attribute 'kernel_shape' is {kernel}, the input {x.shape}")
    return (((x.shape[0], *windows(s, space, kernel, pooled=True), x.shape[-1]), x.dtype),)


def _embed(s: Site) -> Sequence[Out]:
    batch, length = s.shape(0)
    return (((batch, length, s.shape(2)[1]), s.dtype(8)), ((batch,), "int32"))


def _distances(s: Site) -> Sequence[Out]:
    return (((s.shape(0)[0], s.shape(1)[0]), s.dtype(0)),)


def _expand_dims(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    axis = int(s.dims(1)[0])
    place = axis + len(x.shape) + 1 if axis < 0 else axis
    return (((*x.shape[:place], 1, *x.shape[place:]), x.dtype),)


def _grouped(s: Site) -> tuple[Shape, int]:
    """Shape of streams before their branches, and the width of one: (..., branches, width), or both in one axis."""
    shape, branches = s.shape(0), s.whole("num_branches", 0)
    if branches:
        return shape[:-1], shape[-1] // branches
    return shape[:-2], shape[-1]


def _mixed_before(s: Site) -> Sequence[Out]:
    lead, width = _grouped(s)
    return (((*lead, width), s.dtype(0)),)


def _engram_gate(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    return ((x.shape, x.dtype), (x.shape, x.dtype))


def _group_router(s: Site) -> Sequence[Out]:
    x, weights = s.tensor(0), s.optional(2)
    shape = (product(x.shape[:-1]), x.shape[-1] if weights is None else weights.shape[0])
    return ((shape, x.dtype), (shape, "float32"), (shape, "float32"))


def _linear_attention(s: Site) -> Sequence[Out]:
    """Results of as many heads as there are more of, and the state of each head of values."""
    q, v = s.tensor(0), s.shape(2)
    heads, key_heads = s.whole("q_num_heads"), s.whole("kv_num_heads")
    size = v[2] // key_heads
    batch, length, width = q.shape
    state = (batch, key_heads, width // heads, size)
    return (((batch, length, max(heads, key_heads) * size), q.dtype), (state, q.dtype))


def _linear_attention_gate(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    return ((x.shape, x.dtype), (x.shape, x.dtype))


def _delta_net(s: Site) -> Sequence[Out]:
    """Tokens of all requests in one row; the state that each request starts from says the sizes of heads."""
    q, key, value, state = s.tensor(0), s.optional(1), s.optional(2), s.optional(6)
    if len(q.shape) == 4 and key is not None and value is not None:  # requests of one length each
        batch, length, heads, _ = q.shape
        own, size = value.shape[2:]
        held = state.shape if state is not None else (batch, own, size, key.shape[3])
        return (((batch, length, max(heads, own), size), q.dtype), (held, state.dtype if state else "float32"))
    if state is not None:
        heads, size = state.shape[1:3]
    elif value is not None and key is not None:
        heads, size = value.shape[1:3]
        starts = s.optional(3)
        requests = starts.shape[0] - 1 if starts is not None else 1
        return (
            ((q.shape[0], max(q.shape[1], heads), size), q.dtype),
            ((requests, heads, size, key.shape[2]), "float32"),
        )
    else:
        raise ShapeError("packed queries, keys and values need the state that they start from")
    wide = q.shape[1] if len(q.shape) == 3 and key is not None else heads
    return (((q.shape[0], max(wide, heads), size), q.dtype), (state.shape, state.dtype))


def _ragged_conv(s: Site) -> Sequence[Out]:
    x, state = s.tensor(0), s.tensor(4)
    return ((x.shape, x.dtype), (state.shape, state.dtype))


def _unfold(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    dim, width, step = axis_in(s.whole("dim", -1), len(x.shape)), s.whole("size"), s.whole("step", 1)
    if step < 1 or not 0 < width <= x.shape[dim]:
        raise ShapeError(f"pieces of {width} in steps of {step} of a dimension of {x.shape[dim]}")
    count = (x.shape[dim] - width) // step + 1
    return (((*x.shape[:dim], count, *x.shape[dim + 1 :], width), x.dtype),)


def _crop_and_resize(s: Site) -> Sequence[Out]:
    x = s.tensor(0)
    return (((s.shape(1)[0], x.shape[1], *s.dims(3)), x.dtype),)


def _word_conv(s: Site) -> Sequence[Out]:
    return (((s.shape(0)[0], s.shape(1)[0]), s.dtype(1)),)


def _hash(s: Site) -> Sequence[Out]:
    return ((s.shape(0), "uint32" if s.whole("positive", 1) else "int32"),)


def _hashed_ngrams(s: Site) -> Sequence[Out]:
    most, ids = s.whole("max_ngram_size"), s.tensor(0)
    batch = ids.shape[0] if len(ids.shape) > 1 else s.shape(3)[0] - 1
    heads = (most - 1) * s.whole("n_head_per_ngram")
    return (((*ids.shape, heads), ids.dtype), ((batch, most - 1), ids.dtype))


def _scores(s: Site) -> Sequence[Out]:
    return ((s.shape(1), s.dtype(1)),)


def _warping(s: Site) -> Sequence[Out]:
    """The path through a matrix of costs, as long as it may be."""
    rows, columns = s.shape(0)[-2:]
    return (((2, max(0, rows + columns - 1)), "int32"),)


def _merged_tokens(s: Site) -> Sequence[Out]:
    """The text so far, with all that was guessed of it taken over."""
    guessed = s.optional(3)
    kept = s.shape(1)[0] + (guessed.shape[0] if guessed is not None else 0)
    return (((kept,), "int64"), (s.shape(2), "int64"))


def _packed_blob(s: Site) -> Sequence[Out]:
    return ((product_of(s.shape(0), s.dims(2)), s.dtype(0)),)


MICROSOFT: dict[str, Rule] = {
    **dict.fromkeys(
        ("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", "Inverse", "SampleOp", "ScaledSiLU", "GatedAdd"), same
    ),
    **dict.fromkeys(
        ("GatedRMSNorm", "BranchwiseRMSNorm", "MRotaryEmbedding", "MoE", "QMoE", "HyperConnectionPostMix"), same
    ),
    "HyperConnectionPreMix": _mixed_before,
    "EngramGate": _engram_gate,
    "MoEGroupRouter": _group_router,
    "LinearAttention": _linear_attention,
    "LinearAttentionGate": _linear_attention_gate,
    "GatedDeltaNet": _delta_net,
    "VarlenCausalConvWithState": _ragged_conv,
    "UnfoldTensor": _unfold,
    "CropAndResize": _crop_and_resize,
    "WordConvEmbedding": _word_conv,
    "MurmurHash3": _hash,
    **dict.fromkeys(("NGramHashMapping", "VarlenNGramHashMapping"), _hashed_ngrams),
    "NGramRepeatBlock": _scores,
    "DynamicTimeWarping": _warping,
    "MatMulFpQ4": _packed_blob,
    "QLinearAdd": _binary,
    "QLinearMul": _binary,
    "QLinearConcat": _concat,
    "QLinearWhere": _where,
    "QGemm": _gemm,
    "MatMulIntegerToFloat": _to_float,
    "DynamicQuantizeMatMul": _dynamic_matmul,
    "MatMulInteger16": _integer_matmul,
    "DynamicQuantizeLSTM": _lstm,
    "GatherBlockQuantized": _gather_blocks,
    "QAttention": _quantised_attention,
    "DecoderMaskedMultiHeadAttention": _decoder_attention,
    "SparseAttention": _sparse_attention,
    "NhwcMaxPool": _channels_last_pool,
    "QEmbedLayerNormalization": _embed,
    "BifurcationDetector": _merged_tokens,
    "CDist": _distances,
    "ExpandDims": _expand_dims,
}
