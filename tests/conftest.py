"""Predictors that tests ask, and the examples that Hypothesis tries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, settings

from nn_meter.predictors.bundle import Bundle
from nn_meter.predictors.kind import KindPredictor
from nn_meter.predictors.legacy import convert_folder
from nn_meter.predictors.nnmeter_columns import NN_METER_1
from nn_meter.predictors.trees import TreeEnsemble

SHARED = Path(__file__).parents[1] / ".." / "shared"

_BUSY = (HealthCheck.too_slow,)
"""What a busy machine breaks."""

settings.register_profile("fixed", derandomize=True, deadline=None, suppress_health_check=_BUSY)
settings.register_profile("seeded", deadline=None, database=None, suppress_health_check=_BUSY)


def pytest_configure(config: pytest.Config) -> None:
    """The same examples in every run, unless ``--hypothesis-seed`` asks for others."""
    if not config.getoption("--hypothesis-profile"):
        settings.load_profile("fixed" if config.getoption("--hypothesis-seed") is None else "seeded")


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What somebody registered on this machine, and the devices that he named, are no part of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NN_METER_HOME", str(tmp_path_factory.mktemp("home")))
        yield


def constant(kind: str, latency_ms: float) -> KindPredictor:
    """A regressor of ``kind`` that always says the same."""
    ints, columns = np.array([-1], np.int32), NN_METER_1[kind]
    leaf = TreeEnsemble(
        feature=np.array([0], np.int32),
        threshold=np.array([0.0]),
        left=ints,
        right=ints,
        value=np.array([latency_ms]),
        roots=np.array([0], np.int32),
        n_columns=len(columns),
    )
    return KindPredictor(kind, "nn-meter-1", columns, leaf, trained_range={columns[0]: (1, 64)})


@pytest.fixture(scope="session")
def tiny() -> Bundle:
    """A predictor in nn-Meter's terms whose sums can be done by hand; it has none for ``add``."""
    kinds = {"conv-bn-relu": 2.0, "dwconv-bn-relu": 1.0, "fc": 0.5, "global-avgpool": 0.25}
    rules = {
        "BF_conv_relu": {"obey": True},
        "BF_dwconv_relu": {"obey": True},
        "BF_conv_dwconv": {"obey": False},
        "BF_conv_add": {"obey": None},
    }
    return Bundle(
        name="tiny_cpu",
        version="1.0",
        kinds={kind: constant(kind, latency_ms) for kind, latency_ms in kinds.items()},
        rules=rules,
        schema="nn-meter-1",
        device="a cpu of the mind",
        category="cpu",
        statistic="median",
    )


@pytest.fixture(scope="session")
def legacy(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The predictor that nn-Meter 2.0 gave its answers with, converted."""
    folder = SHARED / "legacy" / "k8_predictor"
    if not folder.exists():
        pytest.skip("the shared folder with nn-Meter's pickles is not beside the repository")
    meta = yaml.safe_load((folder / "meta.yaml").read_text())
    return convert_folder(meta, folder, tmp_path_factory.mktemp("legacy") / "k8.zip")
