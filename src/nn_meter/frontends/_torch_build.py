"""Builds a module without its weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any


def without_weights(build: Callable[[], Any]) -> Any:
    """What ``build`` returns, its parameters on the device ``meta``.

    Constructors that look at values of the tensors they make cannot run on ``meta``; for them only the
    tensors
    that are made without values (``empty``, ``zeros``, ``rand`` ...) are put there.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    blank = frozenset(
        (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.empty_strided)
    )

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
