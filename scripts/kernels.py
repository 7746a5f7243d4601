"""Which models a runtime takes, whether it executes the kernels that are predicted, and whether their times add up.

    python scripts/kernels.py MODELS --backend mnn --table docs/kernels_mnn.md --differing

Each model has a process of its own and ``--seconds`` in it. ``sum`` is what the traced kernels take over what a run
without the profiler takes, less what a call costs and what the profiler adds to each kernel, the median over the
models. A loaded machine disturbs it; the rest it leaves as it is (``--untimed``).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from agreement import Agreement, agreement, differing

from nn_meter.backends import Named, runtime_of
from nn_meter.backends.base import Traced
from nn_meter.backends.onnx_writer import as_bytes, with_random_weights
from nn_meter.errors import NnMeterError
from nn_meter.evaluation import Subject, subjects
from nn_meter.frontends import onnx as reader
from nn_meter.kernels.rules import read_rules
from nn_meter.measuring import Plan, measure
from nn_meter.measuring.fixed import nothing
from nn_meter.runtimes.fusion import fuse

TIMED = Plan(rounds=2, turn_s=0.1, max_repeats=30, warmup_turns=2)
UNTIMED = Plan(rounds=1, max_repeats=1, warmup_turns=0)
MANY_KERNELS = 12
"""Models of fewer say little of what the profiler adds to each."""
LEAST_MS = 0.3
"""What takes less says nothing of sums."""


@dataclass(frozen=True)
class Row:
    """One model: kernels predicted, executed and both; times in ms, those of a call left out; or why there are none."""

    ours: int = 0
    truth: int = 0
    both: int = 0
    traced: int = 0
    whole_ms: float = 0.0
    sum_ms: float = 0.0
    refused: str = ""
    differing: Sequence[str] = ()


def taken(chosen: Named, path: Path, plan: Plan) -> Row:
    """One model, here."""
    backend = chosen.load()
    with backend.prepare(nothing()) as prepared:
        (call,) = measure([prepared], plan)
    data = as_bytes(with_random_weights(path))
    graph = reader.read(data)
    with backend.prepare(data) as prepared:
        traced = Traced(prepared)
        whole, sums = measure([prepared, traced], plan)
    executed = [trace.executed for trace in traced.traces]
    runtime = runtime_of(backend)
    kernels = fuse(graph, read_rules({"runtime": runtime.name})).kernels
    found = agreement(kernels, executed, runtime.name, graph)
    return Row(
        found.ours, found.truth, found.both, len(executed), whole.quiet_ms - call.quiet_ms, sums.quiet_ms,
        differing=differing(kernels, executed, runtime.name, graph),
    )  # fmt: skip


def asked(model: Subject, backend: str, seconds: float, more: Sequence[str]) -> Row:
    """One model, in a process of its own."""
    command = [sys.executable, __file__, str(model.source), "--backend", backend, "--one", *more]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return Row(refused=f"nothing within {seconds:g} s")
    if done.returncode:
        return Row(refused=(done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"])[-1])
    return Row(**json.loads(done.stdout.splitlines()[-1]))


def page(backend: str, found: Sequence[tuple[Subject, Row]], timed: bool) -> str:
    """The table and what it comes to."""
    ran = [row for _, row in found if not row.refused]
    if not ran:
        return f"None of {len(found)} models runs on {backend}; the first because: {found[0][1].refused}\n"
    all_of = sum((Agreement(row.ours, row.truth, row.both) for row in ran), Agreement(0, 0, 0))
    wholly = sum(row.ours == row.truth == row.both for row in ran)
    text = f"{len(ran)} of {len(found)} models run on {backend}, {wholly} agree wholly: precision "
    text += f"{all_of.precision:.3f}, recall {all_of.recall:.3f}."
    added = [max(row.sum_ms - row.whole_ms, 0) / row.traced for row in ran if row.traced >= MANY_KERNELS]
    profiler_ms = statistics.median(added or [0.0])
    ratio = {id(row): (row.sum_ms - row.traced * profiler_ms) / row.whole_ms for row in ran if timed}
    long = [ratio[id(row)] for row in ran if row.whole_ms >= LEAST_MS and timed]
    if long:
        text += f" The sum of the kernels over the whole, in the median of {len(long)} from {LEAST_MS} ms on: "
        text += f"{statistics.median(long):.3f}, with {1000 * profiler_ms:.1f} us a kernel for the profiler."
    lines = [text, "", "| model | predicted | executed | both | sum |", "|---|---|---|---|---|"]
    for model, row in found:
        told = f"{ratio[id(row)]:.3f}" if id(row) in ratio else ""
        cells = (row.ours, row.truth, row.both, told) if not row.refused else (row.refused.strip()[:150], "", "", "")
        lines.append(f"| {model.family}/{model.name} | {' | '.join(map(str, cells))} |")
    return "\n".join((*lines, ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--backend", required=True)
    parser.add_argument("--seconds", type=float, default=120.0, help="for one model, all in all")
    parser.add_argument("--table", type=Path, help="where the table is written")
    parser.add_argument("--differing", action="store_true", help="tell the kernels that are not both")
    parser.add_argument("--untimed", action="store_true", help="run once: for a loaded machine; no sums are told")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        try:
            plan = UNTIMED if given.untimed else TIMED
            print(json.dumps(asdict(taken(Named(given.backend, {}), Path(given.models[0]), plan))))
        except NnMeterError as error:
            sys.exit(str(error))
        return
    found = []
    for model in subjects(given.models):
        row = asked(model, given.backend, given.seconds, ["--untimed"] if given.untimed else [])
        found.append((model, row))
        print(f"{len(found)}: {model.family}/{model.name} {row.refused or (row.ours, row.truth, row.both)}", flush=True)
        for line in row.differing if given.differing else ():
            print(f"    {line}", flush=True)
    text = page(given.backend, found, not given.untimed)
    print(f"\n{text}")
    if given.table:
        given.table.write_text(text)


if __name__ == "__main__":
    main()
