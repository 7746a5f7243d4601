"""Files and texts that others wrote: errors say which file, which key, what it is and what it must be."""

from __future__ import annotations

import json
import math
import os
import re
import reprlib
import stat
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, cast

from nn_meter import limits
from nn_meter.errors import NnMeterError
from nn_meter.limits import Limit
from nn_meter.storage.files import reason

Error = type[NnMeterError]

_REQUIRED: Any = object()
_PLAIN_NAME_LETTERS = 100
_PLAIN_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.+-]{{0,{_PLAIN_NAME_LETTERS - 1}}}")


def legible(text: str, letters: int = limits.SHOWN_LETTERS) -> str:
    """``text`` for one line of a terminal or page: control characters, line ends and marks that turn the direction of
    writing are escaped, and of more than ``letters`` the beginning is kept."""
    cut = text if len(text) <= letters else f"{text[:letters]}... ({len(text):,} letters)"
    if cut.isprintable():
        return cut
    return "".join(each if each.isprintable() else _escaped(each) for each in cut)


def _escaped(letter: str) -> str:
    return letter if unicodedata.category(letter) == "Zs" else ascii(letter)[1:-1]


_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxdict, _repr.maxlist, _repr.maxtuple, _repr.maxset = 3, 6, 6, 6, 6
_repr.maxstring, _repr.maxother, _repr.maxlong = limits.SHOWN_LETTERS, limits.SHOWN_LETTERS, 40


def shown(value: object) -> str:
    """``repr`` of a value that somebody else wrote: short whatever it holds, on one line."""
    return legible(_repr.repr(value), 2 * limits.SHOWN_LETTERS)


def read_bytes(path: Path | str, what: str, error: Error, advice: str = "", limit: Limit = limits.FILE_BYTES) -> bytes:
    """The bytes of a file, which ``what`` names in the error and ``advice`` says what to do about.

    Raises:
        error: it cannot be read, is no regular file (a pipe, a device), or is larger than ``limit``.
    """
    where = f"{path}: {what}"
    try:
        # a pipe without a writer would hold an ordinary open for ever
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise error(_advised(f"{where} cannot be read (no regular file)", advice))
            limit.check(found.st_size, where, error)
            return file.read(limit.most + 1)
    except (OSError, ValueError) as e:
        raise error(_advised(f"{where} cannot be read ({reason(e)})", advice)) from e


def _advised(text: str, advice: str) -> str:
    return f"{text}; {advice}" if advice else text


def parse_json(stored: bytes | str, where: str, error: Error, advice: str = "", *, constants: bool = False) -> Any:
    """The value of a JSON text; ``where`` names it in the error. Python's own ``constants`` NaN and infinity are read
    only where asked for.

    Raises:
        error: no JSON, nested too deeply, a number of too many digits, or one that JSON does not have.
    """
    check_json(stored, where, error)
    try:
        return json.loads(stored, parse_constant=None if constants else _refused)
    except (ValueError, RecursionError) as e:
        raise error(_advised(f"{where}: not JSON ({legible(str(e))})", advice)) from e


def check_json(stored: bytes | str, where: str, error: Error) -> None:
    """Refuse a text before it is read: an object of two bytes takes a hundred times as many in memory."""
    limits.TEXT_BYTES.check(len(stored), where, error)
    found = sum(stored.count(mark) if isinstance(stored, str) else stored.count(mark.encode()) for mark in ",[{")
    limits.JSON_VALUES.check(found, where, error)


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def read_json(path: Path | str, what: str, error: Error, advice: str = "") -> Any:
    """The value in a JSON file. Errors as of :func:`read_bytes` and :func:`parse_json`."""
    return parse_json(read_bytes(path, what, error, advice, limits.TEXT_BYTES), f"{path}: {what}", error, advice)


def read_yaml(path: Path | str, what: str, error: Error, advice: str = "") -> Any:
    """The value in a YAML file: plain values only, aliases among them as long as what they stand for stays small.

    Raises:
        error: it cannot be read, is no YAML, or stands for too much.
    """
    from nn_meter.storage import _yaml

    stored = read_bytes(path, what, error, advice, limits.YAML_BYTES)
    where = f"{path}: {what}"
    try:
        return _yaml.document(stored, where, error)
    except _yaml.Faults as e:
        text = " ".join(str(e).split())
        raise error(_advised(f"{where}: not YAML ({legible(text, 500)})", advice)) from e


