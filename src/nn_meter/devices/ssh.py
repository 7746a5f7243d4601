"""The link ``ssh://[user@]host[:port][/path/of/python]``: this package's worker in the Python of another machine.

The program ``ssh`` is started, with what the user configured for it (``ssh_config``, agent, known hosts); it asks
nothing. One channel carries all: requests, answers, and the models to measure, which lie in a folder there that goes
with the worker. The worker ends with its standard input, which the server closes however the link ends.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from nn_meter import __version__
from nn_meter.devices.link import ProcessChannel, addressed, unshelled

_ADDRESS = re.compile(
    r"ssh://(?:(?P<user>[\w.+-]+)@)?(?P<host>[A-Za-z0-9_][\w.%-]*|\[[0-9A-Fa-f:.%\w]+\])(?::(?P<port>\d+))?"
    r"(?P<python>/.+)?"
)

_OPTIONS = (
    "BatchMode=yes",  # a question would wait for ever for an answer
    "ConnectTimeout=15",
    "ServerAliveInterval=10",  # a link that is silent for half a minute is lost
    "ServerAliveCountMax=3",
    "ClearAllForwardings=yes",  # a second connection cannot have the same ports
    "RemoteCommand=none",
    "RequestTTY=no",
)

_SSH_FAILED = 255

_WORKER = (
    'd=$(mktemp -d "${TMPDIR:-/tmp}/nn-meter-XXXXXX") || exit 1; '
    'cd "$d"; TMPDIR=$d "$0" -P -m nn_meter.measuring.worker --parent $$; s=$?; cd /; rm -rf "$d"; exit $s'
)
"""Run by the device's ``sh`` as if it were the Python; takes the worker's folder away however the worker ends."""

REFUSALS: tuple[tuple[str, str], ...] = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for .* has changed",
        "another machine answers there, or the same with a new key: where you know why, ssh-keygen -R {known_as}, then "
        "log in once by hand: {login}",
    ),
    (
        "Host key verification failed|No .* host key is known",
        "the machine's key is not among your known hosts; log in once by hand and confirm it: {login}",
    ),
    (
        "Permission denied",
        "the login was refused, and nobody is asked for a password here; give the machine your key: {copy_id}",
    ),
    ("Could not resolve hostname", "there is no such host; check its name, or use its address"),
    (
        "Bad configuration option|terminating, .* bad configuration|no argument after keyword",
        "repair your ssh configuration, until this works: {login}",
    ),
    (
        "mktemp: .*No space left",
        "its disk is full; free some space where temporary files lie there",
    ),
    ("mktemp: ", "no folder can be made there; allow writing to its TMPDIR, or to /tmp"),
    (
        "{python_text}.*(?:not found|No such file|Permission denied)",
        "there is no such Python; install Python 3.11 or later, or name the one there: {address}/path/of/python",
    ),
    ("[Uu]nknown option:? -P", "its Python is too old, 3.11 or later is needed; name one: {address}/path/of/python"),
    (
        "No module named '?nn_meter",
        "nn-meter is not installed there: {login} {python} -m pip install 'nn-meter[build]=={version}'",
    ),
    ("No module named '?(?P<module>[A-Za-z]\\w*)", "install it there: {login} {python} -m pip install {module}"),
)
"""What ssh, the device's shell and its Python say where trying again does not help; what to do about it."""


@dataclass(frozen=True, slots=True)
class SshLink:
    """A machine that ``ssh`` logs in to. ``python`` is the program there that has this package."""

    address: str
    host: str
    user: str = ""
    port: str = ""
    python: str = "python3"
    shares_files: bool = False

    @classmethod
    def at(cls, address: str) -> SshLink:
        """The link of an address.

        Raises:
            DeviceError: it is none, or there is no program ``ssh`` here.
        """
        found = addressed(
            address, _ADDRESS, "ssh", package="OpenSSH's client",
            forms="ssh://user@host, ssh://user@host:port or, with the Python to use there, "
            "ssh://user@host:port/path/of/python",
        )  # fmt: skip
        host, user, port, python = (found[each] or "" for each in ("host", "user", "port", "python"))
        return cls(address, host.strip("[]"), user, port, python or "python3")

    @property
    def worker(self) -> Sequence[str]:
        """The device's Python, in a folder of its own, below a shell that cleans up after it."""
        return ("sh", "-c", _WORKER, self.python)

    @property
    def login(self) -> tuple[str, ...]:
        """The command by which a person logs in."""
        return ("ssh", *(("-p", self.port) if self.port else ()), self._whom)

    @property
    def _whom(self) -> str:
        return f"{self.user}@{self.host}" if self.user else self.host

    def open(self, command: Sequence[str]) -> SshChannel:
        """Start a program there."""
        ssh, *where = self.login
        options = [word for option in _OPTIONS for word in ("-o", option)]
        return SshChannel((ssh, *options, *where[:-1], "--", where[-1], f"exec {shlex.join(command)}"))

    def refusal(self, said: str) -> str:
        """Why the worker did not start there, and what to do; empty where trying again may help."""
        words = {
            "login": shlex.join(self.login),
            "copy_id": shlex.join(("ssh-copy-id", *self.login[1:])),
            "known_as": shlex.quote(f"[{self.host}]:{self.port}") if self.port not in ("", "22") else self.host,
            "address": self.address.removesuffix(self.python if self.python.startswith("/") else ""),
            "python": shlex.quote(self.python),
            "version": __version__,
        }
        for pattern, text in REFUSALS:
            found = re.search(pattern.replace("{python_text}", re.escape(self.python)), said)
            if found is not None:
                return f"{found[0].strip()}: {text.format(**words, **found.groupdict())}"
        return ""


class SshChannel(ProcessChannel):
    """``Channel`` to a program on the device, through a process ``ssh`` here."""

    def wait(self, timeout_s: float) -> int | None:
        """The exit status of the program there."""
        status = super().wait(timeout_s)
        if status is None or status < 0 or status == _SSH_FAILED:
            return None
        return unshelled(status)
