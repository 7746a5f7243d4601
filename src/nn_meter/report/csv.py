"""Predictions as one table of kernels, in the order of execution, for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from nn_meter.predictors.prediction import Prediction

COLUMNS = (
    "model", "predictor", "version", "index", "nodes", "kernel", "kind", "shape", "status", "latency_ms", "share",
    "bound", "notes",
)  # fmt: skip


def table(predictions: Iterable[Prediction]) -> str:
    """The table as text, with a line of heads; latencies with every digit."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for each in predictions:
        for index, kernel in enumerate(each.kernels):
            known = kernel.kernel
            writer.writerow(
                (
                    each.model, each.predictor, each.version, index, " ".join(known.nodes), known.label, known.kind,
                    known.config.describe(), kernel.status, kernel.latency_ms, each.share(kernel.latency_ms),
                    kernel.bound, "; ".join(kernel.notes),
                )
            )  # fmt: skip
    return out.getvalue()
