"""Runs inputs in a process of their own, under limits of time and memory, and judges what comes of them."""

from __future__ import annotations

import json
import mmap
import os
import random
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any, Literal, Protocol

from nn_meter.devices.here import end_with
from nn_meter.errors import NnMeterError

SLOW_S = 5.0
"""Processor time that one input may take."""

STILL_S = 60.0
"""One that sleeps so long waits for what never comes, and one that computes so long hears no clock. On a machine that
does other things too an input may have to wait for the processor, for as long as it likes."""

MEMORY_BYTES = 1 << 30
"""More than the process has, fed once, that an input may take."""

LONGEST_TEXT = 20_000
"""Letters of an error that nobody reads to their end."""

Verdict = Literal["answered", "refused", "fault", "slow", "memory", "crash", "still"]
FINE = frozenset(("answered", "refused"))


class Target(Protocol):
    """One kind of input: makes some, and feeds them."""

    def make(self, draw: random.Random) -> bytes:
        """An input; the same for the same ``draw``."""

    def run(self, data: bytes, turn: int) -> None:
        """Feed it; ``turn`` chooses what answers. Raises an error of our tree where it is refused, an
        ``AssertionError`` where an answer cannot be."""


@dataclass(frozen=True)
class Outcome:
    """What came of an input; ``what`` tells findings apart, ``text`` says more."""

    verdict: Verdict
    what: str = ""
    text: str = ""


@dataclass(frozen=True)
class Found:
    """An input that broke something."""

    index: int
    outcome: Outcome


@dataclass(frozen=True)
class Served:
    """What came of a stretch of inputs, those from where it began to before ``index``; ``seconds`` of a processor."""

    index: int
    seconds: float
    answered: int
    refused: int
    found: tuple[Found, ...]


class _Slow(BaseException):
    """Raised by the clock; a ``BaseException``, so that nobody takes it for a fault of the input."""


def drawn(kind: str, seed: int, index: int) -> random.Random:
    """What decides the input ``index`` of a kind."""
    return random.Random(f"{kind} {seed} {index}")


def tried(target: Target, data: bytes, turn: int) -> Outcome:
    """Feed one input here, within the limit of time."""
    try:
        signal.setitimer(signal.ITIMER_PROF, SLOW_S, 1.0)  # again, should one be lost where nothing can be raised
        try:
            target.run(data, turn)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        return Outcome("answered")
    except NnMeterError as error:
        if _memory_ran_out(error):
            return Outcome("memory", f"memory {_place(error)}", str(error)[:500])
        if len(str(error)) > LONGEST_TEXT:
            return Outcome("fault", f"a long text {_place(error)}", str(error)[:500])
        return Outcome("refused")
    except MemoryError as error:
        return Outcome("memory", f"memory {_place(error)}")
    except _Slow as error:
        return Outcome("slow", f"slow {_place(error)}")
    except BaseException as error:
        text = "".join(traceback.format_exception(error, limit=-6))[-3000:]
        return Outcome("fault", f"{type(error).__name__} {_place(error)}", text)


