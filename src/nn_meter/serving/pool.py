"""Worker processes that share a queue of requests."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any

from nn_meter.measuring.isolation import Failure, Worker


class Full(Exception):
    """So many requests wait already."""


class Pool:
    """So many processes, each with a thread that hands it one request after another. A process that dies, or runs past
    a limit, is replaced; its request alone gets a ``Failure``.

    Args:
        workers: processes.
        timeout_s: limit of one request, from when a process takes it.
        waiting: so many requests may wait.
    """

    def __init__(self, workers: int, timeout_s: float, waiting: int) -> None:
        self._asked: queue.Queue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = queue.Queue(waiting)
        self._workers = [Worker(timeout_s=timeout_s) for _ in range(workers)]
        self._threads = [Thread(target=self._serve, args=(each,), daemon=True) for each in self._workers]
        for each in self._threads:
            each.start()

    def ask(self, task: Callable[..., Any], *args: Any) -> Future[Any]:
        """What ``task`` returns in a process, or a ``Failure``; as ``Worker.call`` has it.

        Raises:
            Full: too many wait.
        """
        future: Future[Any] = Future()
        try:
            self._asked.put_nowait((future, task, args))
        except queue.Full:
            raise Full from None
        return future

    def close(self) -> None:
        """End the processes; what waits is given up."""
        while True:
            try:
                asked = self._asked.get_nowait()
            except queue.Empty:
                break
            if asked is not None:
                asked[0].cancel()
        for each in self._workers:
            each.close()
        for _ in self._threads:
            self._asked.put(None)

    def _serve(self, worker: Worker) -> None:
        while (asked := self._asked.get()) is not None:
            future, task, args = asked
            if not future.set_running_or_notify_cancel():
                continue
            try:
                found = worker.call(task, *args)
                if isinstance(found, Failure) and found.kind == "memory":
                    worker.close()  # what it took may not come back
                future.set_result(found)
            except Exception as error:  # the thread has to live on
                future.set_result(Failure("crash", f"{type(error).__name__}: {error}"))
