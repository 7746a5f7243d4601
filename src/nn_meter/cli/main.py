"""``nn-meter``: finds the command, runs it, and turns errors into a line and an exit code."""

from __future__ import annotations

import argparse
import errno
import io
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import NoReturn

from nn_meter.cli.output import FAILED, LINE_LETTERS, OK, exit_code, note, unexpected
from nn_meter.errors import InputError, NnMeterError, did_you_mean
from nn_meter.storage import legible


@dataclass(frozen=True, slots=True)
class Command:
    """A row of the command table.

    ``module`` is imported only when its command is asked for. It has ``configure(parser, command)``, which
    adds arguments and sets ``run``, a function of the parsed arguments that returns the exit code.
    """

    name: str
    module: str
    help: str
    aliases: tuple[str, ...] = ()


COMMANDS: tuple[Command, ...] = (
    Command("predict", "nn_meter.cli.predict", "predict the latency of models", aliases=("lat_pred",)),
    Command("explain", "nn_meter.cli.explain", "show a model's kernels and what its predicted latency rests on"),
    Command("check", "nn_meter.cli.check", "hold models against a limit and a baseline, for continuous integration"),
    Command("get_ir", "nn_meter.cli.get_ir", "convert a model to an nn-Meter IR graph"),
    Command("register", "nn_meter.cli.registry", "register a predictor, backend, kernel, operator or test case"),
    Command("unregister", "nn_meter.cli.registry", "forget what was registered"),
    Command("build", "nn_meter.cli.build", "measure a runtime on this machine and build its predictor"),
    Command("fit", "nn_meter.cli.fit", "fit a predictor to measurements that others took"),
    Command("adapt", "nn_meter.cli.fit", "adapt predictors to a new device by a few measurements"),
    Command("detect-rules", "nn_meter.cli.detect_rules", "find out which operators a runtime fuses"),
    Command("measure", "nn_meter.cli.measure", "time models on a runtime of this machine"),
    Command("evaluate", "nn_meter.cli.evaluate", "hold predictions against measurements"),
    Command("devices", "nn_meter.cli.devices", "devices that were reached or named; what one has"),
    Command("export", "nn_meter.cli.sharing", "write a predictor to one file, to hand on"),
    Command("use", "nn_meter.cli.sharing", "choose the predictor that answers where none is named"),
    Command("completion", "nn_meter.cli.completion", "print what makes bash, zsh or fish complete nn-meter's words"),
    Command("serve", "nn_meter.cli.serve", "predictions over HTTP, for a team: a page, a JSON API, a history"),
    Command("create", "nn_meter.cli.workspace", "create a workspace folder for the builder"),
    Command("connect", "nn_meter.cli.workspace", "test the connection to a backend"),
)

_UNPRINTABLE = frozenset((errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF, errno.EFBIG))
"""What standard output says when it takes no more."""

LISTS = ("predictors", "backends", "kernels", "operators", "testcases")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv``, else the process's own; returns the exit code.

    Exit codes are those of ``nn_meter.cli.output``.
    """
    _mend_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        args = _parser(arguments).parse_args(arguments)
        with _logging(args.verbose):
            code: int = args.run(args)
        sys.stdout.flush()
        return code
    except NnMeterError as error:
        if os.environ.get("NN_METER_DEBUG"):
            raise
        note(f"error: {error}")
        return exit_code(error)
    except KeyboardInterrupt as error:
        return exit_code(error)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _UNPRINTABLE and error.filename is None:
            if not isinstance(error, BrokenPipeError):  # there the reader has gone, as in `| head`
                note(f"error: what to print cannot be written ({error.strerror}); free some space or print elsewhere")
            # python would complain once more when it closes stdout
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        if os.environ.get("NN_METER_DEBUG"):
            raise
        note(f"error: {unexpected(error)}")
        return exit_code(error)


def _mend_streams() -> None:
    """Standard streams that were closed before the start stay so for us, and no file that is opened takes the place of
    one; what the encoding of standard output has not is escaped."""
    for name, mode, flags in (
        ("stdin", "r", os.O_RDONLY),
        ("stdout", "w", os.O_RDONLY),  # so that who prints is told
        ("stderr", "w", os.O_WRONLY),
    ):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.open(os.devnull, flags), mode))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


_HINT = 'please run "nn-meter {positional argument} --help" to see nn-meter guidance'
_FIRST = """\
how long does one inference take, and which layers take the time:
  nn-meter predict model.onnx
on which devices (a predictor answers for one runtime on one device):
  nn-meter --list-predictors
a predictor for the machine at hand:
  nn-meter build --backend onnxruntime_cpu --budget 20m --name my_cpu
"""


def full_parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    return _parser(None)


def _parser(arguments: Sequence[str] | None) -> argparse.ArgumentParser:
    """The parser with the command that ``arguments`` ask for, all others in name only; with all for ``None``."""
    guide = f"\n{_HINT}\n\n{_FIRST}"
    parser = _Parser("nn-meter", description=guide, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-v", "--verbose", action="store_true", help="say more")
    parser.add_argument("--version", action="store_true", help="print the version")
    for each in LISTS:
        parser.add_argument(f"--list-{each}", action="store_true", help=f"list all supported {each}")
    parser.set_defaults(run=_without_command)
    commands = parser.add_subparsers(metavar="COMMAND")
    asked = next((each for each in arguments or () if not each.startswith("-")), None)
    for command in COMMANDS:
        inner = commands.add_parser(command.name, aliases=command.aliases, help=command.help)
        if arguments is None or asked in (command.name, *command.aliases):
            # its own default would undo a -v before the command
            inner.add_argument("-v", "--verbose", action="store_true", default=argparse.SUPPRESS, help="say more")
            import_module(command.module).configure(inner, command.name)
    if asked is not None and asked not in commands.choices:
        hint = did_you_mean(asked, commands.choices)
        raise InputError(f"there is no command {asked!r}; {hint}{'L' if hint else 'l'}ist them with: nn-meter --help")
    return parser


def _without_command(args: argparse.Namespace) -> int:
    if args.version:
        from nn_meter import __version__

        print(f"nn-meter {__version__}")
        return OK
    asked = next((each for each in LISTS if getattr(args, f"list_{each}")), None)
    if asked is not None:
        from nn_meter.cli.lists import show

        return show(asked, args.verbose)
    print(f"(nn-Meter) {_HINT}", flush=True)
    print(f"\n{_FIRST}", end="", file=sys.stderr)
    return OK


class _Parser(argparse.ArgumentParser):
    """What it repeats of the arguments cannot begin a line or steer the terminal."""

    def error(self, message: str) -> NoReturn:
        super().error(legible(message, LINE_LETTERS))


class _OneLine(logging.Formatter):
    """Names in a message cannot begin a line or steer the terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        return legible(super().formatMessage(record), LINE_LETTERS)


@contextmanager
def _logging(verbose: bool) -> Iterator[None]:
    """Show this package's log on stderr while a command runs."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("nn-meter: %(message)s"))
    logger = logging.getLogger("nn_meter")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
