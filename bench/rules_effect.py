"""What detected fusion rules do to predictions: each model under several rule files, beside the first of them.

    python bench/rules_effect.py MODELS --rules GRAPH.json TIMED.json ... [--predictor BUNDLE]

``MODELS`` are files or folders; the rule files are what ``nn-meter detect-rules`` writes, the first decided by the
executed graph (``--method graph``), the others by latencies alone. Without ``--predictor`` the default one answers. Of
each other file the table says how many models are predicted the same, and the median and the largest difference.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

import nn_meter
from nn_meter.api import Predictor
from nn_meter.evaluation import subjects
from nn_meter.predictors import bundle as bundles


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--rules", type=Path, nargs="+", required=True)
    parser.add_argument("--predictor", type=Path, help="folder or file of a bundle")
    args = parser.parse_args()
    bundle = bundles.load(args.predictor) if args.predictor else nn_meter.load_latency_predictor().bundle
    own = {key: bundle.rules[key] for key in ("runtime", "block") if key in bundle.rules}
    files = {path: {**json.loads(path.read_text()), **own} for path in args.rules}
    predictors = {"bundle's own": Predictor(bundle)} | {
        path.name: Predictor(replace(bundle, rules=rules)) for path, rules in files.items()
    }
    found: dict[str, list[float]] = {name: [] for name in predictors}
    models = subjects(args.models)
    for model in models:
        for name, predictor in predictors.items():
            found[name].append(float(predictor.predict(model.source)))
    truth = np.array(found[args.rules[0].name])
    print(f"{len(models)} models, beside {args.rules[0].name}")
    for name, latencies_ms in found.items():
        apart = np.array(latencies_ms) / truth - 1
        worst = int(np.argmax(np.abs(apart)))
        print(
            f"{name}: {int((apart == 0).sum())} the same, median {np.median(np.abs(apart)):.2%}, "
            f"largest {apart[worst]:+.1%} ({models[worst].name})"
        )


if __name__ == "__main__":
    main()
