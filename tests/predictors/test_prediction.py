"""What a prediction is in Python, in a notebook, and for other packages."""

from __future__ import annotations

import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nn_meter.api import Predictor
from nn_meter.errors import MissingDependencyError
from nn_meter.kernels.partition import FreeConfig, Kernel
from nn_meter.predictors.bundle import Bundle
from nn_meter.predictors.documents import COLUMNS
from nn_meter.predictors.prediction import KernelPrediction, Prediction

EXAMPLE = Path(__file__).parents[2] / "examples" / "small_net.onnx"


@pytest.fixture
def prediction(tiny: Bundle) -> Prediction:
    return Predictor(tiny).explain(EXAMPLE)


def test_its_repr_is_one_short_line(prediction: Prediction) -> None:
    assert repr(prediction) == "<Prediction: small_net.onnx on tiny_cpu 1.0: 39.75 ms, 29 kernels>"


class Cells(HTMLParser):
    """Texts of cells, and whether every element is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.opened: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "br":
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.opened[-1] in ("td", "th"):
            self.cells.append(data)


def test_a_notebook_shows_the_answer_and_the_rows_that_take_the_longest(prediction: Prediction) -> None:
    shown = prediction._repr_html_()
    cells = Cells(shown)
    assert cells.opened == []
    assert cells.cells[:5] == ["layer", "kernel", "ms", "share", "sum"]
    assert "39.75 ms" in shown
    assert "rests on: " in shown
    assert shown.count('<td style="text-align:right') == 3 * shown.count("<tr><td")
    assert "estimated" in shown


def test_a_notebook_shows_names_as_text() -> None:
    kernel = Kernel("free", FreeConfig("x"), ("<script>alert(1)</script>",), "<b>")
    hostile = Prediction("<i>", "p", "1", "", "", 1.0, (KernelPrediction(kernel, "predicted", 1.0),), notes=("<u>",))
    shown = hostile._repr_html_()
    assert not any(tag in shown for tag in ("<script", "<i>", "<u>"))
    assert Cells(shown).opened == []


def test_its_dictionary_is_the_document_of_the_command_line(prediction: Prediction) -> None:
    document = prediction.to_dict()
    assert json.loads(json.dumps(document))["latency_ms"] == 39.75
    assert len(document["kernels"]) == len(prediction.kernels)
    assert document["unfused"]


def test_a_frame_has_a_row_for_each_kernel(prediction: Prediction, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    pandas = ModuleType("pandas")
    pandas.DataFrame = lambda rows, columns: given.append((rows, columns)) or "a frame"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    assert prediction.to_pandas() == "a frame"
    ((rows, columns),) = given
    assert columns == list(COLUMNS)
    latencies = [row[columns.index("latency_ms")] for row in rows]
    assert latencies == [each.latency_ms for each in prediction.kernels]


@pytest.mark.heavy
def test_a_frame_of_pandas_adds_up(prediction: Prediction) -> None:
    pytest.importorskip("pandas")
    frame = prediction.to_pandas()
    assert frame["latency_ms"].sum() == 39.75
    assert frame["share"].sum() == pytest.approx(1.0)


def test_without_pandas_it_says_how_to_get_it(prediction: Prediction, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'nn-meter\[pandas\]'"):
        prediction.to_pandas()
