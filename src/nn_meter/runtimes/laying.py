"""What PyTorch runs on a card beside the operators that a model names, under automatic mixed precision:

- Transposes, slices and reshapes are views. A kernel runs only where an operator needs its operand to lie in order
  (``contiguous``), or where axes are merged that do not lie side by side.
- An elementwise operator writes as its first operand lies; so tokens that come straight from a convolution stay
  transposed through a whole network, and each layer normalisation copies them first.
- Matrix products and convolutions compute in half precision, softmax in single: what arrives in the other is cast, by a
  kernel of its own (PyTorch's *CUDA ops that can autocast to float16*, *to float32*, *to the widest input type*).
  Normalisations over channels are computed in half precision, as timm's benchmarks do (``fast_norm``): in single, a
  ResNetV2 with group normalisation would take 50 % more on an RTX 4090 than was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from types import MappingProxyType

from nn_meter.ir import Tensor
from nn_meter.kernels.kinds import Operator
from nn_meter.kernels.rewriting import Op, Work
from nn_meter.runtimes.base import Options
from nn_meter.runtimes.cores import operands

VIEW = "a view: PyTorch moves no data and runs no kernel"

_CAST_TO = MappingProxyType({"float32": 1, "float16": 10})
"""Types that are told apart, by ONNX's numbers."""
_FLOATS = _CAST_TO.keys()

_HALF = frozenset(
    {
        "Conv", "ConvTranspose", "MatMul", "Gemm", "Attention", "LSTM", "GRU", "RNN", "PRelu", "LayerNormalization",
        "GroupNormalization",
    }
)  # fmt: skip
_SINGLE = frozenset({"Exp", "Log", "Pow", "Softplus", "Reciprocal", "ReduceL2", "Tan"})
_SINGLE_INSIDE = frozenset({"Softmax", "LogSoftmax", "ReduceSum", "CumSum"})
"""Of these the kernel itself reads half and writes single precision."""

_VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Split", "Slice"})
_IN_ORDER = frozenset({"LayerNormalization", "Softmax", "LogSoftmax", "LSTM", "GRU", "RNN"})
_PLANES = frozenset(
    {
        "Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "Resize", "Pad", "GroupNormalization",
    }
)  # fmt: skip
"""They take and give pictures in order or with channels last."""

_LAST = (0, 2, 3, 1)


@dataclass(frozen=True, slots=True)
class Lay:
    """How a tensor lies in memory: its axes, those with the largest strides first. Between an axis that is ``cut`` and
    what lies before it there is a gap: it is a part of a longer one."""

    order: tuple[int, ...]
    cut: frozenset[int] = frozenset()

    @property
    def plain(self) -> bool:
        """Whether its elements lie in the order of its axes, without gaps."""
        return not self.cut and self.order == tuple(range(len(self.order)))


def plain(rank: int) -> Lay:
    """What is written anew."""
    return Lay(tuple(range(rank)))


def viewed(shape: Sequence[int], lay: Lay, wanted: Sequence[int]) -> Lay | None:
    """How a tensor lies when it is looked at in another shape; ``None`` where its elements have to move."""
    if not prod(shape):
        return plain(len(wanted))
    at = {axis: place for place, axis in enumerate(lay.order)}
    found: list[tuple[int, list[int], bool]] = []
    for old, new in _blocks(shape, wanted):
        first = at[old[0]]
        if [at[axis] for axis in old] != list(range(first, first + len(old))):
            return None
        if any(axis in lay.cut for axis in [axis for axis in old if shape[axis] != 1][1:]):
            return None
        found.append((first, new, not lay.cut.isdisjoint(old)))
    found.sort()
    return Lay(
        tuple(axis for _, new, _ in found for axis in new),
        frozenset(new[0] for _, new, cut in found if cut and new),
    )


