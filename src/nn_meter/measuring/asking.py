"""The circumstances of measurements, asked where a backend runs."""

from __future__ import annotations

from nn_meter.backends.base import Named
from nn_meter.devices.device import Device, Value
from nn_meter.devices.here import here
from nn_meter.errors import BackendError, MeasurementError, NnMeterError
from nn_meter.measuring.isolation import Failure, Worker
from nn_meter.measuring.records import Circumstances


def ask(worker: Worker, backend: Named) -> Circumstances:
    """The device, the runtime and its settings where ``worker`` runs.

    Raises:
        BackendError: the runtime refuses, or is not installed there.
        MeasurementError: the process dies of it, or the device is lost.
    """
    answer = worker.call(tell, backend)
    if isinstance(answer, Failure):
        raise failed(f"{backend.name} on {worker.link.address}", answer)
    device, settings = answer
    threads = settings.get("threads", 1)
    return Circumstances(
        device,
        str(settings.get("runtime", backend.name)),
        str(settings.get("runtime_version", "")),
        threads=threads if isinstance(threads, int) else 1,
        settings=settings,
    )


def tell(backend: Named) -> tuple[Device, dict[str, Value]]:
    """What machine and backend say of themselves; called where they are."""
    return here(), dict(backend.load().check())


def failed(what: str, failure: Failure) -> NnMeterError:
    """The error that a failure is to somebody who wanted this one result."""
    kind = BackendError if failure.kind == "refused" else MeasurementError
    return kind(f"{what}: {failure.reason}")
