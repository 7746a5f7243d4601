"""How near a predictor of another device comes after a few whole models, and what it said of another device before.

``nn-meter evaluate --predictor ANY --backend B LOOKED --kept KEPT --json measured.json`` measured the models. Of those
looked at some are drawn, ``--base`` is adapted to them, and all that were kept away are judged; several times, each
with models of its own. Run from the repository root:

    PYTHONPATH=src python bench/adapting.py measured.json LOOKED KEPT --base zen4cpu_onnxruntime132 [--counts 3 10 50]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nn_meter import Predictor, adapt
from nn_meter.devices.device import Device
from nn_meter.evaluation import subjects
from nn_meter.frontends import read
from nn_meter.ir import Graph
from nn_meter.measuring.measure import Measurement
from nn_meter.measuring.records import Circumstances, Record
from nn_meter.predictors.bundle import Bundle
from nn_meter.predictors.catalogue import load_predictor

TIMES = 10
"""Draws a count: figures of one draw of ten models move by a third."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--base", required=True)
    parser.add_argument("--counts", type=int, nargs="+", default=[3, 10, 50])
    args = parser.parse_args()
    graphs = {each.name: read(each.source) for each in subjects(args.models)}
    taken = {m["model"]: m for m in json.loads(args.measured.read_text())["models"] if m["model"] in graphs}
    base = load_predictor(args.base)
    here = Circumstances(Device("this machine"), base.runtime)
    looked = [Record(n, here, whole=Measurement((m["measured_ms"],))) for n, m in taken.items() if not m["kept"]]
    kept = {name: m["measured_ms"] for name, m in taken.items() if m["kept"]}
    print(f"{len(looked)} models looked at, {len(kept)} kept away; median error, within 5 %, 10 %, in the interval")
    _say("as it is", [_judged(base, graphs, kept)])
    random = np.random.default_rng(0)
    for count in args.counts:
        draws = [random.choice(len(looked), count, replace=False) for _ in range(TIMES)]
        some = [[looked[place] for place in draw] for draw in draws]
        made = [adapt(each, [base], name="adapted", read=lambda name, batch: graphs[name]).bundle for each in some]
        _say(f"{count} models", [_judged(each, graphs, kept) for each in made])


def _judged(bundle: Bundle, graphs: Mapping[str, Graph], kept_ms: Mapping[str, float]) -> list[float]:
    predictor = Predictor(bundle)
    answers = [predictor.explain(graphs[name]) for name in kept_ms]
    measured_ms = np.array([*kept_ms.values()])
    off = np.abs(np.array([each.latency_ms for each in answers]) / measured_ms - 1)
    low, high = np.array([each.interval_ms or (0.0, 0.0) for each in answers]).T
    inside = (low <= measured_ms) & (measured_ms <= high)
    return [float(np.median(off)), *(float(np.mean(each)) for each in (off < 0.05, off < 0.1, inside))]


def _say(what: str, found: list[list[float]]) -> None:
    median, five, ten, inside = np.mean(found, axis=0)
    print(f"{what:>10}: {median:.1%}, {five:.0%}, {ten:.0%}, {inside:.0%}")


if __name__ == "__main__":
    main()
