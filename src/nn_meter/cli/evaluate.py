"""``nn-meter evaluate``."""

from __future__ import annotations

import argparse
import math
import shlex
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from nn_meter.cli.build import seconds
from nn_meter.cli.measure import add_backend_arguments, backend_of
from nn_meter.cli.models import (
    add_input_arguments,
    add_predictor_arguments,
    input_options,
    load_predictors,
)
from nn_meter.cli.output import FAILED, OK, note, progress, stoppable
from nn_meter.errors import InputError
from nn_meter.storage import unwritable, write


def configure(parser: argparse.ArgumentParser, command: str) -> None:
    """Arguments of ``evaluate``."""
    parser.description = "Measure models and predict them side by side; say how far the predictions are off."
    parser.add_argument("models", nargs="*", metavar="MODEL", help="files, or folders of models by family")
    parser.add_argument(
        "--kept", nargs="+", default=[], metavar="MODEL",
        help="models that nobody looked at while the predictor was made; their figures stand apart",
    )  # fmt: skip
    add_predictor_arguments(parser)
    add_input_arguments(parser)
    add_backend_arguments(parser)
    parser.add_argument("--rounds", type=int, default=8, metavar="N", help="turns of each model (8)")
    budget = "time to measure: 90s, 10m, 1h; a quarter of it is for tracing misses; unlimited if left out"
    parser.add_argument("--budget", metavar="TIME", help=budget)
    parser.add_argument("--resume", metavar="FILE", help="journal: go on with it, or begin it")
    parser.add_argument("--json", metavar="FILE", help="write the evaluation as JSON")
    parser.add_argument("--plot", metavar="FILE", help="draw predicted against measured, .png or .svg")
    parser.add_argument("--markdown", metavar="FILE", help="write the evaluation as a page")
    parser.add_argument(
        "--calibrated", metavar="FILE", help="save the first predictor with intervals and errors from these models"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the files asked for, print the table; 1 where a model failed."""
    from nn_meter.devices.link import open_link
    from nn_meter.evaluation import calibrate, evaluate, subjects
    from nn_meter.measuring import Journal
    from nn_meter.predictors import bundle as bundles
    from nn_meter.report import evaluation as report
    from nn_meter.report.json import dumps

    if args.rounds < 2:
        raise InputError(f"--rounds {args.rounds}: take at least 2, one early and one late")
    predictors = load_predictors(args)
    models = subjects(args.models, lambda text: note(f"note: {text}"), input_options(args), args.kept)
    kept = "the same command goes on where it was"
    how = kept if args.resume else f"nothing is kept of it. With --resume FILE it would be, and {kept}"
    with Journal(Path(args.resume)) if args.resume else nullcontext() as journal, stoppable(how):
        result = evaluate(
            predictors,
            backend_of(args),
            models,
            rounds=args.rounds,
            budget_s=seconds(args.budget) if args.budget else math.inf,
            journal=journal,
            link=open_link(args.device),
            progress=progress("evaluating"),
        )
    for text in result.warnings:
        note(f"warning: {text}")
    if not result.scores:
        raise InputError("no model could be measured: " + "; ".join(why for _, why in result.failed))
    if args.json:
        write(args.json, dumps(report.document(result)) + "\n")
    if args.markdown:
        write(args.markdown, report.markdown(result, _command(args)))
    if args.plot:
        for index, predictor in enumerate(result.predictors):
            path = Path(args.plot)
            if index:
                path = path.with_stem(f"{path.stem}_{index + 1}")
            try:
                report.plot(result, predictor, path)
            except OSError as error:
                raise unwritable(path, error) from error
    if args.calibrated:
        first, known = result.predictors[0], predictors[0].bundle
        facts = {**known.environment, bundles.EVALUATED: result.errors(first)}
        looked = [score for score in result.of(first) if not score.kept]
        found = replace(known, interval=calibrate(looked, known.interval), environment=facts)
        bundles.save(found, Path(args.calibrated))
    print(report.table(result))
    return FAILED if result.failed else OK


def _command(args: argparse.Namespace) -> str:
    """What repeats the page, wherever the models lie."""
    words = ["nn-meter", "evaluate"]
    inputs = ("input_shape", "seq_len", "past", "batch_size", "input_value", "count")
    for option in ("predictor", "predictor_version", *inputs, "backend", "threads", "device", "rounds", "budget"):
        value = getattr(args, option)
        for each in value if isinstance(value, list) else [value]:
            if each not in (None, "local"):
                words += [f"--{option.replace('_', '-')}", str(each)]
    return f"{shlex.join(words)} MODELS" + (" --kept KEPT" if args.kept else "")
