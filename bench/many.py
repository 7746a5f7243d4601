"""Many models at a time, by what they are given as: models a second, and how that compares with another checkout.

    python bench/many.py [--before CHECKOUT] [--rounds 5]

Each checkout runs in a process of its own; both do the same work by turns, so that whatever else the machine does hits
both alike, and seconds are those of processors, workers' included. What is printed are medians over the rounds, and the
median of the rounds' ratios. ``workers`` are two processes. Modules are left out where PyTorch is not installed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).resolve().parents[1]
ONNX_MODEL = HERE / "examples" / "small_net.onnx"
SHARED = HERE.parent / "shared" / "models"
LATEST = "xeoncpu_onnxruntime132"
NN_METERS = "bench_nnmeter"


def network(widths: list[int]) -> Any:
    """A residual network of one structure for all widths: some sixty nodes."""
    from nn_meter.ir import GraphBuilder

    b = GraphBuilder("variant")
    x = b.input((1, 3, 64, 64))
    cin = 3
    for width in widths:
        x = b.op("Relu", b.op("Conv", x, b.weight((width, cin, 3, 3)), pads=(1, 1, 1, 1), strides=(2, 2)))
        for _ in range(2):
            y = b.op("Relu", b.op("Conv", x, b.weight((2 * width, width, 1, 1))))
            y = b.op("Relu", b.op("Conv", y, b.weight((2 * width, 1, 3, 3)), pads=(1, 1, 1, 1), group=2 * width))
            x = b.op("Add", x, b.op("Conv", y, b.weight((width, 2 * width, 1, 1))))
        cin = width
    x = b.op("Flatten", b.op("GlobalAveragePool", x))
    return b.graph(b.op("Gemm", x, b.weight((1000, cin)), transB=1))


def drawn(count: int, seed: int) -> list[list[int]]:
    """Widths of so many variants, the same for every checkout."""
    rng = random.Random(seed)
    return [[8 * rng.randint(1, 32) for _ in range(4)] for _ in range(count)]


def module(widths: list[int]) -> Any:
    """A small convolutional network of PyTorch without weights."""
    import torch

    with torch.device("meta"):
        layers: list[Any] = []
        cin = 3
        for width in widths:
            layers += [torch.nn.Conv2d(cin, width, 3, 2, 1), torch.nn.BatchNorm2d(width), torch.nn.ReLU()]
            cin = width
        return torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(cin, 10))


def nn_meters() -> Any:
    """A predictor in nn-Meter's terms whose regressors are one number each: what is timed is all around them."""
    import numpy as np

    from nn_meter.api import Predictor
    from nn_meter.predictors.bundle import Bundle
    from nn_meter.predictors.kind import KindPredictor
    from nn_meter.predictors.nnmeter_columns import NN_METER_1
    from nn_meter.predictors.trees import TreeEnsemble

    def leaf(columns: int) -> TreeEnsemble:
        none, zero = np.array([-1], np.int32), np.array([0], np.int32)
        return TreeEnsemble(zero, np.array([0.0]), none, none, np.array([1.0]), zero, columns)

    kinds = {name: KindPredictor(name, "nn-meter-1", c, leaf(len(c))) for name, c in NN_METER_1.items()}
    rules = {f"BF_{pair}": {"obey": True} for pair in ("conv_relu", "dwconv_relu", "add_relu")}
    return Predictor(Bundle(NN_METERS, "1.0", kinds, rules, "nn-meter-1", category="cpu"))


def tasks() -> dict[str, tuple[int, Callable[[int], Callable[[], object]]]]:
    """Name to how many models, and what makes the call to be timed of a seed."""
    import nn_meter

    def many(count: int, make: Callable[[list[int]], Any], predictor: Any, **options: Any) -> Any:
        def prepared(seed: int) -> Callable[[], object]:
            models = [make(widths) for widths in drawn(count, seed)]
            return lambda: predictor().predict_many(models, **options)

        return count, prepared

    def latest() -> Any:
        return nn_meter.load_latency_predictor(LATEST)

    warm, warm_nn_meters = latest(), nn_meters()
    warm.predict_many([network(widths) for widths in drawn(5, 0)])
    found = {
        "dictionaries, variants of one structure": many(
            400, lambda widths: nn_meter.model_to_graph(network(widths)), lambda: warm_nn_meters
        ),
        "graphs, variants of one structure": many(100, network, lambda: warm),
        "graphs, variants seen in part before": many(400, lambda widths: network(widths[:1] * 4), lambda: warm),
        "one graph again and again": (100, lambda seed: _repeated(warm, network([64] * 4), 100)),
        f"the file {ONNX_MODEL.name} again and again": (30, lambda seed: _repeated(warm, ONNX_MODEL, 30)),
    }
    if SHARED.is_dir():
        files = sorted(SHARED.glob("*.onnx"))
        found["files of the shared models"] = (len(files), lambda seed: lambda: warm.predict_many(files))
        found["explained, the shared models"] = (len(files), lambda seed: lambda: [warm.explain(f) for f in files])
    try:
        import torch  # noqa: F401
    except ImportError:
        pass
    else:
        found["modules of PyTorch"] = many(20, module, lambda: warm, input_shape=(1, 3, 64, 64))
    if "workers" in nn_meter.Predictor.predict_many.__annotations__:
        found["graphs, two workers"] = many(400, network, lambda: warm, workers=2)
    return found


def _repeated(predictor: Any, model: Any, count: int) -> Callable[[], object]:
    return lambda: predictor.predict_many([model] * count)


def work() -> None:
    """Answer lines of task and seed with the seconds that the call took."""
    answers = os.fdopen(os.dup(1), "w")
    known = tasks()
    print(json.dumps({name: count for name, (count, _) in known.items()}), file=answers, flush=True)
    for line in sys.stdin:
        name, seed = json.loads(line)
        call = known[name][1](seed)
        begin_s = processor_s()
        call()
        print(json.dumps(processor_s() - begin_s), file=answers, flush=True)


def processor_s() -> float:
    """Seconds of processors that this process took so far, and its children that ended."""
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in own)


class Checkout:
    """One checkout in a process of its own."""

    def __init__(self, folder: Path) -> None:
        env = {**os.environ, "PYTHONPATH": str(folder / "src")}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.counts: dict[str, int] = self._heard()

    def ask(self, name: str, seed: int) -> float:
        """Seconds of one call."""
        assert self._process.stdin
        print(json.dumps([name, seed]), file=self._process.stdin, flush=True)
        seconds: float = self._heard()
        return seconds

    def _heard(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a checkout's process ended")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="another checkout to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if args.worker:
        work()
        return
    with Checkout(HERE) as now, Checkout(args.before or HERE) as before:
        print(f"{'models a second':44}{'before':>10}{'now':>10}{'ratio':>8}")
        for name, count in now.counts.items():
            there = name in before.counts
            rounds = []
            for seed in range(1, args.rounds + 2):
                sides = (before, now) if there else (now,)
                rounds.append({id(side): side.ask(name, seed) for side in sides[:: 1 if seed % 2 else -1]})
            timed = rounds[1:]  # the first warms up
            new = statistics.median(each[id(now)] for each in timed)
            if there:
                old = statistics.median(each[id(before)] for each in timed)
                ratio = statistics.median(each[id(before)] / each[id(now)] for each in timed)
                print(f"{name:44}{count / old:10.1f}{count / new:10.1f}{ratio:8.2f}", flush=True)
            else:
                print(f"{name:44}{'-':>10}{count / new:10.1f}{'-':>8}", flush=True)


if __name__ == "__main__":
    main()
