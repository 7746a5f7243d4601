"""TensorFlow's operators: a table from name to how it becomes ONNX nodes.

Definitions: https://www.tensorflow.org/api_docs/python/tf/raw_ops and https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from nn_meter.errors import UnsupportedOperatorError
from nn_meter.frontends.tensorflow import shaping, spatial
from nn_meter.frontends.tensorflow.attrs import flag, floating, integer, text
from nn_meter.frontends.tensorflow.flow import Op
from nn_meter.frontends.tensorflow.lowering import Lowering, image, plain
from nn_meter.frontends.tensorflow.wire import Constant
from nn_meter.ir.graph import Attr
from nn_meter.ir.shapes import DTYPES

Lower = Callable[[Lowering, Op], None]


class Role(Enum):
    """What an operator says about the layout of its values."""

    IMAGE = "its first data input and its result are images, unless its data format says otherwise"
    FOLLOW = "its data inputs and its results share a layout"
    OWN = "it works on the source's order of axes"


@dataclass(frozen=True, slots=True)
class Row:
    """How one operator is written.

    ``data`` bounds the inputs whose layout its results share, if it keeps the number of their dimensions.
    """

    lower: Lower
    role: Role = Role.OWN
    data: tuple[int | None, int | None] = (0, None)
    keeps_rank: Callable[[Op], bool] = lambda op: True


def _broadcast(lo: Lowering, op: Op, op_type: str, suffix: str = "", /, **attrs: Attr) -> str:
    """Add an elementwise node over all inputs; returns its output."""
    layout = lo.shared(op, *op.inputs)
    inputs = [lo.tensor(key, layout) for key in op.inputs]
    return lo.emit(op, op_type, inputs, suffix, **attrs)[0]


def _first(lo: Lowering, op: Op) -> str:
    """The first input in the layout of the result."""
    return lo.tensor(op.inputs[0], lo.shared(op, op.inputs[0]))


def _bind(lo: Lowering, op: Op, name: str) -> None:
    """The result of an elementwise operator; constants keep the source's order."""
    rank = len(lo.tensors[name].shape)
    lo.bind(op.output(), name, plain(rank) if lo.tensors[name].const else lo.wanted(op.output(), rank))


def elementwise(op_type: str, attrs: Callable[[Op], dict[str, Attr]] = lambda op: {}) -> Row:
    """The ONNX operator ``op_type`` over inputs that broadcast; ``attrs`` are its attributes, of TensorFlow's."""

    def lower(lo: Lowering, op: Op) -> None:
        _bind(lo, op, _broadcast(lo, op, op_type, **attrs(op)))

    return Row(lower, Role.FOLLOW)


def _then(first: str, second: str) -> Row:
    def lower(lo: Lowering, op: Op) -> None:
        _bind(lo, op, lo.emit(op, second, [_broadcast(lo, op, first, f"/{first.lower()}")])[0])

    return Row(lower, Role.FOLLOW)


def clip(low: float | None, high: float | None) -> Row:
    """``Clip`` to fixed bounds."""

    def lower(lo: Lowering, op: Op) -> None:
        x = _first(lo, op)
        dtype = lo.tensors[x].dtype
        bounds = [
            "" if bound is None else lo.const(op, suffix, (bound,), dtype, scalar=True)
            for suffix, bound in (("min", low), ("max", high))
        ]
        _bind(lo, op, lo.emit(op, "Clip", [x, *bounds])[0])

    return Row(lower, Role.FOLLOW)


def _power(exponent: float) -> Row:
    def lower(lo: Lowering, op: Op) -> None:
        x = _first(lo, op)
        power = lo.const(op, "exponent", (exponent,), lo.tensors[x].dtype, scalar=True)
        _bind(lo, op, lo.emit(op, "Pow", [x, power])[0])

    return Row(lower, Role.FOLLOW)


def _square(lo: Lowering, op: Op) -> None:
    _bind(lo, op, lo.emit(op, "Mul", [_first(lo, op)] * 2)[0])


