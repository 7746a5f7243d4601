"""``nn-meter check``: a budget that a model keeps or breaks, and who is to blame."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest

from nn_meter.backends.onnx_writer import to_onnx
from nn_meter.errors import InputError
from nn_meter.ir import GraphBuilder
from nn_meter.predictors.checking import Part, Verdict, changes, read_baseline
from nn_meter.report.checks import markdown

SCHEMA = Path(__file__).parents[2] / "docs" / "schema.json"
A, B = ("--predictor", "tiny_cpu"), ("--predictor", "tiny_npu")

Run = Callable[..., Any]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder in which ``models/net.onnx`` takes 6 ms and ``models/sub/net.onnx`` 2 ms."""
    place = tmp_path / "place"
    (place / "models" / "sub").mkdir(parents=True)
    monkeypatch.chdir(place)
    write("models/net.onnx", 3)
    write("models/sub/net.onnx", 1)
    return place


def write(path: str, convolutions: int, relu: bool = False) -> None:
    """A chain of convolutions of 2 ms each; a ReLU behind each is fused into it."""
    b = GraphBuilder("net")
    x = b.input((1, 4, 8, 8))
    for _ in range(convolutions):
        x = b.op("Conv", x, b.weight((4, 4, 1, 1)))
        x = b.op("Relu", x) if relu else x
    Path(path).write_bytes(to_onnx(b.graph(x)).SerializeToString())


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


@pytest.mark.usefixtures("place")
def test_what_is_within_the_limit_passes(run: Run) -> None:
    result = run("check", "models/net.onnx", "--max", "6ms", *A)
    assert result.code == 0
    assert ["net.onnx", "tiny_cpu", "1.0", "6.000", "ok"] in words(result.out)


@pytest.mark.parametrize("limit", ["5.99ms", "5990us", "0.00599s", "5.99"])
@pytest.mark.usefixtures("place")
def test_what_is_over_the_limit_fails_and_names_the_layers(run: Run, limit: str) -> None:
    result = run("check", "models/net.onnx", "--max", limit, *A)
    assert result.code == 1
    assert ["net.onnx", "tiny_cpu", "1.0", "6.000", "fails"] in words(result.out)
    assert "  6.000 ms is more than the limit of 5.990 ms" in result.out
    assert ["Conv_{0,1,2}", "conv", "6.000", "100.0%"] in words(result.out)


@pytest.mark.usefixtures("place")
def test_a_model_that_became_slower_fails_beyond_the_tolerance(run: Run) -> None:
    assert run("check", "models/net.onnx", "--save", "base.json", *A, *B).code == 0
    assert run("check", "models/net.onnx", "--baseline", "base.json", *A, *B).code == 0
    write("models/net.onnx", 4)
    result = run("check", "models/net.onnx", "--baseline", "base.json", *A, *B)
    assert result.code == 1
    assert ["net.onnx", "tiny_npu", "2.0", "8.000", "6.000", "+33.3%", "fails"] in words(result.out)
    assert "  33.3% slower than the baseline's 6.000 ms; 5.0% is allowed" in result.out
    assert ["Conv_3", "nothing", "->", "conv", "0", "2.000", "+2.000"] in words(result.out)
    assert run("check", "models/net.onnx", "--baseline", "base.json", "--tolerance", "34%", *A).code == 0


@pytest.mark.usefixtures("place")
def test_a_model_that_became_faster_passes_and_says_so(run: Run) -> None:
    run("check", "models/net.onnx", "--save", "base.json", *A)
    write("models/net.onnx", 2)
    result = run("check", "models/net.onnx", "--baseline", "base.json", *A)
    assert result.code == 0
    assert ["net.onnx", "tiny_cpu", "1.0", "4.000", "6.000", "-33.3%", "ok"] in words(result.out)
    assert ["Conv_2", "conv", "->", "nothing", "2.000", "0", "-2.000"] in words(result.out)


