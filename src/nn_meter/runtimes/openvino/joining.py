"""What joins the kernel that computes what it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    sums = _sums(work)

    def admits(inside: Sequence[Op], joining: Sequence[Op]) -> bool:
        return not _refused(work, inside[-1], main_of(work, joining), options) and _admits(work, inside, joining, sums)

    def shares(kernel: Op, reader: Op) -> bool:
        if reader.op_type == "BatchNormalization":  # two operators, of which the second has the name
            return False
        return {kernel.op_type, reader.op_type} <= ELEMENTWISE and _is_early(work, kernel, reader)

    join_where(work, admits, shares, early=True)


def _is_early(work: Work, kernel: Op, reader: Op) -> bool:
    """Whether all that ``reader`` reads beside what ``kernel`` makes is made before."""
    makers = [work.producer[i] for i in reader.inputs if i in work.producer]
    return all(maker is kernel or maker.place < kernel.place for maker in makers)


def _refused(work: Work, producer: Op, consumer: Op, options: Options) -> bool:
    """Whether a rule says no; an undecided one does not speak against what is known."""
    pair = work.rule_name(producer), work.rule_name(consumer)
    return options.denies(work, producer, consumer) and options.rules.pairs[pair] is False


def _sums(work: Work) -> dict[str, str]:
    """Results of sums that convolutions were meant to take, and the result of the one that does, ``""`` where none.

    It is the first operand's where both could be; what it is added to is overwritten, so that all others have to have
    read that before (``FuseConvolutionSumAndConvolutionSumActivation``).
    """
    found: dict[str, str] = {}
    for op in work.ops("Add"):
        if not _is_sum(work, op):
            continue
        convs = [_convolution(work, name) for name in op.inputs]
        place = next((i for i, conv in enumerate(convs) if conv is not None), None)
        if place is None:
            continue
        conv, peer = convs[place], op.inputs[1 - place]
        allowed = conv is not None and conv.inputs[0] != peer and _read_before(work, peer, op)
        found[op.outputs[0]] = conv.outputs[0] if conv is not None and allowed else ""
    return found


def _convolution(work: Work, name: str) -> Op | None:
    """The convolution that makes ``name``, for one reader, with constants of each channel at most."""
    while work.only_reader(name) is not None and (op := work.producer.get(name)) is not None:
        if op.op_type == "Conv":
            return op
        if not _scales(work, op, 1):
            return None
        name = next(i for i in op.inputs if i and not work.const(i))
    return None


def _read_before(work: Work, name: str, last: Op) -> bool:
    """Whether whatever else reads ``name``, or what is made with it, is needed for ``last``."""
    maker = work.producer.get(name)
    made = [name] if maker is None else [o for o in maker.outputs if o]
    readers = [reader for each in made for reader in work.readers(each)]
    return name not in work.outputs and all(r is last or _leads_to(work, r, last) for r in readers)


def _leads_to(work: Work, first: Op, last: Op) -> bool:
    open_ops, seen = [first], {id(first)}
    while open_ops:
        for name in open_ops.pop().outputs:
            for reader in work.readers(name) if name else ():
                if reader is last:
                    return True
                if id(reader) not in seen and reader.place < last.place:
                    seen.add(id(reader))
                    open_ops.append(reader)
    return False


def _admits(work: Work, inside: Sequence[Op], joining: Sequence[Op], sums: Mapping[str, str]) -> bool:
    head, op = main_of(work, inside), joining[0]
    if op.outputs[0] in sums:
        return len(joining) == 1 and sums[op.outputs[0]] == head.outputs[0]
    if head.op_type in ELEMENTWISE:
        kernel = next(work.producer[o] for each in inside for o in each.outputs if o in work.producer)
        reader = next(work.producer[o] for each in joining for o in each.outputs if o in work.producer)
        early = len(kernel.outputs) == 1 or _is_early(work, kernel, reader)
        return early and all(each.op_type in ELEMENTWISE for each in joining)
    if len(joining) > 1:
        return False
    if head.op_type == "Conv":
        summed = _is_sum(work, inside[-1])
        if op.op_type in ARITHMETIC or op.op_type == "BatchNormalization":
            return _scales(work, op, 1)
        return op.op_type in (SUM_ACTIVATIONS if summed else ACTIVATIONS)
    if head.op_type == "ConvTranspose":
        return len(inside) == 1 and _scales(work, op, 1)
    if head.op_type in _PRODUCTS:
        return op.op_type in ACTIVATIONS or _scales(work, op, _LAST)
    if head.op_type in _REDUCTIONS:
        return op.op_type in ACTIVATIONS or _scales(work, op, 1)
    if head.op_type == "LayerNormalization":  # its weights are operators on elements behind it
        return op.op_type in ELEMENTWISE
    if head.op_type == "InstanceNormalization":
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
    if op.op_type != "Add" or operands(work, op) != 2:
        return False
    first, second = work.executed(op).inputs
    return first is not None and second is not None and first.shape == second.shape


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
