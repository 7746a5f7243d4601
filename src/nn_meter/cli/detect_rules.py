"""``nn-meter detect-rules``: find out what a runtime fuses, here or on a device."""

from __future__ import annotations

import argparse
import json
import re

from nn_meter.cli.build import seconds
from nn_meter.cli.measure import add_backend_arguments, settings_of
from nn_meter.cli.output import OK, progress, say, stoppable
from nn_meter.errors import BuildError
from nn_meter.storage import exists, plain_name, write


def configure(parser: argparse.ArgumentParser, command: str) -> None:
    """Options of the command."""
    parser.set_defaults(run=run)
    parser.add_argument("--budget", default="15m", help="time to measure: 90s, 15m, 1h (default 15m)")
    add_backend_arguments(parser, default=None)
    parser.add_argument(
        "--method",
        default="both",
        choices=("timing", "graph", "both"),
        help="decide by latencies, by the executed graph, or by the graph with latencies beside (default)",
    )
    parser.add_argument(
        "--cases",
        nargs="+",
        metavar="RULE",
        help="these rules only, such as BF_conv_relu or, of two operators that no case has, BF_split_relu",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the order of runs")
    earlier = parser.add_mutually_exclusive_group()
    earlier.add_argument("--resume", action="store_true", help="go on with earlier measurements of this backend")
    earlier.add_argument("--fresh", action="store_true", help="forget earlier measurements of this backend")
    parser.add_argument(
        "-o", "--output", default="fusion_rules.json", help="file of the rules (default fusion_rules.json)"
    )
    parser.add_argument("--report", metavar="FILE.html", help="also write the matrix and the evidence to this file")


def run(args: argparse.Namespace) -> int:
    """Measure, write the rules, print the matrix."""
    from nn_meter.detection import DetectionPlan, detect_rules
    from nn_meter.report.rules import matrix, page
    from nn_meter.settings import data_folder

    plain_name(args.backend, "--backend", BuildError)
    there = "" if args.device == "local" else "@" + re.sub(r"[^\w.+-]+", "_", args.device)
    journal = data_folder() / "detections" / f"{args.backend}{there}.sqlite"
    if args.fresh:
        for file in journal.parent.glob(f"{journal.name}*"):  # SQLite keeps a log beside it while it is open
            file.unlink()
    elif exists(journal) and not args.resume:
        raise BuildError(
            f"{journal}: measurements of an earlier detection are there; add --resume to go on with them, "
            "or --fresh to forget them"
        )
    plan = DetectionPlan(
        args.backend,
        settings_of(args),
        seconds(args.budget),
        args.method,
        tuple(args.cases or ()),
        seed=args.seed,
        device=args.device,
    )
    place = " in the place of --fresh" if args.fresh else ""
    with stoppable(f"the same command with --resume{place} goes on where it was"):
        rules = detect_rules(plan, journal=journal, progress=progress("measuring"))
    write(args.output, json.dumps(rules, indent=4) + "\n")
    if args.report:
        write(args.report, page(rules))
    print(matrix(rules))
    say(f"fusion rules written to {args.output}")
    return OK
