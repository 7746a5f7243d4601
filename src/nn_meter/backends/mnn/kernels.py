"""What a session tells of the kernels that it runs, in terms of the model's nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest

from nn_meter.frontends.tflite.flatbuffer import root
from nn_meter.runtimes.trace import ExecutedKernel, Operand

_OPERATORS, _TENSORS = 3, 7
"""Slots of ``Net`` in MNN's schema, ``schema/default/MNN.fbs`` of its sources."""
_INPUTS, _NAME, _OUTPUTS, _TYPE = 0, 3, 4, 5
"""Slots of ``Op`` there."""
_CONVERT_TENSOR = 129
"""Number of the operator that changes a layout there."""

_VIEWS = frozenset({26, 28, 73, 90, 107, _CONVERT_TENSOR})
"""ExpandDims, Flatten, Reshape, Squeeze, Unsqueeze there, and changes of layout: what moves no data by itself."""

_JOINS = frozenset({10, 44})
"""Concat, Pack: what else moves data takes it from its first input alone."""

_ASKING = frozenset({66, 80})
"""Rank, Shape there: what reads no data."""

_MOVER = "Raster"
"""The kernel that moves data."""
_RASTER = re.compile(r"_raster_\d+$")
"""What follows an operator's name in that of a kernel that it becomes."""
_PRODUCT = "__matmul_converted"
"""What follows a product's name in that of the convolution that it becomes."""


@dataclass(frozen=True, slots=True)
class Told:
    """A kernel as a session tells it."""

    name: str
    kind: str
    inputs: list[Operand]
    outputs: list[Operand]


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator of a converted model, with the names of what it reads and writes."""

    name: str
    kind: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def data(self) -> tuple[str, ...]:
        """What it reads, without what only says how."""
        return self.inputs[:1] if self.kind not in _JOINS else self.inputs


def operators(converted: bytes) -> dict[str, Operator]:
    """The operators of a converted model by name."""
    net = root(memoryview(converted))
    tensors = net.texts(_TENSORS)

    def names(numbers: Sequence[int] | None) -> tuple[str, ...]:
        return tuple(tensors[number] for number in numbers or () if number >= 0)

    found = (
        Operator(op.text(_NAME), op.integer(_TYPE), names(op.vector(_INPUTS, "i")), names(op.vector(_OUTPUTS, "i")))
        for op in net.tables(_OPERATORS)
    )
    return {op.name: op for op in found}


class _Net:
    """A converted model, in which kernels are looked up.

    An operator that only moves data runs no kernel: each reader reads from where the data lies. Where it cannot, a
    kernel of the first reader puts the data in place before; that kernel is the moving operators' own.
    """

    def __init__(self, operators: Mapping[str, Operator], told: Sequence[Told]) -> None:
        self._operators = operators
        self._makers = {name: operator for operator in operators.values() for name in operator.outputs}
        self._running = {self.owner(kernel).name for kernel in told}
        self._readers: dict[str, set[str]] = {}
        for operator in operators.values():
            for name in operator.data if operator.kind not in _ASKING else ():
                self._readers.setdefault(name, set()).add(operator.name)
        self._placed: set[str] = set()

    def owner(self, kernel: Told) -> Operator:
        """The operator that a kernel belongs to; one of its own where that has no name."""
        name = kernel.name if kernel.name in self._operators else _RASTER.sub("", kernel.name)
        return self._operators.get(name) or Operator(kernel.name, _CONVERT_TENSOR, (), ())

    def sources(self, operator: Operator) -> tuple[str, ...]:
        """What is in memory of what an operator is read from."""
        found: dict[str, None] = {}
        for name in operator.data:
            maker = self._moving(name)
            found.update(dict.fromkeys((name,) if maker is None else self.sources(maker)))
        return tuple(found)

    def moved(self, operator: Operator) -> tuple[Operator, ...]:
        """The operators through which one is read, and it."""
        makers = [maker for name in operator.data if (maker := self._moving(name)) is not None]
        return (*(each for maker in makers for each in self.moved(maker)), operator)

    def put(self, operator: Operator) -> Operator | None:
        """The operator that a kernel of ``operator`` puts the result of in place, before it is read; ``None`` where all
        is in place."""
        for name in operator.inputs:
            maker = self._moving(name)
            if maker is not None:
                self._placed.add(name)
                return maker
        return None

    def own(self, operators: Sequence[Operator]) -> Sequence[Operator]:
        """Of operators that a kernel moves data through, those that count to it: where the result of one is read by
        others, too, and is moved on, only what is behind it, since all of these do it anew; and no views of a part,
        which are its reader's."""
        inside = {each.name for each in operators}
        shared = [
            place
            for place, each in enumerate(operators, 1)
            if any(self._readers.get(name, inside) - inside for name in each.outputs)
        ]
        last = max((i for i, each in enumerate(operators) if each.kind not in _VIEWS), default=0)
        begin = max((end for end in shared if end <= last), default=0)
        return operators[begin : max((end for end in shared if end > last), default=len(operators))]

    def nodes(self, operators: Sequence[Operator]) -> tuple[str, ...]:
        """What the nodes that operators were converted from, or their results, are called. A product that became a
        convolution bears its name and a suffix, and what gives its result the right shape bears the name: its output is
        that of an activation which joined the convolution, or runs by itself."""
        names: dict[str, None] = {}
        for each in operators:
            product = self._operators.get(each.name.removesuffix(_PRODUCT), each)
            shaped = (name for name in product.outputs if name not in self._running)
            names.update(dict.fromkeys((product.name, *shaped, *each.outputs)))
        return tuple(names)

    def _moving(self, name: str) -> Operator | None:
        """The operator without a kernel that makes a tensor; ``None`` of what is in memory."""
        maker = self._makers.get(name)
        if maker is None or maker.name in self._running or not maker.inputs or name in self._placed:
            return None
        return maker


