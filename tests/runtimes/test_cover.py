"""Which nodes an executed kernel covers, when the runtime names some, renames some and moves some."""

from __future__ import annotations

import pytest

from nn_meter.errors import BackendError
from nn_meter.ir import Graph, parse
from nn_meter.runtimes import find
from nn_meter.runtimes.cover import cover
from nn_meter.runtimes.executed import read_all
from nn_meter.runtimes.trace import ExecutedKernel

GRAPH = parse(
    """
    graph block
    input x: float32[1,8,16,16]
    const w: float32[8,8,1,1]
    const half: float32[1](2.0)
    c = Conv(x, w) {kernel_shape=(1, 1)}
    r = Relu(c)
    s = Softmax(r) {axis=-1}
    t = Transpose(s) {perm=(0, 1, 3, 2)}
    m = Mul(t, half)
    y = Add(m, r)
    output y
    """
)


def ran(name: str, reads: str, nodes: str = "", op_type: str = "Any") -> ExecutedKernel:
    """A kernel that writes a tensor of its own name."""
    return ExecutedKernel(name, op_type, "", (), (), tuple(reads.split()), (name,), nodes=tuple(nodes.split()))


def groups(*kernels: ExecutedKernel, graph: Graph = GRAPH) -> list[tuple[tuple[int, ...], tuple[str, ...]]]:
    return [(group.positions, group.nodes) for group in cover(kernels, graph)]


def test_named_nodes_and_what_stands_between_them_without_a_name() -> None:
    found = groups(
        ran("conv", "x", "c r"),
        ran("rewritten_1", "conv", "rewritten_1"),
        ran("rewritten_2", "rewritten_1", "rewritten_2"),
        ran("sum", "rewritten_2 conv", "y"),
    )
    assert found == [((0,), ("c", "r")), ((1, 2), ("s", "t", "m")), ((3,), ("y",))]


def test_a_change_of_layout_counts_to_the_kernel_that_reads_it_and_the_last_to_the_one_before() -> None:
    found = groups(
        ran("in", "x"), ran("conv", "in", "c r"), ran("rest", "conv", "s t m y"), ran("out", "rest")
    )
    assert found == [((0, 1), ("c", "r")), ((2, 3), ("s", "t", "m", "y"))]


def test_a_node_that_two_kernels_name_belongs_to_the_first_and_their_times_add_up() -> None:
    found = groups(ran("conv", "x", "c"), ran("bias", "conv", "c"), ran("rest", "bias", "r s t m y"))
    assert found == [((0, 1), ("c",)), ((2,), ("r", "s", "t", "m", "y"))]


def test_a_scale_may_have_moved_past_a_view() -> None:
    found = groups(
        ran("conv", "x", "c r"),
        ran("softmax", "conv", "s"),
        ran("scaled", "softmax", "scaled"),
        ran("turned", "scaled", "t"),
        ran("sum", "turned conv", "y"),
    )
    assert ((2,), ("m",)) in found


def test_a_runtime_that_names_no_node_is_told_what_its_backend_lacks() -> None:
    with pytest.raises(BackendError, match="block: the runtime does not say which of the model's nodes"):
        read_all([ran("kernel", "x")], find("rules"), GRAPH)


def test_kind_and_config_come_from_the_nodes() -> None:
    kernels = [ran("conv", "x", "c r"), ran("softmax", "conv", "s"), ran("rest", "softmax", "t m y")]
    assert [(k.kind, k.nodes) for k in read_all(kernels, find("rules"), GRAPH)] == [
        ("conv", ("c", "r")),
        ("softmax", ("s",)),
        ("transpose", ("t", "m", "y")),
    ]


TURNED = parse(
    """
    graph turned
    input x: float32[1,8,16,16]
    const w: float32[8,8,1,1]
    const scale: float32[8]
    c = Conv(x, w) {kernel_shape=(1, 1)}
    t = Transpose(c) {perm=(0, 2, 3, 1)}
    n = LayerNormalization(t, scale) {axis=-1}
    b = Transpose(n) {perm=(0, 3, 1, 2)}
    y = Conv(b, w) {kernel_shape=(1, 1)}
    output y
    """
)


def test_a_change_of_layout_that_a_transpose_puts_off_counts_to_it() -> None:
    found = groups(
        ran("conv", "x", "c"),
        ran("turn", "conv", "t", "Transpose"),
        ran("mean", "turn", "mean"),
        ran("less", "turn mean", "less"),
        ran("moved", "less", op_type="Reorder"),
        ran("root", "moved", "root"),
        ran("back", "root", "b", "Transpose"),
        ran("again", "back", op_type="Reorder"),
        ran("last", "again", "y"),
        graph=TURNED,
    )
    assert found == [((0,), ("c",)), ((1, 4), ("t",)), ((2, 3, 5), ("n",)), ((6,), ("b",)), ((7, 8), ("y",))]
