"""Language models: encoders and decoders on token ids, and recurrent layers."""

from __future__ import annotations

from nn_meter.networks._blocks import Pen
from nn_meter.networks._blocks_tokens import attend, heads_of, merge_heads, perceptron


def _token_ids(pen: Pen, width: int, macs: float) -> str:
    """Embedded ids, (batch, tokens, width); of a small table, as only the rows that are read cost time."""
    cost = pen.log_uniform(5e6, 9e7)
    tokens = max(8, min(512, round(cost / (macs * width * width * pen.batch))))
    tokens = 16 * max(1, tokens // 16) if pen.chance(0.5) else tokens
    ids = pen.b.input((pen.batch, tokens), "int64")
    return pen.op("Gather", pen.weight(pen.integer(200, 4000), width), ids, axis=0)


def _heads(pen: Pen, x: str, heads: int, dim: int) -> str:
    batch, tokens, _ = pen.shape(x)
    return pen.transpose(pen.reshape(x, batch, tokens, heads, dim), 0, 2, 1, 3)


def encoder(pen: Pen) -> str:
    """Embeddings, attention with an additive mask, perceptron; normed after each."""
    width = 16 * max(2, pen.width(32, 1024) // 16)
    x = _token_ids(pen, width, 12.0)
    batch, tokens, _ = pen.shape(x)
    x = pen.op("Add", x, pen.weight(1, tokens, width))
    x = pen.layer_norm(x)
    heads, dim = heads_of(pen, width)
    mask_per_item = pen.chance(0.5)
    post_norm = pen.chance(0.7)
    for _ in range(pen.integer(1, 3)):
        if not pen.room():
            break
        y = x if post_norm else pen.layer_norm(x)
        q = _heads(pen, pen.linear(y, width), heads, dim)
        k = pen.transpose(pen.reshape(pen.linear(y, width), batch, tokens, heads, dim), 0, 2, 3, 1)
        v = _heads(pen, pen.linear(y, width), heads, dim)
        mask = (batch if mask_per_item else 1, 1, pen.pick(1, tokens), tokens)
        y = pen.linear(merge_heads(pen, attend(pen, q, k, v, mask)), width)
        x = pen.op("Add", y, x)
        x = pen.layer_norm(x) if post_norm else x
        y = perceptron(pen, x if post_norm else pen.layer_norm(x), pen.pick(2, 4) * width, "gelu")
        x = pen.op("Add", y, x)
        x = pen.layer_norm(x) if post_norm else x
    if pen.chance(0.5):
        first = pen.op("Gather", x, pen.b.const(0), axis=1)
        x = pen.op("Tanh", pen.gemm(first, width))
    return x


def _rotated(pen: Pen, x: str, cosine: str, sine: str) -> str:
    half = pen.shape(x)[-1] // 2
    low, high = pen.slice(x, 3, 0, half), pen.slice(x, 3, half, 2**62)
    turned = pen.concat((pen.op("Neg", high), low), axis=-1)
    return pen.op("Add", pen.op("Mul", x, cosine), pen.op("Mul", turned, sine))


def _shared_heads(pen: Pen, x: str, times: int) -> str:
    """Repeat each of the few key or value heads for the queries that share it."""
    if times == 1:
        return x
    batch, heads, tokens, dim = pen.shape(x)
    wide = pen.op("Unsqueeze", x, pen.b.const((2,)))
    wide = pen.op("Expand", wide, pen.b.const((batch, heads, times, tokens, dim)))
    return pen.reshape(wide, batch, heads * times, tokens, dim)


def decoder(pen: Pen) -> str:
    """Causal blocks: RMS norm, rotary embedding, shared key heads, gated perceptron; or the older kind."""
    dim = pen.pick(32, 32, 64, 64, 80, 128)
    kv_heads, times = pen.integer(1, 6), pen.pick(1, 1, 2, 4)
    modern = pen.chance(0.65)
    times = times if modern else 1
    heads = kv_heads * times
    width = heads * dim
    x = _token_ids(pen, width, 11.0)
    batch, tokens, _ = pen.shape(x)
    if not modern:
        x = pen.op("Add", x, pen.weight(1, tokens, width))
    cosine, sine = pen.weight(1, 1, tokens, dim), pen.weight(1, 1, tokens, dim)
    for _ in range(pen.integer(1, 2)):
        if not pen.room():
            break
        y = pen.rms_norm(x) if modern else pen.layer_norm(x)
        if modern:
            q = _rotated(pen, _heads(pen, pen.linear(y, width, False), heads, dim), cosine, sine)
            k = _rotated(pen, _heads(pen, pen.linear(y, kv_heads * dim, False), kv_heads, dim), cosine, sine)
            v = _heads(pen, pen.linear(y, kv_heads * dim, False), kv_heads, dim)
            k, v = _shared_heads(pen, k, times), _shared_heads(pen, v, times)
        else:
            wide = pen.gemm(pen.reshape(y, batch * tokens, width), 3 * width)
            parts = pen.split(pen.reshape(wide, batch, tokens, 3 * width), (width,) * 3, axis=2)
            q, k, v = (_heads(pen, part, heads, dim) for part in parts)
        y = attend(pen, q, pen.transpose(k, 0, 1, 3, 2), v, (1, 1, tokens, tokens))
        x = pen.op("Add", x, pen.linear(merge_heads(pen, y), width, bias=not modern))
        if modern:
            y, hidden = pen.rms_norm(x), 8 * max(1, round(width * pen.uniform(2.0, 4.0) / 8))
            gate = pen.act(pen.linear(y, hidden, False), pen.pick("silu", "silu", "gelu"))
            y = pen.linear(pen.op("Mul", gate, pen.linear(y, hidden, False)), width, False)
        else:
            y = perceptron(pen, pen.layer_norm(x), 4 * width, pen.pick("gelu_tanh", "gelu", "relu"))
        x = pen.op("Add", x, y)
    if pen.chance(0.4):
        x = pen.linear(pen.rms_norm(x) if modern else pen.layer_norm(x), pen.integer(200, 4000), False)
    return x


def recurrent(pen: Pen) -> str:
    """One or two recurrent layers over (tokens, batch, features), and a classifier in some."""
    op_type, gates = pen.pick(("LSTM", 4), ("LSTM", 4), ("GRU", 3), ("RNN", 1))
    hidden, features = pen.width(16, 512), pen.width(8, 512)
    directions = 2 if pen.chance(0.3) else 1
    macs = directions * gates * hidden * (hidden + features) * pen.batch
    tokens = max(4, min(200, round(pen.log_uniform(1.5e6, 5e7) / macs)))
    x = pen.input(tokens, pen.batch, features)
    for _ in range(pen.integer(1, 2)):
        features = pen.shape(x)[2]
        attrs = {"linear_before_reset": 1} if op_type == "GRU" else {}
        outputs = 3 if op_type == "LSTM" else 2
        state = [pen.weight(directions, pen.batch, hidden)] * (outputs - 1)
        x = pen.multi(
            op_type,
            (
                x,
                pen.weight(directions, gates * hidden, features),
                pen.weight(directions, gates * hidden, hidden),
                pen.weight(directions, 2 * gates * hidden),
                "",
                *state,
            ),
            outputs,
            hidden_size=hidden,
            direction="bidirectional" if directions == 2 else "forward",
            **attrs,
        )[0]
        pen.macs += float(tokens) * pen.batch * directions * gates * hidden * (features + hidden)
        if directions == 1:
            x = pen.squeeze(x, 1)
        else:
            x = pen.reshape(pen.transpose(x, 0, 2, 1, 3), tokens, pen.batch, 2 * hidden)
        if not pen.room():
            break
    if pen.chance(0.5):
        last = pen.op("Gather", x, pen.b.const(tokens - 1), axis=0)
        x = pen.gemm(last, pen.integer(2, 1000))
    return x