@pytest.mark.usefixtures("place")
def test_models_of_one_name_go_by_their_paths(run: Run) -> None:
    assert run("check", "models", "--save", "base.json", *A).code == 0
    saved = json.loads(Path("base.json").read_text())
    assert [each["model"] for each in saved["predictions"]] == ["models/net.onnx", "models/sub/net.onnx"]
    jsonschema.validate(saved, json.loads(SCHEMA.read_text(encoding="utf-8")))
    write("models/sub/net.onnx", 2)
    result = run("check", "models", "--baseline", "base.json", *A)
    assert result.code == 1
    assert next(line for line in result.out.splitlines() if "fails" in line).startswith("models/sub/net.onnx")


@pytest.mark.usefixtures("place")
def test_what_predict_prints_does_for_a_baseline(run: Run) -> None:
    Path("base.json").write_text(run("predict", "--json", "models/net.onnx", *A).out)
    assert run("check", "models/net.onnx", "--baseline", "base.json", *A).code == 0
    Path("twice.json").write_text(run("predict", "--json", "models", *A).out)
    twice = run("check", "models/net.onnx", "--baseline", "twice.json", *A)
    assert twice.code == 2
    assert "two predictions of 'net.onnx' by 'tiny_cpu'" in twice.err


@pytest.mark.usefixtures("place")
def test_new_and_missing_models_are_named(run: Run) -> None:
    run("check", "models/net.onnx", "--save", "base.json", *A, *B)
    write("models/new.onnx", 1)
    result = run("check", "models/new.onnx", "--baseline", "base.json", *A)
    assert result.code == 0
    assert "ok, new" in result.out
    assert "net.onnx by tiny_npu stands in the baseline and was not asked for" in result.err


@pytest.mark.usefixtures("place")
def test_a_model_that_cannot_be_read_fails_and_the_others_are_checked(run: Run) -> None:
    Path("models/bad.onnx").write_bytes(b"no model")
    result = run("check", "models", "--max", "1ms", "--junit", "report.xml", "--markdown", "report.md", *A)
    assert result.code == 2
    assert "no answer" in result.out
    suite = ElementTree.parse("report.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "2", "1")
    cases = {case.get("name"): case for case in suite}
    assert cases["bad.onnx"].find("error") is not None
    failure = cases["models/net.onnx"].find("failure")
    assert failure is not None
    assert failure.get("message") == "6.000 ms is more than the limit of 1.000 ms"
    assert "Conv_{0,1,2}" in (failure.text or "")
    page = Path("report.md").read_text()
    assert "### Predicted latency: 3 of 3 checks fail" in page
    assert "| `models/net.onnx` | `tiny_cpu 1.0` | 6.000 | fails |" in page
    assert "| `Conv_{0,1,2}` | `conv` | 6.000 | 100.0% |" in page
    assert "<summary><code>models/net.onnx</code> on <code>tiny&#95;cpu 1.0</code></summary>" in page


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a.*.b_c", "`a.*.b_c`"), ("a`*b*`", "a&#96;&#42;b&#42;&#96;"), ("a|<b>", "a&#124;&lt;b>"), ("a <b>", "`a <b>`")],
)
def test_a_name_is_no_markdown(name: str, shown: str) -> None:
    page = markdown([Verdict(name, None, problems=("no model",))])
    assert f"| {shown} |  |  | no answer |" in page
    assert "<b>" not in page.replace(f"| {shown} |", "")


@pytest.mark.usefixtures("place")
def test_where_the_only_model_fails_reports_are_written_and_the_baseline_stays(run: Run) -> None:
    run("check", "models/net.onnx", "--save", "base.json", *A)
    Path("models/net.onnx").write_bytes(b"no model")
    saved = Path("base.json").read_text()
    files = ("--baseline", "base.json", "--save", "base.json", "--junit", "report.xml")
    result = run("check", "models/net.onnx", *files, *A)
    assert (result.code, "no answer" in result.out, "was not asked for" in result.err) == (2, True, False)
    assert "base.json is not written, since there is no answer for net.onnx" in result.err
    assert Path("base.json").read_text() == saved
    assert ElementTree.parse("report.xml").getroot().get("errors") == "1"


