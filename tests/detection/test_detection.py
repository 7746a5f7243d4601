"""Rules of a pretended runtime are found from its latencies, from its graph, and from both."""

from __future__ import annotations

import json
import re
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from nn_meter.backends.replay import ReplayBackend, ReplayConfig
from nn_meter.detection import DetectionPlan, detect_rules
from nn_meter.detection.cases import find_cases
from nn_meter.detection.decision import MIN_ROUNDS, Conclusion, Decision, executed_decision
from nn_meter.detection.probes import SHAPES
from nn_meter.detection.rules import Rule
from nn_meter.detection.survey import Survey, _hopeless
from nn_meter.errors import BuildError
from nn_meter.kernels.rules import read_rules
from nn_meter.measuring.isolation import Failure
from nn_meter.measuring.journal import Journal
from nn_meter.report.rules import matrix, page, summary

FUSIONS = frozenset({("Conv", "Relu"), ("Conv", "BatchNormalization"), ("BatchNormalization", "Relu"), ("Gemm", "Add")})
"""What the pretended runtime fuses: operators of neighbouring nodes."""


ENOUGH_S = 3600.0
"""So that what is found rests on the rounds that there may be, and not on how quick the machine is."""


def pretender(**changes: object) -> ReplayBackend:
    """A runtime of known rules: a call costs a microsecond, a pass one for a thousand elements."""
    return ReplayBackend(replace(ReplayConfig(fusions=FUSIONS, noise=0.02), **changes))  # type: ignore[arg-type]


def plan(*cases: str, **changes: object) -> DetectionPlan:
    base = DetectionPlan("replay", budget_s=ENOUGH_S, cases=cases, isolated=False)
    return replace(base, **changes)  # type: ignore[arg-type]


EXPECTED = {
    "BF_conv_relu": True,
    "BF_conv_bn": True,
    "BF_bn_relu": True,
    "BF_conv_conv": False,
    "BF_relu_relu": False,
    "BF_relu_conv": False,
    "BF_dwconv_relu": True,
    "BF_fc_add": True,
    "BF_fc_relu": False,
    "MON": False,
    "BF_conv_bn_relu": True,
    "BF_conv_bn_add": False,
    "BF_conv_add_relu": False,
}


@pytest.mark.parametrize("method", ["timing", "graph", "both"])
def test_known_rules_are_found(method: str, tmp_path: Path) -> None:
    cases = ("BF_conv_add", "BF_conv_relu", *EXPECTED)
    rules = detect_rules(plan(*dict.fromkeys(cases), method=method), journal=tmp_path / "j.sqlite", backend=pretender())
    assert {name: rules[name]["obey"] for name in EXPECTED} == EXPECTED


def test_the_runtime_is_asked_for_every_graph_before_anything_is_timed(tmp_path: Path) -> None:
    detect_rules(plan("BF_conv_relu", "BF_relu_conv", "BF_fc_add"), journal=tmp_path / "j.sqlite", backend=pretender())
    with Journal(tmp_path / "j.sqlite") as book:
        order = [(entry.item["what"], entry.item["case"]) for entry in book.results()]
    assert order[:6] == [("graph", name) for name in ("BF_conv_relu", "BF_relu_conv", "BF_fc_add") for _ in SHAPES]
    assert {what for what, _ in order[6:]} == {"timing"}


def test_what_is_near_a_verdict_gets_its_rounds_first(tmp_path: Path) -> None:
    names = ("BF_conv_relu", "BF_relu_conv", "BF_fc_add")
    known = {
        "BF_conv_relu": Rule("BF_conv_relu", Conclusion("undecided", 0.6)),
        "BF_relu_conv": Rule("BF_relu_conv", Conclusion("undecided", 0.99)),
        "BF_fc_add": Rule("BF_fc_add", Conclusion("undecided", 0.999), Conclusion("fuses", 1.0)),
    }
    heard: list[str] = []
    with Journal(tmp_path / "j.sqlite") as book:
        survey = Survey(plan(), pretender(), book, lambda *asked: Failure("refused", "no"), find_cases(names), {})
        survey._rules.update(known)
        survey.sweep(1, lambda done, total, eta_s, what: heard.append(what))
    assert heard == ["BF_relu_conv", "BF_conv_relu", "BF_fc_add"]


