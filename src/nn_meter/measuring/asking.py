"""The circumstances of measurements, asked where a backend runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nn_meter.backends.base import Named
from nn_meter.devices import known
from nn_meter.devices.device import Device, Value
from nn_meter.devices.here import here
from nn_meter.devices.link import Link
from nn_meter.errors import BackendError, MeasurementError, NnMeterError
from nn_meter.measuring.isolation import RECONNECTS_S, Failure, Worker
from nn_meter.measuring.records import Circumstances


def ask(worker: Worker, backend: Named) -> Circumstances:
    """The device, the runtime and its settings where ``worker`` runs. Devices across a link are noted among those that
    were seen, and go by the names that they were given.

    Raises:
        BackendError: the runtime refuses, or is not installed there.
        DeviceError: the device refuses.
        MeasurementError: the process dies of it, or the device is lost.
        StorageError: the list of devices cannot be written.
    """
    answer = worker.call(tell, backend)
    if isinstance(answer, Failure):
        raise failed(f"{backend.name} on {worker.link.address}", answer)
    device, settings = answer
    if worker.link.address != "local":
        device = replace(device, name=known.seen(worker.link.address, device).name or device.name)
    threads = settings.get("threads", 1)
    return Circumstances(
        device,
        str(settings.get("runtime", backend.name)),
        str(settings.get("runtime_version", "")),
        threads=threads if isinstance(threads, int) else 1,
        settings=settings,
    )


def measurer(
    backend: Named, link: Link, timeout_s: float, lost: Callable[[Failure], None] | None
) -> tuple[Circumstances, Worker]:
    """The circumstances where ``backend`` runs, and a worker there that measures: on as many processors as the runtime
    has threads, and with patience for a lost link, of which ``lost`` hears. Errors as of ``ask``."""
    with Worker(timeout_s=timeout_s, link=link) as worker:
        where = ask(worker, backend)
    return where, Worker(timeout_s=timeout_s, processors=where.threads, link=link, waits_s=RECONNECTS_S, lost=lost)


def tell(backend: Named) -> tuple[Device, dict[str, Value]]:
    """What machine and backend say of themselves; called where they are."""
    loaded = backend.load()
    device = getattr(loaded, "device", here)  # a program's phone is not where the worker runs
    return device(), dict(loaded.check())


def failed(what: str, failure: Failure) -> NnMeterError:
    """The error that a failure is to somebody who wanted this one result."""
    kind = BackendError if failure.kind == "refused" else MeasurementError
    return kind(f"{what}: {failure.reason}")
