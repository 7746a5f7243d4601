"""``build``: what is measured is kept, whatever happens, and what cannot be trained on is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nn_meter import building
from nn_meter.building import BuildPlan, build, kept_rules, measure_network, train
from nn_meter.detection import DetectionPlan
from nn_meter.detection.decision import NOT_MEASURED
from nn_meter.errors import BackendError, BuildError
from nn_meter.measuring.isolation import Failure
from nn_meter.measuring.journal import Entry, Journal, key_of
from nn_meter.networks import FAMILIES
from nn_meter.predictors import bundle as bundles
from nn_meter.predictors.runtime import GraphEngine

pytest.importorskip("onnxruntime")
pytest.importorskip("sklearn")


def entry(number: int, result: object) -> Entry:
    item = {"family": "plain", "seed": number}
    return Entry(key_of(item), item, result)  # type: ignore[arg-type]


def replayed(count: int, probe_ms: float = 1.0) -> list[Entry]:
    """Results of real networks with made-up times: a microsecond for each thousand bytes of a kernel's output."""
    from nn_meter.kernels.rules import read_rules
    from nn_meter.measuring.records import config_to_json
    from nn_meter.runtimes.fusion import fuse

    rules = read_rules({"runtime": "onnxruntime_cpu"})
    results = []
    for number in range(count):
        graph = FAMILIES["residual_basic"](number)
        kernels = [
            [k.kind, config_to_json(k.config), 0.01 + 0.001 * (number % 7)]
            for k in fuse(graph, rules).kernels
            if not k.free
        ]
        whole_ms = sum(k[2] for k in kernels)
        results.append(
            entry(
                number,
                {
                    "kernels": kernels,
                    "whole_ms": whole_ms,
                    "traced_ms": whole_ms,
                    "probe_ms": [probe_ms, probe_ms],
                    "other_bytes": 0,
                    "elapsed_s": 0.1,
                },
            )
        )
    return results


def test_one_network_is_measured_with_all_its_kernels() -> None:
    result = measure_network("residual_basic", 3, BuildPlan(runs_ms=5))
    assert result["whole_ms"] > 0
    assert result["traced_ms"] == pytest.approx(sum(k[2] for k in result["kernels"]), rel=1e-4)
    assert any(kind in ("conv", "conv_nchw") for kind, _, _ in result["kernels"])


def test_a_bundle_comes_out_that_predicts_what_it_was_taught(tmp_path: Path) -> None:
    bundle = train(replayed(120), BuildPlan(), name="taught")
    bundles.save(bundle, tmp_path / "bundle")
    engine = GraphEngine(bundles.load(tmp_path / "bundle"))
    graph = FAMILIES["residual_basic"](7)
    prediction = engine.explain(graph)
    assert prediction.latency_ms == pytest.approx(engine.latency_ms(graph))
    assert prediction.latency_ms == pytest.approx(sum(k.latency_ms for k in prediction.kernels))
    taught = sum(k[2] for k in replayed(8)[7].result["kernels"])  # type: ignore[index, union-attr]
    assert prediction.latency_ms == pytest.approx(taught, rel=0.3)


def test_networks_measured_while_the_machine_was_slow_are_left_out() -> None:
    quiet, slow = replayed(60), replayed(60, probe_ms=1.3)
    bundle = train(quiet + [entry(1000 + i, e.result) for i, e in enumerate(slow)], BuildPlan(), name="x")
    assert "60 of them left out as disturbed" in bundle.notes[0]


def test_too_few_networks_say_what_failed() -> None:
    failures = [entry(i, Failure("crash", "the child died by signal 11")) for i in range(40)]
    with pytest.raises(BuildError) as error:
        train(replayed(5) + failures, BuildPlan(), name="x")
    assert "5 measured networks are too few to train on, 30 are needed" in str(error.value)
    assert "40 failed, the first because: the child died by signal 11" in str(error.value)


def test_a_budget_of_nothing_and_an_unknown_backend(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="a budget of 0 s measures nothing"):
        build(BuildPlan(budget_s=0), name="x", journal=tmp_path / "j.sqlite")
    with pytest.raises(BackendError, match="did you mean onnxruntime_cpu"):
        build(BuildPlan(backend="onnxruntime"), name="x", journal=tmp_path / "j.sqlite")


def test_a_model_that_the_runtime_refuses_is_recorded_and_the_build_goes_on(tmp_path: Path) -> None:
    with Journal(tmp_path / "j.sqlite") as book:
        book.add([{"family": "no such family", "seed": 1}])
    with pytest.raises(BuildError, match="too few to train on"):
        build(BuildPlan(budget_s=8, runs_ms=1, detect_s=0), name="x", journal=tmp_path / "j.sqlite")
    with Journal(tmp_path / "j.sqlite") as book:
        results = book.results()
    assert isinstance(results[0].result, Failure)
    assert any(not isinstance(e.result, Failure) for e in results[1:])


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


def test_detection_comes_first_beside_the_journal_and_counts_to_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[DetectionPlan, Path]] = []

    def detect(plan: DetectionPlan, *, journal: Path, progress: object) -> dict[str, object]:
        asked.append((plan, journal))
        time.sleep(0.2)
        return {"BF_conv_relu": {"obey": True}}

    monkeypatch.setattr(building, "detect_rules", detect)
    plan = BuildPlan(budget_s=1.0, detect_s=0.3, runs_ms=1)
    with pytest.raises(BuildError, match="too few to train on"):
        build(plan, name="x", journal=tmp_path / "j.sqlite")
    ((detection, journal),) = asked
    assert (detection.backend, detection.method, detection.budget_s) == ("onnxruntime_cpu", "graph", 0.3)
    assert journal == tmp_path / "j.rules.sqlite"


def test_rules_that_are_given_are_not_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "detect_rules", lambda *args, **options: pytest.fail("detected"))
    with pytest.raises(BuildError, match="too few to train on"):
        build(BuildPlan(budget_s=0.1, detect_s=5.0), name="x", journal=tmp_path / "j.sqlite", rules={})


def test_what_is_drawn_next_depends_on_the_seed_and_on_how_many_were_drawn() -> None:
    weights = {name: family.weight for name, family in FAMILIES.items()}
    first = building._draw(weights, 1, 0, 20)
    assert first == building._draw(weights, 1, 0, 20)
    assert first != building._draw(weights, 1, 20, 20)
    assert first != building._draw(weights, 2, 0, 20)


@pytest.mark.heavy
def test_a_build_that_is_killed_goes_on_where_it_stopped(tmp_path: Path) -> None:
    journal = tmp_path / "j.sqlite"
    script = (
        "import sys; from pathlib import Path; from nn_meter.building import BuildPlan, build\n"
        "if __name__ == '__main__':\n"
        "    plan = BuildPlan(budget_s=float(sys.argv[2]), runs_ms=2, detect_s=0)\n"
        "    build(plan, name='k', journal=Path(sys.argv[1]))\n"
    )
    file = tmp_path / "run.py"
    file.write_text(script)
    seen: dict[str, object] = {}
    rng = np.random.default_rng(0)
    for _ in range(4):
        child = subprocess.Popen([sys.executable, str(file), str(journal), "600"], stderr=subprocess.DEVNULL)
        time.sleep(float(rng.uniform(2.5, 6)))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
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
