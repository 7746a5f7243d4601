"""Prediction speed beside nn-Meter 2.0, as ratios.

    python bench/predict.py --nn-meter-python VENV/bin/python [--shared FOLDER]

nn-Meter 2.0 needs a virtual environment of its own (``pip install nn-meter==2.0 scikit-learn==1.6.0
setuptools<81``). Both run the same calls in worker processes, one after the other by turns, with the same
legacy predictor, so that whatever else the machine does hits both alike. Medians of processor time and ratios are
printed.
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
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from gzip import decompress
from pathlib import Path
from typing import Any, Self

NAME, VERSION = "bench_cpu", 1.0
IR_MODEL = "mobilenetv3small_0"
ONNX_MODELS = ("mobilenetv3_small_100", "mnasnet_100", "resnet18")
WIDTHS = (0.5, 0.75, 1.25)


def work() -> None:
    """Answer tasks from stdin; both packages have the calls that are used here."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nn-Meter 2.0 logs to stdout
    import nn_meter

    predictor = nn_meter.load_latency_predictor(NAME, VERSION)
    held: Any = None
    for line in sys.stdin:
        task = json.loads(line)
        if task["do"] == "hold":
            held = json.loads(Path(task["path"]).read_text())
            seconds, answer = 0.0, None
        elif task["do"] == "many":
            # a fresh predictor has computed nothing yet
            predictor = nn_meter.load_latency_predictor(NAME, VERSION)
            models = held[: task["count"]]
            many = getattr(predictor, "predict_many", None)
            start = time.process_time()
            answer = (
                many(models, "nnmeter-ir") if many else [predictor.predict(m, "nnmeter-ir") for m in models]
            )
            seconds = time.process_time() - start
        else:
            model = held if task["do"] == "nnmeter-ir" else task["path"]
            start = time.process_time()
            answer = predictor.predict(model, task["do"])
            seconds = time.process_time() - start
        print(json.dumps([seconds, answer], default=float), file=answers, flush=True)


