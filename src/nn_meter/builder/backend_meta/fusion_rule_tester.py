"""nn-Meter's name for ``nn_meter.builder.rules``."""

from nn_meter.builder.rules import detect_fusion_rule, generate_testcases

__all__ = ["detect_fusion_rule", "generate_testcases"]
