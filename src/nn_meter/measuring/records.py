"""What a build, a published table or a user measured: immutable records with their circumstances.

A record says latencies of kernels, of a whole model, or of both. Kernels are named by kind and config, which is all
that a regressor learns from; a record is therefore the same whether it was measured here or read from a table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from nn_meter.devices.device import Device, Value
from nn_meter.errors import BuildError
from nn_meter.kernels.kinds import KINDS
from nn_meter.kernels.partition import KernelConfig
from nn_meter.measuring import wire
from nn_meter.measuring.measure import Measurement


@dataclass(frozen=True, slots=True)
class MeasuredKernel:
    """A kernel with its latency in milliseconds. ``nodes`` are those of the model that it covers, where known."""

    kind: str
    config: KernelConfig
    latency_ms: float
    nodes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.latency_ms < math.inf:
            raise ValueError(f"a kernel of {self.latency_ms} ms; a latency is finite, 0 or more")

    def to_json(self) -> dict[str, Any]:
        """As ``from_json`` reads it."""
        written = {"kind": self.kind, "config": config_to_json(self.config), "latency_ms": self.latency_ms}
        return {**written, "nodes": list(self.nodes)} if self.nodes else written

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """What ``to_json`` wrote.

        Raises:
            KeyError, TypeError, ValueError: another dictionary, an unknown kind, or other fields than its config has.
        """
        config = config_from_json(data["kind"], data["config"])
        return cls(data["kind"], config, float(data["latency_ms"]), tuple(data.get("nodes", ())))


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What latencies were measured on and how; records of one build or one table share it.

    ``precision`` is numpy's name of the element type, ``threads`` those of the runtime. ``statistic`` is what of the
    repeated runs the kernels' latencies are (``"quiet"``, ``"median"``, ``"mean"``). ``source`` says who measured
    (a title, an address), ``licence`` under which terms (an SPDX name where there is one). ``settings`` is what the
    backend says of itself.
    """

    device: Device
    runtime: str
    runtime_version: str = ""
    precision: str = "float32"
    batch: int = 1
    threads: int = 1
    statistic: str = "quiet"
    source: str = ""
    licence: str = ""
    settings: Mapping[str, Value] = field(default_factory=dict)

    def facts(self) -> dict[str, Value]:
        """All that is known, as a bundle keeps it and ``same_machine`` compares it."""
        return {
            **self.device.facts(),
            "runtime": self.runtime,
            "runtime_version": self.runtime_version,
            "threads": self.threads,
            **self.settings,
        }


@dataclass(frozen=True, slots=True)
class Record:
    """One measurement of one subject.

    ``subject`` names a model, or the kind of the one kernel that was measured by itself. ``family`` groups subjects
    that resemble each other. ``kernels`` are there where they were told apart, ``whole`` where the subject was run as
    it is. ``traced`` are the sums of all kernels in each traced run, and ``probe`` the runs of a fixed network that
    took turns with the subject: they tell what the profiler costs and how quiet the machine was.
    """

    subject: str
    circumstances: Circumstances
    kernels: tuple[MeasuredKernel, ...] = ()
    whole: Measurement | None = None
    traced: Measurement | None = None
    probe: Measurement | None = None
    family: str = ""
    elapsed_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.kernels and self.whole is None:
            raise ValueError(f"the record of {self.subject!r} holds no latency")

    @classmethod
    def of_kernel(cls, kind: str, config: KernelConfig, latency_ms: float, circumstances: Circumstances) -> Self:
        """The record of one kernel that was measured by itself."""
        return cls(kind, circumstances, (MeasuredKernel(kind, config, latency_ms),))

    @classmethod
    def of_model(cls, subject: str, circumstances: Circumstances, latency_ms: float, family: str = "") -> Self:
        """The record of a whole model of which one latency is known."""
        return cls(subject, circumstances, whole=Measurement((latency_ms,)), family=family)


def write_records(records: Iterable[Record], path: Path) -> None:
    """Write records to a file, a line of JSON each.

    Raises:
        OSError: it cannot be written.
    """
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(wire.to_json(record)) + "\n")


def read_records(path: Path) -> Iterator[Record]:
    """The records that ``write_records`` wrote.

    Raises:
        BuildError: a line that is no record; names it.
        OSError: the file cannot be read.
    """
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield wire.from_json(Record, json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise BuildError(f"{path}:{number}: no record of a measurement ({error})") from error


def config_to_json(config: KernelConfig) -> dict[str, Any]:
    """The fields of a config as JSON-able values."""
    return {each.name: getattr(config, each.name) for each in fields(config)}  # type: ignore[arg-type]


def config_from_json(kind: str, values: Mapping[str, Any]) -> KernelConfig:
    """The config of a kernel of ``kind`` that ``config_to_json`` wrote.

    Raises:
        KeyError: no such kind.
        TypeError, ValueError: other fields than the config has, or values of other types.
    """
    if kind not in KINDS:
        raise KeyError(f"no kernel kind {kind!r}")
    config: KernelConfig = wire.from_json(KINDS[kind].config, values)
    return config
