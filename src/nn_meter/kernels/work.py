"""The work of every operator without a kernel kind of its own: floating-point operations, bytes read and written.

An estimate of a kernel that no regressor knows rests on these rows, so that each counts what the operator's definition
(https://onnx.ai/onnx/operators/, onnxruntime's ContribOperators.md) makes it compute, not how much it writes. A
multiply-add counts two; a transcendental function what a polynomial kernel of single precision takes. What depends on
values, such as how many boxes a suppression keeps, is counted for the most that shapes allow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import log2, prod
from types import MappingProxyType

from nn_meter.ir import Tensor
from nn_meter.kernels.einsum import parsed
from nn_meter.kernels.schema import Operator, Work, item_bytes

Count = Callable[[Operator], float]

def tensor_bytes(tensor: Tensor | None) -> float:
    """Bytes of a tensor; 0 for one left out."""
    return tensor.size * item_bytes(tensor.dtype) if tensor is not None else 0.0


def work_of(op: Operator) -> Work:
    """What ``op`` computes and moves; an operator without a row counts an operation for each element that it writes."""
    flops = FLOPS.get(op.op_type, _an_output(1))(op)
    read = READ.get(op.op_type, _all_inputs)(op)
    return Work(float(flops), float(read), sum(map(tensor_bytes, op.outputs)))


def detail_of(op: Operator) -> str:
    """The setting that decides how an operator computes; empty for most."""
    row = DETAILS.get(op.op_type)
    return row(op) if row is not None else ""


def variant_of(op: Operator) -> str:
    """Another setting that does; empty for most."""
    row = VARIANTS.get(op.op_type)
    return row(op) if row is not None else ""


# --- sizes -------------------------------------------------------------------------------------------------


def _in(op: Operator, index: int = 0) -> int:
    tensor = op.inputs[index] if index < len(op.inputs) else None
    return tensor.size if tensor is not None else 0


def _shape(op: Operator, index: int) -> tuple[int, ...]:
    tensor = op.inputs[index] if index < len(op.inputs) else None
    return tensor.shape if tensor is not None else ()


def _out(op: Operator) -> int:
    return op.outputs[0].size if op.outputs else 0


def _written(op: Operator) -> int:
    return sum(t.size for t in op.outputs)


def _all_inputs(op: Operator) -> float:
    return sum(map(tensor_bytes, op.inputs))


def _as_written(op: Operator) -> float:
    return sum(map(tensor_bytes, op.outputs))


def _last(shape: tuple[int, ...]) -> int:
    return shape[-1] if shape else 1


# --- counts ------------------------------------------------------------------------------------------------


def _an_output(flops: float) -> Count:
    return lambda op: flops * _written(op)


def _an_input(flops: float) -> Count:
    return lambda op: flops * _in(op)


def _nothing(op: Operator) -> float:
    return 0.0


def _product(left: int, *, transposed: str = "") -> Count:
    """Two for each output and element of the inner axis of input ``left``."""

    def count(op: Operator) -> float:
        shape = _shape(op, left)
        across = bool(transposed) and bool(op.int(transposed, 0)) and len(shape) > 1
        return 2.0 * _out(op) * (shape[-2] if across else _last(shape))

    return count


def _inner(attribute: str) -> Count:
    """A product whose inner size is an attribute, since its weights are packed."""
    return lambda op: 2.0 * _out(op) * op.int(attribute, _last(_shape(op, 0)))


def _conv(weights: int) -> Count:
    return lambda op: 2.0 * _out(op) * prod(_shape(op, weights)[1:])


def _conv_transpose(op: Operator) -> float:
    return 2.0 * _in(op) * prod(_shape(op, 1)[1:])


def _deform_conv(op: Operator) -> float:
    """The convolution, and four taps for each value that it reads between pixels."""
    y, w = op.outputs[0].shape, _shape(op, 1)
    return _conv(1)(op) + 11.0 * y[0] * prod(y[2:]) * prod(w[2:]) * _shape(op, 0)[1]


def _state_conv(op: Operator) -> float:
    return 2.0 * _out(op) * _last(_shape(op, 1))


def _window(op: Operator) -> float:
    return float(_out(op) * prod(op.ints("kernel_shape", (1,))))


def _lrn(op: Operator) -> float:
    return _out(op) * (2.0 * op.int("size", 1) + 22)


def _grid_sample(op: Operator) -> float:
    """Where each output lies, and its taps by mode, each looked up with its bounds."""
    rank = max(1, len(_shape(op, 0)) - 2)
    taps = {"nearest": 1.0, "cubic": 4.0**rank}.get(_sampling(op), 2.0**rank)
    return _out(op) * 12.0 * taps


def _roi_align(op: Operator) -> float:
    """Four taps of each sample; as many samples a bin as are asked for, else as a region of half the map has."""
    samples = op.int("sampling_ratio", 0)
    if not samples:
        whole, bins = prod(_shape(op, 0)[2:]), max(1, prod(op.outputs[0].shape[2:]))
        return 8.0 * _out(op) * max(1.0, whole / 4 / bins)
    return 8.0 * _out(op) * samples**2


def _roi_pool(op: Operator) -> float:
    whole, bins = prod(_shape(op, 0)[2:]), max(1, prod(op.outputs[0].shape[2:]))
    return _out(op) * max(1.0, whole / 4 / bins)


def _fourier(length: int) -> float:
    """Radix 2 where the length is a power of two, else Bluestein's detour over three of twice the length."""
    if length < 2:
        return float(length)
    if length & (length - 1) == 0:
        return 5.0 * length * log2(length)
    padded = 1 << (2 * length - 1).bit_length()
    return 3 * 5.0 * padded * log2(padded)


