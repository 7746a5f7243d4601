"""Architectures of torchvision by name, without weights: ``torchvision:resnet18``."""

from __future__ import annotations

import difflib
from typing import Any

from nn_meter.errors import MissingDependencyError, ModelError
from nn_meter.frontends import torch as pytorch
from nn_meter.frontends._torch_build import without_weights
from nn_meter.ir import Graph

name = "torchvision"
suffixes: tuple[str, ...] = ()
PREFIX = "torchvision:"

_IMAGE = (1, 3, 224, 224)
_SIZES: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("torchvision.models.segmentation", (1, 3, 520, 520)),
    ("torchvision.models.optical_flow", (1, 3, 520, 960)),
    ("torchvision.models.video.mvit", (1, 3, 16, 224, 224)),
    ("torchvision.models.video.swin_transformer", (1, 3, 16, 224, 224)),
    ("torchvision.models.video.s3d", (1, 3, 16, 224, 224)),
    ("torchvision.models.video", (1, 3, 16, 112, 112)),
    ("torchvision.models.detection", (1, 3, 800, 800)),
    ("torchvision.models.inception", (1, 3, 299, 299)),
)
"""Module that a builder lives in to the input of its pretrained weights; the first that fits."""

_SCHEMAS = ("nms", "qnms")
"""Operators whose absence stops the import of a torchvision built for another PyTorch."""

_DETECTION = "torchvision.models.detection"


def sniff(source: Any) -> bool:
    """Whether ``source`` is a name with the prefix ``torchvision:``."""
    return isinstance(source, str) and source.startswith(PREFIX)


def read(source: str, *, input_shapes: Any = None, name: str | None = None) -> Graph:
    """The graph of the architecture ``source``, with or without the prefix.

    Of a detection model it is the backbone: what follows depends on the number of objects found.

    Args:
        source: A name of ``torchvision.models.list_models()``.
        input_shapes: As of the PyTorch front end; the size of the pretrained weights where left out.
        name: Name of the graph; the architecture where left out.

    Raises:
        ModelError: no such architecture; near names are listed.
        MissingDependencyError: torchvision is not installed.
    """
    title = source.removeprefix(PREFIX)
    module, shape = build(title)
    shapes: Any = shape if input_shapes is None else input_shapes
    if input_shapes is None and title.startswith("raft"):
        shapes = (shape, shape)
    return pytorch.read(module, input_shapes=shapes, name=name or title)


def names() -> list[str]:
    """Every architecture that can be read."""
    return list(_models().list_models())


def build(title: str) -> tuple[Any, tuple[int, ...]]:
    """The module of ``title`` on the device ``meta`` and its input shape."""
    models = _models()
    known = models.list_models()
    if title not in known:
        raise ModelError(f"torchvision has no model {title!r}; {nearest(title, known)}")
    builder = models.get_model_builder(title)
    home = builder.__module__
    options = (
        {"weights_backbone": None} if home.startswith((_DETECTION, "torchvision.models.segmentation")) else {}
    )
    module = without_weights(lambda: builder(weights=None, **options))
    if home.startswith(_DETECTION):
        module = module.backbone
    return module, next((shape for prefix, shape in _SIZES if home.startswith(prefix)), _IMAGE)


def nearest(title: str, known: list[str]) -> str:
    """A sentence with the names of ``known`` most like ``title``."""
    near = difflib.get_close_matches(title, known, n=3, cutoff=0.5)
    return f"did you mean {', '.join(near)}?" if near else "see its list_models()"


def importable() -> None:
    """Declare the operators that a torchvision built for another PyTorch misses at import.

    Architectures need their schemas only. Does nothing where torchvision's own operators are there.
    """
    import torch

    missing = [op for op in _SCHEMAS if not _declared(op)]
    if missing and "torchvision" not in _libraries:
        try:
            import torchvision  # noqa: F401
        except RuntimeError as error:
            if "torchvision::" not in str(error):
                raise
            library = _libraries["torchvision"] = torch.library.Library("torchvision", "FRAGMENT")
            for op in _SCHEMAS:
                if not _declared(op):
                    library.define(f"{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_libraries: dict[str, Any] = {}
"""Declarations live as long as their library object."""


def _declared(op: str) -> bool:
    import torch

    return bool(torch._C._jit_get_schemas_for_operator(f"torchvision::{op}"))


def _models() -> Any:
    pytorch._torch()
    try:
        importable()
        import torchvision.models
    except ImportError:
        raise MissingDependencyError("torchvision", "torch", "reading a torchvision model by name") from None
    return torchvision.models
