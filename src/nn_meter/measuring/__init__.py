"""Measures well: the loop, its record, the process it runs in, the journal of what is done."""

from nn_meter.devices.environment import environment, same_machine
from nn_meter.measuring.isolation import Failure, Worker, measuring_cpus
from nn_meter.measuring.journal import Entry, Journal, key_of
from nn_meter.measuring.measure import Measurement, Plan, Runner, measure

__all__ = [
    "Entry",
    "Failure",
    "Journal",
    "Measurement",
    "Plan",
    "Runner",
    "Worker",
    "environment",
    "key_of",
    "measure",
    "measuring_cpus",
    "same_machine",
]
