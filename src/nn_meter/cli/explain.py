"""``nn-meter explain``."""

from __future__ import annotations

import argparse

from nn_meter.cli.models import add_model_arguments, add_predictor_arguments, collect, load_predictors, models
from nn_meter.storage import write


def configure(parser: argparse.ArgumentParser, command: str) -> None:
    """Arguments of ``explain``."""
    parser.description = (
        "Show a model's kernels, why neighbours did not fuse, and what the predicted latency rests on."
    )
    add_predictor_arguments(parser)
    add_model_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of text")
    parser.add_argument("--html", metavar="FILE", help="write one HTML file instead")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print an explanation per model and predictor."""
    from nn_meter.report import html, json, text

    wanted = models(args)
    predictors = load_predictors(args)
    answers = collect(wanted, predictors)
    if args.html:
        write(args.html, html.page(answers.predictions))
    if args.json:
        several = wanted.batch or len(predictors) > 1
        print(
            json.dumps(
                json.documents(answers.predictions, answers.failed, explain=True)
                if several
                else json.document(answers.predictions[0], explain=True)
            )
        )
    elif answers.predictions and not args.html:
        print("\n\n\n".join(text.explanation(each, args.verbose) for each in answers.predictions))
    return answers.code
