"""A handful of latencies on a new device, and tables of others, give those of all networks in the tables."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from nn_meter.devices.device import Device
from nn_meter.errors import BuildError
from nn_meter.learning.metrics import spearman
from nn_meter.learning.transfer import MOST_ELEMENTS, Known, Transfer, parts_of
from nn_meter.measuring import Circumstances, Measurement, Record
from nn_meter.networks.published_devices import circumstances, read_wide

RNG = np.random.default_rng(5)
NAMES = [" ".join(map(str, RNG.integers(0, 4, 8))) for _ in range(300)]
NETWORKS = list(dict.fromkeys(NAMES))
COSTS = RNG.uniform(0.1, 1.0, (3, 8, 4))
"""Three kinds of devices: what each operator costs in each layer there."""


def latencies(mix: tuple[float, ...]) -> np.ndarray:
    cost = np.tensordot(np.array(mix), COSTS, 1)
    return np.array([2 + sum(cost[i, int(op)] for i, op in enumerate(name.split())) for name in NETWORKS])


DEVICES = {f"phone{i}": tuple(RNG.dirichlet((1, 1, 1)) * RNG.uniform(1, 9)) for i in range(6)}
KNOWN = Known(tuple(DEVICES), tuple(DEVICES), tuple(NETWORKS), np.array([latencies(mix) for mix in DEVICES.values()]))
TRUTH = latencies((0.5, 1.5, 1.0))


def error(found: Transfer, some: list[int]) -> float:
    answer, _ = found.predict({number: float(TRUTH[number]) for number in some})
    return float(np.median(np.abs(answer / TRUTH - 1)))


def test_ten_latencies_of_a_new_device_rank_all_networks() -> None:
    found = Transfer(KNOWN)
    some = found.most_telling(10)
    answer, doubt = found.predict({number: float(TRUTH[number]) for number in some})
    assert (spearman(answer, TRUTH) or 0) > 0.95
    assert error(found, some) < 0.03
    assert np.mean(np.abs(np.log(answer / TRUTH)) < 2 * doubt) > 0.8


def test_more_latencies_leave_less_doubt() -> None:
    found = Transfer(KNOWN)
    some = found.most_telling(20)
    doubts = [found.predict({n: float(TRUTH[n]) for n in some[:count]})[1].mean() for count in (2, 5, 20)]
    assert doubts == sorted(doubts, reverse=True)
    assert error(found, some[:20]) < error(found, some[:2])


def test_what_was_measured_is_not_asked_for_again() -> None:
    found = Transfer(KNOWN)
    first = found.most_telling(5)
    assert not set(first) & set(found.most_telling(5, first))


def test_parts_of_names_that_differ_in_length_tell_nothing() -> None:
    assert parts_of(NETWORKS).shape == (len(NETWORKS), 32)
    assert parts_of(["resnet 18", "vgg"]).shape == (2, 0)


def test_pairs_of_parts_count_where_networks_are_many() -> None:
    names = [f"{a} {b}" for a in "ab" for b in "cd"] * 30
    assert parts_of(names).shape == (120, 4 + 4)
    assert parts_of(names[:40]).shape == (40, 4)


def test_parts_take_bounded_memory() -> None:
    names = [" ".join(f"{place}-{number % 97}" for place in range(200)) for number in range(1000)]
    tracemalloc.start()
    parts_of([*names, "x" * 1_000_000 + " y" * 399])
    assert tracemalloc.get_traced_memory()[1] < 400e6
    tracemalloc.stop()
    several = [" ".join(str((number * place) % 89) for place in range(1, 200)) for number in range(1000)]
    assert parts_of(several).size <= MOST_ELEMENTS


def test_a_device_that_counts_in_whole_steps_is_doubted_more() -> None:
    found = Transfer(KNOWN)
    some = found.most_telling(12)
    exact = found.predict({n: float(TRUTH[n]) for n in some})[1]
    coarse = found.predict({n: 10.0 * round(float(TRUTH[n]) / 2) for n in some})[1]
    assert coarse.mean() > exact.mean()


def test_known_devices_have_networks_in_common() -> None:
    def record(device: str, subject: str) -> Record:
        return Record(subject, Circumstances(Device(device), "unknown"), whole=Measurement((1.0,)))

    known = Known.of([record(d, s) for d in "abc" for s in ("x", "y")] + [record("a", "z")])
    assert (known.devices, known.networks) == (("a_1", "b_1", "c_1"), ("x", "y"))
    assert known.without("b").groups == ("a", "c")
    with pytest.raises(BuildError, match="2 devices do not show"):
        Known.of([record(d, "x") for d in "ab"])
    with pytest.raises(BuildError, match="1 devices do not show"):
        Known.of([Record("x", circumstances(f"1080ti_{n}"), whole=Measurement((1.0,))) for n in (1, 32, 64)])
    with pytest.raises(BuildError, match="no network was measured on all"):
        Known.of([record(d, d) for d in "abc"])


def test_a_column_per_device_is_read(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text("architecture,1080ti_32,gold_6226,raspi4\n1 2,3.5,7,\n3 4,-1,8,9\n", encoding="utf-8")
    found = read_wide(path)
    assert [(r.subject, r.circumstances.device.name, r.circumstances.batch) for r in found.records] == [
        ("1 2", "1080ti", 32), ("1 2", "gold_6226", 1), ("3 4", "gold_6226", 1), ("3 4", "raspi4", 1)
    ]  # fmt: skip
    assert circumstances("1080ti_32").device.kind == "gpu"
    assert len(found.left_out) == 1
    assert found.left_out[0].startswith("wide.csv:3: a latency of -1 ms")
    path.write_text("device,a\nx,1\n", encoding="utf-8")
    with pytest.raises(BuildError, match="first column"):
        read_wide(path)

