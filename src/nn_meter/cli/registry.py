"""``nn-meter register`` and ``nn-meter unregister``."""

from __future__ import annotations

import argparse

from nn_meter.cli.output import OK
from nn_meter.errors import InputError
from nn_meter.report.text import PREFIX

_OTHERS = ("backend", "operator", "testcase", "kernel")


def configure(parser: argparse.ArgumentParser, command: str) -> None:
    """Arguments of ``register`` or ``unregister``, as nn-Meter has them."""
    forget = command == "unregister"
    parser.description = (
        "Forget a registered predictor." if forget else "Register a predictor from its meta file."
    )
    module = parser.add_mutually_exclusive_group(required=True)
    text = "name of the registered predictor" if forget else "meta file (YAML) of the predictor"
    module.add_argument("--predictor", metavar="NAME" if forget else "META", help=text)
    for each in _OTHERS:
        module.add_argument(f"--{each}", nargs="+", metavar="META", help=f"a {each}; packages plug theirs in")
    if forget:
        parser.add_argument("--predictor-version", metavar="V", help="its version; all versions if left out")
    parser.set_defaults(run=unregister if forget else register)


def register(args: argparse.Namespace) -> int:
    """Register, and print nn-Meter's line."""
    from nn_meter.predictors import registration

    _only_predictors(args)
    print(f"{PREFIX} Successfully register predictor: {registration.register(args.predictor).name}")
    return OK


def unregister(args: argparse.Namespace) -> int:
    """Forget, and print nn-Meter's line."""
    from nn_meter.predictors import registration

    _only_predictors(args)
    gone = registration.unregister(args.predictor, args.predictor_version)
    print(f"{PREFIX} Successfully unregister {gone[0].name}.")
    return OK


def _only_predictors(args: argparse.Namespace) -> None:
    other = next((each for each in _OTHERS if getattr(args, each)), None)
    if other is not None:
        raise InputError(
            f"--{other}: a {other} is not registered by a meta file any more; a package plugs it in, "
            "as CONTRIBUTING.md describes"
        )
