"""``nn-meter export`` and ``nn-meter use``."""

from __future__ import annotations

import argparse
from pathlib import Path

from nn_meter.cli.output import OK, say


def configure(parser: argparse.ArgumentParser, command: str) -> None:
    """Arguments of ``export`` or ``use``."""
    what = "name of a predictor, or path of its bundle"
    if command == "use":
        parser.description = (
            "Choose the predictor that answers where none is named, or say which that is; NN_METER_PREDICTOR goes "
            "before this choice."
        )
        parser.add_argument("predictor", nargs="?", metavar="NAME", help=what)
        parser.set_defaults(run=use)
        return
    parser.add_argument("predictor", metavar="NAME", help=what)
    parser.description = (
        "Write a predictor to one file, to hand on. predict --predictor FILE asks it, register --predictor FILE "
        "keeps it."
    )
    parser.add_argument("--predictor-version", metavar="V", help="its version; the latest if left out")
    parser.add_argument("-o", "--output", metavar="FILE.zip", help="where to; NAME.zip if left out")
    parser.set_defaults(run=export)


def export(args: argparse.Namespace) -> int:
    """Write the bundle, and say where it is."""
    from nn_meter.cli.models import load_predictor
    from nn_meter.predictors.bundle import save

    bundle = load_predictor(args.predictor, args.predictor_version).bundle
    target = Path(args.output or f"{bundle.name}.zip")
    save(bundle, target)
    say(f"{bundle.name} {bundle.version} written to {target}")
    say(f"ask it: nn-meter predict --predictor {target} MODEL")
    return OK


def use(args: argparse.Namespace) -> int:
    """Note the choice, and say what answers then."""
    from nn_meter.predictors import catalogue

    chosen = catalogue.choose(args.predictor) if args.predictor else ""
    name, by = catalogue.appointed()
    say(f"{name} answers where no predictor is named{f' (chosen by {by})' if by and name != chosen else ''}")
    if not chosen:
        say("choose another: nn-meter use NAME, of those that nn-meter --list-predictors names")
    return OK
