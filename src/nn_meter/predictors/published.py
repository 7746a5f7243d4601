"""Fetches a published predictor into the data folder, once, whatever else runs or breaks off."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nn_meter.errors import DownloadError, PredictorError
from nn_meter.predictors.bundle import RULES
from nn_meter.predictors.legacy import convert_folder
from nn_meter.progress import Progress
from nn_meter.storage import (
    Archive,
    Fetched,
    Fields,
    download,
    exists,
    locked,
    read_json,
    shown,
    unwritable,
    write,
)

_log = logging.getLogger(__name__)

CHECKSUMS = "sha256.json"
"""In the folder of what was fetched: file's name to sha256."""

_ADVICE = (
    "try again, or set NN_METER_MIRROR to an address that holds the same files, or fetch the zip yourself, unpack it "
    "and run: nn-meter register --predictor META.yaml"
)


def fetch(url: str, meta: Mapping[str, Any], target: Path, progress: Progress | None = None) -> None:
    """Fetch the zip at ``url``, of ``<name>/<kernel>.pkl``, and convert it into the bundle ``target``.

    Processes that fetch at once wait for one another; whoever comes late finds the bundle there. The
    address, size and sha256 of the zip are kept in the bundle's ``environment``; the sha256 beside it as well, and
    another zip of that name is refused from then on.

    Raises:
        DownloadError: the address cannot be reached, broke off, or gave another file than the first time.
        PredictorError: the zip or a file in it is damaged, hostile or does not fit.
        StorageError: the data folder cannot be written.
    """

    told = False

    def waiting() -> None:
        nonlocal told
        if not told:
            told = True
            _log.warning("another process fetches into %s; waiting for it", target.parent)
        if progress is not None:
            progress(0, None, None, "waiting for another process that fetches")

    with locked(target.parent / ".lock", waiting):
        if exists(target):
            return
        work = target.parent / ".fetching"  # ours alone under the lock, so one left by a killed run may go
        shutil.rmtree(work, ignore_errors=True)
        try:
            _log.info("fetching %s", url)
            folder = work / str(meta["name"])
            try:
                folder.mkdir(parents=True)
            except OSError as e:
                raise unwritable(target.parent, e) from e
            fetched = download(url, work / "fetched.zip", _ADVICE, progress)
            _check(target.parent / CHECKSUMS, f"{meta['name']}.zip", fetched)
            _unpack(work / "fetched.zip", str(meta["name"]), folder, url)
            source = {
                "fetched_from": url, "fetched_bytes": fetched.size_bytes, "fetched_sha256": fetched.sha256
            }  # fmt: skip
            convert_folder(meta, folder, target, source)
            _keep(target.parent / CHECKSUMS, f"{meta['name']}.zip", fetched)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _known(path: Path) -> dict[str, Any]:
    if not exists(path):
        return {}
    advice = "delete the file to trust what is fetched next"
    known = read_json(path, "the checksums of what was fetched", DownloadError, advice)
    return Fields(known, str(path), DownloadError, advice).values


def _check(path: Path, name: str, fetched: Fetched) -> None:
    """Refuse a file that is not the one that was fetched under this name before, from whatever address."""
    known = _known(path).get(name, fetched.sha256)
    if known != fetched.sha256:
        raise DownloadError(
            f"{fetched.url}: {name} has the sha256 {fetched.sha256}, the one fetched before had {shown(known)}; one of "
            f"them was altered. If you trust this one, take the line out of {path}"
        )


def _keep(path: Path, name: str, fetched: Fetched) -> None:
    write(path, json.dumps({**_known(path), name: fetched.sha256}, indent=1) + "\n")


def _unpack(packed: Path, name: str, folder: Path, url: str) -> None:
    """Write the pickles and rules of ``<name>/`` into ``folder``."""
    with Archive(packed, url, PredictorError, "does the mirror serve another file?") as archive:
        for entry in archive.names:
            parent, _, file = entry.rpartition("/")
            if parent == name and (file.endswith(".pkl") or file == RULES):
                stored = archive.read(entry)
                try:
                    (folder / file).write_bytes(stored)
                except OSError as e:
                    raise unwritable(folder / file, e) from e
