"""Partition under nn-Meter's semantics, decision by decision as nn-Meter 2.0 takes them.

It works on nn-Meter's dictionary (``frontends.nnmeter_ir``), in four steps: operators get their rule names;
blocks become one operator; operators are ordered; and each operator in that order draws in its consumers as
long as a rule admits *the operator that started the kernel* with the next one.

Where two choices are open, nn-Meter's answer depends on the order of its dictionary and of its sets, so those
orders are kept: nodes in dictionary order, topological generations as networkx gives them, consumers in the
iteration order of a set of positions.

Rules that name no runtime mean this one. A graph of ours it executes node by node: nn-Meter fuses its dictionary alone.

Search loops ask for thousands of variants of few structures: the partition depends on names, operators and
edges alone, so it is planned once per structure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nn_meter.errors import GraphError
from nn_meter.kernels.blocks import ANY, occurrences
from nn_meter.kernels.operators import NOT_COMPUTED, RULE_NAMES
from nn_meter.kernels.partition import Unfused
from nn_meter.kernels.rules import RuleSet
from nn_meter.runtimes.base import Runtime

RUNTIME = Runtime("nn-meter", (), known_as=("",))

Ir = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class PlannedKernel:
    """One kernel of a structure: its operators by rule name, the node that gives its shape, all its nodes."""

    ops: tuple[str, ...]
    head: str
    nodes: tuple[str, ...]

    @property
    def label(self) -> str:
        """nn-Meter's name of the kernel, ``conv-bn-relu``."""
        return "-".join(self.ops)


@dataclass(frozen=True, slots=True)
class Plan:
    """The partition of a structure; ``free`` are the nodes that cost nothing."""

    kernels: tuple[PlannedKernel, ...]
    free: tuple[str, ...]
    unfused: tuple[Unfused, ...]


class Partitioner:
    """Plans structures under one set of rules and remembers the plans."""

    _REMEMBERED = 256

    def __init__(self, rules: RuleSet) -> None:
        self.rules = rules
        self._plans: dict[tuple[object, ...], Plan] = {}

    def plan(self, ir: Ir) -> Plan:
        """The partition of ``ir``.

        Raises:
            GraphError: a node without operator or shapes, or a cycle; names the node.
        """
        try:
            types = [rule_name(node["attr"]) for node in ir.values()]
            edges = [tuple(node["inbounds"]) for node in ir.values()]
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise GraphError(f"nn-Meter IR: {_culprit(ir)}") from error
        key = (tuple(ir), tuple(types), tuple(edges))
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= self._REMEMBERED:
                self._plans.pop(next(iter(self._plans)))
            plan = self._plans[key] = _partition(tuple(ir), types, edges, self.rules)
        return plan


def rule_name(attr: Mapping[str, Any]) -> str:
    """The operator's name in rules; ``attr`` is the ``"attr"`` entry of nn-Meter's dictionary."""
    kind: str = attr["type"]
    name = RULE_NAMES.get(kind, kind)
    if name == "conv":
        group = attr["attr"].get("group")
        # a convolution over one channel in one group counts as depthwise too: that is how nn-Meter decides
        if group is not None and attr["input_shape"][0][-1] == group and len(attr["input_shape"][0]) == 4:
            return "dwconv"
    return name


def _culprit(ir: Ir) -> str:
    """Which node of ``ir`` breaks the format, in words."""
    for name, node in ir.items():
        if (
            not isinstance(node, Mapping)
            or not isinstance(node.get("attr"), Mapping)
            or "inbounds" not in node
        ):
            return f"node {name!r} needs the entries 'attr' and 'inbounds'"
        if not isinstance(node["inbounds"], list | tuple):
            return f"node {name!r}: 'inbounds' must be a list of node names"
        attr = node["attr"]
        if not isinstance(attr.get("type"), str) or not isinstance(attr.get("attr"), Mapping):
            return f"node {name!r} has no operator: 'attr' needs 'type', 'attr', 'input_shape' and 'output_shape'"
        if not attr.get("input_shape") and RULE_NAMES.get(attr["type"]) == "conv":
            return f"node {name!r} ({attr['type']}) has no input shape"
    return "a node breaks the format"


