"""``nn-meter register`` and ``nn-meter unregister``."""

from __future__ import annotations

import argparse
from typing import Any

from nn_meter.cli.output import OK, say

_MODULES = ("backend", "operator", "testcase", "kernel")
_PER_IMPLEMENT = ("operator", "testcase")


def configure(parser: argparse.ArgumentParser, command: str) -> None:
    """Arguments of ``register`` or ``unregister``, as nn-Meter has them."""
    what = parser.add_mutually_exclusive_group(required=True)
    name = "META" if command == "register" else "NAME"
    parser.usage = f"%(prog)s --{{{','.join(('predictor', *_MODULES))}}} {name}"
    if command == "register":
        parser.description = "Register what a meta file (YAML) describes."
        for each in ("predictor", *_MODULES):
            bundle = ", or its bundle (folder or zip)" if each == "predictor" else ""
            what.add_argument(f"--{each}", metavar="META", help=f"meta file of a {each}{bundle}")
        parser.set_defaults(run=register)
        return
    parser.description = "Forget what was registered."
    for each in ("predictor", *_MODULES):
        nargs = "+" if each in _PER_IMPLEMENT else None
        implement = ", and the implementation to forget if not all" if nargs else ""
        what.add_argument(f"--{each}", metavar="NAME", nargs=nargs, help=f"name of a {each}{implement}")
    parser.add_argument("--predictor-version", metavar="V", help="of the predictor; all versions if left out")
    parser.set_defaults(run=unregister)


def register(args: argparse.Namespace) -> int:
    """Register, and print nn-Meter's line."""
    from nn_meter import plugins
    from nn_meter.predictors import registration

    kind, meta = _asked(args)
    name = registration.register(meta).name if kind == "predictor" else plugins.register(kind, meta).name
    say(f"Successfully register {kind}: {name}")
    return OK


def unregister(args: argparse.Namespace) -> int:
    """Forget, and print nn-Meter's line."""
    from nn_meter import plugins
    from nn_meter.predictors import registration

    kind, asked = _asked(args)
    if kind == "predictor":
        name = registration.unregister(asked, args.predictor_version)[0].name
    elif kind in _PER_IMPLEMENT:
        plugins.unregister(kind, *asked[:2])
        name = asked[0] if len(asked) == 1 else f"{asked[0]} ({asked[1]})"
    else:
        plugins.unregister(kind, asked)
        name = asked
    say(f"Successfully unregister {name}.")
    return OK


def _asked(args: argparse.Namespace) -> tuple[str, Any]:
    """Which kind was named, and what of it; argparse saw to it that exactly one was."""
    return next((kind, getattr(args, kind)) for kind in ("predictor", *_MODULES) if getattr(args, kind) is not None)