def _squared_difference(lo: Lowering, op: Op) -> None:
    difference = _broadcast(lo, op, "Sub", "/difference")
    _bind(lo, op, lo.emit(op, "Mul", [difference, difference])[0])


def _complement(lo: Lowering, op: Op) -> None:
    """Erfc, 1 - Erf."""
    erf = _broadcast(lo, op, "Erf", "/erf")
    one = lo.const(op, "one", (1.0,), lo.tensors[erf].dtype, scalar=True)
    _bind(lo, op, lo.emit(op, "Sub", [one, erf])[0])


def _cast(lo: Lowering, op: Op) -> None:
    dtype = text(op, "DstT", "float32")
    if dtype not in DTYPES:
        raise UnsupportedOperatorError(
            f"{lo.source}: node {op.name!r} ({op.kind}) casts to {dtype!r}, which ONNX lacks"
        )
    _bind(lo, op, _broadcast(lo, op, "Cast", to=DTYPES.index(dtype)))


def softmax(op_type: str) -> Row:
    """``Softmax`` or ``LogSoftmax`` over the last axis."""

    def lower(lo: Lowering, op: Op) -> None:
        rank = lo.rank(op.inputs[0])
        axis = lo.shared(op, op.inputs[0]).index(rank - 1)
        _bind(lo, op, _broadcast(lo, op, op_type, axis=axis))

    return Row(lower, Role.FOLLOW)


def _alias(lo: Lowering, op: Op) -> None:
    for index, key in enumerate(op.inputs):
        lo.alias(op.output(index), key)


def _const(lo: Lowering, op: Op) -> None:
    value = op.attrs.get("value")
    if not isinstance(value, Constant):
        raise UnsupportedOperatorError(f"{lo.source}: node {op.name!r} (Const) holds no tensor; the file is damaged")
    elements = None if value.array is None else tuple(value.array.reshape(-1).tolist())
    lo.add_constant(op.output(), op.name, value.shape, "str" if value.dtype == "string" else value.dtype, elements)


def _variable(lo: Lowering, op: Op) -> None:
    shape = op.attrs.get("shape")
    if not isinstance(shape, tuple) or any(dim < 0 for dim in shape):
        raise UnsupportedOperatorError(
            f"{lo.source}: node {op.name!r} ({op.kind}) is a variable whose shape the file does not state; "
            "freeze the graph"
        )
    lo.add_constant(op.output(), op.name, shape, text(op, "dtype", "float32"))


def _like(value: int) -> Lower:
    def lower(lo: Lowering, op: Op) -> None:
        tensor = lo.value(op.inputs[0]).tensor
        shape = lo.shape(op.inputs[0])
        size = tensor.size
        lo.add_constant(op.output(), lo.unique(op.name), shape, tensor.dtype, (value,) * size if size <= 256 else None)

    return lower


def _batch_norm(lo: Lowering, op: Op) -> None:
    layout = spatial.layout(lo, op)
    x = lo.tensor(op.inputs[0], layout)
    training = flag(op, "is_training", True)
    statistics = op.inputs[1:3] if training else op.inputs[3:5]
    inputs = [x, *(lo.tensor(key) for key in (*op.inputs[1:3], *statistics))]
    mode: dict[str, Attr] = {"training_mode": 1} if training else {}
    lo.give(op, "BatchNormalization", inputs, layout, epsilon=floating(op, "epsilon", 1e-4), **mode)


def _bias(lo: Lowering, op: Op) -> None:
    rank = lo.rank(op.inputs[0])
    if text(op, "data_format", "NHWC").endswith("C"):
        layout = lo.shared(op, op.inputs[0])
        bias = lo.tensor(op.inputs[1], layout)
    else:
        layout = plain(rank)
        bias = lo.reshaped(op.inputs[1], (*lo.shape(op.inputs[1]), *(1,) * (rank - 2)))
    lo.give(op, "Add", [lo.tensor(op.inputs[0], layout), bias], layout)


