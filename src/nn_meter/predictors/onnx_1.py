"""What schema ``onnx-1`` meant, frozen: the codes of names in bundles that carry none, and the work that it counted.

A code was a name's place among its like. What is added to a kernel kind later has no code here. Transposed convolutions
counted a window to each pixel of the result, elementwise operators results of the first operand's type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise, permutations
from math import prod
from types import MappingProxyType
from typing import Any

from nn_meter.kernels.kinds import BroadcastConfig
from nn_meter.kernels.kinds.convolutions import work as convolution_work
from nn_meter.kernels.schema import Work, item_bytes

SCHEMA = "onnx-1"

_OPERATORS: Mapping[str, str] = MappingProxyType(
    {
        "attention": "Attention MultiHeadAttention GroupQueryAttention",
        "unary": "Abs Acos Asin Atan BitwiseNot Cast Ceil Celu Clip Cos Cosh Elu Erf Exp FastGelu Floor Gelu "
        "HardSigmoid HardSwish IsInf IsNaN LeakyRelu Log Mish Neg Not QuickGelu Reciprocal Relu Round Selu Shrink "
        "Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Tan Tanh ThresholdedRelu",
        "binary": "Add And BiasGelu BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less "
        "LessOrEqual Max Mean Min Mod Mul Or PRelu Pow Sub Sum Where Xor",
        "softmax": "Softmax LogSoftmax",
        "norm": "LayerNormalization SimplifiedLayerNormalization RMSNormalization SkipLayerNormalization "
        "LpNormalization",
        "channelnorm": "InstanceNormalization GroupNormalization",
        "bn": "BatchNormalization",
        "pool": "AveragePool MaxPool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool",
        "reduce": "ArgMax ArgMin ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin "
        "ReduceProd ReduceSum ReduceSumSquare",
        "gather": "Gather",
        "slice": "Slice",
        "copy": "Pad Expand Tile DepthToSpace SpaceToDepth Trilu GatherElements ScatterElements ScatterND GatherND "
        "CumSum",
        "reorder": "ReorderInput ReorderOutput",
        "recurrent": "LSTM GRU RNN",
    }
)
_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "activation": "none relu clip leakyrelu hardsigmoid hardswish sigmoid tanh swish gelu",
        "layout": "nchw nchwc nchw>nchwc",
        "mode": "nearest linear cubic",
    }
)
_COLUMNS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "op": tuple(_OPERATORS),
        "activation": ("conv", "dwconv", "conv_nchw", "convtrans", "fc", "matmul"),
        "layout": ("conv", "dwconv", "conv_nchw", "convtrans", "pool", "resize"),
        "mode": ("resize",),
        "perm": ("transpose",),
    }
)
"""Category column to the kinds that have it."""
_AXES_MAX = 6
"""Permutations of more axes had codes too; no network that was seen has one."""


def codes(kind: str) -> Mapping[str, Mapping[str, int]]:
    """Category column to name to code, of a kind."""
    return {column: _codes(column, kind) for column, kinds in _COLUMNS.items() if kind in kinds}


def _codes(column: str, kind: str) -> Mapping[str, int]:
    if column == "perm":
        return dict(_permutations())
    names = _OPERATORS[kind] if column == "op" else _NAMES[column]
    return {name: code for code, name in enumerate(names.split())}


def _permutations() -> Iterator[tuple[str, int]]:
    """Those that leave no two neighbours together, as digits to the base of their number of axes."""
    for rank in range(1, _AXES_MAX + 1):
        for perm in permutations(range(rank)):
            if all(b != a + 1 for a, b in pairwise(perm)):
                yield ",".join(map(str, perm)), sum(p * rank**i for i, p in enumerate(reversed(perm)))


_FLOPS: Mapping[str, int] = MappingProxyType(
    {
        "Erf": 20, "Exp": 12, "Log": 12, "Gelu": 24, "BiasGelu": 25, "FastGelu": 24, "QuickGelu": 16, "Sigmoid": 14,
        "Tanh": 16, "Pow": 20, "Sqrt": 4, "Div": 4, "Softplus": 24, "Mish": 40, "HardSwish": 4, "HardSigmoid": 3,
    }
)  # fmt: skip


def _elementwise(c: BroadcastConfig) -> Work:
    unit = item_bytes(c.dtype)
    return Work(float(c.size * _FLOPS.get(c.op, 1)), sum(map(prod, c.operands)) * unit, c.size * unit)


WORK: Mapping[str, Callable[[Any], Work]] = MappingProxyType(
    {"unary": _elementwise, "binary": _elementwise, "convtrans": convolution_work}
)
"""Kind to what its configs were said to do, where that has changed since."""
