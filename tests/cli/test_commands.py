"""The other commands: lists, register, unregister, get_ir; and how the command line ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from nn_meter.cli import predict
from nn_meter.cli.main import COMMANDS
from nn_meter.cli.output import exit_code
from nn_meter.errors import BundleError, DownloadError, StorageError

EXAMPLE = Path(__file__).parents[2] / "examples" / "small_net.onnx"


def test_predictors_are_listed_in_nn_meters_lines(run: Callable[..., object]) -> None:
    lines = run("--list-predictors").out.splitlines()
    assert lines[0] == "(nn-Meter) Supported latency predictors:"
    assert lines[-2:] == [
        "(nn-Meter) [Predictor] tiny_cpu: version=1.0",
        "(nn-Meter) [Predictor] tiny_npu: version=2.0",
    ]
    assert "(nn-Meter) [Predictor] cortexA76cpu_tflite21: version=1.0" in lines


@pytest.mark.parametrize(
    ("what", "head", "member"),
    [
        ("backends", "Supported backends: ('*' indicates customized backends)", "[Backend] onnxruntime_cpu"),
        ("kernels", "Supported kernels: ('*' indicates customized kernels)", "[Kernel] conv-bn-relu"),
        ("operators", "Supported operators: ('*' indicates customized operators)", "[Operator] dwconv"),
        ("testcases", "Supported testcases: ('*' indicates customized test cases)", "[TestCase] MON"),
    ],
)
def test_other_lists(run: Callable[..., object], what: str, head: str, member: str) -> None:
    lines = run(f"--list-{what}").out.splitlines()
    assert lines[0] == f"(nn-Meter) {head}"
    assert f"(nn-Meter) {member}" in lines


def test_register_and_unregister_say_nn_meters_lines(run: Callable[..., object], tmp_path: Path) -> None:
    gone = run("unregister", "--predictor", "tiny_cpu")
    assert (gone.code, gone.out) == (0, "(nn-Meter) Successfully unregister tiny_cpu.\n")
    assert "tiny_cpu" not in run("--list-predictors").out
    back = run("register", "--predictor", tmp_path / "tiny_cpu.yaml")
    assert (back.code, back.out) == (0, "(nn-Meter) Successfully register predictor: tiny_cpu\n")
    assert "tiny_cpu" in run("--list-predictors").out


def test_modules_are_registered_listed_and_forgotten(run: Callable[..., object], tmp_path: Path) -> None:
    (tmp_path / "swish_of_mine.py").write_text("class Swish:\n    pass\n")
    meta = tmp_path / "swish.yaml"
    meta.write_text(
        "{builtin_name: swish, implement: mine, package_location: ., "
        "class_module: swish_of_mine, class_name: Swish}"
    )
    registered = run("register", "--operator", meta)
    assert (registered.code, registered.out) == (0, "(nn-Meter) Successfully register operator: swish\n")
    assert run("--list-operators").out.endswith("(nn-Meter) [Operator] * swish (mine)\n")
    assert (
        run("unregister", "--operator", "swish", "mine").out
        == "(nn-Meter) Successfully unregister swish (mine).\n"
    )
    assert "*" not in run("--list-operators").out.partition("\n")[2]


def test_get_ir_writes_beside_the_model(run: Callable[..., object], tmp_path: Path) -> None:
    model = tmp_path / "net.onnx"
    model.write_bytes(EXAMPLE.read_bytes())
    target = tmp_path / "net_onnx_ir.json"
    result = run("get_ir", "--onnx", model)
    assert result.out == f"(nn-Meter) The nn-meter ir graph has been saved. Saved path: {target}\n"
    ir = json.loads(target.read_text())
    assert list(ir) == sorted(ir)
    assert ir["conv_0"]["attr"]["input_shape"] == [[1, 96, 96, 3]]
    assert target.read_text() == json.dumps(ir, indent=4, sort_keys=True)


def test_get_ir_adds_the_suffix(run: Callable[..., object], tmp_path: Path) -> None:
    run("get_ir", "--onnx", EXAMPLE, "-o", tmp_path / "graph")
    assert (tmp_path / "graph.json").exists()


def test_without_a_command_the_hint_is_nn_meters(run: Callable[..., object]) -> None:
    hint = '(nn-Meter) please run "nn-meter {positional argument} --help" to see nn-meter guidance\n'
    assert (run().code, run().out) == (0, hint)


def test_help_names_every_command(run: Callable[..., object]) -> None:
    text = run("--help").out
    assert all(command.name in text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_its_module(run: Callable[..., object], command: object) -> None:
    if find_spec(command.module) is None:
        pytest.skip(f"{command.module} is not there yet")
    assert callable(import_module(command.module).configure)
    assert run(command.name, "--help").code == 0


def test_an_interrupt_ends_with_130(run: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(predict, "run", interrupted)
    assert run("predict", EXAMPLE).code == 130


def test_a_fault_of_ours_is_one_line_that_says_what_to_do(
    run: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NN_METER_DEBUG", raising=False)
    monkeypatch.setattr(predict, "run", lambda args: {}["x\n\x1b"])
    result = run("predict", EXAMPLE)
    assert (result.code, result.out) == (1, "")
    (line,) = result.err.splitlines()
    assert line.startswith("nn-meter: error: unexpected KeyError: ")
    assert "please report it with what NN_METER_DEBUG=1 shows" in line
    monkeypatch.setenv("NN_METER_DEBUG", "1")
    with pytest.raises(KeyError):
        run("predict", EXAMPLE)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BundleError("x"), 2),
        (StorageError("x"), 2),
        (DownloadError("x"), 1),
        (KeyboardInterrupt(), 130),
        (KeyError("x"), 1),
    ],
)
def test_exit_codes_follow_the_table(error: BaseException, code: int) -> None:
    assert exit_code(error) == code


def test_a_reader_that_goes_is_no_error(home: Path) -> None:
    line = [
        sys.executable,
        "-c",
        "import sys; from nn_meter.cli.main import main; sys.exit(main())",
        "--list-predictors",
    ]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_debug_shows_the_traceback(run: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NN_METER_DEBUG", "1")
    with pytest.raises(Exception, match="no such file"):
        run("predict", "--predictor", "tiny_cpu", "absent.onnx")
