"""Predictors of every schema, and what must hold of what they answer."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from rich.console import Console

from nn_meter.api import Predictor, model_to_graph
from nn_meter.predictors.bundle import Bundle, load
from nn_meter.predictors.catalogue import DEFAULT, SHIPPED, summary
from nn_meter.predictors.kind import KindPredictor
from nn_meter.predictors.nnmeter_columns import NN_METER_1
from nn_meter.predictors.prediction import Prediction
from nn_meter.predictors.trees import TreeEnsemble
from nn_meter.report import csv, html, text
from nn_meter.report import json as documents
from nn_meter.report.lines import result_line
from nn_meter.runtimes import available
from nn_meter.storage import legible

EXAMPLE = Path(__file__).parents[1] / "examples" / "small_net.onnx"

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

EXPLAINED = 16
"""One answer of so many is explained and shown in every form."""


def nnmeter_bundle() -> Bundle:
    """A predictor in nn-Meter's terms that answers one millisecond for every kernel."""
    leaf = np.array([-1], np.int32)
    kinds = {}
    for kind, columns in NN_METER_1.items():
        trees = TreeEnsemble(
            leaf * 0, np.zeros(1), leaf, leaf, np.ones(1), np.zeros(1, np.int32), n_columns=len(columns)
        )
        kinds[kind] = KindPredictor(kind, "nn-meter-1", columns, trees, trained_range={columns[0]: (1, 64)})
    rules = {f"BF_{pair}": {"obey": True} for pair in ("conv_relu", "conv_bn", "dwconv_relu", "conv_add", "add_relu")}
    return Bundle("fuzz_cpu", "1.0", kinds, rules, "nn-meter-1", category="cpu", statistic="median")


@cache
def predictors() -> tuple[Predictor, ...]:
    """One of each schema, and the default one as if it were of each runtime."""
    default, fitted = load(SHIPPED / DEFAULT), load(SHIPPED / "published.zip" / "a03s_1large_float_tflite")
    runtimes = (replace(default, rules={"runtime": name}) for name in available() if name != "nn-meter")
    return tuple(map(Predictor, (default, nnmeter_bundle(), fitted, *runtimes)))


def ask(source: Any, kind: str | None, turn: int) -> None:
    """Have a model answered for, by whom and in which form the ``turn`` chooses."""
    chosen = turn % (len(predictors()) + 1)
    if chosen == len(predictors()):
        json.dumps(model_to_graph(source, kind))
    else:
        answered(predictors()[chosen], source, kind, turn)


def answered(predictor: Predictor, source: Any, kind: str | None, turn: int) -> None:
    """Ask ``predictor``, and check what it says."""
    if turn % EXPLAINED:
        value = predictor.predict(source, kind)
    else:
        prediction = predictor.explain(source, kind)
        value = prediction.latency_ms
        shown(prediction, predictor.bundle)
    assert isinstance(value, float), f"the answer {value!r}"
    assert 0 <= value < math.inf, f"the answer {value!r}"


def shown(prediction: Prediction, bundle: Bundle) -> None:
    """Check that names neither steer a terminal nor leave a page's text, and that JSON is JSON."""
    written = io.StringIO()
    console = Console(file=written, width=120, force_terminal=False)
    console.print(text.explanation(prediction, every=True))  # all that ``details`` has, in its order, and more
    for view in (text.View(sort="name", top=0), text.View("module", "name", 0, 2)):
        console.print(text.details(prediction, view))
    lines = written.getvalue(), result_line(prediction.model, prediction.latency_ms), legible(summary(bundle))
    assert not controls("".join(lines)), "control characters on the terminal"
    assert "\n(nn-Meter) [RESULT]" not in written.getvalue(), "a forged line"
    page = html.page([prediction], [bundle])
    page.encode()
    assert not re.search("<(script>alert|img src=x)", page), "markup of a name in the page"
    assert len(re.findall("</?script", page)) == 4, "a name ends or begins a script"  # ours: the facts, what shows them
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f]", page), "control characters in the page"
    json.loads(documents.dumps(documents.document(prediction, explain=True)), parse_constant=_refused)
    table = csv.table([prediction])
    table.encode()
    assert not controls(table), "control characters in a table"


def controls(text: str) -> bool:
    """Whether a text has characters that steer a terminal or turn the direction of writing."""
    return _CONTROL.search(text) is not None


def _refused(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} in JSON")


def warm() -> None:
    """Load what answering needs."""
    for predictor in predictors():
        shown(predictor.explain(EXAMPLE), predictor.bundle)
        predictor.predict(EXAMPLE)
