"""A runtime of which nothing is known but its rules."""

from __future__ import annotations

from nn_meter.runtimes.base import Runtime
from nn_meter.runtimes.pairs import PASSES

RUNTIME = Runtime("rules", PASSES)
