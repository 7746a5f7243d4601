"""Accuracy against the minutes that a build measured: trains on the first minutes of a build's journal and holds
the result against measurements that ``nn-meter evaluate --json`` wrote.

    python bench/accuracy_over_time.py build.sqlite evaluation.json MODELS --minutes 2 5 10 20 --plot over_time.png
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from nn_meter.building import measured
from nn_meter.evaluation import subjects
from nn_meter.frontends import read
from nn_meter.ir import Graph
from nn_meter.learning.metrics import metrics
from nn_meter.learning.training import train
from nn_meter.measuring.journal import Journal
from nn_meter.measuring.records import Record
from nn_meter.predictors.runtime import GraphEngine


def first_minutes(records: Sequence[Record], minutes: float) -> list[Record]:
    """What was measured before so many minutes were spent."""
    taken, spent_s = [], 0.0
    for record in records:
        spent_s += record.elapsed_s
        if spent_s > 60 * minutes:
            break
        taken.append(record)
    return taken


def judged(evaluation: Path, models: Path) -> tuple[list[Graph], list[float]]:
    """The models that were measured, and their latencies in milliseconds."""
    scores = json.loads(evaluation.read_text())["models"]
    measured_ms = {score["model"]: score["measured_ms"] for score in scores}
    known = [each for each in subjects([models]) if each.name in measured_ms]
    return [read(each.source) for each in known], [measured_ms[each.name] for each in known]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("journal", type=Path)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("models", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 5, 10, 20])
    parser.add_argument("--runtime", default="onnxruntime", help="whose fusions the models get")
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    graphs, measured_ms = judged(args.evaluation, args.models)
    with Journal(args.journal) as book:
        records, _ = measured(book)
    points = []
    print(f"{'minutes':>8} {'networks':>9} {'median':>8} {'within 5 %':>11} {'within 10 %':>12}")
    for minutes in args.minutes:
        some = first_minutes(records, minutes)
        engine = GraphEngine(train(some, name="over_time", rules={"runtime": args.runtime}))
        found = metrics(engine.latencies_ms(graphs), measured_ms)
        points.append((minutes, found))
        shares = f"{found.median_ape:8.1%} {found.within_5:11.0%} {found.within_10:12.0%}"
        print(f"{minutes:8g} {len(some):9d} {shares}", flush=True)
    if args.plot:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(6, 4))
        axes.plot([m for m, _ in points], [100 * p.within_10 for _, p in points], "o-", label="models within 10 % (%)")
        axes.plot([m for m, _ in points], [100 * p.median_ape for _, p in points], "s-", label="median error (%)")
        axes.set_xlabel("minutes measured")
        axes.set_xscale("log")
        axes.set_xticks(args.minutes, [f"{m:g}" for m in args.minutes])
        axes.set_title(f"{len(graphs)} real models, none in training")
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(args.plot, dpi=120, bbox_inches="tight")


if __name__ == "__main__":
    main()