def executed(told: Sequence[Told], operators: Mapping[str, Operator]) -> list[ExecutedKernel]:
    """Kernels with what they read and write and the nodes that they cover, as far as their operators tell.

    Of those that one operator becomes, each reads what the one before wrote, the first what the operator reads, and the
    last writes what it writes.
    """
    net = _Net(operators, told)
    found = []
    for operator, group in groupby(told, net.owner):
        *before, last = group
        chain = net.moved(operator) if all(kernel.kind == _MOVER for kernel in (*before, last)) else (operator,)
        changes_layout = all(each.kind in _VIEWS for each in chain)
        nodes = () if changes_layout else net.nodes(chain)
        own = []
        for kernel in before:
            put = net.put(operator) if kernel.kind == _MOVER else None
            if put is None:
                own.append(kernel)
                continue
            sources, through = net.sources(put), net.own(net.moved(put))
            moved = nodes if all(each.kind in _VIEWS for each in through) else net.nodes(through)
            found.append(_kernel(kernel, kernel.kind, sources, put.outputs, moved))
        between = [(f"{operator.name}#{i}",) for i in range(len(own))]
        reads = [net.sources(operator), *between]
        for kernel, read, written in zip((*own, last), reads, [*between, operator.outputs], strict=True):
            kind = "ConvertTensor" if changes_layout else kernel.kind
            found.append(_kernel(kernel, kind, read, written, nodes))
    return found


def _kernel(
    told: Told, kind: str, read: Sequence[str], written: Sequence[str], nodes: tuple[str, ...]
) -> ExecutedKernel:
    """A kernel may read a part of what its operator reads: operands and names without a counterpart stand alone."""
    inputs, outputs = list(zip_longest(told.inputs, read)), list(zip_longest(told.outputs, written))
    return ExecutedKernel(
        name=told.name,
        op_type=kind,
        domain="mnn",
        inputs=tuple(operand for operand, _ in inputs),
        outputs=tuple(operand for operand, _ in outputs),
        input_names=tuple(name or "" for _, name in inputs),
        output_names=tuple(name or "" for _, name in outputs),
        nodes=nodes,
    )
