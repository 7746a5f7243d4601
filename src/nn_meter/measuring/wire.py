"""Values as JSON and back, by their types: for the journal, for record files, and for what is said over a link.

What a value is read back as is what its annotation says, never what the JSON claims. Frozen dataclasses go by their
fields, a class with ``to_json`` and ``from_json`` by these; bytes are base64, graphs the text form of ``ir``.
"""

from __future__ import annotations

import base64
import types
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from nn_meter.ir.graph import Graph
from nn_meter.ir.text import parse, to_text

READY = "nn-meter is ready: "
"""Begins the first line that the measuring process says; its version follows."""

_LEAVES: Mapping[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    bytes: (lambda value: base64.b64encode(value).decode(), base64.b64decode),
    Graph: (to_text, parse),
}
_PLAIN = (type(None), bool, int, float, str)


def to_json(value: Any) -> Any:
    """``value`` as what ``json`` writes.

    Raises:
        TypeError: it is nothing that can be read back.
    """
    if isinstance(value, _PLAIN):
        return value
    leaf = _LEAVES.get(type(value))
    if leaf is not None:
        return leaf[0](value)
    if isinstance(value, Path):
        return str(value)
    if hasattr(type(value), "from_json"):
        return value.to_json()
    if is_dataclass(value) and not isinstance(value, type):
        return {name: to_json(getattr(value, name)) for name in _hints(type(value))}
    if isinstance(value, Mapping):
        return {_key(key): to_json(item) for key, item in value.items()}
    if isinstance(value, AbstractSet):
        return [to_json(item) for item in sorted(value)]
    if isinstance(value, Sequence):
        return [to_json(item) for item in value]
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON")


def from_json(kind: Any, data: Any) -> Any:
    """The value of the type ``kind`` that ``to_json`` wrote; sequences become tuples unless ``kind`` is a list.

    Raises:
        TypeError, ValueError, KeyError: ``data`` is nothing of that type.
        ModelFormatError: a graph's text that is none.
    """
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any or kind is object:
        return _frozen(data)
    if origin in (Union, types.UnionType):
        return _one_of(args, data)
    if origin is Literal:
        if data not in args:
            raise ValueError(f"{data!r} is none of {', '.join(map(repr, args))}")
        return data
    made = origin or kind
    if made in _LEAVES:
        return _LEAVES[made][1](data)
    if not isinstance(made, type):
        raise TypeError(f"{kind} is no type that JSON can be read as")
    if hasattr(made, "from_json"):
        return made.from_json(data)
    if is_dataclass(made):
        if not isinstance(data, Mapping):
            raise TypeError(f"{made.__name__} is read from an object, not from a {type(data).__name__}")
        hints = _hints(made)
        unknown = next((key for key in data if key not in hints), None)
        if unknown is not None:
            raise TypeError(f"{made.__name__} has no field {unknown!r}")
        return made(**{name: from_json(hints[name], item) for name, item in data.items()})
    if made is Path:
        return Path(data)
    if issubclass(made, str | bool | int | float | type(None)):
        return _plain(made, data)
    return _collection(made, args, data)


def _collection(made: type, args: tuple[Any, ...], data: Any) -> Any:
    if issubclass(made, Mapping):
        if not isinstance(data, Mapping):
            raise TypeError(f"an object is needed, not a {type(data).__name__}")
        keys, values = args or (str, Any)
        return {keys(key): from_json(values, item) for key, item in data.items()}
    if not isinstance(data, list | tuple):
        raise TypeError(f"a list is needed, not a {type(data).__name__}")
    if made is tuple and args and Ellipsis not in args:
        return tuple(from_json(each, item) for each, item in zip(args, data, strict=True))
    items = (from_json(args[0] if args else Any, item) for item in data)
    if issubclass(made, AbstractSet):
        return frozenset(items) if made is frozenset else set(items)
    return list(items) if made is list else tuple(items)


def _plain(made: type, data: Any) -> Any:
    if made is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, made) or (isinstance(data, bool) and made is not bool):
        raise TypeError(f"{data!r} is no {made.__name__}")
    return data


def _one_of(alternatives: tuple[Any, ...], data: Any) -> Any:
    """The first type that reads ``data``; an integer stays one where floats are allowed too."""
    if data is None and type(None) in alternatives:
        return None
    ordered = sorted(alternatives, key=lambda kind: kind is float)
    for kind in ordered:
        try:
            return from_json(kind, data)
        except (TypeError, ValueError, KeyError):
            continue
    raise TypeError(f"{data!r} is none of {', '.join(map(str, alternatives))}")


def _frozen(data: Any) -> Any:
    """JSON as it is, lists as tuples."""
    if isinstance(data, list):
        return tuple(map(_frozen, data))
    return {key: _frozen(item) for key, item in data.items()} if isinstance(data, dict) else data


def _key(key: Any) -> str:
    if not isinstance(key, str | int):
        raise TypeError(f"a {type(key).__name__} cannot be a key in JSON")
    return str(key)


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {each.name: hints[each.name] for each in fields(kind)}