class Worker:
    """One package in a process of its own."""

    def __init__(self, python: str, env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [python, __file__, "--worker"],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def ask(self, **task: Any) -> tuple[float, Any]:
        """Seconds that the call took, and its answer."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the worker ended at {task}")
        seconds, answer = json.loads(line)
        return seconds, answer


def variants(ir: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """``ir`` with other widths; in each variant all layers of some channel counts are scaled alike."""
    widths = sorted(
        {s[-1] for n in ir.values() for s in n["attr"]["output_shape"] if len(s) == 4 and s[-1] % 8 == 0}
    )
    rng = random.Random(0)
    text = json.dumps(ir)
    found = []
    for _ in range(count):
        scaled = {c: max(8, int(c * rng.choice(WIDTHS)) // 8 * 8) for c in rng.sample(widths, 3)}
        variant = json.loads(text)
        for node in variant.values():
            attr = node["attr"]
            for shape in (*attr["input_shape"], *attr["output_shape"]):
                if shape:
                    shape[-1] = scaled.get(shape[-1], shape[-1])
            weight = attr["attr"].get("weight_shape")
            if weight:
                weight[2:] = [scaled.get(dim, dim) for dim in weight[2:]]
        found.append(variant)
    return found


def with_weights(source: Path, target: Path) -> None:
    """Copy an ONNX file with zeros for its absent weights, which nn-Meter 2.0 insists on reading."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    model = onnx.load(source, load_external_data=False)
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            zeros = np.zeros(tuple(tensor.dims), onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
            tensor.CopyFrom(numpy_helper.from_array(zeros, tensor.name))
    target.write_bytes(model.SerializeToString())


def by_turns(rounds: int, ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[float, float]:
    """Medians of the seconds that each says; the first turn warms up."""
    turns = [(ours(), theirs()) for _ in range(rounds + 1)][1:]
    return statistics.median(a for a, _ in turns), statistics.median(b for _, b in turns)


def report(what: str, ours_s: float, theirs_s: float, unit: str = "ms") -> None:
    """One line; milliseconds per call, or models per second where more is better."""
    ours, theirs = (ours_s * 1e3, theirs_s * 1e3) if unit == "ms" else (1 / ours_s, 1 / theirs_s)
    print(f"{what:44}{ours:12.3f}{theirs:12.3f} {unit:9}{theirs_s / ours_s:8.1f} x", flush=True)


def homes(work_folder: Path, legacy: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Environments for both packages, with the legacy predictor registered in each, in homes of their own."""
    kernels = sorted(path.stem for path in legacy.glob("*.pkl"))
    meta = {"name": NAME, "version": VERSION, "category": "cpu", "package_location": str(legacy)}
    path = work_folder / "meta.yaml"
    path.write_text(json.dumps({**meta, "kernel_predictors": kernels}))
    # installed packages have their bytecode; where it may not be written, ours would be compiled in each run
    given = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    ours = {**given, "NN_METER_HOME": str(work_folder / "ours")}
    register = [*command(), "register", "--predictor", str(path)]
    subprocess.run(register, env=ours, check=True, stdout=subprocess.DEVNULL)
    config = work_folder / "theirs" / ".nn_meter" / "config"
    config.mkdir(parents=True)
    (config / "predictors.yaml").write_text(f"[{path.read_text()}]")
    (config / "settings.yaml").write_text(json.dumps({"data_folder": str(config.parent / "data")}))
    theirs = {key: value for key, value in given.items() if key != "PYTHONPATH"}
    return ours, {**theirs, "HOME": str(work_folder / "theirs")}


def command() -> list[str]:
    """Our command line, by this interpreter."""
    return [sys.executable, "-c", "import sys; from nn_meter.cli.main import main; sys.exit(main())"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--nn-meter-python", metavar="PATH", help="interpreter of the environment with nn-Meter 2.0"
    )
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--variants", type=int, default=1000, help="models in one call of predict_many")
    parser.add_argument(
        "--variants-theirs", type=int, default=40, help="how many of them nn-Meter 2.0 is asked"
    )
    args = parser.parse_args()
    if args.worker:
        work()
        return
    if not args.nn_meter_python:
        parser.error("--nn-meter-python is needed")

    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        ours_env, theirs_env = homes(folder, (args.shared / "legacy" / "k8_predictor").resolve())
        ours = stack.enter_context(Worker(sys.executable, ours_env))
        theirs = stack.enter_context(Worker(args.nn_meter_python, theirs_env))
        print(f"{'':44}{'ours':>12}{'nn-Meter':>12}")

        ir = json.loads(decompress((args.shared / "parity" / "ir" / f"{IR_MODEL}.json.gz").read_bytes()))
        (folder / "ir.json").write_text(json.dumps(ir))
        for each in (ours, theirs):
            each.ask(do="hold", path=str(folder / "ir.json"))
        assert_same(ours.ask(do="nnmeter-ir")[1], theirs.ask(do="nnmeter-ir")[1])
        report(
            f"IR dictionary, {IR_MODEL}",
            *by_turns(
                args.rounds, lambda: ours.ask(do="nnmeter-ir")[0], lambda: theirs.ask(do="nnmeter-ir")[0]
            ),
        )

        for name in ONNX_MODELS:
            path = folder / f"{name}.onnx"
            with_weights(args.shared / "parity" / "onnx" / path.name, path)
            task = {"do": "onnx", "path": str(path)}
            assert_same(ours.ask(**task)[1], theirs.ask(**task)[1])
            turns = by_turns(args.rounds, lambda t=task: ours.ask(**t)[0], lambda t=task: theirs.ask(**t)[0])
            report(f"ONNX file, {name}", *turns)

        (folder / "many.json").write_text(json.dumps(variants(ir, args.variants)))
        for each in (ours, theirs):
            each.ask(do="hold", path=str(folder / "many.json"))
        theirs_s, expected = theirs.ask(do="many", count=args.variants_theirs)
        runs = [ours.ask(do="many", count=args.variants) for _ in range(5)]
        for a, b in zip(runs[0][1], expected, strict=False):
            assert_same(a, b)
        ours_s = statistics.median(seconds for seconds, _ in runs)
        per_model = ours_s / args.variants, theirs_s / args.variants_theirs
        report(f"predict_many, {args.variants} variants", *per_model, unit="models/s")

        tail = ["predict", "--predictor", NAME, "--predictor-version", "1.0", "--onnx", str(path)]
        script = str(Path(args.nn_meter_python).with_name("nn-meter"))
        report(
            f"whole command, {name}",
            *by_turns(
                5, lambda: ran([*command(), *tail], ours_env), lambda: ran([script, *tail], theirs_env)
            ),
        )


def assert_same(ours: float, theirs: float) -> None:
    """Speed counts for the same answer only."""
    if abs(ours - theirs) > 1e-9 * abs(theirs):
        raise SystemExit(f"the answers differ: {ours} and {theirs}")


def ran(line: list[str], env: dict[str, str]) -> float:
    """Seconds of processors that a command takes."""
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(line, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    return end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime


if __name__ == "__main__":
    main()
