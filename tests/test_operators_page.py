"""The command that makes the table of operators, on a few of them."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest

pytest.importorskip("onnxruntime")
sys.path.append(str(Path(__file__).parents[1] / "scripts"))
import operator_cases
import operators

from nn_meter import frontends

FEW = ["Softmax", "Neg", "MatMul", "NonZero", "Loop", "SequenceLength", "com.microsoft.GroupQueryAttention"]


def test_the_page_has_a_line_for_each_operator_with_both_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.md"
    assert operators.main(["--budget", "3", "--out", str(out), *FEW]) == 0
    lines = {line.split(" | ")[0].removeprefix("| "): line.split(" | ") for line in out.read_text().splitlines()}
    for name in FEW[:3]:
        _, shape, work, executed, *judged = lines[name]
        assert (shape, executed) == ("as executed", name)
        assert work.startswith("kind ")
        for _, measured_ms, _, status in (each.removesuffix(" |").split(", ") for each in judged):
            assert float(measured_ms) > 0
            assert status in ("predicted", "extrapolated", "estimated")
    # the data decides how many it finds
    assert lines["NonZero"][4].split(", ")[3] in ("assumed", "extrapolated", "estimated")
    assert float(lines["Loop"][4].split(", ")[1]) > 0
    assert lines["Loop"][5].startswith("-")
    assert "not measured: what it says is known" in " ".join(lines["SequenceLength"])
    assert "GroupQueryAttention" in lines["com.microsoft.GroupQueryAttention"][3]
    assert len(capsys.readouterr().out.splitlines()) == len(FEW) + 1


def test_every_operator_has_a_case_or_a_reason() -> None:
    named = {*operator_cases.CASES, *operator_cases.MODELS, *operator_cases.WHY_NOT}
    assert set(operators.operators()) - named == set()


@pytest.mark.parametrize("name", sorted(operator_cases.MODELS))
def test_a_model_of_a_sequence_or_a_loop_holds_its_operator_and_is_read(name: str) -> None:
    model = onnx.load_from_string(operator_cases.model_of(operator_cases.MODELS[name]))
    assert name in {node.op_type for node in model.graph.node}
    graph = frontends.read(model)
    assert [graph.tensors[y.name].shape for y in model.graph.output] == [
        tuple(d.dim_value for d in y.type.tensor_type.shape.dim) for y in model.graph.output
    ]


@pytest.mark.parametrize("name", sorted(operator_cases.CASES))
def test_a_case_is_a_graph_alone_and_between_others(name: str) -> None:
    for around in ("", "Neg"):
        graph = operator_cases.CASES[name].graph(name, around)
        assert sum(node.op_type == name.rpartition(".")[2] for node in graph.nodes) >= 1
