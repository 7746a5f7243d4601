"""nn-Meter's builder calls, on the rooms of this package.

>>> from nn_meter import builder
>>> builder.builder_config.init("workspace")  # doctest: +SKIP
>>> builder.build_predictor_for_kernel("conv-bn-relu", "onnxruntime_cpu")  # doctest: +SKIP

They sample and measure kernels alone, as nn-Meter's builder does. ``nn_meter.build`` is the typed call for new code:
it measures kernels inside networks.
"""

from nn_meter.builder.config import builder_config
from nn_meter.builder.predictors import (
    build_adaptive_predictor_by_data,
    build_initial_predictor_by_data,
    build_latency_predictor,
    build_predictor_by_data,
    build_predictor_for_kernel,
    sample_and_profile_kernel_data,
)
from nn_meter.builder.profile import convert_models, profile_models
from nn_meter.builder.rules import detect_fusion_rule, generate_testcases

__all__ = [
    "build_adaptive_predictor_by_data",
    "build_initial_predictor_by_data",
    "build_latency_predictor",
    "build_predictor_by_data",
    "build_predictor_for_kernel",
    "builder_config",
    "convert_models",
    "detect_fusion_rule",
    "generate_testcases",
    "profile_models",
    "sample_and_profile_kernel_data",
]
