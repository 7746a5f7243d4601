"""What a runtime does to a graph when all that is known of it are its rules, detected or written down.

Operators spelled as several become one where a rule that names them is obeyed. Then, in execution order, each
operator joins the kernel that computes what it reads, where a rule admits it and nothing else reads that. The rule is
the one of the operator that gives the kernel its kind, which is the one that starts it in nearly all; a rule of three,
on that one, the last and the next one, goes before. What no rule names and what is undecided does not fuse.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import prod
from types import MappingProxyType

from nn_meter.ir import Attr, Graph, Tensor
from nn_meter.kernels.kinds import ACTIVATIONS, KIND_OF, Operator, read_kernel
from nn_meter.kernels.no_ops import eliminate_no_ops
from nn_meter.kernels.partition import KernelConfig
from nn_meter.kernels.patterns import Pattern
from nn_meter.kernels.rewriting import Op, Place, Work
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


class Growing:
    """A kernel while it grows.

    Attributes:
        behind: its operators in the order in which they joined, but those of ``front``, which drew the others in later.
        main: the operator that gives it its kind.
        members: the nodes that it stands for, as the places of those that became one had them.
        at: the operator whose place it takes; ``since`` is its earliest one.
        types: of its operators.
        reads: what it reads of what others compute or the model is given.
        open: what it makes that others read or the model gives.
        several: how many of its operators read several such tensors; ``ends`` is whether the last one does.
    """

    __slots__ = (
        "_weight", "at", "behind", "ends", "front", "main", "members", "open", "reads", "several", "since", "types",
    )  # fmt: skip

    def __init__(self, work: Work, op: Op) -> None:
        self.front: list[Op] = []  # the last one first
        self.behind = [op]
        self.main = self.at = self.since = op
        self.members = op.nested
        self.types = {op.op_type}
        self.reads = {i: None for i in op.inputs if i and not work.const(i)}
        self.open = dict.fromkeys(filter(None, op.outputs))
        self.ends = operands(work, op) > 1
        self.several = int(self.ends)
        self._weight: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.front) + len(self.behind)

    @property
    def first(self) -> Op:
        """The operator before all others."""
        return self.front[-1] if self.front else self.behind[0]

    @property
    def last(self) -> Op:
        """The operator behind all others."""
        return self.behind[-1]

    def ops(self) -> list[Op]:
        """All of them."""
        return [*reversed(self.front), *self.behind]

    def weight(self, work: Work) -> tuple[int, int]:
        """Of its main operator: rank and size."""
        if self._weight is None:
            self._weight = _weight(work, self.main)
        return self._weight

    def take(self, work: Work, other: Growing, front: bool) -> None:
        """Put in the only operator of ``other``; what lies between the two is left to who asks."""
        (op,) = other.behind
        (self.front if front else self.behind).append(op)
        earlier, later = sorted((self, other), key=lambda each: each.at.place)
        self.members = earlier.members, later.members
        mine, its = self.weight(work), other.weight(work)
        if its > mine or (front and its == mine):
            self.main, self._weight = other.main, its
        self.types |= other.types
        self.reads |= other.reads
        self.open |= other.open
        self.several += other.several
        self.ends = self.ends if front else other.ends
        self.since = min(self.since, other.since, key=_place)


STEPS = 500
"""Of walks through a graph for each of its operators, all walks together: what they have not found by then is not
there. Models need two, DenseNet-201 280 where all that several read may join."""

Judge = Callable[[Growing, Growing], bool]
"""What is asked of a kernel and of one that reads what it makes."""


class Growth:
    """Kernels while they grow. The graph stays as it is until all have grown, and of two that become one the single
    operator is put to the other, so that time grows with the number of operators."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._of: dict[Op, Growing] = {}
        self._counts: dict[str, int] = {}  # kernels that read a tensor, where they are fewer than operators
        self._left = 0

    def join(self, admits: Judge, shares: Judge | None, early: bool = False) -> None:
        """Let each operator join the kernel that computes what it reads, where that ``admits`` it and nobody else reads
        it, or the kernel ``shares`` it. ``early``: a kernel that shares what it makes stands where it stood before, so
        that all it reads has to be made by then."""
        ops = list(self._work.ops())
        self._left = STEPS * len(ops)
        for op in ops:
            kernel = self._kernel(op)
            if len(kernel) == 1:
                op.core = core(self._work, [op])
                op.layout = op.core.layout
                if len(self._grow(kernel, admits, shares, early)) == 1:
                    del self._of[op]
        for kernel in dict.fromkeys(self._of.values()):
            if len(kernel) > 1:
                _put_in(self._work, kernel)

    def made_before(self, kernel: Growing, reader: Growing) -> bool:
        """Whether all that ``reader`` reads beside what ``kernel`` makes is made before."""
        for name in reader.reads:
            self._left -= 1
            maker = self._maker(name)
            if maker is not None and maker is not kernel and not maker.at.place < kernel.at.place:
                return False
        return self._left > 0

    def waits(self, kernel: Growing, reader: Growing) -> bool:
        """Whether ``reader`` needs something that others compute from what ``kernel`` makes."""
        names = [name for name in reader.reads if name not in kernel.open]
        seen: set[Growing] = set()
        while names and self._left > 0:
            self._left -= 1
            maker = self._maker(names.pop())
            if maker is kernel:
                return True
            if maker is not None and maker not in seen and not maker.at.place < kernel.since.place:
                seen.add(maker)
                names += maker.reads
        return bool(names) or self._left <= 0

    def _kernel(self, op: Op) -> Growing:
        found = self._of.get(op)
        if found is None:
            found = self._of[op] = Growing(self._work, op)
        return found

    def _maker(self, name: str) -> Growing | None:
        op = self._work.producer.get(name)
        return None if op is None else self._kernel(op)

    def _count(self, name: str) -> int:
        found = self._counts.get(name)
        return len(self._work.readers(name)) if found is None else found

    def _grow(self, kernel: Growing, admits: Judge, shares: Judge | None, early: bool) -> Growing:
        """Ask who reads what ``kernel`` makes: when it is made, and again where the kernel's kind changes or one is
        left."""
        work = self._work
        asked = deque(kernel.open)
        while asked:
            name = asked.popleft()
            if shares is None and not self._alone(name):
                continue
            for reader in dict.fromkeys(map(self._kernel, work.readers(name))):
                if reader is kernel or len(kernel) > 1 < len(reader):
                    continue
                if (self._alone(name) or (shares is not None and shares(kernel, reader))) and admits(kernel, reader):
                    kernel, more = self._merged(kernel, reader, early)
                    asked += more
        return kernel

    def _alone(self, name: str) -> bool:
        return self._count(name) == 1 and name not in self._work.outputs

    def _merged(self, kernel: Growing, reader: Growing, early: bool) -> tuple[Growing, Iterable[str]]:
        """One of two, and the tensors whose readers are to be asked."""
        front = len(reader) > 1
        one, other = (kernel, reader) if front else (reader, kernel)
        between = [name for name in one.open if name in reader.reads] if front else [
            name for name in one.reads if name in kernel.open
        ]
        for name in (*between, *(name for name in one.reads if name in other.reads)):
            self._counts[name] = self._count(name) - 1
        for name in between:
            del reader.reads[name]
            if not self._counts[name] and name not in self._work.outputs:
                del kernel.open[name]
        at = kernel.at if early and kernel.open else max(kernel.at, reader.at, key=_place)
        more, rank = [*(name for name in between if self._counts[name] == 1), *one.open], other.weight(self._work)[0]
        other.take(self._work, one, front)
        other.at = at
        self._of[one.last] = other
        return other, more if other.weight(self._work)[0] == rank else list(other.open)


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


