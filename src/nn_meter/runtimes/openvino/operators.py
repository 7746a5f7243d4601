"""Which operators OpenVINO's CPU plugin treats alike."""

from __future__ import annotations

from collections.abc import Collection

from nn_meter.kernels.kinds import KIND_OF, VIEWS
from nn_meter.kernels.rewriting import Op, Work

SUM_ACTIVATIONS = frozenset(
    {
        "Clip", "Elu", "HardSwish", "LeakyRelu", "Mish", "PRelu", "QuickGelu", "Relu", "Round", "Sigmoid",
    }
)  # fmt: skip
"""What a convolution takes behind a sum."""

ACTIVATIONS = SUM_ACTIVATIONS | {"Abs", "FastGelu", "Gelu", "Sqrt", "Tanh"}
"""What a convolution takes, and most others that compute (``SupportsFusingWithConvolution_Simple``)."""

ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div"})

ELEMENTWISE = (
    ACTIVATIONS
    | ARITHMETIC
    | {
        "BatchNormalization", "Ceil", "Equal", "Erf", "Exp", "Floor", "Greater", "GreaterOrEqual", "Less",
        "LessOrEqual", "Max", "Min", "Mod", "Neg", "Pow", "Reciprocal", "Where",
    }
) - {"Mish"}  # fmt: skip
"""What is done to each element and becomes part of a Subgraph, as ``TokenizeSnippets`` calls it."""

_STEPS = (ACTIVATIONS | ARITHMETIC | {"Erf", "Exp", "Neg", "Pow"}) - {"PRelu"}


def is_view(work: Work, op: Op) -> bool:
    """Whether an operator looks at what is there another way: no axis of more than one place changes its turn."""
    if op.op_type != "Transpose":
        return op.op_type in VIEWS
    shape = work.shape(op.inputs[0])
    perm = op.attrs.get("perm")
    moving = [int(axis) for axis in perm if shape[int(axis)] > 1] if isinstance(perm, tuple) else [1, 0]
    return moving == sorted(moving)


def is_scalar_step(work: Work, op: Op) -> bool:
    """Whether an operator changes each element by itself, with scalar constants at most."""
    constants = [i for i in op.inputs if i and work.const(i)]
    return (
        op.op_type in _STEPS
        and sum(bool(i) for i in op.inputs) - len(constants) == 1
        and all(work.tensors[i].size == 1 for i in constants)
    )


def channels_last(work: Work, keeping: Collection[str]) -> set[str]:
    """Tensors that lie with the channels last, as convolutions make them and kinds of ``keeping`` leave them."""
    found: set[str] = set()
    for op in work.ops():
        keeps = op.op_type in ELEMENTWISE or op.op_type == "Concat" or KIND_OF.get(op.op_type) in keeping
        if op.op_type == "Conv" or (keeps and any(i in found for i in op.inputs)):
            found.update(op.outputs)
    return found
