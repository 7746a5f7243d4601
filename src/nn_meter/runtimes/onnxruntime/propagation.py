"""Changes of type that ONNX Runtime puts in before it looks for operators on integers: around what only moves numbers,
and around weights and biases that a file holds as floats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nn_meter.kernels.rewriting import Op, Work
from nn_meter.runtimes.base import Options
from nn_meter.runtimes.onnxruntime.products import with_bias

_MOVING = frozenset(("MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice"))
_QUANTISE, _DEQUANTISE = "QuantizeLinear", "DequantizeLinear"


def fuse_matmul_add_of_quantised(work: Work, options: Options) -> None:
    """Of dequantised operands too: the product with a bias is found before what computes with integers."""
    for op in work.ops("MatMul"):
        after = work.only_reader(op.outputs[0])
        if after is None or after.op_type != "Add":
            continue
        if all(work.made_by(i, _DEQUANTISE) or work.folded_by(i, _DEQUANTISE) for i in op.inputs):
            bias = next((i for i in after.inputs if i != op.outputs[0]), "")
            if work.const(bias):
                with_bias(work, op, after)


def propagate_quantised(work: Work, options: Options) -> None:
    """Integers go on through what only moves numbers, from a DequantizeLinear to behind it and from a QuantizeLinear to
    before it: where one stands already none is put in."""
    for op in work.ops(_DEQUANTISE):
        if _of_one_scale(work, op):
            _forward(work, op)
    for op in work.ops(_QUANTISE):
        if _of_one_scale(work, op):
            _backward(work, op)


def _of_one_scale(work: Work, op: Op) -> bool:
    return all(work.is_one_element(name) for name in op.inputs[1:] if name)


def _forward(work: Work, first: Op) -> None:
    left = [first]
    while left:
        floats = left.pop().outputs[0]
        for mover in list(work.readers(floats)):
            if mover.op_type not in _MOVING or not _of_bytes(mover):
                continue
            name = mover.outputs[0]
            readers = [each for each in work.readers(name) if each.op_type != _QUANTISE]
            if name in work.outputs and work.readers(name):
                continue
            if readers or name in work.outputs:
                left += _insert(work, mover, first.inputs[1:], work.tensors[first.inputs[0]].dtype, readers)


def _backward(work: Work, quantise: Op) -> None:
    name = quantise.inputs[0]
    while (mover := work.producer.get(name)) is not None and mover.op_type in _MOVING and _of_bytes(mover):
        if work.only_reader(name) is None:
            return
        name = mover.inputs[0]
        before = work.producer.get(name)
        if before is None or before.op_type == _DEQUANTISE or work.only_reader(name) is not mover:
            return
        _insert(work, before, quantise.inputs[1:], work.tensors[quantise.outputs[0]].dtype, [mover], name)


def _of_bytes(mover: Op) -> bool:
    """MaxPool computes with bytes since opset 12."""
    return mover.op_type != "MaxPool" or (mover.attrs.get("opset") is None and len(mover.outputs) == 1)


def _insert(
    work: Work, maker: Op, scale: Sequence[str], dtype: str, readers: Sequence[Op], name: str = ""
) -> list[Op]:
    """What ``maker`` computes is made integers once, and floats again for each of ``readers``, or as a result."""
    name = name or maker.outputs[0]
    whole = work.fresh("quantised", work.shape(name), name)
    work.tensors[whole] = replace(work.tensors[whole], dtype=dtype)
    quantise = work.add(Op(_QUANTISE, [name, *scale], [whole], {}), behind=maker)
    made = []
    wanted: Sequence[Op | None] = readers or [None]
    for reader in wanted:
        floats = work.fresh("dequantised", work.shape(name), name)
        back = Op(_DEQUANTISE, [whole, *scale], [floats], {})
        if reader is None:
            work.give(floats, name)
            made.append(work.add(back, behind=quantise))
        else:
            work.swap_input(reader, name, floats)
            made.append(work.add(back, before=reader))
    return made


def quantise_weights(work: Work, options: Options) -> None:
    """Weights and a bias that are floats become integers where what is multiplied was dequantised, and what becomes of
    it is quantised."""
    for op in work.ops("Conv", "ConvTranspose", "Gemm"):
        x = work.made_by(op.inputs[0], _DEQUANTISE)
        if x is None or not work.is_one_element(x.inputs[1]) or not _is_quantised(work, op):
            continue
        weights, bias = op.inputs[1], op.inputs[2] if len(op.inputs) > 2 else ""
        known = work.folded_by(weights, _DEQUANTISE)
        if bias and not (work.const(bias) and len(work.shape(bias)) == 1 and work.folded_by(bias, _DEQUANTISE) is None):
            continue
        if known is None:
            if not work.const(weights) or work.tensors[weights].dtype != "float32":
                continue
            work.swap_place(op, 1, _as_integers(work, weights, "int8"))
        elif not _fits(work, op, known, bias):
            continue
        if bias:
            work.swap_place(op, 2, _as_integers(work, bias, "int32"))


def _is_quantised(work: Work, op: Op) -> bool:
    after = work.only_reader(op.outputs[0])
    while after is not None and after.op_type in ("Relu", "Clip"):
        after = work.only_reader(after.outputs[0])
    return after is not None and after.op_type == _QUANTISE


def _fits(work: Work, op: Op, dequantise: Op, bias: str) -> bool:
    """Whether the scales of weights are one, or one for each element of the bias."""
    scales = work.shape(dequantise.inputs[1])
    if not bias or work.is_one_element(dequantise.inputs[1]):
        return bool(bias)
    axis, rank = dequantise.attrs.get("axis", 1), len(work.shape(op.inputs[1]))
    along = int(op.op_type == "Gemm" and not op.attrs.get("transB", 0))
    assert isinstance(axis, int)
    return not dequantise.attrs.get("block_size", 0) and scales == work.shape(bias) and axis % rank == along


def _as_integers(work: Work, name: str, dtype: str) -> str:
    """A constant that is dequantised, of the same shape as ``name``; its scale is not known here."""
    floats, whole, scale = (work.fresh("quantised", shape, name) for shape in (*(work.shape(name),) * 2, ()))
    for each in (floats, whole, scale):
        work.constant(each)
    work.tensors[whole] = replace(work.tensors[whole], dtype=dtype, value=None)
    work.folded[floats] = Op(_DEQUANTISE, [whole, scale], [floats], {})
    return floats
