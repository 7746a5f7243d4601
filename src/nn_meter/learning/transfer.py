"""From a handful of latencies on a new device to those of all networks that other devices were measured with.

The logarithm of a latency on the new device is taken for a sum whose weights are drawn from normal distributions:
a level; what devices have in common; how each known device departs from that; and what each part of a network's name
costs more or less. A few latencies tell the weights (Bayesian linear regression, that is a Gaussian process; Rasmussen
and Williams, 2006, ch. 2), and which others would tell most. How wide the distributions are, the known devices show:
each is left out and answered for by the others.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from nn_meter.errors import BuildError
from nn_meter.learning.sums import most_telling
from nn_meter.measuring.records import Record

Floats = NDArray[np.float64]

FEWEST_DEVICES = 3
"""Fewer known devices do not show how devices differ; one at several batches is one."""

_LEVEL, _GAIN = 3.0, 0.5
"""Standard deviations of the level, and of how much more or less of what is common a device shows."""

_OWN, _PARTS, _NOISE = (0.5, 1.0, 3.0), (0.03, 0.1, 0.3), (0.01, 0.03)
"""What is tried for the other standard deviations: of departures, of parts, and of one measurement."""

_TRIED = 400
"""Networks on which they are tried, and among which the most telling are looked for."""

_DRAWS = 2


@dataclass(frozen=True)
class Known:
    """Latencies of the same networks on several devices, float64 (devices, networks) in ms. ``groups`` are devices
    without their batch: the same hardware."""

    devices: tuple[str, ...]
    groups: tuple[str, ...]
    networks: tuple[str, ...]
    latencies_ms: Floats

    @classmethod
    def of(cls, records: Iterable[Record]) -> Known:
        """Of whole networks; one that some device lacks is left out.

        Raises:
            BuildError: too few devices, or no network that all of them have.
        """
        found: dict[tuple[str, int], dict[str, float]] = {}
        for each in records:
            if each.whole is not None:
                where = each.circumstances.device.name, each.circumstances.batch
                found.setdefault(where, {})[each.subject] = each.whole.median_ms
        groups = tuple(name for name, _ in found)
        if (count := len({*groups})) < FEWEST_DEVICES:
            raise BuildError(
                f"{count} devices do not show how devices differ, {FEWEST_DEVICES} are needed; name more tables"
            )
        first, *others = found.values()
        networks = tuple(name for name in first if all(name in other for other in others))
        if not networks:
            raise BuildError("no network was measured on all of the known devices; name tables of the same networks")
        latencies = np.array([[row[name] for name in networks] for row in found.values()])
        devices = tuple(f"{name}_{batch}" for name, batch in found)
        return cls(devices, groups, networks, latencies)

    def numbered(self, records: Iterable[Record]) -> dict[int, float]:
        """Latencies in ms by the numbers of their networks; of networks that are not known none."""
        places = {name: number for number, name in enumerate(self.networks)}
        return {
            places[each.subject]: each.whole.median_ms
            for each in records
            if each.whole is not None and each.subject in places
        }

    def without(self, group: str) -> Known:
        """The other devices."""
        kept = [i for i, each in enumerate(self.groups) if each != group]
        devices, groups = (tuple(some[i] for i in kept) for some in (self.devices, self.groups))
        return Known(devices, groups, self.networks, self.latencies_ms[kept])


@dataclass(frozen=True, slots=True)
class Spreads:
    """Standard deviations that the known devices show: of departures, of parts, of one measurement."""

    own: float
    parts: float
    noise: float


class Transfer:
    """What known devices say of a new one.

    Args:
        known: of other devices.
        spreads: where they are known; the devices of ``known`` show them, for ``count`` measurements, where left out.
    """

    def __init__(self, known: Known, count: int = 10, spreads: Spreads | None = None) -> None:
        self.known = known
        self._parts = parts_of(known.networks)
        self.spreads = spreads or self._shown(count)
        self._mean, self._along = _features(np.log(known.latencies_ms), self._parts, self.spreads)

    def predict(self, measured: Mapping[int, float]) -> tuple[Floats, Floats]:
        """Latencies in ms of all networks, and the standard deviations of their logarithms, float64 (networks,).

        Args:
            measured: number of a network to its latency on the new device, in ms.
        """
        some = np.array(list(measured), np.intp)
        logs = np.log(np.array(list(measured.values())))
        answer, variance = _posterior(self._mean, self._along, some, logs, self.spreads.noise)
        return np.exp(answer), np.sqrt(variance + self.spreads.noise**2)

    def table(self, measured: Mapping[int, float]) -> str:
        """All networks as CSV: ``model``, ``latency_ms``, and how far that may be off: ``log_deviation``."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("model", "latency_ms", "log_deviation"))
        for name, latency_ms, off in zip(self.known.networks, *self.predict(measured), strict=True):
            rows.writerow((name, f"{latency_ms:.6g}", f"{off:.4f}"))
        return text.getvalue()

    def most_telling(self, count: int, taken: Sequence[int] = ()) -> list[int]:
        """Numbers of the networks whose latencies would tell most beside those ``taken``, the first first."""
        asked = _some(len(self.known.networks), _TRIED)
        along = self._along[np.concatenate([asked, np.array(taken, np.intp)])]
        covariance = np.eye(along.shape[1])
        for row in along[len(asked) :]:
            step = covariance @ row
            covariance -= np.outer(step, step) / (row @ step + self.spreads.noise**2)
        free = np.array([i for i, number in enumerate(asked) if number not in taken], np.intp)
        return [int(asked[i]) for i in most_telling(along, covariance, free, count, self.spreads.noise)]

    def _shown(self, count: int) -> Spreads:
        """The spreads by which each known device is best answered for by the others."""
        some = _some(len(self.known.networks), _TRIED)
        logs, parts = np.log(self.known.latencies_ms[:, some]), self._parts[some]
        count = min(count, len(some) // 2)
        rng = np.random.default_rng(0)
        draws = [rng.choice(len(some), count, replace=False) for _ in range(_DRAWS)]
        tried = [Spreads(*each) for each in product(_OWN, _PARTS, _NOISE)]
        off = np.zeros(len(tried))
        for group in dict.fromkeys(self.known.groups):
            mine = np.array([each == group for each in self.known.groups])
            if (~mine).sum() < FEWEST_DEVICES - 1:
                continue
            for t, spreads in enumerate(tried):
                mean, along = _features(logs[~mine], parts, spreads)
                for row, draw in product(logs[mine], draws):
                    answer, _ = _posterior(mean, along, draw, row[draw], spreads.noise)
                    off[t] += float(np.abs(answer - row).mean())
        return tried[int(np.argmin(off))]


def parts_of(networks: Sequence[str]) -> Floats:
    """Which part each network has at each place of its name, centred and scaled by the number of places, float64
    (networks, parts); no columns where the names have different numbers of parts."""
    split = [re.findall(r"[A-Za-z0-9_~]+", name) for name in networks]
    if len({len(each) for each in split}) != 1 or len(split[0]) < 2:
        return np.zeros((len(networks), 0))
    columns = []
    for place in zip(*split, strict=True):
        names, codes = np.unique(np.array(place), return_inverse=True)
        columns.append(np.eye(len(names))[codes] if len(names) <= len(networks) // 10 else np.zeros((len(codes), 0)))
    found = np.concatenate(columns, axis=1)
    scaled: Floats = (found - found.mean(0)) / np.sqrt(len(split[0]))
    return scaled


def _features(logs: Floats, parts: Floats, spreads: Spreads) -> tuple[Floats, Floats]:
    """What is expected of a new device, float64 (networks,), and the directions in which it may depart from that, each
    as long as its standard deviation, float64 (networks, directions)."""
    levels = logs.mean(1, keepdims=True)
    common = (logs - levels).mean(0)
    own = (logs - levels - common) * spreads.own / np.sqrt(len(logs))
    level = np.full((len(common), 1), _LEVEL)
    along = np.concatenate([level, _GAIN * common[:, None], own.T, spreads.parts * parts], axis=1)
    return common + float(levels.mean()), along


def _posterior(
    mean: Floats, along: Floats, some: NDArray[np.intp], logs: Floats, noise: float
) -> tuple[Floats, Floats]:
    """Mean and variance of all, after the logarithms of some."""
    seen = along[some]
    inside = seen @ seen.T + noise**2 * np.eye(len(some))
    gain = np.linalg.solve(inside, seen).T
    answer = mean + along @ (gain @ (logs - mean[some]))
    left = (along**2).sum(1) - ((along @ gain) * (along @ seen.T)).sum(1)
    return answer, np.maximum(left, 0.0)


def _some(count: int, most: int) -> NDArray[np.intp]:
    """Numbers below ``count``, ``most`` of them at most, the same in every run."""
    return np.sort(np.random.default_rng(1).permutation(count)[:most])
