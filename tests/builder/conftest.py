"""A workspace of small shapes, and a backend that answers at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nn_meter.builder.config import builder_config, create_workspace


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace for ``replay``, read into ``builder_config``; few and small test cases."""
    monkeypatch.setenv("NN_METER_HOME", str(tmp_path / "home"))
    folder = create_workspace(tmp_path / "work", {"US_PER_KERNEL": 5.0, "NS_PER_ELEMENT": 1.0})
    rules = folder / "configs" / "ruletest_config.yaml"
    small = {"HW": 6, "CIN": 4, "COUT": 4, "SHAPE_1D": 12, "OTHER_TESTCASES": ["MON", "BF_conv_bn_relu"]}
    small["PROBES"] = []
    small["BASIC_TESTCASES"] = ["conv_relu", "conv_bn", "relu_relu", "dwconv_relu", "fc_relu"]
    rules.write_text(yaml.safe_dump({**yaml.safe_load(rules.read_text()), **small}))
    builder_config.init(folder)
    return folder