def _dft(op: Operator) -> float:
    length = _dft_length(op)
    count = max(_in(op), _out(op)) / 2 / max(1, length)
    return max(1.0, count) * _fourier(length)


def _dft_length(op: Operator) -> int:
    """What is given, else what the axis has on the longer side: half of what real numbers give may be left out."""
    if given := op.value(1):
        return int(given[0])
    before, after = _shape(op, 0), op.outputs[0].shape
    axis = int(op.value(2)[0]) if op.value(2) else op.int("axis", -2)
    return int(max(shape[axis % len(shape)] if shape else 1 for shape in (before, after)))  # its bits decide


def _stft(op: Operator) -> float:
    frames = prod(op.outputs[0].shape[:2])
    window = _shape(op, 2)
    length = int(window[0] if window else 2 * (op.outputs[0].shape[-2] - 1))
    return frames * (2.0 * length + _fourier(length))


def _rfft(op: Operator) -> float:
    length = int(max(_last(_shape(op, 0)), _last(op.outputs[0].shape[:-1])))
    return max(_in(op), _out(op)) / max(1, length) * _fourier(length)


def _einsum(op: Operator) -> float:
    """Pairs of operands from the left, each over all its labels."""
    given = parsed(str(op.attrs.get("equation", "")), [tensor.shape for tensor in op.data])
    if given is None:
        return 2.0 * _out(op)
    labels = [set(term) for term in given.terms]
    if len(labels) == 1:
        return float(_in(op))
    kept, total = labels[0], 0.0
    for position, more in enumerate(labels[1:], 2):
        kept = kept | more
        total += 2.0 * prod([given.sizes[name] for name in kept])
        if given.out:
            hidden = (name for name in given.sizes if name.startswith("…"))
            kept = kept & {*given.out, *hidden}.union(*labels[position:])
    return total


def _recurrent(op: Operator) -> float:
    steps, batch = (*_shape(op, 0), 1, 1)[:2]
    return 2.0 * steps * batch * (_in(op, 1) + _in(op, 2))


def _attention(op: Operator) -> float:
    """Scores and their mix for each query and key, and the softmax between; grouped keys are shared by queries."""
    query, key = _shape(op, 0), _shape(op, 1)
    total = 1.0
    if len(query) == 4:
        batch, heads, rows, width = query
        length = key[2] if len(key) == 4 else rows
    else:
        batch, rows, hidden = (1, 1, 1, *query)[-3:]
        heads = max(1, op.int("num_heads", op.int("q_num_heads", 1)))
        own = heads + 2 * op.int("kv_num_heads", heads) if not key and op.int("kv_num_heads", 0) else heads
        width, length = hidden // own, key[1] if len(key) > 1 else rows
    present = [t.shape for t in op.outputs[1:] if len(t.shape) >= 4]
    if present:
        length = max(length, present[0][-2])
    total = 4.0 * batch * heads * rows * length * width + 16.0 * batch * heads * rows * length
    return total


def _projected_attention(op: Operator) -> float:
    """With the projections of queries, keys and values that the operator has inside."""
    batch, rows = (1, 1, 1, *_shape(op, 0))[-3:-1]
    weights = _shape(op, 1)
    if len(weights) != 2:
        return _attention(op)
    width = weights[1] // 3
    past = next((t.shape[-2] for t in op.outputs[1:] if len(t.shape) >= 4), rows)
    return 2.0 * batch * rows * prod(weights) + 4.0 * batch * rows * max(rows, past) * width


