"""Sizes that a file leaves to each inference: what ONNX Runtime knows of them before, and computes in each.

It infers shapes as ONNX does, and no integers: what comes out of a Reshape whose target is computed has a rank and no
sizes. A Shape is known before inference where all sizes of what it reads are, and so is what is computed of such alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest

from nn_meter.ir import Node, ShapeError, Tensor, infer
from nn_meter.ir.shapes import ValueNeeded
from nn_meter.kernels.rewriting import Dims, Op, Work
from nn_meter.runtimes.base import Options
from nn_meter.runtimes.onnxruntime.pushes import ELEMENTWISE
from nn_meter.runtimes.onnxruntime.views import unfolded

_DOMAIN = "com.microsoft"
"""Its table of shapes holds ONNX's own operators, too."""

_FIRST_FACTOR = 97
"""A size that is not known is told from others by being so many times as large, each name by a factor of its own: what
comes out differs from the true size where it follows from one. Sizes stay divisible by what they were."""

_WINDOWS = frozenset(
    (
        *("Conv", "ConvInteger", "ConvTranspose", "FusedConv", "QLinearConv", "Resize", "Upsample"),
        *("AveragePool", "LpPool", "MaxPool", "QLinearAveragePool"),
    )
)
"""Whose result's height and width have no names, even where they are those of what is read."""

_PRODUCTS = frozenset(("MatMul", "MatMulInteger"))
_BROADCASTING = frozenset(each for each in ELEMENTWISE if "uant" not in each and not each.startswith("QLinear"))
"""Scales of quantised tensors are not aligned with their last axis."""


def compute_shapes(work: Work, options: Options) -> None:
    """What shapes follow from is computed in each inference, where the file does not say it."""
    if work.stated:
        _Sweep(work).compute()


def fuse_reshapes(work: Work, options: Options) -> None:
    """A target that is put together of sizes of what is reshaped, each in its own place, is a constant: 0 for each of
    them, -1 for one of another place. What was computed of its result is known then."""
    if work.dims and work.has("Reshape"):
        _Sweep(work).fuse()


