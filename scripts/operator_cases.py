"""One plausible node of every operator: what ``operators.py`` measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from nn_meter.ir import Attr, Graph, GraphBuilder

MS = "com.microsoft"


@dataclass(frozen=True)
class X:
    """An input."""

    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class W:
    """A weight of any values."""

    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class C:
    """A constant whose values matter."""

    value: float | Sequence[float]
    dtype: str = "int64"
    shape: tuple[int, ...] | None = None


Operand = X | W | C | None


@dataclass(frozen=True)
class Case:
    """Operands, attributes and number of outputs of a node."""

    operands: tuple[Operand, ...]
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    outputs: int = 1

    def graph(self, operator: str, around: str = "") -> Graph:
        """The node alone, or with an operator ``around`` each of its inputs and its result, where they are floats."""
        domain, _, op_type = operator.rpartition(".")
        b = GraphBuilder(op_type)
        names = [self._operand(b, each, around) for each in self.operands]
        made = b.multi(op_type, names, self.outputs, domain=domain, **self.attrs)
        graph = b.graph(*made)
        if not around or graph.tensors[made[0]].dtype != "float32":
            return graph
        return b.graph(b.op(around, made[0]), *made[1:])

    @staticmethod
    def _operand(b: GraphBuilder, each: Operand, around: str) -> str:
        if each is None:
            return ""
        if isinstance(each, C):
            return b.const(each.value, each.dtype, each.shape)
        if isinstance(each, W):
            return b.weight(each.shape, each.dtype)
        name = b.input(each.shape, each.dtype)
        return b.op(around, name) if around and each.dtype == "float32" and each.shape else name


def of(*operands: Operand, outputs: int = 1, **attrs: Attr) -> Case:
    """A case."""
    return Case(operands, MappingProxyType(attrs), outputs)


def _each(names: str, make: Callable[[str], Case] | Case) -> dict[str, Case]:
    return {name: make if isinstance(make, Case) else make(name) for name in names.split()}


MAP, ROWS, HEADS = (1, 64, 56, 56), (1, 197, 768), (1, 12, 197, 64)
F = "float32"
_SCALE, _ZERO, _ZERO8 = C(0.02, F), C(128, "uint8"), C(0, "int8")
_Q = (_SCALE, _ZERO)
_U8 = X(MAP, "uint8")
_STREAMS = X((1, 32, 4, 256))
_NGRAMS = (C((3, 5, 7)), C((1009, 1013, 1019, 1021)))
_HASHED = {"max_ngram_size": 3, "n_head_per_ngram": 2, "pad_id": 0, "outputs": 2}


def _last(*axes: int) -> C:
    return C(axes)


_ONNX: dict[str, Case] = {
    **_each(
        "Abs Acos Acosh Asin Asinh Atan Atanh Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish IsInf "
        "IsNaN LeakyRelu Log Mish Neg Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt "
        "Swish Tan Tanh ThresholdedRelu Identity Dropout",
        of(X(MAP)),
    ),
    **_each("Add Sub Mul Div Max Min Sum Mean", of(X(MAP), X(MAP))),
    **_each("Less LessOrEqual Greater GreaterOrEqual Equal", of(X(MAP), X(MAP))),
    **_each("And Or Xor", of(X(MAP, "bool"), X(MAP, "bool"))),
    **_each("BitwiseAnd BitwiseOr BitwiseXor", of(X(MAP, "int32"), X(MAP, "int32"))),
    "Not": of(X(MAP, "bool")),
    "BitwiseNot": of(X(MAP, "int32")),
    "BitShift": of(X(MAP, "uint32"), X(MAP, "uint32"), direction="LEFT"),
    "Pow": of(X(MAP), C(3.0, F)),
    "Mod": of(X(MAP), W(MAP), fmod=1),
    "PRelu": of(X(MAP), W((64, 1, 1))),
    "Clip": of(X(MAP), C(0.0, F), C(6.0, F)),
    "Where": of(X(MAP, "bool"), X(MAP), X(MAP)),
    "Cast": of(X(MAP), to=10),
    "CastLike": of(X(MAP), W((1,), "float16")),
    **_each(
        "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
        "ReduceSumSquare",
        of(X(MAP), _last(2, 3)),
    ),
    **_each("ArgMax ArgMin", of(X((1, 21, 128, 128)), axis=1)),
    **_each("Softmax LogSoftmax Hardmax", of(X((1, 12, 197, 197)), axis=-1)),
    "LpNormalization": of(X(ROWS), axis=-1),
    "TopK": of(X((1, 8400)), C((300,)), outputs=2, axis=1),
    "CumSum": of(X(ROWS), C(1)),
    "LRN": of(X(MAP), size=5),
    "MeanVarianceNormalization": of(X(MAP), axes=(0, 2, 3)),
    "BatchNormalization": of(X(MAP), W((64,)), W((64,)), W((64,)), W((64,))),
    "InstanceNormalization": of(X(MAP), W((64,)), W((64,))),
    "GroupNormalization": of(X(MAP), W((64,)), W((64,)), num_groups=8),
    "LayerNormalization": of(X(ROWS), W((768,)), W((768,)), axis=-1),
    "RMSNormalization": of(X(ROWS), W((768,)), axis=-1),
    "MatMul": of(X((197, 768)), W((768, 768))),
    "Gemm": of(X((64, 512)), W((1000, 512)), W((1000,)), transB=1),
    "Einsum": of(X(HEADS), X(HEADS), equation="bhid,bhjd->bhij"),
    "Det": of(X((64, 16, 16))),
    "MatMulInteger": of(X((128, 768), "uint8"), W((768, 768), "int8")),
    "QLinearMatMul": of(X((128, 768), "uint8"), *_Q, W((768, 768), "int8"), _SCALE, _ZERO8, *_Q),
    "ConvInteger": of(X(MAP, "uint8"), W((64, 64, 3, 3), "uint8"), pads=(1, 1, 1, 1)),
    "QLinearConv": of(_U8, *_Q, W((64, 64, 3, 3), "int8"), _SCALE, _ZERO8, *_Q, pads=(1, 1, 1, 1)),
    "QuantizeLinear": of(X(MAP), *_Q),
    "DequantizeLinear": of(_U8, *_Q),
    "DynamicQuantizeLinear": of(X(MAP), outputs=3),
    "Conv": of(X(MAP), W((64, 64, 3, 3)), W((64,)), pads=(1, 1, 1, 1)),
    "ConvTranspose": of(X((1, 64, 28, 28)), W((64, 32, 4, 4)), strides=(2, 2), pads=(1, 1, 1, 1)),
    "DeformConv": of(X((1, 32, 28, 28)), W((32, 32, 3, 3)), X((1, 18, 28, 28)), pads=(1, 1, 1, 1)),
    **_each("MaxPool AveragePool LpPool", of(X(MAP), kernel_shape=(3, 3), strides=(2, 2))),
    **_each("GlobalAveragePool GlobalMaxPool GlobalLpPool", of(X(MAP))),
    "MaxRoiPool": of(X((1, 64, 28, 28)), W((20, 5)), pooled_shape=(7, 7)),
    "MaxUnpool": of(X((1, 16, 14, 14)), W((1, 16, 14, 14), "int64"), kernel_shape=(2, 2), strides=(2, 2)),
    "RoiAlign": of(
        X((1, 64, 50, 50)), W((50, 4)), C((0,) * 50), output_height=7, output_width=7, sampling_ratio=2,
        spatial_scale=0.0625,
    ),
    "GridSample": of(X((1, 16, 64, 64)), X((1, 64, 64, 2))),
    "AffineGrid": of(X((1, 2, 3)), C((1, 3, 128, 128))),
    "Col2Im": of(X((1, 144, 784)), C((28, 28)), C((3, 3)), pads=(1, 1, 1, 1)),
    "Resize": of(X((1, 32, 56, 56)), None, None, C((1, 32, 112, 112)), mode="linear"),
    "DepthToSpace": of(X((1, 64, 56, 56)), blocksize=2),
    "SpaceToDepth": of(X((1, 16, 112, 112)), blocksize=2),
    "Transpose": of(X((1, 197, 12, 64)), perm=(0, 2, 1, 3)),
    "Reshape": of(X(ROWS), C((197, 768))),
    "Flatten": of(X((1, 512, 7, 7)), axis=1),
    "Squeeze": of(X((1, 1, 197, 768)), C((1,))),
    "Unsqueeze": of(X(ROWS), C((1,))),
    "Expand": of(X((1, 1, 768)), C((1, 197, 768))),
    "Tile": of(X((1, 64, 28, 28)), C((1, 1, 2, 2))),
    "Concat": of(X(MAP), X(MAP), axis=1),
    "Split": of(X((1, 197, 2304)), C((768, 768, 768)), outputs=3, axis=2),
    "Slice": of(X(MAP), C((0,)), C((32,)), C((1,))),
    "Pad": of(X(MAP), C((0, 0, 1, 1, 0, 0, 1, 1))),
    "CenterCropPad": of(X((1, 64, 56, 56)), C((48, 48)), axes=(2, 3)),
    "Gather": of(W((4000, 768)), X((1, 128), "int64"), axis=0),
    "GatherElements": of(X((1, 8400, 4)), W((1, 300, 4), "int64"), axis=1),
    "GatherND": of(X((64, 1024)), W((20000, 2), "int64")),
    "ScatterElements": of(X((64, 1024)), W((64, 512), "int64"), X((64, 512)), axis=1),
    "ScatterND": of(X((64, 1024)), W((5000, 2), "int64"), X((5000,))),
    "TensorScatter": of(X((1, 8, 256, 64)), X((1, 8, 1, 64)), C((100,))),
    "Compress": of(X(MAP), W((64,), "bool"), axis=1),
    "OneHot": of(X((128,), "int64"), C((1000,)), C((0.0, 1.0), F)),
    "EyeLike": of(X((512, 512))),
    "Trilu": of(X((12, 197, 197)), upper=0),
    "ReverseSequence": of(X((100, 8, 256)), C((100,) * 8), time_axis=0, batch_axis=1),
    "NonZero": of(X(MAP)),
    "Unique": of(X((10000,))),
    "NonMaxSuppression": of(
        X((1, 1000, 4)), X((1, 5, 1000)), C((100,)), C((0.5,), F), C((0.3,), F),
    ),
    **_each("Shape Size", of(X(MAP))),
    "RandomNormalLike": of(X(MAP)),
    "RandomUniformLike": of(X(MAP)),
    "RandomNormal": of(shape=MAP),
    "RandomUniform": of(shape=MAP),
    "Bernoulli": of(X(MAP)),
    "Multinomial": of(X((8, 1000)), sample_size=4),
    "LSTM": of(X((100, 1, 256)), W((1, 1024, 256)), W((1, 1024, 256)), hidden_size=256, outputs=3),
    "GRU": of(X((100, 1, 256)), W((1, 768, 256)), W((1, 768, 256)), hidden_size=256, linear_before_reset=1, outputs=2),
    "RNN": of(X((100, 1, 256)), W((1, 256, 256)), W((1, 256, 256)), hidden_size=256, outputs=2),
    "Attention": of(X(HEADS), X(HEADS), X(HEADS)),
    "RotaryEmbedding": of(X((1, 12, 128, 64)), W((128, 32)), W((128, 32)), W((1, 128), "int64")),
    "DFT": of(X((1, 64, 512, 1)), None, C(2), onesided=1),
    "STFT": of(X((1, 16000, 1)), C(160), W((400,)), onesided=1),
    "SoftmaxCrossEntropyLoss": of(X((64, 1000)), X((64,), "int64"), outputs=2),
    "NegativeLogLikelihoodLoss": of(X((64, 1000)), X((64,), "int64")),
}  # fmt: skip


def _ms(name: str, case: Case) -> tuple[str, Case]:
    return f"{MS}.{name}", case


_MICROSOFT: dict[str, Case] = dict(
    [
        *(_ms(name, of(X(ROWS))) for name in ("Gelu", "FastGelu", "QuickGelu")),
        *(_ms(name, of(X(ROWS), W((768,)))) for name in ("BiasGelu",)),
        _ms("FusedMatMul", of(X(HEADS), X(HEADS), transB=1, alpha=0.125)),
        _ms("FusedGemm", of(X((64, 512)), W((512, 1000)), W((1000,)), activation="Relu")),
        _ms("FusedConv", of(X(MAP), W((64, 64, 3, 3)), W((64,)), pads=(1, 1, 1, 1), activation="Relu")),
        _ms("SkipLayerNormalization", of(X(ROWS), X(ROWS), W((768,)), W((768,)))),
        _ms("SkipSimplifiedLayerNormalization", of(X(ROWS), X(ROWS), W((768,)))),
        _ms("MultiHeadAttention", of(X((1, 128, 768)), X((1, 128, 768)), X((1, 128, 768)), num_heads=12)),
        _ms("Attention", of(X((1, 128, 768)), W((768, 2304)), W((2304,)), num_heads=12)),
        _ms(
            "GroupQueryAttention",
            of(
                X((1, 1, 768)), X((1, 1, 256)), X((1, 1, 256)), X((1, 4, 128, 64)), X((1, 4, 128, 64)),
                C((128,), "int32"), C(129, "int32", ()), outputs=3, num_heads=12, kv_num_heads=4,
            ),
        ),
        _ms("RotaryEmbedding", of(X((1, 128, 768)), W((1, 128), "int64"), W((128, 32)), W((128, 32)), num_heads=12)),
        _ms(
            "MatMulNBits",
            of(X((1, 768)), W((768, 24, 16), "uint8"), W((768, 24)), K=768, N=768, bits=4, block_size=32),
        ),
        _ms(
            "GatherBlockQuantized",
            of(W((4000, 384), "uint8"), X((1, 128), "int64"), W((4000, 24)), bits=4, block_size=32, quantize_axis=1),
        ),
        _ms("DynamicQuantizeMatMul", of(X((128, 768)), W((768, 768), "int8"), _SCALE)),
        _ms("MatMulIntegerToFloat", of(X((128, 768), "uint8"), W((768, 768), "uint8"), _SCALE, _SCALE)),
        *(_ms(name, of(_U8, *_Q, *_Q)) for name in ("QLinearSigmoid", "QLinearLeakyRelu", "QLinearGlobalAveragePool")),
        *(_ms(name, of(_U8, *_Q, _U8, *_Q, *_Q)) for name in ("QLinearAdd", "QLinearMul")),
        _ms("QLinearSoftmax", of(X((1, 12, 197, 197), "uint8"), *_Q, *_Q, axis=-1, opset=13)),
        _ms("QLinearConcat", of(*_Q, _U8, *_Q, _U8, *_Q, axis=1)),
        _ms("QLinearWhere", of(X(MAP, "bool"), _U8, *_Q, _U8, *_Q, *_Q)),
        _ms("QLinearAveragePool", of(_U8, *_Q, *_Q, kernel_shape=(3, 3), strides=(2, 2))),
        _ms(
            "QGemm",
            of(X((64, 512), "uint8"), *_Q, W((1000, 512), "int8"), _SCALE, _ZERO8, None, *_Q, transB=1),
        ),
        _ms("QuantizeLinear", of(X(MAP), *_Q)),
        _ms("DequantizeLinear", of(_U8, *_Q)),
        _ms(
            "DynamicQuantizeLSTM",
            of(
                X((50, 1, 256)), W((1, 256, 1024), "int8"), W((1, 256, 1024), "int8"), None, None, None, None, None,
                W((1,)), W((1,), "int8"), W((1,)), W((1,), "int8"), hidden_size=256, outputs=3,
            ),
        ),
        _ms("NhwcMaxPool", of(X((1, 56, 56, 64), "uint8"), kernel_shape=(3, 3), strides=(2, 2))),
        _ms("GatherND", of(X((64, 1024)), W((20000, 2), "int64"))),
        _ms("Pad", of(X(MAP), C((0, 0, 1, 1, 0, 0, 1, 1)))),
        _ms("GridSample", of(X((1, 16, 64, 64)), X((1, 64, 64, 2)))),
        _ms("Unique", of(X((10000,)), outputs=3)),
        _ms("TransposeMatMul", of(X(HEADS), X(HEADS), transB=1)),
        *(_ms(name, of(X(ROWS))) for name in ("ScaledSiLU", "SampleOp")),
        _ms(
            "MatMulBnb4",
            of(X((1, 768)), W((294912,), "uint8"), W((9216,)), K=768, N=768, block_size=64, quant_type=1),
        ),
        _ms("CDist", of(X((500, 64)), X((500, 64)))),
        _ms("ExpandDims", of(X(ROWS), C(1, "int32", ()))),
        _ms("Inverse", of(X((64, 16, 16)))),
        _ms("Trilu", of(X((12, 197, 197)), upper=0)),
        _ms(
            "EmbedLayerNormalization",
            of(
                X((1, 128), "int32"), X((1, 128), "int32"), W((4000, 256)), W((512, 256)), W((2, 256)), W((256,)),
                W((256,)), outputs=2,
            ),
        ),
        _ms(
            "QAttention",
            of(
                X((1, 128, 768), "uint8"), W((768, 2304), "int8"), W((2304,)), C((0.02,), F, (1,)), C((0.02,), F, (1,)),
                None, C((128,), "uint8", (1,)), C((0,), "int8", (1,)), num_heads=12,
            ),
        ),
        _ms("MRotaryEmbedding", of(
            X((1, 128, 768)), W((3, 1, 128), "int64"), W((128, 32)), W((128, 32)), mrope_section=(16, 8, 8),
            num_heads=12,
        )),
        _ms("GatedRMSNorm", of(X(ROWS), W((64,)), X(ROWS))),
        _ms("GatedAdd", of(X(ROWS), X(ROWS), X((1, 197, 1)))),
        _ms("BranchwiseRMSNorm", of(_STREAMS, W((256,)))),
        _ms("HyperConnectionPreMix", of(_STREAMS, X((1, 32, 4)))),
        _ms("HyperConnectionPostMix", of(_STREAMS, X((1, 32, 256)), X((1, 32, 4)), X((1, 32, 4, 4)))),
        _ms("EngramGate", of(_STREAMS, _STREAMS, X((1, 32, 256)), W((4, 256)), W((4, 256)))),
        _ms("CausalConvWithState", of(X((1, 256, 128)), W((256, 1, 4)), W((256,)), outputs=2, activation="silu")),
        _ms("VarlenCausalConvWithState", of(
            X((128, 256)), W((256, 1, 4)), C((0, 128), "int32"), W((256,)), X((1, 256, 3)), outputs=2,
        )),
        _ms("LinearAttention", of(
            X((1, 64, 256)), X((1, 64, 256)), X((1, 64, 256)), None, X((1, 64, 4)), X((1, 64, 4)), q_num_heads=4,
            kv_num_heads=4, outputs=2,
        )),
        _ms("LinearAttentionGate", of(X((1, 128, 16)), W((16,)), W((16,)), X((1, 128, 16)), outputs=2)),
        _ms("GatedDeltaNet", of(
            X((64, 4, 64)), X((64, 4, 64)), X((64, 4, 64)), None, X((64, 4)), X((64, 4)), X((1, 4, 64, 64)), outputs=2,
        )),
        _ms("AttnLSTM", of(
            X((50, 1, 64)), W((1, 256, 128)), W((1, 256, 64)), W((1, 512)), None, None, None, None, W((1, 64, 32)),
            W((1, 64, 32)), W((1, 32)), X((1, 20, 64)), None, W((1, 128, 64)), hidden_size=64, outputs=3,
        )),
        _ms("DecoderMaskedMultiHeadAttention", of(
            X((1, 1, 768)), X((1, 1, 768)), X((1, 1, 768)), None, None, X((1, 12, 128, 64)), X((1, 12, 128, 64)),
            C((64,), "int32"), past_present_share_buffer=1, num_heads=12, outputs=3,
        )),
        _ms("MoE", of(
            X((64, 256)), X((64, 8)), W((8, 512, 256)), None, W((8, 256, 512)), k=2, activation_type="silu",
        )),
        _ms("QMoE", of(
            X((64, 256)), X((64, 8)), W((8, 512, 128), "uint8"), W((8, 512)), None, W((8, 256, 256), "uint8"),
            W((8, 256)), k=2, activation_type="silu", expert_weight_bits=4,
        )),
        _ms("MoEGroupRouter", of(X((128, 64)), W((64,)), top_k=4, n_group=8, topk_group=4, group_topk=2)),
        _ms("MatMulInteger16", of(X((64, 64), "int16"), W((64, 64), "int16"))),
        _ms("MatMulFpQ4", of(X((1, 768)), W((387072,), "uint8"), C((768, 768)), blk_quant_type=1)),
        _ms("QLinearConv", of(_U8, *_Q, W((64, 64, 3, 3), "int8"), _SCALE, _ZERO8, *_Q, pads=(1, 1, 1, 1))),
        _ms("QEmbedLayerNormalization", of(
            X((1, 128), "int32"), X((1, 128), "int32"), W((4000, 256), "uint8"), W((512, 256), "uint8"),
            W((2, 256), "uint8"), W((256,), "uint8"), W((256,), "uint8"), None, *(_SCALE,) * 5, *(_ZERO,) * 5,
            outputs=2,
        )),
        _ms("ConvTransposeWithDynamicPads", of(
            X((1, 64, 28, 28)), W((64, 32, 4, 4)), C((1, 1, 1, 1)), strides=(2, 2),
        )),
        _ms("MaxpoolWithMask", of(X(MAP), W(MAP, "int32"), kernel_shape=(3, 3), strides=(2, 2))),
        _ms("CropAndResize", of(X((1, 64, 50, 50)), W((20, 4)), C((0,) * 20, "int32"), C((14, 14), "int32"))),
        _ms("UnfoldTensor", of(X((1, 64, 512)), dim=-1, size=64, step=32)),
        _ms("WordConvEmbedding", of(
            X((32, 16), "int32"), W((64, 1, 3, 16)), W((64,)), W((128, 16)), embedding_size=64, conv_window_size=3,
            char_embedding_size=16,
        )),
        _ms("MurmurHash3", of(X((10000,), "int32"))),
        _ms("NGramRepeatBlock", of(X((1, 128), "int64"), X((1, 32000)), ngram_size=3)),
        _ms("NGramHashMapping", of(X((1, 128), "int64"), *_NGRAMS, **_HASHED)),
        _ms("VarlenNGramHashMapping", of(X((128,), "int64"), *_NGRAMS, C((0, 128), "int32"), **_HASHED)),
        _ms("DynamicTimeWarping", of(X((64, 256)))),
        _ms("BifurcationDetector", of(X((64,), "int64"), X((32,), "int64"), C((0,)), outputs=2)),
    ]
)  # fmt: skip

CASES: Mapping[str, Case] = MappingProxyType({**_ONNX, **_MICROSOFT})
"""Operator, those of com.microsoft with their domain, to a node of it."""

_TEXTS = "it works on texts"

def _each_text(names: str, text: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), text)


def model_of(text: str) -> bytes:
    """The ONNX model of one of ``MODELS``."""
    from onnx import parser

    return bytes(parser.parse_model(f'<ir_version: 9, opset_import: ["": 21]> {text}').SerializeToString())


_PAIR, _ONE, _TWO = "(float[197, 768] x, float[197, 768] z)", "(float[197, 768] y)", "(float[394, 768] y)"
_PLACES = "<int64 zero = {0}, int64 one = {1}>"

MODELS: Mapping[str, str] = MappingProxyType(
    {
        **_each_text(
            "SequenceConstruct SequenceAt",
            f"m {_PAIR} => {_ONE} {_PLACES} {{ s = SequenceConstruct (x, z) y = SequenceAt (s, one) }}",
        ),
        "SequenceInsert": f"m {_PAIR} => {_TWO} {{ s = SequenceConstruct (x) t = SequenceInsert (s, z) "
        "y = ConcatFromSequence <axis = 0> (t) }",
        "SequenceErase": f"m {_PAIR} => {_ONE} {_PLACES} {{ s = SequenceConstruct (x, z) t = SequenceErase (s, zero) "
        "y = SequenceAt (t, zero) }",
        "SequenceEmpty": f"m {_PAIR} => {_TWO} {{ e = SequenceEmpty () s = SequenceInsert (e, x) "
        "t = SequenceInsert (s, z) y = ConcatFromSequence <axis = 0> (t) }",
        "SequenceMap": f"m {_PAIR} => {_TWO} {{ s = SequenceConstruct (x, z) t = SequenceMap <body = b "
        "(float[197, 768] e) => (float[197, 768] r) { r = Relu (e) }> (s) y = ConcatFromSequence <axis = 0> (t) }",
        **_each_text(
            "SplitToSequence ConcatFromSequence",
            "m (float[1, 197, 2304] x) => (float[1, 197, 2304] y) <int64[3] parts = {768, 768, 768}> "
            "{ s = SplitToSequence <axis = 2> (x, parts) y = ConcatFromSequence <axis = 2> (s) }",
        ),
        **_each_text(
            "Optional OptionalGetElement", f"m {_PAIR} => {_ONE} {{ o = Optional (x) y = OptionalGetElement (o) }}"
        ),
        "If": "m (bool c, float[64, 256] x, float[256, 256] w) => (float[64, 256] y) { y = If <then_branch = t () => "
        "(float[64, 256] a) { a = MatMul (x, w) }, else_branch = e () => (float[64, 256] b) { b = MatMul (x, w) }> (c) "
        "}",
        "Loop": "m (float[64, 256] x, float[256, 256] w) => (float[64, 256] y) <int64 n = {8}, bool go = {1}> "
        "{ y = Loop <body = b (int64 i, bool c, float[64, 256] h) => (bool d, float[64, 256] g) "
        "{ d = Identity (c) m = MatMul (h, w) g = Tanh (m) }> (n, go, x) }",
        "Scan": "m (float[8, 64, 256] x, float[64, 256] h0, float[256, 256] w) => (float[64, 256] h, "
        "float[8, 64, 256] y) { h, y = Scan <num_scan_inputs = 1, body = b (float[64, 256] p, float[64, 256] e) => "
        "(float[64, 256] q, float[64, 256] o) { m = MatMul (p, w) q = Add (m, e) o = Tanh (q) }> (h0, x) }",
    }
)
"""Operators that no graph of tensors holds, since the front end takes sequences apart and writes loops out, to a small
model of each in ONNX's text form."""

WHY_NOT: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("SequenceLength", "OptionalHasElement"), "what it says is known before inference"),
        **dict.fromkeys(
            ("StringNormalizer", "StringConcat", "StringSplit", "RegexFullMatch", "TfIdfVectorizer", f"{MS}.Tokenizer"),
            _TEXTS,
        ),
        **dict.fromkeys(
            tuple(f"{MS}.{name}" for name in ("BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch")),
            "it runs a whole model as often as the text that it writes is long",
        ),
        **dict.fromkeys(
            (
                "ConstantOfShape", "Range", f"{MS}.Range", "MelWeightMatrix", "HannWindow", "HammingWindow",
                "BlackmanWindow",
            ),
            "values decide its shape: where they are known before inference so is its result",
        ),
        f"{MS}.SparseAttention": "what it remembers has to be one buffer before and after, which no caller here gives",
        f"{MS}.SparseToDenseMatMul": "it reads sparse tensors, which graphs do not hold",
        f"{MS}.GatherPacked": "its packed formats are numbers that its documentation does not explain",
        "Constant": "it is no step of an inference",
        "ImageDecoder": "it reads a file's bytes",
    }
)  # fmt: skip
"""Operators without a case, and why."""
