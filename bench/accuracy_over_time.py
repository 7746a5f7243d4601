"""Accuracy against the minutes of a build, held against measurements that ``nn-meter evaluate --json`` wrote: of builds
of so many minutes each, or of what the first minutes of one build's journal teach.

    python bench/accuracy_over_time.py evaluation.json MODELS... --built 5=a.zip --built 5=b.zip --built 20=c.zip
    python bench/accuracy_over_time.py evaluation.json MODELS... --journal build.sqlite --minutes 2 5 10 20
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from nn_meter.building import measured
from nn_meter.evaluation import subjects
from nn_meter.frontends import read
from nn_meter.ir import Graph
from nn_meter.learning.metrics import Metrics, metrics
from nn_meter.learning.training import train
from nn_meter.measuring.journal import Journal
from nn_meter.measuring.records import Record
from nn_meter.predictors.bundle import Bundle, load
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


def judged(evaluation: Path, models: Sequence[Path]) -> tuple[list[Graph], list[float]]:
    """The models that were measured, and their latencies in milliseconds."""
    scores = json.loads(evaluation.read_text())["models"]
    measured_ms = {score["model"]: score["measured_ms"] for score in scores}
    known = [each for each in subjects(models) if each.name in measured_ms]
    return [read(each.source) for each in known], [measured_ms[each.name] for each in known]


def learnt(journal: Path, minutes: Sequence[float], runtime: str) -> Iterator[tuple[float, Bundle]]:
    """What the first minutes of a build teach."""
    with Journal(journal) as book:
        records, _ = measured(book)
    for each in minutes:
        yield each, train(first_minutes(records, each), name="over_time", rules={"runtime": runtime})


def draw(points: Sequence[tuple[float, Metrics]], models: int, path: Path) -> None:
    """Shares and the median error over the minutes; builds of as many minutes stand above each other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    minutes = [each for each, _ in points]
    figures = {
        "models within 10 % (%)": [100 * each.within_10 for _, each in points],
        "models within 5 % (%)": [100 * each.within_5 for _, each in points],
        "median error (%)": [100 * each.median_ape for _, each in points],
    }
    for color, (label, values) in enumerate(figures.items()):
        axes.plot(minutes, values, "o", color=f"C{color}", alpha=0.7)
        middles = {m: statistics.fmean(v for n, v in zip(minutes, values, strict=True) if n == m) for m in minutes}
        axes.plot(*zip(*sorted(middles.items()), strict=True), "-", color=f"C{color}", label=label)
    axes.set_xlabel("minutes")
    axes.set_xscale("log")
    axes.set_xticks(sorted(set(minutes)), [f"{m:g}" for m in sorted(set(minutes))])
    axes.minorticks_off()
    axes.set_ylim(0, 100)
    axes.set_title(f"{models} real models, none in training")
    axes.grid(alpha=0.3)
    axes.legend(loc="center right", bbox_to_anchor=(1, 0.3))
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--built", action="append", metavar="MINUTES=BUNDLE", default=[])
    parser.add_argument("--journal", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 5, 10, 20])
    parser.add_argument("--runtime", default="onnxruntime", help="whose fusions the models get, of a journal")
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    graphs, measured_ms = judged(args.evaluation, args.models)
    split = (each.partition("=") for each in args.built)
    bundles = ((float(minutes), load(Path(path))) for minutes, _, path in split)
    taught = learnt(args.journal, args.minutes, args.runtime) if args.journal else ()
    points = []
    print(f"{'minutes':>8} {'median':>8} {'within 5 %':>11} {'within 10 %':>12} {'bias':>8}")
    for minutes, bundle in itertools.chain(bundles, taught):
        found = metrics(GraphEngine(bundle).latencies_ms(graphs), measured_ms)
        points.append((minutes, found))
        shares = f"{found.median_ape:8.1%} {found.within_5:11.0%} {found.within_10:12.0%} {found.bias:+8.1%}"
        print(f"{minutes:8g} {shares}", flush=True)
    if args.plot:
        draw(points, len(graphs), args.plot)


if __name__ == "__main__":
    main()
