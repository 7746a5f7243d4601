"""TFLite's operators: a table from name to the TensorFlow operator that it is, and where its options lie.

Numbers and slots are those of TFLite's public ``schema.fbs``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from nn_meter.frontends.tensorflow.wire import AttrValue
from nn_meter.frontends.tflite.flatbuffer import Table

CODES: Final = (
    "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "DEPTH_TO_SPACE", "DEQUANTIZE",
    "EMBEDDING_LOOKUP", "FLOOR", "FULLY_CONNECTED", "HASHTABLE_LOOKUP", "L2_NORMALIZATION", "L2_POOL_2D",
    "LOCAL_RESPONSE_NORMALIZATION", "LOGISTIC", "LSH_PROJECTION", "LSTM", "MAX_POOL_2D", "MUL", "RELU",
    "RELU_N1_TO_1", "RELU6", "RESHAPE", "RESIZE_BILINEAR", "RNN", "SOFTMAX", "SPACE_TO_DEPTH", "SVDF", "TANH",
    "CONCAT_EMBEDDINGS", "SKIP_GRAM", "CALL", "CUSTOM", "EMBEDDING_LOOKUP_SPARSE", "PAD",
    "UNIDIRECTIONAL_SEQUENCE_RNN", "GATHER", "BATCH_TO_SPACE_ND", "SPACE_TO_BATCH_ND", "TRANSPOSE", "MEAN", "SUB",
    "DIV", "SQUEEZE", "UNIDIRECTIONAL_SEQUENCE_LSTM", "STRIDED_SLICE", "BIDIRECTIONAL_SEQUENCE_RNN", "EXP", "TOPK_V2",
    "SPLIT", "LOG_SOFTMAX", "DELEGATE", "BIDIRECTIONAL_SEQUENCE_LSTM", "CAST", "PRELU", "MAXIMUM", "ARG_MAX",
    "MINIMUM", "LESS", "NEG", "PADV2", "GREATER", "GREATER_EQUAL", "LESS_EQUAL", "SELECT", "SLICE", "SIN",
    "TRANSPOSE_CONV", "SPARSE_TO_DENSE", "TILE", "EXPAND_DIMS", "EQUAL", "NOT_EQUAL", "LOG", "SUM", "SQRT", "RSQRT",
    "SHAPE", "POW", "ARG_MIN", "FAKE_QUANT", "REDUCE_PROD", "REDUCE_MAX", "PACK", "LOGICAL_OR", "ONE_HOT",
    "LOGICAL_AND", "LOGICAL_NOT", "UNPACK", "REDUCE_MIN", "FLOOR_DIV", "REDUCE_ANY", "SQUARE", "ZEROS_LIKE", "FILL",
    "FLOOR_MOD", "RANGE", "RESIZE_NEAREST_NEIGHBOR", "LEAKY_RELU", "SQUARED_DIFFERENCE", "MIRROR_PAD", "ABS",
    "SPLIT_V", "UNIQUE", "CEIL", "REVERSE_V2", "ADD_N", "GATHER_ND", "COS", "WHERE", "RANK", "ELU",
    "REVERSE_SEQUENCE", "MATRIX_DIAG", "QUANTIZE", "MATRIX_SET_DIAG", "ROUND", "HARD_SWISH", "IF", "WHILE",
    "NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5", "SCATTER_ND", "SELECT_V2", "DENSIFY", "SEGMENT_SUM",
    "BATCH_MATMUL", "PLACEHOLDER_FOR_GREATER_OP_CODES", "CUMSUM", "CALL_ONCE", "BROADCAST_TO", "RFFT2D", "CONV_3D",
    "IMAG", "REAL", "COMPLEX_ABS", "HASHTABLE", "HASHTABLE_FIND", "HASHTABLE_IMPORT", "HASHTABLE_SIZE", "REDUCE_ALL",
    "CONV_3D_TRANSPOSE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "BROADCAST_ARGS", "RANDOM_STANDARD_NORMAL",
    "BUCKETIZE", "RANDOM_UNIFORM", "MULTINOMIAL", "GELU", "DYNAMIC_UPDATE_SLICE", "RELU_0_TO_1",
    "UNSORTED_SEGMENT_PROD", "UNSORTED_SEGMENT_MAX", "UNSORTED_SEGMENT_SUM", "ATAN2", "UNSORTED_SEGMENT_MIN", "SIGN",
    "BITCAST", "BITWISE_XOR", "RIGHT_SHIFT",
)  # fmt: skip
"""``BuiltinOperator``: the name at each number, from 0. Those behind it have no row below."""

CONTROL_FLOW: Final = frozenset({"CALL", "CALL_ONCE", "IF", "WHILE"})

ACTIVATIONS: Final[Mapping[int, tuple[str, str]]] = MappingProxyType(
    {1: ("Relu", "RELU"), 2: ("ReluN1To1", "RELU_N1_TO_1"), 3: ("Relu6", "RELU6"), 4: ("Tanh", "TANH")}
)
"""``ActivationFunctionType`` that an operator may end with: TensorFlow's and TFLite's name."""

_PADDING: Final = ("SAME", "VALID")


@dataclass(frozen=True, slots=True)
class Option:
    """Where an attribute lies among an operator's options: its slot, or a slot for each dimension.

    ``kind`` is the struct format of a number, ``"?"`` a flag, ``"p"`` a padding scheme, ``"v"`` a vector.
    """

    slots: tuple[int, ...]
    kind: str = "i"
    default: float = 0


@dataclass(frozen=True, slots=True)
class Row:
    """What a TFLite operator is to TensorFlow.

    ``appended`` are options that TensorFlow has as constant inputs at the end; ``activation`` is the slot of
    the fused activation.
    """

    kind: str
    options: Mapping[str, Option] = field(default_factory=dict)
    fixed: Mapping[str, AttrValue] = field(default_factory=dict)
    appended: tuple[str, ...] = ()
    activation: int | None = None


def attributes(row: Row, options: Table | None) -> dict[str, AttrValue]:
    """The attributes that TensorFlow's operator has, read from the options."""
    attrs = dict(row.fixed)
    for name, option in row.options.items():
        attrs[name] = _read(option, options)
    return attrs


