"""Latency as one of two objectives of an Optuna study (``pip install optuna``).

    python examples/optuna_objective.py [--trials 50] [--predictor NAME]

What a network is worth comes from training it, which an example cannot do: the logarithm of its multiply-adds stands
for its accuracy here.
"""

from __future__ import annotations

import argparse
import math

import optuna
from spaces import DEPTHS, STAGES, WIDTHS, staged

import nn_meter
from nn_meter.ir.size import model_size


def objective(trial: optuna.Trial, predictor: nn_meter.Predictor) -> tuple[float, float]:
    """Worth, to be large, and milliseconds, to be few."""
    widths = [trial.suggest_categorical(f"width_{i}", WIDTHS) for i in range(STAGES)]
    depths = [trial.suggest_categorical(f"depth_{i}", DEPTHS) for i in range(STAGES)]
    network = staged(widths, depths)
    try:
        latency_ms = predictor.predict(network)
    except nn_meter.NnMeterError as error:
        raise optuna.TrialPruned(str(error)) from error
    return math.log10(model_size(network).multiply_adds), latency_ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--predictor", help="name or path; the default one if left out")
    args = parser.parse_args()
    predictor = nn_meter.load_latency_predictor(args.predictor)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=optuna.samplers.NSGAIISampler(seed=0))
    study.optimize(lambda trial: objective(trial, predictor), n_trials=args.trials)
    for trial in sorted(study.best_trials, key=lambda each: each.values[1]):
        print(f"{trial.values[1]:8.3f} ms  worth {trial.values[0]:.3f}  {trial.params}")


if __name__ == "__main__":
    main()
