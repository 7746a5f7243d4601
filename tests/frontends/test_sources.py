"""Models that files, folders and names stand for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nn_meter import frontends
from nn_meter.errors import InputError
from nn_meter.frontends import nnmeter_ir, onnx
from nn_meter.frontends.sources import models, spelled

EXAMPLE = Path(__file__).parents[2] / "examples" / "small_net.onnx"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Models of three kinds at two depths, and what lies beside models."""
    place = tmp_path / "models"
    (place / "deep" / "saved" / "variables").mkdir(parents=True)
    (place / ".git").mkdir()
    shutil.copy(EXAMPLE, place / "b.onnx")
    shutil.copy(EXAMPLE, place / ".git" / "hidden.onnx")
    (place / "a.json").write_text(json.dumps(nnmeter_ir.write(onnx.read(EXAMPLE))))
    (place / "labels.json").write_text('{"0": "cat"}')
    (place / "deep" / "README.md").write_text("Not a model.")
    (place / "deep" / "damaged.onnx").write_bytes(b"")
    (place / "deep" / "saved" / "saved_model.pb").touch()
    (place / "deep" / "saved" / "beside.onnx").touch()
    (place / "deep" / "saved" / "variables" / "inner.pb").touch()
    return place


def test_folders_give_every_kind_at_any_depth_in_a_stable_order(folder: Path) -> None:
    heard: list[str] = []
    found = models([folder], note=heard.append)
    wanted = ("a.json", "b.onnx", "deep/damaged.onnx", "deep/saved")
    assert found == tuple(str(folder / name) for name in wanted)
    assert heard == [f"{folder}: no models, left out: deep/README.md, labels.json"]


def test_a_kind_gives_only_its_own(folder: Path) -> None:
    assert models([folder], "onnx") == tuple(
        str(folder / each) for each in ("b.onnx", "deep/damaged.onnx", "deep/saved/beside.onnx")
    )
    assert models([folder], "nnmeter-ir") == (str(folder / "a.json"), str(folder / "labels.json"))


def test_names_and_absent_files_stay_as_they_are(tmp_path: Path) -> None:
    given = ("timm:resnet18", str(tmp_path / "absent.onnx"), "x" * 5000, "nul\0")
    assert models(given) == given
    assert models([str(tmp_path)], "timm") == (str(tmp_path),)


def test_many_left_out_are_counted(folder: Path) -> None:
    for number in range(5):
        (folder / f"{number}.txt").touch()
    heard: list[str] = []
    models([folder], note=heard.append)
    assert heard[0].endswith("0.txt, 1.txt, 2.txt and 4 more")


def test_a_folder_without_models_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    with pytest.raises(InputError, match=r"holds no model; looked for \*\.onnx, \*\.json"):
        models([tmp_path])


def test_a_configuration_is_not_taken_for_nn_meter_ir(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert", "hidden_size": 32}')
    assert frontends.find(tmp_path / "config.json").name == "hf"
    assert frontends.find(tmp_path).name == "hf"


@pytest.mark.parametrize(
    ("model", "kind", "said"),
    [
        (EXAMPLE, "onnx", str(EXAMPLE)), (str(EXAMPLE), None, str(EXAMPLE)), ("resnet18", "timm", "timm:resnet18"),
        ("timm:resnet18", "timm", "timm:resnet18"), ("hf:gpt2", None, "hf:gpt2"), (object(), "torch", ""),
    ],
)  # fmt: skip
def test_a_model_is_spelled_as_every_command_takes_it(model: object, kind: str | None, said: str) -> None:
    assert spelled(model, kind) == said
