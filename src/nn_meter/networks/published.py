"""Measurements in tables: our own CSV forms, and what readers of published tables share. ``docs/measurements.md``.

Three forms, told apart by their first column: ``model`` (whole models), ``block`` (parts of models, each a model file
of its own), ``kind`` (single kernels; the further columns are the fields of that kind's config). Each has one column
``latency_ms``, ``latency_us`` or ``latency_s``. Columns of the circumstances may follow: ``device``, ``maker``,
``processors``, ``runtime``, ``runtime_version``, ``precision``, ``batch``, ``threads``, ``statistic``, ``source``,
``licence``, and ``family``. A row that cannot be used is left out, and said so by its line.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, cast

from nn_meter.devices.device import Device
from nn_meter.errors import BuildError
from nn_meter.kernels.kinds import KINDS
from nn_meter.kernels.partition import KernelConfig
from nn_meter.limits import FILE_BYTES, TABLE_ROWS
from nn_meter.measuring.measure import Measurement
from nn_meter.measuring.records import Circumstances, Record
from nn_meter.storage import legible, read_bytes, shown

UNITS: Mapping[str, float] = MappingProxyType({"latency_ms": 1.0, "latency_us": 1e-3, "latency_s": 1e3})
"""Columns of latencies, and how many milliseconds one of their units is."""

ABSURD_MS = (1e-5, 3.6e6)
"""Ten nanoseconds to an hour: nothing outside is a latency of a network or a kernel."""

_TEXTS = ("runtime", "runtime_version", "precision", "statistic", "source", "licence")
_NUMBERS = ("batch", "threads")
_DEVICE = {"device": "name", "maker": "maker", "processors": "processors"}
_FORMS = ("model", "block", "kind")

_LETTERS = 1000
"""Of more columns the first are named."""

_MOST_DIGITS = 12
"""Of a whole number: as many as the largest dimension that is read has."""


@dataclass(frozen=True, slots=True)
class Published:
    """What a table gave. ``left_out`` says of each row that was not used its line and why."""

    records: tuple[Record, ...]
    left_out: tuple[str, ...] = ()

    def __add__(self, other: Published) -> Published:
        return Published(self.records + other.records, self.left_out + other.left_out)


class RowError(ValueError):
    """A row that cannot be used; the text says why."""


_UNUSABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What comes of cells that hold something else than the reader takes them for."""


def read_csv(path: Path | str, circumstances: Circumstances | None = None) -> Published:
    """The records of a table in one of our forms, plain or gzipped.

    Args:
        circumstances: what holds where the table has no column for it.

    Raises:
        BuildError: no such file, no table, a column missing, unknown or twice, latencies in two units.
    """
    path = Path(path)
    given = circumstances or Circumstances(Device("unknown"), "unknown", statistic="median")
    header = header_of(path)
    form = next((each for each in _FORMS if each in header), None)
    if form is None:
        raise BuildError(f"{path}: no column 'model', 'block' or 'kind'; see docs/measurements.md for the forms")
    units = [name for name in UNITS if name in header]
    if len(units) != 1:
        found = f"latencies in {len(units)} units ({', '.join(units)})" if units else "no column of latencies"
        raise BuildError(f"{path}: {found}; give exactly one of {', '.join(UNITS)}")
    known = {form, units[0], "family", *_TEXTS, *_NUMBERS, *_DEVICE}
    if form != "kind" and (unknown := [name for name in header if name not in known]):
        raise BuildError(f"{path}: unknown column {_listed(unknown)}; known are {', '.join(sorted(known))}")

    def record(row: Mapping[str, str]) -> Record:
        around = _circumstances(row, given)
        latency_ms = plausible(number(row, units[0]) * UNITS[units[0]])
        if form == "kind":
            kind = row["kind"]
            one = Record.of_kernel(kind, _config(kind, row), latency_ms, around)
            return replace(one, family=row.get("family", ""))
        subject = row[form] or refuse(f"no {form}")
        return Record.of_model(subject, around, latency_ms, row.get("family") or Path(subject).stem)

    return read_rows(path, record)


_NOTED = {"device": "cpu", "runtime": "runtime", "runtime_version": "runtime_version", "threads": "threads"}
"""Column to what a measurement notes of its environment."""