def _read(option: Option, options: Table | None) -> AttrValue:
    if option.kind == "v":
        return tuple(options.vector(option.slots[0], "i") or ()) if options is not None else ()
    kind = "b" if option.kind == "p" else option.kind
    values = [
        options.number(slot, kind, option.default) if options is not None else option.default for slot in option.slots
    ]
    if option.kind == "p":
        return _PADDING[1] if values[0] else _PADDING[0]
    if option.kind == "?":
        return bool(values[0])
    return tuple(values) if len(values) > 1 else values[0]


def _options(**options: Option) -> Mapping[str, Option]:
    return MappingProxyType(options)


_NOTHING: Final[Mapping[str, AttrValue]] = MappingProxyType({})
_FILTER: Final[Mapping[str, AttrValue]] = MappingProxyType({"filter_format": "OHWI"})


def _windowed(kind: str, activation: int, fixed: Mapping[str, AttrValue] = _NOTHING, **slots: tuple[int, ...]) -> Row:
    """What slides over an image; ``slots`` are those of its strides and of what else has a number for each axis."""
    by_axis = {name: Option(each, default=int(name == "dilations")) for name, each in slots.items()}
    return Row(kind, _options(padding=Option((0,), "p"), **by_axis), fixed, activation=activation)


_AS_IN_TENSORFLOW: Final = """
    ADD_N FLOOR_DIV FLOOR_MOD POW MAXIMUM MINIMUM SQUARED_DIFFERENCE EQUAL NOT_EQUAL LESS LESS_EQUAL GREATER
    GREATER_EQUAL LOGICAL_AND LOGICAL_OR LOGICAL_NOT SELECT SELECT_V2 RELU RELU6 RELU_N1_TO_1 RELU_0_TO_1 ELU
    HARD_SWISH TANH SOFTMAX LOG_SOFTMAX EXP LOG SQRT RSQRT SQUARE NEG ABS SIGN FLOOR CEIL ROUND SIN COS CAST
    QUANTIZE DEQUANTIZE ARG_MAX ARG_MIN SPLIT_V PAD MIRROR_PAD SLICE REVERSE_V2 TILE BROADCAST_TO GATHER_ND
    EMBEDDING_LOOKUP SHAPE RANK RANGE FILL ZEROS_LIKE EXPAND_DIMS TRANSPOSE
"""
"""What TensorFlow calls the same in its own spelling: ``FLOOR_DIV`` is ``FloorDiv``."""

