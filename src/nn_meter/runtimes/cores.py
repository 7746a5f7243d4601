"""What a kernel of several operators counts as: its heaviest one, with the names of what else is in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod
from types import MappingProxyType

from nn_meter.ir import Tensor
from nn_meter.kernels.kinds import ACTIVATIONS, KIND_OF, Operator
from nn_meter.kernels.rewriting import Op, Place, Work

LAYOUT = "native"
"""Layout of convolutions: the runtime's own, whatever it is."""

FUSED_NAMES: Mapping[str, str] = MappingProxyType(
    {**ACTIVATIONS, "Gelu": "gelu", "FastGelu": "gelu", "QuickGelu": "swish"}
)
"""What is fused into a convolution or a matrix product, as a config calls it."""

ARITHMETIC = ("Add", "Sub", "Mul", "Div")
CONVOLUTIONS = ("Conv", "ConvTranspose")
_PRODUCTS = ("Gemm", "MatMul")

_RANK: Mapping[str, int] = MappingProxyType(
    {
        "conv": 9, "convtrans": 9, "fc": 9, "matmul": 9, "attention": 9, "recurrent": 9,
        "binary": 2, "unary": 1, "reshape": 0,
    }
)  # fmt: skip
"""Which operator gives a kernel its kind: the highest; what is not listed stands between."""
_MIDDLE = 5


def place(op: Op) -> Place:
    """Where an operator stands in the execution order."""
    return op.place


def operands(work: Work, op: Op) -> int:
    """How many of an operator's inputs are computed."""
    return sum(bool(i) and not work.const(i) for i in op.inputs)


def core(work: Work, ops: Sequence[Op]) -> Operator:
    """The operator that a kernel of ``ops`` counts as: its heaviest, with the names of what else is in it."""
    products = [op for op in ops if op.op_type == "MatMul" and not work.const(op.inputs[1])]
    if len(products) == 2 and any(op.op_type == "Softmax" for op in ops):
        return attention(work, *products)
    main = main_of(work, ops)
    operator = work.executed(main)
    if operator.op_type in CONVOLUTIONS or operator.op_type in _PRODUCTS:
        fused = _fused(work, [op for op in ops if op is not main])
        return replace(operator, fused=fused, layout=LAYOUT if operator.op_type in CONVOLUTIONS else "")
    if _rank(main) == _RANK["binary"]:
        return replace(operator, inputs=(*operator.inputs, *_others(work, ops, main)))
    return operator


def main_of(work: Work, ops: Sequence[Op]) -> Op:
    """The operator that gives a kernel of ``ops`` its kind."""
    return max(ops, key=lambda op: weight(work, op)) if len(ops) > 1 else ops[0]


def _rank(op: Op) -> int:
    return _RANK.get(KIND_OF.get(op.op_type, ""), _MIDDLE)


def weight(work: Work, op: Op) -> tuple[int, int]:
    """How much an operator decides of a kernel's kind: rank and size."""
    return _rank(op), sum(work.tensors[name].size for name in (*op.inputs, *op.outputs) if name)


def _fused(work: Work, others: Iterable[Op]) -> tuple[str, ...]:
    """Names of what is fused. What constants do vanishes into the weights; views cost nothing."""
    names = []
    for op in others:
        if op.op_type in ARITHMETIC and operands(work, op) > 1:
            names.append("sum")
        elif op.op_type in FUSED_NAMES:
            names.append(FUSED_NAMES[op.op_type])
    return tuple(dict.fromkeys(names))


def _others(work: Work, ops: Sequence[Op], main: Op) -> list[Tensor]:
    """What the other elementwise operators of a kernel read from outside; no constants of one element."""
    made = {o for op in ops for o in op.outputs}
    names = dict.fromkeys(i for op in ops if op is not main for i in op.inputs if i and i not in made)
    mine = set(main.inputs)
    return [work.tensors[n] for n in names if n not in mine and work.tensors[n].size > 1]


def attention(work: Work, scores: Op, mixing: Op) -> Operator:
    """Attention of the product that gives scores and the one that mixes the values."""
    operands = (*work.executed(scores).inputs, work.tensors[mixing.inputs[1]])
    query, keys, values = (_heads(tensor) for tensor in operands if tensor is not None)
    turned = replace(keys, shape=(*keys.shape[:-2], keys.shape[-1], keys.shape[-2]))
    return Operator("Attention", (query, turned, values), (work.tensors[mixing.outputs[0]],))


def _heads(tensor: Tensor) -> Tensor:
    """With a batch, and at most one axis of heads behind it, before the last two."""
    shape = (1,) * (3 - len(tensor.shape)) + tensor.shape
    return replace(tensor, shape=(prod(shape[: len(shape) - 3]), *shape[-3:]) if len(shape) > 4 else shape)
