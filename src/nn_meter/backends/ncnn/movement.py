"""Operators that move data and compute nothing: a row each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod
from types import MappingProxyType

import numpy as np

from nn_meter.backends.ncnn.model import MOST_AXES, Blob, Dims, Values, kept
from nn_meter.backends.ncnn.site import MOST, Row, Site

_TURNS: Mapping[int, tuple[str, ...]] = MappingProxyType(
    {
        2: ("wh", "hw"),
        3: ("whc", "hwc", "wch", "cwh", "hcw", "chw"),
        4: (
            "whdc", "hwdc", "wdhc", "dwhc", "hdwc", "dhwc", "whcd", "hwcd", "wchd", "cwhd", "hcwd", "chwd",
            "wdch", "dwch", "wcdh", "cwdh", "dcwh", "cdwh", "hdcw", "dhcw", "hcdw", "chdw", "dchw", "cdhw",
        ),
    }
)  # fmt: skip
"""What each number of a Permute makes of the axes, the innermost first (``src/layer/permute.cpp``)."""


def _to_shape(site: Site) -> None:
    site.give(site.file.view(site.raw(0), site.dims))


def _identity(site: Site) -> None:
    site.give(site.file.layer("Noop", (site.raw(0),), site.raw(0).dims))


def _transpose(site: Site) -> None:
    shape = site.shape_of(0)
    perm = site.numbers("perm", tuple(reversed(range(len(shape)))))
    site.give(_turned(site, site.raw(0), shape, perm))


def _turned(site: Site, source: Blob, shape: tuple[int, ...], perm: tuple[int, ...]) -> Blob:
    """With its axes in another order, those that stay together as one. A Permute has four axes: of more, one after the
    other is brought to its place."""
    moving = [axis for axis in perm if shape[axis] > 1]
    order = sorted(moving)
    left, sizes = [order.index(axis) for axis in moving], tuple(shape[axis] for axis in order)
    if left == sorted(left):
        return site.file.view(source, site.dims)
    while len(_together(left)) > MOST_AXES:
        place = next(i for i, axis in enumerate(left) if axis != i)
        first = [*range(place), left[place], *(i for i in range(place, len(left)) if i != left[place])]
        source = _permuted(site, source, sizes, first)
        sizes = tuple(sizes[axis] for axis in first)
        left = [first.index(axis) for axis in left]
    if left != sorted(left):
        source = _permuted(site, source, sizes, left)
    return site.file.shaped(source, site.dims)


def _together(perm: Sequence[int]) -> list[list[int]]:
    """Axes that stay beside each other, in the order that they come to."""
    groups = [[perm[0]]]
    for axis, following in pairwise(perm):
        if following == axis + 1:
            groups[-1].append(following)
        else:
            groups.append([following])
    return groups


def _permuted(site: Site, source: Blob, sizes: Sequence[int], perm: Sequence[int]) -> Blob:
    groups = _together(perm)
    order = sorted(range(len(groups)), key=lambda i: groups[i][0])
    after = tuple(prod(sizes[axis] for axis in group) for group in groups)
    letters = {2: "hw", 3: "chw", 4: "cdhw"}[len(groups)]
    turn = "".join(letters[order.index(i)] for i in reversed(range(len(groups))))
    lying = site.file.shaped(source, tuple(after[i] for i in order))
    return site.file.layer("Permute", (lying,), after, {0: _TURNS[len(groups)].index(turn)})


def _repeat(site: Site) -> None:
    """An Expand or a Tile. Of more than four axes those that are repeated together are one."""
    made, shape = site.shape, site.shape_of(0)
    whole = (1,) * (len(made) - len(shape)) + shape
    sizes = [(whole[axis], made[axis] // whole[axis]) for axis in kept(made)]
    if len(sizes) > MOST_AXES:
        groups = sizes[:1]
        for size, count in sizes[1:]:
            last, times = groups[-1]
            if last == 1 or count == 1:
                groups[-1] = last * size, times * count
            else:
                groups.append((size, count))
        sizes = groups
    if len(sizes) > MOST_AXES:
        raise NotImplementedError(f"of {len(sizes)} axes")
    sizes = sizes or [(1, 1)]
    source = site.file.get(site.inputs[0], tuple(size for size, _ in sizes))
    dims, counts = tuple(size * count for size, count in sizes), [count for _, count in sizes]
    site.give(site.file.shaped(site.file.layer("Tile", (source,), dims, {2: counts}), site.dims))


def _cropped(site: Site, source: Blob, spans: Mapping[int, tuple[int, int]]) -> Blob:
    """Of each of these places the elements from one up to another."""
    if not spans:
        return site.file.view(source, source.dims)
    dims = tuple(spans[i][1] - spans[i][0] if i in spans else size for i, size in enumerate(source.dims))
    starts, ends = zip(*spans.values(), strict=True)
    return site.file.layer("Crop", (source,), dims, {9: starts, 10: ends, 11: tuple(spans)})


def _slice(site: Site) -> None:
    shape = site.shape_of(0)
    spans, strides = {}, {}
    for axis, start, end, step in site.slices():
        if step < 1:
            raise NotImplementedError(f"with the step {step}")
        first, last, stride = slice(start, end, step).indices(shape[axis])
        if (first, last) != (0, shape[axis]):
            spans[site.place(axis)] = first, last
        if stride > 1:
            strides[site.place(axis)] = stride
    made = site.get(0) if strides and not spans else _cropped(site, site.get(0), spans)
    for place, stride in strides.items():
        made = _every(site, made, place, stride)
    site.give(made)


def _every(site: Site, source: Blob, place: int, stride: int) -> Blob:
    """Each element that is a multiple of ``stride`` along an axis: the first of each group of so many."""
    outer, size, inner = prod(source.dims[:place]), source.dims[place], prod(source.dims[place + 1 :])
    count = -(-size // stride)
    made = site.file.shaped(source, (outer, size, inner))
    if count * stride > size:
        made = site.file.layer("Padding", (made,), (outer, count * stride, inner), {1: count * stride - size})
    made = _cropped(site, site.file.shaped(made, (outer, count, stride, inner)), {2: (0, 1)})
    return site.file.shaped(made, (*source.dims[:place], count, *source.dims[place + 1 :]))


def _split(site: Site) -> None:
    place, source = site.place(site.axis(0)), site.get(0)
    sizes = [site.file.shape(name)[site.axis(0)] for name in site.outputs]
    tops: list[Dims] = [(*source.dims[:place], size, *source.dims[place + 1 :]) for size in sizes]
    made = site.file.layers("Slice", (source,), tops, {0: [*sizes[:-1], -233], 1: place})
    for name, blob in zip(site.outputs, made, strict=True):
        site.file.keep(name, blob)


def _concat(site: Site) -> None:
    place = site.place(int(site.number("axis", 0)), site.shape)
    whole = [i for i, name in enumerate(site.inputs) if 0 not in site.file.shape(name)]
    sources = [site.file.get(site.inputs[i], site.wide(i)) for i in whole]
    site.give(site.file.layer("Concat", sources, site.dims, {0: place}))


def _pad(site: Site) -> None:
    rank, mode = len(site.shape), site.text("mode", "constant")
    edges = site.pads()
    types = {"constant": 0, "edge": 1, "reflect": 2}
    if any(min(pair) < 0 for pair in edges.values()) or mode not in types:
        raise NotImplementedError("that takes away" if mode in types else f"in the mode {mode}")
    edges = {axis: pair for axis, pair in edges.items() if any(pair)}
    fill = float((site.values(2, "value") or (0.0,))[0])
    reader = site.follower("Conv")
    spatial_zeros = mode == "constant" and not fill and min(edges, default=2) > 1 == site.shape[0]
    if reader is not None and spatial_zeros and reader.attrs.get("auto_pad", "NOTSET") in ("NOTSET", "VALID"):
        spatial = [edges.get(axis, (0, 0)) for axis in range(2, rank)]
        before, behind = zip(*spatial, strict=True)
        site.file.keep(reader.inputs[0], site.get(0))
        site.file.pads[reader.inputs[0]] = before, behind, site.file.nodes
        return
    places = {site.place(axis): pair for axis, pair in edges.items()}
    if not places:
        site.give(site.file.view(site.raw(0), site.dims))
        return
    source = site.get(0)
    depth = len(source.dims)
    named = {depth - 1: (2, 3), depth - 2: (0, 1), depth - 3: (7, 8)}
    if min(places) < depth - 3:
        raise NotImplementedError("of channels that are behind a depth")
    parameters: dict[int, Values] = {4: types[mode], 5: max(min(fill, MOST), -MOST)}
    for place, (less, more) in places.items():
        parameters |= {named[place][0]: int(less), named[place][1]: int(more)}
    site.give(site.file.layer("Padding", (source,), site.dims, parameters))


def _gather(site: Site) -> None:
    """Of a table by computed rows it is an embedding; of one element or of several in a row it is a part."""
    table, places = site.constant(0), site.constant(1)
    if table is not None and places is None:
        if site.axis(0) != 0 or table.ndim != 2 or len(site.dims) != 2:
            raise NotImplementedError("of other than the rows of a table")
        rows, columns = table.shape
        parameters: dict[int, Values] = {0: columns, 1: rows, 2: 0, 3: table.size}
        source = site.file.shaped(site.raw(1), (site.dims[0],))
        site.give(site.file.layer("Embed", (source,), site.dims, parameters, (table,), tagged=True))
        return
    axis = site.axis(0)
    flat = np.zeros(0) if places is None else places.reshape(-1) % site.shape_of(0)[axis]
    if not flat.size or any(b != a + 1 for a, b in pairwise(flat)):
        raise NotImplementedError("of elements that are not in a row")
    span = int(flat[0]), int(flat[-1]) + 1
    site.give(site.file.shaped(_cropped(site, site.get(0), {site.place(axis): span}), site.dims))


def _space(kind: str) -> Row:
    def row(site: Site) -> None:
        mode = int(kind == "Reorg" or site.text("mode", "DCR") == "DCR")
        site.give(site.file.layer(kind, (site.image(),), site.dims, {0: int(site.number("blocksize", 1)), 1: mode}))

    return row


def _resize(site: Site) -> None:
    mode, how = site.text("mode", "nearest"), site.text("coordinate_transformation_mode", "half_pixel")
    types = {"nearest": 1, "linear": 2, "cubic": 3}
    if len(site.shape) != 4 or site.shape[:2] != site.shape_of(0)[:2] or mode not in types:
        raise NotImplementedError(f"of other axes than two of space, or in the mode {mode}")
    if site.number("antialias", 0):
        raise NotImplementedError("that reads all that a pixel covers (antialias)")
    height, width = site.shape[2:]
    parameters: dict[int, Values] = {0: types[mode], 3: height, 4: width, 6: int(how == "align_corners")}
    site.give(site.file.layer("Interp", (site.image(),), site.dims, parameters))


ROWS: Mapping[str, Row] = MappingProxyType(
    {
        **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), _to_shape),
        "Concat": _concat,
        "DepthToSpace": _space("PixelShuffle"),
        "Expand": _repeat,
        "Gather": _gather,
        "Identity": _identity,
        "Pad": _pad,
        "Resize": _resize,
        "Slice": _slice,
        "SpaceToDepth": _space("Reorg"),
        "Split": _split,
        "Tile": _repeat,
        "Transpose": _transpose,
    }
)
"""Operator to its row."""
