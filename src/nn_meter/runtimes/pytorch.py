"""PyTorch: its operators one after another, those that models spell as several taken together.

What its compiler fuses of elementwise operators is left to what is learned: in compiled models they cost little.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from nn_meter.runtimes.base import Runtime
from nn_meter.runtimes.pairs import PASSES

RUNTIME = Runtime("pytorch", PASSES, precisions=("float32", "float16"))

RULES: Mapping[str, Any] = MappingProxyType(
    {
        "runtime": "pytorch",
        **{f"BF_{name}_squeeze": {"obey": True} for name in ("hswish", "Gelu", "LayerNormalization")},
    }
)
"""Rules that never apply, but let each name count as the one operator that it is."""
