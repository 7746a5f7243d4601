"""Runs tasks in a process of their own, here or on a device: a runtime that crashes or hangs costs one measurement."""

from __future__ import annotations

import inspect
import json
import signal
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Literal, ParamSpec, TypeVar, get_type_hints

from nn_meter.devices.link import Channel, Link, LocalLink
from nn_meter.errors import DeviceError
from nn_meter.measuring import wire
from nn_meter.storage import Closing

P = ParamSpec("P")
R = TypeVar("R")

FailureKind = Literal["crash", "timeout", "refused", "memory", "lost"]

_START_LIMIT_S = 60.0
_LAST_LINES = 3


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
    """

    def __init__(
        self, *, timeout_s: float, processors: int | None = None, link: Link | None = None
    ) -> None:
        self._timeout_s = timeout_s
        self._processors = processors
        self._link: Link = link or LocalLink()
        self._channel: Channel | None = None

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
        """
        given = inspect.signature(task).bind(*args, **kwargs).arguments
        progress = given.pop("progress", None)
        name = f"{task.__module__}:{task.__qualname__}"
        if task.__module__ == "__main__" or "<" in name:
            raise TypeError(f"{name} cannot be imported elsewhere; put the task into a module")
        request = {"task": name, "args": wire.to_json(list(given.values())), "told": progress is not None}
        channel = self._connect()
        if isinstance(channel, Failure):
            return channel
        try:
            channel.send(json.dumps(request))
            while True:
                line = channel.receive(self._timeout_s)
                if line is None:
                    self.close()
                    return Failure("timeout", f"no result within {self._timeout_s:g} s; the process was stopped")
                message = json.loads(line)
                if "heard" not in message:
                    break
                assert callable(progress)
                progress(*message["heard"])
        except (EOFError, OSError, ValueError):
            return self._autopsy(channel)
        if "failure" in message:
            failed: Failure = wire.from_json(Failure, message["failure"])
            return failed
        value: R = wire.from_json(get_type_hints(task)["return"], message["value"])
        return value

    def close(self) -> None:
        """End the process."""
        if self._channel is not None:
            self._channel.close()
        self._channel = None

    def _connect(self) -> Channel | Failure:
        if self._channel is not None:
            if self._channel.wait(0) is None:
                return self._channel
            self.close()
        try:
            channel = self._channel = self._link.open(self._link.worker)
        except DeviceError as error:
            return Failure("lost", str(error))
        end = monotonic() + _START_LIMIT_S
        try:
            channel.send(json.dumps({"processors": self._processors}))
            while (line := channel.receive(max(end - monotonic(), 0.0))) is not None:
                if line == '{"ready": true}':  # a shell may have greeted before
                    return channel
        except (EOFError, OSError):
            return self._autopsy(channel)
        self.close()
        return Failure("timeout", f"the measuring process did not start within {_START_LIMIT_S:g} s")

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
            return Failure("crash", f"the process died of {signal.Signals(-code).name}{said}")
        return Failure("crash", f"the process ended with exit status {code}{said}")
