"""Devices that were seen or given a name: one small file in the data folder, ``devices.json``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nn_meter.devices.device import Device
from nn_meter.errors import DeviceError
from nn_meter.settings import data_folder
from nn_meter.storage import Fields, exists, locked, plain_name, read_json, write

_ADVICE = "repair it, or remove it: it is made anew when a device is seen"


@dataclass(frozen=True, slots=True)
class Known:
    """A device by its address. ``name`` is what the user calls it, empty where nobody gave it one; the others are what
    it said of itself when it was seen last (``seen``, ISO 8601 in UTC), empty where it never was."""

    address: str
    name: str = ""
    processor: str = ""
    cores: int = 0
    system: str = ""
    seen: str = ""


def file() -> Path:
    """Where they are kept."""
    return data_folder() / "devices.json"


def known() -> tuple[Known, ...]:
    """All of them, in the order in which they came.

    Raises:
        DeviceError: the file is damaged.
    """
    path = file()
    if not exists(path):
        return ()
    rows = read_json(path, "the list of devices", DeviceError, _ADVICE)
    if not isinstance(rows, list):
        raise DeviceError(f"{path}: the list of devices must be a list, not a {type(rows).__name__}; {_ADVICE}")
    return tuple(_read(row, path) for row in rows)


def _read(row: object, path: Path) -> Known:
    stored = Fields(row, f"{path}: the list of devices", DeviceError, _ADVICE)
    texts = {each.name: stored.text(each.name, default="") for each in fields(Known) if each.name != "cores"}
    return Known(**texts, cores=stored.whole("cores") if "cores" in stored.values else 0)


def name(called: str, address: str) -> Known:
    """Give a device a name, in the place of its former one.

    Raises:
        DeviceError: another device has the name, or it is none.
        StorageError: it cannot be kept.
    """
    plain_name(called, "the device's name", DeviceError)
    with locked(file().with_suffix(".lock")):
        taken = next((each for each in known() if each.name == called and each.address != address), None)
        if taken is not None:
            raise DeviceError(
                f"{called!r} is {taken.address} already; choose another name, or first run nn-meter devices remove "
                f"{called}"
            )
        return _put(address, name=called)


def seen(address: str, device: Device) -> Known:
    """Note what a device said of itself just now.

    Raises:
        StorageError: it cannot be kept.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with locked(file().with_suffix(".lock")):
        return _put(
            address, processor=device.processor or device.name, cores=device.cores or 0, system=device.system, seen=now
        )


def forget(which: str) -> Known:
    """Take away a device, by its name or address.

    Raises:
        DeviceError: there is none; names those that there are.
        StorageError: the file cannot be written.
    """
    with locked(file().with_suffix(".lock")):
        rows = known()
        found = next((each for each in rows if which in (each.name, each.address)), None)
        if found is None:
            those = ", ".join(each.name or each.address for each in rows) or "none"
            raise DeviceError(f"no device {which!r} was seen or named; there are: {those}")
        _write([each for each in rows if each is not found])
    return found


def _put(address: str, **told: Any) -> Known:
    rows = {each.address: each for each in known()}
    rows[address] = replace(rows.get(address, Known(address)), **told)
    _write(rows.values())
    return rows[address]


def _write(rows: Iterable[Known]) -> None:
    write(file(), json.dumps([asdict(row) for row in rows], indent=2) + "\n")
