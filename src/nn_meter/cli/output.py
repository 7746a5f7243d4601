"""Exit codes, and what goes to stderr beside the log. Results go to stdout, by ``print``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import TypeVar

from nn_meter.errors import InputError, StorageError
from nn_meter.progress import Progress
from nn_meter.storage import legible

Item = TypeVar("Item")

OK, FAILED, BAD_INPUT, NOT_STRICT, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes: the answer is there; all else; the user has to change something; ``--strict``; Ctrl-C."""

LINE_LETTERS = 4000
"""Of a longer line on stderr the beginning is shown."""

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


def note(text: str) -> None:
    """One line on stderr, whatever ``text`` holds."""
    print("nn-meter:", legible(" ".join(line.strip() for line in text.splitlines()), LINE_LETTERS), file=sys.stderr)


def tracked(items: Sequence[Item], what: str) -> Iterator[Item]:
    """``items``, with a progress bar on stderr where a person watches and there are several."""
    if len(items) < 2 or not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, description=what, console=Console(stderr=True), transient=True)


def progress(task: str) -> Progress:
    """A callback that shows on stderr how far ``task`` is: a bar on a terminal, else a line every half minute."""
    terminal = sys.stderr.isatty()
    last_s = monotonic()

    def show(done: float, total: float | None, eta_s: float | None, what: str) -> None:
        nonlocal last_s
        share = min(done / total, 1.0) if total else 0.0
        now_s = monotonic()
        if now_s - last_s < (0.2 if terminal else 30.0) and share < 1:
            return
        last_s = now_s
        text = f"{task}: {legible(what)}"
        if total:
            text += f", {share:.0%}"
        if eta_s is not None:
            text += f", {eta_s / 60:.1f} min left"
        bar, end = "#" * int(30 * share), "\n" if share >= 1 or not terminal else ""
        sys.stderr.write(f"\r[{bar:<30}] {text}\x1b[K{end}" if terminal else f"{text}{end}")
        sys.stderr.flush()

    return show
