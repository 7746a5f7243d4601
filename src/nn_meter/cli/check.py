"""``nn-meter check``: models held against a limit and a baseline, for continuous integration."""

from __future__ import annotations

import argparse
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nn_meter.cli.models import add_model_arguments, add_predictor_arguments, ask, load_predictors, models
from nn_meter.cli.output import BAD_INPUT, FAILED, OK, note, show
from nn_meter.errors import InputError, NnMeterError
from nn_meter.storage import read_json, write

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "": 1.0}


def configure(parser: argparse.ArgumentParser, command: str) -> None:
    """Arguments of ``check``."""
    parser.description = (
        "Hold predictions against a limit and against earlier ones, and say which layers are to blame. The exit code "
        "is 0 where all is kept, 1 where something is not, 2 where a model or file cannot be used."
    )
    add_predictor_arguments(parser)
    add_model_arguments(parser)
    parser.add_argument("--max", metavar="TIME", help="no model may take longer: 20ms, 800us, 1.5s")
    parser.add_argument("--baseline", metavar="FILE", help="what earlier models took, as --save wrote it")
    parser.add_argument(
        "--tolerance", default="5%", metavar="SHARE", help="so much slower than the baseline is allowed (5%%)"
    )
    parser.add_argument("--strict", action="store_true", help="nothing may be estimated or extrapolated")
    parser.add_argument("--save", metavar="FILE", help="write these predictions, as a baseline for later")
    parser.add_argument("--junit", metavar="FILE", help="write the verdicts as JUnit XML")
    parser.add_argument("--markdown", metavar="FILE", help="write the verdicts as Markdown, for a pull request")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the files asked for, print the verdicts."""
    from nn_meter.predictors.checking import Limits, Verdict, judge, read_baseline
    from nn_meter.report import checks, json

    limits = Limits(None if args.max is None else milliseconds(args.max), share(args.tolerance), args.strict)
    if limits.most_ms is None and not (args.baseline or args.strict or args.save):
        raise InputError("nothing to check against; give --max 20ms, --baseline FILE or --strict, or --save a baseline")
    before = read_baseline(read_json(args.baseline, "the baseline", InputError), args.baseline) if args.baseline else {}
    given = models(args)
    # as if of several, so that reports are written where the only model fails, too
    wanted = replace(given, sources=tuple(dict.fromkeys(given.sources)), batch=True)
    named = names(wanted.sources)
    verdicts: list[Verdict] = []
    for source, answer in ask(wanted, load_predictors(args)):
        name = named[source]
        if isinstance(answer, NnMeterError):
            verdicts.append(Verdict(name, None, problems=(str(answer),)))
        else:
            verdict = judge(name, answer, before.get((name, answer.predictor)), limits)
            verdicts.append(replace(verdict, new=bool(args.baseline) and verdict.before is None))
    answers = [(each.model, each.prediction) for each in verdicts if each.prediction is not None]
    asked = {(model, prediction.predictor) for model, prediction in answers}
    failed = [each.model for each in verdicts if each.prediction is None]
    for model, predictor in sorted(before.keys() - asked):
        if model not in failed:
            note(f"note: {model} by {predictor} stands in the baseline and was not asked for")
    if args.save and failed:  # who is not in a baseline passes as new
        note(f"note: {args.save} is not written, since there is no answer for {failed[0]}")
    elif args.save:
        found = [replace(prediction, model=model) for model, prediction in answers]
        write(args.save, json.dumps(json.documents(found, ())) + "\n")
    for path, text in ((args.junit, checks.junit), (args.markdown, checks.markdown)):
        if path:
            write(path, text(verdicts))
    show(checks.table(verdicts))
    if failed:
        return BAD_INPUT
    return FAILED if any(each.problems for each in verdicts) else OK


def names(sources: Sequence[str]) -> dict[str, str]:
    """What models are called in a baseline: as their files, and by their paths where several have one name."""
    short = {source: os.path.basename(source.rstrip("/")) for source in sources}
    count = Counter(short.values())
    return {source: name if count[name] == 1 else Path(source).as_posix() for source, name in short.items()}


def milliseconds(text: str) -> float:
    """``20ms``, ``800us``, ``1.5s`` or milliseconds.

    Raises:
        InputError: none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(us|ms|s|)", text.strip())
    if match is None or not float(match[1]):
        raise InputError(f"--max {text}: write it as 20ms, 800us or 1.5s")
    return float(match[1]) * _UNITS[match[2]]


def share(text: str) -> float:
    """``5%`` or ``0.05``.

    Raises:
        InputError: neither.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", text.strip())
    if match is None:
        raise InputError(f"--tolerance {text}: write it as 5%")
    return float(match[1]) / (100 if match[2] else 1)
