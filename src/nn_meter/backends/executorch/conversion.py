"""Models converted in a process of their own, which stays: what converts takes seconds to import, and hundreds of
megabytes."""

from __future__ import annotations

import atexit
import os
import pickle
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from shutil import disk_usage
from tempfile import TemporaryFile, gettempdir
from typing import IO, Any, ClassVar

from nn_meter.errors import BackendError
from nn_meter.runtimes.trace import ExecutedKernel

_KEPT: dict[bytes, IO[bytes]] = {}
"""Digest of a model to its program, the one asked for last at the end; files without a name go with this process,
however it ends."""
_MOST_KEPT, _KEPT_SHARE = 200, 0.25
"""Programs, and their bytes, weights included, as a share of what is free on the disk."""
_MOST_BYTES = 1 << 28
"""Of models after which the process ends: it gives nothing back of them, and held 3.8 GB after 29 of some 30 MB."""
_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True)
class Step:
    """What may run: ``kind`` is the number that XNNPACK's graph has for it, 0 of a kernel outside; ``call`` the number
    of the call that it is of, negative of a change of layout that nobody asked for."""

    kind: int
    call: int


@dataclass(frozen=True, slots=True)
class Converted:
    """A program of ExecuTorch, and of which calls it was made: ``parts`` are the steps of each of its instructions."""

    program: bytes
    parts: tuple[tuple[Step, ...], ...]
    calls: tuple[ExecutedKernel, ...]
    operators: tuple[str, ...]


def converted(model: bytes) -> Converted:
    """An ONNX model converted, once in the life of this process: detection prepares the same ones over and over, and an
    evaluation each in two halves.

    Raises:
        BackendError: an operator that there is no call for, or that ExecuTorch does not take; names it.
    """
    key = sha256(model).digest()
    if key in _KEPT:
        file = _KEPT[key] = _KEPT.pop(key)
        file.seek(0)
        found: Converted = pickle.load(file)
        return found
    answer = _Converter.asked(model)
    with suppress(OSError):  # a full disk: it will be converted again
        file = TemporaryFile()  # noqa: SIM115  it stays
        pickle.dump(answer, file, pickle.HIGHEST_PROTOCOL)
        file.flush()
        _KEPT[key] = file
    most_bytes = _KEPT_SHARE * disk_usage(gettempdir()).free
    while len(_KEPT) > _MOST_KEPT or sum(each.tell() for each in _KEPT.values()) > most_bytes:
        _KEPT.pop(next(iter(_KEPT))).close()
    return answer


def read(stream: IO[bytes]) -> Any:
    """The next value of a stream between two processes of one program; ``None`` at its end."""
    length = stream.read(_LENGTH_BYTES)
    return pickle.loads(stream.read(int.from_bytes(length, "little"))) if len(length) == _LENGTH_BYTES else None


def write(stream: IO[bytes], value: object) -> None:
    """Write a value for ``read``."""
    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    stream.write(len(data).to_bytes(_LENGTH_BYTES, "little"))
    stream.write(data)
    stream.flush()


class _Converter:
    """The process; it ends with its standard input, and with this process."""

    _there: ClassVar[subprocess.Popen[bytes] | None] = None
    _taken_bytes: ClassVar[int] = 0

    @classmethod
    def asked(cls, model: bytes) -> Converted:
        """The answer of the process that is there, or is started."""
        if cls._there is not None and cls._there.poll() is not None:
            cls.end()
        process = cls._there or cls._start()
        assert process.stdin is not None
        assert process.stdout is not None
        answer = None
        try:
            write(process.stdin, model)
            answer = read(process.stdout)
        except OSError:
            pass
        finally:
            cls._taken_bytes += len(model)
            if answer is None or cls._taken_bytes > _MOST_BYTES:  # what is left of one would be taken for the next
                cls.end()
        if answer is None:
            raise BackendError(
                f"ExecuTorch's converter ended with {process.returncode} and no answer; see that there is memory for "
                "it, and measure a smaller model"
            )
        if isinstance(answer, str):
            raise BackendError(answer)
        assert isinstance(answer, Converted)
        return answer

    @classmethod
    def _start(cls) -> subprocess.Popen[bytes]:
        cls._taken_bytes = 0
        cls._there = subprocess.Popen(
            (sys.executable, "-P", "-m", "nn_meter.backends.executorch.converting", str(os.getpid())),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        atexit.register(cls.end)
        return cls._there

    @classmethod
    def end(cls) -> None:
        """End the process where there is one."""
        process, cls._there = cls._there, None
        if process is not None:
            process.kill()
            with suppress(OSError):
                process.communicate()
