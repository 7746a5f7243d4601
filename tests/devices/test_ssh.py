"""``ssh://``: a real server on loopback, its link cut, its key another's, its disk full, its Python not there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import loopback
import pytest
from loopback import Loopback, sshd
from waiting import LONG_S, running, until

from nn_meter.devices.link import open_link
from nn_meter.devices.ssh import SshLink
from nn_meter.errors import DeviceError
from nn_meter.measuring import Failure, Worker

ROOT = Path(__file__).parents[2]
needs_sshd = pytest.mark.skipif(bool(loopback.MISSING), reason=loopback.MISSING)


def place() -> tuple[str, str, int]:
    return os.getcwd(), os.environ["TMPDIR"], os.getpid()


def parent() -> int:
    return os.getppid()


def content(path: Path) -> bytes:
    return path.read_bytes()


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def wait(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@pytest.fixture(scope="module")
def modules() -> str:
    """What a session finds this package and these tests by."""
    return os.pathsep.join((str(ROOT / "src"), str(ROOT / "tests" / "devices"), str(ROOT / "tests")))


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory, modules: str) -> Iterator[Loopback]:
    folder = tmp_path_factory.mktemp("sshd")
    (folder / "tmp").mkdir()
    with sshd(folder, {"PYTHONPATH": modules, "TMPDIR": str(folder / "tmp")}) as server:
        yield server


@pytest.fixture
def reached(far: Loopback, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Loopback:
    """The server, with its ``ssh`` before others."""
    monkeypatch.setenv("PATH", f"{far.bin}:{os.environ['PATH']}")
    monkeypatch.setenv("NN_METER_HOME", str(tmp_path / "home"))
    return far


def worker(address: str, **more: object) -> Worker:
    return Worker(timeout_s=LONG_S, link=open_link(address), **more)  # type: ignore[arg-type]


def await_nothing(folder: Path) -> None:
    """In a folder."""
    until(lambda: not any(folder.iterdir()))


@pytest.mark.parametrize(
    ("address", "command"),
    [
        ("ssh://pi@board", ["ssh", "pi@board"]),
        ("ssh://board", ["ssh", "board"]),
        ("ssh://pi@board:2222", ["ssh", "-p", "2222", "pi@board"]),
        ("ssh://pi@[fe80::1%eth0]:22", ["ssh", "-p", "22", "pi@fe80::1%eth0"]),
        ("ssh://pi@10.0.0.7/opt/venv/bin/python", ["ssh", "pi@10.0.0.7"]),
    ],
)
def test_an_address_says_whom_to_log_in_as(address: str, command: list[str], tmp_path: Path) -> None:
    link = SshLink.at(address) if not loopback.MISSING else pytest.skip(loopback.MISSING)
    assert list(link.login) == command
    assert link.python == ("/opt/venv/bin/python" if "opt" in address else "python3")


@pytest.mark.parametrize(
    "address",
    ["ssh://", "ssh://-oProxyCommand=x", "ssh://a@-x", "ssh://a b", "ssh://x:port", "ssh://x;reboot", "ssh://x\n"],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(DeviceError, match="write it as ssh://user@host"):
        SshLink.at(address)


@needs_sshd
def test_the_worker_runs_there_in_a_folder_that_goes_with_it(reached: Loopback, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(os.urandom(3 << 19))
    with worker(reached.address) as there:
        folder, temporary, number = there.call(place)  # type: ignore[misc]
        assert Path(folder).parent == reached.folder / "tmp"
        assert folder == temporary
        assert there.call(content, there.attach(model)) == model.read_bytes()
    until(lambda: not running(number))
    await_nothing(reached.folder / "tmp")


@needs_sshd
def test_how_a_program_ends_there_is_told(reached: Loopback) -> None:
    with worker(reached.address) as there:
        crashed = there.call(die, int(signal.SIGSEGV))
        killed = there.call(die, int(signal.SIGKILL))
        assert there.call(wait, 0.0) == 0.0
    assert isinstance(crashed, Failure)
    assert crashed.kind == "crash"
    assert crashed.reason.startswith("the process died of SIGSEGV")
    assert isinstance(killed, Failure)
    assert killed.kind == "memory"
    await_nothing(reached.folder / "tmp")


@needs_sshd
@pytest.mark.parametrize("whose", ["client", "server"])
def test_a_killed_end_leaves_no_process_and_the_work_goes_on(reached: Loopback, whose: str) -> None:
    heard: list[Failure] = []
    with worker(reached.address, waits_s=(0.1, 0.5), lost=heard.append) as there:
        _, _, number = there.call(place)  # type: ignore[misc]
        shell = there.call(parent)
        assert isinstance(shell, int)
        if whose == "client":
            client = there._channel._process  # type: ignore[union-attr]
            client.kill()
            client.wait()
        else:
            for session in reached.sessions():
                os.kill(session, signal.SIGKILL)
        until(lambda: not running(number))
        until(lambda: not running(shell))
        assert there.call(wait, 0.0) == 0.0
    if whose == "server":
        assert [each.kind for each in heard] == ["lost"]
        assert heard[0].reason.startswith(f"the link to {reached.address} was cut")
    await_nothing(reached.folder / "tmp")


@needs_sshd
def test_a_link_cut_in_the_midst_of_a_task_does_it_again(reached: Loopback, tmp_path: Path) -> None:
    heard: list[Failure] = []
    with worker(reached.address, waits_s=(0.1, 0.5), lost=heard.append) as there:

        def cut(done: float, *_: object) -> None:
            if not heard:
                for session in reached.sessions():
                    os.kill(session, signal.SIGKILL)

        assert there.call(telling, tmp_path / "begun", progress=cut) == 3
    assert [each.kind for each in heard] == ["lost"]


def telling(begun: Path, progress: object) -> int:
    """Done at the second try: the first waits to be cut off."""
    first = not begun.exists()
    begun.touch()
    progress(0, 3, None, "")  # type: ignore[operator]
    if first:
        time.sleep(LONG_S)
    return 3


def refused(address: str) -> str:
    with worker(address) as there, pytest.raises(DeviceError) as told:
        there.call(wait, 0.0)
    return str(told.value)


@needs_sshd
def test_another_host_key_is_refused_and_the_advice_forgets_the_old_one(reached: Loopback) -> None:
    known = reached.folder / "known_hosts"
    before = known.read_text()
    known.write_text(f"[127.0.0.1]:{reached.port} {(reached.folder / 'stranger.pub').read_text()}")
    try:
        told = refused(reached.address)
        assert "another machine answers there" in told
        found = re.search(r"ssh-keygen -R ('\S+'|\S+),", told)
        assert found is not None
        assert found[1].strip("'") == f"[127.0.0.1]:{reached.port}"
        known.write_text("")
        told = refused(reached.address)
        assert f"log in once by hand and confirm it: ssh -p {reached.port} " in told
    finally:
        known.write_text(before)


@needs_sshd
def test_a_refused_login_names_what_gives_the_machine_a_key(reached: Loopback) -> None:
    keys = reached.folder / "authorized_keys"
    before = keys.read_text()
    keys.write_text("")
    try:
        told = refused(reached.address)
    finally:
        keys.write_text(before)
    assert "Permission denied" in told
    assert f"ssh-copy-id -p {reached.port} " in told


@needs_sshd
def test_a_python_that_is_not_there_is_named(reached: Loopback) -> None:
    told = refused(f"{reached.bare}/no/such/python")
    assert told.endswith(f"name the one there: {reached.bare}/path/of/python")


@needs_sshd
def test_what_is_not_installed_there_is_named_with_its_line(
    reached: Loopback, tmp_path_factory: pytest.TempPathFactory, modules: str
) -> None:
    with sshd(tmp_path_factory.mktemp("bare"), {"PYTHONPATH": "", "PYTHONNOUSERSITE": "1"}) as bare:
        os.environ["PATH"] = f"{bare.bin}:{os.environ['PATH']}"  # undone by the fixture
        python = bare.folder / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
        python.chmod(0o755)
        told = refused(f"{bare.bare}{python}")
    assert "nn-meter is not installed there: ssh -p " in told
    assert f"{python} -m pip install 'nn-meter[build]==" in told


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@needs_sshd
def test_a_full_disk_there_is_said_and_nothing_of_the_model_stays(
    reached: Loopback, tmp_path_factory: pytest.TempPathFactory, modules: str, tmp_path: Path, small_disk: Path
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(bytes(3 << 19))
    there = {"PYTHONPATH": modules, "TMPDIR": str(small_disk)}
    with sshd(tmp_path_factory.mktemp("full"), there) as full:
        os.environ["PATH"] = f"{full.bin}:{os.environ['PATH']}"  # undone by the fixture
        with worker(full.address) as far:
            path = far.attach(model)
            with pytest.raises(DeviceError, match=r"on the device \(No space left on device\); free some space"):
                far.call(content, path)
        await_nothing(small_disk)
        model.write_bytes(b"smaller")
        with worker(full.address) as far:
            assert far.call(content, far.attach(model)) == b"smaller"  # the advice


@needs_sshd
def test_no_server_is_a_loss_and_no_refusal(reached: Loopback, tmp_path_factory: pytest.TempPathFactory) -> None:
    with sshd(tmp_path_factory.mktemp("over")) as over:
        address = over.address
    with worker(address) as there:
        failed = there.call(wait, 0.0)
    assert isinstance(failed, Failure)
    assert failed.kind == "lost"
    assert "Connection refused" in failed.reason


@needs_sshd
def test_a_folder_that_cannot_be_made_there_is_said(
    reached: Loopback, tmp_path_factory: pytest.TempPathFactory, modules: str
) -> None:
    with sshd(tmp_path_factory.mktemp("shut"), {"TMPDIR": "/proc/nowhere"}) as shut:
        os.environ["PATH"] = f"{shut.bin}:{os.environ['PATH']}"  # undone by the fixture
        told = refused(shut.address)
    assert "allow writing to its TMPDIR" in told
