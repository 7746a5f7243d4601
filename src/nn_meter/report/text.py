"""Predictions as text for people, in tables that fit the terminal.

What is given here are rich's renderables; ``nn_meter.cli.output.show`` prints them.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from textwrap import wrap
from types import MappingProxyType

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from nn_meter import plugins
from nn_meter.predictors.prediction import DOUBTFUL, STATUSES, KernelPrediction, Prediction, Status
from nn_meter.predictors.prediction import milliseconds as milliseconds
from nn_meter.predictors.summary import By, Row, Sort, layer_name, rows
from nn_meter.report.lines import LINE_LETTERS
from nn_meter.storage import legible

TOP = 10
"""Rows that are shown where not all are asked for."""

_WIDE = 110
"""From so many columns on there is room for shapes."""

_LEAST = 0.0005
"""A kind's share of the total from which on it is worth a word."""

_FEW_INPUTS = 4
"""So many inputs are shown one by one, more of them by shape: a cache has two for each layer."""

_STYLES: Mapping[str, str] = MappingProxyType({"predicted": "green", "free": "dim"})
_DOUBTFUL_STYLE = "yellow"


@dataclass(frozen=True, slots=True)
class View:
    """Which rows to show: how kernels are grouped, in what order, the first ``top`` of them (0: all)."""

    by: By = "layer"
    sort: Sort = "time"
    top: int = TOP
    depth: int = 1


EVERY_KERNEL = View("kernel", "order", 0)


def answer(prediction: Prediction, view: View = View()) -> Group:
    """What answered, how far it can be trusted, and where the time goes."""
    return Group(_facts(prediction), "", _rows_table(prediction, view))


def details(prediction: Prediction, view: View = EVERY_KERNEL) -> Group:
    """The same with what each status makes up, and what is to be said about single kernels and the model."""
    parts = [coverage_table(prediction), *_notes(prediction)]
    return Group(answer(prediction, view), *_apart(parts))


def explanation(prediction: Prediction, view: View = EVERY_KERNEL, every: bool = False) -> Group:
    """Kernels, why neighbours did not fuse, what the total rests on; ``every`` lists each pair of neighbours."""
    head = Text(legible(f"{prediction.model} on {prediction.predictor} {prediction.version}"), style="bold")
    parts = [*_unfused(prediction, every), coverage_table(prediction), *_notes(prediction)]
    return Group(head, answer(prediction, view), *_apart(parts))


def total_line(prediction: Prediction) -> str:
    """The total with its statistic and interval, where the predictor knows them."""
    line = f"{milliseconds(prediction.latency_ms)} ms"
    if prediction.statistic:
        line += f" ({prediction.statistic})"
    if prediction.interval_ms:
        low, high = map(milliseconds, prediction.interval_ms)
        line += f", 90 % of such models between {low} and {high} ms"
    return line


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several predictions side by side, a line per model and predictor. Columns that say nothing are left out; where
    there is too little room so are devices, then names go on in further lines, then intervals are left out, too."""

    predictions: Sequence[Prediction]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        if _fits(self._table(device=_DEVICE), console, options):
            yield self._table()
        elif _fits(self._table(device=0), console, options):
            yield self._table(device=0)
        else:
            wrapped = self._table(device=0, whole=False)
            fits = Measurement.get(console, options.update(max_width=_ENDLESS), wrapped).minimum <= options.max_width
            yield wrapped if fits else self._table(device=0, whole=False, intervals=False)

    def _table(self, device: int = LINE_LETTERS, whole: bool = True, intervals: bool = True) -> Table:
        """With so many letters of devices."""
        statuses = [s for s in DOUBTFUL if any(each.coverage[s].share >= _LEAST for each in self.predictions)]
        devices = device and any(each.device for each in self.predictions)
        intervals = intervals and any(each.interval_ms for each in self.predictions)
        table = plain_table(
            ("model", "predictor", *(("device",) if devices else ())),
            ("ms", *(("90 % interval",) if intervals else ()), "predicted", *statuses),
        )
        for column in table.columns[:2]:
            column.no_wrap = whole
        for each in self.predictions:
            names = each.model, f"{each.predictor} {each.version}"
            cells: list[RenderableType] = [_whole(name) if whole else Layer(name, parts=FILE_PARTS) for name in names]
            if devices:
                cells.append(Squeezed(shortened(each.device or "-", device)))
            cells.append(milliseconds(each.latency_ms))
            if intervals:
                cells.append(" .. ".join(map(milliseconds, each.interval_ms)) if each.interval_ms else "-")
            cells += [percent(each.coverage[status].share) for status in ("predicted", *statuses)]
            table.add_row(*cells)
        return table


_DEVICE = 20
"""So many letters of a device still tell which one it is."""


def _whole(name: str) -> Text:
    return Text(legible(name, LINE_LETTERS), no_wrap=True)


def coverage_table(prediction: Prediction) -> RenderableType:
    """What the total rests on, a line per status that occurs."""
    table = plain_table(("what the total rests on",), ("kernels", "nodes", "ms", "share"))
    for status, part in prediction.coverage.items():
        if not part.kernels:
            continue
        counts = str(part.kernels), str(part.nodes)
        table.add_row(
            Text(status, _style(status)), *counts, milliseconds(part.latency_ms), percent(part.share)
        )
    return table


def percent(share: float) -> str:
    """A share, 0 to 1, in percent."""
    return f"{share:.1%}"


def scaled(value: float, unit: str) -> str:
    """``2.34 M``; three digits and a prefix of the thousands."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:g} {unit}"


