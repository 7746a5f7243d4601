"""nn-Meter's calls around fusion rules: write the test cases, and read the rules off their latencies."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nn_meter import plugins
from nn_meter.backends.onnx_writer import as_bytes
from nn_meter.builder.config import SIZE_KEYS, add_json, builder_config, read_json, write
from nn_meter.builder.kernels import nhwc
from nn_meter.builder.latency import Latency, Models, read_profiled_results
from nn_meter.detection.cases import drawings
from nn_meter.detection.decision import SAVINGS, Conclusion, Decision, Witness, confirm, weigh_once
from nn_meter.detection.probes import UNIT, UNIT_FRAME, UNITS, copies, probes, unit_probes
from nn_meter.detection.survey import CALL_SHAPES, COPIES, SHAPES
from nn_meter.detection.testcases import CASES, FusionCase, ShareCase, Sizes, pair
from nn_meter.errors import BuildError
from nn_meter.ir import Graph

_log = logging.getLogger(__name__)

Case = FusionCase | ShareCase

UNIT_ENTRY = "unit"
"""Beside the rules in ``origin_testcases.json``: the probes of what an activation costs."""


def sizes() -> Sizes:
    """Sizes that ``ruletest_config.yaml`` asks for."""
    config = builder_config.get_module("ruletest")
    return Sizes(**{name: config[key] for key, name in SIZE_KEYS.items() if config.get(key) is not None})


def cases() -> Mapping[str, Case]:
    """The cases that ``ruletest_config.yaml`` names, with the operators that were registered.

    Raises:
        BuildError: a case that does not exist.
    """
    config = builder_config.get_module("ruletest")
    drawn = drawings()
    vectors = frozenset(config.get("LAYERS_1D") or ())
    found: dict[str, Case] = {}
    for text in config.get("BASIC_TESTCASES") or ():
        names = tuple(text.split("_"))
        if len(names) < 2:
            raise BuildError(f"ruletest_config.yaml: {text!r} names no two operators, as in conv_relu")
        known = CASES.get(f"BF_{text}")
        case = known if isinstance(known, FusionCase) else FusionCase(names)
        if len(names) == 2 and case.domain != "tokens":
            case = pair(names[0], names[1], vectors)
        found[case.name] = replace(case, drawings=drawn)
    for name in config.get("OTHER_TESTCASES") or ():
        if plugins.find("testcase", name) is not None:
            continue
        if name not in CASES:
            raise BuildError(
                f"ruletest_config.yaml: no test case {name!r}; register it, or use one of {', '.join(CASES)}"
            )
        found[name] = CASES[name]
    return MappingProxyType(found)


def generate_testcases() -> Models:
    """Write the models of every test case that ``ruletest_config.yaml`` names, and ``origin_testcases.json``.

    Raises:
        BuildError: no workspace was read, or a case that does not exist.
        RuleError: an operator that does not exist.
        StorageError: the workspace cannot be written.
    """
    asked = sizes()
    folder = builder_config.models("ruletest")
    drawn = {name: {**case.graphs(asked), **_probed(case)} for name, case in cases().items()}
    if shapes := _shapes():
        drawn[UNIT_ENTRY] = {
            f"{shape}-{probe}": copies(graph, COPIES)
            for shape in shapes
            for probe, graph in unit_probes(SHAPES[shape]).items()
        }
    described: Models = {
        name: {part: _written(graph, folder / f"{name}_{part}.onnx") for part, graph in graphs.items()}
        for name, graphs in drawn.items()
    }
    for name, registered in _registered():
        described[name] = registered.save_testcase()
    target = builder_config.results("ruletest") / "origin_testcases.json"
    add_json(target, described)
    _log.info("wrote the test cases to %s", target)
    return described


def detect_fusion_rule(profiled_testcases: Models | str) -> dict[str, dict[str, Any]]:
    """Decide each rule from the latencies of its models; writes ``detected_fusion_rule.json``.

    Where the probes were measured (``PROBES`` in ``ruletest_config.yaml``), they decide as ``nn-meter detect-rules``
    does, save that each was measured once and its spread stands for its error. Else block and parts decide, as in
    nn-Meter: a pair fuses where the block saves more than ``EMP_ALPHA`` times the shorter part. Where the saving is
    closer to that than the spread of the latencies, ``obey`` is ``null``: undecided. A case whose requirements are not
    met is not obeyed, one whose requirements are undecided is undecided.

    Args:
        profiled_testcases: what ``profile_models`` returned, or the path of ``profiled_results.json``.

    Raises:
        BuildError: no workspace was read, or the file cannot be used.
    """
    given = read_json(profiled_testcases) if isinstance(profiled_testcases, str) else profiled_testcases
    profiled = read_profiled_results(given)
    config = builder_config.get_module("ruletest")
    units = _units(profiled.get(UNIT_ENTRY, {}))
    decided: dict[str, dict[str, Any]] = {}
    for name, case in _in_order(cases()):
        latencies = {part: model.get("latency") for part, model in profiled.get(name, {}).items()}
        if name not in profiled:
            continue
        before = [(decided.get(rule, {}).get("obey"), wanted) for rule, wanted in case.requires.items()]
        if any(verdict is not wanted for verdict, wanted in before):
            decided[name] = {"obey": None if any(verdict is None for verdict, _ in before) else False}
            continue
        found = _judged(case, profiled[name], units)
        if found is not None:
            decided[name] = {"obey": found.obey, **({"reason": found.reason} if found.reason else {})}
            continue
        parts = set(case.labels if isinstance(case, FusionCase) else _chains(case)) | {"block"}
        known = {part: each for part, each in latencies.items() if each is not None}
        if not parts <= known.keys():
            decided[name] = {"obey": None}
        elif isinstance(case, FusionCase):
            decided[name] = {"obey": _fuses(case, known, float(config.get("EMP_ALPHA", 0.5)))}
        else:
            outcome = _outcome(case, known)
            decided[name] = {"obey": case.obeys[outcome], "outcome": outcome}
        if config.get("DETAIL"):
            decided[name]["latency"] = {part: str(each) for part, each in known.items()}
    for name, registered in _registered():
        if name in profiled:
            registered.load_latency(profiled[name])
            decided[name] = {"obey": registered.test()}
    target = builder_config.results("ruletest") / "detected_fusion_rule.json"
    add_json(target, decided)
    _log.info("wrote the fusion rules to %s", target)
    return decided


def _shapes() -> tuple[str, ...]:
    """Shapes of the probes that ``ruletest_config.yaml`` asks for.

    Raises:
        BuildError: a shape that does not exist.
    """
    asked = tuple(builder_config.get_module("ruletest").get("PROBES") or ())
    for shape in asked:
        if shape not in SHAPES:
            raise BuildError(f"ruletest_config.yaml: no shape {shape!r} in PROBES; use some of {', '.join(SHAPES)}")
    return asked


def _probed(case: Case) -> dict[str, Graph]:
    """The probes of each witness, by shape and probe."""
    wanted = {probe for each in SAVINGS.values() for probe in each}
    return {
        f"{shape}-{probe}": copies(graph, COPIES)
        for shape in _shapes()
        for probe, graph in probes(case, SHAPES[shape]).items()
        if probe in wanted
    }


def _units(models: Mapping[str, Mapping[str, Any]]) -> dict[str, Latency]:
    """Shape to what an activation costs there."""
    found: dict[str, Latency] = {}
    for shape in SHAPES:
        with_unit, without = (models.get(f"{shape}-{probe}", {}).get("latency") for probe in (UNIT, UNIT_FRAME))
        if with_unit is not None and without is not None and with_unit.avg > without.avg:
            several = with_unit - without
            found[shape] = Latency(several.avg / UNITS, several.std / UNITS)
    return found


def _judged(
    case: Case, models: Mapping[str, Mapping[str, Any]], units: Mapping[str, Latency]
) -> Conclusion | None:
    """What the probes say; ``None`` where none were measured."""
    told: dict[Witness, Decision] = {}
    for witness, names in SAVINGS.items():
        shapes: dict[str, Decision] = {}
        for shape, unit in units.items():
            measured = [models.get(f"{shape}-{name}", {}) for name in names]
            if not all("latency" in model for model in measured):
                continue
            more, less, control_more, control_less = (model["latency"] for model in measured)
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
    verdicts = {each.verdict for each in decided}
    if len(verdicts) == 1 or small:
        return (small or decided)[0]
    first = next(iter(shapes.values()))
    return replace(first, verdict="undecided", reason=first.reason or "shapes contradict each other")


def _fuses(case: FusionCase, latencies: Mapping[str, Latency], alpha: float) -> bool | None:
    first, second = (latencies[label] for label in case.labels)
    saved = first + second - latencies["block"]
    margin = saved.avg - alpha * min(first.avg, second.avg)
    return margin > 0 if abs(margin) > saved.std else None


def _outcome(case: ShareCase, latencies: Mapping[str, Latency]) -> str:
    """The outcome whose chains together come closest to the block."""

    def distance(outcome: str) -> float:
        total_ms = math.fsum(latencies["_".join(chain)].avg for chain in case.outcomes[outcome])
        return abs(total_ms - latencies["block"].avg)

    return min(case.outcomes, key=distance)


def _chains(case: ShareCase) -> Iterator[str]:
    for outcome in case.outcomes.values():
        yield from ("_".join(chain) for chain in outcome)


def _in_order(found: Mapping[str, Case]) -> list[tuple[str, Case]]:
    """Cases that others require first."""
    return sorted(found.items(), key=lambda item: len(item[1].requires))


def _registered() -> Iterator[tuple[str, Any]]:
    """Test cases that the user registered and ``ruletest_config.yaml`` names, as instances."""
    config = builder_config.get_module("ruletest")
    for name in config.get("OTHER_TESTCASES") or ():
        entry = plugins.find("testcase", name)
        if entry is not None:
            yield name, entry.load()(config)


def _written(graph: Graph, path: Path) -> dict[str, Any]:
    write(path, as_bytes(graph))
    return {"model": str(path), "shapes": [nhwc(graph.tensors[name].shape)[1:] for name in graph.inputs]}
