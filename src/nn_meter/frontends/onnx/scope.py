"""Names and attributes within the bodies of functions and branches."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field

from nn_meter.frontends.onnx import wire

OLDEST_OPSET = 7


@dataclass(frozen=True, slots=True)
class Scope:
    """Where nodes stand: names of the body to those of the graph, attributes of the call, opset, depth."""

    names: ChainMap[str, str] | dict[str, str] = field(default_factory=dict)
    values: Mapping[str, wire.AttrValue] = field(default_factory=dict)
    opset: int = OLDEST_OPSET
    depth: int = 0
    prefix: str = ""

    def __getitem__(self, name: str) -> str:
        return self.names.get(name, name)
