"""``nn-meter predict``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nn_meter.cli.models import add_model_arguments, add_predictor_arguments, collect, load_predictors, models
from nn_meter.cli.output import NOT_STRICT, add_format_arguments, add_view_arguments, note, show, view_of
from nn_meter.report.lines import result_line
from nn_meter.storage import legible

if TYPE_CHECKING:
    from rich.console import RenderableType

    from nn_meter.predictors.prediction import Prediction
    from nn_meter.report.text import View


def configure(parser: argparse.ArgumentParser, command: str) -> None:
    """Arguments of ``predict``."""
    parser.description = (
        "Predict how long one inference of each model takes. For one model nn-Meter's line is followed by what "
        "answered, how far it can be trusted and where the time goes; several models get a line each."
    )
    add_predictor_arguments(parser)
    add_model_arguments(parser)
    add_view_arguments(parser)
    add_format_arguments(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="nn-Meter's line alone")
    parser.add_argument("--strict", action="store_true", help="exit with 3 if a kernel is estimated, not predicted")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a line per model with what it rests on; with several predictors a comparison."""
    from nn_meter.report import csv, json

    wanted = models(args)
    predictors = load_predictors(args)
    answers = collect(wanted, predictors)
    several = wanted.batch or len(predictors) > 1
    view = view_of(args)
    if args.json:
        print(json.told(answers.predictions, answers.failed, several=several))
    elif args.csv:
        print(csv.table(answers.predictions), end="")
    elif len(predictors) > 1:
        if answers.predictions:
            from nn_meter.report.text import Comparison

            show(Comparison(answers.predictions))
        for each in answers.predictions if args.verbose or view else ():
            print(f"\n{legible(f'{each.model} on {each.predictor} {each.version}')}")
            show(_told(each, view, args.verbose))
    else:
        for each in answers.predictions:
            print(result_line(each.model, each.latency_ms))
            if not args.quiet and (args.verbose or view or not several):
                show(_told(each, view, args.verbose))
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


def _told(prediction: Prediction, view: View | None, everything: bool) -> RenderableType:
    from nn_meter.report import text

    if everything:
        return text.details(prediction, view or text.EVERY_KERNEL)
    return text.answer(prediction, view or text.View())
