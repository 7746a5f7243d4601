"""Small models of what reports were about, held against ONNX Runtime: the shapes it computes, the operators that it
executes. A row is an opset, inputs, constants and nodes; inputs called ``w...`` are weights."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from nn_meter.frontends.onnx import read
from nn_meter.kernels.rules import read_rules
from nn_meter.runtimes.fusion import fuse

ort = pytest.importorskip("onnxruntime")

RULES = read_rules({"runtime": "onnxruntime_cpu"})
IMAGE = "float[1,16,20,20] x"
BN = "float[8] ws, float[8] wb, float[8] wm, float[8] wv"
QUANT = "float qs = {0.02}, uint8 qz = {128}"
ONES = "float h = {0.5}, float one = {1.0}"
_TANH_GELU = """p = Mul(a, a) q = Mul(p, a) r = Mul(q, c1) u = Add(a, r) v = Mul(u, c2) t = Tanh(v)
 g = Add(t, one) k = Mul(a, g) y = Mul(k, h)"""
_NORM = "d = Sub(x, m) q = {square} v = ReduceMean<axes=[{axis}]>(q) z = Add(v, e) s = Sqrt(z) n = Div(d, s)"
_LAYER_NORM = """m = ReduceMean<axes=[-1]>(a) d = Sub(a, m) q = Pow(d, two) v = ReduceMean<axes=[-1]>(q) z = Add(v, e)
 s = Sqrt(z) n = Div(d, s) o = Mul(n, wg) b = Add(o, wb)"""
_CORNERS = "int64[1] i = {0}, int64[1] j = {1}, int64[1] r = {2}, int64[1] c = {3}, int64[1] t = {2}, int64[1] e = {99}"
_FOCUS = """u = Slice(x, i, e, r, t) v = Slice(x, j, e, r, t) p0 = Slice(u, i, e, c, t) p1 = Slice(v, i, e, c, t)
 p2 = Slice(u, j, e, c, t) p3 = Slice(v, j, e, c, t)"""
_QDQ = (
    "a = QuantizeLinear(x, qs, qz) b = DequantizeLinear(a, qs, qz) {} e = QuantizeLinear(c, qs, qz) "
    "y = DequantizeLinear(e, qs, qz)"
)

MODELS: dict[str, tuple[int, str, str, str]] = {
    # what older opsets mean
    "Softmax before opset 13": (11, "float[2,8,20,30] x", "", "y = Softmax<axis=3>(x)"),
    "axes as attributes": (11, IMAGE, "", "y = ReduceSum<axes=[1,3], keepdims=0>(x)"),
    "Upsample": (9, IMAGE, "float[4] s = {1,1,2,2}", 'y = Upsample<mode="nearest">(x, s)'),
    "Resize of opset 10": (10, IMAGE, "float[4] s = {1,1,2,2}", 'y = Resize<mode="nearest">(x, s)'),
    "averages before opset 19": (17, IMAGE, "", "y = AveragePool<kernel_shape=[3,3]>(x)"),
    "scales of groups": (18, "float[1,32,8,8] x, float[8] ws, float[8] wb", "",
                         "y = GroupNormalization<num_groups=8>(x, ws, wb)"),
    "scales of channels": (21, "float[1,32,8,8] x, float[32] ws, float[32] wb", "",
                           "y = GroupNormalization<num_groups=8>(x, ws, wb)"),
    "Clip with numbers": (9, IMAGE, "", "a = Slice<starts=[1], ends=[9], axes=[1]>(x) y = Clip<min=0.0, max=6.0>(a)"),
    # axes
    "Softmax over the first": (17, "float[16,4,30] x", "", "y = LogSoftmax<axis=0>(x)"),
    "LayerNormalization over two": (17, "float[4,50,64] x, float[50,64] ws, float[50,64] wb", "",
                                    "y = LayerNormalization<axis=-2>(x, ws, wb)"),
    "means of two": (18, "float[16,8,20] x", "int64[2] a = {0,2}", "y = ReduceMean<keepdims=0>(x, a)"),
    # quantised
    "QDQ pool": (13, IMAGE, QUANT, _QDQ.format("c = MaxPool<kernel_shape=[2,2], strides=[2,2]>(b)")),
    "QDQ softmax": (13, "float[8,64] x", QUANT, _QDQ.format("c = Softmax<axis=-1>(b)")),
    "QDQ product of itself": (13, IMAGE, QUANT, _QDQ.format("c = Mul(b, b)")),
    # attention
    "grouped heads behind a past": (23, "float[1,4,512] q, float[1,4,128] k, float[1,4,128] v, float[1,2,60,64] pk, "
                                    "float[1,2,60,64] pv", "",
                                    "y, ok, ov = Attention<q_num_heads=8, kv_num_heads=2>(q, k, v, , pk, pv)"),
    "contributed, behind a past": (17, "float[1,4,512] q, float[1,4,512] k, float[1,4,512] v, float[1,8,60,64] pk, "
                                   "float[1,8,60,64] pv", "",
                                   "y, ok, ov = com.microsoft.MultiHeadAttention<num_heads=8>(q, k, v, , , , pk, pv)"),
    "contributed, grouped": (17, "float[1,1,512] q, float[1,1,128] k, float[1,1,128] v, float[1,2,100,64] pk, "
                             "float[1,2,100,64] pv", "int32[1] n = {100}, int32 t = {101}",
                             "y, ok, ov = com.microsoft.GroupQueryAttention<num_heads=8, kv_num_heads=2>"
                             "(q, k, v, pk, pv, n, t)"),
    # signals
    "STFT": (17, "float[1,4000,1] x, float[200] w", "int64 s = {100}", "y = STFT<onesided=0>(x, s, w)"),
    "DFT over the axis before the last": (20, "float[4,128,2] x", "int64 a = {1}", "y = DFT<inverse=1>(x, , a)"),
    "DFT of opset 17": (17, "float[2,16,64,1] x", "", "y = DFT<axis=2, onesided=1>(x)"),
    # Einsum
    "sums of products": (17, "float[25,12] x, float[25,12] z", "", 'y = Einsum<equation="ij,ij->i">(x, z)'),
    "a transpose": (17, IMAGE, "", 'y = Einsum<equation="bchw->bhwc">(x)'),
    "leading axes, implicit": (17, "float[4,8,6] x, float[4,6,5] z", "", 'y = Einsum<equation="...ij,...jk">(x, z)'),
    # resizing
    "no larger than": (18, "float[1,3,40,60] x", "int64[2] z = {25,25}",
                       'y = Resize<axes=[2,3], keep_aspect_ratio_policy="not_larger", mode="linear">(x, , , z)'),
    "by scales that leave a rest": (18, "float[1,3,24,24] x", "float[4] s = {1,1,0.7,3.1}",
                                    'y = Resize<mode="cubic", antialias=1>(x, , s)'),
    "a part of an image": (18, "float[1,1,40,60] x", "float[8] r = {0,0,0.2,0.2,1,1,0.8,0.8}, int64[4] z = {1,1,20,20}",
                           'y = Resize<coordinate_transformation_mode="tf_crop_and_resize">(x, r, , z)'),
    # functions
    "Mish": (18, IMAGE, "", "y = Mish(x)"),
    "CenterCropPad": (18, "float[10,20] x", "int64[2] s = {15,15}", "y = CenterCropPad(x, s)"),
    "Gelu by tanh behind blocks": (20, f"{IMAGE}, float[32,16,1,1] w", "",
                                   'a = Conv(x, w) y = Gelu<approximate="tanh">(a)'),
    "HardSwish behind lines": (17, "float[1,16,200] x, float[16,16,3] w", "", "a = Conv(x, w) y = HardSwish(a)"),
    "GELU by tanh behind blocks, written out": (17, f"{IMAGE}, float[32,16,1,1] w",
                                                f"{ONES}, float c1 = {{0.044715}}, float c2 = {{0.7978846}}",
                                                f"a = Conv(x, w) {_TANH_GELU}"),
    "GELU by erf behind blocks": (17, f"{IMAGE}, float[16,1,3,3] w", f"{ONES}, float r = {{1.4142135}}",
                                  "a = Conv<group=16>(x, w) e = Div(a, r) f = Erf(e) g = Add(f, one) k = Mul(a, g) "
                                  "y = Mul(k, h)"),
    # normalisation, written out
    "over channels": (17, "float[1,64,10] x, float[64,1] wg", "float e = {0.00001}",
                      f"m = ReduceMean<axes=[1]>(x) {_NORM.format(square='Mul(d, d)', axis=1)} y = Mul(n, wg)"),
    "over the last axis": (17, "float[1,10,64] x, float[64] wg, float[64] wb", "float e = {0.00001}, float two = {2.0}",
                           f"m = ReduceMean<axes=[-1]>(x) {_NORM.format(square='Pow(d, two)', axis=-1)} o = Mul(n, wg) "
                           "y = Add(o, wb)"),
    # what becomes one, and what does not
    "norm into a transposed convolution": (17, f"{IMAGE}, float[16,8,2,2] w, {BN}", "",
                                           "a = ConvTranspose<strides=[2,2]>(x, w) "
                                           "y = BatchNormalization(a, ws, wb, wm, wv)"),
    "norm into its groups": (17, f"{IMAGE}, float[16,4,2,2] w, {BN}", "",
                             "a = ConvTranspose<group=2>(x, w) y = BatchNormalization(a, ws, wb, wm, wv)"),
    "norm beside another reader": (17, f"{IMAGE}, float[16,8,1,1] w, {BN}", "",
                                   "a = ConvTranspose(x, w) b = BatchNormalization(a, ws, wb, wm, wv) y = Add(a, b)"),
    "factors of a transposed convolution": (17, f"{IMAGE}, float[16,8,1,1] w, float[1,8,1,1] wk", "",
                                            "a = ConvTranspose(x, w) y = Mul(a, wk)"),
    "Not for Where": (17, "float[8,64] x, float[8,64] z", "",
                      "a = Greater(x, z) b = Not(a) c = Where(b, x, z) d = Where(b, z, x) y = Add(c, d)"),
    "Not for others, too": (17, "float[8,64] x, float[8,64] z", "",
                            "a = Greater(x, z) b = Not(a) c = Where(b, x, z) d = Cast<to=1>(b) y = Add(c, d)"),
    "Pad into an average": (17, IMAGE, "int64[8] p = {0,0,1,1,0,0,1,1}",
                            "a = Pad(x, p) y = AveragePool<kernel_shape=[3,3], count_include_pad=1>(a)"),
    "clips in a row": (17, "float[1,400] x", "float l = {0.0}, float h = {6.0}, float k = {3.0}",
                       "a = Clip(x, l, h) y = Clip(a, l, k)"),
    "transposes around a sum": (17, f"{IMAGE}, float[16] wc", "", "a = Transpose<perm=[0,2,3,1]>(x) b = Add(a, wc) "
                                "y = Transpose<perm=[0,3,1,2]>(b)"),
    **{
        f"a norm between transposes in opset {opset}": (
            opset, f"{IMAGE}, float[16] wg, float[16] wb", "float e = {0.00001}, float two = {2.0}",
            f"a = Transpose<perm=[0,2,3,1]>(x) {_LAYER_NORM} y = Transpose<perm=[0,3,1,2]>(b)")
        for opset in (11, 16, 17)
    },
    **{
        f"halves of opset {opset}": (
            opset, IMAGE, "int64[1] i = {0}, int64[1] h = {8}, int64[1] e = {16}, int64[1] c = {1}",
            "a = Slice(x, i, h, c) b = Slice(x, h, e, c) y = Mul(a, b)")
        for opset in (11, 12, 13)
    },
    # what changes nothing, and gives an output
    **{
        f"{op.split('(')[0]} of nothing gives an output": (
            17, "float[2,3] x",
            "float o = {1.0}, int64[2] s = {2,3}, int64[1] b = {0}, int64[1] e = {9223372036854775807}",
            f"a = Abs(x) y = {op}")
        for op in ("Cast<to=1>(a)", "Identity(a)", "Dropout(a)", "Mul(a, o)", "Expand(a, s)", "Slice(a, b, e)")
    },
    "two casts of nothing": (17, "float[2,3] x", "", "a = Abs(x) b = Cast<to=1>(a) y = Cast<to=1>(b)"),
    # an image's corners beside each other
    "corners as YOLO takes them": (17, IMAGE, _CORNERS, f"{_FOCUS} y = Concat<axis=1>(p0, p1, p2, p3)"),
    "corners in the order of blocks": (11, IMAGE, _CORNERS, f"{_FOCUS} y = Concat<axis=1>(p0, p2, p1, p3)"),
    "a corner that others read, too": (17, IMAGE, _CORNERS, f"{_FOCUS} y = Concat<axis=1>(p0, p1, p2, p3) z = Exp(p2)"),
    "a row of corners that is read": (17, IMAGE, _CORNERS, f"{_FOCUS} y = Concat<axis=1>(p0, p1, p2, p3) z = Exp(u)"),
    "a corner twice": (17, IMAGE, _CORNERS, f"{_FOCUS} y = Concat<axis=1>(p0, p1, p2, p2) z = Exp(p3)"),
    "corners along rows": (17, IMAGE, _CORNERS, f"{_FOCUS} y = Concat<axis=2>(p0, p1, p2, p3)"),
    "both steps at once": (
        17, IMAGE, "int64[2] i = {0,0}, int64[2] j = {1,0}, int64[2] k = {0,1}, int64[2] l = {1,1}, "
        "int64[2] e = {99,99}, int64[2] r = {2,3}, int64[2] t = {2,2}",
        "p0 = Slice(x, i, e, r, t) p1 = Slice(x, j, e, r, t) p2 = Slice(x, k, e, r, t) p3 = Slice(x, l, e, r, t) "
        "y = Concat<axis=1>(p0, p1, p2, p3)"),
    "sums of lines": (17, "float[1,15,40] x, float[15,3,3] w, float[15] wb", "",
                      "p = Exp(x) a = Conv<group=5, pads=[1,1]>(p, w, wb) b = Add(a, p) y = Relu(b)"),
    "sums of images": (17, "float[1,15,9,9] x, float[15,3,3,3] w, float[15] wb", "",
                       "p = Exp(x) a = Conv<group=5, pads=[1,1,1,1]>(p, w, wb) b = Add(a, p) y = Relu(b)"),
    "sums of volumes": (17, "float[1,15,4,9,9] x, float[15,3,1,1,1] w, float[15] wb", "",
                        "p = Exp(x) a = Conv<group=5>(p, w, wb) b = Add(a, p) y = Relu(b)"),
    # known before inference, and computed all the same
    **{
        f"{op} of constants in opset {opset}": (
            opset, "float[6] x", "int64[6] a = {0,1,2,3,4,5}, int64[1] b = {3}",
            f"p = {op}(a, b) q = Cast<to=1>(p) y = Add(x, q)")
        for op, opset in (("GreaterOrEqual", 12), ("LessOrEqual", 15), ("GreaterOrEqual", 16), ("Greater", 13))
    },
    "places of constants": (17, "float[6] x", "int64[6] a = {0,1,0,3,4,5}", "p = NonZero(a) y = Gather(x, p)"),
    "one product twice": (17, "float[16,64] x, float[64,64] w", "", "a = MatMul(x, w) b = MatMul(x, w) y = Add(a, b)"),
    "a scaled product": (17, "float[4,5,6] x, float[4,5,6] z", "float c = {0.125}",
                         "t = Transpose<perm=[0,2,1]>(z) a = MatMul(x, t) y = Mul(a, c)"),
    # nothing in them
    "joined with nothing": (17, "float[1,4,8] x, float[1,0,8] z", "", "y = Concat<axis=1>(x, z)"),
    "a sum of nothing": (17, "float[3,0,4] x", "int64[1] a = {1}", "y = ReduceSum<keepdims=0>(x, a)"),
    # sequences
    "split and joined": (17, "float[1,6,40] x", "int64 k = {2}, int64 i = {1}",
                         "s = SplitToSequence<axis=1>(x, k) a = SequenceAt(s, i) b = ConcatFromSequence<axis=1>(s) "
                         "y = Concat<axis=1>(a, b)"),
    "put in": (17, "float[4,10] x, float[4,10] z", "", "s = SequenceConstruct(x, z) t = SequenceInsert(s, x) "
               "y = ConcatFromSequence<axis=0, new_axis=1>(t)"),
    # movement
    "pieces that differ": (18, "float[7,10] x", "", "y, z, u = Split<num_outputs=3>(x)"),
    "backwards": (17, "float[4,17] x", "int64[1] s = {-1}, int64[1] e = {-100}, int64[1] a = {1}, int64[1] t = {-2}",
                  "y = Slice(x, s, e, a, t)"),
    "Col2Im": (18, "float[1,9,16] x", "int64[2] i = {6,6}, int64[2] b = {3,3}", "y = Col2Im(x, i, b)"),
    "padded and cut": (18, "float[1,1,10,10] x", "int64[8] p = {0,0,2,-1,0,0,2,3}", "y = Pad(x, p)"),
    "as often as one of some": (17, "float[3,2] x",
                                "int64[1] i = {-1}, int64 d = {2}, int64[2] v = {1,3}, int64[1] s = {-1}",
                                "p = OneHot(i, d, v) q = Reshape(p, s) y = Tile(x, q)"),
    "wrapped": (19, "float[1,1,10,10] x", "int64[2] p = {2,2}, int64[1] a = {3}", 'y = Pad<mode="wrap">(x, p, , a)'),
    "largest": (17, "float[4,170] x", "int64[1] k = {5}", "y, z = TopK<axis=1>(x, k)"),
    "a size asked for": (17, "float[1,4,5,5] x, float[4,2,3,3] w", "",
                         "y = ConvTranspose<strides=[2,2], output_shape=[10,10]>(x, w)"),
    # resizing of blocks, by the ways that there is code for
    **{
        f"resized behind blocks, {way}": (
            13, f"{IMAGE}, float[32,16,1,1] w", "float[4] s = {1,1,2,2}", f"a = Conv(x, w) y = Resize<{way}>(a, , s)",
        )
        for way in ('mode="nearest"', 'mode="nearest", nearest_mode="floor"',
                    'mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric"',
                    'mode="nearest", coordinate_transformation_mode="asymmetric"', 'mode="linear"',
                    'mode="linear", coordinate_transformation_mode="pytorch_half_pixel"',
                    'mode="linear", coordinate_transformation_mode="align_corners"')
    },
    "an average of what is rounded up and padded": (
        18, IMAGE, "", "y = AveragePool<kernel_shape=[3,3], ceil_mode=1, count_include_pad=1>(x)"),
    "a maximum of what is computed": (17, IMAGE, "", "a = Relu(x) y = GlobalMaxPool(a)"),
    # several axes in one row
    **{
        f"{name} of opset 11 over all from axis {axis}": (11, "float[2,8,6,30] x", "", f"y = {name}<axis={axis}>(x)")
        for name in ("Softmax", "LogSoftmax", "Hardmax") for axis in (1, 2)
    },
    "over rows that a transpose leaves alone": (
        11, IMAGE, "", "a = Transpose<perm=[0,2,3,1]>(x) b = Softmax<axis=1>(a) y = Transpose<perm=[0,3,1,2]>(b)"),
    "over rows that a transpose takes apart": (
        11, IMAGE, "", "a = Transpose<perm=[0,2,3,1]>(x) b = Softmax<axis=3>(a) y = Transpose<perm=[0,3,1,2]>(b)"),
    "QDQ softmax of opset 11": (11, IMAGE, QUANT, _QDQ.format("c = Softmax<axis=1>(b)")),
    # asked for nothing but its shape
    "a shape's maker": (17, f"{IMAGE}, float[1] v, float[32,16,1,1] w", "",
                        "a = Conv(x, w) b = Relu(a) s = Shape(b) y = Expand(v, s)"),
    "what nothing reads": (17, IMAGE, "", "a = Exp(x) y = Relu(x)"),
    "a product whose batch lies between": (17, "float[6,4,8] x, float[4,8,3] z", "",
                                           "y = com.microsoft.FusedMatMul<transBatchA=1>(x, z)"),
    # integers
    **{
        f"QDQ {name} of {kind}": (21, IMAGE, f"float qs = {{0.02}}, {kind} qz = {{100}}, int64[1] i = {{0}}, "
                                  "int64[4] r = {1,1,2,1}, float[4] s = {1,1,2,2}", _QDQ.format(f"c = {node}"))
        for kind in ("uint8", "int8", "uint16")
        for name, node in {
            "maximum": "MaxPool<kernel_shape=[2,2]>(b)", "resize": "Resize(b, , s)", "largest": "ReduceMax(b, i)",
            "blocks": "DepthToSpace<blocksize=2>(b)", "tiles": "Tile(b, r)", "sigmoid": "Sigmoid(b)",
            "average": "AveragePool<kernel_shape=[2,2]>(b)", "softmax": "Softmax(b)", "sum": "Add(b, b)",
            "places": "Gather(b, i)", "pieces": "SpaceToDepth<blocksize=2>(b)",
        }.items()
    },
    "the place of the largest integer": (
        17, IMAGE, QUANT, "a = QuantizeLinear(x, qs, qz) b = DequantizeLinear(a, qs, qz) y = ArgMax<axis=1>(b)"),
    "volumes by a grid": (20, "float[1,2,8,8,8] x, float[1,4,4,4,3] g", "", 'y = GridSample<mode="linear">(x, g)'),
}  # fmt: skip


def _model(opset: int, inputs: str, constants: str, nodes: str) -> onnx.ModelProto:
    """The model of a row; its outputs are what no node reads."""
    head = f'<ir_version: 10, opset_import: ["": {opset}, "com.microsoft": 1]> g ({inputs}) => (float y)'
    model = parser.parse_model(f"{head} {f'<{constants}>' if constants else ''} {{ {nodes} }}")
    graph, dice = model.graph, np.random.default_rng(0)
    for each in [each for each in graph.input if each.name.startswith("w")]:
        shape = [dim.dim_value for dim in each.type.tensor_type.shape.dim]
        graph.initializer.append(numpy_helper.from_array(dice.random(shape, np.float32), each.name))
        graph.input.remove(each)
    read_by_some = {name for node in graph.node for name in node.input}
    made = [name for node in graph.node for name in node.output if name not in read_by_some]
    del graph.output[:]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_a_small_model_is_what_onnxruntime_makes_of_it(name: str, tmp_path: Path) -> None:
    opset, *row = MODELS[name]
    model = _model(opset, *row)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.optimized_model_filepath = str(tmp_path / "executed.onnx")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    dice = np.random.default_rng(0)
    computed = session.run(None, {each.name: dice.random(each.shape, np.float32) for each in session.get_inputs()})
    graph = read(model)
    assert [graph.tensors[each].shape for each in graph.outputs] == [each.shape for each in computed]
    kernels = fuse(graph, RULES).kernels
    ours = Counter(kernel.label.split("-")[0].split(" ")[0] for kernel in kernels if not kernel.free)
    executed = onnx.load(tmp_path / "executed.onnx").graph.node
    fused = {"FusedConv": "Conv", "FusedGemm": "Gemm", "Upsample": "Resize" if opset > 9 else "Upsample"}
    assert ours == Counter(fused.get(node.op_type, node.op_type) for node in executed)
