"""Several devices that take from one queue, each as soon as it is free.

What a device was given is leased to it: where the link is lost, or nothing comes back in time, the work goes back and
the device that is free next takes it. A lost device is tried again while the others go on. Leases live in the process
that holds the queue and nowhere else: it alone writes down what is over, and the devices' processes end with it.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Hashable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as first_of
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any, Protocol, TypeVar

from nn_meter.devices.link import Link
from nn_meter.errors import BackendError, MeasurementError, NnMeterError
from nn_meter.measuring.isolation import CUTS, RECONNECTS_S, START_LIMIT_S, Failure, Worker
from nn_meter.storage import Closing

_LOG = logging.getLogger(__name__)

T = TypeVar("T", bound=Hashable)
D = TypeVar("D")

_MARGIN_S = 15.0
"""What a call may take beyond its limits: to see how a process ended, and to end it."""


class Work(Protocol[T, D]):
    """What a fleet does. ``join`` and ``do`` are called in a thread of the device, all else in the one that runs the
    fleet. ``D`` is what is known of a device."""

    def join(self, worker: Worker) -> tuple[D, int | None]:
        """What is known of the device, and how many processors the process that measures may use there.

        Raises:
            NnMeterError: it is no good; a ``MeasurementError`` where it is only away; a ``BackendError`` may be either.
        """

    def joined(self, device: D) -> None:
        """A device is there, for the first time or again.

        Raises:
            DeviceError: it may not take part.
        """

    def next(self, device: D) -> T | None:
        """What that device shall do now; ``None`` for nothing, or not before something else is over."""

    def do(self, job: T, worker: Worker, device: D) -> Any:
        """Do it; a ``Failure`` of the kind ``"lost"`` is the device's and not the job's."""

    def over(self, job: T, result: Any) -> None:
        """It is done, or failed for good."""

    def back(self, job: T) -> None:
        """It is not done: its device was lost."""

    def lost(self, failure: Failure) -> None:
        """A device was lost."""


@dataclass
class _Member:
    """A device as the fleet sees it: ``device`` is ``None`` while it is away, ``job`` while it does nothing. ``until``
    ends its lease, and ``late`` says that it was ended; ``again`` is when to try it next, ``gone`` that it did not come
    back within its time, ``out`` that it is no good."""

    worker: Worker
    waits_s: list[float]
    device: Any = None
    job: Any = None
    call: Future[Any] | None = None
    again: float = -math.inf
    until: float = math.inf
    late: bool = False
    gone: bool = False
    out: bool = False
    why: str = ""


class Fleet(Closing):
    """Devices at the ends of ``links``.

    Args:
        timeout_s: Limit of one task on a device, as for ``Worker``.
        waits_s: A lost device is tried again after each of these seconds, and then, where others are there, after the
            last of them for ever.
        lease_s: How long a device may have a job; by default what a call may take by its own limits, so that what takes
            longer is a link that hangs.
    """

    def __init__(
        self,
        links: Sequence[Link],
        *,
        timeout_s: float,
        waits_s: Sequence[float] = RECONNECTS_S,
        lease_s: float | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._waits_s = waits_s
        self._lease_s = timeout_s + START_LIMIT_S + _MARGIN_S if lease_s is None else lease_s
        self._members = [_Member(self._worker(link), list(waits_s)) for link in links]
        self._cuts: Counter[Hashable] = Counter()
        self._threads = ThreadPoolExecutor(len(links), "nn-meter-fleet")

    def run(self, work: Work[T, D]) -> None:
        """Work until there is nothing more to do for any device that is there.

        Raises:
            MeasurementError: all devices were lost, and none came back; says why.
            NnMeterError: a device is no good from the start; one that turns out so later is left out.
        """
        while True:
            for member in self._members:
                if member.call is None and not member.out:
                    self._begin(member, work)
            if all(each.job is None for each in self._members):
                if any(each.device is not None for each in self._members):
                    return
                if all(each.gone or each.out for each in self._members):
                    raise self._all_lost()
            self._wait()
            for member in self._members:
                if member.call is not None:
                    self._end(member, member.call, work)

    def close(self) -> None:
        """End all processes; what was under way is not done."""
        while calls := [each.call for each in self._members if each.call is not None and not each.call.done()]:
            for member in self._members:
                member.worker.close()
            first_of(calls, timeout=0.1)
        for member in self._members:
            member.worker.close()
        self._threads.shutdown()

    def _worker(self, link: Link, processors: int | None = None) -> Worker:
        return Worker(timeout_s=self._timeout_s, processors=processors, link=link)

    def _begin(self, member: _Member, work: Work[T, D]) -> None:
        now = monotonic()
        if member.device is None:
            if now >= member.again:
                member.call, member.until = self._threads.submit(work.join, member.worker), math.inf
            return
        member.job = work.next(member.device)
        if member.job is not None:
            member.until = now + self._lease_s
            member.call = self._threads.submit(work.do, member.job, member.worker, member.device)

    def _wait(self) -> None:
        """Until something is over, a lease ends, or a lost device is to be tried again."""
        calls = [each.call for each in self._members if each.call is not None]
        ends = [each.until for each in self._members if each.job is not None]
        ends += [each.again for each in self._members if each.call is None and each.device is None and not each.out]
        left_s = max(min(ends, default=math.inf) - monotonic(), 0.0)
        if calls:
            first_of(calls, None if math.isinf(left_s) else left_s, FIRST_COMPLETED)
        else:
            sleep(left_s)

    def _end(self, member: _Member, call: Future[Any], work: Work[T, D]) -> None:
        if not call.done():
            if member.job is not None and monotonic() >= member.until:
                member.late = True
                member.worker.close()  # which ends the call
                where = member.worker.link.address
                self._lose(member, Failure("lost", f"{where} held its work for more than {self._lease_s:g} s"), work)
            return
        member.call = None
        if member.late:
            member.late = False
            return
        job = member.job
        try:
            result = call.result()
            if job is None:
                self._join(member, result, work)
        except NnMeterError as error:
            away = job is None and isinstance(error, MeasurementError)
            if not away and job is None and member.again == -math.inf:  # from the start
                raise
            if not away and not (job is None and isinstance(error, BackendError)):  # which may be a phone that is away
                member.out = True
                _LOG.warning("%s is left out from now on: %s", member.worker.link.address, error)
            result = Failure("lost", str(error))
        if isinstance(result, Failure) and result.kind == "lost":
            self._lose(member, result, work)
        elif job is not None:
            member.job = None
            work.over(job, result)

    def _join(self, member: _Member, told: tuple[D, int | None], work: Work[T, D]) -> None:
        device, processors = told
        work.joined(device)
        member.worker.close()
        member.worker = self._worker(member.worker.link, processors)
        member.device, member.gone, member.waits_s = device, False, list(self._waits_s)

    def _lose(self, member: _Member, failure: Failure, work: Work[T, D]) -> None:
        if member.device is not None:
            work.lost(failure)
        job, member.job, member.device, member.why = member.job, None, None, failure.reason
        member.gone = member.late or not member.waits_s
        member.again = monotonic() + (member.waits_s.pop(0) if member.waits_s else self._waits_s[-1])
        if job is None:
            return
        self._cuts[job] += 1
        if self._cuts[job] == CUTS:  # it is what cuts the links
            work.over(job, failure)
        else:
            work.back(job)

    def _all_lost(self) -> MeasurementError:
        said = "; ".join(each.why for each in self._members)
        return MeasurementError(f"no device is left ({said}; none came back within {sum(self._waits_s):g} s)")
