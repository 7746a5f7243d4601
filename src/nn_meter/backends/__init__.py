"""Runtimes and devices that measure a model: one file each, behind one protocol."""

from nn_meter.backends.base import Backend, Model, Prepared, available, load, runtime_of
from nn_meter.runtimes.trace import ExecutedKernel, KernelTrace, Operand

__all__ = [
    "Backend",
    "ExecutedKernel",
    "KernelTrace",
    "Model",
    "Operand",
    "Prepared",
    "available",
    "load",
    "runtime_of",
]
