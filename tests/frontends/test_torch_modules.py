"""Every module of ``torch.nn`` reads as the operators listed here and predicts, or says why not."""

from __future__ import annotations

import copy
from importlib.util import find_spec
from typing import Any

import pytest

import nn_meter
from nn_meter.errors import ModelError, UnsupportedOperatorError
from nn_meter.frontends import torch as pytorch
from nn_meter.frontends.torch import layers
from nn_meter.ir.shapes import infer

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

if find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)

import torch  # noqa: E402
from torch.nn.utils import prune  # noqa: E402

nn = torch.nn

LINE, IMAGE, VOLUME = (1, 4, 16), (1, 4, 16, 16), (1, 4, 8, 8, 8)
ROWS, STEPS, TOKENS = (2, 16), (5, 2, 8), ((2, 6), "int64")

ACTIVATIONS = {
    "CELU()": "Elu",
    "ELU()": "Elu",
    "GELU()": "Gelu",
    "GLU(1)": "Split Sigmoid Mul",
    "Hardshrink()": "Shrink",
    "Hardsigmoid()": "HardSigmoid",
    "Hardswish()": "HardSwish",
    "Hardtanh()": "Clip",
    "LeakyReLU()": "LeakyRelu",
    "LogSigmoid()": "Sigmoid Log",
    "LogSoftmax(1)": "LogSoftmax",
    "Mish()": "Softplus Tanh Mul",
    "PReLU(4)": "PRelu",
    "RReLU()": "LeakyRelu",
    "ReLU()": "Relu",
    "ReLU6()": "Clip",
    "SELU()": "Selu",
    "SiLU()": "Sigmoid Mul",
    "Sigmoid()": "Sigmoid",
    "Softmax(1)": "Softmax",
    "Softmax2d()": "Softmax",
    "Softmin(1)": "Neg Softmax",
    "Softplus()": "Softplus",
    "Softplus(beta=2)": "Mul Softplus Div",
    "Softshrink()": "Shrink",
    "Softsign()": "Abs Add Div",
    "Tanh()": "Tanh",
    "Tanhshrink()": "Tanh Sub",
    "Threshold(0.1, 20)": "Greater Where",
    "Dropout()": "",
    "Dropout2d()": "",
    "AlphaDropout()": "",
    "FeatureAlphaDropout()": "",
    "Identity()": "",
}
NORMS = {
    "BatchNorm2d(4)": "BatchNormalization",
    "BatchNorm2d(4, track_running_stats=False)": "BatchNormalization",
    "SyncBatchNorm(4)": "BatchNormalization",
    "InstanceNorm2d(4)": "InstanceNormalization",
    "InstanceNorm2d(4, affine=True)": "InstanceNormalization",
    "GroupNorm(2, 4)": "Reshape InstanceNormalization Reshape Mul Add",
    "LayerNorm(16)": "LayerNormalization",
    "LayerNorm((4, 16, 16), elementwise_affine=False)": "LayerNormalization",
    "RMSNorm(16)": "Pow ReduceMean Add Sqrt Reciprocal Mul Mul",
    "LocalResponseNorm(2)": "Mul Reshape Pad AveragePool Squeeze Mul Add Pow Div",
}
PER_RANK = {
    "BatchNorm{n}d(4)": "BatchNormalization",
    "InstanceNorm{n}d(4)": "InstanceNormalization",
    "Conv{n}d(4, 8, 3)": "Conv",
    "Conv{n}d(4, 8, 3, padding='same')": "Conv",
    "Conv{n}d(4, 8, 3, 2, 1, 2, 2)": "Conv",
    "Conv{n}d(4, 8, 3, padding=1, padding_mode='reflect')": "Pad Conv",
    "Conv{n}d(4, 8, 3, padding=1, padding_mode='replicate')": "Pad Conv",
    "Conv{n}d(4, 8, 3, padding=1, padding_mode='circular')": "Pad Conv",
    "ConvTranspose{n}d(4, 8, 3)": "ConvTranspose",
    "ConvTranspose{n}d(4, 8, 3, 2, 1, 1)": "ConvTranspose",
    "MaxPool{n}d(3, 2, 1)": "MaxPool",
    "MaxPool{n}d(3, 2, ceil_mode=True)": "MaxPool",
    "MaxPool{n}d(2, return_indices=True)": "MaxPool",
    "AvgPool{n}d(3, 2, 1)": "AveragePool",
    "LPPool{n}d(2, 2)": "Pow AveragePool Sign Abs Relu Mul Mul Pow",
    "AdaptiveAvgPool{n}d(1)": "GlobalAveragePool",
    "AdaptiveAvgPool{n}d(4)": "AveragePool",
    "AdaptiveAvgPool{n}d(3)": "AveragePool",
    "AdaptiveMaxPool{n}d(1)": "GlobalMaxPool",
    "AdaptiveMaxPool{n}d(4)": "MaxPool",
    "ConstantPad{n}d(1, 0.5)": "Pad",
    "ZeroPad{n}d(1)": "Pad",
    "ReflectionPad{n}d(1)": "Pad",
    "ReplicationPad{n}d(1)": "Pad",
    "CircularPad{n}d(1)": "Pad",
    "Upsample(scale_factor=2)": "Resize",
    "Upsample(scale_factor=2, mode='nearest-exact')": "Resize",
}
OTHERS = (
    ("Upsample(scale_factor=2, mode='linear')", (LINE,), "Resize"),
    ("Upsample(scale_factor=2, mode='bilinear', align_corners=True)", (IMAGE,), "Resize"),
    ("Upsample(scale_factor=2, mode='bicubic')", (IMAGE,), "Resize"),
    ("Upsample(scale_factor=2, mode='trilinear')", (VOLUME,), "Resize"),
    ("UpsamplingBilinear2d(scale_factor=2)", (IMAGE,), "Resize"),
    ("FractionalMaxPool2d(2, output_ratio=0.5)", (IMAGE,), "MaxPool"),
    ("FractionalMaxPool3d(2, output_size=4)", (VOLUME,), "MaxPool"),
    ("MaxUnpool1d(2)", ((1, 4, 8), ((1, 4, 8), "int64")),
     "Unsqueeze Unsqueeze Reshape Reshape ScatterElements Reshape Squeeze"),
    ("MaxUnpool2d(2)", ((1, 4, 8, 8), ((1, 4, 8, 8), "int64")), "Reshape Reshape ScatterElements Reshape"),
    ("AvgPool2d(64, ceil_mode=True)", (IMAGE,), "AveragePool"),
    ("PixelShuffle(2)", (IMAGE,), "DepthToSpace"),
    ("PixelShuffle(2)", ((4, 8, 8),), "Reshape DepthToSpace Reshape"),
    ("PixelUnshuffle(2)", (IMAGE,), "Reshape Transpose Reshape"),
    ("ChannelShuffle(2)", (IMAGE,), "Reshape Transpose Reshape"),
    ("Unfold(3)", (IMAGE,), "Gather Gather Transpose Reshape"),
    ("Fold((16, 16), 2, stride=2)", ((1, 16, 64),), "Col2Im"),
    ("Flatten()", (IMAGE,), "Flatten"),
    ("Unflatten(1, (2, 2))", (IMAGE,), "Reshape"),
    ("Linear(16, 8)", (ROWS,), "Gemm"),
    ("Linear(16, 8)", (LINE,), "MatMul Add"),
    ("Linear(16, 8, bias=False)", (ROWS,), "MatMul"),
    ("Bilinear(8, 6, 4)", ((2, 8), (2, 6)), "MatMul Reshape Unsqueeze Mul ReduceSum Add"),
    ("CosineSimilarity(1)", (LINE, LINE), "ReduceL2 ReduceL2 Clip Clip Div Div Mul ReduceSum"),
    ("PairwiseDistance()", (ROWS, ROWS), "Sub Add ReduceL2"),
    ("PairwiseDistance(p=3)", (ROWS, ROWS), "Sub Add Abs Pow ReduceSum Pow"),
    ("Embedding(10, 8, padding_idx=0)", (TOKENS,), "Gather"),
    ("Embedding(10, 8, max_norm=1.0)", (TOKENS,), "Gather"),
    ("EmbeddingBag(10, 8)", (TOKENS,), "Reshape Reshape Gather ReduceMean"),
    ("EmbeddingBag(10, 8, mode='sum')", (((8,), "int64"), ((2,), "int64")), "Reshape Gather ReduceSum"),
    ("EmbeddingBag(10, 8, mode='max')", (TOKENS,), "Reshape Reshape Gather ReduceMax"),
    ("RNN(8, 6)", (STEPS,), "RNN Transpose Reshape"),
    ("RNN(8, 6, nonlinearity='relu')", (STEPS,), "RNN Transpose Reshape"),
    ("GRU(8, 6, bidirectional=True)", (STEPS,), "GRU Transpose Reshape"),
    ("GRU(8, 6, batch_first=True)", (STEPS,), "Transpose GRU Transpose Reshape Transpose"),
    ("LSTM(8, 6)", (STEPS,), "LSTM Transpose Reshape"),
    ("LSTM(8, 6)", ((5, 8),), "Unsqueeze LSTM Transpose Reshape Squeeze Squeeze Squeeze"),
    ("LSTM(8, 6, num_layers=2)", (STEPS,), "LSTM Transpose Reshape LSTM Transpose Reshape Concat Concat"),
    ("RNNCell(8, 6)", ((2, 8),), "Gemm Add Tanh"),
)  # fmt: skip
WHOLE = (
    ("LSTMCell(8, 6)", ((2, 8),)),
    ("GRUCell(8, 6)", ((2, 8),)),
    ("MultiheadAttention(8, 2)", (STEPS, STEPS, STEPS)),
    ("MultiheadAttention(8, 2, add_bias_kv=True, add_zero_attn=True)", (STEPS, STEPS, STEPS)),
    ("MultiheadAttention(8, 2, kdim=6, vdim=4)", (STEPS, (5, 2, 6), (5, 2, 4))),
    ("TransformerEncoderLayer(8, 2, 16, norm_first=True)", (STEPS,)),
    ("TransformerDecoderLayer(8, 2, 16)", (STEPS, STEPS)),
    ("Transformer(8, 2, 1, 1, 16)", (STEPS, STEPS)),
)
"""Modules of many operators, of which only the attention and the products are looked for."""

