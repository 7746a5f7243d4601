"""Writes ONNX nodes for operators whose images lie channels last, and keeps account of axes.

A value of four or more dimensions that convolutions, pools and the like read with its channels last is an
*image*: the graph holds it logically, channels second, and nothing is inserted for that. Each value remembers
which axis of the source each axis of its tensor shows (its *layout*), so axes, paddings and shapes are
translated where they are read. Where an operator needs the source's order of axes and the tensor shows
another (a matrix product over the channels of an image), a ``Reshape`` says so: it moves no data, as in the
source.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from nn_meter.errors import GraphError, ModelFormatError, UnsupportedOperatorError
from nn_meter.frontends._names import Names
from nn_meter.frontends.tensorflow.flow import Op
from nn_meter.ir.graph import Attr, Node, Tensor
from nn_meter.ir.shapes import infer

Layout = tuple[int, ...]
Shape = tuple[int, ...]

_MOST_OUTPUTS: Final = 65_536


def plain(rank: int) -> Layout:
    """The axes in the source's order."""
    return tuple(range(rank))


def image(rank: int) -> Layout:
    """The axes of an image, stored (N, H, W, C), as the graph shows them, (N, C, H, W)."""
    return (0, rank - 1, *range(1, rank - 1))


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the source: its tensor in the graph, and the source's axis that each axis of it shows."""

    tensor: Tensor
    layout: Layout

    @property
    def shape(self) -> Shape:
        """The shape in the source's order of axes."""
        dims = dict(zip(self.layout, self.tensor.shape, strict=True))
        return tuple(dims[axis] for axis in range(len(dims)))


