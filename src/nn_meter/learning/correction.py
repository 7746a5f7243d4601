"""From records to kernels at the machine's quiet speed.

Three things are taken out of what a network's records say. Neighbours on the machine slow whole stretches, and single
turns: a fixed probe took turns with each network. Networks whose probe was much slower than usual are left out, and by
what it tells of the others these are brought to the usual speed. The runtime's profiler costs time in every kernel: the
same network run without it tells how much. And what is left of the kernels is scaled so that they add up to the quiet
latency of their network, less what a call costs outside all kernels.

Records of several devices of one kind are corrected each device by itself, and then divided by how many times the
latency of the first device the networks took that all of them measured (``COMMON``); the first that measured most of
these, so that one that was lost at once is none to compare with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nn_meter.learning.fit import Network, work_of
from nn_meter.measuring.measure import quantile
from nn_meter.measuring.records import MeasuredKernel, Record

CALL = "call"
"""Family of the records of a network that does nothing: what is left is the cost of a call."""

COMMON = "common"
"""Family of the records of networks that each device of a fleet measures, to be compared by."""

ALIKE = 0.1
"""Devices of one kind differ by no more: a prediction is called right within 10 %, and what answers for the first would
be wrong on one that differs more."""

_DISTURBED = 1.15
"""A network counts as disturbed where the probe took this much longer than it usually did around then."""

_AROUND, _NEAR = 300, 50
"""Records to each side by which the usual is judged, since a machine's clock may change for good; and slowness."""

_TINY = 1e-12
"""In place of nothing to divide by."""

_POWERS_SPREAD = 0.3
"""How far the power to which networks are slower than the probe scatters around one, before a build's own records tell:
of the builds whose probe moved most, one of ncnn told 0.5 (a standard error of 0.1), one of ONNX Runtime 1.5 (0.4)."""

_SURE = 2.0
"""Standard errors from one by which a power is told apart from it: 95 % of normal errors are smaller."""

_MANY_KERNELS = 12
"""Networks of fewer kernels do not tell what the profiler adds to each."""

_NEAREST = 100
"""So many networks tell what the profiler adds to a kernel of those of about as many kernels."""

_LEAST_SHARE = 0.2
"""A kernel keeps this share of what its trace says, whatever the profiler costs."""


@dataclass(frozen=True, slots=True)
class Level:
    """How a device of a fleet differs: its latencies are so many times (``factor``) those of the first device, by the
    median over the networks that both measured; the standard deviation of the logarithm of that ratio among these
    networks is ``spread``. ``networks`` of its own were measured there. Without common ones the factor is ``None``."""

    device: str
    networks: int
    common: int
    factor: float | None
    spread: float = 0.0

    @property
    def odd(self) -> bool:
        """Whether it is not like the first device, or cannot be compared with it."""
        return self.factor is None or max(abs(math.log(self.factor)), self.spread) > math.log1p(ALIKE)


@dataclass(frozen=True, slots=True)
class Corrected:
    """Networks to learn from; how many records were ``disturbed`` and left out; what the profiler adds to each kernel,
    what a call costs, and what the probe took in the usual stretch (0 without one), in milliseconds; of several devices
    those of the first, and how each differs."""

    networks: tuple[Network, ...]
    records: tuple[Record, ...]
    disturbed: int
    profiler_ms: float
    call_ms: float
    probe_ms: float
    levels: tuple[Level, ...] = ()


def corrected(records: Sequence[Record], probe_ms: float | None = None) -> Corrected:
    """The kernels of ``records``; those that nothing is known about beside their latencies stay as they are.

    ``probe_ms`` is what the probe takes at the speed of the machine that is asked for, by default the usual one of
    these records. ``networks`` and ``records`` of the result belong together one by one.
    """
    of_device: dict[str, list[Record]] = {}
    for record in records:
        of_device.setdefault(record.circumstances.device.name, []).append(record)
    if len(of_device) < 2:
        return _corrected(records, probe_ms)[0]
    subjects = {name: {each.subject for each in some if each.family == COMMON} for name, some in of_device.items()}
    reference = max(of_device, key=lambda name: len(subjects[name]))
    first, there = _corrected(of_device.pop(reference), probe_ms)
    levels = [Level(reference, len(first.networks), len(there), 1.0)]
    networks, kept, disturbed = list(first.networks), list(first.records), first.disturbed
    for name, some in of_device.items():
        own, here = _corrected(some, None)
        disturbed += own.disturbed
        ratios = np.log([here[subject] / there[subject] for subject in here if subject in there])
        if not len(ratios):
            levels.append(Level(name, len(own.networks), 0, None))
            continue
        factor = float(np.exp(np.median(ratios)))
        levels.append(Level(name, len(own.networks), len(ratios), factor, float(np.std(ratios))))
        networks += [_slower(network, 1 / factor) for network in own.networks]
        kept += own.records
    return replace(
        first, networks=tuple(networks), records=tuple(kept), disturbed=disturbed, levels=tuple(levels)
    )


