"""What the pages say works: every block of commands and of Python in README and docs is run, page by page and in order,
in a folder with the files that they name.

Lines above a block, invisible on the page, say what it needs: ``<!-- needs: torch -->`` an optional package or a
backend's one, ``<!-- long: mnn -->`` that and minutes. What takes minutes is run where heavy tests are, with what
``SHORTER`` makes of it; single commands that do are in ``LONG``. What is run nowhere is in ``NEVER``, with the
reason. In ``console`` blocks lines after ``$`` are commands and the others what they print, numbers to three digits;
``NN_METER_ACCEPT=1`` writes them anew.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import loopback
import page_files
import pytest

from nn_meter.plugins import load, names
from nn_meter.predictors.bundle import Bundle, save
from nn_meter.predictors.registration import register

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = ROOT / "examples"

NEVER = {
    "python3 -m venv .venv": "installs from the network; .ci/run does it in a fresh clone",
    "scripts/test": "would run this test; .ci/run does it in a fresh clone",
    "pip install": "installs from the network, what is not there yet; below, that the extras exist",
    "adb": "needs a phone; tests/devices/test_adb.py has Debian's adb and a phone of its own",
    "nn-meter devices add pixel": "as adb",
    "nn-meter measure model.onnx --backend tflite_cpu": "as adb",
    "nn-meter build --backend tflite_cpu": "as adb",
    "nn-meter predict --predictor pixel_cpu": "as adb",
    "nn-meter build": "measures for twenty minutes, and seconds are too few to train on; tests/test_building.py builds",
    "nn-meter detect-rules": "measures for minutes; tests/detection detects single rules",
    "from nn_meter.builder import builder_config, detect": "measures 38 blocks; tests/builder does, on what pretends",
    "from nn_meter.builder import build_latency": "measures thousands of kernels; tests/builder does, on what pretends",
    'answers = nn_meter.measure_many(candidates, "onnxruntime_cpu", d': "needs devices; tests/test_fleets.py has two",
    "python -m fuzz": "takes minutes on every processor; tests/test_fuzz.py feeds and kills a little of the same",
    "PYTHONPATH=src python bench/": "times what nothing else may run beside",
    "boards = RayExecutor": "needs a cluster with boards; tests/api/test_predict_many.py does where Ray is installed",
}
"""Beginning of a command, or of a block of Python, to why it is not run."""

LONG = ("nn-meter serve", "curl")
"""Beginnings of commands that take minutes, or ask what does."""

SHORTER = (
    (r"--budget \S+", "--budget 20s"),
    (r"^nn-meter serve", "nn-meter serve --port 0"),
    (r"^(nn-meter evaluate --predictor \S+ --backend) (?:pytorch_eager|litert)", r"\1 onnxruntime_cpu"),
)
"""What is written otherwise where it is run, and how: enough to see that it works, not for an answer to be good."""

NAMED = ("cortexA76cpu_tflite21", "A", "B", "my_cpu")
"""Predictors that pages ask; one that is registered under a published name is taken before it."""

_BLOCK = re.compile(r"(?:^<!-- (long|needs): ([^\n]+) -->\n\n?)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?")

Run = Callable[..., Any]


@dataclass(frozen=True)
class Block:
    """``mark`` says whether it takes minutes, ``package`` what it needs."""

    mark: str
    package: str
    language: str
    text: str

    def commands(self) -> Iterator[tuple[str, str]]:
        """Each command with what it prints, empty where the page does not say."""
        if self.language == "sh":
            yield from ((line, "") for line in self.text.splitlines() if line and not line.startswith("#"))
        if self.language == "yaml":
            yield from ((command, "") for command in re.findall(r"^- run: (.*)$", self.text, re.MULTILINE))
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


def _takes_minutes(page: Path) -> bool:
    return any(
        block.mark == "long" or any(command.startswith(LONG) for command, _ in block.commands())
        for block in blocks(page)
    )


def _named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=_named)
@pytest.mark.usefixtures("place")
def test_a_page_does_what_it_says(page: Path, run: Run, sshd_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{sshd_path}{os.environ['PATH']}")
    told = _told(page, run, sshd_path, long=False)
    if os.environ.get("NN_METER_ACCEPT"):
        text = page.read_text(encoding="utf-8")
        for (command, said), found in told.items():
            text = text.replace(f"$ {command}\n{said}", f"$ {command}\n{found}")
        page.write_text(text, encoding="utf-8")
        return
    for (_, said), found in told.items():
        assert alike(said, found), f"{page.name} says\n{said}\nand the command\n{found}"


@pytest.mark.heavy
@pytest.mark.parametrize("page", [page for page in PAGES if _takes_minutes(page)], ids=_named)
@pytest.mark.usefixtures("place")
def test_a_page_does_what_takes_minutes(page: Path, run: Run, sshd_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{sshd_path}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    _told(page, run, sshd_path, long=True)


def _told(page: Path, run: Run, sshd_path: str, long: bool) -> dict[tuple[str, str], str]:
    """What commands of ``console`` blocks print, by the command and what the page says."""
    told: dict[tuple[str, str], str] = {}
    scope: dict[str, Any] = {"variants": ["models/one.onnx", "models/two.onnx"]}
    with ExitStack() as stack:
        asked: Run = _Served(stack, run) if long else run
        for block in blocks(page):
            if block.mark == "long" and not long:
                continue
            if block.package and not (sshd_path if block.package == "sshd" else find_spec(_module(block.package))):
                continue
            scope |= page_files.needed(block.package)
            if block.language == "python" and not block.text.startswith((*NEVER,)):
                exec(compile(_shorter(block.text) if long else block.text, str(page), "exec"), scope)
            for command, said in block.commands():
                if not command.startswith((*NEVER, *(() if long else LONG))):
                    found = answered(_shorter(command) if long else command, asked)
                    if block.language == "console":
                        told[command, said] = found
    return told


def _module(package: str) -> str:
    """What is imported of a package, or of the one that a backend needs."""
    return str(load("backend", package).package.module) if package in names("backend") else package


def _shorter(text: str) -> str:
    for pattern, instead in SHORTER:
        text = re.sub(pattern, instead, text)
    return text


class _Served:
    """Runs commands of nn-meter, and those around it: a server that stays until the page ends, and who asks it."""

    def __init__(self, stack: ExitStack, run: Run) -> None:
        self._stack, self._run, self._address = stack, run, ""

    def __call__(self, *arguments: str) -> Any:
        if arguments[0] == "serve":
            command = [sys.executable, "-m", "nn_meter", *arguments, "--folder", "served"]
            server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            self._stack.callback(server.communicate)
            self._stack.callback(server.terminate)
            assert server.stdout
            self._address = server.stdout.readline().split()[-1].rstrip("/")
            return Ran(0, self._address, "")
        return self._run(*arguments)

    def other(self, name: str, arguments: list[str]) -> Any:
        """A command that is not nn-meter's."""
        there = [re.sub(r"http://127\.0\.0\.1:\d+", self._address, each) for each in arguments]
        if name == "python":
            name, there = sys.executable, [str(ROOT / there[0]), *there[1:]]
        done = subprocess.run([name, *there], capture_output=True, text=True)
        if name == "curl":
            assert json.loads(done.stdout)["predictions"][0]["latency_ms"] > 0
        return Ran(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Ran:
    """What a command gave."""

    code: int
    out: str
    err: str


def answered(command: str, run: Run) -> str:
    """What the command prints; a command that says and writes nothing is taken for one that does nothing."""
    if "--backend onnxruntime_cpu" in command:
        pytest.importorskip("onnxruntime")
    line, _, target = command.partition(" > ")
    name, *arguments = shlex.split(line, comments=True)
    others = {"curl", "python"} if isinstance(run, _Served) else set()
    assert name in {"nn-meter", "cat"} | others, f"no test knows how to run: {command}"
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    if name == "cat":
        subprocess.run(["sh", "-c", command], check=True, env={"GITHUB_STEP_SUMMARY": "summary.md", **os.environ})
        return ""
    result = run.other(name, arguments) if isinstance(run, _Served) and name != "nn-meter" else run(*arguments)
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
            if command.startswith((*NEVER, *LONG)):
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
        assert block.mark or block.language in ("sh", "console", "python", "yaml") or "nn-meter " not in block.text, (
            f"a block of commands needs its language, sh or console: {block.text}"
        )


@pytest.mark.parametrize("start", [*NEVER, *LONG])
def test_what_is_left_out_stands_on_a_page(start: str) -> None:
    there = [block for page in PAGES for block in blocks(page)]
    assert any(block.text.startswith(start) or any(c.startswith(start) for c, _ in block.commands()) for block in there)


def test_a_page_may_be_off_in_the_last_digits_only() -> None:
    assert alike("a  1.2345 ms", "a 1.2340 ms")
    assert not alike("a 1.23 ms", "a 1.33 ms")
    assert not alike("a 1.23 ms", "b 1.23 ms")
    assert not alike("a 1.23 ms", "a 1.23 ms more")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_leads_to_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert ":" in target or (page.parent / target).exists(), f"{page.name} leads to {target}"


EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_what_a_block_needs_exists(page: Path) -> None:
    """A name that is none would leave the block out wherever the tests run."""
    packages = {re.split(r"[^\w-]", each)[0] for extra in EXTRAS.values() for each in extra}
    marks = re.findall(r"<!-- ([\w ]+): (\S+)", page.read_text(encoding="utf-8"))
    assert {mark for mark, _ in marks} <= {"needs", "long"}
    assert {package for _, package in marks} <= {"sshd", *names("backend"), *packages, *EXTRAS}


def test_extras_that_pages_install_are_there() -> None:
    asked = [part for page in PAGES for part in re.findall(r"pip install '?nn-meter\[([\w,]+)\]", page.read_text())]
    assert asked
    assert {extra for each in asked for extra in each.split(",")} <= EXTRAS.keys()
