"""``fuse``: a graph and the rules of a runtime give the kernels that the runtime executes."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

from nn_meter.ir import Graph
from nn_meter.kernels.kinds import read_kernel
from nn_meter.kernels.partition import FreeConfig, Kernel, KernelConfig, Partition, Unfused
from nn_meter.kernels.rewriting import Op, Work
from nn_meter.kernels.rules import RuleSet
from nn_meter.kernels.schema import item_bytes
from nn_meter.runtimes import find
from nn_meter.runtimes.base import Runtime
from nn_meter.runtimes.cores import LAYOUT

_FIX = "python -m onnxruntime.tools.make_dynamic_shape_fixed"
_FIX_NAME = f"; {_FIX} --dim_param NAME --dim_value SIZE FILE FIXED fixes one"
_FIX_INPUT = f"; {_FIX} --input_name NAME --input_shape SIZES FILE FIXED fixes those of an input"


def fuse(
    graph: Graph,
    rules: RuleSet,
    runtime: Runtime | None = None,
    version: str = "",
    known: Container[str] | None = None,
) -> Partition:
    """Kernels in execution order. Kernels without nodes are what the runtime inserts: changes of layout.

    Args:
        runtime: By default the one that ``rules`` name.
        version: Of the runtime; an empty one stands for the newest that is known.
        known: Kinds that whoever asks can tell apart, as ``read_kernel`` takes them.

    Raises:
        RuleError: the rules name a runtime that does not exist.
    """
    runtime = runtime or find(rules.runtime)
    work = runtime.optimise(Work(graph), rules, version)
    kernels: list[Kernel] = []
    configs: dict[KernelConfig, KernelConfig] = {}  # layers come again and again: equal ones are one
    for op in work.ops():
        kind, config = read_kernel(work.executed(op), known)
        config = configs.setdefault(config, config)
        kernels.append(Kernel(kind, config, op.members, _label(op), _why_free(runtime, kind)))
    unfused = _unfused(work, rules)
    kernels += [
        Kernel("free", FreeConfig(op_type), (node,), op_type, reason) for node, op_type, reason in work.free
    ]
    return Partition(graph.name, tuple(kernels), unfused, (*graph.notes, *_of_free(graph, runtime)))


def _of_free(graph: Graph, runtime: Runtime) -> Iterator[str]:
    """What the runtime does about sizes that the file leaves free, where shapes follow from them."""
    names = graph.free
    if names and any(node.op_type == "Shape" for node in graph.nodes):
        yield f"the file leaves dimensions free ({', '.join(name or 'unnamed' for name in names)}): {runtime.free}" + (
            _FIX_INPUT if "" in names else _FIX_NAME
        )


def charged(
    graph: Graph, rules: RuleSet, runtime: Runtime, version: str = "", known: Container[str] | None = None
) -> Iterator[tuple[str, KernelConfig]]:
    """Of the kernels of ``fuse`` kind and config alone, of those that cost something: each when it is asked for, so
    that equal configs need not all be held."""
    work = runtime.optimise(Work(graph), rules, version)
    for op in work.ops():
        kind, config = read_kernel(work.executed(op), known)
        if not _why_free(runtime, kind):
            yield kind, config


def _why_free(runtime: Runtime, kind: str) -> str:
    return runtime.views if kind == "reshape" else ""


def _label(op: Op) -> str:
    """For people: the operator with what was fused into it and the layout that is not plain."""
    text = "-".join((op.op_type, *op.fused))
    return f"{text} ({op.layout})" if op.layout not in ("", LAYOUT) else text


def _end(op: Op) -> str:
    return op.members[-1] if op.members else _label(op)


def _unfused(work: Work, rules: RuleSet) -> tuple[Unfused, ...]:
    """Each edge between two kernels with the reason why it is one."""
    place = {id(op): number for number, op in enumerate(work.ops())}
    refused: dict[str, list[int]] = {}
    for number, refusal in enumerate(work.refusals):
        for node in refusal.nodes:
            refused.setdefault(node, []).append(number)
    told = {
        op: {number for node in op.members for number in refused.get(node, ())} for op in work.ops() if refused
    }
    return tuple(
        Unfused(
            _end(op),
            _end(reader),
            _reason(work, rules, op, reader, name, told),
            (place[id(op)], place[id(reader)]),
            _moved_bytes(work, name),
        )
        for op in work.ops()
        for name in op.outputs
        for reader in (work.readers(name) if name else ())
    )


def _moved_bytes(work: Work, name: str) -> float:
    tensor = work.tensors[name]
    needed = name in work.outputs or len(work.readers(name)) > 1
    return tensor.size * item_bytes(tensor.dtype) * (1 if needed else 2)


def _reason(
    work: Work, rules: RuleSet, op: Op, reader: Op, name: str, told: Mapping[Op, set[int]]
) -> str:
    """Why ``reader`` is not in the kernel of ``op``, whose result ``name`` it reads; ``told`` are the refusals of an
    operator, by their places."""
    if not op.members or not reader.members:
        return "a change of layout stands between them"
    if (readers := len(work.readers(name))) > 1:
        return f"{readers} kernels read the result"
    if name in work.outputs:
        return "the result is an output of the model"
    if told and (numbers := told[op] & told[reader]):
        return work.refusals[min(numbers)].reason
    pair = work.rule_name(op), work.rule_name(reader)
    if pair in rules.pairs and not rules.fuses(*pair):
        return rules.why_not(*pair)
    return f"the runtime does not fuse {reader.op_type} into {op.op_type}"
