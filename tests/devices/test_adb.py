"""``adb://``: Debian's client against a phone of our own (``adbd``), whose program prints what LiteRT's prints: build
to bundle, and everything that can go wrong there, each a failure that is told."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import onnx
import pytest
import yaml
from adbd import Phone
from benchmark_model import answer, printed
from waiting import LONG_S

from nn_meter.backends.benchmark_model import (
    BenchmarkModel,
    BenchmarkModelConfig,
    BenchmarkModelOnGpu,
    BenchmarkModelPrepared,
    operators,
    whole_ms,
)
from nn_meter.backends.litert.lowering import Lowered
from nn_meter.backends.litert.model import Stored, Written
from nn_meter.backends.litert.tracing import kernels
from nn_meter.builder.backends import connect_backend
from nn_meter.builder.config import PLATFORMS, builder_config, create_workspace
from nn_meter.building import BuildPlan, build
from nn_meter.cli.main import main
from nn_meter.devices import adb, known
from nn_meter.devices.adb import AdbLink
from nn_meter.devices.device import Device
from nn_meter.devices.link import Finished, open_link
from nn_meter.errors import BackendError, DeviceError
from nn_meter.measuring import Failure, Worker
from nn_meter.networks import FAMILIES

needs_adb = pytest.mark.skipif(shutil.which("adb") is None, reason="no adb here: apt-get install adb")

_INPUT, _WEIGHTS, _BETWEEN, _OUTPUT = (Stored(i, (1, 8, 8, 4), "float32") for i in range(4))
MODEL = Lowered(
    b"TFL3",
    (),
    (
        Written("CONV_2D", (_INPUT, _WEIGHTS), (_BETWEEN,), ("conv",), frozenset({1})),
        Written("CUMSUM", (_BETWEEN,), (_OUTPUT,), ("sum",), frozenset()),
    ),
    ("conv", "sum"),
    ((0, 1, 2, 3),),
)
TOLD = (
    ("DelegateOpInvoke", "Delegate/Convolution (NHWC, F32) IGEMM:0", 0.25),
    ("TfLiteXNNPackDelegate", "[t2]:2", 0.26),
    ("CUMSUM", "[t3]:1", 0.5),
)
GOOD = printed(4, 812.5, TOLD)


LIMITS = ("_ANSWER_S", "_GRACE_S", "_PUSH_S")
"""How long the client is waited for."""


def prepared(settings: dict[str, float]) -> BenchmarkModelPrepared:
    """The model on the phone, which has its time but where ``settings`` say otherwise; called in a worker."""
    for limit in LIMITS:
        setattr(adb, limit, LONG_S)
    patient = {"run_s": LONG_S, "cool_s": LONG_S, **settings}
    return BenchmarkModelPrepared(MODEL, BenchmarkModel(BenchmarkModelConfig(**patient)))  # type: ignore[arg-type]


def whole(settings: dict[str, float]) -> list[float]:
    """Called in a worker."""
    with prepared(settings) as model:
        return model.run(4)


def parts(settings: dict[str, float]) -> list[list[float]]:
    """Called in a worker."""
    with prepared(settings) as model:
        return [list(trace.latencies_ms) for trace in model.trace(4)]


def phone_itself() -> Device:
    """Called in a worker."""
    return BenchmarkModel().device()


@pytest.fixture(scope="module")
def _phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    """A phone, and an adb server of these tests, at a socket that nobody else can take."""
    made = Phone(tmp_path_factory.mktemp("phone"))
    model, abi = "[ro.product.model]: [Pixel 9]", "[ro.product.cpu.abi]: [arm64-v8a]"
    made.program("getprop", f"#!/bin/sh\necho '{model}'\necho '{abi}'\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(made.root))  # where the client wants a folder of its own
        patch.setenv("ADB_SERVER_SOCKET", f"localfilesystem:{made.root}/server")
        for limit in LIMITS:
            patch.setattr(adb, limit, LONG_S)
        yield made
        made.close()
        subprocess.run(["adb", "kill-server"], check=False, capture_output=True)


@pytest.fixture
def phone(_phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Phone:
    """The phone, as it was."""
    monkeypatch.setenv("NN_METER_HOME", str(tmp_path / "home"))
    _phone.full, _phone.dies_of, _phone.modern = False, "", True
    throttles(_phone, 0)
    prints(_phone, GOOD)
    return _phone


@pytest.fixture(scope="module")
def worker(_phone: Phone) -> Iterator[Worker]:
    with Worker(timeout_s=LONG_S, link=open_link(f"adb://{_phone.serial}")) as made:
        yield made


def prints(phone: Phone, text: str, then: str = "") -> None:
    """Its program is one that prints this."""
    phone.program("printed", text, "bin")
    phone.program("benchmark_model", f"#!/bin/sh\ncat {phone.root}/bin/printed\n{then}\n", ".")


def throttles(phone: Phone, status: int) -> None:
    phone.program("dumpsys", f"#!/bin/sh\necho 'IsStatusOverride: false'\necho 'Thermal Status: {status}'\n")


@needs_adb
@pytest.mark.parametrize("modern", [True, False])
def test_a_program_is_run_and_told_by_operator(phone: Phone, worker: Worker, modern: bool) -> None:
    phone.modern = modern
    subprocess.run(["adb", "disconnect", phone.serial], check=False, capture_output=True)
    assert worker.call(whole, {}) == [0.8125] * 4
    assert worker.call(parts, {}) == [[pytest.approx(0.2505)] * 4, [pytest.approx(0.5005)] * 4]
    assert not [*(phone.root / "nn-meter").iterdir()]


@needs_adb
def test_the_phone_is_asked_what_it_is_and_never_this_machine(phone: Phone) -> None:
    with Worker(timeout_s=LONG_S, link=open_link(f"adb://{phone.serial}?cpus=f0")) as other:
        told = other.call(phone_itself)
    assert isinstance(told, Device)
    assert (told.name, told.architecture, told.processors) == ("Pixel 9", "arm64-v8a", "f0")
    assert told.environment["thermal_status"] == 0


@needs_adb
def test_cores_threads_and_the_gpu_are_the_programs_own_options(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NN_METER_DEVICE", f"adb://{phone.serial}/data/local/tmp/benchmark_model?cpus=1")
    with BenchmarkModelPrepared(MODEL, BenchmarkModelOnGpu(BenchmarkModelConfig(threads=2))) as prepared:
        prepared.run(3)
        with pytest.raises(BackendError, match="does not tell the kernels of a GPU"):
            prepared.trace(1)
    command = next(each for each in reversed(phone.commands) if "--graph" in each)
    for option in ("taskset 1 /data/local/tmp/benchmark_model", "--num_threads=2", "--num_runs=3", "--use_gpu=true"):
        assert option in command


def _full(phone: Phone) -> None:
    phone.full = True


def _cut(phone: Phone) -> None:
    phone.dies_of = "enable_op_profiling"


BROKEN: dict[str, tuple[Callable[[Phone], object], str]] = {
    "cut off": (lambda phone: prints(phone, GOOD[: GOOD.index("CUMSUM") - 30]), "operators of nobody knows how many"),
    "cut off in the midst of a table": (
        lambda phone: prints(phone, GOOD.replace("3 nodes observed", "4 nodes observed")),
        "3 operators of 4",
    ),
    "status": (lambda phone: prints(phone, "no such model\n", "exit 1"), "ended with status 1.*no such model"),
    "crash": (lambda phone: prints(phone, "", "kill -SEGV $$"), "died of signal 11"),
    "killed in the midst": (_cut, "lost while timeout ran"),
    "no table": (lambda phone: prints(phone, printed(4, 812.5)), "no table of operators"),
    "other units": (lambda phone: prints(phone, GOOD.replace("[avg ms]", "[avg us]")), r"without a column \[avg ms\]"),
    "no number": (lambda phone: prints(phone, GOOD.replace("0.500", "  nan")), "'nan', which is no time"),
    "decimal comma": (lambda phone: prints(phone, GOOD.replace("0.500", "0,500")), "'0,500', which is no number"),
    "no program": (lambda phone: (phone.root / "benchmark_model").unlink(), "no such program; push it, adb push"),
    "another processor": (
        lambda phone: prints(phone, "", "echo sh: benchmark_model: not executable: 64-bit ELF file >&2; exit 126"),
        "built for another processor; push one for the phone's ABI",
    ),
    "full": (_full, "No space left on device.*free some space there"),
    "hot": (lambda phone: throttles(phone, 3), r"throttles \(thermal status 3\) and does not cool down within 0.2 s"),
    "hangs": (lambda phone: prints(phone, "", "sleep 600"), "still running after 1 s.*it was stopped"),
    "two parts": (
        lambda phone: prints(phone, printed(4, 1.0, (*TOLD, ("DelegateOpInvoke", "Delegate/Add (ND, F32):0", 0.1)))),
        "XNNPACK does not take it whole",
    ),
    "one run in place of four": (lambda phone: prints(phone, printed(1, 812.5, TOLD)), "1 runs in place of 4"),
}

HASTE = {"hot": {"cool_s": 0.2}, "hangs": {"run_s": 1}}
"""What is waited for no longer than this."""


@needs_adb
@pytest.mark.parametrize("what", BROKEN)
def test_what_breaks_is_a_failure_that_is_told(phone: Phone, worker: Worker, what: str) -> None:
    spoil, said = BROKEN[what]
    spoil(phone)
    task = whole if what == "one run in place of four" else parts
    failed = worker.call(task, HASTE.get(what, {}))
    assert isinstance(failed, Failure)
    assert failed.kind == "refused"
    assert re.search(f"(?s){said}", failed.reason)


@needs_adb
def test_a_phone_that_was_lost_is_called_again(phone: Phone, worker: Worker) -> None:
    _cut(phone)
    assert isinstance(worker.call(parts, {}), Failure)
    assert worker.call(parts, {}) == [[pytest.approx(0.2505)] * 4, [pytest.approx(0.5005)] * 4]


@needs_adb
def test_a_hot_phone_is_waited_for(phone: Phone, worker: Worker) -> None:
    flag = phone.root / "warm"
    flag.touch()
    phone.program("dumpsys", f"#!/bin/sh\necho Thermal Status: $(rm {flag} 2> /dev/null && echo 2 || echo 0)\n")
    assert worker.call(whole, {}) == [0.8125] * 4
    assert not flag.exists()


@needs_adb
def test_files_go_there_and_go_away(phone: Phone, tmp_path: Path) -> None:
    link = AdbLink.at(f"adb://{phone.serial}")
    (tmp_path / "a.txt").write_text("model " * 100_000)
    there = link.put(tmp_path / "a.txt")
    assert link.asked(f"cat {there}") == ("model " * 100_000).strip()
    link.forget(there)
    assert link.asked(f"cat {there}") == ""


@needs_adb
def test_no_phone_is_said_with_what_to_do(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nn_meter.devices.adb._ANSWER_S", 1.0)
    with pytest.raises(DeviceError, match=r"adb://none does not answer.*see adb devices"):
        AdbLink.at("adb://none").run(["true"], timeout_s=LONG_S)


@needs_adb
def test_a_backend_in_python_is_refused_on_a_phone(phone: Phone, worker: Worker) -> None:
    from nn_meter.backends.base import Named
    from nn_meter.measuring.asking import ask

    with pytest.raises(BackendError, match=r"runs models in Python.*--backend tflite_cpu"):
        ask(worker, Named("replay"))
    assert not known.known()


@pytest.mark.parametrize(
    "address", ["adb://", "adb://-s", "adb://a b", "adb://x?cpus=zz", "adb://x;reboot", "adb://x\n"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(DeviceError, match="write it as adb://SERIAL"):
        AdbLink.at(address)


def test_means_are_read_however_they_are_written() -> None:
    text = "count=50 first=1 avg=2.95034e+06\nInference timings in us: Init: 1, Inference (avg): 2.95034e+06"
    assert whole_ms(text, 50) == 2950.34
    older = GOOD.replace("\t" + "0.000".rjust(17), "").replace("\t[start]", "")
    assert [row.mean_ms for row in operators(older)] == [row.mean_ms for row in operators(GOOD)] == [0.25, 0.5]


def sigmoid() -> onnx.ModelProto:
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1, 3, 16, 16)) for name in "xy")
    node = onnx.helper.make_node("Sigmoid", ["x"], ["y"])
    return onnx.helper.make_model(onnx.helper.make_graph([node], "sigmoid", [x], [y]))


def workspace_of(phone: Phone, folder: Path) -> None:
    """A workspace whose configuration names the phone, and is read."""
    create_workspace(folder, PLATFORMS["tflite"])
    config = folder / "configs" / "backend_config.yaml"
    told = {"DEVICE_SERIAL": phone.serial, "REMOTE_MODEL_DIR": "/data/local/tmp/bench"}
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), **told}))
    builder_config.init(folder)


@needs_adb
def test_a_workspace_finds_its_phone(phone: Phone, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace_of(phone, tmp_path / "w")
    phone.commands.clear()
    assert main(["connect", "--backend", "tflite_cpu", "--workspace", str(tmp_path / "w")]) == 0
    assert "hello backend !" in capsys.readouterr().out
    assert any("/data/local/tmp/benchmark_model --help" in each for each in phone.commands)


@pytest.mark.heavy
@needs_adb
def test_a_workspace_measures_on_its_phone(phone: Phone, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="no LiteRT here")
    onnx.save(sigmoid(), tmp_path / "m.onnx")
    workspace_of(phone, tmp_path / "w")
    phone.commands.clear()
    phone.built_in["/data/local/tmp/benchmark_model"] = answer
    try:
        told = connect_backend("tflite_cpu").profile_model_file(str(tmp_path / "m.onnx"), str(tmp_path))
    finally:
        phone.built_in.clear()
    assert 0 < told["latency"].avg < 1e3
    assert any("--graph=/data/local/tmp/bench/" in each for each in phone.commands)


@pytest.mark.heavy
@needs_adb
def test_a_build_on_a_phone_ends_in_a_bundle(phone: Phone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ai_edge_litert", reason="no LiteRT here")
    small = {name: family.weight for name, family in FAMILIES.items() if name.startswith("micro_")}
    monkeypatch.setattr("nn_meter.building.weights_for", lambda precisions: small)
    phone.built_in["/data/local/tmp/benchmark_model"] = answer
    phone.built_in["dumpsys"] = lambda _: "Thermal Status: 0"
    monkeypatch.setattr("nn_meter.building.monotonic", count().__next__)  # by which each network takes a second
    plan = BuildPlan(
        "tflite_cpu", {"run_s": LONG_S}, budget_s=48, timeout_s=2 * LONG_S, device=f"adb://{phone.serial}", detect_s=0
    )
    try:
        bundle = build(plan, name="pixel", journal=tmp_path / "pixel.sqlite")
    finally:
        phone.built_in.clear()
    assert bundle.kinds
    assert (bundle.runtime, bundle.device) == ("litert", "Pixel 9")
    assert [each.address for each in known.known()] == [plan.device]


class Babbling(AdbLink):
    """A phone that says the same whatever it is asked."""

    def _adb(self, words: object, timeout_s: float) -> Finished:
        return Finished(0, self.program, "")


@pytest.mark.parametrize("number", ["9" * 5000, "\u00b2", "-1", "x" * 100_000, ""])
def test_numbers_of_a_phone_that_are_none_are_unknown(number: str) -> None:
    told = Babbling("adb://x", program=f"MemTotal: {number} kB\n{number}\nnn-meter-status=0").device()
    assert (told.cores, told.memory_bytes) == (None, None)
    with pytest.raises(DeviceError, match="lost while"):
        Babbling("adb://x", program=f"\nnn-meter-status={number}").asked("nproc")


@pytest.mark.parametrize(
    ("read", "number", "other"),
    [
        (lambda text: whole_ms(text, 4), "count=4", "count=" + "9" * 5000),
        (lambda text: whole_ms(text, 4), "812.5", "x" * 100_000),
        (operators, "3 nodes observed", "9" * 5000 + " nodes observed"),
        (operators, "0.25", "\u00b2"),
        (operators, "[node type]", "x" * 100_000),
    ],
)
def test_numbers_of_a_program_that_are_none_are_told_shortly(
    read: Callable[[str], object], number: str, other: str
) -> None:
    assert number in GOOD
    with pytest.raises(BackendError, match="benchmark_model prints") as error:
        read(GOOD.replace(number, other))
    assert len(str(error.value)) < 1000


def test_an_operator_beyond_those_of_the_file_is_said() -> None:
    rows = operators(GOOD.replace("[t3]:1", "[t3]:7"))
    with pytest.raises(BackendError, match="CUMSUM as the operator 7, which belongs to no operator of its file"):
        kernels([row.event for row in rows], MODEL.operators)
