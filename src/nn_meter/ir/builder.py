"""Writes graphs operator by operator, shapes inferred on the way."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from types import MappingProxyType

from nn_meter.ir.graph import Attr, Graph, Node, Tensor, verify
from nn_meter.ir.shapes import infer


class GraphBuilder:
    """Collects nodes into a graph.

    >>> b = GraphBuilder("example")
    >>> x = b.input((1, 3, 8, 8))
    >>> y = b.op("Relu", b.op("Conv", x, b.weight((4, 3, 3, 3)), pads=(1, 1, 1, 1)))
    >>> b.graph(y).tensors[y].shape
    (1, 4, 8, 8)
    """

    def __init__(self, name: str = "graph") -> None:
        self._name = name
        self._nodes: list[Node] = []
        self._tensors: dict[str, Tensor] = {}
        self._inputs: list[str] = []
        self._count: dict[str, int] = {}

    def fresh(self, stem: str) -> str:
        """A name that starts with ``stem`` and is not taken yet."""
        count = self._count.get(stem, 0)
        self._count[stem] = count + 1
        return f"{stem}_{count}"

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of the tensor ``name``."""
        return self._tensors[name].shape

    def dtype(self, name: str) -> str:
        """Element type of the tensor ``name``."""
        return self._tensors[name].dtype

    def input(self, shape: Sequence[int], dtype: str = "float32", name: str = "") -> str:
        """A tensor that the caller provides; returns its name."""
        name = name or self.fresh("input")
        self._tensors[name] = Tensor(name, tuple(shape), dtype)
        self._inputs.append(name)
        return name

    def weight(self, shape: Sequence[int], dtype: str = "float32", name: str = "") -> str:
        """A constant whose values do not matter; returns its name."""
        name = name or self.fresh("weight")
        self._tensors[name] = Tensor(name, tuple(shape), dtype, const=True)
        return name

    def const(
        self,
        value: Sequence[int | float] | int | float,
        dtype: str = "int64",
        shape: Sequence[int] | None = None,
    ) -> str:
        """A constant whose values decide shapes or rules; a bare number gives a scalar. Returns its name."""
        values = (value,) if isinstance(value, int | float) else tuple(value)
        dims = (
            tuple(shape) if shape is not None else (() if isinstance(value, int | float) else (len(values),))
        )
        name = self.fresh("const")
        self._tensors[name] = Tensor(name, dims, dtype, const=True, value=values)
        return name

    def op(self, op_type: str, *inputs: str, domain: str = "", **attrs: Attr) -> str:
        """Add an operator of one output; returns the output's name."""
        return self.multi(op_type, inputs, 1, domain=domain, **attrs)[0]

    def multi(
        self, op_type: str, inputs: Sequence[str], outputs: int, domain: str = "", **attrs: Attr
    ) -> tuple[str, ...]:
        """Add an operator of several outputs; returns their names."""
        name = self.fresh(op_type)
        names = tuple(f"{name}:{i}" if outputs > 1 else f"{name}:out" for i in range(outputs))
        node = Node(name, op_type, tuple(inputs), names, MappingProxyType(dict(attrs)), domain)
        for tensor in infer(node, [self._tensors[i] if i else None for i in inputs]):
            self._tensors[tensor.name] = tensor
        self._nodes.append(node)
        return names

    def begun(self) -> tuple[int, int, int]:
        """How much is written, for ``only`` and ``back``."""
        return len(self._nodes), len(self._inputs), len(self._tensors)

    def only(self, begun: tuple[int, int, int], *outputs: str) -> Graph:
        """What was written since then, which reads nothing from before; not verified."""
        nodes, inputs, tensors = begun
        own = MappingProxyType(dict(islice(self._tensors.items(), tensors, None)))
        return Graph(self._name, tuple(self._nodes[nodes:]), own, tuple(self._inputs[inputs:]), outputs)

    def back(self, begun: tuple[int, int, int]) -> None:
        """Take back what was written since then; its names stay taken."""
        nodes, inputs, tensors = begun
        for name in list(islice(self._tensors, tensors, None)):
            del self._tensors[name]
        del self._nodes[nodes:], self._inputs[inputs:]

    def graph(self, *outputs: str) -> Graph:
        """The graph so far, verified."""
        return verify(
            Graph(
                self._name,
                tuple(self._nodes),
                MappingProxyType(dict(self._tensors)),
                tuple(self._inputs),
                outputs,
            )
        )
