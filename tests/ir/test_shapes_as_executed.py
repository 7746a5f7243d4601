"""Shapes of single operators are ONNX Runtime's, for mutations of ONNX's own backend tests."""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from nn_meter.ir import shapes
from nn_meter.ir.shapes import RULES
from nn_meter.ir.shapes._forms import ANY, ATTRIBUTES, OPERANDS

sys.path.append(str(Path(__file__).parents[2] / "fuzz"))
import shapes as fuzz

UNSTATED = {
    # ONNX Runtime skips an empty tensor of any shape
    "Concat",
    # the runtime takes one row of lengths for more samples than the inputs have
    "Attention",
}
"""Where a mutated model that breaks ONNX's definition runs all the same."""


def test_mutated_operators_have_the_shapes_that_onnx_runtime_gives() -> None:
    run = 0
    for seed, answer in fuzz.answers(random.Random(20), 500, fuzz.seeds()):
        shapes = [None if value is None else value.shape for value in seed.inputs]
        told = f"{seed.node} opset {seed.opset}, {shapes}: {answer.text}"
        run += answer.verdict != "not run"
        if answer.operator not in UNSTATED:
            assert answer.verdict in ("agrees", "at most", "not run"), told
    assert run > 200


def seed(op_type: str, opset: int, *inputs: object, outputs: int = 1, **attrs: object) -> fuzz.Seed:
    names = [f"i{index}" if value is not None else "" for index, value in enumerate(inputs)]
    node = helper.make_node(op_type, names, [f"o{index}" for index in range(outputs)], **attrs)
    return fuzz.Seed(node, tuple(inputs), opset)


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


CASES = [
    seed("DFT", 20, ones(1, 10, 16, 1), onesided=1),
    seed("DFT", 17, ones(1, 10, 16, 1), onesided=1),
    seed("DFT", 20, ones(1, 10, 16, 1), np.array(16), onesided=1),
    seed("DFT", 17, ones(1, 10, 16, 1), np.array(10), onesided=1),
    seed("DFT", 20, ones(8, 512, 1), None, np.array(1), onesided=1),
    seed("DFT", 20, ones(1, 6, 10, 2), inverse=1, onesided=1),
    seed("Resize", 13, ones(1, 3, 706, 706), None, np.array([1, 1, 224 / 706, 224 / 706], np.float32), mode="linear"),
    seed("Resize", 13, ones(1, 3, 10, 10), None, np.array([1, 1, 0.7, 0.7], np.float32), mode="linear"),
    seed("Resize", 19, ones(1, 1, 10, 10), None, np.array([1, 1, 2.3, 2.9], np.float32), mode="linear"),
    seed("MaxPool", 12, ones(1, 3, 2, 2), kernel_shape=[3, 3], strides=[3, 3], pads=[1] * 4, ceil_mode=1),
    seed("MaxPool", 12, ones(1, 4, 12, 12), kernel_shape=[1, 1], strides=[2, 2], ceil_mode=1),
    seed("MaxPool", 12, ones(1, 4, 13, 13), kernel_shape=[3, 3], strides=[2, 2], dilations=[2, 2], ceil_mode=1),
    seed(
        "MaxPool", 12, ones(1, 4, 15, 15), kernel_shape=[3, 3], strides=[2, 2], dilations=[2, 2],
        auto_pad="SAME_UPPER",
    ),
    seed("AveragePool", 10, ones(1, 1, 9, 9), kernel_shape=[4, 4], strides=[4, 4], pads=[2] * 4, ceil_mode=1),
    seed("AveragePool", 22, ones(1, 1, 2, 2), kernel_shape=[5, 5], strides=[3, 3]),
    seed("ConvTranspose", 11, ones(1, 1, 3, 3), ones(1, 2, 1, 1), auto_pad="SAME_UPPER", strides=[2, 2]),
    seed("Softmax", 11, ones(2, 8, 16)),
    seed("Softmax", 11, ones(1, 21, 8, 8), axis=1),
    seed("ReduceSum", 13, ones(3, 0, 2), np.array([1]), keepdims=1),
    seed("MatMul", 13, ones(4, 0), ones(0, 8)),
    seed("Sin", 13, ones(1, 0)),
]  # fmt: skip


def test_cases_of_bug_reports_have_the_shapes_that_onnx_runtime_gives() -> None:
    with fuzz.Runtime() as runtime:
        for each in CASES:
            answer = fuzz.compared(each, runtime)
            assert answer.verdict == "agrees", f"{each.node}: {answer}"


@pytest.mark.parametrize("domain", ["", "ai.onnx.ml"])
def test_forms_are_those_of_onnx(domain: str) -> None:
    histories: dict[str, list[onnx.defs.OpSchema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == domain:
            histories.setdefault(schema.name, []).append(schema)
    stated = {"INT": "a whole number", "INTS": "whole numbers", "FLOAT": "a number", "STRING": "a text"}
    for name, schemas in histories.items():
        bounds = OPERANDS[domain].get(name)
        if bounds is not None:
            most = max(schema.max_input for schema in schemas)
            assert bounds == (min(s.min_input for s in schemas), ANY if most >= 1 << 31 - 1 else most), name
        for schema in schemas:
            for key, attribute in schema.attributes.items():
                if key in ATTRIBUTES:
                    assert ATTRIBUTES[key] == stated.get(attribute.type.name), f"{name}.{key}"


def test_whole_numbers_that_rules_ask_for_are_checked_before() -> None:
    folder = Path(shapes.__file__).parent
    asked = re.compile(r"""(?:\.ints|\.listed|_spatial|_steps)\((?:s, )?"(\w+)\"""")
    names = {name for path in folder.glob("*.py") for name in asked.findall(path.read_text(encoding="utf-8"))}
    assert {"strides", "perm", "starts"} <= names
    assert {ATTRIBUTES.get(name) for name in names} == {"whole numbers"}


def test_forms_are_those_of_onnxruntime() -> None:
    state = pytest.importorskip("onnxruntime.capi.onnxruntime_pybind11_state")
    contributed = [schema for schema in state.get_all_operator_schema() if schema.domain == fuzz.MS]
    for schema in contributed:
        bounds = OPERANDS[fuzz.MS].get(schema.name)
        required = [each.option.name == "Single" for each in schema.inputs]
        least = required.index(False) if False in required else len(required)
        most = ANY if schema.max_input >= 1 << 30 else schema.max_input
        assert bounds in (None, (least, most)), schema.name


def test_every_rule_of_onnx_states_its_form() -> None:
    ours = {
        "SimplifiedLayerNormalization",  # ONNX Runtime's own in ONNX's domain
        # with the elements of a sequence, or of what may be absent, in its place
        "Optional",
        "SequenceConstruct", "SequenceInsert", "SequenceAt", "SplitToSequence", "ConcatFromSequence",
    }  # fmt: skip
    assert set(RULES[""]) - ours <= set(OPERANDS[""])
    assert set(RULES["ai.onnx.ml"]) <= set(OPERANDS["ai.onnx.ml"])
