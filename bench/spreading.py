"""``predict_many`` over two processes of this machine, over another's executor and over Ray, beside one process.

    python bench/spreading.py [--rounds 3] [--count 2000]

Candidates are new in every round, and what was computed before stays known, as in a search. All ways get the same
candidates by turns; printed are medians of candidates a second, of how many times as fast as one process that is, and
of how many times its processor time all processes take together (Linux), Ray's own included. On one processor it says
what spreading costs, not what it gains. Modules and Ray are left out where they are not installed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from many import LATEST, drawn, module, network

import nn_meter
from nn_meter.spreading import RayExecutor

WORKERS = 2
SHAPE = {"input_shape": (1, 3, 64, 64)}


def files_of(folder: str) -> Callable[[list[int]], Path]:
    """Makes an ONNX file of a convolution for each width and an activation."""
    from onnx import TensorProto, helper, save

    def file(widths: list[int]) -> Path:
        nodes, weights, cin, last = [], [], 3, "x"
        for place, width in enumerate(widths):
            name = f"w{place}"
            weights.append(helper.make_tensor(name, TensorProto.FLOAT, (width, cin, 1, 1), [0.0] * width * cin))
            nodes.append(helper.make_node("Conv", [last, name], [f"c{place}"], name=f"conv{place}"))
            nodes.append(helper.make_node("Relu", [f"c{place}"], [f"r{place}"], name=f"relu{place}"))
            cin, last = width, f"r{place}"
        ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, c, 64, 64)) for n, c in (("x", 3), (last, cin))]
        graph = helper.make_graph(nodes, "variant", ends[:1], ends[1:], weights)
        path = Path(folder) / f"{'_'.join(map(str, widths))}.onnx"
        save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
        return path

    return file


def ways(stack: ExitStack) -> dict[str, dict[str, Any]]:
    """Name to what ``predict_many`` is given."""
    pool = stack.enter_context(ProcessPoolExecutor(WORKERS))
    found: dict[str, dict[str, Any]] = {
        "one process": {}, f"workers={WORKERS}": {"workers": WORKERS},
        "executor of processes": {"executor": pool, "workers": WORKERS},
    }  # fmt: skip
    if find_spec("ray"):
        import ray

        ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level="error")
        stack.callback(ray.shutdown)
        found["Ray"] = {"executor": RayExecutor(num_cpus=1), "workers": WORKERS}
    return found


def processor_s() -> float:
    """Processor seconds of this process and of all that it began."""
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
        ticks[int(stat.parent.name)] = sum(map(int, fields[11:15]))
    own = [os.getpid()]
    for pid in own:
        own += children.get(pid, ())
    return sum(ticks.get(pid, 0) for pid in own) / os.sysconf("SC_CLK_TCK")


def compared(what: str, makes: Sequence[Callable[[], Any]], options: dict[str, Any], known: dict[str, Any]) -> None:
    """Print how fast each way is; the first round warms up."""
    predictor = nn_meter.load_latency_predictor(LATEST)
    rounds = []
    for place, make in enumerate(makes):
        models, taken, answers = make(), {}, []
        for name in [*known][:: 1 if place % 2 else -1]:
            start_s, used_s = time.perf_counter(), processor_s()
            answers.append(predictor.predict_many(models, **options, **known[name]))
            taken[name] = time.perf_counter() - start_s, processor_s() - used_s
        assert all(each == answers[0] for each in answers), "every way answers the same"
        rounds.append((len(models), taken))
    for name in known:
        second = statistics.median(count / taken[name][0] for count, taken in rounds[1:])
        faster = statistics.median(taken["one process"][0] / taken[name][0] for _, taken in rounds[1:])
        used = statistics.median(taken[name][1] / max(taken["one process"][1], 0.01) for _, taken in rounds[1:])
        print(f"{what:24}{name:24}{second:10.0f}{faster:9.2f}{used:11.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=2000, help="candidates of a round")
    options = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} processors")
    print(f"{'':24}{'':24}{'a second':>10}{'as fast':>9}{'processor':>11}")
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        known = ways(stack)
        kinds = {"graphs": (network, options.count, {}), "files": (files_of(folder), options.count // 4, {})}
        if find_spec("torch"):
            kinds["modules of PyTorch"] = (module, options.count // 10, SHAPE)
        for what, (make, count, given) in kinds.items():
            makes = [
                lambda make=make, count=count, seed=seed: [make(widths) for widths in drawn(count, seed)]
                for seed in range(options.rounds + 1)
            ]
            compared(what, makes, given, known)


if __name__ == "__main__":
    main()
