"""What a runtime does to a graph when all that is known of it are its rules, detected or written down.

Operators spelled as several become one where a rule that names them is obeyed. Then, in execution order, each
operator joins the kernel that computes what it reads, where a rule admits it and nothing else reads that. The rule is
the one of the operator that gives the kernel its kind, which is the one that starts it in nearly all; a rule of three,
on that one, the last and the next one, goes before. What no rule names and what is undecided does not fuse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import prod
from types import MappingProxyType

from nn_meter.ir import Attr, Graph, Tensor
from nn_meter.kernels.kinds import ACTIVATIONS, KIND_OF, Operator, read_kernel
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

LAYOUT = "native"
"""Layout of convolutions: the runtime's own, whatever it is."""

FUSED_NAMES: Mapping[str, str] = MappingProxyType(
    {**ACTIVATIONS, "Gelu": "gelu", "FastGelu": "gelu", "QuickGelu": "swish"}
)
"""What is fused into a convolution or a matrix product, as a config calls it."""

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

_ARITHMETIC = ("Add", "Sub", "Mul", "Div")
_CONVOLUTIONS = ("Conv", "ConvTranspose")
_PRODUCTS = ("Gemm", "MatMul")

_RANK: Mapping[str, int] = MappingProxyType(
    {
        "conv": 9, "convtrans": 9, "fc": 9, "matmul": 9, "attention": 9, "recurrent": 9,
        "binary": 2, "unary": 1, "reshape": 0,
    }
)  # fmt: skip
"""Which operator gives a kernel its kind: the highest; what is not listed stands between."""
_MIDDLE = 5


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


Admits = Callable[[Sequence[Op], Sequence[Op]], bool]
"""Whether the operators of a kernel admit those of another, which reads them."""

Shares = Callable[[Op, Op], bool]
"""Whether a kernel may draw in an operator that reads what others read, too."""


def join(
    work: Work,
    options: Options,
    alone: Callable[[Work, Op], bool] | None = None,
) -> None:
    """Let each operator join the kernel that computes what it reads, where a rule admits it; those that are ``alone``
    join none, and none joins them."""
    rules = options.rules
    known: dict[tuple[str, ...], bool | None] = {**options.facts, **rules.chains}
    known |= {tuple(pair): obey for pair, obey in rules.pairs.items()}
    join_where(
        work,
        lambda inside, joining: (
            (alone is None or not any(alone(work, op) for op in (*inside, *joining)))
            and _admits(work, inside, joining, known)
        ),
        lambda kernel, reader: rules.shares and not _waits(work, reader, kernel),
    )


def join_where(work: Work, admits: Admits, shares: Shares, early: bool = False) -> None:
    """Let each operator join the kernel that computes what it reads, where that admits it. ``early``: a kernel that
    shares what it makes stands where it stood before, so that all it reads has to be made by then."""
    parts = {op: [op] for op in work.ops()}
    for op in list(parts):
        if work.alive(op):
            op.core = core(work, [op])
            op.layout = op.core.layout
            _grow(work, op, parts, admits, shares, early)


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


def _grow(
    work: Work,
    kernel: Op,
    parts: dict[Op, list[Op]],
    admits: Admits,
    shares: Shares,
    early: bool,
) -> None:
    """Let ``kernel`` draw in its readers as long as one is admitted."""
    while True:
        inside = parts[kernel]
        reader = next(
            (
                reader
                for reader in _candidates(work, kernel, shares)
                if 1 in (len(inside), len(parts[reader])) and admits(inside, parts[reader])
            ),
            None,
        )
        if reader is None:
            return
        grown = [*inside, *parts[reader]]
        kernel = _merge(work, kernel, reader, early)
        kernel.core = core(work, grown)
        kernel.op_type, kernel.attrs = kernel.core.op_type, dict(kernel.core.attrs)
        kernel.layout = kernel.core.layout
        main = main_of(work, grown)
        kernel.fused = tuple(FUSED_NAMES.get(op.op_type, work.rule_name(op)) for op in grown if op is not main)
        parts[kernel] = grown


def _candidates(work: Work, kernel: Op, shares: Shares) -> Iterator[Op]:
    """Readers that may join: the only one, or any that may share what it reads."""
    seen: set[Op] = set()  # one may read thousands of results
    for name in filter(None, kernel.outputs):
        readers = list(work.readers(name))
        alone = len(readers) == 1 and name not in work.outputs
        for reader in readers:
            if reader not in seen and (alone or shares(kernel, reader)):
                seen.add(reader)
                yield reader


def _waits(work: Work, reader: Op, kernel: Op) -> bool:
    """Whether ``reader`` needs something that is computed from ``kernel`` by others."""
    open_ops = [p for i in reader.inputs if (p := work.producer.get(i)) is not None and p is not kernel]
    seen: set[int] = set()
    while open_ops:
        op = open_ops.pop()
        if op is kernel:
            return True
        if id(op) not in seen:
            seen.add(id(op))
            open_ops += [p for i in op.inputs if (p := work.producer.get(i)) is not None]
    return False


