"""``nn-meter predict``."""

from __future__ import annotations

import argparse

from nn_meter.cli.models import add_model_arguments, add_predictor_arguments, collect, load_predictors, models
from nn_meter.cli.output import NOT_STRICT, note


def configure(parser: argparse.ArgumentParser, command: str) -> None:
    """Arguments of ``predict``."""
    parser.description = "Predict how long one inference of each model takes."
    add_predictor_arguments(parser)
    add_model_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of lines")
    parser.add_argument(
        "--strict", action="store_true", help="exit with 3 if a kernel is estimated, not predicted"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a line per model; with several predictors a comparison."""
    from nn_meter.report import json, text

    wanted = models(args)
    predictors = load_predictors(args)
    answers = collect(wanted, predictors)
    if args.json:
        several = wanted.batch or len(predictors) > 1
        print(
            json.dumps(
                json.documents(answers.predictions, answers.failed)
                if several
                else json.document(answers.predictions[0])
            )
        )
    elif len(predictors) > 1:
        if answers.predictions:
            print(text.comparison(answers.predictions))
        if args.verbose:
            for each in answers.predictions:
                print(f"\n{each.model} on {each.predictor} {each.version}\n{text.details(each)}")
    else:
        for each in answers.predictions:
            print(text.result_line(each.model, each.latency_ms))
            if args.verbose:
                print(text.details(each))
    problems = [
        f"{each.model} on {each.predictor}: {problem}"
        for each in answers.predictions
        for problem in each.strict_problems
    ]
    if args.strict and problems:
        for problem in problems:
            note(f"strict: {problem}")
        return answers.code or NOT_STRICT
    return answers.code
