"""Kernel kinds of runtimes that execute ONNX operators, one file per family: each kind declared once, used to train
and to predict.

The keystone, tested for every kind: fusing ``build(config)`` gives that kind and config back. Where the config says
that an operand lies in blocks of channels, a pooling of single elements before it puts it there. To add a kind, add its
config class (or take one that fits) and a row to ``KINDS`` of its family's file. Another package adds kinds by an entry
point of the group ``nn_meter.kernels`` that loads to a tuple of ``KernelKind``.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from types import MappingProxyType

from nn_meter import plugins
from nn_meter.errors import RegistrationError
from nn_meter.kernels.kinds._shared import ACTIVATIONS
from nn_meter.kernels.kinds.convolutions import ConvConfig
from nn_meter.kernels.kinds.elementwise import BroadcastConfig, collapse
from nn_meter.kernels.kinds.movement import VIEWS, CopyConfig, PiecesConfig, ReorderConfig, TransposeConfig
from nn_meter.kernels.kinds.other import OtherConfig
from nn_meter.kernels.kinds.places import AxisConfig, PlacesConfig
from nn_meter.kernels.kinds.products import GemmConfig
from nn_meter.kernels.kinds.quantised_products import (
    PackedGemmConfig,
    QuantisedConvConfig,
    QuantisedGemmConfig,
)
from nn_meter.kernels.kinds.rows import RowsConfig
from nn_meter.kernels.kinds.sequences import AttentionConfig, RecurrentConfig
from nn_meter.kernels.kinds.windows import PoolConfig, ReduceConfig, ResizeConfig
from nn_meter.kernels.partition import KernelConfig
from nn_meter.kernels.schema import KernelKind, Operator

__all__ = [
    "ACTIVATIONS",
    "KINDS",
    "KIND_OF",
    "VIEWS",
    "AttentionConfig",
    "AxisConfig",
    "BroadcastConfig",
    "ConvConfig",
    "CopyConfig",
    "GemmConfig",
    "KernelKind",
    "Operator",
    "OtherConfig",
    "PackedGemmConfig",
    "PiecesConfig",
    "PlacesConfig",
    "PoolConfig",
    "QuantisedConvConfig",
    "QuantisedGemmConfig",
    "RecurrentConfig",
    "ReduceConfig",
    "ReorderConfig",
    "ResizeConfig",
    "RowsConfig",
    "TransposeConfig",
    "collapse",
    "read_kernel",
    "table",
]

def table(declared: Iterable[tuple[str, Iterable[KernelKind]]]) -> Mapping[str, KernelKind]:
    """Kinds by name.

    Raises:
        RegistrationError: two kinds of one name, or two that take every config of one operator.
    """
    kinds: dict[str, KernelKind] = {}
    general: dict[str, str] = {}
    for where, some in declared:
        for kind in some:
            if kind.name in kinds:
                raise RegistrationError(f"{where}: there is a kernel kind {kind.name!r} already; give it another name")
            kinds[kind.name] = kind
            if kind.accepts is not None:
                continue
            for op in kind.operators:
                if op in general:
                    raise RegistrationError(
                        f"{where}: the kernel kinds {general[op]!r} and {kind.name!r} both read every {op}; "
                        "let one of them accept some configs only"
                    )
                general[op] = kind.name
    return MappingProxyType(kinds)


KINDS: Mapping[str, KernelKind] = table((each.name, tuple(each.load())) for each in plugins.listed("kinds"))

KIND_OF: Mapping[str, str] = MappingProxyType(
    {op: kind.name for kind in KINDS.values() if kind.accepts is None for op in kind.operators}
)
"""Operator to the kind that reads it where no other accepts its config; a convolution's depends on its layout and
groups too."""


def _readers() -> Mapping[str, tuple[KernelKind, ...]]:
    """Operator to the kinds that read it, the general one last."""
    readers: dict[str, tuple[KernelKind, ...]] = {}
    for kind in sorted(KINDS.values(), key=lambda kind: kind.accepts is None):
        for op in kind.operators:
            readers[op] = (*readers.get(op, ()), kind)
    return MappingProxyType(readers)


_READERS = _readers()
_OTHER = (KINDS["other"],)


def read_kernel(op: Operator, known: Container[str] | None = None) -> tuple[str, KernelConfig]:
    """Kind and config of an executed operator; ``other`` where it has no row.

    Args:
        known: names of kinds; quantised and late ones that are not among them are ``other``. By default all are.
    """
    read = None
    for kind in _READERS.get(op.op_type, _OTHER):
        if kind.may_be_other and known is not None and kind.name not in known:
            continue
        if kind.read is not read:
            read = kind.read
            config: KernelConfig = read(op)
        if kind.accepts is None or kind.accepts(config):
            return kind.name, config
    return "other", KINDS["other"].read(op)
