"""One ONNX model on its way to a graph: inputs get their shapes, nodes their order, operators their results."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod
from types import MappingProxyType

from nn_meter.errors import GraphError, UnsupportedOperatorError
from nn_meter.frontends.onnx import wire
from nn_meter.frontends.onnx.external import External
from nn_meter.frontends.onnx.scope import OLDEST_OPSET, Scope
from nn_meter.ir import Attr, Graph, Node, ShapeError, Tensor, infer, verify
from nn_meter.ir.shapes import RULES
from nn_meter.limits import DIMENSION, NESTING, NODES, RANK

Shapes = Mapping[str, Sequence[int]] | Sequence[int]
"""Shape by input name, or the one shape of the only input."""

_TRAINING_OUTPUTS = frozenset(("BatchNormalization", "Dropout"))
"""Operators whose further outputs exist for training; those that nothing reads are left out."""

_NO_BATCH = frozenset(("seq_len", "sequence_length", "num_nodes", "num_edges"))
"""Names of a first dimension that is no batch."""

_OLDER_DEFAULTS: Mapping[str, tuple[int, Mapping[str, Attr]]] = MappingProxyType(
    {
        "DFT": (20, {"axis": 1}),
        **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), (13, {"axis": 1})),
    }
)
"""Operator to the opset from which on its defaults are today's, and what they were."""

_FLATTENING = frozenset(("Softmax", "LogSoftmax", "Hardmax"))
"""Before opset 13 they work on a matrix: all dimensions from the axis on are one row."""


Functions = Mapping[tuple[str, str], wire.RawFunction]
"""Domain and name to function."""


