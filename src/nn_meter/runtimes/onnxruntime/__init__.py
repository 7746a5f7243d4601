"""ONNX Runtime on the CPU: what its optimiser makes of a graph, pass by pass.

Each pass does one of the runtime's graph transformations to the shapes: which nodes become one, which vanish, where
layouts change. The facts are ONNX Runtime's (its ``core/optimizer`` folder and what its optimised models show, 1.2x to
1.32, all optimisations on, float32); they hold for one block size of the blocked layout, which depends on the
processor: 16 channels with AVX-512, 8 with AVX2.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from nn_meter.kernels.kinds.elementwise import CONDITIONS, QUOTIENTS
from nn_meter.kernels.spellings import SCALED_SWISH, SWISH
from nn_meter.kernels.work import BY_DATA
from nn_meter.runtimes.base import Pass, Runtime, rewriting
from nn_meter.runtimes.equals import merge_equals
from nn_meter.runtimes.onnxruntime import (
    blocked,
    casts,
    channels_last,
    convolutions,
    free,
    functions,
    halves,
    masks,
    products,
    propagation,
    pushes,
    quantised,
    transposes,
    views,
)
from nn_meter.runtimes.onnxruntime.executed import read
from nn_meter.runtimes.onnxruntime.spellings import (
    BIAS_GELU,
    BIAS_TANH_GELU,
    GELU,
    QUOTIENT,
    TANH_GELU,
    fuse_norms,
    fuse_skip_layer_norm,
)

PASSES: tuple[Pass, ...] = (
    Pass("one_softmax", views.one_softmax, "none: before opset 13 it is one operator"),
    Pass("compute_shapes", free.compute_shapes, "none: it knows no more"),
    Pass("keep_unfolded", views.keep_unfolded, "ConstantFolding"),
    Pass("drop_unread", views.drop_unread, "ConstantFolding, Graph::RemoveUnused..."),
    Pass("eliminate_no_ops", views.eliminate_no_ops, "EliminateIdentity, EliminateDropout, NoopElimination, ..."),
    Pass("merge_equals", merge_equals, "ConstantSharing, CommonSubexpressionElimination"),
    Pass("fuse_reshapes", free.fuse_reshapes, "ReshapeFusion, ConstantFolding"),
    Pass("fold_pad", convolutions.fold_pad("Conv", "AveragePool", "MaxPool"), "Pad_Fusion", until="1.32"),
    Pass("fold_pad", convolutions.fold_pad("Conv", "AveragePool"), "Pad_Fusion", since="1.32"),
    Pass("fold_into_conv", convolutions.fold_into_conv, "ConvBNFusion, ConvMulFusion, ConvAddFusion"),
    Pass("drop_relu", convolutions.drop_relu, "ReluClipFusion"),
    Pass("drop_not", views.drop_not, "NotWhereFusion"),
    Pass("fuse_reciprocal", rewriting(QUOTIENT), "DivMulFusion"),
    Pass("fuse_gelu", rewriting(GELU), "GeluFusion"),
    Pass("fuse_tanh_gelu", halves.unless_half(rewriting(TANH_GELU)), "FastGeluFusion"),
    Pass("fuse_norms", fuse_norms(older=False), "LayerNormFusion, SimplifiedLayerNormFusion"),
    Pass("fuse_matmul_add_of_quantised", propagation.fuse_matmul_add_of_quantised, "MatMulAddFusion"),
    Pass("propagate_quantised", propagation.propagate_quantised, "QDQPropagationTransformer"),
    Pass("quantise_weights", propagation.quantise_weights, "WeightBiasQuantization"),
    Pass("merge_pairs", quantised.merge_pairs, "DoubleQDQPairsRemover"),
    Pass("drop_clipping", quantised.drop_clipping, "ReluQuantFusion, ClipQuantFusion"),
    Pass("drop_repeated", quantised.drop_repeated, "QDQSelectorActionTransformer"),
    Pass("to_uint8", quantised.to_uint8, "QDQS8ToU8Transformer"),
    Pass("fuse_quantised", quantised.fuse_quantised, "QDQSelectorActionTransformer, EnsureUniqueDQForNodeUnit"),
    Pass("merge_transposes_of_the_model", transposes.merge_transposes, "TransposeOptimizer"),
    Pass("push_transpose", pushes.push_transpose, "TransposeOptimizer"),
    Pass("slices_to_blocks", views.slices_to_blocks, "SpaceToDepthFusion"),
    Pass("gather_to_split", views.gather_to_split, "GatherSliceToSplitFusion"),
    Pass("push_transpose_through_split", transposes.push_transpose_through_split, "TransposeOptimizer"),
    Pass("push_transpose_again", pushes.push_transpose, "TransposeOptimizer"),
    Pass("merge_neighbouring_transposes", transposes.merge_transposes, "TransposeOptimizer"),
    Pass("push_transpose_through_view", transposes.push_transpose_through_view, "TransposeOptimizer"),
    Pass("merge_views", views.merge_views, "ReshapeFusion"),
    Pass("merge_transposes", transposes.merge_transposes, "TransposeOptimizer"),
    Pass("fold_into_conv_again", convolutions.fold_into_conv, "ConvBNFusion, ConvMulFusion, ConvAddFusion"),
    Pass(
        "fuse_integer_products",
        quantised.fuse_integer_products,
        "MatMulIntegerToFloatFusion, DynamicQuantizeMatMulFusion",
    ),
    Pass("fuse_matmul_add", products.fuse_matmul_add, "MatMulAddFusion"),
    Pass("merge_views_again", views.merge_views, "ReshapeFusion"),
    Pass("widen_halves", halves.widen, "InsertCastTransformer"),
    Pass("merge_casts", casts.merge_casts, "RemoveDuplicateCastTransformer"),
    Pass("fuse_matmul_add_of_attention", products.fuse_matmul_add_of_attention, "MatMulAddFusion"),
    Pass("fuse_matmul_transpose", products.fuse_matmul_transpose, "MatmulTransposeFusion"),
    Pass("fuse_matmul_scale", products.fuse_matmul_scale, "MatMulScaleFusion"),
    Pass("fuse_matmul_transpose_again", products.fuse_matmul_transpose, "MatmulTransposeFusion"),
    Pass("fuse_norms_of_older", fuse_norms(older=True), "LayerNormFusion, SimplifiedLayerNormFusion"),
    Pass("fuse_swish", rewriting(SWISH, SCALED_SWISH), "QuickGeluFusion"),
    Pass("fuse_bias_gelu", rewriting(BIAS_GELU), "BiasGeluFusion"),
    Pass("fuse_packed_bias", quantised.fuse_packed_bias, "MatMulNBitsFusion"),
    Pass("fuse_bias_tanh_gelu", rewriting(BIAS_TANH_GELU), "FastGeluFusion"),
    Pass("fuse_skip_layer_norm", fuse_skip_layer_norm, "SkipLayerNormFusion"),
    Pass("fuse_activation", convolutions.fuse_activation, "ConvActivationFusion, GemmActivationFusion"),
    Pass("read_fused", convolutions.read_fused, "none: it is written so"),
    Pass("to_channels_last", channels_last.to_channels_last, "NhwcTransformer"),
    Pass("block_channels", blocked.block_channels, "NchwcTransformer"),
    Pass("expand_functions", functions.expand_functions, "Graph::InlineFunction"),
    Pass("fuse_conv_add", convolutions.fuse_conv_add, "ConvAddActivationFusion"),
    Pass("tell_masks", masks.tell_masks, "none: it decides how long a softmax takes"),
)
"""In the order in which they run; to what ONNX Runtime calls its transformers."""

_BFLOAT16 = (
    *("BitCast", "Cast", "Celu", "Compress", "Concat", "ConcatFromSequence", "ConstantOfShape", "Einsum", "Flatten"),
    *("Gather", "GatherElements", "GatherND", "Identity", "IsInf", "IsNaN", "LayerNormalization", "OneHot", "Pad"),
    *("Reshape", "ReverseSequence", "ScatterElements", "ScatterND", "Shape", "Shrink", "Sign", "Size", "Slice"),
    *("Split", "Squeeze", "TensorScatter", "Transpose", "Unique", "Unsqueeze", "SimplifiedLayerNormalization"),
    *("ExpandDims", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "QMoE", "GatedRMSNorm", "Dropout"),
    "ScaledSiLU",
)
"""Operators with kernels of bfloat16, of those that models hold (``get_all_opkernel_def`` of ONNX Runtime 1.32)."""

_DENORMAL = (
    "scores that are left out become denormal numbers, 5 ns each where the session does not take those for zero "
    "(session.set_denormal_as_zero), as it did where this was measured"
)
BY_VALUE: Mapping[str, str] = MappingProxyType(
    {
        **BY_DATA,
        "way masked": _DENORMAL,
        **{
            f"mask {name}": _DENORMAL
            for name in ("causal", "bool", "bool causal", "bool of each head", "float32", "float32 causal")
        },
        CONDITIONS: "how often it changes decides (of 200,000 elements 0.18 to 1.5 ms)",
        QUOTIENTS: "how large they are decides (of 200,000 0.1 to 0.65 ms)",
        "QLinearWhere": "how often its condition changes decides (of 200,000 elements 0.15 to 1.5 ms)",
        "PRelu": "how often the sign changes decides (of 200,000 elements 0.08 to 0.8 ms)",
        "ReduceProd": "whether its products become denormal numbers decides (of 200,000 elements 0.1 to 1.4 ms)",
        "Shrink": "how often values leave the middle decides (of 200,000 elements 0.13 to 1 ms)",
        **{
            name: f"how large its values are decides (of 200,000 elements {least} to {most} ms)"
            for name, least, most in (
                ("Acosh", 0.5, 2.7),
                ("Asinh", 1.2, 6.9),
                ("Atanh", 0.6, 5.5),
                ("Cosh", 0.3, 1.5),
                ("Sinh", 1.1, 8.3),
                ("Tan", 0.7, 2.5),
            )
        },
    }
)
"""Its scalar code takes branches, and a processor foresees those of numbers that are alike: measured with 1.32 on a
core of an Intel Xeon, of numbers that are all the same, small, up to 1, normal, ten times as large, and from 1 on."""

RUNTIME = Runtime(
    "onnxruntime",
    PASSES,
    known_as=("onnxruntime_cpu",),
    read=read,
    layout_kernels=frozenset({"ReorderInput", "ReorderOutput"}),
    precisions=("float32", "float16", "int8"),
    few=MappingProxyType({"bfloat16": frozenset(_BFLOAT16)}),
    by_data=BY_VALUE,
    free="shapes that follow from them are computed in each inference, and less is fused where they are not known",
)
