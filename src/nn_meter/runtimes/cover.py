"""Which of a model's nodes each kernel that a runtime executed covers.

Runtimes name nodes that they kept. What they rewrote has a new name and covers what lies between the same named
kernels; what only moves data for a kernel, such as a change of layout, is counted to the kernel that reads it, or to
the Transpose that left it to be done behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from nn_meter.ir import Graph, Node
from nn_meter.kernels.kinds import KIND_OF, VIEWS
from nn_meter.runtimes.pairs import inseparable
from nn_meter.runtimes.trace import ExecutedKernel

K = TypeVar("K", int, str)

_END = -1
"""Stands for the model's inputs above and its outputs below."""

_MOVERS = frozenset((*VIEWS, "Transpose"))
"""Operators that compute nothing: what a runtime renamed stands for others."""

_MOVABLE = frozenset({"binary", "unary"})
"""Kinds of operators that a runtime may have moved up past views."""

_NOT_ELEMENTWISE = frozenset({"Concat", "Conv", "ConvTranspose", "Gather", "Gemm", "MatMul", "Slice", "Split"})
_ELEMENTWISE = "Subgraph"
"""What OpenVINO calls a kernel of operators on elements; one that has products names them."""


_LAYOUT, _CHANNELS_LAST = "Reorder", (0, 2, 3, 1)
"""What OpenVINO calls a kernel that changes a layout; the Transpose that it puts off where the channels lie last."""


@dataclass(frozen=True, slots=True)
class Group:
    """Positions of executed kernels that count as one, and the nodes that they cover, both in order."""

    positions: tuple[int, ...]
    nodes: tuple[str, ...]


def cover(kernels: Sequence[ExecutedKernel], graph: Graph) -> list[Group]:
    """Groups of kernels in execution order; empty if none of them names a node.

    A node that several kernels name belongs to the first of them. Nodes that no kernel names belong to the kernel that
    names another part of their operator, else to kernels without a name between the same named ones, else to the
    kernel of their readers, else to that of their producer.
    """
    steps = [node for node in graph.nodes if any(not graph.tensors[o].const for o in node.outputs if o)]
    aliases = {o: node.name for node in reversed(steps) for o in node.outputs if o}
    aliases.update({node.name: node.name for node in steps})
    owner: dict[str, int] = {}
    root: dict[int, int] = {}
    for i, kernel in enumerate(kernels):
        named = [aliases[name] for name in kernel.nodes if name in aliases]
        fresh = [name for name in named if name not in owner]
        owner.update(dict.fromkeys(fresh, i))
        if named:
            root[i] = i if fresh else root[owner[named[0]]]
    if not owner:
        return []
    for nodes in inseparable(graph):
        first = next((owner[name] for name in nodes if name in owner), None)
        if first is not None:
            owner.update({name: first for name in nodes if name not in owner})
    _name_the_nameless(kernels, graph, steps, owner, root)
    _follow(steps, graph, owner, root)
    members: dict[int, list[str]] = {}
    for node in steps:
        if node.name in owner:
            members.setdefault(root[owner[node.name]], []).append(node.name)
    positions: dict[int, list[int]] = {}
    for i in range(len(kernels)):
        positions.setdefault(root[i], []).append(i)
    return [Group(tuple(positions[r]), tuple(members[r])) for r in sorted(positions) if r in members]


def _name_the_nameless(
    kernels: Sequence[ExecutedKernel],
    graph: Graph,
    steps: Sequence[Node],
    owner: dict[str, int],
    root: dict[int, int],
) -> None:
    """Give kernels without a name the nodes between the same named kernels, or join them to their readers."""
    makers = {name: i for i, kernel in enumerate(kernels) for name in kernel.output_names if name}
    above = [[makers[n] for n in k.input_names if n in makers] for k in kernels]
    below: list[list[int]] = [[] for _ in kernels]
    for i, sources in enumerate(above):
        for source in sources:
            below[source].append(i)
    kernels_above = _nearest(range(len(kernels)), above.__getitem__, root)
    kernels_below = _nearest(reversed(range(len(kernels))), below.__getitem__, root)

    named = {name: root[i] for name, i in owner.items()}
    order = [node.name for node in steps]
    producers = {
        node.name: [graph.producer[i].name for i in node.inputs if i in graph.producer and not graph.tensors[i].const]
        for node in steps
    }
    readers = {node.name: [r.name for o in node.outputs for r in graph.consumers.get(o, ())] for node in steps}
    nodes_above = _nearest(order, producers.__getitem__, named)
    nodes_below = _nearest(reversed(order), readers.__getitem__, named)

    nameless = [i for i in range(len(kernels)) if i not in root and kernels[i].nodes]
    for name, op_type in ((node.name, node.op_type) for node in steps if node.op_type not in _MOVERS):
        if name in owner:
            continue
        fitting = [
            i
            for i in nameless
            if not (op_type in _NOT_ELEMENTWISE and kernels[i].op_type == _ELEMENTWISE)
            and nodes_above[name] & kernels_above[i]
            and nodes_below[name] & kernels_below[i]
        ]
        if fitting:
            owner[name] = fitting[0]
            root.update(dict.fromkeys(fitting, root.get(fitting[0], fitting[0])))
    _find_moved(kernels, graph, steps, above, below, owner, root)
    _put_off(kernels, graph, above, below, owner, root)
    for i in reversed(range(len(kernels))):
        if i not in root:
            root[i] = next((root[r] for r in below[i] if r in root), i)
    for i in range(len(kernels)):
        if root[i] == i and i not in owner.values():
            root[i] = next((root[s] for s in above[i]), i)


