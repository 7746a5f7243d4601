"""Predictions as one HTML file that needs nothing else: their facts as JSON, and ``page/``'s script that shows them.

What models say can have no effect: names are in the JSON, without a character that ends a script, and the script puts
them on the page as text; what stands outside of it is escaped. The page may run its own script and nothing else,
and fetches nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from html import escape
from importlib.resources import files
from typing import Any

from nn_meter.ir import uncollected
from nn_meter.predictors.bundle import Bundle
from nn_meter.predictors.prediction import KernelPrediction, Prediction
from nn_meter.predictors.summary import layer_name, layer_of, module_levels, rows
from nn_meter.predictors.trust import Errors, missed_ms, trust
from nn_meter.report.text import total_line
from nn_meter.storage import legible

PARTS = ("base", "head", "icicle", "network", "table", "compare", "trust", "main")
"""The script's files in the order in which they are put together."""

_TEXT_MAX = 1000
_DIGITS = 6


def page(
    predictions: Sequence[Prediction], bundles: Iterable[Bundle] = (), failed: Iterable[tuple[str, str]] = ()
) -> str:
    """The HTML text.

    Args:
        predictions: of one or several models by one or several predictors.
        bundles: of the predictors, as far as they are known; they say what errors to expect.
        failed: models that could not be predicted, with the reason.
    """
    title = ", ".join(dict.fromkeys(each.model for each in predictions)) or "nothing predicted"
    totals = f'<noscript><p>Without a script, the totals alone:</p><ul>{_totals(predictions)}</ul></noscript>'
    with uncollected():
        facts = document(predictions, bundles, failed)
    return framed(title, f'{totals}<main id="page"></main>', PARTS, facts)


def framed(title: str, body: str, parts: Sequence[str], facts: str, *, connects: bool = False) -> str:
    """A page of ``body``, markup of ours, with the style and these parts of the script; ``facts`` are as
    :func:`in_script` has them. It ``connects`` to where it came from, or to nothing."""
    style, script = _file("page.css"), _script(parts)
    policy = f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}"
    policy += "; connect-src 'self'" if connects else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{markup(title)}</title><style>{style}</style></head><body>{body}"
        f'<script type="application/json" id="data">{facts}</script><script>{script}</script></body></html>\n'
    )


def document(
    predictions: Sequence[Prediction], bundles: Iterable[Bundle] = (), failed: Iterable[tuple[str, str]] = ()
) -> str:
    """The page's facts as JSON that may stand in a script: every text once, in ``texts``, elsewhere its place there;
    numbers with six digits."""
    known = {(each.name, each.version): each for each in bundles}
    texts = _Texts()
    found = [_prediction(each, known.get((each.predictor, each.version)), texts) for each in predictions]
    missing = [[legible(model, _TEXT_MAX), legible(error, _TEXT_MAX)] for model, error in failed]
    return in_script({"predictions": found, "failed": missing, "texts": texts.all})


def in_script(facts: Mapping[str, Any]) -> str:
    """JSON that may stand in a script, whatever its texts hold."""
    told = json.dumps(facts, separators=(",", ":"), allow_nan=False)
    return told.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def markup(text: str) -> str:
    """``text`` as the page shows it: neither markup nor control characters in names have any effect."""
    return escape(legible(text, _TEXT_MAX))


