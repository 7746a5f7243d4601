"""nn-Meter's workspace: its files, its keys, the one global, and the commands that make and try it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nn_meter import plugins
from nn_meter.builder.backends import list_backends
from nn_meter.builder.config import ConfigManager, add_json, builder_config, create_workspace, read_results
from nn_meter.cli.main import main
from nn_meter.errors import BuildError


def test_a_new_workspace_has_nn_meters_keys(tmp_path: Path) -> None:
    folder = create_workspace(tmp_path / "w", {"THREADS": 2}) / "configs"
    rules = yaml.safe_load((folder / "ruletest_config.yaml").read_text())
    assert rules["HW"] == 28
    assert rules["SHAPE_1D"] == 428
    assert len(rules["BASIC_TESTCASES"]) == 79
    assert rules["LAYERS_1D"] == ["fc"]
    kernels = yaml.safe_load((folder / "predictorbuild_config.yaml").read_text())["KERNELS"]
    assert kernels["conv-bn-relu"] == {
        "INIT_SAMPLE_NUM": 10000, "FINEGRAINED_SAMPLE_NUM": 20, "ITERATION": 3, "ERROR_THRESHOLD": 0.1,
    }  # fmt: skip
    assert len(kernels) == 16


def test_what_the_user_edited_is_kept(workspace: Path) -> None:
    before = (workspace / "configs" / "ruletest_config.yaml").read_text()
    create_workspace(workspace, {})
    assert (workspace / "configs" / "ruletest_config.yaml").read_text() == before


def test_the_configuration_is_read_and_changed(workspace: Path) -> None:
    assert builder_config.get("HW", "ruletest") == 6
    assert builder_config.get("WORKSPACE", "predbuild") == str(workspace / "predictor_build")
    builder_config.set("HW", 7, "ruletest")
    assert builder_config.get("HW", "ruletest") == 7
    assert builder_config.get("NOTHING", "backend") is None


def test_without_a_workspace_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"no module 'ruletest'; read a workspace with builder_config\.init"):
        ConfigManager().get("HW", "ruletest")
    with pytest.raises(BuildError, match=r"ruletest_config\.yaml: the configuration cannot be read .* nn-meter create"):
        ConfigManager().init(tmp_path)


def test_a_configuration_that_is_not_yaml_is_named(workspace: Path) -> None:
    (workspace / "configs" / "backend_config.yaml").write_text("a: [")
    with pytest.raises(BuildError, match=r"backend_config\.yaml: the configuration: not YAML"):
        ConfigManager().init(workspace)


def test_results_are_joined(tmp_path: Path) -> None:
    add_json(tmp_path / "r.json", {"conv": {"a": {"latency": 1}}})
    add_json(tmp_path / "r.json", {"conv": {"b": {"latency": 2}}})
    assert read_results(tmp_path / "r.json") == {"conv": {"a": {"latency": 1}, "b": {"latency": 2}}}


def test_create_and_connect_say_nn_meters_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "w"
    assert main(["create", "--onnxruntime-workspace", str(folder)]) == 0
    assert capsys.readouterr().out == (
        f"(nn-Meter) Workspace {folder} for onnxruntime platform has been created. "
        f"Users could edit experiment config in {folder}/configs/.\n"
    )
    assert main(["connect", "--backend", "replay", "--workspace", str(folder)]) == 0
    assert capsys.readouterr().out == "(nn-Meter) hello backend !\n"
    assert main(["connect", "--backend", "replai", "--workspace", str(folder)]) == 2
    assert "did you mean replay?" in capsys.readouterr().err


_PACKAGE = """
from nn_meter.builder.backends import BaseBackend
from nn_meter.builder.backend_meta.utils import Latency

class Mine(BaseBackend):
    def profile(self, converted_model, metrics=("latency",), input_shape=None, **kwargs):
        return {"latency": Latency(float(self.configs["SPEED"]), 0.0)}
"""


def test_a_registered_backend_has_a_workspace_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NN_METER_HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(tmp_path / "package")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "my_backend_module.py").write_text(_PACKAGE)
    (tmp_path / "default.yaml").write_text("SPEED: 3\n")
    (tmp_path / "meta.yaml").write_text(
        "builtin_name: mine\npackage_location: package\nclass_module: my_backend_module\nclass_name: Mine\n"
        "defaultConfigFile: default.yaml\n"
    )
    assert main(["create", "--customized-workspace", str(tmp_path / "w"), "--backend", "mine"]) == 2
    assert "registered: none" in capsys.readouterr().err
    plugins.register("backend", tmp_path / "meta.yaml")
    assert main(["create", "--customized-workspace", str(tmp_path / "w"), "--backend", "mine"]) == 0
    assert main(["connect", "--backend", "mine", "--workspace", str(tmp_path / "w")]) == 0
    assert builder_config.get("SPEED", "backend") == 3
    assert [each for each in list_backends() if "mi" in each or "mnn" in each] == ["mnn", "* mine"]
