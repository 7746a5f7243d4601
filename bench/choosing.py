"""What a build's second half buys by how its families are chosen: as the first half was drawn, by which networks a
first fit misses (what builds do), or by where two fits disagree about a pool of architectures that nobody measures.

    python bench/choosing.py FIRST.sqlite OTHER.sqlite... --evaluation EVALUATION.json --models LOOKED --pool NAMES.txt

``FIRST`` gives the first half, the first halves of the other builds are what a second half is chosen from: networks
that were drawn by the same weights, so that leaving out some of them is drawing by others. The pool is named, a line
for each architecture (``timm:resnet18``); its shapes are all that is used.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from accuracy_over_time import first_minutes, judged

from nn_meter.building import LEAST_MOVED, MOST_MOVED, measured
from nn_meter.errors import NnMeterError
from nn_meter.frontends import read
from nn_meter.ir import Graph
from nn_meter.learning.training import train, worst_families
from nn_meter.measuring.journal import Journal
from nn_meter.measuring.records import Record
from nn_meter.predictors.runtime import GraphEngine


def disagreement(records: Sequence[Record], pool: Sequence[Graph]) -> Mapping[str, float]:
    """How much more of a family's time, relative to a usual one's, goes to kinds about which two fits, each by every
    other network, disagree in the sums over ``pool``."""
    engines = [_fitted(records[n::2]) for n in (0, 1)]
    apart: dict[str, float] = {}
    for graph in pool:
        found = [_by_kind(engine, graph) for engine in engines]
        whole_ms = sum(found[0].values())
        for kind in {*found[0], *found[1]}:
            both = [each.get(kind, 0.0) / whole_ms for each in found]
            apart[kind] = apart.get(kind, 0.0) + abs(both[0] - both[1])
    rows: dict[str, dict[str, float]] = {}
    for record in records:
        for kernel in record.kernels:
            own = rows.setdefault(record.family, {})
            own[kernel.kind] = own.get(kernel.kind, 0.0) + 1.0
    seconds = {family: sum(r.elapsed_s for r in records if r.family == family) for family in rows}
    count = {kind: sum(own.get(kind, 0.0) for own in rows.values()) for kind in apart}
    # a row more tells the less the more there are
    gains = {
        family: sum(apart[kind] * own.get(kind, 0.0) / count[kind] for kind in apart if count[kind]) / seconds[family]
        for family, own in rows.items()
    }
    typical = statistics.median(gains.values())
    return {family: gain / typical for family, gain in gains.items()}


def chosen(candidates: Sequence[Record], shares: Mapping[str, float], minutes: float, seed: int) -> list[Record]:
    """Candidates until so many minutes are spent, each taken with a chance that is its family's share."""
    rng = np.random.default_rng(seed)
    chances = {f: min(max(share, LEAST_MOVED), MOST_MOVED) / MOST_MOVED for f, share in shares.items()}
    kept = [each for each in candidates if rng.random() < chances.get(each.family, 1 / MOST_MOVED)]
    return first_minutes(kept, minutes)


def _fitted(records: Sequence[Record]) -> GraphEngine:
    return GraphEngine(train(records, name="choosing", rules={"runtime": "onnxruntime"}))


def _by_kind(engine: GraphEngine, graph: Graph) -> dict[str, float]:
    found: dict[str, float] = {}
    for kernel in engine.explain(graph).kernels:
        kind = kernel.kernel.kind
        found[kind] = found.get(kind, 0.0) + kernel.latency_ms
    return found


def _read(sources: Sequence[str]) -> list[Graph]:
    found = []
    for source in sources:
        try:
            found.append(read(source))
        except NnMeterError as error:
            print(f"{source}: left out, {error}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("journals", type=Path, nargs="+")
    parser.add_argument("--evaluation", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--minutes", type=float, nargs="+", default=[5.0, 10.0], help="of each half")
    args = parser.parse_args()
    graphs, measured_ms = judged(args.evaluation, [args.models])
    pool = _read(args.pool.read_text().split())
    records = []
    for path in args.journals:
        with Journal(path) as book:
            records.append(measured(book)[0])
    most = max(args.minutes)
    first, others = records[0], [each for some in records[1:] for each in first_minutes(some, most)]
    print(f"{len(pool)} architectures in the pool, {len(graphs)} models judged, {len(others)} candidates")
    print(f"{'minutes':>8} {'second half':>14} {'networks':>9} {'median':>8} {'within 5 %':>11} {'within 10 %':>12}")
    for minutes in args.minutes:
        half = first_minutes(first, minutes)
        ways = {
            "none": None,
            "as drawn": {},
            "missed": worst_families(half),
            "disagreement": disagreement(half, pool),
        }
        for way, shares in ways.items():
            more = [] if shares is None else chosen(others, shares, minutes, len(half))
            ratios = np.array(_fitted([*half, *more]).latencies_ms(graphs)) / measured_ms
            off = abs(ratios / np.median(ratios) - 1)  # the level of the hour is nobody's choice
            print(
                f"{minutes:8g} {way:>14} {len(half) + len(more):9d} {np.median(off):8.1%} {np.mean(off <= 0.05):11.0%} "
                f"{np.mean(off <= 0.1):12.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