def counted(count: int, noun: str) -> str:
    """``1 kernel``, ``2 kernels``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def shortened(text: str, width: int) -> str:
    """``text``, its middle left out where it is longer than ``width``."""
    if len(text) <= width:
        return text
    head = max(0, (width - 3) // 2)
    return f"{text[:head]}...{text[len(text) - (width - 3 - head) :]}"[: max(width, 0)]


@dataclass(frozen=True, slots=True)
class Squeezed:
    """A name in a cell: where there is too little room its middle goes, since its ends tell most."""

    text: str
    style: str = ""
    least: int = 12

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        yield Text(shortened(legible(self.text, LINE_LETTERS), options.max_width), self.style, no_wrap=True)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        length = len(legible(self.text, LINE_LETTERS))
        return Measurement(min(self.least, length), length)


LAYER_PARTS, FILE_PARTS = re.compile(r"(?<=[./ ])(?=[^./ ])"), re.compile(r"(?<=[/ _-])(?=[^/ _-])")
"""Between them a name of a layer, or of a file or predictor, goes on in a further line."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A name in a cell, whole: where there is too little room it goes on in further lines, broken where
    its parts meet, and only a part that is too long alone loses its middle."""

    text: str
    style: str = ""
    parts: re.Pattern[str] = LAYER_PARTS

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        line = ""
        for part in self._parts():
            indented = shortened(part, options.max_width - len(_FURTHER))
            if line and len(line) + len(part) > options.max_width:
                yield Text(line, self.style, no_wrap=True)
                line = _FURTHER
            line += part if len(line) + len(part) <= options.max_width else indented
        yield Text(line, self.style, no_wrap=True)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        length = len(legible(self.text, LINE_LETTERS))
        longest = max(map(len, self._parts()), default=0) + len(_FURTHER)
        return Measurement(min(length, max(_NAME, min(longest, 2 * _NAME))), length)

    def _parts(self) -> list[str]:
        return [*filter(None, self.parts.split(legible(self.text, LINE_LETTERS)))]


_FURTHER, _NAME = "  ", 24


@dataclass(frozen=True, slots=True)
class Items:
    """Words with commas between, broken into lines between two of them only."""

    items: tuple[Text, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        line = Text()
        for index, item in enumerate(self.items):
            last = index + 1 == len(self.items)
            if line and len(line) + len(item) + (0 if last else 1) > options.max_width:
                line.rstrip()
                yield line
                line = Text()
            line.append_text(item)
            line.append("" if last else ", ")
        yield line

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        widths = [len(item) + 1 for item in self.items]
        return Measurement(max(widths, default=0), sum(widths) + len(widths))


@dataclass(frozen=True, slots=True)
class Words:
    """A line that goes on under its beginning where it is too long; a word that is too long alone stays whole."""

    text: str
    indent: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        margin = " " * self.indent
        for line in wrap(
            legible(self.text, LINE_LETTERS),
            options.max_width,
            initial_indent=margin,
            subsequent_indent=margin,
            break_long_words=False,
            break_on_hyphens=False,
        ):
            yield Text(line, no_wrap=True, overflow="ignore")


def _facts(prediction: Prediction) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column()
    grid.add_row("answered by", _items(_answerer(prediction)))
    if model := list(_model(prediction)):
        grid.add_row("model", _items(model))
    grid.add_row("latency", _items(total_line(prediction).split(", ")))
    grid.add_row("rests on", Items(tuple(_rests_on(prediction))))
    for text in prediction.assumed:
        grid.add_row("assumed", Words(text, 0))
    if prediction.call_ms:
        share = percent(prediction.share(prediction.call_ms))
        grid.add_row("call", _items((f"{milliseconds(prediction.call_ms)} ms", share, "outside all kernels")))
    kinds = [f"{each.name} {percent(each.share)}" for each in rows(prediction, "kind") if each.share >= _LEAST]
    if kinds:
        grid.add_row("by kind", _items(kinds))
    if command := _measuring(prediction):  # in one line, to be copied
        return Group(grid, Text.assemble(("verify by", "dim"), f"    {command}", no_wrap=True, overflow="ignore"))
    return grid


def _measuring(prediction: Prediction) -> str:
    """The command that measures the model on such a device, where a backend runs its runtime in that precision."""
    runtime = prediction.runtime.partition(" ")[0]
    if not prediction.threads or f"{runtime}_cpu" not in plugins.names("backend") or prediction.dtype == "int8":
        return ""
    threads = f" --threads {prediction.threads}" if prediction.threads > 1 else ""
    tokens = ""
    if prediction.past is not None:  # a text's first input is its tokens, a row for each text
        lengths = (each.shape[1] for each in prediction.inputs if len(each.shape) == 2)
        tokens = f" --past {prediction.past}{''.join(f' --seq-len {length}' for length in list(lengths)[:1])}"
    there = _ELSEWHERE.get(runtime, "")
    model = legible(shlex.quote(prediction.source or prediction.model))
    return f"nn-meter measure {model}{tokens} --backend {runtime}_cpu{threads}{there}"


_ELSEWHERE = {"tflite": " --device adb://SERIAL"}
"""Where a runtime is that does not run here."""


def _answerer(prediction: Prediction) -> Iterator[str]:
    yield f"{prediction.predictor} {prediction.version}"
    yield from filter(None, (prediction.device, prediction.runtime))
    if prediction.threads:
        yield counted(prediction.threads, "thread")
    if prediction.dtype:
        yield prediction.dtype


def _model(prediction: Prediction) -> Iterator[str]:
    if prediction.inputs:
        batch = prediction.inputs[0].shape[:1]
        yield from (f"batch {size}" for size in batch)
        if prediction.past is not None:
            yield f"past {prediction.past}"
        shapes = ["x".join(map(str, each.shape)) or "scalar" for each in prediction.inputs]
        if len(shapes) > _FEW_INPUTS:
            shapes = [f"{count} of {shape}" if count > 1 else shape for shape, count in Counter(shapes).items()]
        yield f"input{'s' if len(prediction.inputs) > 1 else ''} {' + '.join(shapes)}"
    if (size := prediction.size) is not None:
        yield f"{scaled(size.parameters, '').strip()} parameters"
        yield f"{scaled(size.multiply_adds, '').strip()} multiply-adds"
        yield f"{scaled(size.weight_bytes, 'B')} of weights"
        yield f"{scaled(size.peak_bytes, 'B')} of activations at most"


def _rests_on(prediction: Prediction) -> Iterator[Text]:
    for status, part in prediction.coverage.items():
        if part.kernels:
            yield Text(f"{status} {percent(part.share)} ({counted(part.kernels, 'kernel')})", _style(status))


def _rows_table(prediction: Prediction, view: View) -> RenderableType:
    found = rows(prediction, view.by, view.sort, view.depth)
    shown = found[: view.top or None]
    table = RowsTable(shown, view)
    left = len(found) - len(shown)
    if not left:
        return table
    kernels = sum(row.count for row in found[view.top :])
    rest = prediction.share(sum(row.latency_ms for row in found[view.top :]))
    more = Items(
        (Text(f"{counted(kernels, 'more kernel')} take {percent(rest)}"), Text(f"--top {len(found)} or -v shows them"))
    )
    return Group(table, more)


@dataclass(frozen=True, slots=True)
class RowsTable:
    """Rows with their shares; columns that there is no room for, or that say nothing, are left out."""

    rows: Sequence[Row]
    view: View

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        if self.view.by in ("kind", "module"):
            yield self._groups()
            return
        richest, plain, tight = self._layers(shapes=True), self._layers(), self._layers(gap=1)
        if options.max_width >= _WIDE or _fits(richest, console, options):
            yield richest
        else:
            yield plain if _fits(plain, console, options) else tight

    def _groups(self) -> Table:
        table = plain_table((self.view.by,), ("kernels", "ms", "share", "sum"))
        for row in self.rows:
            table.add_row(Squeezed(row.name, least=20), str(row.count), *_numbers(row))
        return table

    def _layers(self, *, shapes: bool = False, gap: int = 2) -> Table:
        doubtful = any(row.one(_status) != "predicted" for row in self.rows)
        bound = any(row.one(_bound) for row in self.rows)
        folded = any(row.count > 1 for row in self.rows)
        table = plain_table(("layer", "kernel", *(("shape",) if shapes else ())), (), gap)
        for head, there in (("", folded), ("ms", True), ("share", True), ("sum", True)):
            if there:
                table.add_column(head, justify="right", no_wrap=True)
        for head, there in (("bound", bound), ("status", doubtful)):
            if there:
                table.add_column(head, no_wrap=True)
        for row in self.rows:
            status = row.one(_status)
            style = "" if status == "predicted" else _style(status)
            cells: list[RenderableType] = [Layer(row.name, style), Squeezed(row.one(_label), least=8)]
            if shapes:
                cells.append(Squeezed(row.one(_shape), least=24))
            if folded:
                cells.append(f"x{row.count}" if row.count > 1 else "")
            cells += _numbers(row)
            cells += [row.one(_bound)] * bound + [Text(status, _style(status))] * doubtful
            table.add_row(*cells)
        return table


_ENDLESS = 10_000


def _fits(table: Table, console: Console, options: ConsoleOptions) -> bool:
    return Measurement.get(console, options.update(max_width=_ENDLESS), table).maximum <= options.max_width


def _numbers(row: Row) -> tuple[str, str, str]:
    return milliseconds(row.latency_ms), percent(row.share), percent(row.cumulative)


def _status(each: KernelPrediction) -> str:
    return each.status


def _bound(each: KernelPrediction) -> str:
    return each.bound


def _label(each: KernelPrediction) -> str:
    return each.kernel.label


def _shape(each: KernelPrediction) -> str:
    return each.kernel.config.describe()


def plain_table(left: Sequence[str], right: Sequence[str], gap: int = 2) -> Table:
    """A table without lines: names, which may be shortened, then numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for head in left:
        table.add_column(head, min_width=len(head))
    for head in right:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _style(status: Status | str) -> str:
    assert status in STATUSES
    return _STYLES.get(status, _DOUBTFUL_STYLE)


