"""Fetches a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from nn_meter import limits
from nn_meter.errors import DownloadError
from nn_meter.progress import Progress
from nn_meter.storage.files import reason, unwritable

_SILENCE_S = 30
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Fetched:
    """Where a file came from, its bytes and their sha256 in hexadecimal digits."""

    url: str
    size_bytes: int
    sha256: str


def download(url: str, to: Path, advice: str, progress: Progress | None = None) -> Fetched:
    """Write the bytes at ``url`` to the file ``to``; one that is there is begun anew.

    Args:
        advice: what to do where it cannot be fetched.
        progress: hears of bytes after each piece.

    Raises:
        DownloadError: the address cannot be reached, breaks off, is too slow or sends too much.
        StorageError: ``to`` cannot be written.
    """
    digest, done, begin = hashlib.sha256(), 0, monotonic()
    try:
        with to.open("wb") as out:
            for chunk, total in _chunks(url, advice):
                out.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                if progress is not None:
                    rate = done / max(monotonic() - begin, 1e-9)
                    eta_s = None if total is None else max(total - done, 0) / rate
                    progress(done, total, eta_s, f"{done / 1e6:.1f} MB")
    except OSError as e:
        raise unwritable(to, e) from e
    return Fetched(url, done, digest.hexdigest())


def _chunks(url: str, advice: str) -> Iterator[tuple[bytes, int | None]]:
    """The bytes at ``url`` piece by piece, each with the size of the whole where the server tells it."""
    import http.client  # with what it imports a fifth of the time that the command takes to start

    from nn_meter.storage._http import opened

    def failure(why: str) -> DownloadError:
        return DownloadError(f"{url}: cannot be fetched ({why}); {advice}")

    done, begin = 0, monotonic()
    try:
        with opened(url, _SILENCE_S) as response:
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isascii() and length.isdigit() and len(length) < 20 else None
            limits.DOWNLOAD_BYTES.check(total or 0, url, DownloadError)
            while chunk := response.read1(_CHUNK_BYTES):  # read() would wait until so many bytes are there
                done += len(chunk)
                limits.DOWNLOAD_BYTES.check(done, url, DownloadError)
                taken_s = monotonic() - begin
                allowed_s = limits.DOWNLOAD_START_S + done / limits.DOWNLOAD_BYTES_PER_S
                if taken_s > min(allowed_s, limits.DOWNLOAD_S):
                    raise failure(f"after {taken_s:.0f} s there are {done:,} bytes, which is too slow")
                yield chunk, total
    except (OSError, http.client.HTTPException, ValueError) as e:
        raise failure(reason(e)) from e
    if total is not None and done != total:
        raise failure(f"it broke off after {done} of {total} bytes")
