"""``nn-meter explain``."""

from __future__ import annotations

import argparse

from nn_meter.cli.models import add_model_arguments, add_predictor_arguments, collect, load_predictors, models
from nn_meter.cli.output import add_format_arguments, add_view_arguments, note, show, view_of
from nn_meter.storage import write


def configure(parser: argparse.ArgumentParser, command: str) -> None:
    """Arguments of ``explain``."""
    parser.description = "Show a model's kernels, why neighbours did not fuse, and what the predicted latency rests on."
    add_predictor_arguments(parser)
    add_model_arguments(parser)
    add_view_arguments(parser)
    formats = add_format_arguments(parser)
    formats.add_argument("--html", metavar="FILE", help="write one HTML file instead")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print an explanation per model and predictor."""
    from nn_meter.report import csv, html, json, text

    wanted = models(args)
    predictors = load_predictors(args)
    answers = collect(wanted, predictors)
    if args.html:
        write(args.html, html.page(answers.predictions, (each.bundle for each in predictors), answers.failed))
        note(f"wrote {args.html}, one file that any browser opens")
    if args.json:
        several = wanted.batch or len(predictors) > 1
        print(json.told(answers.predictions, answers.failed, several=several, explain=True))
    elif args.csv:
        print(csv.table(answers.predictions), end="")
    elif not args.html:
        for index, each in enumerate(answers.predictions):
            print("\n\n" if index else "", end="")
            show(text.explanation(each, view_of(args) or text.EVERY_KERNEL, args.verbose))
    return answers.code
