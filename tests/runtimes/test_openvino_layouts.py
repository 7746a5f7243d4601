"""What lies with the channels last is read as it lies, from the graph and from what was executed alike."""

from __future__ import annotations

from nn_meter.ir import parse
from nn_meter.kernels.rules import read_rules
from nn_meter.runtimes import find
from nn_meter.runtimes.executed import read_all
from nn_meter.runtimes.fusion import fuse
from nn_meter.runtimes.trace import ExecutedKernel

OPENVINO = read_rules({"runtime": "openvino"})
GRAPH = parse(
    """
    graph laid
    input x: float32[1,8,16,16]
    const w: float32[8,8,1,1]
    const groups: int64[3](1, 4, -1)
    c = Conv(x, w) {kernel_shape=(1, 1)}
    a, b = Split(c) {axis=1, num_outputs=2}
    y = Concat(b, a) {axis=1}
    z = Reshape(y, groups)
    n = Softmax(z) {axis=-1}
    p, q = Split(x) {axis=1, num_outputs=2}
    v = Reshape(q, groups)
    output n
    output p
    output v
    """
)


def ran(node: str) -> ExecutedKernel:
    return ExecutedKernel(node, "Any", "", (), (), (), (node,), nodes=(node,))


def test_channels_that_lie_last_are_split_and_joined_by_places_and_brought_first_before_views() -> None:
    kernels = {kernel.nodes[0]: kernel for kernel in fuse(GRAPH, OPENVINO).kernels}
    names = {node.outputs[0]: node.name for node in GRAPH.nodes}
    told = {out: (kernels[names[out]].kind, kernels[names[out]].config) for out in "ayzpv"}
    assert (told["a"][1].outer, told["a"][1].pieces) == (256, (4, 4))  # type: ignore[union-attr]
    assert (told["y"][1].outer, told["y"][1].pieces) == (256, (4, 4))  # type: ignore[union-attr]
    assert (told["z"][0], told["z"][1].c, told["z"][1].hw) == ("reorder", 8, 256)  # type: ignore[union-attr]
    assert (told["p"][1].outer, told["p"][1].pieces) == (1, (1024, 1024))  # type: ignore[union-attr]
    assert told["v"][0] == "reshape"
    read = read_all([ran(node.name) for node in GRAPH.nodes], find("openvino"), GRAPH)
    executed = {each.nodes[0]: (each.kind, each.config) for each in read}
    assert all(executed[names[out]] == told[out] for out in told)
