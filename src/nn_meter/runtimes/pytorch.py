"""PyTorch: its operators one after another, those that models spell as several taken together.

What its compiler fuses of elementwise operators is left to what is learned: in compiled models they cost little.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from nn_meter.ir import Attr, Graph
from nn_meter.kernels.rewriting import Op, Work
from nn_meter.kernels.rules import read_rules
from nn_meter.runtimes.base import Runtime
from nn_meter.runtimes.pairs import CALLED, PASSES

RUNTIME = Runtime(
    "pytorch", PASSES, precisions=("float32", "float16"), views="a view: PyTorch moves no data and runs no kernel"
)
"""Of published tables, whose models were measured whole."""

RULES: Mapping[str, Any] = MappingProxyType(
    {
        "runtime": "pytorch",
        **{f"BF_{name}_squeeze": {"obey": True} for name in ("hswish", "Gelu", "LayerNormalization")},
    }
)
"""Rules that never apply, but let each name count as the one operator that it is."""

EAGER = Runtime("pytorch_eager", CALLED)
"""Without its compiler: a call for each operator that the model was exported from."""


@dataclass(frozen=True, slots=True)
class Called:
    """A call: an operator's type, tensors by name and attributes, and the nodes that it stands for. What is ``known``
    before inference is not called then."""

    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Attr]
    members: tuple[str, ...]
    known: bool


def calls(graph: Graph) -> list[Called]:
    """What ``EAGER`` calls for ``graph``, in execution order; what is known before inference comes first."""
    work = EAGER.optimise(Work(graph), read_rules({}))
    known = sorted(dict.fromkeys(work.folded.values()), key=lambda op: op.place)
    return [*(_called(op, graph, True) for op in known), *(_called(op, graph, False) for op in work.ops())]


def _called(op: Op, graph: Graph, known: bool) -> Called:
    inputs = tuple(op.inputs)
    if op.op_type == "MatMul" and len(op.members) > 1:  # the bias is the constant that the last node adds
        added = graph.node_by_name[op.members[-1]]
        inputs += tuple(name for name in added.inputs if graph.tensors[name].const)
    return Called(op.op_type, inputs, tuple(op.outputs), op.attrs, op.members, known)
