"""Transposes behind operators that work element by element, where that leaves fewer of them."""

from __future__ import annotations

from nn_meter.kernels.rewriting import Op, Work
from nn_meter.runtimes.base import Options

ELEMENTWISE = frozenset(
    (
        *("DequantizeLinear", "QuantizeLinear", "Relu", "Sigmoid", "Tanh", "Clip", "HardSigmoid", "HardSwish", "Cast"),
        *("LeakyRelu", "Elu", "Selu", "Mish", "Erf", "Gelu", "FastGelu", "QuickGelu", "Exp", "Log", "Sqrt", "Neg"),
        *("Abs", "Softplus", "Add", "Mul", "Sub", "Div", "Pow", "Max", "Min", "Sum"),
        *("QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu"),
    )
)


OPERANDS = {"QLinearAdd": (0, 3), "QLinearMul": (0, 3)}
"""Inputs that are operands, whatever their rank; the others are scales and zero points."""

_SOFTMAX = ("Softmax", "QLinearSoftmax")
_TURNED = frozenset((*ELEMENTWISE, *_SOFTMAX))


def push_transpose_through_elementwise(work: Work, options: Options) -> None:
    """A Transpose before such an operator moves behind it, on the way to another one or where several become one."""
    leads = _leading(work)
    for op in work.ops(*_TURNED):
        perm = next((p for p in (_perm(work, i) for i in op.inputs) if p is not None), None)
        if perm is None or op.fused or len(op.outputs) != 1 or len(work.shape(op.outputs[0])) != len(perm):
            continue
        rank = len(perm)
        places = OPERANDS.get(op.op_type, ())
        data = [i for place, i in enumerate(op.inputs) if i and (place in places or work.shape(i))]
        if any(not work.const(i) and len(work.shape(i)) != rank for i in data):
            continue
        cost = sum(0 if work.const(i) else -rank if _perm(work, i) == perm else rank for i in dict.fromkeys(data))
        if cost + (0 if op.outputs[0] in leads else rank) < 0:
            _push(work, op, perm, data)


def _leading(work: Work) -> set[str]:
    """Tensors from which a way through such operators leads to a Transpose."""
    found: set[str] = set()
    for op in reversed(list(work.ops())):
        if op.op_type == "Transpose" or (op.op_type in _TURNED and any(o in found for o in op.outputs)):
            found.update(i for i in op.inputs if i)
    return found


def _perm(work: Work, name: str) -> tuple[int, ...] | None:
    before = work.made_by(name, "Transpose") if name else None
    perm = before.attrs.get("perm") if before is not None else None
    return tuple(int(p) for p in perm) if isinstance(perm, tuple) else None


def _push(work: Work, op: Op, perm: tuple[int, ...], data: list[str]) -> None:
    back = tuple(perm.index(axis) for axis in range(len(perm)))
    turned: dict[str, str] = {}
    freed: tuple[str, ...] = ()
    for name in dict.fromkeys(data):
        before = work.made_by(name, "Transpose")
        if before is not None and _perm(work, name) == perm:
            turned[name] = before.inputs[0]
            continue
        shape = (1,) * (len(perm) - len(work.shape(name))) + work.shape(name)
        sizes = [shape[axis] for axis in back]
        turned[name] = work.fresh("turned", sizes, name)
        if work.const(name):
            _turn_constant(work, name, turned[name], sizes)
        else:
            work.add(Op("Transpose", [name], [turned[name]], {"perm": back}), before=op)
    out = op.outputs[0]
    inner = work.fresh("turned", [work.shape(out)[axis] for axis in back], out)
    attrs = dict(op.attrs)
    if op.op_type in _SOFTMAX:
        axis = attrs.get("axis", -1)
        assert isinstance(axis, int)
        attrs["axis"] = perm[axis]
    new = work.fuse([op], op.op_type, [turned.get(i, i) for i in op.inputs], [inner], attrs)
    for name in turned:
        before = work.made_by(name, "Transpose")
        if before is not None and not work.readers(name) and name not in work.outputs:
            work.remove(before)
            freed += before.members
    work.add(Op("Transpose", [inner], [out], {"perm": perm}, freed), behind=new)


def _turn_constant(work: Work, name: str, turned: str, shape: list[int]) -> None:
    """``turned`` is ``name`` with its axes in another order: of integers, if that is."""
    work.constant(turned)
    known = work.folded.get(name)
    if known is not None and known.op_type == "DequantizeLinear":
        whole = work.fresh("turned", shape, known.inputs[0])
        work.constant(whole)
        work.folded[turned] = Op(known.op_type, [whole, *known.inputs[1:]], [turned], known.attrs)
