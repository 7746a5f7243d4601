"""What the pages say works: every block of commands and of Python in README and docs is run, page by page and in order,
in a folder with the files that they name.

A block that needs what is not here has a line above it, invisible on the page: ``<!-- not run: why -->``; or, where it
is an optional package, ``<!-- needs: torch -->``. Single commands are in ``SKIPPED``. In ``console`` blocks lines after
``$`` are commands and the others what they print, numbers to three digits; ``NN_METER_ACCEPT=1`` writes them anew.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import loopback
import page_files
import pytest

from nn_meter.predictors.bundle import Bundle, save
from nn_meter.predictors.registration import register

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = ROOT / "examples"

SKIPPED = {
    "python3 -m venv .venv": "installs from the network; .ci/run does it in a fresh clone",
    "scripts/test": "would run this test; .ci/run does it in a fresh clone",
    "pip install": "installs from the network",
    "nn-meter build": "measures for twenty minutes; tests/test_building.py builds in seconds",
    "curl": "asks a server; tests/serving does",
    "nn-meter serve": "serves until it is stopped; tests/serving asks it",
    "nn-meter detect-rules": "measures for minutes; tests/detection detects single rules",
}
"""Beginning of a command to why it is not run here."""

NAMED = ("cortexA76cpu_tflite21", "A", "B", "my_cpu")
"""Predictors that pages ask; one that is registered under a published name is taken before it."""

_BLOCK = re.compile(r"(?:^<!-- (not run|needs): ([^\n]+) -->\n\n?)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?")

Run = Callable[..., Any]


@dataclass(frozen=True)
class Block:
    """``mark`` says why it is not run, or what it needs."""

    mark: str
    reason: str
    language: str
    text: str

    def commands(self) -> Iterator[tuple[str, str]]:
        """Each command with what it prints, empty where the page does not say."""
        if self.language == "sh":
            yield from ((line, "") for line in self.text.splitlines() if line and not line.startswith("#"))
        for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:] if self.language == "console" else ():
            command, _, said = part.partition("\n")
            yield command, said


def blocks(page: Path) -> list[Block]:
    return [Block(*(each or "" for each in found)) for found in _BLOCK.findall(page.read_text(encoding="utf-8"))]


@pytest.fixture
def place(tiny: Bundle, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the files and a home with the predictors that the pages name."""
    place = tmp_path / "place"
    (place / "models").mkdir(parents=True)
    shutil.copytree(EXAMPLES, place / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("model.onnx", "models/one.onnx", "models/two.onnx"):
        shutil.copy(EXAMPLES / "small_net.onnx", place / name)
    page_files.write(place)
    for name in (*NAMED, "mine"):
        save(replace(tiny, name=name), tmp_path / f"{name}.zip")
        meta = place / ("meta.yaml" if name == "mine" else f"{name}.yaml")
        meta.write_text(f"name: {name}\nversion: 9.0\ncategory: cpu\npackage_location: {tmp_path / name}.zip\n")
        if name in NAMED:
            register(meta)
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "100")
    return place


