"""What is measured: generated networks by family, and what others measured."""

from nn_meter.networks.generated import FAMILIES, Family, sample_network, sample_networks

__all__ = ["FAMILIES", "Family", "sample_network", "sample_networks"]
