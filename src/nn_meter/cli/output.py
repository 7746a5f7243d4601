"""Exit codes, and what goes to stderr beside the log. Results go to stdout, by ``print``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

from nn_meter.errors import InputError, NnMeterError, StorageError

Item = TypeVar("Item")

OK, FAILED, BAD_INPUT, NOT_STRICT, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes."""


def exit_code(error: NnMeterError) -> int:
    """``BAD_INPUT`` where the user has to change something, ``FAILED`` where trying again may do."""
    return BAD_INPUT if isinstance(error, InputError | StorageError) else FAILED


def note(text: str) -> None:
    """One line on stderr, whatever the number of lines in ``text``."""
    print("nn-meter:", " ".join(line.strip() for line in text.splitlines()), file=sys.stderr)


def tracked(items: Sequence[Item], what: str) -> Iterator[Item]:
    """``items``, with a progress bar on stderr where a person watches and there are several."""
    if len(items) < 2 or not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, description=what, console=Console(stderr=True), transient=True)


class Ticker:
    """Progress of a long measurement on stderr: a bar on a terminal, else a line every half minute."""

    def __init__(self) -> None:
        self._last = 0.0
        self._terminal = sys.stderr.isatty()

    def show(self, share: float, text: str) -> None:
        """Say ``text`` where something was due; ``share`` of the work, 0 to 1, is done."""
        now = monotonic()
        if now - self._last < (0.5 if self._terminal else 30.0) and share < 1:
            return
        self._last = now
        bar = "#" * int(30 * min(share, 1.0))
        end = "\n" if share >= 1 or not self._terminal else ""
        sys.stderr.write(f"\r[{bar:<30}] {text}{end}" if self._terminal else f"{text}{end}")
        sys.stderr.flush()


def spending(text: str) -> Callable[[float, float, object], None]:
    """A callback for the seconds spent, those of the budget and what was just done, which shows on stderr ``text`` with
    ``{done}``, ``{share}`` and ``{left_min}`` filled in."""
    ticker = Ticker()

    def show(spent_s: float, budget_s: float, done: object) -> None:
        share, left_s = min(spent_s / budget_s, 1.0), max(budget_s - spent_s, 0.0)
        ticker.show(share, text.format(done=done, share=f"{share:4.0%}", left_min=f"{left_s / 60:.1f}"))

    return show


@contextmanager
def fetching(name: str) -> Iterator[Callable[[int, int | None], None] | None]:
    """A callback that shows on stderr how much of ``name`` is fetched; ``None`` where nobody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(f"fetching {name}", total=None, start=False)

    def show(done: int, total: int | None) -> None:
        if not bar.live.is_started:
            bar.start()
            bar.start_task(task)
        bar.update(task, completed=done, total=total)

    try:
        yield show
    finally:
        bar.stop()
