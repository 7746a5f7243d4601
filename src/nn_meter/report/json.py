"""Predictions as JSON documents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from nn_meter.predictors.documents import SCHEMA_VERSION, document
from nn_meter.predictors.prediction import Prediction

__all__ = ["SCHEMA_VERSION", "document", "documents", "dumps", "told"]


def documents(
    predictions: Sequence[Prediction], failed: Sequence[tuple[str, str]], explain: bool = False
) -> dict[str, Any]:
    """Several predictions, and the models that failed with the reason, as one document."""
    return {
        "schema_version": SCHEMA_VERSION,
        "predictions": [document(each, explain) for each in predictions],
        "failed": [{"model": model, "error": error} for model, error in failed],
    }


def told(
    predictions: Sequence[Prediction],
    failed: Sequence[tuple[str, str]],
    *,
    several: bool,
    explain: bool = False,
) -> str:
    """The text of one document: of the only prediction, or of ``several`` and the models that failed."""
    found = documents(predictions, failed, explain) if several else document(predictions[0], explain)
    return dumps(found)


def dumps(value: dict[str, Any]) -> str:
    """The document as text; equal documents give equal text."""
    return json.dumps(value, indent=2, default=str)
