"""ATen operators as ONNX operators: the table ``OPERATORS``, a file for each family.

A row takes the writer and the call and returns the name of what it wrote, one for each result (``""`` for a
result that has no counterpart). The spelling is that of ``torch.onnx.export`` after constant folding; where its
two exporters differ, the shorter one (``Gelu`` for the five operators around ``Erf``). Names are ATen's without
overload and without the trailing underscore of operators in place.
"""

from __future__ import annotations

from collections.abc import Mapping

from nn_meter.frontends.torch import (
    elementwise,
    indexing,
    layout,
    normalisation,
    products,
    reductions,
    spatial,
)
from nn_meter.frontends.torch.call import Row

OPERATORS: Mapping[str, Row] = {
    row: write
    for family in (elementwise, indexing, layout, normalisation, products, reductions, spatial)
    for row, write in family.ROWS.items()
}

SHAPE_ONLY = frozenset(
    [
        *("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "new_zeros"),
        *("new_ones", "new_full", "new_empty", "new_empty_strided", "new_tensor"),
    ]
)
"""Operators that take a tensor only for its shape; what they make is constant."""
