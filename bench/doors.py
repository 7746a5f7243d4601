"""The same architectures by two doors, straight from PyTorch and from exported ONNX files: do the predictions agree?

    python bench/doors.py MODELS      # the folder that scripts/export_models.py filled
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import nn_meter
from nn_meter.errors import NnMeterError
from nn_meter.evaluation import subjects
from nn_meter.predictors.prediction import Prediction

LIST = Path(__file__).parents[1] / "scripts" / "accuracy_models.txt"


def kernels(prediction: Prediction) -> Counter[object]:
    """Kind and config of what costs something."""
    return Counter((k.kernel.kind, k.kernel.config) for k in prediction.kernels if k.status != "free")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path)
    args = parser.parse_args()
    files = {s.name: s.source for s in subjects([args.models])}
    predictor = nn_meter.load_latency_predictor()
    lines = [line.split()[0] for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
    same = close = compared = 0
    for title in lines:
        name = title.partition(":")[2]
        if name not in files:
            continue
        try:
            direct, exported = predictor.explain(title), predictor.explain(files[name])
        except NnMeterError as error:
            print(f"{title}: {error}")
            continue
        ours, theirs = kernels(direct), kernels(exported)
        apart = direct.latency_ms / exported.latency_ms - 1
        compared += 1
        same += ours == theirs
        close += abs(apart) < 0.02
        if ours != theirs:
            only = [Counter(kind for kind, _ in (a - b).elements()) for a, b in ((ours, theirs), (theirs, ours))]
            print(f"{title}: {apart:+.1%}; only direct: {dict(only[0])}; only exported: {dict(only[1])}", flush=True)
    print(f"{compared} architectures: {same} with the same kernels, {close} within 2 %")


if __name__ == "__main__":
    main()
