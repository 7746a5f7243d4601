"""What OpenVINO makes of operators before they fuse with what computes them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from nn_meter.kernels.kinds import KIND_OF, VIEWS
from nn_meter.kernels.rewriting import Op, Work
from nn_meter.runtimes.base import Options
from nn_meter.runtimes.cores import attention, core, operands
from nn_meter.runtimes.openvino.operators import ELEMENTWISE, channels_last, is_scalar_step, is_view

_HEADS_FIRST = (0, 2, 1, 3)
"""The transposes that attention takes in: between heads behind and before the places."""

_IMAGES_FIRST = (0, 3, 1, 2)
_ROWS = (0, 2, 1)


_MOVING = ("Transpose", *VIEWS)
_OF_SCORES = ELEMENTWISE | {"MatMul"}


def merge_slices(work: Work, options: Options) -> None:
    """Slices of one tensor along one axis that do not overlap become one split."""
    groups: dict[tuple[str, int], list[Op]] = {}
    for op in work.ops("Slice"):
        axes = _cut(work, op)
        if len(axes) == 1 and not work.const(op.inputs[0]):
            groups.setdefault((op.inputs[0], axes[0]), []).append(op)
    for (source, _), ops in groups.items():
        if len(ops) > 1 and _apart(work, ops):
            config = core(work, ops)
            members = tuple(member for op in ops for member in op.members)
            split = Op(config.op_type, (source,), [op.outputs[0] for op in ops], config.attrs, members)
            split.core = config
            for op in ops:
                work.remove(op)
            work.add(split, at=ops[0])


def _cut(work: Work, op: Op) -> list[int]:
    """Axes along which a Slice leaves something out."""
    before, after = work.shape(op.inputs[0]), work.shape(op.outputs[0])
    return [axis for axis, size in enumerate(before) if size != after[axis]]


def _apart(work: Work, ops: Sequence[Op]) -> bool:
    """Whether Slices take neighbours in steps of one, and no place is in two of them."""
    spans = []
    for op in ops:
        (axis,) = _cut(work, op)
        starts, axes, steps = work.value(op, 1), work.value(op, 3), work.value(op, 4)
        size, length = work.shape(op.inputs[0])[axis], work.shape(op.outputs[0])[axis]
        if starts is None or (steps is not None and set(steps) != {1}):
            return False
        rank = len(work.shape(op.inputs[0]))
        places = [int(each) % rank for each in axes] if axes is not None else list(range(len(starts)))
        start = int(starts[places.index(axis)]) if axis in places else 0
        start = max(start + size, 0) if start < 0 else start
        spans.append((start, start + length))
    spans.sort()
    return all(end <= start for (_, end), (start, _) in pairwise(spans))


def drop_idle(work: Work, options: Options) -> None:
    """A Concat of one is nothing, nor is a Pad of nothing."""
    for op in work.ops("Concat", "Pad"):
        data = [i for i in op.inputs if i and not work.const(i)]
        if len(data) == 1 and work.shape(data[0]) == work.shape(op.outputs[0]):
            work.bypass(op, f"the {op.op_type} changes nothing")


def absorb_expand(work: Work, options: Options) -> None:
    """An Expand before arithmetic that broadcasts by itself is not executed."""
    absorbed(work)


def absorbed(work: Work) -> list[str]:
    """Do so; returns the nodes that are not executed."""
    idle: list[str] = []
    for op in work.ops("Expand"):
        reader = work.only_reader(op.outputs[0])
        if reader is None or KIND_OF.get(reader.op_type) != "binary" or work.const(op.inputs[0]):
            continue
        others = [work.shape(i) for i in reader.inputs if i and i != op.outputs[0]]
        if work.shape(reader.outputs[0]) in others:
            inputs = [op.inputs[0] if i == op.outputs[0] else i for i in reader.inputs]
            idle += op.members
            work.fuse((op, reader), reader.op_type, inputs, reader.outputs, reader.attrs)
    return idle


def group_convolutions(work: Work, options: Options) -> None:
    """Equal convolutions of the parts of a Split, put together again, are one with groups."""
    for split in work.ops("Split"):
        readers = [work.only_reader(o) for o in split.outputs]
        convs = [op for op in readers if op is not None and op.op_type == "Conv"]
        joins = {id(r): r for op in convs if (r := work.only_reader(op.outputs[0])) is not None}
        if len(convs) < len(split.outputs) or len(joins) != 1:
            continue
        (concat,) = joins.values()
        made = [op.outputs[0] for op in convs]
        alike = {(tuple(sorted(op.attrs.items())), work.shape(op.inputs[1])) for op in convs}
        if concat.op_type == "Concat" and [*concat.inputs] == made and len(alike) == 1:
            config = core(work, (split, *convs, concat))
            ops = (split, *convs, concat)
            work.fuse(ops, config.op_type, split.inputs, concat.outputs, config.attrs).core = config


def fuse_transpose(work: Work, options: Options) -> None:
    """A Transpose of the last two axes before a product of activations is a way to read its operand."""
    for op in work.ops("MatMul"):
        for name in op.inputs:
            before = work.made_by(name, "Transpose")
            if before is None or work.only_reader(name) is not op or not _turns_last(before):
                continue
            if operands(work, op) == 2:
                inputs = [before.inputs[0] if i == name else i for i in op.inputs]
                scores = work.executed(op)
                attrs = {**op.attrs, "transA": 1} if name == op.inputs[0] else op.attrs
                op = work.fuse((before, op), "MatMul", inputs, op.outputs, attrs)
                op.core = scores


def _turns_last(op: Op | None) -> bool:
    perm = op.attrs.get("perm") if op is not None and op.op_type == "Transpose" else None
    return isinstance(perm, tuple) and perm == (*range(len(perm) - 2), len(perm) - 1, len(perm) - 2)


def move_up(work: Work, options: Options) -> None:
    """What is done to each element, with no operand or a scalar one, goes before views and transposes."""
    seen: set[Op] = set()
    for first in work.ops(*_MOVING):
        if first not in seen and not work.const(first.inputs[0]):
            run = _run(work, first)
            seen.update(run)
            steps = [op for op in run if op.op_type not in _MOVING]
            views = [op for op in run[: run.index(steps[-1])] if op.op_type in _MOVING] if steps else []
            _reorder(work, run[: len(steps) + len(views)], [*steps, *views], len(steps))


def _run(work: Work, first: Op) -> list[Op]:
    """A view or Transpose, and what follows it of these and of scalar steps, each the only reader of the one before."""
    run = [first]
    while (reader := work.only_reader(run[-1].outputs[0])) is not None:
        if reader.inputs[0] != run[-1].outputs[0] if reader.op_type in _MOVING else not is_scalar_step(work, reader):
            break
        run.append(reader)
    return run


def _reorder(work: Work, run: Sequence[Op], ordered: Sequence[Op], steps: int) -> None:
    """Let operators that follow one another do so in another order, of which the first ``steps`` keep their shape."""
    made = run[0].inputs[0] if run else ""
    for op in run:
        work.remove(op)
    for number, (op, place) in enumerate(zip(ordered, run, strict=True), 1):
        like = op.outputs[0]
        shape = work.shape(made if number <= steps else like)
        out = run[-1].outputs[0] if number == len(run) else work.fresh("moved", shape, like)
        inputs = list(op.inputs)
        inputs[next(i for i, name in enumerate(inputs) if name and not work.const(name))] = made
        work.add(Op(op.op_type, inputs, (out,), op.attrs, op.nested), at=place).core = op.core
        made = out


def fuse_attention(work: Work, options: Options) -> None:
    """Scores, what is done to them, their softmax, the product with the values and the transposes around are one."""
    for softmax in work.ops("Softmax"):
        if not work.alive(softmax):
            continue
        mixing = work.only_reader(softmax.outputs[0])
        if mixing is None or mixing.op_type != "MatMul" or mixing.inputs[0] != softmax.outputs[0]:
            continue
        steps: list[Op] = []
        maker = _alone(work, softmax.inputs[0])
        while maker is not None and maker.op_type in ELEMENTWISE:
            steps.append(maker)
            makers = (_alone(work, name) for name in maker.inputs)
            maker = next((m for m in makers if m is not None and m.op_type in _OF_SCORES), None)
        if maker is None or maker.op_type != "MatMul" or operands(work, maker) < 2 or operands(work, mixing) < 2:
            continue
        if maker.attrs.get("transA") or _turns_last(work.producer.get(maker.inputs[0])):
            continue
        _tokenise(work, maker, steps, softmax, mixing)


def _alone(work: Work, name: str) -> Op | None:
    """What computes a tensor that has one reader."""
    return work.producer.get(name) if work.only_reader(name) is not None else None


def _tokenise(work: Work, scores: Op, steps: Sequence[Op], softmax: Op, mixing: Op) -> None:
    config = attention(work, scores, mixing)
    ops = [scores, *steps, softmax, mixing]
    for name in (scores.inputs[0], mixing.inputs[1]):
        before = _alone(work, name)
        if before is not None and _puts_heads_first(work, before):
            ops.append(before)
    for name in scores.inputs:
        before = _alone(work, name)
        while before is not None and is_scalar_step(work, before):
            ops.append(before)
            before = _alone(work, next(i for i in before.inputs if not work.const(i)))
    last = mixing
    while (reader := work.only_reader(last.outputs[0])) is not None and is_scalar_step(work, reader):
        ops.append(reader)
        last = reader
    if last is mixing and reader is not None and _puts_heads_first(work, reader):
        ops.append(reader)
        last = reader
    made = {o for op in ops for o in op.outputs}
    inputs = dict.fromkeys(i for op in ops for i in op.inputs if i and i not in made)
    fused = work.fuse(ops, "Attention", list(inputs), last.outputs, {})
    fused.core = config


def _puts_heads_first(work: Work, op: Op) -> bool:
    return op.op_type == "Transpose" and op.attrs.get("perm") == _HEADS_FIRST and not is_view(work, op)


def turn_in_place(work: Work, options: Options) -> None:
    """Where what is made and what is wanted has the channels last, nothing moves: views and transposes between belong
    to what reads them, or where several do to what they read."""
    turned(work)


def turned(work: Work) -> list[str]:
    """Do so; returns the nodes that move nothing."""
    last = channels_last(work, ("pool",))
    idle: list[str] = []
    for op in work.ops("Transpose"):
        before, reader = _alone(work, op.inputs[0]), work.only_reader(op.outputs[0])
        ops, taker = _in_place(work, op, before, reader, last)
        if taker is None:
            continue
        idle += [member for each in ops for member in each.members]
        if taker is before:
            _append(work, taker, ops)
        else:
            _take(work, ops, taker)
    return idle


def _in_place(
    work: Work, op: Op, before: Op | None, reader: Op | None, last: set[str]
) -> tuple[tuple[Op, ...], Op | None]:
    """A Transpose that moves nothing with the view beside it, and the operator that takes them."""
    out = op.outputs[0]
    if op.attrs.get("perm") == _IMAGES_FIRST:
        if reader is not None and reader.op_type in ELEMENTWISE and _meets(reader, out, last):
            return (op,), reader
        if before is not None and reader is None and _all_meet(work, out, last):
            return (op,), before
    elif op.attrs.get("perm") == _ROWS and reader is not None:
        if before is not None and before.op_type in VIEWS and _flattens(work, before, last):
            return (before, op), reader
        if reader.op_type in VIEWS and len(work.shape(reader.outputs[0])) == 4:
            image = reader.outputs[0]
            conv = work.only_reader(image)
            if conv is not None and conv.op_type == "Conv":
                return (op, reader), conv
            if conv is None and before is not None and _all_meet(work, image, last | {image}):
                return (op, reader), before
    return (), None


def _all_meet(work: Work, name: str, last: set[str]) -> bool:
    """Whether all that read a tensor have what they read with the channels last."""
    readers = () if name in work.outputs else work.readers(name)
    return bool(readers) and all(each.op_type == "Conv" or _meets(each, name, last) for each in readers)


def _meets(reader: Op, name: str, last: set[str]) -> bool:
    """Whether what else ``reader`` reads has the channels last."""
    others = [i for i in reader.inputs if i and i != name]
    return bool(others) and all(i in last for i in others)


def _flattens(work: Work, view: Op, last: set[str]) -> bool:
    """Whether a view puts the places of an image with the channels last in one row."""
    shape = work.shape(view.inputs[0])
    flat = (*shape[:2], shape[2] * shape[3]) if len(shape) == 4 else ()
    return view.inputs[0] in last and work.shape(view.outputs[0]) == flat


def _append(work: Work, maker: Op, ops: Sequence[Op]) -> None:
    """Let ``maker`` have operators that stand one behind the other behind it."""
    outputs = [ops[-1].outputs[0] if o == ops[0].inputs[0] else o for o in maker.outputs]
    members = tuple(member for op in (maker, *ops) for member in op.members)
    taken = Op(maker.op_type, maker.inputs, outputs, maker.attrs, members)
    taken.core = work.executed(maker)
    for op in (maker, *ops):
        work.remove(op)
    work.add(taken, at=maker)


def _take(work: Work, ops: Sequence[Op], reader: Op) -> None:
    """Let ``reader`` have operators that stand one behind the other before it."""
    config = work.executed(reader)
    inputs = [ops[0].inputs[0] if i == ops[-1].outputs[0] else i for i in reader.inputs]
    taken = work.fuse((*ops, reader), reader.op_type, inputs, reader.outputs, reader.attrs)
    taken.core = config