def _matmul(lo: Lowering, op: Op) -> None:
    a, b = (lo.tensor(key) for key in op.inputs[:2])
    transposed = {name: 1 for name, attr in (("transA", "transpose_a"), ("transB", "transpose_b")) if flag(op, attr)}
    lo.give(op, "Gemm" if transposed else "MatMul", [a, b], **transposed)


def _fully_connected(lo: Lowering, op: Op) -> None:
    """TFLite's: weights (out, in), an optional bias; the input is flattened unless ``keep_num_dims``."""
    x, weights = op.inputs[:2]
    bias = op.inputs[2] if len(op.inputs) > 2 else ""
    _, width = lo.shape(weights)
    if lo.rank(x) > 2 and flag(op, "keep_num_dims"):
        (name,) = lo.emit(op, "MatMul", [lo.tensor(x), lo.tensor(weights, (1, 0))], "/matmul" if bias else "")
        if bias:
            (name,) = lo.emit(op, "Add", [name, lo.tensor(bias)])
        lo.bind(op.output(), name)
        return
    rows = lo.value(x).tensor.size // width
    inputs = [lo.reshaped(x, (rows, width)), lo.tensor(weights), *([lo.tensor(bias)] if bias else [])]
    lo.give(op, "Gemm", inputs, transB=1)


def _batch_matmul(lo: Lowering, op: Op) -> None:
    inputs = []
    for key, attr in zip(op.inputs, ("adj_x", "adj_y"), strict=True):
        name = lo.tensor(key)
        if flag(op, attr):
            rank = lo.rank(key)
            perm = (*range(rank - 2), rank - 1, rank - 2)
            (name,) = lo.emit(op, "Transpose", [name], f"/{attr}", perm=perm)
        inputs.append(name)
    lo.give(op, "MatMul", inputs)


def _einsum(lo: Lowering, op: Op) -> None:
    inputs = [lo.tensor(key) for key in op.inputs]
    lo.give(op, "Einsum", inputs, equation=text(op, "equation"))


def _embedding(lo: Lowering, op: Op) -> None:
    """TFLite's: indices first, table second."""
    lo.give(op, "Gather", [lo.tensor(op.inputs[1]), lo.tensor(op.inputs[0])], axis=0)


def _fake_quant(lo: Lowering, op: Op) -> None:
    x = _first(lo, op)
    scale = lo.const(op, "scale", (1.0,), "float32", scalar=True)
    zero = lo.const(op, "zero_point", (0,), "uint8", scalar=True)
    (low,) = lo.emit(op, "QuantizeLinear", [x, scale, zero], "/quantize")
    _bind(lo, op, lo.emit(op, "DequantizeLinear", [low, scale, zero])[0])


def _quantize(lo: Lowering, op: Op) -> None:
    """TFLite's QUANTIZE and DEQUANTIZE; the element types are those of the tensors."""
    x = _first(lo, op)
    dtype = lo.tensors[x].dtype
    quantize = op.kind == "Quantize"
    target = text(op, "dtype", "int8") if quantize else dtype
    if dtype == "float16":  # weights stored as half-precision numbers
        _bind(lo, op, lo.emit(op, "Cast", [x], to=DTYPES.index("float32"))[0])
        return
    scale = lo.const(op, "scale", (1.0,), "float32", scalar=True)
    zero = lo.const(op, "zero_point", (0,), target, scalar=True)
    if quantize and dtype != "float32":  # from one quantisation to another
        (x,) = lo.emit(
            op, "DequantizeLinear", [x, scale, lo.const(op, "zero", (0,), dtype, scalar=True)], "/dequantize"
        )
    _bind(lo, op, lo.emit(op, "QuantizeLinear" if quantize else "DequantizeLinear", [x, scale, zero])[0])


def _local_response(lo: Lowering, op: Op) -> None:
    layout = image(lo.rank(op.inputs[0]))
    size = 2 * integer(op, "depth_radius", 5) + 1
    lo.give(
        op, "LRN", [lo.tensor(op.inputs[0], layout)], layout,
        size=size, alpha=floating(op, "alpha", 1.0) * size, beta=floating(op, "beta", 0.5),
        bias=floating(op, "bias", 1.0),
    )  # fmt: skip


