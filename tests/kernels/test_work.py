"""The work of operators without a kind: counted by hand for some, a row for each that ONNX Runtime runs on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
from onnx import defs

from nn_meter.ir import Tensor
from nn_meter.kernels.kinds import KIND_OF, KINDS
from nn_meter.kernels.schema import Operator
from nn_meter.kernels.work import FLOPS, GENERATING, detail_of, variant_of, work_of

DOMAINS = ("", "ai.onnx.ml")


def operator(op_type: str, inputs: list[tuple[int, ...]], out: tuple[int, ...], **attrs: Any) -> Operator:
    tensors = tuple(Tensor(f"i{n}", shape) for n, shape in enumerate(inputs))
    return Operator(op_type, tensors, (Tensor("y", out),), attrs)


def test_every_operator_of_onnx_has_a_kind_or_a_row_or_a_reason() -> None:
    known = {each.name for each in defs.get_all_schemas_with_history() if each.domain in DOMAINS}
    assert known - FLOPS.keys() - KIND_OF.keys() - GENERATING.keys() == set()


def test_every_operator_that_onnxruntime_runs_has_a_kind_or_a_row_or_a_reason() -> None:
    pytest.importorskip("onnxruntime")
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    run = {each.op_name for each in state.get_all_opkernel_def() if each.provider == "CPUExecutionProvider"}
    assert run - FLOPS.keys() - KIND_OF.keys() - GENERATING.keys() == set()


def test_no_operator_is_counted_in_two_places() -> None:
    """Quantised and late kinds aside: predictors from before there were any read their operators as ``other``."""
    first = {op for op, kind in KIND_OF.items() if not KINDS[kind].may_be_other}
    assert FLOPS.keys() & first == set()
    assert FLOPS.keys() & GENERATING.keys() == set()


@pytest.mark.parametrize(
    ("op", "flops"),
    [
        (operator("Einsum", [(4, 8, 16), (4, 16, 32)], (4, 8, 32), equation="bij,bjk->bik"), 2 * 4 * 8 * 16 * 32),
        (operator("Einsum", [(2, 3, 5), (2, 7, 5)], (2, 3, 7), equation="...ij,...kj->...ik"), 2 * 2 * 3 * 5 * 7),
        (operator("MatMulInteger", [(8, 64), (64, 32)], (8, 32)), 2 * 8 * 64 * 32),
        (operator("MatMulNBits", [(1, 8, 128), (256, 4, 16)], (1, 8, 256), K=128, N=256, bits=4), 2 * 8 * 128 * 256),
        (operator("ConvInteger", [(1, 16, 8, 8), (32, 16, 3, 3)], (1, 32, 8, 8)), 2 * 32 * 64 * 16 * 9),
        (
            operator("QLinearConv", [(1, 16, 8, 8), (), (), (32, 4, 3, 3)], (1, 32, 8, 8), group=4),
            2 * 32 * 64 * 4 * 9,
        ),
    ],
    ids=lambda value: value.op_type if isinstance(value, Operator) else "",
)
def test_products_count_their_multiply_adds(op: Operator, flops: int) -> None:
    assert work_of(op).flops == flops


def test_bytes_are_what_goes_in_and_out() -> None:
    work = work_of(operator("LRN", [(1, 8, 4, 4)], (1, 8, 4, 4), size=5))
    assert (work.read_bytes, work.written_bytes) == (512, 512)


def test_what_decides_how_an_operator_computes_is_told_apart() -> None:
    x, y = Tensor("x", (8,)), Tensor("y", (8,))
    assert variant_of(Operator("Unique", (x,), (y,))) != variant_of(Operator("Unique", (x,), (y, y, y)))
    older = Operator("GridSample", (x,), (y,), {"mode": "bilinear"})  # what it was called before opset 20
    assert variant_of(Operator("GridSample", (x,), (y,))) == variant_of(older) == "linear zeros"
    image = Tensor("x", (1, 4, 8))
    ways = [variant_of(Operator("Compress", (image,), (y,), {"axis": axis})) for axis in (1, 2)]
    assert ways == ["pieces", "elements"]
    volume = Tensor("x", (1, 3, 8, 8, 8))
    assert variant_of(Operator("GridSample", (volume,), (y,), {"align_corners": 1})) == "linear zeros volumes"
    photograph = Tensor("x", (1, 3, 224, 224))  # for each three numbers, where to read is found out
    assert variant_of(Operator("GridSample", (photograph,), (y,))) == "linear zeros few"


@pytest.mark.parametrize(
    ("shape", "out", "given", "length"),
    [
        ((1, 10, 16, 1), (1, 10, 9, 2), {}, "radix 2"),
        ((1, 10, 16, 1), (1, 6, 16, 2), {"axis": 1}, "any length"),
        ((1, 16, 10, 1), (1, 16, 10, 2), {"axis": 1}, "radix 2"),
        ((1, 16, 10, 1), (1, 16, 10, 2), {}, "any length"),
        ((1, 16, 4, 1), (1, 10, 4, 2), {"axis": 1, "dft_length": 10}, "any length"),
    ],
)
def test_a_fourier_transform_is_told_by_the_length_of_its_axis(
    shape: tuple[int, ...], out: tuple[int, ...], given: dict[str, int], length: str
) -> None:
    count = given.pop("dft_length", None)
    inputs = (Tensor("x", shape), None if count is None else Tensor("n", (), "int64", True, (count,)))
    assert detail_of(Operator("DFT", inputs, (Tensor("y", out),), given)) == length


@pytest.mark.parametrize(
    ("attrs", "variant"),
    [
        ({}, "linear zeros"),
        ({"align_corners": 1}, "linear zeros corners"),
        ({"mode": "bilinear", "align_corners": 1}, "linear zeros corners"),
        ({"padding_mode": "border", "align_corners": 1}, "linear border"),
        ({"mode": "cubic", "align_corners": 1}, "cubic zeros"),
    ],
)
def test_a_grid_is_sampled_by_other_code_where_corners_are_aligned(attrs: dict[str, Any], variant: str) -> None:
    """Ten times as long (ONNX Runtime 1.32)."""
    assert variant_of(Operator("GridSample", (), (), attrs)) == variant
