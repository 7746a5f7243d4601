"""What changes nothing, views that become one, and parts of a tensor that become a Split."""

from __future__ import annotations

from math import prod

from nn_meter.kernels import no_ops
from nn_meter.kernels.rewriting import Op, Work
from nn_meter.runtimes.base import Options

_UNFOLDED = frozenset(("Compress", "DequantizeLinear", "MeanVarianceNormalization", "NonZero"))
"""What runs in every inference though all that it reads is constant (1.32, of single operators in every opset)."""


def keep_unfolded(work: Work, options: Options) -> None:
    """What the runtime does not compute before inference, among it dequantised weights, and what follows from that."""
    kept: set[str] = set()
    found = []
    for op in dict.fromkeys(work.folded.values()):
        if unfolded(op) or (op.op_type not in ("Shape", "Size") and not kept.isdisjoint(op.inputs)):
            kept.update(o for o in op.outputs if o)
            if op.op_type != "DequantizeLinear":
                found.append(op)
    work.revive(found)


def unfolded(op: Op) -> bool:
    """Whether an operator on constants runs in every inference."""
    return op.op_type in _UNFOLDED or ("opset" in op.attrs and op.op_type in ("GreaterOrEqual", "LessOrEqual"))


def drop_unread(work: Work, options: Options) -> None:
    """What only its Shape is asked of, which is known before inference, and what leads to that. Other results that
    nothing reads are computed."""
    folded = list(dict.fromkeys(work.folded.values()))
    kept = {name for op in folded if op.op_type != "Shape" for name in op.inputs} | work.outputs.keys()
    asked = [op.inputs[0] for op in folded if op.op_type == "Shape"]
    while asked:
        name = asked.pop()
        op = work.producer.get(name)
        if op is not None and len(op.outputs) == 1 and name not in kept and not work.readers(name):
            work.remove(op)
            work.free += [(member, op.op_type, "nothing but its shape is read") for member in op.members]
            asked += filter(None, op.inputs)


def one_softmax(work: Work, options: Options) -> None:
    """A softmax of before opset 13, which is read as one over the rows of a matrix."""
    for op in work.ops("Softmax", "LogSoftmax", "Hardmax"):
        before, after = work.made_by(op.inputs[0], "Reshape"), work.only_reader(op.outputs[0])
        if "opset" in op.attrs and before is not None and after is not None and after.op_type == "Reshape":
            rows, shape = work.shape(op.inputs[0])[0], work.shape(before.inputs[0])
            axis = next(axis for axis in range(len(shape) + 1) if prod(shape[:axis]) == rows)
            work.fuse([before, op, after], op.op_type, before.inputs[:1], after.outputs, {**op.attrs, "axis": axis})


def eliminate_no_ops(work: Work, options: Options) -> None:
    """What changes nothing. A Tile or Transpose is executed all the same, and so is arithmetic on an input, and what
    computes an output."""
    no_ops.eliminate_no_ops(work, kept=("Tile", "Transpose"), of_inputs=False, of_outputs=False)


def drop_not(work: Work, options: Options) -> None:
    """A Not that only conditions of Where read: those take their operands the other way round."""
    for op in work.ops("Not"):
        out, readers = op.outputs[0], list(work.readers(op.outputs[0]))
        if readers and out not in work.outputs and all(_only_asks(each, out) for each in readers):
            for each in readers:
                work.turn(each, 1, 2)
            work.bypass(op, "the Where behind it takes its operands the other way round")


def _only_asks(op: Op, name: str) -> bool:
    return op.op_type == "Where" and len(op.inputs) == 3 and op.inputs[0] == name and op.inputs.count(name) == 1


def gather_to_split(work: Work, options: Options) -> None:
    """Parts of a tensor along one axis, taken by Gather or Slice, become one Split, and views behind the Gathers; those
    of what has several results from before stay."""
    of_several = {name for op in work.ops() if len(op.outputs) > 1 for name in op.outputs}
    for source in dict.fromkeys(op.inputs[0] for op in work.ops("Gather", "Slice")):
        readers = list(work.readers(source))
        cutters = [op for op in readers if op.op_type in ("Gather", "Slice") and op.inputs[0] == source]
        cuts = [(c, op) for op in cutters if (c := _cut(work, op)) is not None]
        parts = sorted(cuts, key=lambda part: part[0])
        if len(cuts) < max(2, len(cutters)) or len({c[0] for c, _ in parts}) != 1:
            continue
        if work.const(source) or source in of_several:
            continue
        axis = parts[0][0][0]
        if _of_shape(work, source) or not isinstance(work.told(source)[axis], int):
            continue
        ends = [0, *(c[2] for c, _ in parts)]
        if [c[1] for c, _ in parts] != ends[:-1] or ends[-1] != work.shape(source)[axis]:
            continue
        pieces: list[str] = []
        views: list[tuple[Op, Op]] = []
        first = min((op for _, op in parts), key=lambda op: op.place)
        for (_, start, end), op in parts:
            work.remove(op)
            if op.op_type == "Slice":
                pieces.append(op.outputs[0])
                continue
            shape = list(work.shape(source))
            shape[axis] = end - start
            told = (*work.told(source)[:axis], end - start, *work.told(source)[axis + 1 :])
            pieces.append(work.fresh("part", shape, source, told))
            views.append((Op("Squeeze", pieces[-1:], op.outputs, {"axes": (axis,)}, op.members), op))
        members = tuple(m for _, op in parts if op.op_type == "Slice" for m in op.members)
        work.add(Op("Split", [source], pieces, {"axis": axis}, members), at=first)
        for view, op in views:
            work.add(view, at=op)


