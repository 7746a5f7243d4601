"""What makes an operator take several times as long as another of its sizes, as ONNX Runtime computes it, is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nn_meter import load_latency_predictor
from nn_meter.ir import GraphBuilder
from nn_meter.kernels.kinds import KINDS
from nn_meter.kernels.kinds.einsums import EinsumConfig
from nn_meter.kernels.kinds.movement import CopyConfig
from nn_meter.kernels.kinds.products import GemmConfig
from nn_meter.kernels.kinds.windows import ReduceConfig
from nn_meter.kernels.partition import Kernel, KernelConfig
from nn_meter.kernels.rules import read_rules
from nn_meter.kernels.schema import Column
from nn_meter.runtimes.fusion import fuse

MICROSOFT = "com.microsoft"


def one(write: Callable[[GraphBuilder], str]) -> Kernel:
    """The kernel that is executed of a graph that has one."""
    b = GraphBuilder()
    (kernel,) = (k for k in fuse(b.graph(write(b)), read_rules({"runtime": "onnxruntime"})).kernels if not k.free)
    return kernel


def config(write: Callable[[GraphBuilder], str]) -> KernelConfig:
    """Its config."""
    return one(write).config


def named(write: Callable[[GraphBuilder], str]) -> dict[str, str]:
    """Its names."""
    kernel = one(write)
    assert kernel.config is not None
    return KINDS[kernel.kind].names(kernel.config)


def column(name: str, write: Callable[[GraphBuilder], str]) -> float:
    """What one of its columns says."""
    kernel = one(write)
    (found,) = (each for each in KINDS[kernel.kind].columns if isinstance(each, Column) and each.name == name)
    return found.value(kernel.config)


def test_by_a_vector_each_row_is_a_product_by_itself() -> None:
    found = config(lambda b: b.op("MatMul", b.input((4, 64, 2048)), b.weight((2048,))))
    assert isinstance(found, GemmConfig)
    assert (found.batch, found.m, found.k, found.n) == (256, 1, 2048, 1)


@pytest.mark.parametrize(
    ("left", "right", "constant", "vector"),
    [
        ((64, 256), (256, 64), True, ""),
        ((64, 256), (256, 1), True, "column by a constant"),
        ((8, 64, 256), (8, 256, 1), False, "column"),
        ((1, 256), (256, 64), True, "row by a constant"),
        ((8, 1, 256), (8, 256, 64), False, "row"),
        ((1, 256), (256, 1), False, "both"),
    ],
)
def test_products_of_rows_and_columns(
    left: tuple[int, ...], right: tuple[int, ...], constant: bool, vector: str
) -> None:
    def product(b: GraphBuilder) -> str:
        return b.op("MatMul", b.input(left), (b.weight if constant else b.input)(right))

    assert named(product)["vector"] == vector


@pytest.mark.parametrize(
    ("small", "wide", "way", "writes"),
    [
        ((1, 64, 28, 1, 28, 1), (1, 64, 28, 2, 28, 2), "pieces", 64 * 28 * (28 + 28 + 1)),
        ((1, 256, 1), (1, 256, 64), "", 256 + 256 * 6),
        ((1, 1, 256), (1, 64, 256), "", 1 + 6),
        ((1000, 1), (1000, 3), "pieces", 1000 + 2 * 1000),
    ],
)
def test_what_repeats_single_elements_copies_each(
    small: tuple[int, ...], wide: tuple[int, ...], way: str, writes: int
) -> None:
    found = config(lambda b: b.op("Expand", b.input(small), b.const(wide)))
    assert isinstance(found, CopyConfig)
    assert (found.way, found.writes) == (way, writes)


@pytest.mark.parametrize(
    ("shape", "times", "writes"),
    [
        ((128, 128), (1, 4), 128 + 128 * 3),
        ((1, 64, 56, 56), (1, 1, 2, 2), 64 * 56 + 64 * 56 + 64),
        ((32, 1), (1, 512), 32 + 32 * 511),
        ((128, 128), (4, 1), 128 + 3),
    ],
)
def test_a_tile_copies_rows_at_once(shape: tuple[int, ...], times: tuple[int, ...], writes: int) -> None:
    found = config(lambda b: b.op("Tile", b.input(shape), b.const(times)))
    assert isinstance(found, CopyConfig)
    assert found.writes == writes


@pytest.mark.parametrize(
    ("equation", "shapes", "shape", "single"),
    [
        ("nchw,c->nchw", ((1, 64, 56, 56), (64,)), "batch rows", 0),
        ("bhwc,hkc->bhwk", ((4, 14, 14, 64), (14, 14, 64)), "batch rows summed columns", 0),
        ("ijk->kji", ((40, 50, 60),), "rows moved singly", 40 * 50 * 60),
        ("ijk->kij", ((40, 50, 60),), "rows", 0),
        ("ij,j->i", ((400, 300), (300,)), "rows summed", 0),
    ],
)
def test_sums_of_products_by_which_sizes_are_more_than_one(
    equation: str, shapes: tuple[tuple[int, ...], ...], shape: str, single: int
) -> None:
    found = config(lambda b: b.op("Einsum", *map(b.input, shapes), equation=equation))
    assert isinstance(found, EinsumConfig)
    assert (found.shape, found.single) == (shape, single)


def test_a_reduction_over_no_axes_that_is_to_do_nothing_then_keeps_all() -> None:
    def reduced(b: GraphBuilder) -> str:
        return b.op("ReduceSumSquare", b.input((64, 512)), b.const(()), noop_with_empty_axes=1)

    found = config(reduced)
    assert isinstance(found, ReduceConfig)
    assert (found.kept, found.reduced) == (64 * 512, 1)


def test_a_gate_that_is_scaled_is_another_than_one_that_is_not() -> None:
    def gate(b: GraphBuilder, factor: float) -> str:
        x = b.input((1, 64, 256))
        return b.op("Mul", x, b.op("Sigmoid", b.op("Mul", x, b.const(factor, "float32")) if factor != 1 else x))

    assert named(lambda b: gate(b, 1.0))["constant"] == ""
    assert named(lambda b: gate(b, 1.702))["constant"] == "other"
    assert named(lambda b: b.op("QuickGelu", b.input((64,)), domain=MICROSOFT))["constant"] == "other"


def test_packed_products_by_bits_level_and_rows() -> None:
    def product(b: GraphBuilder, rows: int, **attrs: int) -> str:
        weights = b.weight((512, 16, 32 * attrs["bits"] // 8), "uint8"), b.weight((512, 16))
        x = b.input((rows, 512))
        return b.op("MatMulNBits", x, *weights, domain=MICROSOFT, K=512, N=512, block_size=32, **attrs)

    assert named(lambda b: product(b, 1, bits=4, accuracy_level=4))["way"] == "4 bits at 4, one row"
    assert named(lambda b: product(b, 16, bits=8))["way"] == "8 bits at 0"


def test_attention_by_what_it_does_to_scores() -> None:
    def attention(b: GraphBuilder, mask: tuple[int, ...] = (), **attrs: float) -> str:
        operands = [b.input((1, 8, 64, 64)) for _ in range(3)]
        return b.op("Attention", *operands, *([b.input(mask, "bool")] if mask else []), **attrs)

    assert named(lambda b: attention(b, softcap=20.0))["ways"] == "bounded"
    assert named(attention)["ways"] == ""
    assert named(lambda b: attention(b, (64, 64)))["mask"] == "bool"
    assert named(lambda b: attention(b, (1, 8, 64, 64)))["mask"] == "bool of each head"


def test_long_integers_are_divided_by_what_they_are() -> None:
    assert named(lambda b: b.op("Div", b.input((64,), "int64"), b.const(3)))["data"] == "a quotient of long integers"
    assert named(lambda b: b.op("Div", b.input((64,), "int32"), b.const(3, "int32")))["data"] == ""


@pytest.mark.parametrize(
    ("fill", "leaves", "way"), [(-1e9, True, "masked"), (-1e9, False, ""), (-50.0, True, "")]
)  # what is as far below in every place leaves nothing out
def test_a_triangle_of_a_fill_is_a_mask(fill: float, leaves: bool, way: str) -> None:
    def scores(b: GraphBuilder) -> str:
        full = b.op("ConstantOfShape", b.const((64, 64)), value=fill, dtype="float32")
        mask = b.op("Trilu", full, b.const(1), upper=1) if leaves else full
        seen = b.op("Mul", mask, b.op("Cast", b.input((64, 64), "bool"), to=1))
        return b.op("Softmax", b.op("Add", b.input((1, 8, 64, 64)), seen))

    b = GraphBuilder()
    kernels = fuse(b.graph(scores(b)), read_rules({"runtime": "onnxruntime"})).kernels
    (found,) = (k for k in kernels if k.kind == "softmax")
    assert KINDS["softmax"].names(found.config)["way"] == way


@pytest.mark.parametrize(("least", "way"), [(0, ""), (1, "masked")])
def test_a_comparison_of_constants_that_is_the_same_everywhere_masks_nothing(least: int, way: str) -> None:
    """As files of encoders hold it, whose places are all compared to 0."""

    def softmax(b: GraphBuilder) -> str:
        places = b.const(tuple(range(64)), "int64", (1, 1, 64, 1))
        seen = b.op("Expand", b.op("GreaterOrEqual", places, b.const(least)), b.const((1, 1, 64, 64)))
        mask = b.op("Where", seen, b.const(0.0, "float32"), b.const(-1e9, "float32"))
        return b.op("Softmax", b.op("Add", b.input((1, 8, 64, 64)), mask))

    b = GraphBuilder()
    kernels = fuse(b.graph(softmax(b)), read_rules({"runtime": "onnxruntime"})).kernels
    (found,) = (k for k in kernels if k.kind == "softmax")
    assert KINDS["softmax"].names(found.config)["way"] == way


def test_what_denormal_numbers_decide_is_never_predicted() -> None:
    """A session says whether they count as zero; those that are measured do."""
    predictor = load_latency_predictor()

    def status(**attrs: int) -> set[str]:
        b = GraphBuilder()
        y = b.op("Attention", *(b.input((1, 8, 64, 64)) for _ in range(3)), **attrs)
        return {kernel.status for kernel in predictor.explain(b.graph(y)).kernels}

    assert status(is_causal=1) == {"extrapolated"}
    assert status() == {"predicted"}


@pytest.mark.parametrize(
    ("op_type", "dtype", "faster"),
    [("Sign", "float32", "uint8"), ("Sign", "int64", "int32"), ("Div", "uint32", "int32"), ("Div", "int32", "float32")],
)
def test_what_is_computed_one_by_one_depends_on_the_elements(op_type: str, dtype: str, faster: str) -> None:
    """Of 200,000 elements Sign takes 0.26 ms of floats, 0.22 of long integers, 0.03 of others; Div 0.42 and 0.22."""

    def apiece_ns(of: str) -> float:
        return column("apiece_ns", lambda b: b.op(op_type, *(b.input((64, 64), of),) * (2 if op_type == "Div" else 1)))

    assert apiece_ns(dtype) > apiece_ns(faster)


def test_a_choice_of_whole_rows_is_none_for_each_element() -> None:
    def chosen_apiece(*condition: int) -> float:
        return column(
            "chosen_apiece",
            lambda b: b.op("Where", b.input(condition, "bool"), b.input((16, 64, 64)), b.input((16, 64, 64))),
        )

    assert [chosen_apiece(16, 64, 64), chosen_apiece(64, 64), chosen_apiece(64, 1)] == [1, 1, 0]


def test_a_triangle_is_known_by_its_rows() -> None:
    square = config(lambda b: b.op("Trilu", b.input((4, 300, 300))))
    flat = config(lambda b: b.op("Trilu", b.input((4, 9, 10_000))))
    assert isinstance(square, CopyConfig)
    assert isinstance(flat, CopyConfig)
    assert (square.out, square.run, flat.out, flat.run) == (360_000, 300, 360_000, 10_000)


def test_a_function_that_may_write_over_what_it_reads_is_known_as_such() -> None:
    assert column("in_place", lambda b: b.op("Relu", b.input((64, 64)))) == 1
    assert column("in_place", lambda b: b.op("Abs", b.input((64, 64)))) == 0


def test_a_pool_tells_how_many_elements_of_windows_there_are_to_each_byte() -> None:
    def taps_a_byte(kernel: int, stride: int) -> float:
        window = {"kernel_shape": (kernel, kernel), "strides": (stride, stride)}
        return column("taps_a_byte", lambda b: b.op("LpPool", b.input((1, 5, 12, 12)), **window))

    assert taps_a_byte(3, 1) == 5 * 100 * 9 / (4 * 5 * (144 + 100))
    assert taps_a_byte(3, 1) > taps_a_byte(3, 3)


@pytest.mark.parametrize(
    ("shape", "axis", "crowded"),
    [
        ((64, 512), 0, 32),  # two kilobytes apart: two sets of the cache hold all 64
        ((64, 500), 0, 1),
        ((1000, 128), 0, 1000 / 8),
        ((1, 256, 16, 16), 1, 256 / 4),
        ((1, 256, 14, 14), 1, 256 / 64),
        ((64, 512), 1, 0),  # neighbours
    ],
)
def test_columns_of_a_table_crowd_in_the_sets_of_a_cache(shape: tuple[int, ...], axis: int, crowded: float) -> None:
    assert column("crowded", lambda b: b.op("LpNormalization", b.input(shape), axis=axis)) == crowded


@pytest.mark.parametrize(
    ("cin", "cout", "kernel", "stride", "code"),
    [
        (64, 128, 7, 2, "7x7 halves, doubles"),
        (64, 128, 5, 2, ""),
        (64, 128, 7, 1, ""),
        (60, 180, 7, 2, ""),
    ],
)
def test_a_convolution_that_has_code_of_its_own(cin: int, cout: int, kernel: int, stride: int, code: str) -> None:
    def conv(b: GraphBuilder) -> str:
        weights = b.weight((cout, 1, kernel, kernel)), b.weight((cout,))
        sizes = {"kernel_shape": (kernel,) * 2, "strides": (stride,) * 2, "pads": (kernel // 2,) * 4}
        return b.op("Conv", b.input((1, cin, 32, 32)), *weights, group=cin, **sizes)

    assert named(conv)["code"] == code
