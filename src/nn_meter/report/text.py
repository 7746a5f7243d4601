"""Predictions as lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

from nn_meter.predictors.prediction import STATUSES, KernelPrediction, Prediction
from nn_meter.storage import legible

PREFIX = "(nn-Meter)"
_LABEL_MAX = 36
_SHAPE_MAX = 64
_LINE_MAX = 1000


def result_line(model: str, latency_ms: float) -> str:
    """nn-Meter's line, byte for byte: scripts read it."""
    return f"{PREFIX} [RESULT] predict latency for {legible(model)}: {latency_ms} ms"


def predictor_line(name: str, version: str) -> str:
    """nn-Meter's line, byte for byte: scripts read it."""
    return f"{PREFIX} [Predictor] {legible(name)}: version={legible(version)}"


def lines(texts: Iterable[str]) -> str:
    """Each text on a line of its own, whatever names in it hold."""
    return "\n".join(legible(text, _LINE_MAX) for text in texts)


def columns(rows: Iterable[Sequence[str]], right: frozenset[int] = frozenset()) -> list[str]:
    """Rows of equal length as aligned lines, two spaces between; the columns in ``right`` end flush."""
    table = [tuple(legible(cell, _LINE_MAX) for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def kernel_table(prediction: Prediction) -> str:
    """One line per kernel that takes time or should; free kernels are counted below."""
    rows = [("#", "kernel", "kind", "shape", "ms", "share", "status")]
    rows += [
        (
            str(number),
            shortened(each.kernel.label, _LABEL_MAX),
            each.kernel.kind,
            shortened(each.kernel.config.describe(), _SHAPE_MAX),
            milliseconds(each.latency_ms),
            share(each.latency_ms, prediction.latency_ms),
            each.status,
        )
        for number, each in enumerate(charged(prediction), 1)
    ]
    return "\n".join(columns(rows, frozenset({0, 4, 5})))


def coverage_table(prediction: Prediction) -> str:
    """What the total rests on, a line per status that occurs."""
    rows = [
        (
            f"  {status}",
            counted(part.kernels, "kernel"),
            counted(part.nodes, "node"),
            f"{milliseconds(part.latency_ms)} ms",
            f"{part.share:.1%}",
        )
        for status, part in prediction.coverage.items()
        if part.kernels
    ]
    return "\n".join(["what the total rests on:", *columns(rows, frozenset({1, 2, 3, 4}))])


def details(prediction: Prediction) -> str:
    """Kernels, coverage, and what is to be said about single kernels and about the model."""
    parts = [kernel_table(prediction), coverage_table(prediction)]
    parts += [part for part in (_kernel_notes(prediction), _notes(prediction)) if part]
    return "\n\n".join(parts)


def explanation(prediction: Prediction, every: bool = False) -> str:
    """The partition, why neighbours did not fuse, what the total rests on; ``every`` lists each pair."""
    head = [
        f"{prediction.model} on {prediction.predictor} {prediction.version}"
        + (f" ({prediction.device})" if prediction.device else ""),
        total_line(prediction),
    ]
    parts = [
        lines(head),
        kernel_table(prediction),
        _unfused(prediction, every),
        coverage_table(prediction),
    ]
    parts += [part for part in (_kernel_notes(prediction), _notes(prediction)) if part]
    return "\n\n".join(part for part in parts if part)


def total_line(prediction: Prediction) -> str:
    """The total with its statistic and interval, where the predictor knows them."""
    line = f"total {milliseconds(prediction.latency_ms)} ms"
    if prediction.statistic:
        line += f" ({prediction.statistic})"
    if prediction.interval_ms:
        low, high = map(milliseconds, prediction.interval_ms)
        line += f", 90 % of such models between {low} and {high} ms"
    return line


def comparison(predictions: Iterable[Prediction]) -> str:
    """Several predictors side by side, a line per model and predictor."""
    rows: list[tuple[str, ...]] = [
        ("model", "predictor", "version", "device", "ms", "90 % interval", *STATUSES[:3])
    ]
    for each in predictions:
        interval = " .. ".join(map(milliseconds, each.interval_ms)) if each.interval_ms else "-"
        coverage = each.coverage
        rows.append(
            (
                each.model,
                each.predictor,
                each.version,
                each.device or "-",
                milliseconds(each.latency_ms),
                interval,
                *(
                    f"{part.kernels} ({part.share:.1%})"
                    for part in (coverage[status] for status in STATUSES[:3])
                ),
            )
        )
    return "\n".join(columns(rows, frozenset({4, 5, 6, 7, 8})))


def caution(prediction: Prediction) -> str:
    """One line where not all of the total is predicted or free, else empty."""
    kernels = counted(len(prediction.kernels), "kernel")
    said = []
    for status in ("extrapolated", "estimated"):
        part = prediction.coverage[status]
        if part.kernels:
            share = f"{part.share:.0%} of the total" if part.latency_ms else "they count 0 ms, which is too little"
            said.append(f"{part.kernels} of {kernels} ({share}) are {status}")
    if not said:
        return ""
    return (
        f"{prediction.model} on {prediction.predictor}: {', '.join(said)}, not predicted; "
        "nn-meter explain says which and why"
    )


def charged(prediction: Prediction) -> list[KernelPrediction]:
    """The kernels that are not free, in execution order."""
    return [each for each in prediction.kernels if each.status != "free"]


def free_operators(prediction: Prediction) -> list[tuple[str, str, int]]:
    """Free nodes by operator: label, reason, count; the most frequent first."""
    found = Counter(
        (each.kernel.label, each.kernel.free) for each in prediction.kernels if each.status == "free"
    )
    return [(label, reason, count) for (label, reason), count in found.most_common()]


def unfused_by_reason(prediction: Prediction) -> list[tuple[str, list[str]]]:
    """Reasons with the pairs they hold for, the most frequent first."""
    found: dict[str, list[str]] = {}
    for each in prediction.unfused:
        found.setdefault(each.reason, []).append(f"{each.producer} -> {each.consumer}")
    return sorted(found.items(), key=lambda item: -len(item[1]))


def milliseconds(value: float) -> str:
    """Four digits behind the point."""
    return f"{value:.4f}"


def share(part: float, total: float) -> str:
    """A part of the total in percent."""
    return f"{part / total:.1%}" if total else "-"


def counted(count: int, noun: str) -> str:
    """``1 kernel``, ``2 kernels``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def shortened(text: str, width: int) -> str:
    """``text``, its middle left out where it is longer than ``width``."""
    if len(text) <= width:
        return text
    head = (width - 3) // 2
    return f"{text[:head]}...{text[len(text) - (width - 3 - head) :]}"


def _unfused(prediction: Prediction, every: bool) -> str:
    reasons = unfused_by_reason(prediction)
    if not reasons:
        return ""
    found = ["why neighbours did not fuse:"]
    for reason, pairs in reasons:
        found.append(f"  {len(pairs):4d}  {reason}")
        found += [f"        {pair}" for pair in (pairs if every else pairs[:1])]
        if len(pairs) > 1 and not every:
            found.append(f"        ... {len(pairs) - 1} more, with -v")
    return lines(found)


def _kernel_notes(prediction: Prediction) -> str:
    noted = sorted((note, each.kernel.label) for each in prediction.kernels for note in each.notes)
    found = []
    for note, group in groupby(noted, key=lambda item: item[0]):
        labels = [label for _, label in group]
        found.append(
            f"  {shortened(labels[0], _LABEL_MAX)}{f' (x{len(labels)})' if len(labels) > 1 else ''}: {note}"
        )
    for label, reason, count in free_operators(prediction):
        found.append(f"  {label}{f' (x{count})' if count > 1 else ''}: free, {reason}")
    return lines(["about single kernels:", *found]) if found else ""


def _notes(prediction: Prediction) -> str:
    return lines(["notes:", *(f"  {note}" for note in prediction.notes)]) if prediction.notes else ""
