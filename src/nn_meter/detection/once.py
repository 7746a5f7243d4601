"""Rules read off models that were each measured once, as nn-Meter's builder does it.

Where a case's probes were measured they decide as ``detection.decision`` tells, save that one saving stands for all
rounds and its spread for its error. Else block and parts decide, as in nn-Meter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from nn_meter.detection.cases import FusionCase, ShareCase
from nn_meter.detection.decision import SAVINGS, Conclusion, Decision, Witness, confirm, weigh_once
from nn_meter.detection.probes import (
    CALL_SHAPES,
    COPIES,
    SHAPES,
    UNIT,
    UNIT_FRAME,
    UNITS,
    copies,
    probes,
    unit_probes,
)
from nn_meter.ir import Graph
from nn_meter.measuring.latency import Latency

NamedCase = FusionCase | ShareCase
"""A case whose parts have names."""

UNIT_RULE = "unit"
"""Beside the rules: the probes of what an activation costs."""


@dataclass(frozen=True, slots=True)
class Found:
    """A rule's verdict. ``parts`` are the latencies that decided it, where probes did not; ``outcome`` is a
    ``ShareCase``'s."""

    obey: bool | None
    reason: str = ""
    outcome: str = ""
    parts: Mapping[str, Latency] | None = None


def probes_once(case: NamedCase, shapes: tuple[str, ...]) -> dict[str, Graph]:
    """The probes of each witness, by shape and probe: ``small-ab+``."""
    wanted = {probe for each in SAVINGS.values() for probe in each}
    return {
        f"{shape}-{probe}": copies(graph, COPIES)
        for shape in shapes
        for probe, graph in probes(case, SHAPES[shape]).items()
        if probe in wanted
    }


def units_once(shapes: tuple[str, ...]) -> dict[str, Graph]:
    """The probes of what an activation costs, by shape and probe."""
    return {
        f"{shape}-{probe}": copies(graph, COPIES)
        for shape in shapes
        for probe, graph in unit_probes(SHAPES[shape]).items()
    }


def decide_once(
    cases: Mapping[str, NamedCase], latencies: Mapping[str, Mapping[str, Latency]], alpha: float
) -> dict[str, Found]:
    """The rules of those ``cases`` of which something was measured.

    A case whose requirements are not met is not obeyed, one whose requirements are undecided is undecided.

    Args:
        latencies: Of each model that was measured, by rule and by the model's name in ``case.graphs``,
            ``probes_once`` or ``units_once``; the latter under ``UNIT_RULE``.
        alpha: nn-Meter's ``EMP_ALPHA``: what the block has to save, as a share of its shorter part.
    """
    units = _units(latencies.get(UNIT_RULE, {}))
    decided: dict[str, Found] = {}
    for name, case in sorted(cases.items(), key=lambda item: len(item[1].requires)):
        if name not in latencies:
            continue
        before = [(decided[r].obey if r in decided else None, wanted) for r, wanted in case.requires.items()]
        if any(verdict is not wanted for verdict, wanted in before):
            decided[name] = Found(None if any(verdict is None for verdict, _ in before) else False)
            continue
        told = _probed(latencies[name], units)
        decided[name] = Found(told.obey, told.reason) if told else _compared(case, latencies[name], alpha)
    return decided


def _units(latencies: Mapping[str, Latency]) -> dict[str, Latency]:
    """Shape to what an activation costs there."""
    found: dict[str, Latency] = {}
    for shape in SHAPES:
        with_units, without = (latencies.get(f"{shape}-{probe}") for probe in (UNIT, UNIT_FRAME))
        if with_units is not None and without is not None and with_units.avg > without.avg:
            several = with_units - without
            found[shape] = Latency(several.avg / UNITS, several.std / UNITS)
    return found


def _probed(latencies: Mapping[str, Latency], units: Mapping[str, Latency]) -> Conclusion | None:
    """What the probes say; ``None`` where none were measured."""
    told: dict[Witness, Decision] = {}
    for witness, names in SAVINGS.items():
        shapes: dict[str, Decision] = {}
        for shape, unit in units.items():
            if not all(f"{shape}-{name}" in latencies for name in names):
                continue
            more, less, control_more, control_less = (latencies[f"{shape}-{name}"] for name in names)
            saved = (more - less) - (control_more - control_less)
            shapes[shape] = weigh_once(saved.avg / unit.avg, saved.std / unit.avg)
        if shapes:
            told[witness] = _agreed(shapes)
    return confirm(told) if told else None


def _agreed(shapes: Mapping[str, Decision]) -> Decision:
    """What one witness says in all shapes; on a small one a fusion shows as a call that is gone, whatever the others
    say of the pass."""
    small = [each for shape, each in shapes.items() if shape in CALL_SHAPES and each.verdict == "fuses"]
    decided = [each for each in shapes.values() if each.verdict != "undecided"]
    if small or len({each.verdict for each in decided}) == 1:
        return (small or decided)[0]
    first = next(iter(shapes.values()))
    return replace(first, verdict="undecided", reason=first.reason or "shapes contradict each other")


def _compared(case: NamedCase, latencies: Mapping[str, Latency], alpha: float) -> Found:
    """What block and parts say; nothing where one is missing."""
    parts = case.labels if isinstance(case, FusionCase) else tuple(_chains(case))
    if not {*parts, "block"} <= latencies.keys():
        return Found(None, parts=latencies)
    if isinstance(case, ShareCase):
        outcome = _outcome(case, latencies)
        return Found(case.obeys[outcome], outcome=outcome, parts=latencies)
    first, second = (latencies[label] for label in parts)
    saved = first + second - latencies["block"]
    margin = saved.avg - alpha * min(first.avg, second.avg)
    return Found(margin > 0 if abs(margin) > saved.std else None, parts=latencies)


def _outcome(case: ShareCase, latencies: Mapping[str, Latency]) -> str:
    """The outcome whose chains together come closest to the block."""

    def distance(outcome: str) -> float:
        total_ms = math.fsum(latencies["_".join(chain)].avg for chain in case.outcomes[outcome])
        return abs(total_ms - latencies["block"].avg)

    return min(case.outcomes, key=distance)


def _chains(case: ShareCase) -> Iterator[str]:
    for outcome in case.outcomes.values():
        yield from ("_".join(chain) for chain in outcome)
