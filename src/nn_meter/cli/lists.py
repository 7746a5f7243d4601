"""``nn-meter --list-...``: nn-Meter's lines, which scripts read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from textwrap import wrap
from types import MappingProxyType

from nn_meter.cli.output import OK, window
from nn_meter.report.lines import LINE_LETTERS, PREFIX, predictor_line
from nn_meter.storage import legible


def show(what: str, verbose: bool = False) -> int:
    """Print the list of ``predictors``, ``backends``, ``kernels``, ``operators`` or ``testcases``; ``verbose`` says
    what each predictor is."""
    print("\n".join(_predictors(verbose) if what == "predictors" else _LISTS[what]()))
    return OK


def _predictors(verbose: bool) -> list[str]:
    from nn_meter.api import version_number
    from nn_meter.predictors.catalogue import default_predictor, list_predictors

    lines, default = [f"{PREFIX} Supported latency predictors:"], default_predictor()
    wide, _ = window() or (LINE_LETTERS, 0)  # scripts get a line for each
    for each in list_predictors():
        lines.append(predictor_line(each.name, str(version_number(each.version))))
        if verbose and each.summary:
            which = "the default; " if each.name == default else ""
            said = f"{which}{legible(each.summary, LINE_LETTERS)}"
            lines += [
                f"    {line}" for line in wrap(said, wide - 4, break_long_words=False, break_on_hyphens=False)
            ]
    hint = "" if verbose else "; -v says what each predicts for"
    return [*lines, "", f"default: {default} (nn-meter use NAME chooses another{hint})"]


def _backends() -> list[str]:
    from nn_meter import plugins

    ours = sorted(each.name for each in plugins.listed("backend") if each.origin != "registered")
    return _named("backends", "Backend", ours, "backend")


def _kernels() -> list[str]:
    from nn_meter.predictors.nnmeter_columns import NN_METER_1

    return _named("kernels", "Kernel", NN_METER_1, "kernel")


def _operators() -> list[str]:
    from nn_meter.kernels.operators import KNOWN_RULE_NAMES

    return _named("operators", "Operator", sorted(KNOWN_RULE_NAMES), "operator")


def _testcases() -> list[str]:
    from nn_meter.detection.cases import CASES

    return _named("testcases", "TestCase", CASES, "testcase", spelled="test cases")


def _named(plural: str, tag: str, names: Iterable[str], kind: str, spelled: str = "") -> list[str]:
    """nn-Meter's lines; what the user registered comes behind, with a star."""
    from nn_meter import plugins

    found: dict[str, list[str]] = {}
    for each in plugins.registered(kind):
        found.setdefault(each.name, []).extend(filter(None, [each.implement]))
    customized = (
        f"* {name} ({', '.join(implements)})" if implements else f"* {name}" for name, implements in found.items()
    )
    head = f"{PREFIX} Supported {plural}: ('*' indicates customized {spelled or plural})"
    return [head, *(f"{PREFIX} [{tag}] {legible(name)}" for name in (*names, *customized))]


_LISTS: Mapping[str, Callable[[], list[str]]] = MappingProxyType(
    {
        "backends": _backends,
        "kernels": _kernels,
        "operators": _operators,
        "testcases": _testcases,
    }
)
