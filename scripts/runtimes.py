"""The same models on several runtimes of this machine, in turns: which is fastest, and whether the predictors say so.

Predictors are built on different days, between which a machine may change its speed for all. So what is predicted
counts at the speed of the day: times what the runtime's probe takes, over what it took in the build.

    python scripts/runtimes.py MODELS --on onnxruntime_cpu=PREDICTOR --on litert=PREDICTOR ... -o docs/runtimes.md

Writes a page, beside it a picture (``.png``) and what was measured (``.json``), that after each model: the same command
goes on where one ended. Run where nothing else does.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import chain, permutations
from pathlib import Path

import nn_meter
from nn_meter.backends import Named
from nn_meter.errors import NnMeterError
from nn_meter.evaluation import Bench, Subject, subjects
from nn_meter.frontends import read
from nn_meter.learning.metrics import spearman
from nn_meter.measuring import Failure, Plan
from nn_meter.measuring.fixed import PROBE
from nn_meter.storage.files import write

PLAN = Plan(rounds=1, turn_s=0.25, min_repeats=5, warmup_turns=2)
"""One turn; each model has several, the other runtimes between them."""


APART = 1.1
"""Runtimes differ where one takes so many times longer in every turn: a prediction is called right within 10 %."""


@dataclass(frozen=True, slots=True)
class Row:
    """One model: backend to quiet latencies in ms, one a turn, and to the levelled predicted latency; a runtime that
    refuses it is absent."""

    model: str
    family: str
    turns_ms: Mapping[str, Sequence[float]]
    predicted_ms: Mapping[str, float]

    @property
    def measured_ms(self) -> dict[str, float]:
        """The middle turn."""
        return {backend: statistics.median(turns) for backend, turns in self.turns_ms.items()}

    @property
    def repeated(self) -> float | None:
        """Rank correlation across runtimes of every second turn with the others: no predictor can do much better."""
        halves = ([statistics.median(turns[start::2]) for turns in self.turns_ms.values()] for start in (0, 1))
        return spearman(*halves)

    @property
    def fastest(self) -> tuple[str, str]:
        """The backend that is measured and the one that is predicted as the fastest."""
        first, second = (min(each, key=each.__getitem__) for each in (self.measured_ms, self.predicted_ms))
        return first, second


def one_of_each(models: Sequence[Subject], most: int) -> list[Subject]:
    """The first model of each family, by name; of more families than ``most``, those at even distances."""
    first: dict[str, Subject] = {}
    for each in sorted(models, key=lambda each: (each.family, each.name)):
        first.setdefault(each.family, each)
    kept = list(first.values())
    return [kept[i * len(kept) // most] for i in range(most)] if len(kept) > most else kept


def measured(benches: Mapping[str, Bench], model: Subject, turns: int) -> dict[str, tuple[list[float], float]]:
    """Quiet latencies of each runtime that takes the model by turn, and of its probe, in ms."""
    runs: dict[str, list[float]] = {backend: [] for backend in benches}
    probes: dict[str, list[float]] = {backend: [] for backend in benches}
    for _ in range(turns):
        for backend, bench in benches.items():
            if backend in runs:
                (taken,) = bench.measure([model], PLAN)
                if isinstance(taken, Failure):
                    del runs[backend]
                else:
                    runs[backend].append(taken.quiet_ms)
                    probes[backend].append(float(taken.environment[PROBE] or 0))
    return {backend: (taken, statistics.median(probes[backend])) for backend, taken in runs.items()}


def compare(models: Sequence[Subject], on: Mapping[str, str], turns: int) -> Iterator[Row]:
    """A row for each model, as soon as it is measured."""
    with ExitStack() as stack:
        benches = {backend: stack.enter_context(Bench(Named(backend, {}))) for backend in on}
        predictors = {backend: nn_meter.load_latency_predictor(name) for backend, name in on.items()}
        for number, model in enumerate(models, 1):
            taken, said = {}, {}
            for backend, (turns_ms, probe_ms) in measured(benches, model, turns).items():
                level = probe_ms / float(predictors[backend].bundle.environment[PROBE] or 0)
                try:
                    said[backend] = level * predictors[backend].explain(read(model.source)).latency_ms
                except NnMeterError:
                    continue
                taken[backend] = turns_ms
            print(f"{number} of {len(models)}: {model.name} {taken} {said}", flush=True)
            yield Row(model.name, model.family, taken, said)


def relative(rows: Sequence[Row]) -> dict[str, list[tuple[float, float]]]:
    """By runtime of each model that it takes the latency over the model's geometric mean, measured and predicted."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        was = statistics.geometric_mean(row.measured_ms.values())
        said = statistics.geometric_mean(row.predicted_ms.values())
        for backend, latency_ms in row.measured_ms.items():
            found.setdefault(backend, []).append((latency_ms / was, row.predicted_ms[backend] / said))
    return found


