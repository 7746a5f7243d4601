"""OpenVINO on the CPU: what its plugin for x86-64 makes of a graph (openvino 2026.4; its sources' common
transformations, ``graph_optimizer.cpp`` and ``snippets``, and what executed graphs show).

What parameters hold is not known here: they are taken to be a trained network's, none shared and none neutral.
"""

from __future__ import annotations

from nn_meter.ir import Graph
from nn_meter.kernels.patterns import Pattern
from nn_meter.kernels.rewriting import Work
from nn_meter.kernels.rules import read_rules
from nn_meter.kernels.spellings import (
    BIAS,
    GELU,
    HARD_SWISH,
    LAYER_NORM,
    RMS_NORM,
    SCALED_SWISH,
    SWISH,
    TANH_GELU,
)
from nn_meter.runtimes.base import Options, Pass, Runtime, rewriting
from nn_meter.runtimes.equals import merge_equals
from nn_meter.runtimes.openvino.joining import join
from nn_meter.runtimes.openvino.layouts import laid, lay_out
from nn_meter.runtimes.openvino.rewrites import (
    absorb_expand,
    absorbed,
    drop_idle,
    fuse_attention,
    fuse_transpose,
    group_convolutions,
    merge_slices,
    move_up,
    turn_in_place,
    turned,
)
from nn_meter.runtimes.pairs import eliminate

_BLOOM_GELU = Pattern(
    "FastGelu",
    ("x",),
    """
    c = Mul(Mul(x, 0.79788), Add(Mul(Mul(x, 0.044715), x), 1.0))
    y = Mul(Mul(x, 0.5), Add(Tanh(c), 1.0))
    """,
)

PASSES: tuple[Pass, ...] = (
    Pass("eliminate", eliminate, "NopElimination"),
    Pass("merge_equals", merge_equals, "SharedOpOptimization"),
    Pass("drop_idle", drop_idle, "EliminateConcat, EliminatePad"),
    Pass("merge_slices", merge_slices, "GroupedSliceToVSplitOptimization, SliceSequenceToSingleSlice"),
    Pass("absorb_expand", absorb_expand, "BroadcastElementwiseFusion"),
    Pass(
        "spell",
        rewriting(HARD_SWISH, GELU, TANH_GELU, _BLOOM_GELU, LAYER_NORM, RMS_NORM, BIAS, SWISH, SCALED_SWISH),
        "HSwishFusion, GeluFusion, MVNFusion, RMSFusion, SwishFusion",
    ),
    Pass("group_convolutions", group_convolutions, "ConvToGroupConv: GroupConvolutionFusion"),
    Pass("fuse_transpose", fuse_transpose, "TransposeMatMul"),
    Pass("move_up", move_up, "MoveEltwiseUpThroughDataMov"),
    Pass("fuse_attention", fuse_attention, "TokenizeMHASnippets"),
    Pass("turn_in_place", turn_in_place, "MergeTransposeAndReorder, MergeReorderAndTranspose"),
    Pass("lay_out", lay_out, "the layouts of edges"),
    Pass("join", join, "FuseConvolutionAndSimpleOperation, ..., TokenizeSnippets"),
)
"""In the order in which they run; to what OpenVINO calls its transformations."""

_STILL = {"absorb_expand": absorbed, "turn_in_place": turned}
"""Passes that tell what they find not to be executed."""


def _idle(graph: Graph) -> frozenset[str]:
    work, options, idle = Work(graph), Options(read_rules({})), list[str]()
    for each in PASSES[:-1]:
        if each.name in _STILL:
            idle += _STILL[each.name](work)
        else:
            each.run(work, options)
    return frozenset(idle)


RUNTIME = Runtime(
    "openvino",
    PASSES,
    known_as=("openvino_cpu",),
    layout_kernels=frozenset({"Reorder"}),
    idle=_idle,
    laid=laid,
)
