"""Branches and loops: the body that is taken stands in the place of an If, a loop's once for each step."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from nn_meter.errors import GraphError, UnsupportedOperatorError
from nn_meter.frontends.onnx import wire
from nn_meter.frontends.onnx.scope import Scope
from nn_meter.ir import Tensor
from nn_meter.limits import NODES

if TYPE_CHECKING:
    from nn_meter.frontends.onnx.reading import Reading

_ENDLESS = NODES.most
"""A loop of at least so many steps ends by its condition, not by its count."""

_SCAN_OPSET = 9
"""From which on a Scan has today's form."""

_UNCOUNTED = "what going from one to the next costs is not counted"

Row = Callable[["Reading", wire.RawNode, str, Sequence[str], Sequence[str], Scope], None]


def _branch(
    reading: Reading, raw: wire.RawNode, label: str, inputs: Sequence[str], outputs: Sequence[str], scope: Scope
) -> None:
    """Put the branch that is taken in the place of an ``If``: the longer one where the data decides."""
    condition = reading.tensors.get(inputs[0]) if inputs and inputs[0] else None
    if condition is None:
        raise GraphError(f"{reading.where}: node {label!r} (If) has no condition")
    bodies = {each: _body(reading, raw, label, each) for each in ("then_branch", "else_branch")}
    if condition.value:
        taken = "then_branch" if condition.value[0] else "else_branch"
        reading.notes.append(f"node {label!r} (If) is constant; its {taken} was taken")
    else:
        taken = max(bodies, key=lambda each: reading.size(bodies[each].nodes, 1))
        other = int(taken == "else_branch")
        reading.assumed.append(
            f"the data decides which branch of node {label!r} (If) is taken; its {taken}, the longer one, was assumed: "
            f"--input-value {condition.name}={other} takes the other"
        )
    graph = bodies[taken]
    if len(graph.outputs) != len(outputs):
        raise GraphError(f"{reading.where}: node {label!r} (If): its {taken} has {len(graph.outputs)} outputs")
    _written_out(reading, graph, {}, outputs, reading.unique(label, raw.name), scope)


def _loop(
    reading: Reading, raw: wire.RawNode, label: str, inputs: Sequence[str], outputs: Sequence[str], scope: Scope
) -> None:
    """Write a ``Loop`` out: its count is constant, its condition is, or the caller states how often it runs."""
    graph = _body(reading, raw, label, "body")
    given = [*inputs, "", ""][:2]
    trips, start = (reading.tensors.get(name) if name else None for name in given)
    carried = list(inputs[2:])
    width = len(graph.outputs) - 1 - len(carried)
    if len(graph.inputs) != len(carried) + 2 or width < 0:
        raise GraphError(f"{reading.where}: node {label!r} (Loop): its body has another number of inputs")
    most = int(trips.value[0]) if trips is not None and trips.value else None
    count = reading.count(label)
    limit = min((each for each in (count, most) if each is not None), default=None)
    going = bool(start.value[0]) if start is not None and start.value else True
    early = start is not None and not start.value  # the data may end it before its count does
    asked, label = label, reading.unique(label, raw.name)
    collected: list[list[str]] = [[] for _ in range(width)]
    step = 0
    condition = given[1]
    while going and (limit is None or step < limit):
        name = f"{label}/{step}"
        counter = reading.hold(f"{name}/{graph.inputs[0].name}", "int64", step)
        if not condition:
            condition = reading.hold(f"{name}/{graph.inputs[1].name}", "bool", 1)
        results = _step(reading, graph, (counter, condition, *carried), name, scope)
        condition, *carried = results[: len(carried) + 1]
        for kept, result in zip(collected, results[len(carried) + 1 :], strict=True):
            kept.append(result)
        step += 1
        reading.most.check(step, f"{reading.where}: node {asked!r} (Loop)", GraphError)
        if count is None:
            ends = reading.tensors.get(condition)
            value = ends.value if ends is not None else None
            if value is None and (most is None or most >= _ENDLESS):
                raise UnsupportedOperatorError(
                    f"{reading.where}: node {asked!r} (Loop) runs until the data ends it; state how often: "
                    f"--count {asked}=10 (in Python counts={{{asked!r}: 10}})"
                )
            going = value is None or bool(value[0])
            early = early or (value is None and step != limit)
    if early and step and count is None:
        reading.assumed.append(
            f"the data may end node {asked!r} (Loop) early; all its {step} steps were assumed: "
            f"--count {asked}=N states another number"
        )
    reading.notes.append(f"node {asked!r} (Loop) was written out: {step} steps; {_UNCOUNTED}")
    _given_on(reading, label, carried, outputs)
    for kept, out, stated in zip(collected, outputs[len(carried) :], graph.outputs[1 + len(carried) :], strict=False):
        sizes = [dim for dim in stated.dims or () if isinstance(dim, int)]
        if out and not kept and stated.dims is not None and len(sizes) == len(stated.dims):
            reading.tensors[out] = Tensor(out, (0, *sizes), stated.dtype, True)
        elif out:
            _stack(reading, label, kept, out, 0)


