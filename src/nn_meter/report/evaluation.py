"""An evaluation for people and programs: table, JSON, scatter plot, and the page ``docs/accuracy.md``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nn_meter.errors import InputError, MissingDependencyError
from nn_meter.evaluation import MISS, Evaluation, Score
from nn_meter.learning.metrics import Metrics
from nn_meter.report.lines import columns, lines

SCHEMA_VERSION = 1

_FIGURES = ("models", "median error", "MAPE", "RMSPE", "RMSE", "±5 %", "±10 %", "±15 %", "Spearman", "bias")
_FACTS = (
    ("machine", ("cpu", "cores", "machine", "kernel")),
    ("runtime", ("runtime", "runtime_version")),
    ("threads", ("threads",)),
    ("date", ("date",)),
)
_HALVES = {False: "looked at", True: "kept away"}
_LEVELLED = "all, levelled"


def table(evaluation: Evaluation) -> str:
    """Every model, then the figures of merit of each predictor, by family and over all."""
    parts = []
    for predictor in evaluation.predictors:
        scores = evaluation.of(predictor)
        heads = ("model", "family", "measured ms", "noise", "predicted ms", "error", "predicted share")
        rows = columns([heads, *(_row(score) for score in scores)], frozenset(range(2, len(heads))))
        figures = [("family", *_FIGURES), *_figures(evaluation, predictor)]
        parts += [
            lines((f"{predictor}, {scores[0].statistic} latency", *rows)),
            lines(columns(figures, frozenset(range(1, len(figures[0]))))),
            _summary(evaluation, predictor),
        ]
    if evaluation.failed:
        parts.append(lines(("failed:", *(f"  {model}: {why}" for model, why in evaluation.failed))))
    return "\n\n".join(parts)


def document(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation as plain values, errors and shares as fractions."""
    return {
        "schema_version": SCHEMA_VERSION,
        "backend": evaluation.backend,
        "rounds": evaluation.rounds,
        "environment": dict(evaluation.environment),
        "predictors": [_predictor(evaluation, each) for each in evaluation.predictors],
        "models": [
            {**asdict(score), "error": score.error, "covered": score.covered} for score in evaluation.scores
        ],
        "failed": [{"model": model, "error": why} for model, why in evaluation.failed],
        "warnings": list(evaluation.warnings),
    }


def markdown(evaluation: Evaluation, command: str) -> str:
    """The page for people; ``command`` is what repeats it."""
    parts = ["# Accuracy", _circumstances(evaluation, command)]
    for predictor in evaluation.predictors:
        parts += [
            f"## {predictor}",
            _summary(evaluation, predictor),
            "### By family",
            _markdown_table([("family", *_FIGURES), *_figures(evaluation, predictor)]),
            f"### Off by more than {MISS:.0%}",
            _misses(evaluation.of(predictor)),
            "### All models",
            _markdown_table(_all_models(evaluation.of(predictor))),
        ]
    if evaluation.failed:
        parts += ["## Without an answer", _items(f"{model}: {why}" for model, why in evaluation.failed)]
    if evaluation.warnings:
        parts += ["## To be kept in mind", _items(evaluation.warnings)]
    return "\n\n".join(parts) + "\n"


