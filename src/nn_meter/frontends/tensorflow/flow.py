"""From a stored TensorFlow graph to one flat list of operators in the order of their data."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from nn_meter.errors import GraphError, ModelFormatError, UnsupportedOperatorError
from nn_meter.frontends.tensorflow.wire import AttrValue, FunctionDef, FunctionName, GraphDef, NodeDef
from nn_meter.limits import LETTERS, written_out

CALLS: Final = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
"""Operators that call a function of the library, named by their attribute ``f``."""

CONTROL_FLOW: Final = frozenset(
    {
        "Switch", "RefSwitch", "Merge", "RefMerge", "Enter", "RefEnter", "Exit", "RefExit",
        "NextIteration", "RefNextIteration", "LoopCond", "If", "StatelessIf", "While", "StatelessWhile",
        "Case", "StatelessCase", "For", "TensorArrayV3", "TensorListReserve", "TensorListFromTensor",
    }
)  # fmt: skip
"""Operators whose work depends on values that only a run knows."""

NO_RESULT: Final = frozenset(
    {
        "NoOp", "Assert", "Const", "Placeholder", "PlaceholderWithDefault", "VarHandleOp", "VariableV2",
        "Assign", "AssignVariableOp", "SaveV2", "RestoreV2", "MergeV2Checkpoints", "ShardedFilename",
        "ScalarSummary", "HistogramSummary", "MergeSummary",
    }
)  # fmt: skip
"""Operators that are no result of a model though nothing reads them."""

_OUTPUT_NAMES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "FusedBatchNorm": ("y", "batch_mean", "batch_variance"),
        "FusedBatchNormV2": ("y", "batch_mean", "batch_variance"),
        "FusedBatchNormV3": ("y", "batch_mean", "batch_variance"),
        "TopKV2": ("values", "indices"),
    }
)
"""Operators with several named outputs: their names in order. Others have one, or one list."""

_DEEPEST_CALL: Final = 100


@dataclass(frozen=True, slots=True)
class Op:
    """One operator: ``kind`` is TensorFlow's name for it, ``origin`` the source's own where that differs.

    Its outputs are values called ``"name:0"``, ``"name:1"`` ...; ``inputs`` names such values, ``""`` an
    optional one left out.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    attrs: Mapping[str, AttrValue] = field(default_factory=dict)
    origin: str = ""

    def output(self, index: int = 0) -> str:
        """The value at an output."""
        return f"{self.name}:{index}"


@dataclass(frozen=True, slots=True)
class Flow:
    """Operators in the order of their data, and the values that leave."""

    ops: tuple[Op, ...]
    outputs: tuple[str, ...]


def value_key(reference: str) -> str:
    """``"node"`` or ``"node:1"`` as the name of a value, ``"node:0"`` or ``"node:1"``."""
    node, _, index = reference.rpartition(":")
    return reference if node and index.isdecimal() else f"{reference}:0"


def flatten(graph: GraphDef, outputs: Sequence[str] | None, source: str) -> Flow:
    """Inline every call, keep what ``outputs`` need, sort.

    Without ``outputs``, what nothing reads is the result.

    Raises:
        ModelFormatError: a reference to a node or function that is not there, a function that calls itself.
        UnsupportedOperatorError: control flow; names the node.
        GraphError: a cycle.
    """
    inliner = _Inliner(graph, source)
    inliner.add(graph.nodes)
    ops = inliner.resolved()
    producer = {op.name: op for op in ops}
    if outputs is None:
        read = {key.rpartition(":")[0] for op in ops for key in op.inputs}
        called = inliner.called
        results = [
            op.output() for op in ops if op.name not in read and op.kind not in NO_RESULT and op.name not in called
        ]
        results += [inliner.target(f"{name}:0") for name in called if name not in inliner.read_calls]
    else:
        results = [inliner.target(value_key(reference)) for reference in outputs]
    needed = _ancestors(results, producer, source)
    return Flow(_sorted([op for op in ops if op.name in needed], source), tuple(dict.fromkeys(results)))


