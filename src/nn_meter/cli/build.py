"""``nn-meter build``: measure a runtime, here or on a device, and register the predictor."""

from __future__ import annotations

import argparse
import re
import shlex

from nn_meter.cli.measure import add_backend_arguments, settings_of
from nn_meter.cli.models import keep
from nn_meter.cli.output import OK, progress, say, stoppable
from nn_meter.errors import BuildError, RuleError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


def seconds(text: str) -> float:
    """``20m``, ``90s``, ``1.5h`` or seconds.

    Raises:
        BuildError: none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if match is None:
        raise BuildError(f"{text!r} is no duration; write it as 90s, 20m or 1h")
    return float(match[1]) * _UNITS[match[2]]


def configure(parser: argparse.ArgumentParser, command: str) -> None:
    """Options of the command."""
    parser.set_defaults(run=run)
    parser.add_argument("--budget", default="20m", help="time to measure: 90s, 20m, 1h (default 20m)")
    add_backend_arguments(parser, "the work, of one kind")
    parser.add_argument("--mixed", action="store_true", help="let devices of different processors share the work")
    parser.add_argument("--kinds", nargs="+", help="train these kernel kinds only")
    parser.add_argument("--name", help="name of the predictor (default: the backend's)")
    parser.add_argument("--predictor-version", default="1.0", help="version of the predictor (default 1.0)")
    parser.add_argument(
        "--rules",
        help="fusion rules (JSON), as nn-meter detect-rules writes them (default: they are detected first)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the generated networks")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the measurements of an earlier build of this name"
    )
    parser.add_argument("-o", "--output", help="also write the bundle to this folder or .zip")


def run(args: argparse.Namespace) -> int:
    """Build, register, say what came out."""
    from nn_meter.building import BuildPlan, build
    from nn_meter.kernels.rules import load_rules
    from nn_meter.settings import data_folder
    from nn_meter.storage import Fields, exists, plain_name, read_json

    name = args.name or args.backend
    for text, what in ((name, "--name"), (args.predictor_version, "--predictor-version")):
        plain_name(text, what, BuildError)
    journal = data_folder() / "builds" / f"{name}@{args.predictor_version}.sqlite"
    if exists(journal) and not args.resume:
        raise BuildError(
            f"{journal}: an earlier build left measurements; add --resume to go on with them, or remove the file"
        )
    rules = None
    if args.rules:
        load_rules(args.rules)
        rules = Fields(read_json(args.rules, "the rules", RuleError), args.rules, RuleError).values
    devices = args.device or ["local"]
    plan = BuildPlan(
        args.backend,
        settings_of(args),
        seconds(args.budget),
        seed=args.seed,
        kinds=tuple(args.kinds) if args.kinds else None,
        device=devices[0],
        fleet=tuple(devices) if len(devices) > 1 else (),
        mixed=args.mixed,
    )
    with stoppable("what was measured is kept, and the same command with --resume goes on where it was"):
        bundle = build(
            plan,
            name=name,
            journal=journal,
            version=args.predictor_version,
            rules=rules,
            progress=progress("building"),
        )
    registered = keep(bundle, args.output)
    for kind in bundle.kinds.values():
        error = f", median error {kind.errors['median_ape']:.1f} % on held-out networks" if kind.errors else ""
        say(f"[Kernel] {kind.kind}: {kind.rows} measurements{error}")
    say(f"Successfully register predictor: {registered}")
    say(f"ask it: nn-meter predict --predictor {registered} MODEL")
    if args.output:
        path = shlex.quote(args.output)
        say(f"on another machine: nn-meter predict --predictor {path} MODEL")
        say(f"keep it there: nn-meter register --predictor {path}")
    return OK
