"""How time and memory grow with the number of nodes: each source and runtime, ``predict``, ``explain`` with its page.

Run from the repository root: ``PYTHONPATH=src python bench/linear.py [--sizes 1000 10000 100000] [--sources ...]
[--repeats 3]``. The sizes of each source run by turns so often, each time in a process of its own, after a small model
of the same source has warmed it up. Printed are the least seconds of processor time, since whatever else a machine does
only adds to them, and the MB that Python's allocator gave out at once beyond what was held, which one more run counts
(what a process occupies grows less at first: it fills the holes that imports left); then the exponents of both: over
all sizes, and between neighbours. 1 is linear. What the machine itself adds, whose caches hold a small graph and not a
large one, is told by the row ``plain objects``, which makes as many nodes by name and looks each up some times: nothing
in Python grows less. Where PyTorch is not installed its row says so.
"""

from __future__ import annotations

import argparse
import pickle
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import inf, log, log10
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests" / "frontends"))  # its writers of TensorFlow's and TFLite's files

SIZES = (1000, 10_000, 100_000)
MOST = 1.1
"""An exponent above this is told."""


def _onnx(nodes: list[Any], last: str, functions: Sequence[Any] = ()) -> bytes:
    from onnx import helper

    ends = [helper.make_tensor_value_info(name, 1, [1, 8, 4, 4]) for name in ("t0", last)]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    return bytes(helper.make_model(graph, opset_imports=opsets, functions=[*functions]).SerializeToString())


def _op(op_type: str, *given: str, out: str, name: str = "") -> Any:
    from onnx import helper

    return helper.make_node(op_type, given, [out], name=name or out)


def plain(count: int) -> list[str]:
    """Names, of which ``work`` makes nodes."""
    return [f"t{i}" for i in range(count + 1)]


def walk(names: Sequence[str]) -> None:
    """Makes a small object by each name, and looks up what it reads and who reads it, as passes over a graph do."""
    nodes = {name: SimpleNamespace(reads=read, shape=(1, 8, 4, 4), readers=[]) for read, name in pairwise(names)}
    for _ in range(_PASSES):
        for node in nodes.values():
            if (read := nodes.get(node.reads)) is not None:
                read.readers = [node]


_PASSES = 10
"""Some of what the passes of a runtime look up."""


def chain(count: int) -> bytes:
    """One after the other, of four kinds by turns."""
    kinds = ("Relu", "Sigmoid", "Neg", "Abs")
    return _onnx([_op(kinds[i % 4], f"t{i}", out=f"t{i + 1}") for i in range(count)], f"t{count}")


def equal_names(count: int) -> bytes:
    """All of one name."""
    return _onnx([_op("Relu", f"t{i}", out=f"t{i + 1}", name="same") for i in range(count)], f"t{count}")


def wide(count: int) -> bytes:
    """All read the input; sums of pairs bring them together."""
    half = count // 2
    nodes = [_op("Sigmoid", "t0", out=f"b{i}") for i in range(half)]
    nodes += [_op("Add", f"s{i - 1}" if i else "t0", f"b{i}", out=f"s{i}") for i in range(half)]
    return _onnx(nodes, f"s{half - 1}")


def gathered(count: int) -> bytes:
    """All read the input and compute the same, and one reads them all."""
    half = count // 2
    nodes = [_op("Sigmoid", "t0", out=f"b{i}") for i in range(half)]
    nodes += [_op("Identity", f"b{i}", out=f"i{i}") for i in range(half - 1)]
    return _onnx([*nodes, _op("Sum", *(f"i{i}" for i in range(half - 1)), out="y")], "y")


def ends(count: int) -> bytes:
    """Each reads an input of its own and computes an output."""
    from onnx import helper

    nodes = [_op("Sigmoid", f"t{i}", out=f"y{i}") for i in range(count)]
    given, made = ([helper.make_tensor_value_info(f"{c}{i}", 1, [1, 8, 4, 4]) for i in range(count)] for c in "ty")
    graph = helper.make_graph(nodes, "g", given, made)
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())


