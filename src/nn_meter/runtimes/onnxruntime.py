"""What ONNX Runtime's optimiser makes of a graph on the CPU, pass by pass.

Each pass is a row of ``PASSES`` and does one of the runtime's graph transformations to the shapes: which nodes
become one, which vanish, where layouts change. The facts are ONNX Runtime's (its ``core/optimizer`` folder and
what its optimised models show, 1.2x to 1.32, all optimisations on, float32); they hold for one block size of the
blocked layout, which depends on the processor: 16 channels with AVX-512, 8 with AVX2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod, sqrt

from nn_meter.ir import Attr
from nn_meter.kernels.kinds import ACTIVATIONS
from nn_meter.kernels.rewriting import Op, Work
from nn_meter.kernels.rules import RuleSet


@dataclass(frozen=True, slots=True)
class Options:
    """What passes may ask."""

    rules: RuleSet

    def denies(self, work: Work, producer: Op, consumer: Op) -> bool:
        """Whether a rule is there for the pair and does not admit it: it says no, or is undecided.

        Rules with ``add`` are about sums of two values, not about biases.
        """
        if consumer.op_type == "Add" and any(work.const(i) for i in consumer.inputs):
            return False
        pair = work.rule_name(producer), work.rule_name(consumer)
        return pair in self.rules.pairs and not self.rules.fuses(*pair)


_CONV_ACTIVATIONS = tuple(ACTIVATIONS)
_GEMM_ACTIVATIONS = ("Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid")
_NO_OPS = ("Identity", "Dropout")


def _near(value: float | None, wanted: float) -> bool:
    return value is not None and abs(value - wanted) <= 1e-3 * abs(wanted) + 1e-7


def eliminate_no_ops(work: Work, options: Options) -> None:
    """Identity, Dropout at inference, casts to the same type, slices and expansions that change nothing.

    A Reshape to the shape that is there already stays, unless a view stands before or behind it.
    """
    for op in work.ops():
        source, out = op.inputs[0] if op.inputs else "", op.outputs[0]
        if not source or not _data(work, op):
            continue
        if op.op_type in _NO_OPS:
            work.bypass(op, f"{op.op_type} is not executed at inference")
        elif op.op_type == "Cast" and work.tensors[source].dtype == work.tensors[out].dtype:
            work.bypass(op, "a cast to its own type")
        elif op.op_type in ("Expand", "Tile", "Transpose", "Slice") and len(_data(work, op)) == 1:
            same = work.shape(source) == work.shape(out)
            if op.op_type == "Transpose":
                same = same and op.attrs.get("perm") == tuple(range(len(work.shape(out))))
            elif op.op_type == "Slice":
                same = same and _is_open(work, op)
            if same:
                work.bypass(op, f"the {op.op_type} changes nothing")
        elif op.op_type in ("Mul", "Div", "Add", "Sub"):
            neutral = 1.0 if op.op_type in ("Mul", "Div") else 0.0
            sides = (0, 1) if op.op_type in ("Mul", "Add") else (1,)
            side = next((i for i in sides if work.scalar(op.inputs[i]) == neutral), None)
            if side is not None and work.shape(op.inputs[1 - side]) == work.shape(out):
                op.inputs = [op.inputs[1 - side], op.inputs[side]]
                work.bypass(op, "its constant operand changes nothing")


def _is_open(work: Work, op: Op) -> bool:
    """Whether a Slice goes forward to an end left open; only such ones are seen to change nothing."""
    ends, steps = (
        work.tensors[op.inputs[i]].value if len(op.inputs) > i and op.inputs[i] else None for i in (2, 4)
    )
    return ends is not None and min(ends) >= 2**31 - 1 and (steps is None or min(steps) == 1)


def _data(work: Work, op: Op) -> list[str]:
    return [i for i in op.inputs if i and not work.const(i)]


def fold_into_conv(work: Work, options: Options) -> None:
    """BatchNormalization, and Mul or Add of a constant per channel, into the weights of the convolution before."""
    for op in work.ops("Conv"):
        while work.alive(op):
            after = work.only_reader(op.outputs[0])
            if after is None or not work.const(op.inputs[1]) or options.denies(work, op, after):
                break
            if after.op_type == "BatchNormalization" and after.inputs[0] == op.outputs[0]:
                bias = op.inputs[2] if len(op.inputs) > 2 else after.inputs[2]
            elif after.op_type in ("Mul", "Add") and _per_channel(work, after, op.outputs[0]):
                other = next(i for i in after.inputs if i != op.outputs[0])
                has_bias = len(op.inputs) > 2
                if after.op_type == "Mul":
                    bias = op.inputs[2] if has_bias else ""
                else:
                    bias = op.inputs[2] if has_bias else other
            else:
                break
            inputs = op.inputs[:2] + ([bias] if bias else [])
            op = work.fuse((op, after), "Conv", inputs, after.outputs[:1], op.attrs)


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


def fold_pad(work: Work, options: Options) -> None:
    """A constant Pad of zeros into the convolution or pooling behind it."""
    for op in work.ops("Pad"):
        after = work.only_reader(op.outputs[0])
        if (
            after is None
            or after.op_type not in ("Conv", "MaxPool")
            or op.attrs.get("mode", "constant") != "constant"
        ):
            continue
        rank = len(work.shape(op.inputs[0]))
        pads = (
            tuple(work.tensors[op.inputs[1]].value or ()) if len(op.inputs) > 1 else op.attrs.get("pads", ())
        )
        fill = work.scalar(op.inputs[2]) if len(op.inputs) > 2 and op.inputs[2] else 0.0
        if not isinstance(pads, tuple) or len(pads) != 2 * rank or after.op_type == "MaxPool" or fill != 0.0:
            continue
        if any(pads[i] or pads[rank + i] for i in (0, 1)) or any(
            not isinstance(p, int) or p < 0 for p in pads
        ):
            continue
        work.fuse((op, after), after.op_type, [op.inputs[0], *after.inputs[1:]], after.outputs, after.attrs)


def fuse_gelu(work: Work, options: Options) -> None:
    """``x * 0.5 * (1 + erf(x / sqrt 2))`` in its orders."""
    for erf in work.ops("Erf"):
        scale = work.made_by(erf.inputs[0], "Div", "Mul")
        plus = work.only_reader(erf.outputs[0])
        if (
            scale is None
            or plus is None
            or plus.op_type != "Add"
            or work.only_reader(scale.outputs[0]) is not erf
        ):
            continue
        factor = next((work.scalar(i) for i in reversed(scale.inputs) if work.is_one_element(i)), None)
        if not _near(factor, sqrt(2) if scale.op_type == "Div" else 1 / sqrt(2)):
            continue
        x = next((i for i in scale.inputs if not work.is_one_element(i)), "")
        if not any(_near(work.scalar(i), 1.0) for i in plus.inputs):
            continue
        _finish_gelu(work, x, [scale, erf, plus], plus.outputs[0], "Gelu")


def _finish_gelu(work: Work, x: str, chain: list[Op], gate: str, name: str) -> bool:
    """The products that close a GELU: with ``x`` and one half, in any order."""
    first = work.only_reader(gate)
    if first is None or first.op_type != "Mul" or not x:
        return False
    other = next((i for i in first.inputs if i != gate), gate)
    if other == x:
        second = work.only_reader(first.outputs[0])
        if (
            second is not None
            and second.op_type == "Mul"
            and any(_near(work.scalar(i), 0.5) for i in second.inputs)
        ):
            work.fuse([*chain, first, second], name, [x], second.outputs)
            return True
        return False
    half = work.made_by(other, "Mul")
    if (
        half is not None
        and x in half.inputs
        and any(_near(work.scalar(i), 0.5) for i in half.inputs)
        and work.only_reader(other) is first
    ):
        work.fuse([*chain, half, first], name, [x], first.outputs)
        return True
    if _near(work.scalar(other), 0.5):
        second = work.only_reader(first.outputs[0])
        if second is not None and second.op_type == "Mul" and x in second.inputs:
            work.fuse([*chain, first, second], name, [x], second.outputs)
            return True
    return False


def fuse_fast_gelu(work: Work, options: Options) -> None:
    """The tanh spelling of GELU: ``0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))``."""
    for tanh in work.ops("Tanh"):
        scale = work.made_by(tanh.inputs[0], "Mul")
        plus = work.only_reader(tanh.outputs[0])
        if (
            scale is None
            or plus is None
            or plus.op_type != "Add"
            or not any(_near(work.scalar(i), sqrt(2 / 3.14159265)) for i in scale.inputs)
        ):
            continue
        inner = next((p for i in scale.inputs if (p := work.made_by(i, "Add")) is not None), None)
        if inner is None:
            continue
        for x in inner.inputs:
            cubic = next(
                (p for i in inner.inputs if i != x and (p := work.made_by(i, "Mul")) is not None), None
            )
            if cubic is None or not any(_near(work.scalar(i), 0.044715) for i in cubic.inputs):
                continue
            power = next((p for i in cubic.inputs if (p := work.made_by(i, "Pow", "Mul")) is not None), None)
            chain = [op for op in (power, cubic, inner, scale, tanh, plus) if op is not None]
            if power is not None and power.op_type == "Mul" and power.inputs.count(x) != 2:
                square = next((p for i in power.inputs if (p := work.made_by(i, "Mul")) is not None), None)
                chain = [square, *chain] if square is not None else chain
            if all(work.only_reader(op.outputs[0]) is not None for op in chain) and _finish_gelu(
                work, x, chain, plus.outputs[0], "FastGelu"
            ):
                break


def fuse_layer_norm(work: Work, options: Options) -> None:
    """LayerNormalization spelled with ReduceMean, Sub, Pow, ReduceMean, Add, Sqrt, Div, Mul, Add."""
    for root in work.ops("Sqrt"):
        div = work.only_reader(root.outputs[0])
        eps = work.made_by(root.inputs[0], "Add")
        variance = (
            next((p for i in eps.inputs if (p := work.made_by(i, "ReduceMean")) is not None), None)
            if eps
            else None
        )
        power = work.made_by(variance.inputs[0], "Pow", "Mul") if variance else None
        if div is None or div.op_type != "Div" or eps is None or variance is None or power is None:
            continue
        centred = work.made_by(power.inputs[0], "Sub", "Cast")
        scale = work.only_reader(div.outputs[0])
        if centred is not None and centred.op_type == "Sub" and div.inputs[0] in centred.outputs:
            mean = work.made_by(centred.inputs[1], "ReduceMean")
            if mean is None or mean.inputs[0] != centred.inputs[0] or scale is None or scale.op_type != "Mul":
                continue
            shift = work.only_reader(scale.outputs[0])
            weight = next((i for i in scale.inputs if work.const(i)), "")
            if (
                shift is None
                or shift.op_type != "Add"
                or not weight
                or not any(work.const(i) for i in shift.inputs)
            ):
                continue
            twin = [
                op
                for op in work.readers(centred.inputs[0])
                if op.op_type == "Sub" and op is not centred and op.inputs == centred.inputs
            ]
            bias = next(i for i in shift.inputs if work.const(i))
            chain = [mean, centred, *twin, power, variance, eps, root, div, scale, shift]
            work.fuse(
                chain, "LayerNormalization", [mean.inputs[0], weight, bias], shift.outputs, {"axis": -1}
            )
        elif (
            work.scalar(div.inputs[0]) == 1.0
            and scale is not None
            and scale.op_type == "Mul"
            and power.inputs[0] in scale.inputs
        ):
            last = work.only_reader(scale.outputs[0])
            weight = (
                next((i for i in last.inputs if work.const(i)), "")
                if last is not None and last.op_type == "Mul"
                else ""
            )
            if last is not None and weight:
                chain = [power, variance, eps, root, div, scale, last]
                work.fuse(
                    chain,
                    "SimplifiedLayerNormalization",
                    [power.inputs[0], weight],
                    last.outputs,
                    {"axis": -1},
                )
        elif div.inputs[0] == power.inputs[0] and scale is not None and scale.op_type == "Mul":
            weight = next((i for i in scale.inputs if work.const(i)), "")
            if weight:
                chain = [power, variance, eps, root, div, scale]
                work.fuse(
                    chain,
                    "SimplifiedLayerNormalization",
                    [power.inputs[0], weight],
                    scale.outputs,
                    {"axis": -1},
                )


def gather_to_split(work: Work, options: Options) -> None:
    """Parts of a tensor along one axis, taken by Gather or Slice, become one Split, and views behind the Gathers."""
    for first in work.ops("Gather", "Slice"):
        source = first.inputs[0]
        readers = list(work.readers(source))
        cuts = [_cut(work, op) for op in readers]
        parts = sorted(
            ((c, op) for c, op in zip(cuts, readers, strict=True) if c is not None), key=lambda part: part[0]
        )
        if work.const(source) or len(parts) < 2 or len({c[0] for c, _ in parts}) != 1:
            continue
        axis = parts[0][0][0]
        ends = [0, *(c[2] for c, _ in parts)]
        if [c[1] for c, _ in parts] != ends[:-1] or ends[-1] != work.shape(source)[axis]:
            continue
        pieces: list[str] = []
        views: list[Op] = []
        place = min(op.place for _, op in parts)
        for (_, start, end), op in parts:
            work.remove(op)
            if op.op_type == "Slice":
                pieces.append(op.outputs[0])
                continue
            shape = list(work.shape(source))
            shape[axis] = end - start
            pieces.append(work.fresh("part", shape, source))
            views.append(Op("Squeeze", pieces[-1:], op.outputs, {}, op.members, op.place))
        members = tuple(m for _, op in parts if op.op_type == "Slice" for m in op.members)
        work.add(Op("Split", [source], pieces, {"axis": axis}, members, place))
        for view in views:
            work.add(view)


def _cut(work: Work, op: Op) -> tuple[int, int, int] | None:
    """Axis, start and end of what a Gather of one index or a Slice along one axis takes; ``None`` for all else."""
    rank = len(work.shape(op.inputs[0]))
    if op.op_type == "Gather":
        axis, index = op.attrs.get("axis", 0), work.scalar(op.inputs[1])
        if not isinstance(axis, int) or index is None:
            return None
        start = int(index) % work.shape(op.inputs[0])[axis]
        return axis % rank, start, start + 1
    if op.op_type != "Slice" or len(op.inputs) < 3:
        return None
    values = [work.tensors[i].value if i else None for i in op.inputs[1:]]
    starts, ends = values[0], values[1]
    axes = values[2] if len(values) > 2 and values[2] is not None else (0,)
    steps = values[3] if len(values) > 3 and values[3] is not None else (1,)
    if (
        starts is None
        or ends is None
        or not len(starts) == len(ends) == len(axes) == len(steps) == 1
        or steps[0] != 1
    ):
        return None
    axis = int(axes[0]) % rank
    size = work.shape(op.inputs[0])[axis]
    start, end = (min(max(int(v) + size if v < 0 else int(v), 0), size) for v in (starts[0], ends[0]))
    return axis, start, end


def push_transpose_through_split(work: Work, options: Options) -> None:
    """A Transpose before a Split moves behind it, and behind the Squeezes of the parts: one for each part."""
    for op in work.ops("Transpose"):
        split = work.only_reader(op.outputs[0])
        perm = op.attrs.get("perm")
        if split is None or split.op_type != "Split" or not isinstance(perm, tuple):
            continue
        readers = [work.only_reader(o) for o in split.outputs]
        squeezed = all(r is not None and r.op_type == "Squeeze" for r in readers)
        if not squeezed and not any(r is not None and r.op_type == "Transpose" for r in readers):
            continue
        order = [int(p) for p in perm]
        axis = split.attrs.get("axis", 0)
        assert isinstance(axis, int)
        moved = order[axis % len(order)]
        source = op.inputs[0]
        work.remove(op)
        work.remove(split)
        sizes = [work.shape(o)[axis] for o in split.outputs]
        shapes = [[size if a == moved else d for a, d in enumerate(work.shape(source))] for size in sizes]
        parts = [work.fresh("part", shape, source) for shape in shapes]
        work.add(Op("Split", [source], parts, {"axis": moved}, split.members, op.place))
        kept = [a for a in range(len(order)) if a != moved]
        for i, (reader, part) in enumerate(zip(readers, parts, strict=True)):
            members = op.members if i == 0 else ()
            if not squeezed or reader is None:
                work.add(
                    Op(
                        "Transpose",
                        [part],
                        [split.outputs[i]],
                        {"perm": tuple(order)},
                        members,
                        split.place + 0.1,
                    )
                )
                continue
            work.remove(reader)
            flat = work.fresh("flat", [shapes[i][a] for a in kept], source)
            work.add(Op("Squeeze", [part], [flat], {}, reader.members, reader.place))
            new_perm = tuple(kept.index(a) for a in order if a != moved)
            work.add(Op("Transpose", [flat], reader.outputs, {"perm": new_perm}, members, reader.place + 0.1))


def push_transpose_through_view(work: Work, options: Options) -> None:
    """A Transpose before a Reshape that only splits axes moves behind it; a Reshape that does not even that goes."""
    for op in work.ops("Reshape"):
        before = work.made_by(op.inputs[0], "Transpose")
        perm = before.attrs.get("perm") if before is not None else None
        if before is None or not isinstance(perm, tuple) or work.only_reader(before.outputs[0]) is not op:
            continue
        groups = _split_axes(work.shape(op.inputs[0]), work.shape(op.outputs[0]))
        if groups is None:
            continue
        if work.shape(op.inputs[0]) == work.shape(op.outputs[0]):
            work.bypass(op, "a view behind a transpose that changes nothing")
            continue
        order = [int(p) for p in perm]
        by_source = [(axis, size) for axis in sorted(order) for size in groups[order.index(axis)]]
        split = work.fresh("split", [size for _, size in by_source], op.outputs[0])
        turn = tuple(i for axis in order for i, (owner, _) in enumerate(by_source) if owner == axis)
        work.remove(before)
        work.remove(op)
        work.add(Op("Reshape", before.inputs[:1], [split], op.attrs, op.members, before.place))
        work.add(Op("Transpose", [split], op.outputs, {"perm": turn}, before.members, op.place))


def _split_axes(shape: tuple[int, ...], wanted: tuple[int, ...]) -> list[tuple[int, ...]] | None:
    """What each axis of ``shape`` is split into, an axis of 1 before the next one; ``None`` where axes merge."""
    groups: list[tuple[int, ...]] = []
    left = list(wanted)
    for size in shape:
        group: list[int] = []
        while left and (not group or prod(group) < size):
            group.append(left.pop(0))
        if prod(group) != size or not group:
            return None
        groups.append(tuple(group))
    return None if left else groups


def merge_transposes(work: Work, options: Options) -> None:
    """A Transpose of a Transpose is one."""
    for op in work.ops("Transpose"):
        before = work.made_by(op.inputs[0], "Transpose")
        first, second = before.attrs.get("perm") if before else None, op.attrs.get("perm")
        if (
            before is not None
            and isinstance(first, tuple)
            and isinstance(second, tuple)
            and work.only_reader(before.outputs[0]) is op
        ):
            perm = tuple(int(first[int(p)]) for p in second)
            merged = work.fuse((before, op), "Transpose", before.inputs, op.outputs, {"perm": perm})
            if perm == tuple(range(len(perm))):
                work.bypass(merged, "the transposes cancel out")


def push_transpose_through_reduction(work: Work, options: Options) -> None:
    """A Transpose before a reduction moves behind it, where fewer elements are left to move."""
    for op in work.ops("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"):
        before = work.made_by(op.inputs[0], "Transpose")
        perm = before.attrs.get("perm") if before is not None else None
        axes = op.attrs.get("axes", work.tensors[op.inputs[1]].value if len(op.inputs) > 1 else None)
        if before is None or not isinstance(perm, tuple) or not isinstance(axes, tuple):
            continue
        if work.only_reader(before.outputs[0]) is not op:
            continue
        order = [int(p) for p in perm]
        reduced = [order[int(a) % len(order)] for a in axes]
        kept = bool(op.attrs.get("keepdims", 1))
        left = [a for a in order if kept or a not in reduced]
        source = work.shape(before.inputs[0])
        shape = [1 if a in reduced else source[a] for a in sorted(left)]
        middle = work.fresh("reduced", shape, op.outputs[0])
        attrs: dict[str, Attr] = {**op.attrs, "axes": tuple(sorted(reduced))}
        work.remove(before)
        work.remove(op)
        work.add(Op(op.op_type, before.inputs[:1], [middle], attrs, op.members, op.place))
        turn = tuple(sorted(left).index(a) for a in left)
        turned = work.add(
            Op("Transpose", [middle], op.outputs, {"perm": turn}, before.members, op.place + 0.1)
        )
        if turn == tuple(range(len(turn))):
            work.bypass(turned, "nothing is left to transpose")


def fuse_matmul_add(work: Work, options: Options) -> None:
    """MatMul with constant weights and a bias becomes Gemm, between views where the left side has more axes."""
    for op in work.ops("MatMul"):
        after = work.only_reader(op.outputs[0])
        a, b = op.inputs
        if after is None or after.op_type != "Add" or len(work.shape(b)) != 2 or len(work.shape(a)) < 2:
            continue
        if options.denies(work, op, after):
            continue
        bias = next((i for i in after.inputs if i != op.outputs[0]), "")
        n = work.shape(b)[1]
        if not bias or work.shape(op.outputs[0]) != work.shape(after.outputs[0]):
            continue
        if len(work.shape(a)) == 2:
            if work.shape(bias) not in ((n,), (1, n), work.shape(op.outputs[0])):
                continue
            work.fuse((op, after), "Gemm", [a, b, bias], after.outputs)
            continue
        if not work.const(b) or not work.const(bias) or work.shape(bias) != (n,):
            continue
        rows = prod(work.shape(a)[:-1])
        flat = work.fresh("flat", (rows, work.shape(a)[-1]), a)
        result = work.fresh("flat", (rows, n), a)
        out = after.outputs
        gemm = work.fuse((op, after), "Gemm", [flat, b, bias], [result])
        work.add(Op("Reshape", [a], [flat], {}, (), gemm.place - 0.2))
        work.add(Op("Reshape", [result], out, {}, (), gemm.place + 0.2))


def merge_views(work: Work, options: Options) -> None:
    """A view of a view is one, unless one of them has ``allowzero``: the runtime leaves those alone."""
    for op in work.ops("Reshape"):
        before = work.made_by(op.inputs[0], "Reshape")
        while (
            before is not None and work.only_reader(before.outputs[0]) is op and not _allow_zero(before, op)
        ):
            op = work.fuse((before, op), "Reshape", before.inputs[:1], op.outputs)
            if work.shape(op.inputs[0]) == work.shape(op.outputs[0]) and work.bypass(
                op, "the views cancel out"
            ):
                break
            before = work.made_by(op.inputs[0], "Reshape")


def _allow_zero(*ops: Op) -> bool:
    return any(op.attrs.get("allowzero", 0) for op in ops)


def fuse_matmul_scale(work: Work, options: Options) -> None:
    """A scalar factor on an operand or the result of a MatMul becomes its ``alpha``."""
    for op in work.ops("MatMul", "FusedMatMul"):
        for position in (0, 1):
            before = work.made_by(op.inputs[position], "Mul", "Div")
            if before is None or work.only_reader(before.outputs[0]) is not op:
                continue
            if not any(
                work.is_one_element(i) for i in before.inputs[(1 if before.op_type == "Div" else 0) :]
            ):
                continue
            inputs = list(op.inputs)
            inputs[position] = next(i for i in before.inputs if not work.is_one_element(i))
            if work.shape(inputs[position]) == work.shape(before.outputs[0]):
                op = work.fuse((before, op), "FusedMatMul", inputs, op.outputs, op.attrs)
        after = work.only_reader(op.outputs[0])
        if (
            after is not None
            and after.op_type in ("Mul", "Div")
            and any(work.is_one_element(i) for i in after.inputs[(1 if after.op_type == "Div" else 0) :])
        ):
            work.fuse((op, after), "FusedMatMul", op.inputs, after.outputs, op.attrs)


def fuse_matmul_transpose(work: Work, options: Options) -> None:
    """A Transpose of the last two axes before a MatMul becomes its ``transA`` or ``transB``."""
    for op in work.ops("MatMul", "FusedMatMul"):
        for position, name in ((0, "transA"), (1, "transB")):
            before = work.made_by(op.inputs[position], "Transpose")
            perm = before.attrs.get("perm") if before is not None else None
            if before is None or not isinstance(perm, tuple) or len(perm) < 2:
                continue
            rank = len(perm)
            if tuple(perm) != (*range(rank - 2), rank - 1, rank - 2):
                continue
            inputs = list(op.inputs)
            inputs[position] = before.inputs[0]
            alone = work.only_reader(before.outputs[0]) is op
            op = work.fuse(
                (before, op) if alone else (op,), "FusedMatMul", inputs, op.outputs, {**op.attrs, name: 1}
            )


def fuse_quick_gelu(work: Work, options: Options) -> None:
    """``x * sigmoid(x)``, with a factor inside or none."""
    for op in work.ops("Sigmoid"):
        after = work.only_reader(op.outputs[0])
        if after is None or after.op_type != "Mul":
            continue
        x = op.inputs[0]
        chain = [op, after]
        inner = work.made_by(x, "Mul")
        if x not in after.inputs and inner is not None and any(work.is_one_element(i) for i in inner.inputs):
            x = next((i for i in inner.inputs if not work.is_one_element(i)), x)
            chain = [inner, *chain]
        if x in after.inputs and work.shape(x) == work.shape(after.outputs[0]):
            work.fuse(chain, "QuickGelu", [x], after.outputs)


def fuse_bias_gelu(work: Work, options: Options) -> None:
    """A bias before a GELU."""
    for op in work.ops("Gelu", "FastGelu"):
        before = work.made_by(op.inputs[0], "Add")
        if before is None or work.only_reader(before.outputs[0]) is not op:
            continue
        bias = next((i for i in before.inputs if work.const(i) and len(work.shape(i)) == 1), "")
        x = next((i for i in before.inputs if i != bias), "")
        if bias and x and work.shape(bias)[0] == work.shape(x)[-1]:
            work.fuse((before, op), "BiasGelu" if op.op_type == "Gelu" else "FastGelu", [x, bias], op.outputs)


def fuse_skip_layer_norm(work: Work, options: Options) -> None:
    """An Add of two activations of one shape into the normalisation behind it, where nothing else reads the sum."""
    for op in work.ops("LayerNormalization"):
        before = work.made_by(op.inputs[0], "Add")
        if before is None or work.only_reader(before.outputs[0]) is not op or len(op.outputs) > 1:
            continue
        if op.attrs.get("axis", -1) not in (-1, len(work.shape(op.inputs[0])) - 1) or len(op.inputs) < 3:
            continue
        a, b = before.inputs
        if (
            work.shape(a) == work.shape(b)
            and len(work.shape(a)) == 3
            and not (work.const(a) and work.const(b))
        ):
            work.fuse((before, op), "SkipLayerNormalization", [a, b, *op.inputs[1:]], op.outputs, op.attrs)


def fuse_activation(work: Work, options: Options) -> None:
    """An activation into the convolution or Gemm before it."""
    for op in work.ops("Conv", "Gemm"):
        after = work.only_reader(op.outputs[0])
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
        fused.fused = (ACTIVATIONS[after.op_type],)


def fuse_conv_add(work: Work, options: Options) -> None:
    """What is left unblocked: a sum, and an activation behind it, into the convolution."""
    for op in work.ops("Conv"):
        after = work.only_reader(op.outputs[0])
        if after is None or after.op_type != "Add" or op.fused or op.layout or len(op.inputs) != 3:
            continue
        if options.denies(work, op, after):
            continue
        other = next((i for i in after.inputs if i != op.outputs[0]), "")
        if not other or work.shape(other) != work.shape(op.outputs[0]) or work.const(other):
            continue
        fused = work.fuse((op, after), "Conv", [*op.inputs, other], after.outputs, op.attrs)
        fused.fused = ("sum",)
        last = work.only_reader(fused.outputs[0])
        if last is not None and last.op_type == "Relu" and not options.denies(work, fused, last):
            again = work.fuse((fused, last), "Conv", fused.inputs, last.outputs, fused.attrs)
            again.fused = ("sum", "relu")


class _Blocks:
    """Convolutions and what lies between them in blocks of channels, with the changes of layout around them."""

    def __init__(self, work: Work, options: Options) -> None:
        self.work = work
        self.options = options
        self.block = options.rules.block
        self.twin: dict[str, str] = {}  # plain tensor to its blocked one, where an operator makes it
        self.uses: dict[str, int] = {}  # readers that the plain tensor had at first
        self.channels: dict[str, int] = {}
        self.read_as: dict[
            tuple[str, bool], str
        ] = {}  # plain tensor to its blocked copy, where a reorder makes it

    def padded(self, channels: int) -> int:
        return -(-channels // self.block) * self.block

    def blocked(self, name: str, near: Op) -> str:
        """The blocked form of ``name``, through a reorder where nothing makes it."""
        if name in self.twin:
            return self.twin[name]
        source, last = name, False
        before = self.work.made_by(name, "Transpose")
        if (
            before is not None
            and before.attrs.get("perm") == (0, 3, 1, 2)
            and self.work.only_reader(name) is near
        ):
            source, last = before.inputs[0], True
        key = (source, last)
        if key not in self.read_as:
            shape = list(self.work.shape(name))
            shape[1] = self.padded(shape[1])
            self.read_as[key] = self.work.fresh("blocked", shape, name)
            attrs: dict[str, Attr] = {"channels_last": int(last)}
            self.work.add(Op("ReorderInput", [source], [self.read_as[key]], attrs, (), near.place - 0.3))
        return self.read_as[key]

    def make(self, ops: list[Op], inputs: list[str], out: str, **changes: object) -> Op:
        """Replace ``ops`` by one that writes the blocked form of ``out``."""
        work = self.work
        kind = ops[0]
        shape = list(work.shape(out))
        self.channels[out] = shape[1]
        shape[1] = self.padded(shape[1])
        self.uses[out] = len(work.readers(out)) + work.outputs.count(out)
        self.twin[out] = work.fresh("blocked", shape, out)
        attrs, fused = kind.attrs, kind.fused
        new = work.fuse(ops, str(changes.get("op_type", kind.op_type)), inputs, [self.twin[out]], attrs)
        new.fused = fused
        new.layout = str(changes.get("layout", "nchwc"))
        return new

    def run(self) -> None:
        table: Mapping[str, Callable[[Op], None]] = {
            "Conv": self.conv,
            "MaxPool": self.pool,
            "AveragePool": self.pool,
            "GlobalMaxPool": self.pool,
            "GlobalAveragePool": self.pool,
            "Add": self.add,
            "Sum": self.add,
            "Mul": self.same_shape,
            "Concat": self.concat,
            "BatchNormalization": self.batch_norm,
            "Resize": self.resize,
            "Upsample": self.resize,
            **dict.fromkeys(("Gelu", "QuickGelu", "FastGelu"), self.through),
            **dict.fromkeys(ACTIVATIONS, self.activation),
        }
        for op in self.work.ops():
            handler = table.get(op.op_type)
            if handler is not None and op.inputs and op.inputs[0]:
                handler(op)
        self.close()

    def conv(self, op: Op) -> None:
        work = self.work
        x, w = op.inputs[:2]
        if len(work.shape(x)) != 4 or not work.const(w) or any(not work.const(i) for i in op.inputs[2:3]):
            return
        cout, per_group = work.shape(w)[:2]
        group = op.attrs.get("group", 1)
        assert isinstance(group, int)
        attrs = dict(op.attrs)
        layout = "nchwc"
        if group > 1:
            depthwise = per_group == 1 and cout == group
            if cout % 4 or (not depthwise and (per_group % self.block or (cout // group) % self.block)):
                return
            if depthwise:
                attrs["group"] = self.padded(cout)
        elif per_group < self.block:
            layout = "nchw>nchwc"
        elif per_group % 4:
            return
        source = x if layout == "nchw>nchwc" else self.blocked(x, op)
        new = self.make([op], [source, *op.inputs[1:]], op.outputs[0], layout=layout)
        new.attrs = attrs

    def pool(self, op: Op) -> None:
        shape = self.work.shape(op.inputs[0])
        if (
            op.op_type.startswith("Global")
            and op.inputs[0] not in self.twin
            and (op.inputs[0], False) not in self.read_as
        ):
            return
        if len(shape) == 4 and shape[1] % self.block == 0 and len([o for o in op.outputs if o]) == 1:
            self.make([op], [self.blocked(op.inputs[0], op)], op.outputs[0])

    def add(self, op: Op) -> None:
        if not self._all_blocked(op) or len(op.inputs) != 2:
            return
        for i, name in enumerate(op.inputs):
            maker = self.work.producer.get(self.twin[name])
            if (
                maker is None
                or maker.op_type != "Conv"
                or self.uses[name] != 1
                or maker.fused
                or maker.layout not in ("nchwc", "nchw>nchwc")
            ):
                continue
            if self.options.denies(self.work, maker, op):
                continue
            if maker.members and len(maker.inputs) < 4 and not self.work.readers(self.twin[name]):
                other = self.twin[op.inputs[1 - i]]
                fused = self.make([maker, op], [*maker.inputs, other], op.outputs[0], layout=maker.layout)
                fused.fused = ("sum",)
                del self.twin[name]
                return
        self.make([op], [self.twin[i] for i in op.inputs], op.outputs[0])

    def same_shape(self, op: Op) -> None:
        if self._all_blocked(op) and len(op.inputs) == 2:
            self.make([op], [self.twin[i] for i in op.inputs], op.outputs[0])

    def _all_blocked(self, op: Op) -> bool:
        shapes = {self.work.shape(i) for i in op.inputs if i}
        return all(i in self.twin for i in op.inputs) and len(shapes) == 1

    def concat(self, op: Op) -> None:
        if op.attrs.get("axis") in (1, -3) and all(
            i in self.twin and self.work.shape(i)[1] % self.block == 0 for i in op.inputs
        ):
            self.make([op], [self.twin[i] for i in op.inputs], op.outputs[0])

    def batch_norm(self, op: Op) -> None:
        name = op.inputs[0]
        if name in self.twin and len(self.work.shape(name)) == 4:
            new = self.make([op], [self.twin[name], *op.inputs[1:3]], op.outputs[0], op_type="Conv")
            new.attrs = {"kernel_shape": (1, 1), "group": self.padded(self.work.shape(name)[1])}

    def resize(self, op: Op) -> None:
        name, out = op.inputs[0], op.outputs[0]
        if name not in self.twin or len(self.work.shape(name)) != 4:
            return
        ratios = [b / a for a, b in zip(self.work.shape(name)[2:], self.work.shape(out)[2:], strict=True)]
        mode = op.attrs.get("mode", "nearest")
        if (
            all(r == int(r) for r in ratios)
            and mode in ("nearest", "linear")
            and self.work.shape(name)[:2] == self.work.shape(out)[:2]
        ):
            self.make([op], [self.twin[name]], out)

    def through(self, op: Op) -> None:
        if op.inputs[0] in self.twin and len(op.inputs) == 1:
            self.make([op], [self.twin[op.inputs[0]]], op.outputs[0])

    def activation(self, op: Op) -> None:
        name = op.inputs[0]
        if name not in self.twin or any(i and not self.work.const(i) for i in op.inputs[1:]):
            return
        maker = self.work.producer.get(self.twin[name])
        fusable = (
            maker is not None
            and maker.op_type == "Conv"
            and self.uses[name] == 1
            and maker.fused in ((), ("sum",))
        )
        denied = maker is not None and self.options.denies(self.work, maker, op)
        if maker is not None and fusable and not denied and not self.work.readers(self.twin[name]):
            before = maker.fused
            fused = self.make([maker, op], maker.inputs, op.outputs[0], layout=maker.layout)
            fused.fused = (*before, ACTIVATIONS[op.op_type])
            del self.twin[name]
        elif op.op_type in ("Relu", "Sigmoid", "Tanh"):
            self.make([op], [self.twin[name], *op.inputs[1:]], op.outputs[0])

    def close(self) -> None:
        """Back to plain wherever something plain reads."""
        work = self.work
        for name, blocked in self.twin.items():
            readers = list(work.readers(name))
            maker = work.producer[blocked]
            last = [r for r in readers if r.op_type == "Transpose" and r.attrs.get("perm") == (0, 2, 3, 1)]
            for op in last:
                work.remove(op)
                attrs: dict[str, Attr] = {"channels_last": 1}
                work.add(Op("ReorderOutput", [blocked], op.outputs, attrs, op.members, maker.place + 0.3))
            if len(readers) > len(last) or name in work.outputs:
                work.add(Op("ReorderOutput", [blocked], [name], {"channels_last": 0}, (), maker.place + 0.3))
        for op in work.ops("Transpose"):
            if not work.readers(op.outputs[0]) and op.outputs[0] not in work.outputs:
                reorder = next((r for r in work.readers(op.inputs[0]) if r.op_type == "ReorderInput"), None)
                work.remove(op)
                if reorder is not None:
                    reorder.members += op.members


def split_hard_swish(work: Work, options: Options) -> None:
    """What no convolution took: the runtime has no kernel of its own for HardSwish."""
    for op in work.ops("HardSwish"):
        if op.layout:
            continue
        work.remove(op)
        gate = work.fresh("gate", work.shape(op.inputs[0]), op.inputs[0])
        work.add(Op("HardSigmoid", op.inputs, [gate], {}, op.members, op.place))
        work.add(Op("Mul", [op.inputs[0], gate], op.outputs, {}, (), op.place + 0.1))


def block_channels(work: Work, options: Options) -> None:
    """The NCHWc layout."""
    if options.rules.block:
        _Blocks(work, options).run()


Pass = Callable[[Work, Options], None]
PASSES: tuple[Pass, ...] = (
    eliminate_no_ops,
    fold_pad,
    fold_into_conv,
    fuse_gelu,
    fuse_fast_gelu,
    fuse_layer_norm,
    gather_to_split,
    push_transpose_through_split,
    push_transpose_through_reduction,
    push_transpose_through_view,
    merge_views,
    merge_transposes,
    fuse_matmul_add,
    merge_views,
    fuse_matmul_transpose,
    fuse_matmul_scale,
    fuse_matmul_transpose,
    fuse_quick_gelu,
    fuse_bias_gelu,
    fuse_skip_layer_norm,
    fuse_activation,
    block_channels,
    split_hard_swish,
    fuse_conv_add,
)
"""In the order in which they run."""


def optimise(work: Work, rules: RuleSet) -> Work:
    """Run all passes on ``work``; returns it. What ``rules`` deny or leave undecided is not fused."""
    for run in PASSES:
        run(work, Options(rules))
    return work
