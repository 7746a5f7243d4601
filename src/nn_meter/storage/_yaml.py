"""YAML of plain values within limits: apart, since PyYAML is imported where a file of it is read."""

from __future__ import annotations

from typing import Any

import yaml

from nn_meter import limits
from nn_meter.errors import NnMeterError

_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")

Faults = (yaml.YAMLError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What a text that is no YAML ends in; values that are not what their tag says (``!!bool x``) end in all of these."""


class Loader(yaml.SafeLoader):
    """Refuses too many values and too deep ones when it meets them: reading a million takes PyYAML half a minute, and
    looking for the end of an open bracket within a thousand others most of a second."""

    def __init__(self, stored: bytes, where: str, error: type[NnMeterError]) -> None:
        super().__init__(stored)
        self._where, self._error = where, error
        self._nodes = self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As PyYAML has it; called for every value and key, by each for what is in it."""
        self._nodes += 1
        self._depth += 1
        limits.YAML_NODES.check(self._nodes, self._where, self._error)
        limits.YAML_NESTING.check(self._depth, self._where, self._error)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(node, yaml.ScalarNode) and node.tag in _NUMBERS:
            limits.YAML_NUMBER.check(len(node.value), self._where, self._error)
        return node


def document(stored: bytes, where: str, error: type[NnMeterError]) -> Any:
    """The one value in ``stored``, ``None`` where it holds none.

    Raises:
        error: it stands for too much; ``where`` names it.
        Exception: one of ``Faults``; it is no YAML.
    """
    loader = Loader(stored, where, error)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        limits.YAML_NODES.check(_size(root, {}), where, error)
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Values that a node stands for, aliases followed; more than are read where it stands for itself."""
    if id(node) not in known:
        known[id(node)] = limits.YAML_NODES.most + 1  # while under way: an alias of what holds it
        inner = node.value if isinstance(node, yaml.CollectionNode) else ()
        flat = (each for item in inner for each in (item if isinstance(item, tuple) else (item,)))
        known[id(node)] = min(1 + sum(_size(each, known) for each in flat), limits.YAML_NODES.most + 1)
    return known[id(node)]
