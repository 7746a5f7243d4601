"""A million candidates a second: the space of Once-for-All as a table of what each block changes.

    python examples/block_table.py [--candidates 1000000] [--held 200] [--predictor NAME]

The table takes as many predictions as there are choices at all blocks together (190); then a candidate is a sum. How
far the sum is from predicting the whole network is printed too.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from spaces import CHOICES, once_for_all

import nn_meter

TYPICAL = (4,) * len(CHOICES)
"""Kernels of 5 and an expansion of 4 everywhere: the middle of the space."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=1_000_000)
    parser.add_argument("--held", type=int, default=200, help="candidates that are predicted as a whole, too")
    parser.add_argument("--predictor", help="name or path; the default one if left out")
    args = parser.parse_args()
    predictor = nn_meter.load_latency_predictor(args.predictor)
    table = nn_meter.BlockTable.of(predictor, once_for_all, CHOICES, TYPICAL)

    rng = np.random.default_rng(0)
    candidates = np.stack([rng.integers(0, count, args.candidates, dtype=np.int8) for count in CHOICES], axis=1)
    begin = time.perf_counter()
    latencies_ms = table.latencies_ms(candidates)
    seconds = time.perf_counter() - begin
    print(f"{args.candidates / seconds / 1e6:.1f} million candidates a second")
    fastest = candidates[latencies_ms.argmin()]
    print(f"from {latencies_ms.min():.2f} to {latencies_ms.max():.2f} ms; the fastest is {fastest.tolist()}")

    held = candidates[: args.held]
    whole_ms = np.array(predictor.predict_many(map(once_for_all, held.tolist())), np.float64)
    errors = latencies_ms[: args.held] / whole_ms - 1
    print(f"against predicting {len(held)} of them as a whole: median error {np.median(np.abs(errors)):.1%}, ", end="")
    correlation = rank_correlation(latencies_ms[: args.held], whole_ms)
    print(f"largest {np.abs(errors).max():.1%}, rank correlation {correlation:.3f}")


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's."""
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])


if __name__ == "__main__":
    main()
