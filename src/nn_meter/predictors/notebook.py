"""A prediction as the cell of a notebook: a fragment of HTML without style sheet or script."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from nn_meter.predictors.prediction import DOUBTFUL, Prediction, milliseconds
from nn_meter.predictors.summary import rows
from nn_meter.predictors.trust import CAREFUL_SHARE
from nn_meter.storage import legible

TOP = 10
"""Rows that are shown."""


def html(prediction: Prediction) -> str:
    """The answer, what it rests on, and the rows that take the longest."""
    found = rows(prediction)
    body = "".join(
        _row((row.name, row.one(lambda each: each.kernel.label), f"x{row.count}" if row.count > 1 else ""),
             (milliseconds(row.latency_ms), f"{row.share:.1%}", f"{row.cumulative:.1%}"), "td")
        for row in found[:TOP]
    )  # fmt: skip
    head = _row(("layer", "kernel", ""), ("ms", "share", "sum"), "th")
    more = f"<p>{len(found) - TOP} more rows: print(prediction.to_pandas())</p>" if len(found) > TOP else ""
    return (
        f"<div><p>{'<br>'.join(_facts(prediction))}</p><table><thead>{head}</thead><tbody>{body}</tbody></table>{more}</div>"
    )


def _facts(prediction: Prediction) -> Iterator[str]:
    name = _text(f"{prediction.model} on {prediction.predictor} {prediction.version}")
    yield f"<b>{milliseconds(prediction.latency_ms)} ms</b> {name}"
    if prediction.interval_ms:
        low, high = map(milliseconds, prediction.interval_ms)
        yield f"90 % of such models between {low} and {high} ms"
    parts = [f"{status} {part.share:.1%}" for status, part in prediction.coverage.items() if part.kernels]
    doubt = sum(prediction.coverage[status].share for status in DOUBTFUL) >= CAREFUL_SHARE
    yield f'<span style="color:{"#b35900" if doubt else "inherit"}">rests on: {", ".join(parts)}</span>'
    yield from map(_text, prediction.notes)


def _row(left: Iterable[str], right: Iterable[str], cell: str) -> str:
    sides = [("left", _text(each)) for each in left] + [("right", each) for each in right]
    cells = [f'<{cell} style="text-align:{side};padding:2px 8px">{each}</{cell}>' for side, each in sides]
    return f"<tr>{''.join(cells)}</tr>"


def _text(text: str) -> str:
    return escape(legible(text))
