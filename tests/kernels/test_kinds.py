"""The keystone: a kind is declared once, so what is built of a config is read back as that config."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nn_meter.kernels.columns import COLUMNS, Speeds, columns, encode
from nn_meter.kernels.kinds import KIND_OF, KINDS, ConvConfig, PoolConfig, ResizeConfig, collapse
from nn_meter.kernels.partition import Kernel
from nn_meter.kernels.rules import read_rules
from nn_meter.networks import FAMILIES
from nn_meter.runtimes.executed import from_json, reduced_axes, to_json
from nn_meter.runtimes.fusion import fuse

RULES = read_rules({"runtime": "onnxruntime_cpu"})
NETWORKS = st.tuples(st.sampled_from(sorted(FAMILIES)), st.integers(0, 2**32))


def kernels(family: str, seed: int) -> list[Kernel]:
    return [k for k in fuse(FAMILIES[family](seed), RULES).kernels if not k.free]


def needs_blocks(config: object) -> bool:
    """Whether an operand of the kernel lies in blocks, so that something has to put it there."""
    if isinstance(config, ConvConfig):
        return "sum" in config.fused and config.layout != "nchw"
    return isinstance(config, PoolConfig | ResizeConfig) and config.layout != "nchw"


@given(network=NETWORKS)
@settings(max_examples=60, deadline=None)
def test_what_is_built_of_a_config_fuses_to_one_kernel_of_that_config(network: tuple[str, int]) -> None:
    for kernel in {(k.kind, k.config): k for k in kernels(*network)}.values():
        build = KINDS[kernel.kind].build
        if build is None:
            continue
        found = [k for k in fuse(build(kernel.config), RULES).kernels if k.nodes and not k.free]
        assert (found[-1].kind, found[-1].config) == (kernel.kind, kernel.config)
        assert len(found) == 1 or (len(found) == 2 and needs_blocks(kernel.config))


@given(network=NETWORKS)
@settings(max_examples=60, deadline=None)
def test_a_config_survives_a_journal(network: tuple[str, int]) -> None:
    for kernel in kernels(*network):
        assert from_json(kernel.kind, to_json(kernel.config)) == kernel.config


@given(network=NETWORKS)
@settings(max_examples=60, deadline=None)
def test_every_node_ends_in_exactly_one_kernel(network: tuple[str, int]) -> None:
    graph = FAMILIES[network[0]](network[1])
    covered = Counter(node for k in fuse(graph, RULES).kernels for node in k.nodes)
    assert covered == Counter(node.name for node in graph.nodes)


@given(network=NETWORKS)
@settings(max_examples=60, deadline=None)
def test_every_kernel_has_a_row_with_the_columns_of_its_kind(network: tuple[str, int]) -> None:
    some = kernels(*network)
    rows = encode([(k.kind, k.config) for k in some], Speeds(1e11, 1e10, 0.002))
    for kernel, row in zip(some, rows, strict=True):
        assert len(row) == len(columns(kernel.kind))
        assert row[-1] >= 0.002
        assert row[-2] == rows[0][-2] >= 0.9 * sum(r[1] for r in rows)


def test_every_kind_has_columns_and_no_operator_two_kinds() -> None:
    assert set(COLUMNS) == set(KINDS)
    operators = [op for kind in KINDS.values() for op in kind.operators]
    assert len(operators) == len(set(operators)) == len(KIND_OF)


@pytest.mark.parametrize(
    ("shapes", "out", "dims", "present"),
    [
        ([(2, 3, 4), (2, 3, 4)], (2, 3, 4), (24,), ((True,), (True,))),
        ([(2, 3, 4), (4,)], (2, 3, 4), (6, 4), ((True, True), (False, True))),
        ([(1, 8, 5, 5), (1, 8, 1, 1)], (1, 8, 5, 5), (8, 25), ((True, True), (True, False))),
        ([(1, 1), ()], (1, 1), (1,), ((True,), (True,))),
    ],
)
def test_broadcasting_is_collapsed_to_its_shortest_form(
    shapes: list[tuple[int, ...]],
    out: tuple[int, ...],
    dims: tuple[int, ...],
    present: tuple[tuple[bool, ...], ...],
) -> None:
    assert collapse(shapes, out) == (dims, present)


@pytest.mark.parametrize(
    ("before", "after", "axes"),
    [
        ((1, 8, 7, 7), (1, 8, 1, 1), (2, 3)),
        ((1, 8, 7, 7), (1, 8), (2, 3)),
        ((1, 196, 192), (1, 192), (1,)),
        ((4, 5), (), (0, 1)),
    ],
)
def test_the_axes_of_a_reduction_follow_from_its_shapes(
    before: tuple[int, ...], after: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    assert reduced_axes(before, after) == axes
