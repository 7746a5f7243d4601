"""A random forest on some columns, as nn-Meter's builder trains it, and how far it is off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn_meter.errors import MissingDependencyError

MIN_ROWS = 10
"""Fewer measured kernels train nothing."""

_SEED = 10
_TREES = 100


@dataclass(frozen=True, slots=True)
class Tested:
    """What a forest says of rows that it was not trained on.

    ``rows`` are int (n,), their numbers; ``predicted_ms`` and ``errors``, relative ones, are float64 (n,).
    """

    rows: NDArray[np.int64]
    predicted_ms: NDArray[np.float64]
    errors: NDArray[np.float64]

    @property
    def acc10(self) -> float:
        """The share within 10 %."""
        return float(np.mean(self.errors <= 0.1))


def fit_forest(
    rows: NDArray[np.float64], latencies_ms: NDArray[np.float64], *, test: bool = True
) -> tuple[Any, Tested]:
    """scikit-learn's forest, trained on four fifths of the rows and tested on the rest; without ``test``, on all.

    Args:
        rows: float64 (n, columns).
        latencies_ms: float64 (n,), positive.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    try:
        from sklearn.ensemble import RandomForestRegressor
    except ImportError as error:
        raise MissingDependencyError("scikit-learn", "build", "training a predictor") from error
    order = np.random.default_rng(_SEED).permutation(len(rows))
    tested = order[: max(1, len(rows) // 5) if test else 0]
    trained = np.setdiff1d(order, tested)
    forest = RandomForestRegressor(n_estimators=_TREES, random_state=_SEED)
    forest.fit(rows[trained], latencies_ms[trained])
    if not test:
        return forest, Tested(tested, np.empty(0), np.empty(0))
    predicted_ms = forest.predict(rows[tested])
    errors = np.abs(predicted_ms - latencies_ms[tested]) / latencies_ms[tested]
    return forest, Tested(tested, predicted_ms, errors)
