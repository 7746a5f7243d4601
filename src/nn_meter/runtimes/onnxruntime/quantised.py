"""What ONNX Runtime makes of quantised models: of operators between DequantizeLinear and QuantizeLinear, and of
products of integers whose results are scaled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from math import isclose
from typing import NamedTuple

from nn_meter.ir import Attr
from nn_meter.kernels.rewriting import Op, Work
from nn_meter.runtimes.base import Options
from nn_meter.runtimes.onnxruntime.products import with_bias

_MOVED = (
    *("Gather", "GatherElements", "Reshape", "Expand", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice"),
    "Tile",
)
_CHOSEN = ("DepthToSpace", "MaxPool", "ReduceMax", "ReduceMin", "Resize")
"""Operators that move numbers or choose some: they run on integers where both sides have one scale; those that choose
on bytes alone."""

_UNARY = ("AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax")
_LEAST = {"uint8": 0, "int8": -128}
"""The types that operators on integers compute with, and the least that they hold; others, of 16 bits, stay floats."""

_OFF = 0.01
"""How far a bias's scale may be from the product of the others', of a convolution of integers; rounded it is nearer."""

_PACKED = {"int4": 4, "uint4": 4, "int8": 8, "uint8": 8}
_PACKED_BLOCK = 32
"""Rows that share a scale once it is repeated, where weights come with fewer scales."""

_PACKED_LEVEL = 4
"""The accuracy that products with packed weights are asked for where the runtime made them (a session's default)."""


class _Quantised(NamedTuple):
    """A tensor of integers with the names of its scale and zero point, and the operator that makes it floats."""

    inputs: tuple[str, str, str]
    op: Op | None


def drop_clipping(work: Work, options: Options) -> None:
    """A Relu or Clip before a QuantizeLinear whose integers end where it does changes nothing."""
    for op in work.ops("Relu", "Clip"):
        after = work.only_reader(op.outputs[0])
        if after is None or after.op_type != "QuantizeLinear" or work.const(op.inputs[0]):
            continue
        if _covers(work, op, after):
            work.bypass(op, "the integers behind it have the same bounds")


def _covers(work: Work, op: Op, quantise: Op) -> bool:
    zero = quantise.inputs[2] if len(quantise.inputs) > 2 else ""
    least = _LEAST.get(work.tensors[quantise.outputs[0]].dtype)
    if least is None:
        return False
    offset, scale = work.scalar(zero) if zero else 0.0, work.scalar(quantise.inputs[1])
    if op.op_type == "Relu":
        return offset is None or offset == least
    low, high = (_bound(work, op, place, name) for place, name in ((1, "min"), (2, "max")))
    if offset is None or scale is None:  # a calibrated range ends within the bounds
        return True
    below = low is None or (least - offset) * scale >= low - 1e-6
    return below and (high is None or (least + 255 - offset) * scale <= high + 1e-6)


def _bound(work: Work, op: Op, place: int, name: str) -> float | None:
    value = op.attrs.get(name)
    if isinstance(value, int | float):
        return float(value)
    return work.scalar(op.inputs[place]) if len(op.inputs) > place else None


def merge_pairs(work: Work, options: Options) -> None:
    """Of a QuantizeLinear and DequantizeLinear behind others of one type the outer ones stay, with the range that both
    have: quantisers write two where a Relu or Clip stood between."""
    for middle in work.ops("DequantizeLinear"):
        first, second = work.made_by(middle.inputs[0], "QuantizeLinear"), work.only_reader(middle.outputs[0])
        if first is None or second is None or second.op_type != "QuantizeLinear":
            continue
        last = work.only_reader(second.outputs[0])
        if last is None or last.op_type != "DequantizeLinear" or work.only_reader(middle.inputs[0]) is not middle:
            continue
        pairs = [(first, middle), (second, last)]
        types = {work.tensors[quantise.outputs[0]].dtype for quantise, _ in pairs}
        if len(types) > 1 or not types <= _LEAST.keys() or not all(_is_pair(work, *pair) for pair in pairs):
            continue
        scale, zero = _common_range(work, middle, second, *types)
        for op in (first, last):
            work.swap_place(op, 1, scale)
            work.swap_place(op, 2, zero)
        work.swap_place(last, 0, first.outputs[0])
        for op in (second, middle):
            work.remove(op)
            work.free += [(m, op.op_type, "the pair around it has the range of both") for m in op.members]


def _is_pair(work: Work, quantise: Op, dequantise: Op) -> bool:
    """Whether both have one scale and one stated zero point, the same ones."""
    inputs = [op.inputs[1:] for op in (quantise, dequantise)]
    return all(
        len(names) == 2 and all(work.is_one_element(name) for name in names) for names in inputs
    ) and all(_same(work, a, b) for a, b in zip(*inputs, strict=True))


def _common_range(work: Work, first: Op, second: Op, dtype: str) -> tuple[str, str]:
    """Scale and zero point of what both can hold; those of ``second`` where values are not known."""
    least = _LEAST[dtype]
    known = [(work.scalar(op.inputs[1]), work.scalar(op.inputs[2])) for op in (first, second)]
    ends = [((least - z) * s, (least + 255 - z) * s) for s, z in known if s is not None and z is not None]
    if len(ends) < len(known):
        return second.inputs[1], second.inputs[2]
    low, high = max(low for low, _ in ends), min(high for _, high in ends)
    for op, own in zip((first, second), ends, strict=True):
        if own == (low, high):
            return op.inputs[1], op.inputs[2]
    scale = (high - low) / 255
    names = []
    for name, value in zip(second.inputs[1:], (scale, round(least - low / scale) if scale else least), strict=True):
        names.append(work.fresh("common", work.shape(name), name))
        work.tensors[names[-1]] = replace(work.tensors[names[-1]], const=True, value=(value,))
    return names[0], names[1]


def drop_repeated(work: Work, options: Options) -> None:
    """Numbers that were made floats and are made the same integers again stay integers for the one that asks."""
    for op in work.ops("QuantizeLinear"):
        before, after = work.made_by(op.inputs[0], "DequantizeLinear"), work.only_reader(op.outputs[0])
        if before is None or after is None or after.op_type != "DequantizeLinear":
            continue
        whole = before.inputs[0]
        if work.tensors[whole].dtype != work.tensors[op.outputs[0]].dtype:
            continue
        if len({each.attrs.get("axis") for each in (before, op, after)}) > 1:
            continue
        scales = [_scale(each) for each in (before, op, after)]
        if all(_same(work, a, b) for pair in pairwise(scales) for a, b in zip(*pair, strict=True)):
            work.swap_place(after, 0, whole)
            gone = [op, before] if work.only_reader(op.inputs[0]) is op else [op]
            for each in gone:
                work.remove(each)
                work.free += [(m, each.op_type, "the integers are there already") for m in each.members]


def to_uint8(work: Work, options: Options) -> None:
    """Activations of int8 that are read once become uint8, for which x86 has instructions: each reader of a
    DequantizeLinear has its own by then, and what has several of them stays as it is."""
    for op in work.ops("QuantizeLinear"):
        name, after = op.outputs[0], work.only_reader(op.outputs[0])
        if work.tensors[name].dtype == "int8" and after is not None and after.op_type == "DequantizeLinear":
            floats = after.outputs[0]
            if sum(len(work.places(each, floats)) for each in work.readers(floats)) + (floats in work.outputs) == 1:
                work.tensors[name] = replace(work.tensors[name], dtype="uint8")


def fuse_quantised(work: Work, options: Options) -> None:
    """Operators between DequantizeLinear and QuantizeLinear become those that compute with integers."""
    if not work.has("DequantizeLinear") and all(op.op_type != "DequantizeLinear" for op in work.folded.values()):
        return
    for op in work.ops():
        handler = _HANDLERS.get(op.op_type)
        if handler is not None and op.outputs:
            handler(work, op)
    for op in work.ops("DequantizeLinear"):
        readers = list(work.readers(op.outputs[0]))
        if not readers and op.outputs[0] not in work.outputs:
            work.remove(op)
            work.free += [(m, op.op_type, "what reads its result computes with integers") for m in op.members]
        places = [(reader, place) for reader in readers for place in sorted(work.places(reader, op.outputs[0]))]
        for reader, place in places[1:]:
            copy = work.fresh("dequantised", work.shape(op.outputs[0]), op.outputs[0])
            work.add(Op(op.op_type, op.inputs, [copy], op.attrs), before=reader)
            work.swap_place(reader, place, copy)
    _dequantise_weights(work)


def _dequantise_weights(work: Work) -> None:
    """Weights that are read as floats are made floats in every inference, anew for each place where they are read."""
    free = set(work.free)
    for op in work.ops():
        for place, name in enumerate(op.inputs):
            node = work.folded_by(name, "DequantizeLinear")
            if node is None:
                continue
            entry = (*node.members, node.op_type, work.KNOWN)
            members = node.members if entry in free else ()
            free.discard(entry)
            floats = work.fresh("dequantised", work.shape(name), name)
            work.add(Op(node.op_type, node.inputs, [floats], node.attrs, members), before=op)
            work.swap_place(op, place, floats)
    work.free = [entry for entry in work.free if entry in free]


def _source(work: Work, name: str) -> _Quantised | None:
    """The integers that ``name`` is made of."""
    if not name:
        return None
    op = work.made_by(name, "DequantizeLinear")
    known = op or work.folded_by(name, "DequantizeLinear")
    if known is None:
        return None
    q, scale, zero = (*known.inputs, "")[:3]
    return _Quantised((q, scale, zero), op)


def _target(work: Work, op: Op) -> Op | None:
    after = work.only_reader(op.outputs[0]) if len(op.outputs) == 1 else None
    return after if after is not None and after.op_type == "QuantizeLinear" else None


def _scale(quantise: Op) -> list[str]:
    return [*quantise.inputs[1:], ""][:2]


def _same(work: Work, a: str, b: str) -> bool:
    if a == b or not a or not b:
        return a == b
    x, y = work.tensors[a].value, work.tensors[b].value
    return x is None or y is None or x == y


def _alike(work: Work, sources: list[_Quantised], target: Op, wide: bool = False) -> bool:
    """Whether what is read and what is written is of one type, of a byte unless ``wide``: else the runtime has no
    operator for it."""
    types = {work.tensors[s.inputs[0]].dtype for s in sources}
    return types == {work.tensors[target.outputs[0]].dtype} and (wide or types <= _LEAST.keys())


def _signed(work: Work, source: _Quantised) -> bool:
    """Whether activations are int8, of which the runtime makes no convolution or product on x86."""
    return work.tensors[source.inputs[0]].dtype == "int8"


def _replace(work: Work, sources: list[_Quantised], op: Op, target: Op | None, op_type: str, inputs: list[str]) -> Op:
    """One operator for ``op`` and the changes of type around it that nothing else reads."""
    alone = [s.op for s in sources if s.op is not None and _reads_alone(work, s.op, op)]
    last = target or op
    return work.fuse([*alone, op, *([target] if target else [])], op_type, inputs, last.outputs, op.attrs)


def _reads_alone(work: Work, source: Op, op: Op) -> bool:
    name = source.outputs[0]
    return name not in work.outputs and all(reader is op for reader in work.readers(name))


def _unary(work: Work, op: Op) -> None:
    source, target = _source(work, op.inputs[0]), _target(work, op)
    if source is not None and target is not None and _alike(work, [source], target):
        _replace(work, [source], op, target, f"QLinear{op.op_type}", [*source.inputs, *_scale(target)])


def _binary(work: Work, op: Op) -> None:
    sources, target = _sources(work, op), _target(work, op)
    if sources is not None and target is not None and _alike(work, sources, target):
        inputs = [i for s in sources for i in s.inputs]
        _replace(work, sources, op, target, f"QLinear{op.op_type}", [*inputs, *_scale(target)])


def _concat(work: Work, op: Op) -> None:
    sources, target = _sources(work, op), _target(work, op)
    if sources is not None and target is not None and _alike(work, sources, target):
        _replace(work, sources, op, target, "QLinearConcat", [*_scale(target), *(i for s in sources for i in s.inputs)])


def _where(work: Work, op: Op) -> None:
    sources, target = [_source(work, i) for i in op.inputs[1:]], _target(work, op)
    found = [s for s in sources if s is not None]
    if len(found) == len(sources) and target is not None and _alike(work, found, target):
        inputs = [op.inputs[0], *(i for s in found for i in s.inputs), *_scale(target)]
        _replace(work, found, op, target, "QLinearWhere", inputs)


def _sources(work: Work, op: Op) -> list[_Quantised] | None:
    """The integers of every input, ``None`` where one is of floats."""
    sources = [_source(work, i) for i in op.inputs]
    found = [s for s in sources if s is not None]
    return found if len(found) == len(sources) else None


def _conv(work: Work, op: Op) -> None:
    x, w, target = _source(work, op.inputs[0]), _source(work, op.inputs[1]), _target(work, op)
    bias = _source(work, op.inputs[2]) if len(op.inputs) > 2 else None
    if x is None or w is None or target is None or (len(op.inputs) > 2 and op.inputs[2] and bias is None):
        return
    if not _alike(work, [x], target) or _signed(work, x):
        return
    if bias is not None and not _scaled_alike(work, x, w, bias):
        return
    inputs = [*x.inputs, *w.inputs, *_scale(target), *([bias.inputs[0]] if bias else [])]
    _replace(work, [x, w], op, target, "QLinearConv", inputs)


def _scaled_alike(work: Work, x: _Quantised, w: _Quantised, bias: _Quantised) -> bool:
    """Whether a bias's scale is the product of the others', as far as they are known."""
    a, b, both = (work.scalar(each.inputs[1]) for each in (x, w, bias))
    return a is None or b is None or both is None or isclose(a * b, both, rel_tol=_OFF)


def _matmul(work: Work, op: Op) -> None:
    sources, target = _sources(work, op), _target(work, op)
    if sources is None:
        _packed(work, op)
        return
    a, b = sources
    if _signed(work, a):
        return
    if target is not None and _alike(work, [a], target):
        _replace(work, sources, op, target, "QLinearMatMul", [*a.inputs, *b.inputs, *_scale(target)])
    elif work.tensors[a.inputs[0]].dtype not in _LEAST:
        _packed(work, op)
    elif any(reader.op_type == "QuantizeLinear" for reader in work.readers(op.outputs[0])):
        return  # integers of another type, or not they alone, are wanted
    elif work.tensors[b.inputs[0]].dtype in _LEAST:
        scales = [s.inputs[place] for place in (1, 2) for s in (a, b)]
        _replace(work, sources, op, None, "MatMulIntegerToFloat", [a.inputs[0], b.inputs[0], *scales])


def _gemm(work: Work, op: Op) -> None:
    a, b, target = _source(work, op.inputs[0]), _source(work, op.inputs[1]), _target(work, op)
    bias = _source(work, op.inputs[2]) if len(op.inputs) > 2 else None
    if a is None or b is None or (len(op.inputs) > 2 and op.inputs[2] and bias is None):
        if a is None or work.tensors[a.inputs[0]].dtype not in _LEAST:
            _packed(work, op)
        return
    if work.tensors[a.inputs[0]].dtype not in _LEAST or (target is not None and not _alike(work, [a], target)):
        return
    inputs = [*a.inputs, *b.inputs, bias.inputs[0] if bias else "", *(_scale(target) if target else [])]
    _replace(work, [a, b], op, target, "QGemm", inputs)


def _packed(work: Work, op: Op) -> None:
    """Weights whose scales are one, one a column, or one for each block along the rows stay packed, unless a bias has
    become part of the product that is no row."""
    w = op.inputs[1]
    source, node = _source(work, w), work.folded.get(w)
    if source is None or node is None or op.attrs.get("transA", 0) or op.attrs.get("transB", 0):
        return
    block, bits = node.attrs.get("block_size", 0), _PACKED.get(work.tensors[source.inputs[0]].dtype)
    shape, scales = work.shape(w), work.shape(source.inputs[1])
    along = 0 if block else 1  # never counted from behind
    if bits is None or len(shape) != 2 or scales == (1,) or (scales and node.attrs.get("axis", 1) != along):
        return
    after = work.only_reader(op.outputs[0]) if op.op_type == "MatMul" else None
    if after is not None and after.op_type == "Add":
        op = with_bias(work, op, after) or op
    x, _, *more = op.inputs
    if more and more[0] and work.shape(more[0]) != shape[1:]:
        return
    unsigned = work.tensors[source.inputs[0]].dtype.startswith("u")
    packed, scale, zero = source.inputs
    inputs = [x, packed, scale, zero or (packed if unsigned else ""), *(["", *more] if more and more[0] else [])]
    attrs: dict[str, Attr] = {"K": shape[0], "N": shape[1], "bits": bits, "block_size": block or _PACKED_BLOCK}
    work.fuse([op], "MatMulNBits", inputs, op.outputs, {**attrs, "accuracy_level": _PACKED_LEVEL})


def _argument(work: Work, op: Op) -> None:
    """The place of the largest is that of the largest integer."""
    source = _source(work, op.inputs[0])
    if source is not None and work.tensors[source.inputs[0]].dtype in _LEAST:
        _replace(work, [source], op, None, op.op_type, [source.inputs[0]])


def _move(work: Work, op: Op) -> None:
    source, target = _source(work, op.inputs[0]), _target(work, op)
    if source is None or target is None:
        return
    if op.op_type == "MaxPool" and op.attrs.get("opset") is not None:  # of bytes since opset 12
        return
    if op.attrs.get("mode") == "cubic" or not _alike(work, [source], target, op.op_type in _MOVED):
        return
    if all(_same(work, a, b) for a, b in zip(source.inputs[1:], _scale(target), strict=True)):
        _replace(work, [source], op, target, op.op_type, [source.inputs[0], *op.inputs[1:]])


def _split(work: Work, op: Op) -> None:
    source = _source(work, op.inputs[0])
    targets = [work.only_reader(o) for o in op.outputs]
    found = [t for t in targets if t is not None and t.op_type == "QuantizeLinear"]
    if source is None or len(found) != len(targets) or not all(_alike(work, [source], t) for t in found):
        return
    if all(_same(work, a, b) for t in found for a, b in zip(source.inputs[1:], _scale(t), strict=True)):
        alone = [source.op] if source.op is not None and _reads_alone(work, source.op, op) else []
        outputs = [t.outputs[0] for t in found]
        work.fuse([*alone, op, *found], op.op_type, [source.inputs[0], *op.inputs[1:]], outputs, op.attrs)


_HANDLERS: Mapping[str, Callable[[Work, Op], None]] = {
    "Conv": _conv,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Add": _binary,
    "Mul": _binary,
    "Concat": _concat,
    "Where": _where,
    "Split": _split,
    **dict.fromkeys(_UNARY, _unary),
    "ArgMax": _argument,
    **dict.fromkeys((*_MOVED, *_CHOSEN), _move),
}


def fuse_integer_products(work: Work, options: Options) -> None:
    """A MatMulInteger with what scales its result, with a bias behind it, and with the DynamicQuantizeLinear before."""
    for op in work.ops("MatMulInteger"):
        cast = work.only_reader(op.outputs[0])
        scaled = work.only_reader(cast.outputs[0]) if cast is not None and cast.op_type == "Cast" else None
        if cast is None or scaled is None or scaled.op_type != "Mul":
            continue
        factor = next(i for i in scaled.inputs if i != cast.outputs[0])
        scale = work.made_by(factor, "Mul")
        source = work.producer.get(op.inputs[0])
        if scale is None or work.only_reader(factor) is not scaled or len(scale.inputs) != 2:
            continue
        ops, last = [scale, op, cast, scaled], scaled
        bias = work.only_reader(scaled.outputs[0])
        added = ""
        if bias is not None and bias.op_type == "Add":
            other = next(i for i in bias.inputs if i != scaled.outputs[0])
            if work.shape(other) == work.shape(op.outputs[0])[-1:]:
                ops, last, added = [*ops, bias], bias, other
        a, b, a_zero, b_zero = (*op.inputs, "", "")[:4]
        dynamic = source is not None and source.op_type == "DynamicQuantizeLinear"
        a_scale, b_scale = scale.inputs
        if dynamic and source is not None and a_scale != source.outputs[1]:
            a_scale, b_scale = b_scale, a_scale
        readers = {id(r) for o in source.outputs for r in work.readers(o)} if source is not None else set()
        if dynamic and source is not None and readers <= {id(op), id(scale)}:
            inputs = [source.inputs[0], b, b_scale, b_zero, added]
            work.fuse([source, *ops], "DynamicQuantizeMatMul", inputs, last.outputs)
        else:
            inputs = [a, b, a_scale, b_scale, a_zero, b_zero, added]
            work.fuse(ops, "MatMulIntegerToFloat", inputs, last.outputs)


def fuse_packed_bias(work: Work, options: Options) -> None:
    """A bias behind a product with packed weights."""
    for op in work.ops("MatMulNBits"):
        after = work.only_reader(op.outputs[0])
        if after is None or after.op_type != "Add" or len(op.inputs) > 5:
            continue
        bias = next(i for i in after.inputs if i != op.outputs[0])
        if work.const(bias) and work.shape(bias) == work.shape(op.outputs[0])[-1:]:
            inputs = [*op.inputs, *[""] * (5 - len(op.inputs)), bias]
            work.fuse((op, after), op.op_type, inputs, after.outputs, op.attrs)
