"""Operators that change nothing: no runtime executes them."""

from __future__ import annotations

from collections.abc import Collection

from nn_meter.kernels.rewriting import Op, Work

_NO_OPS = ("Identity", "Dropout")
_UNCHANGED = ("Expand", "Tile", "Transpose", "Slice")
_ARITHMETIC = ("Mul", "Div", "Add", "Sub")
_LOOKED_AT = (*_NO_OPS, "Cast", *_UNCHANGED, *_ARITHMETIC)


def eliminate_no_ops(
    work: Work, kept: Collection[str] = (), of_inputs: bool = True, of_outputs: bool = True
) -> None:
    """Identity, Dropout at inference, casts to the same type, slices and expansions that change nothing.

    A Reshape to the shape that is there already stays, unless a view stands before or behind it. Operators in ``kept``
    are executed whatever they change, without ``of_inputs`` so is arithmetic on an input of the model, and without
    ``of_outputs`` all but an Identity that computes an output.
    """
    for op in work.ops(*_LOOKED_AT):
        source, out = op.inputs[0] if op.inputs else "", op.outputs[0]
        if not source or not _data(work, op):
            continue
        if op.op_type in kept or (out in work.outputs and not of_outputs and op.op_type != "Identity"):
            continue
        if op.op_type in _NO_OPS:
            if any(work.readers(mask) or mask in work.outputs for mask in op.outputs[1:]):
                continue
            work.bypass(op, f"{op.op_type} is not executed at inference")
        elif op.op_type == "Cast" and work.tensors[source].dtype == work.tensors[out].dtype:
            work.bypass(op, "a cast to its own type")
        elif op.op_type in _UNCHANGED and _data(work, op) == [source]:
            same = work.shape(source) == work.shape(out)
            if op.op_type == "Transpose":
                same = same and op.attrs.get("perm") == tuple(range(len(work.shape(out))))
            elif op.op_type == "Slice":
                same = same and _is_open(work, op)
            if same:
                work.bypass(op, f"the {op.op_type} changes nothing")
        elif op.op_type in _ARITHMETIC and (of_inputs or work.inputs.isdisjoint(op.inputs)):
            neutral = 1.0 if op.op_type in ("Mul", "Div") else 0.0
            sides = (0, 1) if op.op_type in ("Mul", "Add") else (1,)
            side = next((i for i in sides if work.scalar(op.inputs[i]) == neutral), None)
            if side is not None and work.shape(op.inputs[1 - side]) == work.shape(out):
                if side == 0:
                    work.turn(op, 0, 1)
                work.bypass(op, "its constant operand changes nothing")


def _is_open(work: Work, op: Op) -> bool:
    """Whether a Slice goes forward to an end left open; only such ones are seen to change nothing."""
    ends, steps = (
        work.tensors[op.inputs[i]].value if len(op.inputs) > i and op.inputs[i] else None for i in (2, 4)
    )
    return ends is not None and min(ends) >= 2**31 - 1 and (steps is None or min(steps) == 1)


def _data(work: Work, op: Op) -> list[str]:
    return [i for i in op.inputs if i and not work.const(i)]
