"""The bundle: a predictor as documented files. ``docs/bundle.md`` describes the format."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol, cast

from nn_meter.errors import BundleError, StorageError
from nn_meter.kernels.schema import SCHEMA
from nn_meter.predictors import onnx_1
from nn_meter.predictors.kind import KindPredictor, Target
from nn_meter.predictors.trees import TreeEnsemble

FORMAT_VERSION = 1
MANIFEST = "bundle.json"
RULES = "fusion_rules.json"
_FILE_BYTES_MAX = 1 << 30

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Bundle:
    """A predictor of one runtime on one device.

    ``rules`` is the parsed ``fusion_rules.json``. ``kinds`` may open a kind's file at first access.
    ``fallback`` says what a kernel without a predictor costs, ``interval`` how intervals were calibrated.
    ``statistic`` names what of the repeated measurements was learned ("median"). ``terms`` is what schema ``terms-1``
    learns in place of kinds. ``path`` is where it lies.
    """

    name: str
    version: str
    kinds: Mapping[str, KindPredictor]
    rules: Json
    schema: str
    device: str = ""
    category: str = ""
    runtime: str = ""
    runtime_version: str = ""
    threads: int = 1
    dtype: str = "float32"
    unit: Literal["ms"] = "ms"
    statistic: str = ""
    fallback: Json = field(default_factory=lambda: {"policy": "zero"})
    interval: Json | None = None
    notes: tuple[str, ...] = ()
    created: str = ""
    environment: Json = field(default_factory=dict)
    terms: Json = field(default_factory=dict)
    path: Path | None = None


_TEXTS = (
    "name", "version", "schema", "device", "category",
    "runtime", "runtime_version", "dtype", "statistic", "created",
)  # fmt: skip


_UNREADABLE = (
    KeyError, OSError, RuntimeError, NotImplementedError, EOFError, ValueError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def _missing(where: str, name: str, why: object) -> BundleError:
    return BundleError(f"{where}: cannot read {name} ({why}); the bundle is incomplete or damaged")


class _Files(Protocol):
    """A bundle's files by name, from a folder or from a zip."""

    where: str

    def read(self, name: str) -> bytes: ...


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.where = str(path)

    def read(self, name: str) -> bytes:
        try:
            return (self._path / _inside(name, self.where)).read_bytes()
        except OSError as e:
            raise _missing(self.where, name, e.strerror or e) from e


class _Zip:
    """A bundle that is a zip, or with ``folder`` one of several in a zip."""

    def __init__(self, path: Path, folder: str = "") -> None:
        self.where = str(path / folder)
        self._folder = f"{folder}/" if folder else ""
        try:
            self._archive = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
        except (OSError, zipfile.BadZipFile) as e:
            raise BundleError(f"{path}: neither a folder nor a zip that can be read ({e})") from e

    def read(self, name: str) -> bytes:
        try:
            info = self._archive.getinfo(self._folder + _inside(name, self.where))
            if info.file_size > _FILE_BYTES_MAX:
                raise BundleError(f"{self.where}: {name} claims {info.file_size} bytes; that is no bundle")
            return self._archive.read(info)
        except _UNREADABLE as e:
            raise _missing(self.where, name, e) from e


def _inside(name: str, where: str) -> str:
    parts = name.split("/")
    if not name or "\\" in name or ":" in name or any(part in ("", ".", "..") for part in parts):
        raise BundleError(f"{where}: the file name {name!r} leaves the bundle; the bundle is refused")
    return name


class _Kinds(Mapping[str, KindPredictor]):
    """The kinds of a stored bundle, each opened and its sha256 checked at first access."""

    def __init__(self, files: _Files, entries: Mapping[str, _Reader]) -> None:
        self._files = files
        self._entries = entries
        self._opened: dict[str, KindPredictor] = {}

    def __getitem__(self, kind: str) -> KindPredictor:
        if kind not in self._opened:
            self._opened[kind] = self._open(kind, self._entries[kind])
        return self._opened[kind]

    def __contains__(self, kind: object) -> bool:
        return kind in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def _open(self, kind: str, entry: _Reader) -> KindPredictor:
        name = entry.text("file")
        stored = _checked(self._files, name, entry.text("sha256"))
        target = entry.text("target")
        if target not in ("latency_ms", "log_roofline_ratio"):
            entry.refuse("target", target, "'latency_ms' or 'log_roofline_ratio'")
        schema = entry.text("schema")
        if "categories" in entry.values:
            categories = entry.counts("categories")
        else:
            categories = onnx_1.codes(kind) if schema == SCHEMA else {}
        try:
            return KindPredictor(
                kind=kind,
                schema=schema,
                columns=entry.texts("columns"),
                regressor=TreeEnsemble.load(io.BytesIO(stored), f"{self._files.where}: {name}"),
                target=cast(Target, target),
                trained_range=entry.ranges("trained_range"),
                rows=entry.whole("rows"),
                errors=entry.numbers("errors"),
                categories=categories,
                seen=entry.counts("seen"),
            )
        except BundleError as e:
            if str(e).startswith(self._files.where):
                raise
            raise BundleError(f"{self._files.where}: {e}") from None


