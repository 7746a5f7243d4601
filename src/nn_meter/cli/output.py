"""Exit codes, and what goes to stderr beside the log. Results go to stdout, by ``print``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
