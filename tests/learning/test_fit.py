"""From measured kernels to regressors that say what they were trained on."""

from __future__ import annotations

import numpy as np
import pytest

from nn_meter.kernels.kinds import KINDS, BroadcastConfig
from nn_meter.kernels.schema import AROUND, ROOFLINE, Speeds
from nn_meter.learning.fit import Network, fallback_factor, fit_kinds, fit_speeds
from nn_meter.measuring import MeasuredKernel

pytest.importorskip("sklearn")
COST = {"Relu": 1.0, "Tanh": 8.0, "Abs": 2.0}


def sample(op: str, size: int) -> MeasuredKernel:
    config = BroadcastConfig(op, (size,), ((True,),), "float32", "float32")
    return MeasuredKernel("unary", config, 0.001 + COST[op] * size / 1e6)


def networks(count: int = 60) -> list[Network]:
    rng = np.random.default_rng(0)
    return [
        Network(tuple(sample(op, int(rng.integers(1_000, 100_000))) for op in ops))
        for ops in (("Abs",), ("Tanh", "Relu"), ("Tanh", "Relu")) * (count // 3)
    ]


def test_a_regressor_says_what_it_was_trained_on() -> None:
    taken = networks()
    unary = fit_kinds(taken, fit_speeds(taken)).kinds["unary"]
    assert list(unary.categories["op"]) == ["Relu", "Abs", "Tanh"]  # by what they cost
    assert unary.seen["op"] == {"Abs": 20, "Relu": 40, "Tanh": 40}
    assert unary.seen["op with to"]["Relu with float32"] == 40
    assert unary.rows == 100
    assert set(unary.columns) >= set(AROUND)
    assert set(unary.trained_range) == set(unary.columns) - {*unary.categories, *AROUND, ROOFLINE}
    sizes = [s.config.dims[0] for n in taken for s in n.samples]
    assert unary.trained_range["size"] == (min(sizes), max(sizes))
    largest = max(n.samples[0].config.dims[0] for n in taken if n.samples[0].config.op == "Abs")
    assert unary.range_of["op"]["Abs"]["size"][1] == largest < max(sizes)


def test_operators_are_told_apart_by_their_codes() -> None:
    taken = networks()
    speeds = fit_speeds(taken)
    kinds = fit_kinds(taken, speeds).kinds
    for op in COST:
        one = sample(op, 50_000)
        assert Network((one,)).predict_ms(kinds, speeds) == pytest.approx(one.latency_ms, rel=0.3)


def test_a_kind_without_a_regressor_counts_its_roofline() -> None:
    speeds = Speeds(1e9, 1e9, 0.5)
    one = sample("Relu", 1000)
    roofline_ms = speeds.roofline_ms(KINDS[one.kind].work(one.config))
    assert Network((one, one)).predict_ms({}, speeds) == 2 * roofline_ms
    assert fallback_factor([Network((one,))], speeds) == one.latency_ms / roofline_ms


def test_integers_say_nothing_of_what_floats_cost() -> None:
    speeds, one = Speeds(1e9, 1e9, 0.5), sample("Relu", 1000)
    whole = MeasuredKernel("conversion", BroadcastConfig("QuantizeLinear", (9,), ((True,),), "float32", "int8"), 1e3)
    floats = fallback_factor([Network((one,))], speeds)
    assert fallback_factor([Network((whole, one, whole))], speeds) == floats


def test_kernels_measured_by_themselves_are_held_out_by_families_and_know_nothing_around_them() -> None:
    rng = np.random.default_rng(1)
    sizes = rng.integers(1_000, 100_000, 60).tolist()
    taken = [Network((sample(op, size),), str(size)) for size in sizes for op in ("Relu", "Tanh")]
    found = fit_kinds(taken, fit_speeds(taken))
    assert not set(AROUND) & set(found.kinds["unary"].columns)
    held = {taken[number].family for number in found.held}
    assert len(found.held) == 2 * len(held) > 0
