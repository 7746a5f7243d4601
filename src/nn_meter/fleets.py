"""Work that several devices share: builds, and models to measure.

Of a build the journal is what is known of the work: an entry for one device alone names it (``BOUND``), and one that no
device has a result of is still to do.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from nn_meter.backends.base import Named
from nn_meter.devices.device import same_machine
from nn_meter.devices.known import known
from nn_meter.devices.link import Link, open_link
from nn_meter.errors import BuildError, DeviceError, InputError, MeasurementError, NnMeterError
from nn_meter.evaluation.bench import TIMEOUT_S, Bench, measure_models, source_of
from nn_meter.learning.correction import CALL, COMMON
from nn_meter.measuring import (
    Circumstances,
    Entry,
    Failure,
    Journal,
    Measurement,
    Plan,
    Record,
    Worker,
    ask,
    failed,
)
from nn_meter.measuring.asking import tell
from nn_meter.measuring.fleet import Fleet
from nn_meter.spreading import Executor, spread
from nn_meter.storage import legible

if TYPE_CHECKING:
    from nn_meter.building import Drawing

_LOG = logging.getLogger(__name__)

T = TypeVar("T")

BOUND = "device"
"""In an item of the journal the one device that shall measure it."""

COMMON_NETWORKS = (
    ("residual_basic", 7), ("inverted", 3), ("dense", 3), ("convnext", 2), ("vision_transformer", 2), ("encoder", 2),
    ("token_mixer", 2),
)  # fmt: skip
"""Family and seed of the networks that each device of a fleet measures: of many kinds, and 1 to 17 ms on a Xeon."""

MEASURED_ON = "measured_on"
"""In the ``environment`` of a measurement the device of a fleet that took it."""

COMMON_EVERY_S = 600.0
"""Some eight seconds of so many are spent on them."""

_SINGLE, _KIND = ("affinity", "governor"), ("cpu", "machine", "cores")
"""Facts in which devices of one kind may differ, and by which kinds are told apart."""


class Shared:
    """``Work`` of a fleet: what ``drawing`` says, and for each device the common networks at first and every
    ``COMMON_EVERY_S``.

    Args:
        devices: those that are there.
        run: measures an entry on a device; called in a thread of that device.
        records: what was measured before.
        mixed: whether devices of several kinds may take part.

    Raises:
        BuildError: networks in the journal were measured on a device that cannot be compared with these.
    """

    def __init__(
        self,
        backend: Named,
        book: Journal,
        drawing: Drawing,
        devices: Sequence[Circumstances],
        run: Callable[[Entry, Worker, Circumstances], Record | Failure],
        records: Sequence[Record] = (),
        mixed: bool = False,
    ) -> None:
        self._backend, self._book, self._drawing, self._run, self._mixed = backend, book, drawing, run, mixed
        self._first = records[0].circumstances if records else devices[0]
        self._own: dict[str, deque[Entry]] = {}
        self._turns: Counter[str] = Counter()
        self._due: dict[str, float] = {}
        self._since = monotonic()
        for entry in (*book.pending(), *book.results()):
            if BOUND in entry.item:
                name, turn = str(entry.item[BOUND]), entry.item.get("turn")
                self._turns[name] = max(self._turns[name], turn + 1 if isinstance(turn, int) else 0)
                if entry.result is None:
                    self._own.setdefault(name, deque()).append(entry)
        names = [device.device.name for device in devices]
        for alone in {record.circumstances.device.name for record in records} - {*names, *self._turns}:
            raise BuildError(
                f"networks of this build were measured on {alone} alone, which cannot be compared with "
                f"{', '.join(names)}; go on with that device alone, or choose another name"
            )
        for name in names:  # in the order in which they were named: the first is what others are compared with
            self._begin_turn(name)

    def join(self, worker: Worker) -> tuple[Circumstances, int | None]:
        """See :class:`Work`."""
        return _known(worker, self._backend)

    def joined(self, device: Circumstances) -> None:
        """See :class:`Work`."""
        check_alike(self._first, device, self._mixed)

    def next(self, device: Circumstances) -> str | None:
        """See :class:`Work`."""
        if self._drawing.spent:
            return None
        name = device.device.name
        if monotonic() >= self._due.get(name, -math.inf):
            self._begin_turn(name)
        own = self._own[name]
        entry = own.popleft() if own else self._drawing.next()
        if entry is None:
            return None
        if not self._drawing.out:
            self._since = monotonic()
        self._drawing.out[entry.key] = entry
        return entry.key

    def do(self, job: str, worker: Worker, device: Circumstances) -> Record | Failure:
        """See :class:`Work`."""
        return blamed(worker, self._backend, self._run(self._drawing.out[job], worker, device))

    def over(self, job: str, result: Record | Failure) -> None:
        """See :class:`Work`."""
        self._drawing.over(self._drawing.out.pop(job), result, self._since)
        self._since = monotonic()

    def back(self, job: str) -> None:
        """See :class:`Work`."""
        entry = self._drawing.out.pop(job)
        if BOUND in entry.item:
            self._own[entry.item[BOUND]].appendleft(entry)
        else:
            self._drawing.again(entry)

    def lost(self, failure: Failure) -> None:
        """See :class:`Work`."""
        _LOG.warning("%s; it is tried again while others go on", failure.reason)
        self._book.lost(failure)

    def _begin_turn(self, name: str) -> None:
        turn = {BOUND: name, "turn": self._turns[name]}
        items = [{"family": CALL, "seed": 0, **turn}]
        items += [{"family": COMMON, "seed": number, **turn} for number in range(len(COMMON_NETWORKS))]
        entries = (Entry(key, item, None) for key, item in zip(self._book.add(items), items, strict=True))
        self._own.setdefault(name, deque()).extend(entries)
        self._turns[name] += 1
        self._due[name] = monotonic() + COMMON_EVERY_S


def measure_many(
    models: Iterable[Any],
    backend: str = "onnxruntime_cpu",
    *,
    settings: Mapping[str, Any] = MappingProxyType({}),
    devices: Sequence[str] = ("local",),
    executor: Executor | None = None,
    seconds: float = 3.0,
) -> list[Measurement | NnMeterError]:
    """Measure models, each on the device that is free next; what a lost device had is measured by another.

    Args:
        models: paths, graphs, or what else front ends read; weights that are absent become random.
        settings: of the backend, such as ``threads``.
        devices: their addresses or names (see ``nn-meter devices``).
        executor: takes the models one by one in place of ``devices``, and measures where its tasks run: a
            ``RayExecutor(resources={"board": 1})`` on the nodes of a cluster that were started with a ``board`` each,
            one model at a time. Paths are those of the node then.
        seconds: for each model.

    Returns:
        For each model its measurement, whose ``environment`` says the device (``MEASURED_ON``), or why there is none.

    Raises:
        BackendError: no such backend or setting, or a runtime that is not on a device.
        DeviceError: no such device, or one that refuses from the start.
        InputError: no seconds.
    """
    if not seconds > 0:
        raise InputError(f"seconds={seconds:g}: give each model some time, as in seconds=3")
    chosen, given = Named(backend, dict(settings)), list(models)
    chosen.load()
    plan = Plan(rounds=math.ceil(seconds / Plan().turn_s), budget_s=seconds)
    if executor is not None:
        return spread(partial(_alone, chosen, plan), given, executor=executor, piece=1)
    answers: dict[int, Measurement | NnMeterError] = {}

    def told(place: int, taken: Measurement | Failure) -> None:
        answers[place] = _answer(given[place], taken)

    try:
        measure_on(links_to(devices), chosen, given, plan, told)
    except MeasurementError as error:  # no device is left
        return [answers.get(place, error) for place in range(len(given))]
    return [answers[place] for place in range(len(given))]


def measure_on(
    links: Sequence[Link],
    backend: Named,
    models: Sequence[Any],
    plan: Plan,
    told: Callable[[int, Measurement | Failure], None],
) -> None:
    """Measure models, or subjects, on the devices at the ends of ``links``; ``told`` hears of each that is over, by its
    place.

    Raises:
        MeasurementError: all devices were lost.
        NnMeterError: a device that refuses from the start.
    """
    with Fleet(links, timeout_s=TIMEOUT_S) as fleet:
        fleet.run(_Models(backend, models, plan, told))


class _Models:
    """``Work`` of a fleet: models, by their places."""

    def __init__(
        self, backend: Named, models: Sequence[Any], plan: Plan, told: Callable[[int, Measurement | Failure], None]
    ) -> None:
        self._backend, self._models, self._plan = backend, models, plan
        self._queue = deque(range(len(models)))
        self.over = told

    def join(self, worker: Worker) -> tuple[Circumstances, int | None]:
        """See :class:`Work`."""
        return _known(worker, self._backend)

    def joined(self, device: Circumstances) -> None:
        """See :class:`Work`."""

    def next(self, device: Circumstances) -> int | None:
        """See :class:`Work`."""
        return self._queue.popleft() if self._queue else None

    def do(self, job: int, worker: Worker, device: Circumstances) -> Measurement | Failure:
        """See :class:`Work`."""
        source = source_of(self._models[job], worker.attach)
        if isinstance(source, Failure):
            return source
        facts = {**device.facts(), MEASURED_ON: device.device.name}
        taken = worker.call(measure_models, self._backend, [source], self._plan, facts)
        return blamed(worker, self._backend, taken if isinstance(taken, Failure) else taken[0])

    def back(self, job: int) -> None:
        """See :class:`Work`."""
        self._queue.appendleft(job)

    def lost(self, failure: Failure) -> None:
        """See :class:`Work`."""
        _LOG.warning("%s; it is tried again while others go on", failure.reason)


def _alone(backend: Named, plan: Plan, models: Sequence[Any]) -> list[Measurement | NnMeterError]:
    """Measured where this is called."""
    with Bench(backend) as bench:
        return [_answer(model, bench.measure([model], plan)[0]) for model in models]


def _answer(model: Any, taken: Measurement | Failure) -> Measurement | NnMeterError:
    name = model if isinstance(model, str | Path) else getattr(model, "name", type(model).__name__)
    return failed(legible(str(name)), taken) if isinstance(taken, Failure) else taken


def links_to(addresses: Sequence[str]) -> list[Link]:
    """The links to devices, each of which may stand there once.

    Raises:
        DeviceError: one is unknown or stands there twice, or there is none.
    """
    links = [open_link(address) for address in addresses]
    twice = next((each for each, times in Counter(link.address for link in links).items() if times > 1), None)
    if twice or not links:
        raise DeviceError(f"{twice or 'no device'} is named{' twice' if twice else ''}; name each device once")
    return links


def _known(worker: Worker, backend: Named) -> tuple[Circumstances, int | None]:
    """What a device is, by its own name, and how many processors measuring may use there."""
    device = named(ask(worker, backend), worker.link.address)
    return device, device.threads


def blamed(worker: Worker, backend: Named, result: T | Failure) -> T | Failure:
    """A refusal is the device's fault where that says nothing of itself either, as a phone that was unplugged: what
    speaks to it runs here, and goes on."""
    if isinstance(result, Failure) and result.kind == "refused":
        said = worker.call(tell, backend)
        return Failure("lost", said.reason) if isinstance(said, Failure) else result
    return result


def named(where: Circumstances, address: str) -> Circumstances:
    """With a name of its own for each device of a kind: the one that it was given, else what it calls its processor and
    four digits that stand for ``address``, which records do not tell."""
    if address == "local" or any(each.address == address and each.name for each in known()):
        return where
    own = f"{where.device.name} {hashlib.sha256(address.encode()).hexdigest()[:4]}"
    return replace(where, device=replace(where.device, name=own))


def check_alike(first: Circumstances, other: Circumstances, mixed: bool = False) -> None:
    """Raise where two devices cannot share a build.

    Raises:
        DeviceError: they are of different kinds, and not ``mixed``, or measure in different ways.
    """
    own = {*_SINGLE, *(_KIND if mixed else ())}
    facts = [{key: value for key, value in each.facts().items() if key not in own} for each in (first, other)]
    if differences := same_machine(*facts):
        advice = "build for each by itself" if mixed else "build for each kind by itself, or for all in one by --mixed"
        raise DeviceError(f"{other.device.name} is not like {first.device.name}: {'; '.join(differences)}; {advice}")