@pytest.fixture(scope="module")
def sshd_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What goes before PATH so that ``ssh`` logs in to this machine; empty where there is no server for it."""
    if loopback.MISSING:
        yield ""
        return
    python = f'PATH="{Path(sys.executable).parent}:$PATH"; export PATH'
    with loopback.sshd(tmp_path_factory.mktemp("sshd"), {"PYTHONPATH": str(ROOT / "src")}, python) as server:
        yield f"{server.bin}{os.pathsep}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.usefixtures("place")
def test_a_page_does_what_it_says(
    page: Path, run: Run, sshd_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{sshd_path}{os.environ['PATH']}")
    told: dict[tuple[str, str], str] = {}
    names: dict[str, Any] = {"variants": ["models/one.onnx", "models/two.onnx"]}
    for block in blocks(page):
        if block.mark == "not run":
            continue
        if block.mark == "needs" and not (sshd_path if block.reason == "sshd" else find_spec(block.reason)):
            continue
        if block.language == "python":
            names |= page_files.modules() if block.reason == "torch" else {}
            exec(compile(block.text, str(page), "exec"), names)
        for command, said in block.commands():
            if any(command.startswith(start) for start in SKIPPED):
                continue
            found = answered(command, run)
            if block.language == "console":
                told[command, said] = found
    if os.environ.get("NN_METER_ACCEPT"):
        text = page.read_text(encoding="utf-8")
        for (command, said), found in told.items():
            text = text.replace(f"$ {command}\n{said}", f"$ {command}\n{found}")
        page.write_text(text, encoding="utf-8")
        return
    for (_, said), found in told.items():
        assert alike(said, found), f"{page.name} says\n{said}\nand the command\n{found}"


def answered(command: str, run: Run) -> str:
    """What the command prints; a command that says and writes nothing is taken for one that does nothing."""
    if "--backend onnxruntime_cpu" in command:
        pytest.importorskip("onnxruntime")
    line, _, target = command.partition(" > ")
    name, *arguments = shlex.split(line, comments=True)
    assert name == "nn-meter", f"no test knows how to run: {command}"
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    result = run(*arguments)
    assert result.code == 0, f"{command}: {result.err}"
    if target:
        Path(target.strip()).write_text(result.out)
    after = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    assert result.out or after != before, command
    return result.out


@pytest.mark.heavy
@pytest.mark.usefixtures("place")
def test_the_tutorial_works_in_a_fresh_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a new user has it: a clone, a virtual environment, the package with a runtime, the page in a shell."""
    there, clone, venv = ROOT / "docs" / "tutorial.md", tmp_path / "clone", tmp_path / "venv"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pip = subprocess.run([venv / "bin" / "pip", "install", "--quiet", f"{clone}[build]"], capture_output=True)
    if pip.returncode:
        pytest.skip(f"not installed here: {pip.stderr.decode()[-200:]}")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("PATH", f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}")

    def shown(*command: str) -> str:
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    code, ran = "variants = ['models/one.onnx', 'models/two.onnx']\n", 0
    for block in blocks(there):
        if block.language == "python":
            code += block.text
        for command, said in block.commands():
            if any(command.startswith(start) for start in SKIPPED):
                continue
            found, ran = shown("sh", "-c", command), ran + 1
            assert block.language != "console" or alike(said, found), f"{command} says\n{found}\nand not\n{said}"
    shown("python", "-c", code)
    assert ran >= 10
    assert str(venv) in shown("python", "-c", "import nn_meter; print(nn_meter.__file__)")


def alike(said: str, found: str) -> bool:
    """Equal but for what is behind the third digit of numbers."""
    if _NUMBER.sub("#", said).split() != _NUMBER.sub("#", found).split():
        return False
    pairs = zip(_NUMBER.findall(said), _NUMBER.findall(found), strict=True)
    return all(float(a) == pytest.approx(float(b), rel=5e-3) for a, b in pairs)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_command_of_a_page_goes_by_the_test(page: Path) -> None:
    for block in blocks(page):
        assert block.mark or block.language in ("sh", "console", "python") or "nn-meter " not in block.text, (
            f"a block of commands needs its language, sh or console: {block.text}"
        )
        assert not block.mark or len(block.reason) > 2


@pytest.mark.parametrize("start", SKIPPED)
def test_what_is_skipped_stands_on_a_page(start: str) -> None:
    found = (command for page in PAGES for block in blocks(page) for command, _ in block.commands())
    assert any(command.startswith(start) for command in found)


def test_a_page_may_be_off_in_the_last_digits_only() -> None:
    assert alike("a  1.2345 ms", "a 1.2340 ms")
    assert not alike("a 1.23 ms", "a 1.33 ms")
    assert not alike("a 1.23 ms", "b 1.23 ms")
    assert not alike("a 1.23 ms", "a 1.23 ms more")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_leads_to_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert ":" in target or (page.parent / target).exists(), f"{page.name} leads to {target}"
