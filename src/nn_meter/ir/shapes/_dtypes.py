"""ONNX's element types by number (``TensorProto.DataType``), named as numpy and ml_dtypes name them."""

from __future__ import annotations

from nn_meter.ir.shapes._site import ShapeError

DTYPES = (
    "undefined", "float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "str", "bool", "float16", "float64",
    "uint32", "uint64", "complex64", "complex128", "bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2",
    "float8e5m2fnuz", "uint4", "int4", "float4e2m1", "float8e8m0", "uint2", "int2", "float6e2m3", "float6e3m2",
)  # fmt: skip


def dtype_of(code: int) -> str:
    """The dtype that ONNX numbers ``code``."""
    if 0 < code < len(DTYPES):
        return DTYPES[code]
    raise ShapeError(f"ONNX has no element type {code}")
