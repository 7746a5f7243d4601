"""What operators of older opsets mean otherwise than today's, or ONNX Runtime treats otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from nn_meter.ir import Attr

OLDER_DEFAULTS: Mapping[str, tuple[int, Mapping[str, Attr]]] = MappingProxyType(
    {
        "AveragePool": (19, {"opset": 18}),  # ONNX Runtime has other code for those
        "DFT": (20, {"axis": 1}),
        **dict.fromkeys(("GreaterOrEqual", "LessOrEqual"), (16, {"opset": 15})),  # which ONNX Runtime does not fold
        "GroupNormalization": (21, {"opset": 18}),  # scales and shifts groups, not channels
        "MaxPool": (12, {"opset": 11}),  # of floats alone
        "ReduceMean": (17, {"opset": 16}),  # ONNX Runtime finds norms in files of before later
        "Resize": (11, {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
        **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), (13, {"axis": 1})),
        **dict.fromkeys(("Gather", "Slice"), (13, {"opset": 12})),  # which ONNX Runtime makes no Split of
    }
)
"""Operator to the opset from which on its defaults are today's, and what they were."""