def _experts(op: Operator) -> float:
    """Each token through as many experts as it is sent to."""
    tokens = prod(_shape(op, 0)[:-1])
    weights = sum(prod(s[1:]) for s in (_shape(op, i) for i in range(2, len(op.inputs))) if len(s) == 3)
    return 2.0 * tokens * op.int("k", 1) * weights


def _sorted(op: Operator) -> float:
    return _in(op) * (1.0 + log2(max(2, _in(op))))


def _suppression(op: Operator) -> float:
    """Every box against those that were kept, by class."""
    scores, boxes = _shape(op, 1), _in(op) // 4
    classes = scores[1] if len(scores) == 3 else 1
    most = op.inputs[2] if len(op.inputs) > 2 else None
    kept = int(most.value[0]) if most is not None and most.value else 100
    return classes * boxes * (log2(max(2, boxes)) + 12.0 * min(kept, boxes, 100))


def _determinant(op: Operator) -> float:
    return _in(op) * _last(_shape(op, 0)) * 2 / 3


def _inverse(op: Operator) -> float:
    return _in(op) * 2.0 * _last(_shape(op, 0))


def _distances(op: Operator) -> float:
    return 3.0 * _out(op) * _last(_shape(op, 0))


def _trees(op: Operator) -> float:
    """A step for each level of each tree: as deep as its share of the nodes in balance."""
    nodes = op.attrs.get("nodes_treeids", op.attrs.get("nodes_modes", ()))
    roots = op.attrs.get("tree_roots", ())
    count = len(nodes) if isinstance(nodes, tuple) else 1
    trees = len(roots) if isinstance(roots, tuple) and roots else 1
    if "nodes_treeids" in op.attrs and isinstance(nodes, tuple):
        trees = len(set(nodes))
    rows = (_shape(op, 0) or (1,))[0]
    return 4.0 * rows * trees * max(1.0, log2(max(2.0, count / trees)))


def _coefficients(name: str) -> Count:
    def count(op: Operator) -> float:
        values = op.attrs.get(name, ())
        rows = (_shape(op, 0) or (1,))[0]
        return 2.0 * rows * (len(values) if isinstance(values, tuple) and values else _last(_shape(op, 0)))

    return count


def _state_space(op: Operator) -> float:
    """A state of key width by value width for each head, decayed, updated and read at each step."""
    values = _shape(op, 2)
    return 6.0 * _in(op) * _last(values if values else _shape(op, 0))


# --- tables ------------------------------------------------------------------------------------------------


def _attribute(name: str, default: str) -> Callable[[Operator], str]:
    return lambda op: str(op.attrs.get(name, default))


def _sampling(op: Operator) -> str:
    """How GridSample reads between places; before opset 20 it called the same otherwise."""
    return str(op.attrs.get("mode", "linear")).removeprefix("bi")


def _beyond(op: Operator) -> str:
    """How GridSample reads, and what lies outside. Between four with zeros around ONNX Runtime has code of its own, ten
    times as fast, once for all maps: 2 nanoseconds an element of many, 12 of three."""
    way, maps = f"{_sampling(op)} {op.attrs.get('padding_mode', 'zeros')}", _shape(op, 0)[1:]
    few = " few" if len(maps) == 3 and maps[0] < 8 else ""
    told = " volumes" if len(maps) > 3 else " corners" if op.int("align_corners", 0) else few
    return way + told if way == "linear zeros" else way


def _kernel_and_step(op: Operator) -> str:
    kernel = op.ints("kernel_shape", _shape(op, 1)[2:])
    return f"{'x'.join(map(str, kernel))} by {'x'.join(map(str, op.ints('strides', (1,) * len(kernel))))}"


def _bits(op: Operator) -> str:
    return f"{op.int('bits', 4)} bits"


def _equation(op: Operator) -> str:
    """With letters in the order in which they first stand, so that names do not count."""
    equation = str(op.attrs.get("equation", "")).replace(" ", "")
    names = {c: chr(ord("a") + i) for i, c in enumerate(dict.fromkeys(c for c in equation if c.isalpha()))}
    return "".join(names.get(c, c) for c in equation)


def _power_of_two(op: Operator) -> str:
    length = int(max(op.outputs[0].shape[-2:-1] or (1,)) if op.op_type == "STFT" else _dft_length(op))
    return "radix 2" if length & (length - 1) == 0 else "any length"


def _pieces(op: Operator) -> str:
    """Whether single elements are taken, or longer pieces."""
    rank = len(_shape(op, 0))
    return "elements" if "axis" not in op.attrs or op.axis(rank, 0) == rank - 1 else "pieces"


