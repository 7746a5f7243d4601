"""Runtimes and devices that measure a model: one file each, behind one protocol."""

from nn_meter.backends.base import (
    Backend,
    Given,
    Model,
    Named,
    Prepared,
    Traced,
    available,
    load,
    runtime_of,
)
from nn_meter.runtimes.trace import ExecutedKernel, KernelTrace, Operand

__all__ = [
    "Backend",
    "ExecutedKernel",
    "Given",
    "KernelTrace",
    "Model",
    "Named",
    "Operand",
    "Prepared",
    "Traced",
    "available",
    "load",
    "runtime_of",
]