class _Texts:
    """Texts by their places; each is kept once."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._known: dict[str, int] = {}  # as they came

    def __call__(self, text: str) -> int:
        found = self._known.get(text)
        if found is None:
            found = self._known[text] = self._places.setdefault(legible(text, _TEXT_MAX), len(self._places))
        return found

    @property
    def all(self) -> list[str]:
        return list(self._places)


def _prediction(prediction: Prediction, bundle: Bundle | None, texts: _Texts) -> dict[str, Any]:
    shapes = [f"{each.name} {'x'.join(map(str, each.shape)) or 'scalar'}" for each in prediction.inputs]
    found = trust(prediction, bundle)
    number = {id(each): place for place, each in enumerate(prediction.charged)}
    folds = rows(prediction, "layer", "order")
    fold = {id(each): place for place, row in enumerate(folds) for each in row.kernels}
    places = [number.get(id(each)) for each in prediction.kernels]
    facts = {
        key: texts(getattr(prediction, key))
        for key in ("model", "predictor", "version", "device", "runtime", "dtype", "statistic")
    }
    return {
        **facts,
        "threads": prediction.threads,
        "inputs": [texts(each) for each in shapes],
        "ms": _short(prediction.latency_ms),
        "interval": _pair(prediction.interval_ms),
        "size": None if prediction.size is None else asdict(prediction.size),
        "call_ms": _short(prediction.call_ms),
        "coverage": [
            [texts(status), part.kernels, part.nodes, _short(part.latency_ms), _short(part.share)]
            for status, part in prediction.coverage.items()
            if part.kernels
        ],
        "kernels": [[*_kernel(each, texts), fold[id(each)]] for each in prediction.charged],
        "folds": [texts(each.name) for each in folds],
        "unfused": _unfused(prediction, bundle, places, texts),
        "free": [[texts(label), texts(reason), count] for label, reason, count in prediction.free_operators],
        "notes": [texts(each) for each in (*prediction.assumed, *prediction.notes)],
        "trust": {
            "level": found.level,
            "reasons": [texts(each) for each in found.reasons],
            "errors": None if found.errors is None else asdict(found.errors),
            "family": None if found.family is None else _family(found.family, texts),
            "kinds": [
                [
                    texts(each.kind), each.kernels, _short(each.latency_ms), _short(each.share), each.rows,
                    each.median_error and _short(each.median_error), each.doubtful, _short(each.beyond),
                ]
                for each in found.kinds
            ],
            "calibrated": _calibrated(bundle),
            "notes": [texts(each) for each in (bundle.notes if bundle else ())],
        },
    }  # fmt: skip


def _kernel(each: KernelPrediction, texts: _Texts) -> list[Any]:
    """As ``kernelOf`` in page/base.js reads it, without the row in which equal layers are one."""
    kernel = each.kernel
    levels = module_levels(kernel.nodes[0]) if kernel.nodes else ()
    return [
        texts(layer_of(each)), texts(kernel.label), texts(kernel.kind), texts(kernel.config.describe()),
        texts(each.status), _short(each.latency_ms), _pair(each.interval_ms), texts(each.bound), _short(each.beyond),
        [texts(node) for node in kernel.nodes], [texts(note) for note in each.notes],
        [texts(level) for level in levels],
    ]  # fmt: skip


def _unfused(
    prediction: Prediction, bundle: Bundle | None, places: Sequence[int | None], texts: _Texts
) -> list[list[Any]]:
    """Reason, producer, consumer, their kernels' places among those that are not free, the least that it costs."""
    return [
        [
            texts(each.reason), texts(layer_name(each.producer)), texts(layer_name(each.consumer)),
            *((None, None) if each.kernels is None else (places[place] for place in each.kernels)),
            least if least is None else _short(least),
        ]
        for each, least in zip(prediction.unfused, missed_ms(prediction, bundle), strict=True)
    ]  # fmt: skip


def _family(errors: Errors, texts: _Texts) -> dict[str, Any]:
    return {**asdict(errors), "family": texts(errors.family), "names": [texts(each) for each in errors.names]}


def _calibrated(bundle: Bundle | None) -> dict[str, Any] | None:
    if bundle is None or bundle.interval is None:
        return None
    interval = bundle.interval
    return {"level": interval.level, "models": interval.models, "networks": interval.networks}


def _totals(predictions: Iterable[Prediction]) -> str:
    lines = (f"{each.model} on {each.predictor} {each.version}: {total_line(each)}" for each in predictions)
    return "".join(f"<li>{markup(line)}</li>" for line in lines)


def _pair(interval_ms: tuple[float, float] | None) -> list[float] | None:
    return None if interval_ms is None else [_short(end) for end in interval_ms]


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _script(parts: Sequence[str]) -> str:
    """The parts as one function, so that their names are nobody else's."""
    return "(() => {\n" + "\n".join(_file(f"{part}.js") for part in parts) + "})();\n"


def _file(name: str) -> str:
    return (files("nn_meter.report") / "page" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
