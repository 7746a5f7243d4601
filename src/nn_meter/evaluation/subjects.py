"""Which models an evaluation or a measurement is of."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nn_meter.errors import InputError
from nn_meter.frontends.sources import models as named_models


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to evaluate on: a path, a zoo's name or a graph; ``options`` say what goes into it, as of front ends.
    ``kept`` is one that nobody looked at while the predictor was made."""

    name: str
    family: str
    source: Any = field(compare=False)
    options: Mapping[str, Any] = field(default_factory=dict, compare=False)
    kept: bool = field(default=False, compare=False)


def subjects(
    sources: Iterable[str | Path],
    note: Callable[[str], None] | None = None,
    options: Mapping[str, Any] | None = None,
    kept: Iterable[str | Path] = (),
) -> tuple[Subject, ...]:
    """The models that files, folders (at any depth) and zoo names stand for.

    A model's family is the folder that it lies in; ``note`` hears what in a folder is no model; ``options`` say what
    goes into each. Those that ``kept`` stands for were kept away, and come last.

    Raises:
        InputError: a folder without models, or none at all.
    """
    found = [
        Subject(path.stem, path.parent.name, path if os.path.exists(path) else each, options or {}, away)
        for some, away in ((sources, False), (kept, True))
        for each, path in {each: Path(each) for each in named_models(list(some), note=note)}.items()
    ]
    if not found:
        raise InputError("no model is named; give files, or a folder of models")
    names = Counter(each.name for each in found)
    return tuple(replace(each, name=f"{each.family}/{each.name}") if names[each.name] > 1 else each for each in found)
