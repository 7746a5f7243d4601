"""The keystone: a kind is declared once, so what is built of a config is read back as that config."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import log, prod
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nn_meter.errors import RegistrationError
from nn_meter.ir import GraphBuilder, Tensor
from nn_meter.kernels.kinds import (
    KIND_OF,
    KINDS,
    ConvConfig,
    CopyConfig,
    GemmConfig,
    PoolConfig,
    ResizeConfig,
    collapse,
    table,
)
from nn_meter.kernels.kinds._shared import inside
from nn_meter.kernels.partition import Kernel
from nn_meter.kernels.rules import read_rules
from nn_meter.kernels.schema import LARGE, UNKNOWN, Encoder, Operator, Speeds, encode
from nn_meter.measuring.records import config_from_json, config_to_json
from nn_meter.networks import FAMILIES
from nn_meter.runtimes.fusion import fuse
from nn_meter.runtimes.onnxruntime.executed import reduced_axes
from nn_meter.runtimes.onnxruntime.functions import FUNCTIONS

RULES = read_rules({"runtime": "onnxruntime_cpu"})
SPEEDS = Speeds(1e11, 1e10, 0.002)
BUILT = [name for name, kind in KINDS.items() if kind.build is not None]
NETWORKS = st.tuples(st.sampled_from(sorted(FAMILIES)), st.integers(0, 2**32))


def kernels(family: str, seed: int) -> list[Kernel]:
    return [k for k in fuse(FAMILIES[family](seed), RULES).kernels if not k.free]


def needs_blocks(config: object) -> bool:
    """Whether an operand of the kernel lies in blocks, so that something has to put it there."""
    if isinstance(config, ConvConfig):
        return "sum" in config.fused and config.layout != "nchw"
    return isinstance(config, PoolConfig | ResizeConfig) and config.layout != "nchw"


def needs_maker(config: object) -> bool:
    """Whether what it reads has to be computed: scores that are masked, images that are in no blocks, what is written
    over."""
    return getattr(config, "way", "") == "masked" or any(getattr(config, each, False) for each in ("computed", "over"))


def needs_reader(kind: str, config: Any) -> bool:
    """Whether its result may not be the model's: a view that moves nothing, a HardSwish in a convolution."""
    if isinstance(config, ConvConfig):
        return "hardswish" in config.fused and config.layout != "nchw"
    return kind == "reshape" and not config.way


def hold_keystone(kind: str, config: Any) -> None:
    build = KINDS[kind].build
    assert build is not None
    found = [k for k in fuse(build(config), RULES).kernels if k.nodes and not k.free]
    read = needs_reader(kind, config)
    assert (found[-1 - read].kind, found[-1 - read].config) == (kind, config)
    assert len(found) == 1 + read or (len(found) == 2 + read and (needs_blocks(config) or needs_maker(config)))


def drawn(kind: str, seed: int) -> Any:
    space = KINDS[kind].space
    assert space is not None
    return space(np.random.default_rng(seed))


@pytest.mark.parametrize("kind", BUILT)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_what_is_built_of_a_config_fuses_to_one_kernel_of_that_config(kind: str, seed: int) -> None:
    config = drawn(kind, seed)
    assume(getattr(config, "op", "") not in FUNCTIONS)  # this runtime executes those as several operators
    hold_keystone(kind, config)


