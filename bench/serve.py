"""``nn-meter serve`` under load: many clients at a time, then uploads of the fuzzers; whether it lives at the end.

    python bench/serve.py [--clients 50] [--requests 1000] [--bad 10000] [MODEL ...]

What a request takes is told beside what the same answer, page included, takes in one process without a server, as a
ratio.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nn_meter
from nn_meter.report import html

ROOT = Path(__file__).parents[1]
CORPUS = ROOT / "tests" / "corpus" / "models"
FUZZED = {"onnx": "onnx", "ir": "json", "tflite": "tflite", "tensorflow": "pb", "keras": "keras"}
"""Kinds of ``fuzz`` to the suffix that their inputs are sent under."""


def post(port: int, model: bytes, cut: int | None = None, suffix: str = "onnx") -> tuple[int, float]:
    """Status and seconds of one upload; with ``cut`` the connection ends after so many bytes, and the status is 0."""
    start_s = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        if cut is None:
            connection.request("POST", f"/predict?name=m.{suffix}", model)
            answer = connection.getresponse()
            answer.read()
            return answer.status, time.perf_counter() - start_s
        connection.putrequest("POST", f"/predict?name=m.{suffix}")
        connection.putheader("content-length", str(len(model)))
        connection.endheaders()
        connection.send(model[:cut])
        return 0, time.perf_counter() - start_s
    finally:
        connection.close()


def fuzzed(count: int, seed: int, folder: Path) -> list[tuple[bytes, str]]:
    """So many inputs of the fuzzers, damaged and hostile models, of each kind as many, with their suffixes."""
    sys.path.insert(0, str(ROOT))
    from fuzz.campaign import KINDS
    from fuzz.sandbox import drawn

    targets = {}
    for kind in FUZZED:
        (folder / kind).mkdir()
        targets[kind] = KINDS[kind](folder / kind)
    turns = [[*FUZZED.items()][number % len(FUZZED)] for number in range(count)]
    return [(targets[kind].make(drawn(kind, seed, number)), suffix) for number, (kind, suffix) in enumerate(turns)]


def alone_s(models: Sequence[bytes]) -> float:
    """Seconds of an answer in this process, in the median."""
    predictor = nn_meter.load_latency_predictor()
    taken = []
    for model in [*models, *models]:
        start_s = time.perf_counter()
        html.page([predictor.explain(model)], [predictor.bundle])
        taken.append(time.perf_counter() - start_s)
    return statistics.median(taken[len(models) :])


def round_of(clients: int, uploads: Sequence[Callable[[], tuple[int, float]]]) -> None:
    """Run uploads by so many clients, and print how they went; by its number, which the server failed at."""
    start_s = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        found = [each.result() for each in [pool.submit(upload) for upload in uploads]]
    all_s = time.perf_counter() - start_s
    times = sorted(taken for _, taken in found)
    statuses = ", ".join(f"{count} x {status}" for status, count in sorted(Counter(s for s, _ in found).items()))
    print(f"  {len(found)} requests by {clients} clients in {all_s:.1f} s: {statuses}")
    print(f"  {len(found) / all_s:.1f} a second; {statistics.median(times):.2f} s in the median, "
          f"{times[int(0.95 * len(times))]:.2f} s for nineteen of twenty")  # fmt: skip
    if failed := {number: status for number, (status, _) in enumerate(found) if status >= 500}:
        print(f"  failed at (number: status): {failed}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--bad", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("models", nargs="*", type=Path)
    options = parser.parse_args()
    models = [path.read_bytes() for path in options.models or sorted(CORPUS.glob("*.onnx"))]
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as inputs:
        command = [sys.executable, "-m", "nn_meter", "serve", "--port", "0", "--folder", folder]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "NN_METER_HOME": folder})
        assert server.stdout is not None
        try:
            port = int(server.stdout.readline().decode().rstrip("/\n").rpartition(":")[2])
            for model in models * 2:
                post(port, model)
            one_s = statistics.median(post(port, model)[1] for model in models)
            direct_s = alone_s(models)
            print(f"one client: {1e3 * one_s:.0f} ms, {one_s / direct_s:.1f} times the answer without a server")
            print("good models:")
            chosen = [draw.choice(models) for _ in range(options.requests)]
            round_of(options.clients, [lambda m=model: post(port, m) for model in chosen])
            print("of the fuzzers, a tenth broken off (0):")
            bad = fuzzed(options.bad, options.seed, Path(inputs))
            cuts = [draw.randrange(len(b)) if b and draw.random() < 0.1 else None for b, _ in bad]
            round_of(
                options.clients, [lambda m=m, c=c: post(port, m[0], c, m[1]) for m, c in zip(bad, cuts, strict=True)]
            )
            time.sleep(1)
            status, _ = post(port, models[0])
            left = [path.name for path in Path(folder).glob("nn_meter_upload_*")]
            print(json.dumps({"alive": server.poll() is None and status == 200, "uploads left": left}))
        finally:
            server.terminate()
            server.wait()
            server.stdout.close()
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
