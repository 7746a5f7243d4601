"""Runtimes and devices that measure a model: one file each, behind one protocol."""

from nn_meter.backends.base import (
    BACKENDS,
    Backend,
    ExecutedKernel,
    KernelTrace,
    Model,
    Operand,
    Prepared,
    available,
    load,
)

__all__ = [
    "BACKENDS",
    "Backend",
    "ExecutedKernel",
    "KernelTrace",
    "Model",
    "Operand",
    "Prepared",
    "available",
    "load",
]
