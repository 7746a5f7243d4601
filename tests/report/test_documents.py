"""Predictions as JSON and as CSV."""

from __future__ import annotations

import csv as stdcsv
import json as stdlib
from dataclasses import replace

from nn_meter.kernels.partition import FreeConfig, Kernel, NnMeterConfig, Unfused
from nn_meter.predictors.prediction import KernelPrediction, Prediction
from nn_meter.report import csv, json

CONV = Kernel(
    "conv-bn-relu", NnMeterConfig(((1, 8, 8, 3),), ((1, 8, 8, 4),), (3, 3)), ("a<b>",), "conv<&>relu"
)
FREE = Kernel("free", FreeConfig("Identity"), ("i",), "Identity", "nothing moves")
PREDICTION = Prediction(
    "net<script>.onnx",
    "some_cpu",
    "1.0",
    "a cpu",
    "median",
    3.0,
    (KernelPrediction(CONV, "predicted", 3.0, (2.5, 3.5), ("far out",)), KernelPrediction(FREE, "free", 0.0)),
    (2.5, 3.5),
    (Unfused("a<b>", "c", "no rule BF_conv_conv"),),
    ("a note",),
)


def test_a_document_survives_json() -> None:
    document = stdlib.loads(json.dumps(json.document(PREDICTION, explain=True)))
    assert document["schema_version"] == json.SCHEMA_VERSION == 1
    assert document["latency_ms"] == 3.0
    assert document["interval_ms"] == [2.5, 3.5]
    assert document["unfused"] == [{"producer": "a<b>", "consumer": "c", "reason": "no rule BF_conv_conv"}]
    predicted, free = document["kernels"]
    assert predicted["config"]["input_tensors"] == [[1, 8, 8, 3]]
    assert predicted["notes"] == ["far out"]
    assert "free" not in predicted
    assert (free["status"], free["free"], free["config"]) == (
        "free",
        "nothing moves",
        {"operator": "Identity"},
    )


def test_only_an_explanation_lists_what_did_not_fuse() -> None:
    assert "unfused" not in json.document(PREDICTION)


def test_documents_keep_the_failed() -> None:
    document = json.documents([PREDICTION], [("bad.onnx", "no model")])
    assert [each["model"] for each in document["predictions"]] == ["net<script>.onnx"]
    assert document["failed"] == [{"model": "bad.onnx", "error": "no model"}]


def test_a_table_on_a_terminal_has_no_effect() -> None:
    evil = replace(CONV, nodes=("\x1b[2Ja\n(nn-Meter) [RESULT] predict latency for y: 1 ms",), label="\u202ea\ud800")
    known = replace(PREDICTION, kernels=(replace(PREDICTION.kernels[0], kernel=evil),))
    _, line = csv.table([known]).splitlines()
    assert "\\x1b[2Ja\\n(nn-Meter)" in line
    assert "\\u202ea\\ud800" in line


def test_in_a_spreadsheet_a_name_is_no_formula() -> None:
    evil = replace(CONV, nodes=('=HYPERLINK("http://evil.example")',), label="@conv")
    known = replace(PREDICTION, kernels=(replace(PREDICTION.kernels[0], kernel=evil),))
    _, row = stdcsv.reader(csv.table([known]).splitlines())
    assert row[4:6] == [f"'{evil.nodes[0]}", f"'{evil.label}"]
    assert row[9] == "3.0"