def _memory_ran_out(error: BaseException | None) -> bool:
    seen = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, MemoryError):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def _place(error: BaseException) -> str:
    """The innermost line of ours that it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "nn_meter" in frame.filename] or frames
    return f"at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "nowhere"


def isolated(target: Target, data: bytes, turn: int) -> Outcome:
    """Feed one input in a process of its own."""
    said: list[Outcome] = []
    board = _board()

    def work(tell: Callable[[Any], None]) -> None:
        tell(asdict(tried(target, data, turn)))

    end, _ = _forked(work, lambda line: said.append(Outcome(**line)), board)
    return said[0] if said else end or Outcome("crash", "exit", "the process ended without a word")


def serve(target: Target, kind: str, seed: int, start: int, stop: int, seconds: float) -> Served:
    """Make and feed inputs from ``start`` on, to before ``stop`` or until ``seconds`` are over, in one process.

    A finding of a kind that this process had before is counted by its first input alone. Where the process ends or
    stays, its last input is the finding, and the next stretch begins behind it.
    """
    board = _board()
    board[0] = start
    found: list[Found] = []

    def work(tell: Callable[[Any], None]) -> None:
        end, index = monotonic() + seconds, start
        known: set[str] = set()
        while index < stop and monotonic() < end:
            board[0] = index
            outcome = tried(target, target.make(drawn(kind, seed, index)), index)
            if outcome.verdict in FINE:
                board[1 if outcome.verdict == "answered" else 2] += 1
            elif outcome.what not in known:
                known.add(outcome.what)
                tell({"index": index, "outcome": asdict(outcome)})
            index += 1
        board[0] = index

    ended, used_s = _forked(work, lambda line: found.append(Found(line["index"], Outcome(**line["outcome"]))), board)
    index = board[0]
    if ended is not None:
        found.append(Found(index, ended))
        index += 1
    return Served(index, used_s, board[1], board[2], tuple(found))


def _board() -> memoryview:
    """Numbers that both processes see: the input under way, and how many were answered and refused."""
    return memoryview(mmap.mmap(-1, 24)).cast("q")


def _forked(
    work: Callable[[Callable[[Any], None]], None], hear: Callable[[Any], None], board: memoryview
) -> tuple[Outcome | None, float]:
    """Do ``work`` in a process that dies with this one; what it tells is heard here. ``None`` where it ends well; and
    the seconds of processor time that it took."""
    sys.stdout.flush()
    sys.stderr.flush()
    read, write = os.pipe()
    parent, child = os.getpid(), os.fork()
    if not child:
        code = 1
        try:
            os.close(read)
            _limit(parent)
            with os.fdopen(write, "w") as lines:
                work(lambda value: print(json.dumps(value), file=lines, flush=True))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(write)
    still = _hear(read, child, hear, board)
    _, status, usage = os.wait4(child, 0)
    return _ended(still, status), usage.ru_utime + usage.ru_stime


def _ended(still: bool, status: int) -> Outcome | None:
    if still:
        return Outcome("still", "still", f"nothing came of it in {STILL_S:g} s of sleep or of processor time")
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return Outcome("crash", name, f"the process died of {name}")
    return None if status == 0 else Outcome("crash", "exit", f"the process ended with {os.WEXITSTATUS(status)}")


def _hear(read: int, child: int, hear: Callable[[Any], None], board: memoryview) -> bool:
    """Whether the process had to be ended, since it went on no more."""
    begun, awake, used_s = -1, 0.0, 0.0
    with os.fdopen(read) as lines:
        while True:
            if select.select([lines], [], [], 1.0)[0]:
                line = lines.readline()
                if not line:
                    return False
                hear(json.loads(line))
            sleeps, now_s = _seen(child)
            if board[0] != begun:
                begun, awake, used_s = board[0], monotonic(), now_s
            elif not sleeps:
                awake = monotonic()
            if monotonic() - awake > STILL_S or now_s - used_s > STILL_S:
                os.kill(child, signal.SIGKILL)
                return True


def _seen(child: int) -> tuple[bool, float]:
    """Whether a process sleeps, and the seconds of processor time that it has had; where nobody tells it sleeps."""
    try:
        state, *numbers = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return True, 0.0
    return state == "S", (int(numbers[10]) + int(numbers[11])) / os.sysconf("SC_CLK_TCK")  # proc(5): utime, stime


def _limit(parent: int) -> None:
    end_with(parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY_BYTES,) * 2)
    signal.signal(signal.SIGPROF, _slow)


def _slow(number: int, frame: FrameType | None) -> None:
    raise _Slow


def smaller(target: Target, data: bytes, turn: int, what: str, tries: int = 300, seconds: float = 20.0) -> bytes:
    """A part of ``data`` that ends in the same finding: stretches are left out, each half as long as those before
    (Zeller and Hildebrandt, 2002)."""
    end = monotonic() + seconds
    size = len(data) // 2
    while size and tries > 0 and monotonic() < end:
        at = 0
        while at < len(data) and tries > 0 and monotonic() < end:
            less = data[:at] + data[at + size :]
            tries -= 1
            if isolated(target, less, turn).what == what:
                data = less
            else:
                at += size
        size //= 2
    return data
