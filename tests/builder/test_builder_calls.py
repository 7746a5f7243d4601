"""From a workspace to rules and predictors, in nn-Meter's files, on a backend that answers at once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nn_meter import builder
from nn_meter.backends.replay import ReplayBackend
from nn_meter.builder.backend_meta.fusion_rule_tester import detect_fusion_rule, generate_testcases
from nn_meter.builder.backend_meta.utils import Latency
from nn_meter.builder.backends import connect_backend
from nn_meter.builder.config import builder_config
from nn_meter.detection.decision import SAVINGS
from nn_meter.errors import BuildError
from nn_meter.predictors.registration import register


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    from nn_meter.builder import backends
    from nn_meter.measuring import Plan

    defaults = backends.RuntimeBackend.__init__.__defaults__
    assert defaults == (backends.PLAN,)
    monkeypatch.setattr(backends.RuntimeBackend.__init__, "__defaults__", (Plan(rounds=1, max_repeats=3),))


def results(workspace: Path, room: str, name: str) -> Any:
    return json.loads((workspace / room / "results" / name).read_text())


def test_rules_in_nn_meters_files(workspace: Path) -> None:
    cases = generate_testcases()
    assert list(cases) == [
        "BF_conv_relu", "BF_conv_bn", "BF_relu_relu", "BF_dwconv_relu", "BF_fc_relu", "MON",
        "BF_conv_bn_relu",
    ]  # fmt: skip
    assert set(cases["BF_relu_relu"]) == {"relu_1", "relu_2", "block"}
    assert cases["BF_conv_relu"]["conv"]["shapes"] == [[6, 6, 4]]
    assert results(workspace, "fusion_rule_test", "origin_testcases.json") == cases
    profiled = builder.profile_models(connect_backend("replay"), cases, mode="ruletest")
    written = results(workspace, "fusion_rule_test", "profiled_results.json")
    assert "+-" in written["BF_conv_relu"]["block"]["latency"]
    found = detect_fusion_rule(profiled)
    assert found == results(workspace, "fusion_rule_test", "detected_fusion_rule.json")
    assert not any(rule["obey"] for rule in found.values())


def test_probes_decide_where_they_were_measured(workspace: Path) -> None:
    builder_config.set("PROBES", ["small"], "ruletest")
    cases = generate_testcases()
    assert list(cases)[-1] == "unit"
    assert set(cases["BF_conv_relu"]) == {
        "conv", "relu", "block", *(f"small-{name}" for names in SAVINGS.values() for name in names),
    }  # fmt: skip
    runtime = connect_backend("replay").runtime  # type: ignore[attr-defined]
    assert isinstance(runtime, ReplayBackend)
    fusing = connect_backend("replay")
    fusing.runtime = ReplayBackend(  # type: ignore[attr-defined]
        replace(runtime.config, fusions=frozenset({("Conv", "Relu"), ("BatchNormalization", "Relu")}))
    )
    profiled = builder.profile_models(fusing, cases, mode="ruletest")
    found = detect_fusion_rule(profiled)
    assert {name: rule["obey"] for name, rule in found.items()} == {
        "BF_conv_relu": True,
        "BF_conv_bn": False,
        "BF_relu_relu": False,
        "BF_dwconv_relu": True,
        "BF_fc_relu": False,
        "MON": False,
        "BF_conv_bn_relu": False,
    }


def test_a_shape_nobody_knows_is_named(workspace: Path) -> None:
    builder_config.set("PROBES", ["tiny"], "ruletest")
    with pytest.raises(BuildError, match="no shape 'tiny' in PROBES; use some of small, large"):
        generate_testcases()


def latencies(first: float, second: float, block: float, std: float = 0.0) -> dict[str, Any]:
    return {
        "conv": {"latency": f"{first} +- {std}"},
        "relu": {"latency": f"{second} +- {std}"},
        "block": {"latency": f"{block} +- {std}"},
    }


@pytest.mark.parametrize(
    ("times", "obey"),
    [((2.0, 1.0, 2.1), True), ((2.0, 1.0, 2.9), False), ((2.0, 1.0, 2.4, 0.5), None)],
    ids=["fuses", "does not", "undecided"],
)
def test_a_pair_fuses_where_the_block_saves_time(workspace: Path, times: tuple[float, ...], obey: bool | None) -> None:
    assert detect_fusion_rule({"BF_conv_relu": latencies(*times)}) == {"BF_conv_relu": {"obey": obey}}


def test_a_part_that_failed_leaves_the_rule_undecided(workspace: Path) -> None:
    parts = latencies(2, 1, 2)
    del parts["relu"]["latency"]
    assert detect_fusion_rule({"BF_conv_relu": parts}) == {"BF_conv_relu": {"obey": None}}


def test_a_shared_producer_is_told_by_its_outcome(workspace: Path) -> None:
    times = {"block": 5.0, "relu_relu": 1.0, "relu_dwconv": 2.0, "dwconv": 2.0}
    times |= {"dwconv_relu_relu": 2.2, "dwconv_relu": 2.1}
    fused = {"dwconv": 2.0, "relu": 1.0, "block": 2.0}
    shared = {
        "MON": {part: {"latency": f"{ms} +- 0"} for part, ms in times.items()},
        "BF_dwconv_relu": {part: {"latency": f"{ms} +- 0"} for part, ms in fused.items()},
    }
    assert detect_fusion_rule(shared)["MON"] == {"obey": False, "outcome": "case1"}
    shared["MON"]["block"]["latency"] = "4.2 +- 0"
    assert detect_fusion_rule(shared)["MON"] == {"obey": True, "outcome": "case2"}


def test_a_case_nobody_knows_is_named(workspace: Path) -> None:
    builder_config.set("OTHER_TESTCASES", ["NOM"], "ruletest")
    with pytest.raises(BuildError, match="no test case 'NOM'; register it, or use one of BF_add_add"):
        generate_testcases()


def test_a_predictor_for_one_kernel(workspace: Path) -> None:
    forest, data = builder.build_predictor_for_kernel(
        "relu", "replay", init_sample_num=20, finegrained_sample_num=2, iteration=2, error_threshold=0.01
    )
    assert forest.predict([[7.0, 20.0]])[0] > 0
    assert len(data["relu"]) > 20
    assert all(isinstance(model["latency"], Latency) for model in data["relu"].values())
    folder = workspace / "predictor_build" / "results"
    assert (folder / "predictors" / "relu_prior.pkl").exists()
    assert (folder / "collection" / "TestResult_relu_finegrained1.csv").exists()
    entry = next(iter(results(workspace, "predictor_build", "profiled_relu.json")["relu"].values()))
    assert set(entry) == {"model", "shapes", "config", "latency"}


def test_the_data_alone_trains_too(workspace: Path) -> None:
    _, data = builder.build_initial_predictor_by_data("hswish", "replay", init_sample_num=15)
    forest, acc10, large = builder.build_predictor_by_data("hswish", data, error_threshold=10.0)
    assert forest.n_features_in_ == 2
    assert acc10 is not None
    assert large == []
    room = workspace / "predictor_build" / "results"
    files = (str(room / "hswish_prior.json"), str(room / "profiled_hswish.json"))
    again, more = builder.build_adaptive_predictor_by_data("hswish", files, "replay", error_threshold=0.0)
    assert again.n_features_in_ == 2
    assert len(more["hswish"]) > len(data["hswish"])


def test_the_workspace_ends_in_a_predictor_that_can_be_registered(workspace: Path) -> None:
    few = {"INIT_SAMPLE_NUM": 12, "FINEGRAINED_SAMPLE_NUM": 1, "ITERATION": 1, "ERROR_THRESHOLD": 0.1}
    builder_config.set("KERNELS", {"bn": few, "concat": few}, "predbuild")
    detect_fusion_rule({"BF_conv_relu": latencies(2, 1, 2)})
    info = register(builder.build_latency_predictor("replay"))
    assert info.name == "replay"


def test_what_fails_is_noted_and_the_rest_goes_on(workspace: Path) -> None:
    models = generate_testcases()
    models = {"BF_conv_relu": models["BF_conv_relu"]}
    Path(models["BF_conv_relu"]["relu"]["model"]).write_bytes(b"damaged")
    profiled = builder.profile_models(connect_backend("replay"), models)
    assert "latency" not in profiled["BF_conv_relu"]["relu"]
    assert "latency" in profiled["BF_conv_relu"]["block"]
    log = workspace / "fusion_rule_test" / "results" / "profile_error.log"
    assert log.read_text().startswith("relu: ")


def test_what_was_measured_is_not_measured_again(workspace: Path) -> None:
    models = {"BF_conv_relu": generate_testcases()["BF_conv_relu"]}
    first = builder.profile_models(connect_backend("replay"), models)
    kept = first["BF_conv_relu"]["block"]["latency"]
    builder_config.set("US_PER_KERNEL", 500.0, "backend")
    again = builder.profile_models(connect_backend("replay"), models, broken_point_mode=True)
    assert again["BF_conv_relu"]["block"]["latency"] == kept


def test_too_little_data_trains_nothing(workspace: Path) -> None:
    with pytest.raises(BuildError, match="kernel 'relu': 0 measured samples are too few to train on, 10 are"):
        builder.build_predictor_by_data("relu", {"relu": {}})


def test_a_latency_reads_what_it_writes() -> None:
    assert Latency.parse(str(Latency(42.001, 1.0))) == Latency(42.001, 1.0)
    assert Latency(3, 3) + Latency(4, 4) == Latency(7, 5)
    with pytest.raises(BuildError, match="'fast' is no latency"):
        Latency.parse("fast")
