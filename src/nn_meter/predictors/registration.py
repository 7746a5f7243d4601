"""Registers the user's predictors, from nn-Meter's meta files, and forgets them again.

The data folder is the registry: one bundle per name and version, each put in place in one step, so that
processes that register at once cannot undo one another.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nn_meter.errors import RegistrationError, UnknownPredictorError
from nn_meter.predictors.bundle import MANIFEST, Bundle, load, save, storage_error
from nn_meter.predictors.catalogue import PredictorInfo, info, pick, registered, stored_path
from nn_meter.predictors.legacy import convert_folder

_log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
_EXAMPLE = (
    "name: my_cpu, version: 1.0, category: cpu, package_location: FOLDER, kernel_predictors: [conv-bn-relu]"
)


@dataclass(frozen=True, slots=True)
class _Meta:
    """What a meta file says; ``package`` is a folder of pickles, a bundle's folder or its zip."""

    name: str
    version: str
    category: str
    package: Path
    kernel_predictors: tuple[str, ...]


def register(meta_path: Path | str) -> PredictorInfo:
    """Register the predictor that the meta file describes: nn-Meter's pickles, converted once, or a bundle.

    A relative ``package_location`` counts from the meta file's folder, else from the working folder. One of
    the same name and version is replaced; the answer's ``replaced`` says so.

    Raises:
        RegistrationError: the meta file cannot be used; names the key.
        PredictorError: a file of the predictor is missing, damaged, hostile or does not fit.
        StorageError: the data folder cannot be written.
    """
    meta = _read_meta(Path(meta_path))
    target = stored_path("registered", meta.name, meta.version)
    replaced = target.exists()
    if meta.package.suffix == ".zip" or (meta.package / MANIFEST).exists():
        bundle = load(meta.package)
        category = meta.category or bundle.category
        save(replace(bundle, name=meta.name, version=meta.version, category=category), target)
    else:
        facts = {
            "name": meta.name,
            "version": meta.version,
            "category": meta.category,
            "kernel_predictors": meta.kernel_predictors,
        }
        convert_folder(facts, meta.package, target)
    _log.info("%s %s, version %s", "replaced" if replaced else "registered", meta.name, meta.version)
    return info(load(target), "registered", replaced=replaced)


def register_bundle(bundle: Bundle) -> PredictorInfo:
    """Register a bundle that was just built; one of the same name and version is replaced.

    Raises:
        StorageError: the data folder cannot be written.
    """
    target = stored_path("registered", bundle.name, bundle.version)
    replaced = target.exists()
    save(bundle, target)
    return info(load(target), "registered", replaced=replaced)


def unregister(name: str, version: str | float | None = None) -> list[PredictorInfo]:
    """Forget the registered predictor ``name``, all versions where none is given; returns what was forgotten.

    Raises:
        UnknownPredictorError: none of that name or version is registered.
        StorageError: the data folder cannot be written.
    """
    try:
        gone = pick(list(registered()), name, version)
    except UnknownPredictorError as e:
        raise UnknownPredictorError(f"{e}. Only registered predictors can be unregistered") from None
    for each in gone:
        try:
            Path(each.location).unlink(missing_ok=True)
        except OSError as e:
            raise storage_error(Path(each.location), e) from e
    return gone


def _read_meta(path: Path) -> _Meta:
    import yaml

    try:
        values = yaml.safe_load(path.read_bytes())
    except OSError as e:
        raise RegistrationError(f"{path}: the meta file cannot be read ({e.strerror or e})") from e
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        raise RegistrationError(f"{path}: the meta file is not YAML ({e}); it should say: {_EXAMPLE}") from e
    if not isinstance(values, dict):
        raise RegistrationError(f"{path}: the meta file holds no keys; it should say: {_EXAMPLE}")
    name = _taken(path, values, "name", str, "a name")
    if not _NAME.fullmatch(name):
        raise _wrong(path, "name", name, "letters, digits and _ . + - only")
    version = str(_taken(path, values, "version", (str, int, float), "a version such as 1.0"))
    if not _NAME.fullmatch(version):
        raise _wrong(path, "version", version, "a version such as 1.0")
    kernels = _taken(path, values, "kernel_predictors", list, "a list of kernels", [])
    if not all(isinstance(kernel, str) and _NAME.fullmatch(kernel) for kernel in kernels):
        raise _wrong(path, "kernel_predictors", kernels, "a list of kernels such as conv-bn-relu")
    return _Meta(
        name=name,
        version=version,
        category=_taken(path, values, "category", str, "a category such as cpu", ""),
        package=_package(path, _taken(path, values, "package_location", str, "the predictor's folder")),
        kernel_predictors=tuple(kernels),
    )


def _taken(
    path: Path,
    values: dict[Any, Any],
    key: str,
    kind: type | tuple[type, ...],
    wanted: str,
    default: Any = None,
) -> Any:
    value = values.get(key, default)
    if value is None:
        raise RegistrationError(f"{path}: the key {key!r} is missing; give {wanted}, as in: {_EXAMPLE}")
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _wrong(path, key, value, wanted)
    return value


def _wrong(path: Path, key: str, value: object, wanted: str) -> RegistrationError:
    return RegistrationError(f"{path}: {key!r} is {value!r}; give {wanted}")


def _package(path: Path, location: str) -> Path:
    places = [path.parent / location, Path(location)]  # an absolute location is itself, joined or not
    for place in places:
        if place.is_dir() or (place.suffix == ".zip" and place.exists()):
            return place
    raise RegistrationError(
        f"{path}: 'package_location' is {location!r}, but there is no folder or bundle at "
        f"{' or '.join(str(place) for place in dict.fromkeys(places))}; correct it"
    )
