"""Runs tasks in a child process: a runtime that crashes or hangs costs one measurement, not the build."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Literal, ParamSpec, Self, TypeVar

from nn_meter.errors import NnMeterError

_log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

FailureKind = Literal["crash", "timeout", "refused", "memory"]

_PR_SET_PDEATHSIG = 1  # prctl(2)
_START_LIMIT_S = 60.0
_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "failed to allocate memory")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task has no result: the child died, ran past its limit, raised, or memory ran out."""

    kind: FailureKind
    reason: str


def measuring_cpus(threads: int) -> frozenset[int] | None:
    """As many processors as a runtime has threads, for a child that measures: the last of those that this process may
    use. ``None``, which is no limit, where the system has no affinity or too few.

    A runtime's thread that moves between processors, or a model whose thread stays on one that is slower just then,
    differs by as much as a third from the same model elsewhere.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))
    return frozenset(allowed[-threads:]) if 0 < threads <= len(allowed) else None


class Worker:
    """One child process that works off tasks one by one, and is replaced after a crash or a hang.

    The child dies with the thread that started it, even by SIGKILL (elsewhere than on Linux: once its
    task is over).

    Args:
        timeout_s: Limit of one task.
        affinity: CPU numbers that the child may use; by default those of this process.
    """

    def __init__(self, *, timeout_s: float, affinity: Iterable[int] | None = None) -> None:
        self._timeout_s = timeout_s
        self._affinity = frozenset(affinity) if affinity is not None else None
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    def call(self, task: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | Failure:
        """What ``task`` returns in the child, or why it did not.

        ``task`` is a function of a module, its arguments and its result can be pickled. An error of
        nn-Meter's tree, such as a backend's refusal, becomes a ``Failure`` of the kind ``"refused"``.
        """
        pipe = self._connect()
        if isinstance(pipe, Failure):
            return pipe
        try:
            pipe.send((task, args, kwargs))
            if not pipe.poll(self._timeout_s):
                self._stop()
                return Failure("timeout", f"no result within {self._timeout_s:g} s; the process was stopped")
            answer: R | Failure = pipe.recv()
        except (EOFError, OSError):
            return self._autopsy()
        return answer

    def close(self) -> None:
        """End the child."""
        self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self) -> Connection | Failure:
        if self._process is not None and self._process.is_alive() and self._pipe is not None:
            return self._pipe
        self._stop()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, os.getpid(), self._affinity), daemon=True
        )
        self._process.start()
        theirs.close()
        try:
            if not self._pipe.poll(_START_LIMIT_S):
                self._stop()
                return Failure("timeout", f"the measuring process did not start within {_START_LIMIT_S:g} s")
            self._pipe.recv()
        except (EOFError, OSError):
            return self._autopsy()
        return self._pipe

    def _autopsy(self) -> Failure:
        process = self._process
        code: int | None = None
        if process is not None:
            process.join(timeout=5.0)
            code = process.exitcode
        self._stop()
        if code == -signal.SIGKILL:
            return Failure(
                "memory", "the process was killed, as the kernel does when memory runs out"
            )
        if code is not None and code < 0:
            return Failure("crash", f"the process died of {signal.Signals(-code).name}")
        return Failure("crash", f"the process ended with exit status {code}")

    def _stop(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
        self._pipe = self._process = None


def _serve(pipe: Connection, parent: int, affinity: frozenset[int] | None) -> None:
    """The child: answer tasks until the pipe ends."""
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if affinity is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, affinity)
    pipe.send("ready")
    while True:
        try:
            task, args, kwargs = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(_answer(task, args, kwargs))


def _answer(task: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return task(*args, **kwargs)
    except NnMeterError as error:
        return Failure("refused", str(error))
    except MemoryError as error:
        return Failure("memory", str(error) or "memory ran out")
    except Exception as error:
        _log.debug("a task failed", exc_info=True)
        reason = f"{type(error).__name__}: {error}"
        return Failure(
            "memory" if any(text in reason.lower() for text in _OUT_OF_MEMORY) else "crash", reason
        )


def _die_with(parent: int) -> None:
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call above
        os._exit(1)
