"""A home with two registered predictors, and the command line as a call."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from nn_meter.cli.main import main
from nn_meter.predictors.bundle import Bundle, save
from nn_meter.predictors.registration import register

EXAMPLE = Path(__file__).parents[2] / "examples" / "small_net.onnx"


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def home(tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder in which ``tiny_cpu`` 1.0 and ``tiny_npu`` 2.0 are registered."""
    home = tmp_path / "home"
    monkeypatch.setenv("NN_METER_HOME", str(home))
    for name in ("NN_METER_DEBUG", "NN_METER_PREDICTOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    for bundle in (tiny, replace(tiny, name="tiny_npu", version="2.0", device="")):
        package = tmp_path / f"{bundle.name}.zip"
        save(bundle, package)
        meta = tmp_path / f"{bundle.name}.yaml"
        meta.write_text(f"name: {bundle.name}\nversion: {bundle.version}\ncategory: cpu\npackage_location: {package}\n")
        register(meta)
    return home


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line; gives its exit code and what it wrote."""

    def call(*arguments: object) -> Result:
        capsys.readouterr()
        try:
            code = main([str(each) for each in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        written = capsys.readouterr()
        return Result(code, written.out, written.err)

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two copies of the example and a file that is no model."""
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("a.onnx", "c.onnx"):
        (folder / name).write_bytes(EXAMPLE.read_bytes())
    (folder / "b.onnx").write_bytes(b"this is no model")
    return folder


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compares text with the file of that name; ``NN_METER_ACCEPT=1`` writes the files anew."""

    def compare(name: str, text: str) -> None:
        path = Path(__file__).with_name("golden") / name
        if os.environ.get("NN_METER_ACCEPT"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8")

    return compare
