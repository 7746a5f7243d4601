"""Writes ``small_net.onnx``: inverted residual blocks as in MobileNetV2, 96 x 96 pixels, random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BLOCKS = ((8, 1), (12, 2), (12, 1), (16, 2), (16, 1), (24, 2), (24, 1))
"""Output channels and stride of each block."""
EXPANSION = 4
CLASSES = 10


class Writer:
    """Collects nodes and weights."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(seed)

    def weight(self, *shape: int) -> str:
        values = self._random.normal(0, 0.1, shape).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, f"weight_{len(self.weights)}"))
        return self.weights[-1].name

    def op(self, op_type: str, *inputs: str, **attrs: object) -> str:
        name = f"{op_type.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [f"{name}_out"], name=name, **attrs))
        return f"{name}_out"

    def conv(self, x: str, cin: int, cout: int, kernel: int, stride: int = 1, group: int = 1) -> str:
        pads = [kernel // 2] * 4
        weight, bias = self.weight(cout, cin // group, kernel, kernel), self.weight(cout)
        sizes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": pads, "group": group}
        return self.op("Conv", x, weight, bias, **sizes)


def small_net() -> onnx.ModelProto:
    """The model."""
    w = Writer(seed=0)
    x, channels = w.op("Relu", w.conv("image", 3, 8, 3, stride=2)), 8
    for cout, stride in BLOCKS:
        wide = EXPANSION * channels
        y = w.op("Relu", w.conv(x, channels, wide, 1))
        y = w.op("Relu", w.conv(y, wide, wide, 3, stride=stride, group=wide))
        y = w.conv(y, wide, cout, 1)
        x = w.op("Add", x, y) if stride == 1 and cout == channels else y
        channels = cout
    x = w.op("Relu", w.conv(x, channels, 64, 1))
    x = w.op("Flatten", w.op("GlobalAveragePool", x), axis=1)
    x = w.op("Gemm", x, w.weight(CLASSES, 64), w.weight(CLASSES), transB=1)
    graph = helper.make_graph(
        w.nodes,
        "small_net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 96, 96])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, [1, CLASSES])],
        w.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    Path(__file__).with_name("small_net.onnx").write_bytes(small_net().SerializeToString())
