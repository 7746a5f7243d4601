"""Matrix products and what is made of them: attention, recurrent layers."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nn_meter.errors import UnsupportedOperatorError
from nn_meter.frontends.torch.call import (
    Call,
    Row,
    Writer,
    Written,
    each,
    last_swapped,
    parts_of,
    reduced,
    reshaped,
    slice_of,
    transposed,
)
from nn_meter.ir import Attr


def _linear(w: Writer, c: Call) -> str:
    x, weight = w.value(c["input"]), w.value(c["weight"])
    bias = None if c["bias"] is None else w.value(c["bias"])
    if len(w.shape(x)) == 2 and bias is not None:
        return w.op("Gemm", x, weight, bias, alpha=1.0, beta=1.0, transB=1)
    out = w.op("MatMul", x, last_swapped(w, weight) if len(w.shape(weight)) > 1 else weight)
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
    apart = reshaped(w, product, (*w.shape(first)[:-1], out, right))
    terms = w.op("Mul", apart, w.op("Unsqueeze", second, w.const((len(w.shape(second)) - 1,))))
    total = reduced(w, "ReduceSum", terms, (len(w.shape(terms)) - 1,), False)
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
    parts = parts_of(w, x, 0, sizes)
    done = [w.op("MatMul", part, w.weight(w.shape(weight)[1:], c.dtype)) for part in parts]
    return done[0] if hit == 1 else w.op("Concat", *done, axis=0)


def _einsum(w: Writer, c: Call) -> str:
    return w.op("Einsum", *(w.value(t) for t in c["tensors"]), equation=c["equation"].replace(" ", ""))


def _distances(w: Writer, c: Call) -> str:
    """Of every row to every other, as differences and their norms."""
    rank = len(c.shape)
    off = w.op(
        "Sub", w.op("Unsqueeze", w.value(c["x1"]), w.const((rank - 1,))),
        w.op("Unsqueeze", w.value(c["x2"]), w.const((rank - 2,))),
    )  # fmt: skip
    order = {1: "ReduceL1", 2: "ReduceL2"}.get(c["p"])
    if order is not None:
        return reduced(w, order, off, (rank,), False)
    if math.isinf(c["p"]):
        return reduced(w, "ReduceMax", w.op("Abs", off), (rank,), False)
    total = reduced(w, "ReduceSum", w.op("Pow", w.op("Abs", off), w.const(float(c["p"]), c.dtype)), (rank,), False)
    return w.op("Pow", total, w.const(1 / c["p"], c.dtype))


def _attention(w: Writer, c: Call) -> str:
    query, key, value = (w.value(c[part]) for part in ("query", "key", "value"))
    dtype, depth = w.dtype(query), w.shape(query)[-1]
    heads = w.shape(query)[-3] if len(w.shape(query)) > 3 else 1
    if c["enable_gqa"] and w.shape(key)[-3] != heads:
        key, value = (_repeat_heads(w, name, heads) for name in (key, value))
    scale = w.const(math.sqrt(c["scale"] if c["scale"] is not None else 1 / math.sqrt(depth)), dtype)
    scores = w.op("MatMul", w.op("Mul", query, scale), w.op("Mul", last_swapped(w, key), scale))
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
            x = transposed(w, x, (1, 0, 2))
        initial = [w.value(state) for state in states]
        ends: list[list[str]] = [[] for _ in initial]
        for layer in range(c["num_layers"]):
            rows = gates * hidden
            length, batch, width = w.shape(x)
            bias = w.weight((directions, 2 * rows), dtype) if c["has_biases"] else ""
            weights = [w.weight((directions, rows, size), dtype) for size in (width, hidden)]
            first = [slice_of(w, name, 0, layer * directions, (layer + 1) * directions) for name in initial]
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
                "Reshape", transposed(w, out, (0, 2, 1, 3)), w.const((length, batch, directions * hidden))
            )
        finals = [names[0] if len(names) == 1 else w.op("Concat", *names, axis=0) for names in ends]
        return (transposed(w, x, (1, 0, 2)) if c["batch_first"] else x, *finals)

    return row


ROWS: Mapping[str, Row] = {
    "linear": _linear,
    **each("matmul mm bmm mv dot", _matmul),
    "addmm": _addmm,
    "baddbmm": _baddbmm,
    "einsum": _einsum,
    "_cdist_forward": _distances,
    "bilinear": _bilinear,
    "_grouped_mm": _grouped_mm,
    "scaled_dot_product_attention": _attention,
    "lstm": recurrent("LSTM", 4),
    "gru": recurrent("GRU", 3),
    "rnn_tanh": recurrent("RNN", 1, activations="Tanh"),
    "rnn_relu": recurrent("RNN", 1, activations="Relu"),
}  # fmt: skip
"""ATen operator to what writes it."""
