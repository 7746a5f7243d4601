"""ExecuTorch's conversion without what changes nothing here (1.5.1).

Each of its passes traces a graph anew, each trace writes Python that nobody runs, and each decomposition costs half a
second whatever there is to decompose. What is left out has nothing to do in a graph of floats with known shapes, or in
one that has none of the operators that the pass is about; a program is the same byte for byte
(``tests/backends/test_executorch.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

_MADE_OF_NOTHING = "no operand"
_XNNPACK: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "XNNPACKRemoveCloneOpsTransform": ("clone",),
        "DimOrderOpsRevertPass": ("dim_order",),
        "ConvertToUpsampleBilinear2d": (),  # of what was decomposed, which here it is not
        "ConvertToLinearPass": ("addmm", ".mm."),
        "PropagateCustomMetaPass": (),  # of quantised operators
        "ConvertToSDPAPass": ("softmax",),
        "ConstPropPass": (_MADE_OF_NOTHING,),
        "FuseBatchNormPass": ("batch_norm",),
        "DecomposeBatchNorm": ("batch_norm",),
        "FuseActivationPass": ("relu", "hardtanh"),
        "DecomposeConcatenate": ("cat",),
        "RemoveGetItemPass": ("max",),
        "InsertPadQDQPass": (),  # of quantised operators
        "Conv1dUnsqueezePass": ("convolution.default 3",),
        "PReLUReshapePass": ("prelu",),
        "ChannelsLastTaggedReshapePass": ("convolution", "upsample", "mean", "max", "avg_pool2d", "prelu"),
        "RemoveRedundantCopyPass": ("_to_copy",),
    }
)
"""Pass over what XNNPACK is handed to parts of names of operators, with the axes of their results, one of which is
there where it has something to do; what is not listed always runs."""

_WHOLE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "FoldRedundantDequantizeQuantizePass": (),
        "MemoryFormatOpsPass": ("_to_copy", "empty", "clone"),
        "NormalizeTransposePass": (" t.default",),
        "SymToTensorPass": (),
    }
)
"""The same of passes over the whole program."""


def shorten() -> None:
    """Leave it out from now on, in this process."""
    import torch
    import torch._export.utils as export
    from executorch.backends.xnnpack.xnnpack_preprocess import XNNPACKPassManager
    from executorch.exir import passes
    from executorch.exir.graph_module import contains_any_call_fn_target_op

    transform = XNNPACKPassManager.transform

    def transform_as_needed(manager: Any) -> Any:
        program = manager.exported_program
        for each in manager.passes:
            words = _XNNPACK.get(each.__name__)
            if words is None or _there(words, program.graph):
                program = transform(XNNPACKPassManager(program, [each]))
        return program

    XNNPACKPassManager.transform = transform_as_needed
    for name, words in _WHOLE.items():
        kind = getattr(passes, name)
        kind.call = _as_needed(kind.call, words)
    decompose = torch.export.ExportedProgram.run_decompositions

    def decompose_as_needed(program: Any, table: Any = None, *rest: Any, **named: Any) -> Any:
        nothing = table is not None and not contains_any_call_fn_target_op(program.graph_module, table)
        if nothing and (not table or program.dialect == "ATEN"):
            return program
        return decompose(program, table, *rest, **named)

    torch.export.ExportedProgram.run_decompositions = decompose_as_needed
    export._materialize_cpp_cia_ops = cache(export._materialize_cpp_cia_ops)
    torch.fx.GraphModule.recompile = _postponed(torch.fx.GraphModule.recompile)
    torch.fx.GraphModule.print_readable = lambda *_, **__: ""  # asked for to be logged, which it is not


def _as_needed(call: Callable[[Any, Any], Any], words: tuple[str, ...]) -> Callable[[Any, Any], Any]:
    from torch.fx.passes.infra.pass_base import PassResult

    def called(run: Any, module: Any) -> Any:
        return call(run, module) if _there(words, module.graph) else PassResult(module, False)

    return called


def _postponed(recompile: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Python written of a graph when it is run: each module is of a class of its own."""

    def postponed(module: Any) -> None:
        specified = getattr(module.graph._codegen, "pytree_info", None)
        if specified is not None:
            module._in_spec, module._out_spec = specified.in_spec, specified.out_spec
        module._code = ""

        def forward(own: Any, *values: Any, **named: Any) -> Any:
            recompile(own)
            return own.forward(*values, **named)

        type(module).forward = forward

    return postponed


def _there(words: tuple[str, ...], graph: Any) -> bool:
    return any(word in name for name in _names(graph) for word in words)


def _names(graph: Any) -> Iterator[str]:
    for node in graph.nodes:
        if node.op == "call_function":
            made = node.meta.get("val")
            yield f" {getattr(node.target, '__name__', '')} {made.dim() if hasattr(made, 'dim') else ''}"
        if node.op == "get_attr" or (node.op == "call_function" and not node.all_input_nodes):
            yield _MADE_OF_NOTHING