def _items(texts: Iterable[str]) -> Items:
    return Items(tuple(Text(legible(each, LINE_LETTERS)) for each in texts))


def _apart(parts: Iterable[RenderableType]) -> Iterator[RenderableType]:
    for part in parts:
        yield ""
        yield part


def _unfused(prediction: Prediction, every: bool) -> Iterator[RenderableType]:
    if not prediction.unfused:
        return
    lines: list[RenderableType] = ["why neighbours did not fuse:"]
    for reason, pairs in prediction.unfused_by_reason.items():
        lines.append(Words(f"{len(pairs):4d}  {reason}", 2))
        for pair in pairs if every else pairs[:1]:
            lines.append(Words(f"{layer_name(pair.producer)} -> {layer_name(pair.consumer)}", 8))
        if len(pairs) > 1 and not every:
            lines.append(Words(f"... {len(pairs) - 1} more, with -v", 8))
    yield Group(*lines)


def _notes(prediction: Prediction) -> Iterator[RenderableType]:
    noted = sorted((note, each.kernel.label) for each in prediction.kernels for note in each.notes)
    lines: list[RenderableType] = []
    for note, group in groupby(noted, key=lambda item: item[0]):
        labels = [label for _, label in group]
        lines.append(Words(f"{labels[0]}{f' (x{len(labels)})' if len(labels) > 1 else ''}: {note}", 2))
    for label, reason, count in prediction.free_operators:
        lines.append(Words(f"{label}{f' (x{count})' if count > 1 else ''}: free, {reason}", 2))
    if lines:
        yield Group("about single kernels:", *lines)
    if prediction.notes:
        yield Group("notes:", *(Words(note, 2) for note in prediction.notes))
