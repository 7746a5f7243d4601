"""Architectures of torchvision: ``torchvision:resnet18``. Of a detection model it is the backbone: what follows
depends on the number of objects found.
"""

from __future__ import annotations

from typing import Any

from nn_meter.errors import ModelError
from nn_meter.frontends.zoo import Built, Zoo, images
from nn_meter.frontends.zoo.modules import imported, nearest, without_weights

_IMAGE = (3, 224, 224)
_SIZES: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("torchvision.models.segmentation", (3, 520, 520)),
    ("torchvision.models.optical_flow", (3, 520, 960)),
    ("torchvision.models.video.mvit", (3, 16, 224, 224)),
    ("torchvision.models.video.swin_transformer", (3, 16, 224, 224)),
    ("torchvision.models.video.s3d", (3, 16, 224, 224)),
    ("torchvision.models.video", (3, 16, 112, 112)),
    ("torchvision.models.detection", (3, 800, 800)),
    ("torchvision.models.inception", (3, 299, 299)),
)
"""Module that a builder lives in to the input of its pretrained weights; the first that fits."""

_DETECTION = "torchvision.models.detection"
_SEGMENTATION = "torchvision.models.segmentation"


def names() -> list[str]:
    """Names of ``torchvision.models.list_models()``."""
    return list(_models().list_models())


def build(title: str) -> Built:
    """The architecture ``title``.

    Raises:
        ModelError: there is none of that name; near names are listed.
        MissingDependencyError: torchvision is not installed.
    """
    models = _models()
    known = models.list_models()
    if title not in known:
        raise ModelError(f"torchvision has no model {title!r}; {nearest(title, known)}")
    builder = models.get_model_builder(title)
    home = builder.__module__
    options = {"weights_backbone": None} if home.startswith((_DETECTION, _SEGMENTATION)) else {}
    module = without_weights(lambda: builder(weights=None, **options))
    if home.startswith(_DETECTION):
        module = module.backbone
    shape = next((shape for prefix, shape in _SIZES if home.startswith(prefix)), _IMAGE)
    return Built(title, module, images(*[shape] * (1 + title.startswith("raft"))))


def _models() -> Any:
    return imported("torchvision.models", "torchvision")


ZOO = Zoo("torchvision", names, build)