@given(network=NETWORKS)
@settings(max_examples=60, deadline=None)
def test_what_networks_consist_of_can_be_built_one_by_one(network: tuple[str, int]) -> None:
    for kernel in {(k.kind, k.config): k for k in kernels(*network)}.values():
        cut = kernel.config if kernel.kind == "slice" else None
        if isinstance(cut, CopyConfig) and cut.size % (cut.out // cut.run):
            continue  # along several axes at once, of which the config says too little
        if kernel.kind == "conv_nchw" and FAMILIES[network[0]].precisions:
            continue  # its weights may come out of a DequantizeLinear, of which the config says nothing
        if KINDS[kernel.kind].build is not None:
            hold_keystone(kernel.kind, kernel.config)


@pytest.mark.parametrize("kind", BUILT)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_work_is_positive_and_follows_from_the_config_alone(kind: str, seed: int) -> None:
    config = drawn(kind, seed)
    work = KINDS[kind].work(config)
    assert work == replace(KINDS[kind], columns=()).work(config)
    assert work.flops >= 0
    assert work.bytes == work.read_bytes + work.written_bytes
    assert (work.read_bytes > 0 and work.written_bytes > 0) != (kind == "reshape")


@pytest.mark.parametrize("kind", BUILT)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_a_row_has_one_value_for_each_column_in_the_order_asked_for(kind: str, seed: int) -> None:
    config, columns = drawn(kind, seed), KINDS[kind].schema
    codes = {column: {name: 7} for column, name in KINDS[kind].names(config).items()}
    (row,) = encode([(Encoder(KINDS[kind], columns, codes, SPEEDS), config)])
    named = dict(zip(columns, row, strict=True))
    assert len(named) == len(columns)
    assert (named["flops"], named["bytes"]) == (KINDS[kind].work(config).flops, KINDS[kind].work(config).bytes)
    assert all(named[column] == 7 for column in codes)
    some = columns[::-2]
    assert encode([(Encoder(KINDS[kind], some, codes, SPEEDS), config)]) == [tuple(named[c] for c in some)]
    unknown = {column: {"another": 0} for column in codes}
    (row,) = encode([(Encoder(KINDS[kind], columns, unknown, SPEEDS), config)])
    assert all(dict(zip(columns, row, strict=True))[column] == UNKNOWN for column in codes)


@given(network=NETWORKS)
@settings(max_examples=60, deadline=None)
def test_a_config_survives_a_journal(network: tuple[str, int]) -> None:
    for kernel in kernels(*network):
        assert config_from_json(kernel.kind, config_to_json(kernel.config)) == kernel.config


@given(network=NETWORKS)
@settings(max_examples=60, deadline=None)
def test_every_node_ends_in_exactly_one_kernel(network: tuple[str, int]) -> None:
    graph = FAMILIES[network[0]](network[1])
    covered = Counter(node for k in fuse(graph, RULES).kernels for node in k.nodes)
    assert covered == Counter(node.name for node in graph.nodes)


@pytest.mark.parametrize(("axis", "step", "run"), [(2, 1, 4), (2, 2, 1), (1, 2, 10), (1, 1, 40)])
def test_a_slice_says_how_long_what_lies_together_is(axis: int, step: int, run: int) -> None:
    """Neighbours that are stepped over were taken for one run: half of what it takes was predicted."""
    b = GraphBuilder()
    operands = (b.const((each,)) for each in (2, 6, axis, step))
    assert only(b, (b.op("Slice", b.input((4, 8, 10)), *operands),)).run == run


def only(b: GraphBuilder, outputs: tuple[str, ...]) -> Any:
    """Config of the one kernel that what was written becomes."""
    (kernel,) = [k for k in fuse(b.graph(*outputs), RULES).kernels if not k.free]
    return kernel.config


def test_maxima_say_whether_they_are_found_with_their_places() -> None:
    """16 times as long, and in no blocks."""
    b = GraphBuilder()
    config = only(b, b.multi("MaxPool", [b.input((1, 64, 28, 28))], 2, kernel_shape=(2, 2), strides=(2, 2)))
    assert (config.way, config.layout) == ("places", "nchw")


@pytest.mark.parametrize(
    ("shape", "kept", "way", "pushed"),
    [
        ((1000,), 1, "one", 0.0),
        ((1000,), 3, "heap", 3 * (1 + log(1000 / 3))),
        ((2, 1000, 5), 149, "heap", 10 * 149 * (1 + log(1000 / 149))),
        ((1000,), 150, "select", 0.0),
        ((4,), 3, "heap", 3 * (1 + log(4 / 3))),
        ((4,), 4, "select", 0.0),
    ],
)
def test_the_largest_are_found_as_the_runtime_finds_them(
    shape: tuple[int, ...], kept: int, way: str, pushed: float
) -> None:
    b = GraphBuilder()
    axis, some = len(shape) // 2, b.const((kept,))
    found = only(b, b.multi("TopK", (b.input(shape), some), 2, axis=axis, sorted=0))
    assert (found.way, found.ordered, found.pushed) == (way, False, pytest.approx(pushed))


@pytest.mark.parametrize(
    ("op_type", "given", "told"),
    [
        ("RNN", ("Tanh",), ""),
        ("RNN", ("Relu", "Relu"), "relu"),
        ("RNN", ("Relu", "Tanh"), "relu and tanh"),
        ("GRU", ("SIGMOID", "tanh"), ""),
        ("LSTM", ("HardSigmoid", "Tanh", "Tanh"), "hardsigmoid tanh tanh"),
    ],
)
def test_recurrent_layers_say_what_functions_they_have_beside_the_usual(
    op_type: str, given: tuple[str, ...], told: str
) -> None:
    b = GraphBuilder()
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[op_type]
    directions = len(given) // len({"RNN": "t", "GRU": "st", "LSTM": "stt"}[op_type])
    operands = (b.input((5, 1, 4)), *(b.weight((directions, 8 * gates, n)) for n in (4, 8)))
    ways = {"direction": "bidirectional" if directions == 2 else "forward", "activations": given}
    assert only(b, (b.op(op_type, *operands, hidden_size=8, **ways),)).activations == told


def test_values_along_an_axis_and_convolutions_of_bytes_say_their_type() -> None:
    b = GraphBuilder()
    softmax = only(b, (b.op("Softmax", b.input((4, 8), "float64"), axis=-1),))
    assert KINDS["softmax"].names(softmax)["dtype"] == "float64"
    b = GraphBuilder()
    x, w = b.input((1, 16, 8, 8), "int8"), b.weight((16, 16, 1, 1), "int8")
    ends = (b.const(0.1, "float32"), b.const(0, "int8"))
    graph = b.graph(b.op("QLinearConv", x, *ends, w, *ends, *ends, kernel_shape=(1, 1)))
    (conv,) = [k for k in fuse(graph, RULES).kernels if k.kind == "conv_int8"]
    assert KINDS["conv_int8"].names(conv.config)["dtype"] == "int8"


@pytest.mark.parametrize(
    ("shape", "perm", "dims", "merged", "one"),
    [
        ((1, 196, 384), (0, 2, 1), (196, 384), (1, 0), True),
        ((1, 196, 8, 48), (0, 2, 3, 1), (196, 384), (1, 0), True),
        ((226, 1, 384), (2, 1, 0), (226, 384), (1, 0), False),
        ((1, 196, 3, 8, 48), (2, 0, 3, 4, 1), (196, 1152), (1, 0), False),
        ((1, 197, 1, 3, 64), (2, 0, 3, 1, 4), (197, 3, 64), (1, 0, 2), True),
        ((4, 5), (0, 1), (20,), (0,), True),
    ],
)
def test_a_transpose_says_whether_one_axis_moves_as_it_was_written(
    shape: tuple[int, ...], perm: tuple[int, ...], dims: tuple[int, ...], merged: tuple[int, ...], one: bool
) -> None:
    b = GraphBuilder("transpose")
    graph = b.graph(b.op("Transpose", b.input(shape), perm=perm))
    (node,) = graph.nodes
    given, made = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]
    config = KINDS["transpose"].read(Operator("Transpose", (given,), (made,), node.attrs))
    assert (config.dims, config.perm, config.one) == (dims, merged, one)


