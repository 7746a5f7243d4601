"""Fusion rules as a matrix of pairs: text, and one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from nn_meter.detection.rules import RuleTable, agrees, evidence_of
from nn_meter.report.html import markup
from nn_meter.report.lines import lines

SIGNS: Mapping[bool | None, str] = MappingProxyType({True: "+", False: "-", None: "?"})
"""``obey`` to its sign in the matrix."""

_WORDS: Mapping[bool | None, str] = MappingProxyType({True: "fuses", False: "does not", None: "undecided"})
_PLURALS: Mapping[bool | None, str] = MappingProxyType({True: "fuse", False: "do not", None: "undecided"})
_CLASSES: Mapping[bool | None, str] = MappingProxyType({True: "yes", False: "no", None: "open"})
_LEGEND = "+ fuses, - does not, ? undecided, ! timing and executed graph disagree; blank: not tested"

_COLUMNS = (
    "rule", "verdict", "timing", "graph", "confidence", "rounds", "saved, in units", "shapes", "latency in ms",
    "reason",
)  # fmt: skip

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 80rem; margin: 2rem auto; color: #1c2430 }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse } .scroll { overflow-x: auto }
th, td { text-align: left; padding: .2rem .5rem; border: 1px solid #d8dee6; vertical-align: top }
.matrix td { text-align: center; min-width: 2rem }
.matrix thead th { writing-mode: vertical-rl; transform: rotate(180deg) }
td.yes { background: #cfe3d2 } td.no { background: #f0f2f5 } td.open { background: #f6e3c5 }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
"""


def matrix(rules: Mapping[str, Any]) -> str:
    """The pairs as text, a row for each producer and a column for each consumer; other rules one by one.

    Args:
        rules: A fusion-rule file's JSON, with or without ``evidence``.
    """
    table = RuleTable.of(rules)
    pairs, firsts, seconds = table.pairs, table.firsts, table.seconds
    width = max((len(first) for first in firsts), default=0)
    numbers = [str(index) for index in range(1, len(seconds) + 1)]
    rows = [" " * width + "".join(f"{number:>4}" for number in numbers)]
    for first in firsts:
        cells = (pairs.get((first, second)) for second in seconds)
        rows.append(f"{first:<{width}}" + "".join(f"{_sign(rule):>4}" for rule in cells).rstrip())
    names = ", ".join(f"{number} {second}" for number, second in zip(numbers, seconds, strict=True))
    others = [f"{name}: {_WORDS[rule['obey']]}" for name, rule in table.others.items()]
    return lines([*rows, "", f"columns: {names}", _LEGEND, *others, summary(rules)])


def summary(rules: Mapping[str, Any]) -> str:
    """How many rules there are of each verdict, and how often timing and executed graph agree."""
    table = RuleTable.of(rules)
    text = f"{len(table.rules)} rules: {', '.join(f'{table.count(obey)} {word}' for obey, word in _PLURALS.items())}"
    agreed, both = table.agreement
    return f"{text}; timing agrees with the executed graph in {agreed} of {both}" if both else text


def page(rules: Mapping[str, Any]) -> str:
    """The HTML text: the matrix, then each rule with its evidence."""
    table = RuleTable.of(rules)
    pairs, firsts, seconds = table.pairs, table.firsts, table.seconds
    head = "".join(f"<th>{markup(second)}</th>" for second in seconds)
    body = "".join(
        f"<tr><th>{markup(first)}</th>{''.join(_cell(pairs.get((first, second))) for second in seconds)}</tr>"
        for first in firsts
    )
    rows = "".join(_row(name, rule) for name, rule in table.rules.items())
    heads = "".join(f"<th>{text}</th>" for text in _COLUMNS)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Fusion rules</title>'
        f"<style>{_STYLE}</style></head><body><h1>Fusion rules</h1>"
        f"<p>{markup(str(rules.get('comment', '')))}</p><p>{markup(summary(rules))}</p>"
        f"<h2>Pairs</h2><p>Rows: producer; columns: consumer. {_LEGEND}</p>"
        f'<div class="scroll"><table class="matrix"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
        f'<h2>Evidence</h2><div class="scroll"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></body></html>\n"
    )


def _sign(rule: Mapping[str, Any] | None) -> str:
    if rule is None:
        return ""
    return SIGNS[rule["obey"]] + ("!" if agrees(rule) is False else "")


def _cell(rule: Mapping[str, Any] | None) -> str:
    if rule is None:
        return "<td></td>"
    reason = markup(str(evidence_of(rule).get("reason", "")))
    return f'<td class="{_CLASSES[rule["obey"]]}" title="{reason}">{_sign(rule)}</td>'


def _row(name: str, rule: Mapping[str, Any]) -> str:
    evidence = evidence_of(rule)
    shapes: Mapping[str, Mapping[str, Any]] = evidence.get("shapes", {})
    seen = "; ".join(f"{shape}: {each.get('timing') or each.get('graph')}" for shape, each in shapes.items())
    saved = ", ".join(
        f"{witness} {told['saved_share']:+.2f}" for witness, told in evidence.get("witnesses", {}).items()
    )
    latency = ", ".join(f"{key} {value}" for key, value in rule.get("latency", {}).items())
    confidence = evidence.get("confidence")
    texts = (
        f'<td class="{_CLASSES[rule["obey"]]}">{_WORDS[rule["obey"]]}</td>',
        f"<td>{markup(str(evidence.get('timing') or ''))}</td>",
        f"<td>{markup(str(evidence.get('graph') or ''))}</td>",
        f'<td class="n">{"" if confidence is None else f"{confidence:.4f}"}</td>',
        f'<td class="n">{evidence.get("runs", "")}</td>',
        f"<td>{markup(saved)}</td>",
        f"<td>{markup(seen)}</td>",
        f"<td>{markup(latency)}</td>",
        f"<td>{markup(str(evidence.get('reason', '')))}</td>",
    )
    return f"<tr><td>{markup(name)}</td>{''.join(texts)}</tr>"
