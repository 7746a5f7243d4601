"""Operators that only move data, or say where it lies: a row each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from nn_meter.backends.pytorch.site import Function, Row, Site, edges


def _to_shape(site: Site) -> Function:
    shape = site.shape
    return lambda x, *_: x.reshape(shape)


def _permute(site: Site) -> Function:
    order = site.numbers("perm", tuple(reversed(range(len(site.shape_of(0))))))
    return lambda x: x.permute(order)


def _expand(site: Site) -> Function:
    shape = site.shape
    return lambda x, *_: x.expand(shape)


def _constant(site: Site) -> Function:
    kind = getattr(site.torch, site.outputs[0].dtype)
    shape, value = site.shape, site.number("value", 0)
    return lambda *_: site.torch.full(shape, value, dtype=kind)


def _tile(site: Site) -> Function:
    times = site.values(1, "repeats") or ()
    return lambda x, *_: x.repeat(times)


def _slice(site: Site) -> Function:
    shape, slices = site.shape_of(0), site.slices()
    if any(step < 1 for *_, step in slices):
        turned = [axis for axis, *_, step in slices if step == -1]
        if len(turned) != len(slices) or site.shape != shape:
            raise NotImplementedError("a slice that goes backwards through a part")
        return lambda x, *_: x.flip(turned)
    parts = [slice(None)] * len(shape)
    for axis, start, end, step in slices:
        parts[axis] = slice(start, min(end, shape[axis]), step)
    place = tuple(parts)
    return lambda x, *_: x[place]


def _split(site: Site) -> Function:
    axis = int(site.number("axis", 0))
    sizes = [each.shape[axis] for each in site.outputs]
    return lambda x, *_: x.split(sizes, axis)


def _concat(site: Site) -> Function:
    function, axis = site.torch.cat, int(site.number("axis", 0))
    return lambda *parts: function(parts, axis)


_MODES: Mapping[str, str] = MappingProxyType({"edge": "replicate", "wrap": "circular"})


def _pad(site: Site) -> Function:
    function, rank = site.torch.nn.functional.pad, len(site.shape_of(0))
    pads = site.pads()
    sides = edges(*zip(*(pads.get(axis, (0, 0)) for axis in range(rank)), strict=True))
    while sides and not any(sides[-2:]):
        del sides[-2:]
    mode = str(site.attrs.get("mode", "constant"))
    if mode == "constant":
        fill = (site.values(2, "value") or (0.0,))[0]
        return lambda x, *_: function(x, sides, "constant", fill)
    return lambda x, *_: function(x, sides, _MODES.get(mode, mode))


def _gather(site: Site) -> Function:
    torch, axis, shape = site.torch, int(site.number("axis", 0)), site.shape
    length, places = site.shape_of(0)[axis], site.values(1)
    if places is not None and len(places) == 1:
        place = int(places[0]) % length
        return lambda x, _: x.select(axis, place).reshape(shape)
    if len(site.shape_of(0)) == 2 and axis == 0 and site.constants[0] is not None:
        return lambda x, at: torch.embedding(x, at)
    if places is not None:
        known = torch.tensor([int(each) % length for each in places])
        return lambda x, _: x.index_select(axis, known).reshape(shape)
    return lambda x, at: x.index_select(axis, at.reshape(-1)).reshape(shape)


def _gather_nd(site: Site) -> Function:
    return lambda x, at: x[tuple(at.unbind(-1))]


def _gather_elements(site: Site) -> Function:
    function, axis = site.torch.gather, int(site.number("axis", 0))
    return lambda x, at: function(x, axis, at)


_HOW: Mapping[str, str] = MappingProxyType({"add": "sum", "mul": "prod", "max": "amax", "min": "amin"})


def _scatter_elements(site: Site) -> Function:
    axis, how = int(site.number("axis", 0)), str(site.attrs.get("reduction", "none"))
    if how == "none":
        return lambda x, at, new: x.scatter(axis, at, new)
    return lambda x, at, new: x.scatter_reduce(axis, at, new, _HOW[how])


def _scatter_nd(site: Site) -> Function:
    how = str(site.attrs.get("reduction", "none"))
    if how not in ("none", "add"):
        raise NotImplementedError(f"scattering whole rows with the reduction {how}")
    return lambda x, at, new: x.index_put(tuple(at.unbind(-1)), new, accumulate=how == "add")


def _trilu(site: Site) -> Function:
    function, diagonal = site.torch.triu if site.flag("upper", 1) else site.torch.tril, site.values(1) or (0,)
    return lambda x, *_: function(x, int(diagonal[0]))


def _one_hot(site: Site) -> Function:
    function, depth = site.torch.nn.functional.one_hot, site.values(1) or (1,)
    return lambda x, *_: function(x % int(depth[0]), int(depth[0])).to(site.torch.float32)


def _cumulate(site: Site) -> Function:
    torch, (axis,) = site.torch, site.values(1) or (0,)
    if site.flag("reverse") or site.flag("exclusive"):
        return lambda x, *_: torch.cumsum(x.flip(axis), axis).flip(axis)
    return lambda x, *_: torch.cumsum(x, axis)


def _top_k(site: Site) -> Function:
    function, axis = site.torch.topk, int(site.number("axis", -1))
    count, largest, ordered = site.shape[axis], site.flag("largest", 1), site.flag("sorted", 1)
    return lambda x, *_: function(x, count, axis, largest, ordered)


def _depth_to_space(site: Site) -> Function:
    torch, size = site.torch, int(site.number("blocksize", 1))
    if site.attrs.get("mode", "DCR") == "CRD":
        return lambda x: torch.pixel_shuffle(x, size)
    n, c, h, w = site.shape_of(0)
    apart, shape = (n, size, size, c // size**2, h, w), site.shape
    return lambda x: x.reshape(apart).permute(0, 3, 4, 1, 5, 2).reshape(shape)


def _space_to_depth(site: Site) -> Function:
    size, shape = int(site.number("blocksize", 1)), site.shape
    n, c, h, w = site.shape_of(0)
    apart = (n, c, h // size, size, w // size, size)
    return lambda x: x.reshape(apart).permute(0, 3, 5, 1, 2, 4).reshape(shape)


_RESIZED: Mapping[tuple[str, int], str] = MappingProxyType(
    {("linear", 1): "linear", ("linear", 2): "bilinear", ("linear", 3): "trilinear", ("cubic", 2): "bicubic"}
)


def _resize(site: Site) -> Function:
    size, mode = site.shape[2:], str(site.attrs.get("mode", "nearest"))
    if site.shape[:2] != site.shape_of(0)[:2]:
        raise NotImplementedError("resizing the batch or the channels")
    if mode != "nearest" and (mode, len(size)) not in _RESIZED:
        raise NotImplementedError(f"resizing {len(size)} axes in the mode {mode}")
    function = site.torch.nn.functional.interpolate
    if mode == "nearest":
        return lambda x, *_: function(x, size)
    name, aligned = _RESIZED[mode, len(size)], site.attrs.get("coordinate_transformation_mode") == "align_corners"
    return lambda x, *_: function(x, size, mode=name, align_corners=aligned)


_SAMPLED: Mapping[str, str] = MappingProxyType({"linear": "bilinear", "cubic": "bicubic"})


def _grid_sample(site: Site) -> Function:
    function, mode = site.torch.nn.functional.grid_sample, str(site.attrs.get("mode", "bilinear"))
    padding, aligned = str(site.attrs.get("padding_mode", "zeros")), site.flag("align_corners")
    return lambda x, grid: function(x, grid, _SAMPLED.get(mode, mode), padding, aligned)


ROWS: Mapping[str, Row] = MappingProxyType(
    {
        **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), _to_shape),
        "Concat": _concat,
        "ConstantOfShape": _constant,
        "CumSum": _cumulate,
        "DepthToSpace": _depth_to_space,
        "Expand": _expand,
        "Gather": _gather,
        "GatherElements": _gather_elements,
        "GatherND": _gather_nd,
        "GridSample": _grid_sample,
        "Identity": lambda site: lambda x: x,
        "OneHot": _one_hot,
        "Pad": _pad,
        "Resize": _resize,
        "ScatterElements": _scatter_elements,
        "ScatterND": _scatter_nd,
        "Slice": _slice,
        "SpaceToDepth": _space_to_depth,
        "Split": _split,
        "Tile": _tile,
        "TopK": _top_k,
        "Transpose": _permute,
        "Trilu": _trilu,
    }
)
"""Operator to its row."""
