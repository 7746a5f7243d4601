"""From a handful of latencies on a new device to those of all networks that other devices were measured with.

Milliseconds add up over what a network is made of, so each known device's latencies, divided by their mean, are taken
for a sum over the parts of a network's name (least squares over all networks: what is left is mostly noise). A new
device is a level times what devices have in common, plus departures drawn from normal distributions as wide as the
known devices show: along each known device, along what the sums leave of each, and of each part by itself. A few
latencies tell the weights (Bayesian linear regression, that is a Gaussian process; Rasmussen and Williams, 2006,
ch. 2), and which others would tell most. How noisy the new device is, its own latencies tell (marginal likelihood).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from nn_meter.errors import BuildError
from nn_meter.learning.sums import most_telling
from nn_meter.measuring.records import Record

Floats = NDArray[np.float64]

FEWEST_DEVICES = 3
"""Fewer known devices do not show how devices differ; one at several batches is one."""

MOST_ELEMENTS = 8_000_000
"""So many numbers tell the parts of all networks, 64 MB: NAS-Bench-201 takes 6.3 million."""

_LEVEL, _DEVICES, _LEFT, _PARTS = 3.0, 1.0, 0.1, 0.3
"""Standard deviations: of the level; and, in those that the known devices show, along them, along what their sums
leave, and of a single part. They were chosen on half of the devices (docs/measurements.md)."""

_NOISES = (0.02, 0.05, 0.12)
"""Standard deviations of one measurement that are tried: a clock that counts whole milliseconds has the last."""

_RIDGE = 1.0
"""So many networks' worth of doubt has what a part costs."""

_LEAST = 0.05
"""An answer is no less than this share of what devices have in common."""

_TRIED = 1500
"""Networks among which the most telling are looked for."""


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


class Transfer:
    """What known devices say of a new one.

    Args:
        known: of other devices.
    """

    def __init__(self, known: Known) -> None:
        self.known = known
        self._common, self._along = _expected(known.latencies_ms, parts_of(known.networks))
        self._before = np.einsum("ij,ij->i", self._along, self._along)
        self._level_ms = float(np.exp(np.log(known.latencies_ms.mean(1)).mean()))

    def predict(self, measured: Mapping[int, float]) -> tuple[Floats, Floats]:
        """Latencies in ms of all networks, and the standard deviations of their logarithms, float64 (networks,).

        Args:
            measured: number of a network to its latency on the new device, in ms.
        """
        some = np.array(list(measured), np.intp)
        ratios = np.array(list(measured.values())) / self._common[some]
        level_ms = float(np.median(ratios)) if measured else self._level_ms
        across = self._along @ self._along[some].T
        seen = ratios / level_ms - 1
        answers = [_posterior(self._before, across, some, seen, noise) for noise in _NOISES]
        likely = np.array([each.log_likelihood for each in answers])
        share = np.exp(likely - likely.max())
        share /= share.sum()
        means, variances = (np.array([getattr(a, name) for a in answers]) for name in ("mean", "variance"))
        mean = share @ means
        variance = share @ (variances + means**2 + np.square(_NOISES)[:, None]) - mean**2
        ratio = np.maximum(1 + mean, _LEAST)
        return level_ms * self._common * ratio, np.sqrt(np.maximum(variance, 0.0)) / ratio

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
        noise = _NOISES[1]
        asked = _some(len(self.known.networks), _TRIED)
        along = self._along[np.concatenate([asked, np.array(taken, np.intp)])]
        covariance = np.eye(along.shape[1])
        for row in along[len(asked) :]:
            step = covariance @ row
            covariance -= np.outer(step, step) / (row @ step + noise**2)
        free = np.flatnonzero(~np.isin(asked, taken))
        return [int(asked[i]) for i in most_telling(along, covariance, free, count, noise)]


def parts_of(networks: Sequence[str]) -> Floats:
    """Which part each network has at each place of its name, and which pair at each two places where there are few
    pairs beside the networks; 1 where it has it, centred, float64 (networks, parts). No columns where the names have
    different numbers of parts, or where there would be more than ``MOST_ELEMENTS`` numbers."""
    split = [re.findall(r"[A-Za-z0-9_~]+", name) for name in networks]
    most = min(len(networks) // 10, MOST_ELEMENTS // max(len(networks), 1))
    if len({len(each) for each in split}) != 1 or len(split[0]) < 2:
        return np.zeros((len(networks), 0))
    places = [_numbered(place) for place in zip(*split, strict=True)]
    places = [(codes, count) for codes, count in places if count <= most]
    singles = sum(count for _, count in places)
    pairs = [(a * m + b, n * m) for (a, n), (b, m) in combinations(places, 2)] if len(places) ** 2 < most else []
    if singles + sum(count for _, count in pairs) <= most:
        places += pairs
    elif singles > MOST_ELEMENTS // len(networks):
        return np.zeros((len(networks), 0))
    found = np.zeros((len(networks), sum(count for _, count in places)))
    at = 0
    for codes, count in places:
        found[np.arange(len(networks)), at + codes] = 1.0
        at += count
    found -= found.mean(0)
    return found


def _numbered(texts: Iterable[str]) -> tuple[NDArray[np.intp], int]:
    """A number for each text, equal ones the same, and how many there are."""
    numbers: dict[str, int] = {}
    codes = np.array([numbers.setdefault(text, len(numbers)) for text in texts], np.intp)
    return codes, len(numbers)


def _expected(latencies_ms: Floats, parts: Floats) -> tuple[Floats, Floats]:
    """What is expected of a new device, of a mean of 1, float64 (networks,), and the directions in which it may depart
    from that, as shares of it, each as long as its standard deviation, float64 (networks, directions)."""
    relative = latencies_ms / latencies_ms.mean(1, keepdims=True)
    smooth, costs = relative, np.zeros((len(relative), 0))
    if parts.shape[1]:
        inside = parts.T @ parts + _RIDGE * np.eye(parts.shape[1])
        costs = np.linalg.solve(inside, parts.T @ (relative - 1).T).T
        smooth = 1 + costs @ parts.T
    common = np.maximum(smooth.mean(0), _LEAST)
    each = np.sqrt(len(relative))
    along = np.concatenate(
        [
            _LEVEL * common[:, None],
            _DEVICES * (smooth - smooth.mean(0)).T / each,
            _LEFT * (relative - smooth).T / each,
            _PARTS * costs.std(0) * parts,
        ],
        axis=1,
    )
    along /= common[:, None]
    return common, along


@dataclass(frozen=True, slots=True)
class _Posterior:
    """Mean and variance of all after some, float64 (networks,), and how likely these were."""

    mean: Floats
    variance: Floats
    log_likelihood: float


def _posterior(before: Floats, across: Floats, some: NDArray[np.intp], seen: Floats, noise: float) -> _Posterior:
    """After departures ``seen`` of ``some``; ``before`` are variances before, ``across`` covariances with ``some``."""
    inside = across[some] + noise**2 * np.eye(len(some))
    gain = np.linalg.solve(inside, across.T).T
    likely = -0.5 * float(seen @ np.linalg.solve(inside, seen) + np.linalg.slogdet(inside)[1])
    return _Posterior(gain @ seen, np.maximum(before - (gain * across).sum(1), 0.0), likely)


def _some(count: int, most: int) -> NDArray[np.intp]:
    """Numbers below ``count``, ``most`` of them at most, the same in every run."""
    return np.sort(np.random.default_rng(1).permutation(count)[:most])
