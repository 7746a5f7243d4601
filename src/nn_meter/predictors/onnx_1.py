"""Codes of names in bundles of schema ``onnx-1`` that carry none: those written before bundles did.

Frozen: a code was a name's place among its like. What is added to a kernel kind later has no code here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise, permutations
from types import MappingProxyType

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
