"""The pages of ``nn-meter serve`` beside those of answers: where models are dropped, and the gallery."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nn_meter.report.html import framed, in_script, markup
from nn_meter.report.text import milliseconds


def front(predictors: Mapping[str, str], default: str, answers: Iterable[Mapping[str, Any]]) -> str:
    """A form for models and predictors, and what was answered already.

    Args:
        predictors: name to what is known of it.
        default: the one that is chosen at first.
        answers: as ``GET /history`` has them.
    """
    options = "".join(
        f'<option value="{markup(name)}"{" selected" if name == default else ""}>{markup(name)}'
        f"{': ' if summary else ''}{markup(summary)}</option>"
        for name, summary in predictors.items()
    )
    rows = "".join(
        f'<tr><td class="name"><a href="{markup(each["page"])}">{markup(each["model"])}</a></td>'
        f'<td>{", ".join(markup(total["predictor"]) for total in each["totals"])}</td>'
        f'<td class="n">{", ".join(milliseconds(total["latency_ms"]) for total in each["totals"])}</td>'
        f'<td class="wide">{markup(each["at"])}</td></tr>'
        for each in answers
    )
    body = (
        '<main><header><h1>How long does a network take?</h1><form id="ask"><label class="drop" id="drop">'
        'Drop a model here, or choose one: ONNX, TFLite, frozen TensorFlow graphs, nn-Meter graphs <input type="file" '
        'id="file"></label><div class="tools"><label>input shape <input id="shape" placeholder="1,3,224,224"></label>'
        '<button type="submit">Predict</button><a href="/gallery">gallery</a><a href="/openapi.json">API</a></div>'
        f'<label>predictors <select id="predictors" multiple size="8">{options}</select></label></form>'
        '<p id="said" role="status"></p></header>'
        '<section><h2>Answers</h2><div class="scroll"><table><thead><tr><th>model</th><th>predictor</th>'
        f'<th class="n">ms</th><th class="wide">when</th></tr></thead><tbody>{rows}</tbody></table></div>'
        "</section></main>"
    )
    return framed("nn-meter", body, ("desk",), in_script({}), connects=True)


def gallery(latencies_ms: Sequence[tuple[str, Mapping[str, float]]], models: int) -> str:
    """A table with a row for each predictor, a column for each model; ``models`` is how many there will be."""
    names = tuple(dict.fromkeys(name for _, each in latencies_ms for name in each))
    heads = "".join(f'<th class="n">{markup(model)}</th>' for model, _ in latencies_ms)
    rows = "".join(
        f'<tr><td class="name">{markup(name)}</td>'
        + "".join(
            f'<td class="n">{milliseconds(each[name]) if name in each else "–"}</td>' for _, each in latencies_ms
        )
        + "</tr>"
        for name in names
    )
    body = (
        f'<main><section><h2>Gallery</h2><p class="hint">{len(latencies_ms)} of {models} models, milliseconds of one '
        'inference by every predictor that is here. <a href="/">back</a></p><div class="scroll tall gallery"><table>'
        f"<thead><tr><th>predictor</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div></section></main>"
    )
    return framed("nn-meter: gallery", body, (), in_script({}))