def residual(count: int) -> bytes:
    """Every fourth node adds what came three before."""
    nodes = []
    for i in range(count):
        more = (f"t{i - 3}",) if i % 4 == 3 else ()
        nodes.append(_op("Add" if more else "Relu", f"t{i}", *more, out=f"t{i + 1}"))
    return _onnx(nodes, f"t{count}")


def nested(count: int) -> bytes:
    """Functions of functions: ten calls each, as many levels as it takes."""
    from onnx import helper

    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    levels = max(1, round(log10(count)))
    functions = [helper.make_function("own", "f0", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opsets)]
    for level in range(1, levels + 1):
        names = ["a", *(f"v{i}" for i in range(9)), "b"]
        body = [
            helper.make_node(f"f{level - 1}", [x], [y], domain="own")
            for x, y in pairwise(names)
        ]
        functions.append(helper.make_function("own", f"f{level}", ["a"], ["b"], body, opsets))
    return _onnx([helper.make_node(f"f{levels}", ["t0"], ["y"], domain="own", name="call")], "y", functions)


def long_names(count: int) -> bytes:
    """Names of eight modules within each other."""
    deep = "/".join(f"module.{i}" for i in range(8))
    nodes = [_op("Relu", f"t{i}", out=f"t{i + 1}", name=f"/{deep}/{i // 10}/Relu") for i in range(count)]
    return _onnx(nodes, f"t{count}")


def ir(count: int) -> dict[str, Any]:
    """nn-Meter's dictionary of a chain."""
    shape = [[1, 4, 4, 8]]

    def node(i: int) -> dict[str, Any]:
        attr = {"type": "Relu", "attr": {}, "input_shape": shape, "output_shape": shape}
        return {
            "attr": attr,
            "inbounds": [f"n{i - 1}"] if i else [],
            "outbounds": [f"n{i + 1}"] if i + 1 < count else [],
        }

    return {f"n{i}": node(i) for i in range(count)}


def tflite(count: int) -> bytes:
    """A chain."""
    import test_tflite as lite

    file = lite.File()
    tensors = [file.tensor(f"t{i}", 1, 4, 4, 8) for i in range(count + 1)]
    for i in range(count):
        file.op("RELU", [tensors[i]], [tensors[i + 1]])
    return bytes(file.write([tensors[0]], [tensors[-1]]))


def tflite_equal_names(count: int) -> bytes:
    """A chain whose tensors have one name."""
    import test_tflite as lite

    return lite.sharing(count)


def tensorflow(count: int) -> bytes:
    """A chain."""
    import test_tensorflow as tf

    nodes = [tf.node(f"t{i + 1}", "Relu", f"t{i}") for i in range(count)]
    return b"".join((tf.placeholder("t0", (1, 4, 4, 8)), *nodes))


def torch(count: int) -> Any:
    """A sequence of modules."""
    from torch import nn

    return nn.Sequential(*(nn.ReLU() for _ in range(count)))


RUNTIMES = ("openvino", "mnn", "litert", "ncnn", "executorch", "pytorch_eager", "rules")
"""What makes kernels of what is ``wide`` beside the default predictor's, whose regressors answer all the same."""

PLAIN = "plain objects"

SOURCES: dict[str, tuple[str, Callable[[int], Any]]] = {
    PLAIN: ("", plain),
    "onnx chain": ("onnx", chain),
    "onnx equal names": ("onnx", equal_names),
    "onnx wide": ("onnx", wide),
    "onnx gathered": ("onnx", gathered),
    "onnx ends": ("onnx", ends),
    "onnx residual": ("onnx", residual),
    "onnx nested functions": ("onnx", nested),
    "onnx long names": ("onnx", long_names),
    "ir": ("nnmeter-ir", ir),
    "tflite": ("tflite", tflite),
    "tflite equal names": ("tflite", tflite_equal_names),
    "tensorflow": ("pb", tensorflow),
    "torch": ("torch", torch),
    **dict.fromkeys(RUNTIMES, ("onnx", wide)),
}
"""Name to the model's type and what makes one of so many nodes."""