def _merge(work: Work, kernel: Op, reader: Op, early: bool) -> Op:
    """One of two: reads and writes what both do, less what stays inside."""
    made = [o for o in kernel.outputs if o]
    inputs = [*kernel.inputs, *(i for i in reader.inputs if i and i not in made and not work.const(i))]
    outside = [o for o in made if o in work.outputs or any(r is not reader for r in work.readers(o))]
    first = kernel.place
    merged = work.fuse((kernel, reader), kernel.op_type, inputs, [*outside, *reader.outputs])
    if outside and early:
        merged.place = first  # before whoever else reads what the kernel makes
    return merged


def _admits(
    work: Work, inside: Sequence[Op], joining: Sequence[Op], known: Mapping[tuple[str, ...], bool | None]
) -> bool:
    head, last = main_of(work, inside), inside[-1]
    second = _names(work, main_of(work, joining))
    if head.op_type in (*_CONVOLUTIONS, "Gemm") or (head.op_type == "MatMul" and work.const(head.inputs[1])):
        counts = [operands(work, op) for op in (*inside, *joining) if op is not head]
        if counts[-1] > 1 and sum(count > 1 for count in counts) > 1:
            return False
    if len(inside) > 1:
        chain = _verdict(known, _names(work, head), _names(work, last), second)
        if chain is not None:
            return chain
    return bool(_verdict(known, _names(work, head), second))


def operands(work: Work, op: Op) -> int:
    """How many of an operator's inputs are computed."""
    return sum(bool(i) and not work.const(i) for i in op.inputs)


def _verdict(known: Mapping[tuple[str, ...], bool | None], *names: Sequence[str]) -> bool | None:
    """What the first rule for any of the names says, ``None`` where there is none; an undecided one says no."""
    rule = next((key for key in product(*names) if key in known), None)
    return None if rule is None else bool(known[rule])


def _names(work: Work, op: Op) -> tuple[str, ...]:
    """What rules may call an operator, its own name in ONNX first."""
    return tuple(dict.fromkeys((op.op_type, *_rule_names(work, op))))


def _rule_names(work: Work, op: Op) -> tuple[str, ...]:
    """Rule names of an operator, its own first."""
    if op.op_type in _ARITHMETIC:
        if operands(work, op) > 1:
            return ("add",)
        return ("mul", "bn", "add") if op.op_type in ("Mul", "Div") else ("bn", "mul", "add")
    if op.op_type == "MatMul" and not work.const(op.inputs[1]):
        return ("matmul",)
    if op.op_type == "Transpose" and op.attrs.get("perm") in _TURNS:
        return (_TURNS[op.attrs["perm"]], "transpose")
    own = work.rule_name(op)
    return (own, *_LIKE.get(own, ()))


def core(work: Work, ops: Sequence[Op]) -> Operator:
    """The operator that a kernel of ``ops`` counts as: its heaviest, with the names of what else is in it."""
    products = [op for op in ops if op.op_type == "MatMul" and not work.const(op.inputs[1])]
    if len(products) == 2 and any(op.op_type == "Softmax" for op in ops):
        return attention(work, *products)
    main = main_of(work, ops)
    operator = work.executed(main)
    if operator.op_type in _CONVOLUTIONS or operator.op_type in _PRODUCTS:
        fused = _fused(work, [op for op in ops if op is not main])
        return replace(operator, fused=fused, layout=LAYOUT if operator.op_type in _CONVOLUTIONS else "")
    if _rank(main) == _RANK["binary"]:
        return replace(operator, inputs=(*operator.inputs, *_others(work, ops, main)))
    return operator


def main_of(work: Work, ops: Sequence[Op]) -> Op:
    """The operator that gives a kernel of ``ops`` its kind."""
    return max(ops, key=lambda op: (_rank(op), _size(work, op))) if len(ops) > 1 else ops[0]


def _rank(op: Op) -> int:
    return _RANK.get(KIND_OF.get(op.op_type, ""), _MIDDLE)


def _size(work: Work, op: Op) -> int:
    return sum(work.tensors[name].size for name in (*op.inputs, *op.outputs) if name)


def _fused(work: Work, others: Iterable[Op]) -> tuple[str, ...]:
    """Names of what is fused. What constants do vanishes into the weights; views cost nothing."""
    names = []
    for op in others:
        if op.op_type in _ARITHMETIC and operands(work, op) > 1:
            names.append("sum")
        elif op.op_type in FUSED_NAMES:
            names.append(FUSED_NAMES[op.op_type])
    return tuple(dict.fromkeys(names))


def _others(work: Work, ops: Sequence[Op], main: Op) -> list[Tensor]:
    """What the other elementwise operators of a kernel read from outside; no constants of one element."""
    made = {o for op in ops for o in op.outputs}
    names = dict.fromkeys(i for op in ops if op is not main for i in op.inputs if i and i not in made)
    return [work.tensors[n] for n in names if n not in main.inputs and work.tensors[n].size > 1]


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
