"""The columns of nn-Meter's predictors, quirks included.

``nn-meter-1`` is what nn-Meter 2.0 computes when it predicts; ``nn-meter-builder-1`` what its builder trains
on. They differ in ``concat`` (five columns against six), which is why nn-Meter crashes there on predictors of
its own builder, and in the size of a global pooling, which prediction always states as 1.

A kernel's shape is that of the operator that it starts with, so that everything fused behind it is not seen.
Flops divide by the stride without rounding; multiply-adds count once (``flops / 2e6``), parameters in millions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

_CONV = ("inputh", "cin", "cout", "ks", "stride", "mflops", "mparams")
_POOL = ("inputh", "cin", "cout", "ks", "stride")
_MAP = ("inputh", "cin")

NN_METER_1: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "conv-bn-relu": _CONV,
        "dwconv-bn-relu": _CONV,
        "fc": ("cin", "cout", "mflops", "mparams"),
        "maxpool": _POOL,
        "avgpool": _POOL,
        "global-avgpool": _MAP,
        "channelshuffle": _MAP,
        "split": _MAP,
        "se": _MAP,
        "hswish": _MAP,
        "bn": _MAP,
        "relu": _MAP,
        "bnrelu": _MAP,
        "add": ("inputh", "cin1", "cin2"),
        "addrelu": ("inputh", "cin1", "cin2"),
        "concat": ("inputh", "branches", "cin1", "cin2", "cin3", "cin4"),
    }
)
"""Kernel name to columns, as nn-Meter 2.0 predicts."""

NN_METER_BUILDER_1: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {**NN_METER_1, "concat": ("inputh", "cin1", "cin2", "cin3", "cin4")}
)
"""Kernel name to columns, as nn-Meter's builder trains."""

SCHEMAS: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"nn-meter-1": NN_METER_1, "nn-meter-builder-1": NN_METER_BUILDER_1}
)

_EXACT: Mapping[str, str] = MappingProxyType(
    {
        "add-relu": "addrelu",
        "bn-relu": "bnrelu",
        "fc-relu": "fc",
        "gap": "global-avgpool",
        "se-relu": "se",
        **{name: name for name in NN_METER_1 if "-" not in name and name not in ("addrelu", "bnrelu")},
    }
)
_CONVOLUTIONS = frozenset({"conv", "convtrans"})

Facts = Mapping[str, Any]
"""The ``"attr"`` entry of a node in nn-Meter's dictionary: ``attr``, ``input_shape``, ``output_shape`` (NHWC)."""


def kernel_name(ops: Sequence[str]) -> str | None:
    """Which of nn-Meter's predictors answers for a kernel of these operators; ``None`` where it has none.

    Whatever contains a depthwise convolution counts as one, then whatever contains a convolution; all else has
    to be listed.
    """
    parts = [part for op in ops for part in op.split("-")]
    if "dwconv" in parts:
        return "dwconv-bn-relu"
    if not _CONVOLUTIONS.isdisjoint(parts):
        return "conv-bn-relu"
    return _EXACT.get("-".join(ops))


def _square(value: Any) -> Any:
    """nn-Meter takes the second of two sizes."""
    return value[1]


def _kernel_size(attr: Mapping[str, Any]) -> Any:
    if "ksize" in attr:
        return _square(attr["ksize"])
    if attr.get("weight_shape") is not None:
        return _square(attr["weight_shape"][0:2])
    return _square(attr["kernel_shape"] if "kernel_shape" in attr else attr["ks"])


def _window(facts: Facts) -> tuple[Any, ...]:
    attr, shape = facts["attr"], facts["input_shape"][0]
    (out,) = facts["output_shape"]
    _, height, _, cin = shape
    return height, cin, out[-1], _kernel_size(attr), _square(attr["strides"]) if "strides" in attr else 1


def _conv(facts: Facts) -> tuple[float, ...]:
    height, cin, cout, ks, stride = _window(facts)
    params = cout * (ks * ks * cin + 1)
    return height, cin, cout, ks, stride, 2 * height / stride * height / stride * params / 2e6, params / 1e6


def _dwconv(facts: Facts) -> tuple[float, ...]:
    height, cin, cout, ks, stride = _window(facts)
    params = cout * (ks * ks + 1)
    return height, cin, cout, ks, stride, 2 * height / stride * height / stride * params / 2e6, params / 1e6


def _fc(facts: Facts) -> tuple[float, ...]:
    cin = facts["input_shape"][0][-1]
    (out,) = facts["output_shape"]
    flops = (2 * cin + 1) * out[-1]
    return cin, out[-1], flops / 2e6, flops / 1e6


def _global_pool(facts: Facts) -> tuple[float, ...]:
    return 1, facts["input_shape"][0][-1]


def _map(facts: Facts) -> tuple[float, ...]:
    _, height, _, cin = facts["input_shape"][0]
    return height, cin


def _se(facts: Facts) -> tuple[float, ...]:
    shape = facts["input_shape"][-1]
    return shape[-2], shape[-1]


def _hswish(facts: Facts) -> tuple[float, ...]:
    shape = _first_shape(facts)
    return (shape[1] if len(shape) != 2 else shape[0]), shape[-1]


def _pointwise(facts: Facts) -> tuple[float, ...]:
    shape = facts["input_shape"][0]
    return (shape[1], shape[3]) if len(shape) == 4 else (shape[0], shape[1])


def _add(facts: Facts) -> tuple[float, ...]:
    # nn-Meter gives every operand the shape of the first that has one, and reads two operands
    shape, uses = _first_shape(facts), len(facts["input_shape"])
    if uses < 2:
        raise IndexError("an add of one operand")
    return shape[1], shape[3], shape[3]


def _first_shape(facts: Facts) -> Sequence[int]:
    shapes: Sequence[Sequence[int]] = facts["input_shape"]
    return shapes[0] or shapes[1]


def _concat(facts: Facts) -> tuple[float, ...]:
    shapes = facts["input_shape"]
    row = [shapes[0][1], len(shapes), *(shape[-1] for shape in shapes)][:6]
    if len(shapes) > 4:
        row[1] = 6
    return tuple(row + [0] * (6 - len(row)))


def _concat_builder(facts: Facts) -> tuple[float, ...]:
    shapes = facts["input_shape"]
    row = [shapes[0][1], *(shape[-1] for shape in shapes)][:5]
    return tuple(row + [0] * (5 - len(row)))


_ROWS: Mapping[str, Callable[[Facts], tuple[float, ...]]] = MappingProxyType(
    {
        "conv-bn-relu": _conv,
        "dwconv-bn-relu": _dwconv,
        "fc": _fc,
        "maxpool": _window,
        "avgpool": _window,
        "global-avgpool": _global_pool,
        "channelshuffle": _map,
        "split": _map,
        "se": _se,
        "hswish": _hswish,
        "bn": _pointwise,
        "relu": _pointwise,
        "bnrelu": _pointwise,
        "add": _add,
        "addrelu": _add,
        "concat": _concat,
    }
)
ENCODERS: Mapping[str, Mapping[str, Callable[[Facts], tuple[float, ...]]]] = MappingProxyType(
    {"nn-meter-1": _ROWS, "nn-meter-builder-1": MappingProxyType({**_ROWS, "concat": _concat_builder})}
)
"""Schema to kernel name to the function that makes a row, in the order of the columns. A function raises
``KeyError``, ``IndexError``, ``TypeError`` or ``ValueError`` where the kernel does not have the shape that its
columns ask for."""
