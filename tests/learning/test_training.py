"""``train``: records in, a bundle out, whoever measured them; what quiet means on the way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import count as counted
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from nn_meter.devices.device import Device
from nn_meter.errors import BuildError
from nn_meter.kernels.kinds import GemmConfig
from nn_meter.kernels.rules import read_rules
from nn_meter.kernels.schema import Speeds
from nn_meter.learning import fit
from nn_meter.learning.correction import CALL, corrected
from nn_meter.learning.fit import Network, spent_on_fits
from nn_meter.learning.training import interval, train, worst_families
from nn_meter.measuring import Circumstances, Journal, MeasuredKernel, Measurement, Record
from nn_meter.networks import FAMILIES
from nn_meter.predictors import bundle as bundles
from nn_meter.predictors.bundle import Bundle
from nn_meter.predictors.parts import LOG_RATIO_MOST, Part, Roofline
from nn_meter.predictors.runtime import GraphEngine
from nn_meter.runtimes.fusion import fuse

pytest.importorskip("sklearn")

WHERE = Circumstances(Device("abacus", processor="abacus 9"), "onnxruntime", "1", threads=2)
RULES = read_rules({"runtime": "onnxruntime_cpu"})


def taken(ms: float, runs: int = 12) -> Measurement:
    return Measurement((ms,) * runs, rounds=(runs // 2, runs // 2))


def record(number: int, *, family: str = "residual_basic", probe_ms: float = 1.0, profiler_ms: float = 0.0,
           call_ms: float = 0.0, slow: float = 1.0) -> Record:  # fmt: skip
    """A real network with made-up times: every kernel 0.01 ms and a bit, all of it ``slow`` times slower."""
    kernels = tuple(
        MeasuredKernel(k.kind, k.config, slow * (0.01 + 0.001 * (number % 7)) + profiler_ms, k.nodes)
        for k in fuse(FAMILIES[family](number), RULES).kernels
        if not k.free
    )
    traced_ms = sum(kernel.latency_ms for kernel in kernels)
    whole_ms = traced_ms - len(kernels) * profiler_ms + slow * call_ms
    return Record(
        f"{family}_{number}", WHERE, kernels, taken(whole_ms), taken(traced_ms), taken(slow * probe_ms), family, 0.1
    )


def small(family: str, count: int) -> Iterable[int]:
    """Seeds of networks that are not of many parts, from 0 on: what is taught here is made up, whatever it is of."""
    return islice((seed for seed in counted() if len(FAMILIES[family](seed).nodes) < 100), count)


def records(count: int, **more: float) -> list[Record]:
    return [record(number, **more) for number in small("residual_basic", count)]  # type: ignore[arg-type]


def latencies(each: Sequence[MeasuredKernel]) -> list[float]:
    return [kernel.latency_ms for kernel in each]


def test_a_bundle_comes_out_that_predicts_what_it_was_taught(tmp_path: Path) -> None:
    heard: list[tuple[float, float | None]] = []
    bundle = train(records(120), name="taught", rules={"runtime": "onnxruntime_cpu"},
                   progress=lambda done, total, eta_s, what: heard.append((done, total)))  # fmt: skip
    bundles.save(bundle, tmp_path / "bundle")
    engine = GraphEngine(bundles.load(tmp_path / "bundle"))
    prediction = engine.explain(FAMILIES["residual_basic"](7))
    assert prediction.latency_ms == pytest.approx(engine.latency_ms(FAMILIES["residual_basic"](7)))
    assert prediction.latency_ms == pytest.approx(sum(latencies(record(7).kernels)), rel=0.3)
    assert (bundle.device, bundle.threads, bundle.statistic) == ("abacus", 2, "quiet")
    assert bundle.environment["cpu"] == "abacus 9"
    assert heard
    assert heard[-1][0] <= (heard[-1][1] or 0)


def test_published_latencies_of_single_kernels_are_enough(tmp_path: Path) -> None:
    table = replace(WHERE, source="a table", licence="CC-BY-4.0", statistic="mean")
    single = [
        Record.of_kernel(kernel.kind, kernel.config, kernel.latency_ms, table)
        for each in records(60)
        for kernel in each.kernels
    ]
    bundle = train(single, name="published")
    assert bundle.kinds["conv"].rows > 60
    assert bundle.statistic == "mean"
    assert "measured by a table (CC-BY-4.0)" in bundle.notes


def test_networks_measured_while_the_machine_was_slow_are_left_out() -> None:
    slow = [replace(each, subject=f"slow {each.subject}") for each in records(60, slow=1.3)]
    found = corrected(records(90) + slow)
    assert found.disturbed == 60
    assert not any(each.subject.startswith("slow") for each in found.records)


def test_a_stretch_that_is_a_little_slow_is_divided_out_by_the_probe() -> None:
    first, later = corrected(records(400) + records(200, slow=1.1)), corrected(records(200))
    assert first.disturbed == 0
    for network, as_it_is in zip(first.networks[500:], later.networks[100:], strict=True):
        assert latencies(network.samples) == pytest.approx(latencies(as_it_is.samples), rel=1e-6)


@pytest.mark.parametrize("power", [0.5, 1.0, 1.4])
def test_a_slow_stretch_is_divided_out_as_far_as_it_slows_networks(power: float) -> None:
    usual = [record(number) for number in small("residual_basic", 900)]
    stretches = [1.0 if 300 <= i < 600 else 1.25 for i in range(900)]
    shaken = [by_turns(each, slow, slow, passed=power) for each, slow in zip(usual, stretches, strict=True)]
    found = corrected(shaken, probe_ms=1.0)
    assert found.disturbed == 0
    middle = zip(found.networks[100:200] + found.networks[400:500], usual[100:200] + usual[400:500], strict=True)
    for network, as_it_is in middle:
        assert sum(latencies(network.samples)) == pytest.approx(sum(latencies(as_it_is.kernels)), rel=0.01)


def test_kernels_are_told_at_the_speed_of_the_machine_that_is_asked_for() -> None:
    usual, slower = corrected(records(100)), corrected(records(100), probe_ms=1.1)
    assert slower.probe_ms == 1.1
    for network, as_measured in zip(slower.networks, usual.networks, strict=True):
        wanted = [1.1 * ms for ms in latencies(as_measured.samples)]
        assert latencies(network.samples) == pytest.approx(wanted, rel=1e-6)


def by_turns(each: Record, *slow: float, passed: float = 1.0) -> Record:
    """In turns in which the probe was so many times slower, and the network that to the power of ``passed``."""
    assert each.probe is not None
    assert each.whole is not None
    probe, whole = each.probe.quiet_ms, each.whole.quiet_ms
    return replace(
        each,
        probe=Measurement(tuple(probe * s for s in slow), rounds=(1,) * len(slow)),
        whole=Measurement(tuple(whole * s**passed for s in slow), rounds=(1,) * len(slow)),
    )


@pytest.mark.parametrize("passed", [0.0, 0.4, 1.0])
def test_a_neighbour_that_comes_and_goes_is_divided_out_as_far_as_it_slows_networks(passed: float) -> None:
    slows = [(1.0, 1.0), (1.1, 1.0), (1.0, 1.1), (1.1, 1.1), (0.9, 1.0), (1.0, 0.9), (0.9, 0.9)]
    there = records(210)
    shaken = [by_turns(each, *slows[i % len(slows)], passed=passed) for i, each in enumerate(there)]
    nothing = Record("nothing", WHERE, (), taken(0.0), taken(0.0), taken(1.0), CALL)  # as a coarse clock tells
    found = corrected([*shaken, nothing])
    assert found.disturbed == 0
    for network, as_it_is in zip(found.networks, there, strict=True):
        assert latencies(network.samples) == pytest.approx(latencies(as_it_is.kernels), rel=0.006)


def test_where_neighbours_never_rest_most_networks_are_learnt_from() -> None:
    restless = [by_turns(each, *((1.0, 1.02) if i % 5 == 0 else (1.3, 1.28))) for i, each in enumerate(records(400))]
    found = corrected(restless)
    assert found.disturbed == 0
    assert found.probe_ms == pytest.approx(1.29, rel=0.01)  # it answers at the usual speed


def test_quiet_is_a_quantile_of_all_the_probes_runs_and_not_the_fastest_of_them() -> None:
    one_fast_run = [replace(each, probe=replace(each.probe, values_ms=(0.8, *each.probe.values_ms[1:])))
                    if number == 50 and each.probe else each for number, each in enumerate(records(100))]  # fmt: skip
    for network, as_it_is in zip(corrected(one_fast_run).networks, records(100), strict=True):
        assert latencies(network.samples) == pytest.approx(latencies(as_it_is.kernels))


def test_a_probe_that_scatters_makes_no_kernel_cheaper() -> None:
    around = [record(number, probe_ms=1.0 + 0.01 * (number * 7 % 11 - 5)) for number in small("residual_basic", 300)]
    scattered = [replace(each, whole=as_it_is.whole) for each, as_it_is in zip(around, records(300), strict=True)]
    found = corrected(scattered)
    assert found.disturbed == 0
    for network, as_it_is in zip(found.networks, records(300), strict=True):
        assert latencies(network.samples) == pytest.approx(latencies(as_it_is.kernels), rel=0.01)


def test_kernels_add_up_to_their_networks_quiet_latency_without_profiler_and_call() -> None:
    empty = [Record("nothing", WHERE, (), taken(0.006), taken(0.0), taken(1.0), CALL)] * 3
    found = corrected(records(100, profiler_ms=0.002, call_ms=0.006) + empty)
    assert found.call_ms == pytest.approx(0.006)
    assert found.profiler_ms == pytest.approx(0.002)
    for network, as_it_is in zip(found.networks, records(100), strict=True):
        assert latencies(network.samples) == pytest.approx(latencies(as_it_is.kernels))
    torn = [replace(each, whole=taken(1.2 * sum(latencies(each.kernels)))) for each in records(100)]
    for network, each in zip(corrected(torn).networks, torn, strict=True):
        assert sum(latencies(network.samples)) == pytest.approx(1.2 * sum(latencies(each.kernels)))


def test_what_the_profiler_adds_is_told_by_networks_of_as_many_kernels() -> None:
    taught = sorted((each for each in records(400) if len(each.kernels) >= 12), key=lambda each: len(each.kernels))
    border = len(taught) // 2
    dear = [
        record(int(each.subject.split("_")[-1]), profiler_ms=0.002 if place < border else 0.004)
        for place, each in enumerate(taught)
    ]
    pairs = list(zip(corrected(dear).networks, taught, strict=True))
    for network, as_it_is in pairs[: border - 50] + pairs[border + 50 :]:
        assert latencies(network.samples) == pytest.approx(latencies(as_it_is.kernels))


def test_what_a_call_costs_is_a_part_of_every_prediction(tmp_path: Path) -> None:
    empty = [Record("nothing", WHERE, (), taken(0.5), taken(0.0), taken(1.0), CALL)] * 3
    bundle = train(records(100, call_ms=0.5) + empty, name="called", rules={"runtime": "onnxruntime_cpu"})
    bundles.save(bundle, tmp_path / "bundle.zip")
    engine = GraphEngine(bundles.load(tmp_path / "bundle.zip"))
    graph = FAMILIES["residual_basic"](7)
    prediction = engine.explain(graph)
    assert prediction.call_ms == bundle.call_ms == pytest.approx(0.5)
    assert prediction.latency_ms == engine.latency_ms(graph)
    assert prediction.latency_ms == pytest.approx(0.5 + sum(k.latency_ms for k in prediction.kernels))


def test_the_families_predicted_worst_are_told() -> None:
    wild = [record(number, family="separable", slow=1.0 + number % 2 * 9.0) for number in small("separable", 60)]
    found = worst_families([replace(each, probe=taken(1.0)) for each in wild] + records(180))
    assert found["separable"] > found["residual_basic"]
    assert worst_families(records(20)) == {}


def test_a_misspelt_kind_is_told_with_near_names() -> None:
    with pytest.raises(BuildError, match="no kernel kind 'convv'; did you mean conv"):
        train(records(100), name="x", kinds=["convv"])
    assert list(train(records(100), name="x", kinds=["conv"]).kinds) == ["conv"]


def test_records_that_do_not_belong_together_are_refused() -> None:
    other = replace(record(0), circumstances=replace(WHERE, threads=4))
    with pytest.raises(BuildError, match="its threads is 4, that of others 2; train on each by itself"):
        train([*records(30), other], name="x")
    elsewhere = replace(record(0), circumstances=replace(WHERE, device=Device("slide rule")))
    with pytest.raises(BuildError, match="measured on slide rule, others on abacus"):
        train([*records(30), elsewhere], name="x")
    with pytest.raises(BuildError, match="no records to train on"):
        train([], name="x")


def test_what_was_fitted_is_not_fitted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taught = records(120)
    alone = train(taught, name="taught")
    with Journal(tmp_path / "fits.sqlite") as kept:
        first = train(taught, name="taught", kept=kept)
        fits = len(kept.results())
        assert spent_on_fits(kept) > 0
        monkeypatch.setattr(fit, "_boost", lambda *rows: pytest.fail("fitted again"))
        again = train(taught, name="taught", kept=kept)
        assert len(kept.results()) == fits > len(first.kinds)
    for bundle in (first, again):
        assert {kind: each.regressor.to_bytes() for kind, each in bundle.kinds.items()} == {
            kind: each.regressor.to_bytes() for kind, each in alone.kinds.items()
        }
        assert {kind: each.errors for kind, each in bundle.kinds.items()} == {
            kind: each.errors for kind, each in alone.kinds.items()
        }
        assert bundle.interval == alone.interval


def test_training_takes_so_many_rows_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    boost = fit._boost

    def counted(rows: Any, *more: Any) -> Any:
        sizes.append(len(rows))
        return boost(rows, *more)

    monkeypatch.setattr(fit, "_boost", counted)
    monkeypatch.setattr(fit, "MOST_ROWS", 150)
    bundle = train(records(60), name="taught")
    assert max(sizes) == 150
    assert max(kind.rows for kind in bundle.kinds.values()) > 150


def test_an_interval_of_sums_stays_within_what_a_bundle_holds(tmp_path: Path) -> None:
    """Of few networks those that repeat themselves make a spread of next to nothing, of which errors are any number."""
    config = GemmConfig(1, 8, 8, 8, True, (False, False), (), "float32")
    networks = [Network((MeasuredKernel("fc", config, 1.0 + number % 5),)) for number in range(60)]
    held = {number: [Part("fc", number, 1.0, 1e-3)] for number in range(60)}
    found = interval(networks, held, Speeds(1e9, 1e9, 0.0))
    assert found is not None
    assert found.sums is not None
    assert found.sums[1] == LOG_RATIO_MOST
    bundle = Bundle("few", "1.0", {}, {}, "onnx-2", fallback=Roofline(1e9, 1e9, 0.0), interval=found)
    bundles.save(bundle, tmp_path / "few.zip")
    assert bundles.load(tmp_path / "few.zip").interval == found
