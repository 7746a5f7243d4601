"""Fetches a published predictor into the data folder, once, whatever else runs or breaks off."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import shutil
import stat
import sys
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from nn_meter.errors import DownloadError, PredictorError
from nn_meter.predictors.bundle import RULES, storage_error
from nn_meter.predictors.legacy import convert_folder

_log = logging.getLogger(__name__)

Progress = Callable[[int, int | None], None]

_TIMEOUT_S = 30
_CHUNK_BYTES = 1 << 16
_UNPACKED_BYTES_MAX = 2 << 30
_UNPACKED_RATIO_MAX = 200
_SMALL_BYTES = 16 << 20  # below this no ratio is suspicious


def fetch(url: str, meta: Mapping[str, Any], target: Path, progress: Progress | None = None) -> None:
    """Fetch the zip at ``url``, of ``<name>/<kernel>.pkl``, and convert it into the bundle ``target``.

    Processes that fetch at once wait for one another; whoever comes late finds the bundle there. The
    address, size and sha256 of the zip are kept in the bundle's ``environment``.

    Raises:
        DownloadError: the address cannot be reached, or broke off.
        PredictorError: the zip or a file in it is damaged, hostile or does not fit.
        StorageError: the data folder cannot be written.
    """
    with _locked(target.parent):
        if target.exists():
            return
        work = target.parent / ".fetching"  # ours alone under the lock, so one left by a killed run may go
        shutil.rmtree(work, ignore_errors=True)
        try:
            _log.info("fetching %s", url)
            folder = work / str(meta["name"])
            try:
                folder.mkdir(parents=True)
                archive = work / "fetched.zip"
                with archive.open("wb") as out:
                    source = _download(url, out, progress)
                _unpack(archive, str(meta["name"]), folder, url)
            except OSError as e:
                raise storage_error(target.parent, e) from e
            convert_folder(meta, folder, target, source)
        finally:
            shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process; the system lets go of it when the process ends, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as e:
        raise storage_error(folder, e) from e
    try:
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(handle, msvcrt.LK_LOCK, 1)
            else:
                import fcntl

                fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as e:
            raise storage_error(folder, e) from e
        yield
    finally:
        os.close(handle)


def _download(url: str, out: IO[bytes], progress: Progress | None) -> dict[str, Any]:
    """Copy the bytes at ``url`` to ``out``; returns where they came from."""
    digest, done = hashlib.sha256(), 0
    for chunk, total in _chunks(url):
        out.write(chunk)
        digest.update(chunk)
        done += len(chunk)
        if progress is not None:
            progress(done, total)
    return {"fetched_from": url, "fetched_bytes": done, "fetched_sha256": digest.hexdigest()}


def _chunks(url: str) -> Iterator[tuple[bytes, int | None]]:
    """The bytes at ``url`` piece by piece, each with the size of the whole where the server tells it."""
    done = 0
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
            while chunk := response.read(_CHUNK_BYTES):
                done += len(chunk)
                yield chunk, total
    except (OSError, http.client.HTTPException, ValueError) as e:
        raise _unfetched(url, e) from e
    if total is not None and done != total:
        raise _unfetched(url, f"it broke off after {done} of {total} bytes")


def _unfetched(url: str, why: object) -> DownloadError:
    return DownloadError(
        f"{url}: cannot be fetched ({why}); try again, or set NN_METER_MIRROR to an address that holds the "
        "same files, or fetch the zip yourself, unpack it and run: nn-meter register --predictor META.yaml"
    )


def _unpack(archive: Path, name: str, folder: Path, url: str) -> None:
    """Write the pickles and rules of ``<name>/`` into ``folder``; every entry must be harmless."""
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
            for entry in entries:
                _check_entry(entry, url)
            unpacked, packed = sum(entry.file_size for entry in entries), archive.stat().st_size
            if unpacked > min(_UNPACKED_BYTES_MAX, max(_UNPACKED_RATIO_MAX * packed, _SMALL_BYTES)):
                raise PredictorError(
                    f"{url}: {packed} bytes claim to unpack to {unpacked}; the zip is refused"
                )
            for entry in entries:
                parent, _, file = entry.filename.rpartition("/")
                if parent == name and (file.endswith(".pkl") or file == RULES):
                    with opened.open(entry) as packed_file, (folder / file).open("wb") as out:
                        shutil.copyfileobj(packed_file, out)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as e:
        raise PredictorError(
            f"{url}: no zip that can be read ({e}); does the mirror serve another file?"
        ) from e


def _check_entry(entry: zipfile.ZipInfo, url: str) -> None:
    path = entry.filename
    if path.startswith("/") or "\\" in path or ":" in path or ".." in path.split("/"):
        raise PredictorError(f"{url}: the entry {path!r} leaves the zip's folder; the zip is refused")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise PredictorError(f"{url}: the entry {path!r} is a link; the zip is refused")
