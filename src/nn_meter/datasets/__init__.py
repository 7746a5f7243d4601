"""Records of measurements, and the generated networks that measurements are taken in."""

from nn_meter.datasets.networks import FAMILIES, MAX_FLOPS, Family, sample_network, sample_networks
from nn_meter.datasets.records import Record, RecordStore

__all__ = [
    "FAMILIES",
    "MAX_FLOPS",
    "Family",
    "Record",
    "RecordStore",
    "sample_network",
    "sample_networks",
]
