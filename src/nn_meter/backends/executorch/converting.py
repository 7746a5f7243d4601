"""The process that converts: models come in at its standard input, programs go out."""

from __future__ import annotations

import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from nn_meter.backends.executorch.conversion import Converted, Step, read, write
from nn_meter.backends.executorch.shortened import shorten
from nn_meter.backends.in_process import Threads
from nn_meter.backends.pytorch import Call, PyTorchPrepared
from nn_meter.backends.pytorch.module import as_module
from nn_meter.devices.here import end_with
from nn_meter.errors import NnMeterError
from nn_meter.frontends import onnx as reader
from nn_meter.frontends.tflite.flatbuffer import Table, root
from nn_meter.ir.graph import Graph
from nn_meter.runtimes.trace import ExecutedKernel
from nn_meter.storage import legible

_OFFSET = slice(10, 14)
"""Where the header of what XNNPACK is handed says where its graph lies (``serialization/xnnpack_graph_serialize.py`` of
its backend)."""
_NODES, _KIND, _HANDLE, _LIMITS = 1, 0, 2, 3
"""Slots of its tables (``serialization/schema.fbs``)."""
_CONVOLUTIONS = frozenset({7, 13})
"""Kinds of nodes that convolve."""
_TAKING = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators that take a batch normalisation (``FuseBatchNormPass``)."""
_ARITHMETIC, _CLAMP = frozenset({1, 8, 15, 16}), 6
"""Kinds of nodes that do not clamp what they compute: where one is told to, XNNPACK runs a clamp behind it."""


def main() -> None:
    """Answer until nobody asks, or the process that asked is gone: one model may take minutes."""
    end_with(int(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    shorten()
    while (model := read(sys.stdin.buffer)) is not None:
        write(answers, _answer(model))


def _answer(model: bytes) -> Converted | str:
    """A program, or why there is none."""
    graph = reader.read(model)
    try:
        return _convert(graph, model)
    except NnMeterError as error:
        return str(error)
    except ImportError as error:
        return f"ExecuTorch's converter cannot be imported ({error}); install: pip install 'nn-meter[executorch]'"
    except Exception as error:  # whatever a pass says that cannot take the model
        while error.__cause__ is not None:
            error = error.__cause__  # type: ignore[assignment]
        said = legible((str(error).strip() or repr(error)).splitlines()[0])
        there = ", ".join(sorted({node.op_type for node in graph.nodes}))
        return f"{graph.name}: ExecuTorch refuses the model, which is of {there}: {said}"


def _convert(graph: Graph, model: bytes) -> Converted:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    prepared = PyTorchPrepared(graph, model, Threads())
    inputs = tuple(prepared.values[prepared.place[name]] for name in graph.inputs)
    calls = tuple(call.executed for call in prepared.calls)
    with torch.no_grad():
        exported = torch.export.export(as_module(prepared, graph, _given), inputs)
        lowered = to_edge_transform_and_lower(
            exported,
            partitioner=[XnnpackPartitioner()],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
        program = lowered.exported_program()
        numbers = _numbers(program.graph.nodes)  # before they are given other handles
        for each in _delegates(program.graph_module):
            numbers |= _numbers(each.original_module.graph.nodes)
        made = lowered.to_executorch()
    return Converted(
        bytes(made.buffer),
        tuple(_parts(made, numbers, calls, iter(_alone(calls, graph)))),
        calls,
        tuple(
            f"{each.name}.{each.overload}" if each.overload else each.name
            for each in made.executorch_program.execution_plan[0].operators
        ),
    )


def _given(call: Call, values: list[Any]) -> list[Any]:
    """A power that is known as the number that it is in a module: XNNPACK takes squares so."""
    if call.executed.op_type == "Pow" and call.executed.input_names[1] in call.executed.constant_inputs:
        power = values[1]
        return [values[0], power.item()] if power.numel() == 1 else values
    return values


def _delegates(module: Any) -> list[Any]:
    """What XNNPACK is handed, in order."""
    calls = (node for node in module.graph.nodes if node.op == "call_function")
    names = (str(getattr(node.args[0], "target", "")) for node in calls if node.args)
    return [each for name in names if hasattr(each := getattr(module, name, None), "processed_bytes")]


def _parts(
    made: Any, numbers: Mapping[int, int], calls: Sequence[ExecutedKernel], alone: Iterator[int]
) -> Iterable[tuple[Step, ...]]:
    """The steps of each instruction."""
    (plan,) = made.executorch_program.execution_plan
    (chain,) = plan.chains
    handles = made.debug_handle_map.get("forward", {})
    delegates = iter(_delegates(made.exported_program().graph_module))
    for place, instruction in enumerate(chain.instructions):
        if type(instruction.instr_args).__name__ == "DelegateCall":
            handed = next(delegates).processed_bytes
            yield tuple(step for node in _xnnpack_nodes(handed) for step in _steps(node, numbers, calls, alone))
        else:
            found = handles.get(place, ())
            own = found if isinstance(found, Sequence) else (found,)
            yield (Step(0, next((numbers[each] for each in own if each in numbers), -1)),)


def _xnnpack_nodes(handed: bytes) -> list[Table]:
    start = int.from_bytes(handed[_OFFSET], "little")
    return root(memoryview(handed)[start:]).tables(_NODES)


def _steps(
    node: Table, numbers: Mapping[int, int], calls: Sequence[ExecutedKernel], alone: Iterator[int]
) -> Iterable[Step]:
    kind, number = node.integer(_KIND, "B"), numbers.get(node.integer(_HANDLE, "I"), -1)
    if number < 0 and kind in _CONVOLUTIONS:
        number = next(alone)
    yield Step(kind, number)
    if kind in _ARITHMETIC and node.table(_LIMITS) is not None:
        made = calls[number].output_names[0]
        yield Step(_CLAMP, next(i for i, each in enumerate(calls) if made in each.input_names))


def _alone(calls: Sequence[ExecutedKernel], graph: Graph) -> list[int]:
    """The numbers of batch normalisations that no layer takes: they become convolutions of single elements, which bear
    no handle (``DecomposeBatchNorm``)."""
    makers = {name: call.op_type for call in calls for name in call.output_names}
    readers = Counter([*graph.outputs, *(name for call in calls for name in call.input_names)])
    return [
        number
        for number, call in enumerate(calls)
        if call.op_type == "BatchNormalization"
        and (makers.get(call.input_names[0]) not in _TAKING or readers[call.input_names[0]] > 1)
    ]


def _numbers(nodes: Iterable[Any]) -> dict[int, int]:
    """The number of the call that each node is of, by the node's handle."""
    found = {}
    for node in nodes:
        handle, modules = node.meta.get("debug_handle"), node.meta.get("nn_module_stack")
        name = next(reversed(modules)).rpartition(".")[2] if modules else ""
        if handle is not None and name.isdigit():
            found[handle] = int(name)
    return found


if __name__ == "__main__":
    main()
