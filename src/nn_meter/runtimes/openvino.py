"""OpenVINO on the CPU: what its rules say, and a few facts (openvino 2026.4)."""

from __future__ import annotations

from types import MappingProxyType

from nn_meter.runtimes.base import Runtime
from nn_meter.runtimes.pairs import PASSES

RUNTIME = Runtime(
    "openvino",
    PASSES,
    known_as=("openvino_cpu",),
    facts=MappingProxyType(
        {
            # attention: a product of activations, what is done to it, the softmax, the product with the values
            ("matmul", "mul"): True,
            ("matmul", "add"): True,
            ("matmul", "Softmax"): True,
            ("matmul", "Softmax", "matmul"): True,
            ("matmul", "matmul", "transpose"): True,
            # its layout is channels last: such a transpose is nothing, or a change of layout that it counts to
            ("channelsfirst", "conv"): True,
            ("channelsfirst", "dwconv"): True,
            ("channelsfirst", "add"): True,
            ("pad", "conv"): True,
            ("pad", "dwconv"): True,
        }
    ),
    layout_kernels=frozenset({"Reorder"}),
)
