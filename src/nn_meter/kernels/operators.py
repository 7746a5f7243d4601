"""How operators are called in fusion rules.

Rule files speak of ``conv``, ``dwconv``, ``bn``, ``relu`` ... (nn-Meter's names, kept for compatibility). An
operator without a row keeps the name that its source gives it. A new operator that rules should be able to
name is one row here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

RULE_NAMES: Mapping[str, str] = MappingProxyType(
    {
        # ONNX
        "Add": "add",
        "AveragePool": "avgpool",
        "BatchNormalization": "bn",
        "Clip": "relu",
        "Concat": "concat",
        "Conv": "conv",
        "Div": "div",
        "Flatten": "reshape",
        "Gemm": "fc",
        "GlobalAveragePool": "gap",
        "HardSigmoid": "hardsigmoid",
        "MaxPool": "maxpool",
        "Mul": "mul",
        "Pad": "pad",
        "ReduceMean": "gap",
        "Relu": "relu",
        "Reshape": "reshape",
        "Slice": "split",
        "Split": "split",
        "Transpose": "transpose",
        # TensorFlow
        "AvgPool": "avgpool",
        "ConcatV2": "concat",
        "Conv2D": "conv",
        "DepthwiseConv2dNative": "dwconv",
        "FusedBatchNorm": "bn",
        "FusedBatchNormV3": "bn",
        "MatMul": "fc",
        "Mean": "gap",
        "Relu6": "relu",
    }
)
"""Operator to its name in nn-Meter's rules, as nn-Meter 2.0 reads its dictionaries. ``Conv`` becomes ``dwconv``
where its groups equal its input channels."""

NOT_COMPUTED: frozenset[str] = frozenset({"Const", "Identity", "Placeholder"})
"""Operators that cost nothing by decision: they stay in the graph and in no kernel's label."""

BLOCK_NAMES = ("se", "hswish", "channelshuffle", "gap")
"""Blocks of several operators that nn-Meter recognises before it fuses pairs, in its order."""

OTHER_RULE_NAMES = frozenset({"convtrans", "dwconv", "se", "hswish", "channelshuffle"})
"""Names that rules use and that no single row above gives."""

KNOWN_RULE_NAMES: frozenset[str] = frozenset(RULE_NAMES.values()) | OTHER_RULE_NAMES
