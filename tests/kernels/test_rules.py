"""Rule files: what they may say, and what a broken one is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nn_meter.errors import RuleError
from nn_meter.kernels.rules import load_rules, read_rules
from nn_meter.runtimes.fusion import fuse


def test_pairs_chains_and_mon() -> None:
    rules = read_rules(
        {
            "BF_conv_relu": {"obey": True},
            "BF_conv_add": {"obey": False},
            "BF_add_relu": {"obey": None},
            "BF_conv_bn_relu": {"obey": True},
            "MON": {"obey": 0},
            "FN": {"obey": True},
        }
    )
    assert rules.fuses("conv", "relu")
    assert not rules.fuses("conv", "add")
    assert [name for name, _ in rules.blocks] == ["conv-bn-relu", "se", "hswish", "channelshuffle", "gap"]
    assert not rules.shares
    assert rules.warnings == ()


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (("conv", "add"), "rule BF_conv_add says no"),
        (("add", "relu"), "rule BF_add_relu is undecided"),
        (("relu", "conv"), "no rule BF_relu_conv"),
    ],
)
def test_a_pair_that_does_not_fuse_says_why(pair: tuple[str, str], reason: str) -> None:
    rules = read_rules({"BF_conv_add": {"obey": False}, "BF_add_relu": {"obey": None}})
    assert rules.why_not(*pair) == reason


def test_a_rule_that_names_an_unknown_operator_is_warned_about() -> None:
    rules = read_rules({"BF_dense_relu": {"obey": True}}, "my.json")
    assert rules.warnings == (
        "my.json: rule 'BF_dense_relu' names the unknown operator dense and has no effect",
    )


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "the fusion rules: not JSON"),
        ("[]", "expected an object of rules, found list"),
        (
            '{"BF_conv_relu": true}',
            "rule 'BF_conv_relu' needs the form {\"obey\": true, false or null}, found True",
        ),
        (
            '{"BF_conv_relu": {"obey": "yes"}}',
            "rule 'BF_conv_relu': 'obey' must be true, false or null, found 'yes'",
        ),
        ('{"runtime": 3}', "'runtime' must be a text, found 3"),
    ],
)
def test_a_broken_rule_file_says_what_is_wrong(tmp_path: Path, content: str, text: str) -> None:
    path = tmp_path / "rules.json"
    path.write_text(content)
    with pytest.raises(RuleError) as error:
        load_rules(path)
    assert str(error.value).startswith(f"{path}: ")
    assert text in str(error.value)


def test_a_missing_rule_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuleError, match="the fusion rules cannot be read"):
        load_rules(tmp_path / "none.json")


def test_what_rules_deny_the_runtime_does_not_fuse() -> None:
    from nn_meter.ir import parse

    graph = parse(
        "input x: float32[1,32,8,8]\nconst w: float32[32,32,1,1]\n"
        "y = Conv(x, w) {kernel_shape=(1, 1)}\nz = Relu(y)\noutput z"
    )

    def labels(rules: dict[str, object]) -> list[str]:
        return [
            k.label
            for k in fuse(graph, read_rules({"runtime": "onnxruntime_cpu", **rules})).kernels
            if k.nodes
        ]

    assert labels({}) == ["Conv-relu (nchwc)"]
    assert labels({"BF_conv_relu": {"obey": None}}) == ["Conv (nchwc)", "Relu (nchwc)"]


def test_rules_are_read_as_they_are_written(tmp_path: Path) -> None:
    rules = {"BF_conv_relu": {"obey": True, "evidence": {"runs": 12}}, "MON": {"obey": None}}
    path = tmp_path / "rules.json"
    path.write_text(json.dumps(rules))
    assert load_rules(path).pairs == read_rules(rules).pairs
