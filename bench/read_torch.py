"""Seconds from a PyTorch module to its graph and to its prediction, beside nn-Meter 2.0 and the other ways.

    python bench/read_torch.py [--nn-meter VENV/bin/python] [--ways] [--memory hf:llama-7b]

nn-Meter 2.0 needs an environment of its own (``pip install nn-meter scikit-learn==1.6.0 'setuptools<81' torch
onnx onnxscript onnxsim torchvision timm``). Both packages run in worker processes, by turns, on the same modules
with weights; ours with the default predictor, nn-Meter with a legacy one, since its own have to be downloaded.
Medians and ratios are printed. What keeps nn-Meter's own call from running is printed too, and put right in its
worker, so that its way can be timed.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from predict import NAME, VERSION, homes

MODELS = (
    *("torchvision:resnet18", "torchvision:resnet50", "torchvision:mobilenet_v2"),
    *("torchvision:mobilenet_v3_large", "torchvision:inception_v3", "torchvision:densenet121"),
    "torchvision:swin_t",
    *("timm:efficientnet_b0", "timm:vit_small_patch16_224", "timm:convnext_tiny"),
)
WAYS_MODELS = ("torchvision:resnet50", "timm:vit_small_patch16_224")


def best_s(run: Callable[[], Any], repeats: int = 3) -> float:
    """Least seconds of ``repeats`` runs after a first."""
    run()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


def meta_module_of(title: str) -> tuple[Any, tuple[int, ...]]:
    """The module of a prefixed name without weights, and its input shape."""
    from nn_meter.frontends import front_end

    kind, _, name = title.partition(":")
    zoo: Any = front_end(kind)
    built = zoo.build(name)
    return built.module.eval(), built.inputs(1, 0)[0]


def ways(title: str) -> dict[str, float]:
    """Seconds of each way from module to operators with shapes."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.passes.fake_tensor_prop import FakeTensorProp

    from nn_meter.frontends import torch as pytorch

    module, shape = meta_module_of(title)
    image = torch.empty(shape, device="meta")
    real = module.to_empty(device="cpu")

    def fx() -> None:
        traced = torch.fx.symbolic_trace(real)
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        FakeTensorProp(traced, mode).propagate(torch.empty(shape))

    def fake() -> None:
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        with torch.no_grad():
            make_fx(real, tracing_mode="fake")(mode.from_tensor(torch.empty(shape)))

    def script() -> None:
        torch.onnx.export(real, (torch.empty(shape),), io.BytesIO(), dynamo=False)

    meta, _ = meta_module_of(title)
    runs: dict[str, Callable[[], Any]] = {
        "nn_meter": lambda: pytorch.read(meta, input_shapes=shape),
        "torch.export": lambda: torch.export.export(meta, (image,), strict=False),
        "fx + fake shapes": fx,
        "make_fx, fake": fake,
        "onnx.export, TorchScript": script,
    }
    found = {}
    for name, run in runs.items():
        try:
            found[name] = best_s(run, repeats=1)
        except Exception as error:
            print(f"  {name}: {type(error).__name__}: {str(error).splitlines()[0][:100]}")
    return found


