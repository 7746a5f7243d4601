"""Predictions as one table of kernels, in the order of execution, for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from nn_meter.predictors.documents import COLUMNS
from nn_meter.predictors.documents import table as rows
from nn_meter.predictors.prediction import Prediction
from nn_meter.storage import legible

_FORMULA = ("=", "+", "-", "@")


def table(predictions: Iterable[Prediction]) -> str:
    """The table as text, with a line of heads; latencies with every digit. Names come from models: what steers a
    terminal is escaped, and a cell that a spreadsheet would take for a formula begins with an apostrophe, as on the
    page."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for each in predictions:
        writer.writerows(map(_plain, row) for row in rows(each))
    return out.getvalue()


def _plain(cell: object) -> object:
    if not isinstance(cell, str):
        return cell
    text = legible(cell, len(cell))
    return f"'{text}" if text.startswith(_FORMULA) else text
