"""Paths, what is written to them, and who holds them."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import sleep, time

from nn_meter.errors import NnMeterError, StorageError
from nn_meter.settings import data_folder

_POLL_S = 0.05

_STAGE = ".nn-meter-stage-"
_LEFT_S = 86_400.0
"""What is this old and was not yet put in its place is nobody's any more: its process was killed."""


def reason(error: Exception) -> str:
    """What the system says of ``error``, without the path, which messages begin with."""
    return getattr(error, "strerror", None) or str(error)


def exists(path: Path | str) -> bool:
    """Whether ``path`` is there; ``False`` also for what no path can be, too long or with a NUL."""
    try:
        return os.path.exists(path)
    except (OSError, ValueError):
        return False


def expanded(path: Path | str, where: str, error: type[NnMeterError]) -> Path:
    """``path`` with the home folder in place of a leading ``~``; ``where`` says who names it.

    Raises:
        error: there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as e:
        raise error(f"{where}: {os.fspath(path)!r} names the home of no user here; write the path in full") from e


def unwritable(path: Path, error: OSError) -> StorageError:
    """What to say when ``path`` cannot be written."""
    ours = path.absolute().is_relative_to(data_folder().absolute())
    advice = "set NN_METER_HOME to another data folder" if ours else "choose another place"
    return StorageError(
        f"{path}: cannot be written ({reason(error)}); free some space or allow writing there, or {advice}"
    )


@contextmanager
def replacing(target: Path, *, folder: bool = False) -> Iterator[Path]:
    """A place beside ``target`` to write to; it becomes ``target`` whole at the end, or goes without a trace.

    The place is a file to be made or, for a ``folder``, a fresh one. Folders above ``target`` are made. A file
    takes the place of no folder: that may hold what nobody meant to lose.

    Raises:
        StorageError: the place cannot be made, written or renamed.
    """
    try:
        if "\0" in str(target):
            raise ValueError("a path holds no NUL")
        if not folder and target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target.parent)
        holder = Path(tempfile.mkdtemp(prefix=_STAGE, dir=target.parent))
    except (OSError, ValueError) as e:
        raise unwritable(target, _as_os_error(e)) from e
    stage, old = holder / "new", holder / "old"
    try:
        if folder:
            stage.mkdir()
        yield stage
        if target.is_dir() and not target.is_symlink():
            os.replace(target, old)  # a full folder cannot be replaced, only moved aside
        try:
            os.replace(stage, target)
        except OSError:
            if old.exists():
                os.replace(old, target)
            raise
    except OSError as e:
        raise unwritable(target, e) from e
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def _sweep(folder: Path) -> None:
    for each in folder.glob(f"{_STAGE}*"):
        with suppress(OSError):
            if time() - each.stat().st_mtime > _LEFT_S:
                shutil.rmtree(each)


def write(path: Path | str, content: str | bytes) -> None:
    """Write a file whole or not at all; text as UTF-8. Links are followed, and what is no file, as ``/dev/stdout``, is
    written to as it is.

    Raises:
        StorageError: it cannot be written.
    """
    stored = content.encode() if isinstance(content, str) else content
    try:
        target = Path(os.path.realpath(path))
        if target.is_char_device() or target.is_fifo():
            target.write_bytes(stored)
            return
    except (OSError, ValueError) as e:
        raise unwritable(Path(path), _as_os_error(e)) from e
    with replacing(target) as stage:
        stage.write_bytes(stored)


@contextmanager
def locked(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock file ``path`` for this process, waiting for whoever holds it.

    ``waiting`` is called again and again meanwhile, and may raise. The system lets go of the lock when the process
    ends, however it ends; the file stays, since taking it away would let two processes hold two files of one name.

    Raises:
        StorageError: the file cannot be made, or the file system has no locks.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as e:
        raise unwritable(path, e) from e
    try:
        try:
            while not _taken(handle):
                if waiting is not None:
                    waiting()
                sleep(_POLL_S)
        except OSError as e:
            raise unwritable(path, e) from e
        yield
    finally:
        os.close(handle)


def _taken(handle: int) -> bool:
    """Whether the lock is ours now; it is freed when the last handle of this opening is closed."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _as_os_error(error: Exception) -> OSError:
    return error if isinstance(error, OSError) else OSError(str(error))
