"""What users register with nn-Meter's meta files: kept in one file, found again, forgotten, refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from nn_meter import builder, plugins
from nn_meter.builder.config import builder_config
from nn_meter.errors import RegistrationError, StorageError

_CODE = """
class Swish:
    def __call__(self, b, x, sizes):
        return (b.op("Mul", x, b.op("Sigmoid", x)),)

class Doubled:
    def __init__(self, config):
        self.latency = {}
    def save_testcase(self):
        return {"block": {"model": "somewhere", "shapes": []}}
    def load_latency(self, testcase):
        self.latency = testcase
    def test(self):
        return self.latency["block"]["latency"].avg < 2

class Wide:
    def __init__(self, config, batch_size=1):
        self.config, self.input_tensor_shape = config, [[config["CIN"]]]
    def save_model(self, path):
        from pathlib import Path
        from nn_meter.backends.onnx_writer import as_bytes
        from nn_meter.detection.drawings import Sizes, draw
        Path(path).write_bytes(as_bytes(draw(("relu", "fc"), (1, self.config["CIN"]), Sizes(cout=8))))

class Sampler:
    def prior_config_sampling(self, count):
        return [{"CIN": 8 + i} for i in range(count)]
    def finegrained_config_sampling(self, configs, count):
        return [dict(each, CIN=each["CIN"] + 1) for each in configs]

class Parser:
    def __init__(self, kernel_type):
        self.kernel_type = kernel_type
    def get_feature_by_config(self, config):
        return [config["CIN"]]
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of the user's."""
    monkeypatch.setenv("NN_METER_HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "users_module.py").write_text(_CODE)
    return tmp_path


def meta(folder: Path, name: str, called: str, **more: str) -> Path:
    path = folder / f"{name}.yaml"
    facts = {"builtin_name": name, "package_location": ".", "class_module": "users_module"}
    path.write_text(yaml.safe_dump({**facts, "class_name": called, **more}))
    return path


def test_registered_found_and_forgotten(package: Path) -> None:
    plugins.register("operator", meta(package, "swish", "Swish", implement="onnx"))
    plugins.register("operator", meta(package, "swish", "Swish", implement="torch"))
    assert [entry.implement for entry in plugins.registered("operator")] == ["onnx", "torch"]
    assert yaml.safe_load((package / "home" / "registry.yaml").read_text())["operators"]["swish"]["onnx"] == {
        "package_location": str(package), "class_module": "users_module", "class_name": "Swish",
    }  # fmt: skip
    plugins.unregister("operator", "swish", "torch")
    assert plugins.find("operator", "swish", "torch") is None
    assert plugins.find("operator", "swish") is not None
    plugins.unregister("operator", "swish")
    assert plugins.registered("operator") == ()


def test_two_at_once_do_not_undo_each_other(package: Path) -> None:
    metas = [meta(package, f"op{i}", "Swish", implement="onnx") for i in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda path: plugins.register("operator", path), metas))
    assert len(plugins.registered("operator")) == 12


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"class_name": ""}, "'class_name' is ''; it must be a text"),
        ({"class_name": "Absent"}, r"users_module\.Absent cannot be loaded from"),
        ({"class_module": "absent_module"}, "repair the package, or unregister it"),
        ({"package_location": "nowhere"}, "nowhere does not"),
        ({"implement": 3}, "'implement' is 3; it must be a text; each operator needs builtin_name,"),
    ],
)
def test_a_meta_file_that_cannot_be_used_is_refused(package: Path, change: dict[str, str], text: str) -> None:
    path = meta(package, "swish", "Swish", **{"implement": "onnx", **change})
    with pytest.raises(RegistrationError, match=text):
        plugins.register("operator", path)
    assert plugins.registered("operator") == ()


def test_files_that_cannot_be_read_are_named(package: Path) -> None:
    with pytest.raises(RegistrationError, match=r"absent\.yaml: the meta file cannot be read"):
        plugins.register("operator", package / "absent.yaml")
    (package / "home").mkdir()
    (package / "home" / "registry.yaml").write_text("operators: [1]")
    with pytest.raises(RegistrationError, match=r"registry\.yaml: operators must be keys with values, not a list"):
        plugins.registered("operator")


def test_forgetting_what_is_not_there(package: Path) -> None:
    with pytest.raises(RegistrationError, match="no kernel 'wide' is registered; registered kernels: none"):
        plugins.unregister("kernel", "wide")


def test_a_home_that_is_no_folder(package: Path) -> None:
    (package / "home").write_text("")
    with pytest.raises(StorageError, match="set NN_METER_HOME"):
        plugins.register("operator", meta(package, "swish", "Swish", implement="onnx"))


def test_registered_operators_and_cases_take_part(package: Path, workspace: Path) -> None:
    plugins.register("operator", meta(package, "swish", "Swish", implement="onnx"))
    plugins.register("testcase", meta(package, "DOUBLED", "Doubled", implement="onnx"))
    builder_config.set("BASIC_TESTCASES", ["conv_swish"], "ruletest")
    builder_config.set("OTHER_TESTCASES", ["DOUBLED"], "ruletest")
    assert list(builder.generate_testcases()) == ["BF_conv_swish", "DOUBLED"]
    rules = builder.detect_fusion_rule({"DOUBLED": {"block": {"latency": "1.0 +- 0"}}})
    assert rules == {"DOUBLED": {"obey": True}}


def test_a_registered_kernel_is_sampled_measured_and_trained(package: Path, workspace: Path) -> None:
    roles = {"sampler_module": "users_module", "sampler_name": "Sampler"}
    roles |= {"parser_module": "users_module", "parser_name": "Parser", "implement": "onnx"}
    plugins.register("kernel", meta(package, "wide", "Wide", **roles))
    forest, data = builder.build_initial_predictor_by_data("wide", "replay", init_sample_num=12)
    assert forest.n_features_in_ == 1
    assert len(data["wide"]) == 12
