"""PyTorch: its operators one after another, those that models spell as several taken together.

What its compiler fuses of elementwise operators is left to what is learned: in compiled models they cost little.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from nn_meter.ir import Attr, Graph
from nn_meter.kernels.patterns import Match, Pattern
from nn_meter.kernels.rewriting import Op, Work
from nn_meter.kernels.rules import read_rules
from nn_meter.runtimes.base import Options, Pass, Runtime, rewriting
from nn_meter.runtimes.laying import VIEW, lie
from nn_meter.runtimes.pairs import CALLED, PASSES


def _heads_apart(work: Work, match: Match) -> str:
    """Whether queries, keys and values have an axis of heads, and the keys are turned for the product alone."""
    apart = all(len(work.shape(match[name])) == 4 for name in ("q", "k", "v"))
    turned = match.ops["t"].attrs.get("perm") == (0, 1, 3, 2)
    return "" if apart and turned else "the attention has no axis of heads, or its keys lie otherwise"


_SCORES = """
    const s: [1]
    const z: [1]
    t = Transpose(k)
    d = MatMul(Mul(q, s), Mul(t, z))
"""

SDPA = (
    Pattern("Attention", ("q", "k", "v"), _SCORES + "y = MatMul(Softmax(d), v)", check=_heads_apart),
    Pattern("Attention", ("q", "k", "v", "b"), _SCORES + "y = MatMul(Softmax(Add(d, b)), v)", check=_heads_apart),
)
"""``scaled_dot_product_attention`` as PyTorch exports it: queries and keys scaled by a root each. Attention that a
model multiplies itself scales once."""


def attend(work: Work, options: Options) -> None:
    """Make one operator of attention that is called as one, where a rule names it."""
    if any("Attention" in pair for pair, obeyed in options.rules.pairs.items() if obeyed):
        for pattern in SDPA:
            pattern.rewrite(work)


RUNTIME = Runtime(
    "pytorch",
    (PASSES[0], Pass("attend", attend), *PASSES[1:]),
    precisions=("float32", "float16"),
    views=VIEW,
)
"""Of published tables, whose models were measured whole."""

RULES: Mapping[str, Any] = MappingProxyType(
    {
        "runtime": "pytorch",
        **{f"BF_{name}_squeeze": {"obey": True} for name in ("hswish", "Gelu", "LayerNormalization")},
    }
)
"""Rules that never apply, but let each name count as the one operator that it is. NeuSight's models multiply
themselves."""

ATTENDING: Mapping[str, Any] = MappingProxyType({**RULES, "BF_Attention_squeeze": {"obey": True}})
"""Of timm's models on cards, where ``scaled_dot_product_attention`` is one kernel. On processors products and a softmax
told more of families left out."""

GROUP_NORM = Pattern(
    "GroupNormalization",
    ("x", "w", "b"),
    """
    const w
    const b
    g = Reshape(x, ...)
    i = InstanceNormalization(g, ...)
    r = Reshape(i, ...)
    y = Add(Mul(r, w), b)
    """,
)
"""``group_norm`` as PyTorch exports it."""


def normalise(work: Work, options: Options) -> None:
    """Make one operator of a normalisation over groups of channels."""
    groups = {op.members[0]: work.shape(op.inputs[0])[1] for op in work.ops("InstanceNormalization")}
    GROUP_NORM.rewrite(work)
    for op in work.ops("GroupNormalization"):
        of = [groups[name] for name in op.members if name in groups]
        op.attrs = {**op.attrs, "num_groups": of[0]} if of else op.attrs


AUTOCAST = Runtime(
    "pytorch_autocast",
    (CALLED[0], Pass("attend", rewriting(*SDPA)), CALLED[1], Pass("normalise", normalise), Pass("lie", lie), CALLED[2]),
    precisions=("float32", "float16"),
    settled=True,
    views=VIEW,
)
"""On a card, one operator after the other, under automatic mixed precision."""

AUTOCAST_RULES: Mapping[str, Any] = MappingProxyType({"runtime": AUTOCAST.name})

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