def _rows_of(names: Iterable[str], count: Count) -> dict[str, Count]:
    return dict.fromkeys(names, count)


_SIMPLE = (
    "BitCast", "CastLike", "Crop", "GatedAdd", "ImageScaler", "MulInteger", "Scale", "Affine", "BiasAdd",
)  # fmt: skip
_COPIES = (
    "CenterCropPad", "ConcatFromSequence", "ConstantOfShape", "DynamicSlice", "EyeLike", "GatherPacked", "OneHot",
    "Optional", "OptionalGetElement", "OptionalHasElement", "Range", "ReverseSequence", "SequenceAt",
    "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SplitToSequence",
    "TensorScatter", "UnfoldTensor", "MemcpyFromHost", "MemcpyToHost", "Constant", "ZipMap",
    "ArrayFeatureExtractor", "FeatureVectorizer", "CastMap", "RemovePadding", "RestorePadding",
)  # fmt: skip
_VIEWS = ("Dropout", "Identity", "Shape", "Size")
_FUNCTIONS = {
    "ParametricSoftplus": 24, "ScaledSiLU": 16, "ScaledTanh": 17, "SwiGLU": 18,
}  # fmt: skip
_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
_TEXT = (
    "RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer", "Tokenizer",
    "WordConvEmbedding", "CategoryMapper", "DictVectorizer", "LabelEncoder", "OneHotEncoder", "MurmurHash3",
    "NGramHashMapping", "VarlenNGramHashMapping", "NGramRepeatBlock", "ImageDecoder",
)  # fmt: skip
_ROWS = (
    "GroupNorm", "MeanVarianceNormalization", "Normalizer", "SkipGroupNorm", "SkipSimplifiedLayerNormalization",
    "GatedRMSNorm", "BranchwiseRMSNorm", "EmbedLayerNormalization", "QEmbedLayerNormalization",
)  # fmt: skip
_REDUCED = {
    "ReduceSumInteger": 1, "QLinearReduceMean": 2, "MaxUnpool": 1, "QLinearGlobalAveragePool": 2, "NonZero": 2,
    "Compress": 1, "IsAllFinite": 1,
}  # fmt: skip
_QUANTISED = {
    "QuantizeLinear": 4, "DequantizeLinear": 2, "DynamicQuantizeLinear": 7, "QLinearAdd": 6, "QLinearMul": 6,
    "QLinearConcat": 2, "QLinearLeakyRelu": 1, "QLinearSigmoid": 1, "QLinearSoftmax": 8, "QLinearWhere": 1,
    "GatherBlockQuantized": 2,
}  # fmt: skip

FLOPS: Mapping[str, Count] = MappingProxyType(
    {
        **_rows_of(_SIMPLE, _an_output(1)),
        **_rows_of((*_COPIES, *_VIEWS), _nothing),
        **{name: _an_output(flops) for name, flops in {**_FUNCTIONS, **_QUANTISED}.items()},
        **{name: _an_input(flops) for name, flops in _REDUCED.items()},
        **_rows_of(_RANDOM, _an_output(20)),
        **_rows_of(_TEXT, _an_input(50)),
        **_rows_of(_ROWS, _an_input(8)),
        **_rows_of(("BiasSoftmax", "NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"), _an_input(16)),
        **_rows_of(("BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix"), _an_output(40)),
        **_rows_of(("RotaryEmbedding", "MRotaryEmbedding", "GemmaRotaryEmbedding"), _an_output(4)),
        **_rows_of(("NhwcConv", "NhwcFusedConv", "ConvInteger"), _conv(1)),
        "QLinearConv": _conv(3),
        "ConvTransposeWithDynamicPads": _conv_transpose,
        "DeformConv": _deform_conv,
        **_rows_of(("CausalConvWithState", "VarlenCausalConvWithState"), _state_conv),
        **_rows_of(("NhwcMaxPool", "MaxpoolWithMask"), _window),
        "QLinearAveragePool": lambda op: 2 * _window(op),
        "LRN": _lrn,
        "GridSample": _grid_sample,
        "AffineGrid": _an_output(6),
        "RoiAlign": _roi_align,
        "MaxRoiPool": _roi_pool,
        "CropAndResize": lambda op: 8.0 * _out(op),
        "Col2Im": _an_input(1),
        **_rows_of(("MatMulInteger", "MatMulInteger16", "MatMulIntegerToFloat"), _product(0)),
        **_rows_of(("QLinearMatMul", "DynamicQuantizeMatMul", "SparseToDenseMatMul"), _product(0)),
        **_rows_of(("QGemm", "TransposeMatMul"), _product(0, transposed="transA")),
        **_rows_of(("MatMulNBits", "MatMulBnb4", "MatMulFpQ4"), _inner("K")),
        "Einsum": _einsum,
        **_rows_of(("DynamicQuantizeLSTM", "AttnLSTM"), _recurrent),
        **_rows_of(("DecoderMaskedMultiHeadAttention", "SparseAttention"), _attention),
        "QAttention": _projected_attention,
        **_rows_of(("LinearAttention", "GatedDeltaNet", "LinearAttentionGate"), _state_space),
        **_rows_of(("MoE", "QMoE"), _experts),
        **_rows_of(("HyperConnectionPreMix", "HyperConnectionPostMix", "EngramGate", "MoEGroupRouter"), _an_input(8)),
        "DFT": _dft,
        "STFT": _stft,
        **_rows_of(("Rfft", "Irfft"), _rfft),
        "Unique": _sorted,
        "NonMaxSuppression": _suppression,
        "Det": _determinant,
        "Inverse": _inverse,
        "CDist": _distances,
        "DynamicTimeWarping": _an_input(4),
        "BifurcationDetector": _an_input(2),
        **_rows_of(("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"), _trees),
        **_rows_of(("LinearClassifier", "LinearRegressor"), _coefficients("coefficients")),
        **_rows_of(("SVMClassifier", "SVMRegressor"), _coefficients("support_vectors")),
        **_rows_of(("Scaler", "Binarizer", "Imputer"), _an_output(2)),
    }
)
"""Operator to its floating-point operations."""