def test_rules_carry_their_evidence_and_can_be_read(tmp_path: Path) -> None:
    rules = detect_rules(plan("BF_conv_relu"), journal=tmp_path / "j.sqlite", backend=pretender())
    assert read_rules(json.loads(json.dumps(rules))).fuses("conv", "relu")
    rule = rules["BF_conv_relu"]
    assert set(rule["latency"]) == {"conv", "relu", "ops", "block"}
    assert all(" +- " in text for text in rule["latency"].values())
    evidence = rule["evidence"]
    assert (evidence["verdict"], evidence["timing"], evidence["graph"]) == ("fuses", "fuses", "fuses")
    assert evidence["runs"] >= MIN_ROUNDS
    assert set(evidence["witnesses"]) == {"reader", "barrier"}
    for told in evidence["witnesses"].values():
        assert told["saved_share"] == pytest.approx(1.0, abs=0.2)
    assert set(evidence["shapes"]) == set(SHAPES)
    assert evidence["shapes"]["small"]["kernels"] == {
        "ab+": 5, "+ab": 4, "aq+": 5, "+aq": 5, "apb": 5, "pab": 4, "apq": 5, "paq": 5, "ap": 4, "p": 3,
    }  # fmt: skip
    assert set(evidence["medians_ms"]) == {
        "ab+", "+ab", "aq+", "+aq", "apb", "pab", "apq", "paq", "ap", "p",
    }  # fmt: skip


def test_a_pair_that_does_not_fuse_is_denied_by_the_first_witness(tmp_path: Path) -> None:
    rules = detect_rules(plan("BF_relu_conv", method="timing"), journal=tmp_path / "j.sqlite", backend=pretender())
    evidence = rules["BF_relu_conv"]["evidence"]
    assert (rules["BF_relu_conv"]["obey"], set(evidence["witnesses"])) == (False, {"reader"})


@pytest.mark.parametrize("seed", range(4))
def test_rules_of_a_noisy_runtime_are_found_or_left_open(seed: int, tmp_path: Path) -> None:
    """Every model is up to 5 % slower for as long as it stays prepared, and every run up to 20 %."""
    rules = detect_rules(
        plan(*EXPECTED, method="timing", seed=seed),
        journal=tmp_path / "j.sqlite",
        backend=pretender(noise=0.2, place_noise=0.05, seed=seed),
    )
    found = {name: rules[name]["obey"] for name in EXPECTED}
    assert {name: obey for name, obey in found.items() if obey not in (None, EXPECTED[name])} == {}
    assert sum(obey is None for obey in found.values()) <= 2


def test_a_chain_is_not_measured_where_its_beginning_does_not_fuse(tmp_path: Path) -> None:
    backend = pretender()
    rules = detect_rules(plan("BF_conv_add", "BF_conv_add_relu"), journal=tmp_path / "j.sqlite", backend=backend)
    evidence = rules["BF_conv_add_relu"]["evidence"]
    assert (evidence["reason"], evidence["runs"]) == ("not measured: BF_conv_add does not hold", 0)


def test_a_chain_that_is_reached_late_is_heard_to_the_end() -> None:
    """A rule is given up only once no witness is left to ask."""
    fuses, unheard = Decision("fuses", 0.999, 1.0, 12), Decision("undecided", 0.0, 0.0, 0)
    loses = Decision("undecided", 0.999, -2.0, 60, "loses")
    assert not _hopeless(Conclusion("undecided", 0.0, witnesses={"reader": fuses, "barrier": unheard}))
    assert _hopeless(Conclusion("undecided", 0.0, witnesses={"reader": loses, "barrier": unheard}))


def test_a_runtime_that_shows_nothing_is_decided_by_time(tmp_path: Path) -> None:
    backend = pretender(shows=False)
    rules = detect_rules(plan("BF_conv_relu", "BF_conv_conv"), journal=tmp_path / "j.sqlite", backend=backend)
    assert [rules[name]["obey"] for name in ("BF_conv_relu", "BF_conv_conv")] == [True, False]
    assert rules["BF_conv_relu"]["evidence"]["graph"] is None


def test_what_the_runtime_refuses_stays_undecided_with_its_words(tmp_path: Path) -> None:
    backend = pretender(refused=frozenset({"Conv"}))
    rules = detect_rules(plan("BF_conv_relu", "BF_fc_add"), journal=tmp_path / "j.sqlite", backend=backend)
    assert rules["BF_conv_relu"]["obey"] is None
    assert "replay refuses" in rules["BF_conv_relu"]["evidence"]["reason"]
    assert rules["BF_fc_add"]["obey"] is True


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    asked = plan("BF_conv_relu", "BF_conv_conv")
    first = detect_rules(asked, journal=tmp_path / "j.sqlite", backend=pretender())
    backend = pretender()
    second = detect_rules(asked, journal=tmp_path / "j.sqlite", backend=backend)
    assert backend.prepared == 0
    assert {**first, "comment": ""} == {**second, "comment": ""}


