"""What a runtime says that it executed: kernels as it tells them, with their times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nn_meter.ir.graph import Attr


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor that an executed kernel reads or writes: the runtime's shape, numpy's name of the dtype."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class ExecutedKernel:
    """One node of the graph that the runtime executes, after its own optimiser.

    ``inputs`` belong to ``input_names`` one by one; an optional input left out is ``None`` there and ``""``
    here. ``constant_inputs`` names those inputs that hold weights, ``constant_values`` holds the values of small ones.
    ``nodes`` are the model's nodes that the kernel covers, by name or by the name of their output, where the runtime
    tells them.
    """

    name: str
    op_type: str
    domain: str
    inputs: tuple[Operand | None, ...]
    outputs: tuple[Operand | None, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    constant_inputs: frozenset[str] = frozenset()
    constant_values: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KernelTrace:
    """What the runtime's own profiler says about one kernel: a value in milliseconds for each traced run."""

    executed: ExecutedKernel
    latencies_ms: tuple[float, ...]
