"""One ONNX model on its way to a graph: inputs get their shapes, nodes their order, operators their results."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from nn_meter.errors import GraphError, UnsupportedOperatorError
from nn_meter.frontends.onnx import wire
from nn_meter.ir import Attr, Graph, Node, ShapeError, Tensor, infer, verify
from nn_meter.ir.shapes import RULES

_log = logging.getLogger(__name__)

Shapes = Mapping[str, Sequence[int]] | Sequence[int]
"""Shape by input name, or the one shape of the only input."""

_OLDEST_OPSET = 7

_TRAINING_OUTPUTS = frozenset(("BatchNormalization", "Dropout"))
"""Operators whose further outputs exist for training; those that nothing reads are left out."""


class External:
    """Reads small constants from the files beside the model, where they are there."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def __call__(self, entries: dict[str, str], size: int) -> bytes | None:
        location = Path(entries.get("location", ""))
        if self._folder is None or location.is_absolute() or ".." in location.parts:
            return None
        try:
            with (self._folder / location).open("rb") as file:
                file.seek(int(entries.get("offset", "0")))
                data = file.read(size)
        except (OSError, ValueError):
            return None
        return data if len(data) == size else None


class Reading:
    """One model on its way to a graph."""

    def __init__(self, reader: wire.GraphReader, buffer: wire.Buffer, where: str, raw: wire.RawGraph) -> None:
        self._reader = reader
        self._buffer = buffer
        self._where = where
        self._raw = raw
        self._nodes: list[Node] = []
        self._tensors: dict[str, Tensor] = {}
        self._notes: list[str] = []
        self._given = {node.name for node in raw.nodes if node.name}
        self._taken: set[str] = set()
        self._stated: dict[str, wire.RawValue] | None = None
        self._read_names = {name for node in raw.nodes for name in self._reads(node)}
        self._read_names.update(value.name for value in raw.outputs)

    def graph(self, model: wire.RawModel, shapes: Shapes | None, name: str | None) -> Graph:
        """The graph, verified."""
        raw = self._raw
        opset = model.opsets.get("", _OLDEST_OPSET)
        if opset < _OLDEST_OPSET:
            self._notes.append(
                f"opset {opset} is older than {_OLDEST_OPSET}; read as if it were {_OLDEST_OPSET}"
            )
        for tensor in raw.initializers:
            self._tensors[tensor.name] = tensor
        inputs = self._inputs(shapes)
        self._add_all(raw.nodes, {})
        try:
            return verify(
                Graph(
                    name or raw.name or "model",
                    tuple(self._nodes),
                    MappingProxyType(self._tensors),
                    inputs,
                    tuple(value.name for value in raw.outputs),
                    tuple(self._notes),
                )
            )
        except GraphError as error:
            raise GraphError(f"{self._where}: {error}") from None

    # Inputs

    def _inputs(self, shapes: Shapes | None) -> tuple[str, ...]:
        # Before IR version 4, initialisers are listed among the inputs.
        values = [value for value in self._raw.inputs if value.name not in self._tensors]
        names = [value.name for value in values]
        given: dict[str, tuple[int, ...]] = {}
        if isinstance(shapes, Mapping):
            given = {key: tuple(shape) for key, shape in shapes.items()}
        elif shapes is not None:
            if len(names) != 1:
                raise GraphError(
                    f"{self._where}: one shape is given for {len(names)} inputs ({', '.join(names)}); "
                    f"name each: --input-shape {names[0] if names else 'name'}=1,3,224,224"
                )
            given = {names[0]: tuple(shapes)}
        for key in given:
            if key not in names:
                raise GraphError(
                    f"{self._where}: there is no input {key!r}; the inputs are {', '.join(names)}"
                )
        symbols: dict[str, int] = {}
        for value in values:
            shape = given.get(value.name)
            if shape is None:
                continue
            if value.dims is not None and len(shape) != len(value.dims):
                raise GraphError(
                    f"{self._where}: the input {value.name!r} has {len(value.dims)} dimensions, "
                    f"the given shape {shape}"
                )
            if any(dim < 0 for dim in shape):
                raise GraphError(
                    f"{self._where}: the shape {shape} given for the input {value.name!r} is negative"
                )
            for dim, size in zip(value.dims or (), shape, strict=False):
                if isinstance(dim, str) and dim:
                    symbols[dim] = size
        for value in values:
            shape = given.get(value.name) or self._settled(value, symbols)
            self._tensors[value.name] = Tensor(value.name, shape, value.dtype or "float32")
        return tuple(names)

    def _settled(self, value: wire.RawValue, symbols: dict[str, int]) -> tuple[int, ...]:
        """The input's shape; symbols that another input settles are known, an unset batch is 1."""
        if value.dims is None:
            raise GraphError(
                f"{self._where}: the input {value.name!r} has no shape; "
                f"give one: --input-shape {value.name}=1,3,224,224"
            )
        shape = []
        for index, dim in enumerate(value.dims):
            size = dim if isinstance(dim, int) else symbols.get(dim, 0)
            if size < 1 and not (isinstance(dim, int) and dim == 0 and index):
                if index:
                    raise GraphError(
                        f"{self._where}: dimension {index} ({dim or 'unnamed'}) of the input {value.name!r} "
                        f"is unset; give its shape: --input-shape {value.name}=1,3,224,224"
                    )
                size = 1
                self._notes.append(
                    f"the unset batch ({dim or 'unnamed'}) of the input {value.name!r} became 1"
                )
                if isinstance(dim, str) and dim:
                    symbols[dim] = 1
            shape.append(size)
        return tuple(shape)

    # Nodes

    def _add_all(self, nodes: Sequence[wire.RawNode], scope: Mapping[str, str]) -> None:
        """Add ``nodes``; ``scope`` renames the tensors of a subgraph."""
        positions = {id(node): index for index, node in enumerate(nodes)}
        for node in self._sorted(nodes, scope):
            self._add(node, positions[id(node)], scope)

    def _reads(self, node: wire.RawNode) -> Iterable[str]:
        """Tensors that ``node`` reads, those that its subgraphs capture included."""
        yield from (name for name in node.inputs if name)
        for value in node.attrs.values():
            if isinstance(value, wire.Subgraph):
                inner = self._reader.graph(value.span)
                own = {out for each in inner.nodes for out in each.outputs}
                own.update(tensor.name for tensor in inner.initializers)
                own.update(item.name for item in inner.inputs)
                yield from (name for each in inner.nodes for name in self._reads(each) if name not in own)
                yield from (item.name for item in inner.outputs if item.name not in own)

    def _sorted(self, nodes: Sequence[wire.RawNode], scope: Mapping[str, str]) -> Sequence[wire.RawNode]:
        """``nodes`` so that each comes after those that it reads; as they are where they are in order."""
        producer: dict[str, int] = {}
        for index, node in enumerate(nodes):
            for out in node.outputs:
                if out and (out in producer or scope.get(out, out) in self._tensors):
                    raise GraphError(
                        f"{self._where}: tensor {out!r} is computed or given twice; names must be unique"
                    )
                producer[out] = index
        waiting = []
        readers: dict[int, list[int]] = {}
        in_order = True
        for index, node in enumerate(nodes):
            sources = set()
            for read in self._reads(node):
                source = producer.get(read)
                if source is not None:
                    sources.add(source)
                    in_order = in_order and source < index
                elif scope.get(read, read) not in self._tensors:
                    raise GraphError(
                        f"{self._where}: node {node.name or node.op_type!r} ({node.op_type}) reads {read!r}, "
                        "which nothing computes"
                    )
            waiting.append(len(sources))
            for source in sources:
                readers.setdefault(source, []).append(index)
        if in_order:
            return nodes
        ready = [index for index, count in enumerate(waiting) if count == 0]
        for index in ready:
            for reader in readers.get(index, ()):
                waiting[reader] -= 1
                if waiting[reader] == 0:
                    ready.append(reader)
        if len(ready) < len(nodes):
            stuck = next(node for node, count in zip(nodes, waiting, strict=True) if count)
            raise GraphError(
                f"{self._where}: the graph has a cycle through or before node {stuck.name or stuck.op_type!r}"
            )
        return [nodes[index] for index in ready]

    def _add(self, raw: wire.RawNode, index: int, scope: Mapping[str, str]) -> None:
        op_type = raw.op_type
        outputs = [scope.get(out, out) for out in raw.outputs]
        if op_type == "Constant" and not raw.domain:
            self._constant(raw, outputs)
            return
        inputs = [scope.get(read, read) for read in raw.inputs]
        label = raw.name or f"{op_type}_{index}"
        if op_type == "If" and not raw.domain:
            self._resolve(raw, label, inputs, outputs)
            return
        if op_type in _TRAINING_OUTPUTS:
            while len(outputs) > 1 and raw.outputs[-1] not in self._read_names:
                outputs.pop()
                raw.outputs.pop()
        self._place(
            Node(
                self._unique(raw.name, label),
                op_type,
                tuple(inputs),
                tuple(outputs),
                MappingProxyType(self._attrs(raw, label)),
                raw.domain,
            )
        )

    def _place(self, node: Node) -> None:
        tensors = self._tensors
        inputs = [tensors[read] if read else None for read in node.inputs]
        if node.op_type in RULES.get(node.domain, ()):
            try:
                results = infer(node, inputs)
            except ShapeError as error:
                raise ShapeError(f"{self._where}: {error}") from None
        else:
            results = self._stated_outputs(node)
        for tensor in results:
            tensors[tensor.name] = tensor
        self._nodes.append(node)

    def _unique(self, given: str, label: str) -> str:
        """``label``, or with a number behind it where it is taken: the first of equal names keeps it."""
        found, count = label, 0
        while found in self._taken or (found in self._given and found != given):
            count += 1
            found = f"{label}_{count}"
        self._taken.add(found)
        return found

    def _attrs(self, raw: wire.RawNode, label: str) -> dict[str, Attr]:
        attrs: dict[str, Attr] = {}
        for key, value in raw.attrs.items():
            if isinstance(value, int | float | str | tuple):
                attrs[key] = value
            elif isinstance(value, wire.Subgraph):
                raise UnsupportedOperatorError(
                    f"{self._where}: node {label!r} ({raw.op_type}) runs a subgraph a number of times that "
                    "shapes do not tell; export the model without loops, or with them unrolled"
                )
            elif isinstance(value, Tensor) and raw.op_type == "ConstantOfShape":
                attrs["value"] = value.value[0] if value.value else 0
                attrs["dtype"] = value.dtype
            else:
                what = value.what if isinstance(value, wire.Opaque) else "a tensor"
                self._notes.append(
                    f"node {label!r} ({raw.op_type}): the attribute {key!r} ({what}) was left out"
                )
        return attrs

    def _constant(self, raw: wire.RawNode, outputs: Sequence[str]) -> None:
        for value in raw.attrs.values():
            if isinstance(value, Tensor):
                self._tensors[outputs[0]] = Tensor(outputs[0], value.shape, value.dtype, True, value.value)
                return
        node = Node(
            raw.name or outputs[0],
            raw.op_type,
            (),
            tuple(outputs),
            MappingProxyType(self._attrs(raw, raw.name)),
        )
        try:
            (self._tensors[outputs[0]],) = infer(node, ())
        except ShapeError as error:
            raise ShapeError(f"{self._where}: {error}") from None

    def _resolve(self, raw: wire.RawNode, label: str, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Put the branch that is taken in the place of an ``If``."""
        condition = self._tensors[inputs[0]] if inputs and inputs[0] else None
        if condition is None or not condition.value:
            raise UnsupportedOperatorError(
                f"{self._where}: node {label!r} (If) takes a branch that depends on the input; "
                "export the model with the branch resolved"
            )
        taken = "then_branch" if condition.value[0] else "else_branch"
        branch = raw.attrs.get(taken)
        if not isinstance(branch, wire.Subgraph):
            raise GraphError(f"{self._where}: node {label!r} (If) has no {taken}")
        self._notes.append(f"node {label!r} (If) is constant; its {taken} was taken")
        graph = self._reader.graph(branch.span)
        if len(graph.outputs) != len(outputs):
            raise GraphError(
                f"{self._where}: node {label!r} (If): its {taken} has {len(graph.outputs)} outputs"
            )
        computed = {out for node in graph.nodes for out in node.outputs if out and node.op_type != "Constant"}
        # Subgraphs may use the names of other subgraphs: within one, names start with the node's.
        own = {out for node in graph.nodes for out in node.outputs if out}
        own.update(tensor.name for tensor in graph.initializers)
        scope = {each: f"{label}/{each}" for each in own}
        copies = []
        for value, out in zip(graph.outputs, outputs, strict=True):
            if value.name in computed and scope[value.name] not in outputs:
                scope[value.name] = out
            else:
                copies.append((scope.get(value.name, value.name), out))
        for tensor in graph.initializers:
            inner = scope[tensor.name]
            self._tensors[inner] = Tensor(inner, tensor.shape, tensor.dtype, True, tensor.value)
        self._read_names.update(value.name for value in graph.outputs)
        self._read_names.update(read for node in graph.nodes for read in self._reads(node))
        self._add_all(graph.nodes, scope)
        for read, out in copies:
            if read not in self._tensors:
                raise GraphError(f"{self._where}: node {label!r} (If) gives {read!r}, which nothing computes")
            self._place(Node(self._unique("", f"{label}/{out}"), "Identity", (read,), (out,)))

    # Shapes that the file states, for operators without a rule

    def _stated_outputs(self, node: Node) -> tuple[Tensor, ...]:
        if self._stated is None:
            values = [self._reader.value(span) for span in self._raw.stated] + self._raw.outputs
            self._stated = {value.name: value for value in values}
        if not all(_known(self._stated.get(out)) for out in node.outputs if out):
            self._stated |= self._inferred()
        found = []
        for out in node.outputs:
            value = self._stated.get(out)
            if not out:
                continue
            if value is None or not _known(value) or value.dims is None:
                operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
                raise UnsupportedOperatorError(
                    f"{self._where}: node {node.name!r}: the operator {operator} has no shape rule and the "
                    f"file does not state the shape of {out!r}; add it to the file's value_info"
                )
            found.append(Tensor(out, tuple(dim for dim in value.dims if isinstance(dim, int)), value.dtype))
        return tuple(found)

    def _inferred(self) -> dict[str, wire.RawValue]:
        """What ONNX's own inference finds out; nothing for models too large for it."""
        import onnx
        import onnx.shape_inference

        try:
            model = onnx.ModelProto.FromString(bytes(self._buffer))
            model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        except Exception as error:  # protobuf's and the inference's errors have no common root
            _log.debug("%s: ONNX's shape inference failed: %s", self._where, error)
            return {}
        data = model.SerializeToString()
        parsed = wire.read_model(data)
        if parsed.graph is None:
            return {}
        reader = wire.GraphReader(data, External(None))
        raw = reader.graph(parsed.graph)
        values = [reader.value(span) for span in raw.stated] + raw.outputs
        return {value.name: value for value in values if _known(value)}


def _known(value: wire.RawValue | None) -> bool:
    return value is not None and value.dims is not None and all(isinstance(dim, int) for dim in value.dims)
