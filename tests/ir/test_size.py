"""How large a model is: counts that can be done by hand."""

from __future__ import annotations

import pytest

from nn_meter.ir import GraphBuilder
from nn_meter.ir.size import ModelSize, model_size


def test_a_small_network_counted_by_hand() -> None:
    b = GraphBuilder("net")
    x = b.input((1, 3, 8, 8))  # 768 bytes
    conv = b.op("Conv", x, b.weight((4, 3, 3, 3)), b.weight((4,)), pads=(1, 1, 1, 1))  # 1024 bytes
    pooled = b.op("Flatten", b.op("GlobalAveragePool", b.op("Relu", conv)))
    graph = b.graph(b.op("Gemm", pooled, b.weight((4, 10)), b.weight((10,))))
    parameters = 4 * 27 + 4 + 40 + 10
    assert model_size(graph) == ModelSize(parameters, 4 * 64 * 27 + 40, 4 * parameters, 2 * 1024)


@pytest.mark.parametrize(
    ("op_type", "shapes", "attrs", "expected"),
    [
        ("MatMul", ((2, 5, 7), (7, 3)), {}, 2 * 5 * 3 * 7),
        ("Gemm", ((7, 5), (3, 7)), {"transA": 1, "transB": 1}, 5 * 3 * 7),
        ("Conv", ((1, 4, 6, 6), (8, 2, 1, 1)), {"group": 2}, 8 * 36 * 2),
        ("ConvTranspose", ((1, 4, 6, 6), (4, 8, 2, 2)), {"strides": (2, 2)}, 4 * 36 * 8 * 4),
        ("Relu", ((1, 4, 6, 6),), {}, 0),
    ],
)
def test_multiply_adds_count_once(
    op_type: str, shapes: tuple[tuple[int, ...], ...], attrs: dict[str, object], expected: int
) -> None:
    b = GraphBuilder("one")
    operands = [b.input(shapes[0]), *map(b.weight, shapes[1:])]
    assert model_size(b.graph(b.op(op_type, *operands, **attrs))).multiply_adds == expected


def test_a_value_is_alive_until_its_last_reader() -> None:
    b = GraphBuilder("residual")
    x = b.input((1, 100))
    y = b.op("Relu", x)
    for _ in range(3):
        y = b.op("Relu", y)
    chain = b.graph(y)
    assert model_size(chain).peak_bytes == 2 * 400
    b = GraphBuilder("residual")
    x = b.input((1, 100))
    y = b.op("Relu", b.op("Relu", x))
    assert model_size(b.graph(b.op("Add", x, y))).peak_bytes == 3 * 400


def test_a_view_takes_no_memory_and_keeps_what_it_looks_at() -> None:
    b = GraphBuilder("view")
    x = b.input((4, 100))
    flat = b.op("Reshape", b.op("Relu", x), b.const((400,)))
    assert model_size(b.graph(b.op("Relu", flat))).peak_bytes == 2 * 1600


def test_bytes_follow_the_element_type() -> None:
    b = GraphBuilder("half")
    x = b.input((1, 100), "float16")
    size = model_size(b.graph(b.op("Relu", x)))
    assert (size.parameters, size.weight_bytes, size.peak_bytes) == (0, 0, 400)