def _corrected(records: Sequence[Record], probe_ms: float | None) -> tuple[Corrected, Mapping[str, float]]:
    """Those of one device, and what each common network takes there in milliseconds."""
    probed = [record for record in records if record.probe is not None]
    quiet, probe_ms = _undisturbed(probed, probe_ms)
    calls = [each.whole.quiet_ms / slow for each, slow in quiet if each.family == CALL and each.whole is not None]
    call_ms = float(np.median(calls)) if calls else 0.0
    common: dict[str, list[float]] = {}
    for each, slow in quiet:
        if each.family == COMMON and each.whole is not None:
            common.setdefault(each.subject, []).append(each.whole.quiet_ms / slow)
    told = [(record, slow) for record, slow in quiet if record.family not in (CALL, COMMON)]
    told += [(record, 1.0) for record in records if record.probe is None]
    told = [(record, slow) for record, slow in told if record.kernels]
    kept = tuple(record for record, _ in told)
    profiler_ms = _profiler_ms(kept, call_ms)
    networks = tuple(
        _network(record, slow, each_ms, call_ms) for (record, slow), each_ms in zip(told, profiler_ms, strict=True)
    )
    usual_ms = float(np.median(profiler_ms or [0.0]))
    found = Corrected(networks, kept, len(probed) - len(quiet), usual_ms, call_ms, probe_ms)
    return found, {subject: float(np.median(taken)) for subject, taken in common.items()}


def _slower(network: Network, factor: float) -> Network:
    kernels = tuple(replace(kernel, latency_ms=factor * kernel.latency_ms) for kernel in network.samples)
    return replace(network, samples=kernels)


def _undisturbed(records: Sequence[Record], probe_ms: float | None) -> tuple[list[tuple[Record, float]], float]:
    """Records with turns that count, in which their probes were as usual, and how many times slower than at
    ``probe_ms`` the machine was for them; by default that is the median of what the probe took in all stretches, which
    is told beside them.

    The machine was as slow as the probe usually was nearby, to a power that the networks tell, and in the turns of a
    record alone (a neighbour comes and goes within seconds) so much more as its own probe tells, of which a part passes
    on to networks.

    A median is compared with medians, and with the middle one: the quickest of all the probe's runs is no stretch that
    a model could be judged in, and the quietest stretches are few. To divide by either makes every kernel a few percent
    too cheap; to leave out what is slower than they are, where neighbours never rest, leaves a fifth of a build.
    """
    if not records:
        return [], 0.0
    probes = [record.probe for record in records if record.probe is not None]
    slowest = np.array([max(map(quantile, probe.still_turns)) for probe in probes])
    own = np.array([probe.quiet_ms for probe in probes])
    nearby, around = (
        np.array([np.median(own[max(0, n - width) : n + width]) for n in range(len(own))]) for width in (_NEAR, _AROUND)
    )
    excess = slowest / around
    crowded = np.array([each.whole is not None and each.whole.crowded for each in records])
    excess[crowded] = np.maximum(excess[crowded], 2 * _DISTURBED)
    kept = np.flatnonzero(excess <= max(_DISTURBED, float(np.quantile(excess, 0.3)))).tolist()
    quiet_ms = probe_ms or float(np.median(nearby))
    stretch, turn = np.log(nearby / quiet_ms), _passed_on(records) * np.log(own / nearby)
    power = _power([records[i] for i in kept], stretch[kept], turn[kept])
    slowness = np.exp(power * stretch + turn)
    return [(records[i], float(slowness[i])) for i in kept], quiet_ms


