"""A real ``sshd`` on loopback, with keys and a configuration of its own, for tests and ``fuzz.kills``."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from waiting import LONG_S, until

_SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
MISSING = "" if _SSHD and shutil.which("ssh") else "no sshd or ssh here: apt-get install openssh-server"
"""Why there is none."""


@dataclass(frozen=True)
class Loopback:
    """A server. ``bin`` is a folder to put before PATH: its ``ssh`` reads this server's configuration and no other, as
    a user's own would be read, and logs in here whoever and whatever host is named."""

    folder: Path
    port: int
    bin: Path

    @property
    def address(self) -> str:
        """Of the machine, with the Python that runs this."""
        return f"{self.bare}{sys.executable}"

    @property
    def bare(self) -> str:
        """Without naming a Python."""
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"

    def sessions(self) -> list[int]:
        """Processes of the server for single connections."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, IndexError):
                parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == self.pid:
                    found.append(int(place.name))
        return found

    @property
    def pid(self) -> int:
        """Of the server itself."""
        return int((self.folder / "pid").read_text())


@contextmanager
def sshd(folder: Path, environment: Mapping[str, str] | None = None, prelude: str = "") -> Iterator[Loopback]:
    """Run one; ``environment`` is what sessions find, ``prelude`` is run by a shell before each command."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("host", "user", "stranger"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)],
            check=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    (folder / "authorized_keys").write_bytes((folder / "user.pub").read_bytes())
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(parents=True, exist_ok=True)  # where a root's server shuts up who has not logged in yet
    held = socket.socket()  # to the end: nobody but who reuses addresses, as sshd does, gets its port meanwhile
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    port = held.getsockname()[1]
    known = (folder / "host.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {known}")
    (folder / "ssh_config").write_text(
        f"Host *\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {folder}/user\n  IdentitiesOnly yes\n"
        "  IdentityAgent none\n"
        f"  UserKnownHostsFile {folder}/known_hosts\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n"
    )
    variables = " ".join(f'"{name}={value}"' for name, value in (environment or {}).items())
    (folder / "command").write_text(f'#!/bin/sh\n{prelude}\nexec sh -c "$SSH_ORIGINAL_COMMAND"\n')
    (folder / "command").chmod(0o755)
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile {folder}/pid\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nPasswordAuthentication no\n"
        f"KbdInteractiveAuthentication no\nPermitRootLogin yes\nForceCommand {folder}/command\nMaxStartups 100\n"
        "LoginGraceTime 0\n"
        + (f"SetEnv {variables}\n" if variables else "")
    )
    (folder / "bin").mkdir()
    ssh = folder / "bin" / "ssh"
    patient = f"-o ConnectTimeout={LONG_S:.0f} -o ServerAliveInterval={LONG_S:.0f}"  # what is said first holds
    ours = f"{shutil.which('ssh')} -F {folder}/ssh_config -l {getpass.getuser()} {patient}"
    ssh.write_text(f'#!/bin/sh\nexec {ours} "$@"\n')
    ssh.chmod(0o755)
    with (folder / "sshd.log").open("wb") as log:
        server = subprocess.Popen([_SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stdout=log, stderr=log)
    try:
        pid = folder / "pid"
        until(lambda: server.poll() is not None or (pid.exists() and pid.read_text()))
        assert server.poll() is None, (folder / "sshd.log").read_text()
        yield Loopback(folder, port, folder / "bin")
    finally:
        server.terminate()
        server.wait()
        held.close()