def plot(evaluation: Evaluation, predictor: str, path: Path) -> None:
    """Predicted latency and relative error of each model over its measured latency, the worst misses by name, as the
    picture that the suffix of ``path`` names.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        InputError: a suffix that matplotlib does not know.
        OSError: the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
    except ImportError:
        raise MissingDependencyError("matplotlib", "build", "drawing a plot") from None
    scores, figures = evaluation.of(predictor), evaluation.metrics(predictor)
    figure = Figure(figsize=(8.5, 9), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 2))
    ends = [f([x for s in scores for x in (s.measured_ms, s.predicted_ms)]) for f in (min, max)]
    line = (ends[0] / 1.2, ends[1] * 1.2)
    above.fill_between(line, [(1 - MISS) * x for x in line], [(1 + MISS) * x for x in line], color="0.9")
    above.plot(line, line, color="0.4", linewidth=1)
    below.axhspan(-100 * MISS, 100 * MISS, color="0.9", label=f"±{MISS:.0%}")
    halves = {score.kept for score in scores}
    for half, marker in ((False, "o"), (True, "s")):
        own = [score for score in scores if score.kept is half]
        if own:
            taken = [score.measured_ms for score in own]
            label = f"{_HALVES[half]}: {len(own)}" if len(halves) > 1 else f"{len(own)} models"
            for axes, values in ((above, [s.predicted_ms for s in own]), (below, [100 * s.error for s in own])):
                axes.plot(taken, values, marker, markersize=4, alpha=0.7, label=label)
    above.set(xscale="log", yscale="log", xlim=line, ylim=line, ylabel="predicted, ms")
    for axis in (above.xaxis, above.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    below.set(xlabel=f"measured, {scores[0].statistic} ms", ylabel="error, %")
    below.margins(y=0.12)
    middle, named = math.sqrt(line[0] * line[1]), _named(scores)
    below.update_datalim([(middle, height) for _, height in named])
    below.autoscale_view(scalex=False)
    for score, height in named:
        side, beside = ("left", 1.06) if score.measured_ms < middle else ("right", 1 / 1.06)
        below.annotate(
            score.model, (score.measured_ms, 100 * score.error), (beside * score.measured_ms, height),
            ha=side, va="center", fontsize="x-small", arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "0.5"},
        )  # fmt: skip
    above.set_title(
        f"{predictor}: {figures.n} models, median error {figures.median_ape:.1%}, "
        f"{figures.within_10:.0%} within ±10 %",
        fontsize="small",
    )
    below.legend(fontsize="x-small", loc="upper right")
    try:
        figure.savefig(path, dpi=150)
    except ValueError as error:
        raise InputError(f"{path}: {error}; name the plot .png or .svg") from error


_NAMED = 14
"""More names than these cannot be read beside each other."""


def _named(scores: Sequence[Score]) -> list[tuple[Score, float]]:
    """The worst misses and how high the name of each stands, in percent: none on another."""
    worst = sorted((s for s in scores if s.missed), key=lambda s: -abs(s.error))[:_NAMED]
    gap = max((abs(s.error) for s in worst), default=0.0) / 15  # of two lines, where errors go both ways
    placed: list[tuple[Score, float]] = []
    for score in sorted(worst, key=lambda s: abs(s.error)):
        sign = math.copysign(1.0, score.error)
        near = [abs(height) + 100 * gap for other, height in placed if other.error * sign > 0
                and 1 / 4 < other.measured_ms / score.measured_ms < 4]  # fmt: skip
        placed.append((score, sign * max([100 * abs(score.error), *near])))
    return placed


def _predictor(evaluation: Evaluation, predictor: str) -> dict[str, Any]:
    scores = evaluation.of(predictor)
    interval, levelled = evaluation.interval(predictor), evaluation.levelled(predictor)
    return {
        "predictor": predictor,
        "statistic": scores[0].statistic,
        "metrics": asdict(evaluation.metrics(predictor)),
        "levelled": levelled and asdict(levelled),
        "families": {name: asdict(each) for name, each in evaluation.families(predictor).items()},
        "noise": {"median": evaluation.noise(predictor), "p90": evaluation.noise(predictor, 0.9)},
        "covered": evaluation.covered(predictor),
        "calibrated_interval": interval and interval.written(),
    }


def _row(score: Score) -> tuple[str, ...]:
    return (
        score.model,
        score.family or "-",
        _ms(score.measured_ms),
        f"{score.noise:.1%}",
        _ms(score.predicted_ms),
        f"{score.error:+.1%}",
        f"{score.predicted_share:.1%}",
    )


def _all_models(scores: Sequence[Score]) -> list[tuple[str, ...]]:
    heads = ("model", "family", "measured ms", "median ms", "noise", "predicted ms", "error", "90 % interval",
             "predicted share", "nodes")  # fmt: skip
    rows: list[tuple[str, ...]] = [heads]
    for score in scores:
        model, family, measured, noise, predicted, error, share = _row(score)
        interval = " .. ".join(map(_ms, score.interval_ms)) if score.interval_ms else "-"
        median = _ms(score.median_ms)
        rows.append(
            (model, family, measured, median, noise, predicted, error, interval, share, str(score.nodes))
        )
    return rows


def _figures(evaluation: Evaluation, predictor: str) -> list[tuple[str, ...]]:
    families = evaluation.families(predictor)
    rows = [(name or "-", *_cells(each)) for name, each in families.items()] if len(families) > 1 else []
    away = {score.kept for score in evaluation.of(predictor)}
    halves = [(_HALVES[half], *_cells(evaluation.metrics(predictor, half))) for half in sorted(away) if len(away) > 1]
    levelled = evaluation.levelled(predictor)
    levels = [(_LEVELLED, *_cells(levelled))] if levelled else []
    return [*rows, *halves, ("all", *_cells(evaluation.metrics(predictor))), *levels]


def _cells(figures: Metrics) -> tuple[str, ...]:
    return (
        str(figures.n),
        f"{figures.median_ape:.1%}",
        f"{figures.mape:.1%}",
        f"{figures.rmspe:.1%}",
        f"{_ms(figures.rmse_ms)} ms",
        f"{figures.within_5:.0%}",
        f"{figures.within_10:.0%}",
        f"{figures.within_15:.0%}",
        "-" if figures.spearman is None else f"{figures.spearman:.3f}",
        f"{figures.bias:+.1%}",
    )


def _summary(evaluation: Evaluation, predictor: str) -> str:
    figures, covered = evaluation.metrics(predictor), evaluation.covered(predictor)
    scores = evaluation.of(predictor)
    text = (
        f"{figures.n} models of {len(evaluation.families(predictor))} families: median error "
        f"{figures.median_ape:.1%}, {figures.within_10:.0%} within ±10 %. The same models measured twice "
        f"differ by {evaluation.noise(predictor):.1%} in the median, nine of ten by at most "
        f"{evaluation.noise(predictor, 0.9):.1%}."
    )
    if len({score.kept for score in scores}) > 1:
        for half, words in _HALVES.items():
            own = evaluation.metrics(predictor, half)
            text += f" Of the {own.n} {words}: {own.median_ape:.1%}, {own.within_10:.0%}."
    if covered is not None:
        text += f" The predictor's intervals hold {covered:.0%} of the measured latencies."
    levelled = evaluation.levelled(predictor)
    if levelled is not None:
        levels = sorted(score.level for score in scores if score.level is not None)
        text += (
            f" The probe took {levels[len(levels) // 2] - 1:+.1%} in the median against the time of the build "
            f"({levels[0] - 1:+.1%} to {levels[-1] - 1:+.1%}); with that divided out (levelled), the median error is "
            f"{levelled.median_ape:.1%}, {levelled.within_10:.0%} within ±10 %."
        )
    return text


def _circumstances(evaluation: Evaluation, command: str) -> str:
    facts = evaluation.environment
    rows = [
        f"- {what}: {', '.join(str(facts[key]) for key in keys if facts.get(key) is not None)}"
        for what, keys in _FACTS
        if any(facts.get(key) is not None for key in keys)
    ]
    statistics = dict.fromkeys(score.statistic for score in evaluation.scores)
    words = {"quiet": "quiet latency, the 5th percentile of the runs", "median": "median of the runs"}
    compared = "; ".join(words[each] for each in statistics)
    rows.append(f"- measured on the backend `{evaluation.backend}`, {evaluation.rounds} rounds a model")
    rows.append(f"- what is compared: {compared}")
    return "\n".join(rows) + f"\n\nWritten by:\n\n<!-- long: {evaluation.backend} -->\n```sh\n{command}\n```"


def _misses(scores: Sequence[Score]) -> str:
    missed = sorted((score for score in scores if score.missed), key=lambda score: -abs(score.error))
    if not missed:
        return "None."
    slowed = sum(score.slowed for score in missed)
    said = f"{slowed} of {len(missed)} are the measurement's: traced at another time, the kernels add up to what is "
    said += "predicted.\n\n"
    return (said if slowed else "") + _items(
        f"{score.model}: {score.error:+.1%} (noise {score.noise:.1%}); {_why(score)}" for score in missed
    )


def _why(score: Score) -> str:
    if score.traced_ms is None:
        return "its kernels were not traced"
    if score.slowed:
        return f"slowed while it was measured: the traced kernels sum up to {_ms(score.traced_ms)} ms, as predicted"
    if not score.blamed:
        return f"no kind stands out: the traced kernels sum up to {_ms(score.traced_ms)} ms"
    return "to blame: " + ", ".join(
        f"`{each.kind}` {_ms(each.predicted_ms)} ms for {_ms(each.traced_ms)} ms traced"
        for each in score.blamed
    )


def _markdown_table(rows: Sequence[tuple[str, ...]]) -> str:
    head, *body = ("| " + " | ".join(row) + " |" for row in rows)
    rule = "|" + "|".join("---" if i < 1 else "---:" for i in range(len(rows[0]))) + "|"
    return lines((head, rule, *body))


def _items(texts: Iterable[str]) -> str:
    return lines(f"- {text}" for text in texts)


def _ms(value: float) -> str:
    """Four significant digits, without an exponent."""
    return f"{value:.2f}" if value >= 10 else f"{value:.3f}"
