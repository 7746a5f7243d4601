"""Kernels told together: equal layers, modules, kinds."""

from __future__ import annotations

import pytest

from nn_meter.kernels.partition import FreeConfig, Kernel, NnMeterConfig
from nn_meter.predictors.prediction import KernelPrediction, Prediction
from nn_meter.predictors.summary import layer_name, module_name, rows


def kernel(node: str, latency_ms: float, kind: str = "fc", label: str = "Gemm", cin: int = 4) -> KernelPrediction:
    config = NnMeterConfig(((1, cin),), ((1, 8),))
    return KernelPrediction(Kernel(kind, config, (node,) if node else (), label), "predicted", latency_ms)


def prediction(*kernels: KernelPrediction) -> Prediction:
    total_ms = sum(each.latency_ms for each in kernels)
    return Prediction("net", "p", "1", "", "", total_ms, kernels)


STACK = prediction(
    kernel("/blocks.0/mlp/fc1/MatMul", 3.0),
    kernel("/blocks.0/mlp/fc2/MatMul", 1.0, cin=8),
    kernel("/blocks.1/mlp/fc1/MatMul", 3.0),
    kernel("/blocks.1/mlp/fc2/MatMul", 1.0, cin=8),
    kernel("/head/Conv", 2.0, "conv", "Conv-relu"),
    KernelPrediction(Kernel("free", FreeConfig("Identity"), ("i",), "Identity", "nothing moves"), "free", 0.0),
)


@pytest.mark.parametrize(
    ("node", "name", "module"),
    [
        ("/stages/stages.2/stages.2.1/conv/Conv", "stages.2.1.conv/Conv", "stages.2.1"),
        ("/blocks.0/attn/MatMul_1", "blocks.0.attn/MatMul_1", "blocks.0"),
        ("model/block1/conv/Conv2D", "model.block1.conv/Conv2D", "model"),
        ("node_MatMul_70", "node_MatMul_70", "-"),
        ("/Add", "Add", "-"),
    ],
)
def test_a_node_is_known_by_its_module(node: str, name: str, module: str) -> None:
    assert layer_name(node) == name
    assert module_name(node, 1) == module


def test_a_number_counts_with_the_name_before_it() -> None:
    node = "/stages/stages.2/stages.2.1/conv/Conv"
    assert module_name(node, 2) == "stages.2.1.conv"


def test_equal_layers_are_one_row_the_longest_first() -> None:
    found = rows(STACK)
    assert [(row.name, row.count, row.latency_ms) for row in found] == [
        ("blocks.{0,1}.mlp.fc1/MatMul", 2, 6.0),
        ("blocks.{0,1}.mlp.fc2/MatMul", 2, 2.0),
        ("head", 1, 2.0),
    ]
    assert [row.cumulative for row in found] == pytest.approx([0.6, 0.8, 1.0])
    assert sum(row.share for row in found) == pytest.approx(1.0)


def test_many_equal_layers_have_a_star() -> None:
    (row,) = rows(prediction(*(kernel(f"/b.{i}/MatMul", 1.0) for i in range(4))))
    assert (row.name, row.count) == ("b.*/MatMul", 4)


def test_layers_that_do_something_else_stay_apart() -> None:
    apart = prediction(kernel("/a.0/MatMul", 1.0), kernel("/a.1/MatMul", 1.0, cin=16))
    assert [row.name for row in rows(apart, sort="order")] == ["a.0/MatMul", "a.1/MatMul"]


def test_what_the_runtime_inserts_is_said_to_be() -> None:
    (row,) = rows(prediction(kernel("", 1.0, "reorder", "ReorderInput")))
    assert row.name == "(inserted by the runtime)"


def test_each_kernel_in_the_order_of_execution() -> None:
    names = [row.name for row in rows(STACK, "kernel", "order")]
    assert names == [
        "blocks.0.mlp.fc1/MatMul", "blocks.0.mlp.fc2/MatMul", "blocks.1.mlp.fc1/MatMul", "blocks.1.mlp.fc2/MatMul",
        "head",
    ]  # fmt: skip


def test_modules_and_kinds_add_up() -> None:
    assert [(row.name, row.latency_ms) for row in rows(STACK, "module", "order")] == [
        ("blocks.0", 4.0), ("blocks.1", 4.0), ("head", 2.0),
    ]  # fmt: skip
    assert [row.name for row in rows(STACK, "module", "name", depth=2)] == ["blocks.0.mlp", "blocks.1.mlp", "head"]
    assert [(row.name, row.count) for row in rows(STACK, "kind")] == [("fc", 4), ("conv", 1)]


def test_names_sort_as_numbers_do() -> None:
    many = prediction(*(kernel(f"/b.{i}/MatMul", 1.0, cin=i + 1) for i in (10, 2, 1)))
    assert [row.name for row in rows(many, "kernel", "name")] == ["b.1/MatMul", "b.2/MatMul", "b.10/MatMul"]


def test_names_sort_whatever_digits_they_hold() -> None:
    long = "9" * 5000
    many = prediction(*(kernel(f"/b.{i}/MatMul", 1.0, cin=n + 1) for n, i in enumerate((long, "1\u00b22", "1", "007"))))
    assert [row.name[:5] for row in rows(many, "kernel", "name")] == ["b.1/M", "b.1\u00b22", "b.007", "b.999"]


def test_a_total_of_nothing_has_shares_of_nothing() -> None:
    (row,) = rows(prediction(kernel("/a/MatMul", 0.0)))
    assert (row.share, row.cumulative) == (0.0, 0.0)
