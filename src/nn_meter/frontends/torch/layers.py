"""Layers of ``torch.nn`` that are one operator: while a module is read, their forward tells the recorder which one,
with the arguments that PyTorch would give it. PyTorch's own way there, through functions and two kinds of modes, takes
as long as writing the operator down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from types import MethodType
from typing import Any

from nn_meter.frontends.torch.record import Recorder

Operator = Callable[[Any, Any], tuple[Any, tuple[Any, ...]] | None]
"""Of a layer and what it reads: an ATen operator and its arguments; nothing where the layer had better run."""


def _convolution(operator: Any) -> Operator:
    def of(layer: Any, x: Any) -> tuple[Any, tuple[Any, ...]] | None:
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            return None
        return operator, (
            x, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups
        )  # fmt: skip

    return of


def _batch_norm(operator: Any, rank: int) -> Operator:
    def of(layer: Any, x: Any) -> tuple[Any, tuple[Any, ...]] | None:
        mean, variance, momentum = layer.running_mean, layer.running_var, layer.momentum
        if layer.training or mean is None or variance is None or momentum is None or x.dim() != rank:
            return None
        return operator, (x, layer.weight, layer.bias, mean, variance, False, momentum, layer.eps, True)

    return of


def _activation(operator: Any, in_place: Any) -> Operator:
    return lambda layer, x: (in_place if layer.inplace else operator, (x,))


@cache
def _operators() -> Mapping[type, tuple[Any, Operator]]:
    """Class to its forward as PyTorch has it, and to what that comes to."""
    import torch

    nn, aten = torch.nn, torch.ops.aten
    rows: dict[type, Operator] = {
        nn.Conv1d: _convolution(aten.conv1d.default),
        nn.Conv2d: _convolution(aten.conv2d.default),
        nn.Conv3d: _convolution(aten.conv3d.default),
        nn.BatchNorm2d: _batch_norm(aten.batch_norm.default, 4),
        nn.BatchNorm3d: _batch_norm(aten.batch_norm.default, 5),
        nn.ReLU: _activation(aten.relu.default, aten.relu_.default),
        nn.SiLU: _activation(aten.silu.default, aten.silu_.default),
        nn.Hardswish: _activation(aten.hardswish.default, aten.hardswish_.default),
        nn.Linear: lambda layer, x: (aten.linear.default, (x, layer.weight, layer.bias)),
    }
    return {kind: (kind.forward, row) for kind, row in rows.items()}  # type: ignore[attr-defined]


def tell(recorder: Recorder, parts: Iterable[Any]) -> None:
    """Give those of ``parts`` that are such layers a forward that tells ``recorder`` what they are. It is the caller's
    to take it away again."""
    made = {kind: _forward(recorder, *row) for kind, row in _operators().items()}
    for part in parts:
        kind: Any = type(part)
        if kind in made and "forward" not in vars(part) and kind.forward is _operators()[kind][0]:
            vars(part)["forward"] = MethodType(made[kind], part)


def _forward(recorder: Recorder, own: Any, operator: Operator) -> Callable[[Any, Any], Any]:
    import torch

    no_functions, no_dispatch = torch._C.DisableTorchFunction, torch._C._DisableTorchDispatch
    autocast = torch._C._is_any_autocast_enabled

    def forward(layer: Any, input: Any) -> Any:  # as the parameter is called there
        with no_functions(), no_dispatch():
            # others' tensors (of vmap), constants, and types that change on the way are not for here
            found = operator(layer, input) if recorder.flows(input) and not autocast() else None
            if found is not None:
                return recorder.call(*found, {})
        return own(layer, input)

    return forward
