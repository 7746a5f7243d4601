"""``nn-meter predict``: nn-Meter's line, tables, JSON, batches, comparisons, exit codes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import onnx
import pytest
from onnx import TensorProto, helper

from nn_meter.predictors.prediction import STATUSES

SCHEMA = Path(__file__).parents[2] / "docs" / "schema.json"
EXAMPLE = Path(__file__).parents[2] / "examples" / "small_net.onnx"
RESULT = "(nn-Meter) [RESULT] predict latency for small_net.onnx: 39.75 ms\n"


@pytest.mark.parametrize("command", ["predict", "lat_pred"])
@pytest.mark.parametrize("source", [["--onnx", EXAMPLE], [EXAMPLE]])
def test_the_line_is_nn_meters(run: Callable[..., object], command: str, source: list[object]) -> None:
    result = run(command, "-q", "--predictor", "tiny_cpu", "--predictor-version", "1.0", *source)
    assert (result.code, result.out) == (0, RESULT)
    loud = run(command, "--predictor", "tiny_cpu", *source)
    assert loud.out.startswith(RESULT)


def test_names_compare_without_case(run: Callable[..., object]) -> None:
    assert run("predict", "-q", "--predictor", "TINY_cpu", EXAMPLE).out == RESULT


def test_estimates_are_said_on_stderr(run: Callable[..., object]) -> None:
    assert run("predict", "--predictor", "tiny_cpu", EXAMPLE).err == (
        "nn-meter: note: small_net.onnx on tiny_cpu: 1 of 29 kernels (5.0% of the total) are extrapolated, 4 of 29 "
        "kernels (they count 0 ms, which is too little) are estimated, not predicted; nn-meter explain says which and "
        "why\n"
    )


@pytest.mark.parametrize("width", [80, 120])
def test_the_answer_says_what_it_is_worth_and_where_the_time_goes(
    run: Callable[..., object], golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    shown = run("predict", "--predictor", "tiny_cpu", EXAMPLE).out
    golden(f"predict_{width}.txt", shown)
    assert max(map(len, shown.splitlines())) <= width


@pytest.mark.parametrize("by", ["kind", "module", "kernel"])
def test_rows_are_grouped_sorted_and_cut_as_asked(
    run: Callable[..., object], golden: Callable[[str, str], None], by: str
) -> None:
    arguments = ["--by", by, "--sort", "name", "--top", "3"]
    golden(f"predict_by_{by}.txt", run("predict", "--predictor", "tiny_cpu", *arguments, EXAMPLE).out)


def test_a_narrow_terminal_loses_middles_not_numbers(
    run: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = run("predict", "--predictor", "tiny_cpu", EXAMPLE).out
    monkeypatch.setenv("COLUMNS", "60")
    narrow = run("predict", "--predictor", "tiny_cpu", EXAMPLE).out
    assert max(map(len, narrow.removeprefix(RESULT).splitlines())) <= 60
    for number in ("4.000", "10.1%", "65.4%"):
        assert number in wide
        assert number in narrow


def test_colours_are_for_terminals(run: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("predict", "--predictor", "tiny_cpu", EXAMPLE)
    assert "\x1b[" not in run(*arguments).out
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[32m" in run(*arguments).out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in run(*arguments).out


def test_csv_has_every_kernel_with_every_digit(run: Callable[..., object]) -> None:
    shown = run("predict", "--predictor", "tiny_cpu", "--csv", EXAMPLE).out
    found = list(csv.DictReader(shown.splitlines()))
    assert len(found) == 29
    assert sum(float(each["latency_ms"]) for each in found) == 39.75
    assert {each["status"] for each in found} == {"predicted", "extrapolated", "estimated"}
    assert found[0]["nodes"].split() == ["conv_0", "relu_1"]


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_documents_keep_the_published_schema(run: Callable[..., object], folder: Path, command: str) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    for arguments in (("--predictor", "tiny_cpu", EXAMPLE), ("--predictor", "tiny_cpu", folder), (EXAMPLE,)):
        check.validate(json.loads(run(command, "--json", *arguments).out))


def test_the_schema_knows_every_status_and_nothing_else_passes() -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert schema["$defs"]["status"]["enum"] == list(STATUSES)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"schema_version": 1, "predictions": [{}], "failed": []}, schema)


@pytest.mark.parametrize("arguments", [["-v", "predict"], ["predict", "-v"], ["predict", "--verbose"]])
def test_verbose_shows_kernels(
    run: Callable[..., object], golden: Callable[[str, str], None], arguments: list[str]
) -> None:
    golden("predict_verbose.txt", run(*arguments, "--predictor", "tiny_cpu", "--onnx", EXAMPLE).out)


def test_json_is_one_document(run: Callable[..., object]) -> None:
    document = json.loads(run("predict", "--predictor", "tiny_cpu", "--json", EXAMPLE).out)
    assert list(document) == [
        "schema_version", "model", "predictor", "version", "device", "runtime", "threads", "dtype", "inputs",
        "past", "statistic", "latency_ms", "interval_ms", "call_ms", "size", "coverage", "kernels", "assumed", "notes",
    ]  # fmt: skip
    assert document["schema_version"] == 1
    assert (document["model"], document["predictor"], document["version"]) == (
        "small_net.onnx",
        "tiny_cpu",
        "1.0",
    )
    assert document["latency_ms"] == 39.75 == sum(kernel["latency_ms"] for kernel in document["kernels"])
    assert document["coverage"]["predicted"] == {
        "kernels": 24,
        "nodes": 40,
        "latency_ms": 37.75,
        "share": 37.75 / 39.75,
    }
    assert list(document["kernels"][0]) == [
        "kind", "label", "nodes", "config", "status", "latency_ms", "interval_ms", "bound", "notes",
    ]  # fmt: skip
    nodes = [node for kernel in document["kernels"] for node in kernel["nodes"]]
    assert sorted(nodes) == sorted(node.name for node in onnx.load(EXAMPLE).graph.node)


def test_one_bad_file_does_not_stop_a_folder(run: Callable[..., object], folder: Path) -> None:
    result = run("predict", "--predictor", "tiny_cpu", "--onnx", folder)
    assert result.code == 2
    assert result.out == "".join(RESULT.replace("small_net", name) for name in ("a", "c"))
    assert f"nn-meter: error: {folder / 'b.onnx'}: not an ONNX model" in result.err


def test_a_folders_json_says_what_failed(run: Callable[..., object], folder: Path) -> None:
    document = json.loads(run("predict", "--predictor", "tiny_cpu", "--json", folder).out)
    assert [each["model"] for each in document["predictions"]] == ["a.onnx", "c.onnx"]
    (failed,) = document["failed"]
    assert failed["model"] == str(folder / "b.onnx")
    assert "not an ONNX model" in failed["error"]


def test_several_predictors_are_compared(run: Callable[..., object], golden: Callable[[str, str], None]) -> None:
    result = run("predict", "--predictor", "tiny_cpu", "--predictor", "tiny_npu", EXAMPLE)
    assert result.code == 0
    golden("compare.txt", result.out)


def test_strict_wants_no_estimates(run: Callable[..., object]) -> None:
    result = run("predict", "-q", "--predictor", "tiny_cpu", "--strict", EXAMPLE)
    assert (result.code, result.out) == (3, RESULT)
    assert result.err.splitlines()[1:3] == [
        "nn-meter: strict: small_net.onnx on tiny_cpu: conv-relu (conv_0, relu_1): inputh 96 is outside the trained "
        "range 1..64",
        "nn-meter: strict: small_net.onnx on tiny_cpu: add (add_7): this predictor has no kernel 'add'; "
        "nn-Meter's sums leave it out, so it counts 0 ms",
    ]


def test_an_unset_batch_becomes_one_and_the_answer_says_so(run: Callable[..., object], tmp_path: Path) -> None:
    model = onnx.load(EXAMPLE)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, tmp_path / "small_net.onnx")
    result = run("predict", "-q", "--predictor", "tiny_cpu", tmp_path / "small_net.onnx")
    assert result.out == RESULT
    assert "image" in result.err.splitlines()[0]


@pytest.mark.parametrize("shape", ["1,3,64,64", "image=1,3,64,64", "1x3x64x64"])
def test_input_shapes_take_the_place_of_the_files(run: Callable[..., object], shape: str) -> None:
    arguments = ["predict", "--predictor", "tiny_cpu", "--json", "--input-shape", shape, EXAMPLE]
    (first, *_) = json.loads(run(*arguments).out)["kernels"]
    assert first["config"]["input_tensors"] == [[1, 64, 64, 3]]
    assert first["notes"] == []


def test_ir_files_are_read(run: Callable[..., object], tmp_path: Path) -> None:
    ir = tmp_path / "small_net_ir.json"
    assert run("get_ir", "--onnx", EXAMPLE, "-o", ir).code == 0
    expected = RESULT.replace("small_net.onnx", "small_net_ir.json")
    assert run("predict", "-q", "--predictor", "tiny_cpu", "--nn-meter-ir", ir).out == expected
    assert run("predict", "-q", "--predictor", "tiny_cpu", ir).out == expected


def test_the_answer_names_the_past_and_what_it_assumes(run: Callable[..., object], tmp_path: Path) -> None:
    texts = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ("batch", "sequence")),
        *(
            helper.make_tensor_value_info(f"past_key_values.{index}", TensorProto.FLOAT, ("batch", 2, "past", 4))
            for index in range(6)
        ),
    ]
    nodes = [
        helper.make_node("NonZero", ["input_ids"], ["y"], "find"),
        helper.make_node("Sum", [each.name for each in texts[1:]], ["z"], "sum"),
    ]
    ends = [helper.make_tensor_value_info(name, 1, None) for name in "yz"]
    imports = [helper.make_opsetid("", 17)]
    proto = helper.make_model(helper.make_graph(nodes, "g", texts, ends), opset_imports=imports, ir_version=8)
    path = tmp_path / "step.onnx"
    onnx.save(proto, path)
    asked = ("predict", "--predictor", "tiny_cpu", path, "--past", "9")
    told = run(*asked)
    assert told.code == 0
    assert "past 9, inputs 1x1 + 6 of 1x2x9x4" in told.out
    assert "--count find=N states another number" in " ".join(told.out.split())
    document = json.loads(run(*asked, "--json").out)
    assert (document["past"], len(document["assumed"])) == (9, 1)
    strict = run(*asked, "--strict")
    assert strict.code == 3
    assert "the data decides how many elements node 'find'" in strict.err
    assert json.loads(run(*asked, "--count", "find=1", "--json").out)["assumed"] == []
