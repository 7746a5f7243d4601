"""What users register beside predictors: backends, operators, test cases and kernels of nn-Meter's builder.

A meta file (YAML, nn-Meter's keys) says where a class lies; registering copies what it says to
``registry.yaml`` in the data folder. Nothing is imported before it is asked for.

>>> register("operator", "meta.yaml").name  # doctest: +SKIP
'swish'
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nn_meter.errors import RegistrationError, StorageError
from nn_meter.settings import data_folder

_log = logging.getLogger(__name__)

_CLASS = ("package_location", "class_module", "class_name")


@dataclass(frozen=True, slots=True)
class _Kind:
    """``section`` of the registry; ``keys`` of the meta file, ``optional`` and ``files`` among them."""

    section: str
    keys: tuple[str, ...]
    optional: tuple[str, ...] = ()
    files: tuple[str, ...] = ("package_location",)
    per_implement: bool = False


KINDS: Mapping[str, _Kind] = MappingProxyType(
    {
        "backend": _Kind(
            "backends",
            (*_CLASS, "defaultConfigFile"),
            ("defaultConfigFile",),
            ("package_location", "defaultConfigFile"),
        ),
        "operator": _Kind("operators", _CLASS, per_implement=True),
        "testcase": _Kind("testcases", _CLASS, per_implement=True),
        "kernel": _Kind(
            "kernels",
            (*_CLASS, "implement", "sampler_module", "sampler_name", "parser_module", "parser_name"),
        ),
    }
)
"""What can be registered, and nn-Meter's keys of its meta file beside ``builtin_name``. Where the table says
``per_implement``, one name may be registered once for each ``implement``."""


@dataclass(frozen=True, slots=True)
class Registered:
    """One entry: ``facts`` are the meta file's keys. ``implement`` is empty where the kind has none."""

    kind: str
    name: str
    facts: Mapping[str, str]
    implement: str = ""

    def load(self, role: str = "class") -> Any:
        """The class that is registered, or its ``"sampler"`` or ``"parser"``.

        Runs the code of the user's package; its folder is put on the import path.

        Raises:
            RegistrationError: it cannot be imported; says why.
        """
        module = self.facts[f"{role}_module"]
        name = self.facts["class_name" if role == "class" else f"{role}_name"]
        folder = self.facts["package_location"]
        if folder not in sys.path:
            sys.path.append(folder)
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError, SyntaxError) as error:
            raise RegistrationError(
                f"{self.kind} {self.name!r}: {module}.{name} cannot be loaded from {folder} ({error}); "
                "repair the package, or unregister it"
            ) from error


def registered(kind: str) -> tuple[Registered, ...]:
    """All entries of ``kind``: ``backend``, ``operator``, ``testcase`` or ``kernel``.

    Raises:
        RegistrationError: the registry is damaged.
    """
    section = _read().get(KINDS[kind].section) or {}
    if not KINDS[kind].per_implement:
        return tuple(Registered(kind, name, facts) for name, facts in section.items())
    return tuple(
        Registered(kind, name, facts, implement)
        for name, variants in section.items()
        for implement, facts in variants.items()
    )


def find(kind: str, name: str, implement: str = "") -> Registered | None:
    """The entry of that name, for that ``implement`` where one is given; ``None`` where there is none."""
    return next(
        (each for each in registered(kind) if each.name == name and implement in ("", each.implement)), None
    )


def register(kind: str, meta_path: Path | str) -> Registered:
    """Register what the meta file describes; an entry of the same name is replaced.

    Relative paths in it count from the meta file's folder. The class is loaded once, as a check.

    Raises:
        RegistrationError: the meta file cannot be used, a path does not exist, or the class cannot be loaded.
        StorageError: the data folder cannot be written.
    """
    entry = _read_meta(kind, Path(meta_path))
    entry.load()
    for role in ("sampler", "parser"):
        if f"{role}_module" in entry.facts:
            entry.load(role)
    with _changing() as modules:
        section = modules.setdefault(KINDS[kind].section, {})
        if entry.implement:
            section.setdefault(entry.name, {})[entry.implement] = dict(entry.facts)
        else:
            section[entry.name] = dict(entry.facts)
    _log.info("registered the %s %s", kind, entry.name)
    return entry


