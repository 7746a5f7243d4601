"""The calls of a graph as one module, for what takes modules: PyTorch's exporter and its compiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nn_meter.backends.pytorch import Call, PyTorchPrepared
from nn_meter.ir.graph import Graph

Given = Callable[[Call, list[Any]], list[Any]]
"""From a call and the values that it reads to what it gets."""


def as_module(prepared: PyTorchPrepared, graph: Graph, given: Given = lambda call, values: values) -> Any:
    """The calls as a ``torch.nn.Module``, each of them one of its own, by whose name it is found again."""
    import torch

    class Called(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, function: Any) -> None:
            super().__init__()
            self.function = function

        def forward(self, *values: Any) -> Any:
            return self.function(*values)

    class Calls(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.calls = torch.nn.ModuleList(Called(call.function) for call in prepared.calls)
            written = {place for call in prepared.calls for place in call.writes}
            inputs = {prepared.place[name] for name in graph.inputs}
            needed = {place for call in prepared.calls for place in call.reads}
            needed |= {prepared.place[name] for name in graph.outputs}
            self.constants = {place: f"constant_{place}" for place in needed - written - inputs if place is not None}
            for place, name in self.constants.items():
                value: Any = prepared.values[place]
                self.register_buffer(name, value.clone() if value.is_inference() else value)

        def forward(self, *inputs: Any) -> tuple[Any, ...]:
            values: dict[int | None, Any] = {place: getattr(self, name) for place, name in self.constants.items()}
            values[None] = None
            values |= {prepared.place[name]: value for name, value in zip(graph.inputs, inputs, strict=True)}
            for call, module in zip(prepared.calls, self.calls, strict=True):
                made = module(*given(call, [values[place] for place in call.reads]))
                values |= zip(call.writes, made if isinstance(made, tuple | list) else (made,), strict=False)
                values[None] = None
            return tuple(values[prepared.place[name]] for name in graph.outputs)

    return Calls().eval()
