"""One or a few operators of a kind: shapes and broadcasting that no family's blocks cover."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from nn_meter.networks._blocks import ACTIVATIONS, SIDES, Pen

CAST_TO: Mapping[str, int] = {"float32": 1, "int64": 7, "float16": 10, "float64": 11}
"""Element type to the number that ``Cast`` knows it by."""

UNARY = (
    ("Neg",),
    ("Abs",),
    ("Erf",),
    ("Sin",),
    ("Cos",),
    ("Floor",),
    ("Abs", "Sqrt"),
    ("Sigmoid", "Exp"),
    ("Sigmoid", "Reciprocal"),
)
"""Functions of one number, after what keeps their argument where they are defined and ordinary."""


def _map_shape(pen: Pen) -> tuple[int, int, int, int]:
    width = pen.width(4, 1024)
    side = math.sqrt(pen.log_uniform(2e3, 1.2e6) / (width * pen.batch))
    height = min(SIDES, key=lambda usual: abs(usual - side)) if pen.chance(0.5) else max(1, round(side))
    return pen.batch, width, height, height


def _tokens_shape(pen: Pen) -> tuple[int, ...]:
    width = pen.width(16, 1536)
    tokens = max(1, min(2048, round(pen.log_uniform(2e3, 8e5) / width)))
    if pen.chance(0.35):
        return pen.batch, pen.pick(1, 2, 3, 4, 6, 8, 12), max(1, tokens // 4), pen.pick(16, 32, 48, 64, 80)
    return pen.batch, tokens, width


def _any_shape(pen: Pen) -> tuple[int, ...]:
    return _map_shape(pen) if pen.chance(0.5) else _tokens_shape(pen)


def _broadcast_of(pen: Pen, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that broadcasts to ``shape``."""
    pattern = pen.pick("equal", "equal", "last", "channel", "spatial", "random", "scalar")
    if pattern == "equal":
        return shape
    if pattern == "last":
        return shape[-1:]
    if pattern == "channel":
        return (1, shape[1], *(1,) * (len(shape) - 2))
    if pattern == "spatial":
        return (shape[0], 1, *shape[2:])
    if pattern == "random":
        return tuple(dim if pen.chance(0.5) else 1 for dim in shape)
    return ()


def _binary(pen: Pen) -> str:
    shape = _any_shape(pen)
    x = pen.input(*shape)
    for _ in range(pen.integer(1, 4)):
        other = _broadcast_of(pen, shape)
        y = pen.input(*other) if other and pen.chance(0.5) else pen.weight(*other)
        pair = (x, y) if pen.chance(0.7) else (y, x)
        x = pen.op(pen.pick("Add", "Add", "Mul", "Mul", "Sub", "Div", "Max", "Min"), *pair)
    return x


def _unary(pen: Pen) -> str:
    x = pen.input(*_any_shape(pen))
    names = sorted(set(ACTIVATIONS) - {"identity"})
    for _ in range(pen.integer(2, 6)):
        if pen.chance(0.6):
            x = pen.act(x, pen.pick(*names))
        else:
            for op_type in pen.pick(*UNARY):
                x = pen.op(op_type, x)
    return x


def _power(pen: Pen) -> str:
    x = pen.op("Pow", pen.op("Abs", pen.input(*_any_shape(pen))), pen.scalar(pen.pick(2.0, 3.0, 0.5)))
    return pen.op("Log", pen.op("Add", x, pen.scalar(1.0)))


def _factors(pen: Pen, number: int) -> tuple[int, int]:
    divisor = pen.divisor(number, 1, 64)
    return divisor, number // divisor


