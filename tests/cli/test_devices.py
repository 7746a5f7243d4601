"""``nn-meter devices`` and ``--device``: what was reached is listed, and goes by its name into what is made."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import loopback
import pytest
from loopback import Loopback, sshd
from waiting import LONG_S

from nn_meter.backends import Named
from nn_meter.devices import known
from nn_meter.devices.device import Device
from nn_meter.devices.here import here
from nn_meter.devices.link import open_link
from nn_meter.errors import DeviceError
from nn_meter.measuring import Worker, ask

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "corpus" / "models"
Run = Callable[..., Any]
pytestmark = pytest.mark.skipif(bool(loopback.MISSING), reason=loopback.MISSING)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    with sshd(tmp_path_factory.mktemp("sshd"), {"PYTHONPATH": str(ROOT / "src")}) as server:
        yield server


@pytest.fixture
def board(server: Loopback, run: Run, monkeypatch: pytest.MonkeyPatch) -> str:
    """A device of that name."""
    monkeypatch.setenv("PATH", f"{server.bin}:{os.environ['PATH']}")
    said = run("devices", "add", "board", server.address)
    assert said.out == f"(nn-Meter) board is {server.address}; see what it has: nn-meter devices check board\n"
    return "board"


def test_devices_are_listed_named_and_forgotten(run: Run, board: str, server: Loopback) -> None:
    head, local, row = run("devices").out.splitlines()
    assert head.split() == ["NAME", "ADDRESS", "PROCESSOR", "CORES", "SYSTEM", "SEEN"]
    assert local.split()[0] == "local"
    assert row.split() == ["board", server.address, "-", "-", "-", "-"]
    again = run("devices", "add", "board", "ssh://elsewhere")
    assert again.code == 2
    assert "first run nn-meter devices remove board" in again.err
    assert run("devices", "remove", "board").code == 0  # the advice
    assert run("devices", "add", "board", "ssh://elsewhere").code == 0
    known.seen(server.address, Device("a board", processor="Arm", cores=4, system="Linux 6"))
    assert re.search(r"-  +\S+  +Arm  +4  +Linux 6  +20\d\d-\d\d-\d\d$", run("devices").out, re.MULTILINE)
    assert run("devices", "remove", server.address).code == 0
    unknown = run("devices", "remove", "bord")
    assert unknown.code == 2
    assert "there are: board" in unknown.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("add", "board"), "devices add needs NAME and ADDRESS, not 1 words"),
        (("add", "a/b", "ssh://x"), "is no name"),
        (("add", "ssh", "ssh://x"), "how addresses begin"),
        (("add", "x", "shs://x"), "did you mean ssh"),
        (("check", "bord"), "did you mean board"),
    ],
)
def test_what_cannot_be_done_is_said(run: Run, board: str, words: tuple[str, ...], said: str) -> None:
    found = run("devices", *words)
    assert found.code == 2
    assert said in found.err


def test_a_damaged_list_says_what_to_do(run: Run, board: str) -> None:
    known.file().write_text('[{"address": 3}]')
    found = run("devices")
    assert found.code == 2
    assert "devices.json: the list of devices" in found.err
    assert "remove it" in found.err
    known.file().unlink()
    assert run("devices").code == 0


def test_a_check_says_what_a_device_has_and_lacks(run: Run, board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nn_meter.cli.devices._CHECK_S", LONG_S)
    found = run("devices", "check", board)
    assert found.code == 0
    assert re.search(r"^python: +3\.", found.out, re.MULTILINE)
    assert re.search(r"^replay +\S", found.out, re.MULTILINE)
    missing = [line for line in found.out.splitlines() if " no: " in line]
    phones = [line for line in missing if line.startswith("tflite_")]
    assert all("install it with: pip install 'nn-meter[" in line for line in missing if line not in phones)
    assert all("see adb devices" in line or "install Android's platform tools" in line for line in phones)


def test_models_are_measured_there_by_the_devices_name(run: Run, board: str) -> None:
    replay = ("--backend", "replay", "--device", board, "--seconds", "0.1", "--json")
    found = run("measure", *replay, CORPUS / "tagger.onnx")
    assert found.code == 0, found.err
    assert json.loads(found.out)["measurements"][0]["environment"]["python"].startswith("3.")
    assert known.known()[0].seen


def test_a_device_that_refuses_ends_the_command_with_its_reason(run: Run, board: str, server: Loopback) -> None:
    found = run("measure", "--backend", "replay", "--device", f"{server.bare}/no/python", CORPUS / "tagger.onnx")
    assert found.code == 2
    assert f"name the one there: {server.bare}/path/of/python" in found.err


def test_records_say_what_they_were_measured_on(board: str) -> None:
    with Worker(timeout_s=LONG_S, link=open_link(board)) as worker:
        where = ask(worker, Named("replay"))
    assert where.device.name == "board"
    assert where.facts()["cpu"] == here().facts()["cpu"]
    assert sys.executable not in str(where)


def test_names_are_checked_where_they_are_kept(home: Path) -> None:
    with pytest.raises(DeviceError, match="is no name"):
        known.name("../x", "ssh://x")
