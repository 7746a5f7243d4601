"""What errors about ONNX files advise works as it stands there: at the command line, and in Python."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nn_meter import load_latency_predictor
from nn_meter.cli.main import main
from nn_meter.errors import NnMeterError
from nn_meter.frontends.onnx import read

FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
node, value = helper.make_node, helper.make_tensor_value_info

_LOOP = helper.make_graph(
    [node("Add", ["c", "x"], ["s"]), node("ReduceMax", ["s"], ["t"], keepdims=0), node("Less", ["t", "top"], ["m"])],
    "body",
    [value("i", INT, ()), value("g", BOOL, ()), value("c", FLOAT, (1, 4))],
    [value("m", BOOL, ()), value("s", FLOAT, (1, 4))],
)
_BRANCHES = [
    helper.make_graph([node(op, ["x"], [f"{op}_out"]), *tail], op, [], [value(out, FLOAT, (1, 400))])
    for op, tail, out in (("Neg", [], "Neg_out"), ("Relu", [node("Abs", ["Relu_out"], ["last"])], "last"))
]
_PLACE = [node("ReduceMax", ["x"], ["m"], keepdims=0), node("Cast", ["m"], ["k"], to=INT)]
X = value("x", FLOAT, (1, 4))
FREE = value("x", FLOAT, ("batch", 3, "height", "width"))
RELU = node("Relu", ["x"], ["y"])


class Asked(NamedTuple):
    """A model, what of the advice a person fills in, and how the advice is worded."""

    nodes: list[onnx.NodeProto]
    inputs: list[onnx.ValueInfoProto]
    words: str
    held: Mapping[str, Any] = {}
    filled: Mapping[str, str] = {}
    options: Mapping[str, Any] = {}
    flags: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in self.held.items()]
        graph = helper.make_graph(self.nodes, "g", self.inputs, [value("y", FLOAT, None)], weights)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


CASES = {
    "unset dimensions": Asked([RELU], [FREE], "is unset; give its shape", filled={"HEIGHT": "32", "WIDTH": "48"}),
    "no shape": Asked([RELU], [value("x", FLOAT, None)], "has no shape; give one"),
    "one shape for two inputs": Asked(
        [node("Add", ["x", "z"], ["y"])],
        [value("x", FLOAT, ("n", 8)), value("z", FLOAT, ("n", 8))],
        "name each",
        filled={"N": "6"},
        options={"input_shapes": (6, 8)},
        flags=("--input-shape", "6,8"),
    ),
    "a loop that the data ends": Asked(
        [node("Loop", ["", "go", "x"], ["y"], "again", body=_LOOP)],
        [X],
        "runs until the data ends it; state how often",
        {"go": True, "top": np.float32(9)},
    ),
    "an element of a sequence": Asked(
        [*_PLACE, node("SequenceConstruct", ["x", "x"], ["s"]), node("SequenceAt", ["s", "k"], ["y"])],
        [X],
        "whose place .k. depends on the data",
    ),
    "parts of a sequence": Asked(
        [
            *_PLACE,
            node("SplitToSequence", ["x", "k"], ["s"], axis=1),
            node("ConcatFromSequence", ["s"], ["y"], axis=1),
        ],
        [X],
        "splits into parts whose sizes .k. depend on the data",
    ),
    "a value that decides a shape": Asked(
        [*_PLACE, node("Reshape", ["k", "one"], ["k1"]), node("TopK", ["x", "k1"], ["y", "at"])],
        [X],
        "state them: --input-value k1=1 ",
        {"one": np.array([1])},
    ),
    "values that decide a shape": Asked(
        [*_PLACE, node("Reshape", ["k", "one"], ["k1"]), node("Concat", ["k1", "k1"], ["k2"], axis=0),
         node("Expand", ["row", "k2"], ["y"])],
        [X],
        "state them: --input-value k2=1,2 ",
        {"one": np.array([1]), "row": np.float32([[1]])},
    ),
}  # fmt: skip


def _said(text: str, filled: Mapping[str, str]) -> str:
    return re.sub(r"\b[A-Z]{1,10}\b(?=[,)])|(?<==)[A-Z]+\b|\b[A-Z]+\b(?= \(in)", lambda m: filled.get(m[0], "1"), text)


@pytest.mark.parametrize("case", CASES)
def test_what_is_advised_works(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = CASES[case]
    path = tmp_path / "m.onnx"
    asked.save(path)
    assert main(["predict", str(path), *asked.flags]) != 0
    said = _said(capsys.readouterr().err.splitlines()[0], asked.filled)
    assert re.search(asked.words, said)
    flags = [part for pair in re.findall(r"(--[a-z-]+) (\S+=\S+)", said) for part in pair]
    assert flags
    assert main(["predict", str(path), *flags]) == 0
    with pytest.raises(NnMeterError) as refused:
        read(path, **asked.options)
    said = _said(str(refused.value), asked.filled)
    in_python = re.findall(r"\(in Python (\w+)=(\{.*?\})\)", said)
    assert len(in_python) == said.count("in Python")
    for key, literal in in_python:
        read(path, **{key: ast.literal_eval(literal)})


@pytest.mark.parametrize("stated", [False, True])
def test_a_branch_that_the_data_decides_can_be_stated(
    stated: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.onnx"
    branches = dict(zip(("then_branch", "else_branch"), _BRANCHES, strict=True))
    x = value("x", FLOAT, (1, 400))  # of a size that the default predictor knows
    Asked([node("If", ["sr"], ["y"], "which", **branches)], [x, value("sr", BOOL, ())], "").save(path)
    assert main(["predict", str(path)]) == 0
    said = capsys.readouterr().out.replace("\n              ", " ")
    (advice,) = re.findall(r"(--input-value sr=)\w+", said)
    assert main(["predict", "--strict", str(path), *f"{advice}{int(stated)}".split()]) == 0
    assert "assumed" not in capsys.readouterr().out


def test_a_shape_that_has_to_be_stated_in_the_file_can_be(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    Asked([node("Mystery", ["x"], ["h"], domain="local"), node("Relu", ["h"], ["y"])], [X], "").save(path)
    with pytest.raises(NnMeterError, match="does not state the shape of 'h'; add it to the file's value_info"):
        read(path)
    proto = onnx.load(path)
    proto.graph.value_info.append(value("h", FLOAT, (1, 4)))
    assert read(proto).tensors["y"].shape == (1, 4)


@pytest.mark.parametrize("batch", ["batch", None])
def test_dimensions_that_a_file_leaves_free_are_told_and_can_be_fixed(tmp_path: Path, batch: str | None) -> None:
    """By their names where they have any, else those of an input together."""
    nodes = [node("Shape", ["x"], ["s"]), node("Reshape", ["x", "s"], ["r"]), node("Relu", ["r"], ["y"])]
    graph = helper.make_graph(nodes, "g", [value("x", FLOAT, (batch, 3, "width"))], [value("y", FLOAT, None)])
    free, fixed = tmp_path / "free.onnx", tmp_path / "fixed.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), free)
    told = _of_free_dimensions(free)
    assert f"({batch or 'unnamed'}, width)" in told
    _, module, *advised = re.sub(" fixes .*", "", told[told.index("python -m") :]).split()[1:]
    asked = [{"NAME": "batch", "SIZE": "2"}, {"NAME": "width", "SIZE": "8"}]
    for words in asked if batch else [{"NAME": "x", "SIZES": "2,3,8"}]:
        filled = words | {"FILE": str(fixed if fixed.exists() else free), "FIXED": str(fixed)}
        command = [sys.executable, "-m", module, *(filled.get(word, word) for word in advised)]
        subprocess.run(command, check=True, capture_output=True)
    assert not _of_free_dimensions(fixed)


def _of_free_dimensions(path: Path) -> str:
    notes = load_latency_predictor().explain(str(path), input_shapes={"x": (2, 3, 8)}).notes
    return "".join(note for note in notes if "leaves dimensions free" in note)