def _scan(
    reading: Reading, raw: wire.RawNode, label: str, inputs: Sequence[str], outputs: Sequence[str], scope: Scope
) -> None:
    """Write a ``Scan`` out: a step for each slice of what it scans."""
    if scope.opset < _SCAN_OPSET:
        raise UnsupportedOperatorError(
            f"{reading.where}: node {label!r} (Scan) is of opset {scope.opset}, where it goes over a batch, too; "
            f"export the model in opset {_SCAN_OPSET} or newer"
        )
    graph = _body(reading, raw, label, "body")
    scanned = raw.attrs.get("num_scan_inputs")
    if not isinstance(scanned, int) or not 0 < scanned <= len(inputs) or len(graph.inputs) != len(inputs):
        raise GraphError(f"{reading.where}: node {label!r} (Scan) says no count of scanned inputs that fits its body")
    carried, sources = list(inputs[:-scanned]), inputs[-scanned:]
    asked, label = label, reading.unique(label, raw.name)
    slices = []
    for index, source in enumerate(sources):
        axis = _listed(raw, "scan_input_axes", index)
        shape = reading.tensors[source].shape
        if not shape or not -len(shape) <= axis < len(shape):
            raise GraphError(f"{reading.where}: node {label!r} (Scan) scans {shape} along axis {axis}")
        reading.most.check(shape[axis], f"{reading.where}: node {label!r} (Scan)", GraphError)
        parts = tuple(f"{label}/slice_{index}_{place}" for place in range(shape[axis]))
        if parts:
            reading.write("SplitToSequence", label, (source,), parts, axis=axis, keepdims=0, split=(1,) * len(parts))
        slices.append(parts[::-1] if _listed(raw, "scan_input_directions", index) else parts)
    steps = len(slices[0])
    if any(len(parts) != steps for parts in slices) or not steps:
        raise GraphError(f"{reading.where}: node {label!r} (Scan) scans {[len(p) for p in slices]} slices")
    collected: list[list[str]] = [[] for _ in graph.outputs[len(carried) :]]
    for step, parts in enumerate(zip(*slices, strict=True)):
        name = f"{label}/{step}"
        results = _step(reading, graph, (*carried, *parts), name, scope)
        carried = results[: len(carried)]
        for kept, result in zip(collected, results[len(carried) :], strict=True):
            kept.append(result)
    reading.notes.append(f"node {asked!r} (Scan) was written out: {steps} steps; {_UNCOUNTED}")
    _given_on(reading, label, carried, outputs)
    for index, (kept, out) in enumerate(zip(collected, outputs[len(carried) :], strict=False)):
        if out:
            backwards = _listed(raw, "scan_output_directions", index)
            _stack(reading, label, kept[::-1] if backwards else kept, out, _listed(raw, "scan_output_axes", index))


