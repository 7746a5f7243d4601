"""How many architectures of timm, torchvision and transformers can be read and predicted.

Reads each in a worker process with a time limit, writes a line of JSON per model to a journal, and prints the counts
with what fails, by reason:

    python scripts/coverage.py --source timm --resume
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from nn_meter import load_latency_predictor
from nn_meter.frontends import front_end
from nn_meter.ir.shapes import infer

SOURCES = ("timm", "torchvision", "hf")


def cross_check(graph: Any) -> str:
    """The first node whose shape rule disagrees with what PyTorch computed, or nothing."""
    for node in graph.nodes:
        for tensor in infer(node, graph.input_tensors(node)):
            if tensor.shape != graph.tensors[tensor.name].shape:
                return f"{node.op_type}: {tensor.shape} inferred, {graph.tensors[tensor.name].shape} read"
    return ""


def examine(front: Any, title: str, predictor: Any | None) -> dict[str, Any]:
    """Read one architecture; what came of it as one row."""
    row: dict[str, Any] = {"model": title, "status": "read"}
    started = time.perf_counter()
    try:
        graph = front.read(title)
    except Exception as error:
        return {**row, "status": "failed", "reason": f"{type(error).__name__}: {error}"}
    row |= {
        "read_s": round(time.perf_counter() - started, 3),
        "nodes": len(graph.nodes),
        "notes": len(graph.notes),
    }
    mismatch = cross_check(graph)
    if mismatch:
        row["mismatch"] = mismatch
    if predictor is not None:
        try:
            prediction = predictor.explain(graph)
            statuses = {kernel.status for kernel in prediction.kernels}
            row |= {"latency_ms": prediction.latency_ms, "covered": statuses <= {"predicted", "free"}}
        except Exception as error:
            row["not_predicted"] = f"{type(error).__name__}: {error}"
    return row


def work(source: str, predictor_name: str, pipe: Connection) -> None:
    """Answer names with rows until the other end closes."""
    front = front_end(source)
    predictor = load_latency_predictor(predictor_name) if predictor_name else None
    pipe.send("ready")
    while (title := pipe.recv()) is not None:
        pipe.send(examine(front, title, predictor))


class Worker:
    """A process that is replaced when it takes too long or dies."""

    def __init__(self, start: Callable[[Connection], Any]) -> None:
        self._start = start
        self._process: Any = None

    def ask(self, title: str, limit_s: float) -> dict[str, Any]:
        """The row of ``title``."""
        if self._process is None:
            self._pipe, far = multiprocessing.Pipe()
            self._process = self._start(far)
            self._process.start()
            far.close()
            self._pipe.recv()
        self._pipe.send(title)
        try:
            if self._pipe.poll(limit_s):
                return dict(self._pipe.recv())
            reason = f"took longer than {limit_s:g} s"
        except EOFError:
            reason = "the worker process died"
        self.stop()
        return {"model": title, "status": "failed", "reason": reason}

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.terminate()
            self._process.join()
            self._process = None


def families(reasons: Iterator[str]) -> Counter[str]:
    """Reasons without the names, places and numbers that tell one model from the next."""
    return Counter(re.sub(r"\S*/\S*|\d+", "…", reason.split(": ", 2)[-1])[:160] for reason in reasons)


def main() -> None:
    """Parse the arguments, read what the journal lacks, print the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", choices=SOURCES, required=True)
    parser.add_argument("--journal", type=Path, help="coverage-SOURCE.jsonl where left out")
    parser.add_argument("--predictor", default="", help="a predictor's name, to predict each with")
    parser.add_argument("--limit", type=int, help="read at most so many architectures more")
    parser.add_argument(
        "--resume", action="store_true", help="skip what the journal has read; failures are tried again"
    )
    parser.add_argument("--timeout-s", type=float, default=60.0, help="limit for one architecture")
    parser.add_argument("--budget-s", type=float, default=float("inf"), help="stop asking after so many seconds")
    options = parser.parse_args()
    journal: Path = options.journal or Path(f"coverage-{options.source}.jsonl")
    rows: dict[str, dict[str, Any]] = {}
    if options.resume and journal.exists():
        rows = {row["model"]: row for row in map(json.loads, journal.read_text().splitlines())}
    titles = front_end(options.source).names()
    waiting = [title for title in titles if rows.get(title, {}).get("status") != "read"][: options.limit]
    context = multiprocessing.get_context("spawn")
    worker = Worker(
        lambda pipe: context.Process(target=work, args=(options.source, options.predictor, pipe), daemon=True)
    )
    started = time.monotonic()
    with journal.open("a" if options.resume else "w") as file:
        for title in waiting:
            if time.monotonic() - started > options.budget_s:
                break
            rows[title] = worker.ask(title, options.timeout_s)
            file.write(json.dumps(rows[title]) + "\n")
            file.flush()
    worker.stop()
    read = [row for row in rows.values() if row["status"] == "read"]
    print(f"{options.source}: {len(titles)} architectures, {len(rows)} tried, {len(read)} read")
    if options.predictor:
        print(
            f"predicted {sum('latency_ms' in row for row in read)}, "
            f"wholly covered {sum(bool(row.get('covered')) for row in read)}"
        )
    for kind in ("reason", "mismatch", "not_predicted"):
        for family, count in families(row[kind] for row in rows.values() if kind in row).most_common():
            print(f"  {count:5d}  {kind}: {family}")


if __name__ == "__main__":
    main()
