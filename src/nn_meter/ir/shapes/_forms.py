"""What a node of an operator may look like: how many inputs it reads, and of which kind its attributes are.

Over all opsets, as ``onnx.defs`` and ONNX Runtime state them; a test compares. An attribute has the same kind in
every operator, or is not listed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from nn_meter.ir.graph import Attr, Node, Tensor
from nn_meter.ir.shapes._site import ShapeError

ANY = 1 << 30
"""As many inputs as there are."""

_ONNX: Mapping[tuple[int, int], str] = {
    (0, 0): "Constant RandomNormal RandomUniform",
    (0, 1): "OptionalHasElement",
    (1, 1): "Abs Acos Acosh ArgMax ArgMin Asin Asinh Atan Atanh AveragePool Bernoulli BitCast BitwiseNot "
    "BlackmanWindow Cast Ceil Celu ConstantOfShape Cos Cosh DepthToSpace Det DynamicQuantizeLinear Elu Erf Exp "
    "EyeLike Flatten Floor Gelu GlobalAveragePool GlobalLpPool GlobalMaxPool HammingWindow HannWindow HardSigmoid "
    "HardSwish Hardmax Identity IsInf IsNaN LRN LeakyRelu Log LogSoftmax LpNormalization LpPool MaxPool "
    "MeanVarianceNormalization Mish Multinomial Neg NonZero Not OptionalGetElement RandomNormalLike "
    "RandomUniformLike Reciprocal RegexFullMatch Relu Round Selu Shape Shrink Sigmoid Sign Sin Sinh Size Softmax "
    "Softplus Softsign SpaceToDepth Sqrt Swish Tan Tanh TfIdfVectorizer ThresholdedRelu Transpose Unique",
    (1, 2): "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
    "ReduceSumSquare Reshape Split Squeeze TopK Trilu Unsqueeze Upsample",
    (1, 3): "Clip DFT Dropout",
    (1, 4): "Pad Resize",
    (1, 5): "Slice",
    (1, ANY): "Concat Einsum Max Mean Min Sum",
    (2, 2): "Add AffineGrid And BitShift BitwiseAnd BitwiseOr BitwiseXor CastLike CenterCropPad Compress CumProd "
    "CumSum Div Equal Expand Gather GatherElements GatherND Greater GreaterOrEqual GridSample Less LessOrEqual "
    "MatMul MaxRoiPool Mod Mul Or PRelu Pow RMSNormalization ReverseSequence StringConcat Sub Xor",
    (2, 3): "Conv ConvTranspose DequantizeLinear Gemm LayerNormalization MaxUnpool NegativeLogLikelihoodLoss "
    "QuantizeLinear SoftmaxCrossEntropyLoss TensorScatter Tile",
    (2, 5): "NonMaxSuppression",
    (3, 3): "Col2Im GroupNormalization InstanceNormalization OneHot Range RoiAlign Scatter ScatterElements ScatterND "
    "Where",
    (2, 4): "CausalConvWithState ConvInteger MatMulInteger STFT",
    (3, 4): "RotaryEmbedding",
    (3, 5): "DeformConv",
    (3, 6): "GRU LinearAttention RNN",
    (3, 7): "Attention",
    (3, 8): "LSTM",
    (5, 5): "BatchNormalization MelWeightMatrix",
    (8, 8): "QLinearMatMul",
    (8, 9): "QLinearConv",
}
_MICROSOFT: Mapping[tuple[int, int], str] = {
    (1, 1): "DynamicTimeWarping Gelu Inverse MurmurHash3 NhwcMaxPool QuickGelu SampleOp UnfoldTensor",
    (1, 2): "BranchwiseRMSNorm FastGelu ScaledSiLU Trilu",
    (1, 10): "MultiHeadAttention",
    (2, 2): "BiasGelu BiasSoftmax CDist ExpandDims FusedMatMul HyperConnectionPreMix MatMulInteger16 MaxpoolWithMask "
    "NGramRepeatBlock",
    (2, 3): "FusedGemm MoEGroupRouter Pad Range",
    (2, 4): "CausalConvWithState ConvTransposeWithDynamicPads FusedConv",
    (2, 7): "Attention",
    (2, ANY): "QLinearConcat",
    (3, 3): "BiasAdd GatedRMSNorm GroupNorm MatMulBnb4 MatMulFpQ4",
    (3, 4): "GatedAdd GatherBlockQuantized HyperConnectionPostMix LinearAttentionGate SkipSimplifiedLayerNormalization",
    (3, 5): "DynamicQuantizeMatMul SkipLayerNormalization",
    (3, 6): "LinearAttention MatMulNBits",
    (3, 7): "NGramHashMapping",
    (3, 8): "MoE VarlenCausalConvWithState",
    (3, 14): "AttnLSTM",
    (3, 21): "QMoE",
    (4, 4): "CropAndResize MRotaryEmbedding RotaryEmbedding WordConvEmbedding",
    (4, 10): "VarlenNGramHashMapping",
    (2, 5): "QLinearAveragePool QLinearLeakyRelu QLinearSigmoid QLinearSoftmax",
    (4, 7): "MatMulIntegerToFloat",
    (5, 5): "QLinearGlobalAveragePool",
    (5, 6): "EngramGate",
    (5, 9): "QAttention",
    (6, 9): "QGemm",
    (2, 8): "QLinearAdd QLinearMul",
    (9, 9): "QLinearWhere",
    (1, 11): "DecoderMaskedMultiHeadAttention GatedDeltaNet SparseAttention",
    (3, 12): "DynamicQuantizeLSTM",
    (1, 18): "QEmbedLayerNormalization",
    (1, 9): "EmbedLayerNormalization",
    (1, 17): "GroupQueryAttention",  # one of packed queries, keys and values does
}
_ML: Mapping[tuple[int, int], str] = {
    (1, 1): "Binarizer CategoryMapper Imputer LabelEncoder LinearClassifier LinearRegressor Normalizer OneHotEncoder "
    "SVMClassifier SVMRegressor Scaler TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor ZipMap",
    (1, ANY): "FeatureVectorizer",
    (2, 2): "ArrayFeatureExtractor",
}


def _by_operator(table: Mapping[tuple[int, int], str]) -> dict[str, tuple[int, int]]:
    return {name: bounds for bounds, names in table.items() for name in names.split()}


OPERANDS: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "": _by_operator(_ONNX),
    "com.microsoft": _by_operator(_ONNX) | _by_operator(_MICROSOFT),
    "ai.onnx.ml": _by_operator(_ML),
}
"""Domain to operator to the inputs that it must have, and may have at most."""

_WHOLE = (
    "K N align_corners allowzero axis batch_axis batch_dims bits block_size blocksize broadcast ceil_mode "
    "center_point_box count_include_pad do_rotary end exclusive fmod group hidden_size inverse is_causal keepdims "
    "kv_num_heads largest layout linear_before_reset n_targets new_axis noop_with_empty_axes num_groups num_heads "
    "num_outputs onesided output_datatype output_dtype output_height output_width q_num_heads reverse sample_size "
    "select_last_index sorted spatial start stash_type storage_order targets time_axis training_mode transA transB "
    "upper value_int zeros"
)
_WHOLES = (
    "axes cats_int64s class_ids classlabels_int64s classlabels_ints dilations ends inputdimensions int64_vocabulary "
    "kernel_shape ngram_indexes output_padding output_shape paddings pads perm pooled_shape qkv_hidden_sizes shape "
    "split starts strides value_ints"
)
_NUMBER = (
    "alpha beta cubic_coeff_a epsilon extrapolation_value gamma lambd max min momentum ratio spatial_scale threshold "
    "value_float"
)
_TEXT = (
    "auto_pad coordinate_transformation_mode direction equation keep_aspect_ratio_policy mode nearest_mode reduction "
    "value_string"
)

ATTRIBUTES: Mapping[str, str] = {
    **dict.fromkeys(_WHOLE.split(), "a whole number"),
    **dict.fromkeys(_WHOLES.split(), "whole numbers"),
    **dict.fromkeys(_NUMBER.split(), "a number"),
    **dict.fromkeys(_TEXT.split(), "a text"),
}
"""Attribute to its kind."""

_INTEGERS = 1 << 63
"""ONNX's integers are of 64 bits."""