def _find_moved(
    kernels: Sequence[ExecutedKernel],
    graph: Graph,
    steps: Sequence[Node],
    above: Sequence[Sequence[int]],
    below: Sequence[Sequence[int]],
    owner: dict[str, int],
    root: dict[int, int],
) -> None:
    """Give what was done to elements behind views to the kernel that does it before them, under another name."""
    known = {name for node in steps for name in (node.name, *node.outputs)}
    renamed = [i for i, kernel in enumerate(kernels) if not known.issuperset(kernel.nodes)]
    for node in steps:
        if node.name in owner or KIND_OF.get(node.op_type) not in _MOVABLE:
            continue
        views, maker = _above_views(node, graph)
        if not views or maker not in owner:
            continue
        passed = {root[owner[name]] for name in views if name in owner}
        beside = [i for i in renamed if i not in root and owner[maker] in above[i]]
        within = [i for i in renamed if i == owner[maker]]
        reaching = (i for i in (*beside, *within) if passed <= _reached(i, below, root, len(views)))
        found = next(reaching, None)
        if found is not None:
            owner[node.name] = found
            root.setdefault(found, found)


def _put_off(
    kernels: Sequence[ExecutedKernel],
    graph: Graph,
    above: Sequence[Sequence[int]],
    below: Sequence[Sequence[int]],
    owner: Mapping[str, int],
    root: dict[int, int],
) -> None:
    """Count a change of layout to the Transpose of channels behind the places that says it moves nothing and leaves it
    to be done in front of its reader, or in the midst of it."""
    lazy = {owner[n.name] for n in graph.nodes if n.attrs.get("perm") == _CHANNELS_LAST and n.name in owner}
    for i, kernel in enumerate(kernels):
        if i in root or kernel.op_type != _LAYOUT:
            continue
        readers = {root[r] for r in below[i] if r in root}
        front, seen = list(above[i]), set[int]()
        while front:
            source = front.pop()
            if source in lazy and root.get(source) == source:
                root[i] = source
                break
            if source not in seen and root.get(source) in readers:
                front += above[source]
            seen.add(source)


def _above_views(node: Node, graph: Graph) -> tuple[list[str], str]:
    """The views and transposes that ``node`` stands behind, and the node that makes what they show."""
    views: list[str] = []
    while True:
        sources = [i for i in node.inputs if i in graph.producer and not graph.tensors[i].const]
        if len(sources) != 1:
            return views, ""
        node = graph.producer[sources[0]]
        if node.op_type not in _MOVERS:
            return views, node.name
        views.append(node.name)


def _reached(start: int, below: Sequence[Sequence[int]], root: Mapping[int, int], steps: int) -> set[int]:
    """What is reached downwards in so many steps."""
    found, front = set[int](), {start}
    for _ in range(steps):
        front = {b for a in front for b in below[a]}
        found |= {root.get(each, each) for each in front}
    return found


def _nearest(
    order: Iterable[K], neighbours: Callable[[K], Sequence[K]], named: Mapping[K, int]
) -> dict[K, frozenset[int]]:
    """The named ones that each reaches first; ``order`` lists neighbours before those that have them."""
    reached: dict[K, frozenset[int]] = {}
    for item in order:
        around = neighbours(item)
        reached[item] = (
            frozenset(
                r for other in around for r in ((named[other],) if other in named else reached.get(other, ()))
            )
            if around
            else frozenset((_END,))
        )
    return reached


def _follow(steps: Sequence[Node], graph: Graph, owner: dict[str, int], root: Mapping[int, int]) -> None:
    """Nodes that are left go with all their readers where those are in one kernel, else with their producer."""
    for node in reversed(steps):
        if node.name not in owner:
            names = [r.name for o in node.outputs for r in graph.consumers.get(o, ())]
            readers = {root[owner[name]] if name in owner else _END for name in names}
            if len(readers) == 1 and _END not in readers:
                owner[node.name] = readers.pop()
    for node in steps:
        if node.name not in owner:
            sources = (graph.producer[i].name for i in node.inputs if i in graph.producer)
            found = next((owner[s] for s in sources if s in owner), None)
            if found is not None:
                owner[node.name] = found