def test_a_spent_budget_leaves_the_rest_undecided(tmp_path: Path) -> None:
    asked = plan("BF_conv_relu", "BF_conv_conv", budget_s=1e-9)
    rules = detect_rules(asked, journal=tmp_path / "j.sqlite", backend=pretender())
    assert rules["BF_conv_conv"]["obey"] is None
    assert rules["BF_conv_conv"]["evidence"]["reason"] == "nothing was measured"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget_s": 0.0}, "a budget of 0 s measures nothing"),
        ({"method": "guess"}, "no method 'guess'; use one of timing, graph, both"),
        ({"cases": ("BF_x_y",)}, "no test case 'BF_x_y'"),
    ],
)
def test_a_plan_that_cannot_work_is_refused(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=message):
        detect_rules(plan("BF_conv_relu", **changes), journal=tmp_path / "j.sqlite", backend=pretender())


def counted(first: int, second: int, saved: int) -> dict[str, int]:
    """Executed kernels of a case between barriers of which none is fused."""
    return {
        "p": 3,
        "ap": 3 + first,
        "apb": 3 + first + second,
        "pab": 3 + first + second - saved,
        "apq": 4 + first,
        "paq": 4 + first,
    }


@pytest.mark.parametrize(
    ("first", "second", "saved", "inputs", "partly", "verdict"),
    [
        (1, 1, 1, 0, False, "fuses"),
        (1, 1, 0, 0, False, "does not"),
        (1, 4, 4, 0, False, "fuses"),
        (1, 4, 1, 0, False, "undecided"),
        (5, 1, 1, 0, False, "fuses"),
        (1, 0, 0, 0, False, "undecided"),
        (0, 1, 0, 0, False, "undecided"),
        (1, 2, 1, 1, False, "fuses"),
        (1, 3, 0, 0, True, "does not"),
        (1, 3, 1, 0, True, "fuses"),
    ],
)
def test_executed_kernels_decide(first: int, second: int, saved: int, inputs: int, partly: bool, verdict: str) -> None:
    assert executed_decision(counted(first, second, saved), inputs, partly=partly).verdict == verdict


def test_what_fuses_in_one_surrounding_only_is_left_open() -> None:
    """As OpenVINO's activation and sum, which are one subgraph where another operator reads what the first reads."""
    read = {"ab+": 5, "+ab": 4, "aq+": 5, "+aq": 5}
    found = executed_decision(counted(1, 1, 0) | read)
    assert found.verdict == "undecided"
    assert found.reason == "fuses among the probes of the reader, not among those of the barrier"
    assert executed_decision(counted(1, 1, 1) | read).verdict == "fuses"


@pytest.mark.parametrize("backend", ["onnxruntime_cpu", "openvino_cpu"])
@pytest.mark.heavy
def test_a_runtime_in_a_child_process_shows_what_it_fuses(backend: str, tmp_path: Path) -> None:
    pytest.importorskip(backend.removesuffix("_cpu"))
    cases = ("BF_conv_relu", "BF_conv_conv")
    asked = DetectionPlan(backend, cases=cases, method="graph")
    rules = detect_rules(asked, journal=tmp_path / "j.sqlite")
    assert [rules[name]["obey"] for name in cases] == [True, False]


def test_the_reports_show_each_rule(tmp_path: Path) -> None:
    rules = detect_rules(
        plan("BF_conv_relu", "BF_conv_conv", "BF_dwconv_relu", "MON"),
        journal=tmp_path / "j.sqlite",
        backend=pretender(),
    )
    lines = matrix(rules).splitlines()
    assert lines[1].split() == ["conv", "-", "+"] or lines[1].split() == ["conv", "+", "-"]
    assert "MON: does not" in lines
    assert summary(rules) == ("4 rules: 2 fuse, 2 do not, 0 undecided; timing agrees with the executed graph in 4 of 4")
    text = page(rules)
    assert all(name in text for name in ("BF_conv_relu", "BF_conv_conv", "MON"))
    assert re.search(r"reader [+-]\d\.\d\d, barrier [+-]\d\.\d\d", text)
    assert "http" not in text


def test_a_rule_file_without_evidence_is_shown_too() -> None:
    rules = {"BF_conv_relu": {"obey": None}, "RT": {"obey": True}}
    assert "?" in matrix(rules)
    assert "<td" in page(rules)


@pytest.mark.parametrize(
    "told", ['{"rounds": [{}], "elapsed_s": 1}', '{"elapsed_s": 1}', '{"rounds": 3, "elapsed_s": "x"}']
)
def test_a_row_of_the_journal_that_holds_no_rounds_is_named(tmp_path: Path, told: str) -> None:
    asked = plan("BF_conv_relu", method="timing")
    detect_rules(asked, journal=tmp_path / "j.sqlite", backend=pretender())
    with sqlite3.connect(tmp_path / "j.sqlite") as database:
        database.execute("UPDATE work SET result = ?", (told,))
    database.close()
    with pytest.raises(BuildError, match=r"the journal is damaged .*'replay'.* is none"):
        detect_rules(asked, journal=tmp_path / "j.sqlite", backend=pretender())