@pytest.mark.usefixtures("place")
def test_a_model_whose_package_is_missing_is_no_broken_limit(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert run("check", "--timm", "resnet18", "--max", "1s", *A).code == 2


@pytest.mark.usefixtures("place")
def test_a_model_that_is_named_twice_is_asked_once(run: Run) -> None:
    assert run("check", "models/net.onnx", "models/net.onnx", "--save", "base.json", *A).code == 0
    assert run("check", "models/net.onnx", "--baseline", "base.json", *A).code == 0


@pytest.mark.usefixtures("place")
def test_what_an_older_predictor_said_is_told_as_such(run: Run) -> None:
    run("check", "models/net.onnx", "--save", "base.json", *A)
    saved = Path("base.json").read_text()
    Path("base.json").write_text(saved.replace('"version": "1.0"', '"version": "0.9"'))
    write("models/net.onnx", 4)
    result = run("check", "models/net.onnx", "--baseline", "base.json", *A)
    assert "slower than the baseline's 6.000 ms, by version 0.9 of the predictor" in result.out


@pytest.mark.usefixtures("place")
def test_strict_refuses_what_is_not_predicted(run: Run) -> None:
    b = GraphBuilder("net")
    x = b.input((1, 4, 8, 8))
    Path("net.onnx").write_bytes(to_onnx(b.graph(b.op("Add", x, x))).SerializeToString())
    assert run("check", "net.onnx", "--max", "1s", *A).code == 0
    result = run("check", "net.onnx", "--strict", *A)
    assert result.code == 1
    assert "not all of it is predicted: add" in result.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to check against; give --max 20ms"),
        (["--max", "soon"], "--max soon: write it as 20ms"),
        (["--max", "0ms"], "--max 0ms: write it as 20ms"),
        (["--max", "1ms", "--tolerance", "some"], "--tolerance some: write it as 5%"),
        (["--baseline", "absent.json"], "absent.json: the baseline cannot be read"),
    ],
)
@pytest.mark.usefixtures("place")
def test_what_cannot_be_used_is_refused(run: Run, arguments: list[str], said: str) -> None:
    result = run("check", "models/net.onnx", *A, *arguments)
    assert (result.code, result.out) == (2, "")
    assert said in result.err


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "must be keys with values, not a list"),
        ({"schema_version": 9}, "'schema_version' is 9; it must be 1"),
        ({"schema_version": 1, "predictions": 3}, "'predictions' is 3; it must be a list of predictions"),
        ({"schema_version": 1, "predictions": [{"model": "a"}]}, r"'predictions\[0\].predictor' is missing"),
        ({"schema_version": 1, "model": "a", "predictor": "p", "version": "1", "latency_ms": 1e308}, r"is 1e\+308"),
    ],
)
def test_a_baseline_that_is_none_says_where(document: object, said: str) -> None:
    with pytest.raises(InputError, match=f"base.json: .*{said}"):
        read_baseline(document, "base.json")


def test_a_kernel_that_fell_apart_is_held_against_its_pieces() -> None:
    before = [Part(("conv", "relu"), "conv-relu", 2.0), Part(("fc",), "fc", 1.0), Part((), "Reorder", 0.5)]
    now = [Part(("conv",), "conv", 2.0), Part(("relu",), "relu", 0.75), Part(("fc",), "fc", 1.0)]
    first, second = changes(before, now)
    assert (first.layer, first.kernel_before, first.kernel) == ("conv", "conv-relu", "conv + relu")
    assert first.difference_ms == 0.75
    assert (second.layer, second.kernel_before, second.kernel) == ("(inserted by the runtime)", "Reorder", "")
    assert second.difference_ms == -0.5