def module_of(title: str) -> tuple[Any, tuple[int, ...]]:
    """The module of a prefixed name with weights, and its input shape; needs no package of ours."""
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")  # a torchvision built for CUDA misses these
    for operator in ("nms", "qnms"):
        if not torch._C._jit_get_schemas_for_operator(f"torchvision::{operator}"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    kind, _, name = title.partition(":")
    if kind == "timm":
        import timm

        module = timm.create_model(name)
    else:
        import torchvision

        module = torchvision.models.get_model(name, weights=None)
    _libraries.append(library)
    side = 299 if name == "inception_v3" else 224
    return module.eval(), (1, 3, side, side)


_libraries: list[Any] = []
"""Declarations live as long as their library object."""


def repair() -> str:
    """Let nn-Meter 2.0's torch path run; what its own call says without that."""
    import nn_meter.ir_converter.torch_converter.converter as converter
    import torch
    from nn_meter.ir_converter import model_to_graph

    said = []
    steps = (
        ("as it is", lambda: None),
        (
            "with dynamo=False",
            lambda: setattr(torch.onnx, "export", functools.partial(torch.onnx.export, dynamo=False)),
        ),
        (
            "and from memory",
            lambda: setattr(converter, "tempfile", SimpleNamespace(TemporaryFile=io.BytesIO)),
        ),
    )
    for step, change in steps:
        change()
        try:
            model_to_graph(torch.nn.Conv2d(3, 4, 1), "torch", input_shape=(1, 3, 8, 8))
        except Exception as error:
            said.append(f"{step}: {type(error).__name__}: {str(error).splitlines()[0]}")
        else:
            said.append(f"{step}: runs")
            break
    return f"torch {torch.__version__}, " + "; ".join(said)


def work(whose: str) -> None:
    """Answer tasks from stdin, for either package."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nn-Meter 2.0 logs to stdout
    warnings.simplefilter("ignore")
    import nn_meter

    module: Any = None
    shape: tuple[int, ...] = ()

    def load() -> Any:
        return nn_meter.load_latency_predictor(*(() if whose == "ours" else (NAME, VERSION)))

    def graph() -> int:
        if whose == "ours":
            from nn_meter.frontends import torch as pytorch

            return len(pytorch.read(module, input_shapes=shape).nodes)
        from nn_meter.ir_converter import model_to_graph

        return len(model_to_graph(module, "torch", input_shape=shape))

    for line in sys.stdin:
        what, title = json.loads(line)
        answer: Any = None
        try:
            if what == "repair":
                answer = repair()
            elif what == "build":
                module, shape = module_of(title)
            predictor = load() if what == "predict" else None
            started = time.perf_counter()
            if what == "graph":
                answer = graph()
            elif what == "predict":
                # a fresh predictor has computed nothing yet
                answer = predictor.predict(module, "torch", input_shape=shape)
            elif what == "load and predict":
                answer = load().predict(module, "torch", input_shape=shape)
            seconds = time.perf_counter() - started
        except Exception as error:
            seconds, answer = -1.0, f"{type(error).__name__}: {error}"
        print(json.dumps([seconds, answer], default=float), file=answers, flush=True)


Ask = Callable[[str, str], tuple[float, Any]]


@contextmanager
def worker(python: str, whose: str, env: dict[str, str]) -> Iterator[Ask]:
    """A process with one of the packages, as a function from task and model to seconds and answer."""
    line = [python, __file__, "--worker", whose]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        line, env=env, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        to, back = process.stdin, process.stdout

        def ask(what: str, title: str) -> tuple[float, Any]:
            to.write(json.dumps([what, title]) + "\n")
            to.flush()
            answer = back.readline()
            if not answer:
                raise SystemExit(f"the worker of {whose} ended at {what!r} of {title!r}")
            seconds, said = json.loads(answer)
            return seconds, said

        yield ask
        to.close()


def by_turns(asks: list[Ask], what: str, title: str, rounds: int) -> list[float]:
    """Median seconds of each; the first turn warms up. Negative where it fails."""
    turns = [[ask(what, title)[0] for ask in asks] for _ in range(rounds + 1)][1:]
    return [statistics.median(times) for times in zip(*turns, strict=True)]


def row(title: str, what: str, seconds: list[float]) -> None:
    """One line, with the ratio where there are two."""
    shown = "".join(f"{s:9.3f} s" if s >= 0 else f"{'fails':>11}" for s in seconds)
    ratio = f"{seconds[1] / seconds[0]:8.1f} x" if len(seconds) == 2 and min(seconds) >= 0 else ""
    print(f"{title:34}{what:18}{shown}{ratio}", flush=True)


def compare(python: str | None, legacy: Path, rounds: int) -> None:
    """Ours, beside nn-Meter 2.0 where ``python`` has it."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        sides: list[tuple[str, str, dict[str, str]]] = [(sys.executable, "ours", dict(os.environ))]
        if python:
            sides.append((python, "nn-Meter", homes(Path(folder), legacy)[1]))
        firsts = []
        for _ in range(3):
            turn = []
            for side in sides:
                with worker(*side) as ask:
                    if side[1] != "ours":
                        ask("repair", "")
                    ask("build", MODELS[0])
                    turn.append(ask("load and predict", MODELS[0])[0])
            firsts.append(turn)
        asks = [stack.enter_context(worker(*side)) for side in sides]
        if python:
            print("nn-Meter 2.0:", asks[1]("repair", "")[1])
        print(f"{'':52}" + "".join(f"{whose:>11}" for _, whose, _ in sides))
        row(
            MODELS[0],
            "first, with loading",
            [statistics.median(times) for times in zip(*firsts, strict=True)],
        )
        for title in MODELS:
            for ask in asks:
                ask("build", title)
            row(title, "graph", by_turns(asks, "graph", title, rounds))
            row(title, "prediction", by_turns(asks, "predict", title, rounds))
            for ask, (_, whose, _) in zip(asks, sides, strict=True):
                seconds, said = ask("predict", title)
                if seconds < 0:
                    print(f"    {whose}: {said}")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument(
        "--nn-meter", metavar="PYTHON", help="interpreter of the environment with nn-Meter 2.0"
    )
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ways", action="store_true", help="compare with the other ways")
    parser.add_argument("--memory", metavar="NAME", help="only the peak memory of reading NAME")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.worker:
        work(options.worker)
    elif options.memory:
        memory(options.memory)
    elif options.ways:
        for title in WAYS_MODELS:
            figures = ways(title)
            own = figures["nn_meter"]
            print(title, ", ".join(f"{name} {s:.3f} s ({s / own:.1f}x)" for name, s in figures.items()))
    else:
        compare(options.nn_meter, (options.shared / "legacy" / "k8_predictor").resolve(), options.rounds)


def memory(title: str) -> None:
    """Peak memory of reading ``title`` in this process."""
    from nn_meter.frontends import find

    started = time.perf_counter()
    graph: Any = find(title).read(title)
    seconds = time.perf_counter() - started
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    weights = sum(tensor.size for tensor in graph.tensors.values() if tensor.const)
    print(f"{title}: {weights / 1e9:.2f}e9 constants, {len(graph.nodes)} nodes")
    print(f"{seconds:.1f} s with imports, peak {peak_mib:.0f} MiB")


if __name__ == "__main__":
    main()
