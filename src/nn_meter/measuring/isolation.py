"""Runs tasks in a process of their own, here or on a device: a runtime that crashes or hangs costs one measurement."""

from __future__ import annotations

import base64
import hashlib
import inspect
import json
import logging
import math
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Literal, ParamSpec, TypeVar, get_type_hints

from nn_meter import __version__
from nn_meter.devices.link import Channel, Link, LocalLink
from nn_meter.errors import DeviceError, MeasurementError, NnMeterError
from nn_meter.measuring import wire
from nn_meter.storage import Closing, legible

_LOG = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

FailureKind = Literal["crash", "timeout", "refused", "memory", "lost"]

RECONNECTS_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""Seconds between the tries to reach a device again: a restart takes a board a minute or two."""

START_LIMIT_S = 180.0
"""A board that reads its packages from a card takes half a minute to begin, a machine with much else to do longer."""

_LAST_LINES = 3
CUTS = 3
"""A task during which the link is cut so often is what cuts it."""

_CHUNK_BYTES = 1 << 20
"""Of a file, sent at once: it is waited for as long as for a result, so that a link of a kilobyte a second will do."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task has no result: the process died, ran past its limit, raised, had no memory, or the link was cut."""

    kind: FailureKind
    reason: str


class Worker(Closing):
    """One process that works off tasks one by one, and is replaced after a crash or a hang.

    On this machine it dies with the thread that started it, even by SIGKILL (elsewhere than on Linux, and across a
    link: once it sees its standard input end). What it and its runtime print is kept for the reason of a failure.

    Args:
        timeout_s: Limit of one task, counted anew from each progress that it tells.
        processors: How many of the machine's processors the process may use, as ``measuring_cpus`` chooses them there;
            by default all.
        link: Where it runs; by default here.
        waits_s: A lost link is tried again after each of these seconds, and the task done again; by default it is not.
        lost: Hears of each loss.
    """

    def __init__(
        self,
        *,
        timeout_s: float,
        processors: int | None = None,
        link: Link | None = None,
        waits_s: Sequence[float] = (),
        lost: Callable[[Failure], None] | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._processors = processors
        self._link: Link = link or LocalLink()
        self._waits_s = waits_s
        self._lost = lost
        self._channel: Channel | None = None
        self._files: dict[str, Path] = {}
        self._there: set[str] = set()

    @property
    def link(self) -> Link:
        """Where the process runs."""
        return self._link

    def call(self, task: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | Failure:
        """What ``task`` returns there, or why it did not.

        ``task`` is a function of a module that can be imported there. Its arguments and its result cross as JSON, read
        back as its annotations say. A callable argument ``progress`` is called here with what the task tells. An error
        of nn-Meter's tree, such as a backend's refusal, becomes a ``Failure`` of the kind ``"refused"``.

        Raises:
            TypeError: an argument that JSON cannot hold, or a function of the main script.
            DeviceError: the device refuses: trying again does not help.
            MeasurementError: it was lost, and did not come back within ``waits_s``.
        """
        given = inspect.signature(task).bind(*args, **kwargs).arguments
        progress = given.pop("progress", None)
        name = f"{task.__module__}:{task.__qualname__}"
        if task.__module__ == "__main__" or "<" in name:
            raise TypeError(f"{name} cannot be imported elsewhere; put the task into a module")
        request = {"task": name, "args": wire.to_json(list(given.values())), "told": progress is not None}
        message = self._patiently(json.dumps(request), progress)
        if isinstance(message, Failure):
            return message
        kind, key = (Failure, "failure") if "failure" in message else (get_type_hints(task)["return"], "value")
        try:
            value: R | Failure = wire.from_json(kind, message[key])
        except (LookupError, TypeError, ValueError, RecursionError, NnMeterError) as error:
            said = legible(str(error))
            raise MeasurementError(
                f"{self._link.address}: what the measuring process answers is no result of {task.__name__} ({said}); "
                "see that the nn-meter there is the same as here"
            ) from error
        return value

    def attach(self, path: Path) -> Path:
        """The path by which tasks of this worker find a file of this machine: across a link it is sent before the first
        task that is given it, into the folder that the process works in.

        Raises:
            DeviceError: it cannot be read.
        """
        if self._link.shares_files:
            return path
        try:
            with path.open("rb") as file:
                name = hashlib.file_digest(file, "sha256").hexdigest() + path.suffix
        except OSError as error:
            raise DeviceError(f"{path}: cannot be sent to {self._link.address} ({error.strerror or error})") from error
        self._files[name] = path
        return Path(name)

    def _patiently(self, request: str, progress: Callable[..., object] | None) -> dict[str, Any] | Failure:
        """The answer, asked for again where the link is lost."""
        cuts, waits_s = 0, list(self._waits_s)
        while True:
            channel = self._connect()
            answer = channel if isinstance(channel, Failure) else self._asked(channel, request, progress)
            if not isinstance(answer, Failure) or answer.kind != "lost":
                return answer
            if self._lost is not None:
                self._lost(answer)
            if not isinstance(channel, Failure):
                cuts, waits_s = cuts + 1, list(self._waits_s)
            if not self._waits_s or cuts == CUTS:
                return answer
            if not waits_s:
                raise MeasurementError(
                    f"{answer.reason}; it did not come back within {sum(self._waits_s):g} s: what was measured is "
                    "kept, go on with --resume once it is there"
                )
            _LOG.warning("%s; trying again in %g s", answer.reason, waits_s[0])
            sleep(waits_s.pop(0))

    def _asked(
        self, channel: Channel, request: str, progress: Callable[..., object] | None
    ) -> dict[str, Any] | Failure:
        try:
            for name, path in self._files.items():
                if name in request and name not in self._there:
                    refused = self._send(channel, name, path)
                    if refused is not None:
                        return refused
            channel.send(request)
            while True:
                message = self._message(channel)
                if isinstance(message, Failure) or "heard" not in message:
                    return message
                assert progress is not None
                progress(*_heard(message["heard"]))
        except (EOFError, OSError, ValueError):
            return self._autopsy(channel)

    def _send(self, channel: Channel, name: str, path: Path) -> Failure | None:
        with path.open("rb") as file:
            first = True
            while (chunk := file.read(_CHUNK_BYTES)) or first:
                data = base64.b64encode(chunk).decode()
                channel.send(json.dumps({"file": name, "data": data, "first": first}))
                message = self._message(channel)
                if isinstance(message, Failure):
                    return message
                if "failure" in message:  # the next model would fit no better
                    raise DeviceError(f"{self._link.address}: {legible(_reason(message['failure']))}")
                first = False
        self._there.add(name)
        return None

    def _message(self, channel: Channel) -> dict[str, Any] | Failure:
        line = channel.receive(self._timeout_s)
        if line is None:
            self.close()
            return Failure("timeout", f"no result within {self._timeout_s:g} s; the process was stopped")
        return _told(line)

    def close(self) -> None:
        """End the process."""
        if self._channel is not None:
            self._channel.close()
        self._channel = None
        self._there.clear()

    def _connect(self) -> Channel | Failure:
        if self._channel is not None:
            if self._channel.wait(0) is None:
                return self._channel
            self.close()
        channel = self._channel = self._link.open(self._link.worker)
        end = monotonic() + START_LIMIT_S
        try:
            channel.send(json.dumps({"processors": self._processors}))
            while (line := channel.receive(max(end - monotonic(), 0.0))) is not None:
                if line.startswith(wire.READY):  # a shell may have greeted before
                    self._same_version(line.removeprefix(wire.READY))
                    return channel
        except (EOFError, OSError):
            channel.wait(5.0)
            if why := self._link.refusal(channel.said()):
                self.close()
                raise DeviceError(f"{self._link.address}: {why}") from None
            return self._autopsy(channel)
        self.close()
        return Failure("timeout", f"the measuring process did not start within {START_LIMIT_S:g} s")

    def _same_version(self, there: str) -> None:
        if there != __version__:
            self.close()
            raise DeviceError(
                f"{self._link.address}: nn-meter {there} is there, and {__version__} here; install the same there: "
                f"python3 -m pip install 'nn-meter[build]=={__version__}'"
            )

    def _autopsy(self, channel: Channel) -> Failure:
        code = channel.wait(5.0)
        words = [line for line in channel.said().splitlines() if line.strip()][-_LAST_LINES:]
        said = f"; it said: {' / '.join(words)}" if words else ""
        self.close()
        if code is None:
            return Failure("lost", f"the link to {self._link.address} was cut{said}")
        if code == -signal.SIGKILL:
            return Failure("memory", "the process was killed, as the kernel does when memory runs out")
        if code < 0:
            name = next((each.name for each in signal.Signals if each == -code), f"the signal {-code}")
            return Failure("crash", f"the process died of {name}{said}")
        return Failure("crash", f"the process ended with exit status {code}{said}")


def _told(line: str) -> dict[str, Any]:
    """A message of the process; a ``ValueError`` where what stands there is none."""
    try:
        message = json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(message, dict):
        raise ValueError("no message")
    return message


def _reason(failure: object) -> str:
    return str(failure.get("reason")) if isinstance(failure, dict) else str(failure)


def _heard(told: object) -> tuple[float, float | None, float | None, str]:
    """What a ``Progress`` hears; a ``ValueError`` where it is nothing of that."""
    try:
        done, total, eta_s, what = wire.from_json(tuple[float, float | None, float | None, str], told)
    except TypeError as error:
        raise ValueError("no progress") from error
    if not all(map(math.isfinite, (done, total or 0.0, eta_s or 0.0))):
        raise ValueError("no progress")
    return done, total, eta_s, what