def told_apart(rows: Sequence[Row]) -> tuple[int, int]:
    """Of how many pairs of runtimes that differ at a model the faster one is named, and how many there are."""
    named = []
    for row in rows:
        for one, other in permutations(row.turns_ms, 2):
            if all(a > APART * b for a, b in zip(row.turns_ms[one], row.turns_ms[other], strict=True)):
                named.append(row.predicted_ms[one] > row.predicted_ms[other])
    return sum(named), len(named)


def page(rows: Sequence[Row], on: Mapping[str, str], turns: int, picture: str) -> str:
    """The page in markdown."""
    names = {backend: name.rsplit("/", 1)[-1].removesuffix(".zip") for backend, name in on.items()}
    right = [row for row in rows if row.fastest[0] == row.fastest[1]]
    dearer = [row.measured_ms[row.fastest[1]] / row.measured_ms[row.fastest[0]] - 1 for row in rows]
    own = [spearman([row.predicted_ms[b] for b in row.measured_ms], [*row.measured_ms.values()]) for row in rows]
    ranks = [each for each in own if each is not None]
    again = [each for each in (row.repeated for row in rows) if each is not None]
    wins, told = (Counter(row.fastest[i] for row in rows) for i in (0, 1))
    lines = [
        "# The same models on several runtimes",
        "",
        f"{len(rows)} models, one of each family, on every runtime of one machine in {turns} turns, one thread.",
        "Quiet latencies in ms, predicted ones in brackets, the fastest of each in bold; `-` is a runtime that",
        "refuses the model. What is predicted is at the speed of the day, which each runtime's probe tells. Written by",
        "`scripts/runtimes.py`.",
        "",
        "| | predictor | models | median error | fastest, measured | fastest, predicted |",
        "|---|---|---|---|---|---|",
    ]
    for backend, name in names.items():
        taken = [(row.measured_ms[backend], row.predicted_ms[backend]) for row in rows if backend in row.measured_ms]
        off = [abs(said / was - 1) for was, said in taken]
        lines.append(
            f"| {backend} | {name} | {len(off)} | {statistics.median(off):.1%} | {wins[backend]} | {told[backend]} |"
        )
    known, pairs = told_apart(rows)
    pooled = spearman(*zip(*chain.from_iterable(relative(rows).values()), strict=True))
    lines += [
        "",
        f"The predictors name the fastest runtime of {len(right)} of {len(rows)} models; who follows them takes "
        f"{statistics.fmean(dearer):.1%} longer than with the fastest in the mean. Rank correlation across runtimes: "
        f"{statistics.fmean(ranks):.3f} within a model, in the mean, where every second turn has "
        f"{statistics.fmean(again):.3f} with the others; {pooled or 0:.3f} over all, each latency relative to its "
        f"model's mean. Of {pairs} pairs of runtimes that differ by more than {APART - 1:.0%} in every turn, they name "
        f"the faster of {known}.",
        "",
        f"![predicted over measured, relative to the mean of the model]({picture})",
        "",
        f"| model | family | {' | '.join(names)} |",
        f"|---|---|{'---|' * len(names)}",
    ]
    for row in sorted(rows, key=lambda row: row.family):
        first, second = row.fastest
        cells = [
            f"{_bold(row.measured_ms[each], each == first)} ({_bold(row.predicted_ms[each], each == second)})"
            if each in row.measured_ms
            else "-"
            for each in names
        ]
        lines.append(f"| {row.model} | {row.family} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _bold(latency_ms: float, fastest: bool) -> str:
    return f"**{latency_ms:.3g}**" if fastest else f"{latency_ms:.3g}"


def draw(rows: Sequence[Row], path: Path) -> None:
    """How much faster or slower than the mean of its runtimes each model is on each, predicted over measured."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    found = relative(rows)
    every = [each for pairs in found.values() for pair in pairs for each in pair]
    axes.plot([min(every), max(every)], [min(every), max(every)], color="0.6", linewidth=1)
    for backend, pairs in found.items():
        axes.plot(*zip(*pairs, strict=True), "o", markersize=4, alpha=0.7, label=backend)
    axes.set(xscale="log", yscale="log", xlabel="measured, relative to the model's mean", ylabel="predicted, likewise")
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="folders of models by family")
    parser.add_argument("--on", action="append", required=True, metavar="BACKEND=PREDICTOR")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--most", type=int, default=60, help="families at most")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    if args.turns < 2:
        parser.error("--turns: at least 2, since what one measurement tells is held against another's")
    on = dict(each.split("=", 1) for each in args.on)
    journal = args.output.with_suffix(".json")
    done = [Row(**row) for row in json.loads(journal.read_text())] if journal.exists() else []
    known = {row.model for row in done}
    left = [model for model in one_of_each(subjects(args.models), args.most) if model.name not in known]
    for row in compare(left, on, args.turns):
        done.append(row)
        write(journal, json.dumps([asdict(row) for row in done], indent=1))
    rows = [row for row in done if len(row.turns_ms) > 1]
    picture = args.output.with_suffix(".png")
    draw(rows, picture)
    args.output.write_text(page(rows, on, args.turns, picture.name))


if __name__ == "__main__":
    main()