class _Inliner:
    def __init__(self, graph: GraphDef, source: str) -> None:
        self._functions = graph.functions
        self._most, *_ = written_out(graph.size)
        self._placed = 0  # calls too: functions may be empty
        self._letters = 0
        self._source = source
        self._ops: list[Op] = []
        self._alias: dict[str, str] = {}
        self.called: dict[str, None] = {}
        self.read_calls: set[str] = set()

    def add(self, nodes: Iterable[NodeDef]) -> None:
        for node in nodes:
            self._place(node, node.name, tuple(value_key(i) for i in node.inputs if not i.startswith("^")), ())

    def _place(self, node: NodeDef, name: str, inputs: tuple[str, ...], stack: tuple[str, ...]) -> None:
        self._placed += 1
        self._most.check(self._placed, self._source, ModelFormatError)
        function = self._function(node)
        if function is None:
            self._ops.append(Op(name, node.op, inputs, node.attrs))
            return
        if function.name in stack or len(stack) >= _DEEPEST_CALL:
            raise ModelFormatError(f"{self._source}: function {function.name!r} calls itself; the file is damaged")
        self.called[name] = None
        scope = f"{name}/"
        self._letters += sum(len(scope) + len(each) for inner in function.nodes for each in (inner.name, *inner.inputs))
        LETTERS.check(self._letters, self._source, ModelFormatError)
        local = dict(zip(function.arguments, inputs, strict=False))
        kinds = {inner.name: inner.op for inner in function.nodes}

        def resolve(reference: str) -> str:
            if reference in local:
                return local[reference]
            inner, _, rest = reference.partition(":")
            output, _, index = rest.partition(":")
            names = _OUTPUT_NAMES.get(kinds.get(inner, ""), ())
            offset = names.index(output) if output in names else int(index) if index.isdecimal() else 0
            return f"{scope}{inner}:{offset}"

        for inner in function.nodes:
            references = tuple(resolve(i) for i in inner.inputs if not i.startswith("^"))
            self._place(inner, scope + inner.name, references, (*stack, function.name))
        for index, output in enumerate(function.outputs):
            if output not in function.returned:
                raise ModelFormatError(f"{self._source}: function {function.name!r} does not return {output!r}")
            self._alias[f"{name}:{index}"] = resolve(function.returned[output])

    def _function(self, node: NodeDef) -> FunctionDef | None:
        if node.op not in CALLS:
            return self._functions.get(node.op)
        target = node.attrs.get("f")
        wanted = target.name if isinstance(target, FunctionName) else ""
        if wanted not in self._functions:
            raise ModelFormatError(f"{self._source}: node {node.name!r} calls {wanted!r}, which the file does not hold")
        return self._functions[wanted]

    def target(self, key: str) -> str:
        """The value that ``key`` stands for once calls are inlined."""
        seen = 0
        while key in self._alias:
            key = self._alias[key]
            seen += 1
            if seen > len(self._alias):
                raise GraphError(f"{self._source}: the graph has a cycle through {key!r}")
        return key

    def resolved(self) -> list[Op]:
        for op in self._ops:
            self.read_calls.update(key.rpartition(":")[0] for key in op.inputs)
        for key in self._alias.values():
            self.read_calls.add(key.rpartition(":")[0])
        return [Op(op.name, op.kind, tuple(self.target(key) for key in op.inputs), op.attrs) for op in self._ops]


def _ancestors(results: Sequence[str], producer: Mapping[str, Op], source: str) -> set[str]:
    needed: set[str] = set()
    waiting = [(key.rpartition(":")[0], "the outputs") for key in results]
    while waiting:
        name, reader = waiting.pop()
        if name in needed:
            continue
        op = producer.get(name)
        if op is None:
            raise ModelFormatError(f"{source}: {reader} read {name!r}, which is not in the graph; the file is damaged")
        if op.kind in CONTROL_FLOW:
            raise UnsupportedOperatorError(
                f"{source}: node {name!r} is control flow ({op.kind}), and how long that takes depends on "
                "values; export the model for inference, with fixed conditions and unrolled loops"
            )
        needed.add(name)
        waiting += [(key.rpartition(":")[0], f"node {name!r}") for key in op.inputs if key]
    return needed


def _sorted(ops: Sequence[Op], source: str) -> tuple[Op, ...]:
    """Stable topological order: the earliest in the file among those that are ready."""
    position = {op.name: i for i, op in enumerate(ops)}
    if len(position) < len(ops):
        double = next(op.name for i, op in enumerate(ops) if position[op.name] != i)
        raise ModelFormatError(f"{source}: two nodes are named {double!r}")
    waiting = [0] * len(ops)
    readers: list[list[int]] = [[] for _ in ops]
    for i, op in enumerate(ops):
        for name in {key.rpartition(":")[0] for key in op.inputs if key}:
            readers[position[name]].append(i)
            waiting[i] += 1
    ready = [i for i, count in enumerate(waiting) if count == 0]
    ordered = []
    while ready:
        i = heapq.heappop(ready)
        ordered.append(ops[i])
        for reader in readers[i]:
            waiting[reader] -= 1
            if waiting[reader] == 0:
                heapq.heappush(ready, reader)
    if len(ordered) < len(ops):
        stuck = next(op.name for op, count in zip(ops, waiting, strict=True) if count)
        raise GraphError(f"{source}: the graph has a cycle through or before node {stuck!r}")
    return tuple(ordered)