def as_table(taken: Iterable[tuple[str, Measurement]]) -> str:
    """Models, as paths or names, and how long each took when all was quiet, as ``read_csv`` reads them."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("model", "latency_ms", *_NOTED, "statistic"))
    for model, each in taken:
        noted = (each.environment.get(name) for name in _NOTED.values())
        writer.writerow((model, each.quiet_ms, *noted, "quiet"))
    return out.getvalue()


def header_of(path: Path, needed: Iterable[str] = ()) -> list[str]:
    """Column names of a table.

    Raises:
        BuildError: it cannot be read, a column is named twice, or one of ``needed`` is missing.
    """
    with opened(path) as lines:
        header = [name.strip() for name in next(csv.reader(lines), [])]
    if twice := sorted(name for name, times in Counter(header).items() if times > 1):
        raise BuildError(f"{path}: column {_listed(twice)} is there twice")
    if missing := [name for name in needed if name not in header]:
        raise BuildError(f"{path}: column {', '.join(missing)} is missing; there are {_listed(header) or 'none'}")
    return header


def _listed(columns: Iterable[str]) -> str:
    return legible(", ".join(columns), _LETTERS)


@contextmanager
def opened(path: Path) -> Iterator[Iterable[str]]:
    """The lines of a table, gzipped or not.

    Raises:
        BuildError: it cannot be read, or holds too much.
    """
    stored = read_bytes(path, "the table", BuildError)
    try:
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=io.BytesIO(stored)) as file:
                stored = file.read(FILE_BYTES.most + 1)
            FILE_BYTES.check(len(stored), f"{path}, unpacked", BuildError)
        yield io.StringIO(stored.decode("utf-8-sig"), newline="")
    except (OSError, EOFError, ValueError, zlib.error, csv.Error) as error:
        raise BuildError(f"{path}: cannot be read as a table ({legible(str(error))})") from error


def read_rows(path: Path, record: Callable[[Mapping[str, str]], Record | None]) -> Published:
    """A record of each row; ``None`` passes one over, ``RowError`` leaves it out."""
    records: list[Record] = []
    left_out: list[str] = []
    for line, row in _numbered(path):
        TABLE_ROWS.check(len(records) + len(left_out) + 1, str(path), BuildError)
        try:
            found = record(row)
        except _UNUSABLE as error:
            left_out.append(f"{path.name}:{line}: {legible(str(error))}")
            continue
        if found is not None:
            records.append(found)
    return Published(tuple(records), tuple(left_out))


def _numbered(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    with opened(path) as lines:
        reader = csv.DictReader(lines, restval="")
        for row in reader:
            yield reader.line_num, {k.strip(): v.strip() for k, v in row.items() if isinstance(v, str)}


def refuse(why: str) -> NoReturn:
    """Raise ``RowError``."""
    raise RowError(why)


def number(row: Mapping[str, str], column: str) -> float:
    """A number of a row.

    Raises:
        RowError: it is none.
    """
    try:
        value = float(row[column])
    except ValueError:
        raise RowError(f"{column} is {row[column]!r}, no number") from None
    if not math.isfinite(value):
        refuse(f"{column} is {row[column]!r}")
    return value


def plausible(latency_ms: float) -> float:
    """The latency, if it can be one.

    Raises:
        RowError: negative, zero or absurd.
    """
    low, high = ABSURD_MS
    if latency_ms <= 0:
        refuse(f"a latency of {latency_ms:g} ms")
    if not low <= latency_ms <= high:
        refuse(f"a latency of {latency_ms:g} ms is absurd; is the unit right?")
    return latency_ms


def _circumstances(row: Mapping[str, str], given: Circumstances) -> Circumstances:
    stated: dict[str, Any] = {name: row[column] for column, name in _DEVICE.items() if row.get(column)}
    device = replace(given.device, **stated)
    texts = {name: row[name] for name in _TEXTS if row.get(name)}
    numbers = {name: whole(row[name], name) for name in _NUMBERS if row.get(name)}
    return replace(given, device=device, **texts, **numbers)  # type: ignore[arg-type]


def whole(text: str, what: str) -> int:
    """A whole number of at least 1.

    Raises:
        RowError: it is none.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS) or int(text) < 1:
        refuse(f"{what} is {shown(text)}, no whole number of at least 1 and {_MOST_DIGITS} digits at most")
    return int(text)


def _config(kind: str, row: Mapping[str, str]) -> KernelConfig:
    if kind not in KINDS:
        refuse(f"there is no kernel kind {kind!r}; there are {', '.join(KINDS)}")
    config = KINDS[kind].config
    values: dict[str, Any] = {}
    for each in fields(config):
        text = row.get(each.name, "")
        if not text and each.name not in _DEFAULTS:
            refuse(f"a {kind} needs {each.name}")
        values[each.name] = _value(text, str(each.type)) if text else _DEFAULTS[each.name]
    return cast(KernelConfig, config(**values))


_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {"n": 1, "batch": 1, "group": 1, "fused": (), "layout": "native", "dtype": "float32", "trans": (False, False),
     "weights": True, "dilations": (1, 1), "strides": (1, 1), "directions": 1, "inputs": 1, "last": False}
)  # fmt: skip


def _value(text: str, type_name: str) -> Any:
    """A field's value: ``3x3`` is a shape, ``relu+sum`` are names, ``yes`` is true."""
    if type_name == "Shape":
        return tuple(whole(part, "a size") for part in text.split("x"))
    if type_name.startswith("tuple[str"):
        return tuple(part for part in text.split("+") if part)
    if type_name.startswith("tuple[bool"):
        return tuple(part in ("yes", "true", "1") for part in text.split("+"))
    if type_name.startswith("tuple[tuple[bool"):
        return tuple(tuple(c == "1" for c in part) for part in text.split("+"))
    if type_name == "bool":
        return text.lower() in ("yes", "true", "1")
    return whole(text, "a size") if type_name == "int" else text