def unregister(kind: str, name: str, implement: str = "") -> None:
    """Forget the entry; of an operator or test case, the one for ``implement``, or all where none is given.

    Raises:
        RegistrationError: nothing of that name is registered; names those that are.
        StorageError: the data folder cannot be written.
    """
    with _changing() as modules:
        section = modules.get(KINDS[kind].section) or {}
        if name not in section or (implement and implement not in section[name]):
            asked = f"{name!r} for {implement}" if implement else repr(name)
            known = ", ".join(section) or "none"
            raise RegistrationError(f"no {kind} {asked} is registered; registered {kind}s: {known}")
        if implement:
            del section[name][implement]
        if not implement or not section[name]:
            del section[name]
    _log.info("unregistered the %s %s", kind, name)


def _read_meta(kind: str, path: Path) -> Registered:
    row = KINDS[kind]
    values = _parsed(path, "the meta file")
    needed = ("builtin_name", *(("implement",) if row.per_implement else ()), *row.keys)
    for key in needed:
        value = values.get(key)
        if value is None and key in row.optional:
            continue
        if not isinstance(value, str) or not value:
            raise RegistrationError(
                f"{path}: the key {key!r} of the {kind} is {'missing' if value is None else f'{value!r}'}; "
                f"give a text for each of {', '.join(needed)}"
            )
    facts = {key: values[key] for key in row.keys if values.get(key) is not None}
    for key in row.files:
        if key in facts:
            place = path.parent.absolute() / Path(facts[key]).expanduser()
            if not place.exists():
                raise RegistrationError(f"{path}: {key} is {facts[key]!r}, but {place} does not exist")
            facts[key] = str(place)
    implement = values["implement"] if row.per_implement else ""
    return Registered(kind, values["builtin_name"], MappingProxyType(facts), implement)


def _parsed(path: Path, what: str) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(path.read_bytes())
    except OSError as e:
        raise RegistrationError(f"{path}: {what} cannot be read ({e.strerror or e})") from e
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        raise RegistrationError(f"{path}: {what} is not YAML ({e})") from e
    if not isinstance(values, dict):
        raise RegistrationError(f"{path}: {what} holds no keys")
    return values


def _file() -> Path:
    return data_folder() / "registry.yaml"


def _read() -> dict[str, Any]:
    path = _file()
    if not path.exists():
        return {}
    modules = _parsed(path, "the registry")
    for row in KINDS.values():
        section = modules.get(row.section) or {}
        entries = section.values() if isinstance(section, dict) else [None]
        if not all(isinstance(entry, dict) for entry in entries):
            raise RegistrationError(f"{path}: the section {row.section!r} is damaged; repair or delete it")
    return modules


@contextmanager
def _changing() -> Iterator[dict[str, Any]]:
    """The registry, to be changed in place; written whole at the end, one process at a time."""
    import yaml

    path = _file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (path.parent / ".registry.lock").open("a") as lock:
            _wait_for(lock.fileno())
            modules = _read()
            yield modules
            handle, stage = tempfile.mkstemp(prefix=".stage-", dir=path.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    yaml.safe_dump(modules, file)
                os.replace(stage, path)
            except BaseException:
                os.unlink(stage)
                raise
    except OSError as e:
        raise StorageError(
            f"{path}: cannot be written ({e.strerror or e}); free some space or allow writing there, "
            "or set NN_METER_HOME to another data folder"
        ) from e


def _wait_for(lock: int) -> None:
    """Hold ``lock`` until it is closed; where the system has no such locks, the last writer wins."""
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(lock, fcntl.LOCK_EX)
