"""``nn-meter measure``."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from nn_meter.cli.models import add_input_arguments, input_options
from nn_meter.cli.output import OK, exit_code, note
from nn_meter.errors import InputError
from nn_meter.storage import legible

if TYPE_CHECKING:
    from nn_meter.backends import Named
    from nn_meter.measuring import Measurement

SCHEMA_VERSION = 1


def add_backend_arguments(
    parser: argparse.ArgumentParser, shared: str = "", default: str | None = "onnxruntime_cpu"
) -> None:
    """Which runtime measures, and where; where several devices may share something, it says what, and gets a list."""
    parser.add_argument(
        "--backend", default=default, required=default is None,
        help="runtime to measure on (see nn-meter --list-backends)",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the runtime; its default is one")
    where = "local (the default), ssh://user@host[:port], adb://SERIAL, or a name (see nn-meter devices)"
    if shared:
        more = f"; given several times, devices that share {shared}"
        parser.add_argument(
            "--device", action="append", default=[], metavar="ADDRESS", help=f"where it runs: {where}{more}"
        )
    else:
        parser.add_argument("--device", default="local", metavar="ADDRESS", help=f"where it runs: {where}")


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """The backend's settings that ``args`` name."""
    return {} if args.threads is None else {"threads": args.threads}


def backend_of(args: argparse.Namespace) -> Named:
    """The backend that ``args`` name.

    Raises:
        BackendError: no such backend, or a setting that it does not have or refuses.
    """
    from nn_meter.backends import Named

    named = Named(args.backend, settings_of(args))
    named.load()
    return named


def configure(parser: argparse.ArgumentParser, command: str) -> None:
    """Arguments of ``measure``."""
    parser.description = "Time models on a runtime, of this machine or of another; weights that are absent are random."
    parser.add_argument("models", nargs="+", metavar="MODEL", help="files, names in a zoo, or folders of models")
    add_input_arguments(parser)
    add_backend_arguments(parser, "the models")
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S", help="time for each model (3)")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of text")
    parser.add_argument(
        "--csv", metavar="FILE", help="also write a table that fit and adapt take, anew after each model"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Time the models one by one; a bad one among several does not stop the others."""
    from nn_meter.evaluation import Bench, subjects
    from nn_meter.fleets import MEASURED_ON, links_to, measure_on
    from nn_meter.measuring import Failure, Plan, failed
    from nn_meter.networks.published import as_table
    from nn_meter.report.json import dumps
    from nn_meter.storage import write

    if not args.seconds > 0:
        raise InputError(f"--seconds {args.seconds:g}: give each model some time, as in --seconds 3")
    options = input_options(args)
    if args.csv and options:
        raise InputError("a table names models and nothing of their inputs: leave out --csv, or what changes inputs")
    wanted = subjects(args.models, lambda text: note(f"note: {text}"), options)
    plan = Plan(rounds=math.ceil(args.seconds / Plan().turn_s), budget_s=args.seconds)
    rows: list[dict[str, Any]] = []
    table: list[tuple[str, Measurement]] = []
    lost: list[dict[str, str]] = []
    code = OK
    backend = backend_of(args)
    name = backend.load().name

    def told(place: int, taken: Measurement | Failure) -> None:
        nonlocal code
        subject = wanted[place]
        if isinstance(taken, Failure):
            error = failed(subject.name, taken)
            if len(wanted) == 1:
                raise error
            note(f"error: {error}")
            lost.append({"model": subject.name, "error": taken.reason})
            code = max(code, exit_code(error))
            return
        for text in taken.warnings():
            note(f"note: {subject.name}: {text}")
        if not args.json:
            device = taken.environment.get(MEASURED_ON)
            print(
                f"{legible(subject.name)}: {taken.quiet_ms:.4f} ms quiet, {taken.median_ms:.4f} ms median of "
                f"{len(taken.values_ms)} runs on {name}{f' of {device}' if device else ''}"
            )
        table.append((str(subject.source), taken))
        if args.csv:
            write(args.csv, as_table(table))
        rows.append(
            {
                "model": subject.name,
                "backend": name,
                "quiet_ms": taken.quiet_ms,
                "median_ms": taken.median_ms,
                "noise": taken.noise,
                "warnings": list(taken.warnings()),
                **taken.to_json(),
            }
        )

    links = links_to(args.device or ["local"])
    if len(links) > 1:
        measure_on(links, backend, wanted, plan, told)
    else:
        with Bench(backend, links[0]) as bench:
            for place, subject in enumerate(wanted):
                told(place, *bench.measure([subject], plan))
    if args.json:
        print(dumps({"schema_version": SCHEMA_VERSION, "measurements": rows, "failed": lost}))
    return code