_ASKED = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


@pytest.mark.parametrize(
    ("op_type", "shape", "out", "attrs", "layout", "way"),
    [
        ("AveragePool", (1, 3, 8, 8), (1, 3, 4, 4), {"kernel_shape": (2, 2), "strides": (2, 2)}, "", ""),
        ("AveragePool", (1, 3, 8, 8), (1, 3, 7, 7), {"kernel_shape": (2, 2), "opset": 18}, "nchw", "opset 18"),
        ("AveragePool", (1, 16, 8, 8), (1, 16, 7, 7), {"kernel_shape": (2, 2), "opset": 18}, "nchwc", ""),
        ("MaxPool", (1, 3, 8, 8), (1, 3, 6, 6), {"kernel_shape": (2, 2), "dilations": (2, 2)}, "", "dilated"),
        ("MaxPool", (1, 16, 8, 8), (1, 16, 6, 6), {"kernel_shape": (2, 2), "dilations": (2, 2)}, "nchwc", ""),
        ("Resize", (1, 3, 8, 8), (1, 3, 16, 16), _ASKED, "", "doubled"),
        ("Resize", (1, 3, 8, 8), (1, 3, 32, 32), _ASKED, "", ""),
        ("Resize", (1, 3, 8, 8), (1, 3, 16, 16), _ASKED | {"nearest_mode": "ceil"}, "", ""),
        ("Resize", (1, 3, 8, 8), (1, 3, 16, 16), {}, "", ""),
        ("Resize", (1, 3, 8, 8), (1, 3, 4, 4), {"mode": "linear", "antialias": 1}, "", "antialias"),
        ("Upsample", (1, 3, 8, 8), (1, 3, 16, 16), {}, "", "doubled"),
    ],
)
def test_pools_and_resizes_say_what_else_decides_how_they_are_computed(
    op_type: str, shape: tuple[int, ...], out: tuple[int, ...], attrs: dict[str, Any], layout: str, way: str
) -> None:
    given, made = Tensor("x", shape, "float32"), Tensor("y", out, "float32")
    kind = next(each for each in KINDS.values() if op_type in each.operators)
    assert kind.names(kind.read(Operator(op_type, (given,), (made,), attrs, layout=layout)))["way"] == way