ROWS_READ = (
    *((text, (IMAGE,), ops) for text, ops in {**ACTIVATIONS, **NORMS}.items()),
    *(
        (text.format(n=n), (shape,), ops)
        for n, shape in ((1, LINE), (2, IMAGE), (3, VOLUME))
        for text, ops in PER_RANK.items()
    ),
    *OTHERS,
)


@pytest.fixture(scope="module")
def predictor() -> Any:
    return nn_meter.load_latency_predictor()


def module_of(text: str) -> Any:
    return eval(f"nn.{text}", {"nn": nn})


def read(text: str, shapes: tuple[Any, ...]) -> Any:
    """The graph, each of whose shapes is PyTorch's."""
    graph = pytorch.read(module_of(text), input_shapes=list(shapes))
    for node in graph.nodes:
        for tensor in infer(node, graph.input_tensors(node)):
            assert tensor.shape == graph.tensors[tensor.name].shape, node
    return graph


@pytest.mark.parametrize(("text", "shapes", "ops"), ROWS_READ)
def test_a_module_reads_and_predicts(text: str, shapes: Any, ops: str, predictor: Any) -> None:
    graph = read(text, shapes)
    assert " ".join(node.op_type for node in graph.nodes) == ops
    assert predictor.explain(graph).latency_ms >= 0


