"""Operators on scalars, vectors, and what is empty: each is refused, or has its latency."""

from __future__ import annotations

from itertools import product

import pytest

import nn_meter
from nn_meter.errors import NnMeterError
from nn_meter.ir import Graph, Node, Tensor, infer
from nn_meter.ir.shapes import RULES

SHAPES = ((), (3,), (0,), (2, 3), (0, 3), (3, 0))
OPERATORS = [(domain, op) for domain in ("", "com.microsoft", "ai.onnx.ml") for op in RULES[domain]]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_operator_is_refused_or_has_a_latency(shape: tuple[int, ...]) -> None:
    predictor, answered = nn_meter.load_latency_predictor(), 0
    for (domain, op), count, attrs in product(OPERATORS, range(1, 4), ({}, {"axis": 0})):
        inputs = [Tensor("x", shape), *(Tensor(f"i{k}", shape) for k in range(1, count))]
        node = Node("n", op, tuple(each.name for each in inputs), ("y",), attrs, domain)
        try:
            made = infer(node, inputs)
            tensors = {each.name: each for each in (*inputs, *made)}
            told = predictor.explain(Graph("g", (node,), tensors, tuple(each.name for each in inputs), ("y",)))
        except NnMeterError:
            continue
        answered += 1
        assert told.latency_ms >= 0, f"{domain} {op} of {shape}, {attrs}"
    assert answered > 100


@pytest.mark.parametrize("shape", [(), (4,)])
def test_a_triangle_of_no_matrix_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(NnMeterError, match=r"node 'n' \(Trilu\): axis -2 is outside a tensor"):
        infer(Node("n", "Trilu", ("x",), ("y",)), [Tensor("x", shape)])
