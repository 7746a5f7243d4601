"""float16 on the CPU: what has no kernel of it computes in float32 between Casts; weights are cast once, in advance."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

from nn_meter.kernels.rewriting import Op, Work
from nn_meter.runtimes.base import Options, Run
from nn_meter.runtimes.equals import values
from nn_meter.runtimes.onnxruntime.functions import expand

_HALF = "float16"

_KERNELS = frozenset(
    (
        *("Attention", "BitCast", "Cast", "CastLike", "Celu", "Clip", "Compress", "Concat", "ConcatFromSequence"),
        *("ConstantOfShape", "DequantizeLinear", "Dropout", "Expand", "ExpandDims", "Flatten", "Gather"),
        *("GatherBlockQuantized", "GatherElements", "GatherND", "GroupQueryAttention", "Identity", "If", "IsInf"),
        *("IsNaN", "LayerNormalization"),
        *("Loop", "MatMulNBits", "Max", "Min", "Mod", "QMoE", "QuantizeLinear", "RMSNormalization", "Reshape"),
        *("ReverseSequence", "RotaryEmbedding", "Round", "Scan", "ScatterElements", "ScatterND", "SequenceAt"),
        *("SequenceConstruct", "SequenceInsert", "Shape", "Shrink", "Sign", "SimplifiedLayerNormalization", "Size"),
        *("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "Slice", "Split", "SplitToSequence"),
        *("Squeeze", "TensorScatter", "Transpose", "Unsqueeze"),
    )
)
"""Operators with kernels of float16, of those that models hold (``get_all_opkernel_def`` of ONNX Runtime 1.32)."""

_FUNCTIONS = ("Gelu", "LogSoftmax", "Softmax")
"""Operators without such a kernel that ONNX defines by others: they are written out first."""


def unless_half(rewrite: Run) -> Run:
    """What looks for constants, which stand behind Casts where a model computes in float16."""

    def apply(work: Work, options: Options) -> None:
        if not _any_half(work):
            rewrite(work, options)

    return apply


def widen(work: Work, options: Options) -> None:
    """Cast what is computed in float32; what has a kernel of float16, but no neighbour with one, goes with them."""
    if not _any_half(work):
        return
    for op in [op for op in work.ops(*_FUNCTIONS) if _half(work, op) and "opset" not in op.attrs]:
        expand(work, op)
        _fold_constants(work)
    ops = [op for op in work.ops() if _half(work, op)]
    _share_constants(work, ops)
    wide = {id(op) for op in ops if op.op_type not in _KERNELS}
    wide |= {id(op) for op in ops if id(op) not in wide and op.op_type != "Cast" and _alone(work, op, wide)}
    casts = []
    for op in ops:
        for name in filter(None, op.outputs):
            if id(op) in wide and work.tensors[name].dtype == _HALF:
                casts.append(_cast_back(work, op, name, wide))
    for op in ops:
        for name in dict.fromkeys(op.inputs):
            if id(op) in wide and name and work.tensors[name].dtype == _HALF:
                casts.append(_cast_to_float(work, op, name, wide))
    for cast in filter(None, casts):
        _meet(work, cast)


def _fold_constants(work: Work) -> None:
    """Constants of a body, which it makes of the operand's type."""
    for op in work.ops("CastLike"):
        if work.const(op.inputs[0]):
            work.remove(op)
            work.constant(op.outputs[0])
            for reader in list(work.readers(op.outputs[0]))[:1]:
                reader.nested = op.nested, reader.nested


def _share_constants(work: Work, ops: Sequence[Op]) -> None:
    """Small constants of equal values are one, which several then read, and so is what is called by two names."""
    first: dict[Hashable, str] = {}
    value_of = values(work)
    for op in ops:
        for name in dict.fromkeys(op.inputs):
            if work.const(name):
                own = name
                while own in work.folded and work.folded[own].op_type == "Identity":
                    own = work.folded[own].inputs[0]
                work.swap_input(op, name, first.setdefault(value_of(own), own))


def _any_half(work: Work) -> bool:
    return any(tensor.dtype == _HALF for tensor in work.tensors.values())


def _half(work: Work, op: Op) -> bool:
    return any(name and work.tensors[name].dtype == _HALF for name in (*op.inputs, *op.outputs))


def _alone(work: Work, op: Op, wide: set[int]) -> bool:
    """Whether all that it reads, but for the model's inputs, and all that reads it computes in float32."""
    made = [name for name in op.inputs if name and work.tensors[name].dtype == _HALF]
    makers = [work.producer[name] for name in made if name in work.producer]
    readers = [reader for out in op.outputs if out for reader in work.readers(out)]
    return (
        bool(makers and readers)
        and all(id(maker) in wide for maker in makers)
        and all(id(reader) in wide for reader in readers)
        and not any(out in work.outputs for out in op.outputs)
    )


def _cast_back(work: Work, op: Op, name: str, wide: set[int]) -> Op | None:
    """What an operator computes is float32 now; others read it behind a Cast."""
    cast = None
    others = [reader for reader in work.readers(name) if id(reader) not in wide]
    if others or name in work.outputs:
        back = work.fresh(name, work.shape(name), name)
        cast = work.add(Op("Cast", [name], [back], {"to": 10}), behind=op)
        for reader in others:
            work.swap_input(reader, name, back)
        if name in work.outputs:
            work.give(back, name)
    work.tensors[name] = replace(work.tensors[name], dtype="float32")
    return cast


def _meet(work: Work, cast: Op) -> None:
    """A Cast that was put in beside one of the model's own: what two do one does, or none where they lead back to where
    they began. A model's result is copied for that."""
    source, name = cast.inputs[0], cast.outputs[0]
    own, readers = work.made_by(source, "Cast"), list(work.readers(name))
    if cast.attrs["to"] == 1 and own is not None:
        if work.tensors[own.inputs[0]].dtype == "float32":
            for reader in readers:
                work.swap_input(reader, name, own.inputs[0])
            work.remove(cast)
        else:
            work.swap_input(cast, source, own.inputs[0])
        if not work.readers(source) and source not in work.outputs:
            work.remove(own)
            work.free += [(member, own.op_type, "the Cast behind it does it, too") for member in own.members]
    elif cast.attrs["to"] == 10 and name not in work.outputs and all(r.op_type == "Cast" for r in readers):
        for reader in readers:
            work.swap_input(reader, name, source)
            if reader.attrs.get("to") == 1 and reader.outputs[0] not in work.outputs:
                work.bypass(reader, "it is float32 already")
        work.remove(cast)


def _cast_to_float(work: Work, op: Op, name: str, wide: set[int]) -> Op | None:
    """What operators read is cast once for all of them; a constant in advance, unless several read it."""
    floats = work.fresh(name, work.shape(name), name)
    known = work.const(name) and len(work.readers(name)) == 1
    work.tensors[floats] = replace(work.tensors[name], name=floats, dtype="float32", const=known)
    cast = None if known else work.add(Op("Cast", [name], [floats], {"to": 1}), before=op)
    for reader in [reader for reader in work.readers(name) if id(reader) in wide]:
        work.swap_input(reader, name, floats)
    return cast
