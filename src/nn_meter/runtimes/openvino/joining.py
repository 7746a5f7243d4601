"""What joins the kernel that computes what it reads."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from nn_meter.kernels.rewriting import Op, Work
from nn_meter.runtimes.base import Options
from nn_meter.runtimes.openvino.operators import (
    ACTIVATIONS,
    ARITHMETIC,
    ELEMENTWISE,
    SUM_ACTIVATIONS,
    is_view,
)
from nn_meter.runtimes.pairs import join_where, main_of, operands

_PRODUCTS = frozenset({"Gemm", "MatMul"})
_REDUCTIONS = frozenset(
    {"ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceMean", "ReduceProd", "ReduceSum", "ReduceSumSquare"}
)
_LAST = -1


def join(work: Work, options: Options) -> None:
    """Activations and constants of each channel join what computes; a sum a convolution; elements each other."""

    def admits(inside: Sequence[Op], joining: Sequence[Op]) -> bool:
        return not _refused(work, inside[-1], main_of(work, joining), options) and _admits(work, inside, joining)

    join_where(work, admits)


def _refused(work: Work, producer: Op, consumer: Op, options: Options) -> bool:
    """Whether a rule says no; an undecided one does not speak against what is known."""
    pair = work.rule_name(producer), work.rule_name(consumer)
    return options.denies(work, producer, consumer) and options.rules.pairs[pair] is False


def _admits(work: Work, inside: Sequence[Op], joining: Sequence[Op]) -> bool:
    head, op = main_of(work, inside), joining[0]
    if head.op_type in ELEMENTWISE:
        return all(each.op_type in ELEMENTWISE for each in joining)
    if len(joining) > 1:
        return False
    if head.op_type == "Conv":
        summed = any(_is_sum(work, each) for each in inside)
        if _is_sum(work, op):
            return not summed and all(each is head or _scales(work, each, 1) for each in inside)
        if op.op_type in ARITHMETIC or op.op_type == "BatchNormalization":
            return _scales(work, op, 1)
        return op.op_type in (SUM_ACTIVATIONS if summed and _is_sum(work, inside[-1]) else ACTIVATIONS)
    if head.op_type == "ConvTranspose":
        return len(inside) == 1 and _scales(work, op, 1)
    if head.op_type in _PRODUCTS:
        return op.op_type in ACTIVATIONS or _scales(work, op, _LAST)
    if head.op_type in _REDUCTIONS:
        return op.op_type in ACTIVATIONS or _scales(work, op, 1)
    if head.op_type in ("LayerNormalization", "InstanceNormalization"):
        return op.op_type in ACTIVATIONS
    if is_view(work, head):
        return is_view(work, op)
    if head.op_type == "Slice":
        return op.op_type == "Slice"
    if head.op_type == "Pad":
        return op.op_type == "Conv"
    if head.op_type == "Transpose":
        return head.attrs.get("perm") == (0, 3, 1, 2) and op.op_type == "Conv"
    return False


def _is_sum(work: Work, op: Op) -> bool:
    """Whether an operator adds two values of one shape."""
    return op.op_type == "Add" and operands(work, op) == 2 and work.shape(op.inputs[0]) == work.shape(op.inputs[1])


def _scales(work: Work, op: Op, axis: int) -> bool:
    """Whether an operator multiplies or adds a constant for each channel, or one for all."""
    shape = work.shape(op.outputs[0])
    if op.op_type == "BatchNormalization":
        return axis == 1 or len(shape) == 2
    constants = [work.shape(i) for i in op.inputs if work.const(i)]
    if op.op_type not in ARITHMETIC or len(constants) != 1:
        return False
    (constant,) = constants
    wide = (1,) * (len(shape) - len(constant)) + constant
    return prod(constant) in (1, wide[axis]) and wide[axis] in (1, shape[axis])
