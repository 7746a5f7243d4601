"""A phone for tests: a daemon that speaks adb's protocol over TCP and runs commands in a shell of this machine.

Protocol as in ``protocol.txt``, ``SYNC.TXT`` and ``shell_protocol.h`` of Android's packages/modules/adb. What is
``/data/local/tmp`` there is the folder ``root`` here; programs of ``root/bin`` go before those of the machine.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from threading import Condition, Lock, Thread

from nn_meter.errors import NnMeterError

_VERSION, _MOST = 0x01000001, 1 << 18  # of this version, sums over what is sent are not looked at
_CNXN, _OPEN, _OKAY, _CLSE, _WRTE = (
    int.from_bytes(word, "little") for word in (b"CNXN", b"OPEN", b"OKAY", b"CLSE", b"WRTE")
)
_STDIN, _STDOUT, _STDERR, _EXIT = range(4)


class Phone:
    """Listens at ``127.0.0.1:port``. Set ``full`` and it takes no more files, ``dies_of`` and the command that holds
    this text cuts the link in the midst of its output; without ``modern`` exit statuses are lost, as before Android 7.
    """

    def __init__(self, root: Path, modern: bool = True) -> None:
        self.root, self.modern = root, modern
        self.full = False
        self.dies_of = ""
        self.commands: list[str] = []
        self.built_in: dict[str, Callable[[list[str]], str]] = {}
        """Programs that run in this process: what starts Python is started a thousand times in a build."""
        (root / "bin").mkdir(parents=True)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self._server.getsockname()[1]}"
        Thread(target=self._accept, daemon=True).start()

    def program(self, name: str, text: str, folder: str = "bin") -> Path:
        """Put a script there."""
        path = self.root / folder / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def here(self, text: str) -> str:
        """With its paths in place of the phone's."""
        return text.replace("/data/local/tmp", str(self.root))

    def close(self) -> None:
        """Switch it off."""
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            Thread(target=_Connection(connection, self).serve, daemon=True).start()


class _Connection:
    def __init__(self, connection: socket.socket, phone: Phone) -> None:
        self.phone = phone
        self._socket = connection
        self._lock = Lock()
        self._streams: dict[int, _Stream] = {}

    def send(self, command: int, first: int, second: int, data: bytes) -> None:
        head = struct.pack("<6I", command, first, second, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF)
        with self._lock:
            self._socket.sendall(head + data)

    def cut(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)

    def serve(self) -> None:
        try:
            while True:
                command, first, second, size, _, _ = struct.unpack("<6I", self._read(24))
                self._take(command, first, second, self._read(size))
        except (OSError, EOFError):
            for stream in self._streams.values():
                stream.ended()
            self._socket.close()

    def _take(self, command: int, first: int, second: int, data: bytes) -> None:
        if command == _CNXN:
            features = "features=shell_v2,cmd" if self.phone.modern else "features=cmd"
            banner = f"device::ro.product.name=fake;ro.product.model=Fake;ro.product.device=fake;{features}"
            self.send(_CNXN, _VERSION, _MOST, banner.encode())
        elif command == _OPEN:
            stream = _Stream(self, len(self._streams) + 1, first)
            self._streams[stream.number] = stream
            self.send(_OKAY, stream.number, first, b"")
            Thread(target=stream.work, args=(data.rstrip(b"\0").decode(),), daemon=True).start()
        elif command == _WRTE:
            self.send(_OKAY, second, first, b"")
            self._streams[second].heard(data)
        elif second in self._streams:  # OKAY or CLSE
            self._streams[second].ready() if command == _OKAY else self._streams[second].ended()

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return bytes(data)


