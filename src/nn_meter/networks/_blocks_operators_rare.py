"""Operators that few files hold, a row each: those of ONNX that no other family draws, and onnxruntime's own.

What only the data decides (how much is not zero, which boxes overlap) is as random as the inputs of a measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nn_meter.ir.graph import Attr
from nn_meter.networks._blocks import Pen
from nn_meter.networks._blocks_operators_shared import answers, any_shape, operand, size, some_of

MICROSOFT = "com.microsoft"
Row = Callable[[Pen], Sequence[str]]


def _made(pen: Pen, op_type: str, *inputs: str, outputs: int = 1, domain: str = "", **attrs: Attr) -> Sequence[str]:
    pen.nodes += 1
    return pen.b.multi(op_type, inputs, outputs, domain=domain, **attrs)


def _ms(pen: Pen, op_type: str, *inputs: str, outputs: int = 1, **attrs: Attr) -> Sequence[str]:
    return _made(pen, op_type, *inputs, outputs=outputs, domain=MICROSOFT, **attrs)


def _any(op_type: str, domain: str = "") -> Row:
    """An operator of one tensor of any shape."""
    return lambda pen: _made(pen, op_type, operand(pen, *any_shape(pen)), domain=domain)


def _line(op_type: str, least: float, most: float, domain: str = "", dtype: str = "float32") -> Row:
    """An operator of one list."""
    return lambda pen: _made(pen, op_type, pen.b.input((round(size(pen, least, most)),), dtype), domain=domain)


def _map(pen: Pen, low: float = 2e3, high: float = 2e5) -> str:
    width = pen.width(4, 256)
    side = max(4, round((size(pen, low, high) / width / pen.batch) ** 0.5))
    return operand(pen, pen.batch, width, side, side)


def _tokens(pen: Pen, *, widest: int = 1024) -> tuple[int, int, int]:
    width = 64 * pen.integer(1, widest // 64)
    return pen.batch, max(1, round(size(pen, 64, 3e5) / width / pen.batch)), width


def _whole(pen: Pen, *shape: int) -> str:
    return pen.b.input(shape, "int64")


def _scale(pen: Pen) -> str:
    return pen.b.const(0.02, "float32")


def _zero(pen: Pen, dtype: str = "uint8") -> str:
    return pen.b.const(128 if dtype == "uint8" else 0, dtype)


def _compress(pen: Pen) -> Sequence[str]:
    shape = any_shape(pen)
    axis = pen.integer(0, len(shape) - 1)
    return _made(pen, "Compress", pen.input(*shape), pen.b.weight((shape[axis],), "bool"), axis=axis)


def _suppression(pen: Pen) -> Sequence[str]:
    boxes, classes = round(size(pen, 20, 3000)), pen.pick(1, 1, 2, 5, 20)
    ends = (pen.b.const((pen.pick(20, 100, 300),)), pen.scalar(0.5), pen.scalar(0.3))
    scores = pen.input(1, classes, boxes)
    return _made(pen, "NonMaxSuppression", pen.input(1, boxes, 4), scores, *ends)


def _columns_to_image(pen: Pen) -> Sequence[str]:
    kernel, side, width = pen.pick(2, 3, 4), 2 * pen.integer(2, 28), pen.width(1, 32)
    x = pen.input(pen.batch, width * kernel**2, (side - kernel + 1) ** 2)
    return _made(pen, "Col2Im", x, pen.b.const((side, side)), pen.b.const((kernel, kernel)))


def _square(op_type: str, domain: str = "") -> Row:
    def row(pen: Pen) -> Sequence[str]:
        side = pen.integer(2, 48)
        return _made(pen, op_type, pen.input(max(1, round(size(pen, 200, 3e4) / side**2)), side, side), domain=domain)

    return row


def _region_pool(pen: Pen) -> Sequence[str]:
    bins = pen.pick(2, 5, 7)
    return _made(pen, "MaxRoiPool", _map(pen), pen.weight(pen.integer(1, 40), 5), pooled_shape=(bins, bins))


def _unpool(pen: Pen) -> Sequence[str]:
    x = _map(pen, 1e3, 5e4)
    return _made(pen, "MaxUnpool", x, pen.b.weight(pen.shape(x), "int64"), kernel_shape=(2, 2), strides=(2, 2))


def _random(op_type: str) -> Row:
    return lambda pen: _made(pen, op_type, shape=any_shape(pen, elements=size(pen, 500, 1e5)))


def _multinomial(pen: Pen) -> Sequence[str]:
    odds = pen.input(pen.integer(1, 16), round(size(pen, 10, 2e4)))
    return _made(pen, "Multinomial", odds, sample_size=pen.pick(1, 4))


def _eye(pen: Pen) -> Sequence[str]:
    side = round(size(pen, 8, 800))
    return _made(pen, "EyeLike", pen.input(side, side))


def _cache_update(pen: Pen) -> Sequence[str]:
    heads, length, width = pen.pick(1, 4, 8, 12), round(size(pen, 16, 1024)), pen.pick(32, 64, 128)
    new = pen.pick(1, 1, 8)
    past = pen.input(pen.batch, heads, length, width)
    begins = pen.b.const((length - new,) * pen.batch)
    return _made(pen, "TensorScatter", past, pen.input(pen.batch, heads, new, width), begins)


def _rotary(pen: Pen) -> Sequence[str]:
    heads, length, width = pen.pick(4, 8, 12), round(size(pen, 4, 512)), pen.pick(32, 64, 128)
    caches = (pen.weight(length, width // 2), pen.weight(length, width // 2))
    places = _whole(pen, pen.batch, length)
    if pen.chance(0.5):
        return _made(pen, "RotaryEmbedding", pen.input(pen.batch, heads, length, width), *caches, places)
    x = pen.input(pen.batch, length, heads * width)
    return _ms(pen, "RotaryEmbedding", x, places, *caches, num_heads=heads)


def _attention(pen: Pen) -> Sequence[str]:
    heads, length, width = pen.pick(2, 4, 8, 12), round(size(pen, 4, 400)), pen.pick(32, 64, 96)
    keys = length if pen.chance(0.7) else round(size(pen, 4, 400))
    parts = [pen.input(pen.batch, heads, n, width) for n in (length, keys, keys)]
    return _made(pen, "Attention", *parts, is_causal=pen.integer(0, 1) if keys == length else 0)


def _projected_attention(pen: Pen) -> Sequence[str]:
    heads, length, width = pen.pick(2, 4, 8, 12), round(size(pen, 4, 300)), pen.pick(32, 64)
    hidden = heads * width
    weights = (pen.weight(hidden, 3 * hidden), pen.weight(3 * hidden))
    return _ms(pen, "Attention", pen.input(pen.batch, length, hidden), *weights, num_heads=heads)


def _multi_head(pen: Pen) -> Sequence[str]:
    heads, length, width = pen.pick(2, 4, 8, 12), round(size(pen, 1, 400)), pen.pick(32, 64, 96)
    keys = length if pen.chance(0.7) else round(size(pen, 4, 400))
    parts = [pen.input(pen.batch, n, heads * width) for n in (length, keys, keys)]
    return _ms(pen, "MultiHeadAttention", *parts, num_heads=heads)


def _grouped(pen: Pen) -> Sequence[str]:
    key_heads, size_ = pen.pick(1, 2, 4, 8), pen.pick(32, 64, 128)
    heads = key_heads * pen.pick(1, 2, 4)
    length, past = (1, round(size(pen, 4, 1000))) if pen.chance(0.6) else (round(size(pen, 2, 300)), 0)
    parts = [pen.input(1, length, n * size_) for n in (heads, key_heads, key_heads)]
    total = length + past
    kept = [pen.input(1, key_heads, past, size_) for _ in range(2)] if past else ["", ""]
    ends = (pen.b.const((total - 1,), "int32"), pen.b.const(total, "int32", ()))
    return _ms(pen, "GroupQueryAttention", *parts, *kept, *ends, outputs=3, num_heads=heads, kv_num_heads=key_heads)


def _decoded(pen: Pen) -> Sequence[str]:
    heads, past, width = pen.pick(2, 4, 8, 12), round(size(pen, 8, 1000)), pen.pick(32, 64)
    now = [pen.input(1, 1, heads * width) for _ in range(3)]
    kept = [pen.input(1, heads, past, width) for _ in range(2)]
    return _ms(
        pen, "DecoderMaskedMultiHeadAttention", *now, "", "", *kept, pen.b.const((past // 2,), "int32"), outputs=3,
        num_heads=heads, past_present_share_buffer=1,
    )  # fmt: skip


def _skipped_norm(pen: Pen) -> Sequence[str]:
    shape = _tokens(pen)
    return _ms(pen, "SkipSimplifiedLayerNormalization", pen.input(*shape), pen.input(*shape), pen.weight(shape[-1]))


def _embedded(pen: Pen) -> Sequence[str]:
    batch, length, width = _tokens(pen, widest=768)
    length = min(length, 512)
    ids = [pen.b.input((batch, length), "int32") for _ in range(2)]
    tables = [pen.weight(n, width) for n in (pen.integer(500, 4000), 512, 2)]
    return _ms(pen, "EmbedLayerNormalization", *ids, *tables, pen.weight(width), pen.weight(width), outputs=2)


def _distances(pen: Pen) -> Sequence[str]:
    width = pen.pick(2, 3, 16, 64, 128)
    points = [pen.input(round(size(pen, 10, 600)), width) for _ in range(2)]
    return _ms(pen, "CDist", *points, metric=pen.pick("sqeuclidean", "euclidean"))


def _stacked(pen: Pen) -> Sequence[str]:
    return _ms(pen, "ExpandDims", pen.input(*any_shape(pen)), pen.b.const(1, "int32", ()))


def _turned_product(pen: Pen) -> Sequence[str]:
    rows, inner, columns = (round(size(pen, 8, 300)) for _ in range(3))
    heads = pen.pick(1, 4, 12)
    pen.macs += float(heads * rows * inner * columns)
    pair = (pen.input(1, heads, rows, inner), pen.input(1, heads, columns, inner))
    return _ms(pen, pen.pick("TransposeMatMul", "FusedMatMul"), *pair, transB=1, alpha=0.125)


def _packed(pen: Pen) -> Sequence[str]:
    k, n, m = 64 * pen.integer(2, 32), 16 * pen.integer(4, 128), pen.pick(1, 1, 1, 2, 4, 16, 64)
    x = pen.input(m, k)
    pen.macs += float(m * k * n)
    sort = pen.pick("MatMulNBits", "MatMulNBits", "MatMulBnb4", "MatMulFpQ4")
    if sort == "MatMulBnb4":
        weights = (pen.b.weight((k * n // 2,), "uint8"), pen.weight(k * n // 64))
        return _ms(pen, sort, x, *weights, K=k, N=n, block_size=64, quant_type=pen.integer(0, 1))
    if sort == "MatMulFpQ4":  # blocks of 32 weights: 16 bytes, a scale and an offset
        return _ms(pen, sort, x, pen.b.weight((k * n // 32 * 21,), "uint8"), pen.b.const((k, n)), blk_quant_type=1)
    bits, block = pen.pick(4, 4, 8), pen.pick(32, 64)
    weights = (pen.b.weight((n, k // block, block * bits // 8), "uint8"), pen.weight(n, k // block))
    level = {"accuracy_level": 4} if pen.chance(0.5) else {}
    return _ms(pen, sort, x, *weights, K=k, N=n, bits=bits, block_size=block, **level)


def _packed_rows(pen: Pen) -> Sequence[str]:
    width, count, bits = 64 * pen.integer(1, 16), pen.integer(500, 4000), pen.pick(4, 8)
    table, places = pen.b.weight((count, width * bits // 8), "uint8"), _whole(pen, 1, round(size(pen, 1, 512)))
    scales = pen.weight(count, width // 32)
    return _ms(pen, "GatherBlockQuantized", table, places, scales, bits=bits, block_size=32, quantize_axis=1)


def _integer_product(pen: Pen) -> Sequence[str]:
    m, k, n = (round(size(pen, 4, 512)) for _ in range(3))
    pen.macs += float(m * k * n)
    dtype = pen.pick("uint8", "int8")
    pair = (pen.b.input((m, k), "uint8"), pen.b.weight((k, n), dtype))
    return _ms(pen, "MatMulIntegerToFloat", *pair, _scale(pen), _scale(pen))


def _wide_product(pen: Pen) -> Sequence[str]:
    m, k, n = (round(size(pen, 4, 96)) for _ in range(3))
    return _ms(pen, "MatMulInteger16", pen.b.input((m, k), "int16"), pen.b.weight((k, n), "int16"))


def _quantised_lstm(pen: Pen) -> Sequence[str]:
    steps, width, hidden = round(size(pen, 1, 100)), 16 * pen.integer(2, 20), 16 * pen.integer(2, 20)
    weights = [pen.b.weight((1, n, 4 * hidden), "int8") for n in (width, hidden)]
    scales = [each for _ in range(2) for each in (pen.weight(1), pen.b.weight((1,), "int8"))]
    operands = (pen.input(steps, pen.batch, width), *weights, "", "", "", "", "", *scales)
    return _ms(pen, "DynamicQuantizeLSTM", *operands, hidden_size=hidden, outputs=3)


def _quantised_attention(pen: Pen) -> Sequence[str]:
    heads, length, width = pen.pick(2, 4, 8, 12), round(size(pen, 4, 200)), pen.pick(32, 64)
    hidden = heads * width
    weights = (pen.b.weight((hidden, 3 * hidden), "int8"), pen.weight(3 * hidden))
    ends = [pen.b.const((v,), t) for v, t in ((0.02, "float32"), (0.02, "float32"), (128, "uint8"), (0, "int8"))]
    x = pen.b.input((1, length, hidden), "uint8")
    return _ms(pen, "QAttention", x, *weights, *ends[:2], "", *ends[2:], num_heads=heads)


def _quantised_where(pen: Pen) -> Sequence[str]:
    shape = any_shape(pen)
    sides = [each for _ in range(2) for each in (pen.b.input(shape, "uint8"), _scale(pen), _zero(pen))]
    return _ms(pen, "QLinearWhere", pen.b.input(shape, "bool"), *sides, _scale(pen), _zero(pen))


def _quantised_concat(pen: Pen) -> Sequence[str]:
    shape = any_shape(pen)
    parts = [each for _ in range(pen.integer(2, 3)) for each in (pen.b.input(shape, "uint8"), _scale(pen), _zero(pen))]
    return _ms(pen, "QLinearConcat", _scale(pen), _zero(pen), *parts, axis=pen.integer(0, len(shape) - 1))


def _experts(pen: Pen) -> Sequence[str]:
    tokens, width, inner = round(size(pen, 1, 128)), 32 * pen.integer(2, 8), 32 * pen.integer(2, 16)
    count, k = pen.pick(4, 8), pen.integer(1, 2)
    pen.macs += 2.0 * tokens * width * inner * k
    x, routes = pen.input(tokens, width), pen.input(tokens, count)
    kind = pen.pick("relu", "silu", "gelu")
    if pen.chance(0.5):
        weights = [pen.weight(count, a, b) for a, b in ((inner, width), (width, inner))]
        return _ms(pen, "MoE", x, routes, weights[0], "", weights[1], k=k, activation_type=kind)
    packed = [pen.b.weight((count, a, b // 2), "uint8") for a, b in ((inner, width), (width, inner))]
    scales = [pen.weight(count, n) for n in (inner, width)]
    operands = (x, routes, packed[0], scales[0], "", packed[1], scales[1])
    return _ms(pen, "QMoE", *operands, expert_weight_bits=4, k=k, activation_type=kind)


def _gated_norm(pen: Pen) -> Sequence[str]:
    shape = _tokens(pen)
    return _ms(pen, "GatedRMSNorm", pen.input(*shape), pen.weight(pen.pick(32, 64)), pen.input(*shape))


def _gated_sum(pen: Pen) -> Sequence[str]:
    shape = _tokens(pen)
    return _ms(pen, "GatedAdd", pen.input(*shape), pen.input(*shape), pen.input(*shape[:-1], 1))


def _streams(pen: Pen) -> Sequence[str]:
    """Several residual streams: normalised, mixed into one, and back."""
    batch, length, width = _tokens(pen, widest=512)
    branches = pen.pick(2, 4)
    x, gates = pen.input(batch, length, branches, width), pen.input(batch, length, branches)
    sort = pen.pick("BranchwiseRMSNorm", "HyperConnectionPreMix", "HyperConnectionPostMix", "EngramGate")
    one = pen.input(batch, length, width)
    if sort == "BranchwiseRMSNorm":
        return _ms(pen, sort, x, pen.weight(width))
    if sort == "HyperConnectionPreMix":
        return _ms(pen, sort, x, gates)
    if sort == "HyperConnectionPostMix":
        return _ms(pen, sort, x, one, gates, pen.input(batch, length, branches, branches))
    scales = (pen.weight(branches, width), pen.weight(branches, width))
    return _ms(pen, sort, x, pen.input(batch, length, branches, width), one, *scales)


def _causal(pen: Pen) -> Sequence[str]:
    width, length, taps = pen.width(16, 512), round(size(pen, 4, 500)), pen.pick(3, 4)
    weights = (pen.weight(width, 1, taps), pen.weight(width))
    if pen.chance(0.6):
        x = pen.input(pen.batch, width, length)
        return _ms(pen, "CausalConvWithState", x, *weights, outputs=2, activation=pen.pick("none", "silu"))
    starts, state = pen.b.const((0, length), "int32"), pen.input(1, width, taps - 1)
    return _ms(
        pen, "VarlenCausalConvWithState", pen.input(length, width), weights[0], starts, weights[1], state, outputs=2
    )


def _linear_attention(pen: Pen) -> Sequence[str]:
    heads, length, width = pen.pick(2, 4, 8), round(size(pen, 1, 200)), pen.pick(32, 64, 128)
    sort = pen.pick("LinearAttention", "GatedDeltaNet", "LinearAttentionGate")
    if sort == "LinearAttentionGate":
        x = [pen.input(pen.batch, length, heads) for _ in range(2)]
        return _ms(pen, sort, x[0], pen.weight(heads), pen.weight(heads), x[1], outputs=2)
    if sort == "LinearAttention":
        parts = [pen.input(pen.batch, length, heads * width) for _ in range(3)]
        gates = [pen.input(pen.batch, length, heads) for _ in range(2)]
        return _ms(pen, sort, *parts, "", *gates, q_num_heads=heads, kv_num_heads=heads, outputs=2)
    parts = [pen.input(length, heads, width) for _ in range(3)]
    gates = [pen.input(length, heads) for _ in range(2)]
    return _ms(pen, sort, *parts, "", *gates, pen.input(1, heads, width, width), outputs=2)


def _cropped(pen: Pen) -> Sequence[str]:
    regions, bins = pen.integer(1, 40), pen.pick(7, 14)
    owners, shape = pen.b.const((0,) * regions, "int32"), pen.b.const((bins, bins), "int32")
    return _ms(pen, "CropAndResize", _map(pen), pen.weight(regions, 4), owners, shape)


def _unfolded(pen: Pen) -> Sequence[str]:
    shape = any_shape(pen, 3, size(pen, 1e3, 5e4))
    width = max(1, min(shape[-1], pen.pick(4, 16, 64)))
    return _ms(pen, "UnfoldTensor", pen.input(*shape), dim=-1, size=width, step=max(1, width // pen.pick(1, 2)))


def _masked_pool(pen: Pen) -> Sequence[str]:
    x = _map(pen)
    return _ms(pen, "MaxpoolWithMask", x, pen.b.weight(pen.shape(x), "int32"), kernel_shape=(3, 3), strides=(2, 2))


def _routed(pen: Pen) -> Sequence[str]:
    experts = pen.pick(32, 64, 128)
    x = pen.input(round(size(pen, 1, 300)), experts)
    return _ms(pen, "MoEGroupRouter", x, pen.weight(experts), top_k=4, n_group=8, topk_group=4, group_topk=2)


def _repeats(pen: Pen) -> Sequence[str]:
    scores = pen.input(1, pen.integer(1000, 32000))
    return _ms(pen, "NGramRepeatBlock", _whole(pen, 1, round(size(pen, 8, 512))), scores, ngram_size=3)


def _warped(pen: Pen) -> Sequence[str]:
    return _ms(pen, "DynamicTimeWarping", pen.input(round(size(pen, 8, 300)), round(size(pen, 8, 300))))


def _loss(pen: Pen) -> Sequence[str]:
    rows, classes = round(size(pen, 1, 128)), round(size(pen, 10, 1000))
    sort = pen.pick("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
    return _made(pen, sort, pen.input(rows, classes), _whole(pen, rows))


def _cropped_or_padded(pen: Pen) -> Sequence[str]:
    x = _map(pen)
    side = max(1, round(pen.shape(x)[2] * pen.uniform(0.6, 1.4)))
    return _made(pen, "CenterCropPad", x, pen.b.const((side, side)), axes=(2, 3))


OLD: Mapping[str, Row] = {
    **{name: _any(name) for name in ("Identity", "Dropout", "NonZero", "RandomNormalLike", "RandomUniformLike")},
    "Bernoulli": _any("Bernoulli"),
    "CastLike": lambda pen: _made(pen, "CastLike", pen.input(*any_shape(pen)), pen.b.weight((1,), "float16")),
    "Unique": _line("Unique", 20, 2e4),
    "Compress": _compress,
    "NonMaxSuppression": _suppression,
    "Col2Im": _columns_to_image,
    "Det": _square("Det"),
    "MaxRoiPool": _region_pool,
    "MaxUnpool": _unpool,
    "RandomNormal": _random("RandomNormal"),
    "RandomUniform": _random("RandomUniform"),
    "Multinomial": _multinomial,
    "EyeLike": _eye,
    "loss": _loss,
    "CenterCropPad": _cropped_or_padded,
}
"""Operators that ONNX has had for long."""

NEWEST: Mapping[str, Row] = {
    "TensorScatter": _cache_update,
    "RotaryEmbedding": _rotary,
    "Attention": _attention,
    "Attention again": _attention,
    "Swish": _any("Swish"),
}
"""Those of an opset at which onnxruntime no longer has some of the others."""

CONTRIBUTED: Mapping[str, Row] = {
    "Attention": _projected_attention,
    "MultiHeadAttention": _multi_head,
    "GroupQueryAttention": _grouped,
    "DecoderMaskedMultiHeadAttention": _decoded,
    "SkipSimplifiedLayerNormalization": _skipped_norm,
    "EmbedLayerNormalization": _embedded,
    "Inverse": _square("Inverse", MICROSOFT),
    "CDist": _distances,
    "ExpandDims": _stacked,
    "Unique": lambda pen: _ms(pen, "Unique", pen.input(round(size(pen, 20, 2e4))), outputs=3),
    "ScaledSiLU": _any("ScaledSiLU", MICROSOFT),
    "SampleOp": _any("SampleOp", MICROSOFT),
    "TransposeMatMul": _turned_product,
    "packed": _packed,
    "packed again": _packed,
    "GatherBlockQuantized": _packed_rows,
    "MatMulIntegerToFloat": _integer_product,
    "MatMulInteger16": _wide_product,
    "DynamicQuantizeLSTM": _quantised_lstm,
    "QAttention": _quantised_attention,
    "QLinearWhere": _quantised_where,
    "QLinearConcat": _quantised_concat,
    "experts": _experts,
    "GatedRMSNorm": _gated_norm,
    "GatedAdd": _gated_sum,
    "streams": _streams,
    "streams again": _streams,
    "causal": _causal,
    "linear attention": _linear_attention,
    "CropAndResize": _cropped,
    "UnfoldTensor": _unfolded,
    "MaxpoolWithMask": _masked_pool,
    "MoEGroupRouter": _routed,
    "NGramRepeatBlock": _repeats,
    "MurmurHash3": _line("MurmurHash3", 100, 1e5, MICROSOFT, "int32"),
    "DynamicTimeWarping": _warped,
}
"""Operators of onnxruntime's own domain, or sorts of them."""


def _from(rows: Mapping[str, Row], most: int) -> Callable[[Pen], str]:
    return lambda pen: answers(pen, [part for name in some_of(pen, tuple(rows), most) for part in rows[name](pen)])


RARE: Mapping[str, Callable[[Pen], str]] = {
    "rare": _from(OLD, 10),
    "newest": _from(NEWEST, 4),
    "contributed": _from(CONTRIBUTED, 10),
}
"""A sort of operators to its writer."""
