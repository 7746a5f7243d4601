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
from shutil import which

import pytest

from nn_meter import settings
from nn_meter.cli import predict
from nn_meter.cli.main import COMMANDS
from nn_meter.cli.output import exit_code, progress
from nn_meter.errors import BundleError, DownloadError, StorageError
from nn_meter.frontends import onnx
from nn_meter.predictors.catalogue import DEFAULT, default_predictor

EXAMPLE = Path(__file__).parents[2] / "examples" / "small_net.onnx"


def test_predictors_are_listed_in_nn_meters_lines(run: Callable[..., object]) -> None:
    lines = run("--list-predictors").out.splitlines()
    assert lines[0] == "(nn-Meter) Supported latency predictors:"
    ours = lines[1 : lines.index("")]
    assert ours[-2:] == [
        "(nn-Meter) [Predictor] tiny_cpu: version=1.0",
        "(nn-Meter) [Predictor] tiny_npu: version=2.0",
    ]
    assert "(nn-Meter) [Predictor] cortexA76cpu_tflite21: version=1.0" in ours


def test_the_list_says_which_predictor_is_the_default(
    run: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def default() -> list[str]:
        return run("--list-predictors").out.splitlines()[-1].split()[:2]

    assert default() == ["default:", "xeoncpu_onnxruntime132"]
    assert run("use", "TINY_CPU").out == "(nn-Meter) tiny_cpu answers where no predictor is named\n"
    assert default() == ["default:", "tiny_cpu"]
    assert "[RESULT] predict latency for small_net.onnx: 39.75 ms" in run("predict", EXAMPLE).out
    monkeypatch.setenv("NN_METER_PREDICTOR", "tiny_npu")
    assert default() == ["default:", "tiny_npu"]


def test_use_without_a_name_says_what_answers_and_what_chose_it(
    run: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers() -> list[str]:
        return run("use").out.splitlines()

    assert answers() == [
        "(nn-Meter) xeoncpu_onnxruntime132 answers where no predictor is named",
        "(nn-Meter) choose another: nn-meter use NAME, of those that nn-meter --list-predictors names",
    ]
    run("use", "tiny_cpu")
    assert answers()[0] == "(nn-Meter) tiny_cpu answers where no predictor is named (chosen by nn-meter use)"
    monkeypatch.setenv("NN_METER_PREDICTOR", "tiny_npu")  # goes before what is chosen, which is said
    assert run("use", "tiny_cpu").out == (
        "(nn-Meter) tiny_npu answers where no predictor is named (chosen by NN_METER_PREDICTOR)\n"
    )


def test_a_chosen_predictor_that_is_gone_is_one_that_somebody_chose(
    run: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.zip"
    run("export", "tiny_cpu", "-o", file)
    run("use", file)
    file.unlink()
    gone = run("predict", EXAMPLE)
    assert (gone.code, gone.out) == (2, "")
    assert "nn-meter use chose it, and may choose another" in gone.err
    monkeypatch.setenv("NN_METER_PREDICTOR", "tiny_gpu")
    assert "NN_METER_PREDICTOR chose it, and may choose another" in run("predict", EXAMPLE).err
    assert run("predict", "--predictor", "tiny_cpu", EXAMPLE).code == 0


def test_what_the_list_says_of_predictors_fits_the_window(
    run: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = " ".join(run("-v", "--list-predictors").out.split())
    monkeypatch.setenv("COLUMNS", "80")
    narrow = run("-v", "--list-predictors").out
    assert " ".join(narrow.split()) == words
    assert max(len(line) for line in narrow.splitlines() if "https://" not in line) <= 80


def test_what_is_no_predictor_is_not_chosen(run: Callable[..., object], tmp_path: Path) -> None:
    unknown = run("use", "tiny_gpu")
    assert (unknown.code, unknown.out) == (2, "")
    assert "did you mean tiny_npu or tiny_cpu" in unknown.err
    assert run("use", tmp_path / "absent.zip").code == 2
    assert run("predict", "-q", "--predictor", "tiny_cpu", EXAMPLE).code == 0


def test_a_predictor_is_handed_on_as_one_file(
    run: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.zip"
    assert run("export", "tiny_cpu", "-o", file).out.splitlines() == [
        f"(nn-Meter) tiny_cpu 1.0 written to {file}",
        f"(nn-Meter) ask it: nn-meter predict --predictor {file} MODEL",
    ]
    monkeypatch.setenv("NN_METER_HOME", str(tmp_path / "elsewhere"))
    assert "39.75 ms" in run("predict", "-q", "--predictor", file, EXAMPLE).out
    assert run("use", file).code == 0
    assert "39.75 ms" in run("predict", "-q", EXAMPLE).out
    assert run("predict", "--predictor", file, "--predictor-version", "2.0", EXAMPLE).code == 2
    assert run("register", "--predictor", file).out == "(nn-Meter) Successfully register predictor: tiny_cpu\n"
    assert "(nn-Meter) [Predictor] tiny_cpu: version=1.0" in run("--list-predictors").out


def test_the_module_is_the_command(home: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    found = subprocess.run(
        [sys.executable, "-m", "nn_meter", "--version"], env=env, capture_output=True, text=True, check=True
    )
    assert found.stdout.startswith("nn-meter ")


def test_help_shows_where_to_begin(run: Callable[..., object]) -> None:
    shown = run("--help").out
    for command in ("nn-meter predict model.onnx", "nn-meter --list-predictors", "nn-meter build --backend"):
        assert command in shown


@pytest.mark.parametrize("command", [each.name for each in COMMANDS])
def test_help_fits_a_narrow_window(
    run: Callable[..., object], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = run(command, "--help").out
    assert f"nn-meter {command}" in shown, "argparse breaks no line of alternatives: such a command says its own usage"
    assert max(map(len, shown.splitlines())) <= 80


_ASK = """
source "$1"; shift
COMP_WORDS=(nn-meter "$@"); COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
_nn_meter
echo "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["expl"], "explain"),
        (["predict", "--by", "k"], "kernel kind"),
        (["predict", "model.onnx", "--stri"], "--strict"),
        (["completion", "--he"], "--help"),
    ],
)
def test_bash_completes_words(run: Callable[..., object], tmp_path: Path, words: list[str], expected: str) -> None:
    script = tmp_path / "completion.bash"
    script.write_text(run("completion", "bash").out)
    line = ["bash", "-c", _ASK, "bash", str(script), *words]
    assert subprocess.run(line, capture_output=True, text=True, check=True).stdout.split() == expected.split()


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_hear_of_every_command(run: Callable[..., object], shell: str) -> None:
    script = run("completion", shell).out
    assert all(command.name in script for command in COMMANDS)
    assert "strict" in script


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
        "{builtin_name: swish, implement: mine, package_location: ., class_module: swish_of_mine, class_name: Swish}"
    )
    registered = run("register", "--operator", meta)
    assert (registered.code, registered.out) == (0, "(nn-Meter) Successfully register operator: swish\n")
    assert run("--list-operators").out.endswith("(nn-Meter) [Operator] * swish (mine)\n")
    assert run("unregister", "--operator", "swish", "mine").out == "(nn-Meter) Successfully unregister swish (mine).\n"
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
    said = run()
    assert (said.code, said.out) == (0, hint)
    assert "  nn-meter predict model.onnx\n" in said.err


def test_a_command_that_is_none_is_one_line_with_what_was_meant(run: Callable[..., object]) -> None:
    said = run("predcit", EXAMPLE)
    assert (said.code, said.out) == (2, "")
    meant = "did you mean predict? List them with: nn-meter --help"
    assert said.err == f"nn-meter: error: there is no command 'predcit'; {meant}\n"


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
    reader, writer = os.pipe()
    os.close(reader)  # before there is anything to read
    with open(writer, "wb") as gone:
        done = subprocess.run(line, env=env, stdout=gone, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, b"")


def test_debug_shows_the_traceback(run: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NN_METER_DEBUG", "1")
    with pytest.raises(Exception, match="no such file"):
        run("predict", "--predictor", "tiny_cpu", "absent.onnx")


def test_a_fault_of_ours_costs_one_model_of_a_folder(
    run: Callable[..., object], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = onnx.read

    def broken(source: object, **options: object) -> object:
        return {}["x"] if str(source).endswith("b.onnx") else read(source, **options)

    monkeypatch.setattr(onnx, "read", broken)
    result = run("predict", "--predictor", "tiny_cpu", folder)
    assert result.code == 1
    assert result.out.count("[RESULT]") == 2
    assert "b.onnx: unexpected KeyError: 'x'; the fault is nn-meter's: please report it" in result.err


def streams(line: str) -> subprocess.CompletedProcess[str]:
    """What a shell says of a command line in which ``nn-meter`` is ours."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    line = line.replace("nn-meter", f"'{sys.executable}' -m nn_meter")
    return subprocess.run(["sh", "-c", line], env=env, capture_output=True, text=True)


@pytest.mark.skipif(os.name != "posix", reason="needs a shell that closes streams")
def test_streams_that_are_closed_are_no_fault_of_ours(home: Path) -> None:
    done = streams("nn-meter --list-predictors >&-")
    assert (done.returncode, done.stdout) == (1, "")
    assert "what to print cannot be written (Bad file descriptor)" in done.stderr
    done = streams("nn-meter predict absent.onnx 2>&-")
    assert (done.returncode, done.stdout) == (2, ""), "what belongs on stderr is on stdout"
    assert streams("nn-meter --list-predictors <&- 2>&-").stdout.startswith("(nn-Meter) Supported latency predictors:")


def test_names_that_the_output_cannot_encode_are_escaped(home: Path, folder: Path) -> None:
    (folder / "a.onnx").rename(folder / "é.onnx")
    done = streams(f"cd '{folder}' && PYTHONIOENCODING=ascii nn-meter explain --predictor tiny_cpu é.onnx")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("\\xe9.onnx on tiny_cpu")


@pytest.mark.parametrize("columns", ["0", "²", "-3", "9" * 5000])
def test_a_terminal_of_an_odd_width_is_written_to(
    run: Callable[..., object], folder: Path, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("LINES", columns)
    assert "a.onnx on tiny_cpu" in run("explain", "--predictor", "tiny_cpu", folder / "a.onnx").out


def test_a_choice_that_is_a_pipe_is_none(home: Path) -> None:
    os.mkfifo(settings.data_folder() / "default_predictor")
    assert default_predictor() == DEFAULT


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_output_that_cannot_be_written_is_no_fault_of_ours(home: Path) -> None:
    line = [sys.executable, "-m", "nn_meter", "--list-predictors"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with open("/dev/full", "w") as full:
        done = subprocess.run(line, env=env, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    (told,) = done.stderr.splitlines()
    assert told.startswith("nn-meter: error: what to print cannot be written (No space left on device); free some")


def test_what_is_at_its_end_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    told = progress("building")
    for rule in "abc":
        told(9.0, 9.0, 0.0, f"detecting, fusion rule {rule}")
    told(1.0, 9.0, 8.0, "measuring, 1 networks")
    told(9.0, 9.0, 0.0, "measuring, 9 networks")
    assert capsys.readouterr().err.splitlines() == [
        "building: detecting, fusion rule a, 100%, 0.0 min left",
        "building: measuring, 9 networks, 100%, 0.0 min left",
    ]


def test_predictors_say_device_runtime_error_and_day(
    run: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS")  # a line for each
    lines = run("-v", "--list-predictors").out.splitlines()
    said = lines[lines.index("(nn-Meter) [Predictor] zen4cpu_onnxruntime132: version=1.0") + 1]
    device, runtime, precision, error, interval, day = said.strip().split("; ")
    assert (device, runtime, precision) == ("AMD EPYC", "onnxruntime 1.32.0", "float32")
    assert error == "median error 3.4% on 140 models that were measured"
    assert interval.startswith("90 % within ")
    assert day == "2026-11-23"
    assert lines[-1] == "default: xeoncpu_onnxruntime132 (nn-meter use NAME chooses another)"
