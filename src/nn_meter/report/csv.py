"""Predictions as one table of kernels, in the order of execution, for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from nn_meter.predictors.documents import COLUMNS
from nn_meter.predictors.documents import table as rows
from nn_meter.predictors.prediction import Prediction


def table(predictions: Iterable[Prediction]) -> str:
    """The table as text, with a line of heads; latencies with every digit."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for each in predictions:
        writer.writerows(rows(each))
    return out.getvalue()
