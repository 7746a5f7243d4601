"""What each runtime makes of a graph: one value per runtime, in a file of its own.

A package adds a runtime with an entry point of the group ``nn_meter.runtimes`` that names its ``Runtime``. What rule
files and backends may call it stands in the value.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points

from nn_meter.errors import RuleError
from nn_meter.runtimes.base import Options, Pass, Runtime

__all__ = ["BY_RULES", "ENTRY_POINTS", "RUNTIMES", "Options", "Pass", "Runtime", "available", "find"]

ENTRY_POINTS = "nn_meter.runtimes"
"""Entry-point group of runtimes in other packages."""

RUNTIMES: tuple[str, ...] = (
    "nn_meter.runtimes.onnxruntime:RUNTIME",
    "nn_meter.runtimes.openvino:RUNTIME",
    "nn_meter.runtimes.tflite:CPU",
    "nn_meter.runtimes.tflite:GPU",
    "nn_meter.runtimes.by_rules:RUNTIME",
    "nn_meter.runtimes.nnmeter:RUNTIME",
)
"""``module:attribute`` of the runtimes of this package."""

BY_RULES = "rules"
"""The runtime that does what its rules say and nothing else: of backends that name none."""


def available() -> tuple[str, ...]:
    """Names of all runtimes, those of other packages included, sorted."""
    return tuple(sorted(each.name for each in _all()))


def find(name: str) -> Runtime:
    """The runtime that a rule file or a backend calls ``name``.

    Raises:
        RuleError: there is none, or a plugin cannot be imported; names those that exist.
    """
    for runtime in _all():
        if name == runtime.name or name in runtime.known_as:
            return runtime
    names = available()
    near = get_close_matches(name, names)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise RuleError(
        f"no runtime {name!r}; {hint}known runtimes: {', '.join(names)}. For a runtime of which only its rules are "
        f'known, write "runtime": "{BY_RULES}" into the rule file'
    )


def _all() -> Iterator[Runtime]:
    """One after the other, so that a plugin that cannot be imported harms only what is not found before it."""
    yield from map(_load, RUNTIMES)
    for point in entry_points(group=ENTRY_POINTS):
        yield _load(point.value)


def _load(place: str) -> Runtime:
    module, _, attribute = place.partition(":")
    try:
        runtime: Runtime = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise RuleError(
            f"runtime {place} cannot be loaded ({error}); repair or remove its package"
        ) from error
    return runtime
