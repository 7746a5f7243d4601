"""What PyTorch says of its operators, and arguments put in the place of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any


@dataclass(frozen=True, slots=True)
class Signature:
    """What the recorder needs to know of an ATen operator."""

    name: str
    label: str
    arguments: tuple[str, ...]
    defaults: Mapping[str, Any]
    device: int
    mutates: str
    views: str


@lru_cache(10_000)
def signature_of(func: Any) -> Signature:
    schema = func._schema
    name = schema.name.removeprefix("aten::")
    written = [
        argument.name for argument in schema.arguments if argument.alias_info and argument.alias_info.is_write
    ]
    shared = bool(schema.returns) and any(r.alias_info is not None for r in schema.returns)
    return Signature(
        name=name[:-1] if written and name.endswith("_") else name,
        label=str(func).removesuffix(".default"),
        arguments=tuple(argument.name for argument in schema.arguments),
        defaults={a.name: a.default_value for a in schema.arguments if a.has_default_value()},
        device=next((i for i, a in enumerate(schema.arguments) if "Device" in str(a.type)), -1),
        mutates=written[0] if written else "",
        views=schema.arguments[0].name if shared and not written and schema.arguments else "",
    )


@lru_cache(100)
def dtype_name(dtype: Any) -> str:
    """``torch.float32`` as ``float32``, and so on for every type."""
    name = str(dtype).removeprefix("torch.")
    return name.replace("float8_", "float8")


def tensors_in(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Any]:
    for value in (*args, *kwargs.values()):
        if hasattr(value, "untyped_storage"):
            yield value
        elif isinstance(value, list | tuple):
            for item in value:
                if hasattr(item, "untyped_storage"):
                    yield item


def _swap(value: Any, table: Mapping[int, Any]) -> Any:
    if isinstance(value, list | tuple):
        return [_swap(item, table) for item in value]
    return table.get(id(value), value) if hasattr(value, "untyped_storage") else value


def swapped(args: tuple[Any, ...], table: Mapping[int, Any], device_at: int, device: str) -> list[Any]:
    import torch

    return [
        torch.device(device) if index == device_at and value is not None else _swap(value, table)
        for index, value in enumerate(args)
    ]


def moved(kwargs: Mapping[str, Any], table: Mapping[int, Any], device: str) -> dict[str, Any]:
    import torch

    moved = {key: _swap(value, table) for key, value in kwargs.items() if key != "pin_memory"}
    if moved.get("device") is not None or (not table and "device" in moved):
        moved["device"] = torch.device(device)
    return moved


class Remembered:
    """What operators answer on tensors without storage, which follows from shapes, strides, types and plain arguments:
    the layers of a network, and the candidates of a search, ask the same again and again."""

    _MOST = 20_000

    def __init__(self) -> None:
        self._known: dict[Any, tuple[bool, tuple[tuple[Any, Any, Any] | None, ...]]] = {}

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], answer: Callable[[], Any]) -> Any:
        """What ``answer`` gives for such a call, as tensors of this call's own."""
        import torch

        try:
            key = func, torch.get_default_dtype(), _described(args), tuple(kwargs), _described([*kwargs.values()])
            known = self._known.get(key)
        except TypeError:  # an argument that is not hashable
            return answer()
        if known is None:
            result = answer()
            several = type(result) in (tuple, list)
            outs = tuple(result) if several else (result,)
            if all(out is None or type(out) is torch.Tensor for out in outs) and _apart(outs, args, kwargs):
                if len(self._known) >= self._MOST:
                    self._known.clear()
                made = tuple(None if out is None else (out.shape, out.stride(), out.dtype) for out in outs)
                self._known[key] = several, made
            return result
        several, made = known
        found = [
            None if out is None else torch.empty_strided(out[0], out[1], dtype=out[2], device="meta") for out in made
        ]
        return tuple(found) if several else found[0]


def _described(value: Any) -> Any:
    if hasattr(value, "untyped_storage"):
        return value.shape, value.stride(), value.dtype
    if isinstance(value, list | tuple):
        return tuple([_described(item) for item in value])
    return type(value), value


def _apart(outs: Sequence[Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether results are dense tensors that share their storage with no other, nor with an argument."""
    import torch

    tensors = [out for out in outs if out is not None]
    if any(out.layout is not torch.strided or out.dtype.is_complex or out.storage_offset() for out in tensors):
        return False
    seen = [tensor.untyped_storage()._cdata for tensor in (*tensors, *tensors_in(args, kwargs))]
    return len({*seen[: len(tensors)]}) == len(tensors) and {*seen[: len(tensors)]}.isdisjoint(seen[len(tensors) :])


def decompositions() -> Mapping[Any, Callable[..., Any]]:
    from torch._decomp import core_aten_decompositions

    table: Mapping[Any, Callable[..., Any]] = core_aten_decompositions()
    return table
