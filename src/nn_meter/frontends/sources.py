"""Which models a user names: files, folders of them at any depth, names in a zoo."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nn_meter.errors import InputError
from nn_meter.frontends import FrontEnd, available, front_end

_COMMON = (".json", ".json.gz")
"""Suffixes of much else than models: only the content tells."""

_NAMED = 3
"""So many files that are no models are named."""


def spelled(model: Any, kind: str | None = None) -> str:
    """The path of ``model``, or its name in the zoo ``kind``, as every command takes it; nothing for neither."""
    if not isinstance(model, str | os.PathLike):
        return ""
    text = os.fspath(model)
    return text if kind is None or text.startswith(f"{kind}:") or os.path.exists(text) else f"{kind}:{text}"


def models(
    given: Sequence[str | Path], kind: str | None = None, note: Callable[[str], None] | None = None
) -> tuple[str, ...]:
    """The models that files, folders and names stand for, in the order given, those of a folder by path.

    Args:
        given: Paths, or names in a zoo. What is no folder stays as it is, whether it exists or not.
        kind: A front end's name or one of nn-Meter's ``model_type`` names; folders hold models of any if left out.
        note: Hears for each folder which files in it are no models and were left out.

    Raises:
        InputError: a folder without models.
        ModelError: there is no front end of that name.
    """
    found: list[str] = []
    for each in map(str, given):
        if not os.path.isdir(each):  # before front ends are imported, which takes longer than a prediction
            found.append(each)
            continue
        fronts = tuple(available()) if kind is None else (front_end(kind),)
        if any(front.suffixes for front in fronts) and _is_collection(Path(each), fronts):
            found += _in_folder(Path(each), fronts, kind is None, note)
        else:
            found.append(each)
    return tuple(found)


def _is_collection(path: Path, fronts: Sequence[FrontEnd]) -> bool:
    """Whether ``path`` is a folder that is not itself a model, as a SavedModel is."""
    return os.path.isdir(path) and not any(front.sniff(path) for front in fronts)


def _in_folder(
    folder: Path, fronts: Sequence[FrontEnd], any_kind: bool, note: Callable[[str], None] | None
) -> list[str]:
    suffixes = tuple(dict.fromkeys(suffix for front in fronts for suffix in front.suffixes))
    found: list[Path] = []
    others: list[Path] = []
    for path in _walk(folder, fronts):
        name = path.name.lower()
        fits = path.is_dir() or name.endswith(suffixes)
        if fits and any_kind and name.endswith(_COMMON):
            fits = any(front.sniff(path) for front in fronts)
        (found if fits else others).append(path)
    if not found:
        raise InputError(f"{folder}: holds no model; looked for {', '.join(f'*{s}' for s in suffixes)}")
    if others and note is not None:
        names = [str(path.relative_to(folder)) for path in sorted(others)]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        note(f"{folder}: no models, left out: {', '.join(names[:_NAMED])}{more}")
    return [str(path) for path in sorted(found)]


def _walk(folder: Path, fronts: Sequence[FrontEnd]) -> Iterator[Path]:
    """Files below ``folder``, and folders that are one model; what is hidden stays out, links to folders too."""
    for place, folders, files in os.walk(folder):
        here = Path(place)
        seen = [name for name in folders if not name.startswith(".")]
        folders[:] = [name for name in seen if _is_collection(here / name, fronts)]
        yield from (here / name for name in seen if name not in folders)
        yield from (here / name for name in files if not name.startswith("."))
