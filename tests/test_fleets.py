"""A build that several devices share: nothing is lost, nothing twice, whatever device is; and they are levelled."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import loopback
import pytest
from loopback import sshd
from waiting import LONG_S, until

from nn_meter import building, fleets, measure_many
from nn_meter.backends.replay import FakeClock
from nn_meter.building import BuildPlan, build, measured
from nn_meter.cli.main import main
from nn_meter.devices.device import Device
from nn_meter.devices.known import name
from nn_meter.errors import BackendError, BuildError, DeviceError, MeasurementError
from nn_meter.learning.correction import COMMON, corrected
from nn_meter.learning.training import train
from nn_meter.measuring import Failure, Journal, Measurement, Record, fleet
from nn_meter.measuring.asking import tell
from nn_meter.measuring.isolation import FailureKind
from nn_meter.networks import generated
from nn_meter.networks.generated import FAMILIES
from nn_meter.predictors.bundle import Bundle
from nn_meter.predictors.runtime import GraphEngine

pytest.importorskip("sklearn")

ROOT = Path(__file__).parents[1]

NETWORK_S = 0.1
"""By the pretended clock."""


@dataclass
class Board:
    """A pretended device: ``slower`` than others, ``away`` while that is set; ``mishap`` hears which of its networks is
    next, and may say what becomes of it. One that is ``beside`` another waits for it, while that is not away."""

    address: str
    slower: float = 1.0
    processor: str = "abacus 9"
    mishap: Callable[[Board, int], Failure | None] = lambda *_: None
    away: bool = False
    shares_files: bool = False
    measured: int = 0
    tries: int = 0
    beside: Board | None = None
    closed: Event = field(default_factory=Event)

    def lose(self, how: FailureKind = "lost") -> Failure:
        self.away = True
        return Failure(how, f"the link to {self.address} was cut")


class Hand:
    """``Worker`` on a board, in this process."""

    clock = FakeClock()

    def __init__(self, *, link: Board, **_: object) -> None:
        self.link = link

    def __enter__(self) -> Hand:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        self.link.closed.set()

    def call(self, task: Callable[..., Any], *args: Any) -> Any:
        board = self.link
        if board.away:
            board.tries += 1
            return Failure("lost", f"nobody answers at {board.address}")
        if task is tell:
            return Device(board.processor, processor=board.processor), {"runtime": "replay", "runtime_version": "0"}
        board.measured += 1
        for _ in range(20_000):  # and no longer: the other may have nothing to do before this one is over
            if not (other := board.beside) or other.away or board.measured <= other.measured + 3:
                break
            time.sleep(0.001)
        failure = board.mishap(board, board.measured)
        self.clock.advance(NETWORK_S)
        result = failure or task(*args)
        return slower(result, board.slower) if isinstance(result, Record) else result

    def attach(self, path: Path) -> Path:
        return path


def slower(record: Record, factor: float) -> Record:
    def all_of(taken: Measurement | None) -> Measurement | None:
        return taken and replace(taken, values_ms=tuple(factor * value for value in taken.values_ms))

    kernels = tuple(replace(each, latency_ms=factor * each.latency_ms) for each in record.kernels)
    whole, traced, probe = map(all_of, (record.whole, record.traced, record.probe))
    return replace(record, kernels=kernels, whole=whole, traced=traced, probe=probe, elapsed_s=NETWORK_S)


@pytest.fixture
def boards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[str, ...]]:
    """Makes boards and says their addresses."""
    there: dict[str, Board] = {}
    monkeypatch.setenv("NN_METER_HOME", str(tmp_path / "home"))
    for module in (building, fleets):
        monkeypatch.setattr(module, "open_link", there.__getitem__)
        monkeypatch.setattr(module, "Fleet", partial(fleet.Fleet, waits_s=(0.01, 0.02)))
    monkeypatch.setattr(building, "Worker", Hand)
    monkeypatch.setattr(fleet, "Worker", Hand)
    monkeypatch.setattr(building, "train", lambda records, *, name, **_: Bundle(name, "1.0", {}, {}, "onnx-2"))
    monkeypatch.setattr(building, "weights_for", lambda _: {"micro_convs": 1.0, "micro_binary": 1.0})
    for module in (building, fleets):
        monkeypatch.setattr(module, "COMMON_NETWORKS", (("micro_convs", 0), ("micro_binary", 0), ("micro_norms", 0)))
        monkeypatch.setattr(module, "monotonic", Hand.clock)

    def made(*new: Board, even: bool = False) -> tuple[str, ...]:
        if even:
            new[0].beside, new[1].beside = new[1], new[0]
        there.update({each.address: each for each in new})
        return tuple(each.address for each in new)

    return made


def plan(addresses: tuple[str, ...], networks: int = 45, **more: Any) -> BuildPlan:
    return BuildPlan("replay", budget_s=networks * NETWORK_S, detect_s=0, device=addresses[0], kinds=("conv_nchw",),
                     fleet=addresses if len(addresses) > 1 else (), **more)  # fmt: skip


def rows(journal: Path) -> dict[str, tuple[Any, Any]]:
    with Journal(journal) as book:
        return {each.key: (dict(each.item), each.result) for each in book.results() if "lost" not in each.item}


def by_device(journal: Path) -> Counter[str]:
    """How many networks each measured, common ones aside; none may be there twice."""
    with Journal(journal) as book:
        records = [each for each in measured(book)[0] if each.family not in (COMMON, "call")]
    subjects = Counter(each.subject for each in records)
    assert not subjects or max(subjects.values()) == 1
    return Counter(each.circumstances.device.name for each in records)


def test_devices_take_from_one_queue_and_records_say_which_it_was(
    boards: Callable[..., tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name("left", "x://left")
    monkeypatch.setattr(fleets, "COMMON_EVERY_S", 20 * NETWORK_S)
    build(plan(boards(Board("x://left"), Board("x://right"), even=True)), name="x", journal=tmp_path / "j.sqlite")
    found = by_device(tmp_path / "j.sqlite")
    right = next(each for each in found if each != "left")
    assert right.startswith("abacus 9 ")
    assert "x://" not in right
    assert min(found.values()) > 5
    with Journal(tmp_path / "j.sqlite") as book:
        common = [each for each in measured(book)[0] if each.family == COMMON]
    times = Counter((each.subject, each.circumstances.device.name) for each in common)
    assert len(times) == 6
    assert min(times.values()) >= 2  # at first, and from time to time


@pytest.mark.parametrize("how", ["lost", "refused"])  # the latter of what speaks to a phone that was unplugged
def test_what_a_lost_device_had_is_done_by_another_and_it_comes_back(
    how: FailureKind, boards: Callable[..., tuple[str, ...]], tmp_path: Path
) -> None:
    def lost(board: Board, number: int) -> Failure | None:
        return board.lose(how) if number == 15 else None

    right, since = Board("x://right", mishap=lost), list[int]()

    def returns(board: Board, number: int) -> None:
        if right.away:
            since.append(number)
        if len(since) == 3:  # while it was away the left one went on, which waits now for what it has time enough to do
            until(lambda: right.tries >= 3)
            right.away = False
            until(lambda: right.measured > 15)

    addresses = boards(Board("x://left", mishap=returns), right, even=True)
    bundle = build(plan(addresses, 55), name="x", journal=tmp_path / "j.sqlite")
    with Journal(tmp_path / "j.sqlite") as book:
        assert book.losses() > 0
        assert not measured(book)[1]
        assert not [each for each in book.pending() if each.item.get("device", "").endswith("left")]
    assert right.measured > 15  # it was lost in its 15th
    assert min(by_device(tmp_path / "j.sqlite").values()) > 5
    assert any("a device was lost" in note for note in bundle.notes)


def test_a_lease_that_ends_gives_the_work_to_another_and_its_late_answer_counts_for_nothing(
    boards: Callable[..., tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "Fleet", partial(fleet.Fleet, waits_s=(0.0, 0.0), lease_s=10 * NETWORK_S))
    monkeypatch.setattr(fleet, "monotonic", Hand.clock)

    def hangs(board: Board, number: int) -> None:
        if number == 12:
            board.closed.clear()
            board.away = True
            assert board.closed.wait(LONG_S), "nobody ended it"
            assert board.beside
            board.measured = board.beside.measured  # which shall not hold its own work until this one has caught up
            board.away = False

    addresses = boards(Board("x://left"), Board("x://right", mishap=hangs), even=True)
    build(plan(addresses), name="x", journal=tmp_path / "j.sqlite")
    with Journal(tmp_path / "j.sqlite") as book:
        (loss,) = [each for each in book.results() if "lost" in each.item]
        assert isinstance(loss.result, Failure)
        assert loss.result.reason == "x://right held its work for more than 1 s"
    by_device(tmp_path / "j.sqlite")


def test_a_network_that_every_device_is_lost_at_is_what_cuts_the_links(
    boards: Callable[..., tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, run = [], building.measure_network

    def cuts(family: str, seed: int, *rest: Any) -> Any:
        drawn.append((family, seed))
        worst = next((each for each in drawn if each[0] == "micro_binary"), None)
        return Failure("lost", "the link was cut") if (family, seed) == worst else run(family, seed, *rest)

    monkeypatch.setattr(building, "measure_network", cuts)
    build(plan(boards(Board("x://left"), Board("x://right"))), name="x", journal=tmp_path / "j.sqlite")
    with Journal(tmp_path / "j.sqlite") as book:
        (failed,) = measured(book)[1]
        assert failed.kind == "lost"
        assert book.losses() == 3


def test_a_build_that_is_ended_goes_on_with_nothing_lost_and_nothing_twice(
    boards: Callable[..., tuple[str, ...]], tmp_path: Path
) -> None:
    class Ended(Exception):
        pass

    def ended(number: int) -> Callable[..., None]:
        def hear(done: float, total: float | None, eta_s: float | None, what: str) -> None:
            if what == f"measuring, {number} networks":
                raise Ended

        return hear

    journal, before = tmp_path / "j.sqlite", dict[str, Any]()
    for number in (3, 20, 33):
        addresses = boards(Board("x://left"), Board("x://right"), Board("x://third"))
        with pytest.raises(Ended):
            build(plan(addresses[::1 if number % 2 else -1]), name="x", journal=journal, progress=ended(number))
        now = rows(journal)
        assert {key: now[key] for key in before} == before
        assert len(now) == number
        before = now
    build(plan(addresses), name="x", journal=journal)
    assert {key: row for key, row in rows(journal).items() if key in before} == before
    by_device(journal)


def test_a_slower_device_is_levelled_and_named_with_a_warning(
    boards: Callable[..., tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "train", train)
    monkeypatch.setattr(building, "weights_for", lambda _: {"residual_basic": 1.0})
    monkeypatch.setattr(generated, "MANY", 0.0)  # of many kernels each device tells for itself what profiling them adds
    name("left", "x://left")
    addresses = boards(Board("x://left"), Board("x://right", 1.3), even=True)
    odd = build(plan(addresses), name="x", journal=tmp_path / "j.sqlite")
    found = by_device(tmp_path / "j.sqlite")
    assert min(found.values()) > 5
    with Journal(tmp_path / "j.sqlite") as book:
        records, _ = measured(book)
    here = records[0].circumstances
    alone = train([each if each.circumstances == here else replace(slower(each, 1 / 1.3), circumstances=here)
                   for each in records], name="y", kinds=("conv_nchw",))  # fmt: skip
    for graph in map(FAMILIES["residual_basic"], range(10)):
        assert GraphEngine(odd).latency_ms(graph) == pytest.approx(GraphEngine(alone).latency_ms(graph), rel=0.01)
    first, second = odd.environment["fleet"]
    assert (odd.device, first["device"], first["factor"]) == ("abacus 9", "left", 1.0)
    assert second["factor"] == pytest.approx(1.3)
    assert second["spread"] < 0.01
    assert {each["device"]: each["networks"] for each in (first, second)} == found
    (warning,) = [note for note in odd.notes if note.startswith("warning: ")]
    assert f"networks measured on {second['device']}, at 1.300 times the latency of left" in warning
    assert "devices of one kind differ by 10% at most" in warning


def test_all_devices_lost_says_how_to_go_on_and_that_works(
    boards: Callable[..., tuple[str, ...]], tmp_path: Path
) -> None:
    def lost(board: Board, number: int) -> Failure | None:
        return board.lose() if number == 20 else None

    left, right = Board("x://left", mishap=lost), Board("x://right", mishap=lost)
    journal = tmp_path / "j.sqlite"
    with pytest.raises(MeasurementError) as told:
        build(plan(boards(left, right, even=True)), name="x", journal=journal)
    assert str(told.value).startswith("no device is left (replay on x://left: nobody answers at x://left; ")
    assert str(told.value).endswith("go on with --resume and those that are there again")
    before = rows(journal)
    right.away = False
    build(plan(("x://right",)), name="x", journal=journal)
    after = rows(journal)
    assert {key: after[key] for key in before} == before
    assert len(after) > len(before)
    assert len(by_device(journal)) == 2


def test_a_first_device_that_is_lost_at_once_is_none_to_compare_with(
    boards: Callable[..., tuple[str, ...]], tmp_path: Path
) -> None:
    def lost(board: Board, number: int) -> Failure | None:
        return board.lose() if number == 2 else None

    addresses = boards(Board("x://left", mishap=lost), Board("x://right"))
    build(plan(addresses), name="x", journal=tmp_path / "j.sqlite")
    build(plan(addresses[1:], 60), name="x", journal=tmp_path / "j.sqlite")
    with Journal(tmp_path / "j.sqlite") as book:
        found = corrected(measured(book)[0])
    assert [(each.factor, each.networks > 30) for each in found.levels] == [(1.0, True), (None, False)]
    assert found.levels[1].odd


def test_a_device_that_is_away_at_first_joins_later_and_without_any_nothing_begins(
    boards: Callable[..., tuple[str, ...]], tmp_path: Path
) -> None:
    right, other = Board("x://right", away=True), Board("x://other", away=True, processor="slide rule")

    def comes(board: Board, number: int) -> None:
        right.away = other.away = number < 20

    left = Board("x://left", mishap=comes)
    with pytest.raises(MeasurementError, match="nobody answers at x://right"):
        build(plan(boards(right, other)), name="x", journal=tmp_path / "j.sqlite")
    assert not (tmp_path / "j.sqlite").exists()
    build(plan(boards(left, right, other, even=True)), name="x", journal=tmp_path / "j.sqlite")
    assert right.measured > 8
    assert other.measured == 0  # another kind, which is left out


def test_another_kind_of_device_is_refused_unless_asked_for(
    boards: Callable[..., tuple[str, ...]], tmp_path: Path
) -> None:
    addresses = boards(Board("x://left"), Board("x://right", processor="slide rule"), even=True)
    with pytest.raises(DeviceError) as told:
        build(plan(addresses), name="x", journal=tmp_path / "j.sqlite")
    assert "the processor differs: abacus 9 and slide rule; build for each kind by itself" in str(told.value)
    assert not (tmp_path / "j.sqlite").exists()
    build(plan(addresses, mixed=True), name="x", journal=tmp_path / "j.sqlite")
    assert len(by_device(tmp_path / "j.sqlite")) == 2
    with pytest.raises(DeviceError, match="x://left is named twice"):
        build(plan((*addresses, "x://left")), name="x", journal=tmp_path / "j.sqlite")


def test_what_one_device_measured_alone_cannot_be_shared_unless_it_goes_by_its_name(
    boards: Callable[..., tuple[str, ...]], tmp_path: Path
) -> None:
    addresses = boards(Board("x://left"), Board("x://right"))
    build(plan(addresses[:1], 32), name="x", journal=tmp_path / "j.sqlite")
    with pytest.raises(BuildError, match="were measured on abacus 9 alone, which cannot be compared"):
        build(plan(addresses, 50), name="x", journal=tmp_path / "j.sqlite")
    name("left", "x://left")
    build(plan(addresses[:1], 32), name="x", journal=tmp_path / "k.sqlite")
    build(plan(addresses, 40), name="x", journal=tmp_path / "k.sqlite")
    assert by_device(tmp_path / "k.sqlite")["left"] > 30


def test_models_are_measured_by_who_is_free_and_failures_stand_beside(
    boards: Callable[..., tuple[str, ...]], tmp_path: Path
) -> None:
    def lost(board: Board, number: int) -> Failure | None:
        return board.lose() if number == 2 else None

    (tmp_path / "bad.onnx").write_bytes(b"no model")
    models = [FAMILIES["micro_convs"](0), tmp_path / "bad.onnx", *map(FAMILIES["micro_binary"], range(6))]
    left, right = Board("x://left"), Board("x://right", mishap=lost)
    first, bad, *rest = measure_many(models, "replay", devices=boards(left, right, even=True), seconds=0.1)
    assert isinstance(bad, BackendError)
    assert "bad.onnx" in str(bad)
    taken = [each.environment[fleets.MEASURED_ON] for each in (first, *rest) if isinstance(each, Measurement)]
    assert len(taken) == 7
    assert len(set(taken)) == 2
    left.mishap, left.measured, right.away = lost, 0, True
    told = measure_many(models[2:], "replay", devices=("x://left", "x://right"), seconds=0.1)
    assert [isinstance(each, Measurement) for each in told] == [True] + 5 * [False]
    assert str(told[-1]).startswith("no device is left (replay on x://left: nobody answers at x://left; ")


@pytest.mark.heavy
@pytest.mark.skipif(bool(loopback.MISSING), reason=loopback.MISSING)
def test_two_real_links_share_a_build_and_one_of_them_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"PYTHONPATH": str(ROOT / "src")}
    cut: list[int] = []
    drawn: Counter[str] = Counter()

    class Watched(fleets.Shared):
        def over(self, job: str, result: Record | Failure) -> None:
            super().over(job, result)
            if not isinstance(result, Record) or result.family in (COMMON, "call"):
                return
            drawn[result.circumstances.device.name] += 1
            if not cut and drawn["right"] == 5:
                cut.extend(right.sessions())
                for session in cut:
                    os.kill(session, signal.SIGKILL)
                drawn.clear()

    # the budget is spent at once when both have measured since the cut
    monkeypatch.setattr(building, "monotonic", lambda: 1e6 * (bool(cut) and min(drawn["left"], drawn["right"]) > 15))
    monkeypatch.setattr(building, "Shared", Watched)

    with sshd(tmp_path / "l", there) as left, sshd(tmp_path / "r", there) as right:
        ssh = tmp_path / "bin" / "ssh"
        ssh.parent.mkdir()
        ssh.write_text(f'#!/bin/sh\ncase " $* " in *" -p {left.port} "*) exec {left.bin}/ssh "$@";; esac\n'
                       f'exec {right.bin}/ssh "$@"\n')  # fmt: skip
        ssh.chmod(0o755)
        monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
        monkeypatch.setenv("NN_METER_HOME", str(tmp_path / "home"))
        name("left", left.address)
        name("right", right.address)
        shared = BuildPlan("replay", detect_s=0, timeout_s=LONG_S, fleet=("left", "right"), kinds=("conv_nchw",))
        bundle = build(shared, name="x", journal=tmp_path / "j.sqlite")
        assert cut
        model = ROOT / "examples" / "small_net.onnx"
        taken = measure_many([model] * 4, "replay", devices=("left", "right"), seconds=0.1)
        assert all(isinstance(each, Measurement) for each in taken)
    found = by_device(tmp_path / "j.sqlite")
    assert set(found) == {"left", "right"}
    with Journal(tmp_path / "j.sqlite") as book:
        assert book.losses() == 1
        assert not measured(book)[1]
    assert [each["device"] for each in bundle.environment["fleet"]] == ["left", "right"]


@pytest.mark.parametrize(
    ("given", "device", "fleet"),
    [((), "local", ()), (("x://left",), "x://left", ()), (("x://left", "y"), "x://left", ("x://left", "y"))],
)
def test_the_command_takes_several_devices(
    given: tuple[str, ...], device: str, fleet: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[BuildPlan] = []

    def build(plan: BuildPlan, **_: object) -> None:
        asked.append(plan)
        raise BuildError("enough")

    monkeypatch.setenv("NN_METER_HOME", str(tmp_path))
    monkeypatch.setattr(building, "build", build)
    options = [word for each in given for word in ("--device", each)] + ["--mixed"] * (len(given) == 2)
    assert main(["build", "--backend", "replay", *options]) == 2
    assert [(each.device, each.fleet, each.mixed) for each in asked] == [(device, fleet, len(given) == 2)]