def _is(value: Attr, kind: str) -> bool:
    if kind == "a whole number":
        return isinstance(value, int) and abs(value) <= _INTEGERS
    if kind == "whole numbers":
        # a list takes half the time of a generator
        return isinstance(value, tuple) and not [v for v in value if not isinstance(v, int) or abs(v) > _INTEGERS]
    if kind == "a number":
        return isinstance(value, (int, float)) and not math.isnan(value)
    return isinstance(value, str)


def check_attributes(attrs: Mapping[str, Attr]) -> None:
    """Raise where an attribute is not of its kind.

    Raises:
        ShapeError: names the attribute.
    """
    for name, value in attrs.items():
        kind = ATTRIBUTES.get(name)
        if kind is not None and not _is(value, kind):
            raise ShapeError(f"attribute {name!r} is {value!r:.80}; it must be {kind}")


def check(node: Node, inputs: Sequence[Tensor | None]) -> None:
    """Raise where the node has not the form of its operator.

    Raises:
        ShapeError: too few or too many inputs, a required one left out, an attribute of another kind.
    """
    bounds = OPERANDS.get(node.domain, OPERANDS[""]).get(node.op_type)
    if bounds is not None:
        (least, most), count = bounds, len(inputs)
        for index in range(least):
            if index >= count or inputs[index] is None:
                raise ShapeError(f"input {index} is missing")
        if count > most:
            raise ShapeError(f"has {count} inputs, the operator at most {most}")
    if node.attrs:
        check_attributes(node.attrs)
