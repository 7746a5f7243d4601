"""What cannot be used ends in one line on stderr, exit code 2, and nothing half-written."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from nn_meter.predictors.bundle import Bundle, save

EXAMPLE = Path(__file__).parents[2] / "examples" / "small_net.onnx"


def refused(result: object, *texts: str) -> None:
    """One line with all of ``texts``, nothing on stdout."""
    assert (result.code, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert line.startswith("nn-meter: error: ")
    for text in texts:
        assert text in line


def cyclic() -> bytes:
    nodes = [
        helper.make_node("Add", ["image", "b"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="second"),
    ]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in ("image", "b")]
    return helper.make_model(helper.make_graph(nodes, "g", value[:1], value[1:])).SerializeToString()


def shapeless() -> bytes:
    model = onnx.load(EXAMPLE)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"this is no model", ("not an ONNX model",)),
        (b"", ("net.onnx",)),
        (EXAMPLE.read_bytes()[:5000], ("net.onnx",)),
        (cyclic(), ("cycle", "first")),
        (shapeless(), ("image", "--input-shape")),
    ],
    ids=["no model", "empty", "truncated", "cyclic", "shapeless"],
)
def test_models(run: Callable[..., object], tmp_path: Path, content: bytes, texts: tuple[str, ...]) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    refused(run("predict", "--predictor", "tiny_cpu", "--onnx", tmp_path / "net.onnx"), *texts)
    refused(run("get_ir", "--onnx", tmp_path / "net.onnx"), *texts)
    assert not (tmp_path / "net_onnx_ir.json").exists()


@pytest.mark.parametrize(
    ("ir", "texts"),
    [
        ("{", ("no valid JSON",)),
        ("[]", ("at least one node",)),
        ("{}", ("at least one node",)),
        ('{"a": {"inbounds": []}}', ("'a'", "'attr'")),
        ('{"a": {"attr": {"type": "Conv2D", "attr": {}}, "inbounds": []}}', ("'a'", "'input_shape'")),
    ],
)
def test_ir_files(run: Callable[..., object], tmp_path: Path, ir: str, texts: tuple[str, ...]) -> None:
    (tmp_path / "net.json").write_text(ir)
    refused(run("predict", "--predictor", "tiny_cpu", "--nn-meter-ir", tmp_path / "net.json"), *texts)


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["--onnx", "absent.onnx"], ("absent.onnx", "no such file")),
        (["absent.onnx"], ("absent.onnx", "no such file")),
        ([], ("no model is named",)),
        ([EXAMPLE, "--onnx", EXAMPLE], ("--onnx", "one or the other")),
        ([EXAMPLE, "--seq-len", "8"], ("takes no seq_len, since none of its inputs", "is a text")),
        ([EXAMPLE, "--past", "8"], ("takes no past",)),
        ([EXAMPLE, "--past", "-1"], ("past is -1; give 0 or more",)),
        ([EXAMPLE, "--input-value", "x"], ("--input-value x: write it as NAME=1",)),
        ([EXAMPLE, "--input-value", "x=many"], ("'many' is no number",)),
        ([EXAMPLE, "--count", "x=1.5"], ("the count of 'x' is 1.5; give a whole number",)),
        ([EXAMPLE, "--count", "x=2"], ("stated for x, which is no tensor",)),
        ([EXAMPLE, "--input-shape", "1,3,x"], ("--input-shape 1,3,x", "1,3,224,224")),
        ([EXAMPLE, "--input-shape", "1,3,-3,64"], ("cannot be negative",)),
        ([EXAMPLE, "--input-shape", "1,3", "--input-shape", "1,3"], ("name each input",)),
    ],
)
def test_arguments(run: Callable[..., object], arguments: list[object], texts: tuple[str, ...]) -> None:
    refused(run("predict", "--predictor", "tiny_cpu", *arguments), *texts)


def test_an_empty_folder(run: Callable[..., object], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(run("predict", "--predictor", "tiny_cpu", "--onnx", tmp_path / "empty"), "holds no model", "*.onnx")


def test_an_unknown_predictor_suggests_near_names(run: Callable[..., object]) -> None:
    refused(run("predict", "--predictor", "tiny_cpus", EXAMPLE), "'tiny_cpus'", "did you mean tiny_cpu")


def test_an_unknown_version_names_those_there_are(run: Callable[..., object]) -> None:
    arguments = ["--predictor", "tiny_cpu", "--predictor-version", "7"]
    refused(run("predict", *arguments, EXAMPLE), "tiny_cpu has no version 7", "1.0")


def test_forgetting_what_is_not_registered(run: Callable[..., object]) -> None:
    refused(run("unregister", "--predictor", "cortexA76cpu_tflite21"), "cortexA76cpu_tflite21", "registered")


def test_modules_that_cannot_be_registered(run: Callable[..., object], tmp_path: Path) -> None:
    refused(run("register", "--backend", tmp_path / "absent.yaml"), "absent.yaml", "cannot be read")
    refused(run("unregister", "--backend", "mine"), "no backend 'mine' is registered")
    refused(run("unregister", "--operator", "swish", "mine"), "no operator 'swish' for mine is registered")


class Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("this must not be printed",)


@pytest.mark.parametrize(
    ("files", "texts"),
    [
        ({}, ("fc.pkl", "cannot be read")),
        ({"fc.pkl": b"broken"}, ("fc.pkl",)),
        ({"fc.pkl": pickle.dumps(Hostile())}, ("fc.pkl",)),
        ({"fc.pkl": b"broken", "fusion_rules.json": b"{"}, ("fusion_rules.json",)),
        ({"meta.yaml": b"name: [1"}, ("meta.yaml",)),
        ({"meta.yaml": b"version: 1.0"}, ("meta.yaml", "name")),
    ],
    ids=["missing pickle", "broken pickle", "hostile pickle", "broken rules", "no yaml", "no name"],
)
def test_predictor_folders(
    run: Callable[..., object], home: Path, tmp_path: Path, files: dict[str, bytes], texts: tuple[str, ...]
) -> None:
    folder = tmp_path / "package"
    folder.mkdir()
    meta = b"{name: mine, version: 1.0, category: cpu, package_location: ., kernel_predictors: [fc]}"
    for name, content in {"fusion_rules.json": b"{}", "meta.yaml": meta, **files}.items():
        (folder / name).write_bytes(content)
    before = sorted(home.rglob("*"))
    refused(run("register", "--predictor", folder / "meta.yaml"), *texts)
    assert sorted(path for path in home.rglob("*") if path.name != ".lock") == before


def test_a_rule_that_names_an_unknown_operator_is_warned_about(
    run: Callable[..., object], tiny: Bundle, tmp_path: Path
) -> None:
    from dataclasses import replace

    save(
        replace(tiny, name="odd", rules={**tiny.rules, "BF_conv_frobnicate": {"obey": True}}),
        tmp_path / "odd.zip",
    )
    (tmp_path / "odd.yaml").write_text("{name: odd, version: 1.0, category: cpu, package_location: odd.zip}")
    assert run("register", "--predictor", tmp_path / "odd.yaml").code == 0
    result = run("predict", "--predictor", "odd", EXAMPLE)
    assert result.code == 0
    assert "'BF_conv_frobnicate' names the unknown operator frobnicate" in result.err


def test_a_data_folder_that_cannot_be_written(
    run: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("NN_METER_HOME", str(tmp_path / "file" / "home"))
    refused(run("register", "--predictor", tmp_path / "tiny_cpu.yaml"), "file/home")


def test_a_graph_that_cannot_be_written(run: Callable[..., object], tmp_path: Path) -> None:
    refused(
        run("get_ir", "--onnx", EXAMPLE, "-o", tmp_path / "tiny_cpu.yaml" / "ir.json"),
        "tiny_cpu.yaml/ir.json",
        "cannot be written",
    )


def test_a_registered_predictor_that_was_damaged_does_not_hide_the_others(
    run: Callable[..., object], home: Path
) -> None:
    (home / "registered" / "tiny_npu@2.zip").write_bytes(b"damaged")
    result = run("--list-predictors")
    assert result.code == 0
    assert "tiny_cpu" in result.out
    assert "tiny_npu@2.zip" in result.err
    assert json.loads(run("predict", "--json", "--predictor", "tiny_cpu", EXAMPLE).out)["latency_ms"] == 39.75


def test_names_cannot_forge_a_line_or_steer_the_terminal(run: Callable[..., object], tmp_path: Path) -> None:
    import onnx
    from onnx import helper

    evil = "x\n(nn-Meter) [RESULT] predict latency for other.onnx: 0.001 ms\n\x1b]0;owned\x07\x1b[2J\u202e"
    nodes = [
        helper.make_node("Sin", ["x"], ["s"], name=evil),
        helper.make_node(f"Foo{evil}", ["s"], ["y"], name=evil, domain="d"),
    ]
    ends = [helper.make_tensor_value_info(name, 1, [1, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("d", 1)]
    path = tmp_path / f"{evil.replace('/', '')[:90]}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets), path)
    for options in ([], ["-v"], ["--json"], ["--predictor", "tiny_cpu"]):
        for command in ("predict", "explain"):
            result = run(command, *options, path)
            shown = result.out + result.err
            assert not set("\x1b\x07\u202e") & set(shown)
            assert sum(line.startswith("(nn-Meter) [RESULT]") for line in shown.splitlines()) <= 1
    assert not set("\x1b\x07\u202e") & set(run("get_ir", path).err)
    run("explain", "--html", tmp_path / "page.html", path)
    assert not set("\x1b\x07\u202e") & set((tmp_path / "page.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [f"{'a' * 5000}.onnx", f"{'a' * 5000}", "a\0b"])
def test_a_path_that_no_path_can_be_is_input(run: Callable[..., object], name: str) -> None:
    refused(run("predict", name), name[:1])


@pytest.mark.parametrize("option", ["--name", "--predictor-version"])
def test_the_name_of_a_build_leads_out_of_no_folder(run: Callable[..., object], option: str) -> None:
    refused(run("build", "--budget", "1s", option, "../../x"), f"{option} '../../x' is no name")


def test_an_empty_name_of_a_workspace_is_said(run: Callable[..., object]) -> None:
    refused(run("create", "--onnxruntime-workspace", ""), "--onnxruntime-workspace: the path is empty; name a folder")