READ: Mapping[str, Count] = MappingProxyType(
    {
        **_rows_of(("Compress", "Crop", "DynamicSlice", "SequenceAt", "GatherBlockQuantized"), _as_written),
        **_rows_of(("EmbedLayerNormalization", "GatherPacked", "QEmbedLayerNormalization"), _as_written),
        # of a table for every position that there may be, as long as a context, those that are asked for
        **_rows_of(("RotaryEmbedding", "MRotaryEmbedding"), lambda op: 1.5 * _as_written(op)),
        **_rows_of(("ConstantOfShape", "EyeLike", "Range", "Shape", "Size", "TensorScatter"), _nothing),
    }
)
"""Operator to the bytes that it reads, where these are not all its inputs."""

DETAILS: Mapping[str, Callable[[Operator], str]] = MappingProxyType(
    {
        "GridSample": _sampling,
        **dict.fromkeys(("MaxpoolWithMask", "ConvTransposeWithDynamicPads"), _kernel_and_step),
        "RoiAlign": _attribute("mode", "avg"),
        "Einsum": _equation,
        "DFT": _power_of_two,
        "STFT": _power_of_two,
        **dict.fromkeys(("MatMulNBits", "GatherBlockQuantized"), _bits),
        **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), lambda op: op.inputs[0].dtype if op.inputs[0] else ""),
    }
)
"""Operator to the setting that decides how it computes."""

VARIANTS: Mapping[str, Callable[[Operator], str]] = MappingProxyType(
    {
        "Compress": _pieces,
        "GridSample": _beyond,
        "ReverseSequence": lambda op: "time first" if op.int("time_axis", 0) == 0 else "batch first",
        "RotaryEmbedding": lambda op: "interleaved" if op.int("interleaved", 0) else "",
        "CDist": _attribute("metric", "sqeuclidean"),
        "LinearAttention": _attribute("update_rule", "gated_delta"),
        **dict.fromkeys(("CausalConvWithState", "VarlenCausalConvWithState"), _attribute("activation", "none")),
        **dict.fromkeys(("MoE", "QMoE"), _attribute("activation_type", "relu")),
        # onnxruntime's own, which gives places and counts, is forty times as quick as ONNX's
        "Unique": lambda op: "places" if len(op.outputs) > 1 else "",
    }
)
"""Operator to a second one."""

BY_DATA: Mapping[str, str] = MappingProxyType(
    {"NonMaxSuppression": "which boxes overlap decides how often two are compared (of 1,000 boxes 0.015 to 1.3 ms)"}
)
"""Operators, and other names of categories, whose time follows from their values by more than a factor of two on any
runtime, and how: none of them is *predicted*. A runtime's own stand in its value."""

GENERATING: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(
        ("BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch"),
        "it runs a whole model as often as the text that it writes is long",
    )
    | dict.fromkeys(("If", "Loop", "Scan", "SequenceMap"), "the front end unrolls it or refuses it")
)
"""Operators whose work does not follow from shapes, and why."""
