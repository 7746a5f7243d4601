"""What becomes part of a convolution, a pooling or a Gemm."""

from __future__ import annotations

from math import prod

from nn_meter.kernels.kinds import ACTIVATIONS
from nn_meter.kernels.rewriting import Op, Work
from nn_meter.runtimes.base import Options, Run

_CONV_ACTIVATIONS = tuple(each for each in ACTIVATIONS if each != "HardSwish")  # which only blocked ones take
_GEMM_ACTIVATIONS = (
    *("Elu", "HardSigmoid", "LeakyRelu", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Tanh", "ThresholdedRelu"),
)


def fold_into_conv(work: Work, options: Options) -> None:
    """BatchNormalization into the weights of the convolution before, transposed or not; Mul or Add of a constant per
    channel into those of one that is not."""
    for op in work.ops("Conv", "ConvTranspose"):
        while work.alive(op):
            after = work.only_reader(op.outputs[0])
            if after is None or not work.const(op.inputs[1]) or options.denies(work, op, after):
                break
            if after.op_type == "BatchNormalization" and after.inputs[0] == op.outputs[0]:
                bias = op.inputs[2] if len(op.inputs) > 2 else after.inputs[2]
            elif op.op_type == "Conv" and after.op_type in ("Mul", "Add") and _per_channel(work, after, op.outputs[0]):
                other = next(i for i in after.inputs if i != op.outputs[0])
                has_bias = len(op.inputs) > 2
                if after.op_type == "Mul":
                    bias = op.inputs[2] if has_bias else ""
                else:
                    bias = op.inputs[2] if has_bias else other
            else:
                break
            inputs = (*op.inputs[:2], *((bias,) if bias else ()))
            op = work.fuse((op, after), op.op_type, inputs, after.outputs[:1], op.attrs)


def _per_channel(work: Work, op: Op, source: str) -> bool:
    others = [i for i in op.inputs if i != source]
    if len(others) != 1 or not work.const(others[0]):
        return False
    shape, channels = work.shape(others[0]), work.shape(source)[1]
    rank = len(work.shape(source))
    padded = (1,) * (rank - len(shape)) + shape
    if op.op_type == "Add":
        return len(shape) >= rank - 1 and padded[1] == channels and prod(padded) == channels
    return len(padded) == rank and prod(padded) in (1, channels) and padded[1] in (1, channels)


def fold_pad(*takers: str) -> Run:
    """A Pad of zeros into the convolution or pooling behind it, whichever operators take one."""

    def run(work: Work, options: Options) -> None:
        for op in work.ops("Pad"):
            after = work.only_reader(op.outputs[0])
            if after is None or after.op_type not in takers:
                continue
            reason = _unfit_pad(work, op)
            if reason:
                work.refuse((op, after), reason)
            elif len(after.outputs) == 1:
                inputs = [op.inputs[0], *after.inputs[1:]]
                work.fuse((op, after), after.op_type, inputs, after.outputs, after.attrs)

    return run


def _unfit_pad(work: Work, op: Op) -> str:
    """Why a Pad cannot become an operator's own padding."""
    if op.attrs.get("mode", "constant") != "constant":
        return "the Pad repeats values instead of adding zeros"
    if len(op.inputs) > 2 and not op.inputs[2]:
        return "the Pad leaves its value open"
    if (work.scalar(op.inputs[2]) if len(op.inputs) > 2 and op.inputs[2] else 0.0) != 0.0:
        return "the Pad adds another value than zero"
    rank = len(work.shape(op.inputs[0]))
    pads = op.attrs.get("pads", work.value(op, 1))
    if not isinstance(pads, tuple) or len(pads) != 2 * rank:
        return "how far the Pad goes is not known before inference"
    if any(pads[i] or pads[rank + i] for i in (0, 1)):
        return "the Pad adds to the batch or the channels"
    cuts = any(not isinstance(pad, int) or pad < 0 for pad in pads)
    return "the Pad cuts something off" if cuts else ""


def drop_relu(work: Work, options: Options) -> None:
    """A Relu before a Clip with constant bounds becomes part of it, several do one by one."""
    for op in reversed(list(work.ops("Relu"))):
        after = work.only_reader(op.outputs[0])
        if after is not None and after.op_type == "Clip" and all(not i or work.const(i) for i in after.inputs[1:]):
            work.bypass(op, "the Clip behind it cuts off as much")


def fuse_activation(work: Work, options: Options) -> None:
    """An activation into the convolution or Gemm before it; not where weights are cast in every inference, as those are
    of float16 that several read."""
    for op in work.ops("Conv", "Gemm"):
        after = work.only_reader(op.outputs[0])
        cast = work.made_by(op.inputs[1], "Cast")
        if op.op_type == "Conv" and cast is not None and work.const(cast.inputs[0]):
            continue
        allowed = _CONV_ACTIVATIONS if op.op_type == "Conv" else _GEMM_ACTIVATIONS
        if (
            after is None
            or after.op_type not in allowed
            or op.fused
            or any(not work.const(i) for i in after.inputs[1:] if i)
        ):
            continue
        if options.denies(work, op, after):
            continue
        fused = work.fuse((op, after), op.op_type, op.inputs, after.outputs, op.attrs)
        fused.fused = (_called(after.op_type),)


def _called(activation: str) -> str:
    return ACTIVATIONS.get(activation, activation.lower())


def read_fused(work: Work, options: Options) -> None:
    """Convolutions and products that the model itself writes with what is fused into them."""
    for op in work.ops("FusedConv", "FusedGemm"):
        name, conv = op.attrs.get("activation"), op.op_type == "FusedConv"
        summed = ("sum",) if conv and len(op.inputs) > 3 and op.inputs[3] else ()
        plain = work.fuse((op,), "Conv" if conv else "Gemm", op.inputs, op.outputs, op.attrs)
        plain.fused = (*summed, *((_called(name),) if isinstance(name, str) and name else ()))


def fuse_conv_add(work: Work, options: Options) -> None:
    """What is left unblocked: a sum, and an activation behind it, into the convolution of images."""
    for op in work.ops("Conv"):
        after = work.only_reader(op.outputs[0])
        if after is None or after.op_type != "Add" or op.fused or op.layout or len(op.inputs) != 3:
            continue
        if len(work.shape(op.outputs[0])) != 4:
            continue
        if options.denies(work, op, after):
            continue
        other = next((i for i in after.inputs if i != op.outputs[0]), "")
        if not other or not work.alike(other, op.outputs[0]) or work.const(other):
            continue
        fused = work.fuse((op, after), "Conv", [*op.inputs, other], after.outputs, op.attrs)
        fused.fused = ("sum",)
        last = work.only_reader(fused.outputs[0])
        if last is not None and last.op_type == "Relu" and not options.denies(work, fused, last):
            again = work.fuse((fused, last), "Conv", fused.inputs, last.outputs, fused.attrs)
            again.fused = ("sum", "relu")