@pytest.mark.parametrize(
    ("shape", "axis", "stride", "between"),
    [((2, 16, 4, 30), 1, 120, 4), ((2, 16, 30), 1, 30, 1), ((2, 16, 30), 2, 1, 1), ((16, 4, 30), 0, 120, 4)],
)
def test_a_softmax_says_which_axes_lie_between_its_own_and_the_last(
    shape: tuple[int, ...], axis: int, stride: int, between: int
) -> None:
    x = Tensor("x", shape, "float32")
    config = KINDS["softmax"].read(Operator("Softmax", (x,), (x,), {"axis": axis}))
    assert (config.rows * config.length, config.length) == (prod(shape), shape[axis])
    assert (config.stride, config.between) == (stride, between)


@pytest.mark.parametrize(
    ("op_type", "shape", "axes", "dims", "way"),
    [
        ("ReduceMean", (64, 32), (1,), (64, 32), "KR"),
        ("ReduceMean", (64, 32), (0,), (1, 64, 32), "RK"),
        ("ReduceMean", (1, 64, 32), (1,), (1, 64, 32), "KRK"),  # the batch is kept: five times as slow
        ("ReduceMax", (8, 64, 32), (0, 2), (1, 8, 64, 32), "RKR"),
        ("ReduceMin", (1, 8, 64, 32), (1, 3), (1, 8, 64, 32), ""),
        ("ReduceSum", (8, 64), (0, 1), (1, 512), "KR"),
        ("ReduceProd", (8, 64), (0, 1), (1, 512), "whole"),
        ("ReduceProd", (1, 8, 64), (1, 2), (1, 512), ""),
        ("ArgMax", (64,), (0,), (1, 64), ""),
    ],
)
def test_a_reduction_says_which_code_it_runs(
    op_type: str, shape: tuple[int, ...], axes: tuple[int, ...], dims: tuple[int, ...], way: str
) -> None:
    x = Tensor("x", shape, "float32")
    attrs = {"axis": axes[0]} if op_type == "ArgMax" else {"axes": axes}
    config = KINDS["reduce"].read(Operator(op_type, (x,), (x,), attrs))
    assert (config.dims, config.way) == (dims, way)


@pytest.mark.parametrize(("zeros", "rescaled"), [((128, 128), 0), ((128, 0), 4 * 6), ((0, 0), 4 * 14)])
def test_a_concat_of_integers_says_what_is_of_another_scale(zeros: tuple[int, int], rescaled: int) -> None:
    b = GraphBuilder("concat")
    scale = b.const(0.02, "float32")
    result, first, second = (b.const(zero, "uint8") for zero in (128, *zeros))
    parts = (b.input((4, 8), "uint8"), scale, first, b.input((4, 6), "uint8"), scale, second)
    graph = b.graph(b.op("QLinearConcat", scale, result, *parts, domain="com.microsoft", axis=1))
    (kernel,) = fuse(graph, RULES).kernels
    assert kernel.config.rescaled == rescaled  # type: ignore[attr-defined]


