"""Exit codes, and what goes to stderr beside the log. Results go to stdout, by ``print``."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from nn_meter.errors import InputError, StorageError
from nn_meter.progress import Progress
from nn_meter.report.lines import PREFIX
from nn_meter.storage import legible

if TYPE_CHECKING:
    from rich.console import RenderableType

    from nn_meter.report.text import View

Item = TypeVar("Item")

_PIPE_SIZE = (120, 25)
_BY, _SORTS = ("layer", "kernel", "kind", "module"), ("time", "order", "name")

OK, FAILED, BAD_INPUT, NOT_STRICT, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes: the answer is there; all else; the user has to change something; ``--strict``; Ctrl-C."""

LINE_LETTERS = 4000
"""Of a longer line the beginning is shown."""

EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (InputError, BAD_INPUT),
    (StorageError, BAD_INPUT),
    (KeyboardInterrupt, INTERRUPTED),
    (BaseException, FAILED),
)
"""Error to exit code; the first row that fits."""


def exit_code(error: BaseException) -> int:
    """The exit code that ``EXIT_CODES`` gives ``error``."""
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


def unexpected(error: Exception) -> str:
    """What to say of a fault of ours, which a person can do nothing with but tell us."""
    return (
        f"unexpected {type(error).__name__}: {error}; the fault is nn-meter's: please report it with what "
        "NN_METER_DEBUG=1 shows"
    )


def note(text: str) -> None:
    """One line on stderr, whatever ``text`` holds."""
    print("nn-meter:", legible(" ".join(line.strip() for line in text.splitlines()), LINE_LETTERS), file=sys.stderr)


def say(text: str) -> None:
    """One line on stdout as nn-Meter's begin, whatever ``text`` holds."""
    print(f"{PREFIX} {legible(text, LINE_LETTERS)}")


def window() -> tuple[int, int] | None:
    """Columns and lines of the terminal, or as ``COLUMNS`` says; nothing where neither is there."""
    return shutil.get_terminal_size(_PIPE_SIZE) if sys.stdout.isatty() or "COLUMNS" in os.environ else None


def show(content: RenderableType) -> None:
    """Print what ``nn_meter.report.text`` gives, as wide as the window (120 where there is none); in colour where a
    person watches and ``NO_COLOR`` is not set."""
    from rich.console import Console

    width, height = window() or _PIPE_SIZE
    console = Console(width=min(width, LINE_LETTERS), height=height, highlight=False, markup=False, emoji=False)
    with console.capture() as caught:
        console.print(content, crop=False)
    print("\n".join(line.rstrip() for line in caught.get().splitlines()))


def add_format_arguments(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """How to print, for other programs."""
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--json", action="store_true", help="one JSON document (docs/schema.json) instead of text")
    formats.add_argument("--csv", action="store_true", help="a table of all kernels as CSV instead of text")
    return formats


def add_view_arguments(parser: argparse.ArgumentParser) -> None:
    """Which rows of a prediction to show."""
    parser.add_argument(
        "--by", choices=_BY, help="rows are equal layers together (layer), modules, kinds, or each kernel (kernel)"
    )
    parser.add_argument("--sort", choices=_SORTS, help="by time (the longest first), order of execution, or name")
    parser.add_argument("--top", type=int, metavar="N", help="show the first N rows (10); 0 for all")
    parser.add_argument("--depth", type=int, metavar="N", help="levels of a module's name for --by module (1)")


def view_of(args: argparse.Namespace) -> View | None:
    """What ``add_view_arguments`` read; ``None`` where nothing was asked for."""
    asked = {name: getattr(args, name) for name in ("by", "sort", "top", "depth") if getattr(args, name) is not None}
    if not asked:
        return None
    from nn_meter.report.text import EVERY_KERNEL, View

    return replace(EVERY_KERNEL if args.verbose and not args.by else View(), **asked)


def tracked(items: Sequence[Item], what: str) -> Iterator[Item]:
    """``items``, with a progress bar on stderr where a person watches and there are several."""
    if len(items) < 2 or not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    width, height = shutil.get_terminal_size(_PIPE_SIZE)
    console = Console(width=width, height=height, stderr=True)
    yield from track(items, description=what, console=console, transient=True)


@contextmanager
def stoppable(how: str) -> Iterator[None]:
    """Says after Ctrl-C ``how`` to go on."""
    try:
        yield
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # behind a bar
        note(f"stopped; {how}")
        raise


def progress(task: str) -> Progress:
    """A callback that shows on stderr how far ``task`` is: a bar on a terminal, else a line every half minute. What is
    at its end is told once, however often its parts (behind a comma) are."""
    terminal = sys.stderr.isatty()
    last_s, ended = monotonic(), ""

    def show(done: float, total: float | None, eta_s: float | None, what: str) -> None:
        nonlocal last_s, ended
        share = min(done / total, 1.0) if total else 0.0
        now_s, part = monotonic(), what.partition(",")[0]
        over = share >= 1 and part != ended
        if now_s - last_s < (0.2 if terminal else 30.0) and not over:
            return
        last_s = now_s
        ended = part if share >= 1 else ""
        text = f"{task}: {legible(what)}"
        if total:
            text += f", {share:.0%}"
        if eta_s is not None:
            text += f", {eta_s / 60:.1f} min left"
        bar, end = "#" * int(30 * share), "\n" if over or not terminal else ""
        sys.stderr.write(f"\r[{bar:<30}] {text}\x1b[K{end}" if terminal else f"{text}{end}")
        sys.stderr.flush()

    return show