@pytest.mark.parametrize(("text", "shapes"), WHOLE)
def test_a_module_of_many_operators_reads_and_predicts(text: str, shapes: Any, predictor: Any) -> None:
    graph = read(text, shapes)
    ops = {node.op_type for node in graph.nodes}
    assert ops & {"Gemm", "MatMul"}
    assert ("Softmax" in ops) == ("Cell" not in text)
    assert predictor.explain(graph).latency_ms > 0


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("AdaptiveAvgPool2d(3)", "windows of several sizes; it was read with one size"),
        ("BatchNorm2d(4, track_running_stats=False)", "without running statistics was read as one with them"),
        (
            "FractionalMaxPool2d(2, output_size=8)",
            "windows at random places; it was read with windows in a row",
        ),
    ],
)
def test_what_is_approximated_is_said(text: str, note: str) -> None:
    (said,) = read(text, (IMAGE,)).notes
    assert note in said


def test_a_prediction_says_what_was_approximated(predictor: Any) -> None:
    (said,) = read("EmbeddingBag(10, 8)", (TOKENS,)).notes
    assert said == "12 indices were taken to be spread evenly over 2 bags"
    assert said in predictor.explain(read("EmbeddingBag(10, 8)", (TOKENS,))).notes


# What is refused


class Unpooling(nn.Module):
    def forward(self, x: Any) -> Any:
        values, places = nn.functional.adaptive_max_pool2d(x, 8, return_indices=True)
        return nn.functional.max_unpool2d(values, places, 2)


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(8, 6)

    def forward(self, x: Any) -> Any:
        return self.cell(nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 3])))[1][0]


