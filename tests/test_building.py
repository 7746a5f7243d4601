"""``build``: what is measured is kept, whatever happens, and what cannot be trained on is said."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from journals import done
from waiting import LONG_S, until

from nn_meter import building
from nn_meter.backends.onnxruntime_cpu import OnnxRuntimeCpu
from nn_meter.backends.replay import FakeClock
from nn_meter.building import BuildPlan, build, kept_rules, measure_network, unmeasured
from nn_meter.detection import DetectionPlan
from nn_meter.detection.decision import NOT_MEASURED
from nn_meter.devices.device import Device
from nn_meter.errors import BackendError, BuildError, DeviceError
from nn_meter.measuring import Circumstances, Failure, Journal, Worker, ask
from nn_meter.progress import Progress

pytest.importorskip("onnxruntime")
pytest.importorskip("sklearn")

WHERE = Circumstances(Device("abacus"), "replay", "0")


def test_one_network_is_measured_with_all_its_kernels() -> None:
    plan = BuildPlan(runs_ms=5)
    with Worker(timeout_s=LONG_S) as worker:
        where = ask(worker, plan.chosen)
    record = measure_network("residual_basic", 3, plan, where)
    assert record.whole
    assert record.traced
    assert record.probe
    assert len(record.probe.rounds) == len(record.whole.rounds) == 2
    assert len(record.traced.rounds) == 1
    assert any(kernel.kind in ("conv", "conv_nchw") for kernel in record.kernels)
    assert (record.circumstances.runtime, record.circumstances.threads) == ("onnxruntime", 1)
    assert min(kernel.latency_ms for kernel in record.kernels) >= 0


def test_networks_end_where_a_runtime_takes_long_to_make_them_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = BuildPlan(runs_ms=1, least=1, most=1)
    with Worker(timeout_s=LONG_S) as worker:
        where = ask(worker, plan.chosen)
    whole = measure_network("inverted", 5, plan, where)  # of many parts
    monkeypatch.setattr(OnnxRuntimeCpu, "most_nodes", 30, raising=False)
    assert len(measure_network("inverted", 5, plan, where).kernels) < 60 < 200 < len(whole.kernels)


def test_too_few_networks_say_what_failed(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as book:
        book.add({"family": "plain", "seed": number} for number in range(40))
        for entry in book.pending():
            book.fail(entry.key, Failure("crash", "the process died of SIGSEGV"))
    with pytest.raises(BuildError) as error:
        build(BuildPlan(budget_s=0.01, timeout_s=LONG_S, detect_s=0), name="x", journal=tmp_path / "j.sqlite")
    assert "measured networks are too few to train on, 30 are needed" in str(error.value)
    assert "40 failed, the first because: the process died of SIGSEGV" in str(error.value)


def test_what_a_runtime_refuses_is_told_apart_from_what_failed() -> None:
    refused, crashed = Failure("refused", "no operator for Einsum"), Failure("crash", "the process died of SIGSEGV")
    assert unmeasured([refused, crashed, refused]) == ("2 networks refused by the runtime", "1 network failed")
    assert unmeasured([]) == ()


def test_a_misspelt_kind_and_an_unknown_setting_are_told_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no kernel kind 'cnov'; did you mean conv"):
        build(BuildPlan(kinds=("cnov",)), name="x", journal=tmp_path / "j.sqlite")
    with pytest.raises(BackendError, match="'replay' has no setting 'threads'; it has recorded_ms"):
        build(BuildPlan("replay", {"threads": 2}), name="x", journal=tmp_path / "j.sqlite")
    with pytest.raises(DeviceError, match="no link to a device 'usb://1'; known: adb, local, ssh"):
        build(BuildPlan(device="usb://1"), name="x", journal=tmp_path / "j.sqlite")
    assert not (tmp_path / "j.sqlite").exists()


def test_a_budget_of_nothing_and_an_unknown_backend(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="a budget of 0 s measures nothing"):
        build(BuildPlan(budget_s=0), name="x", journal=tmp_path / "j.sqlite")
    with pytest.raises(BackendError, match="did you mean onnxruntime_cpu"):
        build(BuildPlan(backend="onnxruntime"), name="x", journal=tmp_path / "j.sqlite")


def test_a_model_that_the_runtime_refuses_is_recorded_and_the_build_goes_on(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def stop(done: float, total: float | None, eta_s: float | None, what: str) -> None:
        if what == "measuring, 2 networks":
            raise Enough

    with Journal(tmp_path / "j.sqlite") as book:
        book.add([{"family": "no such family", "seed": 1}, {"family": "residual_basic", "seed": 3}])
    plan = BuildPlan(budget_s=3600, runs_ms=1, timeout_s=LONG_S, detect_s=0)
    with pytest.raises(Enough):
        build(plan, name="x", journal=tmp_path / "j.sqlite", progress=stop)
    with Journal(tmp_path / "j.sqlite") as book:
        refused, measured = (entry.result for entry in book.results())
    assert isinstance(refused, Failure)
    assert not isinstance(measured, Failure)


@pytest.mark.parametrize(
    ("plan", "seconds"),
    [
        (BuildPlan("onnxruntime_cpu"), 180.0),
        (BuildPlan("onnxruntime_cpu", detect_s=0.0), 0.0),
        (BuildPlan("openvino_cpu", budget_s=180.0), 36.0),
        (BuildPlan("openvino_cpu", budget_s=7200.0), 180.0),
        (BuildPlan("somebody_elses", budget_s=600.0), 120.0),
    ],
)
def test_detecting_rules_has_its_share_of_the_budget(plan: BuildPlan, seconds: float) -> None:
    assert plan.detection_s == pytest.approx(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """What builds go by; a device refuses each network within a tenth of a second."""
    clock = FakeClock()

    class Quick(Worker):
        def call(self, task: Callable[..., Any], *given: Any) -> Any:  # type: ignore[override]
            if task is building.shows_graph:
                return task(*given)
            clock.advance(0.1)
            return Failure("refused", "not now")

    monkeypatch.setattr(building, "monotonic", clock)
    monkeypatch.setattr(building, "ask", lambda *_: WHERE)
    monkeypatch.setattr(building, "Worker", Quick)
    return clock


def test_detection_comes_first_beside_the_journal_and_counts_to_the_budget(
    clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[DetectionPlan, Path]] = []

    def detect(plan: DetectionPlan, *, journal: Path, progress: object) -> dict[str, object]:
        asked.append((plan, journal))
        clock.advance(12.0)
        return {"BF_conv_relu": {"obey": True}}

    monkeypatch.setattr(building, "detect_rules", detect)
    plan = BuildPlan(budget_s=20.0, detect_s=15.0)
    with pytest.raises(BuildError, match="too few to train on"):
        build(plan, name="x", journal=tmp_path / "j.sqlite")
    ((detection, journal),) = asked
    assert (detection.backend, detection.method, detection.budget_s) == ("onnxruntime_cpu", "graph", 15.0)
    assert journal == tmp_path / "j.rules.sqlite"
    assert clock() == pytest.approx(20.0, abs=0.11)


def test_rules_that_are_given_are_not_detected(
    clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "detect_rules", lambda *args, **options: pytest.fail("detected"))
    with pytest.raises(BuildError, match="too few to train on"):
        build(BuildPlan(budget_s=2.0, detect_s=5.0), name="x", journal=tmp_path / "j.sqlite", rules={})


@pytest.mark.heavy
def test_a_build_that_is_killed_goes_on_where_it_stopped(tmp_path: Path) -> None:
    journal = tmp_path / "j.sqlite"
    script = (
        "import sys; from pathlib import Path; from nn_meter.building import BuildPlan, build\n"
        "plan = BuildPlan(budget_s=float(sys.argv[2]), runs_ms=2, detect_s=0)\n"
        "build(plan, name='k', journal=Path(sys.argv[1]))\n"
    )
    file = tmp_path / "run.py"
    file.write_text(script)
    seen: dict[str, object] = {}
    rng = np.random.default_rng(0)

    def killed(after_s: float, number: int) -> None:
        """So long after so many networks were measured."""
        child = subprocess.Popen([sys.executable, str(file), str(journal), "3600"], stderr=subprocess.DEVNULL)
        until(lambda: child.poll() is not None or done(journal) >= number)
        time.sleep(after_s)
        child.kill()
        assert child.wait() == -signal.SIGKILL

    for _ in range(4):
        killed(float(rng.uniform(0, 2)), len(seen) + 2)
        with Journal(journal) as book:
            now = {e.key: e.result for e in book.results()}
        assert all(now[key] == result for key, result in seen.items())
        seen = now
    assert len(seen) > 5


def test_a_bundle_keeps_verdicts_and_leaves_out_what_was_not_measured() -> None:
    fuses = {"verdict": "fuses", "graph": "fuses", "timing": None, "reason": "", "shapes": {"flat": {}}}
    found = {
        "runtime": "x",
        "BF_conv_relu": {"obey": True, "latency": {}, "evidence": fuses},
        "BF_conv_add": {"obey": None, "evidence": {"verdict": "undecided", "reason": NOT_MEASURED}},
        "BF_conv_conv": {"obey": None, "evidence": {"verdict": "undecided", "reason": "noise"}},
        "RT": {"obey": True},
    }
    assert kept_rules(found) == {
        "runtime": "x",
        "BF_conv_relu": {"obey": True, "evidence": {"verdict": "fuses", "graph": "fuses"}},
        "BF_conv_conv": {"obey": None, "evidence": {"verdict": "undecided", "reason": "noise"}},
        "RT": {"obey": True, "evidence": {}},
    }


def test_a_script_without_a_main_guard_measures(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from nn_meter import BuildPlan, NnMeterError, build\n"
        "try:\n"
        f"    plan = BuildPlan(budget_s=0.5, runs_ms=1, timeout_s={LONG_S}, detect_s=0)\n"
        "    build(plan, name='x', journal=Path('j.sqlite'))\n"
        "except NnMeterError as error:\n"
        "    print(error)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "NN_METER_HOME": str(tmp_path / "home")}
    command = [sys.executable, str(script)]
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=LONG_S)
    assert re.fullmatch(r"[1-9]\d* measured networks are too few to train on, 30 are needed; .*\n", run.stdout), run
    assert "failed" not in run.stdout


def test_a_row_of_the_journal_that_is_no_record_is_named(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as book:
        (key,) = book.add([{"family": "plain", "seed": 7}])
        book.record(key, {"subject": "plain_7"})
    with pytest.raises(BuildError, match=r"j\.sqlite: the journal is damaged .*'plain'.*move the file away"):
        build(BuildPlan("replay", budget_s=0.01, detect_s=0), name="x", journal=tmp_path / "j.sqlite")


def test_training_counts_to_the_budget_and_is_shown(
    clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    def judged(records: object, *, seed: int, kept: Journal, progress: Progress) -> dict[str, float]:
        clock.advance(0.3)
        (key,) = kept.add([{"fit": "x"}])
        kept.record(key, {"trees": "", "elapsed_s": 0.3})
        progress(1, 2, None, "training, conv")
        return {}

    monkeypatch.setattr(building, "worst_families", judged)
    with pytest.raises(BuildError, match="too few to train on"):
        build(
            BuildPlan("replay", budget_s=40.0, detect_s=0), name="x", journal=tmp_path / "j.sqlite",
            progress=lambda done, total, eta_s, what: heard.append(what),
        )  # fmt: skip
    assert heard.count("judging which families are predicted worst") == 1
    # so many times what judging took is left to training
    assert clock() == pytest.approx(40.0 - building.TRAINING_GROWTH * 0.3, abs=0.11)
