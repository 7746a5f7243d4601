"""What joins the kernel that computes what it reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from math import prod

from nn_meter.kernels.rewriting import Op, Work
from nn_meter.runtimes.base import Options
from nn_meter.runtimes.cores import operands
from nn_meter.runtimes.growing import STEPS, Growing, Growth
from nn_meter.runtimes.openvino.operators import (
    ACTIVATIONS,
    ARITHMETIC,
    ELEMENTWISE,
    SUM_ACTIVATIONS,
    is_view,
)

_PRODUCTS = frozenset({"Gemm", "MatMul"})
_REDUCTIONS = frozenset(
    {"ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceMean", "ReduceProd", "ReduceSum", "ReduceSumSquare"}
)
_LAST = -1


def join(work: Work, options: Options) -> None:
    """Activations and constants of each channel join what computes; a sum a convolution; elements each other."""
    sums = _sums(work)
    growth = Growth(work)

    def admits(kernel: Growing, reader: Growing) -> bool:
        return not _refused(work, kernel.last, reader.main, options) and _admits(work, growth, kernel, reader, sums)

    def shares(kernel: Growing, reader: Growing) -> bool:
        if reader.main.op_type == "BatchNormalization":  # two operators, of which the second has the name
            return False
        return {kernel.main.op_type, reader.main.op_type} <= ELEMENTWISE and growth.made_before(kernel, reader)

    growth.join(admits, shares, early=True)


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
    uses = _Uses(work)
    for op in work.ops("Add"):
        if not _is_sum(work, op):
            continue
        convs = [_convolution(work, name) for name in op.inputs]
        place = next((i for i, conv in enumerate(convs) if conv is not None), None)
        if place is None:
            continue
        conv, peer = convs[place], op.inputs[1 - place]
        allowed = conv is not None and conv.inputs[0] != peer and uses.end_with(peer, op)
        found[op.outputs[0]] = conv.outputs[0] if conv is not None and allowed else ""
    return found


class _Uses:
    """Who reads a tensor, or what is made with it."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._last: dict[str, Op] = {}
        self._left = STEPS * sum(1 for _ in work.ops())

    def end_with(self, name: str, last: Op) -> bool:
        """Whether ``last`` reads it, and needs whatever else does."""
        if name not in self._last:
            self._last[name] = max(self._readers(name), key=lambda op: op.place)
        if name in self._work.outputs or self._last[name] is not last:
            return False
        missing, open_ops, seen = {*self._readers(name)} - {last}, [last], {last}
        first = min((op.place for op in missing), default=())
        while open_ops and missing and self._left > 0:
            for maker in map(self._work.producer.get, open_ops.pop().inputs):
                self._left -= 1
                if maker is not None and maker not in seen and not maker.place < first:
                    seen.add(maker)
                    missing.discard(maker)
                    open_ops.append(maker)
        return not missing

    def _readers(self, name: str) -> Iterator[Op]:
        maker = self._work.producer.get(name)
        return chain.from_iterable(map(self._work.readers, filter(None, maker.outputs if maker else (name,))))


def _convolution(work: Work, name: str) -> Op | None:
    """The convolution that makes ``name``, for one reader, with constants of each channel at most."""
    while work.only_reader(name) is not None and (op := work.producer.get(name)) is not None:
        if op.op_type == "Conv":
            return op
        if not _scales(work, op, 1):
            return None
        name = next(i for i in op.inputs if i and not work.const(i))
    return None


def _admits(work: Work, growth: Growth, kernel: Growing, reader: Growing, sums: Mapping[str, str]) -> bool:
    head, op = kernel.main, reader.first
    if op.outputs[0] in sums:
        return len(reader) == 1 and sums[op.outputs[0]] == head.outputs[0]
    if head.op_type in ELEMENTWISE:
        return ELEMENTWISE.issuperset(reader.types) and (len(kernel.open) == 1 or growth.made_before(kernel, reader))
    if len(reader) > 1:
        return False
    if head.op_type == "Conv":
        summed = _is_sum(work, kernel.last)
        if op.op_type in ARITHMETIC or op.op_type == "BatchNormalization":
            return _scales(work, op, 1)
        return op.op_type in (SUM_ACTIVATIONS if summed else ACTIVATIONS)
    if head.op_type == "ConvTranspose":
        return len(kernel) == 1 and _scales(work, op, 1)
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
    constants = [work.shape(i) for i in op.inputs if work.const(i)] if op.op_type in ARITHMETIC else []
    if len(constants) != 1:
        return False
    (constant,) = constants
    if len(shape) <= max(axis, 0):
        return prod(constant) == 1
    wide = (1,) * (len(shape) - len(constant)) + constant
    return prod(constant) in (1, wide[axis]) and wide[axis] in (1, shape[axis])
