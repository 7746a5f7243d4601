"""Verdicts on models for people, pull requests and the servers that run checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from rich.console import Group, RenderableType
from rich.text import Text

from nn_meter.predictors.checking import Change, Verdict
from nn_meter.predictors.prediction import milliseconds
from nn_meter.predictors.summary import rows
from nn_meter.report.text import FILE_PARTS, Layer, Squeezed, Words, percent, plain_table
from nn_meter.storage import legible

TOP = 5
"""Layers that are told of a model."""

_LETTERS = 1000

_FIGURES = frozenset(("ms", "before", "change", "share", "difference"))

_MARKS = {"&": "&amp;", "<": "&lt;", "|": "&#124;", "`": "&#96;", "*": "&#42;", "_": "&#95;", "[": "&#91;"}


def table(verdicts: Sequence[Verdict]) -> Group:
    """A line for each model and predictor, then the layers of those that broke something or changed."""
    heads, *lines = _verdicts(verdicts)
    result = plain_table(heads[:2], heads[2:-1])
    result.add_column(heads[-1], no_wrap=True)
    for each, line in zip(verdicts, lines, strict=True):
        names = [Layer(name, parts=FILE_PARTS) for name in line[:2]]
        result.add_row(*names, *line[2:-1], Text(line[-1], "red" if each.problems else "green"))
    parts: list[RenderableType] = [result]
    for each in verdicts:
        if not each.problems and not each.changes:
            continue
        parts += ["", Squeezed(_title(each), "bold"), *(Words(problem, 2) for problem in each.problems)]
        if lines := list(_layers(each)):
            heads, *body = lines
            layers = plain_table(heads[:2], heads[2:])
            for layer, kernel, *numbers in body:
                layers.add_row(Layer(layer), Squeezed(kernel, least=16), *numbers)
            parts.append(layers)
    return Group(*parts)


def markdown(verdicts: Sequence[Verdict]) -> str:
    """The same for a pull request; layers are folded."""
    broken = sum(bool(each.problems) for each in verdicts)
    parts = [
        f"### Predicted latency: {f'{broken} of {len(verdicts)} checks fail' if broken else 'all checks pass'}",
        _markdown([*_verdicts(verdicts)]),
    ]
    for each in verdicts:
        if not each.problems and not each.changes:
            continue
        body = ["\n".join(f"- {_plain(problem)}" for problem in each.problems)]
        if lines := list(_layers(each)):
            body.append(_markdown(lines))
        inner = "\n\n".join(filter(None, body))
        shown = " open" if each.problems else ""
        parts.append(f"<details{shown}><summary>{_summary(each)}</summary>\n\n{inner}\n\n</details>")
    return "\n\n".join(parts) + "\n"


def junit(verdicts: Sequence[Verdict]) -> str:
    """A test case for each model and predictor: a failure where something is broken, an error where there is no
    answer."""
    suite = ElementTree.Element("testsuite", name="nn-meter check", tests=str(len(verdicts)), time="0")
    for kind in ("failure", "error"):
        suite.set(f"{kind}s", str(sum(_outcome(each) == kind for each in verdicts)))
    for each in verdicts:
        model, predictor = _names(each)
        case = ElementTree.SubElement(suite, "testcase", classname=predictor or "nn-meter", name=model, time="0")
        layers = ["  ".join(line) for line in _layers(each)]
        if outcome := _outcome(each):
            found = ElementTree.SubElement(case, outcome, message=legible("; ".join(each.problems), _LETTERS))
            found.text = "\n".join(legible(line, _LETTERS) for line in (*each.problems, *layers))
        if each.prediction is not None:
            out = ElementTree.SubElement(case, "system-out")
            out.text = f"{milliseconds(each.prediction.latency_ms)} ms"
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _outcome(verdict: Verdict) -> str:
    if not verdict.problems:
        return ""
    return "error" if verdict.prediction is None else "failure"


def _verdicts(verdicts: Sequence[Verdict]) -> Iterator[tuple[str, ...]]:
    """Heads and a line for each; what was before, where that is known of any."""
    compared = any(each.before for each in verdicts)
    yield "model", "predictor", "ms", *(("before", "change") if compared else ()), "verdict"
    for each in verdicts:
        if each.prediction is None:
            yield *_names(each), "", *(("", "") if compared else ()), "no answer"
            continue
        before = milliseconds(each.before.latency_ms) if each.before else "-"
        change = "-" if each.change is None else f"{each.change:+.1%}"
        outcome = "fails" if each.problems else "ok, new" if each.new else "ok"
        numbers = (milliseconds(each.prediction.latency_ms), *((before, change) if compared else ()))
        yield *_names(each), *numbers, outcome


def _names(verdict: Verdict) -> tuple[str, str]:
    found = verdict.prediction
    return legible(verdict.model), "" if found is None else legible(f"{found.predictor} {found.version}")


def _title(verdict: Verdict) -> str:
    return " on ".join(filter(None, _names(verdict)))


def _summary(verdict: Verdict) -> str:
    return " on ".join(f"<code>{_plain(name)}</code>" for name in filter(None, _names(verdict)))


def _layers(verdict: Verdict) -> Iterator[tuple[str, ...]]:
    """Heads and lines: what changed most, or where nothing was before what takes the longest."""
    if verdict.prediction is None:
        return
    if verdict.before is None:
        yield "layer", "kernel", "ms", "share"
        for row in rows(verdict.prediction)[:TOP]:
            label = row.one(lambda each: each.kernel.label)
            yield legible(row.name), legible(label), milliseconds(row.latency_ms), percent(row.share)
        return
    if verdict.changes:
        yield "layer", "kernel", "before", "ms", "difference"
    for each in verdict.changes[:TOP]:
        difference = f"{'+' if each.difference_ms > 0 else ''}{milliseconds(each.difference_ms)}"
        yield (
            legible(each.layer), legible(_kernels(each)), milliseconds(each.before_ms), milliseconds(each.latency_ms),
            difference,
        )  # fmt: skip


def _kernels(change: Change) -> str:
    if change.kernel_before == change.kernel:
        return change.kernel
    return f"{change.kernel_before or 'nothing'} -> {change.kernel or 'nothing'}"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    heads, *body = lines
    rule = ["--:" if head in _FIGURES else ":--" for head in heads]
    told = [[*map(_code, line[:2]), *map(_plain, line[2:])] for line in body]
    return "\n".join("| " + " | ".join(line) + " |" for line in (heads, rule, *told))


def _code(name: str) -> str:
    """A name as it is, where nothing in it ends a span of code or a cell."""
    shown = legible(name, _LETTERS)
    return f"`{shown}`" if shown.strip() and not {"`", "|"}.intersection(shown) else _plain(name)


def _plain(text: str) -> str:
    """Names cannot be markup, nor cells."""
    shown = legible(text, _LETTERS)
    for mark, code in _MARKS.items():
        shown = shown.replace(mark, code)
    return shown
