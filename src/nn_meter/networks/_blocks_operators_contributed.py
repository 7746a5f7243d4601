"""Operators of onnxruntime's own domain, a row each, as ``_blocks_operators_rare`` has those of ONNX."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

from nn_meter.ir.graph import Attr
from nn_meter.networks._blocks import Pen
from nn_meter.networks._blocks_operators_shared import (
    MICROSOFT,
    Row,
    a_map,
    answers,
    any_shape,
    how_many,
    node,
    of_a_list,
    of_any_shape,
    of_squares,
    operand,
    own_node,
    scale,
    size,
    token_shape,
    whole_input,
    zero_point,
)


def _projected_attention(pen: Pen) -> Sequence[str]:
    heads, length, width = pen.pick(2, 4, 8, 12), round(size(pen, 4, 300)), pen.pick(32, 64)
    hidden = heads * width
    weights = (pen.weight(hidden, 3 * hidden), pen.weight(3 * hidden))
    mask = [pen.b.input((pen.batch, length), "int32")] if pen.chance(0.4) else []
    causal = {"unidirectional": 1} if not mask and pen.chance(0.3) else {}
    x = pen.input(pen.batch, length, hidden)
    return own_node(pen, "Attention", x, *weights, *mask, num_heads=heads, **causal)


def _multi_head(pen: Pen) -> Sequence[str]:
    heads, length, width = pen.pick(2, 4, 8, 12), round(size(pen, 1, 400)), pen.pick(32, 64, 96)
    keys = length if pen.chance(0.7) else round(size(pen, 4, 400))
    parts = [pen.input(pen.batch, n, heads * width) for n in (length, keys, keys)]
    mask = pen.pick("", "", "int32", "float32")
    if mask == "int32":
        parts += ["", pen.b.input((pen.batch, keys), mask)]
    elif mask:
        parts += ["", "", pen.input(1, heads, length, keys)]
    return own_node(pen, "MultiHeadAttention", *parts, num_heads=heads)


def _grouped(pen: Pen) -> Sequence[str]:
    key_heads, size_ = pen.pick(1, 2, 4, 8), pen.pick(32, 64, 128)
    heads = key_heads * pen.pick(1, 2, 4)
    length, past = (1, round(size(pen, 4, 2000))) if pen.chance(0.5) else (round(size(pen, 2, 300)), 0)
    parts = [pen.input(1, length, n * size_) for n in (heads, key_heads, key_heads)]
    total = length + past
    kept = [pen.input(1, key_heads, past, size_) for _ in range(2)] if past else ["", ""]
    ends = [pen.b.const((total - 1,), "int32"), pen.b.const(total, "int32", ())]
    ways: dict[str, Attr] = {"num_heads": heads, "kv_num_heads": key_heads}
    if pen.chance(0.5):
        ends += [pen.weight(total, size_ // 2) for _ in range(2)]
        ways["do_rotary"] = 1
    ways |= pen.pick({}, {}, {"softcap": 30.0}, {"local_window_size": max(1, total // 4)})
    return own_node(pen, "GroupQueryAttention", *parts, *kept, *ends, outputs=3, **ways)


def _decoded(pen: Pen) -> Sequence[str]:
    heads, past, width = pen.pick(2, 4, 8, 12), round(size(pen, 8, 1000)), pen.pick(32, 64)
    now = [pen.input(1, 1, heads * width) for _ in range(3)]
    kept = [pen.input(1, heads, past, width) for _ in range(2)]
    return own_node(
        pen, "DecoderMaskedMultiHeadAttention", *now, "", "", *kept, pen.b.const((past // 2,), "int32"), outputs=3,
        num_heads=heads, past_present_share_buffer=1,
    )  # fmt: skip


def _skipped_norm(pen: Pen) -> Sequence[str]:
    shape = token_shape(pen)
    pair = (pen.input(*shape), pen.input(*shape))
    return own_node(pen, "SkipSimplifiedLayerNormalization", *pair, pen.weight(shape[-1]))


def _embedded(pen: Pen) -> Sequence[str]:
    batch, length, width = token_shape(pen, widest=768)
    length = min(length, 512)
    ids = [pen.b.input((batch, length), "int32") for _ in range(2)]
    tables = [pen.weight(n, width) for n in (pen.integer(500, 4000), 512, 2)]
    return own_node(pen, "EmbedLayerNormalization", *ids, *tables, pen.weight(width), pen.weight(width), outputs=2)


def _distances(pen: Pen) -> Sequence[str]:
    width = pen.pick(2, 3, 16, 64, 128)
    points = [pen.input(round(size(pen, 10, 600)), width) for _ in range(2)]
    return own_node(pen, "CDist", *points, metric=pen.pick("sqeuclidean", "euclidean"))


def _stacked(pen: Pen) -> Sequence[str]:
    return own_node(pen, "ExpandDims", pen.input(*any_shape(pen)), pen.b.const(1, "int32", ()))


def _turned_product(pen: Pen) -> Sequence[str]:
    rows, inner, columns = (round(size(pen, 8, 300)) for _ in range(3))
    heads = pen.pick(1, 4, 12)
    pen.macs += float(heads * rows * inner * columns)
    pair = (pen.input(1, heads, rows, inner), pen.input(1, heads, columns, inner))
    return own_node(pen, "TransposeMatMul", *pair, transB=1, alpha=0.125)


def _packed(pen: Pen, sort: str) -> Sequence[str]:
    k, n, m = 64 * pen.integer(2, 32), 16 * pen.integer(4, 128), pen.pick(1, 1, 1, round(size(pen, 2, 128)))
    x = pen.input(m, k)
    pen.macs += float(m * k * n)
    if sort == "MatMulBnb4":
        weights = (pen.b.weight((k * n // 2,), "uint8"), pen.weight(k * n // 64))
        return own_node(pen, sort, x, *weights, K=k, N=n, block_size=64, quant_type=pen.integer(0, 1))
    if sort == "MatMulFpQ4":  # blocks of 32 weights: 16 bytes, a scale and an offset
        blocks = pen.b.weight((k * n // 32 * 21,), "uint8")
        return own_node(pen, sort, x, blocks, pen.b.const((k, n)), blk_quant_type=1)
    bits, block = pen.pick(4, 4, 4, 8, 8, 2), pen.pick(16, 32, 32, 64, 128, 256)
    block = block if k % block == 0 else 64
    weights = (pen.b.weight((n, k // block, block * bits // 8), "uint8"), pen.weight(n, k // block))
    zeros = [pen.b.weight((n, -(-(k // block) * bits // 8)), "uint8")] if pen.chance(0.4) else []
    level = {"accuracy_level": 4} if pen.chance(0.5) else {}
    return own_node(pen, sort, x, *weights, *zeros, K=k, N=n, bits=bits, block_size=block, **level)


def _packed_rows(pen: Pen) -> Sequence[str]:
    width, count, bits = 64 * pen.integer(1, 16), pen.integer(500, 4000), pen.pick(4, 8)
    table, places = pen.b.weight((count, width * bits // 8), "uint8"), whole_input(pen, 1, round(size(pen, 1, 512)))
    scales = pen.weight(count, width // 32)
    return own_node(pen, "GatherBlockQuantized", table, places, scales, bits=bits, block_size=32, quantize_axis=1)


def _integer_product(pen: Pen) -> Sequence[str]:
    m, k, n = (round(size(pen, 4, 512)) for _ in range(3))
    pen.macs += float(m * k * n)
    dtype = pen.pick("uint8", "int8")
    pair = (pen.b.input((m, k), "uint8"), pen.b.weight((k, n), dtype))
    return own_node(pen, "MatMulIntegerToFloat", *pair, scale(pen), scale(pen))


def _wide_product(pen: Pen) -> Sequence[str]:
    m, k, n = (round(size(pen, 4, 96)) for _ in range(3))
    return own_node(pen, "MatMulInteger16", pen.b.input((m, k), "int16"), pen.b.weight((k, n), "int16"))


def _quantised_lstm(pen: Pen) -> Sequence[str]:
    steps, width, hidden = round(size(pen, 1, 100)), 16 * pen.integer(2, 20), 16 * pen.integer(2, 20)
    weights = [pen.b.weight((1, n, 4 * hidden), "int8") for n in (width, hidden)]
    scales = [each for _ in range(2) for each in (pen.weight(1), pen.b.weight((1,), "int8"))]
    operands = (pen.input(steps, pen.batch, width), *weights, "", "", "", "", "", *scales)
    return own_node(pen, "DynamicQuantizeLSTM", *operands, hidden_size=hidden, outputs=3)


def _quantised_attention(pen: Pen) -> Sequence[str]:
    heads, length, width = pen.pick(2, 4, 8, 12), round(size(pen, 4, 200)), pen.pick(32, 64)
    hidden = heads * width
    weights = (pen.b.weight((hidden, 3 * hidden), "int8"), pen.weight(3 * hidden))
    ends = [pen.b.const((v,), t) for v, t in ((0.02, "float32"), (0.02, "float32"), (128, "uint8"), (0, "int8"))]
    x = pen.b.input((1, length, hidden), "uint8")
    return own_node(pen, "QAttention", x, *weights, *ends[:2], "", *ends[2:], num_heads=heads)


def _quantised_function(pen: Pen, sort: str) -> Sequence[str]:
    ends = [each for _ in range(2) for each in (scale(pen), zero_point(pen))]
    return own_node(pen, sort, pen.b.input(any_shape(pen), "uint8"), *ends)


def _quantised_softmax(pen: Pen) -> Sequence[str]:
    shape = any_shape(pen, elements=size(pen, 500, 3e5))
    ends = [each for _ in range(2) for each in (scale(pen), zero_point(pen))]
    axis = pen.integer(1, len(shape) - 1)
    return own_node(pen, "QLinearSoftmax", pen.b.input(shape, "uint8"), *ends, axis=axis, opset=13)


def _quantised_where(pen: Pen) -> Sequence[str]:
    shape = any_shape(pen)
    sides = [each for _ in range(2) for each in (pen.b.input(shape, "uint8"), scale(pen), zero_point(pen))]
    return own_node(pen, "QLinearWhere", pen.b.input(shape, "bool"), *sides, scale(pen), zero_point(pen))


def _quantised_concat(pen: Pen) -> Sequence[str]:
    shape, count = any_shape(pen), pen.integer(2, 3)
    scales = [scale(pen) if pen.chance(0.5) else pen.b.const(0.03, "float32") for _ in range(count)]
    parts = [part for own in scales for part in (pen.b.input(shape, "uint8"), own, zero_point(pen))]
    return own_node(pen, "QLinearConcat", scale(pen), zero_point(pen), *parts, axis=pen.integer(0, len(shape) - 1))


def _experts(pen: Pen, sort: str) -> Sequence[str]:
    tokens, width, inner = round(size(pen, 1, 128)), 32 * pen.integer(2, 8), 32 * pen.integer(2, 16)
    count, k = pen.pick(4, 8), pen.integer(1, 2)
    pen.macs += 2.0 * tokens * width * inner * k
    x, routes = pen.input(tokens, width), pen.input(tokens, count)
    kind = pen.pick("relu", "silu", "gelu")
    if sort == "MoE":
        weights = [pen.weight(count, a, b) for a, b in ((inner, width), (width, inner))]
        return own_node(pen, sort, x, routes, weights[0], "", weights[1], k=k, activation_type=kind)
    packed = [pen.b.weight((count, a, b // 2), "uint8") for a, b in ((inner, width), (width, inner))]
    scales = [pen.weight(count, n) for n in (inner, width)]
    operands = (x, routes, packed[0], scales[0], "", packed[1], scales[1])
    return own_node(pen, sort, *operands, expert_weight_bits=4, k=k, activation_type=kind)


def _gated_norm(pen: Pen) -> Sequence[str]:
    shape = token_shape(pen)
    return own_node(pen, "GatedRMSNorm", pen.input(*shape), pen.weight(pen.pick(32, 64)), pen.input(*shape))


def _gated_sum(pen: Pen) -> Sequence[str]:
    shape = token_shape(pen)
    return own_node(pen, "GatedAdd", pen.input(*shape), pen.input(*shape), pen.input(*shape[:-1], 1))


def _streams(pen: Pen, sort: str) -> Sequence[str]:
    """Several residual streams: normalised, mixed into one, and back."""
    batch, length, width = token_shape(pen, widest=512)
    branches = pen.pick(2, 4)
    x, gates = pen.input(batch, length, branches, width), pen.input(batch, length, branches)
    one = pen.input(batch, length, width)
    if sort == "BranchwiseRMSNorm":
        return own_node(pen, sort, x, pen.weight(width))
    if sort == "HyperConnectionPreMix":
        return own_node(pen, sort, x, gates)
    if sort == "HyperConnectionPostMix":
        return own_node(pen, sort, x, one, gates, pen.input(batch, length, branches, branches))
    scales = (pen.weight(branches, width), pen.weight(branches, width))
    return own_node(pen, sort, x, pen.input(batch, length, branches, width), one, *scales)


def _causal(pen: Pen, sort: str) -> Sequence[str]:
    width, length, taps = pen.width(16, 512), round(size(pen, 4, 500)), pen.pick(3, 4)
    weights = (pen.weight(width, 1, taps), pen.weight(width))
    if sort == "CausalConvWithState":
        x = pen.input(pen.batch, width, length)
        return own_node(pen, sort, x, *weights, outputs=2, activation=pen.pick("none", "silu"))
    starts, state = pen.b.const((0, length), "int32"), pen.input(1, width, taps - 1)
    return own_node(pen, sort, pen.input(length, width), weights[0], starts, weights[1], state, outputs=2)


def _linear_attention(pen: Pen, sort: str) -> Sequence[str]:
    heads, length, width = pen.pick(2, 4, 8), round(size(pen, 1, 200)), pen.pick(32, 64, 128)
    if sort == "LinearAttentionGate":
        x = [pen.input(pen.batch, length, heads) for _ in range(2)]
        return own_node(pen, sort, x[0], pen.weight(heads), pen.weight(heads), x[1], outputs=2)
    if sort == "LinearAttention":
        parts = [pen.input(pen.batch, length, heads * width) for _ in range(3)]
        gates = [pen.input(pen.batch, length, heads) for _ in range(2)]
        return own_node(pen, sort, *parts, "", *gates, q_num_heads=heads, kv_num_heads=heads, outputs=2)
    parts = [pen.input(length, heads, width) for _ in range(3)]
    gates = [pen.input(length, heads) for _ in range(2)]
    return own_node(pen, sort, *parts, "", *gates, pen.input(1, heads, width, width), outputs=2)


def _cropped(pen: Pen) -> Sequence[str]:
    regions, bins = pen.integer(1, 40), pen.pick(7, 14)
    owners, shape = pen.b.const((0,) * regions, "int32"), pen.b.const((bins, bins), "int32")
    return own_node(pen, "CropAndResize", a_map(pen), pen.weight(regions, 4), owners, shape)


def _unfolded(pen: Pen) -> Sequence[str]:
    shape = any_shape(pen, 3, size(pen, 1e3, 5e4))
    width = max(1, min(shape[-1], pen.pick(4, 16, 64)))
    step = max(1, width // pen.pick(1, 2))
    return own_node(pen, "UnfoldTensor", pen.input(*shape), dim=-1, size=width, step=step)


def _masked_pool(pen: Pen) -> Sequence[str]:
    x = a_map(pen)
    mask, (kernel, step) = pen.b.weight(pen.shape(x), "int32"), pen.pick((2, 2), (3, 1), (3, 2))
    return own_node(pen, "MaxpoolWithMask", x, mask, kernel_shape=(kernel, kernel), strides=(step, step))


def _whole_pool(pen: Pen) -> Sequence[str]:
    side, width = pen.integer(4, 56), 8 * pen.integer(1, 32)
    x = pen.b.input((pen.batch, side, side, width), "uint8")
    return own_node(pen, "NhwcMaxPool", x, kernel_shape=(3, 3), strides=(2, 2))


def _routed(pen: Pen) -> Sequence[str]:
    experts = pen.pick(32, 64, 128)
    x = pen.input(round(size(pen, 1, 300)), experts)
    return own_node(pen, "MoEGroupRouter", x, pen.weight(experts), top_k=4, n_group=8, topk_group=4, group_topk=2)


def _repeats(pen: Pen) -> Sequence[str]:
    scores = pen.input(1, pen.integer(1000, 32000))
    return own_node(pen, "NGramRepeatBlock", whole_input(pen, 1, round(size(pen, 8, 512))), scores, ngram_size=3)


def _warped(pen: Pen) -> Sequence[str]:
    return own_node(pen, "DynamicTimeWarping", pen.input(round(size(pen, 8, 300)), round(size(pen, 8, 300))))


def _rotated_by_three(pen: Pen) -> Sequence[str]:
    heads, length = pen.pick(4, 8, 12), round(size(pen, 4, 400))
    caches = (pen.weight(length, 32), pen.weight(length, 32))
    x, places = pen.input(pen.batch, length, 64 * heads), whole_input(pen, 3, pen.batch, length)
    return own_node(pen, "MRotaryEmbedding", x, places, *caches, mrope_section=(16, 8, 8), num_heads=heads)


def _attended_lstm(pen: Pen) -> Sequence[str]:
    hidden, steps, memory = 16 * pen.integer(2, 8), round(size(pen, 2, 60)), round(size(pen, 2, 40))
    weights = (pen.weight(1, 4 * hidden, 2 * hidden), pen.weight(1, 4 * hidden, hidden), pen.weight(1, 8 * hidden))
    layers = (pen.weight(1, hidden, 32), pen.weight(1, hidden, 32), pen.weight(1, 32))
    ends = (pen.input(1, memory, hidden), "", pen.weight(1, 2 * hidden, hidden))
    operands = (pen.input(steps, 1, hidden), *weights, "", "", "", "", *layers, *ends)
    return own_node(pen, "AttnLSTM", *operands, hidden_size=hidden, outputs=3)


def _quantised_embedded(pen: Pen) -> Sequence[str]:
    width, length = 64 * pen.integer(1, 12), round(size(pen, 4, 500))
    ids = [pen.b.input((pen.batch, length), "int32") for _ in range(2)]
    tables = [pen.b.weight((n, width), "uint8") for n in (pen.integer(500, 4000), 512, 2)]
    ends = [pen.b.weight((width,), "uint8") for _ in range(2)]
    scales, zeros = [scale(pen) for _ in range(5)], [zero_point(pen) for _ in range(5)]
    return own_node(pen, "QEmbedLayerNormalization", *ids, *tables, *ends, "", *scales, *zeros, outputs=2)


def _transposed_conv(pen: Pen) -> Sequence[str]:
    x, width = a_map(pen, 1e3, 3e4), pen.width(4, 64)
    pen.macs += 16.0 * math.prod(pen.shape(x)) * width
    operands = (x, pen.weight(pen.channels(x), width, 4, 4), pen.b.const((1, 1, 1, 1)))
    return own_node(pen, "ConvTransposeWithDynamicPads", *operands, strides=(2, 2))


def _embedded_words(pen: Pen) -> Sequence[str]:
    width, letters, depth = 16 * pen.integer(1, 8), pen.integer(4, 24), pen.pick(8, 16, 32)
    words = pen.b.input((round(size(pen, 2, 100)), letters), "int32")
    weights = (pen.weight(width, 1, 3, depth), pen.weight(width), pen.weight(128, depth))
    sizes = {"embedding_size": width, "conv_window_size": 3, "char_embedding_size": depth}
    return node(pen, "WordConvEmbedding", words, *weights, domain=MICROSOFT, **sizes)


def _hashed(pen: Pen, sort: str) -> Sequence[str]:
    length, tables = round(size(pen, 4, 2000)), (pen.b.const((3, 5, 7)), pen.b.const((1009, 1013, 1019, 1021)))
    sizes = {"max_ngram_size": 3, "n_head_per_ngram": 2, "pad_id": 0, "outputs": 2}
    if sort == "NGramHashMapping":
        return node(pen, sort, whole_input(pen, 1, length), *tables, domain=MICROSOFT, **sizes)
    starts = pen.b.const((0, length), "int32")
    return node(pen, sort, whole_input(pen, length), *tables, starts, domain=MICROSOFT, **sizes)


def _scaled_gate(pen: Pen) -> Sequence[str]:
    x = operand(pen, *any_shape(pen))
    return own_node(pen, "QuickGelu", x, alpha=pen.pick(1.702, 1.702, 0.7))


def packed(pen: Pen) -> str:
    """Products with weights of 4 and 8 bits, many of them with one row."""
    sorts = [pen.pick(*("MatMulNBits",) * 5, "MatMulBnb4") for _ in range(how_many(pen, 4, 12))]
    return answers(pen, [part for sort in sorts for part in _packed(pen, sort)])


STREAMS = ("BranchwiseRMSNorm", "HyperConnectionPreMix", "HyperConnectionPostMix", "EngramGate")
LINEAR = ("LinearAttention", "GatedDeltaNet", "LinearAttentionGate")

CONTRIBUTED: Mapping[str, Row] = {
    "Attention": _projected_attention,
    **{f"GroupQueryAttention {number}": _grouped for number in range(4)},
    **{f"MultiHeadAttention {number}": _multi_head for number in range(2)},
    "DecoderMaskedMultiHeadAttention": _decoded,
    "SkipSimplifiedLayerNormalization": _skipped_norm,
    "EmbedLayerNormalization": _embedded,
    "Inverse": of_squares("Inverse", MICROSOFT),
    "CDist": _distances,
    **{f"QuickGelu {number}": _scaled_gate for number in range(2)},
    "ExpandDims": _stacked,
    "Unique": lambda pen: own_node(pen, "Unique", pen.input(round(size(pen, 20, 1e5))), outputs=3),
    "ScaledSiLU": of_any_shape("ScaledSiLU", MICROSOFT),
    "SampleOp": of_any_shape("SampleOp", MICROSOFT),
    "TransposeMatMul": _turned_product,
    **{sort: partial(_packed, sort=sort) for sort in ("MatMulNBits", "MatMulBnb4", "MatMulFpQ4")},
    **{f"GatherBlockQuantized {number}": _packed_rows for number in range(2)},
    "MatMulIntegerToFloat": _integer_product,
    "MatMulInteger16": _wide_product,
    "DynamicQuantizeLSTM": _quantised_lstm,
    "QAttention": _quantised_attention,
    **{sort: partial(_quantised_function, sort=sort) for sort in ("QLinearLeakyRelu", "QLinearSigmoid")},
    "QLinearSoftmax": _quantised_softmax,
    "QLinearWhere": _quantised_where,
    "QLinearConcat": _quantised_concat,
    **{name: partial(_experts, sort=name.split()[0]) for name in ("MoE", "MoE again", "QMoE")},
    "GatedRMSNorm": _gated_norm,
    "GatedAdd": _gated_sum,
    **{sort: partial(_streams, sort=sort) for sort in STREAMS},
    **{sort: partial(_causal, sort=sort) for sort in ("CausalConvWithState", "VarlenCausalConvWithState")},
    **{sort: partial(_linear_attention, sort=sort) for sort in LINEAR},
    "CropAndResize": _cropped,
    "UnfoldTensor": _unfolded,
    **{f"MaxpoolWithMask {number}": _masked_pool for number in range(2)},
    "NhwcMaxPool": _whole_pool,
    "MoEGroupRouter": _routed,
    "NGramRepeatBlock": _repeats,
    "MurmurHash3": of_a_list("MurmurHash3", 100, 1e5, MICROSOFT, "int32"),
    "DynamicTimeWarping": _warped,
    "MRotaryEmbedding": _rotated_by_three,
    **{f"AttnLSTM {number}": _attended_lstm for number in range(2)},
    "QEmbedLayerNormalization": _quantised_embedded,
    "ConvTransposeWithDynamicPads": _transposed_conv,
    "WordConvEmbedding": _embedded_words,
    **{sort: partial(_hashed, sort=sort) for sort in ("NGramHashMapping", "VarlenNGramHashMapping")},
}
"""Operators of onnxruntime's own domain."""
