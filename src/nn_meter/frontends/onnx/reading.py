"""One ONNX model on its way to a graph: inputs get their shapes, nodes their order, operators their results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from math import prod
from types import MappingProxyType

from nn_meter.errors import GraphError, InputError, UnsupportedOperatorError
from nn_meter.frontends._names import Names
from nn_meter.frontends.onnx import control, sequences, wire
from nn_meter.frontends.onnx.external import External
from nn_meter.frontends.onnx.inputs import Asked, Inputs
from nn_meter.frontends.onnx.older import OLDER_DEFAULTS
from nn_meter.frontends.onnx.scope import NEWEST_OPSET, OLDEST_OPSET, Scope, fitting
from nn_meter.ir import Attr, Graph, Node, ShapeError, Tensor, execution_order, infer, verify
from nn_meter.ir.graph import NO_ATTRS
from nn_meter.ir.shapes import FOUND, RULES, ValueNeeded
from nn_meter.limits import DIMENSION, ELEMENTS, LETTERS, NESTING, RANK, written_out

_TRAINING_OUTPUTS = frozenset(("BatchNormalization", "Dropout"))
"""Operators whose further outputs exist for training; those that nothing reads are left out."""

_FLATTENING = frozenset(("Softmax", "LogSoftmax", "Hardmax"))
"""Before opset 13 they work on a matrix: all dimensions from the axis on are one row."""

_LARGEST = DIMENSION.most

_ADDED = wire.RawNode("", "", "", (), (), {})

Functions = Mapping[tuple[str, str], wire.RawFunction]
"""Domain and name to function."""


class Reading:
    """One model on its way to a graph: what is known of it so far, and how its parts add to that."""

    def __init__(
        self,
        reader: wire.GraphReader,
        where: str,
        raw: wire.RawGraph,
        functions: Functions,
        external: External,
        asked: Asked,
        size: int,
    ) -> None:
        self.most, self._most_bodies, self._most_tensors = written_out(size)
        self.body = cache(reader.graph)  # each is read once, however often it runs
        self.where = where
        self.tensors: dict[str, Tensor] = {}
        self.sequences: dict[str, tuple[str, ...]] = {}
        self.notes: list[str] = []
        self.assumed: list[str] = []
        self._value = reader.value
        self._raw = raw
        self._functions = functions
        self._external = external
        self._asked = asked
        self._unused = {*asked.values, *asked.counts}
        self._nodes: list[Node] = []
        self.unique = Names([node.name for node in raw.nodes if node.name]).unique
        self._kept = self._inlined = self._letters = 0
        self._sizes: dict[int, int] = {}
        self._stated: dict[str, wire.RawValue] | None = None
        self._captured: dict[wire.Span, frozenset[str]] = {}
        # Before IR version 4, initialisers are listed among the inputs.
        weights = {tensor.name for tensor in raw.initializers}
        self._inputs = Inputs(where, [each for each in raw.inputs if each.name not in weights], asked)

    def graph(self, model: wire.RawModel, name: str | None) -> Graph:
        """The graph, verified."""
        raw = self._raw
        opset = model.opsets.get("", OLDEST_OPSET)
        known = min(max(opset, OLDEST_OPSET), NEWEST_OPSET)
        if opset != known:
            age = "older" if opset < known else "newer"
            self.notes.append(f"opset {opset} is {age} than {known}; read as if it were {known}")
        for tensor in raw.initializers:
            self.tensors[tensor.name] = tensor
        inputs = self._inputs.tensors()
        self.notes += self._inputs.notes
        for tensor in inputs:
            self.tensors[tensor.name] = self._valued(tensor)
        if self._functions:
            self.most.check(self.size(raw.nodes, 0), self.where, GraphError)
        outputs = [value.name for value in raw.outputs]
        self._add_all(raw.nodes, outputs, Scope(opset=known), again=False)
        if self._unused:
            raise InputError(
                f"{self.where}: a value or a count is stated for {', '.join(sorted(self._unused))}, which is no tensor "
                "and no node whose number the data decides; nn-meter explain --json shows nodes by name"
            )
        try:
            return verify(
                Graph(
                    name or raw.name or "model",
                    tuple(self._nodes),
                    MappingProxyType(self.tensors),
                    tuple(tensor.name for tensor in inputs),
                    tuple(each for out in outputs for each in self.sequences.get(out, (out,))),
                    tuple(dict.fromkeys(self.notes)),
                    tuple(dict.fromkeys(self.assumed)),
                    MappingProxyType(self._stated_dims() if self._inputs.free else {}),
                )
            )
        except GraphError as error:
            raise GraphError(f"{self.where}: {error}") from None

    def _valued(self, tensor: Tensor) -> Tensor:
        """``tensor`` with the value that the caller states."""
        if tensor.name not in self._asked.values:
            return tensor
        self._unused.discard(tensor.name)
        stated = self._asked.values[tensor.name]
        value = (stated,) if isinstance(stated, int | float) else tuple(stated)
        if len(value) != tensor.size:
            raise InputError(
                f"{self.where}: {len(value)} values are stated for {tensor.name!r}, whose shape is {tensor.shape}; "
                f"give {tensor.size}, separated by commas"
            )
        return replace(tensor, const=True, value=value)

    def count(self, label: str) -> int | None:
        """How often the caller says that a loop runs, or how many elements an operator finds."""
        self._unused.discard(label)
        return self._asked.counts.get(label)

    # Nodes

    def _add_all(self, nodes: list[wire.RawNode], results: Iterable[str], scope: Scope, again: bool = True) -> None:
        """Add ``nodes``, whose ``results`` something reads; where they are not wanted ``again``, what becomes of them
        may take their place."""
        read: set[str] = set()
        if any(node.op_type in _TRAINING_OUTPUTS for node in nodes):
            read = {name for node in nodes for name in self._reads(node) if name}.union(results)
        for index in self._order(nodes, scope):
            self._add(nodes[index], index, scope, read)
            if not again:
                nodes[index] = _ADDED

    def size(self, nodes: Sequence[wire.RawNode], depth: int) -> int:
        """Nodes that ``nodes`` become where functions are written out, the larger branch of each ``If``."""
        key = id(nodes)  # the file's lists stay as long as this does
        if key not in self._sizes:
            NESTING.check(depth, self.where, GraphError)
            size = 0
            for node in nodes:
                function = self._functions.get((node.domain, node.op_type))
                if function is not None:
                    size += self.size(function.nodes, depth + 1)
                    continue
                branches = [value.span for value in node.attrs.values() if isinstance(value, wire.Subgraph)]
                size += 1 + max((self.size(self.body(each).nodes, depth + 1) for each in branches), default=0)
            self._sizes[key] = size
        return self._sizes[key]

    def _reads(self, node: wire.RawNode) -> Iterable[str]:
        """Tensors that ``node`` reads, ``""`` for one left out, those that its subgraphs capture included."""
        spans = [value.span for value in node.attrs.values() if isinstance(value, wire.Subgraph)] if node.attrs else ()
        return {*node.inputs}.union(*[self._captures(span, 1) for span in spans]) if spans else node.inputs

    def _captures(self, span: wire.Span, depth: int) -> frozenset[str]:
        """What the graph at ``span`` reads and does not compute."""
        found = self._captured.get(span)
        if found is None:
            NESTING.check(depth, self.where, GraphError)
            inner = self.body(span)
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

    def _order(self, nodes: Sequence[wire.RawNode], scope: Scope) -> Sequence[int]:
        """Places of ``nodes`` so that each comes after those that it reads; as they are where they are in order."""
        computed: dict[str, None] = {}
        early: dict[str, wire.RawNode] = {}  # what is read before a node of the list computes it, if one does
        for node in nodes:
            for read in self._reads(node) if node.attrs else node.inputs:
                if read not in computed and read:
                    early.setdefault(read, node)
            for out in node.outputs:
                if out in computed:
                    raise self._twice(out)
                if out:
                    computed[out] = None
        names = scope.all((*computed,)) if scope.names else computed.keys()
        for known in (self.tensors, self.sequences):
            if not known.keys().isdisjoint(names):
                raise self._twice(next(out for out, name in zip(computed, names, strict=True) if name in known))
        for (read, node), name in zip(early.items(), scope.all((*early,)), strict=True):
            if name not in self.tensors and read not in computed and name and name not in self.sequences:
                raise GraphError(
                    f"{self.where}: node {node.name or node.op_type!r} ({node.op_type}) reads {read!r}, "
                    "which nothing computes"
                )
        if computed.keys().isdisjoint(early):
            return range(len(nodes))
        producer = {out: index for index, node in enumerate(nodes) for out in node.outputs if out}
        order, stuck = execution_order([{producer[n] for n in self._reads(node) if n in producer} for node in nodes])
        if stuck is not None:
            name = nodes[stuck].name or nodes[stuck].op_type
            raise GraphError(f"{self.where}: the graph has a cycle through or before node {name!r}")
        return order

    def _twice(self, out: str) -> GraphError:
        return GraphError(f"{self.where}: tensor {out!r} is computed or given twice; names must be unique")

    def _add(self, raw: wire.RawNode, index: int, scope: Scope, read: set[str]) -> None:
        op_type = raw.op_type
        outputs = scope.all(raw.outputs)
        label = scope.prefix + (raw.name or f"{op_type}_{index}")  # without a prefix the very text, not a copy
        function = self._functions.get((raw.domain, op_type)) if self._functions else None
        if function is not None:
            self._call(raw, function, label, scope)
            return
        if op_type == "Constant" and not raw.domain:
            self._constant(raw, label, outputs, scope)
            return
        inputs = scope.all(raw.inputs)
        if op_type in control.ROWS and not raw.domain:
            with fitting(self.where, label, op_type):
                control.ROWS[op_type](self, raw, label, inputs, outputs, scope)
            return
        if op_type in _TRAINING_OUTPUTS:
            while len(outputs) > 1 and raw.outputs[len(outputs) - 1] not in read:
                outputs = outputs[:-1]
        attrs = self._attrs(raw, label, scope)
        if op_type in sequences.ROWS and not raw.domain:
            with fitting(self.where, label, op_type):
                sequences.ROWS[op_type](self, label, inputs, outputs, attrs)
            return
        if op_type == "Identity" and inputs and inputs[0] in self.sequences:
            self.same(inputs[0], outputs[0], label)
            return
        if not raw.domain and op_type in OLDER_DEFAULTS:
            opset, defaults = OLDER_DEFAULTS[op_type]
            if scope.opset < opset:
                attrs = {**defaults, **attrs}
                if op_type in _FLATTENING and self._flattened(raw, label, inputs, outputs, attrs):
                    return
        name = self.unique(label, label if raw.name else "")
        given = MappingProxyType(attrs) if attrs else NO_ATTRS
        self._place(Node(name, op_type, inputs, outputs, given, raw.domain))

    def write(self, op_type: str, label: str, inputs: Sequence[str], outputs: Sequence[str], **attrs: Attr) -> None:
        """Add a node of ONNX's own domain; ``label`` is its name where that is not taken."""
        self._place(Node(self.unique(label, label), op_type, tuple(inputs), tuple(outputs), MappingProxyType(attrs)))

    def same(self, source: str, out: str, label: str) -> None:
        """``out`` is ``source`` under another name."""
        if source in self.sequences:
            self.sequences[out] = self.sequences[source]
        elif source in self.tensors:
            self.write("Identity", f"{label}/{out}", (source,), (out,))
        else:
            raise GraphError(f"{self.where}: node {label!r} gives {source!r}, which nothing computes")

    def keep(self, name: str, parts: sequences.Elements) -> None:
        """``name`` is a sequence of ``parts``."""
        self._kept += len(parts)
        ELEMENTS.check(self._kept, self.where, GraphError)
        self.sequences[name] = parts

    def hold(self, name: str, dtype: str, value: int) -> str:
        """A scalar constant; returns its name."""
        self.tensors[name] = Tensor(name, (), dtype, True, (value,))
        return name

    def _flattened(
        self, raw: wire.RawNode, label: str, inputs: Sequence[str], outputs: Sequence[str], attrs: dict[str, Attr]
    ) -> bool:
        """Write a softmax over several dimensions at once as one over the rows of a matrix, where it is that."""
        x = self.tensors.get(inputs[0]) if len(inputs) == 1 and len(outputs) == 1 else None
        axis = attrs["axis"]
        if x is None or not isinstance(axis, int) or not -len(x.shape) <= axis < len(x.shape):
            return False
        axis %= len(x.shape)
        wide = [index for index in range(axis, len(x.shape)) if x.shape[index] != 1]
        if len(wide) < 2:
            attrs |= {"axis": wide[0] if wide else axis, "opset": 12}
            return False
        matrix = Tensor(f"{label}/matrix", (2,), "int64", True, (prod(x.shape[:axis]), prod(x.shape[axis:])))
        back = Tensor(f"{label}/shape", (len(x.shape),), "int64", True, x.shape)
        self.tensors |= {matrix.name: matrix, back.name: back}
        rows, done = f"{label}/rows", f"{label}/done"
        empty = {"allowzero": 1} if 0 in x.shape else {}  # else a 0 would be taken from the input
        self.write("Reshape", rows, (x.name, matrix.name), (rows,), **empty)
        name = self.unique(label, raw.name)
        older = MappingProxyType({**attrs, "axis": -1, "opset": 12})
        self._place(Node(name, raw.op_type, (rows,), (done,), older))
        self.write("Reshape", done, (done, back.name), (outputs[0],), allowzero=1)
        return True

    def _place(self, node: Node) -> None:
        tensors = self.tensors
        if len(self._nodes) >= self.most.most:
            self.most.check(len(self._nodes) + 1, self.where, GraphError)
        inputs = [tensors.get(read) if read else None for read in node.inputs]
        if self.sequences and None in inputs and any(read in self.sequences for read in node.inputs):
            raise UnsupportedOperatorError(
                f"{self.where}: node {node.name!r} ({node.op_type}) reads a sequence, and has no rule for one; export "
                "the model with tensors in its place"
            )
        if node.op_type in RULES.get(node.domain, ()):
            results = self._inferred(node, inputs)
            if node.op_type in FOUND:
                results = self._found(node, inputs, results)
        else:
            results = self._stated_outputs(node)
        for tensor in results:
            shape = tensor.shape
            if shape and (max(shape) > _LARGEST or len(shape) > RANK.most):
                place = f"{self.where}: node {node.name!r} ({node.op_type})"
                RANK.check(len(shape), place, GraphError)
                DIMENSION.check(max(shape), place, GraphError)
            tensors[tensor.name] = self._valued(tensor) if self._asked.values else tensor
        self._nodes.append(node)

    def _inferred(self, node: Node, inputs: Sequence[Tensor | None]) -> Sequence[Tensor]:
        try:
            return infer(node, inputs)
        except ShapeError as error:
            advice = ""
            if self._external.absent and any(each and each.const and each.value is None for each in inputs):
                files = ", ".join(repr(name) for name in list(self._external.absent)[:3])
                advice = f"; values lie in {files}, not found: give the model by the path beside that file"
            elif isinstance(error, ValueNeeded):
                name = error.tensor
                size = next((each.size for each in inputs if each and each.name == name), 1)
                some = ",".join(map(str, range(1, min(max(size, 1), RANK.most) + 1)))
                advice = f"; state them: --input-value {name}={some} (in Python input_values={{{name!r}: [{some}]}})"
            raise ShapeError(f"{self.where}: {error}{advice}") from None

    def _found(self, node: Node, inputs: Sequence[Tensor | None], results: Sequence[Tensor]) -> Sequence[Tensor]:
        """Results whose size the data decides: as many as the caller states, else as the file does, else the most."""
        place, axes_of = FOUND[node.op_type]
        decides = inputs[place] if place < len(inputs) else None
        if decides is None or decides.value is not None:
            return results
        axes = axes_of(node.attrs)
        stated = self.count(node.name)
        sizes = {}
        for index, axis in axes.items():
            if index < len(node.outputs) and node.outputs[index]:
                value = self._stated_value(node.outputs[index])
                dims = (value.dims if value is not None else None) or ()
                size = self._inputs.size(dims[axis]) if -len(dims) <= axis < len(dims) else -1
                sizes[node.outputs[index]] = axis, size
        first = next((each for each in results if each.name in sizes), None)
        if first is None:
            return results
        most = first.shape[sizes[first.name][0]]
        if stated is not None and stated > most:
            raise InputError(f"{self.where}: node {node.name!r} ({node.op_type}) finds {most} at most, not {stated}")
        counts = {size for _, size in sizes.values() if size >= 0}
        count = stated if stated is not None else counts.pop() if len(counts) == 1 else None
        if count is None:
            count = most
            self.assumed.append(
                f"the data decides how many elements node {node.name!r} ({node.op_type}) finds; {count}, the most "
                f"there can be, were assumed: --count {node.name}=N states another number"
            )
        fixed = []
        for tensor in results:
            shape = list(tensor.shape)
            if tensor.name in sizes:
                shape[sizes[tensor.name][0]] = count
            fixed.append(replace(tensor, shape=tuple(shape)))
        return fixed

    def _attrs(self, raw: wire.RawNode, label: str, scope: Scope) -> dict[str, Attr]:
        attrs: dict[str, Attr] = {}
        for key, stated in raw.attrs.items():
            value = scope.values.get(stated.name) if type(stated) is wire.Reference else stated
            if isinstance(value, wire.PLAIN):
                attrs[key] = value
            elif isinstance(value, wire.Subgraph):
                raise UnsupportedOperatorError(
                    f"{self.where}: node {label!r} ({raw.op_type}) runs a subgraph in a way that shapes do not tell; "
                    "export the model without it"
                )
            elif isinstance(value, Tensor) and raw.op_type == "ConstantOfShape":
                attrs["value"] = value.value[0] if value.value else 0
                attrs["dtype"] = value.dtype
            elif value is not None:
                what = value.what if isinstance(value, wire.Opaque) else "a tensor"
                self.notes.append(f"node {label!r} ({raw.op_type}): the attribute {key!r} ({what}) was left out")
        return attrs

    def _constant(self, raw: wire.RawNode, label: str, outputs: Sequence[str], scope: Scope) -> None:
        if not outputs:
            raise GraphError(f"{self.where}: node {label!r} (Constant) has no output")
        for stated in raw.attrs.values():
            value = scope.values.get(stated.name) if isinstance(stated, wire.Reference) else stated
            if isinstance(value, Tensor):
                self.tensors[outputs[0]] = Tensor(outputs[0], value.shape, value.dtype, True, value.value)
                return
        attrs = MappingProxyType(self._attrs(raw, label, scope))
        (self.tensors[outputs[0]],) = self._inferred(Node(label, raw.op_type, (), tuple(outputs), attrs), ())

    # Bodies put in the place of the node that holds or calls them

    def _call(self, raw: wire.RawNode, function: wire.RawFunction, label: str, scope: Scope) -> None:
        """Put the nodes of a function of the model in the place of its call."""
        if len(raw.inputs) > len(function.inputs) or len(raw.outputs) > len(function.outputs):
            raise GraphError(f"{self.where}: node {label!r} gives its function {raw.op_type!r} too much")
        label = self.unique(label, label if raw.name else "")
        given = [scope[read] for read in raw.inputs]
        own = dict(zip(function.inputs, given + [""] * (len(function.inputs) - len(given)), strict=True))
        values = {**function.defaults}
        for key, value in raw.attrs.items():
            known = scope.values.get(value.name) if isinstance(value, wire.Reference) else value
            if known is not None:
                values[key] = known
        opset = max(function.opsets.get("", scope.opset), OLDEST_OPSET)
        inner = Scope(own, values, opset, scope.depth + 1, f"{label}/")
        self.inline(function.nodes, function.outputs, [scope[out] for out in raw.outputs], own, inner, label)

    def inline(
        self,
        nodes: list[wire.RawNode],
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
        self._inlined += 1  # bodies may be empty
        self._letters += sum(len(label) + len(name) for node in nodes for name in (node.name, *node.outputs))
        grown = (NESTING, scope.depth), (self._most_bodies, self._inlined), (LETTERS, self._letters)
        for limit, found in (*grown, (self._most_tensors, len(self.tensors))):
            limit.check(found, f"{self.where}: node {label!r}", GraphError)
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
            self.same(scope[result], out, label)

    # Shapes that the file states

    def _stated_dims(self) -> dict[str, tuple[int | str, ...]]:
        values = (*self._all_stated().values(), *self._raw.inputs)
        return {value.name: tuple(value.dims) for value in values if value.dims}

    def _stated_value(self, out: str) -> wire.RawValue | None:
        return self._all_stated().get(out)

    def _all_stated(self) -> Mapping[str, wire.RawValue]:
        """What ``value_info`` and the outputs state of tensors."""
        if self._stated is None:
            values = [self._value(span) for span in self._raw.stated] + self._raw.outputs
            self._stated = {value.name: value for value in values}
        return self._stated

    def _stated_outputs(self, node: Node) -> tuple[Tensor, ...]:
        found = []
        for out in node.outputs:
            if not out:
                continue
            value = self._stated_value(out)
            shape = self._inputs.filled(value.dims) if value is not None and value.dims is not None else None
            if value is None or shape is None:
                operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
                raise UnsupportedOperatorError(
                    f"{self.where}: node {node.name!r}: the operator {operator} has no shape rule and the "
                    f"file does not state the shape of {out!r}; add it to the file's value_info"
                )
            found.append(Tensor(out, shape, value.dtype or "float32"))
        return tuple(found)