def _of_shape(work: Work, name: str) -> bool:
    """Whether it is a shape, in the order that a Transpose has given it or in its own."""
    order = work.made_by(name, "Gather")
    return work.made_by(order.inputs[0] if order is not None else name, "Shape") is not None


def slices_to_blocks(work: Work, options: Options) -> None:
    """Every second row and column of an image, taken four times and put beside each other (YOLO's Focus), is a
    SpaceToDepth, and a Gather where the four are in another order."""
    for join in work.ops("Concat"):
        if len(join.inputs) != 4 or len(work.shape(join.inputs[0])) != 4 or join.attrs.get("axis") not in (1, -3):
            continue
        found = [_taken(work, name) for name in join.inputs]
        parts = [each for each in found if each is not None]
        source = parts[0][0] if parts else ""
        corners = [corner for _, corner, _ in parts]
        if len(set(corners)) != 4 or {name for name, _, _ in parts} != {source}:
            continue
        if work.tensors[source].dtype not in ("float32", "float64") or any(dim % 2 for dim in work.shape(source)[2:]):
            continue
        if any(work.only_reader(name) is not join for name in join.inputs):
            continue
        ordered = corners == sorted(corners)
        blocks = join.outputs[0] if ordered else work.fresh("blocks", work.shape(join.outputs[0]), source)
        cutters = [*(ops[0] for _, _, ops in parts), join]
        for op in dict.fromkeys(op for _, _, ops in parts for op in ops[1:]):
            if op.outputs[0] not in work.outputs and all(reader in cutters for reader in work.readers(op.outputs[0])):
                cutters.append(op)
        fused = work.fuse(cutters, "SpaceToDepth", [source], [blocks], {"blocksize": 2})
        if not ordered:
            order = work.integers("order", range(work.shape(blocks)[1]))
            work.add(Op("Gather", [blocks, order], join.outputs, {"axis": 1}), behind=fused)


def _taken(work: Work, name: str) -> tuple[str, tuple[int, int], tuple[Op, ...]] | None:
    """Of an image's every second row and column: the image, where the first is, and the Slices that take them."""
    starts: dict[int, int] = {}
    ops: list[Op] = []
    while len(starts) < 2:
        op = work.made_by(name, "Slice")
        told = [work.value(op, place) for place in (1, 2, 3, 4)] if op is not None else []
        values = [each for each in told if each is not None]
        if op is None or len(values) != 4:
            return None
        shape = work.shape(op.inputs[0])
        for start, end, axis, step in zip(*values, strict=True):
            at = int(axis) % len(shape)
            if at not in (2, 3) or at in starts or step != 2 or not 0 <= start < 2 or end < shape[at]:
                return None
            starts[at] = int(start)
        ops.append(op)
        name = op.inputs[0]
    return name, (starts[2], starts[3]), tuple(ops)


def _cut(work: Work, op: Op) -> tuple[int, int, int] | None:
    """Axis, start and end of what a Gather of one index or a Slice along one axis takes; ``None`` for all else, and
    before opset 13."""
    rank = len(work.shape(op.inputs[0]))
    if "opset" in op.attrs:
        return None
    if op.op_type == "Gather" and len(op.inputs) > 1:  # nn-Meter's files leave constants out
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


def merge_views(work: Work, options: Options) -> None:
    """A view of a view is one, unless one of them has ``allowzero``: the runtime leaves those alone. Views of integers
    have stood behind one another only since the changes of type between them went. One that changes nothing stays."""
    for op in work.ops("Reshape", "Squeeze", "Unsqueeze"):
        if work.tensors[op.inputs[0]].dtype in ("uint8", "int8") or not work.known(op.outputs[0]):
            continue
        before = work.made_by(op.inputs[0], "Reshape")
        while before is not None and work.only_reader(before.outputs[0]) is op and not _allow_zero(before, op):
            op = work.fuse((before, op), "Reshape", before.inputs[:1], op.outputs)
            before = work.made_by(op.inputs[0], "Reshape")


def _allow_zero(*ops: Op) -> bool:
    return any(op.attrs.get("allowzero", 0) for op in ops)