def plain_name(name: str, what: str, error: Error) -> str:
    """``name`` if it can be part of a file's name anywhere, and leads out of no folder.

    Raises:
        error: it cannot; ``what`` says whose name it is.
    """
    if not _PLAIN_NAME.fullmatch(name):
        raise error(
            f"{what} {shown(name)} is no name: begin with a letter or digit, then letters, digits and _ . + - only, "
            f"{_PLAIN_NAME_LETTERS} at most"
        )
    return name


class Fields:
    """Takes typed values out of an object of YAML or JSON; errors of the kind ``error`` name the file and the key.

    ``where`` is the file and what it is, ``advice`` follows each error, ``key`` is where in the file the object lies.
    """

    def __init__(self, values: object, where: str, error: Error, advice: str = "", key: str = "") -> None:
        self.where, self._error, self._advice, self._key = where, error, advice, key
        if not isinstance(values, dict):
            kind = "nothing" if values is None else f"a {type(values).__name__}"
            raise error(_advised(f"{where}: {key.rstrip('.') or 'it'} must be keys with values, not {kind}", advice))
        self.values: dict[str, Any] = values

    def refuse(self, key: str, wanted: str) -> NoReturn:
        """Raise the error that ``key`` must be ``wanted``."""
        name = legible(f"{self._key}{key}")
        found = f"is {shown(self.values[key])}" if key in self.values else "is missing"
        raise self._error(_advised(f"{self.where}: {name!r} {found}; it must be {wanted}", self._advice))

    def take(self, key: str, kind: type | tuple[type, ...], wanted: str, default: Any = _REQUIRED) -> Any:
        """The value of ``key``, of a type of ``kind``; ``default`` where the key is absent or empty."""
        value = self.values.get(key)
        if value is None and default is not _REQUIRED:
            return default
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.refuse(key, wanted)
        return value

    def _all(self, key: str, kind: type, wanted: str, fits: Callable[[Any], bool], default: Any = _REQUIRED) -> Any:
        """As ``take``, of a list or an object all of whose values fit."""
        value = self.take(key, kind, wanted, default)
        if not all(map(fits, value.values() if isinstance(value, dict) else value)):
            self.refuse(key, wanted)
        return value

    def text(self, key: str, wanted: str = "a text", default: Any = _REQUIRED) -> str:
        """A text."""
        return cast(str, self.take(key, str, wanted, default))

    def whole(self, key: str) -> int:
        """A whole number of at least 0."""
        if not _is_count(self.values.get(key)):
            self.refuse(key, "a whole number")
        return cast(int, self.values[key])

    def number(self, key: str, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number from ``low`` to ``high``."""
        value = self.values.get(key)
        if not is_number(value) or not low <= cast(float, value) <= high:
            bounds = "".join(
                f", {word} {bound:g}" for word, bound in (("from", low), ("to", high)) if math.isfinite(bound)
            )
            self.refuse(key, f"a finite number{bounds}")
        return float(cast(float, value))

    def texts(self, key: str, wanted: str = "a list of texts", default: Any = _REQUIRED) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(self._all(key, list, wanted, lambda item: isinstance(item, str), default))

    def numbers(self, key: str) -> Mapping[str, float]:
        """An object of finite numbers."""
        value = self._all(key, dict, "an object of numbers", is_number)
        return MappingProxyType({name: float(item) for name, item in value.items()})

    def ranges(self, key: str) -> Mapping[str, tuple[float, float]]:
        """An object of pairs, each of a lower and a higher number."""
        value = self._all(key, dict, "an object of [lowest, highest]", _is_pair)
        return MappingProxyType({name: (float(low), float(high)) for name, (low, high) in value.items()})

    def counts(self, key: str) -> Mapping[str, Mapping[str, int]]:
        """An object of objects of whole numbers; nothing where the key is absent."""
        value = self._all(key, dict, "an object of objects of whole numbers", _are_counts, {})
        return MappingProxyType({name: MappingProxyType(each) for name, each in value.items()})

    def ranges_by_name(self, key: str) -> Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]]:
        """By key and name such an object as ``ranges`` reads; nothing where ``key`` is absent."""
        if key not in self.values:
            return MappingProxyType({})
        keys = self.inner(key)
        named = {each: keys.inner(each) for each in keys.values}
        return MappingProxyType(
            {each: MappingProxyType({name: of.ranges(name) for name in of.values}) for each, of in named.items()}
        )

    def inner(self, key: str) -> Fields:
        """The object that ``key`` holds."""
        return Fields(self.values.get(key), self.where, self._error, self._advice, f"{self._key}{key}.")


def is_number(value: object) -> bool:
    """Whether ``value`` is a finite number that a float64 holds."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_counts(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_count, value.values()))


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value)) and value[0] <= value[1]
