"""scikit-learn's regressors as ensembles, for tests to compare with."""

from __future__ import annotations

from typing import Any

import numpy as np

from nn_meter.predictors.trees import TreeEnsemble


def from_forest(model: Any) -> TreeEnsemble:
    """A RandomForestRegressor or ExtraTreesRegressor, through scikit-learn's public arrays."""
    trees = [each.tree_ for each in model.estimators_]
    parts = [(t.feature, t.threshold, t.children_left, t.children_right, t.value.ravel()) for t in trees]
    return _joined(parts, model.n_features_in_, "mean", 0.0)


def from_boosting(model: Any) -> TreeEnsemble:
    """A HistGradientBoostingRegressor without categories or missing values."""
    nodes = [predictor[0].nodes for predictor in model._predictors]
    parts = [
        (
            n["feature_idx"],
            n["num_threshold"],
            np.where(n["is_leaf"], -1, n["left"].astype(np.int64)),
            np.where(n["is_leaf"], -1, n["right"].astype(np.int64)),
            n["value"],
        )
        for n in nodes
    ]
    return _joined(parts, model.n_features_in_, "sum", float(np.ravel(model._baseline_prediction)[0]))


def _joined(parts: list[tuple[Any, ...]], n_columns: int, aggregate: Any, init: float) -> TreeEnsemble:
    sizes = [len(part[0]) for part in parts]
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    offset = np.repeat(roots, sizes)
    feature, threshold, left, right, value = (np.concatenate(column) for column in zip(*parts, strict=True))
    return TreeEnsemble(
        feature.astype(np.int32),
        threshold.astype(np.float64),
        np.where(left < 0, -1, left + offset).astype(np.int32),
        np.where(right < 0, -1, right + offset).astype(np.int32),
        value.astype(np.float64),
        roots.astype(np.int32),
        n_columns,
        aggregate,
        init,
    )
