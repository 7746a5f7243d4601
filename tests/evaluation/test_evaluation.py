"""An evaluation measures each model early and late, once, and says what it found."""

from __future__ import annotations

import itertools
import math
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from nn_meter.api import Predictor
from nn_meter.backends import Named
from nn_meter.backends.onnx_writer import as_bytes
from nn_meter.backends.replay import FakeClock, ReplayBackend, ReplayConfig
from nn_meter.errors import BuildError, InputError
from nn_meter.evaluation import Bench, Blame, Evaluation, Score, Subject, blamed, calibrate, evaluate, subjects
from nn_meter.ir import Graph, GraphBuilder
from nn_meter.measuring import Failure, Journal, Measurement, Plan
from nn_meter.measuring.fixed import PROBE
from nn_meter.predictors.bundle import EVALUATED, Bundle
from nn_meter.predictors.parts import Interval, Roofline
from nn_meter.predictors.prediction import Prediction
from nn_meter.predictors.trust import trust
from nn_meter.report import evaluation as report
from nn_meter.report.json import dumps


def net(name: str, width: int) -> Graph:
    b = GraphBuilder(name)
    return b.graph(b.op("Relu", b.op("Conv", b.input((1, 3, 16, 16)), b.weight((width, 3, 1, 1)))))


MODELS = tuple(Subject(f"net{width}", "small" if width < 20 else "wide", net(f"net{width}", width))
               for width in (8, 16, 32))  # fmt: skip


def predictor(statistic: str = "quiet", **facts: str) -> Predictor:
    speeds = Roofline(1e10, 1e10, 0.001)
    rules = {"runtime": "onnxruntime_cpu"}
    return Predictor(Bundle("roof", "1", {}, rules, "onnx-1", statistic=statistic, fallback=speeds, environment=facts))


def replay(**settings: object) -> tuple[ReplayBackend, FakeClock]:
    clock = FakeClock()
    return ReplayBackend(ReplayConfig(clock=clock, **settings)), clock  # type: ignore[arg-type]


def test_what_the_machine_was_slower_by_is_told_and_divided_out() -> None:
    """The probe takes turns in the runtime's process; the bundle says what it took while it was built."""
    plain = predictor()
    (first,) = evaluate([plain], Named("replay"), MODELS[:1], rounds=2).scores
    assert first.level is None
    with Bench(Named("replay")) as bench:
        (taken,) = bench.measure(MODELS[:1], Plan(rounds=2))
    assert isinstance(taken, Measurement)
    usual_ms = float(taken.environment[PROBE]) / 1.25  # type: ignore[arg-type]
    known = Predictor(replace(plain.bundle, environment={PROBE: usual_ms}))
    result = evaluate([known], Named("replay"), MODELS[:1], rounds=2)
    assert result.scores[0].level == pytest.approx(1.25)
    raw, levelled = result.metrics("roof 1"), result.levelled("roof 1")
    assert levelled is not None
    assert 1 + levelled.bias == pytest.approx(1.25 * (1 + raw.bias))
    assert "The probe took +25.0% in the median" in report.table(result)
    elsewhere = Predictor(replace(known.bundle, environment={PROBE: usual_ms, "cpu": "another"}))
    assert evaluate([elsewhere], Named("replay"), MODELS[:1], rounds=2).levelled("roof 1") is None


def test_models_that_were_kept_away_stand_apart(tmp_path: Path) -> None:
    for half, width in (("looked", 8), ("kept", 16)):
        (tmp_path / half / "plain").mkdir(parents=True)
        (tmp_path / half / "plain" / f"net{width}.onnx").write_bytes(as_bytes(net(f"net{width}", width)))
    found = subjects([tmp_path / "looked"], kept=[tmp_path / "kept"])
    assert [(each.name, each.kept) for each in found] == [("net8", False), ("net16", True)]
    backend, clock = replay()
    result = evaluate([predictor()], backend, found, rounds=2, clock=clock)
    assert [result.metrics("roof 1", half).n for half in (None, False, True)] == [2, 1, 1]
    assert "Of the 1 looked at: " in report.table(result)
    assert "kept away" in report.markdown(result, "again")


