"""From a graph to a TFLite file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from nn_meter.backends.constants import constants
from nn_meter.backends.litert import layers, movement, numbers
from nn_meter.backends.litert.model import File, Written
from nn_meter.backends.litert.site import Row, Site
from nn_meter.backends.site import write
from nn_meter.errors import BackendError
from nn_meter.ir.graph import Graph
from nn_meter.kernels.rewriting import Work
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
    arrays = constants(data, work)
    file = File(schema, work.tensors, arrays)
    given = [_given(name, inputs[name], work, file, graph) for name in graph.inputs]
    write(graph, work, file, ROWS, Site, "TFLite", "operator")
    outputs = [name for name in work.outputs_in_order() if name]
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