def _map(
    reading: Reading, raw: wire.RawNode, label: str, inputs: Sequence[str], outputs: Sequence[str], scope: Scope
) -> None:
    """Write a ``SequenceMap`` out: its body for each element."""
    graph = _body(reading, raw, label, "body")
    first = reading.sequences.get(inputs[0]) if inputs else None
    if first is None or len(graph.inputs) != len(inputs) or len(graph.outputs) < len(outputs):
        raise GraphError(f"{reading.where}: node {label!r} (SequenceMap) maps no sequence that fits its body")
    label = reading.unique(label, raw.name)
    collected: list[list[str]] = [[] for _ in graph.outputs]
    for step in range(len(first)):
        name = f"{label}/{step}"
        elements = [reading.sequences[each][step] if each in reading.sequences else each for each in inputs]
        results = _step(reading, graph, elements, name, scope)
        for kept, result in zip(collected, results, strict=True):
            kept.append(result)
    for kept, out in zip(collected, outputs, strict=False):
        if out:
            reading.keep(out, tuple(kept))


ROWS: Mapping[str, Row] = MappingProxyType({"If": _branch, "Loop": _loop, "Scan": _scan, "SequenceMap": _map})
"""Operator to what stands in its place: (reading, node, label, inputs, outputs, scope)."""


def _body(reading: Reading, raw: wire.RawNode, label: str, name: str) -> wire.RawGraph:
    body = raw.attrs.get(name)
    if not isinstance(body, wire.Subgraph):
        raise GraphError(f"{reading.where}: node {label!r} ({raw.op_type}) has no {name}")
    return reading.body(body.span)


def _step(reading: Reading, graph: wire.RawGraph, given: Sequence[str], label: str, scope: Scope) -> list[str]:
    """Add the nodes of a body once more, ``given`` as its inputs; its results."""
    bound = dict(zip((each.name for each in graph.inputs), given, strict=True))
    results = [f"{label}/result_{index}" for index in range(len(graph.outputs))]
    _written_out(reading, graph, bound, results, label, scope)
    return results


def _given_on(reading: Reading, label: str, carried: Sequence[str], outputs: Sequence[str]) -> None:
    """What the last step carries on is what the node gives."""
    for source, out in zip(carried, outputs, strict=False):
        if out:
            reading.same(source, out, label)


def _listed(raw: wire.RawNode, name: str, index: int) -> int:
    """An entry of a list of integers; 0 where it is left out."""
    value = raw.attrs.get(name)
    return int(value[index]) if isinstance(value, tuple) and index < len(value) else 0


def _written_out(
    reading: Reading,
    graph: wire.RawGraph,
    bound: Mapping[str, str],
    outputs: Sequence[str],
    label: str,
    scope: Scope,
) -> None:
    """Add the nodes of a body once; ``bound`` says what its inputs are, ``outputs`` how its results are called."""
    own = {tensor.name: f"{label}/{tensor.name}" for tensor in graph.initializers}
    for tensor in graph.initializers:
        reading.tensors[own[tensor.name]] = replace(tensor, name=own[tensor.name])
    own.update(bound)
    outer = scope.names.maps if isinstance(scope.names, ChainMap) else [scope.names]
    inner = replace(scope, names=ChainMap(own, *outer), depth=scope.depth + 1)
    reading.inline(graph.nodes, [value.name for value in graph.outputs], outputs, own, inner, label)


def _stack(reading: Reading, label: str, parts: Sequence[str], out: str, axis: int) -> None:
    """What the steps gave, one behind the other along a new axis."""
    if not parts:
        raise UnsupportedOperatorError(
            f"{reading.where}: node {label!r} runs no step, so that the shape of {out!r} is not known; export the "
            "model without it"
        )
    reading.write("ConcatFromSequence", label, parts, (out,), axis=axis, new_axis=1)