@given(network=NETWORKS)
@settings(max_examples=20, deadline=None)
def test_the_kernels_of_an_inference_share_its_footprint(network: tuple[str, int]) -> None:
    some = kernels(*network)
    columns = ("footprint_bytes", "inference_bytes", "resident_bytes", "bytes", "roofline_ms")
    encoders = {kind: Encoder(KINDS[kind], columns, {}, SPEEDS) for kind in KINDS}
    rows = encode([(encoders[k.kind], k.config) for k in some])
    moved = sum(size for *_, size, _ in rows)
    weights = sum(KINDS[k.kind].work(k.config).weight_bytes for k in some)
    for footprint, inference, resident, size, roofline_ms in rows:
        assert (footprint, resident) == (rows[0][0], rows[0][2])
        assert inference == min(footprint, LARGE)
        assert weights * 2**-0.125 <= resident <= footprint
        assert 2**-0.125 <= footprint / moved <= 2**0.125
        assert roofline_ms - SPEEDS.overhead_ms >= 0.999e3 * size / SPEEDS.bytes_per_s


def test_an_inference_touches_its_weights_once_and_shares_the_memory_of_its_activations() -> None:
    """Twice as deep it holds as many weights more, and moves twice as much."""
    megabyte = 1 << 20

    def around(depth: int) -> tuple[float, ...]:
        config = ConvConfig(1, 256, (32, 32), 256, (32, 32), (1, 1), (1, 1), (1, 1), 1, (), "nchwc", "float32")
        encoder = Encoder(KINDS["conv"], ("footprint_bytes", "resident_bytes"), {}, SPEEDS)
        return encode([(encoder, config)] * depth)[0]

    moved, touched = zip(*(around(depth) for depth in (16, 32)), strict=True)
    assert [round(each / megabyte) for each in moved] == [38, 76]  # 2.25 MiB a kernel, to a quarter of an octave
    assert [round(each / megabyte) for each in touched] == [8, 11]  # 0.25 MiB of weights a kernel, and twice 2 MiB


@given(network=NETWORKS)
@settings(max_examples=20, deadline=None)
def test_a_kernel_knows_what_those_before_it_moved(network: tuple[str, int]) -> None:
    some = kernels(*network)
    columns = ("bytes", "recent_1_bytes", "recent_2_bytes", "recent_4_bytes")
    encoders = {kind: Encoder(KINDS[kind], columns, {}, SPEEDS) for kind in KINDS}
    rows = encode([(encoders[k.kind], k.config) for k in some])
    sizes = [size for size, *_ in rows]
    for place, (_, *recent) in enumerate(rows):
        for count, rounded in zip((1, 2, 4), recent, strict=True):
            exact = sum(sizes[(place - back) % len(sizes)] for back in range(1, count + 1))
            assert rounded == 0.0 == exact if not exact else 2**-0.26 <= rounded / exact <= 2**0.26


def test_what_can_be_built_has_a_space_and_no_operator_two_kinds() -> None:
    assert all((kind.build is None) == (kind.space is None) for kind in KINDS.values())
    assert set(KIND_OF) == {op for kind in KINDS.values() for op in kind.operators}
    assert KIND_OF["Conv"] == "conv"


def test_kinds_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(RegistrationError, match="there is a kernel kind 'fc' already"):
        table([("here", (KINDS["fc"],)), ("there", (KINDS["fc"],))])
    with pytest.raises(RegistrationError, match="there: the kernel kinds 'fc' and 'mine' both read every Gemm"):
        table([("here", (KINDS["fc"],)), ("there", (replace(KINDS["fc"], name="mine"),))])
    mine = replace(KINDS["fc"], name="mine", accepts=lambda c: c.m == 1)
    assert list(table([("here", (KINDS["fc"],)), ("there", (mine,))])) == ["fc", "mine"]


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


