"""Links to devices: how this package's worker process is started there and spoken to.

A link is found by the scheme of an address: ``local`` is this machine, ``ssh://...`` another. Those that exist are rows
of ``nn_meter.plugins``, each a function from an address to a ``Link``. What is no address is a name that ``nn-meter
devices add`` gave one.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Thread
from time import monotonic
from typing import IO, Protocol

from nn_meter import plugins
from nn_meter.devices.known import known
from nn_meter.errors import DeviceError, did_you_mean
from nn_meter.limits import PRINTED_BYTES
from nn_meter.storage import shown

_LAST_WORDS = 40
"""Lines of a program's standard error that are kept."""

_LINES_AHEAD = 100
"""Lines of a program's standard output that are read before somebody asks for them: else one that never ends fills the
memory."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that ended; ``status`` is negative where a signal ended it."""

    status: int
    stdout: str
    stderr: str


_SIGNALS = 128


def unshelled(status: int) -> int:
    """The status of a program, as ``Finished`` has it, that a shell tells: 128 + n where signal n ended the program."""
    return _SIGNALS - status if status > _SIGNALS else status


class Channel(Protocol):
    """The standard streams of a program that runs on a device."""

    def send(self, line: str) -> None:
        """Write a line, without its end, to the program.

        Raises:
            OSError: the program is gone, or the link is cut.
        """

    def receive(self, timeout_s: float) -> str | None:
        """The next line that the program wrote; ``None`` where none came within the time.

        Raises:
            EOFError: no more will come.
        """

    def wait(self, timeout_s: float) -> int | None:
        """The exit status, negative for a signal; ``None`` where it is not known within the time, as when the link is
        cut."""

    def said(self) -> str:
        """The last lines of the program's standard error so far."""

    def close(self) -> None:
        """End the program; harmless the second time."""


class Link(Protocol):
    """A way to a device."""

    @property
    def address(self) -> str:
        """What ``open_link`` was given for it."""

    @property
    def worker(self) -> Sequence[str]:
        """The command that starts this package's worker process there."""

    @property
    def shares_files(self) -> bool:
        """Whether a path of this machine is the same file for the worker."""

    def refusal(self, said: str) -> str:
        """Why the worker did not start, by its last words, and what to do; empty where trying again may help."""

    def open(self, command: Sequence[str]) -> Channel:
        """Start a program and speak to it.

        Raises:
            DeviceError: no such program, or the device refuses: trying again does not help.
        """


def open_link(address: str) -> Link:
    """The link that ``address`` names: ``local``, ``scheme://...``, or what ``nn-meter devices add`` gave a name.

    Raises:
        DeviceError: an unknown scheme or name, or a plugin that cannot be loaded; names those that exist.
    """
    names = {each.name: each.address for each in known() if each.name}
    address = names.get(address, address)
    scheme = address.partition("://")[0]
    found = next((each for each in plugins.listed("link") if each.name == scheme), None)
    if found is None:
        there = sorted({*plugins.names("link"), *names})
        hint = did_you_mean(scheme, there)
        raise DeviceError(f"no link to a device {shown(address)}; {hint}known: {', '.join(there)}")
    opened: Link = found.load()(address)
    return opened


def addressed(address: str, form: re.Pattern[str], program: str, *, forms: str, package: str) -> re.Match[str]:
    """The parts of ``address``, which ``form`` describes and ``program`` reaches.

    Args:
        forms: how such an address is written, in words.
        package: what the program comes with.

    Raises:
        DeviceError: it is no such address, or there is no such program here.
    """
    found = form.fullmatch(address)
    if found is None:
        raise DeviceError(f"{shown(address)} is no address for {program}; write it as {forms}")
    if shutil.which(program) is None:
        raise DeviceError(f"{address}: there is no program {program} here; install {package}")
    return found


