"""The builder's kernels: drawn, encoded in nn-Meter's columns, sampled the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from nn_meter.builder.kernels import (
    KERNELS,
    OTHER_KERNELS,
    builder_kernel,
    kernel_graph,
    row,
    sample_finegrained,
    sample_prior,
)
from nn_meter.errors import BuildError
from nn_meter.ir import verify
from nn_meter.predictors.nnmeter_columns import NN_METER_BUILDER_1

ALL = (*KERNELS, *OTHER_KERNELS)


def test_nn_meters_sixteen_kernels_are_built() -> None:
    assert set(KERNELS) == set(NN_METER_BUILDER_1)


@pytest.mark.parametrize("name", ALL)
def test_what_is_sampled_can_be_drawn_and_encoded(name: str) -> None:
    rng = np.random.default_rng(1)
    configs = sample_prior(name, 6, rng)
    for config in configs + sample_finegrained(name, configs, 2, rng):
        verify(kernel_graph(name, config))
        assert len(row(name, config)) == len(NN_METER_BUILDER_1[builder_kernel(name).encoded_as])


def test_columns_are_nn_meters() -> None:
    config = {"HW": 14, "CIN": 98, "COUT": 120, "KERNEL_SIZE": 3, "STRIDES": 1}
    params = 120 * (9 * 98 + 1)
    expected = (14, 98, 120, 3, 1, 2 * 14 * 14 * params / 2e6, params / 1e6)
    assert row("conv-bn-relu", config) == pytest.approx(expected)
    assert row("concat", {"HW": 7, "CIN1": 3, "CIN2": 4, "CIN3": 0, "CIN4": 0}) == (7, 3, 4, 0, 0)
    assert row("add", {"HW": 7, "CIN": 3}) == (7, 3, 3)


def test_the_same_seed_samples_the_same() -> None:
    once, again = (sample_prior("concat", 5, np.random.default_rng(3)) for _ in range(2))
    assert once == again
    assert sample_prior("concat", 5, np.random.default_rng(4)) != once


def test_fine_samples_stay_near_and_even() -> None:
    near = sample_finegrained("split", [{"HW": 7, "CIN": 100}], 50, np.random.default_rng(0))
    assert all(c["HW"] == 7 and 50 <= c["CIN"] < 120 and c["CIN"] % 2 == 0 for c in near)
    one = sample_finegrained("relu", [{"HW": 7, "CIN": 1}], 3, np.random.default_rng(0))
    assert {c["CIN"] for c in one} == {1}


def test_half_of_the_dense_layers_are_classifiers() -> None:
    assert [c["COUT"] for c in sample_prior("fc", 4, np.random.default_rng(0))][:2] == [1000, 1000]


def test_an_unknown_kernel_and_a_missing_key_are_named() -> None:
    with pytest.raises(BuildError, match="no kernel 'gelu'; register it, or use one of conv-bn-relu, "):
        kernel_graph("gelu", {})
    with pytest.raises(BuildError, match="kernel 'relu': the config lacks 'CIN'; it needs HW, CIN"):
        kernel_graph("relu", {"HW": 3})
