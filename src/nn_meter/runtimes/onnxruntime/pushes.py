"""Transposes behind operators that can do without them, where that leaves less to transpose.

Costs and operators are those of ONNX Runtime's ``transpose_optimization``: a tensor costs as much as it has axes longer
than 1, a constant nothing, and a Transpose that goes is a gain.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from nn_meter.ir import Attr
from nn_meter.kernels.rewriting import Op, Work
from nn_meter.runtimes.base import Options

ELEMENTWISE = frozenset(
    (
        *("DequantizeLinear", "QuantizeLinear", "Cast", "CastLike", "Clip", "Where", "PRelu", "Identity"),
        *("Relu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "LeakyRelu", "Elu", "Selu", "Celu", "Mish"),
        *("Softplus", "Softsign", "ThresholdedRelu", "Shrink", "Erf", "Gelu", "FastGelu", "QuickGelu"),
        *("Exp", "Log", "Sqrt", "Reciprocal", "Neg", "Abs", "Sign", "Ceil", "Floor", "Round", "Not", "IsInf", "IsNaN"),
        *("Sin", "Cos", "Tan", "Sinh", "Cosh", "Asin", "Acos", "Atan", "Asinh", "Acosh", "Atanh"),
        *("Add", "Mul", "Sub", "Div", "Pow", "Mod", "Max", "Min", "Sum", "Mean", "BitShift"),
        *("And", "Or", "Xor", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
        *("QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu"),
    )
)

OPERANDS = {"QLinearAdd": (0, 3), "QLinearMul": (0, 3)}
"""Inputs that are operands, whatever their rank; the others are scales and zero points."""

_ALONG_AN_AXIS = frozenset(("Softmax", "LogSoftmax", "Hardmax", "QLinearSoftmax", "Concat"))
_REDUCTIONS = frozenset(
    f"Reduce{each}"
    for each in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
)
_FIRST_ALONE = _REDUCTIONS | {"Pad", "Slice", "Squeeze", "Unsqueeze"}
_TURNED = ELEMENTWISE | _ALONG_AN_AXIS | _FIRST_ALONE
_LEADING = _TURNED | {"MaxPool", "Resize", "Split"}
"""Operators that a way to a Transpose goes through, whether one moves behind them or not."""

_KNOWN = _TURNED | {
    *("ArgMax", "ArgMin", "MaxPool", "Reshape", "Resize", "Shape", "Split", "Tile"),
    "Transpose",
}
"""Operators that the runtime has a way of its own for; a Transpose that others read stays."""


class _Turned(NamedTuple):
    """An operator behind whose inputs the transposes went: what it reads beside them, and how its output is turned."""

    attrs: dict[str, Attr]
    inputs: list[str]
    perm: tuple[int, ...]


def push_transpose(work: Work, options: Options) -> None:
    """A Transpose before such an operator moves behind it, on the way to another one or where several become one."""
    if not work.has("Transpose"):
        return
    leads = leading(work)
    for op in work.ops(*_TURNED, "Shape"):
        if op.op_type == "Shape":
            _ask_before(work, op)
            continue
        perm = next((p for p in (_perm(work, i) for i in op.inputs) if p is not None), None)
        if perm is None or op.fused or len(op.outputs) != 1:
            continue
        data = _operands(work, op, len(perm))
        if data is None or not any(_perm(work, i) == perm for i in data):
            continue
        cost = sum(_cost(work, i, perm) for i in op.inputs if i in data)
        if cost >= 0 or cost + (0 if op.outputs[0] in leads else axes(work, op.outputs[0])) >= 0:
            continue
        turned = _turned(work, op, perm)
        if turned is not None:
            _push(work, op, perm, data, turned)


def _ask_before(work: Work, op: Op) -> None:
    """Let a Shape behind a Transpose that goes read what that reads; a Gather puts its sizes in order."""
    perm = _perm(work, op.inputs[0])
    if perm is None or _cost(work, op.inputs[0], perm) >= 0:
        return
    before = work.producer[op.inputs[0]]
    start, end = op.attrs.get("start", 0), op.attrs.get("end", len(perm))
    assert isinstance(start, int)
    assert isinstance(end, int)
    whole = work.fresh("shape", (len(perm),), op.outputs[0])
    order = work.integers("order", perm[start:end])
    new = work.fuse([op], "Shape", before.inputs[:1], [whole])
    work.add(Op("Gather", [whole, order], op.outputs, {"axis": 0}), behind=new)
    if not work.readers(before.outputs[0]) and before.outputs[0] not in work.outputs:
        work.remove(before)
        new.nested = (*new.nested, *before.nested)


def leading(work: Work) -> set[str]:
    """Tensors from which a way through such operators leads to a Transpose."""
    found: set[str] = set()
    for op in reversed(list(work.ops())):
        if op.op_type == "Transpose" or (op.op_type in _LEADING and any(o in found for o in op.outputs)):
            found.update(i for i in op.inputs if i)
    return found


def _perm(work: Work, name: str) -> tuple[int, ...] | None:
    before = work.made_by(name, "Transpose") if name else None
    perm = before.attrs.get("perm") if before is not None else None
    return tuple(int(p) for p in perm) if isinstance(perm, tuple) else None


def _operands(work: Work, op: Op, rank: int) -> list[str] | None:
    """Inputs that have to be transposed with the one that is, ``None`` where one of them cannot."""
    if op.op_type in _FIRST_ALONE:
        return list(op.inputs[:1])
    places = OPERANDS.get(op.op_type, ())
    data = list(dict.fromkeys(i for place, i in enumerate(op.inputs) if i and (place in places or work.shape(i))))
    if len(work.shape(op.outputs[0])) != rank:
        return None
    return None if any(not work.const(i) and len(work.shape(i)) != rank for i in data) else data


def axes(work: Work, name: str) -> int:
    """How many axes of a tensor are not known to be 1."""
    return sum(size != 1 for size in work.told(name))


def _cost(work: Work, name: str, perm: tuple[int, ...]) -> int:
    """Of another Transpose of ``name``."""
    before = _perm(work, name)
    if work.const(name):
        return 0
    if before is None:
        return axes(work, name)
    goes = before == perm and name not in work.outputs and all(r.op_type in _KNOWN for r in work.readers(name))
    return -axes(work, name) if goes else 0


def _turned(work: Work, op: Op, perm: tuple[int, ...]) -> _Turned | None:
    attrs, inputs = dict(op.attrs), list(op.inputs)
    if op.op_type in _ALONG_AN_AXIS:
        axis = attrs.get("axis", -1)
        assert isinstance(axis, int)
        if op.attrs.get("opset", 13) != 13:  # all axes from there on are one row
            return _Turned(attrs, inputs, perm) if {*perm[:axis]} == {*range(axis % len(perm))} else None
        attrs["axis"] = perm[axis]
    elif op.op_type == "Slice":
        axes = work.value(op, 3)
        if axes is None:
            return None
        inputs[3] = work.integers("axes", [perm[int(a)] for a in axes])
    elif op.op_type == "Pad":
        pads = work.value(op, 1) if len(inputs) <= 3 else None
        if pads is None:
            return None
        order = _inverse(perm)
        inputs[1] = work.integers("pads", [int(pads[a + side]) for side in (0, len(perm)) for a in order])
    elif op.op_type == "Unsqueeze":
        return _Turned(attrs, inputs, _unsqueezed(perm, _told(work, op, len(perm) + 1)))
    elif op.op_type in _REDUCTIONS or op.op_type == "Squeeze":
        gone = _told(work, op, len(perm))
        attrs, inputs = {**attrs, "axes": tuple(sorted(perm[a] for a in gone))}, inputs[:1]
        if not gone:
            return None
        if op.op_type == "Squeeze" or not attrs.get("keepdims", 1):
            left = [a for place, a in enumerate(perm) if place not in gone]
            return _Turned(attrs, inputs, tuple(sorted(left).index(a) for a in left))
    return _Turned(attrs, inputs, perm)


def _told(work: Work, op: Op, rank: int) -> frozenset[int]:
    """The axes that an operator names."""
    told = op.attrs.get("axes", work.value(op, 1))
    return frozenset(int(a) % rank for a in told) if isinstance(told, tuple) else frozenset()


def _unsqueezed(perm: tuple[int, ...], added: frozenset[int]) -> tuple[int, ...]:
    """``perm`` with axes of 1 added, which stay where they are."""
    rank = len(perm) + len(added)
    kept = [axis for axis in range(rank) if axis not in added]
    turns = iter(perm)
    return tuple(axis if axis in added else kept[next(turns)] for axis in range(rank))


def _push(work: Work, op: Op, perm: tuple[int, ...], data: Iterable[str], to: _Turned) -> None:
    back = _inverse(perm)
    turned: dict[str, str] = {}
    freed: tuple[str, ...] = ()
    for name in data:
        before = work.made_by(name, "Transpose")
        if before is not None and _perm(work, name) == perm:
            turned[name] = before.inputs[0]
            continue
        ahead = (1,) * (len(perm) - len(work.shape(name)))
        sizes = [(ahead + work.shape(name))[axis] for axis in back]
        turned[name] = work.fresh("turned", sizes, name, tuple((*ahead, *work.told(name))[axis] for axis in back))
        if work.const(name):
            _turn_constant(work, name, turned[name], sizes)
        else:
            work.add(Op("Transpose", [name], [turned[name]], {"perm": back}), before=op)
    out = op.outputs[0]
    inwards = _inverse(to.perm)
    told = tuple(work.told(out)[axis] for axis in inwards)
    inner = work.fresh("turned", [work.shape(out)[axis] for axis in inwards], out, told)
    new = work.fuse([op], op.op_type, [turned.get(i, i) for i in to.inputs], [inner], to.attrs)
    for name in turned:
        before = work.made_by(name, "Transpose")
        if before is not None and not work.readers(name) and name not in work.outputs:
            work.remove(before)
            freed += before.members
    moved = work.add(Op("Transpose", [inner], [out], {"perm": to.perm}, freed), behind=new)
    if to.perm == tuple(range(len(to.perm))):
        work.bypass(moved, "nothing is left to transpose")


def _inverse(perm: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(perm.index(axis) for axis in range(len(perm)))


def _turn_constant(work: Work, name: str, turned: str, shape: list[int]) -> None:
    """``turned`` is ``name`` with its axes in another order: of integers, if that is."""
    work.constant(turned)
    known = work.folded.get(name)
    if known is not None and known.op_type == "DequantizeLinear":
        whole = work.fresh("turned", shape, known.inputs[0])
        work.constant(whole)
        work.folded[turned] = Op(known.op_type, [whole, *known.inputs[1:]], [turned], known.attrs)
