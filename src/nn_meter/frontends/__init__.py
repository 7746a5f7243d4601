"""Front ends: from a source of any kind to a graph.

A front end is a module, or an object like one, with ``name``, ``suffixes``, ``sniff(source) -> bool`` and
``read(source, *, input_shapes=None, name=None) -> Graph``. ``sniff`` looks at the first bytes or at the type
of the object and imports no framework. Those that exist are rows of ``nn_meter.plugins``, asked in that order; other
packages add theirs by an entry point of the group ``nn_meter.frontends`` whose name is the front end's.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, cast

from nn_meter import plugins
from nn_meter.errors import InputError, ModelError, ModelFormatError
from nn_meter.frontends._source import existing_file, path_of, title
from nn_meter.ir import Graph, uncollected

__all__ = ["MODEL_TYPES", "FrontEnd", "available", "find", "front_end", "names", "read"]

_log = logging.getLogger(__name__)

MODEL_TYPES: Mapping[str, str] = MappingProxyType({"pb": "tensorflow", "nnmeter-ir": "nnmeter_ir"})
"""nn-Meter's ``model_type`` to front end, where the names differ."""


class FrontEnd(Protocol):
    """What a front end offers."""

    name: str
    suffixes: Sequence[str]

    def sniff(self, source: Any) -> bool:
        """Whether ``source`` is of this front end's kind, judged by its content."""

    def read(
        self,
        source: Any,
        *,
        input_shapes: Mapping[str, Sequence[int]] | Sequence[int] | None = None,
        name: str | None = None,
    ) -> Graph:
        """Read ``source`` into a verified graph."""


def names() -> tuple[str, ...]:
    """Names of all front ends, built-in ones first."""
    return plugins.names("frontend")


def front_end(name: str) -> FrontEnd:
    """The front end ``name``, which may be one of nn-Meter's ``model_type`` names.

    Raises:
        ModelError: there is none of that name, or a plugin does not load.
    """
    return cast(FrontEnd, plugins.load("frontend", MODEL_TYPES.get(name, name)))


def available() -> Iterator[FrontEnd]:
    """The front ends that load, built-in ones first; the log says of a plugin why it does not."""
    for each in plugins.listed("frontend"):
        try:
            yield each.load()
        except ModelError as error:
            _log.warning("%s", error)


def find(source: Any) -> FrontEnd:
    """The front end that takes ``source``: by content first, then by the suffix of its path.

    Raises:
        ModelError: no such file.
        ModelFormatError: none takes it; lists those that were asked.
    """
    path = path_of(source)
    by_suffix: FrontEnd | None = None
    for each in available():
        if each.sniff(source):
            return each
        if by_suffix is None and path is not None and path.name.lower().endswith(tuple(each.suffixes)):
            by_suffix = each
    if by_suffix is not None:
        return by_suffix
    if path is not None:
        existing_file(path, _in_libraries(path))
    raise ModelFormatError(
        f"{title(source)}: not recognised as a model; tried {', '.join(names())}; name its kind if it is one of these"
    )


def _in_libraries(path: Path) -> str:
    """How ``path`` is written where it is meant as the name of an architecture; nothing for what can be none."""
    from nn_meter.frontends.zoo import Zoo

    if re.fullmatch(r"[\w-]+", str(path)) is None:
        return ""
    return ", ".join(f"{each.name}:{path}" for each in available() if isinstance(each, Zoo))


_FLAGS = {
    "input_shapes": "input_shapes (--input-shape)",
    "input_values": "input_values (--input-value)",
    "counts": "counts (--count)",
    "seq_len": "seq_len (--seq-len)",
    "past": "past (--past)",
    "batch_size": "batch_size (--batch-size)",
}
"""Options as Python and the command line have them."""


def read(source: Any, kind: str | None = None, **options: Any) -> Graph:
    """Read ``source`` by the front end ``kind``, or by the one that recognises it.

    Args:
        source: A path, bytes, a file-like object, or an object of a framework.
        kind: A front end's name or one of nn-Meter's ``model_type`` names; recognised if left out.
        options: ``input_shapes``, ``name``, and whatever else the front end takes.

    Raises:
        ModelError: the source cannot be read; the subclass says why.
        InputError: an option that the front end does not take; names those that it does.
    """
    front = find(source) if kind is None else front_end(kind)
    if options.keys() - {"input_shapes", "name"}:  # which all take
        taken = inspect.signature(front.read).parameters
        if not any(each.kind is each.VAR_KEYWORD for each in taken.values()):
            for option in options:
                if option not in taken:
                    others = ", ".join(_FLAGS.get(name, name) for name in list(taken)[1:] if name != "name")
                    raise InputError(f"{front.name} models take no {option}; what they take is {others}")
    try:
        with uncollected():
            return front.read(source, **options)
    except OSError as error:  # it opens, and its disk fails
        raise ModelError(
            f"{title(source)}: cannot be read ({error.strerror or error}); see to the disk or network that it lies on"
        ) from error