_WARM = 20


def work(source: str, does: str, what: str) -> float:
    """Seconds or MB in this process of the pickled model on stdin."""
    from nn_meter import Predictor, load_latency_predictor
    from nn_meter.ir.collecting import uncollected
    from nn_meter.report import html

    kind, make = SOURCES[source]
    predictor = load_latency_predictor()
    if source in RUNTIMES:
        predictor = Predictor(replace(predictor.bundle, rules={"runtime": source}))
    shape = {"input_shape": (1, 8, 4, 4)} if kind == "torch" else {}

    def ask(model: Any) -> None:
        if source == PLAIN:
            with uncollected():
                walk(model)
        elif does == "predict":
            predictor.predict(model, kind, **shape)
        else:
            html.page([predictor.explain(model, kind, **shape)])

    ask(make(_WARM))
    model = pickle.loads(sys.stdin.buffer.read())  # made elsewhere: what that took would be there to be used again
    if what == "mb":
        tracemalloc.start()
        ask(model)
        return tracemalloc.get_traced_memory()[1] / 2**20
    begin = time.process_time()
    ask(model)
    return time.process_time() - begin


def exponents(sizes: Sequence[int], found: Sequence[float]) -> list[float]:
    """Over all sizes, then between neighbours."""
    ends = [(sizes[0], sizes[-1], found[0], found[-1])]
    steps = ((m, n, a, b) for (m, n), (a, b) in zip(pairwise(sizes), pairwise(found), strict=True))
    return [log(b / a) / log(n / m) for m, n, a, b in (*ends, *steps)]


def costs(source: str, does: str, models: Sequence[bytes | str], repeats: int) -> list[list[float]] | str:
    """Seconds, and MB, of each of ``models``; what was said where one could not be made or asked."""
    found: list[list[float]] = []
    for what, times in (("s", repeats), ("mb", 1)):
        least = [inf] * len(models)
        for _ in range(times):
            for at, model in enumerate(models):
                said = model if isinstance(model, str) else _run("--one", source, does, what, given=model)
                if isinstance(said, str):
                    return said
                least[at] = min(least[at], float(said))
        found.append(least)
    return found


def _run(*arguments: str, given: bytes = b"") -> bytes | str:
    """What this file prints in a process of its own; as text its last words where it failed."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, input=given)
    return done.stdout if done.returncode == 0 else (done.stderr.decode().strip().splitlines() or ["?"])[-1][:100]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES), metavar="SOURCE")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        source, size = options.make
        sys.stdout.buffer.write(pickle.dumps(SOURCES[source][1](int(size))))
        return 0
    if options.one:
        print(work(*options.one))
        return 0
    steep = 0
    print(f"{'source':22} {'does':8}", *(f"{f'{size:,}':>20}" for size in options.sizes), " exponents of time | memory")
    for source in options.sources:
        models = []
        for size in options.sizes:
            models.append(_run("--make", source, str(size)))
            if isinstance(models[-1], str):
                break
        for does in ("walk",) if source == PLAIN else ("predict", "explain"):
            found = costs(source, does, models, options.repeats)
            if isinstance(found, str):
                print(f"{source:22} {does:8} {found}", flush=True)
                continue
            grown = [exponents(options.sizes, each) for each in found]
            steep += any(each > MOST for some in grown for each in some)
            cells = " ".join(f"{s:10.3f} s {mb:5.1f} MB" for s, mb in zip(*found, strict=True))
            told = " | ".join(f"{overall:6.3f} ({' '.join(f'{e:.3f}' for e in steps)})" for overall, *steps in grown)
            print(f"{source:22} {does:8} {cells}  {told}", flush=True)
    return 1 if steep else 0


if __name__ == "__main__":
    sys.exit(main())
