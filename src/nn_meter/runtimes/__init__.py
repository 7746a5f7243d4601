"""What each runtime makes of a graph: one value per runtime, in a file of its own, and a row of ``nn_meter.plugins``.

A package adds a runtime with an entry point of the group ``nn_meter.runtimes`` that names its ``Runtime``. What rule
files and backends may call it stands in the value.
"""

from __future__ import annotations

from nn_meter import plugins
from nn_meter.runtimes.base import Options, Pass, Runtime

__all__ = ["BY_RULES", "Options", "Pass", "Runtime", "available", "find"]

BY_RULES = "rules"
"""The runtime that does what its rules say and nothing else: of backends that name none."""


def available() -> tuple[str, ...]:
    """Names of all runtimes, those of other packages included, sorted."""
    return tuple(sorted(plugins.names("runtime")))


def find(name: str) -> Runtime:
    """The runtime that a rule file or a backend calls ``name``.

    Raises:
        RuleError: there is none, or a plugin cannot be imported; names those that exist.
    """
    # one after the other, so that a plugin that cannot be imported harms only what is not found before it
    for each in plugins.listed("runtime"):
        runtime: Runtime = each.load()
        if name == runtime.name or name in runtime.known_as:
            return runtime
    raise plugins.unknown(
        "runtime",
        name,
        f'For a runtime of which only its rules are known, write "runtime": "{BY_RULES}" into the rule file',
    )
