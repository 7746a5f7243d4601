"""Probes: graphs whose latencies, held against each other, tell whether a runtime fuses a test case.

All of them begin with the case's inputs behind a barrier ``p`` (an operator that keeps the shape and fuses with
nothing), so that the runtime's own layout is there, and end in the largest elements of what they compute: a small
output costs the same wherever it goes. What ``detection.decision`` concludes from them stands there.

Probes that are held against each other hold the same operators in another order. A runtime's cost is not a sum over its
kernels: from some number of values on, ONNX Runtime allocates otherwise, and an inference takes a microsecond more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from nn_meter.detection.cases import Case
from nn_meter.detection.drawings import Sizes
from nn_meter.ir import Graph, GraphBuilder
from nn_meter.ir.graph import Attr, Node, Tensor, verify
from nn_meter.ir.shapes import infer

READ_BETWEEN, READ_BEFORE, CONTROL_READ_BETWEEN, CONTROL_READ_BEFORE = "ab+", "+ab", "aq+", "+aq"
"""The case ``ab``, or with ``q``, which fuses with nothing, in the place of its last operator; and a reader of the
value between the two, or of what the first one reads."""

APART, TOGETHER, CONTROL_APART, CONTROL_TOGETHER = "apb", "pab", "apq", "paq"
"""The same with another ``p`` on the value between, or before both."""

FIRST, FRAME = "ap", "p"
"""All but the last operator, and nothing, before another ``p``."""

UNIT, UNIT_FRAME = "units", "frame"
"""Barriers with an activation between each two, ``UNITS`` in all, and the barriers alone."""

UNITS = 12


def _sizes(hw: int, channels: int, *, pointwise: bool) -> Sizes:
    """Maps, vectors and tokens of as many elements."""
    return Sizes(
        hw=hw,
        cin=channels,
        cout=channels,
        length=channels,
        tokens=hw * hw,
        rows=hw * hw,
        pool_strides=1,
        pointwise=pointwise,
    )


SHAPES: Mapping[str, Sizes] = MappingProxyType(
    {
        "small": _sizes(7, 16, pointwise=True),
        "large": _sizes(20, 32, pointwise=True),
    }
)
"""Shapes of each case. In the first a call is all that a fusion saves: a value of 3 KB lies in the first cache, and is
off the 4 KB at which one value lies in another's way. In the second, of 50 KB, the pass outweighs it, and all that is
alive at one moment stays in the second cache. Few channels and small windows keep convolutions from drowning what is
saved."""

CALL_SHAPES = frozenset({"small"})

COPIES = 4
"""Copies of a probe in one graph: what the place of its buffers costs averages out, and of an inference's fixed cost
each bears its part. Runtimes let copies use the same buffers by turns, so that more of them would not help."""


def probes(case: Case, sizes: Sizes) -> dict[str, Graph]:
    """Every probe of a case but the units, by name. A case of which the value between has several readers has none with
    one more: that would not tell."""
    first, pair, between = case.first(sizes), case.block(sizes), case.between(sizes)
    tensor = first.tensors[between]
    x, *_ = first.inputs
    control = _with_inputs_of(pair, inserted(first, between, "q"))
    frame = GraphBuilder(f"{case.name}_frame")
    value = frame.input(tensor.shape, tensor.dtype)
    drawn = {
        APART: inserted(pair, between, "p"),
        TOGETHER: inserted(pair, x, "p"),
        CONTROL_APART: _with_inputs_of(pair, inserted(inserted(first, between, "p"), f"{between}:p", "q")),
        CONTROL_TOGETHER: inserted(control, x, "p"),
        FIRST: inserted(first, between, "p"),
        FRAME: inserted(frame.graph(value), value, "p"),
    }
    found = {name: framed(graph) for name, graph in drawn.items()}
    if case.labels:
        pair, control = framed(pair), framed(control)
        found |= {
            READ_BETWEEN: tapped(pair, between),
            READ_BEFORE: tapped(pair, f"{x}:p"),
            CONTROL_READ_BETWEEN: tapped(control, between),
            CONTROL_READ_BEFORE: tapped(control, f"{x}:p"),
        }
    return found


def unit_probes(sizes: Sizes) -> dict[str, Graph]:
    """The probes of what an activation costs, on a map."""
    b = GraphBuilder("unit")
    name = b.input(sizes.input_shape("map"))
    graph, frame = b.graph(name), b.graph(name)
    for _ in range(UNITS):
        frame = inserted(frame, frame.outputs[0], "p")
        graph = inserted(inserted(graph, graph.outputs[0], "p"), f"{graph.outputs[0]}:p", "r")
    return {
        UNIT: framed(inserted(graph, graph.outputs[0], "p")),
        UNIT_FRAME: framed(inserted(frame, frame.outputs[0], "p")),
    }


def framed(graph: Graph) -> Graph:
    """``graph`` with a barrier behind each input, and of each output the largest elements only."""
    for name in graph.inputs:
        graph = inserted(graph, name, "p")
    for name in graph.outputs:
        graph = inserted(graph, name, "max")
    return graph


def inserted(graph: Graph, name: str, role: str) -> Graph:
    """``graph`` with an operator behind the tensor ``name``; all that read it, and the output, take its result.

    Args:
        role: ``"p"`` or ``"q"`` for a barrier, which keeps the shape and the layout and fuses with nothing;
            ``"r"`` for an activation; ``"max"``, behind outputs only, for the largest elements.
    """
    made, added, tensors = _operator(graph, name, role)
    nodes: list[Node] = [added] if name in graph.inputs else []
    for each in graph.nodes:
        nodes.append(replace(each, inputs=tuple(made if i == name else i for i in each.inputs)))
        if name in each.outputs:
            nodes.append(added)
    outputs = tuple(made if out == name else out for out in graph.outputs)
    return verify(Graph(graph.name, tuple(nodes), MappingProxyType(tensors), graph.inputs, outputs))


def tapped(graph: Graph, name: str) -> Graph:
    """``graph`` with one more reader of the tensor ``name``, whose result is an output."""
    made, added, tensors = _operator(graph, name, "max")
    nodes: list[Node] = []
    for each in graph.nodes:
        nodes.append(each)
        if name in each.outputs:
            nodes.append(added)
    return verify(Graph(graph.name, tuple(nodes), MappingProxyType(tensors), graph.inputs, (*graph.outputs, made)))


def copies(graph: Graph, count: int) -> Graph:
    """``count`` copies of ``graph`` side by side, each with inputs of its own."""

    def renamed(index: int, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"{name}:{index}" if name else name for name in names)

    tensors = {
        f"{name}:{index}": replace(tensor, name=f"{name}:{index}")
        for index in range(count)
        for name, tensor in graph.tensors.items()
    }
    nodes = tuple(
        replace(
            node,
            name=f"{node.name}:{index}",
            inputs=renamed(index, node.inputs),
            outputs=renamed(index, node.outputs),
        )
        for index in range(count)
        for node in graph.nodes
    )
    inputs = tuple(name for index in range(count) for name in renamed(index, graph.inputs))
    outputs = tuple(name for index in range(count) for name in renamed(index, graph.outputs))
    return verify(Graph(graph.name, nodes, MappingProxyType(tensors), inputs, outputs))


def _with_inputs_of(other: Graph, graph: Graph) -> Graph:
    """``graph`` with the inputs that ``other`` has more as outputs of their own: what is read beside an operator leaves
    as little room in the caches."""
    more = tuple(name for name in other.inputs if name not in graph.inputs)
    tensors = {**graph.tensors, **{name: other.tensors[name] for name in more}}
    return verify(Graph(graph.name, graph.nodes, MappingProxyType(tensors), graph.inputs + more, graph.outputs + more))


def _operator(graph: Graph, name: str, role: str) -> tuple[str, Node, dict[str, Tensor]]:
    """An operator that reads ``name``: its output's name, the node, and the graph's tensors with its own."""
    between = graph.tensors[name]
    made = name
    while made in graph.tensors:
        made += f":{role}"
    op_type, attrs, value, dtype = _filler(between, role)
    operand = Tensor(f"{made}:operand", (len(value),), dtype, const=True, value=value)
    node = Node(f"{made}:node", op_type, (name, operand.name) if value else (name,), (made,), MappingProxyType(attrs))
    (behind,) = infer(node, [between, operand] if value else [between])
    return made, node, {**graph.tensors, made: behind, **({operand.name: operand} if value else {})}


def _filler(between: Tensor, role: str) -> tuple[str, dict[str, Attr], tuple[int, ...], str]:
    """What stands for a role behind a tensor: operator, attributes, and a second operand's values and dtype.

    OpenVINO fuses through a MaxPool what follows into a convolution before it, but nothing follows a ``q``. Other
    values than maps have no pooling that runtimes agree on, and few operators take integers.
    """
    rank, dtype = len(between.shape), between.dtype
    if role == "max":
        pooled = rank == 4 and dtype == "float32"
        return ("GlobalMaxPool", {}, (), "") if pooled else ("ReduceMax", {"keepdims": 0}, (rank - 1,), "int64")
    if dtype != "float32":
        return ("Min", {}, (200,), dtype) if role == "q" else ("Max", {}, (3,), dtype)
    if role == "r":
        return "Relu", {}, (), ""
    if rank == 4:
        window: dict[str, Attr] = {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1), "strides": (1, 1)}
        return ("AveragePool" if role == "p" else "MaxPool"), window, (), ""
    return ("Softmax", {"axis": -1}, (), "") if role == "p" else ("CumSum", {}, (rank - 1,), "int64")
