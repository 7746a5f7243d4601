"""From operators in the order of their data to a verified graph; TFLite's operators come this way too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from nn_meter.errors import GraphError, ModelError, ModelFormatError, UnsupportedOperatorError
from nn_meter.frontends._source import Shapes, by_name, shapes_wanted
from nn_meter.frontends.tensorflow.attrs import dimensions, text
from nn_meter.frontends.tensorflow.dilation import dilated
from nn_meter.frontends.tensorflow.flow import Flow, Op
from nn_meter.frontends.tensorflow.lowering import Lowering, Shape, image
from nn_meter.frontends.tensorflow.operators import OPERATORS, Role
from nn_meter.frontends.tensorflow.spatial import channels_last
from nn_meter.ir import Graph, Node, Tensor, verify

PLACEHOLDERS = frozenset({"Placeholder", "PlaceholderV2", "PlaceholderWithDefault"})

UNKNOWN = (-1,) * 4
"""What advice takes the shape of an input for that states none: an image is the commonest."""

_MALFORMED = (LookupError, TypeError, ValueError, ArithmeticError)


def build(
    flow: Flow,
    source: str,
    name: str,
    shapes: Shapes | None = None,
    notes: Sequence[str] = (),
    input_names: Mapping[str, str] = MappingProxyType({}),
) -> Graph:
    """Write ``flow`` as a graph.

    Args:
        flow: Operators by TensorFlow's names.
        source: The model, for error texts.
        name: Name of the graph.
        shapes: Shapes of inputs in the source's order of axes; those of images also channels first.
        notes: What reading had to assume so far.
        input_names: Operator that is an input to its name for the caller, where that differs.

    Raises:
        UnsupportedOperatorError: an operator without a row, or shapes that only a run knows; names the node.
        ModelFormatError: an operator whose inputs or attributes do not fit.
        GraphError: shapes that do not fit, an unset dimension.
        ModelError: a given shape that fits no input.
    """
    ops = dilated(flow.ops)
    lowering = Lowering(source, _images(ops))
    inputs = {op.name: input_names.get(op.name, op.name) for op in ops if _is_input(op)}
    stated = {inputs[op.name]: dimensions(op, "shape") or UNKNOWN for op in ops if op.name in inputs}
    if isinstance(shapes, Mapping):  # by the name of its value, too
        shapes = {key if key in stated else key.removesuffix(":0"): shape for key, shape in shapes.items()}
    given = by_name(stated, shapes, source)
    assumed = list(notes)
    for op in ops:
        if op.name in inputs:
            _add_input(lowering, op, inputs[op.name], given.get(inputs[op.name]), assumed)
            continue
        row = OPERATORS.get("Identity" if op.kind in PLACEHOLDERS else op.kind)
        if row is None:
            raise UnsupportedOperatorError(
                f"{source}: node {op.name!r}: the operator {op.origin or op.kind} has no row in the table of "
                "operators; remove it from the model, or ask for the row"
            )
        try:
            row.lower(lowering, op)
        except _MALFORMED as error:
            raise ModelFormatError(
                f"{source}: node {op.name!r} ({op.origin or op.kind}): its inputs and attributes do not fit: {error}"
            ) from error
        _set_dtypes(lowering, op)
    return _graph(lowering, flow, name, assumed)


def _set_dtypes(lowering: Lowering, op: Op) -> None:
    """Give results the element types that the source states: quantised ones differ from what ONNX infers."""
    stated = op.attrs.get("result_dtypes")
    for index, dtype in enumerate(stated if isinstance(stated, tuple) else ()):
        if op.output(index) in lowering.values:
            lowering.set_dtype(op.output(index), str(dtype))


def _is_input(op: Op) -> bool:
    """A placeholder; one with a default only where that is a whole tensor, not a switch for training."""
    if op.kind != "PlaceholderWithDefault":
        return op.kind in PLACEHOLDERS
    shape = op.attrs.get("shape")
    return isinstance(shape, tuple) and len(shape) > 0


def _images(ops: Sequence[Op]) -> frozenset[str]:
    """Names of the operators whose results of four and more dimensions lie channels last.

    Operators that share a layout form a group; a group is one of images if an operator in it works on images
    whose channels are last. Constants join no group: one may serve several.
    """
    leader: dict[str, str] = {op.name: op.name for op in ops}
    constant: set[str] = set()
    marked: list[str] = []

    def find(name: str) -> str:
        while leader[name] != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    for op in ops:
        sources = [key.rpartition(":")[0] for key in op.inputs if key]
        if op.kind not in PLACEHOLDERS and all(name in constant for name in sources):
            constant.add(op.name)
            continue
        row = OPERATORS.get(op.kind)
        if row is None or row.role is Role.OWN or not row.keeps_rank(op):
            continue
        for key in op.inputs[slice(*row.data)]:
            name = key.rpartition(":")[0]
            if name in leader and name not in constant:
                leader[find(name)] = find(op.name)
        if row.role is Role.IMAGE and channels_last(op):
            marked.append(op.name)
    images = {find(name) for name in marked}
    return frozenset(op.name for op in ops if find(op.name) in images)


def _add_input(lowering: Lowering, op: Op, name: str, given: Shape | None, notes: list[str]) -> None:
    stated = dimensions(op, "shape")
    shape: Shape
    if given is not None:
        shape = _fitted(lowering, op, name, stated, given)
    else:
        hint = f"give its shape: {shapes_wanted({name: stated or UNKNOWN})}"
        if stated is None:
            raise GraphError(f"{lowering.source}: the shape of the input {name!r} is unset; {hint} where it has four")
        open_axes = [axis for axis, dim in enumerate(stated) if dim < 0]
        if any(axis > 0 for axis in open_axes):
            raise GraphError(f"{lowering.source}: the input {name!r} has the shape {_spoken(stated)}; {hint}")
        if open_axes:
            notes.append(f"the unset batch of the input {name!r} became 1")
        shape = tuple(1 if dim < 0 else dim for dim in stated)
    lowering.add_input(op, name, shape, text(op, "dtype", "float32"))


def _fitted(lowering: Lowering, op: Op, name: str, stated: Shape | None, given: Shape) -> Shape:
    """The given shape in the source's order; an image's may be given channels first, if only that fits."""
    if stated is None or _fits(given, stated):
        return given
    if lowering.wanted(op.output(), len(given)) == image(len(given)):
        turned = (given[0], *given[2:], given[1])
        if _fits(turned, stated):
            return turned
    raise ModelError(
        f"{lowering.source}: the shape {given} given for the input {name!r} does not fit {_spoken(stated)}"
    )


def _fits(shape: Shape, stated: Shape) -> bool:
    # a batch of 1 is often what an export wrote for "any", so the first dimension is free
    return len(shape) == len(stated) and all(
        axis == 0 or want < 0 or dim == want for axis, (dim, want) in enumerate(zip(shape, stated, strict=True))
    )


def _spoken(shape: Shape) -> str:
    return "(" + ", ".join("?" if dim < 0 else str(dim) for dim in shape) + ")"


def _graph(lowering: Lowering, flow: Flow, name: str, notes: Sequence[str]) -> Graph:
    outputs = []
    for key in flow.outputs:
        tensor = lowering.value(key).tensor
        if not tensor.const:
            # an operator of several results that nothing reads gives them all
            stem = key.rpartition(":")[0]
            siblings = [
                lowering.values[other].tensor.name for other in lowering.values if other.rpartition(":")[0] == stem
            ]
            outputs += siblings if key.endswith(":0") else [tensor.name]
    if not outputs:
        raise GraphError(f"{lowering.source}: no output depends on an input; this graph computes nothing at inference")
    nodes = _scale_and_shift(lowering)
    used = {tensor for node in nodes for tensor in (*node.inputs, *node.outputs) if tensor}
    used.update(lowering.inputs, outputs)
    tensors = {key: tensor for key, tensor in lowering.tensors.items() if key in used}
    return verify(
        Graph(
            name,
            tuple(nodes),
            MappingProxyType(tensors),
            tuple(lowering.inputs),
            tuple(dict.fromkeys(outputs)),
            tuple(notes),
        )
    )


def _scale_and_shift(lowering: Lowering) -> list[Node]:
    """The nodes, with what constants leave of a batch normalisation written as one.

    Where TensorFlow decomposes it, (x * s) + t remains of it, s and t computed from constants, one element
    per channel: the very inference form of ``BatchNormalization``.
    """
    readers: dict[str, list[Node]] = {}
    for node in lowering.nodes:
        for key in node.inputs:
            readers.setdefault(key, []).append(node)
    merged: dict[str, Node] = {}
    dropped: set[str] = set()
    for scale in lowering.nodes:
        data = _per_channel(lowering, scale, "Mul")
        following = readers.get(scale.outputs[0], [])
        if data is None or len(following) != 1:
            continue
        (shift,) = following
        other = _per_channel(lowering, shift, "Add", "Sub")
        if other is None or other[0] != scale.outputs[0]:
            continue
        channels = lowering.tensors[data[0]].shape[1]
        vectors = []
        for stem in ("scale", "shift", "mean", "variance"):
            vector = Tensor(lowering.unique(f"{shift.name}/{stem}"), (channels,), "float32", True)
            lowering.tensors[vector.name] = vector
            vectors.append(vector.name)
        merged[shift.name] = Node(
            shift.name,
            "BatchNormalization",
            (data[0], *vectors),
            shift.outputs,
            origin=f"{scale.op_type}+{shift.op_type}",
        )
        dropped.add(scale.name)
    return [merged.get(node.name, node) for node in lowering.nodes if node.name not in dropped]


def _per_channel(lowering: Lowering, node: Node, *op_types: str) -> tuple[str, str] | None:
    """Data and constant of an operator with one element per channel of an image."""
    if node.op_type not in op_types or len(node.inputs) != 2:
        return None
    order: Sequence[str] = node.inputs
    if node.op_type != "Sub":
        order = sorted(order, key=lambda key: lowering.tensors[key].const)
    data, vector = (lowering.tensors[key] for key in order)
    if data.const or not vector.const or len(data.shape) < 4 or data.shape[1] == 1:
        return None
    channels = (data.shape[1], *(1,) * (len(data.shape) - 2))
    return (data.name, vector.name) if vector.shape in (channels, (1, *channels)) else None