class _Reader:
    """Takes typed values out of a JSON object; errors name the file and the key."""

    def __init__(self, where: str, values: object, key: str = "") -> None:
        self.where = where
        self._key = key
        if not isinstance(values, dict):
            raise BundleError(
                f"{where}: {key.rstrip('.') or 'it'} must be a JSON object, not {type(values).__name__}"
            )
        self.values: dict[str, Any] = values

    def refuse(self, key: str, value: object, wanted: str) -> None:
        raise BundleError(f"{self.where}: {self._key}{key} is {value!r}; it must be {wanted}")

    def text(self, key: str) -> str:
        value = self.values.get(key)
        if not isinstance(value, str):
            self.refuse(key, value, "a text")
        return cast(str, value)

    def whole(self, key: str) -> int:
        value = self.values.get(key)
        if not _is_count(value):
            self.refuse(key, value, "a whole number")
        return cast(int, value)

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.values.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.refuse(key, value, "a list of texts")
        return tuple(cast(list[str], value))

    def numbers(self, key: str) -> Mapping[str, float]:
        value = self.values.get(key)
        if not isinstance(value, dict) or not all(_is_number(item) for item in value.values()):
            self.refuse(key, value, "an object of numbers")
        return MappingProxyType({name: float(item) for name, item in cast(dict[str, Any], value).items()})

    def ranges(self, key: str) -> Mapping[str, tuple[float, float]]:
        value = self.values.get(key)
        if not isinstance(value, dict) or not all(map(_is_pair, value.values())):
            self.refuse(key, value, "an object of [lowest, highest]")
        pairs = cast(dict[str, Any], value).items()
        return MappingProxyType({name: (float(low), float(high)) for name, (low, high) in pairs})

    def counts(self, key: str) -> Mapping[str, Mapping[str, int]]:
        """Column to name to whole number; nothing where the key is absent."""
        value = self.values.get(key, {})
        if not isinstance(value, dict) or not all(
            isinstance(each, dict) and all(map(_is_count, each.values())) for each in value.values()
        ):
            self.refuse(key, value, "an object of objects of whole numbers")
        return MappingProxyType({name: MappingProxyType(each) for name, each in cast(dict[str, Any], value).items()})

    def inner(self, key: str) -> _Reader:
        return _Reader(self.where, self.values.get(key), f"{self._key}{key}.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


def _checked(files: _Files, name: str, sha256: str) -> bytes:
    stored = files.read(name)
    found = hashlib.sha256(stored).hexdigest()
    if found != sha256:
        raise BundleError(
            f"{files.where}: {name} has the sha256 {found[:12]}..., the manifest says {sha256[:12]}...; "
            "the file was changed or damaged, fetch or build the bundle again"
        )
    return stored


def _parsed(stored: bytes, where: str) -> Any:
    try:
        return json.loads(stored)
    except (ValueError, RecursionError) as e:
        raise BundleError(f"{where}: not JSON ({e})") from e


def load(path: Path | str) -> Bundle:
    """Open the bundle at ``path``: a folder, a ``.zip``, or a folder inside a zip of several.

    The kinds' files are opened when first asked for.

    Raises:
        BundleError: no bundle, one of a newer format, or a broken one; names the file and the key.
    """
    path = Path(path)
    files: _Files
    if path.parent.suffix == ".zip" and path.parent.is_file():
        files = _Zip(path.parent, path.name)
    elif not path.exists():
        raise BundleError(f"{path}: no such file or folder")
    else:
        files = _Folder(path) if path.is_dir() else _Zip(path)
    where = f"{files.where}: {MANIFEST}"
    top = _Reader(where, _parsed(files.read(MANIFEST), where))
    version = top.whole("format_version")
    if version > FORMAT_VERSION:
        raise BundleError(
            f"{where}: written in format version {version}, this nn-meter reads up to {FORMAT_VERSION}; "
            "upgrade with: pip install -U nn-meter"
        )
    if top.values.get("unit") != "ms":
        top.refuse("unit", top.values.get("unit"), "'ms'")
    rules = top.inner("rules")
    rules_file = rules.text("file")
    kinds = top.inner("kinds")
    return Bundle(
        **{name: top.text(name) for name in _TEXTS},  # type: ignore[arg-type]
        threads=top.whole("threads"),
        rules=_Reader(
            f"{files.where}: {rules_file}",
            _parsed(_checked(files, rules_file, rules.text("sha256")), f"{files.where}: {rules_file}"),
        ).values,
        kinds=_Kinds(files, {kind: kinds.inner(kind) for kind in kinds.values}),
        fallback=top.inner("fallback").values,
        interval=None if top.values.get("interval") is None else top.inner("interval").values,
        notes=top.texts("notes"),
        environment=top.inner("environment").values,
        terms=top.inner("terms").values if "terms" in top.values else {},
        path=path,
    )


def verify(bundle: Bundle) -> Bundle:
    """Return ``bundle`` if every file of it can be used, else raise: opens every kind.

    Raises:
        BundleError: a missing or changed file, columns or ranges that do not fit; names the file or kind.
    """
    for kind, predictor in bundle.kinds.items():
        if predictor.kind != kind:
            raise BundleError(f"{bundle.name}: the predictor of {predictor.kind!r} is filed under {kind!r}")
    return bundle


def save(bundle: Bundle, path: Path | str) -> None:
    """Write ``bundle`` to ``path``, a folder or, if the name ends so, a ``.zip``; replaces what lay there.

    Raises:
        StorageError: it cannot be written; nothing is left half-written.
        BundleError: a kind whose file cannot be read or does not fit.
    """
    path = Path(path)
    files = _written(verify(bundle))
    with staged(path) as stage:
        if path.suffix == ".zip":
            with zipfile.ZipFile(stage, "w") as archive:
                for name, stored in files.items():
                    archive.writestr(zipfile.ZipInfo(name), stored)
        else:
            for name, stored in files.items():
                (stage / name).parent.mkdir(parents=True, exist_ok=True)
                (stage / name).write_bytes(stored)


def _written(bundle: Bundle) -> dict[str, bytes]:
    rules = _dumped(bundle.rules)
    files = {RULES: rules}
    kinds: dict[str, Any] = {}
    for index, (kind, predictor) in enumerate(bundle.kinds.items()):
        name = f"kinds/{index:02d}.npz"
        files[name] = predictor.regressor.to_bytes()
        kinds[kind] = {
            "file": name,
            "sha256": hashlib.sha256(files[name]).hexdigest(),
            "schema": predictor.schema,
            "columns": predictor.columns,
            "target": predictor.target,
            "trained_range": dict(predictor.trained_range),
            "rows": predictor.rows,
            "errors": dict(predictor.errors),
            "categories": {column: dict(code) for column, code in predictor.categories.items()},
            "seen": {column: dict(count) for column, count in predictor.seen.items()},
        }
    manifest = {
        "format_version": FORMAT_VERSION,
        **{name: getattr(bundle, name) for name in _TEXTS},
        "threads": bundle.threads,
        "unit": bundle.unit,
        "rules": {"file": RULES, "sha256": hashlib.sha256(rules).hexdigest()},
        "kinds": kinds,
        "fallback": dict(bundle.fallback),
        "interval": None if bundle.interval is None else dict(bundle.interval),
        "notes": bundle.notes,
        "environment": dict(bundle.environment),
        **({"terms": dict(bundle.terms)} if bundle.terms else {}),
    }
    return {MANIFEST: _dumped(manifest), **files}


def _dumped(value: object) -> bytes:
    try:
        return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as e:
        raise BundleError(f"the bundle holds a value that JSON cannot: {e}") from e


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A place beside ``target`` to write to; it becomes ``target`` whole at the end, or goes without a trace.

    The place is a fresh folder, or a file if ``target``'s name ends in ``.zip`` or ``.json``.

    Raises:
        StorageError: the place cannot be made, written or renamed.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        holder = Path(tempfile.mkdtemp(prefix=".stage-", dir=target.parent))
    except OSError as e:
        raise storage_error(target.parent, e) from e
    try:
        stage = holder / "new"
        if target.suffix not in (".zip", ".json"):
            stage.mkdir()
        yield stage
        if target.is_dir() and not target.is_symlink():
            os.replace(target, holder / "old")  # a full folder cannot be replaced, only moved aside
        try:
            os.replace(stage, target)
        except OSError:
            if (holder / "old").exists():
                os.replace(holder / "old", target)
            raise
    except OSError as e:
        raise storage_error(target, e) from e
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def storage_error(path: Path, error: OSError) -> StorageError:
    """What to say when ``path`` cannot be written."""
    return StorageError(
        f"{path}: cannot be written ({error.strerror or error}); free some space or allow writing there, "
        "or set NN_METER_HOME to another data folder"
    )
