"""Kernels of a prediction told together: equal layers, modules, kinds; with their shares of the total."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import MappingProxyType
from typing import Literal

from nn_meter.predictors.prediction import KernelPrediction, Prediction

By = Literal["layer", "kernel", "kind", "module"]
Sort = Literal["time", "order", "name"]

_NUMBERS = re.compile(r"(\d+)")
_LISTED = 3
"""So many equal layers are told by their numbers; more by a star."""


@dataclass(frozen=True, slots=True)
class Row:
    """Kernels under one name. ``share`` is their part of the total, ``cumulative`` that of all rows up to this one."""

    name: str
    kernels: tuple[KernelPrediction, ...]
    latency_ms: float
    share: float
    cumulative: float

    @property
    def count(self) -> int:
        """How many kernels."""
        return len(self.kernels)

    def one(self, fact: Callable[[KernelPrediction], str]) -> str:
        """What all kernels have in common, empty where they differ."""
        found = {fact(each) for each in self.kernels}
        return found.pop() if len(found) == 1 else ""


def rows(prediction: Prediction, by: By = "layer", sort: Sort = "time", depth: int = 1) -> tuple[Row, ...]:
    """The kernels that are not free, grouped.

    Args:
        by: ``"kernel"``, each alone; ``"layer"``, those together that do the same under names that differ in numbers
            only, as the layers of a stack do (``blocks.*.mlp.fc1``); ``"module"``, by the first ``depth`` levels of
            their names; ``"kind"``.
        sort: by time, the longest first; by the order of execution; or by name.
    """
    groups: dict[Hashable, list[KernelPrediction]] = {}
    for index, each in enumerate(prediction.charged):
        groups.setdefault(_KEYS[by](each, index, depth), []).append(each)
    named = [(_name(by, group, depth), tuple(group)) for group in groups.values()]
    times_ms = {name_group: sum(each.latency_ms for each in name_group[1]) for name_group in named}
    if sort == "time":
        named.sort(key=lambda item: -times_ms[item])
    elif sort == "name":
        named.sort(key=lambda item: _natural(item[0]))
    shares = [prediction.share(times_ms[item]) for item in named]
    return tuple(
        Row(name, group, times_ms[name, group], share, cumulative)
        for (name, group), share, cumulative in zip(named, shares, accumulate(shares), strict=True)
    )


def layer_name(node: str) -> str:
    """A node's name as its module's path and its operator: ``/stages/stages.2/conv/Conv`` is ``stages.2.conv/Conv``.

    PyTorch's exporter repeats in each part of a path what the one before says.
    """
    *path, operator = node.strip("/").split("/")
    return "/".join((_joined(path), operator)) if path else operator


def module_name(node: str, depth: int) -> str:
    """The first ``depth`` levels of a node's module; ``"-"`` for a node that is in none."""
    return ".".join(module_levels(node)[:depth]) or "-"


def module_levels(node: str) -> tuple[str, ...]:
    """The modules that a node lies in, the outermost first; a number counts with the name before it."""
    path = _joined(node.strip("/").split("/")[:-1])
    levels: list[str] = []
    for part in filter(None, path.split(".")):
        if part.isdigit() and levels:
            levels[-1] += f".{part}"
        else:
            levels.append(part)
    return tuple(levels)


def _joined(path: Sequence[str]) -> str:
    found = ""
    before = ""
    for part in path:
        found = found + part[len(before) :] if before and part.startswith(f"{before}.") else f"{found}.{part}"
        before = part
    return found.lstrip(".")


def first_node(each: KernelPrediction) -> str:
    """The node that a kernel is known by; what the runtime inserts has none."""
    return each.kernel.nodes[0] if each.kernel.nodes else ""


def layer_of(each: KernelPrediction) -> str:
    """The layer that a kernel is known by, without the operator where the kernel's label begins with it."""
    if not each.kernel.nodes:
        return "(inserted by the runtime)"
    name = layer_name(first_node(each))
    module, _, operator = name.rpartition("/")
    return module if module and re.match(rf"{re.escape(operator)}\b", each.kernel.label) else name


def _alike(each: KernelPrediction) -> Hashable:
    kernel = each.kernel
    return _NUMBERS.sub("#", layer_of(each)), kernel.kind, kernel.label, kernel.config, each.status


_KEYS: Mapping[By, Callable[[KernelPrediction, int, int], Hashable]] = MappingProxyType(
    {
        "layer": lambda each, index, depth: _alike(each),
        "kernel": lambda each, index, depth: index,
        "kind": lambda each, index, depth: each.kernel.kind,
        "module": lambda each, index, depth: module_name(first_node(each), depth),
    }
)


def _name(by: By, group: Sequence[KernelPrediction], depth: int) -> str:
    if by == "kind":
        return group[0].kernel.kind
    if by == "module":
        return module_name(first_node(group[0]), depth)
    names = [_NUMBERS.split(layer_of(each)) for each in group]
    parts = [tuple(dict.fromkeys(part)) for part in zip(*names, strict=True)]
    listed = len(group) <= _LISTED and sum(len(part) > 1 for part in parts) == 1
    return "".join(part[0] if len(part) == 1 else f"{{{','.join(part)}}}" if listed else "*" for part in parts)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts ``block.2`` before ``block.10``, however many digits a number has."""
    parts = [(part.isdecimal(), part.lstrip("0") if part.isdecimal() else part) for part in _NUMBERS.split(name)]
    return [(len(part) if number else -1, part) for number, part in parts]
