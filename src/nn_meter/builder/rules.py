"""nn-Meter's calls around fusion rules: write the test cases, and read the rules off their latencies."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nn_meter import plugins
from nn_meter.backends.onnx_writer import as_bytes
from nn_meter.builder.config import SIZE_KEYS, add_json, builder_config, read_results
from nn_meter.builder.kernels import nhwc
from nn_meter.builder.latency import Models, read_profiled_results
from nn_meter.detection.cases import CASES, FusionCase, drawings, pair
from nn_meter.detection.drawings import Sizes
from nn_meter.detection.once import UNIT_RULE, Found, NamedCase, decide_once, probes_once, units_once
from nn_meter.detection.probes import SHAPES
from nn_meter.errors import BuildError
from nn_meter.ir import Graph
from nn_meter.storage import write

_log = logging.getLogger(__name__)


def sizes() -> Sizes:
    """Sizes that ``ruletest_config.yaml`` asks for."""
    config = builder_config.get_module("ruletest")
    return Sizes(**{name: config[key] for key, name in SIZE_KEYS.items() if config.get(key) is not None})


def cases() -> Mapping[str, NamedCase]:
    """The cases that ``ruletest_config.yaml`` names, with the operators that were registered.

    Raises:
        BuildError: a case that does not exist.
    """
    config = builder_config.get_module("ruletest")
    drawn = drawings()
    vectors = frozenset(config.get("LAYERS_1D") or ())
    found: dict[str, NamedCase] = {}
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
    shapes = _shapes()
    drawn = {name: {**case.graphs(asked), **probes_once(case, shapes)} for name, case in cases().items()}
    if shapes:
        drawn[UNIT_RULE] = units_once(shapes)
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
    given = read_results(profiled_testcases) if isinstance(profiled_testcases, str) else profiled_testcases
    profiled = read_profiled_results(given)
    latencies = {
        name: {part: model["latency"] for part, model in models.items() if "latency" in model}
        for name, models in profiled.items()
    }
    config = builder_config.get_module("ruletest")
    found = decide_once(cases(), latencies, float(config.get("EMP_ALPHA", 0.5)))
    decided = {name: _rule_json(each, bool(config.get("DETAIL"))) for name, each in found.items()}
    for name, registered in _registered():
        if name in profiled:
            registered.load_latency(profiled[name])
            decided[name] = {"obey": registered.test()}
    target = builder_config.results("ruletest") / "detected_fusion_rule.json"
    add_json(target, decided)
    _log.info("wrote the fusion rules to %s", target)
    return decided


def _rule_json(found: Found, detail: bool) -> dict[str, Any]:
    written: dict[str, Any] = {"obey": found.obey}
    if found.reason:
        written["reason"] = found.reason
    if found.outcome:
        written["outcome"] = found.outcome
    if detail and found.parts is not None:
        written["latency"] = {part: str(each) for part, each in found.parts.items()}
    return written


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
