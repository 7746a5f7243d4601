"""Time of our ONNX reader over that of ``onnx.load``: the shared models, and one with 200 MB of weights.

Run from the repository root: ``PYTHONPATH=src python bench/read_onnx.py``. The repeats of the two are
interleaved, the ratio is that of their medians. ``onnx.load`` parses only; ours infers every shape as well.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from nn_meter.frontends.onnx import read

SHARED = Path(__file__).parents[2] / "shared"
REPEATS = 7
LAYERS = 50


def weighty(path: Path) -> Path:
    """A chain of 50 matrix products, 4 MB of weights each."""
    weights = [numpy_helper.from_array(np.ones((1024, 1024), np.float32), f"w{i}") for i in range(LAYERS)]
    nodes = [helper.make_node("MatMul", [f"t{i}", f"w{i}"], [f"t{i + 1}"]) for i in range(LAYERS)]
    ends = [helper.make_tensor_value_info(name, 1, (1, 1024)) for name in ("t0", f"t{LAYERS}")]
    onnx.save(helper.make_model(helper.make_graph(nodes, "weighty", ends[:1], ends[1:], weights)), path)
    return path


def timed_ms(function: object, path: Path) -> float:
    start = time.perf_counter()
    function(path)  # type: ignore[operator]
    return (time.perf_counter() - start) * 1e3


def load(path: Path) -> None:
    onnx.load(path, load_external_data=False)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = sorted([*SHARED.glob("models/*.onnx"), *SHARED.glob("parity/onnx/*.onnx")])
        paths.append(weighty(Path(folder) / "weights_200mb.onnx"))
        print(f"{'model':36} {'nodes':>6} {'ours ms':>9} {'load ms':>9} {'ratio':>8}")
        for path in paths:
            nodes = len(read(path).nodes)
            pairs = [(timed_ms(read, path), timed_ms(load, path)) for _ in range(REPEATS)]
            ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
            print(f"{path.name:36} {nodes:6} {ours:9.2f} {theirs:9.2f} {ours / theirs:8.2f}")


if __name__ == "__main__":
    main()