OPERATORS: Final[Mapping[str, Row]] = MappingProxyType(
    {
        **{name: Row(name.title().replace("_", "")) for name in _AS_IN_TENSORFLOW.split()},
        "CONV_2D": _windowed("Conv2D", 3, _FILTER, strides=(2, 1), dilations=(5, 4)),
        "DEPTHWISE_CONV_2D": _windowed("DepthwiseConv2dNative", 4, _FILTER, strides=(2, 1), dilations=(6, 5)),
        "CONV_3D": _windowed("Conv3D", 4, strides=(1, 3, 2), dilations=(5, 7, 6)),
        "TRANSPOSE_CONV": _windowed("Conv2DBackpropInput", 3, _FILTER, strides=(2, 1)),
        "FULLY_CONNECTED": Row("FullyConnected", _options(keep_num_dims=Option((2,), "?")), activation=0),
        "BATCH_MATMUL": Row("BatchMatMulV2", _options(adj_x=Option((0,), "?"), adj_y=Option((1,), "?"))),
        "AVERAGE_POOL_2D": _windowed("AvgPool", 5, strides=(2, 1), ksize=(4, 3)),
        "MAX_POOL_2D": _windowed("MaxPool", 5, strides=(2, 1), ksize=(4, 3)),
        "LOCAL_RESPONSE_NORMALIZATION": Row(
            "LRN",
            _options(
                depth_radius=Option((0,)), bias=Option((1,), "f"), alpha=Option((2,), "f"), beta=Option((3,), "f")
            ),
        ),
        "RESIZE_BILINEAR": Row(
            "ResizeBilinear", _options(align_corners=Option((2,), "?"), half_pixel_centers=Option((3,), "?"))
        ),
        "RESIZE_NEAREST_NEIGHBOR": Row(
            "ResizeNearestNeighbor",
            _options(align_corners=Option((0,), "?"), half_pixel_centers=Option((1,), "?")),
        ),
        "DEPTH_TO_SPACE": Row("DepthToSpace", _options(block_size=Option((0,)))),
        "SPACE_TO_DEPTH": Row("SpaceToDepth", _options(block_size=Option((0,)))),
        # weights that lie in variables: the shape is that of the tensor read
        "VAR_HANDLE": Row("VarHandleOp"),
        "READ_VARIABLE": Row("VarHandleOp"),
        # element by element
        "ADD": Row("AddV2", activation=0),
        "SUB": Row("Sub", activation=0),
        "MUL": Row("Mul", activation=0),
        "DIV": Row("RealDiv", activation=0),
        "PRELU": Row("PRelu"),
        "LEAKY_RELU": Row("LeakyRelu", _options(alpha=Option((0,), "f"))),
        "GELU": Row("Gelu", _options(approximate=Option((0,), "?"))),
        "LOGISTIC": Row("Sigmoid"),
        "FAKE_QUANT": Row("FakeQuantWithMinMaxArgs"),
        # along axes
        **{
            name: Row(name.removeprefix("REDUCE_").title(), _options(keep_dims=Option((0,), "?")))
            for name in ("MEAN", "SUM", "REDUCE_PROD", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_ALL", "REDUCE_ANY")
        },
        "TOPK_V2": Row("TopKV2"),
        "CUMSUM": Row("Cumsum", _options(exclusive=Option((0,), "?"), reverse=Option((1,), "?"))),
        "CONCATENATION": Row("ConcatV2", _options(axis=Option((0,))), appended=("axis",), activation=1),
        "SPLIT": Row("Split", _options(num_split=Option((0,)))),
        "PADV2": Row("PadV2"),
        "STRIDED_SLICE": Row(
            "StridedSlice",
            _options(
                begin_mask=Option((0,)), end_mask=Option((1,)), ellipsis_mask=Option((2,)), new_axis_mask=Option((3,)),
                shrink_axis_mask=Option((4,)),
            ),
        ),
        "GATHER": Row("GatherV2", _options(axis=Option((0,)), batch_dims=Option((1,)))),
        "ONE_HOT": Row("OneHot", _options(axis=Option((0,)))),
        # shapes
        "RESHAPE": Row("Reshape", _options(new_shape=Option((0,), "v"))),
        "SQUEEZE": Row("Squeeze", _options(squeeze_dims=Option((0,), "v"))),
        "PACK": Row("Pack", _options(axis=Option((1,)))),
        "UNPACK": Row("Unpack", _options(axis=Option((1,)))),
    }
)
"""TFLite's name to its row; what has none is refused by name."""
