"""Where transposes go: behind what leaves fewer of them, or less to turn."""

from __future__ import annotations

from math import prod

from nn_meter.kernels.rewriting import Op, Work
from nn_meter.runtimes.base import Options
from nn_meter.runtimes.onnxruntime.pushes import axes, leading


def push_transpose_through_split(work: Work, options: Options) -> None:
    """A Transpose before a Split moves behind it, and behind the Squeezes of the parts: one for each part."""
    leads = leading(work) if work.has("Split") else frozenset()
    for op in work.ops("Transpose"):
        split = work.only_reader(op.outputs[0])
        perm = op.attrs.get("perm")
        if split is None or split.op_type != "Split" or not isinstance(perm, tuple):
            continue
        readers = [work.only_reader(o) for o in split.outputs]
        squeezed = all(r is not None and r.op_type == "Squeeze" for r in readers)
        if squeezed and work.tensors[op.inputs[0]].dtype in ("uint8", "int8"):  # a Split once it was made of Gathers
            continue
        if not squeezed and leads.isdisjoint(split.outputs):
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
        known = [*work.told(source)]
        told = [(*known[:moved], work.told(o)[axis], *known[moved + 1 :]) for o in split.outputs]
        parts = [work.fresh("part", shape, source, each) for shape, each in zip(shapes, told, strict=True)]
        work.add(Op("Split", [source], parts, {"axis": moved}, split.members), at=op)
        kept = [a for a in range(len(order)) if a != moved]
        for i, (reader, part) in enumerate(zip(readers, parts, strict=True)):
            members = op.members if i == 0 else ()
            if not squeezed or reader is None:
                turned = Op("Transpose", [part], [split.outputs[i]], {"perm": tuple(order)}, members)
                work.add(turned, behind=split)
                continue
            work.remove(reader)
            after = work.only_reader(reader.outputs[0])
            gains = axes(work, split.outputs[i]) > axes(work, reader.outputs[0])  # where that it is 1 is not known
            turns_single = order[-1] != len(order) - 1 and (after is None or after.op_type != "Transpose")
            if not gains and (after is None or turns_single):
                # several read it, or single elements move that no other Transpose turns: the axis of size 1 stays
                turned_part = work.fresh("turned", [shapes[i][a] for a in order], source)
                work.add(Op("Transpose", [part], [turned_part], {"perm": tuple(order)}, members), at=reader)
                work.add(Op("Squeeze", [turned_part], reader.outputs, {}, reader.members), behind=reader)
                continue
            flat = work.fresh("flat", [shapes[i][a] for a in kept], source)
            work.add(Op("Squeeze", [part], [flat], {}, reader.members), at=reader)
            new_perm = tuple(kept.index(a) for a in order if a != moved)
            work.add(Op("Transpose", [flat], reader.outputs, {"perm": new_perm}, members), behind=reader)


def push_transpose_through_view(work: Work, options: Options) -> None:
    """A Transpose before a Reshape that only splits axes moves behind it; a Reshape that does not even that goes."""
    for op in work.ops("Reshape"):
        before = work.made_by(op.inputs[0], "Transpose")
        perm = before.attrs.get("perm") if before is not None else None
        if before is None or not isinstance(perm, tuple) or work.only_reader(before.outputs[0]) is not op:
            continue
        if not work.known(op.inputs[0]) or not work.known(op.outputs[0]):
            continue
        if _undone(work, before, op):
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
        moved = work.add(Op("Reshape", before.inputs[:1], [split], op.attrs, op.members), at=before)
        work.add(Op("Transpose", [split], op.outputs, {"perm": turn}, before.members), at=op)
        view = work.made_by(moved.inputs[0], "Reshape")
        if view is None or work.only_reader(view.outputs[0]) is not moved:
            continue
        if work.shape(view.inputs[0]) == work.shape(split):
            view = work.fuse((view, moved), "Reshape", view.inputs[:1], [split])
            if work.made_by(view.inputs[0], "Transpose"):
                work.bypass(view, "a view behind a transpose that changes nothing")
            continue
        above = work.made_by(view.inputs[0], "Transpose")
        if above is not None and work.only_reader(above.outputs[0]) is view and _restores(work, above, split):
            _undone(work, above, work.fuse((view, moved), "Reshape", view.inputs[:1], [split]))


def _undone(work: Work, turn: Op, view: Op) -> bool:
    """Take out a Transpose and the Reshape behind it that give back what was there."""
    if not _restores(work, turn, view.outputs[0]):
        return False
    reason = "only axes of 1 are moved, and moved back"
    return work.bypass(view, reason) and work.bypass(turn, reason)


def _restores(work: Work, turn: Op, name: str) -> bool:
    """Whether ``turn`` moves axes of 1 alone, and ``name`` is shaped as what it reads."""
    shape, perm = work.shape(turn.inputs[0]), turn.attrs.get("perm")
    assert isinstance(perm, tuple)
    long = [int(axis) for axis in perm if shape[int(axis)] != 1]
    return long == sorted(long) and shape == work.shape(name)


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
    """A Transpose of a Transpose is one, whoever else reads the first."""
    for op in work.ops("Transpose"):
        before = work.made_by(op.inputs[0], "Transpose")
        first, second = before.attrs.get("perm") if before else None, op.attrs.get("perm")
        if before is None or not isinstance(first, tuple) or not isinstance(second, tuple):
            continue
        perm = tuple(int(first[int(p)]) for p in second)
        both = (before, op) if work.only_reader(before.outputs[0]) is op else (op,)
        merged = work.fuse(both, "Transpose", before.inputs, op.outputs, {"perm": perm})
        if perm == tuple(range(len(perm))):
            work.bypass(merged, "the transposes cancel out")
