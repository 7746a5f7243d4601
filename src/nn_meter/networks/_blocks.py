"""What every generated network is drawn with: dice, and operators spelled as exporters write them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from nn_meter.ir.builder import GraphBuilder
from nn_meter.ir.graph import Attr

T = TypeVar("T")
Step = Callable[[str], str]
"""One block of a network: from the tensor before it to the tensor after it."""

SIDES = (7, 8, 10, 12, 14, 16, 19, 20, 24, 28, 32, 38, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
"""Sides that feature maps have after repeated halving of the usual image sizes."""

SOFT_MACS = 1.2e8
"""No block is added once a network holds this many multiply-adds."""

LARGEST = 16.0
"""How much larger than usual, in cost, a network may be drawn: real ones hold single layers of gigaflops."""

SOFT_NODES = 45
"""No block is added once a network holds this many nodes."""

SOFT_PARAMETERS = 5e7
"""No block is added once a network holds this many weights: 200 MB of floats are beyond any cache of one core."""


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between ``low`` and ``high`` whose logarithm is uniform."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


class Pen:
    """A graph in the making, the dice that decide how it goes on, and the spellings that it keeps.

    ``macs`` counts the multiply-adds written so far, ``parameters`` the weights. What an exporter or an architecture
    decides once for a whole network (its ``scale``, ``fold`` batch normalisation, fused or decomposed layer
    normalisation, the spelling of GELU) is drawn once, here.

    Args:
        b: holds the nodes, those of other parts of the network among them.
        part: of one of many parts, how costly they are, relative to usual networks; 0 of a network by itself.
    """

    def __init__(self, b: GraphBuilder, rng: np.random.Generator, dtype: str, *, part: float = 0.0) -> None:
        self.b = b
        self.rng = rng
        self.dtype = dtype
        self.part = part
        self.macs = 0.0
        self.parameters = 0
        self.nodes = 0
        self.others: list[str] = []
        alone = self.log_uniform(1.0, LARGEST) if self.chance(0.35) else 1.0
        self.scale = part * self.log_uniform(0.5, 2.0) if part else alone
        self.batch = self.integer(2, 8) if self.chance(0.1) else 1
        self.fold = self.chance(0.8)
        self.fused_norm = self.chance(0.75)
        self.gelu = self.pick("gelu_erf", "gelu_erf", "gelu_op", "gelu_tanh")
        self.pool_op = self.pick("GlobalAveragePool", "GlobalAveragePool", "ReduceMean")

    # dice

    def chance(self, probability: float) -> bool:
        """True with ``probability``."""
        return bool(self.rng.random() < probability)

    def pick(self, *options: T) -> T:
        """One of ``options``, each as likely."""
        return options[int(self.rng.integers(len(options)))]

    def integer(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        return int(self.rng.integers(low, high + 1))

    def uniform(self, low: float, high: float) -> float:
        """A number between ``low`` and ``high``."""
        return float(self.rng.uniform(low, high))

    def log_uniform(self, low: float, high: float) -> float:
        """A number between ``low`` and ``high`` whose logarithm is uniform."""
        return log_uniform(self.rng, low, high)

    def width(self, low: float, high: float) -> int:
        """A channel count, log-uniform: mostly a multiple of 8 or 16, sometimes of 4, at times any."""
        raw = self.log_uniform(low, high)
        step = int(self.rng.choice((16, 8, 4, 1), p=(0.3, 0.48, 0.14, 0.08)))
        return max(step, round(raw / step) * step)

    def divisor(self, number: int, low: int = 1, high: int = 64) -> int:
        """A divisor of ``number`` between ``low`` and ``high``, else 1."""
        found = [d for d in range(max(low, 1), min(high, number) + 1) if number % d == 0]
        return self.pick(*found) if found else 1

    def room(self) -> bool:
        """Whether another block may be added."""
        return (
            self.macs < SOFT_MACS * self.scale
            and self.nodes < SOFT_NODES
            and self.parameters < SOFT_PARAMETERS
        )

    # graph

    def shape(self, x: str) -> tuple[int, ...]:
        """Shape of the tensor ``x``."""
        return self.b.shape(x)

    def channels(self, x: str) -> int:
        """Channels of the NCHW tensor ``x``."""
        return self.shape(x)[1]

    def input(self, *shape: int) -> str:
        """An input of the network's element type."""
        return self.b.input(shape, self.dtype)

    def weight(self, *shape: int) -> str:
        """A constant of the network's element type."""
        self.parameters += math.prod(shape)
        return self.b.weight(shape, self.dtype)

    def scalar(self, value: float) -> str:
        """A constant number of the network's element type."""
        return self.b.const(float(value), self.dtype)

    def op(self, op_type: str, *inputs: str, **attrs: Attr) -> str:
        """An operator of one output."""
        self.nodes += 1
        return self.b.op(op_type, *inputs, domain="", **attrs)

    def multi(self, op_type: str, inputs: Sequence[str], outputs: int, **attrs: Attr) -> tuple[str, ...]:
        """An operator of several outputs."""
        self.nodes += 1
        return self.b.multi(op_type, inputs, outputs, domain="", **attrs)

    def also(self, *outputs: str) -> None:
        """Answer with these tensors, too."""
        self.others += outputs

    # shape operators

    def reshape(self, x: str, *dims: int) -> str:
        """Reshape to ``dims``; at most one is -1."""
        return self.op("Reshape", x, self.b.const(dims), allowzero=0)

    def transpose(self, x: str, *perm: int) -> str:
        """Transpose by ``perm``."""
        return self.op("Transpose", x, perm=perm)

    def concat(self, parts: Sequence[str], axis: int = 1) -> str:
        """Concatenate along ``axis``."""
        return self.op("Concat", *parts, axis=axis)

    def slice(self, x: str, axis: int, start: int, end: int, step: int = 1) -> str:
        """``x[start:end:step]`` along ``axis``."""
        ends = [self.b.const((value,)) for value in (start, end, axis)]
        return self.op("Slice", x, *ends, *((self.b.const((step,)),) if step != 1 else ()))

    def split(self, x: str, sizes: Sequence[int], axis: int = 1) -> tuple[str, ...]:
        """Cut ``x`` into parts of ``sizes`` along ``axis``."""
        return self.multi("Split", (x, self.b.const(tuple(sizes))), len(sizes), axis=axis)

    def reduce(self, op_type: str, x: str, axes: Sequence[int], keepdims: int = 1) -> str:
        """Reduce over ``axes``."""
        return self.op(op_type, x, self.b.const(tuple(axes)), keepdims=keepdims)

    def squeeze(self, x: str, axis: int) -> str:
        """Drop the dimension ``axis`` of size 1."""
        return self.op("Squeeze", x, self.b.const((axis,)))

    # layers

    def conv(
        self,
        x: str,
        cout: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        pads: tuple[int, int, int, int] | None = None,
        bias: bool = True,
    ) -> str:
        """A 2-D convolution, padded to keep the size unless ``pads`` (top, left, bottom, right) are given."""
        kh, kw = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        cin = self.channels(x)
        if pads is None:
            top, left = dilation * (kh - 1) // 2, dilation * (kw - 1) // 2
            pads = (top, left, top, left)
        operands = [x, self.weight(cout, cin // groups, kh, kw)]
        if bias:
            operands.append(self.weight(cout))
        out = self.op(
            "Conv",
            *operands,
            kernel_shape=(kh, kw),
            strides=(stride, stride),
            dilations=(dilation, dilation),
            group=groups,
            pads=pads,
        )
        self.macs += math.prod(self.shape(out)) * cin / groups * kh * kw
        return out

    def conv_transpose(self, x: str, cout: int, kernel: int, stride: int) -> str:
        """A 2-D transposed convolution that multiplies the size by ``stride``."""
        cin, extra = self.channels(x), kernel - stride
        pads = (extra // 2, extra // 2, extra - extra // 2, extra - extra // 2)
        out = self.op(
            "ConvTranspose",
            x,
            self.weight(cin, cout, kernel, kernel),
            self.weight(cout),
            kernel_shape=(kernel, kernel),
            strides=(stride, stride),
            dilations=(1, 1),
            group=1,
            pads=pads,
        )
        self.macs += math.prod(self.shape(x)) * cout * kernel * kernel
        return out

    def batch_norm(self, x: str) -> str:
        """Batch normalisation over axis 1."""
        stats = [self.weight(self.channels(x)) for _ in range(4)]
        return self.op("BatchNormalization", x, *stats, epsilon=1e-5, momentum=0.9, training_mode=0)

    def conv_bn(
        self,
        x: str,
        cout: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        pads: tuple[int, int, int, int] | None = None,
        act: str = "identity",
    ) -> str:
        """Convolution, batch normalisation (folded away in most networks) and the activation ``act``."""
        x = self.conv(x, cout, kernel, stride, groups, dilation, pads, bias=self.fold)
        return self.act(x if self.fold else self.batch_norm(x), act)

    def depthwise(
        self, x: str, kernel: int, stride: int = 1, dilation: int = 1, act: str = "identity"
    ) -> str:
        """Depthwise ``conv_bn``."""
        width = self.channels(x)
        return self.conv_bn(x, width, kernel, stride, width, dilation, act=act)

    def matmul(self, a: str, b: str) -> str:
        """Matrix product."""
        out = self.op("MatMul", a, b)
        self.macs += math.prod(self.shape(out)) * self.shape(a)[-1]
        return out

    def linear(self, x: str, cout: int, bias: bool = True) -> str:
        """A fully connected layer over the last axis: MatMul and, with ``bias``, Add."""
        out = self.matmul(x, self.weight(self.shape(x)[-1], cout))
        return self.op("Add", self.weight(cout), out) if bias else out

    def gemm(self, x: str, cout: int) -> str:
        """A fully connected layer on (rows, features)."""
        rows, cin = self.shape(x)
        self.macs += float(rows) * cin * cout
        return self.op("Gemm", x, self.weight(cout, cin), self.weight(cout), alpha=1.0, beta=1.0, transB=1)

    def act(self, x: str, name: str) -> str:
        """The activation ``name`` of ``ACTIVATIONS``."""
        return ACTIVATIONS[name](self, x)

    def layer_norm(self, x: str) -> str:
        """Layer normalisation over the last axis, as one operator or spelled out."""
        width = self.shape(x)[-1]
        if self.fused_norm:
            return self.op(
                "LayerNormalization", x, self.weight(width), self.weight(width), axis=-1, epsilon=1e-6
            )
        centred = self.op("Sub", x, self.reduce("ReduceMean", x, (-1,)))
        variance = self.reduce("ReduceMean", self.op("Pow", centred, self.scalar(2.0)), (-1,))
        spread = self.op("Sqrt", self.op("Add", variance, self.scalar(1e-5)))
        scaled = self.op("Mul", self.op("Div", centred, spread), self.weight(width))
        return self.op("Add", scaled, self.weight(width))

    def rms_norm(self, x: str) -> str:
        """Root-mean-square normalisation over the last axis, spelled out."""
        square = self.reduce("ReduceMean", self.op("Pow", x, self.scalar(2.0)), (-1,))
        root = self.op("Sqrt", self.op("Add", square, self.scalar(1e-6)))
        scaled = self.op("Mul", x, self.op("Div", self.scalar(1.0), root))
        return self.op("Mul", self.weight(self.shape(x)[-1]), scaled)

    def group_norm(self, x: str, groups: int) -> str:
        """Group normalisation: one operator, or between two reshapes an InstanceNormalization that scales by ones and
        adds zeros, as PyTorch's exporter writes it: what else it scaled and added, MNN would do by itself, in blocks of
        four groups."""
        shape = self.shape(x)
        width = shape[1]
        if self.fused_norm and self.chance(0.5):
            return self.op(
                "GroupNormalization",
                x,
                self.weight(width),
                self.weight(width),
                num_groups=groups,
                epsilon=1e-5,
            )
        flat = self.reshape(x, shape[0], groups, -1)
        scale, bias = (self.b.const((value,) * groups, self.dtype) for value in (1.0, 0.0))
        flat = self.op("InstanceNormalization", flat, scale, bias, epsilon=1e-5)
        x = self.op("Mul", self.reshape(flat, *shape), self.weight(width, 1, 1))
        return self.op("Add", x, self.weight(width, 1, 1))

    def max_pool(self, x: str, kernel: int, stride: int, ceil_mode: int = 0) -> str:
        """Max pooling, padded by half the kernel where the stride is smaller."""
        pad = kernel // 2 if stride < kernel else 0
        return self.op(
            "MaxPool",
            x,
            kernel_shape=(kernel, kernel),
            strides=(stride, stride),
            pads=(pad,) * 4,
            dilations=(1, 1),
            ceil_mode=ceil_mode,
        )

    def average_pool(self, x: str, kernel: int, stride: int, include_pad: int = 1) -> str:
        """Average pooling, padded by half the kernel where the stride is smaller."""
        pad = kernel // 2 if stride < kernel else 0
        return self.op(
            "AveragePool",
            x,
            kernel_shape=(kernel, kernel),
            strides=(stride, stride),
            pads=(pad,) * 4,
            ceil_mode=0,
            count_include_pad=include_pad,
        )

    def global_pool(self, x: str) -> str:
        """Mean over height and width, kept as dimensions of size 1."""
        if self.pool_op == "ReduceMean":
            return self.reduce("ReduceMean", x, (2, 3))
        return self.op("GlobalAveragePool", x)

    def resize(self, x: str, factor: int, mode: str) -> str:
        """Enlarge height and width by ``factor``; ``mode`` is "nearest" or "linear"."""
        scales = self.b.const((1.0, 1.0, float(factor), float(factor)), "float32")
        if mode == "nearest":
            rule = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        else:
            rule = {"coordinate_transformation_mode": self.pick("half_pixel", "align_corners")}
        return self.op("Resize", x, "", scales, mode=mode, **rule)

    def squeeze_excite(self, x: str, inner: int, act: str, gate: str) -> str:
        """Scale the channels of ``x`` by what a small network makes of their means."""
        means = self.reduce("ReduceMean", x, (2, 3)) if self.chance(0.7) else self.op("GlobalAveragePool", x)
        gates = self.act(self.conv(self.act(self.conv(means, inner), act), self.channels(x)), gate)
        return self.op("Mul", x, gates)


def _clip(pen: Pen, x: str) -> str:
    return pen.op("Clip", x, pen.scalar(0.0), pen.scalar(6.0))


def _silu(pen: Pen, x: str) -> str:
    return pen.op("Mul", x, pen.op("Sigmoid", x))


def _hard_swish_spelled(pen: Pen, x: str) -> str:
    gate = _clip(pen, pen.op("Add", x, pen.scalar(3.0)))
    if pen.chance(0.5):
        return pen.op("Div", pen.op("Mul", x, gate), pen.scalar(6.0))
    return pen.op("Mul", x, pen.op("Div", gate, pen.scalar(6.0)))


def _hard_sigmoid_spelled(pen: Pen, x: str) -> str:
    return pen.op("Div", _clip(pen, pen.op("Add", x, pen.scalar(3.0))), pen.scalar(6.0))


def _gelu_erf(pen: Pen, x: str) -> str:
    grown = pen.op("Add", pen.op("Erf", pen.op("Div", x, pen.scalar(math.sqrt(2)))), pen.scalar(1.0))
    return pen.op("Mul", pen.op("Mul", x, grown), pen.scalar(0.5))


def _gelu_tanh(pen: Pen, x: str) -> str:
    cube = pen.op("Pow", x, pen.scalar(3.0))
    inner = pen.op("Add", x, pen.op("Mul", cube, pen.scalar(0.044715)))
    curve = pen.op("Tanh", pen.op("Mul", inner, pen.scalar(math.sqrt(2 / math.pi))))
    grown = pen.op("Add", curve, pen.scalar(1.0))
    return pen.op("Mul", pen.op("Mul", x, pen.scalar(0.5)), grown)


ACTIVATIONS: Mapping[str, Callable[[Pen, str], str]] = {
    "identity": lambda pen, x: x,
    "relu": lambda pen, x: pen.op("Relu", x),
    "relu6": _clip,
    "leaky_relu": lambda pen, x: pen.op("LeakyRelu", x, alpha=0.1),
    "prelu": lambda pen, x: pen.op("PRelu", x, pen.weight(pen.channels(x), *(1,) * (len(pen.shape(x)) - 2))),
    "elu": lambda pen, x: pen.op("Elu", x, alpha=1.0),
    "sigmoid": lambda pen, x: pen.op("Sigmoid", x),
    "tanh": lambda pen, x: pen.op("Tanh", x),
    "silu": _silu,
    "mish": lambda pen, x: pen.op("Mul", x, pen.op("Tanh", pen.op("Softplus", x))),
    "hard_swish": lambda pen, x: pen.op("HardSwish", x),
    "hard_swish_spelled": _hard_swish_spelled,
    "hard_sigmoid": lambda pen, x: pen.op("HardSigmoid", x, alpha=1 / 6, beta=0.5),
    "hard_sigmoid_spelled": _hard_sigmoid_spelled,
    "gelu": lambda pen, x: pen.act(x, pen.gelu),
    "gelu_op": lambda pen, x: pen.op("Gelu", x, approximate="none"),
    "gelu_erf": _gelu_erf,
    "gelu_tanh": _gelu_tanh,
}
"""Activation name to the operators that spell it; "gelu" is spelled as the network has drawn it."""