def _put_in(work: Work, kernel: Growing) -> None:
    """Replace the operators of a kernel by one."""
    ops = kernel.ops()
    for op in ops:
        work.remove(op)
    made = {name for op in ops for name in op.outputs}
    others = (name for op in ops[1:] for name in op.inputs if name and name not in made and not work.const(name))
    outputs = [name for op in ops for name in op.outputs if name in kernel.open]
    config = core(work, ops)
    merged = Op(config.op_type, [*ops[0].inputs, *others], outputs, config.attrs, kernel.members)
    merged.core, merged.layout = config, config.layout
    merged.fused = tuple(FUSED_NAMES.get(op.op_type, work.rule_name(op)) for op in ops if op is not kernel.main)
    work.add(merged, at=kernel.at)


def _admits(
    work: Work, kernel: Growing, reader: Growing, known: Mapping[tuple[str, ...], bool | None]
) -> bool:
    head = kernel.main
    second = _names(work, reader.main)
    weighted = head.op_type in (*_CONVOLUTIONS, "Gemm") or (head.op_type == "MatMul" and work.const(head.inputs[1]))
    if weighted and reader.ends and kernel.several - (operands(work, head) > 1) + reader.several > 1:
        return False
    if len(kernel) > 1:
        chain = _verdict(known, _names(work, head), _names(work, kernel.last), second)
        if chain is not None:
            return chain
    return bool(_verdict(known, _names(work, head), second))


def _place(op: Op) -> Place:
    return op.place


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
    return max(ops, key=lambda op: _weight(work, op)) if len(ops) > 1 else ops[0]


def _rank(op: Op) -> int:
    return _RANK.get(KIND_OF.get(op.op_type, ""), _MIDDLE)


def _weight(work: Work, op: Op) -> tuple[int, int]:
    return _rank(op), sum(work.tensors[name].size for name in (*op.inputs, *op.outputs) if name)


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