def _reshapes(pen: Pen) -> str:
    """Reshapes alone move nothing; between operators that write, the runtime may still copy."""
    shape = _any_shape(pen)
    x = pen.input(*shape)
    for _ in range(pen.integer(1, 3)):
        if pen.chance(0.7):
            x = pen.act(x, pen.pick("relu", "sigmoid"))
        shape = pen.shape(x)
        last = _factors(pen, shape[-1])
        style = pen.pick("flat", "heads", "front", "unsqueeze", "flatten")
        if style == "flat":
            x = pen.reshape(x, shape[0], -1)
        elif style == "heads":
            x = pen.reshape(x, *shape[:-1], *last) if len(shape) < 5 else pen.reshape(x, -1, shape[-1])
        elif style == "front":
            x = pen.reshape(x, -1, shape[-1])
        elif style == "unsqueeze":
            x = pen.squeeze(pen.act(pen.op("Unsqueeze", x, pen.b.const((1,))), "relu"), 1)
        else:
            x = pen.op("Flatten", x, axis=pen.integer(1, max(1, len(shape) - 1)))
    return pen.act(x, "relu") if pen.chance(0.7) else x


def _transposes(pen: Pen) -> str:
    x = pen.input(*_any_shape(pen))
    for _ in range(pen.integer(1, 4)):
        rank = len(pen.shape(x))
        common = {3: ((0, 2, 1),), 4: ((0, 2, 3, 1), (0, 3, 1, 2), (0, 2, 1, 3), (0, 1, 3, 2))}.get(rank, ())
        if common and pen.chance(0.7):
            perm = pen.pick(*common)
        else:
            perm = tuple(int(axis) for axis in pen.rng.permutation(rank))
        x = pen.transpose(x, *perm)
        if pen.chance(0.6):
            x = pen.act(x, pen.pick("relu", "sigmoid"))
        if rank < 6 and pen.chance(0.3):
            x = pen.reshape(x, *pen.shape(x)[:-1], *_factors(pen, pen.shape(x)[-1]))
    return x


def _pads(pen: Pen) -> str:
    x = pen.input(*_map_shape(pen))
    for _ in range(pen.integer(1, 2)):
        edge = [pen.integer(0, 3) for _ in range(4)]
        pads = pen.b.const((0, 0, edge[0], edge[1], 0, 0, edge[2], edge[3]))
        mode = pen.pick("constant", "constant", "reflect", "edge")
        if mode == "reflect" and min(pen.shape(x)[2:]) <= 3:
            mode = "edge"
        x = pen.op("Pad", x, pads, *((pen.scalar(0.0),) if mode == "constant" else ()), mode=mode)
        x = pen.act(x, "relu") if pen.chance(0.5) else x
    return x


def _resizes(pen: Pen) -> str:
    batch, width, height, _ = _map_shape(pen)
    side = max(1, min(height, 64))
    x = pen.input(batch, width, side, side)
    for _ in range(pen.integer(1, 2)):
        if math.prod(pen.shape(x)) > 400_000:
            break
        if pen.chance(0.6):
            x = pen.resize(x, pen.pick(2, 2, 4), pen.pick("nearest", "linear"))
        else:
            target = [max(1, round(dim * pen.uniform(0.4, 2.2))) for dim in pen.shape(x)[2:]]
            sizes = pen.b.const((*pen.shape(x)[:2], *target))
            cheap = math.prod(pen.shape(x)) < 60_000
            mode = "cubic" if cheap and pen.chance(0.3) else pen.pick("nearest", "linear")
            x = pen.op("Resize", x, "", "", sizes, mode=mode, coordinate_transformation_mode="half_pixel")
        x = pen.conv(x, pen.channels(x), 1) if pen.channels(x) <= 64 and pen.chance(0.4) else x
    return x


def _pools(pen: Pen) -> str:
    x = pen.input(*_map_shape(pen))
    for _ in range(pen.integer(1, 3)):
        kernel = pen.integer(2, 5)
        if min(pen.shape(x)[2:]) < kernel:
            break
        stride = pen.pick(1, 2, 2, kernel)
        if pen.chance(0.5):
            x = pen.max_pool(x, kernel, stride)
        else:
            x = pen.average_pool(x, kernel, stride, pen.pick(0, 1))
        x = pen.act(x, "relu") if pen.chance(0.4) else x
    return pen.op(pen.pick("GlobalAveragePool", "GlobalMaxPool"), x) if pen.chance(0.4) else x


