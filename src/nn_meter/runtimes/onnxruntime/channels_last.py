"""Convolutions of integers compute with channels last: where layouts change, and what else runs between the changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nn_meter.ir import Attr
from nn_meter.kernels.rewriting import Op, Work
from nn_meter.runtimes.base import Options
from nn_meter.runtimes.onnxruntime.pushes import ELEMENTWISE, OPERANDS

_RANKS = (3, 4, 5)
"""Of what convolutions of integers compute: one to three dimensions of space."""


def _to_last(rank: int) -> tuple[int, ...]:
    return (0, *range(2, rank), 1)


def _to_first(rank: int) -> tuple[int, ...]:
    return (0, rank - 1, *range(1, rank - 1))


def to_channels_last(work: Work, options: Options) -> None:
    """Transposes around each convolution of integers, moved until they cancel out."""
    if any(True for _ in work.ops("QLinearConv")):
        _ChannelsLast(work).run()


class _ChannelsLast:
    """Tensors with their twins, whose channels are last."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.twin: dict[str, str] = {}
        self.asked: dict[str, str] = {}  # twins that a Transpose makes of a tensor whose channels are first
        self.leads = self._leading()

    def _leading(self) -> set[str]:
        """Tensors from which a way through what can be turned leads to a convolution."""
        found: set[str] = set()
        for op in reversed(list(self.work.ops())):
            turns = op.op_type == "QLinearConv" or (op.op_type == "Transpose")
            if turns or (op.op_type in self._table and any(o in found for o in op.outputs)):
                found.update(i for i in op.inputs if i)
        return found

    def run(self) -> None:
        for op in self.work.ops():
            if not op.outputs or not op.inputs:
                continue
            if op.op_type == "Transpose":
                self.transpose(op)
            elif op.op_type == "QLinearConv":
                if len(self.work.shape(op.inputs[0])) in _RANKS:
                    self.make(op, [self.last(op.inputs[0], op), *op.inputs[1:]], {"channels_last": 1})
            elif op.op_type in self._table and len(self.work.shape(op.inputs[0])) in (0, *_RANKS):
                self._table[op.op_type](self, op)
        self.close()

    def last(self, name: str, near: Op) -> str:
        """The twin of ``name``, through a Transpose where nothing makes it."""
        if self.work.const(name):
            return self._turned(name, len(self.work.shape(near.outputs[0])))
        if name in self.twin:
            return self.twin[name]
        if name not in self.asked:
            self.asked[name] = self._turned(name)
            attrs: dict[str, Attr] = {"perm": _to_last(len(self.work.shape(name)))}
            self.work.add(Op("Transpose", [name], [self.asked[name]], attrs), before=near)
        return self.asked[name]

    def _turned(self, name: str, rank: int = 0) -> str:
        """A twin of ``name``; of a constant one of so many axes."""
        shape = self.work.shape(name)
        full = (1,) * (rank - len(shape)) + shape
        new = self.work.fresh("last", [full[axis] for axis in _to_last(len(full))], name)
        if rank:
            self.work.constant(new)
        return new

    def make(self, op: Op, inputs: list[str], attrs: Mapping[str, Attr] = {}, op_type: str = "") -> None:
        """Replace ``op`` by one that writes the twins of its results."""
        outputs = [self._turned(o) for o in op.outputs if o]
        self.twin.update(zip((o for o in op.outputs if o), outputs, strict=True))
        new = self.work.fuse([op], op_type or op.op_type, inputs, outputs, {**op.attrs, **attrs})
        new.fused = op.fused

    def worth(self, op: Op, names: Sequence[str]) -> bool:
        """Whether to turn what ``op`` reads leaves less to transpose, or as much and nearer to another change."""
        cost = sum(0 if self.work.const(n) else -4 if n in self.twin else len(self.work.shape(n)) for n in names)
        if cost < 0 and not any(o in self.leads for o in op.outputs):
            cost += 4
        return cost < 0

    def transpose(self, op: Op) -> None:
        """One of the model's own: what it makes may be there already, or be the twin of another."""
        source, out = op.inputs[0], op.outputs[0]
        rank = len(self.work.shape(source))
        if rank not in _RANKS:
            return
        if op.attrs.get("perm") == _to_first(rank):
            self.twin[out] = source
        elif op.attrs.get("perm") == _to_last(rank) and source in self.twin and out not in self.work.outputs:
            for reader in list(self.work.readers(out)):
                self.work.swap_input(reader, out, self.twin[source])
            self._free(op)

    def _free(self, op: Op) -> None:
        self.work.remove(op)
        self.work.free += [(member, op.op_type, "the transposes cancel out") for member in op.members]

    def elementwise(self, op: Op) -> None:
        wide = OPERANDS.get(op.op_type, ())
        data = [i for n, i in enumerate(op.inputs) if i and (n in wide or len(self.work.shape(i)) >= 2)]
        rank = len(self.work.shape(op.outputs[0]))
        if self.worth(op, data) and all(self.work.const(i) or len(self.work.shape(i)) == rank for i in data):
            turned = {i: self.last(i, op) for i in dict.fromkeys(data)}
            self.make(op, [turned.get(i, i) for i in op.inputs])

    def concat(self, op: Op) -> None:
        rank = len(self.work.shape(op.outputs[0]))
        data = [i for i in op.inputs if i and len(self.work.shape(i)) == rank]
        axis = op.attrs.get("axis", 1)
        if self.worth(op, data) and isinstance(axis, int):
            turned = {i: self.last(i, op) for i in dict.fromkeys(data)}
            self.make(op, [turned.get(i, i) for i in op.inputs], {"axis": _to_last(rank).index(axis % rank)})

    def softmax(self, op: Op) -> None:
        axis = op.attrs.get("axis", -1)
        if isinstance(axis, int) and op.attrs.get("opset", 13) == 13 and self.worth(op, op.inputs[:1]):
            rank = len(self.work.shape(op.inputs[0]))
            turned: dict[str, Attr] = {"axis": _to_last(rank).index(axis % rank)}
            self.make(op, [self.last(op.inputs[0], op), *op.inputs[1:]], turned)

    def pool(self, op: Op) -> None:
        everywhere = op.op_type == "QLinearGlobalAveragePool" and op.inputs[0] in self.twin
        if everywhere or self.worth(op, op.inputs[:1]):
            self.make(op, [self.last(op.inputs[0], op), *op.inputs[1:]], {"channels_last": 1})

    def max_pool(self, op: Op) -> None:
        """The runtime holds it for faster there, whatever comes behind it."""
        whole = self.work.tensors[op.inputs[0]].dtype in ("uint8", "int8")
        if whole and len(op.outputs) == 1 and (op.inputs[0] in self.twin or self.worth(op, op.inputs[:1])):
            self.make(op, [self.last(op.inputs[0], op)], op_type="NhwcMaxPool")

    def reduce(self, op: Op) -> None:
        axes = op.attrs.get("axes", self.work.value(op, 1))
        if isinstance(axes, tuple) and op.attrs.get("keepdims", 1) and self.worth(op, op.inputs[:1]):
            rank = len(self.work.shape(op.inputs[0]))
            turned = tuple(sorted(_to_last(rank).index(int(axis) % rank) for axis in axes))
            self.make(op, [self.last(op.inputs[0], op)], {"axes": turned})

    def cut(self, op: Op) -> None:
        """Split, Slice and Pad: what their other inputs say is in their results' shapes."""
        if self.worth(op, op.inputs[:1]):
            axis, rank = op.attrs.get("axis"), len(self.work.shape(op.inputs[0]))
            attrs: dict[str, Attr] = {"axis": _to_last(rank).index(axis % rank)} if isinstance(axis, int) else {}
            self.make(op, [self.last(op.inputs[0], op), *op.inputs[1:]], attrs)

    def resize(self, op: Op) -> None:
        if self.worth(op, op.inputs[:1]):
            self.make(op, [self.last(op.inputs[0], op), *op.inputs[1:]])

    _table: Mapping[str, Callable[[_ChannelsLast, Op], None]] = {
        **dict.fromkeys(ELEMENTWISE, elementwise),
        **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"), reduce),
        "Softmax": softmax,
        "QLinearSoftmax": softmax,
        "Concat": concat,
        "QLinearConcat": concat,
        "QLinearAveragePool": pool,
        "QLinearGlobalAveragePool": pool,
        "MaxPool": max_pool,
        **dict.fromkeys(("Split", "Slice", "Pad"), cut),
        "Resize": resize,
    }

    def close(self) -> None:
        """Back to channels first wherever something reads them so."""
        work = self.work
        for name, last in self.twin.items():
            maker = work.producer.get(last)
            before = work.made_by(name, "Transpose")
            if before is not None and not work.readers(name) and name not in work.outputs:
                self._free(before)
            if maker is None or name in work.producer:
                continue
            if work.readers(name) or name in work.outputs:
                self._back(last, name, maker)

    def _back(self, last: str, name: str, maker: Op) -> None:
        """A Transpose to channels first; behind a DequantizeLinear the runtime makes integers of its result and floats
        again, lest a QuantizeLinear further on lose its partner."""
        work, turned = self.work, name
        wrapped = maker.op_type == "DequantizeLinear" and not all(
            reader.op_type == "QuantizeLinear" for reader in work.readers(name)
        )
        if wrapped:
            turned = work.fresh("first", work.shape(name), name)
        perm = _to_first(len(work.shape(last)))
        work.add(Op("Transpose", [last], [turned], {"perm": perm}), behind=maker)
        if wrapped:
            whole = work.fresh("first", work.shape(name), maker.inputs[0])
            work.add(Op("QuantizeLinear", [turned, *maker.inputs[1:]], [whole], maker.attrs), behind=maker)
            work.add(Op("DequantizeLinear", [whole, *maker.inputs[1:]], [name], maker.attrs), behind=maker)