class _Operators:
    """Operators as a mutable graph while blocks are replaced: positions in dictionary order, new ones behind."""

    def __init__(self, names: Sequence[str], types: Sequence[str], edges: Sequence[Sequence[str]]) -> None:
        index = {name: i for i, name in enumerate(names)}
        self.types = list(types)
        self.heads = list(range(len(names)))
        self.members: list[tuple[int, ...]] = [(i,) for i in range(len(names))]
        self.alive = dict.fromkeys(range(len(names)))
        # nn-Meter leaves out what is read but not there: weights behind reads that its readers removed
        self.reads = [[index[p] for p in parents if p in index] for parents in edges]
        self.readers: list[list[int]] = [[] for _ in names]
        for i, parents in enumerate(self.reads):
            for parent in parents:
                self.readers[parent].append(i)

    def in_order(self) -> list[int]:
        """Operators in the order in which networkx meets them: each, then what it reads."""
        seen: dict[int, None] = {}
        for i in self.alive:
            seen[i] = None
            for parent in self.reads[i]:
                seen[parent] = None
        return list(seen)

    def replace(self, block: Sequence[int], name: str) -> None:
        """Make one operator of ``block``; its shape is that of the operator at its root."""
        inside = set(block)
        root = block[0]
        while (parent := next((p for p in self.reads[root] if p in inside), None)) is not None:
            root = parent
        new = len(self.types)
        self.types.append(name)
        self.heads.append(self.heads[root])
        self.members.append(tuple(m for op in block for m in self.members[op]))
        reads: list[int] = []
        readers: list[int] = []
        for op in block:
            for parent in self.reads[op]:
                if parent not in inside:
                    if parent not in reads:
                        reads.append(parent)
                    self.readers[parent].remove(op)
                    if new not in self.readers[parent]:
                        self.readers[parent].append(new)
            for reader in self.readers[op]:
                if reader not in inside:
                    if reader not in readers:
                        readers.append(reader)
                    self.reads[reader].remove(op)
                    if new not in self.reads[reader]:
                        self.reads[reader].append(new)
        self.reads.append(reads)
        self.readers.append(readers)
        for op in block:
            del self.alive[op]
        self.alive[new] = None

    def topological(self) -> list[int]:
        """Generation by generation, each in the order in which its operators became ready."""
        order = self.in_order()
        children: dict[int, dict[int, int]] = {i: {} for i in order}
        for i in self.alive:
            for parent in self.reads[i]:
                children[parent][i] = children[parent].get(i, 0) + 1
        waiting = {i: len(self.reads[i]) for i in order}
        generation = [i for i in order if not waiting[i]]
        result: list[int] = []
        while generation:
            result += generation
            following: list[int] = []
            for i in generation:
                for child, uses in children[i].items():
                    waiting[child] -= uses
                    if waiting[child] == 0:
                        following.append(child)
            generation = following
        return result


def _partition(
    names: Sequence[str], types: Sequence[str], edges: Sequence[Sequence[str]], rules: RuleSet
) -> Plan:
    ops = _Operators(names, types, edges)
    for block, patterns in rules.blocks:
        for wanted in patterns:
            found = list(occurrences(wanted, ops.in_order(), ops.types, ops.reads, ops.readers))
            for places in found:
                inside = [op for op, kind in zip(places, wanted.types, strict=True) if kind != ANY]
                if all(op in ops.alive for op in inside):
                    ops.replace(inside, block)
    order = ops.topological()
    if len(order) < len(ops.alive):
        stuck = next(i for i in ops.alive if i not in set(order))
        raise GraphError(
            f"nn-Meter IR: the graph has a cycle through or before node {names[ops.heads[stuck]]!r}"
        )

    position = {op: i for i, op in enumerate(order)}
    kinds = [ops.types[op] for op in order]
    consumers = [{position[r] for r in ops.readers[op]} for op in order]
    root = list(range(len(order)))
    groups: list[list[int]] = [[i] for i in range(len(order))]
    for i in range(len(order)):
        if root[i] != i:
            continue
        while True:
            if not rules.shares and len(consumers[i]) > 1:
                break
            drawn = next(
                (j for j in consumers[i] if root[j] == j and j != i and rules.fuses(kinds[i], kinds[j])), None
            )
            if drawn is None:
                break
            root[drawn] = i
            groups[i].append(drawn)
            if rules.shares:
                consumers[i].update(consumers[drawn])
            else:
                consumers[i] = consumers[drawn]

    kernels: list[PlannedKernel] = []
    free: list[str] = []
    number: dict[int, int] = {}
    for i, group in enumerate(groups):
        if root[i] != i:
            continue
        members = [order[j] for j in sorted(group)]
        nodes = tuple(names[m] for op in members for m in ops.members[op])
        labels = tuple(ops.types[op] for op in members if ops.types[op] not in NOT_COMPUTED)
        if labels:
            number[i] = len(kernels)
            kernels.append(PlannedKernel(labels, names[ops.heads[members[0]]], nodes))
        else:
            free += nodes
    return Plan(tuple(kernels), tuple(free), _unfused(names, ops, order, kinds, root, number, rules))


def _unfused(
    names: Sequence[str],
    ops: _Operators,
    order: Sequence[int],
    kinds: Sequence[str],
    root: Sequence[int],
    number: Mapping[int, int],
    rules: RuleSet,
) -> tuple[Unfused, ...]:
    """Each edge between two kernels with the reason why it is one."""
    position = {op: i for i, op in enumerate(order)}
    result: list[Unfused] = []
    for i, op in enumerate(order):
        start = root[i]
        readers = list(dict.fromkeys(position[r] for r in ops.readers[op]))
        for j in readers:
            if root[j] == start or kinds[i] in NOT_COMPUTED or kinds[j] in NOT_COMPUTED:
                continue
            if not rules.fuses(kinds[start], kinds[j]):
                reason = rules.why_not(kinds[start], kinds[j])
            elif root[j] != j:
                reason = f"already fused into the kernel of {names[ops.heads[order[root[j]]]]!r}"
            elif not rules.shares and len(readers) > 1:
                reason = f"{len(readers)} consumers read it, and rule MON does not fuse such a producer"
            else:
                reason = "another consumer was fused first (rule MON)"
            pair = names[ops.heads[op]], names[ops.heads[order[j]]]
            result.append(Unfused(*pair, reason, (number[start], number[root[j]])))
    return tuple(result)
