"""Normalisations and softmax."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nn_meter.frontends.torch.call import Call, Row, Writer, Written, each, operand, reshaped


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
            out = w.op(op_type, out, reshaped(w, w.value(part), (shape[1], *(1,) * (len(shape) - 2))))
    return out


def _instance_norm(w: Writer, c: Call) -> str:
    x = w.value(c["input"])
    channels, dtype = w.shape(x)[1], w.dtype(x)
    names = [
        w.weight((channels,), dtype) if c[key] is None else w.value(c[key]) for key in ("weight", "bias")
    ]
    return w.op("InstanceNormalization", x, *names, epsilon=float(c["eps"]))


def _softmax(op_type: str) -> Row:
    def row(w: Writer, c: Call) -> str:
        return w.op(op_type, operand(w, c.first, c.dtype), axis=c["dim"])

    return row


ROWS: Mapping[str, Row] = {
    **each("softmax _softmax _safe_softmax", _softmax("Softmax")),
    **each("log_softmax _log_softmax", _softmax("LogSoftmax")),
    **each("batch_norm native_batch_norm _native_batch_norm_legit_no_training", _batch_norm),
    **each("layer_norm native_layer_norm", _layer_norm),
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
}  # fmt: skip
"""ATen operator to what writes it."""
