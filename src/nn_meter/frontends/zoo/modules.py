"""Modules of a library, built without their weights."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from nn_meter.errors import MissingDependencyError
from nn_meter.frontends import torch as pytorch

_SCHEMAS = ("nms", "qnms")
"""Operators whose absence stops the import of a torchvision built for another PyTorch."""


def imported(module: str, extra: str) -> Any:
    """The module of that name of a library of architectures; ``extra`` is what installs it.

    Raises:
        MissingDependencyError: PyTorch or the library is not installed.
    """
    pytorch.imported()
    library = module.partition(".")[0]
    try:
        importable()
        return import_module(module)
    except ImportError:
        raise MissingDependencyError(library, extra, f"reading a {library} model") from None


def nearest(title: str, known: Sequence[str]) -> str:
    """A sentence with the names of ``known`` most like ``title``."""
    near = difflib.get_close_matches(title, known, n=3, cutoff=0.5)
    return f"did you mean {', '.join(near)}?" if near else "see its list_models()"


def without_weights(build: Callable[[], Any]) -> Any:
    """What ``build`` returns, its parameters on the device ``meta``.

    Constructors that look at values of the tensors they make cannot run on ``meta``; for them only the tensors
    that are made without values (``empty``, ``zeros``, ``rand`` ...) are put there.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    blank = frozenset((torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.empty_strided))

    class Blank(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func in blank and kwargs.get("device") is None:
                kwargs = {**kwargs, "device": "meta"}
            return func(*args, **kwargs)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.device("meta"):
                return build()
        except (NotImplementedError, RuntimeError):
            with Blank():
                return build()


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
