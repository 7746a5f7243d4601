"""Predictions as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from nn_meter.predictors.prediction import Prediction
from nn_meter.report.text import milliseconds, percent, total_line
from nn_meter.storage import legible

_TEXT_MAX = 1000
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; color: #1c2430 }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #d8dee6; vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
td.label { overflow-wrap: anywhere }
td.bar { width: 8rem } .bar div { background: #4878a8; height: .7rem; min-width: 1px }
.estimated .bar div { background: #d08a3c }
.scroll { overflow-x: auto } ul { margin: 0; padding-left: 1.2rem }
"""


def page(predictions: Sequence[Prediction]) -> str:
    """The HTML text: per prediction its total, coverage, kernels and the neighbours that did not fuse."""
    title = ", ".join(dict.fromkeys(each.model for each in predictions))
    body = "".join(map(_section, predictions))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{markup(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )


def _section(prediction: Prediction) -> str:
    device = f" ({prediction.device})" if prediction.device else ""
    name = f"{prediction.model} on {prediction.predictor} {prediction.version}{device}"
    largest = max((each.latency_ms for each in prediction.kernels), default=0.0) or 1.0
    kernels = "".join(
        f'<tr class="{each.status}"><td class="n">{number}</td>'
        f'<td class="label">{markup(each.kernel.label)}</td>'
        f"<td>{markup(each.kernel.kind)}</td><td>{markup(each.kernel.config.describe())}</td>"
        f'<td class="n">{milliseconds(each.latency_ms)}</td>'
        f'<td class="n">{percent(prediction.share(each.latency_ms))}</td>'
        f'<td class="bar"><div style="width:{100 * each.latency_ms / largest:.1f}%"></div></td>'
        f"<td>{markup('; '.join((each.status, *each.notes)))}</td></tr>"
        for number, each in enumerate(prediction.charged, 1)
    )
    coverage = "".join(
        f'<tr><td>{status}</td><td class="n">{part.kernels}</td><td class="n">{part.nodes}</td>'
        f'<td class="n">{milliseconds(part.latency_ms)}</td><td class="n">{percent(part.share)}</td></tr>'
        for status, part in prediction.coverage.items()
    )
    unfused = (
        f"<details><summary>{len(pairs)} &times; {markup(reason)}</summary>"
        f"{_items(f'{each.producer} -> {each.consumer}' for each in pairs)}</details>"
        for reason, pairs in prediction.unfused_by_reason.items()
    )
    free = (f"{count} x {label}: {reason}" for label, reason, count in prediction.free_operators)
    return (
        f"<h1>{markup(name)}</h1><p>total {markup(total_line(prediction))}</p>"
        f"<h2>What the total rests on</h2>{_table(('status', 'kernels', 'nodes', 'ms', 'share'), coverage)}"
        f"<h2>Kernels</h2>{_table(('#', 'kernel', 'kind', 'shape', 'ms', 'share', '', 'status'), kernels)}"
        f"<h2>Why neighbours did not fuse</h2>{''.join(unfused) or '<p>All did.</p>'}"
        f"<h2>Free</h2>{_items(free)}<h2>Notes</h2>{_items(prediction.notes)}"
    )


def markup(text: str) -> str:
    """``text`` as the page shows it: neither markup nor control characters in names have any effect."""
    return escape(legible(text, _TEXT_MAX))


def _table(heads: Iterable[str], rows: str) -> str:
    head = "".join(f"<th>{head}</th>" for head in heads)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _items(texts: Iterable[str]) -> str:
    items = "".join(f"<li>{markup(text)}</li>" for text in texts)
    return f"<ul>{items}</ul>" if items else "<p>None.</p>"
