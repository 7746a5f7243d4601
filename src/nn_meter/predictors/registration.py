"""Registers the user's predictors, from nn-Meter's meta files, and forgets them again.

The data folder is the registry: one bundle per name and version, each put in place in one step, so that
processes that register at once cannot undo one another.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path

from nn_meter.errors import RegistrationError, UnknownPredictorError
from nn_meter.predictors.bundle import MANIFEST, Bundle, load, save
from nn_meter.predictors.catalogue import PredictorInfo, info, pick, registered, stored_path
from nn_meter.predictors.legacy import convert_folder
from nn_meter.storage import Fields, exists, expanded, plain_name, read_yaml, unwritable

_log = logging.getLogger(__name__)

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
    """Register the predictor that the meta file describes: nn-Meter's pickles, converted once, or a bundle. A bundle's
    folder or zip does for a meta file.

    A relative ``package_location`` counts from the meta file's folder, else from the working folder. One of
    the same name and version is replaced; the answer's ``replaced`` says so.

    Raises:
        RegistrationError: the meta file cannot be used; names the key.
        PredictorError: a file of the predictor is missing, damaged, hostile or does not fit.
        StorageError: the data folder cannot be written.
    """
    given = Path(meta_path)
    if os.path.isdir(given) or given.suffix.lower() == ".zip":
        return register_bundle(load(given))
    meta = _read_meta(given)
    target = stored_path("registered", meta.name, meta.version)
    replaced = exists(target)
    if meta.package.suffix == ".zip" or exists(meta.package / MANIFEST):
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
        RegistrationError: its name or version cannot be part of a file's name.
        StorageError: the data folder cannot be written.
    """
    target = stored_path("registered", bundle.name, bundle.version)
    replaced = exists(target)
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
            raise unwritable(Path(each.location), e) from e
    return gone


def _read_meta(path: Path) -> _Meta:
    advice = f"a meta file says: {_EXAMPLE}"
    stored = read_yaml(path, "the meta file", RegistrationError, advice)
    meta = Fields(stored, f"{path}: the meta file", RegistrationError, advice)
    kernels = meta.texts("kernel_predictors", "a list of kernels such as conv-bn-relu", [])
    for kernel in kernels:
        plain_name(kernel, f"{path}: 'kernel_predictors':", RegistrationError)
    version = meta.take("version", (str, int, float), "a version such as 1.0")
    return _Meta(
        name=plain_name(meta.text("name", "a name"), f"{path}: 'name':", RegistrationError),
        version=plain_name(str(version), f"{path}: 'version':", RegistrationError),
        category=meta.text("category", "a category such as cpu", ""),
        package=_package(path, meta.text("package_location", "the predictor's folder"), meta),
        kernel_predictors=kernels,
    )


def _package(path: Path, location: str, meta: Fields) -> Path:
    given = expanded(location, str(path), RegistrationError)
    for place in (path.parent / given, given):  # an absolute location is itself, joined or not
        if exists(place) and (place.is_dir() or place.suffix == ".zip"):
            return place
    return meta.refuse("package_location", "a folder or bundle, from the meta file's folder or the working folder")