class Lowering:
    """Collects nodes and tensors of the graph while operators are read in order.

    Args:
        source: The model, for error texts.
        images: Names of the operators whose results of four and more dimensions are images.
    """

    def __init__(self, source: str, images: AbstractSet[str]) -> None:
        self.source = source
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.inputs: list[str] = []
        self.values: dict[str, Value] = {}
        self._images = images
        self.unique = Names().unique
        self._views: dict[tuple[str, Layout | Shape, bool], str] = {}

    def value(self, key: str) -> Value:
        """The value called ``key``, which an earlier operator computed."""
        if key not in self.values:
            raise ModelFormatError(f"{self.source}: {key!r} is read, but its operator has no such output")
        return self.values[key]

    def shape(self, key: str) -> Shape:
        """Shape of a value, in the source's order of axes."""
        return self.value(key).shape

    def rank(self, key: str) -> int:
        """Number of dimensions of a value."""
        return len(self.value(key).layout)

    def numbers(self, op: Op, key: str) -> tuple[int | float, ...]:
        """The elements of a value that decides shapes.

        Raises:
            UnsupportedOperatorError: it is not constant, or too long to be known.
        """
        found = self.value(key).tensor.value
        if found is None:
            raise UnsupportedOperatorError(
                f"{self.source}: node {op.name!r} ({op.kind}) takes its shape from {key!r}, "
                "whose values only a run knows; export the model with fixed shapes"
            )
        return found

    def ints(self, op: Op, key: str) -> tuple[int, ...]:
        """As ``numbers``, whole."""
        return tuple(int(number) for number in self.numbers(op, key))

    def wanted(self, key: str, rank: int) -> Layout:
        """The layout in which the graph shows the value ``key``."""
        return image(rank) if rank > 3 and key.rpartition(":")[0] in self._images else plain(rank)

    def shared(self, op: Op, *keys: str) -> Layout:
        """The layout of the widest of ``keys`` and of a result that shares it; constants' is plain."""
        rank = max((self.rank(key) for key in keys), default=0)
        if all(self.value(key).tensor.const for key in keys):
            return plain(rank)
        return self.wanted(op.output(), rank)

    def add_input(self, op: Op, name: str, shape: Shape, dtype: str) -> None:
        """A tensor that the caller provides, called ``name``; ``shape`` in the source's order."""
        layout = self.wanted(op.output(), len(shape))
        tensor = Tensor(self.unique(name), tuple(shape[axis] for axis in layout), dtype)
        self.tensors[tensor.name] = tensor
        self.inputs.append(tensor.name)
        self.values[op.output()] = Value(tensor, layout)

    def add_constant(
        self, key: str, name: str, shape: Shape, dtype: str, value: tuple[int | float, ...] | None = None
    ) -> None:
        """A weight, or a constant with its elements."""
        self.values[key] = Value(
            Tensor(self._constant(name, shape, dtype, value), shape, dtype, True, value), plain(len(shape))
        )

    def const(
        self, op: Op, suffix: str, value: Sequence[int | float], dtype: str = "int64", scalar: bool = False
    ) -> str:
        """A constant that ONNX wants as an input where the source has an attribute; returns its name."""
        return self._constant(f"{op.name}/{suffix}", () if scalar else (len(value),), dtype, tuple(value))

    def _constant(self, stem: str, shape: Shape, dtype: str, value: tuple[int | float, ...] | None) -> str:
        name = self.unique(stem)
        self.tensors[name] = Tensor(name, shape, dtype, True, value)
        return name

    def tensor(self, key: str, layout: Layout | None = None) -> str:
        """The name of the tensor that shows a value in ``layout``, the source's own order by default.

        A value of fewer dimensions gets leading ones where the layout is not the plain one.
        """
        value = self.value(key)
        rank = len(value.layout)
        layout = plain(rank) if layout is None else layout
        if value.layout == layout or rank == 0 or (layout == plain(len(layout)) and value.layout == plain(rank)):
            return value.tensor.name
        shape = (1,) * (len(layout) - rank) + value.shape
        return self._view(key, tuple(shape[axis] for axis in layout), layout)

    def reshaped(self, key: str, shape: Shape) -> str:
        """The name of a tensor that shows a value's elements in ``shape``."""
        if self.value(key).tensor.shape == shape:
            return self.value(key).tensor.name
        return self._view(key, shape, None)

    def _view(self, key: str, shape: Shape, layout: Layout | None) -> str:
        memo = (key, layout or shape, layout is None)
        if memo in self._views:
            return self._views[memo]
        tensor = self.value(key).tensor
        if tensor.const:
            moved = layout is not None and sum(dim > 1 for dim in shape) > 1
            name = self._constant(tensor.name + "/nchw", shape, tensor.dtype, None if moved else tensor.value)
        else:
            name = self._relabel(tensor.name, shape, tensor.name + "/view")
        self._views[memo] = name
        return name

    def _relabel(self, name: str, shape: Shape, stem: str) -> str:
        node = self.unique(stem)
        target = self._constant(node + "/shape", (len(shape),), "int64", shape)
        return self._add(Node(node, "Reshape", (name, target), (node,)))[0]

    def emit(
        self,
        op: Op,
        op_type: str,
        inputs: Sequence[str],
        suffix: str = "",
        outputs: int = 1,
        /,
        **attrs: Attr,
    ) -> tuple[str, ...]:
        """Add a node for ``op``; returns the names of its outputs.

        Where all inputs are constant, so is the result, and the node is left out: a runtime computes it once,
        when it loads the model.
        """
        if outputs > _MOST_OUTPUTS:
            raise ModelFormatError(
                f"{self.source}: node {op.name!r} ({op.kind}) has {outputs} outputs; the file is damaged"
            )
        name = self.unique(op.name + suffix)
        names = (name, *(self.unique(f"{name}:{i}") for i in range(1, outputs)))[:outputs]
        origin = op.origin or op.kind
        return self._add(
            Node(
                name,
                op_type,
                tuple(inputs),
                names,
                MappingProxyType(attrs),
                origin="" if origin == op_type else origin,
            )
        )

    def _add(self, node: Node) -> tuple[str, ...]:
        try:
            found = infer(node, [self.tensors[name] if name else None for name in node.inputs])
        except GraphError as error:
            raise GraphError(f"{self.source}: {error}") from error
        for tensor in found:
            self.tensors[tensor.name] = tensor
        if not all(tensor.const for tensor in found):
            self.nodes.append(node)
        return node.outputs

    def bind(self, key: str, name: str, layout: Layout | None = None) -> None:
        """Say that the tensor ``name``, in ``layout`` (plain by default), is the value ``key``."""
        tensor = self.tensors[name]
        layout = plain(len(tensor.shape)) if layout is None else layout
        wanted = plain(len(layout)) if tensor.const else self.wanted(key, len(layout))
        if layout != wanted:
            shape = Value(tensor, layout).shape
            viewed = tuple(shape[axis] for axis in wanted)
            if tensor.const:
                name = self._constant(name + "/plain", viewed, tensor.dtype, None)
            else:
                name = self._relabel(name, viewed, name + "/view")
            tensor = self.tensors[name]
        self.values[key] = Value(tensor, wanted)

    def give(self, op: Op, op_type: str, inputs: Sequence[str], layout: Layout | None = None, /, **attrs: Attr) -> None:
        """Add a node, whose one output, in ``layout``, is the operator's first result."""
        self.bind(op.output(), self.emit(op, op_type, inputs, **attrs)[0], layout)

    def alias(self, key: str, of: str) -> None:
        """Say that ``key`` is another name of the value ``of``."""
        self.values[key] = self.value(of)

    def set_dtype(self, key: str, dtype: str) -> None:
        """Give a value the element type that the source states."""
        value = self.value(key)
        if value.tensor.dtype != dtype:
            tensor = replace(value.tensor, dtype=dtype)
            self.tensors[tensor.name] = tensor
            self.values[key] = Value(tensor, value.layout)
