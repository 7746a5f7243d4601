"""Links: this machine's, and what holds of any other, shown on one that is slow, elsewhere, and can be cut."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from waiting import LONG_S

from nn_meter import __version__
from nn_meter.devices.link import Channel, LocalLink, ProcessChannel, open_link
from nn_meter.errors import DeviceError, MeasurementError
from nn_meter.limits import Limit
from nn_meter.measuring import Failure, Worker
from nn_meter.measuring.wire import READY
from nn_meter.progress import Progress


def home() -> str:
    return os.environ["HOME"]


def content(path: Path) -> bytes:
    return path.read_bytes()


def present(path: Path) -> bool:
    return path.exists()


def wait(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


class FarChannel(ProcessChannel):
    """Greets first, as a shell does; each line takes its time; a cut takes the program's exit status along."""

    def __init__(self, command: Sequence[str], variables: dict[str, str], link: FarLink) -> None:
        super().__init__(command, variables)
        self.link = link
        self.cut_at = 0
        self.gone = False
        self.greeting: str | None = "Welcome to the far machine"

    def send(self, line: str) -> None:
        self.cut_at -= 1
        if self.link.cut or self.cut_at == 0:
            self.gone = True
            raise BrokenPipeError
        super().send(line)

    def receive(self, timeout_s: float) -> str | None:
        time.sleep(self.link.delay_s)
        if self.greeting:
            greeting, self.greeting = self.greeting, None
            return greeting
        end = time.monotonic() + timeout_s
        while not self.link.cut and time.monotonic() < end:
            line = super().receive(0.02)
            if line is not None:
                return line
        if self.link.cut:
            raise EOFError
        return None

    def wait(self, timeout_s: float) -> int | None:
        return None if self.link.cut or self.gone else super().wait(timeout_s)