def _reductions(pen: Pen) -> str:
    x = pen.act(pen.input(*_any_shape(pen)), "relu")
    shape = pen.shape(x)
    axes = pen.pick((-1,), (1,), tuple(range(2, len(shape))), (len(shape) - 1, len(shape) - 2))
    op_type = pen.pick("ReduceMean", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2")
    y = pen.reduce(op_type, x, axes)
    return pen.op(pen.pick("Sub", "Mul", "Div"), x, y) if pen.chance(0.6) else y


def _softmaxes(pen: Pen) -> str:
    x = pen.input(*_any_shape(pen))
    axis = pen.pick(-1, -1, -1, 1)
    return pen.act(pen.op(pen.pick("Softmax", "Softmax", "LogSoftmax"), x, axis=axis), "relu")


def _norms(pen: Pen) -> str:
    if pen.chance(0.5):
        x = pen.input(*_tokens_shape(pen))
        for _ in range(pen.integer(1, 3)):
            x = pen.layer_norm(x) if pen.chance(0.6) else pen.rms_norm(x)
        return x
    x = pen.input(*_map_shape(pen))
    width = pen.channels(x)
    if pen.chance(0.4):
        return pen.group_norm(x, pen.divisor(width, 1, 32))
    if pen.chance(0.5):
        return pen.op("InstanceNormalization", x, pen.weight(width), pen.weight(width), epsilon=1e-5)
    return pen.act(pen.batch_norm(pen.act(x, "relu")), "relu")


def _concats(pen: Pen) -> str:
    shape = _any_shape(pen)
    axis = pen.pick(1, 1, len(shape) - 1)
    parts = []
    for _ in range(pen.integer(2, 6)):
        size = max(1, round(shape[axis] * pen.uniform(0.1, 1.0)))
        part = pen.input(*shape[:axis], size, *shape[axis + 1 :])
        parts.append(pen.act(part, "relu") if pen.chance(0.5) else part)
    return pen.act(pen.concat(parts, axis), pen.pick("identity", "relu"))


def _splits(pen: Pen) -> str:
    x = pen.act(pen.input(*_any_shape(pen)), "relu")
    shape = pen.shape(x)
    axis = pen.pick(1, len(shape) - 1)
    count = min(pen.integer(2, 4), shape[axis])
    base = shape[axis] // count
    if base == 0 or pen.chance(0.4):
        step = pen.pick(1, 1, 2)
        return pen.act(pen.slice(x, axis, pen.integer(0, shape[axis] // 2), shape[axis], step), "relu")
    sizes = [base] * (count - 1) + [shape[axis] - base * (count - 1)]
    parts = pen.split(x, sizes, axis)
    return pen.concat([pen.act(part, pen.pick("relu", "sigmoid")) for part in reversed(parts)], axis)


def _gathers(pen: Pen) -> str:
    rows, width = pen.integer(10, 4000), pen.width(8, 768)
    if pen.chance(0.5):
        ids = pen.b.input((pen.batch, pen.integer(1, 512)), "int64")
        return pen.act(pen.op("Gather", pen.weight(rows, width), ids, axis=0), "relu")
    x = pen.act(pen.input(*_any_shape(pen)), "relu")
    axis = pen.integer(1, len(pen.shape(x)) - 1)
    size = pen.shape(x)[axis]
    index = pen.b.const(pen.integer(0, size - 1))
    if pen.chance(0.5):
        index = pen.b.const([pen.integer(0, size - 1) for _ in range(pen.integer(1, 64))])
    return pen.op("Gather", x, index, axis=axis)


def _expands(pen: Pen) -> str:
    shape = _any_shape(pen)
    small = tuple(1 if pen.chance(0.5) else dim for dim in shape)
    x = pen.act(pen.input(*small), "relu")
    tiled = pen.integer(0, len(shape) - 1)
    repeats = [shape[axis] // small[axis] if axis == tiled else 1 for axis in range(len(shape))]
    x = pen.op("Tile", x, pen.b.const(repeats))
    return pen.act(pen.op("Expand", x, pen.b.const(shape)), pen.pick("identity", "relu"))


def _selects(pen: Pen) -> str:
    shape = _any_shape(pen)
    x = pen.input(*shape)
    test = pen.op(pen.pick("Greater", "Less"), x, pen.weight(*_broadcast_of(pen, shape)))
    chosen = pen.op("Where", test, x, pen.weight(*_broadcast_of(pen, shape)))
    same = pen.op("Equal", x, pen.weight(*_broadcast_of(pen, shape)))
    return pen.op("Mul", chosen, pen.op("Cast", same, to=CAST_TO[pen.dtype]))


def _casts(pen: Pen) -> str:
    x = pen.op("Ceil", pen.input(*_any_shape(pen)))
    whole = pen.op("Cast", x, to=CAST_TO["int64"])
    if pen.chance(0.5):
        whole = pen.op("CumSum", whole, pen.b.const(1))
    return pen.op("Cast", whole, to=CAST_TO[pen.dtype])


def _positions(pen: Pen) -> str:
    """Sine and cosine of running positions, interleaved: position codes that are computed at run time."""
    batch, height, across = pen.batch, pen.integer(4, 32), pen.integer(4, 32)
    width = 2 * pen.integer(4, 64)
    mask = pen.input(batch, height, across)
    codes = []
    for axis in (1, 2):
        steps = pen.op("CumSum", mask, pen.b.const(axis))
        angle = pen.op("Div", pen.op("Unsqueeze", steps, pen.b.const((-1,))), pen.weight(width))
        pair = [
            pen.op("Unsqueeze", pen.op(name, pen.slice(angle, 3, start, 2**62, 2)), pen.b.const((4,)))
            for name, start in (("Sin", 0), ("Cos", 1))
        ]
        codes.append(pen.reshape(pen.concat(pair, 4), batch, height, across, width))
    return pen.transpose(pen.concat(codes, 3), 0, 3, 1, 2)


def _shape_arithmetic(pen: Pen) -> str:
    """Sizes computed from the input's own shape, as traced exports leave them."""
    x = pen.act(pen.input(*_map_shape(pen)), pen.pick("relu", "sigmoid"))
    dims = pen.op("Shape", x)
    batch = pen.slice(dims, 0, 0, 1)
    rows = pen.op("Unsqueeze", pen.op("Gather", dims, pen.b.const(1), axis=0), pen.b.const((0,)))
    y = pen.reshape(x, *pen.shape(x)[:2], -1) if pen.chance(0.5) else x
    target = pen.op("Concat", batch, rows, pen.b.const((-1,)), axis=0)
    y = pen.op("Reshape", y, target, allowzero=0)
    ones = pen.op("ConstantOfShape", dims)
    return pen.op("Add", y, pen.op("Reshape", ones, target, allowzero=0))


def _matmuls(pen: Pen) -> str:
    """Batched products of odd sizes, with constant and with computed second operands."""
    heads = pen.integer(2, 16)
    lead = pen.pick((), (1,), (heads,), (1, heads), (pen.integer(2, 4), heads))
    rows, inner, columns = (round(pen.log_uniform(1, 800)) for _ in range(3))
    cost = math.prod(lead) * rows * inner * columns
    if cost > 5e7:
        rows = max(1, round(rows * 5e7 / cost))
    a = pen.input(*lead, rows, inner)
    if pen.chance(0.5):
        b = pen.weight(inner, columns)
    else:
        b = pen.input(*lead, inner, columns) if pen.chance(0.6) else pen.input(*lead, columns, inner)
        if pen.shape(b)[-2:] != (inner, columns):
            axes = list(range(len(lead)))
            b = pen.transpose(b, *axes, len(axes) + 1, len(axes))
    y = pen.matmul(a, b)
    return pen.op("Add", pen.weight(columns), y) if pen.chance(0.4) else y


def _gemms(pen: Pen) -> str:
    rows, inner = pen.pick(1, 1, 1, pen.integer(2, 256)), pen.width(8, 4096)
    x = pen.input(rows, inner)
    for _ in range(pen.integer(1, 2)):
        x = pen.act(pen.gemm(x, max(1, min(4096, round(pen.log_uniform(2, 4e7 / (rows * inner)))))), "relu")
        inner = pen.shape(x)[1]
    return x


def _convs(pen: Pen) -> str:
    """Convolutions of any kernel, stride, group count and dilation, and 1-D and 3-D ones; some by channel, with several
    results of each, as maps are halved."""
    rank = pen.pick(1, 1, 2, 2, 2, 2, 3)
    cin, cout = pen.width(1, 512), pen.width(4, 512)
    groups = pen.pick(1, 1, math.gcd(cin, cout), pen.divisor(math.gcd(cin, cout), 1, 64))
    if pen.chance(0.3):
        groups, cout = cin, cin * pen.pick(2, 2, 3, 4)
    kernel = [pen.pick(1, 2, 3, 3, 4, 5, 7) for _ in range(rank)]
    per_point = cin / groups * cout * math.prod(kernel)
    points = min(pen.log_uniform(1e6, 8e7) / per_point, 1.5e6 / max(cin, cout)) / pen.batch
    side = max(max(kernel) * 2 + 1, min(round(points ** (1 / rank)), {1: 4000, 2: 160, 3: 24}[rank]))
    stride, dilation = pen.pick(1, 1, 2), pen.pick(1, 1, 1, 2)
    x = pen.input(pen.batch, cin, *(side,) * rank)
    out = pen.op(
        "Conv",
        x,
        pen.weight(cout, cin // groups, *kernel),
        *((pen.weight(cout),) if pen.chance(0.8) else ()),
        kernel_shape=tuple(kernel),
        strides=(stride,) * rank,
        dilations=(dilation,) * rank,
        group=groups,
        pads=tuple(k // 2 for k in kernel) * 2,
    )
    pen.macs += math.prod(pen.shape(out)[2:]) * pen.batch * per_point
    if pen.chance(0.2):
        out = pen.op("Add", out, pen.op("Neg", pen.input(*pen.shape(out))))
    return pen.act(out, pen.pick("identity", "relu", "sigmoid"))


def _halvings(pen: Pen) -> str:
    """A map is halved and each of its channels becomes two, as between FastViT's stages."""
    cin, side, kernel = pen.width(16, 384), 2 * pen.integer(3, 40), pen.pick(3, 5, 7, 7, 7)
    x = pen.input(pen.batch, cin, side, side)
    weights = pen.weight(2 * cin, 1, kernel, kernel), pen.weight(2 * cin)
    pads = (kernel // 2,) * 4
    out = pen.op("Conv", x, *weights, kernel_shape=(kernel, kernel), strides=(2, 2), group=cin, pads=pads)
    pen.macs += float(math.prod(pen.shape(out)) * kernel**2)
    if pen.chance(0.4):  # to what another path made of it
        out = pen.op("Add", out, pen.op("Neg", pen.input(*pen.shape(out))))
    return pen.act(out, pen.pick("identity", "relu", "sigmoid"))


def _depth_and_space(pen: Pen) -> str:
    """Pixels to channels and back."""
    x = pen.input(*_map_shape(pen))
    if all(side % 2 == 0 for side in pen.shape(x)[2:]):
        return pen.op("SpaceToDepth", pen.act(x, "relu"), blocksize=2)
    x = pen.conv(x, 4 * pen.integer(1, 16), 1)
    return pen.op("DepthToSpace", x, blocksize=2, mode=pen.pick("DCR", "CRD"))


def _identities(pen: Pen) -> str:
    x = pen.op("Identity", pen.input(*_any_shape(pen)))
    return pen.act(x, "relu")


MICRO: Mapping[str, Callable[[Pen], str]] = {
    "binary": _binary,
    "unary": _unary,
    "power": _power,
    "reshapes": _reshapes,
    "transposes": _transposes,
    "pads": _pads,
    "resizes": _resizes,
    "pools": _pools,
    "reductions": _reductions,
    "softmaxes": _softmaxes,
    "norms": _norms,
    "concats": _concats,
    "splits": _splits,
    "gathers": _gathers,
    "expands": _expands,
    "selects": _selects,
    "casts": _casts,
    "positions": _positions,
    "shape_arithmetic": _shape_arithmetic,
    "matmuls": _matmuls,
    "gemms": _gemms,
    "convs": _convs,
    "halvings": _halvings,
    "depth_and_space": _depth_and_space,
    "identities": _identities,
}
"""What a micro-network exercises, to its writer."""
