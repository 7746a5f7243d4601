"""ExecuTorch's conversion without what changes nothing here (1.5.1).

Each of its passes traces a graph anew, and each decomposition costs half a second whatever there is to decompose. What
is left out has nothing to do in a graph of floats with known shapes, or in one that has none of the operators that the
pass is about; a program is the same byte for byte (``tests/backends/test_executorch.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

_NEEDED_BY: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "XNNPACKRemoveCloneOpsTransform": ("clone",),
        "DimOrderOpsRevertPass": ("dim_order",),
        "ConvertToUpsampleBilinear2d": (),  # of what was decomposed, which here it is not
        "ConvertToLinearPass": ("mm.",),
        "PropagateCustomMetaPass": (),  # of quantised operators
        "ConvertToSDPAPass": ("softmax",),
        "FuseBatchNormPass": ("batch_norm",),
        "DecomposeBatchNorm": ("batch_norm",),
        "FuseActivationPass": ("relu", "hardtanh"),
        "DecomposeConcatenate": ("cat",),
        "RemoveGetItemPass": ("max",),
        "InsertPadQDQPass": (),  # of quantised operators
        "Conv1dUnsqueezePass": ("convolution",),
        "PReLUReshapePass": ("prelu",),
        "ChannelsLastTaggedReshapePass": ("convolution", "upsample", "mean", "max", "avg_pool2d", "prelu"),
        "RemoveRedundantCopyPass": ("_to_copy",),
    }
)
"""Pass over what XNNPACK is handed to parts of names of operators, one of which is there where it has something to do;
what is not listed always runs."""

_OF_SYMBOLS_AND_INTEGERS = frozenset(
    {"FoldRedundantDequantizeQuantizePass", "ReplaceSymSizeOpPass", "SymToTensorPass"}
)
"""Passes over the whole program that have nothing to do where shapes are known and numbers are floats."""


def shorten() -> None:
    """Leave it out from now on, in this process."""
    import torch
    import torch._export.utils as export
    from executorch.backends.xnnpack.xnnpack_preprocess import XNNPACKPassManager
    from executorch.exir.graph_module import contains_any_call_fn_target_op
    from executorch.exir.program import _program

    transform = XNNPACKPassManager.transform

    def transform_as_needed(manager: Any) -> Any:
        program = manager.exported_program
        for each in manager.passes:
            if _needed(each.__name__, program.graph):
                program = transform(XNNPACKPassManager(program, [each]))
        return program

    XNNPACKPassManager.transform = transform_as_needed
    _program.base_pre_op_replace_passes = [
        each
        for each in _program.base_pre_op_replace_passes
        if type(each).__name__ not in _OF_SYMBOLS_AND_INTEGERS
    ]
    export._materialize_cpp_cia_ops = cache(export._materialize_cpp_cia_ops)
    decompose = torch.export.ExportedProgram.run_decompositions

    def decompose_as_needed(program: Any, table: Any = None, *rest: Any, **named: Any) -> Any:
        nothing = table is not None and not contains_any_call_fn_target_op(program.graph_module, table)
        if nothing and (not table or program.dialect == "ATEN"):
            return program
        return decompose(program, table, *rest, **named)

    torch.export.ExportedProgram.run_decompositions = decompose_as_needed


def _needed(name: str, graph: Any) -> bool:
    words = _NEEDED_BY.get(name)
    if words is None:
        return True
    targets = (str(getattr(node.target, "__name__", "")) for node in graph.nodes if node.op == "call_function")
    return any(word in target for target in targets for word in words)
