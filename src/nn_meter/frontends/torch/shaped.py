"""Results that need not be asked of PyTorch: it takes a millisecond to say of a normalisation without storage that it
changes no shape, and refuses on ``meta`` some of what it computes elsewhere.

A rule gets the arguments in order and gives the shape of the one result, which is contiguous and of the first
argument's type; nothing where PyTorch had better be asked: for what it would refuse, so that the error is its own, for
other layouts, types that mix, and shapes that are broadcast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nn_meter.frontends.torch.call import each, is_tensor, spread

Shape = tuple[int, ...]
Rule = Callable[..., Shape | None]


def _plain(x: Any) -> bool:
    return is_tensor(x) and x.is_floating_point() and x.is_contiguous()


def _fit(parts: Sequence[Any], shape: Sequence[int], x: Any) -> bool:
    """Whether those parts that are given have this shape, and the type of ``x``."""
    return all(part is None or (tuple(part.shape) == tuple(shape) and part.dtype == x.dtype) for part in parts)


def _alike(x: Any, *_: Any) -> Shape | None:
    return tuple(x.shape) if _plain(x) else None


def _both(x: Any, other: Any, *_: Any) -> Shape | None:
    return tuple(x.shape) if _plain(x) and _plain(other) and _fit([other], x.shape, x) else None


def _batch_norm(x: Any, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, *_: Any) -> Shape | None:
    known = _plain(x) and not training and mean is not None and variance is not None
    return tuple(x.shape) if known and _fit([weight, bias, mean, variance], x.shape[1:2], x) else None


def _layer_norm(x: Any, shape: Sequence[int], weight: Any = None, bias: Any = None, *_: Any) -> Shape | None:
    known = _plain(x) and len(shape) > 0 and tuple(x.shape[-len(shape) :]) == tuple(shape)
    return tuple(x.shape) if known and _fit([weight, bias], shape, x) else None


def _group_norm(x: Any, groups: int, weight: Any = None, bias: Any = None, *_: Any) -> Shape | None:
    known = _plain(x) and x.dim() > 1 and x.numel() > 0 and groups > 0 and x.shape[1] % groups == 0
    return tuple(x.shape) if known and _fit([weight, bias], x.shape[1:2], x) else None


def _linear(x: Any, weight: Any, bias: Any = None) -> Shape | None:
    known = _plain(x) and weight.dim() == 2 and weight.dtype == x.dtype and x.shape[-1:] == weight.shape[1:]
    return (*x.shape[:-1], weight.shape[0]) if known and _fit([bias], weight.shape[:1], x) else None


def _convolution(
    x: Any, weight: Any, bias: Any = None, strides: Any = 1, pads: Any = 0, dilations: Any = 1, groups: int = 1
) -> Shape | None:
    n = x.dim() - 2
    if isinstance(pads, str) or n < 1 or groups < 1:
        return None
    windows = [spread(each, n) for each in (strides, pads, dilations)]
    if not min(*windows[0], *windows[2]) > 0 <= min(windows[1]):
        return None
    whole = _plain(x) and x.numel() > 0 and x.shape[1] % groups == 0 and len(weight) % groups == 0
    of_weight, of_bias = (len(weight), x.shape[1] // groups, *weight.shape[2:]), weight.shape[:1]
    if not whole or weight.dim() != n + 2 or not (_fit([weight], of_weight, x) and _fit([bias], of_bias, x)):
        return None
    sizes = [
        (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, stride, pad, dilation in zip(x.shape[2:], weight.shape[2:], *windows, strict=True)
    ]
    return (len(x), len(weight), *sizes) if min(sizes) > 0 else None


def _adaptive(x: Any, size: Sequence[int]) -> Shape | None:
    known = _plain(x) and x.dim() == 2 + len(size) and x.numel() > 0 and min(size) > 0
    return (*x.shape[:2], *size) if known else None


RULES: Mapping[str, Rule] = {
    **each("relu hardtanh hardswish hardsigmoid gelu leaky_relu elu silu sigmoid tanh", _alike),
    **each("add sub mul div", _both),
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "linear": _linear,
    **each("conv1d conv2d conv3d", _convolution),
    "adaptive_avg_pool2d": _adaptive,
    "_grouped_mm": lambda rows, matrices, *_: (*rows.shape[:-1], matrices.shape[-1]),
}  # fmt: skip
"""ATen operator to the shape of its result."""
