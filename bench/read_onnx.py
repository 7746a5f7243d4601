"""From ONNX files to milliseconds, over what ``onnx.load`` and ``onnx.shape_inference`` take for the same files.

    PYTHONPATH=src python bench/read_onnx.py [FILE ...] [--repeats 5]

By default the shared models, and one with 200 MB of weights. Files without their weights, as the shared ones are, are
read as they are and with zeros in their place. ``read`` is our front end alone, ``first`` the whole way to milliseconds
by a predictor that saw no file of this structure, ``again`` by one that did. Processor time, the least of the repeats;
all are taken by turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from predict import with_weights

import nn_meter
from nn_meter.frontends.onnx import read

SHARED = Path(__file__).resolve().parents[2] / "shared"
LAYERS = 50


def weighty(path: Path) -> Path:
    """A chain of 50 matrix products, 4 MB of weights each."""
    weights = [numpy_helper.from_array(np.ones((1024, 1024), np.float32), f"w{i}") for i in range(LAYERS)]
    nodes = [helper.make_node("MatMul", [f"t{i}", f"w{i}"], [f"t{i + 1}"]) for i in range(LAYERS)]
    ends = [helper.make_tensor_value_info(name, 1, (1, 1024)) for name in ("t0", f"t{LAYERS}")]
    onnx.save(helper.make_model(helper.make_graph(nodes, "weighty", ends[:1], ends[1:], weights)), path)
    return path


def timed_ms(call: Callable[[Path], object], path: Path) -> float:
    start = time.process_time()
    call(path)
    return (time.process_time() - start) * 1e3


def theirs(path: Path) -> None:
    onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False))


def compared(paths: list[Path], repeats: int) -> None:
    """A line for each file, and the medians of the ratios."""
    bundle = nn_meter.load_latency_predictor().bundle
    known = nn_meter.Predictor(bundle)
    ratios = []
    for path in paths:
        nodes = len(read(path).nodes)
        ways = read, lambda path: nn_meter.Predictor(bundle).predict(path), known.predict, theirs
        for _ in range(3):
            known.predict(path)
        rounds = [[timed_ms(way, path) for way in ways] for _ in range(repeats)]
        *ours, other = (min(column) for column in zip(*rounds, strict=True))
        ratios.append([each / other for each in ours])
        shown = "".join(f"{each:9.1f}" for each in (*ours, other)) + "".join(f"{each:8.2f}" for each in ratios[-1])
        print(f"{path.name[:34]:34} {path.stat().st_size / 1e6:7.1f} {nodes:6}{shown}", flush=True)
    print(f"{'median':34}{'':51}{''.join(f'{statistics.median(column):8.2f}' for column in zip(*ratios, strict=True))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        given = args.files or sorted([*SHARED.glob("models/*.onnx"), *SHARED.glob("parity/onnx/*.onnx")])
        whole = []
        for path in given:
            whole.append(Path(folder) / path.name)
            with_weights(path, whole[-1])
        if not args.files:
            whole.append(weighty(Path(folder) / "weights_200mb.onnx"))
        heads = "".join(f"{each:>9}" for each in ("read ms", "first", "again", "theirs")) + f"{'ratios':>8}"
        for what, paths in (("as they are", given), ("with weights", whole)):
            print(f"{what:34} {'MB':>7} {'nodes':>6}{heads}")
            compared(paths, args.repeats)


if __name__ == "__main__":
    main()
