"""Prints what LiteRT's ``benchmark_model`` prints (its sources are named in ``nn_meter.backends.benchmark_model``).

``answer`` measures a model with the LiteRT of this machine: once, and tells the same from then on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

HEAD = "\t" + "\t".join(
    ("[node type]", "[start]", "[first]", "[avg ms]", "[%]", "[cdf%]", "[mem KB]", "[times called]", "[Name]")
)

Told = tuple[str, str, float]
"""Kind, name and mean in ms of an operator."""


def row(kind: str, name: str, mean_ms: float, times: int = 1) -> str:
    cells = (kind.rjust(24), "0.000".rjust(17), *(f"{mean_ms:9.3f}",) * 2, "1.000%", "1.000%", "0.000".rjust(10))
    return "\t" + "\t".join((*cells, f"{times:9d}", name))


def table(title: str, rows: Sequence[str]) -> str:
    return f"{'=' * 30} {title} {'=' * 30}\n{HEAD}\n" + "".join(f"{each}\n" for each in rows) + "\n"


def printed(runs: int, mean_us: float, told: Sequence[Told] = ()) -> str:
    """All of it; a table of operators where there are some."""
    rows = [row(*each) for each in told]
    profile = (
        "Profiling Info for Benchmark Initialization:\n"
        + table("Run Order", [row("AllocateTensors", "AllocateTensors/0", 0.1)])
        + "Operator-wise Profiling Info for Regular Benchmark Runs:\n"
        + table("Run Order", rows)
        + table("Top by Computation Time", rows[::-1])
        + f"Timings (microseconds): count={runs} curr={mean_us:g} avg={mean_us:g} std=0\n"
        + f"Memory (bytes): count=0\n{len(rows)} nodes observed\n"
    )
    return (
        "INFO: STARTING!\nINFO: Initialized session in 1.2ms.\n"
        "INFO: Running benchmark for at least 1 iterations and at least 0 seconds but terminate if "
        "exceeding 150 seconds.\n"
        f"INFO: count=1 curr={2 * mean_us:g}\n\n"
        f"INFO: count={runs} first={mean_us:g} curr={mean_us:g} min={mean_us:g} max={mean_us:g} "
        f"avg={mean_us:g} std=0\n\n"
        f"INFO: Inference timings in us: Init: 1200, First inference: {2 * mean_us:g}, Warmup (avg): {2 * mean_us:g}, "
        f"Inference (avg): {mean_us:g}\n" + (profile if told else "")
    )


def measured(path: Path) -> list[Told]:
    """The operators of a model, run here."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    from nn_meter.backends.litert.native import Session

    known = path.with_suffix(".told")
    if not known.exists():
        reader = Interpreter(str(path))
        inputs = [np.ones(each["shape"], each["dtype"]) for each in reader.get_input_details()]
        names = [each["op_name"] for each in reader._get_ops_details()]
        with Session(path.read_bytes(), inputs, names, 1, True) as session:
            runs = [session.profile() for _ in range(3)]
        told = [
            (
                each.name,
                f"Delegate/{each.name}:{each.number}" if each.inside else f"[t]:{each.number}",
                sum(run[i].elapsed_us for run in runs) / 3e3,
            )
            for i, each in enumerate(runs[0])
        ]
        known.write_text(json.dumps(told))
    return [tuple(each) for each in json.loads(known.read_text())]


def answer(arguments: Sequence[str]) -> str:
    """What is printed where the program is called with these."""
    if "--help" in arguments:
        return "usage: benchmark_model <flags>"
    options = dict(each.removeprefix("--").split("=", 1) for each in arguments)
    told = measured(Path(options["graph"]))
    whole_us = 1e3 * sum(mean_ms for *_, mean_ms in told) + 5
    return printed(int(options["num_runs"]), whole_us, told if "enable_op_profiling" in options else ())
