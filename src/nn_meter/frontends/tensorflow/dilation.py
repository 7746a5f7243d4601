"""TensorFlow 1 writes a dilated convolution as three operators; this says it as one, as runtimes execute it.

Batches of every n-th pixel are convolved without padding and put together again (``SpaceToBatchND``, a
convolution, ``BatchToSpaceND``). At stride 1 that is the convolution dilated by n, padded by what the first
pads less what the last crops (https://www.tensorflow.org/api_docs/python/tf/nn/atrous_conv2d).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from nn_meter.frontends.tensorflow.attrs import integers, text
from nn_meter.frontends.tensorflow.flow import Op
from nn_meter.frontends.tensorflow.wire import Constant

_CONVOLUTIONS: Final = frozenset({"Conv2D", "DepthwiseConv2dNative"})


def dilated(ops: Sequence[Op]) -> tuple[Op, ...]:
    """``ops`` with each such triple in the place of its last operator as one; others are left as they are."""
    producer = {op.name: op for op in ops}
    readers: dict[str, int] = {}
    for op in ops:
        for key in op.inputs:
            readers[key] = readers.get(key, 0) + 1
    merged: dict[str, Op] = {}
    gone: set[str] = set()
    for last in ops:
        if last.kind != "BatchToSpaceND":
            continue
        convolution = _source(producer, last)
        first = _source(producer, convolution) if convolution is not None else None
        if convolution is None or first is None or readers[convolution.output()] > 1:
            continue
        one = _merged(producer, first, convolution, last)
        if one is not None:
            merged[last.name] = one
            gone.add(convolution.name)
            readers[first.output()] -= 1
            if not readers[first.output()]:
                gone.add(first.name)
    return tuple(merged.get(op.name, op) for op in ops if op.name not in gone)


def _source(producer: Mapping[str, Op], op: Op) -> Op | None:
    """The operator whose first result is the first input of ``op``."""
    return producer.get(op.inputs[0].removesuffix(":0")) if op.inputs else None


def _numbers(producer: Mapping[str, Op], op: Op, index: int) -> tuple[int, ...]:
    source = producer.get(op.inputs[index].removesuffix(":0")) if index < len(op.inputs) else None
    value = source.attrs.get("value") if source is not None and source.kind == "Const" else None
    return tuple(value.array.reshape(-1).tolist()) if isinstance(value, Constant) and value.array is not None else ()


def _merged(producer: Mapping[str, Op], first: Op, convolution: Op, last: Op) -> Op | None:
    block, pads = (_numbers(producer, first, index) for index in (1, 2))
    again, crops = (_numbers(producer, last, index) for index in (1, 2))
    left = tuple(pad - crop for pad, crop in zip(pads, crops, strict=False))
    fits = (
        first.kind == "SpaceToBatchND"
        and convolution.kind in _CONVOLUTIONS
        and text(convolution, "padding") == "VALID"
        and text(convolution, "data_format", "NHWC") == "NHWC"
        and set(integers(convolution, "strides", (1,))) == {1}
        and len(block) == 2
        and block == again
        and len(left) == 4
        and min(left) >= 0
    )
    if not fits:
        return None
    attrs = {
        **convolution.attrs,
        "dilations": (1, *block, 1),
        "padding": "EXPLICIT",
        "explicit_paddings": (0, 0, *left, 0, 0),
    }
    kinds = "+".join(op.origin or op.kind for op in (first, convolution, last))
    return Op(last.name, convolution.kind, (first.inputs[0], *convolution.inputs[1:]), attrs, kinds)
