"""``nn-meter devices``: those that were seen or named, and what one of them has."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence

from nn_meter.cli.output import FAILED, OK, say
from nn_meter.errors import InputError
from nn_meter.report.lines import columns

_CHECK_S = 120.0
"""Longest time for one runtime to answer: some import for half a minute on a small board."""


def configure(parser: argparse.ArgumentParser, command: str) -> None:
    """Arguments of ``devices``."""
    parser.description = (
        "Devices that --device ADDRESS reached, or that have a name; add NAME ADDRESS, check or remove NAME or ADDRESS."
    )
    parser.add_argument("action", nargs="?", choices=tuple(_ACTIONS), help="what to do; without one they are listed")
    parser.add_argument("which", nargs="*", help="a name, and of a new one the address, as ssh://user@host[:port]")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List them, or change or check one."""
    if args.action is None:
        return _listed()
    wanted, act = _ACTIONS[args.action]
    if len(args.which) != len(wanted):
        raise InputError(f"devices {args.action} needs {' and '.join(wanted)}, not {len(args.which)} words")
    return act(*args.which)


def _listed() -> int:
    from nn_meter.devices.known import known

    head = ("NAME", "ADDRESS", "PROCESSOR", "CORES", "SYSTEM", "SEEN")
    rows = [
        (each.name, each.address, each.processor, str(each.cores or ""), each.system, each.seen.partition("T")[0])
        for each in known()
    ]
    _print_table([head, ("local", "", "this machine", "", "", ""), *rows])
    return OK


def _print_table(rows: Sequence[Iterable[str]]) -> None:
    print("\n".join(columns([[each or "-" for each in row] for row in rows])))


def _add(name: str, address: str) -> int:
    from nn_meter import plugins
    from nn_meter.devices import known
    from nn_meter.devices.link import open_link

    if name in plugins.names("link"):
        raise InputError(f"{name!r} is how addresses begin; choose another name")
    open_link(address)
    known.name(name, address)
    say(f"{name} is {address}; see what it has: nn-meter devices check {name}")
    return OK


def _remove(which: str) -> int:
    from nn_meter.devices import known

    gone = known.forget(which)
    say(f"{gone.name or gone.address} is forgotten")
    return OK


def _check(which: str) -> int:
    from nn_meter import plugins
    from nn_meter.backends import Named
    from nn_meter.devices import known
    from nn_meter.devices.device import Device
    from nn_meter.devices.link import open_link
    from nn_meter.measuring import Failure, Worker
    from nn_meter.measuring.asking import tell

    link = open_link(which)
    found: Device | None = None
    rows = [("BACKEND", "THERE")]
    with Worker(timeout_s=_CHECK_S, link=link) as worker:
        for backend in plugins.names("backend"):
            told = worker.call(tell, Named(backend))
            if isinstance(told, Failure):
                rows.append((backend, f"no: {told.reason}"))
                continue
            found, settings = told
            rows.append((backend, f"{settings.get('runtime', backend)} {settings.get('runtime_version', '')}".strip()))
    if found is not None:
        if link.address != "local":
            known.seen(link.address, found)
        facts = {key: value for key, value in found.facts().items() if value is not None and "_version" not in key}
        _print_table([(f"{key}:", str(value)) for key, value in facts.items()])
        print()
    _print_table(rows)
    return OK if found is not None else FAILED


_ACTIONS: Mapping[str, tuple[tuple[str, ...], Callable[..., int]]] = {
    "add": (("NAME", "ADDRESS"), _add),
    "check": (("NAME or ADDRESS",), _check),
    "remove": (("NAME or ADDRESS",), _remove),
}
"""Action to the words that it is told, and what does it."""
