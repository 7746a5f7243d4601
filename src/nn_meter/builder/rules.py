"""nn-Meter's calls around fusion rules: write the test cases, and read the rules off their latencies."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nn_meter import registry
from nn_meter.backends.onnx_writer import as_bytes
from nn_meter.builder.config import SIZE_KEYS, add_json, builder_config, read_json, write
from nn_meter.builder.kernels import nhwc
from nn_meter.builder.latency import Latency, Models, read_profiled_results
from nn_meter.errors import BuildError
from nn_meter.ir import Graph
from nn_meter.kernels.testcases import CASES, DRAWINGS, Case, FusionCase, ShareCase, Sizes, pair

_log = logging.getLogger(__name__)

IMPLEMENT = "onnx"
"""Registered operators of this ``implement`` take part: classes whose instances are called as
``kernels.testcases.Drawing`` is."""


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
    operators = registry.registered("operator")
    own = {entry.name: entry.load()() for entry in operators if entry.implement == IMPLEMENT}
    drawings = MappingProxyType({**DRAWINGS, **own})
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
        found[case.name] = replace(case, drawings=drawings)
    for name in config.get("OTHER_TESTCASES") or ():
        if registry.find("testcase", name) is not None:
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
    described: Models = {
        name: {
            part: _written(graph, folder / f"{name}_{part}.onnx")
            for part, graph in case.graphs(asked).items()
        }
        for name, case in cases().items()
    }
    for name, registered in _registered():
        described[name] = registered.save_testcase()
    target = builder_config.results("ruletest") / "origin_testcases.json"
    add_json(target, described)
    _log.info("wrote the test cases to %s", target)
    return described


def detect_fusion_rule(profiled_testcases: Models | str) -> dict[str, dict[str, Any]]:
    """Decide each rule from the latencies of block and parts; writes ``detected_fusion_rule.json``.

    As in nn-Meter, a pair fuses where the block saves more than ``EMP_ALPHA`` times the shorter part. Where
    the saving is closer to that than the spread of the three latencies, ``obey`` is ``null``: undecided. A
    case whose requirements are not met is not obeyed, one whose requirements are undecided is undecided.

    Args:
        profiled_testcases: what ``profile_models`` returned, or the path of ``profiled_results.json``.

    Raises:
        BuildError: no workspace was read, or the file cannot be used.
    """
    given = read_json(profiled_testcases) if isinstance(profiled_testcases, str) else profiled_testcases
    profiled = read_profiled_results(given)
    config = builder_config.get_module("ruletest")
    decided: dict[str, dict[str, Any]] = {}
    for name, case in _in_order(cases()):
        latencies = {part: model.get("latency") for part, model in profiled.get(name, {}).items()}
        if name not in profiled:
            continue
        before = [(decided.get(rule, {}).get("obey"), wanted) for rule, wanted in case.requires.items()]
        if any(verdict is not wanted for verdict, wanted in before):
            decided[name] = {"obey": None if any(verdict is None for verdict, _ in before) else False}
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
        entry = registry.find("testcase", name)
        if entry is not None:
            yield name, entry.load()(config)


def _written(graph: Graph, path: Path) -> dict[str, Any]:
    write(path, as_bytes(graph))
    return {"model": str(path), "shapes": [nhwc(graph.tensors[name].shape)[1:] for name in graph.inputs]}