@pytest.mark.parametrize(
    ("module", "shapes", "text"),
    [
        ("LSTM(8, 6, proj_size=3)", (STEPS,), "LSTM: in forward: LSTM with proj_size has no counterpart in ONNX"),
        ("CrossMapLRN2d(2)", (IMAGE,), r"no row for the PyTorch operator aten\.resize_as_; add one to OPERATORS"),
        ("EmbeddingBag(10, 8)", (((8,), "int64"), ((3,), "int64")), "8 indices in 3 bags has bags of several sizes"),
        ("PairwiseDistance(p=0)", (ROWS, ROWS), "norm of order 0.* has no counterpart"),
        (Unpooling, (IMAGE,), r"test_torch_modules\.py:\d+: aten\.max_unpool2d reads result 1 of aten\.adaptive_max"),
        (Packed, (STEPS,), r"no row for the PyTorch operator aten\._pack_padded_sequence"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_says_so(module: Any, shapes: Any, text: str) -> None:
    made = module_of(module) if isinstance(module, str) else module()
    with pytest.raises(UnsupportedOperatorError, match=text):
        pytorch.read(made, input_shapes=list(shapes))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("LazyConv2d(8, 3)", "LazyConv2d: 'weight' of a lazy module has no shape yet; call the module once"),
        ("ModuleList([nn.ReLU()])", "ModuleList has no forward; pass a torch.nn.Module that can be called"),
    ],
)
def test_what_cannot_run_says_so(text: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        pytorch.read(module_of(text), input_shapes=IMAGE)


# Layers that tell what they are


class Around(nn.Module):
    """``use`` of layers and an image, as a forward."""

    def __init__(self, use: Any, **layers: Any) -> None:
        super().__init__()
        self.use = use
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Any) -> Any:
        return self.use(self, x)


class Doubled(nn.Conv2d):
    def forward(self, x: Any) -> Any:
        return super().forward(x) * 2


def replaced() -> Any:
    layer = nn.ReLU()
    layer.forward = lambda x: torch.sigmoid(x)  # type: ignore[method-assign]
    return layer


def hooked() -> Any:
    layer = nn.ReLU()
    layer.register_forward_hook(lambda module, args, result: result + 1)
    return layer


def in_bfloat16(self: Any, x: Any) -> Any:
    with torch.autocast("cpu", torch.bfloat16):
        return self.conv(x)


def copied(self: Any, x: Any) -> Any:
    layer = copy.deepcopy(self.conv)
    layer.stride = (2, 2)
    return layer(x)


TOLD = {
    **{f"conv{n}d {args}": (lambda n=n, args=args: eval(f"nn.Conv{n}d(4, 8, {args})", {"nn": nn}), (1, 4, *(16,) * n))
       for n in (1, 2, 3)
       for args in ("3", "3, 2, 1", "3, 1, 2, 2, 2", "1, bias=False", "3, padding='same'",
                    "3, padding=1, padding_mode='reflect'")},
    "conv without a batch": (lambda: nn.Conv2d(4, 8, 3), (4, 16, 16)),
    "line normalised": (lambda: nn.BatchNorm1d(4), LINE),
    **{f"image normalised {args}": (lambda args=args: eval(f"nn.BatchNorm2d(4, {args})", {"nn": nn}), IMAGE)
       for args in ("1e-3", "affine=False", "momentum=None", "track_running_stats=False")},
    "volume normalised": (lambda: nn.BatchNorm3d(4), VOLUME),
    **{f"{layer.__name__} {in_place}": (lambda layer=layer, in_place=in_place: nn.Sequential(
        nn.Conv2d(4, 4, 1), layer(inplace=in_place)), IMAGE)
       for layer in (nn.ReLU, nn.SiLU, nn.Hardswish) for in_place in (False, True)},
    "a linear layer of rows": (lambda: nn.Linear(16, 8), ROWS),
    "a linear layer of images": (lambda: nn.Linear(16, 8, bias=False), IMAGE),
    "a view in place": (lambda: Around(lambda m, x: (m.relu(x[:, :2]), x)[1] + 1, relu=nn.ReLU(inplace=True)), IMAGE),
    "weights pruned": (lambda: prune.random_unstructured(nn.Conv2d(4, 8, 3), "weight", 0.5), IMAGE),
    "weights parametrised": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(16, 8)), ROWS),
    "a class of one's own": (lambda: Doubled(4, 8, 3), IMAGE),
    "a forward of one's own": (replaced, IMAGE),
    "a hook": (hooked, IMAGE),
    "vmap": (lambda: Around(lambda m, x: torch.vmap(m.linear)(x), linear=nn.Linear(16, 8)), LINE),
    "autocast": (lambda: Around(in_bfloat16, conv=nn.Conv2d(4, 8, 3)), IMAGE),
    "a copy": (lambda: Around(copied, conv=nn.Conv2d(4, 8, 3)), IMAGE),
    "a constant": (lambda: Around(lambda m, x: x + m.relu(torch.ones(16)), relu=nn.ReLU()), IMAGE),
    "by keyword": (lambda: Around(lambda m, x: m.conv(input=x), conv=nn.Conv2d(4, 8, 3)), IMAGE),
    "weights shared": (lambda: Around(lambda m, x: nn.functional.linear(m.one(x), m.one.weight), one=nn.Linear(16, 16)),
                       ROWS),
}  # fmt: skip


def read_or_refused(module: Any, shape: Any) -> Any:
    try:
        return pytorch.read(module, input_shapes=shape)
    except ModelError as error:
        return str(error)


@pytest.mark.parametrize(("make", "shape"), TOLD.values(), ids=TOLD)
def test_layers_tell_what_running_them_would(make: Any, shape: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = make().train()
    before = [dict(vars(part)) for part in module.modules()]
    found = read_or_refused(module, shape)
    assert [dict(vars(part)) for part in module.modules()] == before
    monkeypatch.setattr(layers, "tell", lambda recorder, parts: None)
    assert found == read_or_refused(module, shape)


def test_common_layers_are_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    told = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(True), nn.Flatten(), nn.Linear(8 * 14 * 14, 2))
    for function in ("conv2d", "batch_norm", "relu", "linear"):
        monkeypatch.delattr(nn.functional, function)
    ops = [node.op_type for node in pytorch.read(told, input_shapes=IMAGE).nodes]
    assert ops == ["Conv", "BatchNormalization", "Relu", "Flatten", "Gemm"]
