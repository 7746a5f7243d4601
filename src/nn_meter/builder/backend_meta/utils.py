"""nn-Meter's name for ``nn_meter.builder.latency``."""

from nn_meter.builder.latency import Latency, ProfiledResults, dump_profiled_results, read_profiled_results

__all__ = ["Latency", "ProfiledResults", "dump_profiled_results", "read_profiled_results"]
