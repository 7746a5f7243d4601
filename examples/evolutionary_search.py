"""A plain evolutionary search under a latency limit (regularised evolution, Real et al., AAAI 2019).

    python examples/evolutionary_search.py [--limit-ms 2.0] [--generations 30] [--predictor NAME]

What a network is worth comes from training it, which an example cannot do: the logarithm of its multiply-adds stands
for its accuracy here. Replace ``worth``.
"""

from __future__ import annotations

import argparse
import math
import random
from dataclasses import dataclass

from spaces import DEPTHS, STAGES, WIDTHS, staged

import nn_meter
from nn_meter.ir.size import model_size


@dataclass(frozen=True)
class Candidate:
    widths: tuple[int, ...]
    depths: tuple[int, ...]


def drawn(rng: random.Random) -> Candidate:
    return Candidate(tuple(rng.choices(WIDTHS, k=STAGES)), tuple(rng.choices(DEPTHS, k=STAGES)))


def mutated(parent: Candidate, rng: random.Random) -> Candidate:
    """The same with one stage drawn anew."""
    other, stage = drawn(rng), rng.randrange(STAGES)
    widths, depths = list(parent.widths), list(parent.depths)
    widths[stage], depths[stage] = other.widths[stage], other.depths[stage]
    return Candidate(tuple(widths), tuple(depths))


def worth(candidate: Candidate) -> float:
    return math.log10(model_size(staged(candidate.widths, candidate.depths)).multiply_adds)


def search(
    predictor: nn_meter.Predictor, limit_ms: float, generations: int, population: int = 32, seed: int = 0
) -> tuple[Candidate, float]:
    """The best candidate found within the limit, and its latency."""
    rng = random.Random(seed)
    alive: list[tuple[float, Candidate, float]] = []
    best: tuple[float, Candidate, float] | None = None
    brood = [drawn(rng) for _ in range(population)]
    for _ in range(generations):
        # a whole generation at once; one that cannot be predicted costs itself only
        answers = predictor.predict_many(staged(each.widths, each.depths) for each in brood)
        for candidate, latency_ms in zip(brood, answers, strict=True):
            if isinstance(latency_ms, nn_meter.NnMeterError) or latency_ms > limit_ms:
                continue
            alive.append((worth(candidate), candidate, latency_ms))
        alive = alive[-population:]  # the oldest die
        if not alive:
            brood = [drawn(rng) for _ in range(population)]
            continue
        found = max(alive, key=lambda each: each[0])
        best = found if best is None or found[0] > best[0] else best
        parents = (max(rng.choices(alive, k=5), key=lambda each: each[0])[1] for _ in range(population))
        brood = [mutated(parent, rng) for parent in parents]
    if best is None:
        raise SystemExit(f"no candidate takes less than {limit_ms:g} ms")
    return best[1], best[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit-ms", type=float, default=2.0)
    parser.add_argument("--generations", type=int, default=30)
    parser.add_argument("--predictor", help="name or path; the default one if left out")
    args = parser.parse_args()
    predictor = nn_meter.load_latency_predictor(args.predictor)
    candidate, latency_ms = search(predictor, args.limit_ms, args.generations)
    print(f"widths {candidate.widths}, depths {candidate.depths}: {latency_ms:.3f} ms, worth {worth(candidate):.3f}")


if __name__ == "__main__":
    main()
