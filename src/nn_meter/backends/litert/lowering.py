"""From a graph to a TFLite file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from nn_meter.backends.litert import layers, movement, numbers
from nn_meter.backends.litert.model import File, Written
from nn_meter.backends.litert.site import Row, Site
from nn_meter.errors import BackendError
from nn_meter.ir.graph import Graph
from nn_meter.kernels.rewriting import Op, Work
from nn_meter.runtimes import litert
from nn_meter.runtimes.litert import Order

ROWS: Mapping[str, Row] = MappingProxyType({**numbers.ROWS, **layers.ROWS, **movement.ROWS})
"""Operator to what writes it."""

@dataclass(frozen=True, slots=True)
class Lowered:
    """A TFLite file, what goes into it, its operators and what people call them, and the order that each output is
    stored in."""

    data: bytes
    inputs: tuple[np.ndarray, ...]
    operators: tuple[Written, ...]
    names: tuple[str, ...]
    orders: tuple[Order, ...]


def lowered(graph: Graph, data: bytes, inputs: Mapping[str, np.ndarray], schema: Any) -> Lowered:
    """``graph``, whose constants are those of the ONNX model ``data``, with ``inputs`` by name.

    Raises:
        BackendError: an operator that TFLite has not; names it.
    """
    work = litert.lowered(graph)
    arrays = _constants(data, work)
    tensors = {name: replace(tensor, const=name in arrays) for name, tensor in work.tensors.items()}
    file = File(schema, tensors, arrays)
    given = [_given(name, inputs[name], work, file, graph) for name in graph.inputs]
    taken: set[int] = set()
    for op in work.ops():
        if id(op) not in taken:
            taken.update(map(id, _write(op, work, file, graph)))
    outputs = [name for name in work.outputs if name]
    try:
        written = file.finished(outputs)
    except NotImplementedError as error:
        raise BackendError(f"{graph.name}: TFLite has no outputs {error}; leave them out") from error
    names = tuple(_called(each, graph) for each in file.operators)
    return Lowered(written, tuple(given), tuple(file.operators), names, tuple(map(file.order, outputs)))


def _given(name: str, array: np.ndarray, work: Work, file: File, graph: Graph) -> np.ndarray:
    """Declare an input; gives the array as the file takes it."""
    order = litert.wanted_order(name, work)
    try:
        file.given(name, order)
    except NotImplementedError as error:
        readers = [f"{node.op_type} ({node.name})" for node in graph.nodes if name in node.inputs]
        raise BackendError(
            f"{graph.name}: TFLite has no inputs {error}: {name}, which {', '.join(readers[:1]) or 'nothing'} reads; "
            "export the model in float32"
        ) from error
    return np.ascontiguousarray(array.transpose(order))


def _called(operator: Written, graph: Graph) -> str:
    node = graph.node_by_name[operator.nodes[0]] if operator.nodes else None
    return f"{node.op_type} ({node.name}) as {operator.code}" if node else f"a change of layout as {operator.code}"


def _write(op: Op, work: Work, file: File, graph: Graph) -> list[Op]:
    """Write an operator; gives those that were written with it."""
    row = ROWS.get(op.op_type)
    if row is None:
        raise BackendError(f"{graph.name}: TFLite has no operator for {op.op_type} ({op.members[0]})")
    file.nodes = op.members
    site = Site(op, work, file)
    try:
        row(site)
    except NotImplementedError as error:
        raise BackendError(f"{graph.name}: TFLite has no {op.op_type} ({op.members[0]}) {error}") from error
    return site.taken


def _constants(data: bytes, work: Work) -> dict[str, np.ndarray]:
    """Constants by name, those that are computed of others before inference included."""
    model = onnx.load_model_from_string(data)
    found = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    for name, tensor in work.tensors.items():
        if name not in found and tensor.const and tensor.value is not None:
            found[name] = np.array(tensor.value, tensor.dtype).reshape(tensor.shape)
    read = {name for op in work.ops() for name in op.inputs if name}
    wanted = [name for name in read if name not in found and work.tensors[name].const]
    return found | _computed(model, wanted, found) if wanted else found


def _computed(model: Any, wanted: Sequence[str], found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Constants that nodes compute of others.

    Raises:
        BackendError: onnx cannot compute them.
    """
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    class GatherElements(OpRun):  # type: ignore[misc]
        """onnx's own fails on rows of which elements are taken (onnx 1.23)."""

        def _run(self, data: np.ndarray, places: np.ndarray, axis: int = 0) -> tuple[np.ndarray]:
            return (np.take_along_axis(data, places, axis),)

    makers = {out: node for node in model.graph.node for out in node.output if out}
    needed, open_names, given = set[int](), list(wanted), dict[str, np.ndarray]()
    while open_names:
        name = open_names.pop()
        if name in found:
            given[name] = found[name]
        elif name and id(makers[name]) not in needed:
            needed.add(id(makers[name]))
            open_names += makers[name].input
    part = onnx.helper.make_graph(
        [node for node in model.graph.node if id(node) in needed],
        "constants",
        [],
        [onnx.ValueInfoProto(name=name) for name in wanted],
        [numpy_helper.from_array(array, name) for name, array in given.items()],
    )
    whole = onnx.helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
    try:
        with np.errstate(all="ignore"):
            arrays = ReferenceEvaluator(whole, new_ops=[GatherElements]).run(None, {})
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        kinds = ", ".join(sorted({node.op_type for node in part.node}))
        raise BackendError(f"{model.graph.name}: onnx cannot compute its constants, of {kinds}: {error}") from error
    return dict(zip(wanted, arrays, strict=True))
