"""A task over many items in pieces: one after the other, over processes, or over whatever takes tasks."""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any, Protocol, TypeVar

from nn_meter.errors import InputError, ModelError, NnMeterError, needed
from nn_meter.storage import Closing

T = TypeVar("T")
R = TypeVar("R")

PIECE = 256
"""So many items are taken at a time: enough for what they share to be computed once, few enough to be held."""

FORKS = sys.platform == "linux"
"""Elsewhere forking is not safe, or not there."""

_PIECES_OF_EACH = 4
"""A process gets its share in so many pieces, so that none waits long for the slowest."""


class Future(Protocol):
    """A result that is still to come."""

    def result(self) -> Any:
        """The result, once it is there; raises what the task raised."""


class Executor(Protocol):
    """What takes tasks, as those of ``concurrent.futures``, of dask and of mpi4py do."""

    def submit(self, task: Callable[..., Any], /, *args: Any) -> Future:
        """Have ``task(*args)`` run somewhere; both are pickled."""


class RayExecutor:
    """Tasks for a Ray cluster (the extra ``ray``); ``options`` are those of ``ray.remote``, such as ``num_cpus``.

    Raises:
        MissingDependencyError: Ray is not installed.
    """

    def __init__(self, **options: Any) -> None:
        ray = needed("ray", "ray", "ray", "RayExecutor")
        self._put, self._run = ray.put, ray.remote(_run)
        if options:
            self._run = self._run.options(**options)
        self._held: tuple[Any, Any] = None, None

    def submit(self, task: Callable[..., Any], /, *args: Any) -> Future:
        """See :class:`Executor`."""
        if self._held[0] is not task:  # a predictor of megabytes travels once, and not with every piece
            self._held = task, self._put(task)
        future: Future = self._run.remote(self._held[1], *args).future()
        return future


def spread(
    task: Callable[[Sequence[T]], list[R | NnMeterError]],
    items: Iterable[T],
    workers: int = 1,
    executor: Executor | None = None,
    piece: int = PIECE,
) -> list[R | NnMeterError]:
    """What ``task`` answers for each item, in their order; it gets pieces of them.

    A piece whose task raises, or whose process dies, is asked again item by item, so that what one item does costs one
    answer: an error takes its place.

    Args:
        workers: Processes of this machine; with one and without ``executor`` nothing leaves this process.
        executor: What takes the pieces in place of processes of this machine; it stays open.
        piece: So many items are in a piece at most.

    Raises:
        InputError: fewer workers than one, or processes that begin by running the calling script again.
    """
    if workers < 1:
        raise InputError(f"workers={workers}: give at least one process")
    if executor is None and workers == 1:
        return [answer for some in _pieces(items, piece) for answer in task(some)]
    known = list(items)
    size = min(piece, -(-len(known) // (workers * _PIECES_OF_EACH))) or 1
    pieces = [range(start, min(start + size, len(known))) for start in range(0, len(known), size)]
    place: AbstractContextManager[_Taker]
    place = nullcontext(_Elsewhere(executor, task, known)) if executor else _Processes(workers, task, known)
    with place as taker:
        futures = [_submitted(taker, some) for some in pieces]
        return [
            answer for future, some in zip(futures, pieces, strict=True) for answer in _asked(taker, some, future)
        ]


def _run(task: Callable[..., Any], *args: Any) -> Any:
    return task(*args)


def _pieces(items: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while piece := list(islice(left, size)):
        yield piece


class _Taker(Protocol):
    """Takes pieces: places of items."""

    def submit(self, piece: range, /) -> Future:
        """Have the task done for the items at these places."""


def _submitted(taker: _Taker, piece: range) -> Future | None:
    try:
        return taker.submit(piece)
    except Exception:
        return None  # it is asked again, item by item, when its turn comes


def _asked(taker: _Taker, piece: range, future: Future | None = None, sure: bool = False) -> list[Any]:
    """The answers of a piece; ``sure`` says that nothing else is under way that a process could have died of."""
    try:
        answers: list[Any] = (future or taker.submit(piece)).result()
        return answers
    except Exception as error:
        if isinstance(error, BrokenExecutor) and not sure:
            return _asked(taker, piece, sure=True)
        if len(piece) == 1:
            return [_blamed(error)]
        return [answer for place in piece for answer in _asked(taker, range(place, place + 1), sure=sure)]


def _blamed(error: Exception) -> NnMeterError:
    if isinstance(error, NnMeterError):
        return error
    if isinstance(error, BrokenExecutor):
        found = ModelError("the process that predicted this model died, as one does that runs out of memory")
    else:
        found = ModelError(f"this model could not be predicted in another process: {type(error).__name__}: {error}")
    found.__cause__ = error
    return found


class _Elsewhere:
    """Somebody's executor: task and items go there pickled."""

    def __init__(self, executor: Executor, task: Callable[..., Any], items: Sequence[Any]) -> None:
        self._executor, self._task, self._items = executor, task, items

    def submit(self, piece: range, /) -> Future:
        """See :class:`_Taker`."""
        return self._executor.submit(self._task, [self._items[place] for place in piece])


_held: tuple[Callable[..., Any], Sequence[Any]]
"""In a process of ``_Processes``: the task and all items."""


def _hold(task: Callable[..., Any], items: Sequence[Any]) -> None:
    global _held
    _held = task, items


def _done(piece: range | list[Any]) -> Any:
    task, items = _held
    return task([items[place] for place in piece] if isinstance(piece, range) else piece)


class _Processes(Closing):
    """Processes of this machine, begun anew after one of them died.

    A forked process has task and items as they are here, all that was computed before included, and nothing is pickled
    but answers; one that starts anew gets them pickled.
    """

    def __init__(self, workers: int, task: Callable[..., Any], items: Sequence[Any]) -> None:
        if getattr(multiprocessing.process.current_process(), "_inheriting", False):
            raise InputError(
                "predict_many(workers=...) is called while its own processes begin, which run the script again on this "
                'system; put the call under: if __name__ == "__main__":'
            )
        self._workers, self._task, self._items = workers, task, items
        self._pool = self._begun()

    def _begun(self) -> ProcessPoolExecutor:
        # forked processes know the classes of a notebook or of a script without a guard, too
        way = multiprocessing.get_context("fork" if FORKS else "spawn")
        return ProcessPoolExecutor(self._workers, way, _hold, (self._task, self._items if FORKS else ()))

    def submit(self, piece: range, /) -> Future:
        """See :class:`_Taker`."""
        work = piece if FORKS else [self._items[place] for place in piece]
        with warnings.catch_warnings():
            # of forking beside threads: the child runs nothing but this package, which holds no lock
            warnings.simplefilter("ignore", DeprecationWarning)
            try:
                return self._pool.submit(_done, work)
            except BrokenExecutor:
                self._pool.shutdown(wait=False)
                self._pool = self._begun()
                return self._pool.submit(_done, work)

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown(cancel_futures=True)
