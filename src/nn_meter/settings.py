"""Switches of the environment, read when asked for; nothing is created here."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from nn_meter.errors import StorageError

DEVICE = "NN_METER_DEVICE"
"""The variable by which a link tells its worker which device it stands for, where the worker does not run there."""

PUBLISHED = "https://github.com/microsoft/nn-Meter/releases/download/v1.0-data"


_LONGEST = "x" * 250
"""Files of the data folder have no longer names below it."""


def data_folder() -> Path:
    """Where registered and fetched predictors live: ``NN_METER_HOME``, else the user's data folder.

    Raises:
        StorageError: ``NN_METER_HOME`` begins with ``~`` and a user that there is not, or is no path of this system.
    """
    home = os.environ.get("NN_METER_HOME")
    try:
        folder = Path(home).expanduser() if home else platformdirs.user_data_path("nn-meter")
        os.stat(folder / _LONGEST)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return folder
    except (OSError, ValueError) as e:
        said = f"{home!r:.200} ({getattr(e, 'strerror', None) or e})"
        raise StorageError(f"NN_METER_HOME is {said}, which no folder can be; set it to another data folder") from e
    except RuntimeError as e:
        raise StorageError(
            f"NN_METER_HOME is {home!r}, which names the home of no user here; write the folder in full"
        ) from e
    return folder


def predictor() -> str:
    """The predictor that answers where none is named: ``NN_METER_PREDICTOR``, a name or a path; empty if unset."""
    return os.environ.get("NN_METER_PREDICTOR", "")


def mirror() -> str:
    """Base address of the published predictors: ``NN_METER_MIRROR``, else nn-Meter's release page."""
    return (os.environ.get("NN_METER_MIRROR") or PUBLISHED).rstrip("/")


def device() -> str:
    """The address of the device that this process stands for (``NN_METER_DEVICE``, set by the link that started it);
    empty where it is this machine."""
    return os.environ.get(DEVICE, "")
