"""The fusion test cases: complete and drawable, what they name is what fusion rules read; those of other packages and
of users take part."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nn_meter import plugins
from nn_meter.backends.replay import ReplayBackend, ReplayConfig
from nn_meter.detection import DetectionPlan, detect_rules, known_cases
from nn_meter.detection.cases import BASIC, CASES, CHAINS, MON, TODAY, Case, FusionCase, find_cases, pair
from nn_meter.detection.drawings import Sizes, draw
from nn_meter.errors import BuildError, RegistrationError, RuleError
from nn_meter.ir.graph import verify
from nn_meter.kernels.rules import read_rules
from nn_meter.testing import check_testcase

SMALL = Sizes(hw=8, cin=4, cout=6, length=12, tokens=5)

_CODE = """
from nn_meter.detection.cases import FusionCase

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


THEIRS = FusionCase(("conv", "relu6"))


def test_cases_of_other_packages_are_found(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = {"theirs": f"{__name__}:THEIRS"}
    monkeypatch.setattr(plugins, "_installed", lambda group: points if group == "nn_meter.testcases" else {})
    assert find_cases(["BF_conv_relu6"])["BF_conv_relu6"] is THEIRS
    points["theirs"] = "absent:case"
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


def test_nn_meters_pairs_are_all_there() -> None:
    names = [case.name for case in BASIC]
    assert len(names) == len(set(names)) == 79
    assert names[0] == "BF_add_add"
    assert names[-1] == "BF_se_relu"
    assert len(CASES) == len(BASIC) + 1 + len(CHAINS) + len(TODAY)


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_every_case_is_drawn(case: FusionCase) -> None:
    for graph in case.graphs(SMALL).values():
        verify(graph)


@pytest.mark.parametrize("case", [*BASIC, *CHAINS, *TODAY], ids=lambda case: case.name)
def test_the_block_holds_what_the_parts_hold(case: FusionCase) -> None:
    def operators(*graphs: object) -> list[str]:
        return sorted(node.op_type for graph in graphs for node in graph.nodes)  # type: ignore[attr-defined]

    first, second, block = case.first(SMALL), case.second(SMALL), case.block(SMALL)
    assert operators(first, second) == operators(block)
    assert [block.tensors[name].shape for name in block.outputs] == [
        second.tensors[name].shape for name in second.outputs
    ]


def test_a_chain_waits_for_the_rule_of_its_beginning() -> None:
    assert CASES["BF_conv_bn_relu"].requires == {"BF_conv_bn": True}
    assert CASES["BF_conv_relu"].requires == {}
    assert all(name in CASES for case in CASES.values() for name in case.requires)


def test_two_of_a_kind_are_told_apart() -> None:
    assert list(CASES["BF_relu_relu"].graphs(SMALL)) == ["relu_1", "relu_2", "block"]


def test_a_pair_with_a_dense_layer_is_tried_on_a_vector() -> None:
    assert pair("fc", "relu").block(SMALL).tensors["input_0"].shape == (1, 12)
    assert pair("conv", "relu").block(SMALL).tensors["input_0"].shape == (1, 4, 8, 8)


def test_a_shared_producer_has_every_outcome() -> None:
    assert set(MON.graphs(SMALL)) == {
        "block", "relu_relu", "relu_dwconv", "dwconv", "dwconv_relu_relu", "dwconv_relu",
    }  # fmt: skip
    assert len(MON.block(SMALL).outputs) == 2
    assert set(MON.outcomes) == set(MON.obeys)


def test_the_rules_that_cases_decide_can_be_read() -> None:
    rules = read_rules({name: {"obey": True} for name in CASES})
    assert rules.warnings == ()
    assert rules.fuses("conv", "Gelu")


def test_an_operator_nobody_knows_is_refused() -> None:
    with pytest.raises(RuleError, match="no operator 'warp'; there are conv, "):
        draw(("conv", "warp"), (1, 4, 8, 8), SMALL)