def _power(records: Sequence[Record], stretch: np.ndarray, turn: np.ndarray) -> float:
    """To which power networks are slower than the probe in slow stretches: what lives in the caches or waits for memory
    may lose more or less to a neighbour than the probe does. ``stretch`` and ``turn`` are logarithms, one per record,
    of how much slower it was, and of how much slower for its turns alone the network was.

    By least squares over the logarithms of latencies, beside a network's family and what it has to do (operations,
    bytes, kernels), drawn to one by a normal prior (``_POWERS_SPREAD``). It is one where that lies within two standard
    errors: a build in which the probe hardly moves says nothing about the power.
    """
    told = [i for i, each in enumerate(records) if each.kernels and each.whole and each.whole.quiet_ms > 0]
    families, family = np.unique([records[i].family for i in told], return_inverse=True)
    work = [[work_of(kernel) for kernel in records[i].kernels] for i in told]
    does = [(sum(w.flops for w in each), sum(w.bytes for w in each), len(each)) for each in work]
    sizes = np.log(np.maximum(np.array(does, dtype=float).reshape(-1, 3), 1.0))
    beside = np.hstack([sizes, sizes**2, np.eye(len(families))[family]])
    latencies = np.log([each.whole.quiet_ms for each in map(records.__getitem__, told) if each.whole])
    free = len(told) - beside.shape[1] - 1
    if free <= 0:
        return 1.0
    beyond = latencies - turn[told] - stretch[told]
    x, y = (v - beside @ np.linalg.lstsq(beside, v, rcond=None)[0] for v in (stretch[told], beyond))
    moved = max(x @ x, _TINY)
    variance = np.sum((y - x * (x @ y) / moved) ** 2) / free
    if abs(x @ y) <= _SURE * math.sqrt(variance * moved):
        return 1.0
    return 1.0 + float(x @ y / (moved + variance / _POWERS_SPREAD**2))


def _passed_on(records: Sequence[Record]) -> float:
    """Of what the probe is slower in one turn than in another, the share by which networks are, of logarithms: by least
    squares over the turns of all records, so that next to nothing is where the probe scatters and networks do not."""
    turns = [
        np.array([[quantile(turn) for turn in taken.turns] for taken in (record.probe, record.whole)])
        for record in records
        if record.probe and record.whole and len(record.probe.turns) == len(record.whole.turns)
    ]
    moves = [np.diff(np.log(each)) for each in turns if each.min() > 0]
    probes, wholes = np.hstack(moves) if moves else np.zeros((2, 1))
    return float(np.clip(probes @ wholes / max(probes @ probes, _TINY), 0.0, 1.0))


def _profiler_ms(records: Sequence[Record], call_ms: float) -> list[float]:
    """What the profiler adds to each kernel of each record: the median over the networks of about as many kernels,
    since a runtime keeps what it has told so far, and an event costs the more the more there are of them."""
    added = sorted(
        (len(record.kernels), (record.traced.quiet_ms - record.whole.quiet_ms + call_ms) / len(record.kernels))
        for record in records
        if record.traced and record.whole and len(record.kernels) >= _MANY_KERNELS
    )
    if not added:
        return [0.0] * len(records)
    counts, each_ms = map(np.array, zip(*added, strict=True))
    nearest = max(0, len(added) - _NEAREST)
    firsts = (np.searchsorted(counts, [len(record.kernels) for record in records]) - _NEAREST // 2).clip(0, nearest)
    medians = {first: max(0.0, float(np.median(each_ms[first : first + _NEAREST]))) for first in set(firsts.tolist())}
    return [medians[first] for first in firsts.tolist()]


def _network(record: Record, slowness: float, profiler_ms: float, call_ms: float) -> Network:
    if record.traced is None or record.whole is None:
        return Network(record.kernels, record.family)
    left_ms = [max(k.latency_ms - profiler_ms, _LEAST_SHARE * k.latency_ms, 1e-4) for k in record.kernels]
    wanted_ms = max(record.whole.quiet_ms / slowness - call_ms, _LEAST_SHARE * sum(left_ms))
    scale = wanted_ms / sum(left_ms)
    kernels: tuple[MeasuredKernel, ...] = tuple(
        replace(kernel, latency_ms=scale * ms) for kernel, ms in zip(record.kernels, left_ms, strict=True)
    )
    return Network(kernels, record.family)
