"""Architectures of timm: ``timm:vit_small_patch16_224``, perhaps with the tag of weights after a dot."""

from __future__ import annotations

from typing import Any

from nn_meter.errors import ModelError
from nn_meter.frontends import torch as pytorch
from nn_meter.frontends.zoo import Built, Zoo, images
from nn_meter.frontends.zoo.modules import imported, nearest, without_weights


def names() -> list[str]:
    """Names of ``timm.list_models()``."""
    return list(_timm().list_models())


def build(title: str) -> Built:
    """The architecture ``title``.

    Raises:
        ModelError: there is none of that name; near names are listed.
        MissingDependencyError: timm is not installed.
    """
    timm = _timm()
    if not timm.is_model(title):
        raise ModelError(f"timm has no model {title!r}; {nearest(title, timm.list_models())}")
    module = without_weights(lambda: timm.create_model(title, pretrained=False))
    config = module.pretrained_cfg
    return Built(title, module, images((config.get("input_size") if config else None) or pytorch.DEFAULT_SHAPE[1:]))


def _timm() -> Any:
    return imported("timm", "timm")


ZOO = Zoo("timm", names, build)
