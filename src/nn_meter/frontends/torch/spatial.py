"""Windows over the spatial axes of images: convolutions, poolings, resizing, padding, patches."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nn_meter.frontends.torch.call import Call, Row, Writer, Written, each, reshaped, spread, transposed
from nn_meter.ir import Attr


def convolution(transposed: bool = False) -> Row:
    """``convNd`` and ``conv_transposeNd``."""

    def row(w: Writer, c: Call) -> str:
        x, weight = w.value(c["input"]), w.value(c["weight"])
        n = len(w.shape(weight)) - 2
        single = len(w.shape(x)) == n + 1
        if single:
            x = w.op("Unsqueeze", x, w.const((0,)))
        kernel = w.shape(weight)[2:]
        dilations, strides = spread(c["dilation"], n), spread(c["stride"], n)
        if isinstance(c["padding"], str):
            total = [
                d * (k - 1) if c["padding"] == "same" else 0 for d, k in zip(dilations, kernel, strict=True)
            ]
            pads = (*(t // 2 for t in total), *(t - t // 2 for t in total))
        else:
            pads = spread(c["padding"], n) * 2
        attrs: dict[str, Attr] = {
            "dilations": dilations, "group": c["groups"], "kernel_shape": kernel, "pads": pads,
            "strides": strides,
        }  # fmt: skip
        inputs = (x, weight) if c["bias"] is None else (x, weight, w.value(c["bias"]))
        if transposed or c["transposed"]:
            extra = spread(c["output_padding"], n)
            out = w.op("ConvTranspose", *inputs, **attrs, **({"output_padding": extra} if any(extra) else {}))
        else:
            out = w.op("Conv", *inputs, **attrs)
        return w.op("Squeeze", out, w.const((0,))) if single else out

    return row


def _window(c: Call, rank: int) -> tuple[int, ...]:
    """The kernel of a pooling; one larger than the padded input, which ``ceil_mode`` allows, as large as that."""
    sizes, pads = c.first.shape[-rank:], spread(c["padding"], rank)
    kernel = spread(c["kernel_size"], rank)
    return tuple(min(k, size + 2 * p) for k, size, p in zip(kernel, sizes, pads, strict=True))


def pool(op_type: str, rank: int, outputs: int = 1) -> Row:
    """``max_poolNd``, with indices where there are two outputs, and ``avg_poolNd``."""

    def row(w: Writer, c: Call) -> Written:
        kernel = _window(c, rank)
        attrs: dict[str, Attr] = {
            "kernel_shape": kernel,
            "strides": spread(c["stride"], rank) if c["stride"] else kernel,
            "pads": spread(c["padding"], rank) * 2,
        }
        if op_type == "MaxPool":
            attrs |= {"dilations": spread(c["dilation"], rank), "ceil_mode": int(c["ceil_mode"])}
        else:
            attrs |= {"ceil_mode": int(c["ceil_mode"]), "count_include_pad": int(c["count_include_pad"])}
        return w.multi(op_type, (w.value(c.first),), outputs, **attrs)

    return row


def adaptive_pool(rank: int, kind: str) -> Row:
    """``adaptive_xxx_poolNd``: global where the result is one element, else windows of one size."""

    def row(w: Writer, c: Call) -> Written:
        x = w.value(c.first)
        size, out = w.shape(x)[-rank:], c.shape[-rank:]
        if out == size:
            return (x, "")
        if out == (1,) * rank and len(w.shape(x)) == rank + 2:
            return (w.op(f"Global{kind}Pool", x), "")
        strides = tuple(i // o for i, o in zip(size, out, strict=True))
        if any(i < o for i, o in zip(size, out, strict=True)):
            sizes = w.const((*w.shape(x)[:-rank], *out))
            w.note(f"{c.name} from {size} to {out} enlarges; it was read as Resize")
            return (w.op("Resize", x, "", "", sizes, mode="nearest"), "")
        if any(i % o for i, o in zip(size, out, strict=True)):
            w.note(f"{c.name} from {size} to {out} has windows of several sizes; it was read with one size")
        kernel = tuple(i - (o - 1) * s for i, o, s in zip(size, out, strides, strict=True))
        op_type = f"{kind}Pool"
        return (w.op(op_type, x, kernel_shape=kernel, strides=strides, pads=(0,) * (2 * rank)), "")

    return row


def fractional_pool(rank: int) -> Row:
    """``fractional_max_poolNd``, whose windows lie at random."""
    pool = adaptive_pool(rank, "Max")

    def row(w: Writer, c: Call) -> Written:
        w.note(f"{c.name} has windows at random places; it was read with windows in a row")
        return pool(w, c)

    return row


def max_unpool(rank: int) -> Row:
    """``max_unpoolNd``: each value goes to its index within the plane, among zeros."""

    def row(w: Writer, c: Call) -> str:
        x = w.value(c.first)
        flat = (*w.shape(x)[:-rank], math.prod(w.shape(x)[-rank:]))
        blank = w.weight((*flat[:-1], math.prod(c.shape[-rank:])), c.dtype)
        values, places = (reshaped(w, name, flat) for name in (x, w.value(c["indices"])))
        return reshaped(w, w.op("ScatterElements", blank, places, values, axis=len(flat) - 1), c.shape)

    return row


def resize(mode: str, place: str = "half_pixel", **attrs: Attr) -> Row:
    """``upsample_xxx`` and ``interpolate``; ``place`` says where the source of an element lies, as exporters write it
    (PyTorch has another for results of one element alone)."""

    def row(w: Writer, c: Call) -> str:
        align = "align_corners" if c["align_corners"] else place
        sizes, x = w.const(c.shape), w.value(c.first)
        return w.op("Resize", x, "", "", sizes, mode=mode, coordinate_transformation_mode=align, **attrs)

    return row


def pad(mode: str) -> Row:
    """Padding; PyTorch lists pairs from the last axis on."""

    def row(w: Writer, c: Call) -> str:
        amounts = c["pad"] if c["pad"] is not None else c["padding"]
        rank = c.first.dim()
        begins, ends = [0] * rank, [0] * rank
        for index in range(len(amounts) // 2):
            begins[rank - 1 - index], ends[rank - 1 - index] = amounts[2 * index], amounts[2 * index + 1]
        if not any(amounts):
            return w.value(c.first)
        kind = c["mode"] if isinstance(c["mode"], str) else mode
        kind = {"replicate": "edge", "circular": "wrap"}.get(kind, kind)
        value = () if kind != "constant" else (w.const(c["value"] or 0, c.dtype),)
        return w.op("Pad", w.value(c.first), w.const((*begins, *ends)), *value, mode=kind)

    return row


def _im2col(w: Writer, c: Call) -> str:
    """Patches as columns: padded, rows and columns picked by constants, as the TorchScript exporter does."""
    x = w.value(c.first)
    n, channels = w.shape(x)[:2]
    (kh, kw), (ph, pw) = spread(c["kernel_size"], 2), spread(c["padding"], 2)
    if ph or pw:
        x = w.op("Pad", x, w.const((0, 0, ph, pw, 0, 0, ph, pw)), w.const(0.0, c.dtype), mode="constant")
    height, width = w.shape(x)[2:]
    (dh, dw), (sh, sw) = spread(c["dilation"], 2), spread(c["stride"], 2)
    rows, columns = (height - dh * (kh - 1) - 1) // sh + 1, (width - dw * (kw - 1) - 1) // sw + 1
    x = w.op("Gather", x, w.weight((kh, rows), "int64"), axis=2)
    x = w.op("Gather", x, w.weight((kw, columns), "int64"), axis=4)
    return w.op(
        "Reshape", transposed(w, x, (0, 1, 2, 4, 3, 5)), w.const((n, channels * kh * kw, rows * columns))
    )


def _col2im(w: Writer, c: Call) -> str:
    pads = spread(c["padding"], 2) * 2
    return w.op(
        "Col2Im", w.value(c.first), w.const(tuple(c["output_size"])), w.const(spread(c["kernel_size"], 2)),
        dilations=spread(c["dilation"], 2), pads=pads, strides=spread(c["stride"], 2),
    )  # fmt: skip


def _pixel_shuffle(w: Writer, c: Call) -> str:
    x = w.value(c.first)
    images = reshaped(w, x, (math.prod(w.shape(x)[:-3]), *w.shape(x)[-3:]))
    return reshaped(w, w.op("DepthToSpace", images, blocksize=c["upscale_factor"], mode="CRD"), c.shape)


def _pixel_unshuffle(w: Writer, c: Call) -> str:
    x, block = w.value(c.first), c["downscale_factor"]
    *lead, height, width = w.shape(x)
    rank = len(lead)
    apart = reshaped(w, x, (*lead, height // block, block, width // block, block))
    return reshaped(w, transposed(w, apart, (*range(rank), rank + 1, rank + 3, rank, rank + 2)), c.shape)


def _channel_shuffle(w: Writer, c: Call) -> str:
    x, groups = w.value(c.first), c["groups"]
    n, channels, *rest = w.shape(x)
    apart = w.op("Reshape", x, w.const((n, groups, channels // groups, *rest)))
    swapped = transposed(w, apart, (0, 2, 1, *range(3, 3 + len(rest))))
    return w.op("Reshape", swapped, w.const((n, channels, *rest)))


def _grid_sample(w: Writer, c: Call) -> str:
    mode = ("linear", "nearest", "cubic")[c["interpolation_mode"]]
    padding = ("zeros", "border", "reflection")[c["padding_mode"]]
    return w.op(
        "GridSample", w.value(c.first), w.value(c["grid"]),
        align_corners=int(c["align_corners"]), mode=mode, padding_mode=padding,
    )  # fmt: skip


ROWS: Mapping[str, Row] = {
    **each("conv1d conv2d conv3d convolution _convolution", convolution()),
    **each("conv_transpose1d conv_transpose2d conv_transpose3d", convolution(transposed=True)),
    **{f"max_pool{n}d": pool("MaxPool", n) for n in (1, 2, 3)},
    **{f"max_pool{n}d_with_indices": pool("MaxPool", n, outputs=2) for n in (1, 2, 3)},
    **{f"avg_pool{n}d": pool("AveragePool", n) for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d": adaptive_pool(n, "Average") for n in (1, 2, 3)},
    **{f"_adaptive_avg_pool{n}d": adaptive_pool(n, "Average") for n in (2, 3)},
    **{f"adaptive_max_pool{n}d": adaptive_pool(n, "Max") for n in (1, 2, 3)},
    **{f"fractional_max_pool{n}d": fractional_pool(n) for n in (2, 3)},
    **{f"max_unpool{n}d": max_unpool(n) for n in (2, 3)},
    **{f"upsample_nearest{n}d": resize("nearest", "asymmetric", nearest_mode="floor") for n in (1, 2, 3)},
    **{
        f"_upsample_nearest_exact{n}d": resize("nearest", "half_pixel", nearest_mode="round_prefer_ceil")
        for n in (1, 2, 3)
    },
    **each("upsample_linear1d upsample_bilinear2d upsample_trilinear3d", resize("linear")),
    "_upsample_bilinear2d_aa": resize("linear", antialias=1),
    "upsample_bicubic2d": resize("cubic", cubic_coeff_a=-0.75),
    "_upsample_bicubic2d_aa": resize("cubic", cubic_coeff_a=-0.5, antialias=1),
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    **each("channel_shuffle native_channel_shuffle", _channel_shuffle),
    **each("grid_sampler grid_sampler_2d grid_sampler_3d", _grid_sample),
    **each("pad constant_pad_nd", pad("constant")),
    **{f"reflection_pad{n}d": pad("reflect") for n in (1, 2, 3)},
    **{f"replication_pad{n}d": pad("edge") for n in (1, 2, 3)},
    "im2col": _im2col,
    "col2im": _col2im,
}  # fmt: skip
"""ATen operator to what writes it."""