class _Sweep:
    """Once through the operators, in order."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._factors: dict[str | None, int] = {None: _FIRST_FACTOR}
        self._names: dict[tuple[int, int], str | None] = {}  # by factor and true size
        self._computed: set[str] = set()

    def compute(self) -> None:
        """Find out what is known of shapes, and execute what is folded and does not follow from that."""
        work = self._work
        revived = []
        for name in work.inputs:
            self._note(name, (None,) * len(work.shape(name)))
        reached = {*work.dims}
        for op in sorted({*work.ops(), *work.folded.values()}, key=lambda op: op.place):
            if reached.isdisjoint(op.inputs):
                continue
            if not work.alive(op):
                if not self._unknown(op):
                    continue
                revived.append(op)
                self._computed.update(op.outputs)
            reached.update(filter(None, op.outputs))
            self._follow(op)
        work.revive(revived)
        work.tensors |= {n: replace(work.tensors[n], value=None) for op in revived for n in op.outputs if n}

    def _unknown(self, op: Op) -> bool:
        if op.op_type in ("Shape", "Size"):
            return not self._work.known(op.inputs[0])
        return not self._computed.isdisjoint(op.inputs)

    def fuse(self) -> None:
        """Give every Reshape its constant, and fold what is known with it."""
        work = self._work
        changed: set[str] = set()
        for op in work.ops():
            settled = op.op_type == "Reshape" and not all(map(work.const, op.inputs[1:])) and self._fuse(op)
            if not settled and changed.isdisjoint(op.inputs):
                continue
            results = self._known(op)
            if results:
                work.fold(op, results)
                changed.update(each.name for each in results)
            else:
                before = [work.told(name) for name in op.outputs]
                self._follow(op)
                pairs = zip(op.outputs, before, strict=True)
                changed.update(name for name, told in pairs if name and work.told(name) != told)

    def _known(self, op: Op) -> Sequence[Tensor]:
        """The results of an operator that is computed before inference; none of another."""
        work = self._work
        sized = op.op_type in ("Shape", "Size")
        if unfolded(op) or not (work.known(op.inputs[0]) if sized else all(work.const(i) for i in op.inputs if i)):
            return ()
        try:
            found = infer(_node(op), [work.tensors[name] if name else None for name in op.inputs])
        except ShapeError:
            return ()
        return found if all(each.const for each in found) else ()

    def _fuse(self, op: Op) -> bool:
        """Whether the target of a Reshape becomes a constant."""
        work, (source, target) = self._work, op.inputs
        if work.known(op.outputs[0]):  # the file states it
            return self._settle(op, work.shape(op.outputs[0]))
        joined = work.made_by(target, "Concat")
        if joined is None or work.only_reader(target) is not op or op.attrs.get("allowzero", 0):
            return False
        values: list[int] = []
        for name in joined.inputs:
            told = work.tensors[name].value if work.const(name) else None
            if told is not None:
                values += map(int, told)
            elif self._own_size(name, source, len(values)):
                values.append(0)
            elif work.shape(name) == (1,) and work.known(name):
                values.append(-1)
            else:
                return False
        return values.count(-1) < 2 and self._settle(op, values)

    def _settle(self, op: Op, target: Sequence[int]) -> bool:
        computed = op.inputs[1]
        self._work.swap_place(op, 1, self._work.integers("target", target))
        self._work.drop(computed)
        return True

    def _own_size(self, name: str, source: str, place: int) -> bool:
        """Whether it is the size of ``source`` at this place, taken out of the shape of that or of what is as long."""
        work = self._work
        added = work.made_by(name, "Unsqueeze")
        taken = work.made_by(added.inputs[0], "Gather") if added is not None else None
        shape = work.made_by(taken.inputs[0], "Shape") if taken is not None else None
        if taken is None or shape is None or work.scalar(taken.inputs[1]) != place or "start" in shape.attrs:
            return False
        like = shape.inputs[0]
        if like == source:
            return True
        sizes = [work.told(each)[place : place + 1] for each in (like, source)]
        return sizes[0] == sizes[1] and None not in sizes[0] and bool(sizes[0])

    def _follow(self, op: Op) -> None:
        """What is known of the shapes of its results."""
        for name, dims in self._results(op):
            self._note(name, dims)

    def _note(self, name: str, dims: Dims) -> None:
        """What of a shape follows from others, or else is stated."""
        stated = self._work.stated.get(name, ())
        if len(stated) == len(dims):
            pairs = zip(dims, stated, strict=True)
            dims = tuple(d if isinstance(d, int) else s if isinstance(s, int) else s or d for d, s in pairs)
        if any(not isinstance(dim, int) for dim in dims):
            self._work.dims[name] = dims
        else:
            self._work.dims.pop(name, None)

    def _results(self, op: Op) -> Iterator[tuple[str, Dims]]:
        work = self._work
        outs = [name for name in op.outputs if name]
        if op.op_type in _BROADCASTING:
            yield outs[0], self._broadcast([work.told(n) for n in op.inputs if n])
            return
        if op.op_type in _PRODUCTS and all(len(work.shape(name)) > 1 for name in op.inputs[:2]):
            a, b = (work.told(name) for name in op.inputs[:2])
            yield outs[0], (*self._broadcast([a[:-2], b[:-2]]), a[-2], b[-1])
            return
        try:
            found = infer(_node(op), [self._seen(name) if name else None for name in op.inputs])
        except ShapeError as error:
            first = op.inputs[0] if op.inputs else ""
            for name in outs:  # what clashes may be a size that is known beside one that is not
                same = first and work.shape(name) == work.shape(first) and not isinstance(error, ValueNeeded)
                yield name, work.told(first) if same else (None,) * len(work.shape(name))
            return
        for tensor in found:
            sizes = zip(work.shape(tensor.name), tensor.shape, strict=True)
            dims = [true if true == seen else self._name(true, seen) for true, seen in sizes]
            nameless: Iterable[int] = range(2, len(dims)) if op.op_type in _WINDOWS else ()
            if op.op_type == "Reshape":
                nameless = (place for place, size in enumerate(work.value(op, 1) or ()) if size == -1)
            for place in nameless:
                dims[place] = dims[place] if isinstance(dims[place], int) else None
            axis = op.attrs.get("axis", 0)
            if op.op_type == "Split" and isinstance(axis, int) and not isinstance(work.told(op.inputs[0])[axis], int):
                dims[axis] = None  # however its parts are given
            yield tensor.name, tuple(dims)

    @staticmethod
    def _broadcast(shapes: Sequence[Dims]) -> Dims:
        """A size that is known and not 1 is that of the result; else a name that all have but those known to be 1."""
        if len(shapes) == 1:
            return shapes[0]
        result = []
        for sizes in zip_longest(*(shape[::-1] for shape in shapes), fillvalue=1):
            told = next((size for size in sizes if isinstance(size, int) and size != 1), None)
            named = {size for size in sizes if size != 1} or {1}
            result.append(told if told is not None else named.pop() if len(named) == 1 else None)
        return tuple(result[::-1])

    def _seen(self, name: str) -> Tensor:
        """A tensor with sizes that tell what follows from them, without values that are not known."""
        tensor, dims = self._work.tensors[name], self._work.dims.get(name)
        if name in self._computed:
            tensor = replace(tensor, const=False, value=None)
        if dims is None:
            return tensor
        sizes = [
            dim if isinstance(dim, int) else size * self._factor(dim, size)
            for size, dim in zip(tensor.shape, dims, strict=True)
        ]
        return replace(tensor, shape=tuple(sizes))

    def _factor(self, name: str | None, size: int) -> int:
        factor = self._factors.setdefault(name, _FIRST_FACTOR + 2 * len(self._factors))
        self._names[factor, size] = name
        return factor

    def _name(self, true: int, seen: int) -> str | None:
        """The name of a size that is not known, where it is that and no multiple of it."""
        return self._names.get((seen // true, true)) if true and not seen % true else None


def _node(op: Op) -> Node:
    name = op.members[0] if op.members else op.op_type
    return Node(name, op.op_type, tuple(op.inputs), op.outputs, op.attrs, _DOMAIN)
