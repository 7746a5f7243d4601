"""The NCHWc layout: convolutions and what lies between them in blocks of channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nn_meter.ir import Attr
from nn_meter.kernels.kinds import ACTIVATIONS
from nn_meter.kernels.rewriting import Op, Work
from nn_meter.runtimes.base import Options
from nn_meter.runtimes.onnxruntime.functions import expand

_FIRST = ("Conv", "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool")
"""Operators that bring blocks into a graph; the others go on with those that are there."""

_Side = tuple[str, int, int]
"""Where a size comes from: the axis of a tensor, and how often it was halved since."""

_WINDOW = (("strides", 1), ("pads", 0), ("dilations", 1))
"""Attributes of a window, with what one is that is left out."""

_SAME = ("SAME_UPPER", "SAME_LOWER")

_FLOAT = 1e-7
"""A sixth as a number of single precision has it lies nearer to one."""


def block_channels(work: Work, options: Options) -> None:
    """The NCHWc layout."""
    if options.rules.block:
        _Blocks(work, options).run()


class _Blocks:
    """Convolutions and what lies between them in blocks of channels, with the changes of layout around them."""

    def __init__(self, work: Work, options: Options) -> None:
        self.work = work
        self.options = options
        self.block = options.rules.block
        self.twin: dict[str, str] = {}  # plain tensor to its blocked one, where an operator makes it
        self.uses: dict[str, int] = {}  # readers that the plain tensor had at first
        self.sides: dict[str, tuple[_Side, ...]] = {}  # of a plain tensor that is blocked
        self.channels: dict[str, int] = {}
        self.read_as: dict[
            tuple[str, bool], str
        ] = {}  # plain tensor to its blocked copy, where a reorder makes it

    def padded(self, channels: int) -> int:
        return -(-channels // self.block) * self.block

    def blocked(self, name: str, near: Op) -> str:
        """The blocked form of ``name``, through a reorder where nothing makes it."""
        if name in self.twin:
            return self.twin[name]
        source, last = name, False
        before = self.work.made_by(name, "Transpose")
        if (
            before is not None
            and before.attrs.get("perm") == (0, 3, 1, 2)
            and self.work.only_reader(name) is near
        ):
            source, last = before.inputs[0], True
        key = (source, last)
        if key not in self.read_as:
            shape = list(self.work.shape(name))
            shape[1] = self.padded(shape[1])
            self.read_as[key] = self.work.fresh("blocked", shape, name)
            attrs: dict[str, Attr] = {"channels_last": int(last)}
            self.work.add(Op("ReorderInput", [source], [self.read_as[key]], attrs), before=near)
        return self.read_as[key]

    def make(self, ops: list[Op], inputs: Sequence[str], out: str, **changes: object) -> Op:
        """Replace ``ops`` by one that writes the blocked form of ``out``."""
        work = self.work
        kind = ops[0]
        shape = list(work.shape(out))
        self.channels[out] = shape[1]
        shape[1] = self.padded(shape[1])
        self.uses[out] = len(work.readers(out)) + len(work.outputs.get(out, ()))
        self.twin[out] = work.fresh("blocked", shape, out)
        attrs, fused = kind.attrs, kind.fused
        self.sides[out] = self._sides(kind, out)
        new = work.fuse(ops, str(changes.get("op_type", kind.op_type)), inputs, [self.twin[out]], attrs)
        new.fused = fused
        new.layout = str(changes.get("layout", "nchwc"))
        return new

    def run(self) -> None:
        table: Mapping[str, Callable[[Op], None]] = {
            "Conv": self.conv,
            "MaxPool": self.pool,
            "AveragePool": self.pool,
            "GlobalMaxPool": self.pool,
            "GlobalAveragePool": self.pool,
            "Add": self.add,
            "Sum": self.add,
            "Mul": self.mul,
            "Concat": self.concat,
            "BatchNormalization": self.batch_norm,
            "Resize": self.resize,
            "Upsample": self.resize,
            **dict.fromkeys(("Gelu", "QuickGelu"), self.through),
            **dict.fromkeys(ACTIVATIONS, self.activation),
        }
        if not self.work.has(*_FIRST):
            return
        for op in self.work.ops("HardSwish"):
            expand(self.work, op)
        for op in self.work.ops():
            handler = table.get(op.op_type)
            if handler is not None and op.inputs and op.inputs[0]:
                handler(op)
        self.close()

    def conv(self, op: Op) -> None:
        work = self.work
        x, w = op.inputs[:2]
        if len(work.shape(x)) != 4 or not work.const(w) or any(not work.const(i) for i in op.inputs[2:3]):
            return
        if "sum" in op.fused:
            return
        cout, per_group = work.shape(w)[:2]
        group = op.attrs.get("group", 1)
        assert isinstance(group, int)
        attrs = dict(op.attrs)
        layout = "nchwc"
        if group > 1:
            depthwise = per_group == 1 and cout == group
            if cout % 4 or (not depthwise and (per_group % self.block or (cout // group) % self.block)):
                return
            if depthwise:
                attrs["group"] = self.padded(cout)
        elif per_group < self.block:
            layout = "nchw>nchwc"
        elif per_group % 4:
            return
        source = x if layout == "nchw>nchwc" else self.blocked(x, op)
        new = self.make([op], [source, *op.inputs[1:]], op.outputs[0], layout=layout)
        new.attrs = attrs

    def pool(self, op: Op) -> None:
        shape = self.work.shape(op.inputs[0])
        if self.work.tensors[op.inputs[0]].dtype != "float32":
            return
        plain = op.inputs[0] not in self.twin and (op.inputs[0], False) not in self.read_as
        if op.op_type.startswith("Global") and plain and op.inputs[0] in self.work.producer:
            return  # of what is given it is as any other
        if op.attrs.get("ceil_mode") and op.attrs.get("count_include_pad"):
            return
        if len(shape) == 4 and shape[1] % self.block == 0 and len([o for o in op.outputs if o]) == 1:
            self.make([op], [self.blocked(op.inputs[0], op)], op.outputs[0])

    def add(self, op: Op) -> None:
        if self._all_blocked(op, alike=False) and not self._all_blocked(op):
            self.add_by_blocks(op)
        if not self._all_blocked(op) or len(op.inputs) != 2:
            return
        for i, name in enumerate(op.inputs):
            maker = self.work.producer.get(self.twin[name])
            if (
                maker is None
                or maker.op_type != "Conv"
                or self.uses[name] != 1
                or maker.fused
                or maker.layout not in ("nchwc", "nchw>nchwc")
            ):
                continue
            if self.options.denies(self.work, maker, op):
                continue
            if maker.members and len(maker.inputs) < 4 and not self.work.readers(self.twin[name]):
                other = self.twin[op.inputs[1 - i]]
                fused = self.make([maker, op], [*maker.inputs, other], op.outputs[0], layout=maker.layout)
                fused.fused = ("sum",)
                self.sides[op.outputs[0]] = self.sides[name]
                del self.twin[name]
                return
        self.make([op], [self.twin[i] for i in op.inputs], op.outputs[0])

    def add_by_blocks(self, op: Op) -> None:
        """Summands of different shapes, between views that make the blocks an axis of their own."""
        work = self.work
        channels = [self.channels[i] for i in op.inputs]
        if channels.count(channels[0]) < len(channels):
            return
        split: dict[str, str] = {}
        for name in dict.fromkeys(op.inputs):
            split[name] = work.fresh("split", self._split(name), name)
            work.add(Op("Reshape", [self.twin[name]], [split[name]], {}), before=op)
        out = op.outputs[0]
        summed = work.fresh("split", self._split(out), out)
        made = work.fuse([op], op.op_type, [split[i] for i in op.inputs], [summed], op.attrs)
        shape = list(work.shape(out))
        self.channels[out] = shape[1]
        shape[1] = self.padded(shape[1])
        self.uses[out] = len(work.readers(out)) + len(work.outputs.get(out, ()))
        self.twin[out] = work.fresh("blocked", shape, out)
        self.sides[out] = tuple((out, axis, 0) for axis in range(4))
        work.add(Op("Reshape", [summed], [self.twin[out]], {}), behind=made)

    def _split(self, name: str) -> list[int]:
        n, c, *spatial = self.work.shape(name)
        return [n, self.padded(c) // self.block, *spatial, self.block]

    def mul(self, op: Op) -> None:
        if self._all_blocked(op) and len(op.inputs) == 2:
            if self.gate(op):
                return
            self.make([op], [self.twin[i] for i in op.inputs], op.outputs[0])
        elif len(op.inputs) == 2:
            self.scale(op)

    def gate(self, op: Op) -> bool:
        """Whether the product is a HardSwish that goes into the convolution before it; one that gives a result of the
        model does not."""
        work = self.work
        x, gated = sorted(op.inputs, key=lambda name: work.producer[self.twin[name]].op_type == "HardSigmoid")
        maker, sigmoid = (work.producer[self.twin[name]] for name in (x, gated))
        if sigmoid.op_type != "HardSigmoid" or op.outputs[0] in work.outputs:
            return False
        alpha, beta = sigmoid.attrs.get("alpha", 0.2), sigmoid.attrs.get("beta", 0.5)
        if not isinstance(alpha, float) or abs(alpha - 1 / 6) > _FLOAT or beta != 0.5:
            return False
        alone = (self.uses[x], self.uses[gated]) == (2, 1) and list(work.readers(self.twin[x])) == [sigmoid]
        if not alone or maker.op_type != "Conv" or maker.fused not in ((), ("sum",)):
            return False
        if self.options.denies(work, maker, Op("HardSwish", [x], op.outputs, {})):
            return False
        self.join(maker, (sigmoid, op), "HardSwish", (x, gated))
        return True

    def scale(self, op: Op) -> None:
        """A factor for each channel is a depthwise convolution."""
        name = next((i for i in op.inputs if i in self.twin), "")
        factor = next((i for i in op.inputs if i != name), "")
        if not name or not self.work.const(factor) or len(self.work.shape(name)) != 4:
            return
        if self.work.shape(factor)[-3:] != (self.work.shape(name)[1], 1, 1) or self.work.tensors[factor].size == 1:
            return
        new = self.make([op], [self.twin[name], factor], op.outputs[0], op_type="Conv")
        new.attrs = {"kernel_shape": (1, 1), "group": self.padded(self.work.shape(name)[1])}

    def _all_blocked(self, op: Op, alike: bool = True) -> bool:
        if not all(i in self.twin for i in op.inputs):
            return False
        first = op.inputs[0]
        return not alike or all(self._alike(first, name) for name in op.inputs[1:])

    def _alike(self, first: str, second: str) -> bool:
        """Whether two shapes are known to be the same: what is not known as a number comes from the same sizes."""
        work = self.work
        if not work.dims:
            return work.shape(first) == work.shape(second)
        told = [work.told(first), work.told(second)]
        if len(told[0]) != 4 or len(told[1]) != 4:
            return told[0] == told[1] and None not in told[0]
        return all(
            self.sides[first][axis] == self.sides[second][axis] or (a == b and a is not None)
            for axis, (a, b) in enumerate(zip(*told, strict=True))
        )

    def _sides(self, op: Op, out: str) -> tuple[_Side, ...]:
        """Where the sizes of ``out`` come from, which ``op`` makes of its first input; each from itself where that is
        not followed."""
        own = tuple((out, axis, 0) for axis in range(4))
        given = self.sides.get(op.inputs[0]) if self.work.dims else None
        if given is None or op.op_type in ("Resize", "Upsample"):
            return own
        if op.op_type not in _FIRST:
            return given
        if op.op_type.startswith("Global"):
            return (given[0], *own[1:])
        kernel = op.attrs.get("kernel_shape", self.work.shape(op.inputs[1])[2:] if op.op_type == "Conv" else ())
        strides, pads, dilations = (_whole(op.attrs.get(key, (each,) * 4)) for key, each in _WINDOW)
        found = [given[0], own[1]]
        for i, size in enumerate(_whole(kernel)):
            origin, axis, halved = given[2 + i]
            same = pads[i] + pads[i + 2] + 1 == size or op.attrs.get("auto_pad", "NOTSET") in _SAME
            goes_on = dilations[i] == 1 and same and strides[i] < 3
            found.append((origin, axis, halved + strides[i] - 1) if goes_on else own[2 + i])
        return tuple(found)

    def concat(self, op: Op) -> None:
        if op.attrs.get("axis") in (1, -3) and all(
            i in self.twin and self.work.shape(i)[1] % self.block == 0 for i in op.inputs
        ):
            self.make([op], [self.twin[i] for i in op.inputs], op.outputs[0])

    def batch_norm(self, op: Op) -> None:
        name = op.inputs[0]
        if name in self.twin and len(self.work.shape(name)) == 4:
            new = self.make([op], [self.twin[name], *op.inputs[1:3]], op.outputs[0], op_type="Conv")
            new.attrs = {"kernel_shape": (1, 1), "group": self.padded(self.work.shape(name)[1])}

    def resize(self, op: Op) -> None:
        name, out = op.inputs[0], op.outputs[0]
        if name not in self.twin or len(self.work.shape(name)) != 4:
            return
        ratios = [b / a for a, b in zip(self.work.shape(name)[2:], self.work.shape(out)[2:], strict=True)]
        whole = all(r == int(r) for r in ratios) and self.work.shape(name)[:2] == self.work.shape(out)[:2]
        if whole and _resized(op):
            self.make([op], [self.twin[name]], out)

    def through(self, op: Op) -> None:
        if op.inputs[0] in self.twin and len(op.inputs) == 1:
            self.make([op], [self.twin[op.inputs[0]]], op.outputs[0])

    def activation(self, op: Op) -> None:
        name = op.inputs[0]
        if name not in self.twin or any(i and not self.work.const(i) for i in op.inputs[1:]):
            return
        maker = self.work.producer.get(self.twin[name])
        fusable = (
            maker is not None
            and maker.op_type == "Conv"
            and self.uses[name] == 1
            and maker.fused in ((), ("sum",))
        )
        denied = maker is not None and self.options.denies(self.work, maker, op)
        if maker is not None and fusable and not denied and not self.work.readers(self.twin[name]):
            self.join(maker, (op,), op.op_type, (name,))
        elif op.op_type in ("Relu", "Sigmoid", "Tanh", "HardSigmoid"):
            self.make([op], [self.twin[name], *op.inputs[1:]], op.outputs[0])

    def join(self, maker: Op, ops: Sequence[Op], activation: str, between: Sequence[str]) -> None:
        """Make a convolution and the operators of its activation one; nothing of what is ``between`` is left."""
        before = maker.fused
        fused = self.make([maker, *ops], maker.inputs, ops[-1].outputs[0], layout=maker.layout)
        fused.fused = (*before, ACTIVATIONS[activation])
        self.sides[ops[-1].outputs[0]] = self.sides[between[0]]
        for name in between:
            del self.twin[name]

    def close(self) -> None:
        """Back to plain wherever something plain reads."""
        work = self.work
        for name, blocked in self.twin.items():
            readers = list(work.readers(name))
            maker = work.producer[blocked]
            last = [r for r in readers if r.op_type == "Transpose" and r.attrs.get("perm") == (0, 2, 3, 1)]
            for op in last:
                work.remove(op)
                attrs: dict[str, Attr] = {"channels_last": 1}
                work.add(Op("ReorderOutput", [blocked], op.outputs, attrs, op.members), behind=maker)
            if len(readers) > len(last) or name in work.outputs:
                work.add(Op("ReorderOutput", [blocked], [name], {"channels_last": 0}), behind=maker)
        for op in work.ops("Transpose"):
            if not work.readers(op.outputs[0]) and op.outputs[0] not in work.outputs:
                reorder = next((r for r in work.readers(op.inputs[0]) if r.op_type == "ReorderInput"), None)
                work.remove(op)
                if reorder is not None:
                    reorder.nested = reorder.nested, op.nested


def _whole(attr: Attr) -> tuple[int, ...]:
    return tuple(map(int, attr)) if isinstance(attr, tuple) else ()


def _resized(op: Op) -> bool:
    """Whether there is code for this way of it: neighbours by whole factors, and lines by all but PyTorch's places."""
    mode = op.attrs.get("mode", "nearest")
    if op.op_type == "Upsample":
        return mode in ("nearest", "linear")
    places = op.attrs.get("coordinate_transformation_mode", "half_pixel")
    if mode == "nearest":
        return places == "asymmetric" and op.attrs.get("nearest_mode") == "floor"
    return mode == "linear" and places in ("asymmetric", "align_corners", "half_pixel")
