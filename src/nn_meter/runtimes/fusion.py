"""``fuse``: a graph and the rules of a runtime give the kernels that the runtime executes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from nn_meter.ir import Graph
from nn_meter.kernels.kinds import read_kernel
from nn_meter.kernels.partition import FreeConfig, Kernel, Partition, Unfused
from nn_meter.kernels.rewriting import Op, Work
from nn_meter.kernels.rules import RuleSet
from nn_meter.runtimes import onnxruntime, pairs

RUNTIMES: Mapping[str, Callable[[Work, RuleSet], Work]] = MappingProxyType(
    {
        "": lambda work, rules: work,
        "onnxruntime_cpu": onnxruntime.optimise,
        "openvino_cpu": pairs.optimise,
    }
)
"""Name in a rule file to what the runtime does to a graph. ``""`` executes node by node; a runtime without a row does
what its rules say, and nothing else."""


def fuse(graph: Graph, rules: RuleSet) -> Partition:
    """Kernels in execution order. Kernels without nodes are what the runtime inserts: changes of layout."""
    work = RUNTIMES.get(rules.runtime, pairs.optimise)(Work(graph), rules)
    kernels: list[Kernel] = []
    for op in work.ops():
        kind, config = read_kernel(work.executed(op))
        kernels.append(Kernel(kind, config, op.members, _label(op)))
    unfused = _unfused(work, rules)
    kernels += [
        Kernel("free", FreeConfig(op_type), (node,), op_type, reason) for node, op_type, reason in work.free
    ]
    return Partition(graph.name, tuple(kernels), unfused, graph.notes)


def _label(op: Op) -> str:
    """For people: the operator with what was fused into it and the layout that is not plain."""
    text = "-".join((op.op_type, *op.fused))
    return f"{text} ({op.layout})" if op.layout not in ("", pairs.LAYOUT) else text


def _unfused(work: Work, rules: RuleSet) -> tuple[Unfused, ...]:
    """Each edge between two kernels with the reason why it is one."""
    found: list[Unfused] = []
    for op in work.ops():
        for name in op.outputs:
            readers = work.readers(name) if name else ()
            for reader in readers:
                if not op.members or not reader.members:
                    reason = "a change of layout stands between them"
                elif len(readers) > 1:
                    reason = f"{len(readers)} kernels read the result"
                elif name in work.outputs:
                    reason = "the result is an output of the model"
                elif (
                    pair := (work.rule_name(op), work.rule_name(reader))
                ) in rules.pairs and not rules.fuses(*pair):
                    reason = rules.why_not(*pair)
                else:
                    reason = f"the runtime does not fuse {reader.op_type} into {op.op_type}"
                producer, consumer = (o.members[-1] if o.members else _label(o) for o in (op, reader))
                found.append(Unfused(producer, consumer, reason))
    return tuple(found)