def _reduction(op_type: str) -> Row:
    return Row(shaping.reduction(op_type), Role.FOLLOW, _FIRST, shaping.keeps_dims)


_FIRST: Final = (0, 1)
_PASSED_ON: Final = "Identity Snapshot StopGradient PreventGradient CheckNumerics EnsureShape ReadVariableOp"
"""What gives on its input as it is."""

_AS_IN_ONNX: Final = """
    Add Sub Mul Div Pow PRelu Equal Less Greater Relu Elu Selu HardSwish Sigmoid Softplus Softsign Tanh Erf Exp Log
    Sqrt Reciprocal Neg Abs Sign Floor Ceil Round Sin Cos
"""
"""Operators over inputs that broadcast, which ONNX has under the same name."""

_CALLED_IN_ONNX: Final[Mapping[str, str]] = MappingProxyType(
    {
        "AddV2": "Add", "AddN": "Sum", "RealDiv": "Div", "DivNoNan": "Div", "TruncateDiv": "Div", "FloorMod": "Mod",
        "Maximum": "Max", "Minimum": "Min", "LessEqual": "LessOrEqual", "GreaterEqual": "GreaterOrEqual",
        "LogicalAnd": "And", "LogicalOr": "Or", "LogicalNot": "Not", "Select": "Where", "SelectV2": "Where",
        "Inv": "Reciprocal", "IsNan": "IsNaN",
    }
)  # fmt: skip
"""Such operators, which ONNX has under another name."""

