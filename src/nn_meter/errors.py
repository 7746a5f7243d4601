"""Every error that nn-Meter raises on purpose.

Each message says what went wrong, where (file, node, kernel) and what to do about it.

::

    NnMeterError
    ├── InputError                 the user's input; the command line exits with 2
    │   ├── ModelError             a model that cannot be read
    │   │   ├── ModelFormatError   not a file of that format, or a damaged one
    │   │   ├── GraphError         a graph that is not one: cycles, missing tensors, missing shapes
    │   │   └── UnsupportedOperatorError
    │   ├── RuleError              a fusion-rule file that cannot be used
    │   ├── PredictorError         a predictor that is unknown, incomplete, damaged or refuses a kernel
    │   │   ├── UnknownPredictorError
    │   │   ├── BundleError        a bundle that breaks the file format
    │   │   └── UnsafePickleError  a pickle that asks for more than the arrays of a forest
    │   ├── RegistrationError      a meta file or registry that cannot be used
    │   ├── BackendError           a backend that is unknown or refuses a model
    │   ├── DeviceError            a device that no link leads to, or that refuses a program or a file
    │   └── BuildError             a build that cannot start or go on: budget, journal, data
    ├── MissingDependencyError     an optional package; the message holds the install line
    ├── MeasurementError           a measurement that crashed, hung or lost its device
    ├── StorageError               the data folder is full, read-only or locked
    └── DownloadError              a predictor that could not be fetched
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

_LONGEST, _KEPT = 10_000, 4_000


class NnMeterError(Exception):
    """Root of the tree; never raised itself. Of a message that repeats something endless the middle is left out."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text if len(text) <= _LONGEST else f"{text[:_KEPT]} ... {text[-_KEPT:]}")


class InputError(NnMeterError):
    """Something that the user handed over cannot be used."""


class ModelError(InputError):
    """A model cannot be read."""


class ModelFormatError(ModelError):
    """The bytes are not of the format, or are damaged."""


class GraphError(ModelError):
    """The model is no valid graph: a cycle, a missing tensor, a missing shape."""


class UnsupportedOperatorError(ModelError):
    """An operator that the front end has no row for."""


class RuleError(InputError):
    """A fusion-rule file cannot be used."""


class PredictorError(InputError):
    """A predictor cannot be used."""


class UnknownPredictorError(PredictorError):
    """No predictor of that name and version."""


class BundleError(PredictorError):
    """A bundle breaks its file format."""


class UnsafePickleError(PredictorError):
    """A pickle asks for something other than the node arrays of a forest."""


class RegistrationError(InputError):
    """A meta file or the registry cannot be used."""


class BackendError(InputError):
    """A backend is unknown, or refuses a model."""


class DeviceError(InputError):
    """No link leads to a device, or it refuses a program or a file."""


class BuildError(InputError):
    """A build cannot start or go on."""


class MissingDependencyError(NnMeterError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}; install it with: pip install 'nn-meter[{extra}]'"
        )
        self.package = package
        self.extra = extra
        self._purpose = purpose

    def __reduce__(self) -> tuple[type[MissingDependencyError], tuple[str, str, str]]:
        return MissingDependencyError, (self.package, self.extra, self._purpose)


def needed(module: str, package: str, extra: str, purpose: str) -> Any:
    """The module of an optional package.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependencyError(package, extra, purpose) from error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Of an error about an unknown name: which of ``known`` are like it, as ``did you mean a or b? ``; else nothing."""
    from difflib import get_close_matches

    near = get_close_matches(name, list(known))
    return f"did you mean {' or '.join(near)}? " if near else ""


class MeasurementError(NnMeterError):
    """A measurement crashed, hung or lost its device."""


class StorageError(NnMeterError):
    """The data folder cannot be written."""


class DownloadError(NnMeterError):
    """A file could not be fetched."""