class _Stream:
    """One service that was opened: what is written waits for the other end's okay."""

    def __init__(self, connection: _Connection, number: int, peer: int) -> None:
        self._connection, self.number, self._peer = connection, number, peer
        self._changed = Condition()
        self._held, self._ready, self._ended = bytearray(), True, False

    def heard(self, data: bytes) -> None:
        with self._changed:
            self._held += data
            self._changed.notify_all()

    def ready(self) -> None:
        with self._changed:
            self._ready = True
            self._changed.notify_all()

    def ended(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def work(self, service: str) -> None:
        try:
            kind, _, words = service.partition(":")
            if kind == "sync":
                self._sync()
            elif kind.split(",")[0] == "shell":
                self._shell(words, ",v2" in kind)
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._ended, 5)
            self._connection.send(_CLSE, self.number, self._peer, b"")
        except (OSError, EOFError):
            pass

    def _read(self, size: int) -> bytes:
        with self._changed:
            self._changed.wait_for(lambda: len(self._held) >= size or self._ended)
            if len(self._held) < size:
                raise EOFError
            data = bytes(self._held[:size])
            del self._held[:size]
            return data

    def _write(self, data: bytes) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._ended)
            if self._ended:
                raise EOFError
            self._ready = False
        self._connection.send(_WRTE, self.number, self._peer, data)

    def _shell(self, command: str, v2: bool) -> None:
        phone = self._connection.phone
        phone.commands.append(command)
        words = command.removeprefix("( ").partition(" ); ")[0].split()
        name, *options = words[2:] if words[0] == "timeout" else words
        if name in phone.built_in:
            try:
                told, status = phone.built_in[name]([phone.here(each) for each in options]), 0
            except NnMeterError as error:
                told, status = str(error), 1
            self._write(self._packet(_STDOUT, f"{told}\nnn-meter-status={status}\n".encode(), v2))
            self._write(self._packet(_EXIT, bytes(1), v2))
            return
        variables = {**os.environ, "PATH": f"{phone.root / 'bin'}:{os.environ['PATH']}"}
        pipe = subprocess.PIPE
        done = subprocess.run(
            ["sh", "-c", phone.here(command)], stdin=subprocess.DEVNULL, stdout=pipe, env=variables, check=False,
            stderr=pipe if v2 else subprocess.STDOUT,
        )  # fmt: skip
        if phone.dies_of and phone.dies_of in command:
            phone.dies_of = ""
            self._write(self._packet(_STDOUT, done.stdout[: len(done.stdout) // 2], v2))
            self._connection.cut()
            raise EOFError
        for kind, text in ((_STDOUT, done.stdout), (_STDERR, done.stderr or b"")):
            for begin in range(0, len(text), 1 << 15):
                self._write(self._packet(kind, text[begin : begin + (1 << 15)], v2))
        if v2:
            self._write(self._packet(_EXIT, bytes([done.returncode & 255]), v2))

    @staticmethod
    def _packet(kind: int, data: bytes, v2: bool) -> bytes:
        return struct.pack("<BI", kind, len(data)) + data if v2 else data

    def _sync(self) -> None:
        phone = self._connection.phone
        while True:
            request, size = struct.unpack("<4sI", self._read(8))
            if request == b"QUIT":
                return
            name = phone.here(self._read(size).decode())
            if request == b"STAT":
                there = Path(name)
                told = there.stat() if there.exists() else None
                facts = (told.st_mode, told.st_size, int(told.st_mtime)) if told else (0, 0, 0)
                self._write(b"STAT" + struct.pack("<III", *facts))
            elif request == b"SEND":
                self._receive(Path(name.rpartition(",")[0]), int(name.rpartition(",")[2]))
            elif request == b"RECV":
                self._give(Path(name))

    def _give(self, path: Path) -> None:
        if not path.is_file():
            why = b"No such file or directory"
            self._write(b"FAIL" + struct.pack("<I", len(why)) + why)
            return
        data = path.read_bytes()
        for begin in range(0, len(data), 1 << 16):
            piece = data[begin : begin + (1 << 16)]
            self._write(b"DATA" + struct.pack("<I", len(piece)) + piece)
        self._write(b"DONE" + bytes(4))

    def _receive(self, path: Path, mode: int) -> None:
        data = bytearray()
        while (head := struct.unpack("<4sI", self._read(8)))[0] == b"DATA":
            data += self._read(head[1])
        if self._connection.phone.full:
            why = b"couldn't write: No space left on device"
            self._write(b"FAIL" + struct.pack("<I", len(why)) + why)
            return
        path.write_bytes(data)
        path.chmod(mode & 0o777)
        self._write(b"OKAY" + bytes(4))
