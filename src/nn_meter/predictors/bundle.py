"""The bundle: a predictor as documented files. ``docs/bundle.md`` describes the format."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from nn_meter import limits
from nn_meter.errors import BundleError, StorageError
from nn_meter.limits import Limit
from nn_meter.predictors import onnx_1
from nn_meter.predictors.kind import KindPredictor, Target
from nn_meter.predictors.parts import CALL_MS_MOST, Fallback, Interval, LeftOut, read_fallback
from nn_meter.predictors.trees import TreeEnsemble
from nn_meter.storage import Archive, Fields, exists, parse_json, read_bytes, replacing, shown

FORMAT_VERSION = 1
MANIFEST = "bundle.json"
RULES = "fusion_rules.json"

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Bundle:
    """A predictor of one runtime on one device.

    ``rules`` is the parsed ``fusion_rules.json``. ``kinds`` may open a kind's file at first access.
    ``fallback`` says what a kernel without a predictor costs, ``interval`` how intervals were calibrated, ``call_ms``
    what every inference costs outside all kernels. ``statistic`` names what of the repeated measurements was learned
    ("median"). ``terms`` is what schema ``terms-1`` learns in place of kinds. ``path`` is where it lies.
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
    fallback: Fallback = field(default_factory=LeftOut)
    interval: Interval | None = None
    call_ms: float = 0.0
    notes: tuple[str, ...] = ()
    created: str = ""
    environment: Json = field(default_factory=dict)
    terms: Json = field(default_factory=dict)
    path: Path | None = None


_TEXTS = (
    "name", "version", "schema", "device", "category",
    "runtime", "runtime_version", "dtype", "statistic", "created",
)  # fmt: skip


_ADVICE = "the bundle is incomplete or damaged; fetch or build it again"


class _Files(Protocol):
    """A bundle's files by name, from a folder or from a zip."""

    where: str

    def read(self, name: str, limit: Limit = limits.FILE_BYTES) -> bytes: ...


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.where = str(path)

    def read(self, name: str, limit: Limit = limits.FILE_BYTES) -> bytes:
        parts = name.split("/")
        if not name or "\\" in name or ":" in name or any(part in ("", ".", "..") for part in parts):
            raise BundleError(
                f"{self.where}: the file name {shown(name)} leaves the bundle; the bundle is refused"
            )
        return read_bytes(self._path / name, "this file of the bundle", BundleError, _ADVICE, limit)


class _Zip:
    """A bundle that is a zip, or with ``folder`` one of several in a zip."""

    def __init__(self, stored: bytes, where: str, folder: str = "") -> None:
        self.where = where
        self._folder = f"{folder}/" if folder else ""
        self._archive = Archive(stored, where, BundleError, _ADVICE)

    @classmethod
    def at(cls, path: Path, folder: str = "") -> _Zip:
        """Of a file; read at once: the kinds' files are opened later, when another build may have replaced it."""
        stored = read_bytes(path, "the bundle", BundleError, limit=limits.ARCHIVE_BYTES)
        return cls(stored, str(path / folder), folder)

    def read(self, name: str, limit: Limit = limits.FILE_BYTES) -> bytes:
        return self._archive.read(f"{self._folder}{name}", limit)


class _Kinds(Mapping[str, KindPredictor]):
    """The kinds of a stored bundle, each opened and its sha256 checked at first access."""

    def __init__(self, files: _Files, entries: Mapping[str, Fields]) -> None:
        self._files = files
        self._entries = entries
        self._opened: dict[str, KindPredictor] = {}
        self._unpacked_bytes = 0

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

    def _open(self, kind: str, entry: Fields) -> KindPredictor:
        name = entry.text("file")
        stored = _checked(self._files, name, entry.text("sha256"))
        # arrays that unpack to more than they could need would take the memory before anything looks at them
        unpacked = Archive(stored, f"{self._files.where}: {name}", BundleError, _ADVICE).unpacked_bytes
        self._unpacked_bytes += unpacked  # in all, since kinds may share one file, and keep what they make of it
        limits.KINDS_BYTES.check(self._unpacked_bytes, f"{self._files.where}: up to {name}", BundleError)
        target = entry.text("target")
        if target not in ("latency_ms", "log_roofline_ratio"):
            entry.refuse("target", "'latency_ms' or 'log_roofline_ratio'")
        schema = entry.text("schema")
        if "categories" in entry.values:
            categories = entry.counts("categories")
        else:
            categories = onnx_1.codes(kind) if schema == onnx_1.SCHEMA else {}
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
                range_of=entry.ranges_by_name("range_of"),
            )
        except BundleError as e:
            if str(e).startswith(self._files.where):
                raise
            raise BundleError(f"{self._files.where}: {e}") from None


def _checked(files: _Files, name: str, sha256: str) -> bytes:
    stored = files.read(name)
    found = hashlib.sha256(stored).hexdigest()
    if found != sha256:
        raise BundleError(
            f"{files.where}: {name} has the sha256 {found[:12]}..., the manifest says {sha256[:12]}...; "
            "the file was changed or damaged, fetch or build the bundle again"
        )
    return stored


def _object(files: _Files, name: str, sha256: str | None = None) -> Fields:
    stored = files.read(name, limits.TEXT_BYTES) if sha256 is None else _checked(files, name, sha256)
    where = f"{files.where}: {name}"
    return Fields(parse_json(stored, where, BundleError, _ADVICE), where, BundleError)


