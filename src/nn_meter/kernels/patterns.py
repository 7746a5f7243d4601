"""Operators that together are one: patterns in the text form of ``ir``, and how they are found.

A pattern lists statements; what stands behind ``|`` is another spelling of the same::

    const e: [1]
    v = ReduceMean(Pow(x, 2.0), ...) | ReduceMean(Mul(x, x), ...)
    y = Div(x, Sqrt(Add(v, e)))

Names stand for tensors, a number for a constant of one element near it, ``const`` says that a name is a constant
(``[1]``: of one element), ``...`` that further inputs do not matter. Operands of sums and products are tried in both
orders. The last statement's result is what others may read; what the other statements compute has to stay inside.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product

from nn_meter.ir import Attr
from nn_meter.kernels.rewriting import Op, Work

_COMMUTATIVE = frozenset({"Add", "Mul"})
_FREQUENT = ("Add", "Mul", "MatMul", "Div", "Sub", "Pow", "ReduceMean")
"""Operators of patterns that a model has many of, most first: a search starts at another one, if it can."""

_TOKEN = re.compile(r"\s*(\.\.\.|[A-Za-z_]\w*|[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?|[(),=|:\[\]])")

Check = Callable[[Work, "Match"], str]
"""Why a match is none, ``""`` where it is one."""


@dataclass(frozen=True, slots=True)
class Match:
    """An occurrence: names of the pattern to tensors, and to the operators that compute them."""

    tensors: Mapping[str, str]
    ops: Mapping[str, Op]

    def __getitem__(self, name: str) -> str:
        return self.tensors[name]


@dataclass(frozen=True, slots=True)
class _Call:
    """``name = op_type(args)``; an argument is a name or a number."""

    name: str
    op_type: str
    args: tuple[str | float, ...]
    open: bool


@dataclass(frozen=True, slots=True)
class _Spelling:
    """Calls in the order in which they are found: each but the first computes or reads a tensor that is known by
    then. ``known`` names that tensor, ``""`` where the call computes it."""

    plan: tuple[tuple[_Call, str], ...]
    root: str


@dataclass(frozen=True, slots=True)
class Pattern:
    """What operators together are: ``op_type`` of ``inputs``, which are names of the text.

    ``attrs`` are put over those of the last statement's operator. ``check`` refuses a match with a reason.
    """

    op_type: str
    inputs: tuple[str, ...]
    text: str
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    check: Check = lambda work, match: ""
    _constants: dict[str, bool] = field(init=False, repr=False, default_factory=dict)
    _spellings: list[_Spelling] = field(init=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        self._spellings.extend(_Reader(self.text, self._constants).spellings())

    def rewrite(self, work: Work) -> None:
        """Make one operator of every occurrence; of what ``check`` refuses, ``work`` remembers the reason."""
        for start in dict.fromkeys(each.plan[0][0].op_type for each in self._spellings):
            for op in work.ops(start):
                self._rewrite(work, op)

    def _rewrite(self, work: Work, start: Op) -> None:
        for spelling in self._spellings:
            if spelling.plan[0][0].op_type != start.op_type:
                continue
            match = self._extend(work, spelling, 0, start, {}, {})
            if match is None:
                continue
            reason = self.check(work, match)
            if reason:
                work.refuse(match.ops.values(), reason)
                continue
            root = match.ops[spelling.root]
            inputs = [match[name] for name in self.inputs]
            work.fuse(match.ops.values(), self.op_type, inputs, root.outputs, {**root.attrs, **self.attrs})
            return

    def _extend(
        self, work: Work, spelling: _Spelling, step: int, start: Op, tensors: dict[str, str], ops: dict[str, Op]
    ) -> Match | None:
        """The first match with what is known so far."""
        if step == len(spelling.plan):
            return Match(tensors, ops) if _closed(work, spelling.root, ops) else None
        call, known = spelling.plan[step]
        for op in _candidates(work, call, known, tensors) if step else (start,):
            if op.op_type != call.op_type or op in ops.values() or len(op.outputs) != 1:
                continue
            for bound in self._bind(work, call, op, tensors):
                found = self._extend(work, spelling, step + 1, start, bound, {**ops, call.name: op})
                if found is not None:
                    return found
        return None

    def _bind(self, work: Work, call: _Call, op: Op, tensors: Mapping[str, str]) -> Iterator[dict[str, str]]:
        """What is known if ``op`` is the one of ``call``, in each order of its operands that fits."""
        inputs = op.inputs
        if len(inputs) < len(call.args) or (len(inputs) > len(call.args) and not call.open):
            return
        turned = call.op_type in _COMMUTATIVE and len(call.args) == 2
        for order in (inputs, inputs[::-1]) if turned else (inputs,):
            bound = {**tensors, call.name: op.outputs[0]}
            for arg, name in zip(call.args, order, strict=False):
                if not self._stands_for(work, arg, name, bound):
                    break
                if isinstance(arg, str):
                    bound[arg] = name
            else:
                yield bound

    def _stands_for(self, work: Work, arg: str | float, name: str, bound: Mapping[str, str]) -> bool:
        if isinstance(arg, float):
            return near(work.scalar(name), arg)
        if not name or bound.get(arg, name) != name:
            return False
        one = self._constants.get(arg)
        return one is None or (work.is_one_element(name) if one else work.const(name))


def near(value: float | None, wanted: float) -> bool:
    """Whether a constant is what a pattern means: exporters round, and some write half precision."""
    return value is not None and abs(value - wanted) <= 1e-3 * abs(wanted) + 1e-7


def _candidates(work: Work, call: _Call, known: str, tensors: Mapping[str, str]) -> list[Op]:
    if known:
        return list(work.readers(tensors[known]))
    maker = work.producer.get(tensors[call.name])
    return [] if maker is None else [maker]


def _closed(work: Work, root: str, ops: Mapping[str, Op]) -> bool:
    """Whether nothing outside reads what is computed inside."""
    inside = list(ops.values())
    return all(
        op.outputs[0] not in work.outputs and all(reader in inside for reader in work.readers(op.outputs[0]))
        for name, op in ops.items()
        if name != root
    )


class _Reader:
    """Reads the text of a pattern; ``constants`` is filled with the declared ones."""

    def __init__(self, text: str, constants: dict[str, bool]) -> None:
        self._constants = constants
        self._statements: list[tuple[str, list[list[_Call]]]] = []
        self._fresh = 0
        for line in filter(None, map(str.strip, text.splitlines())):
            self._tokens = list(reversed(_TOKEN.findall(line)))
            assert "".join(reversed(self._tokens)) == re.sub(r"\s", "", line), f"no statement: {line}"
            self._statement()

    def spellings(self) -> Iterator[_Spelling]:
        """One for each choice among the alternatives."""
        root = self._statements[-1][0]
        for choice in product(*(alternatives for _, alternatives in self._statements)):
            yield _Spelling(_planned([call for calls in choice for call in calls]), root)

    def _statement(self) -> None:
        name = self._tokens.pop()
        if name == "const":
            name = self._tokens.pop()
            self._constants[name] = bool(self._tokens)
            return
        alternatives: list[list[_Call]] = []
        while self._tokens:
            assert self._tokens.pop() in "=|"
            calls: list[_Call] = []
            self._call(name, self._tokens.pop(), calls)
            alternatives.append(calls)
        self._statements.append((name, alternatives))

    def _call(self, name: str, op_type: str, calls: list[_Call]) -> None:
        """Read ``(arguments)``; calls within come before this one."""
        args: list[str | float] = []
        is_open = False
        assert self._tokens.pop() == "("
        while (token := self._tokens.pop()) != ")":
            if token == "...":
                is_open = True
            elif token[0] in "+-.0123456789":
                args.append(float(token))
            elif token != ",":
                args.append(token)
                if self._tokens[-1] == "(":
                    self._fresh += 1
                    args[-1] = inner = f"#{self._fresh}"
                    self._call(inner, token, calls)
        calls.append(_Call(name, op_type, tuple(args), is_open))


def _planned(calls: list[_Call]) -> tuple[tuple[_Call, str], ...]:
    """Start at the rarest operator; go up to what computes its operands, then down to what reads a result."""

    def rarity(call: _Call) -> int:
        return _FREQUENT.index(call.op_type) if call.op_type in _FREQUENT else len(_FREQUENT)

    first = max(calls, key=rarity)
    plan = [(first, "")]
    left = [call for call in calls if call is not first]
    while left:
        made = {call.name: None for call, _ in plan}
        read = {arg: None for call, _ in plan for arg in call.args if isinstance(arg, str)}
        above = [(call, "") for call in left if call.name in read]
        below = [(call, known) for known in (*made, *read) for call in left if known in call.args]
        step = (above or below)[0]
        plan.append(step)
        left.remove(step[0])
    return tuple(plan)
