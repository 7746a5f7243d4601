"""One place finds what has a name: rows of this package, entry points of others, what users registered."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from nn_meter import backends, plugins
from nn_meter.backends.replay import ReplayBackend
from nn_meter.cli.main import main
from nn_meter.errors import BackendError, InputError, RegistrationError

CODE = """
from nn_meter.backends.replay import ReplayBackend
from nn_meter.builder.backends import BaseBackend

class Ours(ReplayBackend):
    name = "ours"

class Theirs(BaseBackend):
    pass
"""
EXAMPLE = Path(__file__).parents[1] / "examples" / "small_net.onnx"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NN_METER_HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "users_backends.py").write_text(CODE)
    (tmp_path / "raises.py").write_text("1 / 0\n")
    return tmp_path


def meta(folder: Path, name: str, **facts: object) -> Path:
    path = folder / f"{name}.yaml"
    place = {"package_location": ".", "class_module": "users_backends", "class_name": "Ours"}
    path.write_text(json.dumps({"builtin_name": name, **place, **facts}))
    return path


@pytest.mark.parametrize(
    ("group", "name"),
    [(group, name) for group, row in plugins.GROUPS.items() for name in row.built_in],
)
def test_every_row_of_the_table_is_there(group: str, name: str) -> None:
    assert plugins.load(group, name)
    assert name in plugins.names(group)


def test_runtimes_are_called_what_they_call_themselves() -> None:
    for name in plugins.names("runtime"):
        assert plugins.load("runtime", name).name == name


def test_an_unknown_name_is_answered_with_near_ones_and_with_all(folder: Path) -> None:
    words = "there is no backend 'replai'; did you mean replay.* there are: onnxruntime_cpu, openvino_cpu, mnn, "
    with pytest.raises(BackendError, match=words):
        plugins.load("backend", "replai")
    with pytest.raises(InputError, match="there is no front end"):
        plugins.load("frontend", "x" * 10_000)


def test_what_is_installed_is_found_and_cannot_take_a_name_of_ours(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"replay": "absent:thing", "mine": f"{__name__}:ReplayBackend", "broken": "raises:thing"}
    monkeypatch.setattr(plugins, "_installed", lambda group: places)
    assert plugins.load("backend", "mine") is plugins.load("backend", "replay") is ReplayBackend
    with pytest.raises(BackendError, match=r"backend 'broken': raises:thing cannot be loaded \(ZeroDivisionError"):
        plugins.load("backend", "broken")


@pytest.mark.parametrize("place", ["folder", "archive", "none"])
def test_entry_points_of_others_are_found_wherever_their_package_lies(tmp_path: Path, place: str) -> None:
    group = "nn_meter.backends" if place != "none" else "others.backends"
    files = {
        "METADATA": "Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n",
        "entry_points.txt": f"[{group}]\nmine = mine:Mine\n",
    }
    where = tmp_path / ("theirs.zip" if place == "archive" else "theirs")
    if place == "archive":
        with zipfile.ZipFile(where, "w") as archive:
            for name, text in files.items():
                archive.writestr(f"theirs-1.0.dist-info/{name}", text)
    else:
        for name, text in files.items():
            (where / "theirs-1.0.dist-info").mkdir(parents=True, exist_ok=True)
            (where / "theirs-1.0.dist-info" / name).write_text(text)
    code = "sys.path.append(sys.argv[1]); from nn_meter import plugins; print('mine' in plugins.names('backend'))"
    line = [sys.executable, "-c", f"import sys; {code}", str(where)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stdout == f"{place != 'none'}\n"


def test_what_the_list_shows_can_be_loaded(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugins.register("backend", meta(folder, "users"))
    assert main(["--list-backends"]) == 0
    assert "* users" in capsys.readouterr().out
    assert main(["measure", "--backend", "users", "--seconds", "0.05", str(EXAMPLE)]) == 0
    assert "runs on ours" in capsys.readouterr().out
    assert "users" in backends.available()


def test_a_backend_for_the_builder_alone_says_what_it_lacks(folder: Path) -> None:
    plugins.register("backend", meta(folder, "theirs", class_name="Theirs"))
    with pytest.raises(BackendError, match=r"for nn-Meter's builder.* needs config_type, check, prepare, fused"):
        backends.load("theirs")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"class_module": "raises"}, "ZeroDivisionError: division by zero"),
        ({"class_module": ".a"}, "cannot be loaded"),
        ({"package_location": "~nosuchuser/x"}, "'~nosuchuser/x' names the home of no user here"),
        ({"package_location": "a" * 5000}, "it must be a path that exists"),
        ({"package_location": "a\0b"}, "it must be a path that exists"),
    ],
)
def test_a_meta_that_cannot_be_used_is_an_error(folder: Path, facts: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        plugins.register("backend", meta(folder, "x", **facts))
    assert plugins.registered("backend") == ()


def test_a_name_of_ours_cannot_be_registered(folder: Path) -> None:
    with pytest.raises(RegistrationError, match="'builtin_name' is 'replay'; it must be a name that nn-Meter does not"):
        plugins.register("backend", meta(folder, "replay"))


def test_a_registry_that_is_damaged_says_so(folder: Path) -> None:
    (folder / "home").mkdir()
    (folder / "home" / "registry.yaml").write_text("backends:\n  a: {}\n")
    words = r"registry\.yaml: 'backends\.a\.package_location' is missing; .* delete it and register anew"
    with pytest.raises(RegistrationError, match=words):
        plugins.registered("backend")