@pytest.mark.parametrize(("looked", "kept"), [(12, 12), (40, 10), (5, 20), (9, 0), (0, 3)])
def test_models_kept_away_are_measured_between_those_looked_at(
    looked: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, clock = replay()
    models = [Subject(f"net{i}", "all", net(f"net{i}", 8 + i), kept=i >= looked) for i in range(looked + kept)]
    order: list[Subject] = []
    measure = Bench.measure

    def heard(bench: Bench, group: list[Subject], *rest: object) -> object:
        order.extend(group)
        return measure(bench, group, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Bench, "measure", heard)
    result = evaluate([predictor()], backend, models, rounds=2, clock=clock)
    assert [each.model for each in result.scores] == [each.name for each in models]
    for half in (order[: len(models)], order[len(models) :]):
        assert {each.name for each in half} == {each.name for each in models}
        middles = [sum(places) / len(places) for away in (False, True)
                   if (places := [i for i, each in enumerate(half) if each.kept is away])]  # fmt: skip
        assert max(middles) - min(middles) <= 1


def score(measured_ms: float, predicted_ms: float) -> Score:
    return Score("m", "f", "p 1", "quiet", measured_ms, measured_ms, 0.0, 9, predicted_ms, None, 1.0, 3)


def test_each_model_has_a_score_by_each_predictor() -> None:
    backend, clock = replay()
    result = evaluate([predictor()], backend, MODELS, rounds=4, clock=clock)
    assert [each.model for each in result.scores] == ["net8", "net16", "net32"]
    assert result.predictors == ("roof 1",)
    assert result.metrics("roof 1").n == 3
    assert list(result.families("roof 1")) == ["small", "wide"]
    assert all(each.noise == 0 and each.measured_ms > 0 for each in result.scores)


@pytest.mark.parametrize(
    ("slow", "budget_s", "visits", "measured"),
    [
        pytest.param((1.0, 1.05), math.inf, 2, 1.025, id="repeats"),
        pytest.param((1.0, 1.4, 1.0), math.inf, 3, 1.0, id="was slow once"),
        pytest.param((1.4, 1.0, 1.4), math.inf, 3, 1.4, id="was quick once"),
        pytest.param((1.0, 1.4, None), math.inf, 3, 1.2, id="fails the third time"),
        pytest.param((1.0, 1.4, 1.0), 5.0, 2, 1.2, id="no time for it"),
    ],
)
def test_a_model_that_does_not_repeat_is_asked_once_more(
    slow: tuple[float | None, ...], budget_s: float, visits: int, measured: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The middle of three visits tells which of two was beside a neighbour; what the first two say stays the noise."""
    backend, clock = replay()
    asked: list[str] = []
    measure = Bench.measure

    def beside_neighbours(bench: Bench, group: list[Subject], *rest: object) -> list[Measurement | Failure]:
        found: list[Measurement | Failure] = []
        for subject, taken in zip(group, measure(bench, group, *rest), strict=True):  # type: ignore[arg-type]
            times = slow[asked.count(subject.name)] if subject.name == "net8" else 1.0
            asked.append(subject.name)
            assert isinstance(taken, Measurement)
            values = tuple(times * each for each in taken.values_ms) if times else ()
            found.append(replace(taken, values_ms=values) if values else Failure("crash", "gone"))
        return found

    (usual,) = evaluate([predictor()], backend, MODELS[:1], rounds=2, clock=clock).scores
    monkeypatch.setattr(Bench, "measure", beside_neighbours)
    found, other, _ = evaluate([predictor()], backend, MODELS, rounds=2, budget_s=budget_s, clock=clock).scores
    assert (asked.count("net8"), asked.count("net16")) == (visits, 2)
    assert found.measured_ms == pytest.approx(measured * usual.measured_ms)
    assert found.noise == pytest.approx(2 * abs(slow[0] - slow[1]) / (slow[0] + slow[1]))  # type: ignore[operator]
    assert other.noise == 0


def test_the_statistic_is_the_one_that_the_bundle_states() -> None:
    backend, clock = replay(recorded_ms={"net8": (1.0, 3.0, 3.0)})
    both = [predictor("quiet"), replace_name(predictor("median"), "middle")]
    quiet, middle = evaluate(both, backend, MODELS[:1], clock=clock).scores
    assert (quiet.statistic, quiet.measured_ms) == ("quiet", 1.0)
    assert (middle.statistic, middle.measured_ms, quiet.median_ms) == ("median", 3.0, 3.0)


def replace_name(given: Predictor, name: str) -> Predictor:
    return Predictor(replace(given.bundle, name=name))


def test_a_refused_model_is_noted_and_the_others_go_on() -> None:
    backend, clock = replay(refused=frozenset({"net16"}))
    result = evaluate([predictor()], backend, MODELS, clock=clock)
    assert [each.model for each in result.scores] == ["net8", "net32"]
    ((model, why),) = result.failed
    assert model == "net16"
    assert "refuses" in why


def test_what_the_journal_holds_is_not_measured_again(tmp_path: Path) -> None:
    backend, clock = replay()
    with Journal(tmp_path / "j") as journal:
        first = evaluate([predictor()], backend, MODELS, journal=journal, clock=clock)
        spent_s = clock()
        again = evaluate([predictor()], backend, MODELS, journal=journal, clock=clock)
    assert clock() == spent_s
    assert again.scores == first.scores


def test_progress_counts_every_turn() -> None:
    backend, clock = replay()
    heard: list[tuple[float, float | None]] = []
    evaluate([predictor()], backend, MODELS, rounds=4, clock=clock,
             progress=lambda done, total, eta_s, what: heard.append((done, total)))  # fmt: skip
    assert heard == [(step, 12) for step in range(1, 13)]


def test_a_spent_budget_still_gives_each_model_an_early_and_a_late_turn() -> None:
    backend, clock = replay()
    result = evaluate([predictor()], backend, MODELS, budget_s=1e-9, clock=clock)
    assert len(result.scores) == 3


def test_a_budget_holds_for_tracing_too_the_largest_miss_first(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, clock = replay(us_per_kernel=500.0, recorded_ms={"net16": (9.0,)})
    trace = Bench.trace

    def slow(bench: Bench, model: object, repeats: int) -> object:
        clock.advance(5)
        return trace(bench, model, repeats)

    monkeypatch.setattr(Bench, "trace", slow)
    with Journal(Path(":memory:")) as journal:
        for budget_s, traced in ((4.0, {"net16"}), (0.0, {"net16"}), (9.0, {"net8", "net16", "net32"})):
            result = evaluate([predictor()], backend, MODELS, rounds=2, budget_s=budget_s, journal=journal, clock=clock)
            assert {each.model for each in result.scores if each.blamed} == traced
            unsaid = {each.model for each in result.scores if "not traced: the budget was spent" in each.warnings}
            assert unsaid == {each.name for each in MODELS} - traced


def test_other_circumstances_and_unknown_statistics_are_warned_of() -> None:
    backend, clock = replay()
    result = evaluate([predictor("", cpu="a cpu of the mind")], backend, MODELS[:1], clock=clock)
    first, second = result.warnings
    assert first.startswith("roof 1 was built under other circumstances: the processor differs: a cpu of the mind")
    assert "does not say which statistic it predicts" in second


def test_measuring_one_model() -> None:
    backend, clock = replay(recorded_ms={"net8": (2.0,)})
    (taken,) = Bench(backend, clock=clock).measure([MODELS[0].source], Plan())
    assert isinstance(taken, Measurement)
    assert (taken.quiet_ms, taken.median_ms) == (2.0, 2.0)


def test_kinds_that_pull_with_the_predictions_error_are_blamed() -> None:
    traced, predicted = {"conv": 4.0, "fc": 1.0, "pool": 1.0}, {"conv": 6.0, "fc": 0.5, "pool": 1.1}
    assert [each.kind for each in blamed(traced, predicted, 6.0, 1.6)] == ["conv"]
    low = blamed({"conv": 4.0, "fc": 2.0}, {"conv": 4.1, "fc": 1.0}, 6.0, -0.9)
    assert [(each.kind, each.traced_ms, each.predicted_ms) for each in low] == [("fc", 2.0, 1.0)]


def test_a_kind_that_a_predictor_reads_as_another_is_held_against_that() -> None:
    told = blamed({"conv": 4.0, "einsum": 2.0, "other": 1.0}, {"conv": 4.1, "other": 2.8}, 7.0, 0.1)
    assert [each.kind for each in told] == ["conv"]
    found = blamed({"conv": 4.0, "einsum": 2.0, "other": 1.0}, {"conv": 4.0, "einsum": 3.0, "other": 1.0}, 7.0, 1.0)
    assert [each.kind for each in found] == ["einsum"]


def test_the_profilers_own_time_does_not_turn_the_blame_round() -> None:
    # the prediction is 12 % too high, the trace, slowed by the profiler, above both
    found = blamed({"conv": 7.0, "fc": 5.0}, {"conv": 7.0, "fc": 4.2}, 10.0, 1.2)
    assert [each.kind for each in found] == ["conv"]


@pytest.mark.parametrize(
    ("traced_ms", "predicted_ms", "slowed"),
    [
        pytest.param(61.0, 62.0, True, id="as predicted"),
        pytest.param(61.0, 72.0, False, id="neither"),
        pytest.param(98.0, 89.0, False, id="as measured"),
        pytest.param(115.0, 120.0, False, id="longer than measured"),
        pytest.param(95.0, 96.0, False, id="no miss"),
        pytest.param(None, 62.0, False, id="not traced"),
    ],
)
def test_a_miss_is_the_measurements_where_a_trace_says_what_was_predicted(
    traced_ms: float | None, predicted_ms: float, slowed: bool
) -> None:
    one = replace(score(100.0, predicted_ms), traced_ms=traced_ms, blamed=(Blame("conv", 100.0, predicted_ms),))
    assert one.slowed is slowed
    page = report.markdown(Evaluation((one,), "replay", 2), "again")
    assert ("1 of 1 are the measurement's" in page) is slowed
    assert ("slowed while it was measured: the traced kernels sum up to 61.00 ms, as predicted" in page) is slowed


def test_a_model_that_is_missed_is_blamed_on_its_kinds_whatever_runtime_tells_its_nodes() -> None:
    backend, clock = replay(us_per_kernel=500.0)
    (score, *_) = evaluate([predictor()], backend, MODELS, clock=clock).scores
    assert score.missed
    assert score.traced_ms == pytest.approx(score.measured_ms)
    assert {each.kind for each in score.blamed} == {"conv", "unary"}


def test_a_runtime_that_kills_its_process_loses_one_model() -> None:
    models = [Subject(name, "", net(name, 8)) for name in ("one", "two", "three")]
    heard: list[float] = []
    result = evaluate([predictor()], Named("replay", {"deadly": ["two"]}), models, rounds=2,
                      progress=lambda done, total, eta_s, what: heard.append(done))  # fmt: skip
    assert [each.model for each in result.scores] == ["one", "three"]
    assert result.failed == (("two", "the process died of SIGABRT"),)
    assert heard


def test_intervals_are_quantiles_corrected_for_the_number_of_models() -> None:
    scores = [score(measured_ms=1.0 + 0.01 * i, predicted_ms=1.0) for i in range(19)]
    interval = calibrate(scores)
    assert interval.low == 0.0
    assert interval.high == pytest.approx(0.1655, abs=1e-4)
    with pytest.raises(InputError, match="18 models are too few for intervals of 90%; measure at least 19"):
        calibrate(scores[:18])


def test_calibrated_intervals_stay_wider_for_what_is_not_predicted() -> None:
    """Half of the models rest on twice the spread and err twice as far: so do their intervals, before and after."""
    known = Interval(-0.3, 0.3, networks=50, estimated=(-1.0, 2.0), sums=(-3.0, 3.0), share=0.4)
    scores = []
    for spread in (0.1, 0.2):
        ends = math.exp(-3 * spread), math.exp(3 * spread)
        scores += [replace(score(math.exp(spread * i / 10), 1.0), interval_ms=ends) for i in range(-10, 11)]
    found = calibrate(scores, known)
    assert found.sums == pytest.approx((-1.0, 1.0))
    assert (found.low, found.high) == pytest.approx((-0.18, 0.18))
    assert (found.estimated, found.share, found.models, found.networks) == (known.estimated, known.share, 42, 0)
    unsure = replace(known, sums=None)
    assert calibrate(scores, unsure).estimated == known.estimated


def test_errors_by_family_go_into_the_bundle_and_are_found_by_a_models_name() -> None:
    pairs = (("resnet18", "resnet", 1.1), ("resnet34", "resnet", 1.2), ("vit_tiny", "vit", 0.5))
    scores = tuple(replace(score(1.0, predicted_ms), model=name, family=family) for name, family, predicted_ms in pairs)
    facts = Evaluation(scores, "replay", 2).errors(scores[0].predictor)
    assert (facts["models"], facts["median"]) == (3, 0.2)
    answer = Prediction("resnet50.onnx", "p", "1.0", "", "", 1.0, ())
    found = trust(answer, replace(predictor().bundle, environment={EVALUATED: facts})).family
    assert found is not None
    assert (found.family, found.models, found.median, found.bias) == ("resnet", 2, 0.15, 0.15)


def test_folders_give_families(tmp_path: Path) -> None:
    for place in ("resnet/a.onnx", "vit/a.onnx", "vit/b.onnx"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).touch()
    found = subjects([tmp_path])
    assert [(s.name, s.family) for s in found] == [("resnet/a", "resnet"), ("vit/a", "vit"), ("b", "vit")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: holds no model; looked for \*\.onnx"):
        subjects([tmp_path / "empty"])


def test_reports_hold_every_model(tmp_path: Path) -> None:
    backend, clock = replay()
    result = evaluate([predictor()], backend, MODELS, clock=clock)
    page = report.markdown(result, "nn-meter evaluate MODELS")
    for each in result.scores:
        assert each.model in report.table(result)
        assert f"| {each.model} |" in page
    document = report.document(result)
    assert document["schema_version"] == 1
    assert document["predictors"][0]["calibrated_interval"] is None
    assert dumps(document)


def test_a_plot_is_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    backend, clock = replay()
    result = evaluate([predictor()], backend, MODELS, clock=clock)
    report.plot(result, "roof 1", tmp_path / "plot.svg")
    assert "<svg" in (tmp_path / "plot.svg").read_text()
    with pytest.raises(InputError, match=r"name the plot \.png or \.svg"):
        report.plot(result, "roof 1", tmp_path / "plot.nothing")


def test_names_in_a_plot_stand_apart() -> None:
    """Of many models missed alike the worst are named, on their own side of zero and no two on one line."""
    scores = [replace(score(10.0, 10.0 * (1 + 0.01 * n)), model=f"m{n}") for n in (*range(-40, -10), 5, 12, 13)]
    named = report._named(scores)
    assert {each.model for each, _ in named} == {f"m{n}" for n in range(-40, -26)}
    heights = sorted(height for _, height in named)
    assert all(height <= 100 * each.error + 1e-9 for each, height in named)
    assert min(b - a for a, b in itertools.pairwise(heights)) > 2


def test_a_row_of_the_journal_that_is_no_measurement_is_named(tmp_path: Path) -> None:
    backend, clock = replay(us_per_kernel=500.0)
    with Journal(tmp_path / "j") as journal:
        evaluate([predictor()], backend, MODELS[:1], journal=journal, clock=clock)
    for half, result in ((0, '{"values_ms": [-1]}'), ("trace", '{"conv": ["x"]}')):
        with sqlite3.connect(tmp_path / "j") as database:
            where = f"json_extract(item, '$.half') = {half!r}"
            ((kept,),) = database.execute(f"SELECT result FROM work WHERE {where}")
            database.execute(f"UPDATE work SET result = ? WHERE {where}", (result,))
        database.close()
        with Journal(tmp_path / "j") as journal, pytest.raises(BuildError, match=r"the journal is damaged .*'net8'"):
            evaluate([predictor()], backend, MODELS[:1], journal=journal, clock=clock)
        with sqlite3.connect(tmp_path / "j") as database:
            database.execute(f"UPDATE work SET result = ? WHERE {where}", (kept,))
        database.close()
