"""Architectures of timm by name, without weights: ``timm:vit_small_patch16_224``."""

from __future__ import annotations

from typing import Any

from nn_meter.errors import MissingDependencyError, ModelError
from nn_meter.frontends import torch as pytorch
from nn_meter.frontends._torch_build import without_weights
from nn_meter.frontends.torchvision import importable, nearest
from nn_meter.ir import Graph

name = "timm"
suffixes: tuple[str, ...] = ()
PREFIX = "timm:"


def sniff(source: Any) -> bool:
    """Whether ``source`` is a name with the prefix ``timm:``."""
    return isinstance(source, str) and source.startswith(PREFIX)


def read(source: str, *, input_shapes: Any = None, name: str | None = None) -> Graph:
    """The graph of the architecture ``source``, with or without the prefix.

    Args:
        source: A name of ``timm.list_models()``, with or without the tag of pretrained weights after a dot.
        input_shapes: As of the PyTorch front end; one image of the model's own size where left out.
        name: Name of the graph; the architecture where left out.

    Raises:
        ModelError: no such architecture; near names are listed.
        MissingDependencyError: timm is not installed.
    """
    title = source.removeprefix(PREFIX)
    module, shape = build(title)
    return pytorch.read(
        module, input_shapes=shape if input_shapes is None else input_shapes, name=name or title
    )


def names() -> list[str]:
    """Every architecture that can be read."""
    return list(_timm().list_models())


def build(title: str) -> tuple[Any, tuple[int, ...]]:
    """The module of ``title`` on the device ``meta`` and the shape of one image."""
    timm = _timm()
    if not timm.is_model(title):
        raise ModelError(f"timm has no model {title!r}; {nearest(title, timm.list_models())}")
    module = without_weights(lambda: timm.create_model(title, pretrained=False))
    config = module.pretrained_cfg
    size = (config.get("input_size") if config else None) or pytorch.DEFAULT_SHAPE[1:]
    return module, (1, *size)


def _timm() -> Any:
    pytorch._torch()
    try:
        importable()
        import timm
    except ImportError:
        raise MissingDependencyError("timm", "timm", "reading a timm model by name") from None
    return timm