def load(path: Path | str) -> Bundle:
    """Open the bundle at ``path``: a folder, a ``.zip``, or a folder inside a zip of several.

    The kinds' files are opened when first asked for.

    Raises:
        BundleError: no bundle, one of a newer format, or a broken one; names the file and the key.
    """
    path = Path(path)
    files: _Files
    if path.parent.suffix == ".zip" and os.path.isfile(path.parent):
        files = _Zip.at(path.parent, path.name)
    elif not exists(path):
        raise BundleError(f"{path}: no such file or folder")
    else:
        files = _Folder(path) if path.is_dir() else _Zip.at(path)
    return _read(files, path)


def unpack(stored: bytes, where: str) -> Bundle:
    """The bundle that :func:`pack` made bytes of; ``where`` names it in errors.

    Raises:
        BundleError: as of :func:`load`.
    """
    return _read(_Zip(stored, where), None)


def _read(files: _Files, path: Path | None) -> Bundle:
    top = _object(files, MANIFEST)
    version = top.whole("format_version")
    if version > FORMAT_VERSION:
        raise BundleError(
            f"{top.where}: written in format version {version}, this nn-meter reads up to {FORMAT_VERSION}; "
            "upgrade with: pip install -U nn-meter"
        )
    if top.values.get("unit") != "ms":
        top.refuse("unit", "'ms'")
    rules = top.inner("rules")
    kinds = top.inner("kinds")
    limits.BUNDLE_KINDS.check(len(kinds.values), top.where, BundleError)
    return Bundle(
        **{name: top.text(name) for name in _TEXTS},  # type: ignore[arg-type]
        threads=top.whole("threads"),
        rules=_object(files, rules.text("file"), rules.text("sha256")).values,
        kinds=_Kinds(files, {kind: kinds.inner(kind) for kind in kinds.values}),
        fallback=read_fallback(top.inner("fallback")),
        interval=None if top.values.get("interval") is None else Interval.read(top.inner("interval")),
        call_ms=top.number("call_ms", low=0.0, high=CALL_MS_MOST) if "call_ms" in top.values else 0.0,
        notes=top.texts("notes"),
        environment=_environment(top.inner("environment")),
        terms=top.inner("terms").values if "terms" in top.values else {},
        path=path,
    )


EVALUATED, ERRORS = "evaluated", "errors"
"""Keys of a bundle's ``environment``: how far whole models were found off, by family; the same by who fitted them."""

_RECKONED = ("probe_ms", "board_watts", "in_models")
_LEAST, _MOST = 1e-6, 1e9
"""What is reckoned with, and the numbers that it may be."""


def _environment(stored: Fields) -> Json:
    """The circumstances as they are, after a look at what is reckoned with."""
    given = {key for key, value in stored.values.items() if value not in (None, {})}
    for key in given.intersection(_RECKONED):
        stored.number(key, low=_LEAST, high=_MOST)
    for key in given.intersection((EVALUATED, ERRORS)):
        found = stored.inner(key)
        found.whole("models")
        families = found.inner("families") if "families" in found.values else None
        inner = [families.inner(family) for family in families.values] if families is not None else []
        for each in (found, *inner):
            each.number("median", low=0.0, high=_MOST)
            if each.values.get("bias") is not None:
                each.number("bias", low=-_MOST, high=_MOST)
        for each in inner:
            each.texts("models")
    if "left_out" in given:
        for key in ("mean", "log_low", "log_high"):
            stored.inner("left_out").number(key, low=-_MOST, high=_MOST)
    return stored.values


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
        StorageError: it cannot be written, or is a folder that holds something else; nothing is left half-written.
        BundleError: a kind whose file cannot be read or does not fit.
    """
    path = Path(path)
    files = _written(verify(bundle))
    zipped = path.suffix == ".zip"
    if not zipped and os.path.isdir(path) and not exists(path / MANIFEST) and os.listdir(path):
        raise StorageError(f"{path}: holds something else than a bundle, which would be lost; choose another place")
    with replacing(path, folder=not zipped) as stage:
        if zipped:
            stage.write_bytes(_zipped(files))
        else:
            for name, stored in files.items():
                (stage / name).parent.mkdir(parents=True, exist_ok=True)
                (stage / name).write_bytes(stored)


def pack(bundle: Bundle) -> bytes:
    """``bundle`` as the bytes of a zip; equal bundles give equal bytes.

    Raises:
        BundleError: a kind whose file cannot be read or does not fit.
    """
    return _zipped(_written(verify(bundle)))


def _zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, stored in files.items():
            archive.writestr(zipfile.ZipInfo(name), stored)
    return buffer.getvalue()


def _plain(ranges: Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]]) -> dict[str, Any]:
    return {column: {name: dict(narrow) for name, narrow in of.items()} for column, of in ranges.items()}


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
            **({"range_of": _plain(predictor.range_of)} if predictor.range_of else {}),
        }
    manifest = {
        "format_version": FORMAT_VERSION,
        **{name: getattr(bundle, name) for name in _TEXTS},
        "threads": bundle.threads,
        "unit": bundle.unit,
        "rules": {"file": RULES, "sha256": hashlib.sha256(rules).hexdigest()},
        "kinds": kinds,
        "fallback": bundle.fallback.written(),
        "interval": None if bundle.interval is None else bundle.interval.written(),
        **({"call_ms": bundle.call_ms} if bundle.call_ms else {}),
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
