"""Test cases come from tables, from other packages, and from what users register."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from nn_meter import plugins
from nn_meter.backends.replay import ReplayBackend, ReplayConfig
from nn_meter.detection import DetectionPlan, cases, detect_rules, known_cases
from nn_meter.detection.cases import find_cases
from nn_meter.detection.testcases import CASES, Case, FusionCase
from nn_meter.errors import BuildError, RegistrationError
from nn_meter.testing import check_testcase

_CODE = """
from nn_meter.detection.testcases import FusionCase

class Mish:
    def __call__(self, b, x, sizes):
        return (b.op("Mul", x, b.op("Tanh", b.op("Softplus", x))),)

class WideRelu(FusionCase):
    def __init__(self):
        super().__init__(("conv", "relu6"))

    @property
    def name(self):
        return "BF_conv_relu6"

class Old:
    def __init__(self, config):
        pass
    def save_testcase(self):
        return {}
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of the user's, and a registry that is empty."""
    monkeypatch.setenv("NN_METER_HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "users_cases.py").write_text(_CODE)
    return tmp_path


def register(folder: Path, kind: str, name: str, called: str) -> None:
    path = folder / f"{name}.yaml"
    facts = {"builtin_name": name, "package_location": ".", "class_module": "users_cases", "implement": "onnx"}
    path.write_text(yaml.safe_dump({**facts, "class_name": called}))
    plugins.register(kind, path)


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_every_case_keeps_the_contract(case: Case) -> None:
    check_testcase(case)


def test_a_case_that_breaks_the_contract_is_told_why() -> None:
    with pytest.raises(AssertionError, match="lacks an attribute of Case"):
        check_testcase(object())  # type: ignore[arg-type]

    class Renamed(FusionCase):
        def first(self, sizes: object = None) -> object:  # type: ignore[override]
            return FusionCase(("dwconv", "bn")).block()

    with pytest.raises(AssertionError, match="BF_conv_relu in the shape 'small': no node of "):
        check_testcase(Renamed(("conv", "relu")))


def test_a_registered_operator_takes_part_in_rules(package: Path, tmp_path: Path) -> None:
    register(package, "operator", "mish", "Mish")
    (case,) = find_cases(["BF_conv_mish"]).values()
    assert [node.op_type for node in case.block().nodes] == ["Conv", "Softplus", "Tanh", "Mul"]
    rules = detect_rules(
        DetectionPlan("replay", cases=("BF_conv_mish",), isolated=False),
        journal=tmp_path / "j.sqlite",
        backend=ReplayBackend(ReplayConfig()),
    )
    assert rules["BF_conv_mish"]["obey"] is False


def test_a_registered_case_is_measured_with_the_others(package: Path, tmp_path: Path) -> None:
    register(package, "testcase", "wide", "WideRelu")
    assert list(known_cases()) == [*CASES, "BF_conv_relu6"]
    rules = detect_rules(
        DetectionPlan("replay", cases=("BF_conv_relu6",), isolated=False),
        journal=tmp_path / "j.sqlite",
        backend=ReplayBackend(ReplayConfig(fusions=frozenset({("Conv", "Clip")}))),
    )
    assert rules["BF_conv_relu6"]["obey"] is True


def test_a_case_for_nn_meters_builder_is_told_from_others(package: Path) -> None:
    register(package, "testcase", "OLD", "Old")
    assert list(known_cases()) == list(CASES)
    with pytest.raises(BuildError, match="'OLD' is written for nn-Meter's builder, whose detect_fusion_rule runs it"):
        find_cases(["OLD"])


@dataclass(frozen=True)
class Point:
    """As of importlib.metadata."""

    value: object
    name: str = "theirs"

    def load(self) -> object:
        if isinstance(self.value, str):
            raise ImportError("no module of that name")
        return self.value


def test_cases_of_other_packages_are_found(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = FusionCase(("conv", "relu6"))
    monkeypatch.setattr(cases, "entry_points", lambda group: [Point(theirs)] if group == "nn_meter.testcases" else [])
    assert find_cases(["BF_conv_relu6"])["BF_conv_relu6"] is theirs
    monkeypatch.setattr(cases, "entry_points", lambda group: [Point("absent:case")])
    with pytest.raises(RegistrationError, match="test case 'theirs': absent:case cannot be loaded"):
        known_cases()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("BF_conv_warp", "no test case 'BF_conv_warp'; did you mean .*no operator 'warp' among conv, convtrans"),
        ("NOM", "no test case 'NOM'; see --list-testcases"),
        ("BF_conv", "no test case 'BF_conv'; did you mean .*see --list-testcases"),
    ],
)
def test_a_name_nobody_knows_is_explained(package: Path, name: str, text: str) -> None:
    with pytest.raises(BuildError, match=text):
        find_cases([name])
