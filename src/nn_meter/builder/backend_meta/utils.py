"""nn-Meter's name for ``nn_meter.builder.latency``."""

from nn_meter.builder.latency import ProfiledResults, dump_profiled_results, read_profiled_results
from nn_meter.measuring.latency import Latency

__all__ = ["Latency", "ProfiledResults", "dump_profiled_results", "read_profiled_results"]
