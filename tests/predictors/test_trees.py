"""Ensembles answer with scikit-learn's bits, and arrays that are no trees are refused."""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ensembles import from_boosting, from_forest
from hypothesis import given, settings
from hypothesis import strategies as st

from nn_meter.errors import BundleError
from nn_meter.predictors import trees
from nn_meter.predictors.trees import TreeEnsemble

ensemble = pytest.importorskip("sklearn.ensemble")

STUMP = TreeEnsemble(
    feature=np.array([0, -2, -2], np.int32),
    threshold=np.array([1.5, -2, -2]),
    left=np.array([1, -1, -1], np.int32),
    right=np.array([2, -1, -1], np.int32),
    value=np.array([0.0, 10.0, 20.0]),
    roots=np.array([0], np.int32),
    n_columns=1,
)


def _data(seed: int, rows: int, columns: int) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    x = rng.choice([1, 0.1, 1e6], columns) * rng.integers(0, 40, (rows, columns))
    y = rng.random(rows) * x.sum(axis=1)
    at_thresholds = x[rng.integers(0, rows, 40)] * 0.5 + x[rng.integers(0, rows, 40)] * 0.5
    return x, y, np.concatenate([x, at_thresholds, at_thresholds * (1 + 1e-9), -at_thresholds])


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("kind", ["RandomForestRegressor", "ExtraTreesRegressor"])
@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 120),
    columns=st.integers(1, 5),
    count=st.integers(1, 12),
)
def test_a_forest_answers_with_scikit_learns_bits(
    kind: str, masks: bool, seed: int, rows: int, columns: int, count: int
) -> None:
    x, y, asked = _data(seed, rows, columns)
    model = getattr(ensemble, kind)(count, random_state=seed).fit(x, y)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "_MASK_BYTES_MAX", 1 << 40 if masks else -1)
        found = from_forest(model).predict(asked)
    assert found.tobytes() == model.predict(asked).tobytes()


@pytest.mark.parametrize("masks", [True, False])
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 200), columns=st.integers(1, 4))
def test_boosted_trees_answer_with_scikit_learns_bits(
    masks: bool, seed: int, rows: int, columns: int
) -> None:
    x, y, asked = _data(seed, rows, columns)
    model = ensemble.HistGradientBoostingRegressor(max_iter=8, min_samples_leaf=2, random_state=0).fit(x, y)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "_MASK_BYTES_MAX", 1 << 40 if masks else -1)
        found = from_boosting(model).predict(asked)
    assert found.tobytes() == model.predict(asked).tobytes()


def test_each_row_is_answered_alike_alone_and_in_a_batch() -> None:
    x, y, asked = _data(3, 150, 4)
    forest = from_forest(ensemble.RandomForestRegressor(30, random_state=0).fit(x, y))
    assert [forest.predict(row[None])[0] for row in asked] == list(forest.predict(asked))


def test_no_rows_give_no_answers() -> None:
    assert STUMP.predict(np.empty((0, 1))).shape == (0,)


def test_a_value_at_the_threshold_goes_left() -> None:
    assert list(STUMP.predict(np.array([[1.5], [1.5 + 1e-12], [1.51]]))) == [10.0, 10.0, 20.0]
    assert list(replace(STUMP, aggregate="sum", init=1.0).predict(np.array([[1.5 + 1e-12]]))) == [21.0]


def test_saved_and_loaded_arrays_are_equal() -> None:
    loaded = TreeEnsemble.load(io.BytesIO(STUMP.to_bytes()))
    for name in trees._ARRAYS:
        assert getattr(loaded, name).tobytes() == getattr(STUMP, name).tobytes()
    assert (loaded.n_columns, loaded.aggregate, loaded.init) == (1, "mean", 0.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"left": np.array([0, -1, -1], np.int32)}, "before its parent"),
        ({"right": np.array([3, -1, -1], np.int32)}, "outside the 3 nodes"),
        ({"right": np.array([-1, -1, -1], np.int32)}, "outside the 3 nodes"),
        ({"right": np.array([1, -1, -1], np.int32)}, "two parents"),
        ({"feature": np.array([1, 0, 0], np.int32)}, "column 1; there are 1"),
        ({"threshold": np.array([np.nan, 0, 0])}, "not finite"),
        ({"value": np.array([0, np.inf, 0])}, "not finite"),
        ({"init": np.nan}, "initial value"),
        ({"roots": np.array([], np.int32)}, "no tree"),
        ({"value": np.array([0.0])}, "value has the shape"),
    ],
)
def test_arrays_that_are_no_trees_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BundleError, match=words):
        replace(STUMP, **change)


def test_rows_of_another_width_are_refused() -> None:
    with pytest.raises(BundleError, match="rows of 1 columns"):
        STUMP.predict(np.zeros((2, 3)))


@given(st.binary(max_size=200), st.integers(0, 1500))
@settings(max_examples=60, deadline=None)
def test_damaged_archives_end_in_an_error(junk: bytes, at: int) -> None:
    stored = STUMP.to_bytes()
    for damaged in (junk, stored[:at], stored[:at] + junk + stored[at + len(junk) :]):
        with suppress(BundleError):
            assert len(TreeEnsemble.load(io.BytesIO(damaged), "a.npz")) == 1


def test_a_number_of_columns_that_is_none_is_refused() -> None:
    buffer = io.BytesIO()
    stored = {name: getattr(STUMP, name) for name in ("feature", "threshold", "left", "right", "value", "roots")}
    np.savez(buffer, **stored, n_columns=np.inf, aggregate="sum", init=0.0)
    buffer.seek(0)
    with pytest.raises(BundleError, match="no tree ensemble"):
        TreeEnsemble.load(buffer)