@dataclass(frozen=True, slots=True)
class LocalLink:
    """This machine. ``environment`` is added to the variables of the programs that it runs."""

    address: str = "local"
    shares_files: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def at(cls, address: str) -> LocalLink:
        """The link of an address.

        Raises:
            DeviceError: more than ``local``.
        """
        if address != "local":
            raise DeviceError(f"{address!r}: this machine is named 'local', without anything behind it")
        return cls()

    @property
    def worker(self) -> Sequence[str]:
        """This Python, which ends with this process."""
        return (sys.executable, "-P", "-m", "nn_meter.measuring.worker", "--parent", str(os.getpid()))

    def refusal(self, said: str) -> str:
        """Nothing: what ends here ends with a status that tells."""
        return ""

    def run(self, command: Sequence[str], *, timeout_s: float) -> Finished:
        """Run a program to its end.

        Raises:
            DeviceError: no such program, or it runs longer.
        """
        pipe, end, said = subprocess.PIPE, monotonic() + timeout_s, (bytearray(), bytearray())
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=self._variables()
            )
        except OSError as error:
            raise _unstartable(command, error) from error
        streams = process.stdout, process.stderr
        heard = [_collect(stream, into, process) for stream, into in zip(streams, said, strict=True)]
        for each in heard:
            each.join(max(end - monotonic(), 0.0))
        try:
            process.wait(max(end - monotonic(), 0.0))
            late = any(each.is_alive() for each in heard)
        except subprocess.TimeoutExpired:
            late = True
        if late:
            process.kill()
            process.wait()
            raise DeviceError(f"{command[0]}: still running after {timeout_s:g} s; it was stopped")
        PRINTED_BYTES.check(max(map(len, said)), command[0], DeviceError)
        stdout, stderr = (bytes(each).decode(errors="replace").replace("\r\n", "\n") for each in said)
        return Finished(process.returncode, stdout, stderr)

    def open(self, command: Sequence[str]) -> ProcessChannel:
        """Start a program and speak to it. It finds the same modules as this process."""
        return ProcessChannel(command, {**self._variables(), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})

    def _variables(self) -> dict[str, str]:
        return {**os.environ, **self.environment}


class ProcessChannel:
    """``Channel`` to a process of this machine: also what a link is made of that has a program of its own, such as
    ``ssh``."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=variables)
        except OSError as error:
            raise _unstartable(command, error) from error
        self._lines: queue.Queue[str | None] = queue.Queue(_LINES_AHEAD)
        self._words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._pumps = [
            _pump(self._process.stdout, self._lines.put, lambda: self._lines.put(None)),
            _pump(self._process.stderr, self._words.append, lambda: None),
        ]

    def send(self, line: str) -> None:
        """Write a line."""
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(line.encode() + b"\n")
        stdin.flush()

    def receive(self, timeout_s: float) -> str | None:
        """The next line."""
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if line is None:
            self._lines.put(None)
            raise EOFError
        return line

    def wait(self, timeout_s: float) -> int | None:
        """The exit status."""
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        self._pumps[1].join(timeout_s)
        return status

    def said(self) -> str:
        """The last lines of standard error."""
        return "\n".join(self._words)

    def close(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            _close(stream)


def _pump(stream: IO[bytes] | None, take: Callable[[str], object], end: Callable[[], object]) -> Thread:
    def work() -> None:
        assert stream is not None
        try:
            while line := stream.readline(PRINTED_BYTES.most):
                take(line.decode(errors="replace").rstrip("\r\n"))
        except (OSError, ValueError):  # closed under our hands
            pass
        end()

    thread = Thread(target=work, daemon=True)
    thread.start()
    return thread


def _collect(stream: IO[bytes] | None, into: bytearray, process: subprocess.Popen[bytes]) -> Thread:
    """Keep what a program prints, to a little more than is allowed, where it is stopped."""

    def work() -> None:
        assert stream is not None
        with stream:
            while chunk := stream.read1():  # type: ignore[attr-defined]
                into.extend(chunk)
                if len(into) > PRINTED_BYTES.most:
                    process.kill()
                    return

    thread = Thread(target=work, daemon=True)
    thread.start()
    return thread


def _close(stream: IO[bytes] | None) -> None:
    try:
        if stream is not None:
            stream.close()
    except OSError:  # what was not written yet has no reader
        pass


def _unstartable(command: Sequence[str], error: OSError) -> DeviceError:
    return DeviceError(f"{command[0]}: cannot be started ({error.strerror or error})")
