"""Attention with a cache: how many keys there are, which heads share them, what is written for the next step."""

from __future__ import annotations

from dataclasses import astuple
from functools import partial
from typing import Any

import pytest

from nn_meter.ir import GraphBuilder
from nn_meter.kernels.kinds import KINDS
from nn_meter.kernels.kinds.sequences import AttentionConfig
from nn_meter.kernels.rules import read_rules
from nn_meter.runtimes.fusion import fuse

MS = "com.microsoft"


def grouped(b: GraphBuilder) -> tuple[str, ...]:
    cache = [b.input((2, 3, 20, 8)) for _ in range(2)]
    lengths = b.const((20, 20), "int32"), b.const(21, "int32")
    operands = (b.input((2, 1, 48)), b.input((2, 1, 24)), b.input((2, 1, 24)), *cache, *lengths)
    return b.multi("GroupQueryAttention", operands, 3, domain=MS, num_heads=6, kv_num_heads=3)


def packed(b: GraphBuilder) -> tuple[str, ...]:
    operands = (b.input((1, 5, 96)), "", "", "", "", b.const((4,), "int32"), b.const(5, "int32"))
    return b.multi("GroupQueryAttention", operands, 3, domain=MS, num_heads=6, kv_num_heads=3)


def several_heads(b: GraphBuilder) -> tuple[str, ...]:
    cache = [b.input((2, 6, 20, 8)) for _ in range(2)]
    operands = (b.input((2, 1, 48)), b.input((2, 1, 48)), b.input((2, 1, 48)), "", "", "", *cache)
    return b.multi("MultiHeadAttention", operands, 3, domain=MS, num_heads=6)


def projecting(b: GraphBuilder) -> tuple[str, ...]:
    operands = (b.input((2, 3, 48)), b.weight((48, 144)), b.weight((144,)), "", b.input((2, 2, 6, 20, 8)))
    return b.multi("Attention", operands, 2, domain=MS, num_heads=6)


def of_onnx(b: GraphBuilder) -> tuple[str, ...]:
    cache = [b.input((2, 3, 20, 8)) for _ in range(2)]
    operands = (b.input((2, 6, 1, 8)), b.input((2, 3, 1, 8)), b.input((2, 3, 1, 8)), "", *cache)
    return b.multi("Attention", operands, 3)


def masked(b: GraphBuilder, mask: str, **attrs: int) -> tuple[str, ...]:
    parts = [b.input((2, 6, 5, 8)) for _ in range(3)]
    return (b.op("Attention", *parts, *([b.input((5, 5), mask)] if mask else []), **attrs),)


def padded(b: GraphBuilder, added: bool) -> tuple[str, ...]:
    parts = [b.input((2, 5, 48)) for _ in range(3)]
    more = (b.input((1, 6, 5, 5)),) if added else ()
    return (b.op("MultiHeadAttention", *parts, "", b.input((2, 5), "int32"), *more, domain=MS, num_heads=6),)


def one_way(b: GraphBuilder) -> tuple[str, ...]:
    operands = (b.input((2, 3, 48)), b.weight((48, 144)), b.weight((144,)))
    return (b.op("Attention", *operands, domain=MS, num_heads=6, unidirectional=1),)


@pytest.mark.parametrize(
    ("make", "mask"),
    [
        (partial(masked, mask=""), ""),
        (partial(masked, mask="bool"), "bool"),
        (partial(masked, mask="float32"), "float32"),
        (partial(masked, mask="", is_causal=1), "causal"),
        (partial(masked, mask="bool", is_causal=1), "bool causal"),
        (partial(padded, added=False), "int32"),
        (partial(padded, added=True), "int32 float32"),
        (one_way, "causal"),
        (grouped, ""),
        (packed, "causal"),
    ],
)
def test_what_keeps_queries_from_keys_is_told(make: Any, mask: str) -> None:
    """Keys that are left out make attention take three times as long."""
    b = GraphBuilder()
    (kernel,) = fuse(b.graph(*make(b)), read_rules({"runtime": "onnxruntime_cpu"})).kernels
    assert isinstance(kernel.config, AttentionConfig)
    assert kernel.config.mask == mask


@pytest.mark.parametrize(
    ("make", "batch", "heads", "key_heads", "queries", "keys", "kept", "projected"),
    [
        (grouped, 2, 6, 3, 1, 21, 21, 0),
        (packed, 1, 6, 3, 5, 5, 5, 0),
        (several_heads, 2, 6, 6, 1, 21, 21, 0),
        (projecting, 2, 6, 6, 3, 23, 23, 48),
        (of_onnx, 2, 6, 3, 1, 21, 21, 0),
    ],
)
def test_the_config_and_its_work(
    make: Any, batch: int, heads: int, key_heads: int, queries: int, keys: int, kept: int, projected: int
) -> None:
    b = GraphBuilder()
    graph = b.graph(*make(b))
    (kernel,) = fuse(graph, read_rules({"runtime": "onnxruntime_cpu"})).kernels
    config = kernel.config
    assert isinstance(config, AttentionConfig)
    assert astuple(config)[1:-3] == (batch, heads, key_heads, queries, keys, 8, kept, projected)
    work = KINDS["attention"].work(config)
    products = 2 * 2 * batch * heads * queries * keys * 8 + 2 * batch * queries * projected * 3 * heads * 8
    assert work.flops == products
    assert work.written_bytes == 4 * 8 * (batch * heads * queries + 2 * batch * key_heads * kept)


@pytest.mark.parametrize("make", [grouped, packed, several_heads, projecting, of_onnx])
def test_results_and_states_have_the_shapes_that_onnx_runtime_gives(make: Any) -> None:
    pytest.importorskip("onnxruntime")
    from nn_meter.backends.onnxruntime_cpu import OnnxRuntimeCpu

    b = GraphBuilder()
    graph = b.graph(*make(b))
    executed = {
        name: operand.shape
        for kernel in OnnxRuntimeCpu().fused(graph)
        for name, operand in zip(kernel.output_names, kernel.outputs, strict=True)
        if operand is not None
    }
    assert {name: executed.get(name) for name in graph.outputs} == {n: graph.tensors[n].shape for n in graph.outputs}
