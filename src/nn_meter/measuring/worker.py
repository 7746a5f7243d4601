"""The program that measures on a device: ``python -m nn_meter.measuring.worker``.

It reads requests and writes answers, a line of JSON each, on its standard streams; whoever started it is at their other
end, here or across a link. A request names a task, a function of a module, with its arguments as ``wire`` writes them::

    {"processors": 1}                                                 -> nn-meter is ready: 3.0.0
    {"file": "name.onnx", "data": "base64", "first": true}            -> {"value": null} or {"failure": {..}}
    {"task": "package.module:function", "args": [..], "told": false}  -> {"value": ..} or {"failure": {..}}

With ``told`` the function gets a callback ``progress``, and what it hears is sent before the answer, as
``{"heard": [..]}``. A file comes in pieces, in order, into the folder that the program works in. What a runtime prints
goes to standard error. The program ends with its standard input, whatever it is doing then.
"""

from __future__ import annotations

import argparse
import base64
import inspect
import json
import os
import queue
import signal
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import IO, Any, get_type_hints

from nn_meter import __version__
from nn_meter.devices.here import end_with
from nn_meter.errors import NnMeterError
from nn_meter.measuring import wire

_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "failed to allocate memory")


def main() -> None:
    """Answer requests until there are no more."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, help="process of this machine to end with, even by SIGKILL")
    if (parent := parser.parse_args().parent) is not None:
        end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = _streams()
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    Thread(target=_listen, args=(requests, waiting), daemon=True).start()

    def write(message: object) -> None:
        answers.write(json.dumps(message).encode() + b"\n")

    processors = measuring_cpus(json.loads(waiting.get())["processors"] or 0)
    if processors is not None:
        os.sched_setaffinity(0, processors)
    answers.write(f"{wire.READY}{__version__}\n".encode())
    while True:
        request = json.loads(waiting.get())
        if "file" in request:
            write(keep(request))
        else:
            write(answer(request, lambda *heard: write({"heard": wire.to_json(heard)})))


def keep(request: dict[str, Any]) -> dict[str, Any]:
    """A piece of a file, put where the program works."""
    try:
        with Path(request["file"]).open("wb" if request["first"] else "ab") as file:
            file.write(base64.b64decode(request["data"]))
        return {"value": None}
    except OSError as error:
        where = "the model cannot be written on the device"
        return _failed("refused", f"{where} ({error.strerror}); free some space where its temporary files lie")


def measuring_cpus(threads: int) -> frozenset[int] | None:
    """As many processors as a runtime has threads, for a process that measures: the last of those that this one may
    use. ``None``, which is no limit, where the system has no affinity or too few.

    A runtime's thread that moves between processors, or a model whose thread stays on one that is slower just then,
    differs by as much as a third from the same model elsewhere.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))
    return frozenset(allowed[-threads:]) if 0 < threads <= len(allowed) else None


def answer(request: dict[str, Any], heard: Callable[..., None]) -> dict[str, Any]:
    """What the task of a request returns, or why it did not."""
    try:
        task = resolve(request["task"])
        hints = get_type_hints(task)
        names = inspect.signature(task).parameters
        given = [wire.from_json(hints[name], each) for name, each in zip(names, request["args"], strict=False)]
        more = {"progress": heard} if request["told"] else {}
        return {"value": wire.to_json(task(*given, **more))}
    except NnMeterError as error:
        return _failed("refused", str(error))
    except MemoryError as error:
        return _failed("memory", str(error) or "memory ran out")
    except Exception as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
        spent = any(text in reason.lower() for text in _OUT_OF_MEMORY)
        return _failed("memory" if spent else "crash", reason)


def resolve(name: str) -> Callable[..., Any]:
    """The function that ``module:function`` names."""
    module, _, attribute = name.partition(":")
    task: Callable[..., Any] = getattr(import_module(module), attribute)
    return task


def _failed(kind: str, reason: str) -> dict[str, Any]:
    return {"failure": {"kind": kind, "reason": reason}}


def _streams() -> tuple[IO[bytes], IO[bytes]]:
    """Standard input and output for requests and answers alone: everybody else reads nothing and prints to standard
    error, C libraries included."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, answers


def _listen(requests: IO[bytes], waiting: queue.SimpleQueue[bytes]) -> None:
    for line in requests:
        waiting.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
