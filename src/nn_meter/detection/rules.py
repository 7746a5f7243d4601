"""Fusion rules with what they rest on, and the JSON of a fusion-rule file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from nn_meter.detection.decision import NOT_MEASURED, Conclusion, Decision, Seen, weigh


@dataclass(frozen=True, slots=True)
class ShapeEvidence:
    """What was seen in one shape: savings, and executed kernels of each probe where the runtime tells them."""

    shape: str
    timing: Seen | None
    graph: Decision | None
    medians_ms: Mapping[str, float]
    kernels: Mapping[str, int]
    rounds: int = 0
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule with its verdict and what it rests on. ``skipped`` says why it was not measured; ``clear`` that more
    rounds would hardly change anything."""

    name: str
    timing: Conclusion | None = None
    graph: Conclusion | None = None
    shapes: tuple[ShapeEvidence, ...] = ()
    latency: Mapping[str, str] = field(default_factory=dict)
    skipped: Conclusion | None = None
    clear: bool = False

    @property
    def conclusion(self) -> Conclusion:
        """The executed graph's word where it has one, else the timing's."""
        if self.skipped is not None:
            return self.skipped
        if self.graph is not None and self.graph.obey is not None:
            return self.graph
        return self.timing or self.graph or Conclusion("undecided", 0.0, NOT_MEASURED)


def rules_json(
    rules: Sequence[Rule], backend: str, runtime: str, method: str, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """nn-Meter's file: ``obey`` and ``latency`` of each rule, with ``evidence``; ``runtime`` is the one in
    ``nn_meter.runtimes`` that obeys them; ``comment`` says what was measured."""
    what = f"{facts.get('runtime', backend)} {facts.get('runtime_version', '')}".strip()
    written: dict[str, Any] = {"runtime": runtime}
    written["comment"] = (
        f"detected by {method} on {what}, {facts.get('threads', 1)} thread(s), "
        f"{facts.get('cpu') or facts.get('device', 'cpu')}, {facts.get('date')}"
    )
    for rule in rules:
        found = rule.conclusion
        witnesses = rule.timing.witnesses if rule.timing else {}
        written[rule.name] = {
            "obey": found.obey,
            "latency": dict(rule.latency),
            "evidence": {
                "verdict": found.verdict,
                "confidence": round(found.confidence, 6),
                "reason": found.reason,
                "timing": rule.timing.verdict if rule.timing else None,
                "graph": rule.graph.verdict if rule.graph else None,
                "runs": sum(each.rounds for each in rule.shapes),
                "witnesses": {name: _witness_json(each) for name, each in witnesses.items() if each.rounds},
                "medians_ms": next((dict(s.medians_ms) for s in reversed(rule.shapes) if s.medians_ms), {}),
                "shapes": {each.shape: _shape_json(each) for each in rule.shapes},
            },
        }
    return written


def _witness_json(told: Decision) -> dict[str, Any]:
    return {
        "verdict": told.verdict,
        "saved_share": round(told.saved_share, 3),
        "confidence": round(told.confidence, 6),
        "rounds": told.rounds,
    }


def _shape_json(each: ShapeEvidence) -> dict[str, Any]:
    shares = each.timing.shares if each.timing else {}
    told = weigh([shares.get("reader") or shares.get("barrier") or ()])
    return {
        "timing": told.verdict if each.timing else None,
        "saved_share": {witness: round(float(np.median(values)), 3) for witness, values in shares.items()},
        "rounds": each.rounds,
        "graph": each.graph.verdict if each.graph else None,
        "kernels": dict(each.kernels),
        "reason": each.failure or (each.timing.reason if each.timing else ""),
    }


@dataclass(frozen=True, slots=True)
class RuleTable:
    """The rules of a fusion-rule file's JSON, with or without ``evidence``, as a matrix of pairs and others."""

    rules: Mapping[str, Mapping[str, Any]]
    pairs: Mapping[tuple[str, str], Mapping[str, Any]]
    others: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, written: Mapping[str, Any]) -> RuleTable:
        """The table of a file's JSON."""
        rules = {name: each for name, each in written.items() if isinstance(each, Mapping) and "obey" in each}
        pairs, others = {}, {}
        for name, rule in rules.items():
            prefix, *operators = name.split("_")
            if prefix == "BF" and len(operators) == 2:
                pairs[operators[0], operators[1]] = rule
            else:
                others[name] = rule
        return cls(MappingProxyType(rules), MappingProxyType(pairs), MappingProxyType(others))

    @property
    def firsts(self) -> list[str]:
        """Producers of the pairs, in the file's order."""
        return list(dict.fromkeys(first for first, _ in self.pairs))

    @property
    def seconds(self) -> list[str]:
        """Consumers of the pairs, in the file's order."""
        return list(dict.fromkeys(second for _, second in self.pairs))

    def count(self, obey: bool | None) -> int:
        """How many rules say ``obey``."""
        return sum(rule["obey"] is obey for rule in self.rules.values())

    @property
    def agreement(self) -> tuple[int, int]:
        """In how many rules timing and executed graph agree, of those that both decide."""
        both = [told for told in map(agrees, self.rules.values()) if told is not None]
        return sum(both), len(both)


def evidence_of(rule: Mapping[str, Any]) -> Mapping[str, Any]:
    """A rule's evidence, empty where the file has none."""
    evidence: Mapping[str, Any] = rule.get("evidence", {})
    return evidence


def agrees(rule: Mapping[str, Any]) -> bool | None:
    """Whether timing and executed graph agree; ``None`` where not both decide."""
    timing, graph = (evidence_of(rule).get(method) for method in ("timing", "graph"))
    decided = ("fuses", "does not")
    return timing == graph if timing in decided and graph in decided else None
