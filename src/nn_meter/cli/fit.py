"""``nn-meter fit`` and ``nn-meter adapt``: predictors from tables of measurements."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nn_meter.cli.output import note


def configure(parser: argparse.ArgumentParser, command: str) -> None:
    """Options of the command."""
    parser.set_defaults(run=fit if command == "fit" else adapt)
    if command == "fit":
        parser.add_argument("tables", nargs="+", metavar="CSV", help="measurements (see docs/measurements.md)")
        parser.add_argument("--base", help="predictor to start from, by name or path")
    else:
        parser.add_argument(
            "--measured", nargs="+", required=True, metavar="CSV", help="latencies of whole models on the device"
        )
        parser.add_argument(
            "--base", nargs="+", help="predictors to start from (default: all that ship for that runtime)"
        )
        parser.add_argument("--candidates", nargs="*", default=[], help="models that could be measured next")
        parser.add_argument("--suggest", type=int, default=5, help="how many of them to name (default 5)")
    parser.add_argument("--name", required=True, help="name of the predictor")
    parser.add_argument("--predictor-version", default="1.0", help="version of the predictor (default 1.0)")
    parser.add_argument("--runtime", help="runtime, where the tables do not say it: tflite, pytorch ...")
    parser.add_argument("--device", help="device, where the tables do not say it")
    parser.add_argument(
        "--category", choices=("cpu", "gpu", "npu"), default="cpu", help="kind of device (default cpu)"
    )
    parser.add_argument("-o", "--output", help="also write the bundle to this folder or .zip")


def fit(args: argparse.Namespace) -> int:
    """Fit, register, say what came out."""
    from nn_meter.fitting import fit

    base = _bundle(args.base) if args.base else None
    bundle = fit(_records(args, args.tables), base, name=args.name, version=args.predictor_version)
    return _register(bundle, args.output)


def adapt(args: argparse.Namespace) -> int:
    """Adapt, register, say what came out and what to measure next."""
    from nn_meter.fitting import adapt, shipped_bases

    records = _records(args, args.measured)
    bases = [_bundle(name) for name in args.base] if args.base else shipped_bases(records)
    found = adapt(
        records,
        bases,
        name=args.name,
        version=args.predictor_version,
        candidates=args.candidates,
        suggest=args.suggest,
    )
    code = _register(found.bundle, args.output)
    for each in found.next:
        print(f"(nn-Meter) measure next: {each}")
    return code


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
    for text in found.left_out[:10]:
        note(f"left out: {text}")
    if found.left_out:
        note(f"{len(found.left_out)} rows left out of {len(found.left_out) + len(found.records)}")
    return found.records


def _bundle(name: str) -> Any:
    from nn_meter.predictors.bundle import load
    from nn_meter.predictors.catalogue import load_predictor

    return load(name) if Path(name).exists() else load_predictor(name)


def _register(bundle: Any, output: str | None) -> int:
    from nn_meter.predictors.bundle import save
    from nn_meter.predictors.registration import register_bundle

    if output:
        save(bundle, Path(output))
    info = register_bundle(bundle)
    for text in bundle.notes:
        print(f"(nn-Meter) {text}")
    print(f"(nn-Meter) Successfully register predictor: {info.name}")
    return 0