@pytest.mark.parametrize("kind", BUILT)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=5, deadline=None)
def test_a_known_gpu_adds_columns_and_changes_none(kind: str, seed: int) -> None:
    config, gpu = drawn(kind, seed), replace(SPEEDS, processors=40, cache_bytes=4e6)
    columns = KINDS[kind].schema_on(gpu)
    assert columns[: len(KINDS[kind].schema)] == KINDS[kind].schema == KINDS[kind].schema_on(SPEEDS)
    codes = {column: {name: 7} for column, name in KINDS[kind].names(config).items()}
    (row,) = encode([(Encoder(KINDS[kind], columns, codes, gpu), config)])
    (plain,) = encode([(Encoder(KINDS[kind], KINDS[kind].schema, codes, SPEEDS), config)])
    assert row[: len(plain)] == plain
    named = dict(zip(columns, row, strict=True))
    assert all(0 < value <= 1 for name, value in named.items() if name.startswith("share_"))


def test_a_product_says_what_tiles_pad_and_how_much_of_the_summed_axis_is_last() -> None:
    gpu = replace(SPEEDS, processors=40, cache_bytes=4e6)
    names = ("padded_128x32", "padded_128x128", "last_of_depth")
    encoder = Encoder(KINDS["matmul"], names, {}, gpu)
    sizes = ((100, 64, 96), (128, 65, 128))
    rows = [
        encode([(encoder, GemmConfig(1, m, k, n, True, (False, False), (), "float32"))])[0] for m, k, n in sizes
    ]
    assert rows == [(128 * 128 / (128 * 96), 1.0, 64), (1.0, 1.0, 1)]


def test_a_convolution_says_what_squares_compute_beyond_its_image() -> None:
    gpu = replace(SPEEDS, processors=40, cache_bytes=4e6)
    names = ("winograd_2_share", "winograd_4_share", "winograd_4_rounds")
    config = ConvConfig(16, 8, (7, 7), 200, (7, 7), (3, 3), (1, 1), (1, 1), 1, (), "native", "float32")
    assert encode([(Encoder(KINDS["conv"], names, {}, gpu), config)]) == [(49 / 64, 49 / 64, 2 * 2 / 40)]


def test_a_convolution_says_what_the_algorithms_of_a_gpus_library_need_of_its_roofline() -> None:
    gpu = Speeds(1e12, 1e15, 0.1, 36, 4e6)  # waits for arithmetic
    names = ("direct", "separate_128x128", "transforms", "fused_rounds", "fused_first", "fused")
    encoder = Encoder(KINDS["conv"], names, {}, gpu)

    def told(n: int, cin: int, edge: int) -> dict[str, float]:
        config = ConvConfig(
            n, cin, (edge,) * 2, 128, (edge,) * 2, (3, 3), (1, 1), (1, 1), 1, (), "native", "float32"
        )
        return dict(zip(names, encode([(encoder, config)])[0], strict=True))

    full = told(36 * 128, 64, 4)  # a square of 4 by 4 an image, tiles and processors without a rest
    assert full["direct"] == pytest.approx(1)
    assert full["separate_128x128"] - full["transforms"] == pytest.approx(1 / 4)
    small = told(36, 512, 8)  # 16 squares of 2 by 2: an image fills half of a group, and two fill one
    assert small["fused_rounds"] == 4
    assert small["fused_first"] == pytest.approx(2 * small["fused"])
    assert small["fused"] == pytest.approx(4 / 9 * (1 + 32 / 512))  # 16 products in place of 36


@pytest.mark.parametrize(("exponent", "alone"), [(2.0, 0.0), (3.0, 0.0), (0.5, 7.1), (1.7, 7.1), (None, 7.1)])
def test_only_powers_of_whole_exponents_are_computed_by_vectors(exponent: float | None, alone: float) -> None:
    b = GraphBuilder("power")
    x = b.input((4, 8))
    graph = b.graph(b.op("Pow", x, b.input((4, 8)) if exponent is None else b.const(exponent, "float32")))
    (kernel,) = fuse(graph, RULES).kernels
    (row,) = encode([(Encoder(KINDS["binary"], ("apiece_ns",), {}, SPEEDS), kernel.config)])
    assert row == (alone,)


def test_a_window_that_no_image_fills_costs_no_time() -> None:
    size, ones = (1 << 40,), (1,)
    assert inside((6,), (6,), (1 << 62,), ones, ones) == pytest.approx(36 / (6 * 2**62))
    assert inside(size, size, size, ones, ones) == pytest.approx(0.75, rel=1e-4)  # of which some places are looked at
    assert inside((8,), (8,), (3,), ones, ones) == 22 / 24
