"""``nn-meter fit`` and ``nn-meter adapt``: predictors from tables of measurements."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nn_meter.cli.models import keep
from nn_meter.cli.output import OK, note, say


def configure(parser: argparse.ArgumentParser, command: str) -> None:
    """Options of the command."""
    parser.set_defaults(run=fit if command == "fit" else adapt)
    if command == "fit":
        parser.add_argument("tables", nargs="*", metavar="CSV", help="measurements (see docs/measurements.md)")
        parser.add_argument("--base", nargs="+", help="predictors to start from, by name or path")
        parser.add_argument(
            "--sheet", metavar="YAML", help="data sheet of a GPU that nobody measured (see docs/measurements.md)"
        )
    else:
        parser.add_argument(
            "--measured", nargs="+", required=True, metavar="CSV", help="latencies of whole models on the device"
        )
        parser.add_argument(
            "--base", nargs="+", help="predictors to start from (default: all that ship for that runtime)"
        )
        parser.add_argument(
            "--known", nargs="+", metavar="CSV",
            help="latencies of the same networks on other devices; then --output is a table of all of them on this one",
        )  # fmt: skip
        parser.add_argument("--candidates", nargs="*", default=[], help="models that could be measured next")
        parser.add_argument("--suggest", type=int, default=5, help="how many of them to name (default 5)")
    parser.add_argument("--name", required=True, help="name of the predictor")
    parser.add_argument("--predictor-version", default="1.0", help="version of the predictor (default 1.0)")
    parser.add_argument("--runtime", help="runtime, where the tables do not say it: tflite, pytorch ...")
    parser.add_argument("--device", help="device, where the tables do not say it")
    parser.add_argument("--category", choices=("cpu", "gpu", "npu"), default="cpu", help="kind of device (default cpu)")
    parser.add_argument("-o", "--output", help="also write the bundle to this folder or .zip")


def fit(args: argparse.Namespace) -> int:
    """Fit, register, say what came out."""
    from nn_meter.devices.sheet import read_sheet
    from nn_meter.errors import BuildError
    from nn_meter.fitting import adapt, estimate, fit
    from nn_meter.predictors.catalogue import load_predictor

    if bool(args.tables) == bool(args.sheet):
        raise BuildError("name tables of measurements to fit, or the data sheet of a GPU (--sheet): one of them")
    bases = [load_predictor(name) for name in args.base or ()]
    if args.sheet:
        bundle = estimate(read_sheet(args.sheet), bases, name=args.name, version=args.predictor_version)
    elif bases:
        records = _records(args, args.tables)
        bundle = adapt(records, bases, name=args.name, version=args.predictor_version).bundle
    else:
        bundle = fit(_records(args, args.tables), name=args.name, version=args.predictor_version)
    say(f"Successfully register predictor: {keep(bundle, args.output)}")
    return OK


def adapt(args: argparse.Namespace) -> int:
    """Adapt, register, say what came out and what to measure next."""
    from nn_meter.errors import BuildError
    from nn_meter.fitting import adapt, shipped_bases
    from nn_meter.predictors.catalogue import load_predictor

    if args.suggest < 0:
        raise BuildError(f"--suggest {args.suggest}: a number of models to name, 0 for none")
    records = _records(args, args.measured)
    if args.known:
        return _transfer(args, records)
    bases = [load_predictor(name) for name in args.base] if args.base else shipped_bases(records)
    found = adapt(
        records,
        bases,
        name=args.name,
        version=args.predictor_version,
        candidates=args.candidates,
        suggest=args.suggest,
    )
    say(f"Successfully register predictor: {keep(found.bundle, args.output)}")
    for each in found.next:
        say(f"measure next: {each}")
    return OK


def _transfer(args: argparse.Namespace, records: Any) -> int:
    """Predict all networks of tables of other devices for this one, write them, say what to measure next."""
    from nn_meter.errors import BuildError
    from nn_meter.learning.transfer import Known, Transfer
    from nn_meter.networks.published import UNITS, Published, header_of, read_csv
    from nn_meter.networks.published_devices import read_wide
    from nn_meter.storage import write

    if not args.output:
        raise BuildError("say where to write the predicted latencies: --output predicted.csv")
    tables = Published(())
    for path in map(Path, args.known):
        tables += read_csv(path) if {*UNITS} & {*header_of(path)} else read_wide(path)
    _say_left_out(tables)
    known = Known.of(tables.records)
    measured = known.numbered(records)
    if len(measured) < len(records):
        note(f"{len(records) - len(measured)} measured networks are not in the known tables and tell nothing")
    found = Transfer(known)
    write(Path(args.output), found.table(measured))
    doubt = sorted(found.predict(measured)[1])[len(known.networks) // 2]
    say(
        f"{len(known.networks)} networks predicted from {len(measured)} measured and "
        f"{len(known.devices)} known devices; typical standard deviation {doubt:.1%}"
    )
    for number in found.most_telling(args.suggest, tuple(measured)):
        say(f"measure next: {known.networks[number]}")
    return OK


def _say_left_out(found: Any) -> None:
    for text in found.left_out[:10]:
        note(f"left out: {text}")
    if found.left_out:
        note(f"{len(found.left_out)} rows left out of {len(found.left_out) + len(found.records)}")


def _records(args: argparse.Namespace, tables: list[str]) -> Any:
    from nn_meter.devices.device import Device
    from nn_meter.measuring.records import Circumstances
    from nn_meter.networks.published import Published, read_csv

    around = Circumstances(
        Device(args.device or args.name, kind=args.category), args.runtime or "unknown", statistic="median"
    )
    found = Published(())
    for table in tables:
        found += read_csv(Path(table), around)
    _say_left_out(found)
    return found.records