OPERATORS: Final[Mapping[str, Row]] = MappingProxyType(
    {
        # what enters and what only names a value
        "Const": Row(_const),
        **dict.fromkeys(("VarHandleOp", "VariableV2", "Variable"), Row(_variable)),
        **dict.fromkeys(_PASSED_ON.split(), Row(_alias, Role.FOLLOW)),
        "IdentityN": Row(_alias),
        "ZerosLike": Row(_like(0)),
        "OnesLike": Row(_like(1)),
        # convolutions, pools and what else slides over an image
        **dict.fromkeys(("Conv2D", "Conv3D"), Row(spatial.convolution, Role.IMAGE, _FIRST)),
        "DepthwiseConv2dNative": Row(spatial.depthwise, Role.IMAGE, _FIRST),
        **dict.fromkeys(("Conv2DBackpropInput", "Conv3DBackpropInputV2"), Row(spatial.transposed, Role.IMAGE, (2, 3))),
        **dict.fromkeys(("MaxPool", "MaxPool3D"), Row(spatial.pool("MaxPool"), Role.IMAGE, _FIRST)),
        **dict.fromkeys(("AvgPool", "AvgPool3D"), Row(spatial.pool("AveragePool"), Role.IMAGE, _FIRST)),
        "ResizeBilinear": Row(spatial.resize("linear"), Role.IMAGE, _FIRST),
        "ResizeNearestNeighbor": Row(spatial.resize("nearest"), Role.IMAGE, _FIRST),
        "ResizeBicubic": Row(spatial.resize("cubic"), Role.IMAGE, _FIRST),
        "DepthToSpace": Row(spatial.blocks("DepthToSpace"), Role.IMAGE, _FIRST),
        "SpaceToDepth": Row(spatial.blocks("SpaceToDepth"), Role.IMAGE, _FIRST),
        "LRN": Row(_local_response, Role.IMAGE, _FIRST),
        **{f"FusedBatchNorm{version}": Row(_batch_norm, Role.IMAGE, _FIRST) for version in ("", "V2", "V3")},
        **dict.fromkeys(("BiasAdd", "BiasAddV1"), Row(_bias, Role.FOLLOW, _FIRST)),
        # products
        "MatMul": Row(_matmul),
        **{f"BatchMatMul{version}": Row(_batch_matmul) for version in ("", "V2", "V3")},
        "Einsum": Row(_einsum),
        "FullyConnected": Row(_fully_connected),
        # element by element
        **{name: elementwise(name) for name in _AS_IN_ONNX.split()},
        **{name: elementwise(called) for name, called in _CALLED_IN_ONNX.items()},
        "FloorDiv": _then("Div", "Floor"),
        "NotEqual": _then("Equal", "Not"),
        "SquaredDifference": Row(_squared_difference, Role.FOLLOW),
        "Relu6": clip(0.0, 6.0),
        "ReluN1To1": clip(-1.0, 1.0),
        "Relu0To1": clip(0.0, 1.0),
        "LeakyRelu": elementwise("LeakyRelu", lambda op: {"alpha": floating(op, "alpha", 0.2)}),
        "Gelu": elementwise("Gelu", lambda op: {"approximate": "tanh" if flag(op, "approximate") else "none"}),
        "Erfc": Row(_complement, Role.FOLLOW),
        "Rsqrt": _power(-0.5),
        "Square": Row(_square, Role.FOLLOW),
        "Cast": Row(_cast, Role.FOLLOW),
        "Softmax": softmax("Softmax"),
        "LogSoftmax": softmax("LogSoftmax"),
        "FakeQuantWithMinMaxVars": Row(_fake_quant, Role.FOLLOW, _FIRST),
        "FakeQuantWithMinMaxArgs": Row(_fake_quant, Role.FOLLOW, _FIRST),
        "FakeQuantWithMinMaxVarsPerChannel": Row(_fake_quant, Role.FOLLOW, _FIRST),
        **dict.fromkeys(("Quantize", "Dequantize"), Row(_quantize, Role.FOLLOW)),
        # along axes
        "Mean": _reduction("ReduceMean"),
        "Sum": _reduction("ReduceSum"),
        "Max": _reduction("ReduceMax"),
        "Min": _reduction("ReduceMin"),
        "Prod": _reduction("ReduceProd"),
        "All": _reduction("ReduceMin"),
        "Any": _reduction("ReduceMax"),
        "ArgMax": Row(shaping.arg("ArgMax")),
        "ArgMin": Row(shaping.arg("ArgMin")),
        "TopKV2": Row(shaping.top_k),
        "Cumsum": Row(shaping.cumsum),
        "ConcatV2": Row(shaping.concat, Role.FOLLOW, (0, -1)),
        "Concat": Row(shaping.concat, Role.FOLLOW, (1, None)),
        "Split": Row(shaping.split, Role.FOLLOW, (1, 2)),
        "SplitV": Row(shaping.split, Role.FOLLOW, _FIRST),
        **dict.fromkeys(("Pad", "PadV2", "MirrorPad"), Row(shaping.pad, Role.FOLLOW, _FIRST)),
        "Slice": Row(shaping.slice_from, Role.FOLLOW, _FIRST),
        "StridedSlice": Row(shaping.strided_slice, Role.FOLLOW, _FIRST, shaping.keeps_axes),
        "ReverseV2": Row(shaping.reverse, Role.FOLLOW, _FIRST),
        "Tile": Row(shaping.tile, Role.FOLLOW, _FIRST),
        "BroadcastTo": Row(shaping.broadcast_to),
        **dict.fromkeys(("Gather", "GatherV2", "ResourceGather"), Row(shaping.gather)),
        "GatherNd": Row(shaping.gather_nd),
        "EmbeddingLookup": Row(_embedding),
        "OneHot": Row(shaping.one_hot),
        # shapes
        **dict.fromkeys(("Shape", "ShapeN"), Row(shaping.shape_of)),
        "Size": Row(shaping.size_of),
        "Rank": Row(shaping.rank_of),
        "Range": Row(shaping.number_range),
        "Fill": Row(shaping.fill),
        "Reshape": Row(shaping.reshape),
        "Squeeze": Row(shaping.squeeze),
        "ExpandDims": Row(shaping.expand_dims),
        "Transpose": Row(shaping.transpose),
        "Pack": Row(shaping.pack),
        "Unpack": Row(shaping.unpack),
    }
)
"""TensorFlow's name to its row. Placeholders are read beforehand; what has no row is refused by name."""
