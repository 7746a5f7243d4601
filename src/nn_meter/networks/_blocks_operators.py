"""Operators that the families' blocks hardly use, each by itself: what a predictor is asked about has to be measured.

Each writer applies a few operators of one sort to tensors of its own, since one operator's result is seldom what the
next one wants; sizes reach from what fits the first cache to a few megabytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from nn_meter.networks._blocks import Pen

TYPES: Mapping[str, int] = {
    "float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10, "float64": 11,
}  # fmt: skip
"""Element type to the number that ``Cast`` knows it by."""

ANYWHERE = (
    "Abs", "Atan", "Asinh", "Ceil", "Celu", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish",
    "IsInf", "IsNaN", "LeakyRelu", "Mish", "Neg", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin",
    "Softplus", "Softsign", "Tan", "Tanh", "ThresholdedRelu",
)  # fmt: skip
"""Functions that are defined everywhere."""

POSITIVE = ("Log", "Reciprocal", "Sqrt", "Cosh", "Sinh", "Acosh")
WITHIN_ONE = ("Acos", "Asin", "Atanh")
COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare", "ArgMax", "ArgMin",
)  # fmt: skip


def _size(pen: Pen, low: float = 1e3, high: float = 8e5) -> float:
    return pen.log_uniform(low, high)


def any_shape(pen: Pen, rank: int | None = None, size: float | None = None) -> tuple[int, ...]:
    """A shape of ``rank`` axes and about ``size`` elements; the first is the batch."""
    rank = rank or pen.pick(2, 3, 3, 4, 4, 5)
    left = size or _size(pen)
    dims = [pen.batch]
    for axes_left in range(rank - 1, 0, -1):
        share = left if axes_left == 1 else pen.log_uniform(1.0, max(2.0, left ** (2.0 / axes_left)))
        dims.append(max(1, round(share)))
        left = max(1.0, left / dims[-1])
    return tuple(dims)


def _tensors(pen: Pen, low: int = 2, high: int = 5) -> list[str]:
    return [pen.input(*any_shape(pen)) for _ in range(pen.integer(low, high))]


def _answers(pen: Pen, parts: Sequence[str]) -> str:
    """The answers of a network that has several: all but the last are kept beside it."""
    pen.also(*parts[:-1])
    return parts[-1]


def elementwise(pen: Pen) -> str:
    """Functions of one number."""
    made = []
    for x in _tensors(pen):
        group = pen.pick(ANYWHERE, ANYWHERE, POSITIVE, WITHIN_ONE)
        if group is POSITIVE:
            x = pen.op("Add", pen.op("Abs", x), pen.scalar(1.0))
        elif group is WITHIN_ONE:
            x = pen.op("Tanh", x)
        made.append(pen.op(pen.pick(*group), x))
    return _answers(pen, made)


def casts(pen: Pen) -> str:
    """From one element type to another and back."""
    made = []
    for x in _tensors(pen):
        to = pen.pick("float16", "float64", "int32", "int64", "bool", "uint8", "int8")
        made.append(pen.op("Cast", pen.op("Cast", x, to=TYPES[to]), to=TYPES[pen.pick("float32", "int64")]))
    return _answers(pen, made)


def _partner(pen: Pen, shape: tuple[int, ...]) -> str:
    """An operand that broadcasts to ``shape``."""
    pattern = pen.pick("equal", "equal", "last", "channel", "some", "one")
    dims = {
        "equal": shape,
        "last": shape[-1:],
        "channel": (1, shape[1], *(1,) * (len(shape) - 2)),
        "some": tuple(d if pen.chance(0.5) else 1 for d in shape),
        "one": (),
    }[pattern]
    return pen.weight(*dims) if pen.chance(0.5) or not dims else pen.input(*dims)


def binary(pen: Pen) -> str:
    """Functions of two numbers, logic and integers among them."""
    made = []
    for _ in range(pen.integer(2, 4)):
        shape = any_shape(pen)
        x = pen.input(*shape)
        sort = pen.pick("compare", "logic", "power", "mod", "prelu", "several", "where", "integer", "arithmetic")
        if sort == "compare":
            made.append(pen.op(pen.pick(*COMPARISONS), x, _partner(pen, shape)))
        elif sort == "logic":
            sides = [pen.op("Greater", x, _partner(pen, shape)) for _ in range(2)]
            made.append(pen.op("Not", pen.op(pen.pick("And", "Or", "Xor"), *sides)))
        elif sort == "power":
            base = pen.op("Abs", x)
            made.append(pen.op("Pow", base, pen.scalar(pen.pick(2.0, 3.0, 0.5, 1.5)) if pen.chance(0.7) else base))
        elif sort == "mod":
            made.append(pen.op("Mod", x, _partner(pen, shape), fmod=1))
        elif sort == "prelu":
            made.append(pen.op("PRelu", x, pen.weight(shape[1], *(1,) * (len(shape) - 2))))
        elif sort == "several":
            others = [pen.input(*shape) for _ in range(pen.integer(1, 3))]
            made.append(pen.op(pen.pick("Sum", "Mean", "Max", "Min"), x, *others))
        elif sort == "where":
            test = pen.op("Less", x, _partner(pen, shape))
            made.append(pen.op("Where", test, x, _partner(pen, shape)))
        elif sort == "integer":
            whole = pen.op("Cast", x, to=TYPES[pen.pick("int32", "int64")])
            made.append(pen.op(pen.pick("Add", "Mul", "Sub", "BitwiseAnd", "BitwiseOr", "BitwiseXor"), whole, whole))
        else:
            pair = (x, _partner(pen, shape))
            made.append(pen.op(pen.pick("Add", "Mul", "Sub", "Div"), *(pair if pen.chance(0.6) else pair[::-1])))
    return _answers(pen, made)


def reductions(pen: Pen) -> str:
    """Every reduction over any axes."""
    made = []
    for x in _tensors(pen):
        op_type, rank = pen.pick(*REDUCTIONS), len(pen.shape(x))
        if op_type.startswith("Arg"):
            made.append(pen.op(op_type, x, axis=pen.integer(0, rank - 1), keepdims=pen.integer(0, 1)))
            continue
        if op_type.startswith("ReduceLog"):
            x = pen.op("Abs", x)
        axes = tuple(a for a in range(rank) if pen.chance(0.45)) or (pen.integer(0, rank - 1),)
        made.append(pen.reduce(op_type, x, axes, pen.integer(0, 1)))
    return _answers(pen, made)


def softmaxes(pen: Pen) -> str:
    """Softmax and its kin over any axis."""
    made = []
    for x in _tensors(pen):
        op_type = pen.pick("Softmax", "Softmax", "Softmax", "LogSoftmax", "Hardmax")
        made.append(pen.op(op_type, x, axis=pen.integer(1, len(pen.shape(x)) - 1)))
    return _answers(pen, made)


def resizes(pen: Pen) -> str:
    """Up and down, by any factor and mode, over one to three dimensions."""
    made = []
    for _ in range(pen.integer(1, 3)):
        rank = pen.pick(1, 2, 2, 2, 2, 3)
        mode = pen.pick("nearest", "linear", "linear", "cubic") if rank == 2 else pen.pick("nearest", "linear")
        size = _size(pen, 1e3, 6e4 if mode == "cubic" or rank == 3 else 2e5)
        width = pen.width(1, 128)
        side = max(2, round((size / width / pen.batch) ** (1 / rank)))
        x = pen.input(pen.batch, width, *(max(1, round(side * pen.uniform(0.7, 1.4))) for _ in range(rank)))
        factors = [pen.pick(2.0, 2.0, 0.5, 4.0, pen.uniform(0.3, 3.0))] * rank
        if pen.chance(0.2):
            factors[-1] = pen.uniform(0.4, 2.5)
        target = [max(1, round(d * f)) for d, f in zip(pen.shape(x)[2:], factors, strict=True)]
        rule = pen.pick("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
        sizes = pen.b.const((*pen.shape(x)[:2], *target))
        attrs = {"nearest_mode": pen.pick("floor", "round_prefer_floor")} if mode == "nearest" else {}
        made.append(pen.op("Resize", x, "", "", sizes, mode=mode, coordinate_transformation_mode=rule, **attrs))
    return _answers(pen, made)


def pools(pen: Pen) -> str:
    """Windows of any size over one to three dimensions."""
    made = []
    for _ in range(pen.integer(1, 3)):
        rank = pen.pick(1, 2, 2, 3)
        width = pen.width(4, 512)
        side = max(2, round((_size(pen, 2e3, 3e5) / width / pen.batch) ** (1 / rank)))
        x = pen.input(pen.batch, width, *(side,) * rank)
        largest = {1: 64, 2: 15, 3: 4}[rank]
        kernel = tuple(min(side, round(pen.log_uniform(1.6, largest))) for _ in range(rank))
        stride = tuple(1 if pen.chance(0.5) else k for k in kernel)
        pads = tuple((k - 1) // 2 if s == 1 else 0 for k, s in zip(kernel, stride, strict=True)) * 2
        op_type = pen.pick("MaxPool", "MaxPool", "AveragePool", "AveragePool", "LpPool")
        shape = {"kernel_shape": kernel, "strides": stride, "pads": pads}
        made.append(pen.op(op_type, x, **shape, **({"ceil_mode": pen.integer(0, 1)} if op_type != "LpPool" else {})))
        if pen.chance(0.3):
            made.append(pen.op(pen.pick("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), x))
    return _answers(pen, made)


def transposed_convolutions(pen: Pen) -> str:
    """Strides, groups and dimensions of transposed convolutions."""
    made = []
    for _ in range(pen.integer(1, 2)):
        rank = pen.pick(1, 2, 2, 2, 3)
        stride = pen.pick(1, 2, 2, 4)
        kernel = stride * pen.pick(1, 2) if pen.chance(0.7) else pen.integer(stride, stride + 3)
        cin, cout = pen.width(4, 512), pen.width(2, 256)
        groups = math.gcd(cin, cout) if pen.chance(0.2) else 1
        cost = cin // groups * cout * kernel**rank
        side = max(2, round(min(pen.log_uniform(1e6, 6e7) / cost, 4e5 / max(cin, cout)) ** (1 / rank)))
        x = pen.input(pen.batch, cin, *(side,) * rank)
        extra = max(0, kernel - stride)
        pads = (*(extra // 2,) * rank, *(extra - extra // 2,) * rank)
        operands = [x, pen.weight(cin, cout // groups, *(kernel,) * rank)]
        if pen.chance(0.7):
            operands.append(pen.weight(cout))
        pen.macs += pen.batch * side**rank * cost
        made.append(
            pen.op(
                "ConvTranspose",
                *operands,
                kernel_shape=(kernel,) * rank,
                strides=(stride,) * rank,
                pads=pads,
                group=groups,
            )
        )
    return _answers(pen, made)


def scatters(pen: Pen) -> str:
    """Values put to places: single elements, and rows."""
    made = []
    for _ in range(pen.integer(2, 4)):
        shape = any_shape(pen, pen.pick(2, 3, 4), _size(pen, 1e3, 3e5))
        x = pen.input(*shape)
        reduction = pen.pick("none", "none", "add", "max")
        if pen.chance(0.5):
            axis = pen.integer(0, len(shape) - 1)
            count = max(1, round(shape[axis] * pen.uniform(0.1, 1.0)))
            part = (*shape[:axis], count, *shape[axis + 1 :])
            places = pen.b.input(part, "int64")
            made.append(pen.op("ScatterElements", x, places, pen.input(*part), axis=axis, reduction=reduction))
        else:
            depth = pen.integer(1, len(shape))
            count = max(1, round(pen.log_uniform(1, 3e4 if depth == len(shape) else 600)))
            count = min(count, max(1, int(3e5 / max(1, math.prod(shape[depth:])))))
            places = pen.b.input((count, depth), "int64")
            made.append(pen.op("ScatterND", x, places, pen.input(count, *shape[depth:]), reduction=reduction))
    return _answers(pen, made)


def gathers(pen: Pen) -> str:
    """Values taken from places: single elements, rows, and along any axis."""
    made = []
    for _ in range(pen.integer(2, 4)):
        shape = any_shape(pen, pen.pick(2, 3, 4), _size(pen, 1e3, 4e5))
        x = pen.input(*shape)
        sort = pen.pick("Gather", "GatherElements", "GatherND")
        axis = pen.integer(0, len(shape) - 1)
        if sort == "Gather":
            places = pen.b.input((max(1, round(shape[axis] * pen.uniform(0.1, 1.5))),), "int64")
            made.append(pen.op(sort, x, places, axis=axis))
        elif sort == "GatherElements":
            part = (*shape[:axis], max(1, round(shape[axis] * pen.uniform(0.1, 1.2))), *shape[axis + 1 :])
            made.append(pen.op(sort, x, pen.b.input(part, "int64"), axis=axis))
        else:
            depth = pen.integer(1, len(shape))
            count = min(round(pen.log_uniform(1, 3e4)), max(1, int(4e5 / max(1, math.prod(shape[depth:])))))
            made.append(pen.op(sort, x, pen.b.input((max(1, count), depth), "int64")))
    return _answers(pen, made)


_MOST_TILED = 1e7
"""Elements of what is repeated along its axes, which three times along five would be hundreds of megabytes."""


def movements(pen: Pen) -> str:
    """What only moves or generates data."""
    made = []
    for x in _tensors(pen):
        shape = pen.shape(x)
        rank = len(shape)
        sort = pen.pick("Trilu", "Pad", "Tile", "Expand", "OneHot", "ReverseSequence", "Slice", "Concat", "Depth")
        if sort == "Trilu":
            made.append(pen.op("Trilu", x, upper=pen.integer(0, 1)))
        elif sort == "Pad":
            edge = [pen.integer(0, 4) for _ in range(2 * rank)]
            mode = pen.pick("constant", "edge", "reflect", "wrap")
            if mode in ("reflect", "wrap") and any(e >= d for e, d in zip(edge, shape * 2, strict=True)):
                mode = "edge"
            fill = (pen.scalar(0.0),) if mode == "constant" else ()
            made.append(pen.op("Pad", x, pen.b.const(edge), *fill, mode=mode))
        elif sort == "Tile":
            times = [pen.pick(1, 1, 2, 3) for _ in shape]
            while max(times) > 1 and math.prod(shape) * math.prod(times) > _MOST_TILED:
                times[times.index(max(times))] = 1
            made.append(pen.op("Tile", x, pen.b.const(times)))
        elif sort == "Expand":
            small = pen.input(*(d if pen.chance(0.5) else 1 for d in shape))
            made.append(pen.op("Expand", small, pen.b.const(shape)))
        elif sort == "OneHot":
            ids = pen.b.input((max(1, shape[0]), min(shape[1], 256)), "int64")
            depth = pen.integer(2, 512)
            made.append(pen.op("OneHot", ids, pen.b.const(depth), pen.b.const((0.0, 1.0), "float32"), axis=-1))
        elif sort == "ReverseSequence" and rank > 1:
            lengths = pen.b.const([shape[1]] * shape[0])
            made.append(pen.op("ReverseSequence", x, lengths, batch_axis=0, time_axis=1))
        elif sort == "Slice":
            axis = pen.integer(0, rank - 1)
            made.append(pen.slice(x, axis, shape[axis] // 4, shape[axis], pen.pick(1, 1, 2, 3)))
        elif sort == "Depth":
            side, width = 2 * pen.integer(2, 40), 4 * pen.integer(1, 64)
            image = pen.input(pen.batch, width, side, side)
            turn = pen.pick(("SpaceToDepth", {}), ("DepthToSpace", {"mode": "DCR"}), ("DepthToSpace", {"mode": "CRD"}))
            made.append(pen.op(turn[0], image, blocksize=2, **turn[1]))
        else:
            axis = pen.integer(0, rank - 1)
            made.append(pen.concat([x, pen.input(*shape)], axis))
    return _answers(pen, made)


def orders(pen: Pen) -> str:
    """Running sums and the largest elements."""
    made = []
    for x in _tensors(pen):
        axis = pen.integer(0, len(pen.shape(x)) - 1)
        if pen.chance(0.5):
            flags = {"exclusive": pen.integer(0, 1), "reverse": pen.integer(0, 1)}
            made.append(pen.op("CumSum", x, pen.b.const(axis), **flags))
        else:
            count = pen.b.const((max(1, min(pen.shape(x)[axis], round(pen.log_uniform(1, 300)))),))
            flags = {"largest": pen.integer(0, 1), "sorted": pen.integer(0, 1)}
            made.extend(pen.multi("TopK", (x, count), 2, axis=axis, **flags))
    return _answers(pen, made)


def normalisations(pen: Pen) -> str:
    """Normalisations that few networks have."""
    made = []
    for _ in range(pen.integer(2, 3)):
        width = pen.width(8, 512)
        side = max(2, round(math.sqrt(_size(pen, 2e3, 3e5) / width / pen.batch)))
        x = pen.input(pen.batch, width, side, side)
        sort = pen.pick("LRN", "MeanVarianceNormalization", "LpNormalization", "InstanceNormalization", "LayerNorm")
        if sort == "LRN":
            made.append(pen.op(sort, x, size=pen.pick(3, 5, 5, 7), alpha=1e-4, beta=0.75, bias=1.0))
        elif sort == "MeanVarianceNormalization":
            made.append(pen.op(sort, x, axes=pen.pick((0, 2, 3), (2, 3))))
        elif sort == "LpNormalization":
            made.append(pen.op(sort, x, axis=pen.pick(1, -1), p=pen.pick(1, 2)))
        elif sort == "InstanceNormalization":
            made.append(pen.op(sort, x, pen.weight(width), pen.weight(width), epsilon=1e-5))
        else:
            axis = pen.integer(1, 3)
            scale = pen.shape(x)[axis:]
            made.append(pen.op("LayerNormalization", x, pen.weight(*scale), pen.weight(*scale), axis=axis))
    return _answers(pen, made)


def samplings(pen: Pen) -> str:
    """Images read between their pixels: grids, regions, deformed kernels."""
    made = []
    for _ in range(pen.integer(1, 2)):
        width = pen.width(3, 128)
        side = max(4, round(math.sqrt(_size(pen, 2e3, 1e5) / width / pen.batch)))
        x = pen.input(pen.batch, width, side, side)
        sort = pen.pick("GridSample", "GridSample", "RoiAlign", "DeformConv", "AffineGrid")
        if sort == "GridSample":
            out = max(2, round(side * pen.uniform(0.5, 1.5)))
            grid = pen.input(pen.batch, out, out, 2)
            mode = pen.pick("linear", "linear", "nearest", "cubic")
            made.append(pen.op(sort, x, grid, mode=mode, padding_mode=pen.pick("zeros", "border", "reflection")))
        elif sort == "RoiAlign":
            regions = pen.integer(1, 64)
            boxes = pen.op("Abs", pen.op("Mul", pen.input(regions, 4), pen.scalar(side / 3)))
            owners = pen.b.const([0] * regions)
            bins = pen.pick(2, 3, 7, 14)
            attrs = {"output_height": bins, "output_width": bins, "sampling_ratio": pen.pick(1, 2, 4)}
            made.append(pen.op(sort, x, boxes, owners, mode=pen.pick("avg", "max"), **attrs))
        elif sort == "DeformConv":
            cout = pen.width(4, 64)
            offsets = pen.input(pen.batch, 18, side, side)
            weight = pen.weight(cout, width, 3, 3)
            made.append(pen.op(sort, x, weight, offsets, kernel_shape=(3, 3), pads=(1, 1, 1, 1)))
            pen.macs += math.prod(pen.shape(x)) * cout * 9
        else:
            theta = pen.input(pen.batch, 2, 3)
            made.append(pen.op(sort, theta, pen.b.const((pen.batch, width, side, side))))
    return _answers(pen, made)


def spectra(pen: Pen) -> str:
    """Fourier transforms."""
    made = []
    for _ in range(pen.integer(1, 2)):
        if pen.chance(0.5):
            length = pen.pick(128, 256, 400, 512, 1000, 1024)
            x = pen.input(pen.batch, max(1, round(_size(pen, 1e3, 1e5) / length)), length, 1)
            one_sided = pen.integer(0, 1)
            made.append(pen.op("DFT", x, "", pen.b.const(2), onesided=one_sided, inverse=0))
        else:
            frame = pen.pick(256, 400, 512)
            hop = frame // pen.pick(2, 4)
            signal = pen.input(pen.batch, round(pen.log_uniform(2 * frame, 3e4)), 1)
            window = pen.weight(frame)
            made.append(pen.op("STFT", signal, pen.b.const(hop), window, pen.b.const(frame), onesided=1))
    return _answers(pen, made)


EQUATIONS = (
    "bij,bjk->bik", "bid,bjd->bij", "bhid,bhjd->bhij", "bhij,bhjd->bhid", "bijh,bkjh->bhik", "bchw,bkc->bkhw",
    "ij,jk->ik", "bhwd,hkd->bhwk", "bhwd,wkd->bhwk", "bqhd,bkhd->bhqk", "bi,ij->bj", "i,j->ij", "bcn,bdn->bcd",
    "nctw,vw->nctv", "bij->bji", "bij->bi",
)  # fmt: skip
"""As attention, relative positions, graph convolutions and bilinear layers are written."""


def einsums(pen: Pen) -> str:
    """Sums of products over named axes."""
    made = []
    for _ in range(pen.integer(1, 3)):
        equation = pen.pick(*EQUATIONS)
        terms = equation.split("->")[0].split(",")
        labels = sorted(set("".join(terms)))
        sizes = {label: max(1, round(pen.log_uniform(2, 96))) for label in labels}
        sizes |= {"b": pen.batch} | ({"h": pen.pick(2, 4, 8, 12)} if "h" in sizes else {})
        while math.prod(sizes[label] for label in labels) > 2e7:
            sizes = {label: max(1, size * 3 // 4) for label, size in sizes.items()}
        operands = [pen.input(*(sizes[label] for label in term)) for term in terms]
        pen.macs += math.prod(sizes[label] for label in labels)
        made.append(pen.op("Einsum", *operands, equation=equation))
    return _answers(pen, made)


OPERATORS: Mapping[str, Callable[[Pen], str]] = {
    "elementwise": elementwise,
    "casts": casts,
    "binary": binary,
    "reductions": reductions,
    "softmaxes": softmaxes,
    "resizes": resizes,
    "pools": pools,
    "transposed_convolutions": transposed_convolutions,
    "scatters": scatters,
    "gathers": gathers,
    "movements": movements,
    "orders": orders,
    "normalisations": normalisations,
    "samplings": samplings,
    "spectra": spectra,
    "einsums": einsums,
}
"""A sort of operators to its writer."""
