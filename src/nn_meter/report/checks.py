"""Verdicts on models for people, pull requests and the servers that run checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from rich.console import Group, RenderableType
from rich.text import Text

from nn_meter.predictors.checking import Change, Verdict
from nn_meter.predictors.prediction import milliseconds
from nn_meter.predictors.summary import rows
from nn_meter.report.text import Squeezed, Words, percent, plain_table
from nn_meter.storage import legible

TOP = 5
"""Layers that are told of a model."""

_LETTERS = 1000

_HEADS = ("model", "predictor", "ms", "before", "change", "verdict")

_MARKS = {"&": "&amp;", "<": "&lt;", "|": "&#124;", "`": "&#96;", "*": "&#42;", "_": "&#95;", "[": "&#91;"}


def table(verdicts: Sequence[Verdict]) -> Group:
    """A line for each model and predictor, then the layers of those that broke something or changed."""
    result = plain_table(_HEADS[:2], _HEADS[2:5])
    result.add_column(_HEADS[5], no_wrap=True)
    for each in verdicts:
        model, predictor, *numbers, verdict = _cells(each)
        style = "green" if not each.problems else "red"
        result.add_row(Squeezed(model, least=14), Squeezed(predictor, least=10), *numbers, Text(verdict, style))
    parts: list[RenderableType] = [result]
    for each in verdicts:
        if not each.problems and not each.changes:
            continue
        parts += ["", Squeezed(_title(each), "bold"), *(Words(problem, 2) for problem in each.problems)]
        if lines := list(_layers(each)):
            heads, *body = lines
            layers = plain_table(heads[:2], heads[2:])
            for layer, kernel, *numbers in body:
                layers.add_row(Squeezed(layer, least=24), Squeezed(kernel, least=16), *numbers)
            parts.append(layers)
    return Group(*parts)


def markdown(verdicts: Sequence[Verdict]) -> str:
    """The same for a pull request; layers are folded."""
    broken = sum(bool(each.problems) for each in verdicts)
    parts = [
        f"### Predicted latency: {f'{broken} of {len(verdicts)} checks fail' if broken else 'all checks pass'}",
        _markdown([_HEADS, *map(_cells, verdicts)], 2),
    ]
    for each in verdicts:
        if not each.problems and not each.changes:
            continue
        body = ["\n".join(f"- {_plain(problem)}" for problem in each.problems)]
        if lines := list(_layers(each)):
            body.append(_markdown(lines, 2))
        inner = "\n\n".join(filter(None, body))
        shown = " open" if each.problems else ""
        parts.append(f"<details{shown}><summary>{_plain(_title(each))}</summary>\n\n{inner}\n\n</details>")
    return "\n\n".join(parts) + "\n"


def junit(verdicts: Sequence[Verdict]) -> str:
    """A test case for each model and predictor: a failure where something is broken, an error where there is no
    answer."""
    suite = ElementTree.Element("testsuite", name="nn-meter check", tests=str(len(verdicts)), time="0")
    for kind in ("failure", "error"):
        suite.set(f"{kind}s", str(sum(_outcome(each) == kind for each in verdicts)))
    for each in verdicts:
        model, predictor, *_ = _cells(each)
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


def _cells(verdict: Verdict) -> tuple[str, ...]:
    found = verdict.prediction
    if found is None:
        return legible(verdict.model), "", "", "", "", "no answer"
    before = milliseconds(verdict.before.latency_ms) if verdict.before else "-"
    change = "-" if verdict.change is None else f"{verdict.change:+.1%}"
    outcome = "fails" if verdict.problems else "ok" if verdict.before else "ok, new"
    named = legible(f"{found.predictor} {found.version}")
    return legible(verdict.model), named, milliseconds(found.latency_ms), before, change, outcome


def _title(verdict: Verdict) -> str:
    found = verdict.prediction
    return legible(verdict.model if found is None else f"{verdict.model} on {found.predictor} {found.version}")


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


def _markdown(lines: Sequence[Sequence[str]], left: int) -> str:
    heads, *body = lines
    rule = [":--" if index < left else "--:" for index in range(len(heads))]
    return "\n".join("| " + " | ".join(map(_plain, line)) + " |" for line in (heads, rule, *body))


def _plain(text: str) -> str:
    """Names cannot be markup, nor cells."""
    shown = legible(text, _LETTERS)
    for mark, code in _MARKS.items():
        shown = shown.replace(mark, code)
    return shown
