"""Tables with a column per device: the first column names the network, the others hold milliseconds.

HELP (Lee et al., NeurIPS 2021; HayeonLee/HELP, MIT) published such of NAS-Bench-201's cells and of FBNet's networks on
23 and 25 devices, the authors of nn-Meter (microsoft/nn-Meter, MIT) what they measured on their four. The networks are
named by what they are made of: ``|nor_conv_3x3~0|+...``, or an operator's number for each layer.
"""

from __future__ import annotations

import csv
import re
from functools import cache
from pathlib import Path

from nn_meter.devices.device import Device
from nn_meter.errors import BuildError
from nn_meter.limits import TABLE_ROWS
from nn_meter.measuring.records import Circumstances, Record
from nn_meter.networks.published import Published, header_of, opened, plausible

_GPUS = ("1080ti", "2080ti", "titan_rtx", "titanx", "titanxp", "adreno640gpu", "adreno630gpu")
"""Devices of these tables that are GPUs; the number behind a GPU's name is the batch."""

FIRST = ("architecture", "model")


@cache
def circumstances(column: str) -> Circumstances:
    """Of a column, by its name; which runtime it was is not told."""
    match = re.fullmatch(r"(.+?)_(\d{1,6})", column)
    name, batch = (match[1], int(match[2])) if match and match[1] in _GPUS else (column, 1)
    kind = "gpu" if name.split("_tflite")[0] in _GPUS else "cpu"
    return Circumstances(Device(name, kind=kind), "unknown", batch=batch, statistic="mean")  # type: ignore[arg-type]


def read_wide(path: Path) -> Published:
    """A record for each network on each device, the subject as the first column names it. An empty field is no
    measurement.

    Raises:
        BuildError: no such table, or one whose first column is neither ``architecture`` nor ``model``.
    """
    header = header_of(path)
    if len(header) < 2 or header[0] not in FIRST:
        raise BuildError(
            f"{path}: no table with a column per device; the first column must be one of {', '.join(FIRST)}, the "
            "others are named by their devices"
        )
    around = [circumstances(column) for column in header[1:]]
    records: list[Record] = []
    left_out: list[str] = []
    with opened(path) as lines:
        reader = csv.reader(lines)
        next(reader)
        for row in reader:
            for where, text in zip(around, row[1:], strict=False):
                if not text.strip():
                    continue
                TABLE_ROWS.check(len(records) + len(left_out) + 1, str(path), BuildError)
                try:
                    records.append(Record.of_model(row[0].strip(), where, plausible(float(text))))
                except ValueError as error:  # as RowError is
                    left_out.append(f"{path.name}:{reader.line_num}: {error}")
    return Published(tuple(records), tuple(left_out))
