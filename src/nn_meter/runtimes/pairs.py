"""What a runtime does to a graph when all that is known of it are its rules, detected or written down.

Operators spelled as several become one where a rule that names them is obeyed. Then, in execution order, each
operator joins the kernel that computes what it reads, where a rule admits it and nothing else reads that. The rule is
the one of the operator that gives the kernel its kind, which is the one that starts it in nearly all; a rule of three,
on that one, the last and the next one, goes before. What no rule names and what is undecided does not fuse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from types import MappingProxyType

from nn_meter.ir import Attr, Graph
from nn_meter.kernels.kinds import read_kernel
from nn_meter.kernels.no_ops import eliminate_no_ops
from nn_meter.kernels.partition import KernelConfig
from nn_meter.kernels.patterns import Pattern
from nn_meter.kernels.rewriting import Op, Work
from nn_meter.kernels.spellings import (
    BIAS,
    GELU,
    HARD_SWISH,
    LAYER_NORM,
    RMS_NORM,
    SCALED_SWISH,
    SWISH,
    TANH_GELU,
)
from nn_meter.runtimes.base import Options, Pass, rewriting
from nn_meter.runtimes.cores import ARITHMETIC, CONVOLUTIONS, core, operands
from nn_meter.runtimes.growing import Growing, Growth

_LIKE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "dwconv": ("conv",),
        "QuickGelu": ("Swish", "relu"),
        "FastGelu": ("Gelu", "relu"),
        "HardSwish": ("hswish", "relu"),
        "Squeeze": ("reshape",),
        "Unsqueeze": ("reshape",),
        **dict.fromkeys(
            ("Abs", "Elu", "Exp", "Gelu", "LeakyRelu", "Mish", "Neg", "PRelu", "Sigmoid", "Softplus", "Sqrt", "Tanh"),
            ("relu",),
        ),
    }
)
"""Rule name to the names whose rules it takes where it has none of its own."""

_TURNS: Mapping[Attr, str] = MappingProxyType({(0, 3, 1, 2): "channelsfirst", (0, 2, 3, 1): "channelslast"})
"""Transposes that only a layout stands behind."""

SPELLINGS: tuple[tuple[Pattern, tuple[str, ...]], ...] = (
    (HARD_SWISH, ("hswish", "HardSwish")),
    (GELU, ("Gelu",)),
    (TANH_GELU, ("Gelu",)),
    (LAYER_NORM, ("LayerNormalization",)),
    (RMS_NORM, ("LayerNormalization",)),
    (BIAS, ()),
    (SWISH, ("Swish",)),
    (SCALED_SWISH, ("Swish",)),
)
"""Operators that models spell as several, with the rule names that decide about them: those without are one operator
for every runtime."""


def eliminate(work: Work, options: Options | None = None) -> None:
    """Take out what changes nothing."""
    eliminate_no_ops(work)
    for op in work.ops("Reshape", "Slice"):
        reversing = op.op_type == "Slice" and min(work.value(op, 4) or (1,)) < 0
        same = work.shape(op.inputs[0]) == work.shape(op.outputs[0]) and not reversing
        if same and not work.const(op.inputs[0]):
            work.bypass(op, f"the {op.op_type} changes nothing")


def spell(work: Work, options: Options) -> None:
    """Make one operator of what is spelled as several, where a rule that names it is obeyed."""
    rules = options.rules
    obeyed = {name for pair, obey in (*rules.pairs.items(), *rules.chains.items()) if obey for name in pair}
    for pattern, names in SPELLINGS:
        if not names or not obeyed.isdisjoint(names):
            pattern.rewrite(work)


def join(work: Work, options: Options, alone: Callable[[Work, Op], bool] = lambda work, op: False) -> None:
    """Let each operator join the kernel that computes what it reads, where a rule admits it; those that are ``alone``
    join none, and none joins them."""
    rules = options.rules
    known: dict[tuple[str, ...], bool | None] = {**options.facts, **rules.chains}
    known |= {tuple(pair): obey for pair, obey in rules.pairs.items()}
    growth = Growth(work)
    growth.join(
        lambda kernel, reader: (
            not alone(work, kernel.last) and not alone(work, reader.last) and _admits(work, kernel, reader, known)
        ),
        (lambda kernel, reader: not growth.waits(kernel, reader)) if rules.shares else None,
    )


PASSES = (Pass("eliminate", eliminate), Pass("spell", spell), Pass("join", join))
"""Of a runtime of which rules and facts are all that is known."""

CALLED = (
    PASSES[0],
    Pass("spell", rewriting(HARD_SWISH, GELU, TANH_GELU, LAYER_NORM, RMS_NORM, BIAS, SWISH, SCALED_SWISH)),
    PASSES[2],
)
"""Of a runtime that gets the calls of PyTorch which operators were exported from, whatever rules say."""


def inseparable(graph: Graph) -> list[tuple[str, ...]]:
    """Nodes that are one operator for every runtime, each list in execution order."""
    work = Work(graph)
    for pattern, names in SPELLINGS:
        if not names:
            pattern.rewrite(work)
    return [op.members for op in work.ops() if len(op.members) > 1]


def read_groups(
    graph: Graph, groups: Sequence[Sequence[str]], laid: Callable[[Work], None] = lambda work: None
) -> list[tuple[str, KernelConfig] | None]:
    """Kind and config of kernels that cover these nodes each; ``None`` where all of them cost nothing. ``laid`` says of
    the operators how their data lies.

    An operator spelled as several counts as one where one group holds all of it.
    """
    work, plain = Work(graph), Work(graph)
    laid(plain)
    alone = {op.members[0]: op for op in plain.ops()}
    laid(work)
    eliminate(work)
    for pattern, _ in SPELLINGS:
        pattern.rewrite(work)
    spelled = {node: op for op in work.ops() for node in op.members}
    found: list[tuple[str, KernelConfig] | None] = []
    for nodes in groups:
        ops: dict[Op, None] = {}
        for op, node in ((spelled[n], n) for n in nodes if n in spelled):
            ops[op if set(op.members) <= set(nodes) else alone[node]] = None
        found.append(read_kernel(core(work, list(ops))) if ops else None)
    return found


def _admits(
    work: Work, kernel: Growing, reader: Growing, known: Mapping[tuple[str, ...], bool | None]
) -> bool:
    head = kernel.main
    second = _names(work, reader.main)
    weighted = head.op_type in (*CONVOLUTIONS, "Gemm") or (head.op_type == "MatMul" and work.const(head.inputs[1]))
    if weighted and reader.ends and kernel.several - (operands(work, head) > 1) + reader.several > 1:
        return False
    if len(kernel) > 1:
        chain = _verdict(known, _names(work, head), _names(work, kernel.last), second)
        if chain is not None:
            return chain
    return bool(_verdict(known, _names(work, head), second))


def _verdict(known: Mapping[tuple[str, ...], bool | None], *names: Sequence[str]) -> bool | None:
    """What the first rule for any of the names says, ``None`` where there is none; an undecided one says no."""
    rule = next((key for key in product(*names) if key in known), None)
    return None if rule is None else bool(known[rule])


def _names(work: Work, op: Op) -> tuple[str, ...]:
    """What rules may call an operator, its own name in ONNX first."""
    return tuple(dict.fromkeys((op.op_type, *_rule_names(work, op))))


def _rule_names(work: Work, op: Op) -> tuple[str, ...]:
    """Rule names of an operator, its own first."""
    if op.op_type in ARITHMETIC:
        if operands(work, op) > 1:
            return ("add",)
        return ("mul", "bn", "add") if op.op_type in ("Mul", "Div") else ("bn", "mul", "add")
    if op.op_type == "MatMul" and not work.const(op.inputs[1]):
        return ("matmul",)
    if op.op_type == "Transpose" and op.attrs.get("perm") in _TURNS:
        return (_TURNS[op.attrs["perm"]], "transpose")
    own = work.rule_name(op)
    return (own, *_LIKE.get(own, ()))