class Reading:
    """One model on its way to a graph."""

    def __init__(
        self, reader: wire.GraphReader, where: str, raw: wire.RawGraph, functions: Functions, external: External
    ) -> None:
        self._reader = reader
        self._where = where
        self._raw = raw
        self._functions = functions
        self._external = external
        self._nodes: list[Node] = []
        self._tensors: dict[str, Tensor] = {}
        self._notes: list[str] = []
        self._given = {node.name for node in raw.nodes if node.name}
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}
        self._sizes: dict[tuple[str, str], int] = {}
        self._symbols: dict[str, int] = {}
        self._batch = 1
        self._stated: dict[str, wire.RawValue] | None = None
        self._captured: dict[wire.Span, frozenset[str]] = {}

    def graph(self, model: wire.RawModel, shapes: Shapes | None, name: str | None) -> Graph:
        """The graph, verified."""
        raw = self._raw
        opset = model.opsets.get("", OLDEST_OPSET)
        if opset < OLDEST_OPSET:
            self._notes.append(
                f"opset {opset} is older than {OLDEST_OPSET}; read as if it were {OLDEST_OPSET}"
            )
        for tensor in raw.initializers:
            self._tensors[tensor.name] = tensor
        inputs = self._inputs(shapes)
        if self._functions:
            NODES.check(self._size(raw.nodes, 0), self._where, GraphError)
        outputs = [value.name for value in raw.outputs]
        self._add_all(raw.nodes, outputs, Scope(opset=max(opset, OLDEST_OPSET)))
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
        for value in values:
            shape = given.get(value.name)
            if shape is None:
                continue
            RANK.check(len(shape), f"{self._where}: the input {value.name!r}", GraphError)
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
                    self._symbols[dim] = size
            if value.dims and shape and not isinstance(value.dims[0], int):
                self._batch = shape[0]
        for value in values:
            shape = given[value.name] if value.name in given else self._settled(value)
            for size in shape:
                DIMENSION.check(size, f"{self._where}: the input {value.name!r}", GraphError)
            self._tensors[value.name] = Tensor(value.name, shape, value.dtype or "float32")
        return tuple(names)

    def _settled(self, value: wire.RawValue) -> tuple[int, ...]:
        """The input's shape; symbols that another input settles are known, an unset batch is 1."""
        if value.dims is None:
            raise GraphError(
                f"{self._where}: the input {value.name!r} has no shape; "
                f"give one: --input-shape {value.name}=1,3,224,224"
            )
        RANK.check(len(value.dims), f"{self._where}: the input {value.name!r}", GraphError)
        shape = []
        for index, dim in enumerate(value.dims):
            size = dim if isinstance(dim, int) else self._symbols.get(dim, -1)
            if size < 0 or (dim == 0 and not index):
                if index or dim in _NO_BATCH:
                    raise GraphError(
                        f"{self._where}: dimension {index} ({dim or 'unnamed'}) of the input {value.name!r} "
                        f"is unset; give its shape: --input-shape {value.name}={_wanted(value.dims)}"
                    )
                size = 1
                self._notes.append(
                    f"the unset batch ({dim or 'unnamed'}) of the input {value.name!r} became 1"
                )
                if isinstance(dim, str) and dim:
                    self._symbols[dim] = 1
            shape.append(size)
        return tuple(shape)

    # Nodes

    def _add_all(self, nodes: Sequence[wire.RawNode], results: Iterable[str], scope: Scope) -> None:
        """Add ``nodes``, whose ``results`` something reads."""
        read = {name for node in nodes for name in self._reads(node)}.union(results)
        positions = {id(node): index for index, node in enumerate(nodes)}
        for node in self._sorted(nodes, scope):
            self._add(node, positions[id(node)], scope, read)

    def _size(self, nodes: Sequence[wire.RawNode], depth: int) -> int:
        """Nodes that ``nodes`` become where functions are written out, the larger branch of each ``If``."""
        NESTING.check(depth, self._where, GraphError)
        size = 0
        for node in nodes:
            key = node.domain, node.op_type
            function = self._functions.get(key)
            if function is not None:
                if key not in self._sizes:
                    self._sizes[key] = self._size(function.nodes, depth + 1)
                size += self._sizes[key]
                continue
            branches = [value.span for value in node.attrs.values() if isinstance(value, wire.Subgraph)]
            size += 1 + max((self._size(self._reader.graph(b).nodes, depth + 1) for b in branches), default=0)
        return size

    def _reads(self, node: wire.RawNode) -> Iterable[str]:
        """Tensors that ``node`` reads, those that its subgraphs capture included."""
        yield from (name for name in node.inputs if name)
        for value in node.attrs.values():
            if isinstance(value, wire.Subgraph):
                yield from self._captures(value.span, 1)

    def _captures(self, span: wire.Span, depth: int) -> frozenset[str]:
        """What the graph at ``span`` reads and does not compute."""
        found = self._captured.get(span)
        if found is None:
            NESTING.check(depth, self._where, GraphError)
            inner = self._reader.graph(span)
            names = {name for node in inner.nodes for name in node.inputs if name}
            for node in inner.nodes:
                for value in node.attrs.values():
                    if isinstance(value, wire.Subgraph):
                        names |= self._captures(value.span, depth + 1)
            names.update(item.name for item in inner.outputs)
            names.difference_update(out for node in inner.nodes for out in node.outputs)
            names.difference_update(tensor.name for tensor in inner.initializers)
            names.difference_update(item.name for item in inner.inputs)
            found = self._captured[span] = frozenset(names)
        return found

    def _sorted(self, nodes: Sequence[wire.RawNode], scope: Scope) -> Sequence[wire.RawNode]:
        """``nodes`` so that each comes after those that it reads; as they are where they are in order."""
        producer: dict[str, int] = {}
        for index, node in enumerate(nodes):
            for out in node.outputs:
                if out and (out in producer or scope[out] in self._tensors):
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
                elif scope[read] not in self._tensors and scope[read]:
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

    def _add(self, raw: wire.RawNode, index: int, scope: Scope, read: set[str]) -> None:
        op_type = raw.op_type
        outputs = [scope[out] for out in raw.outputs]
        label = f"{scope.prefix}{raw.name or f'{op_type}_{index}'}"
        function = self._functions.get((raw.domain, op_type))
        if function is not None:
            self._call(raw, function, label, scope)
            return
        if op_type == "Constant" and not raw.domain:
            self._constant(raw, label, outputs, scope)
            return
        inputs = [scope[each] for each in raw.inputs]
        if op_type == "If" and not raw.domain:
            self._resolve(raw, label, inputs, outputs, scope)
            return
        if op_type in _TRAINING_OUTPUTS:
            while len(outputs) > 1 and raw.outputs[len(outputs) - 1] not in read:
                outputs.pop()
        attrs = self._attrs(raw, label, scope)
        if not raw.domain and op_type in _OLDER_DEFAULTS:
            opset, defaults = _OLDER_DEFAULTS[op_type]
            if scope.opset < opset:
                attrs = {**defaults, **attrs}
                if op_type in _FLATTENING and self._flattened(raw, label, inputs, outputs, attrs):
                    return
        name = self._unique(f"{scope.prefix}{raw.name}" if raw.name else "", label)
        self._place(Node(name, op_type, tuple(inputs), tuple(outputs), MappingProxyType(attrs), raw.domain))

    def _flattened(
        self, raw: wire.RawNode, label: str, inputs: Sequence[str], outputs: Sequence[str], attrs: dict[str, Attr]
    ) -> bool:
        """Write a softmax over several dimensions at once as one over the rows of a matrix, where it is that."""
        x = self._tensors.get(inputs[0]) if len(inputs) == 1 and len(outputs) == 1 else None
        axis = attrs["axis"]
        if x is None or not isinstance(axis, int) or not -len(x.shape) <= axis < len(x.shape):
            return False
        axis %= len(x.shape)
        wide = [index for index in range(axis, len(x.shape)) if x.shape[index] != 1]
        if len(wide) < 2:
            attrs["axis"] = wide[0] if wide else axis
            return False
        matrix = Tensor(f"{label}/matrix", (2,), "int64", True, (prod(x.shape[:axis]), prod(x.shape[axis:])))
        back = Tensor(f"{label}/shape", (len(x.shape),), "int64", True, x.shape)
        self._tensors |= {matrix.name: matrix, back.name: back}
        rows, done = f"{label}/rows", f"{label}/done"
        self._place(Node(self._unique("", rows), "Reshape", (x.name, matrix.name), (rows,)))
        name = self._unique(raw.name, label)
        self._place(Node(name, raw.op_type, (rows,), (done,), MappingProxyType({**attrs, "axis": -1})))
        allowed = MappingProxyType({"allowzero": 1})
        self._place(Node(self._unique("", done), "Reshape", (done, back.name), (outputs[0],), allowed))
        return True

    def _place(self, node: Node) -> None:
        tensors = self._tensors
        NODES.check(len(self._nodes) + 1, self._where, GraphError)
        inputs = [tensors[read] if read else None for read in node.inputs]
        if node.op_type in RULES.get(node.domain, ()):
            results = self._inferred(node, inputs)
        else:
            results = self._stated_outputs(node)
        for tensor in results:
            if len(tensor.shape) > RANK.most or max(tensor.shape, default=0) > DIMENSION.most:
                place = f"{self._where}: node {node.name!r} ({node.op_type})"
                RANK.check(len(tensor.shape), place, GraphError)
                DIMENSION.check(max(tensor.shape), place, GraphError)
            tensors[tensor.name] = tensor
        self._nodes.append(node)

    def _inferred(self, node: Node, inputs: Sequence[Tensor | None]) -> Sequence[Tensor]:
        try:
            return infer(node, inputs)
        except ShapeError as error:
            advice = ""
            if self._external.absent and any(each and each.const and each.value is None for each in inputs):
                files = ", ".join(repr(name) for name in list(self._external.absent)[:3])
                advice = f"; values lie in {files}, not found: give the model by the path beside that file"
            raise ShapeError(f"{self._where}: {error}{advice}") from None

    def _unique(self, given: str, label: str) -> str:
        """``label``, or with a number behind it where it is taken: the first of equal names keeps it."""
        count = self._counts.get(label, 0)
        found = f"{label}_{count}" if count else label
        while found in self._taken or (found in self._given and found != given):
            count += 1
            found = f"{label}_{count}"
        self._counts[label] = count
        self._taken.add(found)
        return found

    def _attrs(self, raw: wire.RawNode, label: str, scope: Scope) -> dict[str, Attr]:
        attrs: dict[str, Attr] = {}
        for key, stated in raw.attrs.items():
            value = scope.values.get(stated.name) if isinstance(stated, wire.Reference) else stated
            if value is None:
                continue
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

    def _constant(self, raw: wire.RawNode, label: str, outputs: Sequence[str], scope: Scope) -> None:
        if not outputs:
            raise GraphError(f"{self._where}: node {label!r} (Constant) has no output")
        for stated in raw.attrs.values():
            value = scope.values.get(stated.name) if isinstance(stated, wire.Reference) else stated
            if isinstance(value, Tensor):
                self._tensors[outputs[0]] = Tensor(outputs[0], value.shape, value.dtype, True, value.value)
                return
        attrs = MappingProxyType(self._attrs(raw, label, scope))
        (self._tensors[outputs[0]],) = self._inferred(Node(label, raw.op_type, (), tuple(outputs), attrs), ())

    # Bodies put in the place of the node that holds or calls them

    def _resolve(
        self, raw: wire.RawNode, label: str, inputs: Sequence[str], outputs: Sequence[str], scope: Scope
    ) -> None:
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
        label = self._unique(raw.name, label)
        graph = self._reader.graph(branch.span)
        if len(graph.outputs) != len(outputs):
            raise GraphError(
                f"{self._where}: node {label!r} (If): its {taken} has {len(graph.outputs)} outputs"
            )
        own = {tensor.name: f"{label}/{tensor.name}" for tensor in graph.initializers}
        for tensor in graph.initializers:
            self._tensors[own[tensor.name]] = replace(tensor, name=own[tensor.name])
        outer = scope.names.maps if isinstance(scope.names, ChainMap) else [scope.names]
        inner = replace(scope, names=ChainMap(own, *outer), depth=scope.depth + 1)
        self._inline(graph.nodes, [value.name for value in graph.outputs], outputs, own, inner, label)

    def _call(self, raw: wire.RawNode, function: wire.RawFunction, label: str, scope: Scope) -> None:
        """Put the nodes of a function of the model in the place of its call."""
        if len(raw.inputs) > len(function.inputs) or len(raw.outputs) > len(function.outputs):
            raise GraphError(f"{self._where}: node {label!r} gives its function {raw.op_type!r} too much")
        label = self._unique(label if raw.name else "", label)
        given = [scope[read] for read in raw.inputs]
        own = dict(zip(function.inputs, given + [""] * (len(function.inputs) - len(given)), strict=True))
        values = {**function.defaults}
        for key, value in raw.attrs.items():
            known = scope.values.get(value.name) if isinstance(value, wire.Reference) else value
            if known is not None:
                values[key] = known
        opset = max(function.opsets.get("", scope.opset), OLDEST_OPSET)
        inner = Scope(own, values, opset, scope.depth + 1, f"{label}/")
        self._inline(function.nodes, function.outputs, [scope[out] for out in raw.outputs], own, inner, label)

    def _inline(
        self,
        nodes: Sequence[wire.RawNode],
        results: Sequence[str],
        outputs: Sequence[str],
        own: dict[str, str],
        scope: Scope,
        label: str,
    ) -> None:
        """Add a body; what it computes as ``results`` are ``outputs`` of the graph.

        Bodies may use the names of other bodies: within one, names start with the node's. ``own`` is where
        ``scope`` looks first.
        """
        NESTING.check(scope.depth, f"{self._where}: node {label!r}", GraphError)
        computed = {out for node in nodes for out in node.outputs if out and node.op_type != "Constant"}
        own.update((out, f"{label}/{out}") for node in nodes for out in node.outputs if out)
        copies = []
        bound: set[str] = set()
        for result, out in zip(results, outputs, strict=False):
            if result in computed and result not in bound and out:
                own[result] = out
                bound.add(result)
            elif out:
                copies.append((result, out))
        self._add_all(nodes, results, scope)
        for result, out in copies:
            if scope[result] not in self._tensors:
                raise GraphError(f"{self._where}: node {label!r} gives {result!r}, which nothing computes")
            self._place(Node(self._unique("", f"{label}/{out}"), "Identity", (scope[result],), (out,)))

    # Shapes that the file states, for operators without a rule

    def _stated_outputs(self, node: Node) -> tuple[Tensor, ...]:
        if self._stated is None:
            values = [self._reader.value(span) for span in self._raw.stated] + self._raw.outputs
            self._stated = {value.name: value for value in values}
        found = []
        for out in node.outputs:
            if not out:
                continue
            value = self._stated.get(out)
            shape = self._filled(value.dims) if value is not None and value.dims is not None else None
            if value is None or shape is None:
                operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
                raise UnsupportedOperatorError(
                    f"{self._where}: node {node.name!r}: the operator {operator} has no shape rule and the "
                    f"file does not state the shape of {out!r}; add it to the file's value_info"
                )
            found.append(Tensor(out, shape, value.dtype or "float32"))
        return tuple(found)

    def _filled(self, dims: Sequence[int | str]) -> tuple[int, ...] | None:
        """``dims`` with what the inputs say of symbols and of an unnamed batch."""
        shape = []
        for index, dim in enumerate(dims):
            size = dim if isinstance(dim, int) else self._symbols.get(dim, -1)
            if size < 0 or (dim == 0 and not index):
                if index or (isinstance(dim, str) and dim):
                    return None
                size = self._batch
            shape.append(size)
        return tuple(shape)


def _wanted(dims: Sequence[int | str]) -> str:
    """Dimensions as ``--input-shape`` takes them, those to be filled in by name."""
    return ",".join(str(dim) if isinstance(dim, int) and dim > 0 else str(dim or "N").upper() for dim in dims)
