"""Measures well: the loop, its records, the process it runs in, the journal of what is done."""

from nn_meter.measuring.asking import ask, failed
from nn_meter.measuring.isolation import Failure, Worker
from nn_meter.measuring.journal import Entry, Journal, key_of
from nn_meter.measuring.measure import STATISTIC, Measurement, Plan, Runner, measure
from nn_meter.measuring.records import Circumstances, MeasuredKernel, Record, read_records, write_records

__all__ = [
    "STATISTIC",
    "Circumstances",
    "Entry",
    "Failure",
    "Journal",
    "MeasuredKernel",
    "Measurement",
    "Plan",
    "Record",
    "Runner",
    "Worker",
    "ask",
    "failed",
    "key_of",
    "measure",
    "read_records",
    "write_records",
]
