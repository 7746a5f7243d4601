"""What every front end asks of a source before it reads it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from nn_meter.errors import GraphError, ModelError

HEAD_BYTES = 4096

DEFAULT_SEQ_LEN = 128
"""Tokens of a text where nobody says how many."""


def path_of(source: Any) -> Path | None:
    """``source`` as a path, or ``None`` where it is something else."""
    return Path(source) if isinstance(source, str | os.PathLike) else None


def head(source: Any) -> bytes:
    """The first bytes of a file, of bytes or of a seekable file-like object; empty for anything else."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source[:HEAD_BYTES])
    path = path_of(source)
    if path is not None:
        try:
            if not path.is_file():
                return b""  # a pipe would wait for who writes to it
            with path.open("rb") as file:
                return file.read(HEAD_BYTES)
        except (OSError, ValueError):
            return b""
    if hasattr(source, "read") and hasattr(source, "seek"):
        at = source.tell()
        data = source.read(HEAD_BYTES)
        source.seek(at)
        return data if isinstance(data, bytes) else b""
    return b""


def are_weights(source: Any) -> bool:
    """Whether ``source`` is a dictionary of PyTorch's tensors; imports nothing."""
    return isinstance(source, Mapping) and any(hasattr(each, "untyped_storage") for each in source.values())


def existing_file(path: Path, otherwise: str = "") -> Path:
    """``path`` if it is a file.

    Raises:
        ModelError: it is not; says whether it is missing (and what else it may mean, ``otherwise``), a folder, or no
            file that can be read from its beginning.
    """
    try:
        if path.is_file():
            return path
        found, folder = path.exists(), path.is_dir()
    except (OSError, ValueError) as error:
        raise ModelError(f"{str(path)!r} cannot be opened: {error}") from None
    if folder:
        raise ModelError(f"{path}: is a folder, not a model file; name a file in it")
    if found:
        raise ModelError(f"{path}: no regular file but a pipe or a device; write the model to a file and name that")
    meant = f", or name the library of an architecture: {otherwise}" if otherwise else ""
    raise ModelError(f"{path}: no such file; check the path{meant}")


def opened(path: Path) -> BinaryIO:
    """``path`` opened for reading.

    Raises:
        ModelError: it is no file, or one that cannot be read.
    """
    try:
        return existing_file(path).open("rb")
    except OSError as error:
        raise ModelError(f"{path}: cannot be opened ({error.strerror}); allow reading it") from error


Shapes = Mapping[str, Sequence[int]] | Sequence[int]
"""Shape by input name, or the one shape of the only input."""

Stated = Mapping[str, Sequence[int | str | None]]
"""Input to its dimensions as the model states them: a size, a name, or none (-1, 0, empty, ``None``)."""


def shapes_wanted(inputs: Stated) -> str:
    """How the shapes of ``inputs`` are given, on the command line and in Python; dimensions to be filled in stand there
    by name, ``N`` where they have none."""
    sizes = {
        name: [str(dim).upper() if dim and (isinstance(dim, str) or dim > 0) else "N" for dim in dims]
        for name, dims in inputs.items()
    }
    flags = " ".join(f"--input-shape {name}={','.join(dims)}" for name, dims in sizes.items())
    literals = (f"{name!r}: ({', '.join(dims)}{',' * (len(dims) == 1)})" for name, dims in sizes.items())
    return f"{flags} (in Python input_shapes={{{', '.join(literals)}}})"


def by_name(stated: Stated, shapes: Shapes | None, where: str) -> dict[str, tuple[int, ...]]:
    """The shapes given, by input.

    Raises:
        GraphError: one is given for several inputs, for one that is not there, or is negative.
    """
    if shapes is None:
        return {}
    if not isinstance(shapes, Mapping):
        if len(stated) != 1:
            each = f"; name each: {shapes_wanted(stated)}" if stated else ""
            raise GraphError(f"{where}: one shape is given for {len(stated)} inputs ({', '.join(stated)}){each}")
        shapes = dict.fromkeys(stated, shapes)
    given = {name: tuple(shape) for name, shape in shapes.items()}
    for name, shape in given.items():
        if name not in stated:
            raise GraphError(f"{where}: there is no input {name!r}; the inputs are {', '.join(stated)}")
        if any(dim < 0 for dim in shape):
            raise GraphError(f"{where}: the shape {shape} given for the input {name!r} is negative")
    return given


def title(source: Any) -> str:
    """How errors name ``source``."""
    path = path_of(source)
    if path is not None:
        return str(path)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) and name else f"<{type(source).__name__}>"