@dataclass
class FarLink:
    """A machine of its own as far as its folder goes."""

    folder: Path
    delay_s: float = 0.01
    cut: bool = False
    opened: list[FarChannel] = field(default_factory=list)
    address: str = "far://machine"
    shares_files: bool = False
    worker: Sequence[str] = ("sh", "-c", f'cd "$HOME"; exec {sys.executable} -P -m nn_meter.measuring.worker')

    def variables(self) -> dict[str, str]:
        return {**os.environ, "HOME": str(self.folder), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def refusal(self, said: str) -> str:
        return ""

    def open(self, command: Sequence[str]) -> Channel:
        self.opened.append(FarChannel(command, self.variables(), self))
        return self.opened[-1]


@contextmanager
def channel(code: str) -> Iterator[ProcessChannel]:
    opened = LocalLink().open([sys.executable, "-c", code])
    try:
        yield opened
    finally:
        opened.close()
        opened.close()


def test_this_machine_runs_programs_within_a_time_limit() -> None:
    link = open_link("local")
    done = link.run([sys.executable, "-c", "import sys; print('x'); sys.exit('why')"], timeout_s=LONG_S)
    assert (done.status, done.stdout, done.stderr) == (1, "x\n", "why\n")
    with pytest.raises(DeviceError, match=r"still running after 0\.1 s"):
        link.run([sys.executable, "-c", "import time; time.sleep(100)"], timeout_s=0.1)
    with pytest.raises(DeviceError, match="no-such-program: cannot be started"):
        link.run(["no-such-program"], timeout_s=1)
    with pytest.raises(DeviceError, match="no-such-program: cannot be started"):
        link.open(["no-such-program"])


def test_a_channel_carries_lines_and_keeps_the_last_words() -> None:
    with channel("import sys; print(input()[::-1]); print('oh', file=sys.stderr); sys.exit(4)") as opened:
        opened.send("abc")
        assert opened.receive(LONG_S) == "cba"
        assert opened.wait(LONG_S) == 4
        assert opened.said() == "oh"
        for _ in range(2):
            with pytest.raises(EOFError):
                opened.receive(LONG_S)
    with channel("input()") as opened:
        assert opened.receive(0.05) is None


def test_an_unknown_address_names_those_that_exist() -> None:
    with pytest.raises(DeviceError, match="did you mean local\\? known: adb, local, ssh"):
        open_link("locl")
    with pytest.raises(DeviceError, match="no link to a device 'usb://1'"):
        open_link("usb://1")
    with pytest.raises(DeviceError, match="without anything behind it"):
        open_link("local://x")


def test_a_worker_measures_where_its_link_leads(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(os.urandom(3 << 19))  # more than is sent at once
    there = tmp_path / "there"
    there.mkdir()
    with Worker(timeout_s=LONG_S, link=FarLink(there)) as worker:
        assert worker.call(home) == str(there)
        path = worker.attach(model)
        assert not path.is_absolute()
        assert not [*there.iterdir()]
        assert worker.call(content, path) == model.read_bytes()
        (there / path).unlink()
        assert worker.call(present, path) is False  # it is not sent again
    with Worker(timeout_s=LONG_S) as worker:
        assert worker.attach(model) == model
    with pytest.raises(DeviceError, match=r"nothing: cannot be sent to far://machine \(No such file"):
        Worker(timeout_s=LONG_S, link=FarLink(there)).attach(tmp_path / "nothing")


def test_a_file_that_does_not_fit_there_is_a_refusal_that_says_so(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(bytes(3 << 19))
    limited = ("sh", "-c", f'ulimit -f 1000; cd "$HOME"; exec {sys.executable} -P -m nn_meter.measuring.worker')
    there = tmp_path / "there"
    there.mkdir()
    said = r"far://machine: .* cannot be written on the device \(File too large\); free some space"
    with Worker(timeout_s=LONG_S, link=FarLink(there, worker=limited)) as worker:
        path = worker.attach(model)
        with pytest.raises(DeviceError, match=said):
            worker.call(content, path)
        assert worker.call(wait, 0.0) == 0.0


CUT = Failure("lost", "the link to far://machine was cut")


def test_a_cut_link_is_a_failure_and_the_worker_goes_on_once_it_is_back(tmp_path: Path) -> None:
    link = FarLink(tmp_path)
    with Worker(timeout_s=LONG_S, link=link) as worker:
        assert worker.call(wait, 0.0) == 0.0
        link.cut = True
        assert worker.call(wait, 0.0) == CUT
        assert worker.call(wait, 0.0) == CUT
        link.cut = False
        assert worker.call(wait, 0.0) == 0.0
    assert len(link.opened) == 3


def test_a_lost_link_is_tried_again_and_its_files_and_its_task_come_again(tmp_path: Path) -> None:
    link, heard = FarLink(tmp_path), list[Failure]()

    def lost(failure: Failure) -> None:
        heard.append(failure)
        link.cut = len(heard) < 3

    model = tmp_path / "model.onnx"
    model.write_bytes(b"model")
    with Worker(timeout_s=LONG_S, link=link, waits_s=(0.0, 0.01, 0.02), lost=lost) as worker:
        path = worker.attach(model)
        assert worker.call(content, path) == b"model"
        (tmp_path / path).unlink()
        link.cut = True
        assert worker.call(content, path) == b"model"
        assert heard == [CUT] * 3


def test_a_link_that_does_not_come_back_ends_the_work(tmp_path: Path) -> None:
    link = FarLink(tmp_path, cut=True)
    with (
        Worker(timeout_s=LONG_S, link=link, waits_s=(0.0, 0.01)) as worker,
        pytest.raises(MeasurementError, match=r"did not come back within 0\.01 s: .* go on with --resume"),
    ):
        worker.call(wait, 0.0)


def test_a_task_that_cuts_the_link_each_time_is_a_failure_of_its_own(tmp_path: Path) -> None:
    link = FarLink(tmp_path)
    cutting = link.open

    def opened(command: Sequence[str]) -> Channel:
        channel = cutting(command)
        assert isinstance(channel, FarChannel)
        channel.cut_at = 2  # the task, after the first request
        return channel

    link.open = opened  # type: ignore[method-assign]
    with Worker(timeout_s=LONG_S, link=link, waits_s=(0.0,)) as worker:
        assert worker.call(wait, 0.0) == CUT
    assert len(link.opened) == 3


def test_another_version_there_is_refused(tmp_path: Path) -> None:
    old = ("sh", "-c", "read line; echo nn-meter is ready: 2.9; cat")
    with (
        Worker(timeout_s=LONG_S, link=FarLink(tmp_path, worker=old)) as worker,
        pytest.raises(DeviceError, match=r"nn-meter 2\.9 is there, and .* pip install 'nn-meter\[build\]=="),
    ):
        worker.call(wait, 0.0)


def test_a_slow_link_is_waited_for_no_longer_than_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Worker(timeout_s=LONG_S, link=FarLink(tmp_path, delay_s=0.1)) as worker:
        assert worker.call(wait, 0.1) == 0.1
        monkeypatch.setattr(worker, "_timeout_s", 1.0)
        failed = worker.call(wait, LONG_S)
        assert isinstance(failed, Failure)
        assert failed.kind == "timeout"


def test_the_program_ends_with_its_standard_input(tmp_path: Path) -> None:
    link = FarLink(tmp_path)
    opened = link.open(link.worker)
    assert isinstance(opened, FarChannel)
    opened.send('{"processors": null}')
    while not (opened.receive(LONG_S) or "").startswith(READY):
        pass
    opened.send(json.dumps({"task": f"{wait.__module__}:wait", "args": [1000.0], "told": False}))
    assert opened._process.stdin is not None
    opened._process.stdin.close()
    assert opened._process.wait(LONG_S) == 0
    opened.close()


def test_a_program_that_never_stops_printing_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nn_meter.devices.link.PRINTED_BYTES", Limit(100_000, "bytes printed by a program"))
    with pytest.raises(DeviceError, match=r"yes: \d+,\d+ bytes printed by a program; at most 100,000 are read"):
        LocalLink().run(["yes"], timeout_s=LONG_S)
    with channel("import sys\nwhile True: print('x' * 1000)") as talker:
        assert talker.receive(LONG_S) == "x" * 1000


@pytest.mark.parametrize("said", ['{"value": "x"}', '{"failure": 3}', "{}", '{"value": [[[[[[[[[[1]]]]]]]]]]}'])
def test_an_answer_that_is_none_is_said(said: str) -> None:
    worker = Worker(timeout_s=LONG_S, link=Answering(said=said))
    with worker, pytest.raises(MeasurementError, match="no result of hello"):
        worker.call(hello)


@pytest.mark.parametrize("said", ["3", "[]", "[" * 100_000, '{"heard": 3}', '{"heard": [NaN, null, null, "x"]}'])
def test_what_is_no_message_costs_the_task(said: str) -> None:
    with Worker(timeout_s=LONG_S, link=Answering(said=said)) as worker:
        assert isinstance(worker.call(hello_slowly, progress=lambda *told: None), Failure)


def hello() -> int:
    return 1


def hello_slowly(progress: Progress) -> int:
    progress(0.0, None, None, "x")
    return 1


@dataclass(frozen=True)
class Answering(LocalLink):
    """A machine whose worker says the same whatever it is asked."""

    said: str = ""

    @property
    def worker(self) -> Sequence[str]:
        code = "import sys\nfor said in sys.argv[1:]: sys.stdin.readline(); print(said, flush=True)"
        return (sys.executable, "-c", code, f"{READY}{__version__}", self.said)