def _blocks(shape: Sequence[int], wanted: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The fewest axes of one shape that hold as many elements as some of the other, in order."""
    blocks: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(shape) and j < len(wanted):
        old, new = [i], [j]
        size, other = shape[i], wanted[j]
        while size != other:
            if size < other:
                i += 1
                old.append(i)
                size *= shape[i]
            else:
                j += 1
                new.append(j)
                other *= wanted[j]
        blocks.append((old, new))
        i, j = i + 1, j + 1
    if blocks:
        blocks[-1][0].extend(range(i, len(shape)))
        blocks[-1][1].extend(range(j, len(wanted)))
    return blocks


def _axes(work: Work, op: Op, rank: int) -> list[int]:
    """Axes that a Squeeze or an Unsqueeze is asked for."""
    asked = work.value(op, 1) or work.as_it_stands(op).ints("axes", ())
    return sorted(int(axis) % rank for axis in asked)


def _squeezed(lay: Lay, gone: Sequence[int]) -> Lay:
    """Without axes of one element; the gap before one is before what follows it then."""
    cut = set(lay.cut)
    for axis, following in pairwise(lay.order):
        if axis in gone and axis in cut:
            cut.add(following)
    left = [axis for axis in range(len(lay.order)) if axis not in gone]
    return Lay(
        tuple(left.index(axis) for axis in lay.order if axis not in gone),
        frozenset(left.index(axis) for axis in cut if axis not in gone),
    )


def _unsqueezed(lay: Lay, new: Sequence[int]) -> Lay:
    """With further axes of one element, each before what follows it."""
    old = [axis for axis in range(len(lay.order) + len(new)) if axis not in new]
    order = [old[axis] for axis in lay.order]
    for axis in reversed(new):
        order.insert(order.index(axis + 1) if axis + 1 in order else len(order), axis)
    return Lay(tuple(order), frozenset(old[axis] for axis in lay.cut))


class _Laying:
    """The pass while it goes through a graph."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._lays: dict[str, Lay] = {}

    def of(self, name: str) -> Lay:
        return self._lays.get(name) or plain(len(self._work.shape(name)))

    def run(self) -> None:
        for op in list(self._work.ops()):
            self._type(op)
            self._lie(op)

    def _type(self, op: Op) -> None:
        tensors = self._work.tensors
        floats = [i for i in op.inputs if i and tensors[i].dtype in _FLOATS]
        if not floats:
            return
        if op.op_type in _HALF:
            self._cast(op, "float16")
            self._write(op, "float16")
        elif op.op_type in _SINGLE:
            self._cast(op, "float32")
        elif op.op_type == "Concat":
            widest = "float32" if any(tensors[i].dtype == "float32" for i in floats) else "float16"
            self._cast(op, widest)
            self._write(op, widest)
        elif op.op_type not in _SINGLE_INSIDE and op.op_type != "Cast":
            computed = [i for i in floats if not tensors[i].const]
            several = operands(self._work, op) > 1 or op.op_type in _BINARY
            asked = [i for i in floats if tensors[i].shape] if several else computed[:1]
            if asked and all(tensors[i].dtype == "float16" for i in asked):
                self._write(op, "float16")

    def _write(self, op: Op, dtype: str) -> None:
        tensors = self._work.tensors
        for name in op.outputs:
            if name and tensors[name].dtype in _FLOATS:
                tensors[name] = replace(tensors[name], dtype=dtype)

    def _cast(self, op: Op, dtype: str) -> None:
        work = self._work
        for place, name in enumerate(op.inputs):
            if name and not work.const(name) and work.tensors[name].dtype in _FLOATS - {dtype}:
                out = work.fresh("cast", work.shape(name), name)
                work.tensors[out] = replace(work.tensors[out], dtype=dtype)
                work.add(Op("Cast", (name,), (out,), {"to": _CAST_TO[dtype]}), before=op)
                work.swap_place(op, place, out)
                self._lays[out] = Lay(self.of(name).order)

    def _lie(self, op: Op) -> None:
        work, kind = self._work, op.op_type
        if kind in _VIEWS and not (kind == "Slice" and min(work.value(op, 4) or (1,)) < 0):
            self._view(op)
        elif kind in _IN_ORDER:
            self._in_order(op, 0)
        elif kind in _PLANES and len(work.shape(op.inputs[0])) == 4:
            if self.of(op.inputs[0]) == Lay(_LAST):
                self._give(op, _LAST)
            else:
                self._in_order(op, 0)
        elif kind in ("MatMul", "Gemm"):
            for place in range(2):
                if not work.const(op.inputs[place]):
                    self._product(op, place, work.const(op.inputs[1 - place]))
        elif kind == "Attention":
            asked = self.of(op.inputs[0])
            self._give(op, (0, 2, 1, 3) if asked.cut or len(op.inputs) > 3 else asked.order)
        elif kind == "Concat":
            if all(self.of(i).order == _LAST for i in op.inputs if not work.const(i)):
                self._give(op, _LAST)
        elif kind.startswith("Reduce"):
            self._reduce(op)
        elif op.outputs and work.shape(op.outputs[0]):
            self._elementwise(op)

    def _give(self, op: Op, order: tuple[int, ...]) -> None:
        for name in op.outputs:
            if name and len(self._work.shape(name)) == len(order):
                self._lays[name] = Lay(order)

    def _in_order(self, op: Op, place: int) -> None:
        if not self.of(op.inputs[place]).plain:
            self._copy(op, place)

    def _copy(self, op: Op, place: int) -> None:
        """Let a kernel write an operand in order."""
        work, name = self._work, op.inputs[place]
        shape, order = work.shape(name), self.of(name).order
        out = work.fresh("contiguous", shape, name)
        lies = Tensor(name, tuple(shape[axis] for axis in order), work.tensors[name].dtype)
        copy = Op("Transpose", (name,), (out,), {"perm": tuple(map(order.index, range(len(order))))})
        copy.core = Operator("Transpose", (lies,), (work.tensors[out],), copy.attrs)
        work.add(copy, before=op)
        work.swap_place(op, place, out)

    def _view(self, op: Op) -> None:
        work, source = self._work, op.inputs[0]
        shape, lay = work.shape(source), self.of(source)
        outs = [name for name in op.outputs if name]
        part = op.op_type in ("Split", "Slice")
        seen: Lay | None = lay
        if op.op_type == "Transpose":
            perm = work.as_it_stands(op).ints("perm", tuple(reversed(range(len(shape)))))
            seen = Lay(tuple(map(perm.index, lay.order)), frozenset(map(perm.index, lay.cut)))
        elif op.op_type == "Squeeze":
            seen = _squeezed(lay, _axes(work, op, len(shape)) or [a for a, size in enumerate(shape) if size == 1])
        elif op.op_type == "Unsqueeze":
            seen = _unsqueezed(lay, _axes(work, op, len(work.shape(outs[0]))))
        elif not part:
            seen = viewed(shape, lay, work.shape(outs[0]))
        if seen is None:
            self._copy(op, 0)
            seen = plain(len(work.shape(outs[0])))
        for name in outs:
            sizes = enumerate(zip(work.shape(name), shape, strict=False))
            less = [axis for axis, (size, whole) in sizes if part and size < whole]
            self._lays[name] = Lay(seen.order, seen.cut.union(less))
        op.core = replace(work.as_it_stands(op), op_type="Reshape")

    def _product(self, op: Op, place: int, weighted: bool) -> None:
        """Products read matrices as they lie, if one axis lies in order; what leads them has to be one axis."""
        work, name = self._work, op.inputs[place]
        shape, lay = work.shape(name), self.of(name)
        if len(shape) < 3 or (len(shape) == 3 and not weighted):
            return
        wanted = (prod(shape[:-1]), shape[-1]) if weighted else (prod(shape[:-2]), *shape[-2:])
        found = viewed(shape, lay, wanted)
        if found is None or (weighted and found.order[-1] != 1):
            self._copy(op, place)

    def _reduce(self, op: Op) -> None:
        if len(self._work.shape(op.inputs[0])) == len(self._work.shape(op.outputs[0])):
            self._give(op, self.of(op.inputs[0]).order)

    def _elementwise(self, op: Op) -> None:
        """It writes as its first whole operand lies, and reads others that lie otherwise at the cost of a copy."""
        work = self._work
        shape = work.shape(op.outputs[0])
        whole = [place for place, i in enumerate(op.inputs) if i and not work.const(i) and work.shape(i) == shape]
        if not whole or op.op_type not in _LIKE_FIRST:
            return
        order = self.of(op.inputs[whole[0]]).order
        self._give(op, order)
        for place in whole[1:]:
            if self.of(op.inputs[place]).order != order:
                self._copy(op, place)


_BINARY = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Where", "Max", "Min"})
_LIKE_FIRST = _BINARY | {
    "BatchNormalization", "Relu", "Clip", "LeakyRelu", "PRelu", "Gelu", "FastGelu", "QuickGelu", "Swish", "HardSwish",
    "HardSigmoid", "Sigmoid", "Tanh", "Elu", "Exp", "Log", "Sqrt", "Erf", "Neg", "Abs", "Softplus", "Mish", "Cast",
    "Selu", "Celu", "Sin", "Cos", "Reciprocal",
}  # fmt: skip


def lie(work: Work, options: Options) -> None:
    """Let views count as such, and put in what copies and casts run."""
    _Laying(work).run()
