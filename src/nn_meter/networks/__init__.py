"""What is measured: generated networks by family, and what others measured."""

from nn_meter.networks.generated import FAMILIES, Family, draw

__all__ = ["FAMILIES", "Family", "draw"]
